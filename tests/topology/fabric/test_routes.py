from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.model import FabricState, NvlinkFabric
from fleet.wiring import (
    EndKind,
    GpuPort,
    P2pState,
    P2pStatus,
    PcieBridge,
    PortEnd,
    PortTechnology,
    Wiring,
)
from tests.topology.fabric.factories import (
    MODELS,
    fabric_of,
    fleet_of,
    is_canonical,
    joined,
    make_gpu,
    node_graph,
    ports_to,
    rewired,
    route_between,
    snapshot,
    unreachable_between,
    with_port_down,
)
from topology.errors import FabricError
from topology.fabric.from_fleet import Fabric
from topology.fabric.link_figures import load_link_figures
from topology.fabric.routes import (
    HopPlace,
    LinkKind,
    Route,
    UnreachableReason,
    inside_route,
)

FIGURES = load_link_figures()
SMALL_FLEETS = {
    "dgx1-v100": "node:3 leaf:8",
    "dgx-a100": "node:3 leaf:16",
    "dgx-h100": "node:3 leaf:16",
    "dgx-h200": "node:2",
    "dgx-b200": "node:2",
    "gb200-nvl72": "node:20",
    "pcie-l40s": "node:3 leaf:8",
    "beowulf-2006": "node:90",
}


def small_fabric(model: str) -> Fabric:
    return fabric_of(f"model:{model} {SMALL_FLEETS[model]}")


def all_routes(fabric: Fabric) -> list[tuple[Route, Route]]:
    """Routes of every pair of a sample of endpoints, there and back."""
    ends = [*fabric.endpoints[:20], *fabric.endpoints[-8:]]
    pairs = [(a, b) for a, b in permutations(dict.fromkeys(ends), 2)]
    return [(fabric.reachable_route(a, b), fabric.reachable_route(b, a)) for a, b in pairs]


@pytest.mark.parametrize("model", MODELS)
def test_a_route_is_the_sum_of_its_endpoints_and_hops(model: str) -> None:
    for route, _ in all_routes(small_fabric(model)):
        hops_s = sum(hop.alpha_s for hop in route.hops)
        assert route.alpha_s == pytest.approx(route.endpoints_s + hops_s, rel=1e-12)
        assert all(hop.alpha_s == FIGURES.edge[hop.kind].alpha_s for hop in route.hops)


@pytest.mark.parametrize("model", MODELS)
def test_a_route_is_as_long_as_its_class_and_never_shorter(model: str) -> None:
    canonical = 0
    for route, _ in all_routes(small_fabric(model)):
        assert route.endpoints_s >= FIGURES.endpoints_s(route.route_class) * (1 - 1e-12)
        assert route.extra_s > -1e-15
        if is_canonical(route):
            canonical += 1
            assert route.alpha_s == pytest.approx(route.route_class.alpha_s, rel=1e-12)
    assert canonical


@pytest.mark.parametrize("model", MODELS)
def test_a_route_is_the_same_there_and_back(model: str) -> None:
    for there, back in all_routes(small_fabric(model)):
        assert there.route_class is back.route_class
        assert there.alpha_s == pytest.approx(back.alpha_s, rel=1e-12)
        assert there.link_bytes_per_s == back.link_bytes_per_s
        assert there.p2p_bytes_per_s == back.p2p_bytes_per_s


@pytest.mark.parametrize("model", MODELS)
def test_hops_connect_from_end_to_end(model: str) -> None:
    fabric = small_fabric(model)
    ends = [*fabric.endpoints[:9], *fabric.endpoints[-3:]]
    for a, b in permutations(ends, 2):
        route = fabric.reachable_route(a, b)
        names = [f"{end.host}:{fabric.node_of[end.host].graph.vertex(end.slot)}" for end in (a, b)]
        assert route.hops[0].source == names[0]
        assert route.hops[-1].destination == names[1]
        for hop, following in pairwise(route.hops):
            assert hop.destination == following.source


@pytest.mark.parametrize(
    ("model", "name", "gigabytes_per_s"),
    [
        ("dgx-a100", "nvlink3_nvswitch", 6 * 2 * 25),
        ("dgx-h100", "nvlink4_nvswitch", (5 + 5 + 4 + 4) * 25),
        ("dgx-h200", "nvlink4_nvswitch", (5 + 5 + 4 + 4) * 25),
        ("dgx-b200", "nvlink5_nvswitch", (9 + 9) * 50),
        ("gb200-nvl72", "nvlink5_nvl72", 18 * 50),
    ],
)
def test_gpus_behind_switches_reach_each_other_with_all_their_links(
    model: str, name: str, gigabytes_per_s: int
) -> None:
    fabric = small_fabric(model)
    route = fabric.reachable_route(fabric.endpoints[0], fabric.endpoints[3])
    assert (route.route_class.name, route.link_kind) == (name, LinkKind.NVLINK)
    assert [hop.bytes_per_s for hop in route.hops] == [gigabytes_per_s * 1e9] * 2
    assert [hop.place for hop in route.hops] == [HopPlace.UP_TO_SWITCH, HopPlace.DOWN_FROM_SWITCH]


def h100_with_ports_down(down: dict[int, tuple[int, ...]]) -> Fabric:
    """Ports 0-4 end at switch 0, 5-9 at 1, 10-13 at 2, 14-17 at 3."""

    def change(_: str, wiring: Wiring) -> Wiring:
        for slot, ports in down.items():
            wiring = with_port_down(wiring, slot, ports)
        return wiring

    return Fabric(rewired(fleet_of("model:dgx-h100 node:1"), change))


@pytest.mark.parametrize(
    ("down", "links"),
    [
        ({3: (7,)}, 5 + 4 + 4 + 4),
        ({3: (7,), 5: (7,)}, 5 + 4 + 4 + 4),
        ({3: (7,), 5: (0,)}, 4 + 4 + 4 + 4),
        ({3: (0, 1, 2, 3, 4)}, 5 + 4 + 4),
        ({3: (0, 1, 2, 3, 4), 5: (5, 6, 7, 8, 9)}, 4 + 4),
    ],
)
def test_bandwidth_is_the_narrower_side_summed_over_shared_switches(
    down: dict[int, tuple[int, ...]], links: int
) -> None:
    fabric = h100_with_ports_down(down)
    for a, b in (("3", "5"), ("5", "3")):
        route = route_between(fabric, f"h100-001:{a}", f"h100-001:{b}")
        assert route.link_bytes_per_s == links * 25e9
    others = route_between(fabric, "h100-001:0", "h100-001:1")
    assert others.link_bytes_per_s == 18 * 25e9


def test_gpus_that_share_no_switch_go_over_pcie() -> None:
    fabric = h100_with_ports_down({3: tuple(range(10)), 5: tuple(range(10, 18))})
    route = route_between(fabric, "h100-001:3", "h100-001:5")
    assert (route.link_kind, route.route_class.name) == (LinkKind.PCI, "pcie_gen5_cross_socket")


DGX1_LINKS = {
    (0, 1): 1, (0, 2): 1, (0, 3): 2, (0, 4): 2, (1, 2): 2, (1, 3): 1, (1, 5): 2, (2, 3): 2,
    (2, 6): 1, (3, 7): 1, (4, 5): 1, (4, 6): 1, (4, 7): 2, (5, 6): 2, (5, 7): 1, (6, 7): 2,
}  # fmt: skip
"""NVIDIA's hybrid cube mesh of the DGX-1 with V100: links of each pair that has any."""


def test_the_dgx1_mesh_gives_25_or_50_gigabytes_per_second_and_pcie_elsewhere() -> None:
    fabric = fabric_of("model:dgx1-v100 node:1")
    for a, b in permutations(range(8), 2):
        route = route_between(fabric, f"dgx1-001:{a}", f"dgx1-001:{b}")
        links = DGX1_LINKS.get((min(a, b), max(a, b)), 0)
        if links:
            assert (route.link_kind, len(route.hops)) == (LinkKind.NVLINK, 1)
            assert route.link_bytes_per_s == links * 25e9
            assert route.route_class.name == "nvlink2_direct"
        else:
            assert route.link_kind is LinkKind.PCI
            assert route.route_class.name == "pcie_gen3_cross_socket"


@pytest.mark.parametrize(
    ("a", "b", "name"),
    [
        (0, 1, "pcie_gen4_x16_switch"),
        (0, 2, "pcie_gen4_root_complex"),
        (0, 4, "pcie_gen4_cross_socket"),
    ],
)
def test_a_pcie_route_is_of_the_class_of_what_it_crosses(a: int, b: int, name: str) -> None:
    fabric = fabric_of("model:pcie-l40s node:1")
    route = route_between(fabric, f"l40s-001:{a}", f"l40s-001:{b}")
    assert route.route_class.name == name
    assert is_canonical(route)


def pcie_pair(*, generation: int = 5, p2p: tuple[P2pStatus, ...] = (), ports: int = 0) -> Wiring:
    return Wiring(
        bridges=(PcieBridge(bridge=0, numa=0, pcie_generation=generation),),
        gpus=tuple(
            make_gpu(
                slot,
                bridge=0,
                pcie_generation=generation,
                ports=ports_to(EndKind.GPU, 1 - slot, ports),
            )
            for slot in (0, 1)
        ),
        p2p=p2p,
    )


def route_inside(wiring: Wiring, a: int = 0, b: int = 1) -> Route:
    route = inside_route(node_graph(wiring), "h", a, b, FIGURES)
    assert isinstance(route, Route)
    return route


@pytest.mark.parametrize(("generation", "called"), [(1, 3), (3, 3), (4, 4), (6, 6), (7, 6)])
def test_every_pcie_generation_has_a_class(generation: int, called: int) -> None:
    route = route_inside(pcie_pair(generation=generation))
    assert route.route_class.name == f"pcie_gen{called}_x16_switch"


def status(state: P2pState, a: int = 0, b: int = 1) -> P2pStatus:
    return P2pStatus(a=a, b=b, read=state, write=state)


@pytest.mark.parametrize("state", [s for s in P2pState if s is not P2pState.OK])
def test_without_peer_access_messages_go_through_host_memory(state: P2pState) -> None:
    for a, b in ((0, 1), (1, 0)):
        route = route_inside(pcie_pair(p2p=(status(state, a, b),)))
        assert route.route_class.name == "pcie_gen5_host_memory"
        assert route.p2p_bytes_per_s == pytest.approx(0.6 * 63e9)


def test_peer_access_of_another_pair_and_silence_count_as_access() -> None:
    assert route_inside(pcie_pair()).route_class.name == "pcie_gen5_x16_switch"
    told = pcie_pair(p2p=(status(P2pState.OK),))
    assert route_inside(told).route_class.name == "pcie_gen5_x16_switch"


def test_nvlink_needs_no_peer_access_row() -> None:
    wiring = pcie_pair(p2p=(status(P2pState.CHIPSET),), ports=4)
    assert route_inside(wiring).route_class.name == "nvlink4_direct"


def test_infinity_fabric_routes_are_of_their_own_class() -> None:
    gpus = tuple(
        make_gpu(
            slot,
            compute_capability="gfx942",
            ports=[
                GpuPort(
                    count=1,
                    end=PortEnd(kind=EndKind.GPU, index=1 - slot),
                    technology=PortTechnology.XGMI,
                )
            ],
        )
        for slot in (0, 1)
    )
    route = route_inside(Wiring(gpus=gpus))
    assert (route.route_class.name, route.link_kind) == ("xgmi_direct", LinkKind.NVLINK)
    assert route.link_bytes_per_s == 64e9


@pytest.mark.parametrize(
    ("kind", "index", "message"),
    [
        (EndKind.GPU, 1, "gpus[0].ports: no route class for NVLink 6 between GPUs"),
        (EndKind.SWITCH, 0, "gpus[0].ports: no route class for NVLink 6.0 over switches"),
    ],
)
def test_an_nvlink_version_without_class_is_refused(
    kind: EndKind, index: int, message: str
) -> None:
    gpus = tuple(
        make_gpu(
            slot,
            ports=[
                GpuPort(
                    port=0,
                    version="6.0",
                    end=PortEnd(kind=kind, index=index if kind is EndKind.SWITCH else 1 - slot),
                )
            ],
        )
        for slot in (0, 1)
    )
    with pytest.raises(FabricError) as caught:
        route_inside(Wiring(gpus=gpus))
    assert str(caught.value) == f"{message}; add one to link_figures.toml with its source"


@pytest.mark.parametrize(
    ("indices", "name"),
    [
        ((2,), "h:nvswitch2"),
        ((0, 1, 2, 3), "h:nvswitch0-3"),
        ((0, None), "h:nvswitch-hidden+nvswitch0"),
    ],
)
def test_shared_switches_are_one_hop_with_a_name_of_them_all(
    indices: tuple[int | None, ...], name: str
) -> None:
    ports = [
        port
        for i, index in enumerate(indices)
        for port in ports_to(EndKind.SWITCH, index, 2, first=2 * i)
    ]
    route = route_inside(Wiring(gpus=tuple(make_gpu(slot, ports=ports) for slot in (0, 1))))
    assert route.hops[0].destination == name
    assert route.hops[0].count == 2 * len(indices)
    assert route.link_bytes_per_s == 2 * len(indices) * 25e9


def test_an_endpoint_and_itself_are_no_route() -> None:
    answer = unreachable_between(fabric_of("model:dgx-h100 node:1"), "h100-001:0", "h100-001:0")
    assert answer.reason is UnreachableReason.SAME_ENDPOINT


def test_gpus_whose_wiring_nobody_reported_are_unreachable() -> None:
    fabric = joined([snapshot("a", Wiring(gpus=(make_gpu(0), make_gpu(1))))])
    answer = unreachable_between(fabric, "a:0", "a:1")
    assert answer.reason is UnreachableReason.WIRING_UNKNOWN
    assert answer.text == (
        "a: how gpu0 and gpu1 are wired is not reported; add nvidia-smi topo -m of the same node"
    )


def test_gpus_of_one_node_in_two_cliques_do_not_meet_by_nvlink() -> None:
    ports = ports_to(EndKind.DOMAIN_SWITCH, 0, 2)
    wiring = Wiring(
        gpus=tuple(make_gpu(s, numa=0, compute_capability="10.0", ports=ports) for s in (0, 1))
    )

    def clique(slot: int) -> NvlinkFabric:
        return NvlinkFabric(state=FabricState.DOMAIN, cluster_uuid="rack", clique=slot)

    fabric = joined([snapshot("a", wiring, clique)])
    assert route_between(fabric, "a:0", "a:1").link_kind is LinkKind.PCI


@given(
    counts=st.lists(
        st.tuples(*(st.integers(min_value=0, max_value=5) for _ in range(2))),
        min_size=1,
        max_size=5,
    )
)
def test_switched_bandwidth_is_the_sum_of_the_narrower_sides(
    counts: list[tuple[int, int]],
) -> None:
    def gpu(slot: int, links: list[int]) -> object:
        ports = [
            p
            for switch, count in enumerate(links)
            for p in ports_to(EndKind.SWITCH, switch, count, first=10 * switch)
        ]
        return make_gpu(slot, numa=0, ports=ports)

    sides = [[pair[i] for pair in counts] for i in (0, 1)]
    wiring = Wiring.model_validate({"gpus": tuple(gpu(i, sides[i]) for i in (0, 1))})
    links = sum(min(pair) for pair in counts)
    for a, b in ((0, 1), (1, 0)):
        route = route_inside(wiring, a, b)
        if links:
            assert route.link_bytes_per_s == links * 25e9
        else:
            assert route.link_kind is LinkKind.PCI


@given(links=st.integers(min_value=1, max_value=18))
def test_a_link_more_is_never_slower(links: int) -> None:
    fewer, more = (
        route_inside(
            Wiring(
                gpus=tuple(
                    make_gpu(slot, ports=ports_to(EndKind.SWITCH, 0, count)) for slot in (0, 1)
                )
            )
        )
        for count in (links, links + 1)
    )
    assert more.p2p_bytes_per_s > fewer.p2p_bytes_per_s
    assert more.alpha_s == fewer.alpha_s

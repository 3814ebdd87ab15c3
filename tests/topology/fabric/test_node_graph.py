from collections import Counter
from pathlib import Path

import pytest

from fleet.sources.registry import gather_files
from fleet.wiring import (
    EndKind,
    GpuPort,
    LinkLayer,
    LinkState,
    NicPort,
    NicSlot,
    NumaNode,
    PcieLevel,
    PortEnd,
    PortTechnology,
    Wiring,
)
from tests.topology.fabric.factories import (
    fabric_of,
    levels,
    make_gpu,
    make_nic,
    node_graph,
    ports_to,
    with_port_down,
)
from tests.topology.fabric.tree_levels import assert_shows_its_levels
from topology.errors import FabricError
from topology.fabric.from_fleet import Fabric
from topology.fabric.graph import Link, links_between
from topology.fabric.node_graph import NodeGraph, is_pcie_vertex


def direct(node: NodeGraph, a: str, b: str) -> Link | None:
    links = links_between(node.graph, a, b)
    assert len(links) <= 1
    return links[0] if links else None


def pair(near: int, far: int, *, version: str = "4.0") -> Wiring:
    """Two GPUs of which one sees ``near`` links to the other and is seen over ``far``."""
    return Wiring(
        gpus=tuple(
            make_gpu(slot, numa=0, ports=ports_to(EndKind.GPU, 1 - slot, count))
            for slot, count in ((0, near), (1, far))
        )
    )


def test_links_of_a_pair_are_one_link_with_their_sum() -> None:
    node = node_graph(pair(4, 4))
    for a, b in (("gpu0", "gpu1"), ("gpu1", "gpu0")):
        link = direct(node, a, b)
        assert link is not None
        assert (link.kind, link.count, link.bytes_per_s) == ("nvlink", 4, 100e9)
    assert node.scale_up == {0: 100e9, 1: 100e9}


@pytest.mark.parametrize(("near", "far"), [(4, 3), (3, 4)])
def test_a_direct_link_is_as_wide_as_the_end_that_sees_less(near: int, far: int) -> None:
    node = node_graph(pair(near, far))
    assert [direct(node, a, b) for a, b in (("gpu0", "gpu1"), ("gpu1", "gpu0"))] == [
        direct(node, "gpu0", "gpu1")
    ] * 2
    link = direct(node, "gpu0", "gpu1")
    assert link is not None
    assert (link.count, link.bytes_per_s) == (3, 75e9)


def test_a_direct_link_that_only_one_end_sees_is_none() -> None:
    node = node_graph(with_port_down(pair(2, 2), 0, (0, 1)))
    assert direct(node, "gpu0", "gpu1") is None
    assert direct(node, "gpu1", "gpu0") is None


def test_a_link_to_a_gpu_that_is_gone_is_none() -> None:
    whole = pair(2, 2)
    node = node_graph(whole.model_copy(update={"gpus": whole.gpus[:1]}))
    assert "gpu1" not in node.graph
    assert node.scale_up == {}


def test_a_link_to_a_switch_goes_both_ways() -> None:
    wiring = Wiring(gpus=(make_gpu(0, ports=ports_to(EndKind.SWITCH, 2, 5)),))
    node = node_graph(wiring)
    up, down = direct(node, "gpu0", "nvswitch2"), direct(node, "nvswitch2", "gpu0")
    assert up == down
    assert up is not None
    assert (up.kind, up.bytes_per_s) == ("nvlink", 125e9)


@pytest.mark.parametrize(
    ("kind", "index", "in_rack_domain", "vertex", "link_kind"),
    [
        (EndKind.SWITCH, 3, False, "nvswitch3", "nvlink"),
        (EndKind.SWITCH, None, False, "nvswitch-hidden", "nvlink"),
        (EndKind.SWITCH, None, True, "domain_switch-hidden", "nvlink_rack"),
        (EndKind.DOMAIN_SWITCH, 5, True, "domain_switch5", "nvlink_rack"),
        (EndKind.DOMAIN_SWITCH, None, True, "domain_switch-hidden", "nvlink_rack"),
    ],
)
def test_the_far_end_of_a_port_is_the_switch_that_the_driver_tells_of(
    kind: EndKind, index: int | None, in_rack_domain: bool, vertex: str, link_kind: str
) -> None:
    wiring = Wiring(gpus=(make_gpu(0, ports=ports_to(kind, index, 2)),))
    node = node_graph(wiring, in_rack_domain=in_rack_domain)
    link = direct(node, "gpu0", vertex)
    assert link is not None
    assert (link.kind, link.count) == (link_kind, 2)


def test_a_hidden_switch_of_a_superchip_is_the_racks() -> None:
    gpu = make_gpu(
        0,
        c2c={"count": 1, "bytes_per_s": 450e9},
        numa=0,
        ports=ports_to(EndKind.SWITCH, None, 18),
    )
    assert "domain_switch-hidden" in node_graph(Wiring(gpus=(gpu,))).graph


@pytest.mark.parametrize("kind", [EndKind.NPU, EndKind.UNREPORTED, EndKind.GPU])
def test_a_port_to_nowhere_known_is_no_link(kind: EndKind) -> None:
    node = node_graph(Wiring(gpus=(make_gpu(0, ports=ports_to(kind, None, 6)),)))
    assert set(node.graph) == {"gpu0"}
    assert node.scale_up == {}


def test_a_port_that_is_down_carries_nothing_and_one_of_unknown_state_does() -> None:
    end = PortEnd(kind=EndKind.SWITCH, index=0)
    ports = [
        GpuPort(port=i, end=end, version="4.0", bytes_per_s=25e9, state=state)
        for i, state in enumerate(LinkState)
    ]
    link = direct(node_graph(Wiring(gpus=(make_gpu(0, ports=ports),))), "gpu0", "nvswitch0")
    assert link is not None
    assert link.bytes_per_s == 50e9


@pytest.mark.parametrize(
    ("version", "rate"), [("1.0", 20e9), ("2.0", 25e9), ("3.1", 14.0625e9), ("5.0", 50e9)]
)
def test_an_unreported_rate_follows_from_the_version(version: str, rate: float) -> None:
    ports = [GpuPort(port=0, count=2, end=PortEnd(kind=EndKind.SWITCH, index=0), version=version)]
    link = direct(node_graph(Wiring(gpus=(make_gpu(0, ports=ports),))), "gpu0", "nvswitch0")
    assert link is not None
    assert link.bytes_per_s == 2 * rate


@pytest.mark.parametrize(
    ("port", "capability", "message"),
    [
        ({"version": "9.9"}, None, "no rate is known for NVLink version 9.9"),
        (
            {"technology": PortTechnology.XGMI},
            "gfx000",
            "no rate is known for Infinity Fabric of gfx000",
        ),
    ],
)
def test_a_rate_that_can_neither_be_read_nor_derived_is_refused(
    port: dict[str, object], capability: str | None, message: str
) -> None:
    ports = [
        GpuPort.model_validate({"port": 7, "end": PortEnd(kind=EndKind.SWITCH, index=0), **port})
    ]
    gpu = make_gpu(3, compute_capability=capability, ports=ports)
    with pytest.raises(FabricError) as caught:
        node_graph(Wiring(gpus=(gpu,)))
    assert str(caught.value) == (
        f"gpus[3].ports[7].bytes_per_s: {message}; "
        "report the rate, or add one to link_figures.toml with its source"
    )


def test_infinity_fabric_takes_its_own_kind_and_rate() -> None:
    def ports(far: int) -> list[GpuPort]:
        end = PortEnd(kind=EndKind.GPU, index=far)
        return [GpuPort(count=1, end=end, technology=PortTechnology.XGMI)]

    node = node_graph(
        Wiring(
            gpus=tuple(make_gpu(i, compute_capability="gfx942", ports=ports(1 - i)) for i in (0, 1))
        )
    )
    link = direct(node, "gpu0", "gpu1")
    assert link is not None
    assert (link.kind, link.bytes_per_s) == ("xgmi", 64e9)


def nic_slots(fabric: Fabric) -> list[int]:
    """NIC of each GPU of the first node, in slot order."""
    node = fabric.nodes[0].graph
    return [node.nic_of_gpu[slot] for slot in node.slots]


@pytest.mark.parametrize("model", ["dgx-h100", "dgx-h200", "dgx-b200"])
def test_each_gpu_of_a_rail_optimised_node_has_its_own_nic(model: str) -> None:
    assert nic_slots(fabric_of(f"model:{model} node:1")) == list(range(8))


def test_gpus_below_one_switch_share_its_two_nics_one_each() -> None:
    assert nic_slots(fabric_of("model:dgx-a100 node:1")) == list(range(8))


@pytest.mark.parametrize("model", ["dgx1-v100", "pcie-l40s"])
def test_pairs_below_one_switch_share_its_nic(model: str) -> None:
    assert nic_slots(fabric_of(f"model:{model} node:1")) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("model", ["dgx-h100", "dgx-a100", "dgx1-v100", "pcie-l40s", "gb200-nvl72"])
def test_a_gpu_with_one_nic_or_a_share_of_one_sends_through_that_alone(model: str) -> None:
    node = fabric_of(f"model:{model} node:1").nodes[0].graph
    assert node.nics_of_gpu == {slot: (nic,) for slot, nic in node.nic_of_gpu.items()}


def test_a_gpu_with_four_nics_below_its_switch_sends_through_all() -> None:
    node = fabric_of("model:dgx-h100 node:1 network:efa-v2 nic:32").nodes[0].graph
    assert node.nic_of_gpu == {slot: 4 * slot for slot in range(8)}
    assert node.nics_of_gpu == {slot: tuple(range(4 * slot, 4 * slot + 4)) for slot in range(8)}


def test_nics_left_over_go_to_the_gpu_with_fewest() -> None:
    rails = tuple(NicPort(port=1, rail=rail) for rail in range(6))
    wiring = Wiring(
        gpus=tuple(make_gpu(slot, numa=0) for slot in range(4)),
        nics=tuple(with_ports(slot, port) for slot, port in enumerate(rails)),
    )
    assert node_graph(wiring).nics_of_gpu == {0: (0, 4), 1: (1, 5), 2: (2,), 3: (3,)}


def test_a_nic_farther_away_or_of_another_kind_or_without_a_rail_is_not_sent_through() -> None:
    first = NicPort(port=1, rail=0)
    for far in (
        with_ports(1, NicPort(port=1, rail=1), numa=1),
        with_ports(1, NicPort(port=1, rail=1, link_layer=LinkLayer.ETHERNET)),
        with_ports(1, NicPort(port=1)),
    ):
        wiring = Wiring(gpus=(make_gpu(0, numa=0),), nics=(with_ports(0, first), far))
        assert node_graph(wiring).nics_of_gpu == {0: (0,)}


def test_gpus_without_a_nearest_nic_spread_over_equals() -> None:
    wiring = Wiring(
        gpus=tuple(make_gpu(slot, numa=0) for slot in range(7)),
        nics=tuple(make_nic(slot, numa=0) for slot in range(3)),
    )
    chosen = node_graph(wiring).nic_of_gpu
    assert chosen == {0: 0, 1: 1, 2: 2, 3: 0, 4: 1, 5: 2, 6: 0}
    assert max(Counter(chosen.values()).values()) == 3


def test_a_nearer_nic_is_taken_though_others_use_it() -> None:
    wiring = Wiring(
        gpus=tuple(make_gpu(slot, numa=0) for slot in range(3)),
        nics=(make_nic(0, numa=1), make_nic(1, numa=0)),
    )
    assert node_graph(wiring).nic_of_gpu == {0: 1, 1: 1, 2: 1}


def with_ports(slot: int, *ports: NicPort, numa: int = 0) -> NicSlot:
    return NicSlot(slot=slot, numa=numa, ports=ports)


def test_a_nic_whose_ports_are_all_down_is_not_used() -> None:
    down, up = (NicPort(port=1, state=state) for state in (LinkState.DOWN, LinkState.UP))
    wiring = Wiring(gpus=(make_gpu(0, numa=0),), nics=(with_ports(0, down), with_ports(1, up)))
    assert node_graph(wiring).nic_of_gpu == {0: 1}


def test_a_nic_that_tells_of_no_port_is_not_used() -> None:
    wiring = Wiring(gpus=(make_gpu(0, numa=0),), nics=(with_ports(0),))
    assert node_graph(wiring).nic_of_gpu == {}


def test_nics_with_a_rail_carry_collectives_and_others_do_not() -> None:
    storage, rail = NicPort(port=1), NicPort(port=1, rail=0)
    wiring = Wiring(gpus=(make_gpu(0, numa=0),), nics=(with_ports(0, storage), with_ports(1, rail)))
    assert node_graph(wiring).nic_of_gpu == {0: 1}


def test_no_gpu_sends_through_another_gpu() -> None:
    """GPU 0 is joined to GPU 1 by NVLink, and only GPU 1 is on PCIe."""
    wiring = Wiring(
        gpus=(
            make_gpu(0, ports=ports_to(EndKind.GPU, 1, 4)),
            make_gpu(1, numa=0, ports=ports_to(EndKind.GPU, 0, 4)),
        ),
        nics=(make_nic(0, numa=0),),
    )
    assert node_graph(wiring).nic_of_gpu == {1: 0}


@pytest.mark.parametrize(
    ("vertex", "passes"),
    [
        ("pcie0", True),
        ("numa1", True),
        ("pcie-gpu0-upper", True),
        ("gpu0", False),
        ("nic0", False),
        ("nvswitch0", False),
    ],
)
def test_pcie_traffic_passes_switches_and_root_complexes_only(vertex: str, passes: bool) -> None:
    assert is_pcie_vertex(vertex) is passes


def test_a_node_without_gpus_is_one_cpu_rank_at_its_first_root() -> None:
    node = node_graph(Wiring(numa_nodes=(NumaNode(numa=2), NumaNode(numa=3))))
    assert (node.slots, node.vertex(0), node.is_gpu_node) == ((0,), "numa2", False)


def test_an_empty_node_still_carries_a_cpu_rank() -> None:
    node = node_graph(Wiring())
    assert (node.slots, node.vertex(0), node.nic_of_gpu) == ((0,), "numa0", {})


def test_affinity_is_what_a_real_matrix_shows_as_pix(artifacts: Path) -> None:
    """GPU rows of the file: each GPU's PIX column; GPU 3 has three, the first is taken."""
    path = artifacts / "nvidia-smi-topo" / "h200-8gpu-10nic-tabs.txt"
    fabric = Fabric(gather_files([path]).fleet)
    assert fabric.nodes[0].graph.nic_of_gpu == {0: 3, 1: 5, 2: 4, 3: 0, 4: 7, 5: 9, 6: 8, 7: 6}


MATRICES_THAT_CONTRADICT_THEMSELVES = {"a10-4gpu-sys-2nic.txt", "pcie-8gpu-all-sys.txt"}
"""They print SYS for GPUs that they put into one NUMA node."""


def test_trees_of_real_matrices_show_the_levels_that_the_matrices_print(artifacts: Path) -> None:
    checked = 0
    for path in sorted((artifacts / "nvidia-smi-topo").iterdir()):
        if path.name in MATRICES_THAT_CONTRADICT_THEMSELVES:
            continue
        for node in Fabric(gather_files([path]).fleet).nodes:
            assert_shows_its_levels(node.graph)
            checked += len(node.graph.wiring.pcie_levels)
    assert checked > 400


def test_matrix_levels_choose_the_nic() -> None:
    rows = {
        ("gpu0", "nic0"): PcieLevel.PXB,
        ("gpu0", "nic1"): PcieLevel.PIX,
        ("nic0", "nic1"): PcieLevel.PXB,
    }
    wiring = Wiring(
        gpus=(make_gpu(0, numa=0),),
        nics=(make_nic(0, numa=0), make_nic(1, numa=0)),
        pcie_levels=levels(rows),
    )
    assert node_graph(wiring).nic_of_gpu == {0: 1}

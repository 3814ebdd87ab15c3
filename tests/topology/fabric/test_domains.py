import pytest

from fleet.fields import HostName
from fleet.model import FabricState, NvlinkFabric
from fleet.wiring import EndKind, Wiring
from tests.topology.fabric.factories import (
    fabric_of,
    fleet_of,
    joined,
    make_gpu,
    ports_to,
    rewired,
    snapshot,
    with_port_down,
)
from topology.fabric.domains import NvlinkDomain
from topology.fabric.from_fleet import Fabric

RACK = "5f7a3c1e-0000-4000-8000-000000000001"


def domain(cluster: str = RACK, clique: int = 1) -> NvlinkFabric:
    return NvlinkFabric(state=FabricState.DOMAIN, cluster_uuid=cluster, clique=clique)


def tray(*, index: int | None = 0) -> Wiring:
    """Two GPUs with two links each to a switch of the rack."""
    ports = ports_to(EndKind.DOMAIN_SWITCH, index, 2)
    return Wiring(
        gpus=tuple(make_gpu(slot, compute_capability="10.0", ports=ports) for slot in (0, 1))
    )


def members(fabric: Fabric) -> list[list[str]]:
    return [[str(endpoint) for endpoint in d.endpoints] for d in fabric.domains]


def test_trays_of_one_cluster_and_clique_are_one_domain() -> None:
    fabric = joined(snapshot(host, tray(), lambda _: domain()) for host in ("a", "b"))
    assert members(fabric) == [["a:0", "a:1", "b:0", "b:1"]]
    assert fabric.domains[0].name == f"{RACK}.1"
    assert fabric.domains[0].hosts == ("a", "b")


@pytest.mark.parametrize("other", [domain(clique=2), domain(cluster="another")])
def test_trays_of_another_cluster_or_clique_stay_apart(other: NvlinkFabric) -> None:
    fabric = joined(
        [snapshot("a", tray(), lambda _: domain()), snapshot("b", tray(), lambda _: other)]
    )
    assert members(fabric) == [["a:0", "a:1"], ["b:0", "b:1"]]


def test_gpus_of_one_tray_in_two_cliques_stay_apart() -> None:
    fabric = joined(snapshot(host, tray(), lambda slot: domain(clique=slot)) for host in ("a", "b"))
    assert members(fabric) == [["a:0", "b:0"], ["a:1", "b:1"]]


def test_a_gpu_whose_fabric_is_broken_is_not_in_the_domain() -> None:
    broken = NvlinkFabric(state=FabricState.BROKEN)
    fabric = joined(
        [
            snapshot("a", tray(), lambda slot: broken if slot else domain()),
            snapshot("b", tray(), lambda _: domain()),
        ]
    )
    assert members(fabric) == [["a:0", "b:0", "b:1"], ["a:1"]]


@pytest.mark.parametrize(
    "state", [FabricState.SINGLE_NODE, FabricState.FORMING, FabricState.BROKEN]
)
def test_nodes_that_no_fabric_joins_stay_apart(state: FabricState) -> None:
    fabric = joined(
        snapshot(host, tray(), lambda _: NvlinkFabric(state=state)) for host in ("a", "b")
    )
    assert members(fabric) == [["a:0", "a:1"], ["b:0", "b:1"]]


def test_nodes_of_which_no_fabric_is_told_stay_apart() -> None:
    fabric = joined(snapshot(host, tray()) for host in ("a", "b"))
    assert members(fabric) == [["a:0", "a:1"], ["b:0", "b:1"]]


def test_a_fabric_without_cluster_joins_nothing() -> None:
    nameless = NvlinkFabric(state=FabricState.DOMAIN)
    fabric = joined(snapshot(host, tray(), lambda _: nameless) for host in ("a", "b"))
    assert members(fabric) == [["a:0", "a:1"], ["b:0", "b:1"]]


def test_hidden_rack_switches_are_one_switch_for_the_domain() -> None:
    fabric = joined(snapshot(host, tray(index=None), lambda _: domain()) for host in ("a", "b"))
    assert members(fabric) == [["a:0", "a:1", "b:0", "b:1"]]


def test_hidden_switches_of_a_node_join_its_gpus_only() -> None:
    hidden = Wiring(
        gpus=tuple(make_gpu(slot, ports=ports_to(EndKind.SWITCH, None, 4)) for slot in (0, 1))
    )
    single = NvlinkFabric(state=FabricState.SINGLE_NODE)
    fabric = joined(snapshot(host, hidden, lambda _: single) for host in ("a", "b"))
    assert members(fabric) == [["a:0", "a:1"], ["b:0", "b:1"]]


def test_a_hidden_switch_of_a_rack_domain_joins_its_trays() -> None:
    hidden = Wiring(
        gpus=tuple(
            make_gpu(slot, compute_capability="10.0", ports=ports_to(EndKind.SWITCH, None, 4))
            for slot in (0, 1)
        )
    )
    fabric = joined(snapshot(host, hidden, lambda _: domain()) for host in ("a", "b"))
    assert members(fabric) == [["a:0", "a:1", "b:0", "b:1"]]


def test_ports_of_unknown_far_end_join_nothing() -> None:
    wiring = Wiring(
        gpus=tuple(make_gpu(slot, ports=ports_to(EndKind.UNREPORTED, None, 4)) for slot in (0, 1))
    )
    fabric = joined([snapshot("a", wiring)])
    assert members(fabric) == [["a:0"], ["a:1"]]
    assert [d.name for d in fabric.domains] == ["a/gpu0", "a/gpu1"]


def test_pairs_joined_by_bridges_are_domains_named_by_their_gpus() -> None:
    wiring = Wiring(
        gpus=tuple(make_gpu(slot, ports=ports_to(EndKind.GPU, slot ^ 1, 4)) for slot in range(4))
    )
    fabric = joined([snapshot("a", wiring)])
    assert [d.name for d in fabric.domains] == ["a/gpu0+gpu1", "a/gpu2+gpu3"]


def test_a_chain_of_direct_links_is_one_domain() -> None:
    ends = {0: (3,), 3: (0, 1), 1: (3, 2), 2: (1,)}
    wiring = Wiring(
        gpus=tuple(
            make_gpu(
                slot,
                ports=[
                    p
                    for i, end in enumerate(ends[slot])
                    for p in ports_to(EndKind.GPU, end, 1, first=i)
                ],
            )
            for slot in range(4)
        )
    )
    assert members(joined([snapshot("a", wiring)])) == [["a:0", "a:1", "a:2", "a:3"]]


@pytest.mark.parametrize(
    ("spec", "sizes"),
    [
        ("model:gb200-nvl72 rack:2", [72, 72]),
        ("model:gb200-nvl72 node:20", [72, 8]),
        ("model:dgx1-v100 node:2", [8, 8]),
        ("model:dgx-h100 node:2", [8, 8]),
        ("model:pcie-l40s node:1", [1] * 8),
        ("model:beowulf-2006 node:3", [1, 1, 1]),
    ],
)
def test_synthetic_models_have_the_domains_of_their_design(spec: str, sizes: list[int]) -> None:
    assert [len(d.endpoints) for d in fabric_of(spec).domains] == sizes


@pytest.mark.parametrize(
    ("model", "reduces"),
    [
        ("dgx1-v100", False),
        ("dgx-a100", False),
        ("dgx-h100", True),
        ("dgx-h200", True),
        ("dgx-b200", True),
        ("gb200-nvl72", True),
        ("pcie-l40s", False),
        ("beowulf-2006", False),
    ],
)
def test_switches_reduce_from_nvlink_4_on(model: str, reduces: bool) -> None:
    assert {d.reduces_in_switch for d in fabric_of(f"model:{model} node:1").domains} == {reduces}


def test_nvlink_4_bridges_reduce_nothing() -> None:
    wiring = Wiring(
        gpus=tuple(make_gpu(slot, ports=ports_to(EndKind.GPU, 1 - slot, 12)) for slot in (0, 1))
    )
    assert [d.reduces_in_switch for d in joined([snapshot("a", wiring)]).domains] == [False]


def test_a_gpu_with_all_ports_down_leaves_the_domain() -> None:
    fleet = rewired(
        fleet_of("model:dgx-h100 node:1"), lambda _, wiring: with_port_down(wiring, 3, range(18))
    )
    fabric = Fabric(fleet)
    assert sorted(len(d.endpoints) for d in fabric.domains) == [1, 7]
    assert fabric.domain_of(fabric.endpoint_from_text("h100-001:3")).endpoints == (
        fabric.endpoint_from_text("h100-001:3"),
    )


def test_every_endpoint_is_in_just_one_domain() -> None:
    for spec in ("model:gb200-nvl72 node:20", "model:pcie-l40s node:2", "model:dgx1-v100 node:2"):
        fabric = fabric_of(spec)
        assert sorted(map(str, (e for d in fabric.domains for e in d.endpoints))) == sorted(
            map(str, fabric.endpoints)
        )


def test_hosts_of_a_domain_stand_once_and_in_order() -> None:
    fabric = fabric_of("model:gb200-nvl72 node:3")
    found: NvlinkDomain = fabric.domains[0]
    assert found.hosts == tuple(HostName(f"gb200-00{i}") for i in (1, 2, 3))

from collections import defaultdict
from collections.abc import Hashable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.model import FabricState, FleetMap, NvlinkFabric
from fleet.wiring import EndKind, Wiring
from tests.topology.fabric.factories import (
    MODELS,
    cable,
    ends_of,
    fabric_of,
    fleet_of,
    joined,
    leaf,
    make_gpu,
    make_nic,
    ports_to,
    rewired,
    snapshot,
    spine,
    with_cables_down,
    with_port_down,
)
from topology.errors import FabricError, UnreachableError
from topology.fabric.from_fleet import Fabric
from topology.fabric.route_table import RouteMap, RouteTable
from topology.fabric.routes import Endpoint, Hop, HopPlace, Route, Unreachable

Pairs = list[tuple[int, int]]


def table_of(routes: RouteMap, pairs: Pairs) -> RouteTable:
    source, destination = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return routes.table(source, destination)


def resource_key(hop: Hop) -> Hashable:
    """What a hop shares with other messages, by its name and not by its number."""
    match hop.place:
        case HopPlace.UP_TO_SWITCH | HopPlace.NIC_OUT:
            return "out of", hop.source
        case HopPlace.DOWN_FROM_SWITCH | HopPlace.NIC_IN:
            return "into", hop.destination
        case HopPlace.LEAF_UP:
            return "up from", hop.source
        case HopPlace.LEAF_DOWN:
            return "down to", hop.destination
    return hop.source, hop.destination


def what_counts(route: Route) -> object:
    """A route without the names of its vertices."""
    hops = [(hop.kind, hop.place, hop.bytes_per_s, hop.count) for hop in route.hops]
    return route.route_class.name, route.alpha_s, route.link_kind, route.in_switch, hops


def idle(table: RouteTable) -> int:
    return len(table.bytes_per_s) - 1


def used(table: RouteTable, pair: int) -> list[int]:
    """Resources of a pair, in the order of its hops."""
    return [int(r) for r in table.resources[pair] if r != idle(table)]


def uplinks_bytes_per_s(fleet: FleetMap, switch: str) -> float:
    return sum(
        c.bytes_per_s
        for c in fleet.cables
        if c.state == "up" and c.a.nic is None and switch in (c.a.device, c.b.device)
    )


def test_two_gpus_of_a_node_share_only_their_own_nvlinks() -> None:
    fabric = fabric_of("model:dgx-h100 node:3 leaf:16")
    table = table_of(RouteMap(fabric, ends_of(fabric, "h100-001:0", "h100-001:1")), [(0, 1)])
    assert [table.bytes_per_s[r] for r in used(table, 0)] == [450e9, 450e9]


def test_two_gpus_of_a_leaf_share_pcie_and_nic_ports() -> None:
    fabric = fabric_of("model:dgx-h100 node:3 leaf:16")
    table = table_of(RouteMap(fabric, ends_of(fabric, "h100-001:0", "h100-002:0")), [(0, 1)])
    assert [table.bytes_per_s[r] for r in used(table, 0)] == [63e9, 63e9, 50e9, 50e9, 63e9, 63e9]


def test_two_gpus_of_two_leaves_share_the_uplinks_of_both() -> None:
    fleet = fleet_of("model:dgx-h100 node:3 leaf:16")
    fabric = Fabric(fleet)
    table = table_of(RouteMap(fabric, ends_of(fabric, "h100-001:0", "h100-003:1")), [(0, 1)])
    up = uplinks_bytes_per_s(fleet, "leaf01-rail0")
    down = uplinks_bytes_per_s(fleet, "leaf02-rail1")
    assert [table.bytes_per_s[r] for r in used(table, 0)] == [
        63e9, 63e9, 50e9, up, down, 50e9, 63e9, 63e9,
    ]  # fmt: skip
    assert up == down == 2 * 50e9


def test_a_gpu_with_four_nics_shares_all_four_and_the_uplinks_of_their_leaves() -> None:
    fleet = fleet_of("model:dgx-h100 node:3 leaf:64 network:efa-v2 nic:32")
    fabric = Fabric(fleet)
    table = table_of(RouteMap(fabric, ends_of(fabric, "h100-001:0", "h100-003:1")), [(0, 1)])
    up = sum(uplinks_bytes_per_s(fleet, f"leaf01-rail{rail}") for rail in range(4))
    assert up == 4 * 2 * 12.5e9
    assert [table.bytes_per_s[r] for r in used(table, 0)] == [
        63e9, 4 * 63e9, 50e9, up, up, 50e9, 4 * 63e9, 63e9,
    ]  # fmt: skip


def test_a_table_of_no_pairs_is_empty() -> None:
    fabric = fabric_of("model:dgx-h100 node:1")
    table = table_of(RouteMap(fabric, fabric.endpoints), [])
    assert (table.routes, table.route_of.shape, len(table.resources)) == ((), (0,), 0)


@pytest.mark.parametrize("most", [1, 5, 2**20])
def test_tables_of_many_steps_are_those_of_each_alone(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("topology.fabric.route_table._MOST_AT_ONCE", most)
    fabric = fabric_of("model:dgx-h100 node:3")
    routes = RouteMap(fabric, fabric.endpoints)
    steps: list[Pairs] = [[(0, 1), (8, 9)], [(0, 8)], [], [(0, 24), (25, 8), (1, 23)], [(2, 3)]]
    arrays = [np.array(pairs, dtype=np.int64).reshape(-1, 2).T for pairs in steps]
    together = routes.tables([(source, destination) for source, destination in arrays])
    for pairs, table in zip(steps, together, strict=True):
        alone = table_of(routes, pairs)
        assert table.routes == alone.routes
        assert table.route_of.tolist() == alone.route_of.tolist()
        assert table.resources.tolist() == alone.resources.tolist()
    assert routes.tables([]) == ()


def test_what_no_hop_uses_is_infinitely_wide() -> None:
    fabric = fabric_of("model:dgx-h100 node:2")
    table = table_of(RouteMap(fabric, fabric.endpoints), [(0, 1), (0, 9)])
    assert table.bytes_per_s[-1] == np.inf
    assert len(used(table, 0)) == 2
    assert len(used(table, 1)) == 8


def test_pairs_of_one_kind_share_one_route() -> None:
    fabric = fabric_of("model:dgx-h100 node:32")
    ranks = range(len(fabric.endpoints))
    routes = RouteMap(fabric, fabric.endpoints)
    across = table_of(routes, [(r, (r + 8) % len(ranks)) for r in ranks])
    assert len(across.routes) == 8, "one for each slot"
    assert {route.route_class.name for route in across.routes} == {"ib_ndr_1hop"}


def test_a_pair_that_no_link_joins_is_refused() -> None:
    fleet = with_cables_down(fleet_of("model:dgx-h100 node:2"), lambda c: c.a.device == "h100-002")
    fabric = Fabric(fleet)
    routes = RouteMap(fabric, fabric.endpoints)
    assert table_of(routes, [(0, 1)]).routes
    with pytest.raises(UnreachableError, match="h100-001:0 -> h100-002:0: no_cable: no cable from"):
        table_of(routes, [(0, 1), (0, 8)])


def test_a_message_through_a_switch_that_reduces_uses_one_gpus_links() -> None:
    fabric = fabric_of("model:dgx-h100 node:2")
    routes = RouteMap(fabric, fabric.endpoints)
    assert routes.switch_vertex_of.tolist() == [16] * 8 + [17] * 8
    table = table_of(routes, [(3, 16), (16, 3), (16, 4), (9, 17)])
    assert all(table.routes[r].in_switch for r in table.route_of)
    rows = [used(table, pair) for pair in range(4)]
    assert [len(row) for row in rows] == [1, 1, 1, 1]
    assert len({row[0] for row in rows}) == 4, "out of 3, into 3, into 4, out of 9"
    there = table_of(routes, [(3, 4)])
    assert used(there, 0) == [rows[0][0], rows[2][0]], "the same links as a message to a peer"


def test_a_switch_that_does_not_reduce_is_refused() -> None:
    fabric = fabric_of("model:dgx-a100 node:1")
    routes = RouteMap(fabric, fabric.endpoints)
    with pytest.raises(FabricError, match="a100-001:0: nvls: no NVSwitch that reduces"):
        table_of(routes, [(0, 8)])


@pytest.mark.parametrize("pair", [(0, 17), (17, 0), (9, 16), (16, 17)])
def test_the_switch_of_another_domain_is_refused(pair: tuple[int, int]) -> None:
    fabric = fabric_of("model:dgx-h100 node:2")
    routes = RouteMap(fabric, fabric.endpoints)
    with pytest.raises(UnreachableError, match="the switch of another NVLink domain"):
        table_of(routes, [(0, 1), pair])


def test_domains_are_numbered_by_their_first_ranks() -> None:
    fabric = fabric_of("model:dgx-h100 node:3")
    ends = ends_of(fabric, "h100-003:0", "h100-001:0", "h100-003:5", "h100-002:1")
    routes = RouteMap(fabric, ends)
    assert routes.domain_of.tolist() == [0, 1, 0, 2]
    assert routes.node_of.tolist() == [0, 1, 0, 2]
    assert routes.switch_vertex_of.tolist() == [4, 5, 4, 6]
    assert routes.domain_count == 3


def domain_of_three() -> Fabric:
    """An NVLink domain whose first host shares no switch with the others, on three leaves."""

    def tray(chips: tuple[int, ...]) -> Wiring:
        ports = [p for c in chips for p in ports_to(EndKind.DOMAIN_SWITCH, c, 1, first=c)]
        return Wiring(
            gpus=(make_gpu(0, numa=0, compute_capability="10.0", ports=ports),),
            nics=(make_nic(0, numa=0),),
        )

    def clique(_: int) -> NvlinkFabric:
        return NvlinkFabric(state=FabricState.DOMAIN, cluster_uuid="rack", clique=0)

    cables = [
        *(cable((host, 0), switch) for host, switch in (("x", "a"), ("y", "a"), ("z", "b"))),
        *(cable(switch, "s") for switch in "ab"),
    ]
    hosts = [snapshot("x", tray((0, 1)), clique)]
    hosts += [snapshot(host, tray((2, 3)), clique) for host in ("y", "z")]
    return joined(hosts, [leaf("a"), leaf("b"), spine("s")], cables)


def test_pairs_of_a_domain_that_share_no_switch_go_each_its_own_way() -> None:
    fabric = domain_of_three()
    assert len(fabric.domains) == 1
    table = table_of(RouteMap(fabric, fabric.endpoints), [(0, 1), (0, 2), (1, 2)])
    names = [table.routes[r].route_class.name for r in table.route_of]
    assert names == ["ib_ndr_1hop", "ib_ndr_3hop", "nvlink5_nvl72"]


def test_gpus_of_two_cliques_in_one_node_have_a_route_of_their_own() -> None:
    """Both nodes are wired alike; in the second the two GPUs are in two partitions."""
    ports = ports_to(EndKind.DOMAIN_SWITCH, 0, 2)
    wiring = Wiring(
        gpus=tuple(make_gpu(s, numa=0, compute_capability="10.0", ports=ports) for s in (0, 1))
    )

    def clique(number: int) -> NvlinkFabric:
        return NvlinkFabric(state=FabricState.DOMAIN, cluster_uuid="rack", clique=number)

    fabric = joined(
        [snapshot("a", wiring, lambda _: clique(0)), snapshot("b", wiring, clique)],
    )
    table = table_of(RouteMap(fabric, fabric.endpoints), [(0, 1), (2, 3), (0, 2)])
    names = [table.routes[r].route_class.name for r in table.route_of]
    assert names == ["nvlink5_nvl72", "pcie_gen5_root_complex", "nvlink5_nvl72"]


SPECS = (
    "model:dgx1-v100 node:4 leaf:8 spine:2",
    "model:dgx-h100 node:3 leaf:16",
    "model:gb200-nvl72 node:4 leaf:8",
    "model:pcie-l40s node:3 leaf:8",
    "model:dgx-a100 node:2",
    "model:beowulf-2006 node:90",
)


@st.composite
def worn_fleets(draw: st.DrawFn) -> Fabric:
    """Small fleets with a few NVLink ports and cables down."""
    fleet = fleet_of(draw(st.sampled_from(SPECS)))
    hosts = st.integers(min_value=0, max_value=len(fleet.nodes) - 1)
    small = st.integers(min_value=0, max_value=7)
    down = draw(st.lists(st.tuples(hosts, small, st.sets(small, max_size=6)), max_size=2))

    def change(host: str, wiring: Wiring) -> Wiring:
        for i, slot, ports in down:
            if fleet.nodes[i].host == host:
                wiring = with_port_down(wiring, slot, ports)
        return wiring

    cables = st.integers(min_value=0, max_value=len(fleet.cables) - 1)
    dead = {fleet.cables[i] for i in draw(st.sets(cables, max_size=4))}
    return Fabric(with_cables_down(rewired(fleet, change), lambda c: c in dead))


def reachable(fabric: Fabric, ends: list[Endpoint], pairs: Pairs) -> Iterator[tuple[int, int]]:
    for a, b in pairs:
        if not isinstance(fabric.route(ends[a], ends[b]), Unreachable):
            yield a, b


@settings(max_examples=60)
@given(fabric=worn_fleets(), data=st.data())
def test_a_table_says_of_each_pair_what_its_route_says(fabric: Fabric, data: st.DataObject) -> None:
    ends = list(
        data.draw(st.lists(st.sampled_from(fabric.endpoints), min_size=2, max_size=12, unique=True))
    )
    rank = st.integers(min_value=0, max_value=len(ends) - 1)
    asked = data.draw(st.lists(st.tuples(rank, rank), max_size=25))
    pairs = list(reachable(fabric, ends, asked))
    table = table_of(RouteMap(fabric, ends), pairs)

    number_of: dict[Hashable, int] = {}
    key_of: dict[int, Hashable] = {}
    for i, (a, b) in enumerate(pairs):
        route = fabric.reachable_route(ends[a], ends[b])
        assert what_counts(table.routes[table.route_of[i]]) == what_counts(route)
        resources = used(table, i)
        assert len(resources) == len(route.hops)
        for hop, resource in zip(route.hops, resources, strict=True):
            key = resource_key(hop)
            if hop.place not in (HopPlace.POD_UP, HopPlace.POD_DOWN):
                assert number_of.setdefault(key, resource) == resource, "one thing, one number"
                assert key_of.setdefault(resource, key) == key, "one number, one thing"
            assert table.bytes_per_s[resource] >= hop.bytes_per_s * (1 - 1e-12)


def test_loads_on_shared_links_are_those_counted_by_hand() -> None:
    """All 16 GPUs of two DGX-1 send to the same slot of the other: pairs share a NIC."""
    fabric = fabric_of("model:dgx1-v100 node:2")
    ends = list(fabric.endpoints)
    pairs = [(rank, (rank + 8) % 16) for rank in range(16)]
    table = table_of(RouteMap(fabric, ends), pairs)
    load = np.zeros(len(table.bytes_per_s))
    for row in table.resources:
        for resource in row[row != idle(table)]:
            load[resource] += 1

    by_name: dict[Hashable, int] = defaultdict(int)
    for a, b in pairs:
        for hop in fabric.reachable_route(ends[a], ends[b]).hops:
            by_name[resource_key(hop)] += 1
    for i, (a, b) in enumerate(pairs):
        hops = fabric.reachable_route(ends[a], ends[b]).hops
        assert [load[r] for r in used(table, i)] == [by_name[resource_key(hop)] for hop in hops]
        loads = {hop.place: by_name[resource_key(hop)] for hop in hops}
        assert loads[HopPlace.NIC_OUT] == loads[HopPlace.NIC_IN] == 2, "two GPUs share a NIC"
    assert load[:-1].sum() == 16 * 6


@pytest.mark.parametrize("model", [model for model in MODELS if model != "beowulf-2006"])
def test_every_node_has_links_of_its_own(model: str) -> None:
    fabric = fabric_of(f"model:{model} node:3")
    per_node = len(fabric.endpoints) // 3
    routes = RouteMap(fabric, fabric.endpoints)
    inside = [(node * per_node, node * per_node + 1) for node in range(3)]
    table = table_of(routes, inside)
    rows = [set(used(table, i)) for i in range(3)]
    assert not rows[0] & rows[1]
    assert not rows[1] & rows[2]

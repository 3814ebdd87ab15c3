from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.wiring import EndKind, Wiring
from tests.topology.collective.layouts import (
    Placed,
    fabric_of,
    named,
    packed,
    placed_on,
    spread_out,
)
from tests.topology.fabric.factories import (
    fleet_of,
    joined,
    make_gpu,
    ports_to,
    rewired,
    snapshot,
    with_port_down,
)
from topology.fabric.from_fleet import Fabric
from topology.fabric.routes import LinkKind, Route

DGX1 = "model:dgx1-v100 node:1"
DGX1_LINKS = {
    (0, 1): 1, (0, 2): 1, (0, 3): 2, (0, 4): 2, (1, 2): 2, (1, 3): 1, (1, 5): 2, (2, 3): 2,
    (2, 6): 1, (3, 7): 1, (4, 5): 1, (4, 6): 1, (4, 7): 2, (5, 6): 2, (5, 7): 1, (6, 7): 2,
}  # fmt: skip
"""NVIDIA's hybrid cube mesh of the DGX-1 with V100: links of each pair that has any."""


def steps_round(order: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(pairwise((*order, order[0])))


def host(placed: Placed, rank: int) -> str:
    return placed.placement.endpoints[rank].host


def off_rail(placed: Placed, order: tuple[int, ...]) -> int:
    """Steps of a ring between nodes whose two NICs are not of one slot."""
    return sum(
        host(placed, a) != host(placed, b) and placed.nic(a)[1] != placed.nic(b)[1]
        for a, b in steps_round(order)
    )


SPECS = (
    ("model:dgx1-v100 node:4", 32),
    ("model:dgx-h100 node:5", 40),
    ("model:dgx-a100 node:3", 24),
    ("model:gb200-nvl72 node:20", 80),
    ("model:pcie-l40s node:3", 24),
    ("model:beowulf-2006 node:40", 40),
)


@settings(max_examples=80)
@given(data=st.data())
def test_rings_and_chains_go_through_every_rank_once(data: st.DataObject) -> None:
    spec, most = data.draw(st.sampled_from(SPECS))
    fabric = fabric_of(spec)
    chosen = data.draw(st.lists(st.integers(0, most - 1), min_size=1, max_size=20, unique=True))
    placed = placed_on(fabric, [fabric.endpoints[i] for i in chosen])
    ranks = list(range(len(chosen)))
    assert placed.layout.orders
    assert all(sorted(order) == ranks for order in placed.layout.orders)
    assert placed.layout.chains
    for chain in placed.layout.chains:
        assert sorted(rank for node in chain for rank in node) == ranks
        assert [sorted(node) for node in chain] == [sorted(c) for c in placed.layout.cliques]
    for groups in (placed.layout.cliques, placed.layout.domains):
        assert sorted(rank for group in groups for rank in group) == ranks
        assert all(list(group) == sorted(group) for group in groups)


def test_six_rings_of_a_dgx1_use_each_nvlink_at_most_once_each_way() -> None:
    placed = packed(DGX1, 8)
    used = Counter(step for order in placed.layout.orders for step in steps_round(order))
    assert len(placed.layout.orders) == 6
    for (a, b), count in used.items():
        assert count <= DGX1_LINKS.get((min(a, b), max(a, b)), 0), (a, b)
    assert sum(used.values()) == 6 * 8, "all 24 links, both ways"


def test_four_gpus_of_a_dgx1_have_rings_of_their_own_links() -> None:
    """Of the three cycles through four GPUs two share no link of 0 and 1, which have four each."""
    placed = packed(DGX1, 4)
    used = Counter(step for order in placed.layout.orders for step in steps_round(order))
    assert len(placed.layout.orders) == 4
    assert all(count <= DGX1_LINKS[min(ab), max(ab)] for ab, count in used.items())


def test_a_bridged_pair_has_a_ring_for_each_link() -> None:
    wiring = Wiring(
        gpus=tuple(make_gpu(slot, ports=ports_to(EndKind.GPU, 1 - slot, 4)) for slot in (0, 1))
    )
    fabric = joined([snapshot("a", wiring)])
    assert placed_on(fabric, fabric.endpoints).layout.orders == ((0, 1),) * 4


def test_gpus_of_a_mesh_without_a_cycle_go_by_slot() -> None:
    placed = named(DGX1, "dgx1-001:0", "dgx1-001:5", "dgx1-001:2")
    assert placed.layout.orders == ((0, 2, 1),)


def test_ring_over_pcie_does_not_depend_on_the_order_of_ranks() -> None:
    slots = (3, 0, 6, 1, 7, 2, 5, 4)
    placed = named("model:pcie-l40s node:1", *(f"l40s-001:{slot}" for slot in slots))
    (order,) = placed.layout.orders
    assert [slots[rank] for rank in order] == list(range(8))


@pytest.mark.parametrize("slot", range(8))
@pytest.mark.parametrize("port", range(6))
def test_a_port_that_one_end_alone_sees_down_is_used_by_no_ring(slot: int, port: int) -> None:
    fleet = rewired(fleet_of(DGX1), lambda _, wiring: with_port_down(wiring, slot, (port,)))
    fabric = Fabric(fleet)
    placed = placed_on(fabric, fabric.endpoints)
    for order in placed.layout.orders:
        for a, b in steps_round(order):
            route = fabric.route(fabric.endpoints[a], fabric.endpoints[b])
            assert isinstance(route, Route)
            assert route.link_kind is LinkKind.NVLINK
    assert len(placed.layout.orders) >= 4


def without_gpu(wiring: Wiring, slot: int) -> Wiring:
    """The wiring without one GPU and the ports that ended at it."""
    gpus = tuple(
        gpu.model_copy(update={"ports": tuple(p for p in gpu.ports if p.end.index != slot)})
        for gpu in wiring.gpus
        if gpu.slot != slot
    )
    return wiring.model_copy(update={"gpus": gpus})


def test_a_mesh_that_lost_a_gpu_still_has_rings() -> None:
    fabric = Fabric(rewired(fleet_of(DGX1), lambda _, wiring: without_gpu(wiring, 3)))
    placed = placed_on(fabric, fabric.endpoints)
    assert placed.layout.ranks == 7
    for order in placed.layout.orders:
        assert sorted(order) == list(range(7))
        slots = [fabric.endpoints[rank].slot for rank in order]
        assert all((min(ab), max(ab)) in DGX1_LINKS for ab in steps_round(tuple(slots)))


@pytest.mark.parametrize("spec", ["model:dgx-h100 node:1", "model:pcie-l40s node:1"])
def test_a_node_without_a_mesh_has_one_ring_in_rank_order(spec: str) -> None:
    assert packed(spec, 8).layout.orders == (tuple(range(8)),)


def test_a_domain_over_several_nodes_has_one_ring_in_rank_order() -> None:
    assert packed("model:gb200-nvl72 node:18", 72).layout.orders == (tuple(range(72)),)


@pytest.mark.parametrize(
    ("spec", "ranks", "rails"),
    [
        ("model:dgx-h100 node:2", 16, 8),
        ("model:dgx-h100 node:3", 24, 8),
        ("model:dgx-h100 node:5", 36, 4),
        ("model:dgx-h100 node:2", 12, 4),
        ("model:dgx-a100 node:3", 24, 8),
        ("model:dgx1-v100 node:2", 16, 4),
        ("model:dgx1-v100 node:3", 24, 4),
        ("model:pcie-l40s node:3", 24, 4),
    ],
)
def test_over_nodes_there_is_a_ring_for_each_rail_and_neighbours_meet_on_one(
    spec: str, ranks: int, rails: int
) -> None:
    placed = packed(spec, ranks)
    assert len(placed.layout.orders) == rails
    assert [off_rail(placed, order) for order in placed.layout.orders] == [0] * rails


@pytest.mark.parametrize(
    ("placed", "rails"),
    [
        (packed("model:gb200-nvl72 rack:2", 144), 32),
        (packed("model:gb200-nvl72 rack:2", 76), 4),
        (spread_out("model:gb200-nvl72 rack:2", 20), 10),
        (spread_out("model:gb200-nvl72 rack:3", 54), 18),
    ],
)
def test_between_nvlink_domains_every_nic_is_a_rail_as_nccl_takes_a_clique_for_a_node(
    placed: Placed, rails: int
) -> None:
    """3 partitions of 4 GB200 with 4 NICs measure 196.7 GB/s busbw, of 8 with 8 NICs 393.7."""
    domain_of = {rank: i for i, d in enumerate(placed.layout.domains) for rank in d}
    crossings = [
        [(a, b) for a, b in steps_round(order) if domain_of[a] != domain_of[b]]
        for order in placed.layout.orders
    ]
    assert len(crossings) == rails
    assert {len(ring) for ring in crossings} == {len(placed.layout.domains)}
    for at in (0, 1):
        used = Counter(placed.nic(ends[at]) for ring in crossings for ends in ring)
        assert set(used.values()) == {1}


@settings(max_examples=40)
@given(
    nodes=st.integers(min_value=2, max_value=6),
    slots=st.sets(st.integers(min_value=0, max_value=7), min_size=1),
)
def test_neighbours_meet_on_one_rail_whichever_slots_the_nodes_have(
    nodes: int, slots: set[int]
) -> None:
    """But for an odd number of nodes with two rails each, where one meeting must miss."""
    placed = named(
        "model:dgx-h100 node:6",
        *(f"h100-{n + 1:03d}:{s}" for n in range(nodes) for s in sorted(slots)),
    )
    missed = 1 if nodes % 2 and len(slots) == 2 else 0
    assert len(placed.layout.orders) == len(slots)
    assert [off_rail(placed, order) for order in placed.layout.orders] == [missed] * len(slots)


def test_unequal_nodes_meet_on_the_rails_that_both_have() -> None:
    placed = named(
        "model:dgx-h100 node:2",
        *(f"h100-001:{slot}" for slot in range(8)),
        *(f"h100-002:{slot}" for slot in (3, 5, 6)),
    )
    assert [off_rail(placed, order) for order in placed.layout.orders] == [0, 0, 0]


@pytest.mark.parametrize("nodes", [2, 3, 4])
def test_each_nic_is_entered_and_left_by_one_ring(nodes: int) -> None:
    placed = packed(f"model:dgx-h100 node:{nodes}", 8 * nodes)
    crossings = [
        (a, b)
        for order in placed.layout.orders
        for a, b in steps_round(order)
        if host(placed, a) != host(placed, b)
    ]
    out, into = (Counter(placed.nic(ends[i]) for ends in crossings) for i in (0, 1))
    assert set(out.values()) == set(into.values()) == {1}
    assert len(out) == len(into) == 8 * nodes


def test_a_ring_stays_in_a_node_until_it_has_seen_it_all() -> None:
    placed = packed("model:dgx-h100 node:3", 24)
    for order in placed.layout.orders:
        hosts = [host(placed, rank) for rank in order]
        assert sum(a != b for a, b in pairwise((*hosts, hosts[0]))) == 3


@pytest.mark.parametrize(
    ("spec", "ranks"), [("model:dgx-h100 node:4", 32), ("model:dgx1-v100 node:3", 24)]
)
def test_heads_of_a_chain_send_through_one_rail(spec: str, ranks: int) -> None:
    placed = packed(spec, ranks)
    rails = [{placed.nic(node[0])[1] for node in chain} for chain in placed.layout.chains]
    assert all(len(rail) == 1 for rail in rails)
    assert len(set.union(*rails)) == len(rails)


def test_a_chain_through_a_mesh_goes_over_its_links() -> None:
    placed = packed("model:dgx1-v100 node:2", 16)
    for chain in placed.layout.chains:
        for node in chain:
            for a, b in pairwise(placed.placement.endpoints[rank].slot for rank in node):
                assert (min(a, b), max(a, b)) in DGX1_LINKS


def test_groups_are_numbered_by_their_first_ranks() -> None:
    placed = named("model:dgx-h100 node:2", "h100-002:1", "h100-001:0", "h100-002:0")
    assert placed.layout.cliques == ((0, 2), (1,))
    assert placed.layout.domains == ((0, 2), (1,))
    assert not placed.layout.has_equal_domains


def test_a_rack_is_one_domain_of_many_nodes() -> None:
    layout = packed("model:gb200-nvl72 node:20", 80).layout
    assert [len(domain) for domain in layout.domains] == [72, 8]
    assert [len(clique) for clique in layout.cliques] == [72, 8]
    assert not layout.has_equal_domains


def test_one_rank_is_one_ring_of_one() -> None:
    layout = packed("model:beowulf-2006 node:2", 1).layout
    assert (layout.orders, layout.chains, layout.has_equal_domains) == (((0,),), (((0,),),), True)


@pytest.mark.parametrize(
    ("spec", "reduces"), [("model:dgx-h100 node:2", True), ("model:dgx-a100 node:2", False)]
)
def test_a_layout_reduces_in_the_switch_where_all_its_domains_do(spec: str, reduces: bool) -> None:
    assert spread_out(spec, 4).layout.reduces_in_switch is reduces

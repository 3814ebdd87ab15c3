import numpy as np
import pytest

from tests.topology.collective.layouts import Placed, messages_of, named, packed, with_sharp
from topology.collective.algorithms import build_schedules, usable_names
from topology.collective.layout import layout_of
from topology.collective.schedule import Round, Schedule
from topology.collective.stages import Request
from topology.errors import UnreachableError
from topology.fabric.route_table import RouteTable
from topology.fabric.routes import LinkKind
from topology.words import Collective

H100 = "model:dgx-h100 node:5"


def ways(placed: Placed, pieces: int = 1) -> dict[str, Schedule]:
    request = Request(Collective.ALL_REDUCE, with_sharp(placed).layout, pieces=pieces)
    return {s.variant: s for s in build_schedules("collnet", request)}


def legs(schedule: Schedule) -> list[Round]:
    """Rounds that meet the network's switches."""
    most = max(int(round_.destination.max()) for round_ in schedule.rounds)
    return [r for r in schedule.rounds if most in r.destination or most in r.source]


def test_direct_takes_four_steps_and_a_chain_twice_the_ranks_of_a_node() -> None:
    made = ways(packed(H100, 24))
    assert {name: schedule.steps for name, schedule in made.items()} == {
        "direct in the node": 4,
        "chain in the node": 16,
    }
    in_pieces = ways(packed(H100, 24), pieces=5)
    assert [schedule.steps for schedule in in_pieces.values()] == [4 + 4, 16 + 4]


def test_only_heads_meet_the_network_each_with_its_rails_share() -> None:
    """Three nodes with 8 rails: 24 messages of 1/8 up, 24 down, one switch vertex a rail."""
    for schedule in ways(packed(H100, 24)).values():
        up, down = legs(schedule)
        assert up.transfers == down.transfers == 24
        assert schedule.shares(up) == pytest.approx(np.full(24, 1 / 8))
        assert sorted(set(up.destination.tolist())) == [24 + 3 + rail for rail in range(8)]
        assert up.reduces.all()
        assert not down.reduces.any()


def test_in_the_node_each_rank_sends_a_share_to_each_head_but_itself() -> None:
    first = messages_of(ways(packed(H100, 16))["direct in the node"])[0]
    assert len(first) == 2 * 8 * 7
    assert all(m.source // 8 == m.destination // 8 and m.reduces for m in first)


def test_ranks_alone_in_their_nodes_have_one_way_straight_to_the_switches() -> None:
    placed = named(H100, *(f"h100-00{i}:0" for i in range(1, 6)))
    ((variant, schedule),) = ways(placed).items()
    assert (variant, schedule.steps, schedule.messages) == ("", 2, 10)


def test_no_map_tells_of_sharp_so_a_layout_has_it_only_when_told() -> None:
    placed = packed(H100, 16)
    told = layout_of(placed.fabric, placed.placement, placed.routes, network_reduces=True)
    assert not placed.layout.network_reduces
    assert "collnet" not in usable_names(Request(Collective.ALL_REDUCE, placed.layout))
    assert "collnet" in usable_names(Request(Collective.ALL_REDUCE, told))


def test_a_leg_is_as_long_as_the_way_to_the_farthest_rank_of_another_node() -> None:
    """64 nodes of DGX H100 lie under more than one leaf of a rail: three switches between them."""
    placed = packed("model:dgx-h100 node:64", 512)
    rank, switch = np.array([0]), np.array([placed.layout.network_vertex(0)])
    up, down = placed.routes.table(rank, switch), placed.routes.table(switch, rank)
    farthest = placed.routes.table(rank, np.array([511])).routes[0]
    near = placed.routes.table(rank, np.array([8])).routes[0]
    assert near.alpha_s < farthest.alpha_s
    for table in (up, down):
        (route,) = table.routes
        assert route.link_kind is LinkKind.NET
        assert route.alpha_s == farthest.alpha_s


def test_a_leg_shares_the_links_of_its_own_node_only() -> None:
    placed = packed(H100, 16)
    layout, routes = placed.layout, placed.routes
    ranks = np.array([0, 8])
    switch = np.full(2, layout.network_vertex(0))
    other = routes.table(ranks, ranks[::-1])
    up, down = routes.table(ranks, switch), routes.table(switch, ranks)

    def used(table: RouteTable, row: int) -> set[int]:
        idle = len(table.bytes_per_s) - 1
        return {number for number in table.resources[row].tolist() if number != idle}

    assert used(up, 0)
    assert used(up, 0).isdisjoint(used(down, 1))
    assert used(up, 0) | used(down, 1) == used(other, 0), "up from one and down to the other"
    assert used(up, 1) | used(down, 0) == used(other, 1)


def test_ranks_of_one_node_have_no_network_between_them() -> None:
    placed = packed(H100, 8)
    switch = np.array([placed.layout.network_vertex(0)])
    with pytest.raises(UnreachableError, match="no network between ranks of one node"):
        placed.routes.table(np.array([3]), switch)

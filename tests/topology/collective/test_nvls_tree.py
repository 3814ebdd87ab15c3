from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.topology.collective.layouts import (
    Placed,
    fabric_of,
    messages_of,
    named,
    packed,
    placed_on,
    schedule_of,
    spread_out,
)
from topology.collective.algorithms import ALGORITHMS, build_schedules, why_not
from topology.collective.nvls_tree import IN_FLIGHT
from topology.collective.replay import prove
from topology.collective.schedule import Schedule
from topology.collective.stages import Request
from topology.words import Collective

ALL_REDUCE = Collective.ALL_REDUCE
H100 = "model:dgx-h100 node:5"
RACKS = "model:gb200-nvl72 rack:2"
LEGS = 4
"""To the switch, to the heads, from them, from the switch."""


def builds(placed: Placed, pieces: int) -> list[Schedule]:
    return build_schedules("nvls_tree", Request(ALL_REDUCE, placed.layout, 1, pieces))


def refusal(placed: Placed) -> str | None:
    return why_not(ALGORITHMS["nvls_tree"], Request(ALL_REDUCE, placed.layout))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_ranks_of_several_cliques_are_proved_over_links_that_are_there(
    data: st.DataObject,
) -> None:
    """Cliques of any sizes, one rank among them, in any order."""
    fabric = fabric_of(data.draw(st.sampled_from([H100, "model:gb200-nvl72 node:20"])))
    among = data.draw(st.permutations(range(len(fabric.endpoints))))
    placed = placed_on(
        fabric, [fabric.endpoints[i] for i in among[: data.draw(st.integers(2, 20))]]
    )
    assume(refusal(placed) is None)
    for schedule in builds(placed, data.draw(st.integers(1, 6))):
        prove(schedule, placed.routes)


@pytest.mark.parametrize("pieces", [1, 3])
def test_72_and_56_ranks_of_two_racks_are_proved(pieces: int) -> None:
    placed = packed(RACKS, 128)
    assert [len(clique) for clique in placed.layout.cliques] == [72, 56]
    for schedule in builds(placed, pieces):
        prove(schedule, placed.routes)


def test_a_clique_of_one_rank_is_its_own_sum() -> None:
    """Ranks 0 to 2 share a switch, rank 3 is alone: it meets no switch, and one rail is left."""
    ends = ("1:0", "1:1", "1:2", "2:5")
    placed = named(H100, *(f"h100-00{end}" for end in ends))
    schedule = schedule_of("nvls_tree", ALL_REDUCE, placed)
    prove(schedule, placed.routes)
    partners = {
        end
        for step in messages_of(schedule)
        for message in step
        for end in (message.source, message.destination)
        if 3 in (message.source, message.destination)
    }
    assert partners == {0, 3}


@pytest.mark.parametrize(("nodes", "depth"), [(2, 1), (3, 2), (4, 2), (5, 3)])
def test_one_piece_takes_four_legs_and_the_trees_up_and_down(nodes: int, depth: int) -> None:
    schedule = schedule_of("nvls_tree", ALL_REDUCE, packed(H100, 8 * nodes))
    assert schedule.steps == LEGS + 2 * depth
    ranks, rails, trees = 8 * nodes, 8, 2
    across = 2 * trees * rails * (nodes - 1)
    assert schedule.messages == 2 * trees * (ranks + rails * nodes) + across


def test_pieces_follow_each_other_as_far_apart_as_may_be_in_flight() -> None:
    placed = packed(H100, 16)
    assert len(builds(placed, 1)) == 1
    steps = [schedule.steps for schedule in builds(placed, 40)]
    # The last piece's last stage is the sixth: five stages lie before it.
    assert steps == [40 + 5 * count for count in IN_FLIGHT]


def test_every_rank_sends_all_and_every_head_its_share_too() -> None:
    """Two nodes: each head sends its eighth to the switch, and half of it in each tree."""
    placed = packed(H100, 16)
    schedule = schedule_of("nvls_tree", ALL_REDUCE, placed, pieces=3)
    to_switch, to_heads = ([0.0] * schedule.vertices for _ in range(2))
    for step in messages_of(schedule):
        for message in step:
            sent = to_switch if message.destination >= 16 else to_heads
            sent[message.source] += message.chunks * schedule.chunk_fraction
    assert to_switch[:16] == pytest.approx([1 + 1 / 8] * 16)
    assert to_heads[:16] == pytest.approx([1 / 8] * 16)


def test_messages_between_cliques_are_of_heads_on_one_rail() -> None:
    placed = packed(H100, 40)
    heads = {chain[0] for rail in placed.layout.chains for chain in rail}
    for step in messages_of(schedule_of("nvls_tree", ALL_REDUCE, placed)):
        for source, destination, *_ in step:
            if max(source, destination) < 40:
                assert {source, destination} <= heads
                assert placed.nic(source)[1] == placed.nic(destination)[1]


@pytest.mark.parametrize(
    ("placed", "reason"),
    [
        (packed(H100, 8), "all ranks lie in one clique, nvls is for that"),
        (packed(RACKS, 72), "all ranks lie in one clique, nvls is for that"),
        (spread_out(H100, 5), "every rank is alone in its clique"),
        (packed("model:dgx-a100 node:2", 16), "no NVSwitch reduces in rank 0's clique"),
        (packed("model:dgx1-v100 node:2", 16), "no NVSwitch reduces in rank 0's clique"),
        (packed("model:pcie-l40s node:2", 12), "no NVSwitch reduces in rank 0's clique"),
    ],
)
def test_cliques_that_cannot_are_refused_by_name(placed: Placed, reason: str) -> None:
    assert (refusal(placed) or "").startswith(reason)


def test_only_cliques_of_several_ranks_have_to_reduce() -> None:
    ends = ("1:0", "1:1", "2:0", "2:1", "3:0")
    layout = named(H100, *(f"h100-00{end}" for end in ends)).layout
    for reduces, wanted in (
        ((True, True, False), None),
        ((True, False, True), "no NVSwitch reduces in rank 2's clique (NVLink 4 or later does)"),
    ):
        request = Request(ALL_REDUCE, replace(layout, domain_reduces=reduces))
        assert why_not(ALGORITHMS["nvls_tree"], request) == wanted

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.collective.layouts import (
    fabric_of,
    messages_of,
    packed,
    placed_on,
    schedule_of,
)
from topology.collective.replay import prove
from topology.words import Collective

H100 = "model:dgx-h100 node:5"
BROADCAST, REDUCE = Collective.BROADCAST, Collective.REDUCE


def test_a_broadcast_goes_round_the_ring_from_rank_0() -> None:
    placed = packed(H100, 8)
    schedule = schedule_of("ring", BROADCAST, placed)
    way = [(m.source, m.destination) for step in messages_of(schedule) for m in step]
    assert way == list(pairwise(placed.layout.orders[0]))
    assert way[0][0] == 0


def test_a_reduce_goes_round_the_ring_and_ends_at_rank_0() -> None:
    placed = packed(H100, 8)
    order = placed.layout.orders[0]
    schedule = schedule_of("ring", REDUCE, placed)
    way = [(m.source, m.destination) for step in messages_of(schedule) for m in step]
    assert way == list(pairwise((*order[1:], order[0])))
    assert all(m.reduces for step in messages_of(schedule) for m in step)


@pytest.mark.parametrize("collective", [BROADCAST, REDUCE])
@pytest.mark.parametrize(("rails", "pieces"), [(1, 1), (1, 9), (4, 3), (8, 20)])
def test_each_rail_carries_its_share_in_pieces(
    collective: Collective, rails: int, pieces: int
) -> None:
    schedule = schedule_of("ring", collective, packed(H100, 16), channels=rails, pieces=pieces)
    assert schedule.steps == 15 + pieces - 1
    assert schedule.messages == 15 * rails * pieces
    assert schedule.chunks == schedule.channels == rails * pieces


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_relabelled_ranks_begin_and_end_at_rank_0_as_well(data: st.DataObject) -> None:
    fabric = fabric_of("model:dgx-h100 node:3")
    order = data.draw(st.permutations(range(24)))[: data.draw(st.integers(1, 24))]
    placed = placed_on(fabric, [fabric.endpoints[i] for i in order])
    for collective in (BROADCAST, REDUCE):
        pieces = data.draw(st.integers(1, 5))
        prove(schedule_of("ring", collective, placed, channels=8, pieces=pieces), placed.routes)

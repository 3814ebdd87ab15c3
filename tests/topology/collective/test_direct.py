from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.topology.collective.layouts import Placed, messages_of, packed, schedule_of, spread_out
from topology.collective.direct import all_pairs, why_no_clique, why_not_direct
from topology.collective.schedule import Schedule
from topology.collective.stages import Request
from topology.words import Collective

H100 = "model:dgx-h100 node:5"
RACKS = "model:gb200-nvl72 node:20"


@given(ranks=st.integers(1, 40))
def test_every_pair_of_ranks_is_there_once_and_no_rank_with_itself(ranks: int) -> None:
    source, destination = all_pairs(ranks)
    pairs = set(zip(source.tolist(), destination.tolist(), strict=True))
    assert len(pairs) == len(source) == ranks * (ranks - 1)
    assert all(a != b for a, b in pairs)


def sent(schedule: Schedule) -> list[Counter[tuple[int, float]]]:
    """For each step how many messages of which share of S each rank sends."""
    return [
        Counter((m.source, m.chunks * schedule.chunk_fraction) for m in step)
        for step in messages_of(schedule)
    ]


def test_one_shot_sends_the_whole_buffer_to_all_others_in_one_step() -> None:
    schedule = schedule_of("one_shot", Collective.ALL_REDUCE, packed(H100, 8))
    assert sent(schedule) == [{(rank, 1.0): 7 for rank in range(8)}]


def test_two_shot_sends_an_nth_to_all_others_twice() -> None:
    schedule = schedule_of("two_shot", Collective.ALL_REDUCE, packed(H100, 8))
    assert sent(schedule) == [{(rank, 1 / 8): 7 for rank in range(8)}] * 2
    assert [round_.reduces.all() for round_ in schedule.rounds] == [True, False]


@pytest.mark.parametrize("collective", [Collective.ALL_GATHER, Collective.REDUCE_SCATTER])
def test_parts_are_gathered_and_scattered_in_one_step(collective: Collective) -> None:
    schedule = schedule_of("direct", collective, packed(H100, 4))
    assert sent(schedule) == [{(rank, 1 / 4): 3 for rank in range(4)}]


def test_sendrecv_sends_the_whole_buffer_to_the_next_rank_and_the_last_to_the_first() -> None:
    schedule = schedule_of("direct", Collective.SENDRECV, packed(H100, 11))
    (round_,) = schedule.rounds
    assert round_.destination.tolist() == [*range(1, 11), 0]
    assert schedule.shares(round_) == pytest.approx(np.ones(11))


@pytest.mark.parametrize(
    ("placed", "is_joined"),
    [
        (packed(H100, 8), True),
        (packed(H100, 16), False),
        (packed(RACKS, 24), True),
        (packed(RACKS, 80), False),
        (packed("model:pcie-l40s node:2", 8), True),
        (packed("model:dgx1-v100 node:3", 8), True),
        (spread_out(H100, 5), False),
    ],
)
def test_custom_all_reduce_keeps_to_one_node_or_rack(placed: Placed, is_joined: bool) -> None:
    request = Request(Collective.ALL_REDUCE, placed.layout)
    assert (why_no_clique(request) is None) == is_joined


def test_all_to_all_and_sendrecv_are_direct_anywhere() -> None:
    layout = packed(H100, 16).layout
    for collective in (Collective.SENDRECV, Collective.ALLTOALL, Collective.ALLTOALLV):
        assert why_not_direct(Request(collective, layout)) is None
    assert why_not_direct(Request(Collective.ALL_GATHER, layout)) is not None

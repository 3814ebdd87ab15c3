from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.collective.schedule import Transfer
from topology.collective.stages import answered, binomial_stages, ring_phase, switch_stages
from topology.words import Collective


@given(ranks=st.integers(min_value=1, max_value=70))
def test_a_binomial_reduce_takes_each_part_once_in_log_stages(ranks: int) -> None:
    stages = list(binomial_stages(range(ranks)))
    held = {rank: {rank} for rank in range(ranks)}
    for stage in stages:
        for message in stage:
            assert not held[message.source] & held[message.destination]
            held[message.destination] |= held.pop(message.source)
    assert held == {0: set(range(ranks))}
    assert len(stages) == (ceil(log2(ranks)) if ranks > 1 else 0)


def test_binomial_stages_follow_the_order_of_the_ranks() -> None:
    first, second = binomial_stages([5, 3, 9])
    assert [(m.source, m.destination) for m in first] == [(3, 5)]
    assert [(m.source, m.destination) for m in second] == [(9, 5)]


def test_an_answer_goes_back_as_a_copy() -> None:
    (answer,) = answered([Transfer(1, 2, 3, 4, reduces=True, channel=5)])
    assert answer == Transfer(2, 1, 3, 4, reduces=False, channel=5)


@pytest.mark.parametrize("lead", [-1, 0, 1])
def test_a_ring_phase_passes_chunk_p_plus_lead_less_step_on(lead: int) -> None:
    order = (2, 0, 3, 1)
    phase = ring_phase([order], lead=lead, reduces=True)
    assert (phase.repeats, phase.lockstep, phase.transfers) == (3, True, 4)
    for step in range(3):
        chunks = phase.first_chunk(step)
        for position, rank in enumerate(order):
            assert phase.source[position] == rank
            assert phase.destination[position] == order[(position + 1) % 4]
            assert chunks[position] == (position + lead - step) % 4


def test_rings_side_by_side_have_channels_and_chunks_of_their_own() -> None:
    phase = ring_phase([(0, 1, 2), (2, 1, 0)], lead=0, reduces=False)
    assert phase.channel.tolist() == [0, 0, 0, 1, 1, 1]
    assert phase.first_chunk(0).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("collective", "up", "down"),
    [
        (Collective.ALL_REDUCE, [(0, 1, True)] * 3, [(0, 1, False)] * 3),
        (Collective.REDUCE_SCATTER, [(0, 3, True)] * 3, [(i, 1, False) for i in range(3)]),
        (Collective.ALL_GATHER, [(i, 1, False) for i in range(3)], [(0, 3, False)] * 3),
    ],
)
def test_legs_through_a_switch_carry_shares_or_everything(
    collective: Collective, up: list[tuple[int, int, bool]], down: list[tuple[int, int, bool]]
) -> None:
    chunks = 1 if collective is Collective.ALL_REDUCE else 3
    legs = switch_stages((4, 5, 6), 9, collective, chunks)
    assert [(m.first, m.chunks, m.reduces) for m in legs[0]] == up
    assert [(m.first, m.chunks, m.reduces) for m in legs[1]] == down
    assert {(m.source, m.destination) for m in legs[0]} == {(r, 9) for r in (4, 5, 6)}
    assert {(m.source, m.destination) for m in legs[1]} == {(9, r) for r in (4, 5, 6)}

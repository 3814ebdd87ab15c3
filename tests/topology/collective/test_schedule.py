from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.topology.collective.layouts import by_hand, messages_of
from topology.collective.schedule import (
    Round,
    Transfer,
    busbw_factor,
    pipelined,
    round_from_transfers,
    round_of,
)
from topology.words import Collective

NCCL_TESTS_FACTORS = {
    Collective.ALL_REDUCE: {1: 0.0, 2: 1.0, 4: 1.5, 8: 1.75, 64: 2 * 63 / 64},
    Collective.ALL_GATHER: {1: 0.0, 2: 0.5, 4: 0.75, 8: 0.875, 64: 63 / 64},
    Collective.REDUCE_SCATTER: {1: 0.0, 2: 0.5, 4: 0.75, 8: 0.875, 64: 63 / 64},
    Collective.ALLTOALL: {1: 0.0, 2: 0.5, 4: 0.75, 8: 0.875, 64: 63 / 64},
    Collective.ALLTOALLV: {1: 0.0, 2: 0.5, 4: 0.75, 8: 0.875, 64: 63 / 64},
    Collective.BROADCAST: {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0, 64: 1.0},
    Collective.REDUCE: {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0, 64: 1.0},
    Collective.SENDRECV: {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0, 64: 1.0},
}
"""PERFORMANCE.md of nccl-tests: bus bandwidth over algorithm bandwidth; rccl-tests' alltoallv."""


@pytest.mark.parametrize("collective", Collective)
def test_bus_bandwidth_factors_are_those_of_nccl_tests(collective: Collective) -> None:
    for ranks, factor in NCCL_TESTS_FACTORS[collective].items():
        assert busbw_factor(collective, ranks) == pytest.approx(factor, rel=1e-15)


def a_round(**change: object) -> Round:
    fields: dict[str, object] = {
        "source": [0, 1],
        "destination": [1, 0],
        "channel": [0, 0],
        "base": [0, 4],
        "offset": [0, 1],
        "chunk_count": [1, 1],
        "reduces": [True, False],
    }
    return Round(**{**fields, **change})  # type: ignore[arg-type]


def test_chunks_shift_with_each_repetition_and_wrap_round() -> None:
    round_ = a_round(modulus=4, shift=-1, repeats=3)
    assert [round_.first_chunk(j).tolist() for j in range(3)] == [[0, 5], [3, 4], [2, 7]]


def test_chunks_of_a_message_follow_its_stride_and_wrap_round() -> None:
    round_ = a_round(base=[0, 10], chunk_count=[3, 2], modulus=5, stride=-2, shift=1, repeats=2)
    first, second = (round_.chunks(j) for j in (0, 1))
    assert first[0].tolist() == second[0].tolist() == [0, 0, 0, 1, 1]
    assert first[1].tolist() == [0, 3, 1, 11, 14]
    assert second[1].tolist() == [1, 4, 2, 12, 10]


def test_shares_of_a_round_are_its_chunks_alike_or_not() -> None:
    round_ = a_round(base=[0, 0], offset=[0, 1], chunk_count=[2, 3])
    alike = by_hand(Collective.BROADCAST, 2, [], owner=[0] * 4)
    assert alike.shares(round_).tolist() == [0.5, 0.75]
    apart = replace(alike, fractions=np.array([0.5, 0.25, 0.125, 0.125]))
    assert apart.shares(round_).tolist() == [0.75, 0.5]


def test_a_column_may_be_a_number_and_columns_are_alike_long() -> None:
    round_ = round_of([0, 1], 2, [5, 6], chunks=2, reduces=True)
    assert round_.destination.tolist() == [2, 2]
    assert (round_.chunk_count.tolist(), round_.reduces.tolist()) == ([2, 2], [True, True])
    with pytest.raises(ValueError, match="broadcast"):
        round_of([0, 1], [1, 2, 3])


def test_chunks_stay_where_nothing_shifts() -> None:
    assert a_round().first_chunk(0).tolist() == [0, 5]


@pytest.mark.parametrize(
    "name", ["source", "destination", "channel", "base", "offset", "chunk_count", "reduces"]
)
def test_arrays_of_a_round_cannot_be_changed(name: str) -> None:
    with pytest.raises(ValueError, match="read-only"):
        getattr(a_round(), name)[0] = 1


def test_a_round_keeps_its_own_arrays() -> None:
    mine = np.array([0, 1])
    round_ = a_round(source=mine)
    mine[0] = 7
    assert round_.source.tolist() == [0, 1]


def test_a_round_of_no_messages_is_empty() -> None:
    round_ = round_from_transfers([])
    assert (round_.transfers, round_.source.shape, round_.first_chunk(0).tolist()) == (0, (0,), [])


def test_steps_and_messages_count_repeats() -> None:
    schedule = by_hand(
        Collective.BROADCAST,
        3,
        [[Transfer(0, 1, 0, 1, reduces=False)], [Transfer(0, 2, 0, 1, reduces=False)] * 2],
    )
    assert (schedule.steps, schedule.messages, schedule.vertices, schedule.chunks) == (2, 3, 3, 1)


def down_the_line(ranks: int, channel: int = 0) -> list[list[Transfer]]:
    """A chain of copies, one rank further in each stage."""
    return [
        [Transfer(a, b, 0, 1, reduces=False, channel=channel)] for a, b in pairwise(range(ranks))
    ]


@given(depth=st.integers(min_value=1, max_value=9), pieces=st.integers(min_value=1, max_value=12))
def test_a_pipeline_takes_depth_plus_pieces_less_one_steps(depth: int, pieces: int) -> None:
    rounds = pipelined(down_the_line(depth + 1), pieces=pieces, stride=1)
    assert sum(round_.repeats for round_ in rounds) == depth + pieces - 1
    assert sum(round_.repeats * round_.transfers for round_ in rounds) == depth * pieces


@given(
    depth=st.integers(min_value=1, max_value=6),
    pieces=st.integers(min_value=1, max_value=7),
    stride=st.integers(min_value=1, max_value=3),
)
def test_in_a_pipeline_stage_d_works_on_piece_k_in_step_d_plus_k(
    depth: int, pieces: int, stride: int
) -> None:
    rounds = pipelined(down_the_line(depth + 1), pieces=pieces, stride=stride)
    empty = by_hand(Collective.BROADCAST, depth + 1, [], owner=[0] * (pieces * stride))
    steps = messages_of(replace(empty, rounds=tuple(rounds)))
    found = {(step, m.source, m.first) for step, messages in enumerate(steps) for m in messages}
    assert found == {(d + k, d, k * stride) for d in range(depth) for k in range(pieces)}


@given(depth=st.integers(min_value=1, max_value=6), pieces=st.integers(min_value=1, max_value=7))
def test_each_piece_of_a_pipeline_is_a_channel_of_its_own(depth: int, pieces: int) -> None:
    for round_ in pipelined(down_the_line(depth + 1, channel=5), pieces=pieces, stride=2):
        for repetition in range(round_.repeats):
            channel = round_.channel + repetition * round_.channel_shift
            assert channel.tolist() == (5 + round_.first_chunk(repetition) // 2).tolist()


def test_a_pipeline_of_no_stages_has_no_rounds() -> None:
    assert pipelined([], pieces=3, stride=1) == []


def test_stages_may_be_rounds_or_transfers() -> None:
    stages = down_the_line(4)
    mixed = [round_from_transfers(stage) if i % 2 else stage for i, stage in enumerate(stages)]
    for a, b in zip(
        pipelined(stages, pieces=3, stride=1), pipelined(mixed, pieces=3, stride=1), strict=True
    ):
        assert a.source.tolist() == b.source.tolist()
        assert a.chunks(0)[1].tolist() == b.chunks(0)[1].tolist()


def test_one_piece_is_the_stages_in_a_row() -> None:
    stages = down_the_line(4)
    rounds = pipelined(stages, pieces=1, stride=1)
    assert [round_.source.tolist() for round_ in rounds] == [[0], [1], [2]]

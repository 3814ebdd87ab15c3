from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.collective.layouts import messages_of, packed, schedule_of
from topology.collective.algorithms import build_schedules, usable_names
from topology.collective.replay import prove
from topology.collective.schedule import Schedule
from topology.collective.stages import Request
from topology.errors import WorkloadError
from topology.words import Collective

H100 = "model:dgx-h100 node:3"


def bytes_between(schedule: Schedule) -> Counter[tuple[int, int]]:
    """Share of S that goes from each rank to each other, over all steps."""
    total: Counter[tuple[int, int]] = Counter()
    for round_ in schedule.rounds:
        columns = (round_.source, round_.destination, schedule.shares(round_))
        for a, b, share in zip(*(column.tolist() for column in columns), strict=True):
            total[a, b] += share
    return total


def test_pairwise_meets_one_rank_further_on_in_each_step() -> None:
    schedule = schedule_of("pairwise", Collective.ALLTOALL, packed(H100, 5))
    steps = [{(m.destination - m.source) % 5 for m in step} for step in messages_of(schedule)]
    assert steps == [{1}, {2}, {3}, {4}]


def test_two_levels_cross_between_domains_once_for_each_target() -> None:
    """16 ranks on two nodes: inside, 7 messages of 2/16 each; across, one of 8/16."""
    placed = packed(H100, 16)
    schedule = schedule_of("hierarchical", Collective.ALLTOALL, placed)
    inside, across = schedule.rounds
    assert (inside.transfers, across.transfers) == (16 * 7, 16)
    assert schedule.shares(inside) == pytest.approx(np.full(16 * 7, 2 / 16))
    assert schedule.shares(across) == pytest.approx(np.full(16, 8 / 16))
    assert (abs(across.source - across.destination) == 8).all(), "to the same place of the other"
    assert (inside.source // 8 == inside.destination // 8).all()


def uneven(shares: object, name: str = "direct", ranks: int = 3) -> Schedule:
    layout = packed(H100, ranks).layout
    request = Request(
        Collective.ALLTOALLV, layout, pair_fraction=np.array(shares, dtype=np.float64)
    )
    return build_schedules(name, request)[0]


@pytest.mark.parametrize("name", ["direct", "pairwise"])
def test_a_rank_sends_what_its_row_says_and_nothing_of_no_bytes(name: str) -> None:
    schedule = uneven([[0.5, 0.25, 0.25], [0, 1, 0], [0.75, 0, 0.25]], name)
    prove(schedule)
    assert bytes_between(schedule) == {(0, 1): 0.25, (0, 2): 0.25, (2, 0): 0.75}
    assert schedule.messages == 3


@pytest.mark.parametrize("name", ["direct", "pairwise"])
def test_ranks_that_keep_everything_send_nothing(name: str) -> None:
    schedule = uneven(np.eye(3), name)
    prove(schedule)
    assert (schedule.messages, schedule.rounds) == (0, ())


def test_without_shares_an_alltoallv_is_an_alltoall() -> None:
    placed = packed(H100, 16)
    for name in ("direct", "pairwise", "hierarchical"):
        made = [schedule_of(name, c, placed) for c in (Collective.ALLTOALL, Collective.ALLTOALLV)]
        assert bytes_between(made[0]) == bytes_between(made[1])


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_shares_are_proved_and_kept(data: st.DataObject) -> None:
    ranks = data.draw(st.sampled_from([2, 3, 8, 16]))
    weights = data.draw(st.lists(st.integers(0, 3), min_size=ranks * ranks, max_size=ranks * ranks))
    shares = np.array(weights, dtype=np.float64).reshape(ranks, ranks) + np.eye(ranks)
    shares /= shares.sum(axis=1, keepdims=True)
    placed = packed(H100, ranks)
    request = Request(Collective.ALLTOALLV, placed.layout, pair_fraction=shares)
    for name in usable_names(request):
        (schedule,) = build_schedules(name, request)
        prove(schedule, placed.routes)
        if name != "hierarchical":
            sums = bytes_between(schedule)
            assert all(sums[a, b] == shares[a, b] for a in range(ranks) for b in range(a))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (np.full((2, 3), 0.5), "pair_fraction: 2 x 3 shares; give 3 x 3, one a pair of ranks"),
        (np.full(3, 1.0), "pair_fraction: 3 shares; give 3 x 3"),
        (np.full((3, 3), 0.5), "rank 0's shares sum to 1.5, the least is 0.5; give shares of 0 or"),
        ([[1, 0, 0], [0, 2, -1], [0, 0, 1]], "rank 1's shares sum to 1, the least is -1.0"),
        (np.full((3, 3), np.nan), "rank 0's shares sum to nan"),
        ([[np.inf, 0, 0]] * 3, "rank 0's shares sum to inf"),
    ],
)
def test_shares_that_cannot_be_are_refused(shares: object, message: str) -> None:
    with pytest.raises(WorkloadError, match="pair_fraction") as caught:
        uneven(shares)
    assert message in str(caught.value)


def test_shares_for_another_collective_are_refused() -> None:
    layout = packed(H100, 2).layout
    with pytest.raises(WorkloadError, match="given for alltoall; ask for alltoallv"):
        Request(Collective.ALLTOALL, layout, pair_fraction=np.full((2, 2), 0.5))


def test_a_request_keeps_its_own_shares() -> None:
    mine = np.full((2, 2), 0.5)
    request = Request(Collective.ALLTOALLV, packed(H100, 2).layout, pair_fraction=mine)
    mine[0, 0] = 7.0
    assert request.pair_fraction is not None
    assert request.pair_fraction[0, 0] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        request.pair_fraction[0, 0] = 1.0

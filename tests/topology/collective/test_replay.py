from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.merge import merge_snapshots
from fleet.model import FleetMap
from tests.topology.collective.layouts import (
    Placed,
    by_hand,
    messages_of,
    named,
    packed,
    placed_on,
    requests,
    schedule_of,
    spread_out,
    with_sharp,
    with_steps,
)
from tests.topology.fabric.factories import hosts_of
from topology.collective.algorithms import build_schedules
from topology.collective.replay import prove
from topology.collective.schedule import Schedule, Transfer, round_of
from topology.errors import ScheduleError, UnreachableError
from topology.fabric.from_fleet import Fabric
from topology.words import Collective

H100 = "model:dgx-h100 node:2"
ALL_REDUCE, BROADCAST = Collective.ALL_REDUCE, Collective.BROADCAST


def add(source: int, destination: int, chunk: int = 0, chunks: int = 1) -> Transfer:
    return Transfer(source, destination, chunk, chunks, reduces=True)


def copy(source: int, destination: int, chunk: int = 0, chunks: int = 1) -> Transfer:
    return Transfer(source, destination, chunk, chunks, reduces=False)


def refusal(schedule: Schedule) -> str:
    with pytest.raises(ScheduleError) as caught:
        prove(schedule)
    return str(caught.value)


def test_a_right_schedule_by_hand_is_proved() -> None:
    prove(by_hand(ALL_REDUCE, 3, [[add(1, 0)], [add(2, 0)], [copy(0, 1), copy(0, 2)]]))


def test_one_rank_alone_has_nothing_to_send() -> None:
    for collective in Collective:
        alone = by_hand(collective, 1, [])
        prove(replace(alone, target=np.zeros(1, dtype=np.int64)))


def test_a_missing_step_is_found_with_rank_and_chunk() -> None:
    steps = [[add(1, 0)], [copy(0, 1), copy(0, 2)]]
    assert refusal(by_hand(ALL_REDUCE, 3, steps)) == (
        "rank 0, step 2: ends with rank 2's part of chunk 0 0 times, not 1"
    )


def test_a_contribution_that_counts_twice_is_found() -> None:
    steps = [[add(1, 0)], [add(1, 0)], [copy(0, 1)]]
    assert refusal(by_hand(ALL_REDUCE, 2, steps)) == (
        "rank 0, step 3: ends with rank 1's part of chunk 0 2 times, not 1"
    )


def test_two_that_add_to_each_other_in_two_steps_count_one_part_twice() -> None:
    assert "2 times, not 1" in refusal(by_hand(ALL_REDUCE, 2, [[add(1, 0)], [add(0, 1)]]))


def test_messages_of_one_step_leave_with_what_is_held_before_it() -> None:
    prove(by_hand(ALL_REDUCE, 2, [[add(1, 0), add(0, 1)]]))
    assert "0 times" in refusal(by_hand(ALL_REDUCE, 3, [[add(2, 1), add(1, 0), copy(0, 2)]]))


def test_a_wrong_chunk_is_found() -> None:
    right = [[copy(0, 1, 0), copy(1, 0, 1)]]
    prove(by_hand(Collective.ALL_GATHER, 2, right, owner=(0, 1)))
    wrong = [[copy(0, 1, 1), copy(1, 0, 1)]]
    assert refusal(by_hand(Collective.ALL_GATHER, 2, wrong, owner=(0, 1))) == (
        "rank 0, step 0, chunk 1: sends a chunk it does not hold"
    )


def test_a_chunk_that_is_sent_before_it_came_is_found() -> None:
    steps = [[copy(1, 2)], [copy(0, 1)]]
    assert refusal(by_hand(BROADCAST, 3, steps)) == (
        "rank 1, step 0, chunk 0: sends a chunk it does not hold"
    )


@pytest.mark.parametrize("message", [copy(0, 1, 1), copy(0, 1, 0, 2), copy(0, 1, 0, 0)])
def test_a_message_of_chunks_that_are_not_there_is_found(message: Transfer) -> None:
    steps = [[copy(0, 1)], [message]]
    assert refusal(by_hand(BROADCAST, 2, steps)).endswith("sends a chunk it does not hold")


def test_a_message_to_oneself_is_found() -> None:
    assert refusal(by_hand(BROADCAST, 2, [[copy(0, 1)], [copy(1, 1)]])) == (
        "rank 1, step 1: sends to itself"
    )


@pytest.mark.parametrize(
    "step", [[copy(0, 2), copy(1, 2)], [copy(0, 2), add(1, 2)], [add(1, 2), copy(0, 2)]]
)
def test_two_messages_that_write_one_chunk_in_no_order_are_found(step: list[Transfer]) -> None:
    steps = [[copy(0, 1)], step]
    assert refusal(by_hand(BROADCAST, 3, steps)) == (
        "rank 2, step 1, chunk 0: a message overwrites what another of its step writes"
    )


def test_a_reduce_scatter_that_ends_on_another_rank_is_found() -> None:
    steps = [[add(0, 1, 0), add(1, 0, 1)]]
    prove(by_hand(Collective.REDUCE_SCATTER, 2, steps, owner=(1, 0)))
    assert "rank 0" in refusal(by_hand(Collective.REDUCE_SCATTER, 2, steps, owner=(0, 1)))


def test_a_reduction_may_not_be_overwritten_by_a_single_part() -> None:
    steps = [[add(1, 0)], [copy(1, 0)], [copy(0, 1)]]
    assert "rank 0's part of chunk 0 0 times" in refusal(by_hand(ALL_REDUCE, 2, steps))


def test_an_all_to_all_chunk_must_reach_its_target() -> None:
    schedule = schedule_of("pairwise", Collective.ALLTOALL, packed(H100, 3))
    assert schedule.target is not None
    prove(schedule)
    turned = replace(schedule, target=(schedule.target + 1) % 3)
    assert "ends with" in refusal(turned)


def test_a_sendrecv_must_reach_the_next_rank() -> None:
    def passing(step: list[Transfer]) -> Schedule:
        schedule = by_hand(Collective.SENDRECV, 3, [step], owner=(0, 1, 2))
        return replace(schedule, target=np.array([1, 2, 0]), chunk_fraction=1.0)

    prove(passing([copy(0, 1, 0), copy(1, 2, 1), copy(2, 0, 2)]))
    wrong = passing([copy(0, 2, 0), copy(1, 2, 1), copy(2, 0, 2)])
    assert refusal(wrong) == "rank 1, step 1: ends with rank 0's part of chunk 0 0 times, not 1"


def test_a_reduce_must_end_at_rank_0_and_nowhere_else_is_looked() -> None:
    prove(by_hand(Collective.REDUCE, 3, [[add(2, 1)], [add(1, 0)]]))
    assert "rank 0, step 2: ends with rank 0's part of chunk 0 0 times" in refusal(
        by_hand(Collective.REDUCE, 3, [[add(0, 1)], [copy(2, 0)]])
    )


def test_chunks_of_no_bytes_need_not_be_sent_and_cannot() -> None:
    whole = by_hand(Collective.ALLTOALLV, 2, [[copy(0, 1, 1)]], owner=(0, 0, 1, 1))
    target = np.array([0, 1, 0, 1])
    uneven = replace(whole, target=target, fractions=np.array([0.5, 0.5, 0.0, 1.0]))
    prove(uneven)
    assert "rank 1's part of chunk 2" in refusal(replace(uneven, fractions=np.full(4, 0.5)))
    nothing = with_steps(uneven, [[copy(0, 1, 1)], [copy(1, 0, 2)]])
    assert refusal(nothing) == "rank 1, step 1, chunk none: sends a chunk it does not hold"


def test_chunks_that_lie_apart_are_moved_by_their_stride() -> None:
    apart = round_of([0, 1], [1, 0], [0, 1], chunks=2, stride=2)
    schedule = by_hand(Collective.ALL_GATHER, 2, [], owner=(0, 1, 0, 1))
    prove(replace(schedule, rounds=(apart,)))
    assert "does not hold" in refusal(replace(schedule, rounds=(replace(apart, stride=1),)))


def test_a_message_over_a_link_that_is_not_there_is_found() -> None:
    fleet: FleetMap = merge_snapshots(hosts_of(2))
    fabric = Fabric(fleet)
    placed = placed_on(fabric, fabric.endpoints)
    schedule = by_hand(BROADCAST, 2, [[copy(0, 1)]])
    prove(schedule)
    with pytest.raises(UnreachableError, match="h0:0 -> h1:0: no_cable"):
        prove(schedule, placed.routes)


def through_switches(first: int, second: int) -> Schedule:
    """Two ranks that reduce in a switch each, then exchange; vertices 2 and 3 are switches."""
    steps = [
        [add(0, first), add(1, second)],
        [copy(first, 0), copy(second, 1)],
        [add(0, 1), add(1, 0)],
    ]
    return by_hand(ALL_REDUCE, 2, steps, switches=2)


def test_a_message_to_the_switch_of_another_domain_is_found() -> None:
    placed = named(H100, "h100-002:0", "h100-001:0")
    prove(through_switches(2, 3), placed.routes)
    prove(through_switches(3, 2))
    with pytest.raises(UnreachableError, match="the switch of another NVLink domain"):
        prove(through_switches(3, 2), placed.routes)


def test_a_schedule_of_other_ranks_than_the_placement_is_refused() -> None:
    schedule = schedule_of("ring", ALL_REDUCE, packed(H100, 4))
    with pytest.raises(ScheduleError, match="4 ranks on a placement of 3"):
        prove(schedule, packed(H100, 3).routes)


def small(name: str) -> Placed:
    """A placement on which the algorithm works: two domains for those that cross them."""
    if name in ("hierarchical", "nvls_tree", "collnet"):
        ends = (f"h100-00{i}:{slot}" for i in (1, 2) for slot in range(3))
        return with_sharp(named(H100, *ends))
    return spread_out("model:dgx-h100 node:6", 6) if name == "pat" else packed(H100, 6)


NAMES = (
    "ring",
    "tree",
    "double_binary_tree",
    "recursive_doubling",
    "nvls",
    "nvls_tree",
    "hierarchical",
    "collnet",
    "pat",
    "one_shot",
    "two_shot",
    "direct",
    "pairwise",
)


def some_schedule(data: st.DataObject) -> Schedule:
    name = data.draw(st.sampled_from(NAMES))
    able = [r for n, r in requests(small(name), channels=2, pieces=2) if n == name]
    return data.draw(st.sampled_from(build_schedules(name, data.draw(st.sampled_from(able)))))


@settings(max_examples=150)
@given(data=st.data())
def test_leaving_any_one_message_out_is_found(data: st.DataObject) -> None:
    schedule = some_schedule(data)
    steps = messages_of(schedule)
    prove(with_steps(schedule, steps))
    step = data.draw(st.integers(0, len(steps) - 1))
    gone = data.draw(st.integers(0, len(steps[step]) - 1))
    steps[step] = [m for i, m in enumerate(steps[step]) if i != gone]
    with pytest.raises(ScheduleError):
        prove(with_steps(schedule, steps))


@settings(max_examples=100)
@given(data=st.data())
def test_sending_any_one_sum_twice_is_found(data: st.DataObject) -> None:
    schedule = some_schedule(data)
    steps = messages_of(schedule)
    sums = [(i, m) for i, step in enumerate(steps) for m in step if m.reduces]
    if not sums:
        return
    step, message = data.draw(st.sampled_from(sums))
    steps[step] = [*steps[step], message]
    with pytest.raises(ScheduleError):
        prove(with_steps(schedule, steps))


@settings(max_examples=100)
@given(data=st.data())
def test_copying_any_one_chunk_to_another_rank_is_found(data: st.DataObject) -> None:
    schedule = some_schedule(data)
    steps = messages_of(schedule)
    copies = [(n, i) for n, step in enumerate(steps) for i, m in enumerate(step) if not m.reduces]
    if not copies:
        return
    step, i = data.draw(st.sampled_from(copies))
    message = steps[step][i]
    others = [r for r in range(schedule.ranks) if r not in (message.source, message.destination)]
    steps[step][i] = message._replace(destination=data.draw(st.sampled_from(others)))
    with pytest.raises(ScheduleError):
        prove(with_steps(schedule, steps))


def test_a_switch_starts_empty() -> None:
    schedule = by_hand(ALL_REDUCE, 2, [[copy(2, 0), copy(2, 1)]], switches=1)
    assert refusal(schedule) == "rank 2, step 0, chunk 0: sends a chunk it does not hold"


def test_replay_leaves_the_schedule_as_it_is() -> None:
    schedule = schedule_of("ring", ALL_REDUCE, packed(H100, 5))
    before = [np.copy(round_.offset) for round_ in schedule.rounds]
    prove(schedule)
    assert all(
        np.array_equal(a, round_.offset) for a, round_ in zip(before, schedule.rounds, strict=True)
    )

"""Replay of a step: when each rank has done each operation, and the path that decides the end.

Max-plus on ranks: a compute begins when its rank has what it waits for, a collective when all ranks
of its group have, and ends for all of them at once. Operations do not slow each other down.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.steps.groups import Groups
from topology.steps.unroll import Operation

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

Durations: TypeAlias = Callable[[Operation], FloatArray]
"""Durations of an operation: shape (ranks, trials) of a compute, (groups, trials) of others. [s]"""

_NOTHING = -1


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """Steps replayed. [s]

    ``step_s``: shape (trials,). ``part_s``: of each part the time on the path that decides the end,
    shape (parts, trials); they sum to the step. ``hidden_s``: of each part the time of collectives
    that are not on that path, the groups' mean, shape (parts, trials). ``bare_s``: the same steps
    if no collective took any time, though ranks still wait for each other; shape (trials,).
    """

    step_s: FloatArray
    bare_s: FloatArray
    part_s: FloatArray
    hidden_s: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Issue:
    """Operations in order, ready to replay. ``part_of``: number of the part of each.

    ``groups_of``: of each the groups that communicate, None for a compute.
    """

    ranks: int
    operations: tuple[Operation, ...]
    part_of: tuple[int, ...]
    groups_of: tuple[Groups | None, ...]

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return max(self.part_of) + 1

    @property
    def last(self) -> list[int]:
        """Operations that no other waits for."""
        awaited = {number for operation in self.operations for number in operation.after}
        return [number for number in range(len(self.operations)) if number not in awaited]


def replay(issue: Issue, durations: Durations, trials: int) -> Replay:
    """Steps with given durations, and what decides when each is done."""
    taken = [durations(operation) for operation in issue.operations]
    last = issue.last
    bare = _done(issue, _without_collectives(issue, taken), trials)
    bare_s = _end(bare, last)
    del bare
    done = _done(issue, taken, trials)
    part_s, hidden_s = _traced(issue, taken, done, last)
    return Replay(_end(done, last), bare_s, part_s, hidden_s)


def joined(parts: Sequence[Replay]) -> Replay:
    """Replays one after the other as one."""
    return Replay(
        np.concatenate([part.step_s for part in parts]),
        np.concatenate([part.bare_s for part in parts]),
        np.concatenate([part.part_s for part in parts], axis=1),
        np.concatenate([part.hidden_s for part in parts], axis=1),
    )


def _done(issue: Issue, taken: Sequence[FloatArray], trials: int) -> list[FloatArray]:
    """When each rank is done with each operation, each of shape (ranks, trials)."""
    done: list[FloatArray] = []
    for operation, groups, took in zip(issue.operations, issue.groups_of, taken, strict=True):
        ready = _latest([done[number] for number in operation.after], (issue.ranks, trials))
        done.append(ready + took if groups is None else _together(ready, took, groups))
    return done


def _end(done: Sequence[FloatArray], last: Sequence[int]) -> FloatArray:
    """When the last rank is done with the last operation, shape (trials,)."""
    return np.asarray(np.max([done[number].max(axis=0) for number in last], axis=0))


def _without_collectives(issue: Issue, taken: Sequence[FloatArray]) -> list[FloatArray]:
    """Durations of which those of collectives are nothing."""
    pairs = zip(taken, issue.groups_of, strict=True)
    return [took if groups is None else np.zeros((groups.count, 1)) for took, groups in pairs]


def _latest(waited: Sequence[FloatArray], shape: tuple[int, int]) -> FloatArray:
    if not waited:
        return np.zeros(shape)
    return waited[0] if len(waited) == 1 else np.maximum.reduce(waited)


def _together(ready: FloatArray, duration: FloatArray, groups: Groups) -> FloatArray:
    """When each rank is done with a collective that its group begins together."""
    end = ready[groups.members].max(axis=1) + duration
    done = np.empty_like(ready)
    done[groups.members] = end[:, None]
    return done


def _traced(
    issue: Issue, taken: Sequence[FloatArray], done: Sequence[FloatArray], last: Sequence[int]
) -> tuple[FloatArray, FloatArray]:
    """The path back from the end to the start, for all trials at once: time by part, on and off it.

    Both of shape (parts, trials).
    """
    now, rank = _latest_place(done, last)
    part_s, hidden_s = np.zeros((2, issue.parts, len(now)))
    for number in range(len(issue.operations) - 1, -1, -1):
        is_here = now == number
        here = np.flatnonzero(is_here)
        groups, part = issue.groups_of[number], issue.part_of[number]
        if groups is not None:
            hidden_s[part] += np.where(is_here, 0.0, taken[number].mean(axis=0))
        if not len(here):
            continue
        row = rank[here] if groups is None else groups.group_of[rank[here]]
        part_s[part, here] += taken[number][row, here]
        before = [(n, done[n]) for n in issue.operations[number].after]
        now[here], rank[here] = _awaited(before, rank[here], here, groups)
    return part_s, hidden_s


def _latest_place(done: Sequence[FloatArray], last: Sequence[int]) -> tuple[IntArray, IntArray]:
    """Operation and rank that are done last, each of shape (trials,)."""
    which = np.argmax([done[number].max(axis=0) for number in last], axis=0)
    ranks = np.array([done[number].argmax(axis=0) for number in last])
    return np.array(last)[which], np.take_along_axis(ranks, which[None], axis=0)[0]


def _awaited(
    before: Sequence[tuple[int, FloatArray]], rank: IntArray, here: IntArray, groups: Groups | None
) -> tuple[IntArray, IntArray]:
    """Operation and rank that were waited for longest; _NOTHING where it began at the start."""
    if not before:
        return np.full(len(here), _NOTHING), rank
    ranks = rank[:, None] if groups is None else groups.members[groups.group_of[rank]]
    times = np.stack([done[ranks, here[:, None]] for _, done in before], axis=1)
    flat = times.reshape(len(here), -1).argmax(axis=1)
    numbers = np.array([number for number, _ in before])
    which, member = np.divmod(flat, ranks.shape[1])
    return numbers[which], np.take_along_axis(ranks, member[:, None], axis=1)[:, 0]

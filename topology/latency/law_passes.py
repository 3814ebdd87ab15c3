"""Law passes: carry laws through a schedule's steps, from its start and back from its ends.

Each row holds the number of a law, and what is made alike is made once. A value that has several
users is whole for one of them and ``shared`` for the others. A row that sends is busy for its
bandwidth: what it holds for later sends is that much later.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from topology.collective.schedule import BoolArray, IntArray
from topology.latency.law import Grid, Law, greatest, point
from topology.latency.law_graph import Graph, Kind, Step

NO_LAW: Final = -1
"""The number of a row that nothing depends on any more."""

DENSE: Final = 2**22
"""Codes below this are looked up in a table, above it they are sorted."""


class Laws:
    """Laws by number, each made once: 0 is the certain 0."""

    def __init__(self, grid: Grid, hops: Sequence[Law]) -> None:
        self.laws = [point(grid, 0.0)]
        self._hops = hops
        self._made: dict[tuple[object, ...], int] = {}

    def sent(self, number: int, kind: Kind) -> int:
        """What arrives of what was sent at a time."""
        hop = self._hops[kind.jitter]
        noisy = self._number(("+", number, kind.jitter), lambda: self.laws[number].plus(hop))
        return self.later(noisy, kind.message_s)

    def later(self, number: int, by_s: float) -> int:
        """A time shifted by a constant."""
        return self._number((">", number, by_s), lambda: self.laws[number].shifted(by_s))

    def shared(self, number: int) -> int:
        """A value for its second user."""
        return self._number(("/", number), lambda: self.laws[number].shared())

    def greatest(self, counts: tuple[tuple[int, int], ...]) -> int:
        """The latest of independent times: (number, how many) of each."""
        if len(counts) == 1 and counts[0][1] == 1:
            return counts[0][0]
        terms = [(self.laws[number], count) for number, count in counts]
        return self._number(("^", counts), lambda: greatest(terms))

    def sum_of(self, a: int, b: int) -> int:
        """The sum of two independent times."""
        return self._number(("&", a, b), lambda: self.laws[a].plus(self.laws[b]))

    def _number(self, key: tuple[object, ...], make: Callable[[], Law]) -> int:
        found = self._made.get(key)
        if found is None:
            law = make()
            found = self._made[key] = len(self.laws)
            self.laws.append(law)
        return found


def mapped(codes: IntArray, make: Callable[[int], int]) -> IntArray:
    """``make`` of every code, called once for each distinct one."""
    top = int(codes.max(initial=0)) + 1
    if top > DENSE:
        distinct, place = np.unique(codes, return_inverse=True)
        return np.array([make(code) for code in distinct.tolist()], dtype=np.int64)[place]
    seen = np.zeros(top, dtype=np.bool_)
    seen[codes] = True
    table = np.zeros(top, dtype=np.int64)
    for code in np.flatnonzero(seen).tolist():
        table[code] = make(code)
    return table[codes]


def laws_at_waist(
    graph: Graph, laws: Laws, waist: int, *, shares: bool = True
) -> list[tuple[Law, int]]:
    """Laws of the whole time over each live row of a boundary, each with how many rows have it.

    ``shares``: a value for its second user is its floor; without, each row's law is that of the
    row alone, and rows are not independent.
    """
    onward = _backward(graph, laws, waist, shares=shares)
    so_far = _forward(graph, laws, waist, onward != NO_LAW, shares=shares)
    live = onward != NO_LAW
    width = len(laws.laws)
    codes, counts = np.unique(so_far[live] * width + onward[live], return_counts=True)
    numbers = [laws.sum_of(*divmod(code, width)) for code in codes.tolist()]
    return [(laws.laws[n], count) for n, count in zip(numbers, counts.tolist(), strict=True)]


def _forward(graph: Graph, laws: Laws, waist: int, live: BoolArray, *, shares: bool) -> IntArray:
    """Numbers of the laws of when each row is ready at the waist; 0 where it is not live."""
    lives = [live]
    for step in reversed(graph.steps[:waist]):
        before = lives[-1].copy()
        before[step.destination[step.replaces]] = False
        before[step.source] = True
        if step.lockstep:
            before[step.destination] = True
        if step.gate is not None:
            before[step.gate] = True
        lives.append(before)
    numbers = np.zeros(graph.rows, dtype=np.int64)
    for i, step in enumerate(graph.steps[:waist]):
        numbers = _step_forward(step, laws, numbers, lives[waist - 1 - i], shares=shares)
    return np.where(live, numbers, 0)


def _step_forward(
    step: Step, laws: Laws, numbers: IntArray, live: BoolArray, *, shares: bool
) -> IntArray:
    carried = live.copy()
    carried[step.destination[step.replaces]] = False
    if step.gate is not None:
        return _through_gates(step, laws, numbers, carried)
    start = numbers[step.source]
    if step.lockstep:
        width = len(laws.laws)
        both = np.sort(np.stack([start, numbers[step.destination]]), axis=0)
        start = mapped(both[0] * width + both[1], lambda c: _pair(laws, divmod(c, width)))
    if shares:
        first = _is_first(step.source, len(numbers))
        if step.lockstep:
            # A row is asked for as sender and as receiver: only its first receipt has it whole.
            start = numbers[step.destination]
            whole = _is_first(step.destination, len(numbers))
            start = np.where(whole, start, mapped(start, laws.shared))
            asked = mapped(numbers[step.source], laws.shared)
            width = len(laws.laws)
            start = mapped(start * width + asked, lambda c: _pair(laws, divmod(c, width)))
        else:
            start = np.where(first, start, mapped(start, laws.shared))
        again = np.zeros(len(numbers), dtype=np.bool_)
        again[step.source] = True
        numbers = np.where(again & carried, mapped(np.maximum(numbers, 0), laws.shared), numbers)
    arrived = _sent(step, laws, start)
    rest = np.where(carried, _busy(step, laws, np.maximum(numbers, 0)), NO_LAW)
    return _combined(laws, rest, step.destination, arrived)


def _through_gates(step: Step, laws: Laws, numbers: IntArray, carried: BoolArray) -> IntArray:
    """A step forward in which a message also waits until its sender's last sends have left."""
    assert step.gate is not None
    width = len(laws.laws)
    codes = numbers[step.source] * width + numbers[step.gate]
    start = mapped(codes, lambda code: _pair(laws, divmod(code, width)))
    carried[step.gate] = False
    rows = np.concatenate([step.destination, step.gate])
    arriving = np.concatenate([_sent(step, laws, start), _left(step, laws, start)])
    return _combined(laws, np.where(carried, numbers, NO_LAW), rows, arriving)


def _back_through_gates(step: Step, laws: Laws, numbers: IntArray, kept: BoolArray) -> IntArray:
    """A step back: when a message starts matters to its receiver and to the sender's next sends."""
    assert step.gate is not None
    kept[step.gate] = False
    rows, leaving = [], []
    for end, moved in ((numbers[step.destination], _sent), (numbers[step.gate], _left)):
        asked = end != NO_LAW
        some = _selected(step, asked)
        assert some.gate is not None
        onward = moved(some, laws, end[asked])
        rows += [some.source, some.gate]
        leaving += [onward, onward]
    rest = np.where(kept, numbers, NO_LAW)
    return _combined(laws, rest, np.concatenate(rows), np.concatenate(leaving))


def _left(step: Step, laws: Laws, numbers: IntArray) -> IntArray:
    """Numbers of when what starts at the laws of these numbers has left."""
    kinds = step.kinds
    return mapped(
        numbers * len(kinds) + step.kind,
        lambda code: laws.later(code // len(kinds), kinds[code % len(kinds)].bandwidth_s),
    )


def _backward(graph: Graph, laws: Laws, waist: int, *, shares: bool) -> IntArray:
    """Numbers of the laws of the rest of the time from each row; NO_LAW where nothing follows."""
    numbers = np.where(graph.ends, 0, NO_LAW)
    for step in reversed(graph.steps[waist:]):
        numbers = _step_backward(step, laws, numbers, shares=shares)
    return numbers


def _step_backward(step: Step, laws: Laws, numbers: IntArray, *, shares: bool) -> IntArray:
    kept = numbers != NO_LAW
    kept[step.destination[step.replaces]] = False
    if step.gate is not None:
        return _back_through_gates(step, laws, numbers, kept)
    goal = numbers[step.destination]
    asked = goal != NO_LAW
    step = _selected(step, asked)
    goal = goal[asked]
    rest = numbers
    if shares:
        first = _is_first(step.destination, len(numbers))
        goal = np.where(first, goal, mapped(goal, laws.shared))
        again = np.zeros(len(numbers), dtype=np.bool_)
        again[step.destination] = True
        rest = np.where(again & kept, mapped(np.maximum(numbers, 0), laws.shared), numbers)
    leaving = _sent(step, laws, goal)
    rest = np.where(kept, _busy(step, laws, np.maximum(rest, 0)), NO_LAW)
    return _combined(laws, rest, step.source, leaving)


def _selected(step: Step, chosen: BoolArray) -> Step:
    if chosen.all():
        return step
    return Step(
        step.source[chosen],
        step.destination[chosen],
        step.kind[chosen],
        step.kinds,
        step.lockstep,
        step.replaces[chosen],
        step.resends,
        None if step.gate is None else step.gate[chosen],
    )


def _pair(laws: Laws, pair: tuple[int, int]) -> int:
    a, b = pair
    return laws.greatest(((a, 2),)) if a == b else laws.greatest(((a, 1), (b, 1)))


def _is_first(rows: IntArray, count: int) -> BoolArray:
    """Whether a message is the first of its row in the step."""
    places = np.full(count, -1, dtype=np.int64)
    places[rows[::-1]] = np.arange(len(rows))[::-1]
    return np.asarray(places[rows] == np.arange(len(rows)))


def _sent(step: Step, laws: Laws, numbers: IntArray) -> IntArray:
    """Numbers of what arrives, of what starts at the laws of these numbers."""
    kinds = step.kinds
    return mapped(
        numbers * len(kinds) + step.kind,
        lambda code: laws.sent(code // len(kinds), kinds[code % len(kinds)]),
    )


def _busy(step: Step, laws: Laws, numbers: IntArray) -> IntArray:
    """Numbers of what rows hold after the step, before arrivals: later where they send again."""
    busy_s = np.zeros(len(numbers))
    bandwidth_s = np.array([kind.bandwidth_s for kind in step.kinds])
    if not bandwidth_s.any() or step.lockstep:
        return numbers
    np.maximum.at(busy_s, step.source, bandwidth_s[step.kind])
    busy_s[~step.resends] = 0.0
    where = np.flatnonzero(busy_s)
    distinct, place = np.unique(busy_s[where], return_inverse=True)
    result = numbers.copy()
    result[where] = mapped(
        numbers[where] * len(distinct) + place,
        lambda code: laws.later(code // len(distinct), float(distinct[code % len(distinct)])),
    )
    return result


def _combined(laws: Laws, rest: IntArray, rows: IntArray, numbers: IntArray) -> IntArray:
    """Each row's latest of what it holds and of what comes to it (several times, perhaps)."""
    result = rest.copy()
    has = rest[rows] != NO_LAW
    first = _is_first(rows, len(rest))
    all_rows = np.concatenate([rows, rows[has & first]])
    all_numbers = np.concatenate([numbers, rest[rows[has & first]]])
    if not len(all_rows):
        return result
    order = np.argsort(all_rows, kind="stable")
    sorted_rows, sorted_numbers = all_rows[order], all_numbers[order]
    starts = np.flatnonzero(np.diff(sorted_rows, prepend=-1))
    marks = np.add.reduceat(_marks(len(laws.laws))[sorted_numbers], starts)
    _, example, place = np.unique(marks, return_index=True, return_inverse=True)
    ends = np.append(starts[1:], len(sorted_rows))
    made = []
    for i in example.tolist():
        members, counts = np.unique(sorted_numbers[starts[i] : ends[i]], return_counts=True)
        made.append(laws.greatest(tuple(zip(members.tolist(), counts.tolist(), strict=True))))
    result[sorted_rows[starts]] = np.array(made, dtype=np.int64)[place]
    return result


def _marks(count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """A mark for each law, so that equal sums of marks mean equal sets: 64 random bits."""
    return np.random.default_rng(0).integers(0, 2**64, size=count, dtype=np.uint64)

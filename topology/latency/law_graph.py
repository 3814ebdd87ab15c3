"""Law graph: carries laws through a schedule's steps, from its start and back from its ends.

Rows are vertex x channel; each holds the number of a law, and what is made alike is made once.
A value that has several users is whole for one of them and ``shared`` for the others. A row that
sends is busy for its bandwidth: what it holds for later sends is that much later.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from topology.collective.schedule import BoolArray, IntArray
from topology.latency.cost import Costs, RoundCost
from topology.latency.law import FloatArray, Grid, Law, greatest, point

NO_LAW: Final = -1
"""The number of a row that nothing depends on any more."""

DENSE: Final = 2**22
KEPT_BITS: Final = 10
"""Times that differ in the last 10 bits, 2e-13 of them, are one: sums of the same in any order."""


class Kind(NamedTuple):
    """Messages that cost the same."""

    jitter: int
    message_s: float
    bandwidth_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step; arrays of shape (m,). ``replaces``: the arrival is later than what was there.

    ``resends``: shape (rows,), whether a row sends in a later step.
    """

    source: IntArray
    destination: IntArray
    kind: IntArray
    kinds: tuple[Kind, ...]
    lockstep: bool
    replaces: BoolArray
    resends: BoolArray


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Steps over ``rows`` rows; the operation ends when the rows that ``ends`` says are ready."""

    rows: int
    ends: BoolArray
    steps: tuple[Step, ...]


def graph_of(costs: Costs, *, channels: int, copies_replace: bool) -> Graph:
    """The steps of a schedule.

    ``channels``: 1 puts all channels of a vertex in one row, which is later than they are.
    ``copies_replace``: whether what a copy overwrites went into it, as in an all-reduce.
    """
    schedule = costs.schedule
    rows = schedule.vertices * channels
    ends = np.arange(rows) < schedule.ranks * channels
    plain = [
        (cost, cost.round.source * channels + lane, cost.round.destination * channels + lane)
        for cost in costs.rounds
        for lane in [cost.round.channel * (channels > 1)]
    ]
    resends = np.zeros((len(plain) + 1, rows), dtype=np.bool_)
    for i in range(len(plain) - 1, -1, -1):
        resends[i] = resends[i + 1]
        resends[i, plain[i][1]] = True
    touched = np.zeros(rows, dtype=np.bool_)
    steps = []
    for i, (cost, source, destination) in enumerate(plain):
        kind, kinds = _kinds(cost)
        busy = touched.copy()
        busy[source] |= resends[i + 1, source]
        replaces = ~busy[destination]
        if copies_replace:
            replaces |= ~cost.round.reduces
        replaces |= cost.round.lockstep
        lockstep = cost.round.lockstep
        steps.append(Step(source, destination, kind, kinds, lockstep, replaces, resends[i + 1]))
        touched[source] = touched[destination] = True
    return Graph(rows, ends, tuple(steps))


def _kinds(cost: RoundCost) -> tuple[IntArray, tuple[Kind, ...]]:
    """Which messages cost the same, and what."""
    columns = (cost.jitter, *map(_rounded, (cost.message_s, cost.bandwidth_s)))
    if all(len(column) and column.min() == column.max() for column in columns):
        first, place = np.zeros(1, dtype=np.int64), np.zeros(len(cost.jitter), dtype=np.int64)
    else:
        _, first, place = np.unique(
            np.stack(columns), axis=1, return_index=True, return_inverse=True
        )
    times = zip(cost.jitter[first], cost.message_s[first], cost.bandwidth_s[first], strict=True)
    return place.reshape(-1), tuple(Kind(int(j), float(m), float(b)) for j, m, b in times)


def _rounded(times_s: FloatArray) -> IntArray:
    return np.ascontiguousarray(times_s).view(np.int64) >> KEPT_BITS


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

    @cached_property
    def _marks(self) -> FloatArray:
        return np.empty(0)


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


def waist_of(graph: Graph) -> int:
    """The boundary of steps where the fewest rows pass on what they got, the middle one of them."""
    steps = graph.steps
    last_lockstep = max((i + 1 for i, step in enumerate(steps) if step.lockstep), default=0)

    def passing(boundary: int) -> int:
        into = _count(steps[boundary - 1].destination) if boundary else graph.rows
        out = _count(steps[boundary].source) if boundary < len(steps) else graph.rows
        return min(into, out)

    middle = len(steps) / 2
    candidates = range(last_lockstep, len(steps) + 1)
    return min(candidates, key=lambda b: (passing(b), abs(b - middle)))


def _count(rows: IntArray) -> int:
    if not len(rows):
        return 0
    seen = np.zeros(int(rows.max()) + 1, dtype=np.bool_)
    seen[rows] = True
    return int(seen.sum())


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
    start = numbers[step.source]
    if step.lockstep:
        width = len(laws.laws)
        both = np.sort(np.stack([start, numbers[step.destination]]), axis=0)
        start = mapped(both[0] * width + both[1], lambda c: _pair(laws, divmod(c, width)))
    if shares:
        first = _is_first(step.source, len(numbers))
        if step.lockstep:
            # A row is asked for as sender and as receiver: only its own receipt has it whole.
            start = numbers[step.destination]
            asked = mapped(numbers[step.source], laws.shared)
            width = len(laws.laws)
            start = mapped(start * width + asked, lambda c: _pair(laws, divmod(c, width)))
        else:
            start = np.where(first, start, mapped(start, laws.shared))
        again = np.zeros(len(numbers), dtype=np.bool_)
        again[step.source] = True
        numbers = np.where(again & carried, mapped(numbers, laws.shared), numbers)
    arrived = _sent(step, laws, start)
    rest = _busy(step, laws, numbers)
    rest = np.where(carried, rest, NO_LAW)
    return _combined(laws, rest, step.destination, arrived)


def _backward(graph: Graph, laws: Laws, waist: int, *, shares: bool) -> IntArray:
    """Numbers of the laws of how long the rest takes from each row; NO_LAW where nothing follows."""
    numbers = np.where(graph.ends, 0, NO_LAW)
    for step in reversed(graph.steps[waist:]):
        numbers = _step_backward(step, laws, numbers, shares=shares)
    return numbers


def _step_backward(step: Step, laws: Laws, numbers: IntArray, *, shares: bool) -> IntArray:
    kept = numbers != NO_LAW
    kept[step.destination[step.replaces]] = False
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

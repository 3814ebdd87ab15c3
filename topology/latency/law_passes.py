"""Law passes: carry laws through a schedule's steps, from its start and back from its ends.

Each row holds the number of a formula, and what is made alike is made once: the formulas are worked
out on any grid. A value that has several users is whole for one of them and ``shared`` for the
others. A row that sends is busy for its bandwidth: what it holds for later sends is that much
later.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np

from topology.collective.schedule import BoolArray, IntArray
from topology.latency.law import Grid, Law, greatest, point
from topology.latency.law_graph import Graph, Kind, Step
from topology.latency.law_rows import FloatArray

NO_LAW: Final = -1
"""The number of a row that nothing depends on any more."""

DENSE: Final = 2**22
"""Codes below this are looked up in a table, above it they are sorted."""


Op: TypeAlias = tuple[object, ...]
"""How a law is made of others, which stand before it: a letter, and what goes into it."""


class Laws:
    """Laws by number, as formulas: each is made once, and worked out on any grid. 0: certain 0."""

    def __init__(self) -> None:
        self.formulas: list[Op] = [("0",)]
        self._made: dict[Op, int] = {}

    def sent(self, number: int, kind: Kind) -> int:
        """What arrives of what was sent at a time."""
        return self.later(self._number("+", number, kind.jitter), kind.message_s)

    def later(self, number: int, by_s: float) -> int:
        """A time shifted by a constant."""
        return self._number(">", number, by_s)

    def shared(self, number: int) -> int:
        """A value for its second user."""
        return self._number("/", number)

    def greatest(self, counts: tuple[tuple[int, int], ...]) -> int:
        """The latest of independent times: (number, how many) of each."""
        if len(counts) == 1 and counts[0][1] == 1:
            return counts[0][0]
        return self._number("^", counts)

    def sum_of(self, a: int, b: int) -> int:
        """The sum of two independent times."""
        return self._number("&", a, b)

    @property
    def has_shared(self) -> bool:
        """Whether any value has a second user."""
        return any(formula[0] == "/" for formula in self.formulas)

    def worked_out(self, grid: Grid, hops: Sequence[Law]) -> list[Law]:
        """Every law on a grid; ``hops``: the law of a message's noise for each class."""
        laws: list[Law] = []
        for formula in self.formulas:
            laws.append(_worked_out(formula, laws, grid, hops))
        return laws

    def _number(self, *formula: object) -> int:
        found = self._made.get(formula)
        if found is None:
            found = self._made[formula] = len(self.formulas)
            self.formulas.append(formula)
        return found


def _worked_out(formula: Op, laws: Sequence[Law], grid: Grid, hops: Sequence[Law]) -> Law:
    match formula:
        case ("+", int(number), int(jitter)):
            return laws[number].plus(hops[jitter])
        case (">", int(number), float(by_s)):
            return laws[number].shifted(by_s)
        case ("/", int(number)):
            return laws[number].shared()
        case ("&", int(a), int(b)):
            return laws[a].plus(laws[b])
        case ("^", tuple(counts)):
            return greatest([(laws[number], count) for number, count in counts])
    return point(grid, 0.0)


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
) -> list[tuple[int, int]]:
    """Numbers of the laws of the whole time over the live rows of a boundary, and how many have it.

    ``shares``: a value for its second user is its floor; without, each row's law is that of the
    row alone, and rows are not independent.
    """
    onward = _backward(graph, laws, waist, shares=shares)
    so_far = _forward(graph, laws, waist, onward != NO_LAW, shares=shares)
    live = onward != NO_LAW
    width = len(laws.formulas)
    codes, counts = np.unique(so_far[live] * width + onward[live], return_counts=True)
    numbers = [laws.sum_of(*divmod(code, width)) for code in codes.tolist()]
    return list(zip(numbers, counts.tolist(), strict=True))


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
        _step_forward(step, laws, numbers, lives[waist - 1 - i], shares=shares)
    return np.where(live, numbers, 0)


def _step_forward(
    step: Step, laws: Laws, numbers: IntArray, live: BoolArray, *, shares: bool
) -> None:
    """Carry the numbers of all rows on, in place; those of rows that are not live mean nothing."""
    carried = live.copy()
    carried[step.destination[step.replaces]] = False
    if step.gate is not None:
        _through_gates(step, laws, numbers, carried)
        return
    start = _started(step, laws, numbers, shares=shares)
    if shares:
        _share_again(laws, numbers, step.source[carried[step.source]])
    arrived = _sent(step, laws, start)
    _keep_busy(step, laws, numbers, carried)
    _combine(laws, numbers, carried, step.destination, arrived)


def _started(step: Step, laws: Laws, numbers: IntArray, *, shares: bool) -> IntArray:
    """Numbers of when each message starts."""
    start = numbers[step.source]
    if not step.lockstep:
        if not shares:
            return start
        first = _is_first(step.source, len(numbers))
        return start if first.all() else np.where(first, start, mapped(start, laws.shared))
    own = numbers[step.destination]
    if shares:
        # A row is asked for as sender and as receiver: only its first receipt has it whole.
        whole = _is_first(step.destination, len(numbers))
        own = np.where(whole, own, mapped(own, laws.shared))
        start = mapped(start, laws.shared)
    return _pairs(laws, own, start)


def _pairs(laws: Laws, a: IntArray, b: IntArray) -> IntArray:
    """Numbers of the later of each two."""
    width = len(laws.formulas)
    codes = np.minimum(a, b) * width + np.maximum(a, b)
    return mapped(codes, lambda code: _pair(laws, divmod(code, width)))


def _share_again(laws: Laws, numbers: IntArray, rows: IntArray) -> None:
    """What rows hold goes to a further user."""
    if len(rows):
        numbers[rows] = mapped(numbers[rows], laws.shared)


def _through_gates(step: Step, laws: Laws, numbers: IntArray, carried: BoolArray) -> None:
    """A step forward in which a message also waits until its sender's last sends have left."""
    assert step.gate is not None
    start = _pairs(laws, numbers[step.source], numbers[step.gate])
    carried[step.gate] = False
    rows = np.concatenate([step.destination, step.gate])
    arriving = np.concatenate([_sent(step, laws, start), _left(step, laws, start)])
    _combine(laws, numbers, carried, rows, arriving)


def _back_through_gates(step: Step, laws: Laws, numbers: IntArray, replaced: IntArray) -> None:
    """A step back: when a message starts matters to its receiver and to the sender's next sends."""
    assert step.gate is not None
    rows, leaving = [], []
    for end, moved in ((numbers[step.destination], _sent), (numbers[step.gate], _left)):
        asked = end != NO_LAW
        some = _selected(step, asked)
        assert some.gate is not None
        onward = moved(some, laws, end[asked])
        rows += [some.source, some.gate]
        leaving += [onward, onward]
    numbers[replaced] = NO_LAW
    numbers[step.gate] = NO_LAW
    _combine(laws, numbers, numbers != NO_LAW, np.concatenate(rows), np.concatenate(leaving))


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
        _step_backward(step, laws, numbers, shares=shares)
    return numbers


def _step_backward(step: Step, laws: Laws, numbers: IntArray, *, shares: bool) -> None:
    """Carry the numbers of all rows back over a step, in place."""
    replaced = step.destination[step.replaces]
    if step.gate is not None:
        _back_through_gates(step, laws, numbers, replaced)
        return
    goal = numbers[step.destination]
    asked = goal != NO_LAW
    step, goal = _selected(step, asked), goal[asked]
    numbers[replaced] = NO_LAW
    if shares:
        first = _is_first(step.destination, len(numbers))
        if not first.all():
            goal = np.where(first, goal, mapped(goal, laws.shared))
        _share_again(laws, numbers, step.destination[numbers[step.destination] != NO_LAW])
    leaving = _sent(step, laws, goal)
    kept = numbers != NO_LAW
    _keep_busy(step, laws, numbers, kept)
    _combine(laws, numbers, kept, step.source, leaving)


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
    if np.count_nonzero(_is_among(rows, count)) == len(rows):
        return np.ones(len(rows), dtype=np.bool_)
    places = np.empty(count, dtype=np.int64)
    places[rows[::-1]] = np.arange(len(rows))[::-1]
    return np.asarray(places[rows] == np.arange(len(rows)))


def _is_among(rows: IntArray, count: int) -> BoolArray:
    """Of all rows, whether a message is of it."""
    among = np.zeros(count, dtype=np.bool_)
    among[rows] = True
    return among


def _sent(step: Step, laws: Laws, numbers: IntArray) -> IntArray:
    """Numbers of what arrives, of what starts at the laws of these numbers."""
    kinds = step.kinds
    return mapped(
        numbers * len(kinds) + step.kind,
        lambda code: laws.sent(code // len(kinds), kinds[code % len(kinds)]),
    )


def _keep_busy(step: Step, laws: Laws, numbers: IntArray, kept: BoolArray) -> None:
    """What senders hold after the step, before arrivals: later where they send again."""
    if step.lockstep or not any(kind.bandwidth_s for kind in step.kinds):
        return
    again = step.resends[step.source] & kept[step.source]
    rows, busy_s = _longest(step, again)
    distinct, place = np.unique(busy_s, return_inverse=True)
    numbers[rows] = mapped(
        numbers[rows] * len(distinct) + place,
        lambda code: laws.later(code // len(distinct), float(distinct[code % len(distinct)])),
    )


def _longest(step: Step, chosen: BoolArray) -> tuple[IntArray, FloatArray]:
    """Rows that chosen messages leave from, and for how long each is busy with them. [s]"""
    bandwidth_s = np.array([kind.bandwidth_s for kind in step.kinds])[step.kind[chosen]]
    rows, place = np.unique(step.source[chosen], return_inverse=True)
    busy_s = np.zeros(len(rows))
    np.maximum.at(busy_s, place, bandwidth_s)
    return rows[busy_s > 0], busy_s[busy_s > 0]


def _combine(
    laws: Laws, numbers: IntArray, kept: BoolArray, rows: IntArray, arriving: IntArray
) -> None:
    """Put into rows the latest of what they keep and of what comes to them, in place."""
    if not len(rows):
        return
    if _is_first(rows, len(numbers)).all():
        own = kept[rows]
        if own.any():
            arriving = arriving.copy()
            arriving[own] = _pairs(laws, arriving[own], numbers[rows[own]])
        numbers[rows] = arriving
        return
    owners = np.flatnonzero(_is_among(rows, len(numbers)) & kept)
    all_rows = np.concatenate([rows, owners])
    all_numbers = np.concatenate([arriving, numbers[owners]])
    order = np.argsort(all_rows, kind="stable")
    sorted_rows, sorted_numbers = all_rows[order], all_numbers[order]
    starts = np.flatnonzero(np.diff(sorted_rows, prepend=-1))
    marks = np.add.reduceat(_marks(len(laws.formulas))[sorted_numbers], starts)
    _, example, place = np.unique(marks, return_index=True, return_inverse=True)
    ends = np.append(starts[1:], len(sorted_rows))
    made = []
    for i in example.tolist():
        counts = np.bincount(sorted_numbers[starts[i] : ends[i]])
        members = np.flatnonzero(counts)
        pairs = zip(members.tolist(), counts[members].tolist(), strict=True)
        made.append(laws.greatest(tuple(pairs)))
    numbers[sorted_rows[starts]] = np.array(made, dtype=np.int64)[place]


def _marks(count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """A mark for each law, so that equal sums of marks mean equal sets: 64 random bits."""
    return np.random.default_rng(0).integers(0, 2**64, size=count, dtype=np.uint64)

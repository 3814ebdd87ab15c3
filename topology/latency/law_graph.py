"""Law graph: a schedule's steps over rows, vertex x channel, and where they are narrowest.

No laws: ``law_passes`` carries them through.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from topology.collective.schedule import BoolArray, IntArray, Round
from topology.latency.cost import Costs, RoundCost
from topology.latency.law_rows import FloatArray

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

    ``resends``: shape (rows,), whether a row sends in a later step. ``gate``: the row that
    says when a sender's last sends, on any channel, have left; None: rows are busy by themselves.
    """

    source: IntArray
    destination: IntArray
    kind: IntArray
    kinds: tuple[Kind, ...]
    lockstep: bool
    replaces: BoolArray
    resends: BoolArray
    gate: IntArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Steps over ``rows`` rows; the operation ends when the rows that ``ends`` says are ready."""

    rows: int
    ends: BoolArray
    steps: tuple[Step, ...]


def graph_of(costs: Costs, *, copies_replace: bool, gated: bool) -> Graph:
    """The steps of a schedule.

    ``copies_replace``: whether what a copy overwrites went into it, as in an all-reduce. ``gated``:
    with a row more for each vertex, its gate, where channels wait for each other's sends.
    """
    schedule = costs.schedule
    channels = schedule.channels
    lanes = schedule.vertices * channels
    rows = lanes + schedule.vertices * gated
    plain = [
        (cost, *_rows(cost.round, i, channels))
        for cost in costs.rounds
        for i in range(cost.round.repeats)
    ]
    resends = np.zeros((len(plain) + 1, rows), dtype=np.bool_)
    for i in range(len(plain) - 1, -1, -1):
        resends[i] = resends[i + 1]
        resends[i, plain[i][1]] = True
    touched, sends = np.zeros((2, rows), dtype=np.bool_)
    ends = np.arange(rows) < schedule.ranks * channels
    steps = []
    for i, (cost, source, destination) in enumerate(plain):
        kind, kinds = kinds_of(cost)
        busy = touched[destination]
        if not gated:
            sends[source] = True
            busy |= sends[destination] & resends[i + 1, destination]
            sends[source] = False
        replaces = ~busy
        if copies_replace:
            replaces |= ~cost.round.reduces
        replaces |= cost.round.lockstep
        lockstep = cost.round.lockstep
        gate = lanes + cost.round.source if gated and not lockstep else None
        later = resends[i + 1]
        steps.append(Step(source, destination, kind, kinds, lockstep, replaces, later, gate))
        touched[destination] = True
        if not gated:
            touched[source] = True
        # What only sends on is done before what it sends has arrived.
        ends[source] = False
        ends[destination] = destination < schedule.ranks * channels
    return Graph(rows, ends, tuple(steps))


def _rows(round_: Round, repetition: int, channels: int) -> tuple[IntArray, IntArray]:
    """Rows that a round's messages go from and to in a repetition."""
    if channels == 1:
        return round_.source, round_.destination
    lane = round_.channel + repetition * round_.channel_shift
    return round_.source * channels + lane, round_.destination * channels + lane


def kinds_of(cost: RoundCost) -> tuple[IntArray, tuple[Kind, ...]]:
    """Which messages cost the same, and what."""
    columns = (cost.jitter, cost.message_s, cost.bandwidth_s)
    place = np.zeros(len(cost.jitter), dtype=np.int64)
    varying = [c for c in columns if len(c) and c.min() != c.max()]
    for column in varying:
        values, codes = np.unique(_rounded(column), return_inverse=True)
        place = place * len(values) + codes
    first = np.zeros(min(1, len(place)), dtype=np.int64)
    if varying:
        _, first, place = np.unique(place, return_index=True, return_inverse=True)
    times = zip(*(column[first] for column in columns), strict=True)
    return place, tuple(Kind(int(j), float(m), float(b)) for j, m, b in times)


def _rounded(values: FloatArray | IntArray) -> IntArray:
    if values.dtype == np.int64:
        return np.asarray(values, dtype=np.int64)
    return np.ascontiguousarray(values).view(np.int64) >> KEPT_BITS


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
    return int(np.count_nonzero(seen))

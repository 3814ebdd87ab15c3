"""Replay in time: when a collective is complete, without noise or over many noisy trials.

Max-plus: a message starts when its sender has what it sends (in lockstep also when its receiver is
ready), arrives after its cost and its noise, and its receiver is ready at the latest arrival. The
operation is complete when its slowest rank is. This is the ground truth of every other method.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.latency.cost import Costs, RoundCost
from topology.latency.layer_draws import BatchDraws, LayerDraws
from topology.latency.noise_layers import Layers
from topology.latency.round_draws import RoundDraws
from topology.latency.scatter_max import ScatterMax

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

STEP_ELEMENTS: Final = 2**14
"""Elements of one step's arrays: 128 KiB, so that a step stays in a core's cache."""

STATE_ELEMENTS: Final = 2**22
"""Elements of the whole state: 32 MiB."""

MOST_SIDE_BY_SIDE: Final = 2**11
"""Trials of one batch: the last batch is drawn whole, and more of it would be thrown away."""

LOOK_EVERY: Final = 8
"""Repetitions between two looks for a steady state; a look costs about half a repetition."""

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many trials are done, and of how many."""


class Noise(Protocol):
    """Adds a draw to every element, in place; what it draws depends on their number alone."""

    def add_to(self, arrival_s: FloatArray, rng: np.random.Generator) -> None:
        """Add it; the array is contiguous."""


@dataclass(frozen=True, slots=True, eq=False)
class _Lanes:
    """State rows of a step by channel: ``rows`` in order of channel, ``starts`` of each channel."""

    rows: IntArray
    starts: IntArray

    def common_advance(self, before: FloatArray, after: FloatArray) -> FloatArray | None:
        """By how much every row of its lane went on, shape (rows, k); None where they differ.

        Times are equal that differ by no more than rounding. Values: shape (rows, k), k of a kind.
        """
        advance = after - before
        least = np.minimum.reduceat(advance, self.starts, axis=0)
        most = np.maximum.reduceat(advance, self.starts, axis=0)
        if ((most - least) > ROUNDING * np.spacing(after.max())).any():
            return None
        sizes = np.diff(self.starts, append=len(self.rows))
        return np.repeat(most, sizes, axis=0)


ROUNDING: Final = 4
"""Units in the last place by which two sums of the same times may differ."""


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """A round made ready: its messages ordered by jitter law, with the state rows they touch.

    ``number``: of the round in its schedule; ``order``: where in it each message stands.
    ``laws``: (number of a law, first, end) of each run of messages with one law. ``lanes``: where
    the step depends on nothing but the rows that it changes, lane by lane; else None.
    """

    number: int
    order: IntArray
    is_lockstep: bool
    source: IntArray
    destination: IntArray
    sender: IntArray
    wire_s: FloatArray
    software_s: FloatArray
    bandwidth_s: FloatArray
    message_s: FloatArray
    laws: tuple[tuple[int, int, int], ...]
    arrive: ScatterMax
    leave: ScatterMax | None
    lanes: _Lanes | None

    @property
    def is_chained(self) -> bool:
        """Whether each receiver gets one message, which waited for what was there before."""
        return self.is_lockstep and self.arrive.is_single


def noiseless_s(costs: Costs) -> float:
    """Completion without noise; launch and base included. [s]"""
    return costs.launch_s + costs.base_s + float(_run(costs, _steps(costs), 1, None)[0])


def sample_s(
    costs: Costs,
    noises: Sequence[Noise],
    *,
    trials: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
    layers: Layers | None = None,
) -> FloatArray:
    """Completion times of many noisy trials, shape (trials,); launch and base included. [s]

    ``noises``: one law for each of ``costs.classes``. The draws of a trial depend on the generator
    and on its number alone: fewer trials are the first of more. ``progress`` is told how many
    trials are done. ``layers``: noise beyond single messages; it draws from children of ``rng``,
    so that the messages' own noise is the same with it and without.
    """
    steps = _steps(costs)
    batch = _batch_size(costs)
    draws = LayerDraws(layers, costs, rng) if layers is not None and layers.on else None
    done: list[FloatArray] = []
    count = 0
    while count < trials:
        drawn = None if draws is None else draws.batch(batch)
        done.append(_run(costs, steps, batch, (noises, rng), drawn))
        count = min(count + batch, trials)
        if progress is not None:
            progress(count, trials)
    return np.concatenate(done)[:trials] + (costs.launch_s + costs.base_s)


def _batch_size(costs: Costs) -> int:
    """Trials side by side: as many as keep a step in the cache and the state in memory."""
    lanes = costs.schedule.vertices * costs.schedule.channels
    widest = max((cost.round.transfers for cost in costs.rounds), default=1)
    fitting = min(STEP_ELEMENTS // max(widest, 1), STATE_ELEMENTS // max(lanes, 1))
    return min(max(fitting, 1), MOST_SIDE_BY_SIDE)


@lru_cache(maxsize=1)
def _steps(costs: Costs) -> tuple[tuple[_Plan, int], ...]:
    """Plans of all steps in order, each with how often it is repeated unchanged.

    Kept until the next, for a schedule is replayed under one noise after another.
    """
    channels = costs.schedule.channels
    steps: list[tuple[_Plan, int]] = []
    for number, cost in enumerate(costs.rounds):
        if cost.round.channel_shift:
            steps += [(_plan(number, cost, channels, i), 1) for i in range(cost.round.repeats)]
        else:
            steps.append((_plan(number, cost, channels, 0), cost.round.repeats))
    return tuple(steps)


def _run(
    costs: Costs,
    steps: Sequence[tuple[_Plan, int]],
    trials: int,
    noise: tuple[Sequence[Noise], np.random.Generator] | None,
    drawn: BatchDraws | None = None,
) -> FloatArray:
    schedule = costs.schedule
    ready = np.zeros((schedule.vertices * schedule.channels, trials))
    free = np.zeros((schedule.vertices, trials))
    late_s = None if drawn is None else drawn.start_s()
    if late_s is not None:
        ready[: schedule.ranks * schedule.channels] = np.repeat(late_s, schedule.channels, axis=0)
    for plan, repeats in steps:
        layers = None if drawn is None else RoundDraws(drawn, plan.number, plan.order)
        step = partial(_step, plan, ready, free, _Room.of(plan, trials, repeats), noise, layers)
        if noise is None:
            _repeat(step, plan.lanes, ready, repeats)
        else:
            for _ in range(repeats):
                step()
    ranks = ready[: schedule.ranks * schedule.channels]
    return np.asarray(ranks.max(axis=0))


def _repeat(
    step: Callable[[], None], lanes: _Lanes | None, ready: FloatArray, repeats: int
) -> None:
    """A noiseless step over and over; where all it does is to shift its lanes, all at once.

    Max-plus is homogeneous: later by c in means later by c out. So a step that has only shifted a
    lane will shift it by as much each further time.
    """
    for done in range(1, repeats + 1):
        looks = lanes is not None and done % LOOK_EVERY == 0 and done < repeats
        before = ready[lanes.rows] if looks and lanes is not None else None
        step()
        if before is None or lanes is None:
            continue
        advance = lanes.common_advance(before, ready[lanes.rows])
        if advance is not None:
            ready[lanes.rows] += (repeats - done) * advance
            return


@dataclass(frozen=True, slots=True, eq=False)
class _Room:
    """Arrays that the steps of one plan share, so that none is made anew; (m, trials) each. [s]"""

    time: FloatArray
    other: FloatArray
    message_s: FloatArray

    @classmethod
    def of(cls, plan: _Plan, trials: int, repeats: int) -> "_Room":
        """Room for a plan; where it is used over and over, its costs are spread out for speed."""
        shape = (len(plan.source), trials)
        message_s = plan.message_s[:, None]
        if repeats > 1 and trials > 1:
            message_s = np.repeat(message_s, trials, axis=1)
        return cls(np.empty(shape), np.empty(shape), message_s)


def _step(
    plan: _Plan,
    ready: FloatArray,
    free: FloatArray,
    room: _Room,
    noise: tuple[Sequence[Noise], np.random.Generator] | None,
    layers: RoundDraws | None,
) -> None:
    """All messages of one step."""
    time, other = room.time, room.other
    # All rows exist: "clip" only spares numpy a copy.
    ready.take(plan.source, axis=0, out=time, mode="clip")
    if plan.is_lockstep:
        ready.take(plan.destination, axis=0, out=other, mode="clip")
        np.maximum(time, other, out=time)
    elif plan.leave is not None:
        free.take(plan.sender, axis=0, out=other, mode="clip")
        np.maximum(time, other, out=time)
    if layers is not None:
        layers.hold(time)
    if plan.leave is not None:
        left = time + plan.bandwidth_s[:, None]
        plan.leave.raise_to(free, left if layers is None else layers.slowed_link(left))
    time += room.message_s
    if layers is not None:
        layers.delay(time)
    if noise is not None:
        noises, rng = noise
        for law, first, end in plan.laws:
            noises[law].add_to(time[first:end], rng)
        if plan.is_chained:
            np.maximum(time, other, out=time)
    if plan.is_chained:
        ready[plan.destination] = time
    else:
        plan.arrive.raise_to(ready, time)


def _plan(number: int, cost: RoundCost, channels: int, repetition: int) -> _Plan:
    round_ = cost.round
    order = np.argsort(cost.jitter, kind="stable")
    channel = round_.channel + repetition * round_.channel_shift
    source = (round_.source * channels + channel)[order]
    destination = (round_.destination * channels + channel)[order]
    sender = round_.source[order]
    holds = bool(cost.bandwidth_s.any()) and not round_.lockstep
    laws, starts = np.unique(cost.jitter[order], return_index=True)
    ends = [*starts[1:].tolist(), len(order)]
    repeats = round_.repeats > LOOK_EVERY and round_.lockstep and not round_.channel_shift
    return _Plan(
        number=number,
        order=order,
        is_lockstep=round_.lockstep,
        source=source,
        destination=destination,
        sender=sender,
        wire_s=cost.wire_s[order],
        software_s=cost.software_s[order],
        bandwidth_s=cost.bandwidth_s[order],
        message_s=cost.message_s[order],
        laws=tuple(zip(laws.tolist(), starts.tolist(), ends, strict=True)),
        arrive=ScatterMax(destination),
        leave=ScatterMax(sender) if holds else None,
        lanes=_closed_lanes(source, destination, channels) if repeats else None,
    )


def _closed_lanes(source: IntArray, destination: IntArray, channels: int) -> _Lanes | None:
    """Rows that a step changes, by channel; None if it also depends on others."""
    rows = np.unique(destination)
    if not np.isin(source, rows).all():
        return None
    rows = rows[np.argsort(rows % channels, kind="stable")]
    starts = np.unique(rows % channels, return_index=True)[1]
    return _Lanes(rows, starts)


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Terms of a completion time along its critical path. [s]"""

    launch_s: float
    software_s: float
    wire_s: float
    bandwidth_s: float
    noise_s: float

    @property
    def total_s(self) -> float:
        """The completion time. [s]"""
        terms = (self.launch_s, self.software_s, self.wire_s, self.bandwidth_s, self.noise_s)
        return sum(terms)


def noiseless_breakdown(costs: Costs) -> Breakdown:
    """What the noiseless completion is made of, along the path that decides it."""
    schedule = costs.schedule
    channels = schedule.channels
    ready = np.zeros((schedule.vertices * channels, 4))
    free = np.zeros((schedule.vertices, 4))
    for plan, repeats in _steps(costs):
        terms = _terms(plan.wire_s, plan.software_s, plan.bandwidth_s)
        _repeat(partial(_trace_step, plan, terms, ready, free), plan.lanes, ready, repeats)
    ranks = ready[: schedule.ranks * channels]
    last = ranks[int(ranks[:, 0].argmax())] if len(ranks) else np.zeros(4)
    return Breakdown(
        launch_s=costs.launch_s,
        software_s=costs.base_s + float(last[2]),
        wire_s=float(last[1]),
        bandwidth_s=float(last[3]),
        noise_s=0.0,
    )


def _trace_step(plan: _Plan, terms: FloatArray, ready: FloatArray, free: FloatArray) -> None:
    """A noiseless step on (time, wire, software, bandwidth) rows: the later row wins whole."""
    start = ready[plan.source]
    if plan.is_lockstep:
        start = _later(start, ready[plan.destination])
    elif plan.leave is not None:
        start = _later(start, free[plan.sender])
        nothing = np.zeros_like(plan.wire_s)
        left = start + _terms(nothing, nothing, plan.bandwidth_s)
        order = np.argsort(left[:, 0], kind="stable")
        free[plan.sender[order]] = _later(left, free[plan.sender])[order]
    arrival = start + terms
    if plan.is_chained:
        ready[plan.destination] = arrival
        return
    order = np.argsort(arrival[:, 0], kind="stable")
    ready[plan.destination[order]] = _later(arrival, ready[plan.destination])[order]


def _terms(wire_s: FloatArray, software_s: FloatArray, bandwidth_s: FloatArray) -> FloatArray:
    total_s = wire_s + software_s + bandwidth_s
    return np.stack([total_s, wire_s, software_s, bandwidth_s], axis=1)


def _later(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.where(a[:, :1] >= b[:, :1], a, b)

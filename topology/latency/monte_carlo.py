"""Replay in time: when a collective is complete, without noise or over many noisy trials.

Max-plus: a message starts when its sender has what it sends (in lockstep also when its receiver is
ready), arrives after its cost and its noise, and its receiver is ready at the latest arrival. The
operation is complete when its slowest rank is. This is the ground truth of every other method.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.latency.cost import Costs, RoundCost
from topology.latency.noise import MessageNoise

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

STEP_ELEMENTS: Final = 2**14
"""Elements of one step's arrays: 128 KiB, so that a step stays in a core's cache."""

STATE_ELEMENTS: Final = 2**22
"""Elements of the whole state: 32 MiB."""

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many trials are done, and of how many."""


class _Scatter:
    """Raises rows of a state to the latest value sent to them; rows may stand several times."""

    def __init__(self, rows: IntArray) -> None:
        self.rows, counts = np.unique(rows, return_counts=True)
        self._order = np.argsort(rows, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        self._is_plain = bool(len(rows) == len(self.rows) and (self.rows == rows).all())

    def raise_to(self, state: FloatArray, values: FloatArray) -> None:
        """``state[row] = max(state[row], values of that row)``."""
        if not self._is_plain:
            values = values[self._order]
            if len(values) > len(self.rows):
                values = np.maximum.reduceat(values, self._starts, axis=0)
        state[self.rows] = np.maximum(state[self.rows], values)


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """A round made ready: its messages ordered by jitter law, with the state rows they touch.

    ``laws``: (number of a law, first, end) of each run of messages with one law.
    """

    is_lockstep: bool
    source: IntArray
    destination: IntArray
    sender: IntArray
    wire_s: FloatArray
    software_s: FloatArray
    bandwidth_s: FloatArray
    message_s: FloatArray
    laws: tuple[tuple[int, int, int], ...]
    arrive: _Scatter
    leave: _Scatter | None


def noiseless_s(costs: Costs) -> float:
    """Completion without noise; launch and base included. [s]"""
    return costs.launch_s + costs.base_s + float(_run(costs, _steps(costs), 1, None)[0])


def sample_s(
    costs: Costs,
    noises: Sequence[MessageNoise],
    *,
    trials: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> FloatArray:
    """Completion times of many noisy trials, shape (trials,); launch and base included. [s]

    ``noises``: one law for each of ``costs.classes``. The draws depend on the generator and on
    ``trials`` alone; ``progress`` is told how many trials are done.
    """
    steps = _steps(costs)
    batch = _batch_size(costs, trials)
    done: list[FloatArray] = []
    count = 0
    while count < trials:
        size = min(batch, trials - count)
        done.append(_run(costs, steps, size, (noises, rng)))
        count += size
        if progress is not None:
            progress(count, trials)
    return np.concatenate(done) + (costs.launch_s + costs.base_s)


def _batch_size(costs: Costs, trials: int) -> int:
    """Trials side by side: as many as keep a step in the cache and the state in memory."""
    lanes = costs.schedule.vertices * costs.schedule.channels
    widest = max((cost.round.transfers for cost in costs.rounds), default=1)
    fitting = min(STEP_ELEMENTS // max(widest, 1), STATE_ELEMENTS // max(lanes, 1))
    return min(trials, max(fitting, 1))


def _steps(costs: Costs) -> list[tuple[_Plan, int]]:
    """Plans of all steps in order, each with how often it is repeated unchanged."""
    channels = costs.schedule.channels
    steps: list[tuple[_Plan, int]] = []
    for cost in costs.rounds:
        if cost.round.channel_shift:
            steps += [(_plan(cost, channels, i), 1) for i in range(cost.round.repeats)]
        else:
            steps.append((_plan(cost, channels, 0), cost.round.repeats))
    return steps


def _run(
    costs: Costs,
    steps: Sequence[tuple[_Plan, int]],
    trials: int,
    noise: tuple[Sequence[MessageNoise], np.random.Generator] | None,
) -> FloatArray:
    schedule = costs.schedule
    ready = np.zeros((schedule.vertices * schedule.channels, trials))
    free = np.zeros((schedule.vertices, trials))
    for plan, repeats in steps:
        for _ in range(repeats):
            _step(plan, ready, free, noise)
    ranks = ready[: schedule.ranks * schedule.channels]
    return np.asarray(ranks.max(axis=0))


def _step(
    plan: _Plan,
    ready: FloatArray,
    free: FloatArray,
    noise: tuple[Sequence[MessageNoise], np.random.Generator] | None,
) -> None:
    """All messages of one step: shapes (m, trials)."""
    time = ready[plan.source]
    if plan.is_lockstep:
        np.maximum(time, ready[plan.destination], out=time)
    elif plan.leave is not None:
        np.maximum(time, free[plan.sender], out=time)
        plan.leave.raise_to(free, time + plan.bandwidth_s[:, None])
    time += plan.message_s[:, None]
    if noise is not None:
        noises, rng = noise
        for law, first, end in plan.laws:
            noises[law].add_to(time[first:end], rng)
    plan.arrive.raise_to(ready, time)


def _plan(cost: RoundCost, channels: int, repetition: int) -> _Plan:
    round_ = cost.round
    order = np.argsort(cost.jitter, kind="stable")
    channel = round_.channel + repetition * round_.channel_shift
    source = (round_.source * channels + channel)[order]
    destination = (round_.destination * channels + channel)[order]
    sender = round_.source[order]
    holds = bool(cost.bandwidth_s.any()) and not round_.lockstep
    laws, starts = np.unique(cost.jitter[order], return_index=True)
    ends = [*starts[1:].tolist(), len(order)]
    return _Plan(
        is_lockstep=round_.lockstep,
        source=source,
        destination=destination,
        sender=sender,
        wire_s=cost.wire_s[order],
        software_s=cost.software_s[order],
        bandwidth_s=cost.bandwidth_s[order],
        message_s=cost.message_s[order],
        laws=tuple(zip(laws.tolist(), starts.tolist(), ends, strict=True)),
        arrive=_Scatter(destination),
        leave=_Scatter(sender) if holds else None,
    )


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
        for _ in range(repeats):
            _trace_step(plan, ready, free)
    ranks = ready[: schedule.ranks * channels]
    last = ranks[int(ranks[:, 0].argmax())] if len(ranks) else np.zeros(4)
    return Breakdown(
        launch_s=costs.launch_s,
        software_s=costs.base_s + float(last[2]),
        wire_s=float(last[1]),
        bandwidth_s=float(last[3]),
        noise_s=0.0,
    )


def _trace_step(plan: _Plan, ready: FloatArray, free: FloatArray) -> None:
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
    arrival = start + _terms(plan.wire_s, plan.software_s, plan.bandwidth_s)
    order = np.argsort(arrival[:, 0], kind="stable")
    ready[plan.destination[order]] = _later(arrival, ready[plan.destination])[order]


def _terms(wire_s: FloatArray, software_s: FloatArray, bandwidth_s: FloatArray) -> FloatArray:
    total_s = wire_s + software_s + bandwidth_s
    return np.stack([total_s, wire_s, software_s, bandwidth_s], axis=1)


def _later(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.where(a[:, :1] >= b[:, :1], a, b)

"""Scaling: completion of a ring too long to replay, from a window of it. No schedule is replayed.

A ring grows like last-passage percolation: T(i, k) = v k + s k^(1/3) chi, with a mean speed v that
hops fix within some hundred steps, and it is complete when the latest of about n^(1/3) independent
stretches is. A window of the ring is simulated; what is rarer than it can show is added apart.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.errors import WorkloadError
from topology.latency.cost import Costs
from topology.latency.monte_carlo import Noise
from topology.latency.noise import MessageNoise
from topology.latency.rare_detours import (
    LENGTHS,
    Detours,
    RareDelay,
    delay_from_detours,
    split_detours,
)
from topology.latency.ring_growth import GOE_MEAN, growth_units, stretches

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

LEAST_RANKS: Final = 256
"""Below it a replay is quick, and single detours shape p99: measured 2.4 % low at 64 and 128."""

WINDOW_STEPS: Final = 1_024
WINDOW_RANKS: Final = 256
MOST_PERIOD: Final = 1_024
"""A longer period of hops would not fit the window."""

MESSAGES: Final = 4_000_000
"""Messages of the window, all its trials together: under 100 ms on one core."""

LEAST_TRIALS: Final = 4
DRAWN_AHEAD: Final = 8
"""Steps whose noise is drawn at once: fewer calls, and still within a core's second cache."""

NEAR: Final = 4
"""Positions between which the growth of differences is measured: far less than a stretch."""

UNSETTLED: Final = 0.02
"""Part of the time that may be open, by a speed still changing or by rare detours."""

MOST_ERROR: Final = 0.03
"""Part of the time that the standard error may be: 6 % either way at 95 %."""


@dataclass(frozen=True, slots=True, eq=False)
class Ring:
    """A ring collective: lockstep steps, as many as ``steps``, on ``channels`` rings alike.

    ``message_s``: noiseless time of the hop to each position of one period, shape (p,).
    ``law_of``: index into ``noises`` of each, shape (p,). ``start_s``: launch and base.
    """

    ranks: int
    steps: int
    message_s: FloatArray
    law_of: IntArray
    noises: Sequence[Noise]
    channels: int = 1
    start_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class RingTime:
    """The law of a ring's completion time. [s]

    ``speed_s``: mean time of a step, far on. ``centre_s``: where all stretches lie on average at
    the end, but for their common lag. ``scale_s``: unit of their fluctuations. ``stretches``: how
    many times the unit length of the limit law the ring is long. ``error_s``: standard error of all
    percentiles from the window's draws. ``rare``: what detours rarer than the window add, and
    ``doubt_s``: by how much more or less it may be.
    """

    speed_s: float
    centre_s: float
    scale_s: float
    stretches: float
    error_s: float
    rare: RareDelay | None
    doubt_s: float = 0.0

    def quantile_s(self, q: float) -> float:
        """The q-quantile of the completion time. [s]"""
        if self.rare is None:
            return self._body_s(q)
        low, high = self._body_s(q / 2), self._body_s(1 - (1 - q) / 2) + self.rare.longest_s
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self.cdf(middle) >= q else (middle, high)
        return high

    def interval_s(self, q: float) -> tuple[float, float]:
        """95 % interval of a percentile by the window's draws, widened by what they leave open. [s]

        No certificate: that is ``ring_bounds``'.
        """
        value_s, half_s = self.quantile_s(q), 1.96 * self.error_s + self.doubt_s
        return value_s - half_s, value_s + half_s

    def cdf(self, time_s: float) -> float:
        """P(complete by a time)."""
        if self.rare is None:
            return float(self._body_cdf(np.array([time_s]))[0])
        never = self.rare.never_probability
        calm, delayed = (self._body_cdf(time_s - d) for d in (np.zeros(1), self.rare.delay_s))
        return float(never * calm[0] + (1 - never) * delayed.mean())

    @property
    def mean_s(self) -> float:
        """Mean of the completion time. [s]"""
        delay_s = self.rare.mean_s if self.rare is not None else 0.0
        return delay_s + math.fsum(self._body_s((i + 0.5) / 500) for i in range(500)) / 500

    def _body_s(self, q: float) -> float:
        level = math.log(self.stretches) - math.log(-math.log(q))
        return self.centre_s + self.scale_s * float(growth_units(level))

    def _body_cdf(self, time_s: FloatArray) -> FloatArray:
        if self.scale_s <= 0:
            return np.asarray(time_s >= self.centre_s, dtype=np.float64)
        return stretches((time_s - self.centre_s) / self.scale_s, self.stretches)


def ring_time(ring: Ring, rng: np.random.Generator) -> RingTime:
    """The law of a ring's completion, valid from 256 ranks on; cost does not grow with the ring.

    Raises:
        WorkloadError: a ring outside the range of validity; the message says why.
    """
    _check(ring)
    draws, rare_draws = rng.spawn(2)
    seen = min(WINDOW_STEPS, ring.steps)
    splits = [_split(noise, seen) if seen < ring.steps else (noise, None) for noise in ring.noises]
    window = _simulated(replace(ring, noises=[calm for calm, _ in splits]), seen, draws)
    detours = _mixed(ring, [rare for _, rare in splits])
    if detours is None:
        return _scaled(ring, window, None)
    rare = delay_from_detours(detours, ring.ranks * ring.channels, ring.steps, rare_draws)
    time = _scaled(ring, window, rare)
    if not detours.is_excess:
        return time
    if rare.mean_s > UNSETTLED * time.centre_s:
        part = rare.mean_s / time.centre_s
        raise _outside(f"detours rarer than {seen} steps show make up {part:.1%} of the time")
    return replace(time, doubt_s=rare.mean_s)


def _split(noise: Noise, steps: int) -> tuple[Noise, Detours | None]:
    """A noise without what is too rare for a window of so many steps, and that."""
    return split_detours(noise, steps) if isinstance(noise, MessageNoise) else (noise, None)


def _mixed(ring: Ring, detours: Sequence[Detours | None]) -> Detours | None:
    """The rare detours of a mean hop: rates are averaged over the period."""
    share = np.bincount(ring.law_of, minlength=len(ring.noises)) / len(ring.law_of)
    parts = [
        (weight * d.rate, d)
        for weight, d in zip(share.tolist(), detours, strict=True)
        if d is not None and weight > 0
    ]
    if not parts:
        return None
    rate = math.fsum(part for part, _ in parts)
    picks = [np.linspace(0, 1, max(2, round(LENGTHS * part / rate))) for part, _ in parts]
    lengths = [
        d.length_s[np.rint(pick * (len(d.length_s) - 1)).astype(int)]
        for pick, (_, d) in zip(picks, parts, strict=True)
    ]
    return Detours(rate, np.concatenate(lengths), any(d.is_excess for _, d in parts))


class _Window(NamedTuple):
    """What a window of ``steps`` steps shows. Means: shape (trials,), over its positions. [s]

    ``variance``: of one position's time. ``roughness``: variance that a difference of times gains
    for each position between. [s^2]
    """

    steps: int
    quarter_s: FloatArray
    half_s: FloatArray
    mean_s: FloatArray
    variance: float
    roughness: float


def _simulated(ring: Ring, steps: int, rng: np.random.Generator) -> _Window:
    """Replay a window: rows are positions in order of their laws, columns are trials."""
    period = len(ring.message_s)
    periods = max(1, min(WINDOW_RANKS, ring.ranks) // period)
    sites = periods * period
    trials = max(LEAST_TRIALS, MESSAGES // (sites * steps))
    law = np.tile(ring.law_of, periods)
    order = np.argsort(law, kind="stable")
    row_of = np.empty(sites, dtype=np.int64)
    row_of[order] = np.arange(sites)
    before = row_of[(order - 1) % sites]
    hop_s = np.tile(ring.message_s, periods)[order]
    ends = np.searchsorted(law[order], np.arange(len(ring.noises) + 1)).tolist()
    time, arrival = np.zeros((sites, trials)), np.empty((sites, trials))
    marks: dict[int, FloatArray] = {}
    hops = _hops_s(ring.noises, hop_s, ends, trials, rng)
    for step in range(1, steps + 1):
        np.take(time, before, axis=0, out=arrival, mode="clip")
        np.maximum(arrival, time, out=arrival)
        for first, end, taken_s in next(hops):
            arrival[first:end] += taken_s
        time, arrival = arrival, time
        if step in (steps // 4, steps // 2, steps):
            marks[step] = time[row_of].reshape(periods, period, trials).max(axis=1)
    last = marks[steps]
    near = min(NEAR, periods - 1)
    gains = (last - np.roll(last, near, axis=0)) ** 2 / (near * period) if near else 0.0 * last
    quarter_s, half_s, mean_s = (marks[at].mean(axis=0) for at in (steps // 4, steps // 2, steps))
    variance = float(((last - last.mean()) ** 2).mean()) * trials / (trials - 1)
    return _Window(steps, quarter_s, half_s, mean_s, variance, float(gains.mean()))


def _hops_s(
    noises: Sequence[Noise],
    hop_s: FloatArray,
    ends: Sequence[int],
    trials: int,
    rng: np.random.Generator,
) -> Iterator[list[tuple[int, int, FloatArray]]]:
    """Times of all hops, step by step: first and end row of a law, and its rows' times. [s]"""
    laws = [row for row in zip(noises, ends, ends[1:], strict=False) if row[2] > row[1]]
    drawn = [np.empty((DRAWN_AHEAD, end - first, trials)) for _, first, end in laws]
    while True:
        for (noise, first, end), times_s in zip(laws, drawn, strict=True):
            times_s[:] = hop_s[first:end, None]
            noise.add_to(times_s, rng)
        for ahead in range(DRAWN_AHEAD):
            yield [
                (first, end, times_s[ahead])
                for (_, first, end), times_s in zip(laws, drawn, strict=True)
            ]


GOE_SD: Final = math.sqrt(1.6078)


def _scaled(ring: Ring, window: _Window, rare: RareDelay | None) -> RingTime:
    """Carry a window's means on to the ring's last step: v k + s k^(1/3) chi + constant."""
    k, n = ring.steps, ring.ranks * ring.channels
    seen, half = window.steps, window.steps // 2
    unit_s = math.sqrt(window.variance) / GOE_SD / math.cbrt(seen)
    lag_s = -GOE_MEAN * unit_s
    speeds_s = (window.mean_s - window.half_s) / (seen - half) + _bend_s(lag_s, half, seen)
    ends_s = window.mean_s + speeds_s * (k - seen)
    speed_s = float(speeds_s.mean())
    _check_settled(ring, window, speed_s, lag_s)
    scale_s = unit_s * math.cbrt(k)
    length = 1.0
    if unit_s > 0:
        length = max(1.0, window.roughness * n / (unit_s**2 * math.cbrt(k) ** 2))
    error_s = float(ends_s.std(ddof=1)) / math.sqrt(len(ends_s))
    if error_s > MOST_ERROR * float(ends_s.mean()):
        part = error_s / float(ends_s.mean())
        raise _outside(
            f"a window of {seen} steps tells the time only to a standard error {part:.1%}"
        )
    return RingTime(
        speed_s=speed_s,
        centre_s=ring.start_s + float(ends_s.mean()) + lag_s * math.cbrt(seen),
        scale_s=scale_s,
        stretches=length,
        error_s=error_s,
        rare=rare,
    )


def _bend_s(lag_s: float, first: int, last: int) -> float:
    """By how much the mean falls behind its far speed between two steps, for each step. [s]"""
    return lag_s * (math.cbrt(last) - math.cbrt(first)) / (last - first)


def _check(ring: Ring) -> None:
    n, p = ring.ranks, len(ring.message_s)
    if n < LEAST_RANKS:
        raise _outside(f"a ring of {n} ranks; scaling holds from {LEAST_RANKS} on")
    if ring.steps not in (n - 1, 2 * (n - 1)):
        raise _outside(f"{ring.steps} steps on {n} ranks; a ring takes {n - 1} or {2 * (n - 1)}")
    if p > MOST_PERIOD:
        raise _outside(f"hops that repeat only every {p} ranks; the window holds {MOST_PERIOD}")
    if n % p:
        raise _outside(f"a period of {p} hops does not divide {n} ranks")


def _check_settled(ring: Ring, window: _Window, speed_s: float, lag_s: float) -> None:
    """Refuse a window whose third quarter of speed differs from its second, beyond chance."""
    half, quarter = window.steps // 2, window.steps // 4
    earlier_s = (window.half_s - window.quarter_s) / (half - quarter)
    later_s = (window.mean_s - window.half_s) / (window.steps - half)
    bends_s = [_bend_s(lag_s, quarter, half), _bend_s(lag_s, half, window.steps)]
    change_s = later_s + bends_s[1] - earlier_s - bends_s[0]
    chance_s = 3 * float(change_s.std(ddof=1)) / math.sqrt(len(change_s))
    part = (ring.steps - window.steps) / ring.steps
    if part * (abs(float(change_s.mean())) - chance_s) > UNSETTLED * speed_s:
        raise _outside(
            f"the speed has not settled within {window.steps} steps: it still changes by "
            f"{float(change_s.mean()) / speed_s:.1%}"
        )


def _outside(text: str) -> WorkloadError:
    return WorkloadError(text, field="--method scaling", remedy="use --method monte_carlo")


def ring_from_costs(costs: Costs, noises: Sequence[Noise]) -> Ring:
    """The ring of a ring schedule; of several channels the slowest stands for all.

    Raises:
        WorkloadError: the schedule is no ring in lockstep, or its phases cost differently.
    """
    schedule, first = costs.schedule, costs.rounds[0] if costs.rounds else None
    if first is None or not all(cost.round.lockstep for cost in costs.rounds):
        raise _outside(f"{schedule.algorithm} is no ring in lockstep")
    n, channels = schedule.ranks, schedule.channels
    if any(cost.round.transfers != n * channels for cost in costs.rounds):
        raise _outside(f"{schedule.algorithm} does not send from every rank at every step")
    time_s = np.max([cost.message_s for cost in costs.rounds], axis=0).reshape(channels, n)
    least_s = np.min([cost.message_s for cost in costs.rounds], axis=0).reshape(channels, n)
    if not np.allclose(time_s, least_s, rtol=1e-9, atol=0):
        raise _outside("the phases of the ring cost differently")
    slowest = int(np.lexsort((time_s.mean(axis=1), time_s.max(axis=1)))[-1])
    law_of = first.jitter.reshape(channels, n)[slowest]
    period = _period(time_s[slowest], law_of)
    return Ring(
        ranks=n,
        steps=schedule.steps,
        message_s=time_s[slowest, :period],
        law_of=law_of[:period],
        noises=noises,
        channels=channels,
        start_s=costs.launch_s + costs.base_s,
    )


def _period(message_s: FloatArray, law_of: IntArray) -> int:
    """The shortest period of the hops that divides their number."""
    n = len(message_s)
    for p in range(1, n // 2 + 1):
        if n % p:
            continue
        times_s, laws = message_s.reshape(-1, p), law_of.reshape(-1, p)
        if (laws == laws[0]).all() and np.allclose(times_s, times_s[0], rtol=1e-9, atol=0):
            return p
    return n

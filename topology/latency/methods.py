"""Methods: how a scenario's percentiles are found, and what each puts into a summary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from topology.errors import ScheduleError, WorkloadError
from topology.latency.cost import Costs
from topology.latency.exact import MOST_LOCKSTEPS, exact_law, why_not_exact
from topology.latency.lockstep_bounds import lockstep_brackets_s
from topology.latency.noise import MessageNoise
from topology.latency.replay import default_trials, long_run_text
from topology.latency.ring_bounds import HopColumns, hop_law, ring_bracket_s
from topology.latency.scaling import ring_from_costs, ring_time
from topology.latency.scenario import Scenario
from topology.latency.setting import Setting
from topology.latency.summary import PERCENTILES
from topology.words import AlgorithmName, MethodName

Range = tuple[float, float | None]

WIDEST_RATIO: Final = 0.02
"""Percentiles whose brackets are wider than this do not take the place of a replay."""

MUST_BE_NARROW: Final = ("p50_s", "p99_s", "p999_s")

TREES: Final = (
    AlgorithmName.TREE,
    AlgorithmName.DOUBLE_BINARY_TREE,
    AlgorithmName.NVLS,
    AlgorithmName.NVLS_TREE,
    AlgorithmName.HIERARCHICAL,
)
"""Algorithms whose certificate takes a fraction of a second; others only in place of hours."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a method without trials finds. ``bracket``: certified; ``interval``: by draws. [s]"""

    method: MethodName
    mean_s: float
    percentiles: dict[str, float | None]
    bracket: dict[str, Range]
    interval: dict[str, Range] | None

    @property
    def is_narrow(self) -> bool:
        """Whether its certificates are so narrow that their middles need no replay."""
        return self.method is MethodName.SCALING or all(
            high is not None and high - low <= WIDEST_RATIO * low
            for low, high in (self.bracket[name] for name in MUST_BE_NARROW)
        )


def find(method: MethodName, costs: Costs, noises: Sequence[MessageNoise], *, seed: int) -> Found:
    """Percentiles by a named method.

    Raises:
        ScheduleError: exact cannot do this schedule; the message says why.
        WorkloadError: scaling does not hold for it; the message says why.
    """
    return (
        by_exact(costs, noises) if method is MethodName.EXACT else by_scaling(costs, noises, seed)
    )


def found_by(setting: Setting) -> Found | None:
    """What is known without trials, None where only a replay tells anything.

    ``auto`` certifies trees, and long rings by their law of growth; a wide certificate goes beside
    a replay.

    Raises:
        WorkloadError: a method that does not go with what is asked.
        ScheduleError: exact cannot do this schedule; the message says why.
    """
    scenario, method = setting.scenario, setting.scenario.method
    wish = _wish_for_trials(scenario)
    if wish is not None and method not in (MethodName.AUTO, MethodName.MONTE_CARLO):
        raise WorkloadError(
            f"{method} has no trials, and {wish}",
            field="--method",
            remedy="leave it out, or use monte_carlo",
        )
    if wish is not None or method is MethodName.MONTE_CARLO:
        return None
    costs, noises = setting.choice.costs, setting.noises(scenario.noise)
    if method is MethodName.SCALING and scenario.trials is not None:
        raise WorkloadError(
            "scaling has no trials", field="--trials", remedy="leave it out, or --method"
        )
    if method is not MethodName.AUTO:
        return find(method, costs, noises, seed=scenario.seed)
    if scenario.trials is not None:
        return None
    return _quickest(setting, costs, noises)


def _wish_for_trials(scenario: Scenario) -> str | None:
    """What is asked that only trials give."""
    if scenario.attribute or scenario.without is not None:
        return "causes are taken away from trials"
    if scenario.precision is not None:
        return "a precision is reached by more of them"
    if scenario.layers:
        return "layers of noise beyond single messages are drawn"
    if scenario.measured is not None:
        return "measured noise is drawn"
    return None


def _quickest(setting: Setting, costs: Costs, noises: Sequence[MessageNoise]) -> Found | None:
    """A certificate where it is quick; where a replay is long, what takes its place."""
    schedule = setting.choice.schedule
    is_long = long_run_text(schedule, default_trials(schedule)) is not None
    jitters = [noise.jitter for noise in noises]
    is_tried = schedule.algorithm in TREES or is_long
    wide: Found | None = None
    try:
        if is_tried and why_not_exact(costs, jitters) is None:
            wide = by_exact(costs, noises)
            if wide.is_narrow or not is_long:
                return wide
        return by_scaling(costs, noises, setting.scenario.seed) if is_long else None
    except (ScheduleError, WorkloadError):
        return wide


def by_exact(costs: Costs, noises: Sequence[MessageNoise]) -> Found:
    """By distribution algebra, certified; a long exchange in lockstep by bounds on both sides.

    Raises:
        ScheduleError: a schedule that it cannot do.
    """
    if _is_long_exchange(costs):
        bounds = lockstep_brackets_s(costs, noises)
        middles: dict[str, float | None] = {n: (lo + hi) / 2 for n, (lo, hi) in bounds.items()}
        median_s = middles["p50_s"]
        assert median_s is not None, "both bounds are finite"
        return Found(MethodName.EXACT, median_s, middles, dict(bounds), None)
    law = exact_law(costs, noises)
    return Found(MethodName.EXACT, law.mean_s, law.central_s, law.bracket, None)


def _is_long_exchange(costs: Costs) -> bool:
    """Whether it is steps in lockstep, each between other pairs, too many for distribution algebra.

    A ring repeats its step: what bounds that is ``scaling``'s.
    """
    rounds = [cost.round for cost in costs.rounds]
    return len(rounds) > MOST_LOCKSTEPS and all(r.lockstep and r.repeats == 1 for r in rounds)


def by_scaling(costs: Costs, noises: Sequence[MessageNoise], seed: int) -> Found:
    """By the law of growth of long rings, with bounds on both sides.

    Raises:
        WorkloadError: no ring, or one that is too short or not alike enough.
    """
    ring = ring_from_costs(costs, noises)
    time = ring_time(ring, np.random.default_rng(seed))
    hops = HopColumns(ring.message_s, ring.law_of, [hop_law(noise.jitter) for noise in noises])
    bracket: dict[str, Range] = {}
    for name, q in PERCENTILES.items():
        low, high = ring_bracket_s(
            hops, ranks=ring.ranks, steps=ring.steps, q=q, channels=ring.channels
        )
        bracket[name] = (low + ring.start_s, high + ring.start_s)
    return Found(
        MethodName.SCALING,
        time.mean_s,
        {name: time.quantile_s(q) for name, q in PERCENTILES.items()},
        bracket,
        {name: _within(time.interval_s(q), bracket[name]) for name, q in PERCENTILES.items()},
    )


def _within(interval_s: tuple[float, float], bracket_s: Range) -> Range:
    """An interval as far as it lies in what is certified. [s]"""
    (low, high), (least, most) = interval_s, bracket_s
    return max(low, least), high if most is None else min(high, most)

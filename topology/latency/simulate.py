"""Simulate: a collective on a placement becomes a latency summary."""

from dataclasses import replace
from typing import Final

import numpy as np

from topology.collective.placement import Placement
from topology.collective.schedule import busbw_factor
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.latency.attribution import attribute
from topology.latency.band import band_of, band_trials
from topology.latency.choice import MODELLED, Choice
from topology.latency.knee_of_map import knee_of
from topology.latency.methods import Found, found_by
from topology.latency.monte_carlo import Breakdown, FloatArray, Progress, noiseless_breakdown
from topology.latency.replay import (
    Notice,
    default_trials,
    long_run_text,
    most_precise_trials,
    precise_samples_s,
)
from topology.latency.scenario import Scenario, noise_asked
from topology.latency.setting import Setting, settle
from topology.latency.summary import PERCENTILES, LatencySummary, least_trials, percentile_ranges
from topology.words import Collective, MethodName, NoiseLayer

ATTRIBUTED_TRIALS: Final = least_trials(PERCENTILES["p999_s"])
"""Trials of a default run that is replayed once for each cause: 3,688, which a p99.9 needs."""


def simulate(
    fabric: Fabric,
    placement: Placement,
    scenario: Scenario,
    *,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> LatencySummary:
    """The distribution of a collective's completion time on a placement.

    ``progress`` is told how many trials of how many are done, ``notice`` that it will take long.

    Raises:
        WorkloadError: a size below one byte, a stack that these ranks do not run, a method that
            does not go with what is asked.
        ScheduleError: the named algorithm or method does not do this; the message says what does.
        UnreachableError: ranks that no known link joins.
    """
    setting = settle(fabric, placement, scenario)
    summary = _noiseless_summary(setting)
    if scenario.knee:
        summary = replace(summary, knee=knee_of(fabric, placement, summary, scenario.noise))
    if setting.is_silent:
        idle = noise_asked(scenario)
        if idle is not None:
            text = "one rank alone sends nothing, so that there is no noise"
            raise WorkloadError(text, field=idle, remedy="leave it out, or ask for more ranks")
        return summary
    found = found_by(setting)
    if found is not None and found.is_narrow and scenario.trials is None:
        noisy = _with_found(summary, setting.choice, found, scenario)
    else:
        noisy, _ = _replayed(setting, summary, progress=progress, notice=notice)
        noisy = replace(noisy, bracket=found.bracket if found else None)
    band = band_of(setting, noisy, progress)
    return replace(noisy, band=band, band_trials=None if band is None else band_trials(noisy))


def simulate_samples(
    fabric: Fabric,
    placement: Placement,
    scenario: Scenario,
    *,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> tuple[LatencySummary, FloatArray]:
    """As ``simulate`` by replay, with the completion times behind it, shape (trials,). [s]

    Raises:
        WorkloadError: a size below one byte, a stack that these ranks do not run.
        ScheduleError: the named algorithm does not do this; the message names those that do.
        UnreachableError: ranks that no known link joins.
    """
    setting = settle(fabric, placement, scenario)
    summary = _noiseless_summary(setting)
    if setting.is_silent:
        return summary, np.array([setting.choice.noiseless_s])
    return _replayed(setting, summary, progress=progress, notice=notice)


def _with_found(
    summary: LatencySummary, choice: Choice, found: Found, scenario: Scenario
) -> LatencySummary:
    """A summary with percentiles that were found without trials."""
    noisy = replace(
        summary,
        method=found.method.value,
        mean_s=found.mean_s,
        percentiles=found.percentiles,
        bracket=found.bracket,
        interval=found.interval,
        seed=scenario.seed if found.method is MethodName.SCALING else None,
        breakdown=_noisy_breakdown(summary, found.percentiles),
    )
    return _with_bandwidths(noisy, choice.schedule.messages, found.percentiles["p50_s"])


def _noisy_breakdown(
    summary: LatencySummary, percentiles: dict[str, float | None]
) -> dict[str, Breakdown]:
    """The noiseless terms, with what noise adds at p50 and at p99."""
    shown = {name: percentiles[f"{name}_s"] for name in ("p50", "p99")}
    return {
        name: replace(summary.breakdown["p50"], noise_s=value - summary.noiseless_s)
        for name, value in shown.items()
        if value is not None
    }


def _replayed(
    setting: Setting, summary: LatencySummary, *, progress: Progress | None, notice: Notice | None
) -> tuple[LatencySummary, FloatArray]:
    """Percentiles by replay of noisy trials, and the completion times behind them. [s]"""
    scenario, schedule = setting.scenario, setting.choice.schedule
    samples = _samples_s(setting, progress, notice)
    values, ranges = percentile_ranges(samples)
    causes = None
    if scenario.attribute:
        causes = tuple(attribute(setting.own_case(len(samples)), samples, progress))
    noisy = replace(
        summary,
        method="monte_carlo",
        mean_s=float(samples.mean()),
        percentiles=values,
        interval=ranges,
        trials=len(samples),
        seed=scenario.seed,
        precision=scenario.precision,
        breakdown=_noisy_breakdown(summary, values),
        without=scenario.without,
        attribution=causes,
    )
    return _with_bandwidths(noisy, schedule.messages, values["p50_s"]), samples


def _samples_s(setting: Setting, progress: Progress | None, notice: Notice | None) -> FloatArray:
    scenario, schedule = setting.scenario, setting.choice.schedule
    if scenario.precision is not None:
        case = setting.own_case(scenario.trials or most_precise_trials(schedule))
        long = long_run_text(schedule, case.trials)
        if notice is not None and long is not None:
            notice(f"until p99 is known within {scenario.precision:.2%}: at most {long}")
        return precise_samples_s(case, scenario.precision, setting.without(case), progress)
    trials = scenario.trials or default_trials(schedule)
    if scenario.attribute and scenario.trials is None:
        trials = min(trials, ATTRIBUTED_TRIALS)
    long = long_run_text(schedule, trials)
    if notice is not None and long is not None:
        notice(long)
    case = setting.own_case(trials)
    return case.samples_s(setting.without(case), progress)


def _noiseless_summary(setting: Setting) -> LatencySummary:
    placement, scenario, choice = setting.placement, setting.scenario, setting.choice
    time_s = choice.noiseless_s
    breakdown = _breakdown(choice)
    stack, prediction = choice.stack, choice.prediction
    summary = LatencySummary(
        collective=scenario.collective.value,
        algorithm=choice.schedule.algorithm,
        variant=choice.schedule.variant,
        protocol=stack.protocol.value if stack.protocol else None,
        stack=stack.name.value,
        launch=stack.launch.value if stack.name in MODELLED else None,
        noise=setting.noise_name,
        measured_classes=setting.measured_classes,
        layers=tuple(layer.value for layer in NoiseLayer if layer in scenario.layers),
        method="exact",
        ranks=placement.ranks,
        nodes=len(placement.hosts),
        domains=setting.routes.domain_count,
        size_bytes=scenario.size_bytes,
        noiseless_s=time_s,
        mean_s=time_s,
        percentiles=dict.fromkeys(PERCENTILES, time_s),
        interval=None,
        algbw_bytes_per_s=None,
        busbw_bytes_per_s=None,
        trials=None,
        seed=None,
        breakdown={"p50": breakdown, "p99": breakdown},
        considered=choice.considered,
        reason=choice.reason,
        model_interval=prediction.interval if prediction else None,
        extrapolated=prediction.extrapolated if prediction else None,
    )
    return _with_bandwidths(summary, choice.schedule.messages, time_s)


def _breakdown(choice: Choice) -> Breakdown:
    """What the noiseless time is made of: the closed form's terms, else the path that decides."""
    if choice.prediction is None:
        return noiseless_breakdown(choice.costs)
    terms = choice.prediction.terms
    return Breakdown(terms.launch_s, terms.software_s, terms.wire_s, terms.bandwidth_s, 0.0)


def _with_bandwidths(
    summary: LatencySummary, messages: int, time_s: float | None
) -> LatencySummary:
    """With algbw and busbw of a time; None where nothing is sent, for then they measure nothing."""
    if not messages or not time_s:
        return replace(summary, algbw_bytes_per_s=None, busbw_bytes_per_s=None)
    algbw = summary.size_bytes / time_s
    busbw = algbw * busbw_factor(Collective(summary.collective), summary.ranks)
    return replace(summary, algbw_bytes_per_s=algbw, busbw_bytes_per_s=busbw)

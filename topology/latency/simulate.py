"""Simulate: a collective on a placement becomes a latency summary."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np

from topology.collective.placement import Placement
from topology.collective.schedule import Schedule, busbw_factor
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.fabric.route_table import RouteMap
from topology.latency.attribution import Case, attribute, find_cause, noises_without
from topology.latency.choice import MODELLED, Choice, choose
from topology.latency.methods import Found, find, instead_of_long_replay
from topology.latency.monte_carlo import (
    Breakdown,
    FloatArray,
    Progress,
    noiseless_breakdown,
    sample_s,
)
from topology.latency.noise import noises_of
from topology.latency.scenario import Scenario, check_scenario
from topology.latency.summary import (
    PERCENTILES,
    LatencySummary,
    least_trials,
    percentile_ranges,
)
from topology.words import Collective, MethodName, NoiseName

MOST_TRIALS: Final = 10_000
LEAST_TRIALS: Final = least_trials(PERCENTILES["p99_s"])
"""A p99 needs so many, 368: of fewer trials even the largest may well lie below it."""

MESSAGE_BUDGET: Final = 180_000_000
"""Noisy messages that a default run replays, if that is LEAST_TRIALS or more: a few seconds."""

MESSAGES_PER_S: Final = 20_000_000
"""Noisy messages that one slow core replays in a second; fast ones do twice or four times that."""

LONG_S: Final = 20.0
"""A run that takes longer says so before it starts. [s]"""

Notice: TypeAlias = Callable[[str], None]
"""Told once, in words, before a run that will take long."""


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
        WorkloadError: a size below one byte, a stack that these ranks do not run.
        ScheduleError: the named algorithm does not do this; the message names those that do.
        UnreachableError: ranks that no known link joins.
    """
    check_scenario(scenario)
    routes = RouteMap(fabric, placement.endpoints)
    choice = choose(fabric, placement, routes, scenario)
    summary = _noiseless_summary(placement, routes, scenario, choice)
    if scenario.noise is NoiseName.NONE or not choice.schedule.messages:
        return summary
    found = _found(fabric, scenario, choice)
    if found is not None:
        return _with_found(summary, choice, found, scenario)
    return _replayed(
        fabric, placement, scenario, choice, summary, progress=progress, notice=notice
    )[0]


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
    check_scenario(scenario)
    routes = RouteMap(fabric, placement.endpoints)
    choice = choose(fabric, placement, routes, scenario)
    summary = _noiseless_summary(placement, routes, scenario, choice)
    if scenario.noise is NoiseName.NONE or not choice.schedule.messages:
        return summary, np.array([choice.noiseless_s])
    return _replayed(fabric, placement, scenario, choice, summary, progress=progress, notice=notice)


def _found(fabric: Fabric, scenario: Scenario, choice: Choice) -> Found | None:
    """Percentiles by another method than replay, None where replay it is."""
    method, costs = scenario.method, choice.costs
    replays = scenario.attribute or scenario.without is not None
    if replays and method not in (MethodName.AUTO, MethodName.MONTE_CARLO):
        raise WorkloadError(
            f"{method} does not take causes away",
            field="--method",
            remedy="leave it out, or use monte_carlo",
        )
    if replays or method is MethodName.MONTE_CARLO:
        return None
    noises = noises_of(fabric.figures, costs.classes, scenario.noise)
    if method is not MethodName.AUTO:
        return find(method, costs, noises, seed=scenario.seed)
    trials = scenario.trials or default_trials(choice.schedule)
    if scenario.trials is not None or long_run_text(choice.schedule, trials) is None:
        return None
    return instead_of_long_replay(costs, noises, seed=scenario.seed)


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
    median = found.percentiles["p50_s"] or choice.noiseless_s
    return _with_bandwidths(noisy, choice.schedule.messages, median)


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
    fabric: Fabric,
    placement: Placement,
    scenario: Scenario,
    choice: Choice,
    summary: LatencySummary,
    *,
    progress: Progress | None,
    notice: Notice | None,
) -> tuple[LatencySummary, FloatArray]:
    """Percentiles by replay of noisy trials, and the completion times behind them. [s]"""
    trials = scenario.trials or default_trials(choice.schedule)
    long = long_run_text(choice.schedule, trials)
    if notice is not None and long is not None:
        notice(long)
    case = _case(fabric, scenario, placement, choice, trials)
    samples = _samples(case, scenario, progress)
    values, ranges = percentile_ranges(samples)
    median = values["p50_s"] or choice.noiseless_s
    noisy = replace(
        summary,
        method="monte_carlo",
        mean_s=float(samples.mean()),
        percentiles=values,
        interval=ranges,
        trials=trials,
        seed=scenario.seed,
        breakdown=_noisy_breakdown(summary, values),
        without=scenario.without,
        attribution=tuple(attribute(case, samples)) if scenario.attribute else None,
    )
    return _with_bandwidths(noisy, choice.schedule.messages, median), samples


def default_trials(schedule: Schedule) -> int:
    """As many trials as a few seconds carry, at most 10,000 and at least what a p99 needs."""
    affordable = MESSAGE_BUDGET // max(schedule.messages, 1)
    return int(min(max(affordable, LEAST_TRIALS), MOST_TRIALS))


def long_run_text(schedule: Schedule, trials: int) -> str | None:
    """How long a run will about take and what would be faster; None if it is done soon."""
    run_s = trials * schedule.messages / MESSAGES_PER_S
    if run_s <= LONG_S:
        return None
    fewer = max(1, int(LONG_S * MESSAGES_PER_S / schedule.messages))
    carried = [name for name, q in PERCENTILES.items() if fewer >= least_trials(q)]
    told = "" if "p99_s" in carried else ", but tells no p99"
    if trials == 1:
        return f"about {run_s:.0f} s"
    return f"about {run_s:.0f} s; --trials {fewer} is faster{told}"


def _noiseless_summary(
    placement: Placement, routes: RouteMap, scenario: Scenario, choice: Choice
) -> LatencySummary:
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
        noise=scenario.noise.value,
        method="exact",
        ranks=placement.ranks,
        nodes=len(placement.hosts),
        domains=routes.domain_count,
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


def _with_bandwidths(summary: LatencySummary, messages: int, time_s: float) -> LatencySummary:
    """With algbw and busbw of a time; None where nothing is sent, for then they measure nothing."""
    if not messages or time_s <= 0:
        return replace(summary, algbw_bytes_per_s=None, busbw_bytes_per_s=None)
    algbw = summary.size_bytes / time_s
    busbw = algbw * busbw_factor(Collective(summary.collective), summary.ranks)
    return replace(summary, algbw_bytes_per_s=algbw, busbw_bytes_per_s=busbw)


def _case(
    fabric: Fabric, scenario: Scenario, placement: Placement, choice: Choice, trials: int
) -> Case:
    """A replay as its causes see it."""
    classes = choice.costs.classes
    return Case(
        costs=choice.costs,
        noises=noises_of(fabric.figures, classes, scenario.noise),
        hosts=[endpoint.host for endpoint in placement.endpoints],
        kind_of={name: kind_of_class(name) for name in classes},
        trials=trials,
        seed=scenario.seed,
    )


def kind_of_class(name: str) -> str:
    """Kind of link of a route class: nvlink, pci or net.

    >>> [kind_of_class(name) for name in ("nvlink4_nvswitch", "pcie_gen5", "ib_ndr_1hop")]
    ['nvlink', 'pci', 'net']
    """
    if name.startswith(("nvlink", "xgmi")):
        return "nvlink"
    return "pci" if name.startswith("pcie") else "net"


def _samples(case: Case, scenario: Scenario, progress: Progress | None) -> FloatArray:
    noises = case.noises
    if scenario.without is not None:
        noises = noises_without(case, find_cause(case, scenario.without))
    rng = np.random.default_rng(case.seed)
    return sample_s(case.costs, noises, trials=case.trials, rng=rng, progress=progress)

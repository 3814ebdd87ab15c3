"""Band: a run's percentiles under each noise profile, for which of them a fabric has is unknown."""

from typing import Final

from topology.collective.placement import Placement
from topology.errors import ScheduleError, WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.latency.methods import Found, find
from topology.latency.monte_carlo import FloatArray, Progress
from topology.latency.replay import default_trials, long_run_text
from topology.latency.scenario import Scenario
from topology.latency.setting import PROFILES, Setting, settle
from topology.latency.summary import PERCENTILES, LatencySummary, least_trials, percentile_ranges
from topology.words import MethodName, NoiseName

IN_BAND: Final = ("p50_s", "p99_s", "p999_s")
LEAST_TRIALS: Final = least_trials(PERCENTILES["p999_s"])
"""The other profiles are replayed with no more: 3,688, which a p99.9 needs."""

P99_TRIALS: Final = least_trials(PERCENTILES["p99_s"])

Row = dict[str, float | None]


def band_of(
    setting: Setting, summary: LatencySummary, progress: Progress | None = None
) -> dict[str, Row] | None:
    """p50, p99 and p99.9 under each profile, and under measured noise; None where it takes long.

    By the summary's method; a replay draws the same numbers under each profile.
    """
    trials = summary.trials
    if trials is not None and long_run_text(setting.choice.schedule, trials) is not None:
        return None
    band = {setting.noise_name: _picked(summary.percentiles)}
    for profile in PROFILES:
        if profile.value not in band:
            band[profile.value] = _row(setting, summary, profile, progress)
    return {name: band[name] for name in dict.fromkeys((*PROFILES, *band))}


def tail_samples_s(
    fabric: Fabric,
    placement: Placement,
    scenario: Scenario,
    *,
    trials: int | None = None,
    progress: Progress | None = None,
) -> dict[str, FloatArray]:
    """Completion times by replay under each profile and under measured noise, by its name. [s]

    ``trials``: of each; by default as many as a few seconds carry.

    Raises:
        WorkloadError: nothing is random in it, so that there is no tail.
    """
    setting = settle(fabric, placement, scenario)
    if scenario.noise is NoiseName.NONE:
        text = "nothing is random in it, so that there is no tail to draw"
        raise WorkloadError(text, field="--noise none", remedy="use dedicated")
    if setting.is_silent:
        text = "one rank alone sends nothing, so that there is no tail to draw"
        raise WorkloadError(text, field="--gpus 1", remedy="ask for more")
    trials = trials or default_trials(setting.choice.schedule)
    cases = {profile.value: setting.case(profile, trials) for profile in PROFILES}
    cases[setting.noise_name] = setting.own_case(trials)
    return {name: case.samples_s(setting.without(case), progress) for name, case in cases.items()}


def _row(
    setting: Setting, summary: LatencySummary, profile: NoiseName, progress: Progress | None
) -> Row:
    trials = _trials(summary.trials)
    if summary.trials is None:
        is_long = long_run_text(setting.choice.schedule, trials) is not None
        found = _found(setting, MethodName(summary.method), profile)
        if is_long or (found is not None and found.is_narrow):
            return _picked(found.percentiles if found is not None else {})
    case = setting.case(profile, trials)
    samples_s = case.samples_s(setting.without(case), progress)
    return _picked(percentile_ranges(samples_s)[0])


def band_trials(summary: LatencySummary) -> int | None:
    """Trials of the other profiles of a run's band; None where nothing was drawn."""
    return None if summary.trials is None else _trials(summary.trials)


def _trials(own: int | None) -> int:
    """Of a run that carries a p99.9, what that needs; of a shorter one a quarter, and a p99's."""
    if own is None or own >= LEAST_TRIALS:
        return LEAST_TRIALS
    return min(own, max(own // 4, P99_TRIALS))


def _found(setting: Setting, method: MethodName, profile: NoiseName) -> Found | None:
    """Percentiles without trials; None where the method does not hold under this profile."""
    costs, noises = setting.choice.costs, setting.noises(profile)
    try:
        return find(method, costs, noises, seed=setting.scenario.seed)
    except (ScheduleError, WorkloadError):
        return None


def _picked(percentiles: Row) -> Row:
    return {name: percentiles.get(name) for name in IN_BAND}

"""Replay: completion times of a case, of as many trials as seconds carry or a precision needs."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from topology.collective.schedule import Schedule
from topology.latency.attribution import Case, Cause
from topology.latency.monte_carlo import FloatArray, Progress
from topology.latency.summary import PERCENTILES, least_trials, percentile_ranges

MOST_TRIALS: Final = 10_000
LEAST_TRIALS: Final = least_trials(PERCENTILES["p99_s"])
"""A p99 needs so many, 368: of fewer trials even the largest may well lie below it."""

WITHOUT_P999: Final = 1_000
"""A default run that cannot carry a p99.9 has no more: they would only narrow p99's interval."""

MESSAGE_BUDGET: Final = 180_000_000
"""Noisy messages that a default run replays, if that is LEAST_TRIALS or more: a few seconds."""

MESSAGES_PER_S: Final = 20_000_000
"""Noisy messages that one slow core replays in a second; fast ones do twice or four times that."""

LONG_S: Final = 20.0
"""A run that takes longer says so before it starts. [s]"""

MOST_PRECISE_TRIALS: Final = 2_000_000
"""Trials after which a precision that is still not reached is given up."""

PRECISE_BUDGET: Final = 20 * MESSAGE_BUDGET
"""Noisy messages after which a precision that is still not reached is given up: a minute or two."""

FIRST_TRIALS: Final = 4 * LEAST_TRIALS
"""Trials from which the number is reckoned that a precision needs."""

Notice: TypeAlias = Callable[[str], None]
"""Told once, in words, before a run that will take long."""


def default_trials(schedule: Schedule) -> int:
    """As many trials as a few seconds carry, at most 10,000 and at least what a p99 needs."""
    affordable = MESSAGE_BUDGET // max(schedule.messages, 1)
    if affordable < least_trials(PERCENTILES["p999_s"]):
        affordable = min(affordable, WITHOUT_P999)
    return int(min(max(affordable, LEAST_TRIALS), MOST_TRIALS))


def most_precise_trials(schedule: Schedule) -> int:
    """Trials after which a precision is given up."""
    affordable = PRECISE_BUDGET // max(schedule.messages, 1)
    return int(min(max(affordable, LEAST_TRIALS), MOST_PRECISE_TRIALS))


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


def precise_samples_s(
    case: Case, precision: float, without: Cause | None, progress: Progress | None
) -> FloatArray:
    """Completion times of as many trials as a precision needs, at most the case's. [s]

    ``precision``: p99's 95 % interval is to reach no further than this part of p99 to either side.
    Each run begins anew, for fewer trials are the first of more; the last one outweighs the others.
    Stopping where an interval looks narrow costs it a point or two of its 95 %.
    """
    trials = min(FIRST_TRIALS, case.trials)
    while True:
        samples_s = replace(case, trials=trials).samples_s(without, progress)
        if trials >= case.trials or reached_precision(samples_s) <= precision:
            return samples_s
        trials = min(_wanted(samples_s, precision), case.trials)


def reached_precision(samples_s: FloatArray) -> float:
    """How far p99's 95 % interval reaches to its further side, as a part of p99; inf if open."""
    values, ranges = percentile_ranges(samples_s)
    return reached_by(values["p99_s"], ranges["p99_s"])


def reached_by(p99_s: float | None, interval_s: tuple[float, float | None]) -> float:
    """How far an interval reaches to its further side, as a part of its value; inf if open."""
    low_s, high_s = interval_s
    if p99_s is None or high_s is None:
        return math.inf
    return max(high_s - p99_s, p99_s - low_s) / p99_s


def _wanted(samples_s: FloatArray, precision: float) -> int:
    """Trials that should do: an interval narrows as one over their root. 2 to 64 times as many."""
    ratio = (reached_precision(samples_s) / precision) ** 2
    return int(len(samples_s) * min(max(1.3 * ratio, 2.0), 64.0))

"""Measured tail: a distribution that somebody measured, and which of its percentiles it carries.

No file is read here. A percentile of too few samples is refused, never guessed in silence.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.latency.summary import order_statistics
from topology.measured.tail_model import fit_tail
from topology.words import Collective, TailModel

FloatArray: TypeAlias = NDArray[np.float64]

QUANTILES: Final = {
    "p50_s": 0.5,
    "p90_s": 0.9,
    "p95_s": 0.95,
    "p99_s": 0.99,
    "p999_s": 0.999,
    "p9999_s": 0.9999,
}
SHOWN: Final = ("p50_s", "p90_s", "p99_s", "p999_s")
"""Percentiles that every measurement is asked for, told by their file or not."""

_MISS: Final = 0.05


class Origin(StrEnum):
    """Where a percentile is from; refused: too few samples carry it."""

    SAMPLES = "samples"
    PRINTED = "printed"
    MODELLED = "modelled"
    REFUSED = "refused"
    UNREPORTED = "unreported"


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredTail:
    """What one file says of one operation. Times in seconds.

    ``samples_s``: shape (count,), ascending; None where the file tells no single operations.
    ``printed_s``: percentiles as the file prints them, by name. ``count``: samples behind them.
    ``size_bytes``: one rank's whole buffer. ``notes``: how the figures are to be read. What the
    file does not tell is None.
    """

    what: str
    where: str
    line: int
    format: str
    collective: Collective | None = None
    size_bytes: int | None = None
    ranks: int | None = None
    nodes: int | None = None
    count: int | None = None
    mean_s: float | None = None
    largest_s: float | None = None
    samples_s: FloatArray | None = None
    printed_s: Mapping[str, float] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MeasuredPercentile:
    """One percentile, or why there is none. ``interval``: 95 %, by order statistics. [s]

    The upper end of an interval is None where the largest sample may lie below it.
    """

    name: str
    value_s: float | None
    origin: Origin
    interval: tuple[float, float | None] | None = None
    reason: str | None = None


def least_samples(q: float) -> int:
    """Fewest samples of which, in 95 % of cases, at least one lies above the q-quantile.

    ``ln 0.05 / ln q``: the largest of n lies below it with chance q^n.

    >>> least_samples(0.99), least_samples(0.999)
    (299, 2995)
    """
    return math.ceil(math.log(_MISS) / math.log(q))


def text_of_percentile(name: str) -> str:
    """How a percentile is called in texts.

    >>> text_of_percentile("p50_s"), text_of_percentile("p999_s")
    ('p50', 'p99.9')
    """
    return f"p{QUANTILES[name] * 100:.6g}"


def percentiles_of(
    tail: MeasuredTail, model: TailModel | None = None
) -> dict[str, MeasuredPercentile]:
    """The percentiles asked for and those that the file prints besides, in rising order.

    What too few samples carry is refused unless ``model`` names a law for the tail; it is then
    fitted to the samples, and the value is marked as modelled.
    """
    names = [name for name in QUANTILES if name in SHOWN or name in (tail.printed_s or {})]
    if tail.samples_s is None:
        return {name: _printed(tail, name, model) for name in names}
    return {name: _from_samples(tail.samples_s, name, model) for name in names}


def _printed(tail: MeasuredTail, name: str, model: TailModel | None) -> MeasuredPercentile:
    value_s = (tail.printed_s or {}).get(name)
    if value_s is None:
        means = "it tells a mean, which has no percentiles" if not tail.printed_s else "not told"
        return MeasuredPercentile(name, None, Origin.UNREPORTED, reason=means)
    if tail.count is None:
        reason = "of how many samples is not told"
        return MeasuredPercentile(name, value_s, Origin.PRINTED, reason=reason)
    if tail.count >= least_samples(QUANTILES[name]):
        return MeasuredPercentile(name, value_s, Origin.PRINTED)
    more = "" if model is None else "; a tail model needs the samples themselves"
    reason = f"{_too_few(tail.count, name)}{more}"
    return MeasuredPercentile(name, None, Origin.REFUSED, reason=reason)


def _from_samples(samples_s: FloatArray, name: str, model: TailModel | None) -> MeasuredPercentile:
    q, count = QUANTILES[name], len(samples_s)
    if count >= least_samples(q):
        low, high = order_statistics(count, q)
        upper = None if high is None else float(samples_s[high])
        interval = (0.0 if low is None else float(samples_s[low]), upper)
        return MeasuredPercentile(
            name, float(np.quantile(samples_s, q)), Origin.SAMPLES, interval=interval
        )
    if model is None:
        reason = f"{_too_few(count, name)}, or --tail-model"
        return MeasuredPercentile(name, None, Origin.REFUSED, reason=reason)
    fit = fit_tail(samples_s, model)
    if isinstance(fit, str):
        return MeasuredPercentile(name, None, Origin.REFUSED, reason=fit)
    return MeasuredPercentile(name, fit.quantile_s(q), Origin.MODELLED, reason=fit.text)


def _too_few(count: int, name: str) -> str:
    text = text_of_percentile(name)
    return f"{count:,} samples carry no {text}: it needs {least_samples(QUANTILES[name]):,}"

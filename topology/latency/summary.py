"""Summary: percentiles with their intervals, never a percentile that the trials cannot carry."""

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from topology.latency.attribution import Attribution
from topology.latency.knee import Knee
from topology.latency.monte_carlo import Breakdown

FloatArray = NDArray[np.float64]

PERCENTILES: Final = {"p50_s": 0.5, "p90_s": 0.9, "p99_s": 0.99, "p999_s": 0.999, "p9999_s": 0.9999}
PERCENTILE_NAMES: Final = {
    "p50_s": "p50",
    "p90_s": "p90",
    "p99_s": "p99",
    "p999_s": "p99.9",
    "p9999_s": "p99.99",
}
COVERAGE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Considered:
    """A way that was considered; ``is_bound``: it takes at least so long, and was not replayed."""

    name: str
    noiseless_s: float
    is_bound: bool


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """The distribution of one collective's completion time. Times in seconds, rates in B/s.

    ``interval``: for each percentile a range that covers the true one in 95 % of runs, whatever the
    law (order statistics); its upper end is None where the trials do not reach that far, and then
    the percentile itself is None too. Without noise: all percentiles are ``noiseless_s``.
    ``considered``: the chosen way first, then the others by time; ``reason``: why it. Bandwidths
    are None where nothing is sent, as by one rank alone. ``model_interval``: the closed form's 80 %
    interval of the noiseless time; ``bracket``: for each percentile a certified range of the
    model's true one; ``measured_classes``: whose noise was measured; ``layers``: noise beyond
    single messages that was on; ``band``: p50, p99 and p99.9 under each noise profile, the honest
    way to say a p99.9, and ``band_trials`` of the others; ``precision``: what was asked of p99's
    interval, as a part of p99; ``without``: whose noise was taken away; ``attribution``: who makes
    the tail; ``knee``: from which rank count rare events make p99.9; ``extrapolated``: what of it
    no measurement covers.
    """

    collective: str
    algorithm: str
    variant: str
    protocol: str | None
    stack: str
    launch: str | None
    noise: str
    method: str
    ranks: int
    nodes: int
    domains: int
    size_bytes: int
    noiseless_s: float
    mean_s: float
    percentiles: dict[str, float | None]
    interval: dict[str, tuple[float, float | None]] | None
    algbw_bytes_per_s: float | None
    busbw_bytes_per_s: float | None
    trials: int | None
    seed: int | None
    breakdown: dict[str, Breakdown]
    considered: tuple[Considered, ...]
    measured_classes: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    band_trials: int | None = None
    bracket: dict[str, tuple[float, float | None]] | None = None
    band: dict[str, dict[str, float | None]] | None = None
    precision: float | None = None
    without: str | None = None
    knee: Knee | None = None
    attribution: tuple[Attribution, ...] | None = None
    reason: str | None = None
    model_interval: tuple[float, float] | None = None
    extrapolated: str | None = None

    @property
    def tail_ratio(self) -> float:
        """p99 / p50."""
        p50, p99 = self.percentiles["p50_s"], self.percentiles["p99_s"]
        return math.nan if p50 is None or p99 is None else p99 / p50


def percentile_ranges(
    samples_s: FloatArray,
) -> tuple[dict[str, float | None], dict[str, tuple[float, float | None]]]:
    """Percentiles of a sample, and the 95 % interval of each by order statistics."""
    ordered = np.sort(samples_s)
    values: dict[str, float | None] = {}
    ranges: dict[str, tuple[float, float | None]] = {}
    for name, q in PERCENTILES.items():
        low, high = order_statistics(len(ordered), q)
        upper = None if high is None else float(ordered[high])
        ranges[name] = (0.0 if low is None else float(ordered[low]), upper)
        values[name] = None if upper is None else float(np.quantile(ordered, q))
    return values, ranges


def order_statistics(count: int, q: float) -> tuple[int | None, int | None]:
    """Indices into ``count`` sorted samples that enclose the q-quantile in 95 % of runs.

    The number of samples below the quantile is binomial: the lower index is the last that lies
    above it in at most 2.5 % of runs, the upper the first that lies below it in at most 2.5 %;
    None: no sample does, not even the smallest or the largest.

    >>> order_statistics(10_000, 0.999)
    (9982, 9996)
    >>> order_statistics(1_000, 0.999)[1] is None
    True
    """
    tail = (1 - COVERAGE) / 2
    low = _binomial_quantile(count, q, tail)
    high = _binomial_quantile(count, q, 1 - tail)
    return low - 1 if low else None, high if high < count else None


def least_trials(q: float) -> int:
    """Fewest trials that carry the q-quantile: the largest of n lies below it with chance q^n.

    >>> least_trials(0.5), least_trials(0.99), least_trials(0.999)
    (6, 368, 3688)
    """
    return math.ceil(math.log((1 - COVERAGE) / 2) / math.log(q))


@cache
def _binomial_quantile(count: int, q: float, level: float) -> int:
    """Smallest k with P(Binomial(count, q) <= k) >= level, exact by summing from the mean."""
    spread = math.sqrt(count * q * (1 - q))
    guess = count * q + spread * NormalDist().inv_cdf(level)
    k = min(max(round(guess), 0), count)
    while k > 0 and _binomial_cdf(count, q, k - 1) >= level:
        k -= 1
    while k < count and _binomial_cdf(count, q, k) < level:
        k += 1
    return k


def _binomial_cdf(count: int, q: float, k: int) -> float:
    """P(Binomial(count, q) <= k), summed over the shorter side that matters."""
    if k >= count:
        return 1.0
    low = max(0, math.floor(count * q - 12 * math.sqrt(count * q * (1 - q)) - 30))
    if k < low:
        return 0.0
    terms = np.arange(low, k + 1)
    log_choose = _log_factorial(count) - _log_factorials(terms) - _log_factorials(count - terms)
    log_terms = log_choose + terms * math.log(q) + (count - terms) * math.log1p(-q)
    return min(1.0, float(np.exp(log_terms).sum()))


def _log_factorial(n: int) -> float:
    return math.lgamma(n + 1)


def _log_factorials(numbers: NDArray[np.int64]) -> FloatArray:
    return np.array([math.lgamma(int(n) + 1) for n in numbers])

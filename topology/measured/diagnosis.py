"""Diagnosis: is a run as fast as the model expects, and if not, which fault explains it best.

A run is judged by region of size, where the median of measured / predicted is robust against single
rows. Functions of arrays: no file, no model, no map.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.errors import MeasurementError
from topology.latency.calibration import REGIONS, Region
from topology.measured.runs import region_indices

FloatArray: TypeAlias = NDArray[np.float64]
BoolArray: TypeAlias = NDArray[np.bool_]

LEAST_POINTS: Final = 3
"""A region with fewer rows is not judged."""

SLOW_REACHES: Final = 2.0
"""A region is slow beyond the 80 % interval's upper end, this many times as far in log: 2.56 sigma.

The rows of a run err together, so a tenth of healthy regions lie beyond the interval itself.
"""

LEAST_SLOW_RATIO: Final = {
    Region.TINY: 1.3,
    Region.SMALL: 1.3,
    Region.MEDIUM: 1.2,
    Region.LARGE: 1.1,
}
"""Below this no region is slow, however narrow its interval: healthy machines of a kind differ so.

Source: the noise floor of the calibration set: 1.35 to 16 KiB, 1.09 at 16 MiB, to 1.08 beyond.
"""

FIRST_CALL_RATIO: Final = 1.3
"""A first row that takes so many times the second, of a size at least as large, is warm-up."""

SPIKE_RATIO: Final = 2.0
"""A row that takes so many times what the rows around it say stands alone."""

CLEAR_GAIN: Final = 3.0
"""Log-likelihood by which a fault explains better than health, or another than it: e^3 : 1."""

_TAIL: Final = 4.0
"""Degrees of freedom of the residuals: a row far off counts by the log of its distance."""

_MOST_INDEPENDENT: Final = 3.0
"""Rows of a region err together: they count as so many at most."""

_LEAST_SIGMA: Final = 0.08
_SIGMAS: Final = 2.563
"""Width of an 80 % interval of a normal, in sigma."""

_AROUND: Final = 2
"""Rows on either side that a spike is held against."""

_FEW_SPIKES: Final = 2
"""So many spikes are any run's."""


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """A fault as the model predicts it. ``check``: what to look at; ``predicted_s``: shape (m,)."""

    name: str
    suspect: str
    check: str
    predicted_s: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """What the model expects of a healthy run for each size, and of each fault, all (m,). [s]

    ``low_s``, ``high_s``: 80 % interval. ``ways``: algorithm and protocol. ``extrapolated``: what
    of it no measurement covers.
    """

    predicted_s: FloatArray
    low_s: FloatArray
    high_s: FloatArray
    ways: tuple[str, ...]
    variants: tuple[Variant, ...] = ()
    extrapolated: str | None = None


class Verdict(StrEnum):
    """Whether a run is as it should be."""

    HEALTHY = "healthy"
    SICK = "sick"


class State(StrEnum):
    """How a region of sizes does."""

    HEALTHY = "healthy"
    SLOW = "slow"
    FAST = "fast"
    NOT_JUDGED = "too few rows"


class Row(NamedTuple):
    """One row that stands out. [s]"""

    size_bytes: float
    measured_s: float
    expected_s: float


@dataclass(frozen=True, slots=True)
class RegionEvidence:
    """What a region shows: medians over its rows. [s]

    ``factor``: median of measured / expected; slow above ``slow_ratio``.
    """

    region: Region
    rows: int
    ways: tuple[str, ...]
    measured_s: float
    expected_s: float
    factor: float
    slow_ratio: float
    state: State


@dataclass(frozen=True, slots=True)
class Suspect:
    """A fault that explains what health does not.

    ``gain``: log-likelihood above health's. ``factors``: median of measured / this fault's
    prediction for each judged region. ``explains``: the slow regions that are as it predicts.
    """

    name: str
    suspect: str
    check: str
    gain: float
    factors: tuple[tuple[Region, float], ...]
    explains: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a run shows. ``first_call``: a warm-up row, left out. ``spikes``: rows that stand alone.

    ``unexplained``: slow regions that no suspect explains; ``wrong_values``: of the data check.
    """

    regions: tuple[RegionEvidence, ...]
    suspects: tuple[Suspect, ...]
    unexplained: tuple[Region, ...]
    first_call: Row | None
    spikes: tuple[Row, ...]
    wrong_values: int
    notes: tuple[str, ...]

    @property
    def slow(self) -> tuple[Region, ...]:
        """The regions that are slow."""
        return tuple(found.region for found in self.regions if found.state is State.SLOW)

    @property
    def verdict(self) -> Verdict:
        """Sick where a region is slow or a value is wrong."""
        return Verdict.SICK if self.slow or self.wrong_values else Verdict.HEALTHY


def diagnose(
    sizes_bytes: FloatArray,
    measured_s: FloatArray,
    expected: Expectation,
    *,
    wrong_values: int = 0,
) -> Diagnosis:
    """Hold a run against what is expected of it; arrays of shape (m,), in the run's order.

    Raises:
        MeasurementError: no region has rows enough to be judged, and no value is wrong.
    """
    log_ratio = np.log(measured_s / expected.predicted_s)
    is_first = _first_call(sizes_bytes, measured_s)
    kept = ~is_first
    cells = [kept & (region_indices(sizes_bytes) == i) for i in range(len(REGIONS))]
    regions = tuple(
        _evidence(region, cell, measured_s, expected)
        for region, cell in zip(REGIONS, cells, strict=True)
        if cell.any()
    )
    judged = [found for found in regions if found.state is not State.NOT_JUDGED]
    if not judged and not wrong_values:
        raise MeasurementError(
            f"{int(kept.sum())} rows, of no region {LEAST_POINTS}",
            remedy="measure more sizes, as with -b 8 -e 1G -f 2",
        )
    suspects = _suspects(regions, cells, measured_s, expected)
    is_spike = _spikes(sizes_bytes, log_ratio, kept)
    spikes = _rows(is_spike, sizes_bytes, measured_s, expected)
    explained = {region for suspect in suspects for region in suspect.explains}
    slow = (found.region for found in judged if found.state is State.SLOW)
    return Diagnosis(
        regions=regions,
        suspects=suspects,
        unexplained=tuple(region for region in slow if region not in explained),
        first_call=next(iter(_rows(is_first, sizes_bytes, measured_s, expected)), None),
        spikes=spikes if len(spikes) > _FEW_SPIKES else (),
        wrong_values=wrong_values,
        notes=() if expected.extrapolated is None else (f"extrapolated: {expected.extrapolated}",),
    )


def _first_call(sizes_bytes: FloatArray, measured_s: FloatArray) -> BoolArray:
    """The first row, if it takes clearly longer than the next though its size is no larger."""
    found = np.zeros(len(sizes_bytes), dtype=bool)
    if len(found) > 1 and sizes_bytes[0] <= sizes_bytes[1]:
        found[0] = measured_s[0] > FIRST_CALL_RATIO * measured_s[1]
    return found


def _rows(
    chosen: BoolArray, sizes_bytes: FloatArray, measured_s: FloatArray, expected: Expectation
) -> tuple[Row, ...]:
    columns = (sizes_bytes, measured_s, expected.predicted_s)
    told = zip(*(column[chosen].tolist() for column in columns), strict=True)
    return tuple(Row(*row) for row in told)


def _evidence(
    region: Region, cell: BoolArray, measured_s: FloatArray, expected: Expectation
) -> RegionEvidence:
    measured, predicted = measured_s[cell], expected.predicted_s[cell]
    factor = _median_ratio(measured, predicted)
    slow_ratio = _reach(region, expected.high_s[cell] / predicted)
    fast_ratio = _reach(region, predicted / expected.low_s[cell])
    return RegionEvidence(
        region=region,
        rows=int(cell.sum()),
        ways=tuple(dict.fromkeys(np.array(expected.ways, dtype=object)[cell])),
        measured_s=float(np.median(measured)),
        expected_s=float(np.median(predicted)),
        factor=factor,
        slow_ratio=slow_ratio,
        state=_state(int(cell.sum()), factor, slow_ratio, fast_ratio),
    )


def _reach(region: Region, ratios: FloatArray) -> float:
    """How far a region may lie on one side, from the interval's reach on it."""
    reach = float(np.median(ratios)) ** SLOW_REACHES
    return max(LEAST_SLOW_RATIO[region], float(reach))


def _state(rows: int, factor: float, slow_ratio: float, fast_ratio: float) -> State:
    if rows < LEAST_POINTS:
        return State.NOT_JUDGED
    if factor > slow_ratio:
        return State.SLOW
    return State.FAST if factor < 1 / fast_ratio else State.HEALTHY


def _median_ratio(a: FloatArray, b: FloatArray) -> float:
    return math.exp(float(np.median(np.log(a / b))))


def _spikes(sizes_bytes: FloatArray, log_ratio: FloatArray, kept: BoolArray) -> BoolArray:
    """Rows slower than both sides that surround them: a step, as between protocols, is none."""
    order = np.flatnonzero(kept)[np.argsort(sizes_bytes[kept], kind="stable")]
    found = np.zeros(len(sizes_bytes), dtype=bool)
    for place in range(1, len(order) - 1):
        before, after = order[max(0, place - _AROUND) : place], order[place + 1 :][:_AROUND]
        usual = max(float(np.median(log_ratio[side])) for side in (before, after))
        found[order[place]] = log_ratio[order[place]] - usual > np.log(SPIKE_RATIO)
    return found


def _suspects(
    regions: Sequence[RegionEvidence],
    cells: Sequence[BoolArray],
    measured_s: FloatArray,
    expected: Expectation,
) -> tuple[Suspect, ...]:
    """The faults that explain a slow region and contradict none, as likely as the likeliest."""
    judged = [found for found in regions if found.state is not State.NOT_JUDGED]
    if all(found.state is not State.SLOW for found in judged):
        return ()
    used = [cells[REGIONS.index(found.region)] for found in judged]
    sigma = np.maximum(np.log(expected.high_s / expected.low_s) / _SIGMAS, _LEAST_SIGMA)
    healthy = _log_likelihood(np.log(measured_s / expected.predicted_s) / sigma, used)
    found = []
    for variant in expected.variants:
        log_ratio = np.log(measured_s / variant.predicted_s)
        gain = _log_likelihood(log_ratio / sigma, used) - healthy
        factors = [float(np.exp(np.median(log_ratio[cell]))) for cell in used]
        suspect = _suspect(variant, gain, judged, factors)
        if suspect is not None:
            found.append(suspect)
    found.sort(key=lambda suspect: -suspect.gain)
    return tuple(suspect for suspect in found if suspect.gain > found[0].gain - CLEAR_GAIN)


def _suspect(
    variant: Variant, gain: float, judged: Sequence[RegionEvidence], factors: Sequence[float]
) -> Suspect | None:
    """A fault as suspect: clearly likelier than health, with a slow region that it explains."""
    pairs = list(zip(judged, factors, strict=True))
    contradicts = any(factor < 1 / found.slow_ratio for found, factor in pairs)
    explains = tuple(
        found.region
        for found, factor in pairs
        if found.state is State.SLOW and factor <= found.slow_ratio
    )
    if gain < CLEAR_GAIN or contradicts or not explains:
        return None
    by_region = tuple((found.region, factor) for found, factor in pairs)
    return Suspect(variant.name, variant.suspect, variant.check, gain, by_region, explains)


def _log_likelihood(z: FloatArray, cells: Sequence[BoolArray]) -> float:
    """Log-likelihood of residuals in sigmas, Student's t, the rows of a region counting as few."""
    terms = -(_TAIL + 1) / 2 * np.log1p(z**2 / _TAIL)
    return float(sum(min(cell.sum(), _MOST_INDEPENDENT) * terms[cell].mean() for cell in cells))

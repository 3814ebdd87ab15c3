"""Validation: what the model predicts for runs that were measured, and how far it is off.

Functions of values: no file, no printing. Factor, regions and weights are the calibration's.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.errors import NothingMeasuredError
from topology.latency.calibration import REGIONS, Calibration, HeldOut, Reach, Region
from topology.measured.calibrate import Points, digest_of, held_out_rows, points_of
from topology.measured.fitting import QUALITY_WEIGHT
from topology.measured.observed import Observed, observe
from topology.measured.runs import DroppedPoints, RunSet, SkippedRun, region_indices

FloatArray: TypeAlias = NDArray[np.float64]
BoolArray: TypeAlias = NDArray[np.bool_]

LEAST_POINTS: Final = 20
"""A cell with fewer points is shown and not judged."""

ROUNDED_UP_TO: Final = 0.05
"""A default tolerance is a held-out figure, rounded up to a multiple of this."""


class Factors(NamedTuple):
    """Factor ``max(predicted, measured) / min`` at the median and at 90 % of a cell's weight."""

    median: float
    p90: float

    def within(self, limit: "Factors") -> bool:
        """Whether neither is above the limit."""
        return self.median <= limit.median and self.p90 <= limit.p90


AIMS: Final = {
    (Reach.ONE_NODE, Region.TINY): Factors(1.15, 1.4),
    (Reach.ONE_NODE, Region.SMALL): Factors(1.20, 1.5),
    (Reach.ONE_NODE, Region.MEDIUM): Factors(1.12, 1.35),
    (Reach.ONE_NODE, Region.LARGE): Factors(1.05, 1.2),
    (Reach.ACROSS_NODES, Region.TINY): Factors(1.30, 2.0),
    (Reach.ACROSS_NODES, Region.SMALL): Factors(1.7, 3.0),
    (Reach.ACROSS_NODES, Region.MEDIUM): Factors(1.4, 2.2),
    (Reach.ACROSS_NODES, Region.LARGE): Factors(1.12, 1.5),
}
"""What the model aims for on machines it was not fitted to: close to how much machines of one kind
differ among themselves (1.1 to 1.35 small, 1.02 to 1.08 large)."""

Cell: TypeAlias = tuple[Reach, Region]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a cell's factors may be at most, and why these; a cell without limits is not judged."""

    reason: str
    limits: dict[Cell, Factors]


def held_out_tolerance(shipped: Calibration) -> Tolerance:
    """What the shipped calibration did on machines that were held out, rounded up: the default.

    The model did so well without having seen a machine; beyond that, it or its data has drifted.
    """
    limits = {
        (row.reach, row.region): Factors(_up(row.median_factor), _up(row.p90_factor))
        for row in shipped.held_out
        if row.family is None
    }
    return Tolerance("held-out figures of the shipped calibration, rounded up", limits)


def aimed_tolerance() -> Tolerance:
    """What the model aims for."""
    return Tolerance("what the model aims for", dict(AIMS))


def one_tolerance(limit: Factors) -> Tolerance:
    """The same for every cell, as asked for."""
    return Tolerance("as asked for", dict.fromkeys(AIMS, limit))


def _up(factor: float) -> float:
    """Rounded up to a multiple of ``ROUNDED_UP_TO``, an ulp's worth aside."""
    return round(math.ceil(factor / ROUNDED_UP_TO - 1e-9) * ROUNDED_UP_TO, 2)


class State(StrEnum):
    """How a cell does."""

    WITHIN = "within"
    OUTSIDE = "outside"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class CellResult:
    """One cell: ours, NCCL's own on what it models, and ours on machines held out, if known.

    ``inside_ratio``: weight of the points inside the 80 % model interval, None without interval.
    """

    reach: Reach
    region: Region
    family: str | None
    points: int
    ours: Factors
    nccl: Factors | None
    held_out: Factors | None
    inside_ratio: float | None
    limit: Factors | None

    @property
    def state(self) -> State:
        """Within its limit or not; only cells of all families have one."""
        if self.limit is None or self.points < LEAST_POINTS:
            return State.NOT_JUDGED
        return State.WITHIN if self.ours.within(self.limit) else State.OUTSIDE


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """Runs with a prediction for every point, and what was left out.

    Arrays (m,), run after run: ``points``; ``low_s``, ``high_s``: nan where there is no interval;
    ``counted``: whether the summary counts it, which it does not for runs called slow or broken.
    ``ways`` and ``extrapolated`` (m,): how each goes, and what of it was never measured.
    """

    runs: tuple[Observed, ...]
    points: Points
    low_s: FloatArray
    high_s: FloatArray
    counted: BoolArray
    ways: tuple[str, ...]
    extrapolated: tuple[str | None, ...]
    skipped: tuple[SkippedRun, ...]
    dropped: tuple[DroppedPoints, ...]
    calibration: Calibration
    tolerance: Tolerance
    cells: tuple[CellResult, ...]

    @property
    def has_held_out(self) -> bool:
        """Whether the calibration was fitted to these very runs, and its held-out figures apply."""
        return _is_of_these(self.calibration, self.runs)

    @property
    def outside(self) -> tuple[CellResult, ...]:
        """The cells that are outside the tolerance."""
        return tuple(cell for cell in self.cells if cell.state is State.OUTSIDE)

    @property
    def set_aside(self) -> tuple[Observed, ...]:
        """Runs that are predicted and not counted."""
        return tuple(run for run in self.runs if not _counts(run))


def validate(table: RunSet, calibration: Calibration, tolerance: Tolerance) -> Validation:
    """Predict every point of every run that the model can take.

    Raises:
        NothingMeasuredError: not one run can be used.
    """
    runs, unseen = observe(table.runs)
    skipped = (*table.skipped, *unseen)
    if not runs:
        first = f" ({skipped[0].run_id}: {skipped[0].reason})" if skipped else ""
        raise NothingMeasuredError(
            f"no run of {len(skipped)} can be used{first}",
            where="--runs",
            remedy="topology validate takes the collectives of nccl-tests on known GPUs",
        )
    told = [_predict(run, calibration) for run in runs]
    points = points_of(runs, np.concatenate([one.times_s for one in told]))
    low_s, high_s = (np.concatenate([one.interval_s[side] for one in told]) for side in range(2))
    counted = np.repeat([_counts(run) for run in runs], [len(run.times_s) for run in runs])
    cells = _cells(points, counted, (low_s, high_s), tolerance)
    if _is_of_these(calibration, runs):
        cells = [_with_held_out(cell, calibration.held_out) for cell in cells]
    return Validation(
        runs=runs,
        points=points,
        low_s=low_s,
        high_s=high_s,
        counted=counted,
        ways=tuple(way for one in told for way in one.ways),
        extrapolated=tuple(text for one in told for text in one.extrapolated),
        skipped=skipped,
        dropped=table.dropped,
        calibration=calibration,
        tolerance=tolerance,
        cells=tuple(cells),
    )


def _counts(run: Observed) -> bool:
    return QUALITY_WEIGHT.get(run.quality, 1.0) > 0


def _is_of_these(calibration: Calibration, runs: Iterable[Observed]) -> bool:
    digest = digest_of([run for run in runs if _counts(run)])
    return calibration.provenance.data_digest == digest


class _Predicted(NamedTuple):
    """What the model says of a run, arrays and tuples of shape (m,). [s]"""

    times_s: FloatArray
    interval_s: tuple[FloatArray, FloatArray]
    ways: tuple[str, ...]
    extrapolated: tuple[str | None, ...]


def _predict(run: Observed, calibration: Calibration) -> _Predicted:
    """All sizes of a run at once."""
    model = run.model(calibration)
    times_s = model.times_s(run.sizes_bytes)
    texts = [way.way.text for way in model.ways]
    return _Predicted(
        times_s,
        _interval_s(run, times_s, calibration),
        tuple(texts[number] for number in model.choice(run.sizes_bytes)),
        tuple(model.extrapolated(size_bytes) for size_bytes in run.sizes_bytes.tolist()),
    )


def _interval_s(
    run: Observed, times_s: FloatArray, calibration: Calibration
) -> tuple[FloatArray, FloatArray]:
    """Ends of the model interval, nan where the calibration has none for the group."""
    found = [calibration.interval_of(run.reach, region) for region in REGIONS]
    ratios = np.array([(i.low_ratio, i.high_ratio) if i else (np.nan, np.nan) for i in found])
    low, high = ratios[region_indices(run.sizes_bytes)].T
    return times_s * low, times_s * high


def _cells(
    points: Points,
    counted: BoolArray,
    interval_s: tuple[FloatArray, FloatArray],
    tolerance: Tolerance,
) -> list[CellResult]:
    """Each cell with all families together, then family by family."""
    kept = points_where(points, counted)
    low_s, high_s = (side[counted] for side in interval_s)
    inside = np.where(
        np.isnan(low_s), np.nan, (low_s <= kept.measured_s) & (kept.measured_s <= high_s)
    )
    weight = kept.weights()
    cells = []
    for row in held_out_rows(kept) if counted.any() else ():
        mine = kept.cell(row.reach, row.region)
        if row.family is not None:
            mine = mine & (kept.families == row.family)
        limit = tolerance.limits.get((row.reach, row.region)) if row.family is None else None
        cells.append(
            CellResult(
                reach=row.reach,
                region=row.region,
                family=row.family,
                points=row.points,
                ours=Factors(row.median_factor, row.p90_factor),
                nccl=_nccl(row),
                held_out=None,
                inside_ratio=_share(inside[mine], weight[mine]),
                limit=limit,
            )
        )
    return cells


def points_where(points: Points, kept: BoolArray) -> Points:
    """These of the points."""
    return Points(
        families=points.families[kept],
        machines=points.machines[kept],
        across=points.across[kept],
        sizes_bytes=points.sizes_bytes[kept],
        measured_s=points.measured_s[kept],
        predicted_s=points.predicted_s[kept],
        nccl_s=points.nccl_s[kept],
    )


def _nccl(row: HeldOut) -> Factors | None:
    if row.nccl_median_factor is None or row.nccl_p90_factor is None:
        return None
    return Factors(row.nccl_median_factor, row.nccl_p90_factor)


def _share(inside: FloatArray, weight: FloatArray) -> float | None:
    """Share of the weight that is inside, of what has an interval."""
    told = ~np.isnan(inside)
    return float((inside[told] @ weight[told]) / weight[told].sum()) if told.any() else None


def _with_held_out(cell: CellResult, rows: Sequence[HeldOut]) -> CellResult:
    key = (cell.reach, cell.region, cell.family)
    found = next((row for row in rows if (row.reach, row.region, row.family) == key), None)
    if found is None:
        return cell
    return replace(cell, held_out=Factors(found.median_factor, found.p90_factor))

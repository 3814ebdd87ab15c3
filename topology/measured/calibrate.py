"""Calibrate: figures fitted to runs, and how well they do on machines they were not fitted to."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from topology.errors import MeasurementError
from topology.latency.calibration import (
    REGIONS,
    Calibration,
    Covered,
    HeldOut,
    Interval,
    Provenance,
    Reach,
    Region,
)
from topology.latency.model import CUSTOM
from topology.measured.fitting import QUALITY_WEIGHT, fit, fit_design
from topology.measured.observed import Observed
from topology.measured.runs import region_indices, weighted_quantile, weights

FloatArray = NDArray[np.float64]
Progress = Callable[[int, int], None]

LEAST_POINTS: Final = 20
"""A group with fewer held-out points gets no interval."""

COVERAGE: Final = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Points of runs side by side, all arrays (m,): what was measured, what was predicted. [s]"""

    families: NDArray[np.str_]
    machines: NDArray[np.str_]
    across: NDArray[np.bool_]
    sizes_bytes: FloatArray
    measured_s: FloatArray
    predicted_s: FloatArray
    nccl_s: FloatArray

    def weights(self) -> FloatArray:
        """1 / (points of its family in its cell)."""
        return weights(
            families=self.families.tolist(), across_nodes=self.across, sizes_bytes=self.sizes_bytes
        )

    def cell(self, reach: Reach, region: Region) -> NDArray[np.bool_]:
        """The points of a cell."""
        in_region = region_indices(self.sizes_bytes) == REGIONS.index(region)
        return np.asarray(in_region & (self.across == (reach is Reach.ACROSS_NODES)))


def factors(predicted_s: FloatArray, measured_s: FloatArray) -> FloatArray:
    """``max(predicted, measured) / min``, shape (m,)."""
    ratio = predicted_s / measured_s
    return np.asarray(np.maximum(ratio, 1 / ratio))


def calibrate(
    observed: Sequence[Observed], *, data: str, progress: Progress | None = None
) -> Calibration:
    """Figures fitted to runs; intervals and coverage from machines left out one after another.

    Raises:
        MeasurementError: no run that weighs anything.
    """
    runs = [run for run in observed if QUALITY_WEIGHT.get(run.quality, 1.0) > 0]
    if not runs:
        raise MeasurementError("no run to calibrate by", where=data, remedy="give A or B runs")
    found, design = fit(runs)
    predicted = np.empty(len(design.log_times))
    machines = sorted({run.machine for run in runs})
    for number, machine in enumerate(machines):
        out = np.array([i for i, run in enumerate(runs) if run.machine == machine])
        without = fit_design(design, start=found.theta, held_out=out)
        mine = np.isin(design.run_of, out)
        theta = np.concatenate([[0.0], without.theta])
        predicted[mine] = np.exp(design.of(mine).predicted(theta)[0])
        if progress is not None:
            progress(number + 1, len(machines))
    points = points_of(runs, predicted)
    return Calibration(
        provenance=_provenance(runs, machines, data),
        figure=found.figures(),
        interval=tuple(_intervals(points)),
        held_out=tuple(held_out_rows(points)),
        covered=tuple(covered_rows(runs)),
    )


def points_of(runs: Sequence[Observed], predicted_s: FloatArray) -> Points:
    """The points of runs with a prediction for each, run after run, and NCCL's own beside it."""
    count = [len(run.times_s) for run in runs]
    return Points(
        families=np.repeat([run.family for run in runs], count),
        machines=np.repeat([run.machine for run in runs], count),
        across=np.repeat([run.reach is Reach.ACROSS_NODES for run in runs], count),
        sizes_bytes=np.concatenate([run.sizes_bytes for run in runs]),
        measured_s=np.concatenate([run.times_s for run in runs]),
        predicted_s=predicted_s,
        nccl_s=np.concatenate([nccl_times_s(run) for run in runs]),
    )


def nccl_times_s(run: Observed) -> FloatArray:
    """What NCCL's own model says of a run, shape (m,): the baseline. nan where it has no say. [s]

    NCCL has no model of point-to-point operations; custom kernels are held against its all-reduce.
    """
    model = run.baseline()
    ways = [way.way for way in model.ways if way.way.algorithm not in CUSTOM]
    if not ways or run.is_exchange:
        return np.full(len(run.sizes_bytes), np.nan)
    times = [model.tuner.time_s(way, run.sizes_bytes) for way in ways]
    return np.asarray(np.min(times, axis=0))


def held_out_rows(points: Points) -> list[HeldOut]:
    """One row for each cell, all families together, then family by family."""
    rows: list[HeldOut] = []
    weight = points.weights()
    ours = factors(points.predicted_s, points.measured_s)
    nccl = factors(points.nccl_s, points.measured_s)
    for reach in Reach:
        for region in REGIONS:
            cell = points.cell(reach, region)
            families = sorted(set(points.families[cell].tolist()))
            for family in (None, *families) if families else ():
                mine = cell & (points.families == family) if family is not None else cell
                told = mine & np.isfinite(nccl)
                baseline = {
                    f"nccl_{name}_factor": weighted_quantile(nccl[told], weight[told], q)
                    for name, q in (("median", 0.5), ("p90", 0.9))
                    if told.any()
                }
                rows.append(
                    HeldOut(
                        reach=reach,
                        region=region,
                        family=family,
                        points=int(mine.sum()),
                        median_factor=weighted_quantile(ours[mine], weight[mine], 0.5),
                        p90_factor=weighted_quantile(ours[mine], weight[mine], 0.9),
                        **baseline,
                    )
                )
    return rows


def _intervals(points: Points) -> list[Interval]:
    """What measured / predicted was at 10 % and 90 % of each cell's held-out points."""
    rows: list[Interval] = []
    weight, ratio = points.weights(), points.measured_s / points.predicted_s
    for reach in Reach:
        for region in REGIONS:
            cell = points.cell(reach, region)
            if cell.sum() < LEAST_POINTS:
                continue
            low, high = (
                weighted_quantile(ratio[cell], weight[cell], q)
                for q in ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2)
            )
            rows.append(
                Interval(
                    reach=reach,
                    region=region,
                    low_ratio=low,
                    high_ratio=high,
                    points=int(cell.sum()),
                    machines=len(set(points.machines[cell].tolist())),
                )
            )
    return rows


def covered_rows(runs: Sequence[Observed]) -> list[Covered]:
    """What was measured at all: links by kind and GPUs, sizes, nodes, ranks."""
    groups: dict[tuple[str, str], list[Observed]] = {}
    for run in runs:
        link = run.job.net.kind if run.job.net else run.job.intra.kind if run.job.intra else "none"
        groups.setdefault((str(link), str(run.job.architecture)), []).append(run)
    return [
        Covered(
            link=link,
            architecture=architecture,
            least_bytes=min(float(run.sizes_bytes.min()) for run in members),
            most_bytes=max(float(run.sizes_bytes.max()) for run in members),
            most_cliques=max(run.job.cliques for run in members),
            most_ranks=max(run.job.ranks for run in members),
            points=sum(len(run.sizes_bytes) for run in members),
        )
        for (link, architecture), members in sorted(groups.items())
    ]


def _provenance(runs: Sequence[Observed], machines: Sequence[str], data: str) -> Provenance:
    families = sorted({run.family for run in runs})
    return Provenance(
        runs=len(runs),
        points=sum(len(run.times_s) for run in runs),
        machines=len(machines),
        data=data,
        data_digest=digest_of(runs),
        families={family: sum(run.family == family for run in runs) for family in families},
    )


def digest_of(runs: Sequence[Observed]) -> str:
    """A short name of exactly these runs and points."""
    digest = hashlib.blake2b(digest_size=8)
    for run in sorted(runs, key=lambda run: run.run_id):
        digest.update(run.run_id.encode())
        digest.update(np.ascontiguousarray(run.sizes_bytes).tobytes())
        digest.update(np.ascontiguousarray(run.times_s).tobytes())
    return digest.hexdigest()

"""Own runs: a user's nccl-tests on a user's map, and the shipped calibration moved toward them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topology.errors import NothingMeasuredError, TopologyError
from topology.fabric.from_fleet import Fabric
from topology.fabric.route_table import RouteMap
from topology.latency.calibration import Calibration, FittedFigure, Provenance
from topology.latency.job import job_of
from topology.latency.operation import Operation
from topology.measured.calibrate import covered_rows, digest_of
from topology.measured.fitting import Design, design_of, fit_design, prior_log_error
from topology.measured.nccl_tests import OWN_FAMILY, NcclTestsRun, read_nccl_tests
from topology.measured.observed import Observed
from topology.measured.runs import SkippedRun, integer_dtype
from topology.measured.seats import seats_of
from topology.words import AlgorithmName, Collective

FloatArray = NDArray[np.float64]

LEAST_LOG_ERROR: Final = 0.1
"""Another machine may lie this far from a shipped factor, however narrow its error is."""

OWN_MACHINE: Final = "the map's machine"

OWN_POINT_WEIGHT: Final = 8.0
"""Points of one's own machine weigh more than a stranger's few."""


class OwnRuns(NamedTuple):
    """Runs as the model sees them, what was assumed to place them, and what was left out."""

    runs: tuple[Observed, ...]
    notes: tuple[str, ...]
    skipped: tuple[SkippedRun, ...]


def read_own_runs(
    paths: Iterable[str], fabric: Fabric, *, collective: Collective | None = None
) -> OwnRuns:
    """The runs of texts of nccl-tests, placed on a map; one that cannot be placed is skipped.

    Raises:
        MeasurementError: a text without a table that can be used.
        NothingMeasuredError: no run is of this map.
        ExpectedError: a file cannot be read.
    """
    runs: list[Observed] = []
    notes: dict[str, None] = {}
    skipped: list[SkippedRun] = []
    for path in paths:
        text = read_nccl_tests(path, collective=collective)
        name = Path(path).name
        skipped += (SkippedRun(f"{name}:{skip.line}", skip.reason) for skip in text.skipped)
        for run in text.runs:
            run_id = f"{name}:{run.line} {run.collective} {run.dtype}"
            try:
                seen, assumed = observed_of(run, fabric, run_id)
            except TopologyError as error:
                skipped.append(SkippedRun(run_id, str(error)))
                continue
            runs.append(seen)
            notes |= dict.fromkeys((*run.notes, *assumed))
    if not runs:
        raise NothingMeasuredError(
            f"no run can be used ({skipped[0].run_id}: {skipped[0].reason})",
            where="--nccl-tests",
            remedy="give the map of the machine that ran it",
        )
    return OwnRuns(tuple(runs), tuple(notes), tuple(skipped))


def observed_of(run: NcclTestsRun, fabric: Fabric, run_id: str) -> tuple[Observed, tuple[str, ...]]:
    """A run of nccl-tests on a map as the model sees it, and what was assumed to place it.

    Raises:
        TopologyError: the map is not that of the run, or the model has no such operation.
        NothingMeasuredError: every row has wrong values.
    """
    placement, notes = seats_of(run, fabric)
    rows = run.right_rows
    if not rows:
        raise NothingMeasuredError("every row has wrong values", remedy="look for the fault first")
    seen = Observed(
        run_id=run_id,
        machine=OWN_MACHINE,
        family=OWN_FAMILY,
        quality="B" if run.wrong else "A",
        job=job_of(fabric, placement, RouteMap(fabric, placement.endpoints)),
        operation=Operation(run.collective, run.launch, integer_dtype(run.dtype)),
        algorithm=AlgorithmName.AUTO,
        protocol=None,
        custom=False,
        sizes_bytes=np.array([float(row.size_bytes) for row in rows]),
        times_s=np.array([row.time_s for row in rows]),
    )
    seen.baseline()
    return seen, notes


def recalibrate(own: Sequence[Observed], shipped: Calibration, *, data: str) -> Calibration:
    """A calibration moved toward own runs, no further than they tell.

    The prior of each factor is the shipped one, as wide as its error and ``LEAST_LOG_ERROR`` at
    least; own runs weigh as one family. Nothing can be held out of one machine, so the intervals
    stay the shipped ones.
    """
    design = design_of(own, shipped, most_point_weight=OWN_POINT_WEIGHT)
    known = [shipped.figure.get(name) for name in design.names]
    log_factors = np.array([0.0 if one is None else np.log(one.factor) for one in known])
    spread = np.array(
        [
            prior_log_error(name) if one is None else max(one.log_error, LEAST_LOG_ERROR)
            for name, one in zip(design.names, known, strict=True)
        ]
    )
    found = fit_design(_moved(design, log_factors), spread=spread)
    figures = dict(shipped.figure)
    for i, name in enumerate(found.names):
        figures[name] = FittedFigure(
            factor=float(np.exp(log_factors[i] + found.theta[i])),
            log_error=float(found.log_errors[i]),
            prior_log_error=float(spread[i]),
            points=int(found.points[i]),
        )
    return Calibration(
        provenance=_provenance(own, shipped, data),
        figure=dict(sorted(figures.items())),
        interval=shipped.interval,
        covered=(*shipped.covered, *covered_rows(own)),
    )


def _moved(design: Design, log_factors: FloatArray) -> Design:
    """The design with its terms at these factors, so that a theta of 0 means them."""
    theta = np.concatenate([[0.0], log_factors])
    return replace(design, values_s=design.values_s * np.exp(theta[design.figures].sum(axis=2)))


def _provenance(own: Sequence[Observed], shipped: Calibration, data: str) -> Provenance:
    return Provenance(
        runs=len(own),
        points=sum(len(run.times_s) for run in own),
        machines=len({run.machine for run in own}),
        data=f"{data}; all else from {shipped.provenance.data}",
        data_digest=digest_of(own),
        families={OWN_FAMILY: len(own)},
    )

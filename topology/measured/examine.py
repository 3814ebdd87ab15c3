"""Examine: the runs of a text of nccl-tests, each held against the model on a map."""

from dataclasses import dataclass

import numpy as np

from topology.errors import TopologyError
from topology.fabric.from_fleet import Fabric
from topology.fabric.route_table import RouteMap
from topology.latency.calibration import Calibration
from topology.latency.job import job_of
from topology.latency.operation import Operation
from topology.measured.diagnosis import Diagnosis, Verdict, diagnose
from topology.measured.nccl_tests import NcclTestsRun, NcclTestsText, SkippedText
from topology.measured.runs import integer_dtype
from topology.measured.seats import seats_of
from topology.measured.suspects import expect, rails_of


@dataclass(frozen=True, slots=True)
class Examined:
    """A run with its diagnosis; ``notes``: what the text or the map left to assume."""

    run: NcclTestsRun
    diagnosis: Diagnosis
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Examination:
    """The runs of a text, and what was left out of it."""

    runs: tuple[Examined, ...]
    skipped: tuple[SkippedText, ...]

    @property
    def verdict(self) -> Verdict:
        """Sick where any run is."""
        sick = any(run.diagnosis.verdict is Verdict.SICK for run in self.runs)
        return Verdict.SICK if sick else Verdict.HEALTHY

    @property
    def lost_runs(self) -> bool:
        """Whether a whole run was left out, and not only rows."""
        return any(not skip.rows for skip in self.skipped)


def examine(
    text: NcclTestsText, fabric: Fabric, *, calibration: Calibration | None = None
) -> Examination:
    """Hold every run of a text against the model.

    Raises:
        TopologyError: no run can be judged; that of the first is raised.
    """
    runs: list[Examined] = []
    skipped = list(text.skipped)
    first: TopologyError | None = None
    for run in text.runs:
        try:
            runs.append(examine_run(run, fabric, calibration=calibration))
        except TopologyError as error:
            first = first or error
            skipped.append(SkippedText(run.line, str(error)))
    if not runs and first is not None:
        raise first
    return Examination(tuple(runs), tuple(sorted(skipped)))


def examine_run(
    run: NcclTestsRun, fabric: Fabric, *, calibration: Calibration | None = None
) -> Examined:
    """Hold one run against the model.

    Raises:
        TopologyError: the map is not that of the run, the model has no such operation, or there
            are too few rows.
    """
    placement, notes = seats_of(run, fabric)
    routes = RouteMap(fabric, placement.endpoints)
    job = job_of(fabric, placement, routes)
    operation = Operation(run.collective, run.launch, integer_dtype(run.dtype))
    rows = run.right_rows or run.rows
    sizes_bytes = np.array([float(row.size_bytes) for row in rows])
    expected = expect(
        job,
        operation,
        sizes_bytes,
        rails=rails_of(fabric, placement.endpoints),
        calibration=calibration,
    )
    times_s = np.array([row.time_s for row in rows])
    found = diagnose(sizes_bytes, times_s, expected, wrong_values=run.wrong)
    return Examined(run, found, (*run.notes, *notes))

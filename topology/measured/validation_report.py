"""What a validation says: tables and lines for people, one JSON document for programs."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from fleet.naming import counted
from topology.fabric.report import Table
from topology.latency.calibration import REGIONS, Reach
from topology.measured.validation import (
    AIMS,
    CellResult,
    Factors,
    State,
    Validation,
)

SCHEMA_VERSION: Final = 1
RIGHT: Final = (2,)
REACH_WORDS: Final = {Reach.ONE_NODE: "one node", Reach.ACROSS_NODES: "across nodes"}
_MOST_NAMED: Final = 3
"""So many run ids stand beside a reason; the rest are in the JSON."""


def used_line(validation: Validation) -> str:
    """How much was used of what was given."""
    runs, aside = len(validation.runs), validation.set_aside
    given = runs + len(validation.skipped)
    points = int(validation.counted.sum())
    line = f"{runs:,} of {given:,} runs used, {points:,} points counted"
    if not aside:
        return line
    rest = len(validation.counted) - points
    return f"{line}; {counted(len(aside), 'run')} of quality C ({rest:,} points) predicted only"


def cell_table(validation: Validation) -> Table:
    """A row for each cell: median / p90 of ours, of machines held out, of NCCL's own model."""
    header = ["reach", "size", "points", "ours", "NCCL's own", "inside 80 %", "tolerance", ""]
    if validation.has_held_out:
        header[4:4] = ["held out"]
    header[-1:] = ["is", "aim"]
    rows = []
    for cell in _all_families(validation):
        row = [REACH_WORDS[cell.reach], cell.region.value, f"{cell.points:,}"]
        row.append(_text(cell.ours))
        if validation.has_held_out:
            row.append(_text(cell.held_out))
        row += [_text(cell.nccl), _percent(cell.inside_ratio), _text(cell.limit), cell.state.value]
        rows.append((*row, _text(AIMS[cell.reach, cell.region])))
    return tuple(header), rows


def family_table(validation: Validation) -> Table:
    """A row for each family and reach: ours, held out where known, and NCCL's own in brackets."""
    rows = []
    for reach in Reach:
        mine = [cell for cell in validation.cells if cell.reach is reach and cell.family]
        for family in sorted({cell.family for cell in mine if cell.family is not None}):
            by_region = {cell.region: cell for cell in mine if cell.family == family}
            cells = [_against_nccl(by_region.get(region)) for region in REGIONS]
            points = sum(cell.points for cell in by_region.values())
            rows.append((family, REACH_WORDS[reach], f"{points:,}", *cells))
    return ("family", "reach", "points", *(region.value for region in REGIONS)), rows


def family_title(validation: Validation) -> str:
    """What the cells of the table by family hold."""
    ours = "ours on machines held out" if validation.has_held_out else "ours"
    return f"by family, median / p90 of {ours}, and of NCCL's own model (in brackets):"


def _against_nccl(cell: CellResult | None) -> str:
    if cell is None:
        return "-"
    return f"{_text(cell.held_out or cell.ours)} ({_text(cell.nccl)})"


def _all_families(validation: Validation) -> list[CellResult]:
    return [cell for cell in validation.cells if cell.family is None]


def _text(factors: Factors | None) -> str:
    return "-" if factors is None else f"{factors.median:.2f} / {factors.p90:.2f}"


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.0%}".replace("%", " %")


def note_lines(validation: Validation) -> list[str]:
    """What the tables mean, what they rest on, what they leave out."""
    return [
        "factor: max / min of predicted and measured, median / p90; every family weighs the same",
        *_calibration_lines(validation),
        f"tolerance: {validation.tolerance.reason}",
        *_baseline_lines(validation),
        *_extrapolated_lines(validation),
        *_dropped_lines(validation),
        verdict_line(validation),
    ]


def _calibration_lines(validation: Validation) -> list[str]:
    told = validation.calibration.provenance
    data = f"{told.data} ({counted(told.runs, 'run')}, {counted(told.machines, 'machine')})"
    if validation.has_held_out:
        return [
            f"ours was fitted to these very runs: {data}; so judge it by held out: each machine "
            "predicted by a fit to all others",
        ]
    return [f"ours was fitted to other data: {data}; its held-out figures are of those"]


def _baseline_lines(validation: Validation) -> list[str]:
    lost = int(np.isnan(validation.points.nccl_s[validation.counted]).sum())
    text = "NCCL's own model has no point-to-point operations: its figures leave out"
    return [f"{text} {counted(lost, 'point')}"] if lost else []


def _extrapolated_lines(validation: Validation) -> list[str]:
    reasons = Counter(text for text in validation.extrapolated if text is not None)
    return [f"extrapolated, {counted(n, 'point')}: {text}" for text, n in reasons.most_common()]


def _dropped_lines(validation: Validation) -> list[str]:
    """Dropped points by column, with the first reason of each."""
    points: Counter[str] = Counter()
    first: dict[str, str] = {}
    for drop in validation.dropped:
        column = drop.reason.partition(":")[0]
        points[column] += drop.points
        first.setdefault(column, f"{drop.reason}, {drop.run_id}")
    return [f"left out, {counted(n, 'point')}: {first[name]}" for name, n in points.most_common()]


def verdict_line(validation: Validation) -> str:
    """Within the tolerance or not, and where not."""
    judged = [cell for cell in _all_families(validation) if cell.state is not State.NOT_JUDGED]
    if not judged:
        return "not judged: no cell has points enough and a tolerance"
    if not validation.outside:
        return f"within the tolerance in all of {counted(len(judged), 'cell')}"
    names = (f"{REACH_WORDS[cell.reach]} {cell.region}" for cell in validation.outside)
    return f"outside the tolerance: {', '.join(names)}"


def skipped_table(validation: Validation) -> Table:
    """Skipped runs counted by reason, the first of each named."""
    ids: dict[str, list[str]] = {}
    for run_id, reason in validation.skipped:
        ids.setdefault(reason, []).append(run_id)
    rows = sorted(ids.items(), key=lambda item: (-len(item[1]), item[0]))
    header = ("skipped", "reason", "runs")
    return header, [(str(len(names)), reason, _named(names)) for reason, names in rows]


def _named(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def validation_document(validation: Validation) -> dict[str, Any]:
    """The whole as one JSON document; what cannot be told is null. Factors at their full digits."""
    told = validation.calibration.provenance
    return {
        "kind": "validation",
        "schema_version": SCHEMA_VERSION,
        "runs": len(validation.runs),
        "points": len(validation.counted),
        "counted_points": int(validation.counted.sum()),
        "calibration": {
            "data": told.data,
            "data_digest": told.data_digest,
            "runs": told.runs,
            "machines": told.machines,
            "fitted_to_these_runs": validation.has_held_out,
        },
        "tolerance": _tolerance_document(validation),
        "within_tolerance": not validation.outside,
        "summary": [_cell_document(cell) for cell in validation.cells],
        "rows": _row_documents(validation),
        "skipped": [skip._asdict() for skip in validation.skipped],
        "dropped": [drop._asdict() for drop in validation.dropped],
    }


def _tolerance_document(validation: Validation) -> dict[str, Any]:
    limits = validation.tolerance.limits
    return {
        "reason": validation.tolerance.reason,
        "cells": [
            {
                "fabric": reach.value,
                "region": region.value,
                "median_factor": limits[reach, region].median,
                "p90_factor": limits[reach, region].p90,
            }
            for reach, region in AIMS
            if (reach, region) in limits
        ],
    }


def _cell_document(cell: CellResult) -> dict[str, Any]:
    return {
        "fabric": cell.reach.value,
        "region": cell.region.value,
        "family": cell.family,
        "n": cell.points,
        **_factor_keys("", cell.ours),
        **_factor_keys("nccl_", cell.nccl),
        **_factor_keys("held_out_", cell.held_out),
        "coverage": cell.inside_ratio,
        "state": cell.state.value if cell.family is None else None,
    }


def _factor_keys(prefix: str, factors: Factors | None) -> dict[str, float | None]:
    median, p90 = (None, None) if factors is None else factors
    return {f"{prefix}median_factor": median, f"{prefix}p90_factor": p90}


def _row_documents(validation: Validation) -> list[dict[str, Any]]:
    points = validation.points
    run_ids = (run.run_id for run in validation.runs for _ in run.times_s)
    columns = {
        "run_id": run_ids,
        "size_bytes": _counts(points.sizes_bytes.tolist()),
        "measured_s": points.measured_s.tolist(),
        "predicted_s": points.predicted_s.tolist(),
        "lo_s": _told(validation.low_s.tolist()),
        "hi_s": _told(validation.high_s.tolist()),
        "nccl_s": _told(points.nccl_s.tolist()),
        "way": validation.ways,
        "extrapolated": validation.extrapolated,
        "counted": validation.counted.tolist(),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _told(values: Iterable[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]


def _counts(values: Iterable[float]) -> list[float]:
    """Whole numbers of bytes as such."""
    return [int(value) if value.is_integer() else value for value in values]

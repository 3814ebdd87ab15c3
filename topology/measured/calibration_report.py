"""What a calibration says of itself: tables for people, one JSON document for programs."""

from collections.abc import Iterator
from math import log
from typing import Any, Final

from fleet.naming import counted
from topology.fabric.report import Table
from topology.latency.calibrated_figures import FIGURE_GROUPS, error_text, group_of
from topology.latency.calibration import Calibration, FittedFigure, Interval

SCHEMA_VERSION: Final = 1
REACH_WORDS: Final = {"one_node": "one node", "across_nodes": "across nodes"}
_CLEAR: Final = 2.0
"""A factor is moved clearly when it is so many of its errors from 1."""


def headline(fitted: Calibration) -> str:
    """What was fitted to what."""
    told = fitted.provenance
    return (
        f"{counted(len(fitted.figure), 'figure')}, fitted to {counted(told.runs, 'run')} with "
        f"{counted(told.points, 'point')} of {counted(told.machines, 'machine')}: {told.data}"
    )


def tables(
    fitted: Calibration, before: Calibration | None
) -> Iterator[tuple[Table, tuple[int, ...]]]:
    """Each table with its right-aligned columns; ``before``: what was moved, if it was."""
    if fitted.held_out:
        yield held_out_table(fitted), (2,)
    if before is None:
        yield groups_table(fitted), (1, 2, 3, 4)
    else:
        yield moves_table(fitted, before), (1, 2, 3, 4)


def held_out_table(fitted: Calibration) -> Table:
    """How far machines that were held out were missed, median / p90, and the interval of 80 %."""
    rows = []
    for row in fitted.held_out:
        if row.family is not None:
            continue
        nccl = "-"
        if row.nccl_median_factor is not None and row.nccl_p90_factor is not None:
            nccl = f"{row.nccl_median_factor:.2f} / {row.nccl_p90_factor:.2f}"
        ours = f"{row.median_factor:.2f} / {row.p90_factor:.2f}"
        interval = _interval_text(fitted.interval_of(row.reach, row.region))
        reach = REACH_WORDS[row.reach]
        rows.append((reach, row.region.value, f"{row.points:,}", ours, nccl, interval))
    header = ("reach", "size", "points", "ours, held out", "NCCL's own", "80 % interval")
    return header, rows


def _interval_text(found: Interval | None) -> str:
    return "-" if found is None else f"{found.low_ratio:.2f} to {found.high_ratio:.2f}"


def groups_table(fitted: Calibration) -> Table:
    """The figures by group: how many, how many moved clearly from their priors, and how far."""
    members: dict[str, list[FittedFigure]] = {}
    for name, figure in fitted.figure.items():
        members.setdefault(group_of(name), []).append(figure)
    rows = [_group_row(group, figures) for group, figures in sorted(members.items())]
    return ("figures", "count", "moved clearly", "least factor", "most", "what they are"), rows


def _group_row(group: str, figures: list[FittedFigure]) -> tuple[str, ...]:
    factors = [figure.factor for figure in figures]
    moved = sum(abs(log(figure.factor)) > _CLEAR * figure.log_error for figure in figures)
    described = FIGURE_GROUPS.get(group, "no description")
    span = (f"{min(factors):.2f}", f"{max(factors):.2f}")
    return (group, str(len(figures)), str(moved), *span, described)


def moves_table(fitted: Calibration, before: Calibration) -> Table:
    """What own runs changed: the factor before and after, largest change first."""
    changes = []
    for name, figure in fitted.figure.items():
        shipped = before.figure.get(name)
        if figure == shipped:
            continue
        was = 1.0 if shipped is None else shipped.factor
        changes.append((abs(log(figure.factor / was)), name, was, figure))
    rows = [
        (name, f"{was:.3f}", f"{f.factor:.3f}", error_text(f.log_error), f"{f.points:,}")
        for _, name, was, f in sorted(changes, key=lambda change: (-change[0], change[1]))
    ]
    return ("figure", "was", "is", "+/-", "points"), rows


def calibration_document(fitted: Calibration) -> dict[str, Any]:
    """A calibration as JSON, as its file has it."""
    return {
        "kind": "calibration",
        "schema_version": SCHEMA_VERSION,
        **fitted.model_dump(mode="json"),
    }

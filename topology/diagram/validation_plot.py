"""Validation as a picture: predicted against measured, and the ratio by size. No pen.

One row for runs on one node, one for those across nodes: a square with every point, and beside it
predicted / measured by size with the model interval and where 80 % of the points lie.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet.naming import counted
from fleet.units import text_from_bytes, text_from_seconds
from topology.diagram.layout import (
    Align,
    Body,
    Box,
    BoxKind,
    Dash,
    Dots,
    LegendEntry,
    LegendTable,
    Line,
    LineLook,
    Role,
    Sheet,
    Text,
)
from topology.diagram.panel import Panel
from topology.diagram.plot_file import write_plot
from topology.latency.calibration import KIB, MIB, REGIONS, Reach, Region
from topology.measured.calibrate import Points
from topology.measured.runs import region_indices, weighted_quantile
from topology.measured.validation import CellResult, Factors, Validation, points_where

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

MOST_RATIO: Final = 8.0
"""Points that are off by more lie at the edge, and are counted."""

_SQUARE: Final = 290.0
_WIDE: Final = 560.0
_GAP: Final = 78.0
_LEFT: Final = 52.0
_TOP: Final = 30.0
_ROW: Final = _TOP + _SQUARE + 44.0
_INSET: Final = 5.0
_ROLES: Final = (Role.SIZE_1, Role.SIZE_2, Role.SIZE_3, Role.SIZE_4)
_TITLES: Final = {Reach.ONE_NODE: "One node", Reach.ACROSS_NODES: "Across nodes"}
_SIZE_TICKS: Final = (2**3, 2**6, 2**10, 32 * KIB, MIB, 8 * MIB, 64 * MIB, 2**30, 2**34)
_RATIO_TICKS: Final = (
    (-3, "1/8"),
    (-2, "1/4"),
    (-1, "1/2"),
    (0, "1"),
    (1, "2"),
    (2, "4"),
    (3, "8"),
)
_LIMITS: Final = (15.5, 20.5, 25.5)
"""Where regions meet, in doublings: halfway to the next power of two that is in another."""

_EDGE: Final = LineLook(Role.MUTED, width_pt=0.7)
_GRID: Final = LineLook(Role.HAIRLINE, width_pt=0.6)
_EVEN: Final = LineLook(Role.MUTED, width_pt=1.0)
_OURS: Final = LineLook(Role.INK, width_pt=1.5)
_NCCL: Final = LineLook(Role.DEVIATING, Dash.DASHED, width_pt=1.3)
_BAND: Final = Role.NVLINK_SHADE


def draw_validation(validation: Validation, output: str) -> None:
    """Write the picture; its ending chooses the form.

    Raises:
        WorkloadError: another ending.
        StoreError: the file cannot be written.
    """
    write_plot(validation_sheet(validation), output)


def validation_sheet(validation: Validation) -> Sheet:
    """The picture of a validation: what was counted, in colours by size; the rest in grey."""
    points, parts = validation.points, []
    times = np.concatenate([points.measured_s, points.predicted_s])
    low = math.floor(np.log10(times.min()))
    decades = (low, max(low + 1, math.ceil(np.log10(times.max()))))
    sizes = points.sizes_bytes
    doublings = (np.log2(sizes.min()) - 0.7, np.log2(sizes.max()) + 0.7)
    shown = [reach for reach in Reach if _of(points, reach).any()]
    for row, reach in enumerate(shown):
        top = row * _ROW + _TOP
        square = Panel(_LEFT, top, _SQUARE, _SQUARE, decades, decades)
        left = _LEFT + _SQUARE + _GAP
        edge = math.log2(MOST_RATIO)
        wide = Panel(left, top, _WIDE, _SQUARE, doublings, (-edge, edge))
        parts += [_scatter(validation, reach, square), _ratios(validation, reach, wide)]
    body = Body(
        width=_LEFT + _SQUARE + _GAP + _WIDE,
        height=len(shown) * _ROW,
        boxes=tuple(box for part in parts for box in part.boxes),
        lines=tuple(line for part in parts for line in part.lines),
        texts=tuple(text for part in parts for text in part.texts),
        dots=tuple(dots for part in parts for dots in part.dots),
    )
    told = validation.calibration.provenance
    kind = "fitted to these very runs" if validation.has_held_out else f"fitted to {told.data}"
    runs = len(validation.runs) - len(validation.set_aside)
    return Sheet(
        kicker="Model against measurement",
        title="Predicted against measured",
        subtitle=f"{counted(runs, 'run')}, {int(validation.counted.sum()):,} points; model {kind}",
        body=body,
        legend=(_size_legend(validation), _line_legend(validation)),
        notes=_notes(validation),
    )


def _of(points: Points, reach: Reach) -> BoolArray:
    return np.asarray(points.across == (reach is Reach.ACROSS_NODES))


def _groups(validation: Validation, reach: Reach) -> Iterator[tuple[Role, BoolArray]]:
    """The points of a row by colour, those that are not counted first."""
    mine = _of(validation.points, reach)
    yield Role.BAR, mine & ~validation.counted
    regions = region_indices(validation.points.sizes_bytes)
    for number, role in enumerate(_ROLES):
        yield role, mine & validation.counted & (regions == number)


def _scatter(validation: Validation, reach: Reach, panel: Panel) -> Body:
    """Predicted against measured, every point."""
    points = validation.points
    measured, predicted = np.log10(points.measured_s), np.log10(points.predicted_s)
    dots = [
        Dots(panel.places(measured[mine], predicted[mine]), role, level=2)
        for role, mine in _groups(validation, reach)
        if mine.any()
    ]
    low, high = panel.x_range
    step = math.log10(2)
    lines = [
        panel.diagonal(0.0, _EVEN),
        panel.diagonal(step, _GRID),
        panel.diagonal(-step, _GRID),
    ]
    texts = [
        panel.title(_TITLES[reach]),
        panel.title_of_x("measured time"),
        panel.title_of_y("predicted time"),
    ]
    for decade in range(round(low), round(high) + 1):
        label = text_from_seconds(10.0**decade)
        lines += [panel.across(decade, _GRID), panel.upright(decade, _GRID)]
        texts += [panel.label_of_x(decade, label), panel.label_of_y(decade, label)]
    inside = panel.left + 12, panel.top + 13
    count = int(_of(validation.points, reach).sum())
    texts.append(Text(*inside, counted(count, "point"), 7.0, Role.MUTED))
    return Body(0, 0, (panel.box(f"scatter {reach}"),), tuple(lines), tuple(texts), (), tuple(dots))


def _ratios(validation: Validation, reach: Reach, panel: Panel) -> Body:
    """Predicted / measured by size, with the figures of each region above its points."""
    points = validation.points
    ratio = np.log2(points.predicted_s / points.measured_s)
    spread = np.log2(points.sizes_bytes) + _sideways(len(ratio))
    dots = [
        Dots(panel.places(spread[mine], ratio[mine]), role, level=2)
        for role, mine in _groups(validation, reach)
        if mine.any()
    ]
    lines = [panel.across(0.0, _EVEN)]
    texts = [
        panel.title("predicted / measured by size"),
        panel.title_of_x("message size"),
    ]
    for exponent, label in _RATIO_TICKS:
        lines.append(panel.across(exponent, _GRID))
        texts.append(panel.label_of_y(exponent, label))
    low, high = panel.x_range
    texts += [
        panel.label_of_x(math.log2(size), text_from_bytes(size))
        for size in _SIZE_TICKS
        if low <= math.log2(size) <= high
    ]
    lines += [panel.upright(limit, _EDGE) for limit in _LIMITS if low < limit < high]
    boxes = [panel.box(f"ratios {reach}")]
    for number, region in enumerate(REGIONS):
        span = _span(panel, number)
        boxes += _interval_box(validation, reach, region, panel, span)
        lines += _quantile_lines(validation, reach, region, panel, span)
        texts += _cell_texts(validation, reach, region, panel, span)
    return Body(0, 0, tuple(boxes), tuple(lines), tuple(texts), (), tuple(dots))


def _sideways(count: int) -> FloatArray:
    """A shift for each point, within 0.3 of a doubling: most sizes are powers of two."""
    golden = (math.sqrt(5) - 1) / 2
    return np.asarray(((np.arange(count) * golden) % 1 - 0.5) * 0.6, dtype=np.float64)


def _span(panel: Panel, number: int) -> tuple[float, float]:
    """Left and right of a region in the frame."""
    low, high = panel.x_range
    ends = [low, *_LIMITS, high]
    return panel.x(ends[number]), panel.x(ends[number + 1])


def _interval_box(
    validation: Validation, reach: Reach, region: Region, panel: Panel, span: tuple[float, float]
) -> Iterator[Box]:
    """The model interval: what predicted / measured should be for 80 % of the points."""
    found = validation.calibration.interval_of(reach, region)
    left, right = span
    if found is None or right - left < 2 * _INSET:
        return
    top, bottom = panel.y(-math.log2(found.low_ratio)), panel.y(-math.log2(found.high_ratio))
    place = (left + _INSET, top, right - left - 2 * _INSET, bottom - top)
    yield Box(f"interval {reach} {region}", BoxKind.PLOT, *place, role=_BAND, level=1)


def _quantile_lines(
    validation: Validation, reach: Reach, region: Region, panel: Panel, span: tuple[float, float]
) -> Iterator[Line]:
    """Where 10 %, half and 90 % of a cell's points lie, ours and NCCL's own."""
    counted_points = points_where(validation.points, validation.counted)
    cell = counted_points.cell(reach, region)
    left, right = span
    if not cell.any() or right - left < 2 * _INSET:
        return
    weight = counted_points.weights()
    ends = left + _INSET, right - _INSET
    of_model = ((counted_points.predicted_s, _OURS), (counted_points.nccl_s, _NCCL))
    for times_s, look in of_model:
        told = cell & np.isfinite(times_s)
        if not told.any():
            continue
        ratio = np.log2(times_s[told] / counted_points.measured_s[told])
        for q in (0.1, 0.5, 0.9):
            y = panel.y(weighted_quantile(ratio, weight[told], q))
            yield Line(((ends[0], y), (ends[1], y)), "", look, level=3)


def _cell_texts(
    validation: Validation, reach: Reach, region: Region, panel: Panel, span: tuple[float, float]
) -> Iterator[Text]:
    """The factors of a cell, at the head of its columns."""
    is_mine = ((c.reach, c.region, c.family) == (reach, region, None) for c in validation.cells)
    found = next((c for c, mine in zip(validation.cells, is_mine, strict=True) if mine), None)
    if found is None:
        return
    middle, y = (span[0] + span[1]) / 2, panel.top + 13
    for name, factors, role in _figures_of(found):
        yield Text(middle, y, f"{name} {_text(factors)}", 6.5, role, Align.CENTER, chip=Role.PANEL)
        y += 10


def _figures_of(cell: CellResult) -> Iterator[tuple[str, Factors, Role]]:
    yield "ours", cell.ours, Role.INK
    if cell.held_out is not None:
        yield "held out", cell.held_out, Role.INK
    if cell.nccl is not None:
        yield "NCCL", cell.nccl, Role.DEVIATING


def _text(factors: Factors) -> str:
    return f"{factors.median:.2f} / {factors.p90:.2f}"


def _size_legend(validation: Validation) -> LegendTable:
    regions = region_indices(validation.points.sizes_bytes)
    entries = []
    for number, (region, role) in enumerate(zip(REGIONS, _ROLES, strict=True)):
        count = int((validation.counted & (regions == number)).sum())
        entries.append(LegendEntry(role, (region.value, f"{count:,}")))
    aside = int((~validation.counted).sum())
    if aside:
        entries.append(LegendEntry(Role.BAR, ("slow or broken by its poster", f"{aside:,}")))
    return LegendTable("message size", ("", "points"), tuple(entries), right=(1,))


def _line_legend(validation: Validation) -> LegendTable:
    shown: list[tuple[LineLook | Role, str]] = [
        (_OURS, "ours: 10 %, half and 90 % of the points lie below"),
        (_NCCL, "the same of NCCL's own model"),
        (_BAND, "80 % interval of the model, from machines held out"),
        (_EVEN, "predicted = measured; beside it in the square a factor of 2"),
    ]
    entries = tuple(LegendEntry(sign, (text,)) for sign, text in shown)
    return LegendTable("lines and bands", ("",), entries)


def _notes(validation: Validation) -> tuple[str, ...]:
    points = validation.points
    ratio = points.predicted_s / points.measured_s
    is_beyond = np.maximum(ratio, 1 / ratio) > MOST_RATIO
    beyond, counted_ones = int(is_beyond.sum()), int((is_beyond & validation.counted).sum())
    notes: Sequence[str] = (
        "Figures are factors, max / min of predicted and measured, median / p90; every family of "
        "runs weighs the same in them and in the lines, however many dots it has.",
        "Dots are spread sideways within their size.",
    )
    if validation.has_held_out:
        notes = (*notes, "held out: each machine predicted by a fit to all others.")
    if beyond:
        edge = f"off by more than {MOST_RATIO:g}, at the edge of the plots by size"
        notes = (*notes, f"{counted(beyond, 'point')} {edge}; {counted_ones:,} of them counted.")
    return tuple(notes)

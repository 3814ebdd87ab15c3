"""Draw: a view of a fabric becomes a sheet, the sheet a layout, the layout a file.

The place of every word around the picture is found here; matplotlib loads only for its endings.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import PurePath
from typing import Any, Final

from fleet import write_bytes
from fleet.console import STDIO
from topology.diagram.fabric_view import fabric_sheet
from topology.diagram.layout import (
    Align,
    Area,
    Body,
    Box,
    BoxKind,
    Dash,
    Dots,
    Layout,
    LegendEntry,
    LegendTable,
    Line,
    LineLook,
    Mark,
    Point,
    Role,
    Sheet,
    Text,
    Tier,
)
from topology.diagram.metrics import LINE_SPACING, SMALLEST_PT, fitted, text_width
from topology.diagram.node_view import node_sheet
from topology.diagram.racks import racks_sheet
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.words import View

ENDINGS: Final = (".png", ".svg", ".pdf", ".txt")

SCHEMA_VERSION: Final = 1
_MARGIN: Final = 36.0
_HEADER: Final = 68.0
_ASPECT: Final = 1.6
_LEAST_WIDTH: Final = 560.0
_TITLE_PT: Final = 17.0
_CELL_PT: Final = 7.0
_ROW: Final = 13.5
_SWATCH: Final = 30.0
_BAR: Final = 64.0
_COLUMN_GAP: Final = 13.0
_TABLE_GAP: Final = 40.0
_RULE_GAP: Final = 22.0


def draw_view(fabric: Fabric, view: View, *, host: str | None = None, output: str) -> None:
    """Write a picture; its ending chooses the form, ``-`` prints it as text.

    Raises:
        WorkloadError: another ending, a map without nodes, an unknown host.
        StoreError: the file cannot be written.
    """
    ending = ".txt" if output == STDIO else PurePath(output).suffix.lower()
    if ending not in ENDINGS:
        raise WorkloadError(
            f"a picture cannot end in {ending!r}" if ending else "the picture's name has no ending",
            where=output,
            remedy=f"use one of {', '.join(ENDINGS)}, or '-' for text on stdout",
        )
    layout = layout_of(fabric, view, host=host)
    write_bytes(_drawn(layout, ending), output)


def drawing_document(layout: Layout, view: View) -> dict[str, Any]:
    """A placed diagram as JSON: boxes, lines and texts, in points from the upper left."""
    return {
        "kind": "drawing",
        "schema_version": SCHEMA_VERSION,
        "view": view.value,
        "width_pt": layout.width,
        "height_pt": layout.height,
        "boxes": [asdict(box) for box in layout.boxes],
        "lines": [asdict(line) for line in layout.lines],
        "texts": [asdict(text) for text in layout.texts],
    }


def _drawn(layout: Layout, ending: str) -> bytes:
    if ending == ".txt":
        from topology.diagram.draw_text import text_of_layout

        return text_of_layout(layout).encode()
    from topology.diagram.draw_figure import figure_bytes

    return figure_bytes(layout, form=ending.removeprefix("."))


def layout_of(fabric: Fabric, view: View, *, host: str | None = None) -> Layout:
    """The diagram of a view, placed.

    Raises:
        WorkloadError: a map without nodes, an unknown host, or a host for a view of all nodes.
    """
    if not fabric.nodes:
        raise WorkloadError("the map has no nodes to draw", remedy="collect some first")
    if view is View.NODE:
        return composed(node_sheet(fabric, host))
    if host is not None:
        raise WorkloadError(
            f"the view {view.value} shows all nodes", field="host", remedy="use the view node"
        )
    return composed(racks_sheet(fabric) if view is View.RACKS else fabric_sheet(fabric))


@dataclass(frozen=True, slots=True)
class _Grid:
    """A table of the legend with the widths of its columns."""

    table: LegendTable
    widths: tuple[float, ...]

    @property
    def sign_width(self) -> float:
        """Room for the signs before the first column."""
        return _SWATCH if any(e.swatch is not None for e in self.table.entries) else 0.0

    @property
    def width(self) -> float:
        """From the signs to the end of the bars."""
        cells = self.sign_width + sum(self.widths) + _COLUMN_GAP * (len(self.widths) - 1)
        bars = _COLUMN_GAP + _BAR if self.table.scale else 0.0
        return max(cells + bars, text_width(self.table.title, _CELL_PT + 1, bold=True))

    @property
    def height(self) -> float:
        """From the middle of the title to the foot of the last row."""
        return _ROW * (len(self.table.entries) + 0.5 + any(self.table.header))

    def row_y(self, top: float, row: int) -> float:
        """Middle of a row."""
        return top + _ROW * (1 + any(self.table.header) + row)

    def texts(self, at: Point) -> Iterator[Text]:
        """Title, header and cells."""
        (left, top), table = at, self.table
        yield Text(left, top, table.title, _CELL_PT + 1, bold=True)
        if table.scale:
            scale_x = left + self.width - _BAR
            yield Text(scale_x, top + _ROW, table.scale, SMALLEST_PT, Role.MUTED)
        x = left + self.sign_width
        for i, width in enumerate(self.widths):
            edge, align = (x + width, Align.RIGHT) if i in table.right else (x, Align.LEFT)
            if table.header[i]:
                yield Text(edge, top + _ROW, table.header[i], SMALLEST_PT, Role.MUTED, align)
            for row, entry in enumerate(table.entries):
                role = Role.INK if i == 0 else Role.MUTED
                if entry.cells[i]:
                    yield Text(edge, self.row_y(top, row), entry.cells[i], _CELL_PT, role, align)
            x += width + _COLUMN_GAP

    def swatches(self, at: Point) -> Iterator[Box | Line]:
        """Signs before the rows and bars behind them."""
        for row, entry in enumerate(self.table.entries):
            y = self.row_y(at[1], row)
            if entry.swatch is not None:
                yield _swatch(entry, at[0], y)
            if entry.bar is not None:
                x, width = at[0] + self.width - _BAR, max(_BAR * entry.bar, 0.8)
                yield Box("", BoxKind.SWATCH, x, y - 2.5, width, 5, role=Role.BAR)


@dataclass(frozen=True, slots=True)
class _Arrangement:
    """Where picture and legend stand below the header."""

    width: float
    height: float
    body_x: float
    tables: tuple[Point, ...]
    rule: tuple[Point, Point]


def composed(sheet: Sheet) -> Layout:
    """A sheet on paper: legend below or at the right, whichever is nearer to 16:10."""
    sheet = replace(sheet, legend=tuple(table for table in sheet.legend if table.entries))
    grids = _grids(sheet.legend)
    least = max(_LEAST_WIDTH, *(text.frame[2] for text in _heading_texts(sheet)))
    limits = accumulate(grid.width + _TABLE_GAP for grid in grids)
    options = [_legend_below(sheet.body, grids, max(least, limit)) for limit in limits]
    options.append(_legend_at_right(sheet.body, grids))
    best = min(options, key=lambda option: _distance_from_aspect(option, least))
    width = max(best.width, least)
    notes = [line for note in sheet.notes for line in _wrapped(note, width)]
    top = _MARGIN + _HEADER
    note_y = top + best.height + _RULE_GAP
    places = [(x + _MARGIN, y + top) for x, y in best.tables]
    texts = [
        *_heading_texts(sheet),
        *(_moved_text(text, best.body_x + _MARGIN, top) for text in _body_texts(sheet.body)),
        *(text for grid, at in zip(grids, places, strict=True) for text in grid.texts(at)),
        *(
            Text(_MARGIN, note_y + i * SMALLEST_PT * LINE_SPACING, note, SMALLEST_PT, Role.MUTED)
            for i, note in enumerate(notes)
        ),
    ]
    foot = _RULE_GAP + len(notes) * SMALLEST_PT * LINE_SPACING if notes else 0.0
    (x0, y0), (x1, y1) = best.rule
    x1 = width if y0 == y1 else x1
    return Layout(
        sheet=sheet,
        width=width + 2 * _MARGIN,
        height=top + best.height + foot + _MARGIN,
        boxes=tuple(
            replace(box, x=box.x + best.body_x + _MARGIN, y=box.y + top) for box in sheet.body.boxes
        ),
        lines=tuple(_moved_line(line, best.body_x + _MARGIN, top) for line in sheet.body.lines),
        texts=tuple(texts),
        swatches=tuple(
            swatch for grid, at in zip(grids, places, strict=True) for swatch in grid.swatches(at)
        ),
        rules=(((x0 + _MARGIN, y0 + top), (x1 + _MARGIN, y1 + top)),),
        dots=tuple(_moved_dots(dots, best.body_x + _MARGIN, top) for dots in sheet.body.dots),
        areas=tuple(_moved_area(area, best.body_x + _MARGIN, top) for area in sheet.body.areas),
    )


def _distance_from_aspect(option: _Arrangement, least: float) -> float:
    width, height = max(option.width, least) + 2 * _MARGIN, option.height + _HEADER + 2 * _MARGIN
    return abs(math.log(width / height / _ASPECT))


def _legend_below(body: Body, grids: Sequence[_Grid], limit: float) -> _Arrangement:
    """Tables below the picture: side by side while the width lasts, then below one another."""
    width, top = max(body.width, limit - _TABLE_GAP), body.height + 2 * _RULE_GAP
    columns: list[_LegendColumn] = []
    places, deepest = [], body.height
    for grid in grids:
        wide = grid.width
        x = columns[-1].right + _TABLE_GAP if columns else 0.0
        roomy = [column for column in columns if wide <= column.right - column.x + 0.5]
        if x + wide <= width + 0.5 or not columns:
            columns.append(_LegendColumn(x, x + wide, top))
            column = columns[-1]
        elif roomy:
            column = min(roomy, key=lambda column: column.bottom)
        else:
            columns = [_LegendColumn(0.0, wide, max(column.bottom for column in columns))]
            column = columns[0]
        places.append((column.x, column.bottom))
        column.bottom += grid.height + _RULE_GAP
        deepest = max(deepest, column.bottom - _RULE_GAP)
    rule_y = body.height + _RULE_GAP
    at = max(0.0, (width - body.width) / 2)
    return _Arrangement(width, deepest, at, tuple(places), ((0.0, rule_y), (width, rule_y)))


@dataclass(slots=True)
class _LegendColumn:
    """Tables of a legend that stand below one another, so far."""

    x: float
    right: float
    bottom: float


def _legend_at_right(body: Body, grids: Sequence[_Grid]) -> _Arrangement:
    """Tables one below the other at the right of the picture."""
    x, y = body.width + 2 * _RULE_GAP, 0.0
    places: list[Point] = []
    for grid in grids:
        places.append((x, y))
        y += grid.height + _RULE_GAP
    height = max(body.height, y - _RULE_GAP)
    width = x + max((grid.width for grid in grids), default=0.0)
    rule_x = body.width + _RULE_GAP
    return _Arrangement(width, height, 0.0, tuple(places), ((rule_x, 0.0), (rule_x, height)))


def _heading_texts(sheet: Sheet) -> tuple[Text, ...]:
    x, y = _MARGIN, _MARGIN
    return (
        Text(x, y + 4, sheet.kicker, 7.0, Role.MUTED),
        Text(x, y + 23, sheet.title, _TITLE_PT, bold=True),
        Text(x, y + 44, sheet.subtitle, 9.0, Role.MUTED),
    )


def _body_texts(body: Body) -> Iterator[Text]:
    for box in body.boxes:
        yield from box.texts
    yield from body.texts
    for tier in body.tiers:
        yield from _tier_texts(tier)


def _tier_texts(tier: Tier) -> Iterator[Text]:
    """Caption of a row: its name in bold, its figures below."""
    rows = [(tier.label, 8.0, True)] if tier.label else []
    rows += [(detail, 6.5, False) for detail in tier.details]
    y = tier.y + tier.height / 2 - sum(size_pt for _, size_pt, _ in rows) * LINE_SPACING / 2
    for text, size_pt, bold in rows:
        y += size_pt * LINE_SPACING / 2
        yield Text(0.0, y, text, size_pt, Role.INK if bold else Role.MUTED, bold=bold)
        y += size_pt * LINE_SPACING / 2


def _moved_text(text: Text, dx: float, dy: float) -> Text:
    return replace(text, x=text.x + dx, y=text.y + dy)


def _moved_line(line: Line, dx: float, dy: float) -> Line:
    return replace(line, points=tuple((x + dx, y + dy) for x, y in line.points))


def _moved_dots(dots: Dots, dx: float, dy: float) -> Dots:
    return replace(dots, at=tuple((x + dx, y + dy) for x, y in dots.at))


def _moved_area(area: Area, dx: float, dy: float) -> Area:
    return replace(area, points=tuple((x + dx, y + dy) for x, y in area.points))


def _grids(tables: Iterable[LegendTable]) -> list[_Grid]:
    """Tables with the widths of their columns; those with bars share them."""
    grids = [_Grid(table, _widths(table)) for table in tables]
    shared: dict[int, list[tuple[float, ...]]] = defaultdict(list)
    for grid in grids:
        shared[len(grid.widths) if grid.table.scale else -id(grid)].append(grid.widths)
    keys = [len(grid.widths) if grid.table.scale else -id(grid) for grid in grids]
    return [
        replace(grid, widths=tuple(map(max, zip(*shared[key], strict=True))))
        for grid, key in zip(grids, keys, strict=True)
    ]


def _widths(table: LegendTable) -> tuple[float, ...]:
    rows = [entry.cells for entry in table.entries]
    return tuple(
        max(text_width(head, SMALLEST_PT), *(text_width(row[i], _CELL_PT) for row in rows))
        for i, head in enumerate(table.header)
    )


def _swatch(entry: LegendEntry, x: float, y: float) -> Box | Line:
    sign, name = entry.swatch, entry.cells[0]
    if isinstance(sign, LineLook):
        look = replace(sign, width_pt=max(sign.width_pt, 1.6))
        return Line(((x, y), (x + _SWATCH - 9, y)), entry.kind, look)
    if isinstance(sign, Mark):
        return Box(name, BoxKind.SLOT, x + 4, y - 4.5, 9, 9, mark=sign)
    box = Box(name, BoxKind.SWATCH, x, y - 4, _SWATCH - 9, 8, role=sign or Role.PANEL)
    return replace(box, dash=Dash.DASHED) if sign is Role.DEVIATING else box


def _wrapped(text: str, width: float) -> Iterator[str]:
    """A note in lines that fit."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and text_width(longer, SMALLEST_PT) > width:
            yield line
            longer = word
        line = fitted(longer, width, SMALLEST_PT)
    yield line

"""The pen for PNG, SVG and PDF, and the only file that imports matplotlib. No places: it draws."""

from collections import defaultdict
from collections.abc import Iterable
from io import BytesIO
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.path import Path

from topology.diagram.layout import (
    Area,
    Box,
    BoxKind,
    Dash,
    Dots,
    Health,
    Layout,
    Line,
    LineLook,
    Mark,
    Role,
    Text,
    Use,
)
from topology.diagram.metrics import printable

PNG_DPI: Final = 200
POINTS_PER_INCH: Final = 72
FONT: Final = "DejaVu Sans"

COLOURS: Final = {
    Role.INK: "#1d2733",
    Role.MUTED: "#66717e",
    Role.HAIRLINE: "#cdd4db",
    Role.PAPER: "#fcfcfa",
    Role.PANEL: "#ffffff",
    Role.SHADE: "#eef1f4",
    Role.SLOT: "#2b4a6f",
    Role.BAR: "#aebccb",
    Role.DEVIATING: "#d55e00",
    Role.NVLINK: "#1b8a5a",
    Role.NVLINK_RACK: "#0e5c3b",
    Role.NVLINK_PANEL: "#f3faf6",
    Role.NVLINK_SHADE: "#dcefe5",
    Role.NVLINK_SHADE_2: "#bfe0cf",
    Role.XGMI: "#6f9a1f",
    Role.C2C: "#b8960c",
    Role.PCIE: "#8a63a8",
    Role.PCIE_SHADE: "#ede4f3",
    Role.SOCKET: "#8a929b",
    Role.HOST_CABLE: "#56a0d3",
    Role.TRUNK: "#1f6fb2",
    Role.CORE: "#1b2f6b",
    Role.SIZE_1: "#e0a030",
    Role.SIZE_2: "#c8503c",
    Role.SIZE_3: "#3f88b5",
    Role.SIZE_4: "#274060",
}
_EDGE_OF: Final = {
    Role.SHADE: Role.SHADE,
    Role.BAR: Role.BAR,
    Role.SLOT: Role.SLOT,
    Role.NVLINK_PANEL: Role.NVLINK,
    Role.NVLINK_SHADE: Role.NVLINK,
    Role.NVLINK_SHADE_2: Role.NVLINK,
    Role.PCIE_SHADE: Role.PCIE,
    Role.DEVIATING: Role.DEVIATING,
}
_DASHES: Final[dict[Dash, Any]] = {
    Dash.SOLID: "solid",
    Dash.DASHED: (0, (3.4, 1.5)),
    Dash.DOTTED: (0, (1.0, 1.3)),
    Dash.MIXED: (0, (5.0, 1.4, 1.0, 1.4)),
}
_RC: Final[Any] = {
    "font.family": ["sans-serif"],
    "font.sans-serif": [FONT],
    "svg.fonttype": "none",
    "svg.hashsalt": "fleetmap",
    "pdf.fonttype": 42,
    "path.simplify": False,
    "text.usetex": False,
    "axes.unicode_minus": False,
}
_METADATA: Final[dict[str, dict[str, Any]]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_BASELINE_EM: Final = 0.365
"""Half the height of a capital: from the middle of a line down to its baseline."""


_DOT_OPACITY: Final = 0.45
"""Where dots lie on one another their colour deepens: density can be seen."""
_AREA_OPACITY: Final = 0.2
"""Where shaded bands cross, both are seen."""


def figure_bytes(layout: Layout, *, form: str) -> bytes:
    """The picture as a file's content; ``form`` is png, svg or pdf. Same layout, same bytes."""
    buffer = BytesIO()
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(layout.width / POINTS_PER_INCH, layout.height / POINTS_PER_INCH))
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        axes.set_xlim(0, layout.width)
        axes.set_ylim(layout.height, 0)
        _draw(axes, layout)
        figure.savefig(
            buffer,
            format=form,
            dpi=PNG_DPI,
            facecolor=COLOURS[Role.PAPER],
            metadata=_METADATA[form],
        )
    return buffer.getvalue()


def _draw(axes: Axes, layout: Layout) -> None:
    boxes = [*layout.boxes, *(s for s in layout.swatches if isinstance(s, Box))]
    lines = [*layout.lines, *(s for s in layout.swatches if isinstance(s, Line))]
    hairline = LineLook(Role.HAIRLINE, width_pt=0.6)
    lines += [Line(points, "", hairline) for points in layout.rules]
    _draw_boxes(axes, (box for box in boxes if box.mark is None and box.kind is not BoxKind.BAND))
    _draw_marks(axes, (box for box in boxes if box.mark is not None))
    _draw_lines(axes, lines)
    for area in layout.areas:
        _draw_area(axes, area)
    for dots in layout.dots:
        _draw_dots(axes, dots)
    for text in layout.texts:
        _draw_text(axes, text)


def _draw_boxes(axes: Axes, boxes: Iterable[Box]) -> None:
    groups: dict[tuple[int, Role, Role, Dash, float], list[Path]] = defaultdict(list)
    for box in boxes:
        edge = _EDGE_OF.get(box.role, Role.HAIRLINE)
        width = 1.1 if edge is Role.DEVIATING else 0.7
        fill: Role = Role.PANEL if box.role is Role.DEVIATING else box.role
        groups[box.level, fill, edge, box.dash, width].append(_rounded(box))
    for (level, fill, edge, dash, width), paths in groups.items():
        _add_paths(axes, paths, fill=fill, edge=edge, level=level, width=width, dash=dash)


def _add_paths(
    axes: Axes,
    paths: list[Path],
    *,
    fill: Role | None,
    edge: Role,
    level: int,
    width: float,
    dash: Dash = Dash.SOLID,
) -> None:
    collection = PathCollection(
        paths,
        facecolors=[COLOURS[fill]] if fill is not None else "none",
        edgecolors=[COLOURS[edge]],
        linewidths=[width],
        linestyles=[_DASHES[dash]],
        zorder=2 * level,
    )
    axes.add_collection(collection, autolim=False)


def _rounded(box: Box) -> Path:
    """A rectangle with round corners."""
    left, top, right, bottom = box.frame
    r = min(2.5, box.width / 4, box.height / 4)
    points = [
        (left + r, top), (right - r, top), (right, top), (right, top + r),
        (right, bottom - r), (right, bottom), (right - r, bottom),
        (left + r, bottom), (left, bottom), (left, bottom - r),
        (left, top + r), (left, top), (left + r, top), (left + r, top),
    ]  # fmt: skip
    corner = [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path(points, [Path.MOVETO, *corner * 4, Path.CLOSEPOLY])


def _draw_marks(axes: Axes, boxes: Iterable[Box]) -> None:
    groups: dict[tuple[int, Mark, float], list[Box]] = defaultdict(list)
    for box in boxes:
        assert box.mark is not None, "only boxes with a mark are asked for"
        groups[box.level, box.mark, box.width].append(box)
    for (level, mark, size), members in groups.items():
        _draw_equal_marks(axes, members, mark, level=level, size=size)


def _draw_equal_marks(axes: Axes, boxes: list[Box], mark: Mark, *, level: int, size: float) -> None:
    thin = max(0.45, min(1.0, size / 9))
    if mark.health is Health.MISSING:
        crosses = [_cross(box) for box in boxes]
        _add_paths(axes, crosses, fill=None, edge=Role.DEVIATING, level=level, width=thin * 1.2)
        return
    edge: Role = Role.DEVIATING if mark.health is Health.DEVIATING else Role.SLOT
    fill = edge if mark.use is Use.HELD else Role.PANEL
    _add_paths(
        axes, [_outline(box, mark) for box in boxes], fill=fill, edge=edge, level=level, width=thin
    )
    if mark.use is Use.UNREPORTED:
        dots = [Path.circle((box.mid_x, box.mid_y), size * 0.13) for box in boxes]
        _add_paths(axes, dots, fill=edge, edge=edge, level=level, width=0.0)


def _outline(box: Box, mark: Mark) -> Path:
    x, y, r = box.mid_x, box.mid_y, box.width / 2
    if mark.is_cpu and mark.health is Health.AS_SHAPE:
        return Path.circle((x, y), r * 0.92)
    if mark.health is Health.DEVIATING:
        corners = [(x, y - r), (x + r, y), (x, y + r), (x - r, y), (x, y - r)]
    else:
        s = r * 0.88
        corners = [(x - s, y - s), (x + s, y - s), (x + s, y + s), (x - s, y + s), (x - s, y - s)]
    return Path(corners, [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY])


def _cross(box: Box) -> Path:
    x, y, s = box.mid_x, box.mid_y, box.width * 0.38
    corners = [(x - s, y - s), (x + s, y + s), (x - s, y + s), (x + s, y - s)]
    return Path(corners, [Path.MOVETO, Path.LINETO, Path.MOVETO, Path.LINETO])


def _draw_lines(axes: Axes, lines: Iterable[Line]) -> None:
    groups: dict[tuple[int, LineLook], list[Line]] = defaultdict(list)
    for line in lines:
        groups[line.level, line.look].append(line)
    for (level, look), members in groups.items():
        collection = LineCollection(
            [list(line.points) for line in members],
            colors=[COLOURS[look.role]],
            linewidths=[look.width_pt],
            linestyles=[_DASHES[look.dash]],
            joinstyle="round",
            zorder=2 * level + 1,
        )
        axes.add_collection(collection, autolim=False)


def _draw_area(axes: Axes, area: Area) -> None:
    collection = PathCollection(
        [Path(list(area.points), closed=False)],
        facecolors=[COLOURS[area.role]],
        edgecolors="none",
        alpha=_AREA_OPACITY,
        zorder=2 * area.level,
    )
    axes.add_collection(collection, autolim=False)


def _draw_dots(axes: Axes, dots: Dots) -> None:
    """Thousands of marks: an image within the picture, or SVG and PDF would hold each as a path."""
    axes.scatter(
        [x for x, _ in dots.at],
        [y for _, y in dots.at],
        s=dots.size_pt**2,
        color=COLOURS[dots.role],
        alpha=_DOT_OPACITY,
        linewidths=0,
        rasterized=True,
        zorder=2 * dots.level,
    )


def _draw_text(axes: Axes, text: Text) -> None:
    drop = _BASELINE_EM * text.size_pt
    patch = (
        {"facecolor": COLOURS[text.chip], "edgecolor": "none", "pad": 1.3} if text.chip else None
    )
    axes.text(
        text.x + drop if text.turned else text.x,
        text.y if text.turned else text.y + drop,
        printable(text.text),
        fontsize=text.size_pt,
        fontweight="bold" if text.bold else "normal",
        color=COLOURS[text.role],
        ha=text.align.value,
        va="baseline",
        rotation=90 if text.turned else 0,
        rotation_mode="anchor",
        parse_math=False,
        bbox=patch,
        zorder=100,
    )

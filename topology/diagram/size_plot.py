"""A sweep over sizes as a picture: time by size for each map, and how many times as long. No pen.

A line is p50, a dashed one p99, and the band is p99.9 over noise profiles. Below it how many times
as long as on the first map it takes.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from fleet.naming import counted
from fleet.units import text_from_bytes, text_from_seconds
from topology.diagram.layout import (
    Align,
    Area,
    Body,
    Dash,
    Dots,
    LegendEntry,
    LegendTable,
    Line,
    LineLook,
    Point,
    Role,
    Sheet,
    Text,
)
from topology.diagram.log_ticks import log_ticks
from topology.diagram.panel import Panel
from topology.diagram.plot_file import plot_form, write_plot
from topology.diagram.tail_plot import SCENARIO_ROLES, check_scenarios
from topology.plan.size_sweep import Crossing, SizeSweep
from topology.plan.sweep_report import band_of

_WIDTH: Final = 566.0
_HEIGHT: Final = 206.0
_RATIO_HEIGHT: Final = 62.0
_LEFT: Final = 46.0
_RIGHT: Final = 10.0
_TOP: Final = 8.0
_GAP: Final = 27.0
_FOOT: Final = 36.0
_LABEL_PT: Final = 8.0
_LINE_PT: Final = 1.9
_GRID: Final = LineLook(Role.HAIRLINE, width_pt=0.6)
_EVEN: Final = LineLook(Role.MUTED, width_pt=1.0)
_MARK: Final = LineLook(Role.MUTED, Dash.DOTTED, 1.2)
_DOUBLINGS_A_LABEL: Final = 3
"""Sizes are labelled 8 B, 64 B, 512 B, 4 KiB: labels of every power of two would touch."""


_LABEL_ROOM: Final = 40.0
"""From one label of a size to the next, at least."""


def draw_sizes(sweep: SizeSweep, output: str) -> None:
    """Write the picture; its ending chooses the form.

    Raises:
        WorkloadError: another ending, or more maps than there are colours.
        StoreError: the file cannot be written.
    """
    plot_form(output)
    write_plot(sizes_sheet(sweep), output)


def sizes_sheet(sweep: SizeSweep) -> Sheet:
    """The picture of a sweep.

    Raises:
        WorkloadError: more maps than there are colours.
    """
    check_scenarios(len(sweep.maps))
    scenario = sweep.scenario
    parts = [_times(sweep, _time_panel(sweep))]
    if len(sweep.maps) > 1:
        parts.append(_ratios(sweep, _ratio_panel(sweep)))
    body = Body(
        width=_LEFT + _WIDTH + _RIGHT,
        height=parts[-1].height,
        boxes=tuple(box for part in parts for box in part.boxes),
        lines=tuple(line for part in parts for line in part.lines),
        texts=tuple(text for part in parts for text in part.texts),
        dots=tuple(dots for part in parts for dots in part.dots),
        areas=tuple(area for part in parts for area in part.areas),
    )
    sizes = [text_from_bytes(size) for size in sweep.sizes_bytes]
    return Sheet(
        kicker="Completion time of a collective by size",
        title=f"{scenario.collective.value} over {counted(sweep.ranks, 'rank')}",
        subtitle=f"{' against '.join(sweep.maps)}, {sizes[0]} to {sizes[-1]}",
        body=body,
        legend=(_map_legend(sweep), _sign_legend(sweep)),
    )


def _time_panel(sweep: SizeSweep) -> Panel:
    """The frame of times: all that is drawn, with some air."""
    times = [
        time_s
        for row in sweep.rows
        for summary in row.summaries
        for time_s in (
            *(summary.percentiles[key] for key in ("p50_s", "p99_s")),
            *(band_of(summary) or ()),
        )
        if time_s
    ]
    low, high = math.log10(min(times, default=1e-6)), math.log10(max(times, default=1e-6))
    air = max(0.05 * (high - low), 0.05)
    return Panel(_LEFT, _TOP, _WIDTH, _HEIGHT, _doublings(sweep), (low - air, high + air))


def _ratio_panel(sweep: SizeSweep) -> Panel:
    """The frame of ratios, which always holds even and half a doubling around it."""
    ratios = [
        math.log2(ratio)
        for which in range(1, len(sweep.maps))
        for row in sweep.rows
        if (ratio := row.ratio(which)) is not None
    ]
    ends = min([*ratios, -0.4]) - 0.15, max([*ratios, 0.4]) + 0.15
    top = _TOP + _HEIGHT + _GAP
    return Panel(_LEFT, top, _WIDTH, _RATIO_HEIGHT, _doublings(sweep), ends)


def _doublings(sweep: SizeSweep) -> tuple[float, float]:
    first, last = (math.log2(sweep.sizes_bytes[i]) for i in (0, -1))
    air = max(0.015 * (last - first), 0.15)
    return first - air, last + air


def _times(sweep: SizeSweep, panel: Panel) -> Body:
    """Lines and bands of all maps in their frame."""
    low, high = panel.y_range
    lines = [*_size_grid(sweep, panel)]
    texts = []
    for time_s in log_ticks(10**low, 10**high, most=7):
        lines.append(panel.across(math.log10(time_s), _GRID))
        texts.append(_left(panel, math.log10(time_s), text_from_seconds(time_s)))
    areas: list[Area] = []
    dots: list[Dots] = []
    for which, role in zip(range(len(sweep.maps)), SCENARIO_ROLES, strict=False):
        lines += _percentile_lines(sweep, which, panel, role)
        areas += _bands(sweep, which, panel, role)
        dots += _dots(sweep, which, panel, role)
    for crossing in sweep.crossings():
        lines.append(panel.upright(math.log2(crossing.at_bytes), _MARK))
        texts.append(_crossing_text(crossing, panel))
    if len(sweep.maps) == 1:
        texts += _size_labels(sweep, panel)
    height = panel.bottom + _FOOT
    box = panel.box("times")
    return Body(0, height, (box,), tuple(lines), tuple(texts), (), tuple(dots), tuple(areas))


def _ratios(sweep: SizeSweep, panel: Panel) -> Body:
    """How many times as long as on the first map, at p99; even is a line of its own."""
    low, high = panel.y_range
    lines = [*_size_grid(sweep, panel), panel.across(0.0, _EVEN)]
    texts = [*_size_labels(sweep, panel), _left(panel, 0.0, "even")]
    for doubling in range(math.ceil(low), math.floor(high) + 1):
        if doubling:
            lines.append(panel.across(doubling, _GRID))
            texts.append(_left(panel, doubling, f"{2.0**doubling:g} x"))
    dots = []
    for which in range(1, len(sweep.maps)):
        role = SCENARIO_ROLES[which]
        told = [(row.size_bytes, row.ratio(which)) for row in sweep.rows]
        points = _points(panel, [(s, None if r is None else math.log2(r)) for s, r in told])
        lines += _joined(points, LineLook(role, width_pt=_LINE_PT))
        dots.append(Dots(tuple(p for run in points for p in run), role, 4.0, level=3))
    lines += [panel.upright(math.log2(c.at_bytes), _MARK) for c in sweep.crossings()]
    title = f"p99, times that of {sweep.maps[0]}"
    texts.append(Text(panel.left, panel.top - 9, title, _LABEL_PT, Role.MUTED))
    height = panel.bottom + _FOOT
    return Body(0, height, (panel.box("ratios"),), tuple(lines), tuple(texts), (), tuple(dots))


def _size_grid(sweep: SizeSweep, panel: Panel) -> Iterator[Line]:
    """An upright line at each size with a label."""
    for doubling in _labelled(sweep):
        yield panel.upright(doubling, _GRID)


def _size_labels(sweep: SizeSweep, panel: Panel) -> Iterator[Text]:
    """Sizes below a frame."""
    for doubling in _labelled(sweep):
        x, label = panel.x(doubling), text_from_bytes(2.0**doubling)
        yield Text(x, panel.bottom + 11, label, _LABEL_PT, Role.MUTED, Align.CENTER)
    middle, y = panel.left + panel.width / 2, panel.bottom + 27
    yield Text(middle, y, "size of one rank's buffer", _LABEL_PT, Role.MUTED, Align.CENTER)


def _labelled(sweep: SizeSweep) -> list[float]:
    """Doublings with a label: from 8 B on in steps of eight times, and the last if it has room."""
    low, high = (math.log2(sweep.sizes_bytes[i]) for i in (0, -1))
    step = _DOUBLINGS_A_LABEL if high - low > 2 * _DOUBLINGS_A_LABEL else 1
    first = math.ceil(low / step - 1e-9) * step
    shown: list[float] = [*range(first, math.floor(high + 1e-9) + 1, step)]
    if not shown or (high - shown[-1]) * _WIDTH > _LABEL_ROOM * (high - low):
        shown.append(high)
    return shown


def _left(panel: Panel, y: float, text: str) -> Text:
    return Text(panel.left - 6, panel.y(y), text, _LABEL_PT, Role.MUTED, Align.RIGHT)


def _percentile_lines(sweep: SizeSweep, which: int, panel: Panel, role: Role) -> Iterator[Line]:
    """p50 in one line, p99 dashed."""
    looks = {"p50_s": LineLook(role, width_pt=_LINE_PT), "p99_s": LineLook(role, Dash.DASHED, 1.2)}
    for key, look in looks.items():
        yield from _joined(_points(panel, _logs(sweep, which, key)), look)


def _dots(sweep: SizeSweep, which: int, panel: Panel, role: Role) -> Iterator[Dots]:
    """A mark where a size was simulated."""
    points = _points(panel, _logs(sweep, which, "p50_s"))
    yield Dots(tuple(point for run in points for point in run), role, 4.0, level=3)


def _logs(sweep: SizeSweep, which: int, key: str) -> list[tuple[int, float | None]]:
    times = ((r.size_bytes, r.summaries[which].percentiles[key]) for r in sweep.rows)
    return [(size, math.log10(time_s) if time_s else None) for size, time_s in times]


def _points(panel: Panel, told: Sequence[tuple[int, float | None]]) -> list[tuple[Point, ...]]:
    """Places of what is told, broken into runs where something is not."""
    runs: list[list[tuple[float, float]]] = [[]]
    for size, y in told:
        if y is None:
            runs.append([])
        else:
            runs[-1].append((math.log2(size), y))
    return [panel.places(*np.array(run).T) for run in runs if run]


def _joined(runs: Sequence[tuple[Point, ...]], look: LineLook) -> Iterator[Line]:
    for run in runs:
        if len(run) > 1:
            yield Line(run, "", look, level=2)


def _bands(sweep: SizeSweep, which: int, panel: Panel, role: Role) -> Iterator[Area]:
    """p99.9 from the least to the most of all profiles, where all of them tell it."""
    ends = [(row.size_bytes, band_of(row.summaries[which])) for row in sweep.rows]
    edges = [
        _points(panel, [(s, math.log10(e[i]) if e and e[i] else None) for s, e in ends])
        for i in (0, 1)
    ]
    for low, high in zip(*edges, strict=True):
        if len(low) > 1:
            yield Area((*low, *reversed(high)), role, level=1)


def _crossing_text(crossing: Crossing, panel: Panel) -> Text:
    """Beside the mark, at its foot, on the side with more room."""
    x = panel.x(math.log2(crossing.at_bytes))
    is_left = x < panel.left + panel.width / 2
    words = f"even at about {text_from_bytes(crossing.at_bytes)}"
    align = Align.LEFT if is_left else Align.RIGHT
    at = x + 5 if is_left else x - 5
    return Text(at, panel.bottom - 9, words, _LABEL_PT, Role.INK, align, chip=Role.PANEL)


def _map_legend(sweep: SizeSweep) -> LegendTable:
    """A row for each map: where it ran, and the ways that were chosen from small to large."""
    entries = []
    for which, role in zip(range(len(sweep.maps)), SCENARIO_ROLES, strict=False):
        summaries = [row.summaries[which] for row in sweep.rows]
        ways = list(dict.fromkeys(summary.algorithm for summary in summaries))
        nodes, domains = summaries[0].nodes, summaries[0].domains
        where = f"{counted(nodes, 'node')}, {counted(domains, 'NVLink domain')}"
        shown = ", ".join(ways[:_MOST_WAYS]) + (" ..." if len(ways) > _MOST_WAYS else "")
        look = LineLook(role, width_pt=_LINE_PT)
        entries.append(LegendEntry(look, (sweep.maps[which], where, shown)))
    return LegendTable("map", ("", "", ""), tuple(entries))


_MOST_WAYS: Final = 2


def _sign_legend(sweep: SizeSweep) -> LegendTable:
    bands = (summary.band for row in sweep.rows for summary in row.summaries)
    profiles = next((tuple(band) for band in bands if band is not None), ())
    noise = sweep.scenario.noise.value
    signs: list[tuple[LineLook | Role, str]] = [
        (LineLook(Role.INK, width_pt=_LINE_PT), f"p50, noise {noise}"),
        (LineLook(Role.INK, Dash.DASHED, 1.2), f"p99, noise {noise}"),
    ]
    if profiles:
        signs.append((Role.BAR, f"p99.9, noise {profiles[0]} to {profiles[-1]}"))
    entries = tuple(LegendEntry(sign, (text,)) for sign, text in signs)
    return LegendTable("lines and bands", ("",), entries)

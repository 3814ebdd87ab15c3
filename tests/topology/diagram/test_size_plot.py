"""The picture of a sweep: times lie at their sizes, bands between profiles, meetings marked."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fleet import fleet_from_spec
from topology.diagram.draw import composed
from topology.diagram.draw_figure import figure_bytes
from topology.diagram.layout import BoxKind, Dash, Frame, Line, Sheet, Text
from topology.diagram.size_plot import draw_sizes, sizes_sheet
from topology.diagram.tail_plot import SCENARIO_ROLES
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.latency.scenario import Scenario
from topology.latency.summary import LatencySummary
from topology.plan.size_sweep import NamedFabric, SizeSweep, SweepRow, sweep_sizes
from topology.words import Collective

ASKED = Scenario(collective=Collective.ALL_REDUCE, size_bytes=8, trials=400)
SIZES = (8, 64, 512)


@cache
def one_cell() -> LatencySummary:
    fabric = NamedFabric("m", Fabric(fleet_from_spec("model:dgx-h100 node:1")))
    return sweep_sizes([fabric], (8,), ASKED).rows[0].summaries[0]


def cell(
    p50_us: float, p99_us: float | None, band_us: tuple[float, float] | None
) -> LatencySummary:
    told = one_cell()
    percentiles = {"p50_s": p50_us * 1e-6, "p99_s": None if p99_us is None else p99_us * 1e-6}
    ends = (None, None) if band_us is None else (band_us[0] * 1e-6, band_us[1] * 1e-6)
    names = ("dedicated", "contended")
    band = {n: {**percentiles, "p999_s": e} for n, e in zip(names, ends, strict=True)}
    return replace(told, percentiles={**told.percentiles, **percentiles}, band=band)


def sweep_of(*columns: tuple[LatencySummary, ...], sizes: tuple[int, ...] = SIZES) -> SizeSweep:
    cells = zip(*columns, strict=True)
    rows = (SweepRow(size, row) for size, row in zip(sizes, cells, strict=True))
    return SizeSweep(tuple("abcdefg"[: len(columns)]), 8, ASKED, tuple(rows))


FAST = tuple(cell(10 * k, 11 * k, (12 * k, 20 * k)) for k in (1, 2, 10))
SLOW = tuple(cell(20 * k, 22 * k, (24 * k, 50 * k)) for k in (1, 2, 10))
TURNING = tuple(cell(5 * k * k, 5.5 * k * k, (6.0 * k * k, 7.0 * k * k)) for k in (1, 2, 10))


def frame_of(sheet: Sheet, name: str) -> Frame:
    (box,) = (box for box in sheet.body.boxes if box.name == name)
    return box.frame


def lines_of(sheet: Sheet, which: int, dash: Dash = Dash.SOLID) -> list[Line]:
    role = SCENARIO_ROLES[which]
    return [x for x in sheet.body.lines if x.look.role is role and x.look.dash is dash]


def label(sheet: Sheet, text: str) -> Text:
    return next(t for t in sheet.body.texts if t.text == text)


def test_sizes_are_labelled_in_steps_of_eight() -> None:
    sheet = sizes_sheet(sweep_of(FAST, SLOW))
    x8, x64, x512 = (label(sheet, t).x for t in ("8 B", "64 B", "512 B"))
    assert x64 - x8 == pytest.approx(x512 - x64)


def test_a_line_goes_through_its_medians() -> None:
    sheet = sizes_sheet(sweep_of(FAST, SLOW))
    line = lines_of(sheet, 0)[0]
    assert [x for x, _ in line.points] == pytest.approx(
        [label(sheet, t).x for t in ("8 B", "64 B", "512 B")]
    )
    y10, y20, y100 = (label(sheet, t).y for t in ("10 us", "20 us", "100 us"))
    assert [y for _, y in line.points] == pytest.approx([y10, y20, y100])


def test_p99_is_dashed_above_it() -> None:
    sheet = sizes_sheet(sweep_of(FAST, SLOW))
    (dashed,) = lines_of(sheet, 1, Dash.DASHED)
    solid = lines_of(sheet, 1)[0]
    assert all(a[1] < b[1] for a, b in zip(dashed.points, solid.points, strict=True))


def test_the_band_is_p999_over_profiles() -> None:
    sheet = sizes_sheet(sweep_of(FAST, SLOW))
    area = sheet.body.areas[0]
    y10, y20, y100 = (label(sheet, t).y for t in ("10 us", "20 us", "100 us"))
    decade = y10 - y100
    wanted = [y10 - decade * math.log10(t / 10) for t in (12, 24, 120, 200, 40, 20)]
    assert [y for _, y in area.points] == pytest.approx(wanted)
    assert wanted[-1] == pytest.approx(y20)


def test_a_size_that_trials_do_not_tell_breaks_line_and_band() -> None:
    torn = (*FAST[:2], cell(100, None, None), *FAST[1:])
    sheet = sizes_sheet(sweep_of(torn, sizes=(8, 64, 512, 4096, 32768)))
    assert [len(line.points) for line in lines_of(sheet, 0, Dash.DASHED)] == [2, 2]
    assert [len(area.points) for area in sheet.body.areas] == [4, 4]
    assert [len(line.points) for line in lines_of(sheet, 0)] == [5]


def test_a_ratio_lies_at_its_doubling() -> None:
    sheet = sizes_sheet(sweep_of(FAST, SLOW))
    _, top, _, bottom = frame_of(sheet, "ratios")
    line = lines_of(sheet, 1)[-1]
    assert [y for _, y in line.points] == pytest.approx([label(sheet, "2 x").y] * 3)
    assert top < label(sheet, "2 x").y < label(sheet, "even").y < bottom


def test_one_map_has_no_ratios() -> None:
    sheet = sizes_sheet(sweep_of(FAST))
    assert [box.name for box in sheet.body.boxes] == ["times"]
    assert label(sheet, "8 B").y > frame_of(sheet, "times")[3]


def test_where_maps_meet_is_marked() -> None:
    sheet = sizes_sheet(sweep_of(FAST, TURNING))
    marks = [x for x in sheet.body.lines if x.look.dash is Dash.DOTTED]
    assert [mark.points[0][0] for mark in marks] == pytest.approx([label(sheet, "64 B").x] * 2)
    assert label(sheet, "even at about 64 B").y < frame_of(sheet, "times")[3]


def test_maps_that_never_meet_have_no_mark() -> None:
    sheet = sizes_sheet(sweep_of(FAST, SLOW))
    assert not any(line.look.dash is Dash.DOTTED for line in sheet.body.lines)


def test_nothing_lies_outside_its_frame() -> None:
    body = sizes_sheet(sweep_of(FAST, SLOW, TURNING)).body
    frames = [box.frame for box in body.boxes if box.kind is BoxKind.PLOT]
    points = [p for part in (body.lines, body.areas) for x in part for p in x.points]
    points += [p for dots in body.dots for p in dots.at]
    slack = 1e-6
    for x, y in points:
        assert any(
            x0 - slack <= x <= x1 + slack and y0 - slack <= y <= y1 + slack
            for x0, y0, x1, y1 in frames
        )


def test_the_legend_says_where_each_map_ran() -> None:
    sheet = sizes_sheet(sweep_of(FAST, SLOW))
    cells = [entry.cells for entry in sheet.legend[0].entries]
    assert [row[:2] for row in cells] == [
        ("a", "1 node, 1 NVLink domain"),
        ("b", "1 node, 1 NVLink domain"),
    ]
    signs = [entry.cells[0] for entry in sheet.legend[1].entries]
    assert signs[-1] == "p99.9, noise dedicated to contended"


def test_one_size_is_dots_without_lines() -> None:
    sheet = sizes_sheet(sweep_of(FAST[:1], SLOW[:1], sizes=(8,)))
    assert lines_of(sheet, 0) == []
    assert [len(dots.at) for dots in sheet.body.dots] == [1, 1, 1]
    assert all(math.isfinite(v) for dots in sheet.body.dots for p in dots.at for v in np.array(p))


def test_more_maps_than_colours_are_refused() -> None:
    with pytest.raises(WorkloadError, match="5 scenarios in one picture; show one to 4"):
        sizes_sheet(sweep_of(*[FAST] * 5))


def test_another_ending_is_refused() -> None:
    with pytest.raises(WorkloadError, match=r"\.png, \.svg, \.pdf"):
        draw_sizes(sweep_of(FAST), "sizes.gif")


def test_the_picture_is_written(tmp_path: Path) -> None:
    sweep = sweep_of(FAST, TURNING)
    for name in ("a.svg", "b.svg"):
        draw_sizes(sweep, str(tmp_path / name))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    png = figure_bytes(composed(sizes_sheet(sweep)), form="png")
    assert png.startswith(b"\x89PNG")

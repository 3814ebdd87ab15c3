"""The picture of the tail: curves lie where their runs are, and end where their trials do."""

import math
from pathlib import Path

import numpy as np
import pytest

from fleet import fleet_from_spec
from topology.collective.placement import pack
from topology.diagram.draw import composed
from topology.diagram.draw_figure import figure_bytes
from topology.diagram.layout import BoxKind, Dash, Frame, Line, Role, Sheet
from topology.diagram.tail_plot import (
    LEVELS,
    SCENARIO_ROLES,
    TailCurve,
    curve_of_samples,
    draw_tails,
    tails_sheet,
)
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate_samples
from topology.words import Collective, NoiseName

TEN = np.arange(1, 11) * 1e-6


def exponential(mean_s: float, profile: str = "dedicated", scenario: str = "a") -> TailCurve:
    """Runs that take 10 us and an exponential time, as a law would tell it: to 1 in 100,000."""
    above = np.geomspace(1, 1e-5, 400)
    return TailCurve(scenario, profile, 10e-6 - mean_s * np.log(above), above)


def sampled(trials: int, profile: str = "dedicated", scenario: str = "a") -> TailCurve:
    rng = np.random.default_rng(7)
    return curve_of_samples(scenario, profile, 10e-6 + rng.exponential(3e-6, trials))


def frame_of(sheet: Sheet) -> Frame:
    (box,) = (box for box in sheet.body.boxes if box.kind is BoxKind.PLOT)
    return box.frame


def curves_of(sheet: Sheet, dash: Dash = Dash.SOLID) -> list[Line]:
    """Lines in the colour of a scenario: the grid's are hairlines."""
    return [
        line
        for line in sheet.body.lines
        if line.look.role in SCENARIO_ROLES and line.look.dash is dash
    ]


def level_y(sheet: Sheet, name: str) -> float:
    return next(text.y for text in sheet.body.texts if text.text == name)


def test_the_longest_of_ten_runs_is_one_in_ten() -> None:
    curve = curve_of_samples("a", "dedicated", TEN[::-1].copy())
    assert curve.time_s.tolist() == TEN.tolist()
    assert curve.above.tolist() == pytest.approx([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert curve.trials == 10


def test_trials_tell_what_their_largest_lies_beyond_in_all_but_a_fortieth_of_cases() -> None:
    # 3,688 trials carry a p99.9 and 368 a p99: the largest lies below it with chance q^n <= 2.5 %.
    assert sampled(3688).carried <= 1e-3 < sampled(3687).carried
    assert sampled(368).carried <= 1e-2 < sampled(367).carried
    assert exponential(1e-6).carried == pytest.approx(1e-5)


def test_a_law_is_read_where_it_stands() -> None:
    curve = exponential(2e-6)
    for above in LEVELS.values():
        assert float(curve.at(above)) == pytest.approx(10e-6 - 2e-6 * math.log(above), rel=1e-4)


def test_a_curve_meets_its_percentiles() -> None:
    sheet = tails_sheet([exponential(2e-6)])
    (line,) = curves_of(sheet)
    x0, _, x1, _ = frame_of(sheet)
    labels = {t.text: t.x for t in sheet.body.texts if t.text in ("15 us", "20 us")}
    a_decade = (labels["20 us"] - labels["15 us"]) / math.log10(20 / 15)
    for name, above in LEVELS.items():
        time_s = 10e-6 - 2e-6 * math.log(above)
        wanted = labels["20 us"] + a_decade * math.log10(time_s / 20e-6)
        xs, ys = np.array(line.points).T
        assert np.interp(level_y(sheet, name), ys, xs) == pytest.approx(wanted, abs=0.2)
        assert x0 <= wanted <= x1


def test_no_solid_line_goes_beyond_what_trials_tell() -> None:
    sheet = tails_sheet([sampled(4000)])
    (line,) = curves_of(sheet)
    p999, p99 = level_y(sheet, "p99.9"), level_y(sheet, "p99")
    # Of 4,000 trials 1 - 0.025^(1/4000) = 9.2e-4 is told: just below p99.9.
    assert line.points[-1][1] == pytest.approx(
        p999 - (p999 - p99) * math.log10(9.22e-4 / 1e-3), abs=1
    )


def test_the_rest_is_dotted_to_a_dot_at_the_longest_run() -> None:
    sheet = tails_sheet([sampled(4000)])
    (solid,), (dotted,) = curves_of(sheet), curves_of(sheet, Dash.DOTTED)
    assert dotted.points[0] == pytest.approx(solid.points[-1])
    assert sheet.body.dots[0].at == (pytest.approx(dotted.points[-1]),)
    _, _, _, bottom = frame_of(sheet)
    assert dotted.points[-1][1] < bottom


def test_a_law_has_neither_dots_nor_a_dotted_end() -> None:
    sheet = tails_sheet([exponential(2e-6)])
    assert curves_of(sheet, Dash.DOTTED) == []
    assert [at for dots in sheet.body.dots for at in dots.at] == []
    assert not any("too few" in cell for t in sheet.legend for e in t.entries for cell in e.cells)


def test_the_band_reaches_from_the_earliest_profile_to_the_latest() -> None:
    quiet, loud = exponential(1e-6), exponential(9e-6, "contended")
    sheet = tails_sheet([quiet, exponential(4e-6, "shared"), loud])
    (area,) = sheet.body.areas
    thick, _, outer = curves_of(sheet)
    assert thick.look.width_pt > outer.look.width_pt
    half = len(area.points) // 2
    assert np.array(area.points[:half]) == pytest.approx(np.array(thick.points))
    assert np.array(area.points[half:]) == pytest.approx(np.array(outer.points[::-1]))


def test_the_band_ends_where_one_of_its_profiles_has_no_more_trials() -> None:
    sheet = tails_sheet([sampled(10_000), sampled(500, "contended")])
    (area,) = sheet.body.areas
    lowest = max(y for _, y in area.points)
    assert level_y(sheet, "p99") < lowest < level_y(sheet, "p99.9")


def test_one_profile_has_no_band() -> None:
    assert tails_sheet([exponential(2e-6)]).body.areas == ()


def test_every_scenario_has_its_colour() -> None:
    names = ["a", "b", "c", "d"]
    sheet = tails_sheet([exponential(k * 1e-6, scenario=n) for k, n in enumerate(names, 1)])
    assert [line.look.role for line in curves_of(sheet)] == list(SCENARIO_ROLES)
    assert [entry.cells[0] for entry in sheet.legend[0].entries] == names
    assert sheet.subtitle == "a against b against c against d"


def test_the_legend_tells_percentiles_and_the_band() -> None:
    sheet = tails_sheet([exponential(1e-6), exponential(9e-6, "contended")])
    # 10 us + 1 us x ln 2, ln 100 and ln 1000; 10 us + 9 us x ln 1000.
    assert sheet.legend[0].entries[0].cells == ("a", "10.69 us", "14.61 us", "16.91 us to 72.17 us")


def test_what_trials_do_not_tell_is_a_dash() -> None:
    sheet = tails_sheet([sampled(10_000), sampled(500, "contended")])
    assert sheet.legend[0].entries[0].cells[3] == "-"
    few = tails_sheet([sampled(100)])
    assert few.legend[0].entries[0].cells[2:] == ("-", "-")


def test_labels_say_how_rare_each_percentile_is() -> None:
    texts = {t.text: t.y for t in tails_sheet([exponential(1e-6)]).body.texts}
    pairs = {"p50": "1 in 2", "p99": "1 in 100", "p99.99": "1 in 10,000"}
    for name, rare in pairs.items():
        assert texts[name] == texts[rare]
    gap = texts["p99.9"] - texts["p99"]
    assert texts["p99.99"] - texts["p99.9"] == pytest.approx(gap)


def test_percentiles_that_no_run_reaches_have_no_grid() -> None:
    texts = [t.text for t in tails_sheet([sampled(1000)]).body.texts]
    assert "p99.9" in texts
    assert "p99.99" not in texts


@pytest.mark.parametrize("count", [0, 5])
def test_more_scenarios_than_colours_are_refused(count: int) -> None:
    curves = [exponential(1e-6, scenario=str(k)) for k in range(count)]
    with pytest.raises(WorkloadError, match=f"{count} scenarios in one picture; show one to 4"):
        tails_sheet(curves)


def test_another_ending_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"\.png, \.svg, \.pdf"):
        draw_tails([], str(tmp_path / "tails.txt"))


def test_runs_without_noise_are_one_dot(tmp_path: Path) -> None:
    fabric = Fabric(fleet_from_spec("model:dgx-h100 node:1"))
    calm = Scenario(collective=Collective.ALL_REDUCE, size_bytes=8, noise=NoiseName.NONE)
    _, samples = simulate_samples(fabric, pack(fabric, 8), calm)
    sheet = tails_sheet([curve_of_samples("one node", "none", samples)])
    places = [*(p for line in sheet.body.lines for p in line.points), *sheet.body.dots[0].at]
    assert all(math.isfinite(v) for place in places for v in place)
    draw_tails([curve_of_samples("one node", "none", samples)], str(tmp_path / "calm.svg"))
    assert (tmp_path / "calm.svg").stat().st_size > 1000


def test_everything_keeps_its_place_on_paper() -> None:
    sheet = tails_sheet([sampled(1000), sampled(1000, "contended")])
    layout = composed(sheet)
    (box,) = layout.boxes
    dx, dy = box.x - frame_of(sheet)[0], box.y - frame_of(sheet)[1]
    before, after = sheet.body.areas[0].points, layout.areas[0].points
    assert after == tuple((pytest.approx(x + dx), pytest.approx(y + dy)) for x, y in before)


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_the_pen_draws_it_with_the_same_bytes_each_time(form: str) -> None:
    layout = composed(tails_sheet([exponential(1e-6), exponential(3e-6, "shared")]))
    drawn = figure_bytes(layout, form=form)
    assert drawn == figure_bytes(layout, form=form)


def test_a_band_is_see_through_in_its_colour() -> None:
    layout = composed(tails_sheet([exponential(1e-6), exponential(3e-6, "shared")]))
    text = figure_bytes(layout, form="svg").decode()
    assert layout.areas[0].role is Role.SIZE_4
    assert "fill: #274060; fill-opacity: 0.2" in text

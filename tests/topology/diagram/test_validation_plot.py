"""The picture of a validation: points lie where their times are, and nothing is hidden."""

import math

import pytest

from tests.topology.measured.made_runs import LARGE, make_run, off_by, table_of
from topology.diagram.draw import composed
from topology.diagram.draw_figure import figure_bytes
from topology.diagram.layout import Body, BoxKind, Role, Sheet
from topology.diagram.panel import Panel
from topology.diagram.plot_file import plot_form
from topology.diagram.validation_plot import validation_sheet
from topology.errors import WorkloadError
from topology.latency.calibration import NO_CALIBRATION, Interval, Reach, Region
from topology.measured.runs import Run
from topology.measured.validation import Factors, one_tolerance, validate

BAND = Interval(
    reach=Reach.ONE_NODE,
    region=Region.TINY,
    low_ratio=0.5,
    high_ratio=2.0,
    points=100,
    machines=3,
)
FITTED = NO_CALIBRATION.model_copy(update={"interval": (BAND,)})
PANEL = Panel(100, 50, 200, 80, x_range=(0, 10), y_range=(-1, 1))


def run_off_by(factor: float, **more: object) -> Run:
    return off_by(factor, NO_CALIBRATION, make_run(**more))  # type: ignore[arg-type]


def sheet_of(*runs: Run) -> Sheet:
    found = validate(table_of(*runs), FITTED, one_tolerance(Factors(9, 9)))
    return validation_sheet(found)


def frames(body: Body, name: str) -> list[tuple[float, float, float, float]]:
    return [box.frame for box in body.boxes if box.name.startswith(name)]


def test_a_panel_places_logarithms_right_and_up() -> None:
    assert (PANEL.x(0), PANEL.x(5), PANEL.x(10)) == (100, 200, 300)
    assert (PANEL.y(-1), PANEL.y(0), PANEL.y(1)) == (130, 90, 50)


def test_what_is_beyond_a_panel_lies_at_its_edge() -> None:
    assert (PANEL.x(-3), PANEL.x(99)) == (100, 300)
    assert (PANEL.y(-3), PANEL.y(99)) == (130, 50)


def test_every_point_is_drawn_twice_and_in_a_frame() -> None:
    body = sheet_of(run_off_by(1.5), run_off_by(0.5, run_id="b", nodes=2)).body
    kept = frames(body, "scatter") + frames(body, "ratios")
    places = [at for dots in body.dots for at in dots.at]
    assert len(places) == 2 * 20
    for x, y in places:
        assert any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in kept)


def test_what_is_predicted_rightly_lies_on_the_diagonal() -> None:
    body = sheet_of(run_off_by(1.0)).body
    ((left, top, right, bottom),) = frames(body, "scatter")
    inside = [at for dots in body.dots for at in dots.at if at[0] <= right]
    assert len(inside) == 10
    for x, y in inside:
        assert x - left == pytest.approx(bottom - y)
    assert right - left == bottom - top


def test_what_takes_twice_as_long_lies_one_doubling_below_even() -> None:
    body = sheet_of(run_off_by(2.0)).body
    ((left, top, _, bottom),) = frames(body, "ratios")
    # From 1/8 at the foot to 8 at the head are six doublings.
    wanted = (top + bottom) / 2 + (bottom - top) / 6
    below = [y for dots in body.dots for x, y in dots.at if x >= left]
    assert below == pytest.approx([wanted] * 10)


def test_the_interval_is_a_band_of_predicted_over_measured() -> None:
    body = sheet_of(run_off_by(1.0)).body
    ((_, top, _, bottom),) = frames(body, "ratios")
    ((_, band_top, _, band_bottom),) = frames(body, "interval")
    doubling = (bottom - top) / 6
    middle = (top + bottom) / 2
    assert (band_top, band_bottom) == pytest.approx((middle - doubling, middle + doubling))


def test_points_are_coloured_by_region_and_grey_where_they_do_not_count() -> None:
    sick = run_off_by(5.0, run_id="sick", quality="C")
    body = sheet_of(run_off_by(1.0), run_off_by(1.0, run_id="b", sizes=LARGE), sick).body
    count = dict.fromkeys(Role, 0)
    for dots in body.dots:
        count[dots.role] += len(dots.at)
    assert (count[Role.SIZE_1], count[Role.SIZE_4], count[Role.BAR]) == (20, 10, 20)


def test_the_legend_counts_the_points() -> None:
    sheet = sheet_of(run_off_by(1.0), run_off_by(5.0, run_id="sick", quality="C"))
    cells = [entry.cells for entry in sheet.legend[0].entries]
    assert ("<= 32 KiB", "10") in cells
    assert ("slow or broken by its poster", "10") in cells


def test_points_at_the_edge_are_counted_in_a_note() -> None:
    assert "10 points off by more than 8" in sheet_of(run_off_by(9.0)).notes[-1]
    assert not any("off by more" in note for note in sheet_of(run_off_by(7.0)).notes)


def test_each_row_has_its_figures_above_the_points() -> None:
    texts = [text.text for text in sheet_of(run_off_by(2.0)).body.texts]
    assert "ours 2.00 / 2.00" in texts
    assert any(text.startswith("NCCL ") for text in texts)
    assert "One node" in texts
    assert "Across nodes" not in texts


def test_labels_stand_at_their_decades() -> None:
    body = sheet_of(run_off_by(1.0)).body
    ((left, _, right, _),) = frames(body, "scatter")
    labels = {t.text: t.x for t in body.texts if t.text in ("10 us", "100 us") and t.x >= left}
    assert left <= labels["10 us"] < labels["100 us"] <= right


def test_no_number_is_lost_where_all_sizes_are_alike() -> None:
    body = sheet_of(run_off_by(1.0, sizes=(1024.0,))).body
    assert all(math.isfinite(v) for dots in body.dots for at in dots.at for v in at)


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_the_pen_draws_it_with_the_same_bytes_each_time(form: str) -> None:
    layout = composed(sheet_of(run_off_by(1.0)))
    assert [box.kind for box in layout.boxes].count(BoxKind.PLOT) == len(layout.boxes)
    assert figure_bytes(layout, form=form) == figure_bytes(layout, form=form)


def test_the_ending_chooses_the_form() -> None:
    assert [plot_form(name) for name in ("a.png", "b.SVG", "c.d/e.pdf")] == ["png", "svg", "pdf"]


@pytest.mark.parametrize("name", ["a.txt", "a", "-", "a.png.gz"])
def test_another_ending_is_refused(name: str) -> None:
    with pytest.raises(WorkloadError, match=r"\.png, \.svg, \.pdf"):
        plot_form(name)

"""Validation: factors by cell, intervals, what is counted, what is judged, what is left out."""

import math
from pathlib import Path

import numpy as np
import pytest

from tests.topology.measured.made_runs import LARGE, TINY, make_run, off_by, seen, table_of
from topology.errors import NothingMeasuredError
from topology.latency.calibration import (
    NO_CALIBRATION,
    REGIONS,
    Calibration,
    HeldOut,
    Interval,
    Provenance,
    Reach,
    Region,
    load_calibration,
)
from topology.measured.calibrate import digest_of
from topology.measured.runs import Run, SkippedRun, read_runs
from topology.measured.validation import (
    AIMS,
    CellResult,
    Factors,
    State,
    Validation,
    aimed_tolerance,
    held_out_tolerance,
    one_tolerance,
    validate,
)
from topology.measured.validation_report import (
    cell_table,
    family_table,
    note_lines,
    skipped_table,
    used_line,
    validation_document,
)

MEASURED = Path(__file__).parents[4] / "shared" / "data" / "measured"
WIDE = one_tolerance(Factors(10.0, 10.0))
BAND = Interval(
    reach=Reach.ONE_NODE,
    region=Region.TINY,
    low_ratio=0.8,
    high_ratio=1.5,
    points=100,
    machines=3,
)
WITH_BAND = NO_CALIBRATION.model_copy(update={"interval": (BAND,)})


def checked(*runs: Run, calibration: Calibration = NO_CALIBRATION) -> Validation:
    return validate(table_of(*runs), calibration, WIDE)


def exact(run_id: str = "a", factor: float = 1.0, **more: object) -> Run:
    """A run whose times a model without calibration misses by a factor."""
    return off_by(factor, NO_CALIBRATION, make_run(run_id, **more))  # type: ignore[arg-type]


def cell(found: Validation, region: Region = Region.TINY, family: str | None = None) -> CellResult:
    (one,) = [c for c in found.cells if c.region is region and c.family == family]
    return one


def held_out(region: Region, median: float, p90: float, family: str | None = None) -> HeldOut:
    return HeldOut(
        reach=Reach.ONE_NODE,
        region=region,
        family=family,
        points=30,
        median_factor=median,
        p90_factor=p90,
    )


def test_a_run_that_takes_twice_the_prediction_is_off_by_two() -> None:
    found = cell(checked(exact(factor=2.0)))
    assert found.ours == pytest.approx((2.0, 2.0))
    assert found.points == len(TINY)


def test_too_fast_counts_as_too_slow_does() -> None:
    assert cell(checked(exact(factor=0.25))).ours == pytest.approx((4.0, 4.0))


def test_each_family_weighs_the_same_however_many_points_it_has() -> None:
    # Two families at 1.0 with ten points each, one at 3.0 with one: a third of the weight.
    runs = (
        exact("a", 1.0, family="one"),
        exact("b", 1.0, family="two"),
        exact("c", 3.0, family="three", sizes=(8.0,)),
    )
    assert cell(checked(*runs)).ours == pytest.approx((1.0, 3.0))


def test_a_cell_has_a_row_for_all_families_and_one_for_each() -> None:
    found = checked(exact("a", 1.0, family="one"), exact("b", 2.0, family="two"))
    assert [c.family for c in found.cells] == [None, "one", "two"]
    assert cell(found, family="two").ours == pytest.approx((2.0, 2.0))


def test_sizes_fall_into_their_regions() -> None:
    found = checked(exact(factor=2.0), exact("b", 1.0, sizes=LARGE))
    assert cell(found, Region.TINY).ours.median == pytest.approx(2.0)
    assert cell(found, Region.LARGE).ours.median == pytest.approx(1.0)


def test_runs_across_nodes_have_cells_of_their_own() -> None:
    found = checked(exact("a", 1.0), exact("b", 2.0, nodes=2))
    reaches = {c.reach: c.ours.median for c in found.cells if c.family is None}
    assert reaches == pytest.approx({Reach.ONE_NODE: 1.0, Reach.ACROSS_NODES: 2.0})


def test_a_run_called_slow_is_predicted_and_not_counted() -> None:
    found = checked(exact("a", 1.0), exact("sick", 9.0, quality="C"))
    assert cell(found).ours == pytest.approx((1.0, 1.0))
    assert cell(found).points == len(TINY)
    assert len(found.points.predicted_s) == 2 * len(TINY)
    assert [run.run_id for run in found.set_aside] == ["sick"]


def test_runs_that_are_all_slow_leave_no_cell() -> None:
    found = checked(exact("sick", 9.0, quality="C"))
    assert found.cells == ()
    assert "not judged" in note_lines(found)[-1]


def test_the_interval_is_the_prediction_times_its_groups_ratios() -> None:
    found = checked(exact(), calibration=WITH_BAND)
    assert found.low_s == pytest.approx(found.points.predicted_s * 0.8)
    assert found.high_s == pytest.approx(found.points.predicted_s * 1.5)


@pytest.mark.parametrize(("factor", "inside"), [(0.79, 0.0), (0.81, 1.0), (1.49, 1.0), (1.51, 0.0)])
def test_coverage_counts_what_lies_inside_the_interval(factor: float, inside: float) -> None:
    assert cell(checked(exact(factor=factor), calibration=WITH_BAND)).inside_ratio == pytest.approx(
        inside
    )


def test_coverage_weighs_families_alike() -> None:
    runs = exact("a", 1.0, family="one"), exact("b", 9.0, family="two", sizes=(8.0,))
    assert cell(checked(*runs, calibration=WITH_BAND)).inside_ratio == pytest.approx(0.5)


def test_without_an_interval_there_is_no_coverage() -> None:
    found = checked(exact())
    assert np.isnan(found.low_s).all()
    assert cell(found).inside_ratio is None


def test_nccls_own_model_stands_beside_ours() -> None:
    # Without calibration both are sums of NCCL's constants; the tuner's own is what it predicts.
    run = exact(factor=1.0)
    found = checked(run)
    tuner = seen(run).baseline()
    nccl_s = tuner.tuner.time_s(tuner.ways[0].way, run.sizes_bytes)
    assert (found.points.nccl_s <= nccl_s).all()
    assert cell(found).nccl is not None


def test_nccl_has_no_model_of_an_exchange() -> None:
    found = checked(exact(collective="alltoall"))
    assert np.isnan(found.points.nccl_s).all()
    assert cell(found).nccl is None


def test_held_out_figures_show_for_the_very_data_they_are_of() -> None:
    run = exact(factor=2.0)
    told = Provenance(
        runs=1, points=10, machines=1, data="these", data_digest=digest_of([seen(run)])
    )
    rows = (held_out(Region.TINY, 1.3, 1.7), held_out(Region.TINY, 1.2, 1.6, family="f"))
    fitted = Calibration(provenance=told, figure={}, held_out=rows)
    found = checked(run, calibration=fitted)
    assert found.has_held_out
    assert cell(found).held_out == (1.3, 1.7)
    assert cell(found, family="f").held_out == (1.2, 1.6)
    slower = checked(exact(factor=2.1), calibration=fitted)
    assert not slower.has_held_out
    assert cell(slower).held_out is None
    assert any("other data: these" in line for line in note_lines(slower))


def test_runs_called_slow_do_not_change_whose_data_it_is() -> None:
    run = exact()
    told = Provenance(
        runs=1, points=10, machines=1, data="these", data_digest=digest_of([seen(run)])
    )
    fitted = Calibration(provenance=told, figure={}, held_out=(held_out(Region.TINY, 1.3, 1.7),))
    assert checked(run, exact("sick", 9.0, quality="C"), calibration=fitted).has_held_out


def test_the_default_tolerance_is_the_held_out_figure_rounded_up() -> None:
    rows = (held_out(Region.TINY, 1.301, 2.0), held_out(Region.SMALL, 1.35, 1.951))
    fitted = NO_CALIBRATION.model_copy(update={"held_out": rows})
    limits = held_out_tolerance(fitted).limits
    assert limits[Reach.ONE_NODE, Region.TINY] == (1.35, 2.0)
    assert limits[Reach.ONE_NODE, Region.SMALL] == (1.35, 2.0)


def test_families_do_not_set_the_tolerance() -> None:
    rows = (held_out(Region.TINY, 9.0, 9.0, family="f"),)
    fitted = NO_CALIBRATION.model_copy(update={"held_out": rows})
    assert held_out_tolerance(fitted).limits == {}


def test_the_aims_are_those_of_the_table() -> None:
    assert aimed_tolerance().limits[Reach.ACROSS_NODES, Region.SMALL] == (1.7, 3.0)
    assert set(AIMS) == {(reach, region) for reach in Reach for region in REGIONS}


@pytest.mark.parametrize(
    ("limit", "state"),
    [
        (Factors(2.01, 2.01), State.WITHIN),
        (Factors(1.99, 2.01), State.OUTSIDE),
        (Factors(1.5, 1.5), State.OUTSIDE),
    ],
)
def test_a_cell_is_outside_where_a_factor_exceeds_its_limit(limit: Factors, state: State) -> None:
    runs = exact("a", 2.0), exact("b", 2.0)
    found = validate(table_of(*runs), NO_CALIBRATION, one_tolerance(limit))
    assert cell(found).state is state
    assert bool(found.outside) is (state is State.OUTSIDE)


def test_a_cell_of_a_few_points_is_not_judged() -> None:
    found = validate(table_of(exact(factor=5.0)), NO_CALIBRATION, one_tolerance(Factors(1.0, 1.0)))
    assert cell(found).state is State.NOT_JUDGED
    assert found.outside == ()


def test_unknown_hardware_is_named_and_costs_only_itself() -> None:
    found = checked(exact(), make_run("odd", gpu="Voodoo 2"))
    (skip,) = found.skipped
    assert skip.run_id == "odd"
    assert "Voodoo 2" in skip.reason
    assert used_line(found).startswith("1 of 2 runs used")


def test_skipped_runs_are_counted_by_reason() -> None:
    odd = [make_run(f"odd{i}", gpu="Voodoo 2") for i in range(5)]
    _, rows = skipped_table(checked(exact(), *odd, make_run("other", collective="gossip")))
    assert [row[0] for row in rows] == ["5", "1"]
    assert rows[0][2] == "odd0, odd1, odd2, ..."


def test_nothing_usable_is_an_error_of_its_own() -> None:
    with pytest.raises(NothingMeasuredError, match="Voodoo 2") as raised:
        checked(make_run("odd", gpu="Voodoo 2"))
    assert raised.value.exit_code == 4


def test_a_table_without_runs_is_nothing_usable() -> None:
    with pytest.raises(NothingMeasuredError, match="no run of 0"):
        checked()


def test_the_document_has_the_contracts_keys() -> None:
    runs = exact("a", 2.0), exact("sick", 9.0, quality="C"), make_run("odd", gpu="Voodoo 2")
    document = validation_document(checked(*runs, calibration=WITH_BAND))
    assert (document["kind"], document["schema_version"]) == ("validation", 1)
    row = document["rows"][0]
    assert row["run_id"] == "a"
    assert row["size_bytes"] == 8
    assert row["measured_s"] == pytest.approx(2 * row["predicted_s"])
    assert row["lo_s"] == pytest.approx(0.8 * row["predicted_s"])
    assert row["hi_s"] == pytest.approx(1.5 * row["predicted_s"])
    assert {r["run_id"] for r in document["rows"] if not r["counted"]} == {"sick"}
    summary = document["summary"][0]
    assert (summary["fabric"], summary["region"]) == ("one_node", "<= 32 KiB")
    assert (summary["family"], summary["n"]) == (None, 10)
    assert summary["median_factor"] == pytest.approx(2.0)
    assert summary["p90_factor"] == pytest.approx(2.0)
    assert [set(skip) for skip in document["skipped"]] == [{"run_id", "reason"}]


def test_the_document_is_null_where_nothing_is_known() -> None:
    document = validation_document(checked(exact(collective="alltoall")))
    assert document["rows"][0]["lo_s"] is None
    assert document["rows"][0]["nccl_s"] is None
    assert document["summary"][0]["nccl_median_factor"] is None


def test_the_tables_hold_every_cell_and_every_family() -> None:
    runs = exact("a", family="one"), exact("b", family="two", nodes=2), exact("c", sizes=LARGE)
    found = checked(*runs)
    header, rows = cell_table(found)
    assert len(rows) == 3
    assert all(len(row) == len(header) for row in rows)
    header, rows = family_table(found)
    assert [row[:2] for row in rows] == [
        ("f", "one node"),
        ("one", "one node"),
        ("two", "across nodes"),
    ]
    assert all(len(row) == len(header) for row in rows)


def test_what_was_left_out_is_told_once_for_each_column(tmp_path: Path) -> None:
    runs, points = tmp_path / "runs.csv", tmp_path / "points.csv"
    runs.write_text(
        "run_id,gpu_model,gpus_per_node,nodes,ranks,nvlink_gen_or_pcie,nic,fabric,library,"
        "collective,algo_forced,proto_forced,quality,family,launch,dtype\n"
        "a,H100 SXM,8,1,8,NVLink4/NVSwitch,,,NCCL,all_reduce,,,A,f,1 proc/GPU,float\n"
    )
    points.write_text("run_id,size_bytes,time_us,flag\na,8,20,\na,16,20,x\na,32,20,y\n")
    found = validate(read_runs(runs, points), NO_CALIBRATION, WIDE)
    assert "left out, 2 points: flag: x, a" in note_lines(found)


def test_extrapolation_is_told() -> None:
    assert checked(exact()).extrapolated[0] == "no measurement over nvswitch"


def test_a_skipped_run_keeps_the_readers_reason() -> None:
    table = table_of(exact())
    skips = (SkippedRun("b", "no points"),)
    found = validate(type(table)(table.runs, skips), NO_CALIBRATION, WIDE)
    assert found.skipped == skips


@pytest.mark.skipif(
    not MEASURED.is_dir(), reason="shared/data/measured is not beside this checkout"
)
def test_the_whole_calibration_set_is_within_the_default_tolerance() -> None:
    table = read_runs(MEASURED / "runs.csv", MEASURED / "points.csv")
    found = validate(table, load_calibration(), held_out_tolerance(load_calibration()))
    assert len(found.runs) >= 0.9 * (len(found.runs) + len(found.skipped))
    assert found.has_held_out
    assert found.outside == ()
    for one in found.cells:
        if one.family is None:
            assert one.nccl is not None
            assert one.held_out is not None
            assert one.inside_ratio is not None
            assert one.inside_ratio > 0.75
            assert math.isfinite(one.ours.p90)

"""A user's own runs: placed on a map, and the shipped calibration moved as far as they tell."""

from pathlib import Path

import numpy as np
import pytest

from fleet import fleet_from_spec
from tests.topology.measured.made_runs import TINY, make_run, off_by, seen
from tests.topology.measured.nccl_texts import SIZES, devices, straight_s, table, whole
from topology.errors import MeasurementError, NothingMeasuredError
from topology.fabric.from_fleet import Fabric
from topology.latency.calibration import NO_CALIBRATION, Calibration, load_calibration
from topology.measured.observed import Observed
from topology.measured.own_runs import LEAST_LOG_ERROR, read_own_runs, recalibrate
from topology.words import Collective

EVERYTHING = tuple(2.0**k for k in range(3, 31))


@pytest.fixture(scope="module")
def two_nodes() -> Fabric:
    return Fabric(fleet_from_spec("model:dgx-h100 node:2"))


def written(folder: Path, text: str, name: str = "run.txt") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def own(factor: float, **more: object) -> Observed:
    """A run that the shipped calibration misses by a factor."""
    run = make_run(**{"sizes": EVERYTHING, **more})  # type: ignore[arg-type]
    return seen(off_by(factor, load_calibration(), run))


def predicted_s(run: Observed, calibration: Calibration) -> np.ndarray:
    return run.model(calibration).times_s(run.sizes_bytes)


def farthest(a: Calibration, b: Calibration) -> float:
    """The largest change of a factor, in log."""
    return max(abs(float(np.log(a.figure[n].factor / b.figure[n].factor))) for n in b.figure)


def test_a_run_is_placed_on_the_map(tmp_path: Path, two_nodes: Fabric) -> None:
    found = read_own_runs([written(tmp_path, whole())], two_nodes)
    (run,) = found.runs
    assert (run.job.ranks, run.job.cliques, run.job.per_clique) == (16, 2, 8)
    assert run.operation.collective is Collective.ALL_REDUCE
    assert run.sizes_bytes.tolist() == list(SIZES)
    assert run.times_s == pytest.approx([straight_s(size) for size in SIZES], abs=1e-8)
    assert found.skipped == ()


def test_hosts_that_the_map_lacks_are_told(tmp_path: Path, two_nodes: Fabric) -> None:
    (note,) = read_own_runs([written(tmp_path, whole())], two_nodes).notes
    assert "host n1 is not in the map" in note


def test_runs_of_several_files_join(tmp_path: Path, two_nodes: Fabric) -> None:
    files = [written(tmp_path, whole(), f"{name}.txt") for name in "ab"]
    found = read_own_runs(files, two_nodes)
    assert len(found.runs) == 2
    assert len({run.run_id for run in found.runs}) == 2


def test_a_run_on_more_hosts_than_the_map_has_is_skipped(tmp_path: Path, two_nodes: Fabric) -> None:
    four = whole(ranks=devices(("n1", "n2", "n3", "n4")), rows=table(1.9375))
    files = [written(tmp_path, whole(), "a.txt"), written(tmp_path, four, "b.txt")]
    found = read_own_runs(files, two_nodes)
    assert len(found.runs) == 1
    (skip,) = found.skipped
    assert skip.run_id.startswith("b.txt:")
    assert "the map has 2 nodes" in skip.reason


def test_no_run_of_the_map_is_nothing_measured(tmp_path: Path, two_nodes: Fabric) -> None:
    four = whole(ranks=devices(("n1", "n2", "n3", "n4")), rows=table(1.9375))
    with pytest.raises(NothingMeasuredError, match="the map has 2 nodes"):
        read_own_runs([written(tmp_path, four)], two_nodes)


def test_rows_that_are_all_wrong_are_not_calibrated_by(tmp_path: Path, two_nodes: Fabric) -> None:
    wrong = whole(rows=table(wrong_cell="7"))
    with pytest.raises(NothingMeasuredError, match="wrong values"):
        read_own_runs([written(tmp_path, wrong)], two_nodes)


def test_a_text_without_a_table_is_refused(tmp_path: Path, two_nodes: Fabric) -> None:
    with pytest.raises(MeasurementError, match="no table of nccl-tests"):
        read_own_runs([written(tmp_path, "hello\n")], two_nodes)


def test_runs_that_are_as_predicted_move_nothing() -> None:
    found = recalibrate([own(1.0)], load_calibration(), data="mine")
    assert farthest(found, load_calibration()) < 1e-9


@pytest.mark.parametrize("factor", [0.6, 1.7])
def test_many_points_move_the_prediction_most_of_the_way(factor: float) -> None:
    run = own(factor)
    before = predicted_s(run, load_calibration())
    after = predicted_s(run, recalibrate([run], load_calibration(), data="mine"))
    way = np.log(after / before) / np.log(factor)
    assert (way > 0.5).all()
    assert (way < 1.1).all()


def test_two_points_move_less_than_many() -> None:
    shipped = load_calibration()
    few = recalibrate([own(1.5, sizes=TINY[:2])], shipped, data="mine")
    many = recalibrate([own(1.5, sizes=TINY)], shipped, data="mine")
    assert 0 < farthest(few, shipped) < farthest(many, shipped) + 1e-12


def test_no_figure_leaves_its_prior_far_behind() -> None:
    # Ten times too slow: no factor may go further than some widths of its prior.
    shipped = load_calibration()
    found = recalibrate([own(10.0, sizes=TINY[:2])], shipped, data="mine")
    for name, figure in found.figure.items():
        was = shipped.figure.get(name)
        moved = abs(np.log(figure.factor / (was.factor if was else 1.0)))
        assert moved <= 4 * figure.prior_log_error, name


def test_a_prior_is_never_narrower_than_another_machine_may_differ() -> None:
    found = recalibrate([own(1.2)], load_calibration(), data="mine")
    moved = [f for name, f in found.figure.items() if f != load_calibration().figure.get(name)]
    assert moved
    assert all(figure.prior_log_error >= LEAST_LOG_ERROR for figure in moved)


def test_figures_that_own_runs_do_not_touch_stay() -> None:
    found = recalibrate([own(1.5)], load_calibration(), data="mine")
    untouched = [name for name in load_calibration().figure if ".pcie" in name or ".ib" in name]
    assert untouched
    assert all(found.figure[n] == load_calibration().figure[n] for n in untouched)


def test_intervals_stay_and_nothing_is_said_to_be_held_out() -> None:
    found = recalibrate([own(1.5)], load_calibration(), data="mine")
    assert found.interval == load_calibration().interval
    assert found.held_out == ()
    assert found.provenance.data.startswith("mine; all else from ")
    assert (found.provenance.runs, found.provenance.points) == (1, len(EVERYTHING))


def test_own_hardware_counts_as_measured() -> None:
    run = own(1.0)
    found = recalibrate([run], NO_CALIBRATION, data="mine")
    assert run.model(NO_CALIBRATION).extrapolated(1024.0) is not None
    assert run.model(found).extrapolated(1024.0) is None

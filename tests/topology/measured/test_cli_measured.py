"""The commands ``topology validate``, ``calibrate`` and ``figures``, end to end."""

import json
from pathlib import Path

import pytest

from fleet import fleet_from_spec, save_fleet
from tests.topology.command import refused, topology
from tests.topology.measured.nccl_texts import whole
from topology.latency.calibration import load_calibration, read_calibration

RUN_HEAD = (
    "run_id,gpu_model,gpus_per_node,nodes,ranks,nvlink_gen_or_pcie,nic,fabric,library,collective,"
    "algo_forced,proto_forced,quality,family,launch,dtype"
)
HGX = "H100 SXM,8,1,8,NVLink4/NVSwitch,,,NCCL 2.26,all_reduce"
PCIE = "L40S,8,1,8,PCIe 4.0,,,NCCL 2.26,all_reduce"
RUNS = (
    f"one,{HGX},,,A,left,1 proc/GPU,float",
    f"two,{HGX.replace('H100', 'H200')},,,A,right,1 proc/GPU,float",
    f"three,{PCIE},,,B,right,1 proc/GPU,float",
    f"sick,{HGX},,,C,left,1 proc/GPU,float",
    "odd,Voodoo 2,8,1,8,SLI,,,NCCL,all_reduce,,,A,left,1 proc/GPU,float",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tables, of 25 us + size / 200 GB/s, and a map with an output of nccl-tests."""
    folder = tmp_path_factory.mktemp("measured")
    lines = ["run_id,size_bytes,time_us"]
    for run in ("one", "two", "three", "sick", "odd"):
        slow = 20 if run == "sick" else 1
        sizes = [2**k for k in range(3, 31)]
        lines += [f"{run},{size},{slow * (25 + size / 200e3):.3f}" for size in sizes]
    (folder / "points.csv").write_text("\n".join(lines) + "\n")
    (folder / "runs.csv").write_text("\n".join([RUN_HEAD, *RUNS]) + "\n")
    (folder / "odd.csv").write_text("\n".join([RUN_HEAD, RUNS[-1]]) + "\n")
    (folder / "sick.csv").write_text("\n".join([RUN_HEAD, RUNS[-2]]) + "\n")
    (folder / "few.csv").write_text("run_id,size_bytes,time_us\nodd,8,20\nsick,8,900\n")
    (folder / "odd-points.csv").write_text("run_id,size_bytes,time_us\nodd,8,20\n")
    (folder / "own.txt").write_text(whole())
    save_fleet(fleet_from_spec("model:dgx-h100 node:2"), folder / "map.json")
    return folder


def tables(folder: Path, runs: str = "runs.csv", points: str = "points.csv") -> tuple[str, ...]:
    return ("--runs", str(folder / runs), "--points", str(folder / points))


def test_validate_prints_cells_families_skips_and_a_verdict(folder: Path) -> None:
    done = topology("validate", *tables(folder), "--tolerance", "100/100")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("4 of 5 runs used, 84 points counted; 1 run of quality C (28 points")
    assert sum(line.startswith("one node") for line in lines) == 4
    assert any(line.startswith("right") for line in lines)
    assert any("Voodoo 2" in line and line.endswith("odd") for line in lines)
    assert "within the tolerance" in lines[-1]


def test_validate_names_the_cells_outside_the_tolerance_and_leaves_with_1(folder: Path) -> None:
    done = topology("validate", *tables(folder), "--tolerance", "1/1")
    assert done.code == 1
    assert done.out.splitlines()[-1].startswith("outside the tolerance: one node <= 32 KiB")


def test_validate_prints_one_document(folder: Path) -> None:
    document = topology("validate", *tables(folder), "--tolerance", "9/9", "--json").document
    assert document["kind"] == "validation"
    assert len(document["rows"]) == 4 * 28
    assert {row["family"] for row in document["summary"]} == {None, "left", "right"}
    assert document["tolerance"]["cells"][0]["p90_factor"] == 9
    assert [skip["run_id"] for skip in document["skipped"]] == ["odd"]


def test_validate_writes_the_document_to_a_file_or_to_stdout(folder: Path, tmp_path: Path) -> None:
    words = ("validate", *tables(folder), "--tolerance", "100/100", "-o")
    done = topology(*words, tmp_path / "v.json")
    assert "within the tolerance" in done.out
    written = json.loads((tmp_path / "v.json").read_text())
    assert written == json.loads(topology(*words, "-").out)
    assert written["kind"] == "validation"


def test_validate_says_the_same_each_time(folder: Path) -> None:
    words = ("validate", *tables(folder), "--json")
    assert topology(*words).out == topology(*words).out


def test_the_default_tolerance_is_of_machines_held_out(folder: Path) -> None:
    done = topology("validate", *tables(folder))
    assert "tolerance: held-out figures of the shipped calibration, rounded up" in done.out


@pytest.mark.parametrize("text", ["", "2", "2/1", "0.5/2", "a/b", "1/inf", "nan/nan", "1/2/3"])
def test_a_tolerance_that_is_none_is_refused(folder: Path, text: str) -> None:
    message = refused(topology("validate", *tables(folder), "--tolerance", text))
    assert message.startswith("--tolerance: ")
    assert "held-out, aim" in message


def test_nothing_usable_leaves_with_4(folder: Path) -> None:
    done = topology("validate", *tables(folder, "odd.csv", "odd-points.csv"))
    assert "Voodoo 2" in refused(done, code=4)


def test_runs_that_do_not_count_leave_with_4_and_are_still_predicted(folder: Path) -> None:
    done = topology("validate", *tables(folder, "sick.csv", "few.csv"), "--json")
    assert done.code == 4
    assert len(done.document["rows"]) == 1
    assert done.document["summary"] == []


def test_a_missing_file_and_a_missing_column_are_named(folder: Path) -> None:
    assert "nowhere.csv" in refused(topology("validate", *tables(folder, "nowhere.csv")))
    message = refused(topology("validate", *tables(folder, "points.csv")))
    assert "points.csv: line 1: no column" in message


def test_stdin_is_read_once(folder: Path) -> None:
    assert "stdin" in refused(topology("validate", "--runs", "-", "--points", "-"))
    runs = (folder / "runs.csv").read_bytes()
    words = ("--runs", "-", "--points", folder / "points.csv", "--tolerance", "100/100")
    assert topology("validate", *words, stdin=runs).code == 0


def test_a_broken_calibration_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[figure]\n")
    done = topology("validate", *tables(folder), "--calibration", tmp_path / "c.toml")
    assert "c.toml" in refused(done)


def test_a_plot_is_drawn(folder: Path, tmp_path: Path) -> None:
    words = ("validate", *tables(folder), "--tolerance", "100/100", "--plot")
    assert topology(*words, tmp_path / "v.png").code == 0
    assert (tmp_path / "v.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_of_another_form_is_refused_before_the_work(folder: Path) -> None:
    message = refused(topology("validate", *tables(folder, "nowhere.csv"), "--plot", "v.txt"))
    assert ".png, .svg, .pdf" in message


def test_calibrate_writes_the_same_file_each_time(folder: Path, tmp_path: Path) -> None:
    words = ("calibrate", *tables(folder), "--data-name", "made up", "-o")
    done = topology(*words, tmp_path / "a.toml")
    assert done.code == 0, done.err
    assert "fitted to 3 runs with 84 points of 3 machines: made up" in done.out
    assert topology(*words, "-").out == (tmp_path / "a.toml").read_text()
    found = read_calibration(tmp_path / "a.toml")
    assert found.provenance.families == {"left": 1, "right": 2}
    assert {row.family for row in found.held_out} == {None, "left", "right"}


def test_a_calibration_shows_its_held_out_figures_for_its_own_data(
    folder: Path, tmp_path: Path
) -> None:
    topology("calibrate", *tables(folder), "-o", tmp_path / "c.toml")
    own = ("--calibration", tmp_path / "c.toml", "--json")
    document = topology("validate", *tables(folder), *own).document
    assert document["calibration"]["fitted_to_these_runs"]
    whole_cells = [row for row in document["summary"] if row["family"] is None]
    assert all(row["held_out_median_factor"] is not None for row in whole_cells)
    shipped = topology("validate", *tables(folder), "--json").document
    assert not shipped["calibration"]["fitted_to_these_runs"]


def test_a_calibration_is_named_after_its_files_and_never_its_folders(
    folder: Path, tmp_path: Path
) -> None:
    topology("calibrate", *tables(folder), "-o", tmp_path / "c.toml")
    assert read_calibration(tmp_path / "c.toml").provenance.data == "runs.csv"


def test_own_runs_alone_move_the_shipped_calibration(folder: Path, tmp_path: Path) -> None:
    own = ("--nccl-tests", folder / "own.txt", "--map", folder / "map.json")
    done = topology("calibrate", *own, "-o", tmp_path / "own.toml")
    assert done.code == 0, done.err
    assert "was" in done.out.splitlines()[2]
    found = read_calibration(tmp_path / "own.toml")
    assert found.provenance.runs == 1
    assert found.figure.keys() >= load_calibration().figure.keys()


def test_own_runs_join_the_tables(folder: Path, tmp_path: Path) -> None:
    own = ("--nccl-tests", folder / "own.txt", "--map", folder / "map.json")
    done = topology("calibrate", *tables(folder), *own, "-o", tmp_path / "c.toml")
    assert done.code == 0, done.err
    told = read_calibration(tmp_path / "c.toml").provenance
    assert told.families == {"left": 1, "nccl-tests": 1, "right": 2}
    assert told.data == "runs.csv, own.txt"


def test_calibrate_prints_one_document(folder: Path) -> None:
    own = ("--nccl-tests", folder / "own.txt", "--map", folder / "map.json")
    document = topology("calibrate", *own, "--json").document
    assert (document["kind"], document["schema_version"]) == ("calibration", 1)
    assert document["provenance"]["data"].startswith("own.txt; ")


def test_calibrate_says_what_is_missing(folder: Path) -> None:
    runs, points = tables(folder)[:2], tables(folder)[2:]
    assert refused(topology("calibrate", *runs, "-o", "c")).startswith("--points: ")
    assert refused(topology("calibrate", *points, "-o", "c")).startswith("--runs: ")
    own = ("--nccl-tests", folder / "own.txt")
    assert refused(topology("calibrate", *own, "-o", "c")).startswith("--map: ")
    assert "no measurements" in refused(topology("calibrate", "-o", "c"))
    assert refused(topology("calibrate", *tables(folder))).startswith("-o: ")


def test_runs_called_slow_calibrate_nothing(folder: Path) -> None:
    done = topology("calibrate", *tables(folder, "sick.csv", "few.csv"), "-o", "-")
    assert "give A or B runs" in refused_last(done.err)
    assert done.code == 2


def refused_last(err: str) -> str:
    """The last line of what was said."""
    return err.splitlines()[-1]


def test_figures_prints_calibrated_factors_and_nccls_constants() -> None:
    lines = topology("figures").out.splitlines()
    header = next(line for line in lines if line.startswith("calibrated figure"))
    assert header.split() == ["calibrated", "figure", "factor", "+/-", "points"]
    assert any(line.split()[:3] == ["simple_s.nvls", "high", "S01"] for line in lines)
    assert any(line.split()[:3] == ["rates.host_ratio", "guess", "E1"] for line in lines)


def test_figures_has_both_in_its_document() -> None:
    document = topology("figures", "--json").document
    assert document["nccl_tuner"]["simple_s"]["nvls"] == 25e-6
    assert document["nccl_tuner"]["source"] == "S01"
    name, figure = next(iter(document["calibrated"]["figure"].items()))
    assert figure["factor"] == load_calibration().figure[name].factor
    assert document["calibrated"]["provenance"]["data_digest"]

"""The two tables of measured runs: what is read, what is left out and told, and the weights."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import ExpectedError
from topology.errors import MeasurementError
from topology.latency.calibration import Region, region_of
from topology.measured.runs import (
    RunSet,
    integer_dtype,
    launch_of,
    read_runs,
    region_indices,
    weighted_quantile,
    weights,
)
from topology.words import Launch

MEASURED = Path(__file__).parents[4] / "shared" / "data" / "measured"
RUN_HEAD = (
    "run_id,source_url,date,gpu_model,gpus_per_node,nodes,ranks,nvlink_gen_or_pcie,nic,fabric,"
    "library,collective,algo_forced,proto_forced,notes,quality,family,launch,dtype"
)
POINT_HEAD = "run_id,size_bytes,time_us,algbw_GBps,busbw_GBps,place,inplace_time_us,flag"
POINT = "a,8,20.5,,,out,,"


def run_row(run_id: str = "a", per_node: str = "8", nodes: str = "2", ranks: str = "16") -> str:
    machine = f"H100,{per_node},{nodes},{ranks},NVLink4/NVSwitch,8x CX-7,NDR,NCCL 2.26"
    return f'{run_id},url,2025,{machine},all_reduce,Ring,,"one, two",A,f,1 proc/GPU,float'


def read(folder: Path, runs: list[str], points: list[str], *, head: str = RUN_HEAD) -> RunSet:
    (folder / "runs.csv").write_text("\n".join([head, *runs]) + "\n")
    (folder / "points.csv").write_text("\n".join([POINT_HEAD, *points]) + "\n")
    return read_runs(folder / "runs.csv", folder / "points.csv")


def test_a_run_carries_its_row_and_its_points_in_seconds(tmp_path: Path) -> None:
    found = read(tmp_path, [run_row()], [POINT, "a,1048576,90.1,,,out,,"])
    (run,) = found.runs
    assert (run.run_id, run.gpu_model, run.wiring) == ("a", "H100", "NVLink4/NVSwitch")
    assert (run.gpus_per_node, run.nodes, run.ranks) == (8, 2, 16)
    assert (run.algorithm, run.protocol, run.notes) == ("Ring", "", "one, two")
    assert run.sizes_bytes.tolist() == [8.0, 1048576.0]
    assert run.times_s == pytest.approx([20.5e-6, 90.1e-6])
    assert run.across_nodes
    assert run.launch_style is Launch.PROCESS
    assert (found.points, found.skipped, found.dropped) == (2, (), ())


def test_the_arrays_of_a_run_cannot_be_written(tmp_path: Path) -> None:
    (run,) = read(tmp_path, [run_row()], [POINT]).runs
    with pytest.raises(ValueError, match="read-only"):
        run.times_s[0] = 0.0


def test_flagged_points_are_dropped_and_counted(tmp_path: Path) -> None:
    found = read(tmp_path, [run_row()], [POINT, "a,16,1.0,,,out,,source reports #wrong=3"])
    assert found.points == 1
    assert found.dropped == (("a", "flag: source reports #wrong=3", 1),)


@pytest.mark.parametrize("time", ["0", "-1", "nan", "inf", "", "fast", "1e999"])
def test_a_time_that_is_no_positive_number_is_dropped(time: str, tmp_path: Path) -> None:
    found = read(tmp_path, [run_row()], [POINT, f"a,16,{time},,,out,,"])
    assert found.points == 1
    assert found.dropped == (("a", f"time_us: {time!r} is no positive number", 1),)


def test_a_time_that_is_not_told_follows_from_algbw(tmp_path: Path) -> None:
    (run,) = read(tmp_path, [run_row()], ["a,1048576,,2.0,3.75,out,,"]).runs
    assert run.times_s == pytest.approx([1048576 / 2e9])


def test_a_run_without_a_usable_point_is_skipped_with_the_reason(tmp_path: Path) -> None:
    found = read(tmp_path, [run_row(), run_row("b")], [POINT, "b,0,1.0,,,out,,"])
    assert [run.run_id for run in found.runs] == ["a"]
    reason = "no usable point (size_bytes: '0' is no positive number)"
    assert found.skipped == (("b", reason),)


def test_a_run_without_points_is_skipped(tmp_path: Path) -> None:
    assert read(tmp_path, [run_row()], []).skipped == (("a", "no points"),)


def test_points_of_an_unknown_run_are_skipped_once(tmp_path: Path) -> None:
    found = read(tmp_path, [run_row()], [POINT, "z,8,1,,,out,,", "z,16,1,,,out,,"])
    assert [skip.run_id for skip in found.skipped] == ["z"]
    assert "points without a row in" in found.skipped[0].reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (run_row(ranks="many"), "line 2: ranks: 'many' is no count"),
        (run_row(nodes="0"), "line 2: nodes: '0' is no count"),
        (run_row(per_node="9" * 5000), "is no count"),
        (run_row(ranks="17"), "line 2: 17 ranks do not fit 2 nodes with 8 GPUs each"),
        (run_row(ranks="1"), "line 2: 1 ranks do not fit 2 nodes with 8 GPUs each"),
        ("a,url", "line 2: gpus_per_node: '' is no count"),
    ],
)
def test_a_broken_row_costs_only_its_run(row: str, reason: str, tmp_path: Path) -> None:
    found = read(tmp_path, [row, run_row("b")], [POINT, "b,8,1,,,out,,"])
    assert [run.run_id for run in found.runs] == ["b"]
    assert reason in found.skipped[0].reason


def test_two_rows_of_one_run_id_are_skipped_since_points_have_no_owner(tmp_path: Path) -> None:
    found = read(tmp_path, [run_row(), run_row(ranks="8")], [POINT])
    assert found.runs == ()
    assert found.skipped[0].reason.startswith("lines 2 and 3 have this run_id")


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError) as error:
        read(tmp_path, [], [], head=RUN_HEAD.replace(",family,", ",famly,"))
    assert error.value.where == str(tmp_path / "runs.csv")
    assert "no column family; the columns are run_id, source_url" in str(error.value)


def test_columns_may_stand_in_any_order_and_remarks_may_lack(tmp_path: Path) -> None:
    head = RUN_HEAD.replace("run_id,source_url,date,", "") + ",run_id"
    row = run_row().removeprefix("a,url,2025,") + ",a"
    (run,) = read(tmp_path, [row], [POINT], head=head).runs
    assert (run.run_id, run.source_url, run.date, run.ranks) == ("a", "", "", 16)


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="the column nodes stands twice"):
        read(tmp_path, [], [], head=f"{RUN_HEAD},nodes")


def test_an_empty_file_has_no_column(tmp_path: Path) -> None:
    for name in ("runs.csv", "points.csv"):
        (tmp_path / name).write_text("")
    with pytest.raises(MeasurementError, match="the columns are none"):
        read_runs(tmp_path / "runs.csv", tmp_path / "points.csv")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExpectedError, match="no such file"):
        read_runs(tmp_path / "no.csv", tmp_path / "no.csv")


@given(junk=st.binary(max_size=200))
def test_any_bytes_give_runs_or_a_refusal(
    junk: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "runs.csv").write_bytes(f"{RUN_HEAD}\n{run_row()}\n".encode() + junk)
    (folder / "points.csv").write_bytes(f"{POINT_HEAD}\n{POINT}\n".encode() + junk)
    try:
        found = read_runs(folder / "runs.csv", folder / "points.csv")
    except ExpectedError:
        return
    assert all(np.all(run.times_s > 0) for run in found.runs)


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("1 proc/GPU", Launch.PROCESS),
        ("srun, 1 proc/GPU", Launch.PROCESS),
        ("ray workers", Launch.EAGER),
        ("vLLM eager", Launch.EAGER),
        ("2 ranks", Launch.PROCESS),
        ("1 process, -t 8", Launch.THREADS),
        ("1 process per host, -t 2", Launch.THREADS),
        ("1 process, -g 8", Launch.THREAD),
        ("1 process", Launch.THREAD),
        ("1 proc/GPU, CUDA graph", Launch.GRAPH),
        ("", Launch.PROCESS),
    ],
)
def test_launch_is_told_from_the_runs_words(text: str, style: Launch) -> None:
    assert launch_of(text) is style


def test_integers_are_told_from_floats() -> None:
    assert all(map(integer_dtype, ("int8", "uint8", "char", "int32", "uint64")))
    assert not any(map(integer_dtype, ("half", "float", "bfloat16", "float16", "double", "")))


@pytest.mark.parametrize(
    ("size_bytes", "region"),
    [
        (1, Region.TINY),
        (32 * 1024, Region.TINY),
        (32 * 1024 + 1, Region.SMALL),
        (1024**2, Region.SMALL),
        (1024**2 + 1, Region.MEDIUM),
        (64 * 1024**2 - 1, Region.MEDIUM),
        (64 * 1024**2, Region.LARGE),
        (16 * 1024**3, Region.LARGE),
    ],
)
def test_regions_end_where_the_contract_says(size_bytes: int, region: Region) -> None:
    assert region_of(size_bytes) is region
    assert region_indices([size_bytes]).tolist() == [list(Region).index(region)]


def test_a_family_weighs_the_same_in_its_cell_however_many_points_it_has() -> None:
    got = weights(
        families=["big", "big", "big", "small", "big"],
        across_nodes=[False, False, False, False, True],
        sizes_bytes=[8, 16, 32, 8, 8],
    )
    assert got == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1.0, 1.0])


def test_a_family_weighs_for_itself_in_each_region() -> None:
    got = weights(families=["f"] * 3, across_nodes=[True] * 3, sizes_bytes=[8, 16, 2**26])
    assert got == pytest.approx([0.5, 0.5, 1.0])


def test_nothing_weighs_nothing() -> None:
    assert weights(families=[], across_nodes=[], sizes_bytes=[]).size == 0
    assert math.isnan(weighted_quantile([], [], 0.5))


def test_a_weighted_quantile_counts_weight_and_not_points() -> None:
    # Three points of weight 1/3 against one of weight 1: half the weight is reached at 3.
    values, weight = [1.0, 2.0, 3.0, 10.0], [1 / 3, 1 / 3, 1 / 3, 1.0]
    assert weighted_quantile(values, weight, 0.5) == 3.0
    assert weighted_quantile(values, weight, 0.51) == 10.0
    assert weighted_quantile(values, weight, 1.0) == 10.0


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30), st.floats(0.01, 1.0))
def test_with_equal_weights_the_quantile_is_an_order_statistic(
    values: list[float], q: float
) -> None:
    got = weighted_quantile(values, [1.0] * len(values), q)
    assert got in values
    below = sum(value < got for value in values) / len(values)
    up_to = sum(value <= got for value in values) / len(values)
    assert below < q + 1e-9
    assert up_to >= q - 1e-9


@pytest.mark.skipif(
    not MEASURED.is_dir(), reason="shared/data/measured is not beside this checkout"
)
def test_the_calibration_set_is_read_but_for_its_flagged_points() -> None:
    found = read_runs(MEASURED / "runs.csv", MEASURED / "points.csv")
    assert len(found.runs) == 770
    assert found.skipped == ()
    assert all(drop.reason.startswith("flag: ") for drop in found.dropped)
    assert sum(drop.points for drop in found.dropped) == 6
    assert found.points == 16904 - 6

"""nccl-tests' text: its versions' tables, launchers' prefixes, other programs' lines, cuts."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import ExpectedError
from tests.topology.measured.nccl_texts import (
    FOOTER,
    SIZES,
    devices,
    settings,
    straight_s,
    table,
    whole,
)
from topology.errors import MeasurementError
from topology.measured.nccl_lines import Device, bare
from topology.measured.nccl_tests import (
    NcclTestsRun,
    NcclTestsText,
    parse_nccl_tests,
    read_nccl_tests,
    run_of,
)
from topology.words import Collective, Launch

# As nccl-tests prints it, letter by letter (src/common.cu); the figures are invented.
VERBATIM_2_17 = """\
# nccl-tests version 2.17.6 nccl-headers=22807 nccl-library=22807
# Collective test starting: all_reduce_perf
# nThread 1 nGpus 1 minBytes 8 maxBytes 134217728 step: 2(factor) warmup iters: 1 iters: 20 agg iters: 1 validation: 1 graph: 0
#
# Using devices
#  Rank  0 Group  0 Pid  81364 on      gpu-a device  0 [0000:1b:00] NVIDIA H100 80GB HBM3
#  Rank  1 Group  0 Pid  81365 on      gpu-a device  1 [0000:43:00] NVIDIA H100 80GB HBM3
#
#                                                              out-of-place                       in-place          
#       size         count      type   redop    root     time   algbw   busbw  #wrong     time   algbw   busbw  #wrong 
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)             (us)  (GB/s)  (GB/s)         
           8             2     float     sum      -1    11.52    0.00    0.00       0    11.40    0.00    0.00       0
     1048576        262144     float     sum      -1    20.00   52.43   52.43       0    20.10   52.17   52.17       0
   134217728      33554432     float     sum      -1   500.00  268.44  268.44       0   501.00  267.90  267.90       0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 107.055 
#
# Collective test concluded: all_reduce_perf
#
"""  # noqa: E501, W291

VERBATIM_2_0 = """\
# nThread 1 nGpus 2 minBytes 8 maxBytes 134217728 step: 4096(factor) warmup iters: 5 iters: 20 validation: 1 
#
# Using devices
#   Rank  0 Pid  12345 on     dgx device  0 [0x06] Tesla V100-SXM2-32GB
#   Rank  1 Pid  12345 on     dgx device  1 [0x07] Tesla V100-SXM2-32GB
#
#                                                       out-of-place                       in-place          
#       size         count      type   redop     time   algbw   busbw  error     time   algbw   busbw  error
#        (B)    (elements)                       (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)       
           8             2     float     sum    21.41    0.00    0.00  1e-07    21.34    0.00    0.00  0e+00
   134217728      33554432     float     sum   3000.0   44.74   44.74  0e+00   3001.0   44.72   44.72  0e+00
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 22.37 
"""  # noqa: E501, W291


def only(text: str, collective: Collective | None = None) -> NcclTestsRun:
    """The one run of a text that loses nothing."""
    found = parse_nccl_tests(text, collective=collective)
    assert found.skipped == ()
    (run,) = found.runs
    return run


def reason(text: str, collective: Collective | None = None) -> str:
    """Why the one thing of a text is left out."""
    found = parse_nccl_tests(text, collective=collective)
    assert found.runs == ()
    assert len(found.skipped) == 1
    return found.skipped[0].reason


def test_the_newest_format_is_read() -> None:
    run = only(VERBATIM_2_17)
    assert (run.collective, run.ranks, run.launch) == (Collective.ALL_REDUCE, 2, Launch.PROCESS)
    assert (run.library, run.dtype, run.out_of_bounds, run.line) == ("NCCL 2.28.7", "float", 0, 3)
    assert run.devices[1] == Device(1, "gpu-a", 1, "0000:43:00", "NVIDIA H100 80GB HBM3", pid=81365)
    assert run.settings is not None
    assert (run.settings.warmup_iterations, run.settings.iterations) == (1, 20)
    assert (run.settings.graph_launches, run.settings.checks) == (0, True)
    assert [row.size_bytes for row in run.rows] == [8, 1048576, 134217728]
    assert [row.time_s for row in run.rows] == pytest.approx([11.52e-6, 20e-6, 500e-6])
    assert run.rows[2].in_place_s == pytest.approx(501e-6)
    assert (run.rows[0].redop, run.rows[0].root, run.rows[0].wrong) == ("sum", None, 0)


def test_the_oldest_format_is_read() -> None:
    run = only(VERBATIM_2_0)
    assert (run.collective, run.ranks, run.launch) == (Collective.ALL_REDUCE, 2, Launch.THREAD)
    assert run.devices[0].bus_id == "0x06"
    assert run.rows[0].wrong is None
    assert run.rows[1].time_s == pytest.approx(3e-3)


@pytest.mark.parametrize(
    ("collective", "ratio", "lead", "cells", "in_place"),
    [
        ("all_reduce", 1.875, ("redop", "root"), ("sum", "-1"), "0"),
        ("all_reduce", 1.875, ("redop",), ("sum",), "0"),
        ("reduce_scatter", 0.9375, ("redop", "root"), ("sum", "-1"), "0"),
        ("all_gather", 0.9375, ("redop", "root"), ("none", "-1"), "0"),
        ("all_gather", 0.9375, (), (), "0"),
        ("alltoall", 0.9375, ("redop", "root"), ("none", "-1"), "N/A"),
        ("broadcast", 1.0, ("redop", "root"), ("none", "0"), "0"),
        ("broadcast", 1.0, ("root",), ("0",), "0"),
        ("reduce", 1.0, ("redop", "root"), ("sum", "0"), "0"),
        ("sendrecv", 1.0, ("redop", "root"), ("none", "-1"), "N/A"),
    ],
)
def test_a_collective_without_its_name_is_told_by_its_rows(
    collective: str, ratio: float, lead: tuple[str], cells: tuple[str], in_place: str
) -> None:
    rows = table(ratio, lead=lead, cells=cells, in_place_wrong=in_place)
    assert only(whole(None, rows=rows)).collective == collective
    assert only(whole(collective, rows=rows)).collective == collective


def test_two_collectives_of_the_same_ratio_need_the_option() -> None:
    rows = table(0.9375, cells=("none", "-1"), wrong_cell="N/A")
    text = whole(None, rows=rows)
    assert reason(text) == ("the collective is not told: all_gather or alltoall; give --collective")
    assert only(text, Collective.ALLTOALL).collective is Collective.ALLTOALL


def test_an_option_that_the_rows_belie_is_refused() -> None:
    told = reason(whole(None), Collective.ALL_GATHER)
    assert told == "busbw / algbw is not that of all_gather with 16 ranks"


def test_the_name_in_the_text_stands_above_the_option() -> None:
    assert only(whole(), Collective.BROADCAST).collective is Collective.ALL_REDUCE


def test_a_program_without_a_model_is_named() -> None:
    assert reason(whole("hypercube")) == "hypercube_perf is not modelled"


@pytest.mark.parametrize(
    ("head", "launch", "words"),
    [
        (settings(), Launch.PROCESS, "1 proc/GPU"),
        (settings(threads=8), Launch.THREADS, "1 process per host, -t 8"),
        (settings(gpus=8), Launch.THREAD, "1 process, -g 8"),
        (settings(more=" agg iters: 1 validation: 1 graph: 20"), Launch.GRAPH, "CUDA graph, -G 20"),
        (settings(more=""), Launch.PROCESS, "1 proc/GPU"),
    ],
)
def test_the_launch_is_that_of_the_settings(head: str, launch: Launch, words: str) -> None:
    run = only(whole(head=head))
    assert run.launch is launch
    made = run_of(run, "mine")
    assert (made.launch, made.launch_style) == (words, launch)


def test_a_run_in_the_form_of_the_calibration_set() -> None:
    made = run_of(only(f"NCCL version 2.21.5+cuda12.4\n{whole()}"), "mine")
    assert (made.run_id, made.gpu_model) == ("mine", "NVIDIA H100 80GB HBM3")
    assert (made.nodes, made.gpus_per_node, made.ranks) == (2, 8, 16)
    assert (made.collective, made.dtype, made.library) == ("all_reduce", "float", "NCCL 2.21.5")
    assert made.sizes_bytes.tolist() == list(SIZES)
    assert made.times_s == pytest.approx([straight_s(size) for size in SIZES], rel=1e-3)


def test_rows_with_wrong_values_do_not_reach_the_run() -> None:
    run = only(
        whole(rows=f"{table(sizes=SIZES[:3])}\n{table(sizes=(999,), wrong_cell='7')[-190:]}")
    )
    assert run.wrong == 7
    made = run_of(run, "mine")
    assert made.sizes_bytes.tolist() == list(SIZES[:3])
    assert made.quality == "B"


def test_a_run_of_wrong_values_only_is_refused() -> None:
    run = only(whole(rows=table(wrong_cell="3")))
    with pytest.raises(MeasurementError, match="every row has wrong values"):
        run_of(run, "mine")


@pytest.mark.parametrize(
    "prefix",
    [
        "[1,0]<stdout>:",
        "[1,0]<stdout>: ",
        "0: ",
        " 12: ",
        "gpu-node-7: ",
        "worker-0  | ",
        "2024-05-01T10:00:00.123456Z ",
        "[2024-05-01 10:00:00] ",
        "0: 2024-05-01 10:00:00 ",
        "\x1b[32m",
        "[1,0]<stdout>:2024-05-01T10:00:00Z ",
    ],
)
def test_what_launchers_put_before_each_line_is_passed_over(prefix: str) -> None:
    text = "".join(f"{prefix}{line}\n" for line in whole(None).splitlines())
    assert only(text).rows == only(whole(None)).rows
    assert only(text).devices == only(whole(None)).devices


NOISE = (
    "n1:4000:4012 [0] NCCL INFO Channel 00/16 : 0 7 6 5 4 3 2 1",
    "n1:4000:4012 [0] NCCL INFO comm 0x55 rank 0 nRanks 16 nNodes 2 - Init COMPLETE",
    "--------------------------------------------------------------------------",
    "WARNING: There was an error initializing an OpenFabrics device.",
    "  Local host:   n1",
    "8 more processes have sent help message help-mpi-btl.txt / ib port not selected",
    "[n1:04000] 15 more processes have sent help message",
    "Loading module cuda 12.4",
    "#SBATCH --nodes=2",
    "",
    "\t",
)


@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from(NOISE)), max_size=12))
def test_lines_of_other_programs_change_nothing(noise: list[tuple[int, str]]) -> None:
    lines = whole().splitlines()
    clean = only("\n".join(lines))
    for place, words in noise:
        lines.insert(min(place, len(lines)), words)
    found = only("\n".join(lines))
    assert (found.rows[0].time_s, len(found.rows)) == (clean.rows[0].time_s, len(clean.rows))
    assert (found.devices, found.collective) == (clean.devices, clean.collective)


def test_runs_one_behind_the_other_are_told_apart() -> None:
    gather = table(0.9375, cells=("none", "-1"))
    text = whole() + whole("all_gather", rows=gather) + VERBATIM_2_17 + VERBATIM_2_0
    runs = parse_nccl_tests(text).runs
    assert [run.collective.value for run in runs] == [
        "all_reduce",
        "all_gather",
        "all_reduce",
        "all_reduce",
    ]
    assert [run.ranks for run in runs] == [16, 16, 2, 2]
    assert [run.library for run in runs][:3] == ["", "", "NCCL 2.28.7"]


def test_a_run_that_died_in_its_table_does_not_lend_its_name_to_the_next() -> None:
    died = whole().partition(FOOTER)[0] + "n1: Test NCCL failure common.cu:958 'remote error'\n"
    found = parse_nccl_tests(died + whole("all_gather", rows=table(0.9375, cells=("none", "-1"))))
    assert [run.collective.value for run in found.runs] == ["all_reduce", "all_gather"]
    note = "it ended early: Test NCCL failure common.cu:958 'remote error'"
    assert found.runs[0].notes == (note,)


def test_a_table_of_several_types_becomes_a_run_each() -> None:
    halves = "\n".join(table(dtype="half").splitlines()[3:])
    runs = parse_nccl_tests(whole(rows=f"{table()}\n{halves}")).runs
    assert [run.dtype for run in runs] == ["float", "half"]
    assert len(runs[0].rows) == len(runs[1].rows) == len(SIZES)


def test_rows_without_their_head_are_read_by_how_many_columns_they_have() -> None:
    rows = "\n".join(table().splitlines()[3:])
    assert len(only(whole(rows=rows)).rows) == len(SIZES)


def test_ranks_without_a_list_of_devices_are_told_by_the_bandwidths() -> None:
    run = only(f"./all_reduce_perf -b 8\n{table()}\n{FOOTER}")
    assert (run.ranks, run.devices) == (16, ())
    assert run.notes == ("no list of devices: 16 ranks, from busbw / algbw",)
    with pytest.raises(MeasurementError, match="the ranks' hosts are not told"):
        run_of(run, "mine")


def test_ranks_that_nothing_tells_are_asked_for() -> None:
    small = table(sizes=(8, 16, 32))
    assert reason(f"./all_reduce_perf\n{small}\n") == (
        "the ranks are not told; keep the lines '# Rank ...'"
    )


def test_a_missing_rank_is_named() -> None:
    lines = devices().splitlines()
    assert "15 devices, but rank 3 is missing or twice" in reason(
        whole(ranks="\n".join(lines[:3] + lines[4:]))
    )


def test_devices_that_do_not_fit_the_settings_are_told() -> None:
    text = whole(head=settings(gpus=8), ranks=devices(per_host=6))
    assert "12 devices for processes of 8 ranks (nThread x nGpus)" in reason(text)


def test_sixteen_programs_of_one_rank_each_are_no_run_of_sixteen() -> None:
    text = whole(ranks=devices(("n1",), 1))
    assert reason(text) == (
        "one rank alone, which sends nothing; build nccl-tests with MPI=1, or give -g or -t"
    )


def test_times_of_the_cpu_are_no_times_of_the_operation() -> None:
    rows = table().replace(" time", " cputime")
    assert "its times are the CPU's" in reason(whole(rows=rows))


def test_other_columns_are_named() -> None:
    rows = table().replace(" busbw", " bandw")
    assert reason(whole(rows=rows)).startswith("its columns are size, count, type, redop, root")


def test_a_head_whose_first_block_is_spoilt_is_other_columns() -> None:
    rows = table().replace("algbw", "", 1)
    assert "its columns are" in reason(whole(rows=rows))


def test_a_column_more_is_passed_over() -> None:
    lines = table().splitlines()
    wider = [f"{lines[0]}", f"{lines[1]}  timestamp", lines[2]]
    wider += [f"{line}  2024-05-01 10:00:00" for line in lines[3:]]
    run = only(whole(rows="\n".join(wider)))
    assert run.rows[3].time_s == pytest.approx(straight_s(SIZES[3]), rel=1e-3)


def test_times_in_milliseconds_are_told_by_algbw() -> None:
    run = only(whole(rows=table(unit=1e3)))
    assert run.rows[-1].time_s == pytest.approx(straight_s(SIZES[-1]), rel=1e-3)
    assert run.notes == ("times are in ms, by algbw",)


def test_times_that_fit_no_bandwidth_are_refused() -> None:
    assert "size / time is 0.1 times algbw" in reason(whole(rows=table(unit=1e7)))


def test_a_row_of_size_0_and_one_without_a_time_are_counted() -> None:
    rows = table() + "\n 0 0 float sum -1 9.0 0.0 0.0 0 9.0 0.0 0.0 0"
    rows += "\n 8 2 float sum -1 N/A 0.0 0.0 0 9.0 0.0 0.0 0"
    found = parse_nccl_tests(whole(rows=rows))
    assert len(found.runs[0].rows) == len(SIZES)
    assert [skip.reason for skip in found.skipped] == [
        "1 row: size 0",
        "1 row: time 'N/A' is no positive number",
    ]


@given(st.integers(0, len(whole())))
def test_a_cut_output_gives_the_whole_rows_before_the_cut(cut: int) -> None:
    all_rows = [(row.size_bytes, row.time_s) for row in only(whole()).rows]
    found = parse_nccl_tests(whole()[:cut])
    rows = [(row.size_bytes, row.time_s) for run in found.runs for row in run.rows]
    assert rows == all_rows[: len(rows)]
    assert found.runs or found.skipped or cut < whole().index("# nThread") + 20


@given(st.integers(0, len(VERBATIM_2_17)))
def test_an_output_whose_beginning_is_lost_never_gives_another_time(cut: int) -> None:
    times = {row.time_s for row in only(VERBATIM_2_17).rows}
    found = parse_nccl_tests(VERBATIM_2_17[cut:])
    assert {row.time_s for run in found.runs for row in run.rows} <= times


@given(st.lists(st.tuples(st.integers(0, 2500), st.text(max_size=8)), max_size=8))
def test_a_spoilt_output_is_never_a_crash(spoils: list[tuple[int, str]]) -> None:
    text = whole()
    for place, junk in spoils:
        text = text[:place] + junk + text[place + len(junk) :]
    assert isinstance(parse_nccl_tests(text), NcclTestsText)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"\x7fELF\0\0\0", "binary, no text"),
        (b"hello\n", "no table of nccl-tests"),
        (settings().encode(), "line 1: it ends before its table"),
        (whole().partition("#  Rank 15")[0].encode(), "line 2: it ends before its table"),
        (gzip.compress(b"hello", mtime=0), "no table of nccl-tests"),
    ],
)
def test_a_file_without_a_run_is_refused(content: bytes, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    file.write_bytes(content)
    with pytest.raises(MeasurementError) as error:
        read_nccl_tests(file)
    assert error.value.problem == problem
    assert error.value.where == str(file)
    assert "give all that nccl-tests printed" in error.value.remedy


def test_a_file_that_is_read_from_gzip(tmp_path: Path) -> None:
    file = tmp_path / "out.txt.gz"
    file.write_bytes(gzip.compress(whole().encode()))
    assert len(read_nccl_tests(file).runs) == 1


def test_a_file_that_is_too_large_says_what_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topology.measured.nccl_tests.LARGEST_TEXT_BYTES", 100)
    file = tmp_path / "out.txt"
    file.write_text(whole())
    with pytest.raises(ExpectedError, match="without NCCL_DEBUG"):
        read_nccl_tests(file)


def test_a_line_without_end_is_passed_over() -> None:
    assert bare("# Rank" + " 1" * 10_000) == ""

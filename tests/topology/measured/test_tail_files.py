"""Files of measured tails: each format told by its content, each fault by its line."""

import json
from pathlib import Path

import numpy as np
import pytest

from fleet import read_bytes
from tests.topology.measured.nccl_texts import whole
from topology.errors import MeasurementError
from topology.measured.tail import MeasuredTail
from topology.measured.tail_file import TailFile, Told
from topology.measured.tail_files import read_tails
from topology.words import Collective

SAMPLES = Path(__file__).parents[3] / "samples/tails"


def read(folder: Path, text: str | bytes, told: Told | None = None) -> TailFile:
    path = folder / "file"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_tails(path, told=told)


def fault_of(folder: Path, text: str | bytes) -> str:
    with pytest.raises(MeasurementError) as caught:
        read(folder, text)
    return str(caught.value).removeprefix(f"{folder}/")


def record(number: int, time_us: object, **more: object) -> dict[str, dict[str, object]]:
    """A record of NCCL Inspector: 64 KiB all-reduce on 8 ranks, seen by rank 0."""
    header = {"id": "0xabc", "rank": 0, "n_ranks": 8, "nnodes": 1}
    perf = {
        "coll": "AllReduce",
        "coll_sn": number,
        "coll_msg_size_bytes": 65536,
        "coll_exec_time_us": time_us,
    }
    return {
        "header": {key: more.get(key, value) for key, value in header.items()},
        "metadata": {"hostname": "n1"},
        "coll_perf": {key: more.get(key, value) for key, value in perf.items()},
    }


def lines(*records: object) -> str:
    return "\n".join(map(json.dumps, records)) + "\n"


def us(tail: MeasuredTail) -> list[float]:
    assert tail.samples_s is not None
    return [round(value * 1e6, 6) for value in tail.samples_s]


def test_inspector_records_of_one_operation_are_its_samples(tmp_path: Path) -> None:
    file = read(tmp_path, lines(record(1, 30), record(2, 10), record(3, 20)))
    (tail,) = file.tails
    assert file.format == "NCCL Inspector"
    assert us(tail) == [10, 20, 30]
    assert (tail.collective, tail.size_bytes, tail.ranks, tail.nodes, tail.count) == (
        Collective.ALL_REDUCE,
        65536,
        8,
        1,
        3,
    )


def test_a_call_is_complete_when_its_slowest_rank_is(tmp_path: Path) -> None:
    ranks = [record(1, 10 + rank, rank=rank) for rank in range(8)]
    (tail,) = read(tmp_path, lines(*ranks, record(2, 5, rank=3))).tails
    assert us(tail) == [5, 17]
    assert tail.notes == ()


def test_ranks_that_are_not_there_are_told(tmp_path: Path) -> None:
    (tail,) = read(tmp_path, lines(record(1, 10))).tails
    assert tail.notes == ("the slowest of 1 of 8 ranks: the others' records are not here",)


@pytest.mark.parametrize("style", ["one a line", "over lines", "a list"])
def test_records_may_stand_in_any_way(style: str, tmp_path: Path) -> None:
    records = [record(number, number) for number in (1, 2, 3)]
    text = {
        "one a line": lines(*records),
        "over lines": "\n".join(json.dumps(r, indent=2) for r in records),
        "a list": json.dumps(records, indent=1),
    }[style]
    file = read(tmp_path, text)
    assert us(file.tails[0]) == [1, 2, 3]
    assert file.skipped == ()


def test_the_share_of_an_all_gather_becomes_the_whole_buffer(tmp_path: Path) -> None:
    (tail,) = read(tmp_path, lines(record(1, 10, coll="AllGather"))).tails
    assert tail.size_bytes == 8 * 65536


def test_sizes_and_collectives_are_kept_apart(tmp_path: Path) -> None:
    text = lines(
        record(1, 10), record(1, 12, coll="Broadcast"), record(2, 14, coll_msg_size_bytes=8)
    )
    found = read(tmp_path, text).tails
    assert [(tail.what, tail.size_bytes) for tail in found] == [
        ("AllReduce", 65536),
        ("Broadcast", 65536),
        ("AllReduce", 8),
    ]


def test_a_point_to_point_record_is_no_collective(tmp_path: Path) -> None:
    perf = {"p2p": "Send", "p2p_sn": 1, "p2p_msg_size_bytes": 8, "p2p_exec_time_us": 4.5}
    text = lines({"header": {"id": "0x1", "n_ranks": 2}, "p2p_perf": perf})
    (tail,) = read(tmp_path, text).tails
    assert (tail.what, tail.collective, us(tail)) == ("Send", None, [4.5])


def test_a_cut_record_costs_itself_alone(tmp_path: Path) -> None:
    text = lines(record(1, 10), record(2, 20))
    file = read(tmp_path, text + lines(record(3, 30))[:80])
    assert us(file.tails[0]) == [10, 20]
    assert [skip.line for skip in file.skipped] == [3]
    assert file.skipped[0].reason.startswith("cut or broken JSON")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"coll_exec_time_us": float("nan")}, "coll_exec_time_us: nan"),
        ({"coll_exec_time_us": -1}, "coll_exec_time_us: -1"),
        ({"coll_exec_time_us": None}, "coll_exec_time_us: missing"),
        ({"coll_exec_time_us": True}, "coll_exec_time_us: True"),
        ({"coll_msg_size_bytes": 1.5}, "coll_msg_size_bytes: 1.5"),
        ({"n_ranks": 0}, "n_ranks: 0"),
        ({"coll": 7}, "coll: 7"),
    ],
)
def test_a_record_without_its_figures_is_left_out(
    more: dict[str, object], words: str, tmp_path: Path
) -> None:
    file = read(tmp_path, lines(record(1, 10), record(2, 20, **more)))
    assert us(file.tails[0]) == [10]
    assert file.skipped == ((2, words, 0),)


def test_json_that_goes_deep_or_is_of_another_program_is_refused(tmp_path: Path) -> None:
    assert "nested too deep" in fault_of(tmp_path, '{"coll_perf":' * 100_000)
    assert "header or coll_perf is no object" in fault_of(tmp_path, '{"coll_perf": 7}')
    assert "of no known format" in fault_of(tmp_path, '{"kind": "fleet_map"}')


OSU = """# OSU MPI-CUDA Allreduce Latency Test v7.4
# Datatype: MPI_FLOAT.
# Size       Avg Latency(us)   Min Latency(us)   Max Latency(us)  Iterations
4                      10.50              9.00             12.00        1000
1048576                30.25             28.00             33.00         100
"""
OSU_TAIL = """
# OSU MPI Allgather Latency Test v7.5
# Size       Avg Latency(us)   P50 Tail Lat(us)   P90 Tail Lat(us)   P99.9 Tail Lat(us)
8                      10.50              9.00             12.00               40.00
"""


def test_osu_prints_means_whose_extremes_are_no_percentiles(tmp_path: Path) -> None:
    small, large = read(tmp_path, OSU).tails
    assert (small.collective, small.size_bytes, small.count) == (Collective.ALL_REDUCE, 4, 1000)
    assert small.mean_s == pytest.approx(10.5e-6)
    assert small.printed_s is None
    assert (large.line, large.count) == (5, 100)


def test_a_size_that_only_looks_like_a_number_is_none(tmp_path: Path) -> None:
    tails = read(tmp_path, OSU + "\u00b2   3.0\n").tails
    assert len(tails) == len(read(tmp_path, OSU).tails)


@pytest.mark.parametrize(
    "head", ["latency_us", "what,hardware,source,size_bytes,nodes,n_samples,unit,stat,value,notes"]
)
def test_a_quote_that_is_never_closed_is_refused_with_its_line(head: str, tmp_path: Path) -> None:
    row = "5.0" if head == "latency_us" else "a,b,c,8,2,100,us,p99,5.0,n"
    cut = '"5.0' if head == "latency_us" else 'a,b,c,8,2,100,us,p99,5.0,"n'
    text = "\n".join([head, *[row] * 9, cut, *[row] * 60_000]) + "\n"
    assert "no CSV (field larger than field limit" in fault_of(tmp_path, text)


def test_tail_columns_of_osu_are_percentiles(tmp_path: Path) -> None:
    (tail,) = read(tmp_path, OSU_TAIL).tails
    assert tail.printed_s == pytest.approx({"p50_s": 9e-6, "p90_s": 12e-6, "p999_s": 40e-6})
    assert (tail.size_bytes, tail.count) == (None, None)
    (told,) = read(tmp_path, OSU_TAIL, Told(ranks=16)).tails
    assert (told.size_bytes, told.ranks) == (128, 16)


def test_osu_tables_follow_one_another_behind_prefixes_and_other_lines(tmp_path: Path) -> None:
    text = "module load osu\n" + OSU + "1073741824 bandwidth\n" + OSU_TAIL
    prefixed = "\n".join(f"[1,0]<stdout>:{line}" for line in text.splitlines())
    for form in (text, prefixed):
        file = read(tmp_path, form)
        assert [tail.what for tail in file.tails] == ["Allreduce", "Allreduce", "Allgather"]


def test_a_barrier_has_no_size_and_a_ping_pong_no_collective(tmp_path: Path) -> None:
    barrier = "# OSU MPI Barrier Latency Test v5.9\n# Avg Latency(us)\n             7.25\n"
    (tail,) = read(tmp_path, barrier).tails
    assert (tail.what, tail.collective, tail.size_bytes) == ("Barrier", None, None)
    assert tail.mean_s == pytest.approx(7.25e-6)
    ping = (
        "# OSU MPI Latency Test v5.9\n# Size          Latency (us)\n0                       1.75\n"
    )
    assert "Size: '0' is not a number above 0" in fault_of(tmp_path, ping)
    (tail,) = read(tmp_path, ping.replace("\n0 ", "\n1 ")).tails
    assert (tail.what, tail.collective) == ("point to point", None)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("8   10.5   9.0", "3 cells in a row, 5 in its head"),
        ("8   nan    9.0   12.0  1000", "Avg Latency(us): 'nan' is not a number above 0"),
        ("8   -1.5   9.0   12.0  1000", "Avg Latency(us): '-1.5' is not a number above 0"),
    ],
)
def test_a_broken_row_of_osu_is_left_out(row: str, words: str, tmp_path: Path) -> None:
    file = read(tmp_path, f"{OSU}{row}\n")
    assert len(file.tails) == 2
    assert file.skipped == ((6, words, 1),)


def test_a_bandwidth_test_alone_is_refused(tmp_path: Path) -> None:
    text = "# OSU MPI Bandwidth Test v7.4\n# Size      Bandwidth (MB/s)\n1    2.5\n"
    assert "line 1: Bandwidth: no latencies" in fault_of(tmp_path, text)


def test_gpcnet_rows_of_latency_are_read_and_ratios_are_not() -> None:
    file = read_tails(SAMPLES / "gpcnet-64.txt")
    ping, reduce_ = file.tails
    assert file.format == "GPCNeT"
    assert ping.printed_s == pytest.approx({"p99_s": 4.1e-6, "p999_s": 9.8e-6})
    assert ping.mean_s == pytest.approx(2.4e-6)
    assert (reduce_.what, reduce_.size_bytes, reduce_.count) == (
        "Multiple Allreduce (8 B)",
        8,
        None,
    )
    assert reduce_.notes == ("Isolated Network Tests", "a job of 64 ranks on 8 nodes")
    assert file.skipped == ()


def test_gpcnet_columns_of_newer_versions_are_found_by_name(tmp_path: Path) -> None:
    text = (
        "  | Network Tests running with Congestion Tests |\n"
        "  |  Name |  Min |  Max |  Avg |  Avg(Worst) |  99% |  99.9% |  Units |\n"
        "  |  RR Two-sided Lat (8 B) | 1.1 | 99.0 | 2.0 | 2.2 | 4.0 | 8.0 | usec |\n"
        "  |  RR Two-sided Lat (8 B) | 1.1 | 99.0 | nan | 2.2 | 4.0 | 8.0 | usec |\n"
        "  |  RR Two-sided Lat (8 B) | 1.1 | 99.0 |\n"
    )
    file = read(tmp_path, text)
    (tail,) = file.tails
    assert tail.printed_s == pytest.approx({"p99_s": 4e-6, "p999_s": 8e-6})
    assert [(skip.line, skip.reason) for skip in file.skipped] == [
        (4, "Avg: 'nan' is not a number above 0"),
        (5, "3 cells in a row, 8 in its head"),
    ]


def test_nccl_tests_print_means_and_say_so(tmp_path: Path) -> None:
    file = read(tmp_path, whole())
    first = file.tails[0]
    assert file.format == "nccl-tests or rccl-tests"
    assert (first.collective, first.size_bytes, first.ranks, first.nodes, first.count) == (
        Collective.ALL_REDUCE,
        8,
        16,
        2,
        20,
    )
    assert first.mean_s == pytest.approx(20e-6, rel=1e-3)
    assert first.printed_s is None
    assert first.samples_s is None
    assert "a mean of 20 calls" in first.notes[0]


def test_a_cut_text_of_nccl_tests_is_refused_with_its_line(tmp_path: Path) -> None:
    text = whole()
    assert "ends before its table" in fault_of(tmp_path, text[: text.index("#  Rank  1 ")])


def test_a_csv_of_samples_is_grouped_by_what_stands_beside(tmp_path: Path) -> None:
    rows = ["time_us,collective,size_bytes,ranks"]
    rows += [f"{t},all_reduce,8,16\n{t * 2},AllGather,1024,16" for t in (3, 1, 2)]
    one, other = read(tmp_path, "\n".join(rows)).tails
    assert (one.collective, one.size_bytes, one.ranks) == (Collective.ALL_REDUCE, 8, 16)
    assert (other.collective, other.size_bytes) == (Collective.ALL_GATHER, 1024)
    assert (us(one), us(other)) == ([1, 2, 3], [2, 4, 6])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("latency_ms\n1\nnan\n", "line 3: latency_ms: 'nan' is no latency"),
        ("latency_ns,time_us\n1,1\n", "several of times"),
        ("latency_ns,ranks\n5,many\n", "ranks: 'many' is not a whole number"),
        ("latency_ns,ranks\n5,\n6\n", "line 3: latency_ns: 1 cells in a row, 2 in the head"),
        ("latency_ns\n", "CSV of samples without a measurement"),
    ],
)
def test_a_broken_csv_of_samples_is_refused(text: str, words: str, tmp_path: Path) -> None:
    assert words in fault_of(tmp_path, text)


ROWS = "what,value,unit,hardware,stat,size_bytes,nodes,n_samples\n"


def test_published_percentiles_are_put_together(tmp_path: Path) -> None:
    text = ROWS + "".join(
        f"barrier,{value},{unit},{hardware},{stat},16,4,1000\n"
        for hardware in ("left", "right")
        for value, unit, stat in ((5, "us", "p50"), (0.02, "ms", "p99"), (900, "us", "max"))
    )
    left, right = read(tmp_path, text).tails
    assert (left.what, right.what) == ("barrier / left", "barrier / right")
    assert left.printed_s == pytest.approx({"p50_s": 5e-6, "p99_s": 20e-6})
    assert left.largest_s == pytest.approx(900e-6)
    assert (left.nodes, left.size_bytes, left.count) == (4, 16, 1000)


def test_published_samples_are_samples_and_other_units_are_passed_over(tmp_path: Path) -> None:
    text = ROWS + "".join(f"call,{value},us,box,sample,8,1,\n" for value in (3, 1, 2))
    (tail,) = read(tmp_path, text + "call,80,GB/s,box,p50,8,1,\n").tails
    assert us(tail) == [1, 2, 3]


def test_broken_rows_of_percentiles_are_told(tmp_path: Path) -> None:
    text = ROWS + "a,5,us,box,p50,8,1,99\na,1-2,us,box,p90,8,1,99\na,9,us\n"
    file = read(tmp_path, text)
    assert file.tails[0].printed_s == pytest.approx({"p50_s": 5e-6})
    assert [(skip.line, skip.reason) for skip in file.skipped] == [
        (3, "value: '1-2' is not a number above 0"),
        (4, "3 cells in a row, 8 in the head"),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"\x89PNG\r\n\x1a\n\0\0", "binary, no text"),
        (b"a,b\n1,2\n", "of no known format"),
        (b"size 8 took 5 us\n", "of no known format"),
    ],
)
def test_what_is_of_no_format_is_refused_and_the_formats_are_named(
    content: bytes, words: str, tmp_path: Path
) -> None:
    text = fault_of(tmp_path, content)
    assert text.startswith(f"file: {words}; give JSON of NCCL Inspector, a text of the OSU ")


TAILS = sorted(SAMPLES.iterdir())


@pytest.mark.parametrize("path", TAILS, ids=lambda path: path.name)
def test_every_sample_is_read_whole(path: Path) -> None:
    file = read_tails(path)
    assert file.tails
    assert file.skipped == ()


@pytest.mark.parametrize("path", TAILS, ids=lambda path: path.name)
def test_a_cut_or_damaged_sample_is_read_in_part_or_refused(path: Path, tmp_path: Path) -> None:
    whole_text, places = read_bytes(path), set()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole_text), size=40).tolist():
        damaged = bytearray(whole_text[:4000])
        damaged[place % len(damaged)] = int(rng.integers(1, 256))
        for content in (whole_text[: min(place, 4000)], bytes(damaged)):
            try:
                tails = read(tmp_path, content).tails
            except MeasurementError as error:
                places.add(error.where)
            else:
                assert tails
    assert places == {str(tmp_path / "file")}


def test_a_byte_order_mark_is_no_part_of_the_head(tmp_path: Path) -> None:
    assert us(read(tmp_path, b"\xef\xbb\xbflatency_us\n5\n").tails[0]) == [5]

"""Noise traces: read whole, warm-up dropped and told, bad rows refused with their line."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from topology.errors import MeasurementError
from topology.measured.sample_columns import SampleTable
from topology.measured.trace import Trace, read_trace, warm_up_count

SAMPLES = Path(__file__).parents[3] / "samples"


def steady(count: int) -> list[float]:
    """Latencies of 1,000 to 1,100 ns in an order that repeats."""
    return [1000.0 + (37 * i) % 101 for i in range(count)]


def written(folder: Path, rows: Sequence[object], *, head: str = "latency_ns") -> Path:
    path = folder / "trace.csv"
    path.write_text("\n".join([head, *map(str, rows)]) + "\n")
    return path


def fault_of(folder: Path, rows: Sequence[object], *, head: str = "latency_ns") -> str:
    with pytest.raises(MeasurementError) as caught:
        read_trace(written(folder, rows, head=head))
    assert caught.value.remedy
    return str(caught.value).removeprefix(f"{folder}/")


def test_latencies_come_out_ascending_and_in_seconds(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, steady(1000)))
    found = trace.latencies_s[None]
    assert found.tolist() == pytest.approx(np.sort(steady(1000)[20:]) * 1e-9)
    assert trace.rows == 1000
    assert not found.flags.writeable


def test_a_steady_trace_loses_its_first_two_percent_and_says_so(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, steady(5000)))
    assert trace.warm_up == {None: 100}
    assert trace.warm_up_text.startswith("100 of 5,000 rows dropped as warm-up: the first 2%")


def test_a_slow_start_is_dropped_whole(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, [9e6] * 65 + steady(1000)))
    assert trace.warm_up == {None: 65}
    assert trace.latencies_s[None].max() < 2e-6


def test_no_more_than_a_tenth_is_called_warm_up() -> None:
    assert warm_up_count(np.array([9.0] * 500 + steady(500))) == 20
    assert warm_up_count(np.array([9e6] * 500 + steady(1000))) == 150


def test_a_short_trace_keeps_a_hundred_rows(tmp_path: Path) -> None:
    for rows, dropped in ((100, 0), (101, 1), (200, 4)):
        trace = read_trace(written(tmp_path, steady(rows)))
        assert trace.warm_up == {None: dropped}


def test_link_classes_are_kept_apart(tmp_path: Path) -> None:
    rows = [f"{a},ib_ndr_1hop\n{a + 5000},ib_ndr_3hop" for a in steady(200)]
    trace = read_trace(written(tmp_path, rows, head="latency_ns,link_class"))
    assert {name: len(found) for name, found in trace.latencies_s.items()} == {
        "ib_ndr_1hop": 196,
        "ib_ndr_3hop": 196,
    }
    assert trace.latencies_s["ib_ndr_3hop"].min() >= 6000e-9


def test_a_trace_without_classes_has_one_for_all(tmp_path: Path) -> None:
    assert list(read_trace(written(tmp_path, steady(300))).latencies_s) == [None]


def test_further_columns_quotes_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    rows = [f'{i},"ib, far",{a}\r' for i, a in enumerate(steady(200))]
    trace = read_trace(written(tmp_path, rows, head="number,link_class,latency_ns\r"))
    assert list(trace.latencies_s) == ["ib, far"]
    assert len(trace.latencies_s["ib, far"]) == 196


def test_a_packed_trace_is_read_like_a_plain_one(tmp_path: Path) -> None:
    plain = written(tmp_path, steady(400))
    packed = tmp_path / "trace.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    one, other = read_trace(plain), read_trace(packed)
    assert (one.latencies_s[None] == other.latencies_s[None]).all()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("nan", "'nan' is no latency"),
        ("inf", "'inf' is no latency"),
        ("-3", "'-3' is not above 0"),
        ("0", "'0' is not above 0"),
        ("fast", "'fast' is not a number"),
        ("12,5", "2 cells in a row, 1 in the head"),
        ("2e12", "'2e12' is more than 1000 s"),
    ],
)
def test_what_is_no_latency_is_refused_with_its_line(row: str, words: str, tmp_path: Path) -> None:
    text = fault_of(tmp_path, [*steady(150), row, *steady(10)])
    assert text.startswith(f"trace.csv: line 152: latency_ns: {words}; ")


def test_lines_are_counted_with_the_empty_ones(tmp_path: Path) -> None:
    assert "line 154" in fault_of(tmp_path, [*steady(150), "", "", "x"])


def test_a_row_cut_before_its_last_cell_is_refused(tmp_path: Path) -> None:
    rows = [*(f"{a},ib" for a in steady(150)), "1000"]
    text = fault_of(tmp_path, rows, head="latency_ns,link_class")
    assert "line 152: latency_ns: 1 cells in a row, 2 in the head" in text


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    assert "10 rows, which tell no tail; measure at least 100" in fault_of(tmp_path, steady(10))
    assert "0 rows" in fault_of(tmp_path, [])
    rows = [*(f"{a},near" for a in steady(150)), "1000,far"]
    text = fault_of(tmp_path, rows, head="latency_ns,link_class")
    assert "1 row of link_class far, which tell no tail" in text


def test_other_columns_are_named(tmp_path: Path) -> None:
    text = fault_of(tmp_path, ["1,2"] * 200, head="latency_us,size")
    assert "line 1: no column latency_ns among latency_us, size" in text
    text = fault_of(tmp_path, ["1,2"] * 200, head="latency_ns,latency_ns")
    assert "a column twice" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b" \n\n", "empty"), (b"latency_ns\n\0\1\2", "binary, no text")],
)
def test_an_empty_or_binary_file_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(content)
    with pytest.raises(MeasurementError, match=words):
        read_trace(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="no such file"):
        read_trace(tmp_path / "none.csv")


def test_a_column_of_a_thousand_words_is_no_link_class() -> None:
    words = np.array([f"w{i}".encode() for i in range(1002)])
    with pytest.raises(MeasurementError, match="over 1000 kinds"):
        SampleTable("file", np.ones(1002), {"link_class": words}).groups(("link_class",))


def test_the_sample_trace_is_read_without_its_slow_start() -> None:
    trace: Trace = read_trace(SAMPLES / "tails" / "noise-trace.csv")
    assert trace.warm_up == {"ib_ndr_1hop": 9, "ib_ndr_3hop": 9}

"""Reading measured samples: ten million rows in seconds, time in proportion to the rows."""

import time
from pathlib import Path

import numpy as np
import pytest

from topology.measured.tail_files import read_tails
from topology.measured.trace import read_trace

pytestmark = pytest.mark.bench


def written(folder: Path, rows: int, *, classes: bool) -> Path:
    """Log-normal latencies of about 2 us, one link class in turn with another or none."""
    latency_ns = np.exp(np.random.default_rng(0).normal(7.6, 0.3, rows))
    path = folder / f"{rows}-{classes}.csv"
    with open(path, "w") as file:
        file.write("latency_ns,link_class\n" if classes else "latency_ns\n")
        ends = (",ib_ndr_1hop\n", ",ib_ndr_3hop\n") if classes else ("\n", "\n")
        file.writelines(f"{value:.1f}{ends[i % 2]}" for i, value in enumerate(latency_ns))
    return path


@pytest.mark.parametrize("classes", [False, True])
def test_a_trace_of_ten_million_rows(
    classes: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spent_s = {}
    for rows in (1_000_000, 10_000_000):
        path = written(tmp_path, rows, classes=classes)
        start = time.perf_counter()
        trace = read_trace(path)
        spent_s[rows] = time.perf_counter() - start
        assert sum(map(len, trace.latencies_s.values())) == rows * 98 // 100
        path.unlink()
    small, large = spent_s.values()
    with capsys.disabled():
        word = "with" if classes else "without"
        print(
            f"\ntrace {word} link classes: 10 million rows {large:.2f} s, 1 million {small:.2f} s"
        )
    assert large / small < 20


def test_a_million_samples_of_a_collective(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, 1_000_000, classes=True)
    start = time.perf_counter()
    file = read_tails(path)
    spent_s = time.perf_counter() - start
    with capsys.disabled():
        print(f"\n1 million samples of two link classes: {spent_s:.2f} s")
    assert [tail.count for tail in file.tails] == [500_000, 500_000]

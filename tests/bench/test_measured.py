"""Measured runs: validating the whole calibration set under 10 s, one prediction under 100 us.

Calibrating it, every machine held out once, is to take less than 5 minutes on two cores.
"""

import time
from pathlib import Path

import pytest

from tests.topology.command import topology
from topology.latency.model import make_model
from topology.measured.observed import observe
from topology.measured.runs import read_runs

MEASURED = Path(__file__).parents[3] / "shared" / "data" / "measured"
TABLES = ("--runs", MEASURED / "runs.csv", "--points", MEASURED / "points.csv")
pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not MEASURED.is_dir(), reason="shared/data/measured is not there"),
]


def test_validating_the_whole_set_takes_less_than_10_s() -> None:
    start = time.perf_counter()
    done = topology("validate", *TABLES)
    took_s = time.perf_counter() - start
    print(f"validate, reading included: {took_s:.1f} s")
    assert done.code == 0, done.out
    assert took_s < 10


def test_calibrating_the_whole_set_takes_less_than_5_minutes(tmp_path: Path) -> None:
    start = time.perf_counter()
    done = topology("calibrate", *TABLES, "-o", tmp_path / "c.toml")
    took_s = time.perf_counter() - start
    print(f"calibrate, every machine held out once: {took_s:.0f} s")
    assert done.code == 0, done.err
    assert took_s < 300


def test_one_prediction_takes_less_than_100_us() -> None:
    seen, _ = observe(read_runs(MEASURED / "runs.csv", MEASURED / "points.csv").runs[:1])
    model = make_model(seen[0].job, seen[0].operation)
    sizes = [2.0**k for k in range(3, 33)] * 100
    model.predict(8.0)
    start = time.perf_counter()
    for size in sizes:
        model.predict(size)
    each_s = (time.perf_counter() - start) / len(sizes)
    print(f"one prediction, warm: {each_s * 1e6:.0f} us")
    assert each_s < 100e-6

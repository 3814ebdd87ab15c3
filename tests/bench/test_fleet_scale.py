"""Build, save and load a synthetic fleet. Goal: 10,000 GPUs in under 5 s and 500 MB."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.bench

SCRIPT = """
import json, resource, sys, time
from fleet import fleet_from_spec, load_fleet, save_fleet
start = time.perf_counter(); fleet = fleet_from_spec(sys.argv[1]); built = time.perf_counter()
save_fleet(fleet, sys.argv[2]); saved = time.perf_counter()
again = load_fleet(sys.argv[2]); loaded = time.perf_counter()
assert again == fleet
print(json.dumps({
    "gpus": fleet.gpu_count, "build_s": built - start, "save_s": saved - built,
    "load_s": loaded - saved,
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def measure(spec: str, path: Path) -> dict[str, float]:
    """One run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, spec, str(path)], check=True, capture_output=True, text=True
    )
    return {name: float(value) for name, value in json.loads(done.stdout).items()}


@pytest.mark.parametrize("ending", [".json", ".json.gz"])
def test_a_fleet_of_ten_thousand_gpus(ending: str, tmp_path: Path) -> None:
    small = measure("model:dgx-h100 node:125", tmp_path / f"small{ending}")
    large = measure("model:dgx-h100 node:1250", tmp_path / f"large{ending}")
    total = {
        n: row["build_s"] + row["save_s"] + row["load_s"] for n, row in (("s", small), ("l", large))
    }
    size = (tmp_path / f"large{ending}").stat().st_size
    print(
        f"\n{ending}: {large['gpus']:.0f} GPUs built {large['build_s']:.2f} s, saved "
        f"{large['save_s']:.2f} s, loaded {large['load_s']:.2f} s, {total['l']:.2f} s in all, "
        f"peak {large['peak_mib']:.0f} MiB, {size / 1e6:.1f} MB; "
        f"{total['l'] / total['s']:.1f} times the time of a tenth of it"
    )

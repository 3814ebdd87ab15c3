"""Simulation speed: a cold command, all included."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.bench


@pytest.mark.parametrize("size", ["8", "1MiB", "1GiB"])
def test_a_cold_command(size: str, root: Path) -> None:
    program = Path(sys.executable).parent / "topology"
    words = f"simulate samples/fleets/dgx-h100-9-ib.json --collective all_reduce --size {size}"
    start = time.perf_counter()
    subprocess.run([str(program), *words.split()], cwd=root, check=True, capture_output=True)
    print(f"\ntopology {words}: {time.perf_counter() - start:.2f} s cold, all included")

"""How long --help takes, as a ratio to a bare two-command Typer app's, and a cold simulation.

Goals: --help below 1.5 times; ``topology simulate`` on a sample, all included, below 1.5 s.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

BARE = """
import typer
app = typer.Typer()
@app.command()
def one(x: int = 1) -> None: ...
@app.command()
def two(x: int = 1) -> None: ...
app()
"""
RUNS = 9

pytestmark = pytest.mark.bench


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


@pytest.mark.parametrize("name", ["fleet", "topology"])
def test_help_against_a_bare_app(name: str, tmp_path: Path) -> None:
    script = tmp_path / "bare.py"
    script.write_text(BARE)
    bare = [sys.executable, str(script), "--help"]
    ours = [str(Path(sys.executable).parent / name), "--help"]
    pairs = [(seconds(ours), seconds(bare)) for _ in range(RUNS)][1:]
    ratios = sorted(a / b for a, b in pairs)
    print(
        f"\n{name} --help: {statistics.median(a for a, _ in pairs) * 1e3:.0f} ms, "
        f"bare app {statistics.median(b for _, b in pairs) * 1e3:.0f} ms, "
        f"ratio median {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


COLD = """
import sys, time
start = time.perf_counter()
import topology.cli, topology.latency.simulate
imported = time.perf_counter()
from fleet import load_fleet
from topology.fabric.from_fleet import Fabric
from topology.collective.placement import pack
fleet = load_fleet(sys.argv[1])
loaded = time.perf_counter()
fabric = Fabric(fleet)
placement = pack(fabric, int(sys.argv[2]))
placed = time.perf_counter()
from topology.latency.scenario import Scenario
from topology.words import Collective
topology.latency.simulate.simulate(fabric, placement, Scenario(Collective.ALL_REDUCE, 2**20))
done = time.perf_counter()
times = [imported - start, loaded - imported, placed - loaded, done - placed]
print(" ".join(f"{t * 1e3:.0f}" for t in times))
"""


@pytest.mark.parametrize(
    ("sample", "gpus"),
    [("dgx-h100-9-ib.json", 72), ("gb200-nvl72-2.json.gz", 72), ("dgx-h100-32.json.gz", 256)],
)
def test_a_cold_simulation(sample: str, gpus: int, root: Path) -> None:
    program = str(Path(sys.executable).parent / "topology")
    path = str(root / "samples" / "fleets" / sample)
    words = ["simulate", path, "--collective", "all_reduce", "--size", "1MiB", "--gpus", str(gpus)]
    took_s = sorted(seconds([program, *words]) for _ in range(5))
    bare_s = min(seconds([sys.executable, "-c", "import numpy, typer, pydantic"]) for _ in range(3))
    stages = subprocess.run(
        [sys.executable, "-c", COLD, path, str(gpus)], check=True, capture_output=True, text=True
    )
    print(
        f"\n{gpus} GPUs of {sample}: {took_s[0]:.2f} s cold, all included (median "
        f"{took_s[2]:.2f} s), {took_s[0] / bare_s:.1f} times the imports of numpy, typer and "
        f"pydantic; import, load, place, simulate: {stages.stdout.strip()} ms"
    )

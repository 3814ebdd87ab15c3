"""How long --help takes, as a ratio to the --help of a bare two-command Typer app. Goal: < 1.5."""

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

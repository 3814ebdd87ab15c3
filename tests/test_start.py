"""The console scripts: where they begin, and that an interrupt there is no traceback."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

INTERRUPTS = "import os, signal; os.kill(os.getpid(), signal.SIGINT)\n"


def started(package: str, folder: Path, **modules: str) -> subprocess.CompletedProcess[str]:
    """The entry point in a process of its own, which finds these modules first."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from {package}.start import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", program, "--help"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("package", ["fleet", "topology"])
def test_ctrl_c_while_modules_load_is_exit_130_and_no_word(package: str, tmp_path: Path) -> None:
    done = started(package, tmp_path, typer=INTERRUPTS)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("package", ["fleet", "topology"])
def test_any_other_error_while_modules_load_is_told(package: str, tmp_path: Path) -> None:
    done = started(package, tmp_path, typer="raise ImportError('no typer here')\n")
    assert done.returncode == 1
    assert done.stderr.endswith("ImportError: no typer here\n")


def test_the_scripts_begin_there(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"fleet": "fleet.start:main", "topology": "topology.start:main"}

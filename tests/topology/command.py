"""Runs the ``topology`` command, in this process or as the installed script, on some maps."""

import os
import subprocess
import sys
from pathlib import Path

from fleet import fleet_from_spec, save_fleet
from fleet.merge import merge_snapshots
from tests.commands import Done, run_here

PROGRAMS = Path(sys.executable).parent
ALL_REDUCE = ("--collective", "all_reduce", "--size", "64KiB")
WORK = "kind: workload\nschema_version: 1\nname: w\ncollective: all_reduce\nsize_bytes: 64KiB\n"


def topology(*words: str | Path, stdin: bytes = b"") -> Done:
    """Run the command line in this process, exit code included."""
    return run_here("topology", *words, stdin=stdin)


def shell(command: str, folder: Path) -> Done:
    """Run installed scripts in a shell."""
    environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def refused(done: Done, *, code: int = 2) -> str:
    """The one line of a refusal."""
    assert done.code == code, f"{done.code}: {done.out}{done.err}"
    assert done.out == ""
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


def write_maps(folder: Path) -> Path:
    """Maps of two and eight DGX H100, of some GPUs held, without cables, without anything."""
    dgx = fleet_from_spec("model:dgx-h100 node:2")
    save_fleet(dgx, folder / "dgx.json")
    save_fleet(dgx, folder / "dgx.json.gz")
    save_fleet(fleet_from_spec("model:dgx-h100 node:8"), folder / "dgx8.json")
    save_fleet(fleet_from_spec("model:dgx-h100 node:4 busy:8,2,5,8"), folder / "busy.json")
    save_fleet(dgx.model_copy(update={"cables": (), "switches": ()}), folder / "bare.json")
    save_fleet(merge_snapshots([]), folder / "empty.json")
    (folder / "work.yaml").write_text(f"{WORK}gpus: 8\n")
    return folder


def simulate(maps: Path, *words: str | Path, name: str = "dgx.json") -> Done:
    """A short simulation on one of the maps."""
    return topology("simulate", maps / name, *ALL_REDUCE, "--trials", "500", *words)

"""gpustat, nvitop and fleet on one faulty machine: eight GPUs of the C stub, one of them bad.

python -m tests.bench.compare_tools CACHE prints a table for the README. The other tools are
installed in a virtual environment of their own below CACHE, from the package index, at the versions
named here.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fleet.faults import device_faults
from fleet.model import FleetMap
from fleet.store import document_from_bytes
from tests.fakes.nvml_profiles import profile_named, with_faults
from tests.fakes.nvml_stub import built

VERSIONS = {"gpustat": "1.1.1", "nvitop": "1.7.2"}
PATIENCE_S = 10.0
DEADLINE = "0.5s"
BAD = 3
H100 = profile_named("h100-8")
MACHINES = {
    "none": H100,
    "one lost": with_faults(H100, BAD, lost=True),
    "one not permitted": with_faults(H100, BAD, no_permission=True),
    "one hung": with_faults(H100, BAD, hang="nvmlDeviceGetName"),
}
NVITOP_ROW = re.compile(r"^│ +[0-9]+ +(?P<name>\S.*?) +\S+ │", re.MULTILINE)


@dataclass(frozen=True)
class Tool:
    """A command and how the GPUs in its output are counted: in full, and told to be bad."""

    name: str
    command: tuple[str, ...]
    counted: Callable[[bytes], tuple[int, int]]


@dataclass(frozen=True)
class Run:
    """What one run showed; an exit code of None: it had to be killed."""

    full: int
    bad: int
    exit_code: int | None
    seconds: float

    def __str__(self) -> str:
        if self.exit_code is None:
            return f"**never returns** (still running at {PATIENCE_S:.0f} s)"
        told = f"{self.full} GPUs" if self.full or self.bad else "no output"
        told += f" and what is wrong with {self.bad}" if self.bad else ""
        return f"{told}, exit {self.exit_code}, {self.seconds:.1f} s"


def gpus_of_gpustat(output: bytes) -> tuple[int, int]:
    """A lost GPU stands in the list with a name in brackets."""
    names = [str(gpu["name"]) for gpu in json.loads(output)["gpus"]] if output.strip() else []
    bad = sum(name.startswith("((") for name in names)
    return len(names) - bad, bad


def gpus_of_nvitop(output: bytes) -> tuple[int, int]:
    """A lost GPU stands in the table with an error for a name."""
    gpus = output.decode().partition("Processes:")[0]
    names = [match["name"] for match in NVITOP_ROW.finditer(gpus)]
    bad = sum(name.startswith("ERROR") for name in names)
    return len(names) - bad, bad


def gpus_of_fleet(output: bytes) -> tuple[int, int]:
    """A bad GPU has an absence of the whole device, with the reason."""
    fleet = document_from_bytes(output, where="fleet")
    assert isinstance(fleet, FleetMap)
    (node,) = fleet.nodes
    bad = {fault.slot for fault in device_faults(node)}
    return sum(gpu.slot not in bad for gpu in node.gpus), len(bad)


def installed_tools(cache: Path) -> Path:
    """Folder of the other tools' commands, made where it is missing."""
    scripts = cache / "compared" / "bin"
    wanted = [f"{name}=={version}" for name, version in VERSIONS.items()]
    if not all((scripts / name).exists() for name in VERSIONS):
        subprocess.run([sys.executable, "-m", "venv", scripts.parent], check=True)
        pip = [
            str(scripts / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, *wanted], check=True)
    return scripts


def tools(scripts: Path) -> tuple[Tool, ...]:
    """The three, in the order of the table."""
    fleet = str(Path(sys.executable).parent / "fleet")
    ours = (fleet, "inventory", "--json", "--deadline", DEADLINE)
    gpustat, nvitop = (f"{name} {version}" for name, version in VERSIONS.items())
    return (
        Tool(gpustat, (str(scripts / "gpustat"), "--json"), gpus_of_gpustat),
        Tool(nvitop, (str(scripts / "nvitop"), "-1"), gpus_of_nvitop),
        Tool(f"fleet inventory --deadline {DEADLINE}", ours, gpus_of_fleet),
    )


def run(tool: Tool, environment: dict[str, str]) -> Run:
    """One run with an end: what still runs then is killed with all that it started."""
    start = time.monotonic()
    process = subprocess.Popen(
        tool.command,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Run(0, 0, None, time.monotonic() - start)
    return Run(*tool.counted(output), process.returncode, time.monotonic() - start)


def table(cache: Path) -> str:
    """The comparison as Markdown; a cell is the second of two runs, so that files are cached."""
    compared = tools(installed_tools(cache))
    rows = [["fault", *(tool.name for tool in compared)], ["---"] * (len(compared) + 1)]
    with tempfile.TemporaryDirectory() as folder:
        stub = built(Path(folder))
        for fault, machine in MACHINES.items():
            environment = stub.environment(machine)
            rows.append([fault, *(str(second_of_two(tool, environment)) for tool in compared)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def second_of_two(tool: Tool, environment: dict[str, str]) -> Run:
    """The second run; one that never returns is not asked again."""
    first = run(tool, environment)
    return first if first.exit_code is None else run(tool, environment)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path, help="folder for the other tools' environment")
    print(table(parser.parse_args().cache.resolve()), end="")


if __name__ == "__main__":
    main()

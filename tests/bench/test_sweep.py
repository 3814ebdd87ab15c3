"""A sweep of 1,000 simulated hosts, 2 % of them dead. Goal: under 60 s on two cores.

The transport is a stub of ssh with real processes: it runs the far side's command here, so that
far sides and collector share the machine; in a fleet each node bears its own part. The last dead
host alone adds its deadline to the time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fleet.gather.far import CAPTURE, script, stub_ssh, tools

pytestmark = pytest.mark.bench

HOSTS = 1000
DEAD_OF_100 = 2
DEADLINE_S = 20
PARALLEL = 32
"""Fewer than the default: 32 far sides on two cores are busy enough."""


PROGRAM = """
import json, resource, sys, time
from fleet.cli import app
start = time.perf_counter()
code = app(sys.argv[1:], standalone_mode=False)
took = time.perf_counter() - start
ours, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({
    "exit": code, "wall_s": took,
    "parent_cpu_s": ours.ru_utime + ours.ru_stime,
    "children_cpu_s": theirs.ru_utime + theirs.ru_stime,
    "parent_peak_mib": ours.ru_maxrss / 1024,
}), file=sys.stderr)
"""
NAMED_PYTHON = """exec {python} -I -S -c '
import os, socket, sys
socket.gethostname = lambda: os.environ["FAR_HOST"]
code, sys.argv = sys.argv[4], ["-c", *sys.argv[5:]]
exec(code)' "$@"
"""


OWN_GPUS = "s/GPU-[0-9a-f]*-[0-9a-f]*/GPU-0000$number-0000/; s/<serial>./<serial>$number/"


def far_side(folder: Path, kind: str) -> Path:
    """A stub ssh whose nodes have nvidia-smi and GPUs of their own, or python3 and no GPU."""
    ssh = stub_ssh(folder)
    dead = "|".join(f"*{number:02d}" for number in range(0, 100, 100 // DEAD_OF_100))
    cases = "case $FAR_HOST in\n"
    ssh.write_text(ssh.read_text().replace(cases, f"{cases}{dead}) exec sleep 600 ;;\n"))
    far = tools(folder / "far", "sed")
    if kind == "python3":
        (far / "nvidia-smi").unlink()
        python = Path(sys.base_prefix) / "bin" / "python3"
        script(far / "python3", NAMED_PYTHON.format(python=python))
    else:
        xml, topo = (CAPTURE / name for name in ("nvidia-smi-q.xml", "nvidia-smi-topo-m.txt"))
        script(
            far / "nvidia-smi",
            'number=${FAR_HOST#node}; case "$*" in '
            f'"-q -x") exec sed "{OWN_GPUS}" {xml} ;; *) exec cat {topo} ;; esac',
        )
    return ssh


@pytest.mark.parametrize("kind", ["nvidia-smi", "python3"])
def test_a_sweep_of_a_thousand_hosts(kind: str, tmp_path: Path) -> None:
    ssh = far_side(tmp_path, kind)
    words = ["gather", "--hosts", f"node[0000-{HOSTS - 1:04d}]", "--ssh", str(ssh)]
    words += [
        "--parallel",
        str(PARALLEL),
        "--deadline",
        f"{DEADLINE_S}s",
        "-o",
        str(tmp_path / "map.json"),
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False
    )
    found = json.loads(done.stdout)
    cost = json.loads(done.stderr.splitlines()[-1])
    assert found["summary"]["collected"] == HOSTS * (100 - DEAD_OF_100) // 100, found["summary"]
    assert {failure["reason"] for failure in found["failures"]} == {"timed_out"}
    print(
        f"\n{kind}: {HOSTS} hosts, {DEAD_OF_100} % dead, {found['map']['gpus']} GPUs on "
        f"{os.cpu_count()} cores: {cost['wall_s']:.1f} s, {HOSTS / cost['wall_s']:.0f} hosts/s, "
        f"CPU {cost['parent_cpu_s']:.1f} s here and {cost['children_cpu_s']:.1f} s in far sides, "
        f"peak {cost['parent_peak_mib']:.0f} MiB"
    )

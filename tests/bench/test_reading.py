"""One reading of eight GPUs: what a hung one costs beyond its deadline, what the child weighs."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleet.probe.report import child_command, read_node
from fleet.probe.supervise import Supervisor
from tests.fakes.nvml_machine import FakeProfile
from tests.fakes.nvml_profiles import profile_named, with_faults
from tests.fakes.nvml_stub import NvmlStub

pytestmark = pytest.mark.bench

H100 = profile_named("h100-8")
HUNG = with_faults(H100, 3, hang="nvmlDeviceGetSerial")
DEADLINE_S = 0.5
RUNS = 5


def command_s(stub: NvmlStub, machine: FakeProfile, code: int) -> float:
    """Median time of the installed command. [s]"""
    fleet = str(Path(sys.executable).with_name("fleet"))
    command = [fleet, "inventory", f"--deadline={DEADLINE_S}s", "--json"]
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        done = subprocess.run(
            command, env=os.environ | stub.environment(machine), stdout=subprocess.DEVNULL
        )
        times.append(time.perf_counter() - begun)
        assert done.returncode == code
    return statistics.median(times)


def cpu_s(pid: int) -> float:
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")


def test_a_hung_gpu_costs_little_more_than_its_deadline(nvml_stub: NvmlStub) -> None:
    sound, hung = command_s(nvml_stub, H100, 0), command_s(nvml_stub, HUNG, 3)
    supervisor = Supervisor(
        child_command(), deadline_s=DEADLINE_S, environment=os.environ | nvml_stub.environment(HUNG)
    )
    begun = time.perf_counter()
    read_node(supervisor)
    reading = time.perf_counter() - begun
    supervisor.close()
    print(
        f"\nfleet inventory: sound {sound:.2f} s, one of 8 GPUs hung {hung:.2f} s, which is "
        f"{hung - DEADLINE_S:.2f} s beyond the deadline; the reading alone "
        f"{reading - DEADLINE_S:.2f} s beyond it"
    )


def test_what_the_child_weighs_and_what_a_reading_costs(nvml_stub: NvmlStub) -> None:
    environment = os.environ | nvml_stub.environment(H100)
    supervisor = Supervisor(child_command(), environment=environment)
    read_node(supervisor)
    pid = supervisor.pid()
    assert pid is not None
    status = Path(f"/proc/{pid}/status").read_text()
    resident_kib = int(status.partition("VmHWM:")[2].split()[0])
    readings, begun, ours = 50, cpu_s(pid), time.process_time()
    for _ in range(readings):
        read_node(supervisor)
    child_ms = (cpu_s(pid) - begun) / readings * 1e3
    parent_ms = (time.process_time() - ours) / readings * 1e3
    supervisor.close()
    print(
        f"\nchild {resident_kib / 1024:.1f} MiB; a reading of 8 GPUs x 18 links costs the child "
        f"{child_ms:.0f} ms of CPU (its fake driver included), the parent {parent_ms:.0f} ms"
    )

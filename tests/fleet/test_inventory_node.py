"""``fleet inventory`` of this node: the installed command, with the C stub for a driver."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleet.store import load_fleet
from tests.commands import run_here
from tests.fakes.nvml_machine import FakeProfile
from tests.fakes.nvml_profiles import profile_named, with_faults
from tests.fakes.nvml_stub import NvmlStub

H100 = profile_named("h100-8")
FLEET = str(Path(sys.executable).with_name("fleet"))
IN_HUNG_CALL = "--deadline=600s"


def environment_of(stub: NvmlStub, machine: FakeProfile) -> dict[str, str]:
    return os.environ | stub.environment(machine)


def inventory(
    environment: dict[str, str], *arguments: str, code: int = 0
) -> subprocess.CompletedProcess[str]:
    command = [FLEET, "inventory", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done


def processes_with(mark: str) -> list[int]:
    """Living processes that have a text in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            alive = (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if entry.name.isdigit() and alive and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_for(count: int, mark: str) -> list[int]:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = processes_with(mark)
        if len(found) == count:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{processes_with(mark)} live, expected {count}")


def test_a_recording_replays_to_the_same_map(nvml_stub: NvmlStub, tmp_path: Path) -> None:
    environment = environment_of(nvml_stub, H100)
    inventory(environment, "--host=n1", "--record", str(tmp_path), "-o", str(tmp_path / "map.json"))
    kept = tmp_path / "n1.reading.json"
    again = run_here("fleet", "inventory", "--from", kept, "-o", tmp_path / "again.json")
    assert again.code == 0
    assert load_fleet(tmp_path / "again.json") == load_fleet(tmp_path / "map.json")


def test_a_recording_with_a_fault_replays_with_its_fault(
    nvml_stub: NvmlStub, tmp_path: Path
) -> None:
    machine = with_faults(H100, 3, hang="nvmlDeviceGetSerial")
    environment = environment_of(nvml_stub, machine)
    first = inventory(
        environment, "--host=n1", "--deadline=0.5s", "--record", str(tmp_path), code=3
    )
    again = run_here("fleet", "inventory", "--from", tmp_path)
    assert (again.code, again.out) == (3, first.stdout)


def test_a_redacted_recording_keeps_the_wiring_and_no_identity(
    nvml_stub: NvmlStub, tmp_path: Path
) -> None:
    environment = environment_of(nvml_stub, H100) | {"XDG_STATE_HOME": str(tmp_path / "state")}
    inventory(environment, "--host=secret-7", "--record", str(tmp_path / "r"), "--redact")
    (kept,) = (tmp_path / "r").iterdir()
    text = kept.read_text()
    assert "secret-7" not in kept.name + text
    for gpu in H100.gpus:
        assert str(gpu.uuid) not in text
        assert str(gpu.serial) not in text
    shown = run_here("fleet", "inventory", "--from", kept).out
    assert "NVIDIA H100 80GB HBM3" in shown
    assert "18 nvlink to switch" in shown


def test_redact_without_record_is_refused() -> None:
    done = run_here("fleet", "inventory", "--redact")
    assert done.code == 2
    assert done.err == "error: --redact: has no effect alone; add --record DIR\n"


def started(nvml_stub: NvmlStub) -> tuple["subprocess.Popen[bytes]", str]:
    """The command in the middle of a call that never returns, and the mark of its processes."""
    machine = with_faults(H100, 3, hang="nvmlDeviceGetSerial")
    environment = environment_of(nvml_stub, machine)
    mark = f"MARK={os.urandom(8).hex()}"
    name, _, value = mark.partition("=")
    process = subprocess.Popen(
        [FLEET, "inventory", IN_HUNG_CALL],
        env=environment | {name: value},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for(2, mark)
    return process, mark


def test_ctrl_c_leaves_nothing_behind(nvml_stub: NvmlStub) -> None:
    process, mark = started(nvml_stub)
    time.sleep(1.0)  # into the call that hangs; sooner would be a test of starting
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in stderr
    wait_for(0, mark)


def test_a_killed_command_takes_its_child_along(nvml_stub: NvmlStub) -> None:
    process, mark = started(nvml_stub)
    time.sleep(1.0)
    process.kill()
    process.communicate(timeout=20)
    wait_for(0, mark)


def test_a_folder_s_own_modules_are_not_imported(nvml_stub: NvmlStub, tmp_path: Path) -> None:
    for name in ("json", "pynvml", "select"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    command = [FLEET, "inventory", "--json"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment_of(nvml_stub, H100),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["nodes"][0]["gpus"]) == 8


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="a driver is here")
def test_a_machine_without_gpus_is_a_node_all_the_same(nvml_stub: NvmlStub, tmp_path: Path) -> None:
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    environment = os.environ | nvml_stub.no_library()
    shown = inventory(environment, "--root", str(tmp_path)).stdout
    assert shown.startswith("1 node, 0 GPUs, 1 shape\n")


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="a driver is here")
def test_neither_driver_nor_bus_is_nothing_collected(nvml_stub: NvmlStub, tmp_path: Path) -> None:
    environment = os.environ | nvml_stub.no_library()
    told = inventory(environment, "--root", str(tmp_path), code=4).stderr
    assert told.startswith("error: NVML: libnvidia-ml.so.1 is not found; install")

"""A whole reading by a real child: what hangs, dies or is missing costs only itself."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet.probe.report import child_command, read_node
from fleet.probe.supervise import Supervisor
from fleet.reading import NodeReading
from tests.fakes.nvml_profiles import profile_named, with_faults
from tests.fakes.nvml_stub import NvmlStub

H100 = profile_named("h100-8")
WEDGED_FILES = """
import time
from fleet.probe import child, files
content = files._content
def blocking(path):
    if "mlx5_0/ports/1/state" in path:
        time.sleep(600)
    return content(path)
files._content = blocking
child.main()
"""


def reading_of(environment: dict[str, str], root: Path, **options: Any) -> dict[str, Any]:
    supervisor = Supervisor(
        child_command(), deadline_s=1.0, environment=os.environ | environment, **options
    )
    try:
        return read_node(supervisor, str(root))
    finally:
        supervisor.close()


def chapters(reading: dict[str, Any]) -> list[tuple[str, str]]:
    return [(stop["chapter"], stop["reason"]) for stop in reading["stops"]]


def test_a_sound_node_is_read_without_a_stop(nvml_stub: NvmlStub, tmp_path: Path) -> None:
    reading = reading_of(nvml_stub.environment(H100), tmp_path)
    assert reading["stops"] == []
    assert reading["answers"]["nvmlDeviceGetCount()"] == {"value": 8}
    assert reading["answers"]["nvmlDeviceGetName(7)"] == {"value": "NVIDIA H100 80GB HBM3"}
    assert "nvmlDeviceGetP2PStatus(0,7,1)" in reading["answers"]
    NodeReading.model_validate_json(json.dumps(reading))


def test_a_hung_gpu_costs_its_chapter_and_its_pairs(nvml_stub: NvmlStub, tmp_path: Path) -> None:
    machine = with_faults(H100, 3, hang="nvmlDeviceGetSerial")
    reading = reading_of(nvml_stub.environment(machine), tmp_path)
    assert chapters(reading) == [("gpu 3", "timed_out")]
    assert reading["stops"][0]["at"] == "nvmlDeviceGetSerial(3)"
    answers = reading["answers"]
    assert "nvmlDeviceGetUUID(3)" in answers
    for other in (0, 1, 2, 4, 5, 6, 7):
        assert "value" in answers[f"nvmlDeviceGetSerial({other})"]
    assert "nvmlDeviceGetP2PStatus(2,4,0)" in answers
    assert not [key for key in answers if key.startswith("nvmlDeviceGetP2PStatus(3,")]


def test_a_driver_that_never_starts_is_asked_once(nvml_stub: NvmlStub, tmp_path: Path) -> None:
    machine = with_faults(H100, hang="nvmlInitWithFlags")
    reading = reading_of(nvml_stub.environment(machine), tmp_path)
    assert chapters(reading) == [("nvml", "timed_out")]
    assert reading["stops"][0]["waited_s"] == 4.0


SECOND_START_HANGS = """
import json, os, sys, time
def say(*lines):
    os.write(1, ("\\n".join(lines) + "\\n").encode())
say("?ready", ".")
started = False
for line in sys.stdin:
    chapter = json.loads(line)
    if chapter[0] in ("nvml", "gpu") and not started:
        say("?nvmlInit()")
        if os.path.exists(sys.argv[1]):
            time.sleep(600)
        started = open(sys.argv[1], "w")
    if chapter[0] == "nvml":
        say('=[["answers","nvmlInit()",{"value":true}],["answers","nvmlDeviceGetCount()",{"value":4}]]')
    if chapter == ["gpu", 1]:
        say("?call(1)")
        time.sleep(600)
    say('=[["answers","nvmlDeviceGetHandleByIndex(%s)",{"value":true}]]' % chapter[-1], ".")
"""


def test_a_driver_that_does_not_start_again_ends_its_part_of_the_reading(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SECOND_START_HANGS, str(tmp_path / "mark")]
    supervisor = Supervisor(command, deadline_s=0.2)
    reading = read_node(supervisor, str(tmp_path))
    supervisor.close()
    assert chapters(reading) == [
        ("gpu 1", "timed_out"),
        ("gpu 2", "timed_out"),
        ("gpu 3", "not_started"),
    ]
    assert reading["stops"][1]["at"] == "nvmlInit()"
    assert reading["answers"]["nvmlInit()"] == {"value": True}
    assert supervisor.starts == 3, "the last reads whose the processes are, without the driver"


def test_a_budget_that_is_spent_ends_the_reading(tmp_path: Path) -> None:
    supervisor = Supervisor(child_command())
    reading = read_node(supervisor, str(tmp_path), budget_s=-1.0)
    assert {reason for _, reason in chapters(reading)} == {"not_started"}
    assert supervisor.starts == 0


@pytest.fixture
def two_hcas(tmp_path: Path) -> Path:
    for name in ("mlx5_0", "mlx5_1"):
        port = tmp_path / "sys/class/infiniband" / name / "ports/1"
        port.mkdir(parents=True)
        (port / "link_layer").write_text("InfiniBand\n")
        (port / "state").write_text("4: ACTIVE\n")
        (port / "rate").write_text("400 Gb/sec (4X NDR)\n")
    return tmp_path


def test_a_hung_nic_costs_only_itself(two_hcas: Path) -> None:
    command = [sys.executable, "-P", "-c", WEDGED_FILES]
    supervisor = Supervisor(command, deadline_s=0.3)
    reading = read_node(supervisor, str(two_hcas), driver=False)
    supervisor.close()
    assert chapters(reading) == [("network", "timed_out")]
    assert "mlx5_0/ports/1" in reading["stops"][0]["at"]
    read = {path for path in reading["files"] if "mlx5_1/ports/1" in path}
    assert "/sys/class/infiniband/mlx5_1/ports/1/state" in read

"""The agent with the reader of this node, and the C stub of NVML for a driver."""

import os
import signal
import time
from pathlib import Path

import pytest

from fleet.sources.registry import gather_files
from tests.fakes.nvml_profiles import profile_named, with_faults
from tests.fakes.nvml_stub import NvmlStub
from tests.fleet.agent.running import PATIENCE_S, RunningAgent, agent_of_this_node
from tests.fleet.agent.test_metrics import value

H100 = profile_named("h100-8")
HANGS = with_faults(H100, 3, hang="nvmlDeviceGetSerial")


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_for_child(one: RunningAgent) -> int:
    """The process that reads."""
    until = time.monotonic() + PATIENCE_S
    while not (children := one.children()):
        assert time.monotonic() < until, one.said()
        time.sleep(0.01)
    return children[0]


def wait_until_gone(pid: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while is_alive(pid):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_node_is_read_served_and_spooled_again_and_again_by_one_child(
    nvml_stub: NvmlStub, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    environment = os.environ | nvml_stub.environment(H100)
    options = {"interval": "2s", "host": "gpu-001", "spool": str(spool)}
    with agent_of_this_node(tmp_path, environment, **options) as one:
        one.wait_until_ready()
        children = one.children()
        until = time.monotonic() + PATIENCE_S
        while (value(one.get("/metrics").text, "fleetmap_readings_total", result="good") or 0) < 2:
            assert time.monotonic() < until
        assert one.children() == children
        page = one.get("/metrics").text
        assert value(page, "fleetmap_gpus") == 8
        assert value(page, "fleetmap_device_faults") == 0
        assert one.end() == 0
    [node] = gather_files([spool]).fleet.nodes
    assert (node.host, len(node.gpus)) == ("gpu-001", 8)


def test_a_lost_gpu_is_a_number_and_the_others_are_read(
    nvml_stub: NvmlStub, tmp_path: Path
) -> None:
    environment = os.environ | nvml_stub.environment(with_faults(H100, 3, lost=True))
    with agent_of_this_node(tmp_path, environment) as one:
        one.wait_until_ready()
        page = one.get("/metrics").text
        assert value(page, "fleetmap_device_fault", device="gpu3", reason="gpu_lost") == 1
        assert value(page, "fleetmap_gpu_temperature_celsius", gpu="3") is None
        assert value(page, "fleetmap_gpu_temperature_celsius", gpu="4") is not None


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_an_agent_that_ends_in_a_hung_call_leaves_no_process(
    nvml_stub: NvmlStub, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    environment = os.environ | nvml_stub.environment(HANGS)
    with agent_of_this_node(tmp_path, environment) as one:
        child = wait_for_child(one)
        assert one.get("/-/live").status == 200
        assert one.end(number) == status
    wait_until_gone(child)
    assert "Traceback" not in one.said()

"""This node read again and again: the inventory now and then, the state each time."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.faults import device_faults
from fleet.model import NodeSnapshot
from fleet.node import NodeReader
from fleet.sources.reading import snapshot_from_reading
from tests.fakes.nvml import asked_here, installed
from tests.fakes.nvml_machine import FakeProfile
from tests.fakes.nvml_profiles import profile_named, with_faults
from tests.fakes.nvml_stub import NvmlStub, text_of_machine

H100 = profile_named("h100-8")
UNKNOWN_ERROR = 999
POWER, SERIAL = "nvmlDeviceGetPowerUsage", "nvmlDeviceGetSerial"
PROCESSES = "nvmlDeviceGetComputeRunningProcesses"
INVENTORY = "nvml devices"
Readers = Callable[..., NodeReader]


def calls_of_a_full_reading(gpu: int) -> int:
    with installed(H100) as lib:
        asked_here()
    return lib.counts[str(gpu)]


def after_the_first_reading(gpu: int, **faults: Any) -> FakeProfile:
    """A machine that is sound until it has been read once."""
    return with_faults(H100, gpu, after_calls=calls_of_a_full_reading(gpu), **faults)


@pytest.fixture
def readers(
    nvml_stub: NvmlStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Readers]:
    """Makes readers of a machine; a child that starts later reads what its file says by then."""
    made: list[NodeReader] = []

    def reader_of(machine: FakeProfile, **options: Any) -> NodeReader:
        for name, value in nvml_stub.environment(machine).items():
            monkeypatch.setenv(name, value)
        plain: dict[str, Any] = {"root": str(tmp_path), "deadline_s": 1.0, "inventory_every": 3}
        made.append(NodeReader(**plain | options))
        return made[-1]

    yield reader_of
    for reader in made:
        reader.close()


def times_of(snapshot: NodeSnapshot) -> dict[str, Any]:
    return {f"{s.source} {s.name}": s.collected_at for s in snapshot.sections}


def test_between_inventories_only_the_state_is_asked_anew(readers: Readers) -> None:
    returns = {POWER: UNKNOWN_ERROR, SERIAL: UNKNOWN_ERROR}
    reader = readers(after_the_first_reading(3, returns=returns))
    first, second, third, fourth = (reader.read_document()["answers"] for _ in range(4))
    refused = {"code": UNKNOWN_ERROR}
    assert "value" in first[f"{POWER}(3)"]
    assert second[f"{POWER}(3)"] == refused
    assert second[f"{SERIAL}(3)"] == third[f"{SERIAL}(3)"] == first[f"{SERIAL}(3)"]
    assert fourth[f"{SERIAL}(3)"] == refused, "the third after it asks for all"
    assert second.keys() == first.keys()


def test_a_state_reading_is_as_good_as_a_full_one(readers: Readers, tmp_path: Path) -> None:
    port = tmp_path / "sys/class/infiniband/mlx5_0/ports/1"
    port.mkdir(parents=True)
    (port / "state").write_text("4: ACTIVE\n")
    reader = readers(H100)
    first, second = reader.read(), reader.read()
    times = {"sections": ()}
    assert second.model_copy(update=times) == first.model_copy(update=times)


def test_files_of_the_network_are_read_anew(readers: Readers, tmp_path: Path) -> None:
    state = tmp_path / "sys/class/infiniband/mlx5_0/ports/1/state"
    state.parent.mkdir(parents=True)
    state.write_text("4: ACTIVE\n")
    reader = readers(H100)
    reader.read_document()
    state.write_text("1: DOWN\n")
    files = reader.read_document()["files"]
    assert files[f"/{state.relative_to(tmp_path)}"] == "1: DOWN\n"


def test_an_adapter_that_is_gone_is_gone_with_the_next_reading(
    readers: Readers, tmp_path: Path
) -> None:
    state = tmp_path / "sys/class/infiniband/mlx5_0/ports/1/state"
    state.parent.mkdir(parents=True)
    state.write_text("4: ACTIVE\n")
    reader = readers(H100)
    assert any("mlx5_0" in path for path in reader.read_document()["files"])
    (tmp_path / "sys/class/infiniband").rename(tmp_path / "unplugged")
    assert not [path for path in reader.read_document()["files"] if "mlx5_0" in path]


def test_processes_that_ended_are_gone(readers: Readers, tmp_path: Path) -> None:
    machine = H100.with_gpu(5, pids=(4711,))
    comm = tmp_path / "proc/4711/comm"
    comm.parent.mkdir(parents=True)
    comm.write_text("train\n")
    reader = readers(machine)
    assert reader.read_document()["answers"]["process(4711)"]["value"]["name"] == "train"
    comm.unlink()
    assert "process(4711)" not in reader.read_document()["answers"]


def test_a_gpu_that_does_not_tell_its_processes_any_more_has_none_left(readers: Readers) -> None:
    machine = with_faults(
        H100.with_gpu(5, pids=(4711,)),
        5,
        after_calls=calls_of_a_full_reading(5),
        returns={f"{PROCESSES}_v3": UNKNOWN_ERROR},
    )
    reader = readers(machine)
    first, second = reader.read(), reader.read()
    holders = [{p.slot for p in snapshot.processes or ()} for snapshot in (first, second)]
    assert holders[0] - holders[1] == {5}
    assert "allocations[gpu5]" in {absence.path for absence in second.absences}


def test_each_section_tells_its_own_time(readers: Readers) -> None:
    reader = readers(H100)
    first, second = (times_of(reader.read()) for _ in range(2))
    for name in ("nvml devices", "nvml links", "sysfs devices"):
        assert second[name] == first[name]
    for name in ("nvml health", "nvml use", "sysfs network"):
        assert second[name] > first[name]


def test_a_gpu_that_hangs_between_inventories_is_told_at_once(readers: Readers) -> None:
    hang = "nvmlDeviceGetMemoryInfo_v2"
    reader = readers(after_the_first_reading(3, hang=hang), inventory_every=100)
    first = reader.read()
    # The child that is started in place of the hung one finds the GPU hanging from the start.
    machine = with_faults(H100, 3, hang=hang)
    Path(os.environ["FLEETMAP_FAKE_NVML"]).write_text(text_of_machine(machine))
    second = reader.read()
    assert device_faults(first) == ()
    assert [(f.device, f.reason) for f in device_faults(second)] == [("gpu3", "timed_out")]
    assert times_of(second)[INVENTORY] > times_of(first)[INVENTORY], "all was read again"


def test_a_gpu_that_is_lost_between_inventories_is_told_at_once(readers: Readers) -> None:
    reader = readers(after_the_first_reading(3, lost=True), inventory_every=100)
    first, second = reader.read(), reader.read()
    assert device_faults(first) == ()
    assert [(f.device, f.reason) for f in device_faults(second)] == [("gpu3", "gpu_lost")]
    assert times_of(second)[INVENTORY] > times_of(first)[INVENTORY], "all was read again"


def test_while_a_gpu_does_not_answer_every_reading_is_a_full_one(readers: Readers) -> None:
    reader = readers(with_faults(H100, 3, lost=True), inventory_every=100)
    first, second = (times_of(reader.read()) for _ in range(2))
    assert second[INVENTORY] > first[INVENTORY]


def test_a_child_that_ended_between_readings_costs_no_more_than_a_full_reading(
    readers: Readers,
) -> None:
    reader = readers(H100, inventory_every=100)
    first = reader.read()
    assert reader.child_pid is not None
    os.kill(reader.child_pid, 9)
    second = reader.read()
    assert (device_faults(second), len(second.gpus)) == ((), 8)
    assert times_of(second)[INVENTORY] > times_of(first)[INVENTORY]


def test_what_was_checked_before_is_what_would_be_checked_now(readers: Readers) -> None:
    reader = readers(H100)
    reader.read()
    document = reader.read_document()
    reading, anew = reader.checked(document), readers(H100).checked(document)
    assert reading == anew
    assert snapshot_from_reading(reading) == snapshot_from_reading(anew)

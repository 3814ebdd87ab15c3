from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.errors import FleetError, NothingCollectedError, SnapshotError
from fleet.faults import device_faults
from fleet.fields import HostName
from fleet.merge import merge_snapshots
from fleet.model import NodeSnapshot
from fleet.reading import (
    LARGEST_READING_BYTES,
    Answer,
    CollectedAt,
    CommandOutput,
    NodeReading,
    Stop,
    StopReason,
    reading_from_bytes,
)
from fleet.sources.nvml import MOST_GPUS
from fleet.sources.reading import PCI_DEVICES, read, recognises, snapshot_from_reading
from fleet.store import bytes_from_document
from tests.contracts import assert_honest
from tests.fakes.nvml import NOON, asked_here, calls_of, installed
from tests.fakes.nvml_profiles import NAMES, profile_named

H100, L40S = profile_named("h100-8"), profile_named("l40s-2")
NO_LIBRARY = {"nvmlInit()": Answer(code=12)}
ASKED = CollectedAt(files=NOON, driver=NOON, outputs=NOON)


def reading_of(**special: Any) -> NodeReading:
    plain: dict[str, Any] = {
        "kind": "node_reading",
        "schema_version": 1,
        "host": HostName("n1"),
        "collected_at": ASKED,
    }
    return NodeReading(**plain | special)


def snapshot_of(**special: Any) -> NodeSnapshot:
    snapshot = snapshot_from_reading(reading_of(**special))
    assert_honest(snapshot)
    return snapshot


@pytest.mark.parametrize("name", NAMES)
def test_what_a_driver_answered_becomes_the_node(name: str) -> None:
    profile = profile_named(name)
    snapshot = snapshot_of(answers=dict(calls_of(profile).answers))
    assert [gpu.uuid for gpu in snapshot.gpus] == [gpu.uuid for gpu in profile.gpus]
    assert {section.source for section in snapshot.sections} == {"nvml", "sysfs"}


def test_without_driver_and_gpus_it_is_a_node_all_the_same() -> None:
    snapshot = snapshot_of(answers=NO_LIBRARY)
    assert (snapshot.gpus, device_faults(snapshot)) == ((), ())


def test_a_bus_that_could_not_be_listed_is_no_node_without_gpus() -> None:
    with pytest.raises(NothingCollectedError, match=r"NVML: libnvidia-ml\.so\.1 is not found"):
        snapshot_of(answers=NO_LIBRARY, unreadable={PCI_DEVICES: "EACCES"})


def test_a_driver_that_refuses_to_start_is_a_fault_even_if_the_bus_shows_no_gpu() -> None:
    (fault,) = device_faults(snapshot_of(answers={"nvmlInit()": Answer(code=18)}))
    assert fault.device == "GPUs"
    assert "different versions" in fault.detail


def test_a_call_that_hung_is_told_with_the_driver_s_own_words() -> None:
    stop = Stop(
        chapter="nvml",
        at="nvmlInit()",
        reason=StopReason.TIMED_OUT,
        waited_s=2.0,
        detail="nvmlInit() did not return within 2 s",
    )
    (fault,) = device_faults(snapshot_of(stops=(stop,)))
    assert (fault.device, fault.reason) == ("GPUs", "timed_out")
    assert "did not return within 2 s" in fault.detail


def test_a_network_that_was_given_up_is_told_of_the_kernel() -> None:
    stop = Stop(chapter="network", at="/sys/x", reason=StopReason.TIMED_OUT, waited_s=1.0)
    (fault,) = device_faults(snapshot_of(answers=NO_LIBRARY, stops=(stop,)))
    assert fault.device == "kernel"
    assert "/sys/x" in fault.detail


def test_nvidia_smi_speaks_where_the_library_is_not_there(root: Path) -> None:
    capture = root / "samples/captures/dgx-h100-01"
    outputs = {
        "nvidia-smi -q -x": (capture / "nvidia-smi-q.xml").read_text(),
        "nvidia-smi topo -m": (capture / "nvidia-smi-topo-m.txt").read_text(),
    }
    snapshot = snapshot_of(
        answers=NO_LIBRARY,
        outputs={name: CommandOutput(text=text, exit_code=0) for name, text in outputs.items()},
    )
    assert len(snapshot.gpus) == 8
    assert {s.source for s in snapshot.sections} == {"nvidia_smi", "nvidia_smi_topo", "sysfs"}
    assert {s.collected_at for s in snapshot.sections} == {NOON}


def test_a_command_that_did_not_end_is_told(root: Path) -> None:
    xml = (root / "samples/captures/dgx-h100-01/nvidia-smi-q.xml").read_text()
    stop = Stop(
        chapter="outputs",
        at="nvidia-smi topo -m",
        reason=StopReason.TIMED_OUT,
        waited_s=20.0,
    )
    outputs = {"nvidia-smi -q -x": CommandOutput(text=xml, exit_code=0)}
    (fault,) = device_faults(snapshot_of(answers=NO_LIBRARY, outputs=outputs, stops=(stop,)))
    assert fault.reason == "timed_out"
    assert "nvidia-smi topo -m" in fault.detail


def test_output_that_is_no_output_is_as_none() -> None:
    outputs = {"nvidia-smi -q -x": CommandOutput(text="NVIDIA-SMI has failed", exit_code=9)}
    assert snapshot_of(answers=NO_LIBRARY, outputs=outputs).gpus == ()


def test_a_reading_is_a_file_that_is_known_again() -> None:
    reading = reading_of(answers=dict(calls_of(L40S).answers))
    content = bytes_from_document(reading)
    assert recognises(content.decode()[:500])
    assert reading_from_bytes(content, where="x") == reading
    (snapshot,) = read(content, where="x", host=HostName("other"))
    assert snapshot == snapshot_from_reading(reading)
    assert snapshot.host == "n1"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "Invalid JSON"),
        (b"[" * 100_000, "recursion limit"),
        (b'{"kind":"node_reading","schema_version":1,"host":"../../etc"}', "host"),
        (b'{"kind":"node_reading","schema_version":1,"host":"a","more":1}', "more"),
        (b'{"kind":"node_reading","schema_version":2,"host":"a"}', "schema_version"),
        (b"x" * (LARGEST_READING_BYTES + 1), "more than"),
    ],
)
def test_what_is_no_reading_is_refused_with_its_place(content: bytes, words: str) -> None:
    with pytest.raises(SnapshotError, match=words) as caught:
        reading_from_bytes(content, where="gpu-7")
    assert str(caught.value).startswith("gpu-7: ")


def test_a_reading_that_lies_about_a_number_is_refused_and_named() -> None:
    answers = dict(calls_of(L40S).answers)
    answers["nvmlDeviceGetPcieReplayCounter(0)"] = Answer(value=-5)
    with pytest.raises(SnapshotError, match=r"n1: pcie_replays"):
        snapshot_from_reading(reading_of(answers=answers))


def test_two_nodes_of_one_kind_share_a_shape_though_one_has_a_silent_gpu() -> None:
    sound = snapshot_of(answers=dict(calls_of(H100).answers))
    answers = dict(calls_of(H100.with_gpu(3, every_code=15)).answers)
    sick = snapshot_of(answers=answers).model_copy(update={"host": HostName("n2")})
    fleet = merge_snapshots([sound, sick])
    assert len(fleet.shapes) == 1
    assert [fault.device for node in fleet.nodes for fault in device_faults(node)] == ["gpu3"]


def answers_of_two_l40s() -> dict[str, Answer]:
    with installed(L40S):
        return asked_here().answers


VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())


COUNTS = {"nvmlDeviceGetCount()", "field(0,91,0)", "field(1,91,0)"}
KEYS = sorted(answers_of_two_l40s().keys() - COUNTS)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=30))
def test_no_set_of_answers_does_more_than_refuse_the_host(changed: dict[str, Any]) -> None:
    answers = answers_of_two_l40s()
    answers |= {key: Answer(value=value) for key, value in changed.items()}
    with suppress(FleetError):
        assert_honest(snapshot_from_reading(reading_of(answers=answers)))


@pytest.mark.parametrize("count", [-1, 0, 10**18, "2", None, [2]])
@pytest.mark.parametrize("key", sorted(COUNTS))
def test_a_wild_count_costs_no_memory(key: str, count: object) -> None:
    answers = answers_of_two_l40s() | {key: Answer(value=count)}
    with suppress(FleetError):
        assert len(snapshot_from_reading(reading_of(answers=answers)).gpus) <= MOST_GPUS


@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
def test_no_bytes_do_more_than_be_refused(content: bytes) -> None:
    try:
        reading_from_bytes(content, where="x")
    except SnapshotError:
        return

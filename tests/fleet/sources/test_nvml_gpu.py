"""The supervised reading of a real driver, held against what nvidia-smi prints beside it."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.faults import device_faults
from fleet.model import NodeSnapshot
from fleet.node import NodeReader
from fleet.reading import NodeReading
from fleet.sources import nvidia_smi
from fleet.sources.pci import pci_address_from_text
from fleet.sources.reading import snapshot_from_reading
from fleet.store import bytes_from_document
from tests.contracts import assert_honest

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def reader() -> Iterator[NodeReader]:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("no NVIDIA driver: nvidia-smi is not installed")
    reader = NodeReader(deadline_s=20)
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def reading(reader: NodeReader) -> NodeReading:
    reading = reader.read_raw()
    if "value" not in reading.answers["nvmlInit()"].model_dump(exclude_none=True):
        pytest.skip(f"no NVIDIA driver to ask: {reading.answers['nvmlInit()']}")
    return reading


@pytest.fixture(scope="module")
def snapshot(reading: NodeReading) -> NodeSnapshot:
    return snapshot_from_reading(reading)


def nvidia_smi_of(*arguments: str) -> str:
    command = ["nvidia-smi", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def query(field: str) -> list[str]:
    """One field of every GPU, as nvidia-smi prints it."""
    answer = nvidia_smi_of(f"--query-gpu={field}", "--format=csv,noheader,nounits")
    return [line.strip() for line in answer.splitlines() if line.strip()]


def test_a_real_driver_gives_an_honest_snapshot(snapshot: NodeSnapshot) -> None:
    assert_honest(snapshot)
    assert device_faults(snapshot) == ()


def test_uuids_are_those_of_nvidia_smi(snapshot: NodeSnapshot) -> None:
    assert [gpu.uuid for gpu in snapshot.gpus] == query("uuid")


def test_addresses_and_names_are_those_of_nvidia_smi(snapshot: NodeSnapshot) -> None:
    gpus = snapshot.wiring.gpus
    assert [gpu.pci_address for gpu in gpus] == list(
        map(pci_address_from_text, query("pci.bus_id"))
    )
    assert [gpu.product_name for gpu in gpus] == query("name")


def test_the_snapshot_says_what_nvidia_smi_s_xml_says(snapshot: NodeSnapshot) -> None:
    xml = nvidia_smi_of("-q", "-x").encode()
    try:
        (theirs,) = nvidia_smi.read(xml, where="nvidia-smi -q -x", host=snapshot.host)
    except FleetError as error:
        pytest.fail(f"our own importer refuses this driver's XML: {error}")
    for ours, other in zip(snapshot.gpus, theirs.gpus, strict=True):
        assert (ours.uuid, ours.serial, ours.vbios) == (other.uuid, other.serial, other.vbios)
    for slot, other_slot in zip(snapshot.wiring.gpus, theirs.wiring.gpus, strict=True):
        assert slot.pci_address == other_slot.pci_address
        assert slot.pcie_generation == other_slot.pcie_generation
        assert slot.pcie_width == other_slot.pcie_width
    assert snapshot.versions is not None
    assert theirs.versions is not None
    assert snapshot.versions.driver == theirs.versions.driver
    assert snapshot.versions.cuda == theirs.versions.cuda


def test_the_health_is_that_of_nvidia_smi(snapshot: NodeSnapshot) -> None:
    limits = [float(text) for text in query("power.limit")]
    assert [state.power_limit_watts for state in snapshot.states] == pytest.approx(limits, abs=0.01)
    modes = {"Default": "default", "Exclusive_Process": "exclusive_process"}
    said = [modes.get(text, text.lower()) for text in query("compute_mode")]
    assert [state.compute_mode for state in snapshot.states] == said


def test_a_reading_replays_to_the_same_snapshot(
    reading: NodeReading, snapshot: NodeSnapshot, tmp_path: Path
) -> None:
    path = tmp_path / "node.reading.json"
    path.write_bytes(bytes_from_document(reading))
    again = NodeReading.model_validate_json(path.read_bytes())
    assert snapshot_from_reading(again) == snapshot


def test_a_second_reading_uses_the_same_child(reader: NodeReader, reading: NodeReading) -> None:
    child = reader.child_pid
    reader.read_raw()
    assert reader.child_pid == child

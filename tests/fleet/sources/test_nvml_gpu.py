import shutil
import subprocess
from datetime import UTC, datetime

import pytest

from fleet.errors import SourceError
from fleet.fields import HostName
from fleet.model import NodeSnapshot
from fleet.sources.nvml import read_node
from fleet.sources.pci import pci_address_from_text
from tests.contracts import assert_honest

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def snapshot() -> NodeSnapshot:
    try:
        return read_node(host=HostName("here"), now=datetime.now(UTC))
    except SourceError as error:
        pytest.skip(f"no NVIDIA driver to ask: {error}")


def query(field: str) -> list[str]:
    """One field of every GPU, as nvidia-smi prints it."""
    command = shutil.which("nvidia-smi")
    if command is None:
        pytest.skip("nvidia-smi is not installed beside the driver")
    arguments = [command, f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    answer = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def test_a_real_driver_gives_an_honest_snapshot(snapshot: NodeSnapshot) -> None:
    assert_honest(snapshot)


def test_uuids_are_those_of_nvidia_smi(snapshot: NodeSnapshot) -> None:
    assert [gpu.uuid for gpu in snapshot.gpus] == query("uuid")


def test_addresses_and_names_are_those_of_nvidia_smi(snapshot: NodeSnapshot) -> None:
    gpus = snapshot.wiring.gpus
    assert [gpu.pci_address for gpu in gpus] == list(
        map(pci_address_from_text, query("pci.bus_id"))
    )
    assert [gpu.product_name for gpu in gpus] == query("name")

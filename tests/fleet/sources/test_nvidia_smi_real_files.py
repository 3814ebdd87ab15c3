from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet.model import FabricState
from tests.fleet.sources.nvidia_smi_texts import MIB, read_xml, reason_of


@dataclass(frozen=True)
class Real:
    """What the file says, copied by eye from its text."""

    product: str
    uuid: str
    memory_mib: int | None
    pci: str
    driver: str | None = None
    serial: str | None = None
    generation: int | None = None
    width: int | None = None
    module: int | None = None
    fabric: FabricState | None = None
    holders: tuple[str, ...] | None = ()


REAL = {
    "netdata-rtx-3060.xml": Real(
        "NVIDIA GeForce RTX 3060 Laptop GPU",
        "GPU-473d8d0f-d462-185c-6b36-6fc23e23e571",
        6144,
        "00000000:01:00.0",
        driver="515.65.01",
        generation=4,
        width=8,
        module=0,
    ),
    "netdata-rtx-4090-driver-535.xml": Real(
        "NVIDIA GeForce RTX 4090",
        "GPU-71d1acc2-662d-2166-bf9f-65272d2fc437",
        24564,
        "00000000:84:00.0",
        driver="535.86.05",
        generation=3,
        width=16,
        module=1,
        fabric=FabricState.UNSUPPORTED,
    ),
    "netdata-rtx-pro-6000-driver-580.xml": Real(
        "NVIDIA RTX PRO 6000 Blackwell",
        "GPU-11111111-2222-3333-4444-555555555555",
        None,
        "00000000:01:00.0",
        holders=None,
    ),
    "telegraf-a10g.xml": Real(
        "NVIDIA A10G",
        "GPU-9a9a6c50-2a47-2f51-a902-b82c3b127e94",
        23028,
        "00000000:00:1e.0",
        driver="515.105.01",
        generation=4,
        width=8,
        module=0,
    ),
    "telegraf-gtx-1070-ti.xml": Real(
        "GeForce GTX 1070 Ti",
        "GPU-f9ba66fc-a7f5-94c5-da19-019ef2f9c665",
        4096,
        "00000000:01:00.0",
        width=16,
        holders=None,
    ),
    "telegraf-quadro-p2000-v12.xml": Real(
        "Quadro P2000",
        "GPU-396caaed-39ca-3199-2e68-717cdb786ec6",
        5120,
        "00000000:17:00.0",
        driver="525.125.06",
        serial="0322218049033",
        generation=3,
        width=8,
        module=1,
        fabric=FabricState.UNSUPPORTED,
    ),
    "telegraf-quadro-p400.xml": Real(
        "Quadro P400",
        "GPU-8f750be4-dfbc-23b9-b33f-da729a536494",
        1998,
        "00000000:43:00.0",
        driver="418.43",
        serial="0424418054852",
        generation=3,
        width=16,
    ),
    "telegraf-rtx-3060-v12.xml": Real(
        "NVIDIA GeForce RTX 3060",
        "GPU-d6889ff6-2523-9142-ca3c-1ca3f396a625",
        12288,
        "00000000:2d:00.0",
        driver="570.124.04",
        generation=4,
        width=16,
        module=1,
        fabric=FabricState.UNSUPPORTED,
    ),
    "telegraf-rtx-3090-v12.xml": Real(
        "NVIDIA GeForce RTX 3090",
        "GPU-12345678-aaaa-bbbb-cccc-0123456789ab",
        24576,
        "00000000:00:10.0",
        driver="525.147.05",
        generation=4,
        width=16,
        module=1,
        fabric=FabricState.UNSUPPORTED,
    ),
    "telegraf-rtx-4000-sff-ada-v13.xml": Real(
        "NVIDIA RTX 4000 SFF Ada Generation",
        "GPU-37037c3f-65c8-ec4d-24a9-420204ad8026",
        20475,
        "00000000:06:00.0",
        driver="595.84",
        generation=4,
        width=16,
        module=1,
        fabric=FabricState.UNSUPPORTED,
        holders=("pid 4937 python", "pid 34626 /usr/lib/chromium/chromium"),
    ),
    "telegraf-tesla-t4.xml": Real(
        "Tesla T4",
        "GPU-d37e67a5-91dd-3774-a5cb-99096249601a",
        15360,
        "00000000:00:1e.0",
        driver="515.105.01",
        generation=3,
        width=8,
        module=0,
        holders=("pid 5762 python",),
    ),
}


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_files_are_read_as_they_say(artifacts: Path, name: str) -> None:
    expected = REAL[name]
    snapshot = read_xml((artifacts / "nvidia-smi-xml" / name).read_bytes())
    (slot,), (identity,) = snapshot.wiring.gpus, snapshot.gpus
    memory = expected.memory_mib * MIB if expected.memory_mib else None
    state = identity.fabric.state if identity.fabric else None
    holders = snapshot.allocations
    assert (slot.product_name, slot.memory_bytes) == (expected.product, memory)
    assert (slot.pci_address, slot.module_id) == (expected.pci, expected.module)
    assert (slot.pcie_generation, slot.pcie_width) == (expected.generation, expected.width)
    assert (identity.uuid, identity.serial) == (expected.uuid, expected.serial)
    assert snapshot.versions is not None
    assert (state, snapshot.versions.driver) == (expected.fabric, expected.driver)
    assert (None if holders is None else tuple(a.holder for a in holders)) == expected.holders


def test_no_real_file_is_left_out(artifacts: Path) -> None:
    assert {path.name for path in (artifacts / "nvidia-smi-xml").iterdir()} == set(REAL)


def test_zeros_and_redactions_are_no_serial(artifacts: Path) -> None:
    folder = artifacts / "nvidia-smi-xml"
    said = {
        name: reason_of(read_xml((folder / name).read_bytes()), "gpus[*].serial")
        for name in (
            "telegraf-a10g.xml",
            "telegraf-rtx-4000-sff-ada-v13.xml",
            "netdata-rtx-3060.xml",
        )
    }
    assert said == {
        "telegraf-a10g.xml": ("undecodable", "0000000000000"),
        "telegraf-rtx-4000-sff-ada-v13.xml": ("undecodable", "REDACTED"),
        "netdata-rtx-3060.xml": ("unsupported", None),
    }

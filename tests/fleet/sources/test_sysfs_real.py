"""Real trees: this machine's own, a captured /sys/class/infiniband, an 8xH100's list of devices."""

import re
import shutil
from pathlib import Path

import pytest

from fleet.fields import AbsenceReason
from fleet.wiring import LinkLayer, LinkState, PcieLevel
from tests.contracts import assert_honest
from tests.fakes.sysfs_trees import CONNECTX7, GPU, NVSWITCH, ROOT_PORT, SWITCH_PORT, SysTree
from tests.fleet.sources.sysfs_snapshots import levels_of, ports_of, reason_of, snapshot_of


def first_line(path: Path) -> str:
    return path.read_text().strip()


@pytest.mark.skipif(
    not Path("/sys/bus/pci/devices").is_dir(), reason="this machine shows no PCI devices"
)
def test_this_machine_is_understood() -> None:
    devices = [d for d in Path("/sys/bus/pci/devices").iterdir() if not (d / "physfn").exists()]
    nvidia = [d for d in devices if first_line(d / "vendor") == "0x10de"]
    gpus = [d for d in nvidia if first_line(d / "class").startswith(("0x0300", "0x0302"))]
    adapters = [d for d in devices if first_line(d / "class").startswith("0x02")]
    snapshot = snapshot_of(Path("/"))
    assert len(snapshot.wiring.gpus) == len(gpus)
    assert len(snapshot.wiring.nics) >= len(adapters)
    assert_honest(snapshot)


@pytest.fixture
def h100_class(artifacts: Path, tmp_path: Path) -> Path:
    captured = artifacts / "sysfs-infiniband" / "sys-class-infiniband-h100.0"
    if not captured.is_dir():
        pytest.skip("no captured /sys/class/infiniband among the artifacts")
    shutil.copytree(captured, tmp_path / "sys/class/infiniband")
    return tmp_path


def test_a_captured_class_folder_of_an_h100_node(h100_class: Path) -> None:
    """Values without a line end, gaps in the numbers, a bond that is Ethernet, no PCI."""
    snapshot = snapshot_of(h100_class)
    ports = ports_of(snapshot)
    names = [f"mlx5_{i}" for i in (0, 1, 4, 5, 6, 7, 8, 9)]
    assert list(ports) == [*names, "mlx5_bond_0"]
    for rail, name in enumerate(names):
        assert ports[name].link_layer is LinkLayer.INFINIBAND
        assert (ports[name].bytes_per_s, ports[name].rail) == (50e9, rail)
    bond = ports["mlx5_bond_0"]
    assert (bond.link_layer, bond.bytes_per_s, bond.rail) == (LinkLayer.ROCE, 25e9, None)
    assert {port.state for port in ports.values()} == {LinkState.UP}
    firmware = {state.firmware for state in snapshot.nic_states}
    assert firmware == {"28.41.1000", "32.38.3056"}
    assert reason_of(snapshot, "wiring.nics[0].pci_address") is AbsenceReason.UNSUPPORTED
    assert_honest(snapshot)


_LISTED = re.compile(r"^(?P<name>[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) (?P<kind>[^:]+): (?P<maker>.+)$")
_BELOW = re.compile(r"^\tBus: primary=[0-9a-f]{2}, secondary=(?P<bus>[0-9a-f]{2})")
_NUMA = re.compile(r"^\tNUMA node: (?P<numa>[0-9]+)")
_KINDS = (
    (re.compile(r"3D controller: NVIDIA"), GPU),
    (re.compile(r"Bridge: NVIDIA"), NVSWITCH),
    (re.compile(r"Ethernet controller"), CONNECTX7),
    (re.compile(r"PCI bridge: Intel"), ROOT_PORT),
    (re.compile(r"PCI bridge"), SWITCH_PORT),
)


def tree_from_lspci(text: str, root: Path) -> SysTree:
    """The /sys that ``lspci -vvv`` was printed from, as far as it tells."""
    port_above: dict[str, str] = {}
    devices: dict[str, tuple[str, int]] = {}
    name = ""
    for line in text.splitlines():
        if listed := _LISTED.match(line):
            name = listed["name"]
            devices[name] = (f"{listed['kind']}: {listed['maker']}", 0)
        elif below := _BELOW.match(line):
            port_above[below["bus"]] = name
        elif numa := _NUMA.match(line):
            devices[name] = (devices[name][0], int(numa["numa"]))
    tree = SysTree(root)
    tree.numa(0, "0-63")
    tree.numa(1, "64-127")
    for name, (title, numa_node) in devices.items():
        kind = next((kind for form, kind in _KINDS if form.search(title)), None)
        if kind is not None:
            tree.pci(_way(name, port_above), **kind, numa=numa_node)
    return tree


def _way(name: str, port_above: dict[str, str]) -> str:
    bus = name[:2]
    above = port_above.get(bus)
    way = f"pci0000:{bus}" if above is None else _way(above, port_above)
    return f"{way}/0000:{name}"


def test_the_devices_of_a_dell_with_eight_h100(artifacts: Path, tmp_path: Path) -> None:
    listing = artifacts / "lspci" / "dell-8xh100-lspci-vvv.txt"
    if not listing.is_file():
        pytest.skip("no listing of an 8xH100 among the artifacts")
    snapshot = snapshot_of(tree_from_lspci(listing.read_text(errors="replace"), tmp_path))
    wiring = snapshot.wiring
    buses = ["19", "3b", "4c", "5d", "9b", "bb", "cb", "db"]
    assert [gpu.pci_address for gpu in wiring.gpus] == [f"00000000:{b}:00.0" for b in buses]
    assert [gpu.numa for gpu in wiring.gpus] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert len(wiring.nvswitches) == 4
    slots = {str(nic.pci_address)[9:]: nic.slot for nic in wiring.nics}
    beside = ["1a:00.0", "3c:00.0", "4d:00.0", "5e:00.0", "9c:00.0", "bc:00.0", "cc:00.0"]
    levels = levels_of(snapshot)
    for gpu, nic in enumerate([*beside, "dc:00.0"]):
        near = {n for n, slot in slots.items() if levels[f"gpu{gpu}-nic{slot}"] is PcieLevel.PIX}
        assert nic in near
        assert near <= {nic, "1b:00.0", "1b:00.1", "9d:00.0", "9d:00.1"}
    assert levels["gpu0-gpu3"] is PcieLevel.NODE
    assert levels["gpu0-gpu4"] is PcieLevel.SYS
    assert levels[f"gpu0-nic{slots['01:00.0']}"] is PcieLevel.NODE
    assert_honest(snapshot)

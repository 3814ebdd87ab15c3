"""PCI trees: how far two devices are apart in nvidia-smi's words, links, and what a guest hides."""

from pathlib import Path

import pytest

from fleet.fields import AbsenceReason
from fleet.sources.sysfs_pci import way_up
from fleet.wiring import PcieLevel
from tests.contracts import assert_honest
from tests.fakes.sysfs_trees import (
    CONNECTX7,
    GPU,
    GUEST_FLAGS,
    QEMU_ROOT_PORT,
    ROOT_PORT,
    SWITCH_PORT,
    VIRTIO,
    XEON,
    SysTree,
    hgx_h100,
)
from tests.fleet.sources.sysfs_snapshots import levels_of, reason_of, snapshot_of

UNDECODABLE, UNSUPPORTED = AbsenceReason.UNDECODABLE, AbsenceReason.UNSUPPORTED


def gpu_at(tree: SysTree, way: str, *, numa: int = 0) -> None:
    """A GPU and the bridges on its way."""
    _, *steps, _ = way.split("/")
    for i, step in enumerate(steps):
        name = f"/sys/bus/pci/devices/{step}"
        if not (tree.root / name.lstrip("/")).is_symlink():
            port = ROOT_PORT if i == 0 else SWITCH_PORT
            tree.pci(way[: way.index(step) + len(step)], **port, numa=numa)
    tree.pci(way, **GPU, numa=numa)


@pytest.mark.parametrize(
    ("first", "second", "level"),
    [
        (  # 8xH100 of Dell: nvidia-smi prints PIX for a GPU and the HCA at its switch
            "pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:01.0/0000:19:00.0",
            "pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:02.0/0000:1a:00.0",
            PcieLevel.PIX,
        ),
        (  # two functions of one card, on a root port
            "pci0000:e1/0000:e1:00.0/0000:e2:00.0",
            "pci0000:e1/0000:e1:00.0/0000:e2:00.1",
            PcieLevel.PIX,
        ),
        (  # DGX-2: two switches below a third
            "pci0000:2b/0000:2b:00.0/0000:2c:00.0/0000:2d:04.0/0000:32:00.0/0000:33:00.0/0000:34:00.0",
            "pci0000:2b/0000:2b:00.0/0000:2c:00.0/0000:2d:0c.0/0000:37:00.0/0000:38:00.0/0000:39:00.0",
            PcieLevel.PXB,
        ),
        (  # one at the upper switch, one at the lower
            "pci0000:2b/0000:2b:00.0/0000:2c:00.0/0000:2d:00.0/0000:2e:00.0",
            "pci0000:2b/0000:2b:00.0/0000:2c:00.0/0000:2d:0c.0/0000:37:00.0/0000:38:00.0/0000:39:00.0",
            PcieLevel.PXB,
        ),
        (  # old bridges below each other, without switches
            "pci0000:00/0000:00:1e.0/0000:05:00.0",
            "pci0000:00/0000:00:1e.0/0000:05:02.0/0000:06:00.0/0000:07:00.0",
            PcieLevel.PXB,
        ),
        (  # two root ports of one host bridge
            "pci0000:00/0000:00:01.0/0000:01:00.0",
            "pci0000:00/0000:00:02.0/0000:02:00.0",
            PcieLevel.PHB,
        ),
        (  # two host bridges of one socket
            "pci0000:15/0000:15:01.0/0000:16:00.0",
            "pci0000:37/0000:37:01.0/0000:38:00.0",
            PcieLevel.NODE,
        ),
        (  # one domain each: the bus numbers are the same, the host bridges are not
            "pci0008:00/0008:00:00.0/0008:01:00.0",
            "pci0009:00/0009:00:00.0/0009:01:00.0",
            PcieLevel.NODE,
        ),
        (  # behind a controller that opens a domain of its own (Intel VMD)
            "pci0000:37/0000:37:00.5/pci10000:00/10000:00:02.0/10000:01:00.0",
            "pci0000:37/0000:37:00.5/pci10000:00/10000:00:03.0/10000:02:00.0",
            PcieLevel.PHB,
        ),
    ],
)
def test_levels_are_nvidia_smis(tmp_path: Path, first: str, second: str, level: PcieLevel) -> None:
    tree = SysTree(tmp_path)
    tree.numa(0, "0-63")
    tree.numa(1, "64-127")
    gpu_at(tree, first)
    gpu_at(tree, second)
    assert levels_of(snapshot_of(tree)) == {"gpu0-gpu1": level}


def test_two_sockets_are_apart(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    gpu_at(tree, "pci0000:15/0000:15:01.0/0000:16:00.0", numa=0)
    gpu_at(tree, "pci0000:97/0000:97:01.0/0000:98:00.0", numa=1)
    assert levels_of(snapshot_of(tree)) == {"gpu0-gpu1": PcieLevel.SYS}


def test_two_host_bridges_without_numa_numbers_are_not_compared(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    tree.numa(0, "0-63")
    tree.numa(1, "64-127")
    gpu_at(tree, "pci0000:15/0000:15:01.0/0000:16:00.0", numa=-1)
    gpu_at(tree, "pci0000:97/0000:97:01.0/0000:98:00.0", numa=1)
    snapshot = snapshot_of(tree)
    assert levels_of(snapshot) == {}
    assert reason_of(snapshot, "wiring.pcie_levels") is UNSUPPORTED
    assert_honest(snapshot)


def test_each_gpu_of_an_8xh100_is_nearest_to_the_adapter_at_its_switch(tmp_path: Path) -> None:
    """As ``nvidia-smi topo -m`` prints it for such a server: PIX beside it, NODE and SYS else."""
    snapshot = snapshot_of(hgx_h100(tmp_path))
    slot_of = {port.name: nic.slot for nic in snapshot.wiring.nics for port in nic.ports}
    levels = levels_of(snapshot)
    names = ("mlx5_0", "mlx5_1", "mlx5_4", "mlx5_5", "mlx5_6", "mlx5_7", "mlx5_8", "mlx5_9")
    for gpu in range(8):
        told = [levels[f"gpu{gpu}-nic{slot_of[name]}"] for name in names]
        far = [PcieLevel.NODE if gpu // 4 == i // 4 else PcieLevel.SYS for i in range(8)]
        assert told == [PcieLevel.PIX if i == gpu else far[i] for i in range(8)]


def guest(root: Path, ways: tuple[str, str], *, numas: tuple[int, int] = (0, 0)) -> SysTree:
    tree = SysTree(root)
    tree.cpu(XEON + GUEST_FLAGS)
    tree.numa(0, "0-63")
    tree.numa(1, "64-127")
    gpu_at(tree, ways[0], numa=numas[0])
    gpu_at(tree, ways[1], numa=numas[1])
    return tree


APART = ("pci0001:00/0001:00:00.0", "pci0002:00/0002:00:00.0")
"""Hyper-V gives each device a domain of its own, and tells its NUMA node."""


def test_a_guest_tells_only_what_numa_numbers_tell_apart(tmp_path: Path) -> None:
    near = snapshot_of(guest(tmp_path / "near", APART))
    assert levels_of(near) == {}
    assert reason_of(near, "wiring.pcie_levels") is UNSUPPORTED
    far = snapshot_of(guest(tmp_path / "far", APART, numas=(0, 1)))
    assert levels_of(far) == {"gpu0-gpu1": PcieLevel.SYS}
    assert [a for a in far.absences if a.path == "wiring.pcie_levels"] == []


def test_a_guest_whose_tree_has_switches_is_believed(tmp_path: Path) -> None:
    switch = "pci0000:00/0000:00:01.0/0000:01:00.0"
    ways = (f"{switch}/0000:02:00.0/0000:03:00.0", f"{switch}/0000:02:01.0/0000:04:00.0")
    tree = guest(tmp_path, ways)
    gpu_at(tree, "pci0000:00/0000:00:02.0/0000:05:00.0")
    assert levels_of(snapshot_of(tree)) == {
        "gpu0-gpu1": PcieLevel.PIX,
        "gpu0-gpu2": PcieLevel.PHB,
        "gpu1-gpu2": PcieLevel.PHB,
    }


def test_two_emulated_network_cards_at_one_bridge_make_no_tree(tmp_path: Path) -> None:
    tree = guest(tmp_path, APART)
    bridge = "pci0000:00/0000:00:05.0"
    for i in (1, 2):
        tree.pci(f"{bridge}/0000:09:0{i}.0", **VIRTIO)
    assert levels_of(snapshot_of(tree)) == {}


def test_an_emulated_port_shows_a_guest_where_the_cpu_does_not(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    tree.cpu("processor\t: 0\nCPU implementer\t: 0x41\n")
    for i in (1, 2):
        port = f"pci0000:00/0000:00:0{i}.0"
        tree.pci(port, **QEMU_ROOT_PORT)
        tree.pci(f"{port}/0000:0{i}:00.0", **GPU)
    assert levels_of(snapshot_of(tree)) == {}


def test_a_link_is_no_faster_than_the_port_above(tmp_path: Path) -> None:
    """As NVML's maximum, which is the device's in this system: an H100 in a Gen 4 server."""
    tree = SysTree(tmp_path)
    tree.pci("pci0000:15/0000:15:01.0", **ROOT_PORT, speed="16.0 GT/s PCIe")
    tree.pci("pci0000:15/0000:15:01.0/0000:16:00.0", **GPU, speed="32.0 GT/s PCIe")
    assert snapshot_of(tree).wiring.gpus[0].pcie_generation == 4


def test_the_made_up_port_of_a_guest_limits_nothing(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    tree.pci("pci0000:00/0000:00:01.0", **QEMU_ROOT_PORT, speed="2.5 GT/s PCIe")
    tree.pci("pci0000:00/0000:00:01.0/0000:01:00.0", **GPU)
    assert snapshot_of(tree).wiring.gpus[0].pcie_generation == 5


def test_a_switchs_own_ports_do_not_limit_each_other(tmp_path: Path) -> None:
    """Its port downwards tells of the link below, its port upwards of the one above."""
    tree = SysTree(tmp_path)
    upstream = "pci0000:15/0000:15:01.0/0000:16:00.0"
    tree.pci("pci0000:15/0000:15:01.0", **ROOT_PORT, speed="16.0 GT/s PCIe")
    tree.pci(upstream, **SWITCH_PORT)
    tree.pci(f"{upstream}/0000:17:01.0", **SWITCH_PORT)
    tree.pci(f"{upstream}/0000:17:01.0/0000:19:00.0", **GPU)
    wiring = snapshot_of(tree).wiring
    assert [bridge.pcie_generation for bridge in wiring.bridges] == [4, 5]
    assert wiring.gpus[0].pcie_generation == 5


@pytest.mark.parametrize(
    ("name", "text", "field", "reason"),
    [
        ("max_link_speed", "Unknown", "pcie_generation", UNSUPPORTED),
        ("max_link_speed", "33.0 GT/s PCIe", "pcie_generation", UNDECODABLE),
        ("current_link_width", "0", "pcie_width", UNSUPPORTED),
        ("current_link_width", "63", "pcie_width", UNDECODABLE),
        ("numa_node", "x", "numa", UNDECODABLE),
        ("numa_node", "-2", "numa", UNDECODABLE),
    ],
)
def test_what_a_lost_device_shows_is_no_value(
    tmp_path: Path, name: str, text: str, field: str, reason: AbsenceReason
) -> None:
    tree = SysTree(tmp_path)
    folder = tree.pci("pci0000:15/0000:15:01.0/0000:16:00.0", **GPU)
    tree.write(f"{folder}/{name}", text)
    snapshot = snapshot_of(tree)
    assert getattr(snapshot.wiring.gpus[0], field) is None
    assert reason_of(snapshot, f"wiring.gpus[0].{field}") is reason
    assert_honest(snapshot)


@pytest.mark.parametrize(
    ("text", "generation"),
    [("2.5 GT/s PCIe", 1), ("8 GT/s", 3), ("16.0 GT/s PCIe", 4), ("64.0 GT/s PCIe", 6)],
)
def test_speeds_are_understood_as_every_kernel_writes_them(
    tmp_path: Path, text: str, generation: int
) -> None:
    tree = SysTree(tmp_path)
    tree.pci("pci0000:15/0000:16:00.0", **GPU, speed=text)
    assert snapshot_of(tree).wiring.gpus[0].pcie_generation == generation


def test_a_kernel_without_link_files_is_no_fault_of_the_gpu(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    folder = tree.pci("pci0000:15/0000:16:00.0", **GPU)
    (tmp_path / folder.lstrip("/") / "current_link_width").unlink()
    assert reason_of(snapshot_of(tree), "wiring.gpus[0].pcie_width") is UNSUPPORTED


def test_virtual_gpus_of_a_host_are_parts_of_their_gpu(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    card = tree.pci("pci0000:15/0000:16:00.0", **GPU)
    tree.virtual_function("pci0000:15/0000:16:00.4", card, **GPU)
    assert [g.pci_address for g in snapshot_of(tree).wiring.gpus] == ["00000000:16:00.0"]


def test_a_tree_of_plain_folders_tells_devices_but_no_way_up(tmp_path: Path) -> None:
    """A copy of /sys/bus/pci/devices that follows links (``cp -rL``)."""
    tree = SysTree(tmp_path)
    for name, kind in (("0000:19:00.0", GPU), ("0000:1a:00.0", CONNECTX7)):
        folder = f"/sys/bus/pci/devices/{name}"
        for key, value in {**kind, "class": kind["class_code"], "numa_node": "0"}.items():
            tree.write(f"{folder}/{key}", value)
    snapshot = snapshot_of(tree)
    assert [gpu.pci_address for gpu in snapshot.wiring.gpus] == ["00000000:19:00.0"]
    assert snapshot.wiring.bridges == ()
    assert reason_of(snapshot, "wiring.pcie_levels") is UNSUPPORTED
    assert_honest(snapshot)


@pytest.mark.parametrize(
    ("path", "way"),
    [
        ("../../../devices/pci0000:00/0000:00:03.0", ("pci0000:00", ("0000:00:03.0",))),
        (
            "../../devices/pci0000:00/0000:00:03.0/virtio2/net/eth0",
            ("pci0000:00", ("0000:00:03.0",)),
        ),
        (
            "../../../LNXSYSTM:00/VMBUS:01/47505500-0001/pci0001:00/0001:00:00.0",
            ("pci0001:00", ("0001:00:00.0",)),
        ),
        ("../../../0000:1a:00.0", (None, ("0000:1a:00.0",))),
        ("", (None, ())),
    ],
)
def test_the_way_up_stands_in_the_link(path: str, way: tuple[str | None, tuple[str, ...]]) -> None:
    assert way_up(path) == way

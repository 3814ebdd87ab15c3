"""Small /sys trees as the kernel lays them out, made below a folder: machines, and parts to vary.

The shapes follow real ones: an 8-GPU server with one PCIe switch for each GPU and its HCA, two
sockets and four NVSwitches; a guest whose hypervisor gives each device a root port of its own; a
server without GPUs.
"""

import os
from dataclasses import dataclass
from pathlib import Path

GPU = {"vendor": "0x10de", "device": "0x2330", "class_code": "0x030200"}
NVSWITCH = {"vendor": "0x10de", "device": "0x22a3", "class_code": "0x068000"}
CONNECTX7 = {"vendor": "0x15b3", "device": "0x1021", "class_code": "0x020700"}
CONNECTX6 = {"vendor": "0x15b3", "device": "0x101d", "class_code": "0x020000"}
EFA = {"vendor": "0x1d0f", "device": "0xefa1", "class_code": "0x020000"}
CASSINI = {"vendor": "0x17db", "device": "0x0501", "class_code": "0x020000"}
BROADCOM = {"vendor": "0x14e4", "device": "0x165f", "class_code": "0x020000"}
VIRTIO = {"vendor": "0x1af4", "device": "0x1041", "class_code": "0x020000"}
SWITCH_PORT = {"vendor": "0x1000", "device": "0xc030", "class_code": "0x060400"}
ROOT_PORT = {"vendor": "0x8086", "device": "0x352a", "class_code": "0x060400"}
QEMU_ROOT_PORT = {"vendor": "0x1b36", "device": "0x000c", "class_code": "0x060400"}
DISK = {"vendor": "0x1344", "device": "0x51c3", "class_code": "0x010802"}

XEON = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n"
GUEST_FLAGS = "flags\t\t: fpu vme de pse hypervisor lahf_lm\n"

SWITCHED_GPUS = {
    0x15: "mlx5_0",
    0x37: "mlx5_1",
    0x48: "mlx5_4",
    0x59: "mlx5_5",
    0x97: "mlx5_6",
    0xB7: "mlx5_7",
    0xC7: "mlx5_8",
    0xD7: "mlx5_9",
}
"""HCA beside the GPU by number of the host bridge; gaps in the numbers are real."""


@dataclass(frozen=True)
class SysTree:
    """A folder that looks like a node's root directory."""

    root: Path

    def write(self, path: str, text: str) -> None:
        """A file with a line end, as the kernel's have."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{text}\n")

    def link(self, path: str, real: str) -> None:
        """A relative link to another place of the tree, as the kernel's are."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(self.root / real.lstrip("/"), place.parent))

    def numa(self, node: int, cpus: str) -> None:
        """A NUMA node."""
        self.write(f"/sys/devices/system/node/node{node}/cpulist", cpus)

    def cpu(self, block: str = XEON) -> None:
        """What /proc/cpuinfo says, of two processors."""
        self.write("/proc/cpuinfo", f"{block}\n{block}")

    def pci(
        self,
        way: str,
        *,
        vendor: str,
        device: str,
        class_code: str,
        numa: int = 0,
        speed: str = "32.0 GT/s PCIe",
        width: int = 16,
    ) -> str:
        """A PCI function at the end of a way ``pci0000:15/0000:15:01.0``; gives its folder."""
        folder = f"/sys/devices/{way}"
        values = {"vendor": vendor, "device": device, "class": class_code, "numa_node": numa}
        for end in ("max", "current"):
            values |= {f"{end}_link_speed": speed, f"{end}_link_width": width}
        for name, value in values.items():
            self.write(f"{folder}/{name}", str(value))
        self.link(f"/sys/bus/pci/devices/{way.rpartition('/')[2]}", folder)
        return folder

    def bind(self, name: str, driver: str) -> None:
        """Give a PCI function, ``0000:15:01.0``, to a driver; from another one if that has it."""
        folder = (self.root / "sys/bus/pci/devices" / name).resolve()
        (folder / "driver").unlink(missing_ok=True)
        here = folder.relative_to(self.root.resolve())
        self.link(f"{here}/driver", f"sys/bus/pci/drivers/{driver}")

    def hca(
        self,
        name: str,
        folder: str,
        *,
        guid: str = "b8ce:f603:00ab:cdef",
        board: str = "MT_0000000838",
        layer: str = "InfiniBand",
        state: str = "4: ACTIVE",
        physical: str = "5: LinkUp",
        rate: str = "400 Gb/sec (4X NDR)",
        ports: int = 1,
    ) -> None:
        """An RDMA device of the PCI function in a folder."""
        here = f"{folder}/infiniband/{name}"
        of_device = {"node_guid": guid, "hca_type": "MT4129", "fw_ver": "28.41.1000"}
        for key, value in (of_device | {"board_id": board}).items():
            self.write(f"{here}/{key}", value)
        of_port = {"link_layer": layer, "state": state, "phys_state": physical, "rate": rate}
        for port in range(1, ports + 1):
            for key, value in (of_port | {"counters/link_downed": "3"}).items():
                self.write(f"{here}/ports/{port}/{key}", value)
        self.link(f"{here}/device", folder)
        self.link(f"/sys/class/infiniband/{name}", here)

    def interface(
        self,
        name: str,
        folder: str,
        *,
        kind: int = 1,
        operstate: str = "up",
        carrier: str = "1",
        speed: str = "1000",
    ) -> None:
        """A network interface of the device in a folder."""
        here = f"{folder}/net/{name}"
        values = {
            "address": "02:00:00:00:00:01",
            "type": str(kind),
            "operstate": operstate,
            "carrier": carrier,
            "carrier_down_count": "2",
            "speed": speed,
        }
        for key, value in values.items():
            self.write(f"{here}/{key}", value)
        self.link(f"{here}/device", folder)
        self.link(f"/sys/class/net/{name}", here)

    def interface_of_software(self, name: str) -> None:
        """An interface without a device: lo, a bond, a bridge."""
        here = f"/sys/devices/virtual/net/{name}"
        self.write(f"{here}/type", "772")
        self.link(f"/sys/class/net/{name}", here)

    def virtual_function(self, way: str, of: str, **kind: str) -> str:
        """A virtual function of the PCI function in the folder ``of``; gives its own folder."""
        folder = self.pci(way, **kind)
        self.link(f"{folder}/physfn", of)
        return folder


def switched(tree: SysTree, bus: int, *, numa: int) -> str:
    """A host bridge, its root port and a switch with three ports; gives the way to the switch."""
    root_port = f"pci0000:{bus:02x}/0000:{bus:02x}:01.0"
    upstream = f"{root_port}/0000:{bus + 1:02x}:00.0"
    tree.pci(root_port, **ROOT_PORT, numa=numa)
    tree.pci(upstream, **SWITCH_PORT, numa=numa)
    for port in (0, 1, 2, 3):
        tree.pci(f"{upstream}/0000:{bus + 2:02x}:{port:02x}.0", **SWITCH_PORT, numa=numa)
    return upstream


def hgx_h100(root: Path) -> SysTree:
    """Eight GPUs, each with its HCA and a disk below a switch of its own; two sockets.

    GPU 0's switch also holds the storage adapter, a bond of two ports; a plain Ethernet chip hangs
    below the chipset, the four NVSwitches below a switch on socket 1.
    """
    tree = SysTree(root)
    tree.cpu()
    tree.numa(0, "0-55,112-167")
    tree.numa(1, "56-111,168-223")
    for number, (bus, hca) in enumerate(SWITCHED_GPUS.items()):
        numa = int(bus > 0x80)
        switch = f"{switched(tree, bus, numa=numa)}/0000:{bus + 2:02x}"
        tree.pci(f"{switch}:00.0/0000:{bus + 3:02x}:00.0", **DISK, numa=numa, width=4)
        tree.pci(f"{switch}:01.0/0000:{bus + 4:02x}:00.0", **GPU, numa=numa)
        tree.bind(f"0000:{bus + 4:02x}:00.0", "nvidia")
        adapter = tree.pci(f"{switch}:02.0/0000:{bus + 5:02x}:00.0", **CONNECTX7, numa=numa)
        tree.hca(hca, adapter, guid=f"b8ce:f603:00ab:00{number:02x}")
        tree.interface(f"ib{number}", adapter, kind=32, speed="400000")
    _add_storage(tree)
    _add_chipset_ethernet(tree)
    _add_nvswitches(tree)
    tree.interface_of_software("lo")
    tree.interface_of_software("bond0")
    return tree


def _add_storage(tree: SysTree) -> None:
    port = "pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:03.0"
    first = tree.pci(f"{port}/0000:1b:00.0", **CONNECTX6)
    second = tree.pci(f"{port}/0000:1b:00.1", **CONNECTX6)
    tree.hca(
        "mlx5_bond_0",
        first,
        guid="a088:c203:00f0:0001",
        board="MT_0000000884",
        layer="Ethernet",
        rate="200 Gb/sec (2X NDR)",
    )
    tree.interface("enp27s0f0np0", first, speed="100000")
    tree.interface("enp27s0f1np1", second, speed="100000")


def _add_chipset_ethernet(tree: SysTree) -> None:
    tree.pci("pci0000:00/0000:00:0c.0", **ROOT_PORT, speed="8.0 GT/s PCIe", width=1)
    chip = tree.pci(
        "pci0000:00/0000:00:0c.0/0000:01:00.0", **BROADCOM, speed="5.0 GT/s PCIe", width=1
    )
    tree.interface("eno1", chip)


def _add_nvswitches(tree: SysTree) -> None:
    upstream = "pci0000:80/0000:80:01.0/0000:81:00.0"
    tree.pci("pci0000:80/0000:80:01.0", **ROOT_PORT, numa=1)
    tree.pci(upstream, **SWITCH_PORT, numa=1)
    for i in range(4):
        port = f"{upstream}/0000:82:{i:02x}.0"
        tree.pci(port, **SWITCH_PORT, numa=1)
        tree.pci(f"{port}/0000:{0x83 + i:02x}:00.0", **NVSWITCH, numa=1, width=2)


def flat_guest(root: Path, *, gpus: int = 8, hcas: int = 8) -> SysTree:
    """A virtual machine: every device on a root port of its own, one NUMA node, named to none."""
    tree = SysTree(root)
    tree.cpu(XEON + GUEST_FLAGS)
    tree.numa(0, "0-127")
    devices = [GPU] * gpus + [CONNECTX7] * hcas
    for i, kind in enumerate(devices):
        port = f"pci0000:00/0000:00:{1 + i // 8:02x}.{i % 8}"
        tree.pci(port, **QEMU_ROOT_PORT, numa=-1, speed="16.0 GT/s PCIe")
        folder = tree.pci(f"{port}/0000:{1 + i:02x}:00.0", **kind, numa=-1)
        if kind is CONNECTX7:
            tree.hca(f"mlx5_{i - gpus}", folder, guid=f"0000:0000:0000:01{i:02x}")
    virtio = tree.pci("pci0000:00/0000:00:1e.0", **VIRTIO, numa=-1)
    tree.interface("eth0", f"{virtio}/virtio2", speed="-1")
    return tree


def without_gpus(root: Path) -> SysTree:
    """A server of two sockets with one HCA and one Ethernet port."""
    tree = SysTree(root)
    tree.cpu()
    tree.numa(0, "0-31")
    tree.numa(1, "32-63")
    tree.pci("pci0000:15/0000:15:01.0", **ROOT_PORT)
    adapter = tree.pci("pci0000:15/0000:15:01.0/0000:16:00.0", **CONNECTX7)
    tree.hca("mlx5_0", adapter)
    _add_chipset_ethernet(tree)
    return tree

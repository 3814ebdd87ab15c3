"""PCI as the kernel lists it: functions, the bridges above them, how far two are apart. No network.

A function's way up stands in its link: host bridge, root port, then for each PCIe switch the port
towards the CPU and the port towards the device. A root port is a part of the root complex, so the
model's bridges begin below it (as NCCL's do).

How far two functions are apart is told in nvidia-smi's words (legend of ``nvidia-smi topo -m``;
NVML's ``nvmlGpuTopologyLevel_t``):

=====  =====================================================  ================================
level  nvidia-smi                                             rule here
=====  =====================================================  ================================
PIX    at most a single PCIe bridge                           nearest bridge above both is at
                                                              most one other bridge away
PXB    multiple PCIe bridges, not the host bridge             some bridge is above both
PHB    a PCIe host bridge (typically the CPU)                 one host bridge
NODE   interconnect of host bridges within a NUMA node        two host bridges, one NUMA node
SYS    interconnect between NUMA nodes                        two NUMA nodes
=====  =====================================================  ================================

"A single bridge" is a switch as a whole: both its ports towards the devices lie below the one that
is shared (seen on DGX-2 and on Dell's 8xH100, whose ``topo -m`` prints PIX there).

A virtual machine shows the tree its hypervisor made up, mostly flat: every device on a root port of
its own, or in a domain of its own. That two devices share no bridge there proves nothing. So where
no GPU of a guest shares a bridge, only what the NUMA numbers tell apart is said (SYS).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from fleet.fields import AbsenceReason, PciAddress
from fleet.sources.nvml_answers import Missing
from fleet.sources.pci import pci_address_from_text
from fleet.sources.sysfs_files import PCI, KernelFiles, undecodable, value_of
from fleet.wiring import PcieBridge, PcieLevel

PCI_NAME: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")

_HOST_BRIDGE: Final = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}")
NVIDIA_DRIVER: Final = "nvidia"

_NVIDIA: Final = "10de"
_DRIVER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
_GPU_CLASSES: Final = ("0300", "0302")
_NVSWITCH_CLASS: Final = "0680"
_NETWORK_CLASS: Final = "02"
_GENERATIONS: Final = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6, 128.0: 7}
_SPEED: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9])?) GT/s(?: PCIe)?")
_WIDTHS: Final = frozenset({1, 2, 4, 8, 12, 16, 32})
HIGHEST_NUMA: Final = 9999
_GUEST: Final = re.compile(r"^flags\s*:.*\bhypervisor\b", re.MULTILINE)
_EMULATORS: Final = frozenset({"1af4", "1b36", "15ad", "1414", "5853"})
"""Makers of ports and network controllers that only guests have: QEMU, VMware, Hyper-V, Xen."""


@dataclass(frozen=True, slots=True)
class PciFunction:
    """One PCI function. ``above`` are the bridges on its way up, root port first.

    ``host_bridge`` None: the way up is not told. Codes are hexadecimal digits, empty if not told.
    ``driver`` None: no driver has it, or the link to it was not read.
    """

    address: PciAddress
    host_bridge: str | None
    above: tuple[PciAddress, ...]
    vendor: str
    device: str
    class_code: str
    numa: int | Missing
    generation: int | Missing
    width: int | Missing
    driver: str | None = None

    @property
    def is_gpu(self) -> bool:
        """Whether it is an NVIDIA GPU."""
        return self.vendor == _NVIDIA and self.class_code.startswith(_GPU_CLASSES)

    @property
    def is_given_away(self) -> bool:
        """Whether another driver than NVIDIA's has it: vfio-pci for a guest, or nouveau."""
        return self.driver not in (None, NVIDIA_DRIVER)

    @property
    def is_nvswitch(self) -> bool:
        """Whether it is an NVSwitch."""
        return self.vendor == _NVIDIA and self.class_code.startswith(_NVSWITCH_CLASS)

    @property
    def is_network(self) -> bool:
        """Whether it is a network controller."""
        return self.class_code.startswith(_NETWORK_CLASS)

    @property
    def vendor_device(self) -> str | None:
        """Vendor and device as lspci writes them, ``15b3:1021``."""
        return f"{self.vendor}:{self.device}" if self.vendor and self.device else None


@dataclass(frozen=True, slots=True)
class PciTree:
    """The functions of a node by address, in order, and whether the tree is worth believing."""

    functions: Mapping[PciAddress, PciFunction]
    is_flat_guest: bool

    def gpus(self) -> list[PciFunction]:
        """GPUs in the order of their addresses, but for those given to another driver."""
        gpus = (function for function in self.functions.values() if function.is_gpu)
        return [gpu for gpu in gpus if not gpu.is_given_away]

    def gpus_given_away(self) -> list[PciFunction]:
        """GPUs that another driver has, in the order of their addresses."""
        gpus = (function for function in self.functions.values() if function.is_gpu)
        return [gpu for gpu in gpus if gpu.is_given_away]

    def nvswitches(self) -> list[PciFunction]:
        """NVSwitches in the order of their addresses."""
        return [function for function in self.functions.values() if function.is_nvswitch]

    def level(self, a: PciFunction, b: PciFunction) -> PcieLevel | Missing:
        """How far two functions are apart on PCIe; see the table above."""
        if self.is_flat_guest and not _differ_in_numa(a, b):
            detail = "a virtual machine whose PCI tree is flat: it hides which devices are close"
            return Missing(AbsenceReason.UNSUPPORTED, detail)
        return pcie_level(a, b)


def pci_tree(files: KernelFiles, only_numa: int | None) -> PciTree:
    """The PCI functions of a reading, virtual functions of this host left out.

    ``only_numa`` is the node's NUMA node where it has one only: there the kernel often names none
    for a device (-1), and it can be no other.
    """
    is_guest = _is_guest(files)
    found: dict[PciAddress, PciFunction] = {}
    for name in files.names(PCI, PCI_NAME):
        address = pci_address_from_text(name)
        if address is not None and f"{PCI}/{name}/physfn" not in files.links:
            found.setdefault(address, _function(files, name, address, only_numa, is_guest=is_guest))
    functions = {address: found[address] for address in sorted(found)}
    is_flat = not _some_share_a_bridge_with_a_gpu(functions.values())
    return PciTree(functions, is_flat_guest=is_guest and is_flat)


def way_up(path: str) -> tuple[str | None, tuple[str, ...]]:
    """Host bridge and names of the PCI functions below it, on the path of a device.

    >>> way_up("../../../devices/pci0000:16/0000:16:01.0/0000:17:00.0")
    ('pci0000:16', ('0000:16:01.0', '0000:17:00.0'))
    """
    steps = path.split("/")
    hosts = [i for i, step in enumerate(steps) if _HOST_BRIDGE.fullmatch(step)]
    if not hosts:
        return None, tuple(step for step in steps if PCI_NAME.fullmatch(step))
    below = takewhile(PCI_NAME.fullmatch, steps[hosts[-1] + 1 :])
    return steps[hosts[-1]], tuple(below)


def pcie_level(a: PciFunction, b: PciFunction) -> PcieLevel | Missing:
    """How far two functions are apart on PCIe by the tree as it is shown."""
    if a.host_bridge is None or b.host_bridge is None:
        return Missing(AbsenceReason.UNSUPPORTED, "the way up to the host bridge is not told")
    if a.host_bridge == b.host_bridge:
        pairs = zip(a.above, b.above, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        away = max(len(a.above), len(b.above)) - shared
        return PcieLevel.PHB if not shared else PcieLevel.PIX if away <= 1 else PcieLevel.PXB
    for function in (a, b):
        if isinstance(function.numa, Missing):
            return function.numa
    return PcieLevel.SYS if a.numa != b.numa else PcieLevel.NODE


def bridges_above(
    devices: Iterable[PciFunction], tree: PciTree
) -> tuple[tuple[PcieBridge, ...], dict[PciAddress, int]]:
    """The bridges between root ports and some devices, parents first, and their numbers."""
    numbers: dict[PciAddress, int] = {}
    bridges: list[PcieBridge] = []
    for device in sorted(devices, key=lambda device: (device.host_bridge or "", device.above)):
        parent = None
        for address in device.above[1:]:
            if address not in numbers:
                numbers[address] = len(bridges)
                bridges.append(_bridge(address, numbers[address], parent, tree))
            parent = numbers[address]
    return tuple(bridges), numbers


def _bridge(address: PciAddress, number: int, parent: int | None, tree: PciTree) -> PcieBridge:
    function = tree.functions.get(address)
    if function is None:
        return PcieBridge(bridge=number, parent=parent, pci_address=address)
    return PcieBridge(
        bridge=number,
        parent=parent,
        numa=value_of(function.numa),
        pci_address=address,
        vendor_device=function.vendor_device,
        pcie_generation=value_of(function.generation),
        pcie_width=value_of(function.width),
    )


def _function(
    files: KernelFiles, name: str, address: PciAddress, only_numa: int | None, *, is_guest: bool
) -> PciFunction:
    folder = f"{PCI}/{name}"
    host_bridge, steps = way_up(files.links.get(folder, ""))
    above = tuple(pci_address_from_text(step) for step in steps)
    if host_bridge is None or not above or above[-1] != address:
        host_bridge, steps, above = None, (), ()
    return PciFunction(
        address=address,
        host_bridge=host_bridge,
        above=tuple(known for known in above[:-1] if known is not None),
        vendor=files.code(f"{folder}/vendor"),
        device=files.code(f"{folder}/device"),
        class_code=files.code(f"{folder}/class"),
        numa=_numa(files, folder, only_numa),
        generation=_generation(files, folder, () if is_guest else steps[:-1]),
        width=_width(files, folder),
        driver=_driver(files, folder),
    )


def _driver(files: KernelFiles, folder: str) -> str | None:
    """The driver's name: the end of the link to it, ``../../../bus/pci/drivers/vfio-pci``."""
    name = files.links.get(f"{folder}/driver", "").rpartition("/")[2]
    return name if _DRIVER_NAME.fullmatch(name) else None


def _numa(files: KernelFiles, folder: str, only_numa: int | None) -> int | Missing:
    path = f"{folder}/numa_node"
    numa = files.number(path)
    if numa == -1:
        none = Missing(AbsenceReason.UNSUPPORTED, "numa_node: -1, the firmware names none")
        return none if only_numa is None else only_numa
    if isinstance(numa, Missing) or 0 <= numa <= HIGHEST_NUMA:
        return numa
    return undecodable(path, str(numa))


def _generation(files: KernelFiles, folder: str, ports_above: Sequence[str]) -> int | Missing:
    """Highest PCIe generation of the link upwards: a link is no faster than its slower end.

    Every second bridge is a switch's port away from the CPU, whose way up lies inside the switch;
    the link it tells of is the one below. A guest's ports are made up and limit nothing.
    """
    own = _generation_of_port(files, folder)
    if len(ports_above) % 2 == 0:
        return own
    upper = _generation_of_port(files, f"{PCI}/{ports_above[-1]}")
    return own if isinstance(own, Missing) or isinstance(upper, Missing) else min(own, upper)


def _generation_of_port(files: KernelFiles, folder: str) -> int | Missing:
    path = f"{folder}/max_link_speed"
    text = files.text(path)
    if isinstance(text, Missing):
        return text
    match = _SPEED.fullmatch(text)
    generation = _GENERATIONS.get(float(match[1])) if match else None
    return undecodable(path, text) if generation is None else generation


def _width(files: KernelFiles, folder: str) -> int | Missing:
    """Lanes in use. A device that has fallen off the bus reads as all ones: 63 lanes."""
    path = f"{folder}/current_link_width"
    width = files.number(path)
    if width == 0:
        return Missing(AbsenceReason.UNSUPPORTED, "current_link_width: 0, no link of its own")
    return (
        width if isinstance(width, Missing) or width in _WIDTHS else undecodable(path, str(width))
    )


def _is_guest(files: KernelFiles) -> bool:
    """Whether a hypervisor shows this tree."""
    if _GUEST.search(files.cpu_block()):
        return True
    names = files.names(PCI, PCI_NAME)
    return any(files.code(f"{PCI}/{name}/vendor") in _EMULATORS for name in names)


def _some_share_a_bridge_with_a_gpu(functions: Iterable[PciFunction]) -> bool:
    below: dict[tuple[str | None, PciAddress], list[PciFunction]] = defaultdict(list)
    for function in functions:
        if function.above and (function.is_gpu or function.is_network):
            below[function.host_bridge, function.above[0]].append(function)
    shared = [group for group in below.values() if len(group) > 1]
    return any(function.is_gpu for group in shared for function in group)


def _differ_in_numa(a: PciFunction, b: PciFunction) -> bool:
    numas = (a.numa, b.numa)
    return not any(isinstance(numa, Missing) for numa in numas) and a.numa != b.numa

"""sysfs: a node's devices, PCIe tree and NICs as its kernel lists them. No driver, no clock.

The kernel knows places (PCI addresses, switches, NUMA nodes) and the network. What a GPU is called,
its UUID, its NVLinks and how it fares only the driver tells: see ``completed`` for both together.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations, product
from typing import Final

from fleet.errors import SourceError
from fleet.fields import Absence, AbsenceReason, HostName, PciAddress
from fleet.model import (
    SCHEMA_VERSION,
    GpuIdentity,
    NicIdentity,
    NodeSnapshot,
    Section,
    SectionName,
)
from fleet.reading import Stop
from fleet.sources.nvml_answers import Gaps, Missing, then
from fleet.sources.sysfs_completed import completed as completed
from fleet.sources.sysfs_cpu import cpu_lists, numa_nodes
from fleet.sources.sysfs_files import INFINIBAND, NET, PCI, KernelFiles, folded, value_of
from fleet.sources.sysfs_net import (
    Adapter,
    Port,
    adapters_of,
    guid_of,
    ports_by_adapter,
    rdma_port_count,
)
from fleet.sources.sysfs_pci import PciFunction, PciTree, bridges_above, pci_tree
from fleet.state import NicState, UnlistedGpu, UnlistedWhy
from fleet.wiring import (
    DevicePair,
    GpuSlot,
    LinkState,
    NicPort,
    NicSlot,
    NvSwitch,
    Wiring,
)

SOURCE: Final = "sysfs"
SECTIONS: Final = (SectionName.DEVICES, SectionName.NETWORK)
MOST_GPUS: Final = 64
MOST_NICS: Final = 256
MOST_PORTS: Final = 1024
MOST_ENTRIES: Final = 4096
"""Pairs grow as the product of both; a machine has 32 GPUs at most, and about as many NICs."""

_ASK_THE_DRIVER: Final = Missing(AbsenceReason.UNSUPPORTED, "the kernel does not know; NVML does")
_NOT_ASKED: Final = Missing(AbsenceReason.NOT_ASKED, "nothing was read")
_NO_CLOCK: Final = Missing(AbsenceReason.NOT_ASKED, "the reading does not say when")
_NOT_IN_SYSFS: Final = Missing(AbsenceReason.NOT_ASKED, "not in /sys")
_TELLS_KIND: Final = re.compile(rf"{PCI}/[^/]+/(?:vendor|class)")
_OF_THE_DRIVER: Final = ("product_name", "compute_capability", "memory_bytes", "ports")
_OF_AN_IDENTITY: Final = ("uuid", "serial", "fabric")


def snapshot_from_files(
    files: Mapping[str, str],
    links: Mapping[str, str],
    unreadable: Mapping[str, str],
    *,
    host: HostName,
    collected_at: datetime | None,
    stops: Sequence[Stop] = (),
) -> NodeSnapshot:
    """The node that a reading's files tell of; ``stops`` of the reading say what was not read.

    Raises:
        SourceError: more GPUs, NICs or other devices than any machine has.
    """
    read = KernelFiles(files, links, unreadable, stops)
    gaps = Gaps()
    node = _node(read, host)
    wiring = _wiring(read, node, gaps.below("wiring"))
    _note_what_no_kernel_knows(wiring, gaps)
    _note_lists_that_are_not_whole(read, gaps)
    _note_missing_time(collected_at, gaps)
    identities = tuple(_nic_identities(read, node, gaps))
    return NodeSnapshot(
        kind="node_snapshot",
        schema_version=SCHEMA_VERSION,
        host=host,
        wiring=wiring,
        gpus=tuple(GpuIdentity(slot=gpu.slot) for gpu in wiring.gpus),
        nics=identities,
        nic_states=tuple(_nic_states(node)),
        unlisted_gpus=tuple(_given_away(node.tree)),
        sections=tuple(Section(name=n, source=SOURCE, collected_at=collected_at) for n in SECTIONS),
        absences=_folded(gaps.absences, wiring),
    )


@dataclass(frozen=True, slots=True)
class _Node:
    """What a reading's files hold: the PCI tree, and the adapters with the ports of each."""

    tree: PciTree
    adapters: list[Adapter]
    ports: list[tuple[Port, ...]]


def _node(read: KernelFiles, host: HostName) -> _Node:
    for folder in (PCI, INFINIBAND, NET):
        _refuse_above(MOST_ENTRIES, read.count(folder), f"entries of {folder}", host)
    _refuse_above(MOST_PORTS, rdma_port_count(read), "RDMA ports", host)
    cpus = cpu_lists(read)
    tree = pci_tree(read, only_numa=next(iter(cpus)) if len(cpus) == 1 else None)
    adapters = adapters_of(read, tree)
    _refuse_above(MOST_GPUS, len(tree.gpus()), "GPUs", host)
    _refuse_above(MOST_NICS, len(adapters), "NICs", host)
    return _Node(tree, adapters, ports_by_adapter(read, adapters, tree))


def _refuse_above(most: int, count: int, what: str, host: HostName) -> None:
    if count > most:
        remedy = f"no machine has more than {most}; read it again"
        raise SourceError(f"{count} {what}", where=host, field="files", remedy=remedy)


def _wiring(read: KernelFiles, node: _Node, gaps: Gaps) -> Wiring:
    functions = [a.function for a in node.adapters if isinstance(a.function, PciFunction)]
    bridges, numbers = bridges_above([*node.tree.gpus(), *functions], node.tree)
    gpus = tuple(
        _gpu_slot(slot, gpu, numbers, gaps.below(f"gpus[{slot}]"))
        for slot, gpu in enumerate(node.tree.gpus())
    )
    nics = tuple(
        _nic_slot(slot, node, numbers, gaps.below(f"nics[{slot}]"))
        for slot in range(len(node.adapters))
    )
    return Wiring(
        numa_nodes=numa_nodes(read, (*gpus, *nics, *bridges), gaps),
        bridges=bridges,
        gpus=gpus,
        nvswitches=tuple(
            NvSwitch(index=index, pci_address=switch.address)
            for index, switch in enumerate(node.tree.nvswitches())
        ),
        nics=nics,
        pcie_levels=tuple(_pcie_levels(node, gaps)),
    )


def _gpu_slot(
    slot: int, gpu: PciFunction, numbers: Mapping[PciAddress, int], gaps: Gaps
) -> GpuSlot:
    return GpuSlot(
        slot=slot,
        pci_address=gpu.address,
        numa=gaps.value("numa", gpu.numa),
        bridge=_bridge_of(gpu, numbers),
        pcie_generation=gaps.value("pcie_generation", gpu.generation),
        pcie_width=gaps.value("pcie_width", gpu.width),
    )


def _bridge_of(function: PciFunction, numbers: Mapping[PciAddress, int]) -> int | None:
    """The bridge right above a function; none where that is the root port."""
    return numbers[function.above[-1]] if len(function.above) > 1 else None


def _nic_slot(slot: int, node: _Node, numbers: Mapping[PciAddress, int], gaps: Gaps) -> NicSlot:
    adapter, ports = node.adapters[slot], node.ports[slot]
    if not ports:
        detail = "no RDMA device and no interface: its driver is not loaded, or did not answer"
        gaps.value("ports", Missing(AbsenceReason.UNSUPPORTED, detail))
    function = adapter.function
    return NicSlot(
        slot=slot,
        vendor_device=adapter.vendor_device,
        pci_address=gaps.value("pci_address", adapter.address),
        numa=gaps.value("numa", then(function, lambda f: f.numa)),
        bridge=value_of(then(function, lambda f: _bridge_of(f, numbers))),
        pcie_generation=value_of(then(function, lambda f: f.generation)),
        pcie_width=value_of(then(function, lambda f: f.width)),
        ports=tuple(_nic_port(port, gaps.below(f"ports[{port.number}]")) for port in ports),
    )


def _nic_port(port: Port, gaps: Gaps) -> NicPort:
    state = gaps.value("state", port.state)
    return NicPort(
        port=port.number,
        name=port.name,
        link_layer=port.layer,
        state=LinkState.UNREPORTED if state is None else state,
        bytes_per_s=gaps.value("bytes_per_s", port.bytes_per_s),
        rail=port.rail,
    )


def _pcie_levels(node: _Node, gaps: Gaps) -> Iterator[DevicePair]:
    """GPUs with each other and with the NICs that are on PCI."""
    gpus = [(f"gpu{slot}", gpu) for slot, gpu in enumerate(node.tree.gpus())]
    nics = [
        (f"nic{slot}", adapter.function)
        for slot, adapter in enumerate(node.adapters)
        if isinstance(adapter.function, PciFunction)
    ]
    missing: dict[Missing, None] = {}
    for (a, first), (b, second) in (*combinations(gpus, 2), *product(gpus, nics)):
        level = node.tree.level(first, second)
        if isinstance(level, Missing):
            missing[level] = None
        else:
            yield DevicePair(a=a, b=b, level=level)
    for lack in missing:
        gaps.value("pcie_levels", lack)


def _nic_identities(read: KernelFiles, node: _Node, gaps: Gaps) -> Iterator[NicIdentity]:
    for slot, adapter in enumerate(node.adapters):
        guid = gaps.below(f"nics[{slot}]").value("guid", guid_of(read, adapter))
        yield NicIdentity(slot=slot, guid=guid)


def _nic_states(node: _Node) -> Iterator[NicState]:
    for slot, ports in enumerate(node.ports):
        for port in ports:
            yield NicState(
                slot=slot,
                port=port.number,
                logical_state=value_of(port.logical),
                physical_state=value_of(port.physical),
                firmware=value_of(port.firmware),
                link_downs=value_of(port.link_downs),
            )


def _given_away(tree: PciTree) -> Iterator[UnlistedGpu]:
    for gpu in tree.gpus_given_away():
        yield UnlistedGpu(pci_address=gpu.address, why=UnlistedWhy.OTHER_DRIVER, driver=gpu.driver)


def _note_what_no_kernel_knows(wiring: Wiring, gaps: Gaps) -> None:
    for gpu in wiring.gpus:
        for name in _OF_THE_DRIVER:
            gaps.value(f"wiring.gpus[{gpu.slot}].{name}", _ASK_THE_DRIVER)
        for name in _OF_AN_IDENTITY:
            gaps.value(f"gpus[{gpu.slot}].{name}", _ASK_THE_DRIVER)
    for name in ("versions", "allocations"):
        gaps.value(name, _NOT_IN_SYSFS)


def _note_missing_time(collected_at: datetime | None, gaps: Gaps) -> None:
    for name in SECTIONS if collected_at is None else ():
        gaps.value(f"sections[{name}/{SOURCE}].collected_at", _NO_CLOCK)


def _note_lists_that_are_not_whole(read: KernelFiles, gaps: Gaps) -> None:
    """A list of devices that could not be read is no list without devices."""
    for lack in dict.fromkeys(_why_pci_is_not_whole(read)):
        gaps.value("wiring.gpus", lack)
        gaps.value("wiring.nics", lack)
    for lack in dict.fromkeys(_why_network_is_not_whole(read)):
        gaps.value("wiring.nics", lack)


def _why_pci_is_not_whole(read: KernelFiles) -> Iterator[Missing]:
    if not (read.files or read.links or read.unreadable or read.stops):
        yield _NOT_ASKED
    told = sorted(p for p in read.unreadable if p == PCI or _TELLS_KIND.fullmatch(p))
    lacks = (read.refusal_of(told[0]) if told else None, read.cut_of("pci"))
    yield from (lack for lack in lacks if lack is not None)


def _why_network_is_not_whole(read: KernelFiles) -> Iterator[Missing]:
    for folder in (INFINIBAND, NET):
        refusal = read.refusal_of(folder)
        # A node without InfiniBand has no such folder.
        if refusal is not None and read.unreadable[folder] != "ENOENT":
            yield refusal
    cut = read.cut_of("network")
    if cut is not None:
        yield cut


def _folded(absences: Sequence[Absence], wiring: Wiring) -> tuple[Absence, ...]:
    gpus = [gpu.slot for gpu in wiring.gpus]
    nics = [nic.slot for nic in wiring.nics]
    for name, slots in (
        ("wiring.gpus", gpus),
        ("gpus", gpus),
        ("wiring.nics", nics),
        ("nics", nics),
    ):
        absences = folded(absences, name, slots)
    return tuple(absences)

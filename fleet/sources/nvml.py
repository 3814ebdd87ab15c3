"""NVML: this node as its NVIDIA driver tells it, in one thread. No clock, no NICs, no sysfs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import combinations, groupby
from typing import Final
from uuid import UUID

from fleet.fields import AbsenceReason, GpuUuid, HostName, PciAddress
from fleet.model import (
    SCHEMA_VERSION,
    Allocation,
    FabricState,
    GpuIdentity,
    NodeSnapshot,
    NvlinkFabric,
    Section,
    SectionName,
    SoftwareVersions,
)
from fleet.sources import nvml_calls as nvml
from fleet.sources.nvml_answers import (
    NO_GPU,
    Gaps,
    Missing,
    above_zero,
    agreed,
    first_answer,
    looked_up,
    shared_absences,
    then,
)
from fleet.sources.nvml_calls import FabricInfo, Handle, PlatformInfo
from fleet.sources.nvml_links import links_of, pci_address, places_of, ports_of
from fleet.wiring import (
    DevicePair,
    GpuSlot,
    NumaNode,
    NvSwitch,
    P2pState,
    P2pStatus,
    PcieLevel,
    Wiring,
)

Handles = Sequence[Handle | Missing]

SOURCE: Final = "nvml"
_CPU_WORDS: Final = 128
_NUMA_WORDS: Final = 16

_PCIE_LEVELS: Final = {
    0: PcieLevel.INTERNAL,
    10: PcieLevel.PIX,
    20: PcieLevel.PXB,
    30: PcieLevel.PHB,
    40: PcieLevel.NODE,
    50: PcieLevel.SYS,
}
_P2P_READ: Final = 0  # the binding's constant of this name is a tuple by mistake
_P2P_WRITE: Final = 1
_P2P_STATES: Final = {
    0: P2pState.OK,
    1: P2pState.CHIPSET,
    2: P2pState.GPU,
    3: P2pState.TOPOLOGY,
    4: P2pState.REGKEY,
    5: P2pState.UNSUPPORTED,
    6: P2pState.UNKNOWN,
}
_NO_NICS: Final = Missing(AbsenceReason.NOT_ASKED, "NVML lists no NICs")


def read_node(*, host: HostName, now: datetime) -> NodeSnapshot:
    """This node through NVML; ``now`` (with a zone) is what the caller's clock says.

    One lost or forbidden GPU costs only its own data; a node without GPUs is no error.

    Raises:
        NothingCollectedError: no library, no driver, or one that does not answer at all.
    """
    gaps = Gaps()
    with nvml.session():
        handles = nvml.device_handles()
        wiring = _wiring(handles, gaps.below("wiring"))
        gpus = tuple(_identity(i, h, gaps.below(f"gpus[{i}]")) for i, h in enumerate(handles))
        versions = _versions(gaps.below("versions"))
        chassis_serial, tray = _place_in_rack(handles, gaps)
        allocations = _allocations(handles, gaps)
    return NodeSnapshot(
        kind="node_snapshot",
        schema_version=SCHEMA_VERSION,
        host=host,
        wiring=wiring,
        gpus=gpus,
        versions=versions,
        chassis_serial=chassis_serial,
        tray=tray,
        allocations=allocations,
        sections=tuple(
            Section(name=name, source=SOURCE, collected_at=now)
            for name in (SectionName.DEVICES, SectionName.LINKS, SectionName.USE)
        ),
        absences=shared_absences(gaps.absences, wiring),
    )


def _wiring(handles: Handles, gaps: Gaps) -> Wiring:
    addresses = tuple(
        then(nvml.bus_id("nvmlDeviceGetPciInfo", handle), pci_address) for handle in handles
    )
    links = tuple(links_of(handle) for handle in handles)
    places = places_of(addresses, links)
    gpus = tuple(
        _gpu_slot(i, handle, addresses[i], gaps.below(f"gpus[{i}]")).model_copy(
            update={"ports": ports_of(links[i], places, gaps.below(f"gpus[{i}]"))}
        )
        for i, handle in enumerate(handles)
    )
    gaps.value("nics", _NO_NICS)
    return Wiring(
        numa_nodes=_numa_nodes(handles, gpus, gaps),
        gpus=gpus,
        nvswitches=tuple(
            NvSwitch(index=index, pci_address=address)
            for address, index in places.switches.items()
            if not isinstance(address, Missing)
        ),
        pcie_levels=tuple(_pcie_levels(handles, gaps)),
        p2p=tuple(_p2p(handles, gaps)),
    )


def _gpu_slot(
    slot: int, handle: Handle | Missing, address: PciAddress | Missing, gaps: Gaps
) -> GpuSlot:
    generation = nvml.number("nvmlDeviceGetMaxPcieLinkGeneration", handle)
    width = nvml.number("nvmlDeviceGetCurrPcieLinkWidth", handle)
    return GpuSlot(
        slot=slot,
        product_name=gaps.value("product_name", nvml.text("nvmlDeviceGetName", handle)),
        compute_capability=gaps.value("compute_capability", nvml.compute_capability(handle)),
        memory_bytes=gaps.value("memory_bytes", above_zero(nvml.memory_bytes(handle))),
        pci_address=gaps.value("pci_address", address),
        module_id=gaps.value("module_id", nvml.module_id(handle)),
        numa=gaps.value("numa", _numa(handle)),
        pcie_generation=gaps.value("pcie_generation", above_zero(generation)),
        pcie_width=gaps.value("pcie_width", above_zero(width)),
    )


def _numa(handle: Handle | Missing) -> int | Missing:
    """NUMA node of a GPU's socket. (``nvmlDeviceGetNumaNodeId`` is that of the GPU's memory.)"""
    name = "nvmlDeviceGetMemoryAffinity"

    def only(nodes: tuple[int, ...]) -> int | Missing:
        several = f"{name}: names {_ranges(nodes) or 'no NUMA node'}"
        return nodes[0] if len(nodes) == 1 else Missing(AbsenceReason.UNSUPPORTED, several)

    return then(nvml.affinity(name, handle, _NUMA_WORDS, nvml.NODE_SCOPE), only)


def _numa_nodes(handles: Handles, gpus: Iterable[GpuSlot], gaps: Gaps) -> tuple[NumaNode, ...]:
    cpus: dict[int, list[str | Missing]] = defaultdict(list)
    for gpu in gpus:
        if gpu.numa is not None:
            cpus[gpu.numa].append(_cpu_affinity(handles[gpu.slot]))
    return tuple(
        NumaNode(
            numa=numa,
            cpu_affinity=gaps.value(f"numa_nodes[{numa}].cpu_affinity", agreed(cpus[numa], "CPUs")),
        )
        for numa in sorted(cpus)
    )


def _cpu_affinity(handle: Handle | Missing) -> str | Missing:
    scoped, plain = "nvmlDeviceGetCpuAffinityWithinScope", "nvmlDeviceGetCpuAffinity"
    cpus = first_answer(
        (
            lambda: nvml.affinity(scoped, handle, _CPU_WORDS, nvml.NODE_SCOPE),
            lambda: nvml.affinity(plain, handle, _CPU_WORDS),
        )
    )
    none = Missing(AbsenceReason.UNSUPPORTED, f"{scoped}: names no CPU")
    return then(cpus, lambda numbers: _ranges(numbers) or none)


def _ranges(numbers: Iterable[int]) -> str:
    """Rising numbers as ``0-3,8``."""
    texts = []
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        texts.append(f"{members[0]}-{members[-1]}" if len(members) > 1 else f"{members[0]}")
    return ",".join(texts)


def _pairs(handles: Handles) -> Iterator[tuple[int, int]]:
    return combinations(range(len(handles)), 2)


def _pcie_levels(handles: Handles, gaps: Gaps) -> Iterator[DevicePair]:
    name = "nvmlDeviceGetTopologyCommonAncestor"
    for a, b in _pairs(handles):
        told = nvml.number(name, handles[a], handles[b])
        level = then(told, looked_up(_PCIE_LEVELS, "common ancestor"))
        known = gaps.value(f"pcie_levels[gpu{a}-gpu{b}]", level)
        if known is not None:
            yield DevicePair(a=f"gpu{a}", b=f"gpu{b}", level=known)


def _p2p(handles: Handles, gaps: Gaps) -> Iterator[P2pStatus]:
    name, state = "nvmlDeviceGetP2PStatus", looked_up(_P2P_STATES, "P2P status")
    for a, b in _pairs(handles):
        read = then(nvml.number(name, handles[a], handles[b], _P2P_READ), state)
        write = then(nvml.number(name, handles[a], handles[b], _P2P_WRITE), state)
        if isinstance(read, Missing) or isinstance(write, Missing):
            gaps.value(f"p2p[{a}-{b}]", read if isinstance(read, Missing) else write)
        else:
            yield P2pStatus(a=a, b=b, read=read, write=write)


def _identity(slot: int, handle: Handle | Missing, gaps: Gaps) -> GpuIdentity:
    uuid = then(nvml.text("nvmlDeviceGetUUID", handle), GpuUuid)
    return GpuIdentity(
        slot=slot,
        uuid=gaps.value("uuid", uuid),
        serial=gaps.value("serial", nvml.text("nvmlDeviceGetSerial", handle)),
        vbios=gaps.value("vbios", nvml.text("nvmlDeviceGetVbiosVersion", handle)),
        fabric=gaps.value("fabric", then(nvml.fabric_info(handle), _fabric)),
    )


def _fabric(info: FabricInfo) -> NvlinkFabric | Missing:
    """The domain rule: completed, without error, and with a cluster that is not all zeros."""
    if info.state != 3:
        words = {0: FabricState.UNSUPPORTED, 1: FabricState.FORMING, 2: FabricState.FORMING}
        known = looked_up(words, "fabric state")(info.state)
        return then(known, lambda state: NvlinkFabric(state=state))
    if info.status:
        return NvlinkFabric(state=FabricState.BROKEN)
    if not any(info.cluster_uuid):
        return NvlinkFabric(state=FabricState.SINGLE_NODE)
    cluster = str(UUID(bytes=info.cluster_uuid))
    return NvlinkFabric(state=FabricState.DOMAIN, cluster_uuid=cluster, clique=info.clique)


def _versions(gaps: Gaps) -> SoftwareVersions:
    cuda = above_zero(nvml.number("nvmlSystemGetCudaDriverVersion"))
    return SoftwareVersions(
        driver=gaps.value("driver", nvml.text("nvmlSystemGetDriverVersion")),
        cuda=gaps.value("cuda", then(cuda, lambda n: f"{n // 1000}.{n % 1000 // 10}")),
        nvml=gaps.value("nvml", nvml.text("nvmlSystemGetNVMLVersion")),
    )


def _place_in_rack(handles: Handles, gaps: Gaps) -> tuple[str | None, int | None]:
    def serial_of(platform: PlatformInfo) -> str | Missing:
        return platform.chassis_serial

    platforms = [nvml.platform_info(handle) for handle in handles]
    serials = (then(platform, serial_of) for platform in platforms)
    trays = (then(platform, lambda known: known.tray) for platform in platforms)
    return (
        gaps.value("chassis_serial", agreed(serials, "chassis serial")),
        gaps.value("tray", agreed(trays, "tray")),
    )


def _allocations(handles: Handles, gaps: Gaps) -> tuple[Allocation, ...] | None:
    """GPUs by process; of a GPU that does not tell its processes, an absence under its name."""
    answers = [nvml.running_pids(handle) for handle in handles]
    if all(isinstance(answer, Missing) for answer in answers):
        gaps.value("allocations", next(iter(answers), NO_GPU))
        return None
    slots: dict[int, list[int]] = defaultdict(list)
    for slot, answer in enumerate(answers):
        for pid in sorted(set(gaps.value(f"allocations[gpu{slot}]", answer) or ())):
            slots[pid].append(slot)
    return tuple(Allocation(holder=f"pid {pid}", slots=tuple(slots[pid])) for pid in sorted(slots))

"""Wiring as a node's NVIDIA driver answered: GPUs, their links, their paths to each other."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations, groupby
from typing import Any, Final

from fleet.fields import Absence, AbsenceReason, PciAddress
from fleet.probe.keys import is_state
from fleet.sources.nvml_answers import Gaps, Missing, above_zero, agreed, looked_up, then
from fleet.sources.nvml_calls import Calls, memory_bytes
from fleet.sources.nvml_links import (
    FIELDS,
    MOST_LINKS,
    c2c_links,
    links_of,
    pci_address,
    places_of,
    ports_of,
)
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

_P2P_READ: Final = 0
_P2P_WRITE: Final = 1

_PCIE_LEVELS: Final = {
    0: PcieLevel.INTERNAL,
    10: PcieLevel.PIX,
    20: PcieLevel.PXB,
    30: PcieLevel.PHB,
    40: PcieLevel.NODE,
    50: PcieLevel.SYS,
}
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

_FIELDS: Final = frozenset(f"{number},{port}" for number in FIELDS for port in range(MOST_LINKS))


class WiringMemory:
    """The wiring of the last reading, given again while the driver says the same of it."""

    def __init__(self) -> None:
        self._last: tuple[object, Wiring, list[Absence]] | None = None

    def wiring(self, calls: Calls, gpus: Iterable[int], gaps: Gaps) -> Wiring:
        """How the GPUs are wired; the very same object where nothing has changed."""
        told = _told(calls, gpus)
        if self._last is None or self._last[0] != told:
            own = Gaps("wiring.")
            self._last = told, wiring_of(calls, gpus, own), own.absences
        gaps.absences.extend(self._last[2])
        return self._last[1]


def _told(calls: Calls, gpus: Iterable[int]) -> tuple[Any, ...]:
    """All answers that a wiring is made of: whatever is not state, and a few of what is."""
    return (
        {key: answer for key, answer in calls.answers.items() if not is_state(key)},
        [_fields(calls, gpu) for gpu in gpus],
        [memory_bytes(calls, gpu) for gpu in gpus],
        dict(calls.stops),
    )


def _fields(calls: Calls, gpu: int) -> dict[str, Any]:
    return {name: told for name, told in calls.fields(gpu).items() if name in _FIELDS}


def wiring_of(calls: Calls, gpus: Iterable[int], gaps: Gaps) -> Wiring:
    """How the GPUs are wired, of all that their driver tells."""
    addresses = tuple(then(calls.bus_id("nvmlDeviceGetPciInfo", gpu), pci_address) for gpu in gpus)
    links = tuple(links_of(calls, gpu) for gpu in gpus)
    places = places_of(addresses, links)
    slots = tuple(
        _gpu_slot(calls, gpu, addresses[gpu], gaps.below(f"gpus[{gpu}]")).model_copy(
            update={"ports": ports_of(links[gpu], places, gaps.below(f"gpus[{gpu}]"))}
        )
        for gpu in gpus
    )
    gaps.value("nics", _NO_NICS)
    return Wiring(
        numa_nodes=_numa_nodes(calls, slots, gaps),
        gpus=slots,
        nvswitches=tuple(
            NvSwitch(index=index, pci_address=address)
            for address, index in places.switches.items()
            if not isinstance(address, Missing)
        ),
        pcie_levels=tuple(_pcie_levels(calls, gpus, gaps)),
        p2p=tuple(_p2p(calls, gpus, gaps)),
    )


def _gpu_slot(calls: Calls, gpu: int, address: PciAddress | Missing, gaps: Gaps) -> GpuSlot:
    generation = calls.number("nvmlDeviceGetMaxPcieLinkGeneration", gpu)
    width = calls.number("nvmlDeviceGetCurrPcieLinkWidth", gpu)
    capability = calls.read(
        "nvmlDeviceGetCudaComputeCapability", gpu, by=lambda pair: "{}.{}".format(*pair)
    )
    return GpuSlot(
        slot=gpu,
        product_name=gaps.value("product_name", calls.text("nvmlDeviceGetName", gpu)),
        compute_capability=gaps.value("compute_capability", capability),
        memory_bytes=gaps.value("memory_bytes", above_zero(memory_bytes(calls, gpu))),
        pci_address=gaps.value("pci_address", address),
        module_id=gaps.value("module_id", above_zero(calls.number("nvmlDeviceGetModuleId", gpu))),
        numa=gaps.value("numa", _numa(calls, gpu)),
        pcie_generation=gaps.value("pcie_generation", above_zero(generation)),
        pcie_width=gaps.value("pcie_width", above_zero(width)),
        c2c=c2c_links(calls, gpu),
    )


def _numa(calls: Calls, gpu: int) -> int | Missing:
    """NUMA node of a GPU's socket. (``nvmlDeviceGetNumaNodeId`` is that of the GPU's memory.)"""
    name = "nvmlDeviceGetMemoryAffinity"

    def only(nodes: tuple[int, ...]) -> int | Missing:
        several = f"{name}: names {_ranges(nodes) or 'no NUMA node'}"
        return nodes[0] if len(nodes) == 1 else Missing(AbsenceReason.UNSUPPORTED, several)

    return then(calls.bits(name, gpu), only)


def _numa_nodes(calls: Calls, gpus: Iterable[GpuSlot], gaps: Gaps) -> tuple[NumaNode, ...]:
    cpus: dict[int, list[str | Missing]] = defaultdict(list)
    for gpu in gpus:
        if gpu.numa is not None:
            cpus[gpu.numa].append(_cpu_affinity(calls, gpu.slot))
    return tuple(
        NumaNode(
            numa=numa,
            cpu_affinity=gaps.value(f"numa_nodes[{numa}].cpu_affinity", agreed(cpus[numa], "CPUs")),
        )
        for numa in sorted(cpus)
    )


def _cpu_affinity(calls: Calls, gpu: int) -> str | Missing:
    scoped = "nvmlDeviceGetCpuAffinityWithinScope"
    none = Missing(AbsenceReason.UNSUPPORTED, f"{scoped}: names no CPU")
    return then(calls.bits(scoped, gpu), lambda numbers: _ranges(numbers) or none)


def _ranges(numbers: Iterable[int]) -> str:
    """Rising numbers as ``0-3,8``."""
    texts = []
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        texts.append(f"{members[0]}-{members[-1]}" if len(members) > 1 else f"{members[0]}")
    return ",".join(texts)


def _pcie_levels(calls: Calls, gpus: Iterable[int], gaps: Gaps) -> Iterator[DevicePair]:
    name = "nvmlDeviceGetTopologyCommonAncestor"
    for a, b in combinations(gpus, 2):
        level = then(calls.number(name, a, b), looked_up(_PCIE_LEVELS, "common ancestor"))
        known = gaps.value(f"pcie_levels[gpu{a}-gpu{b}]", level)
        if known is not None:
            yield DevicePair(a=f"gpu{a}", b=f"gpu{b}", level=known)


def _p2p(calls: Calls, gpus: Iterable[int], gaps: Gaps) -> Iterator[P2pStatus]:
    name, state = "nvmlDeviceGetP2PStatus", looked_up(_P2P_STATES, "P2P status")
    for a, b in combinations(gpus, 2):
        read = then(calls.number(name, a, b, _P2P_READ), state)
        write = then(calls.number(name, a, b, _P2P_WRITE), state)
        if isinstance(read, Missing) or isinstance(write, Missing):
            gaps.value(f"p2p[{a}-{b}]", read if isinstance(read, Missing) else write)
        else:
            yield P2pStatus(a=a, b=b, read=read, write=write)

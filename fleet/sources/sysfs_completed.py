"""Completes what a driver says of a node with what its kernel says. No reading.

Each is believed in what it knows: the driver in which GPU has which number, the kernel in what
is plugged where and in the network. Where both say something, the driver's word stays.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fleet.fields import Absence, AbsenceReason, FrozenModel, Keyed, is_said, path_matches
from fleet.model import NodeSnapshot
from fleet.naming import counted
from fleet.slots import renumbered
from fleet.state import UnlistedGpu, UnlistedWhy
from fleet.wiring import DevicePair, GpuSlot, NicSlot, NumaNode, NvSwitch, Wiring

_M = TypeVar("_M", bound=FrozenModel)
_K = TypeVar("_K", bound=Keyed)

_OF_A_GPU: Final = ("pci_address", "numa", "bridge", "pcie_generation", "pcie_width")
_OF_A_NUMA_NODE: Final = ("architecture", "vendor", "family", "model", "cpu_affinity")
_GPU_PATH: Final = re.compile(r"wiring\.gpus\[(?P<slot>\*|[0-9]+)\]\.(?P<name>\w+)")
_OF_THE_DRIVER: Final = ("gpus[", "versions", "allocations")
_OF_NICS: Final = ("wiring.nics", "nics")


def completed(base: NodeSnapshot, files: NodeSnapshot) -> NodeSnapshot:
    """The driver's snapshot ``base`` with what the kernel's ``files`` add; slots are the driver's.

    GPUs are found by PCI address. One that does not tell its address (it hangs, or is lost) is what
    is left on the bus, if just as many are left. GPUs on the bus which the driver does not list
    become ``unlisted_gpus``, beside those that the kernel has given to another driver.
    """
    match = _match(base, files)
    facts: dict[str, Any] = {
        "wiring": _wiring(base.wiring, files.wiring, match),
        "unlisted_gpus": (*base.unlisted_gpus, *match.unlisted),
        "sections": _with_further(base.sections, files.sections),
    }
    if match.nics is not None:
        facts |= {"nics": files.nics, "nic_states": files.nic_states}
    whole = NodeSnapshot(**dict(base) | facts)
    absences = (*_still_absent(base, whole, match), *_also_absent(files, whole, match))
    return whole.model_copy(update={"absences": tuple(dict.fromkeys(absences))})


@dataclass(frozen=True, slots=True)
class _Match:
    """The driver's GPU slots by the kernel's; the kernel's NIC slots by the driver's.

    ``nics`` None: the kernel's NICs are not taken. ``unlisted`` are the GPUs that the driver does
    not list, another driver's among them; ``unclear`` says that it cannot be told which they are.
    """

    gpus: Mapping[int, int]
    nics: Mapping[int, int] | None
    unlisted: tuple[UnlistedGpu, ...]
    unclear: tuple[Absence, ...]


def _match(base: NodeSnapshot, files: NodeSnapshot) -> _Match:
    slot_at = {gpu.pci_address: gpu.slot for gpu in base.wiring.gpus if gpu.pci_address}
    on_bus = files.wiring.gpus
    gpus = {gpu.slot: slot_at[gpu.pci_address] for gpu in on_bus if gpu.pci_address in slot_at}
    known = {gpu.pci_address for gpu in base.unlisted_gpus}
    left = [gpu for gpu in on_bus if gpu.slot not in gpus and gpu.pci_address not in known]
    unknown = [gpu.slot for gpu in base.wiring.gpus if gpu.pci_address is None]
    if unknown and len(left) == len(unknown) and (len(left) == 1 or _is_rising(gpus)):
        gpus |= {gpu.slot: slot for gpu, slot in zip(left, unknown, strict=True)}
        left = []
    others = [g for g in files.unlisted_gpus if g.pci_address not in {*slot_at, *known}]
    nics = _nic_slots(base.wiring.nics, files.wiring.nics)
    unclear = [_unclear(left, unknown)] if unknown and left else []
    if nics is None:
        detail = (
            "the kernel does not list all the NICs that the driver names: the driver's are kept"
        )
        unclear += [
            Absence(path="wiring.nics", reason=AbsenceReason.UNDECODABLE, detail=detail),
        ]
    return _Match(
        gpus=gpus,
        nics=nics,
        unlisted=(*others, *(() if unknown and left else map(_unlisted, left))),
        unclear=tuple(unclear),
    )


def _is_rising(slots: Mapping[int, int]) -> bool:
    """Whether the driver numbers its GPUs in the order of the bus, as it does unless told."""
    numbers = [slots[slot] for slot in sorted(slots)]
    return numbers == sorted(numbers)


def _unlisted(gpu: GpuSlot) -> UnlistedGpu:
    assert gpu.pci_address is not None, "the kernel lists GPUs by address"
    return UnlistedGpu(pci_address=gpu.pci_address, why=UnlistedWhy.NOT_LISTED)


def _unclear(left: list[GpuSlot], unknown: list[int]) -> Absence:
    places = ", ".join(str(gpu.pci_address) for gpu in left[:16])
    detail = f"{places} on the bus; {counted(len(unknown), 'GPU')} of the driver tell no address"
    return Absence(path="unlisted_gpus", reason=AbsenceReason.UNDECODABLE, detail=detail)


def _nic_slots(ours: Iterable[NicSlot], theirs: tuple[NicSlot, ...]) -> dict[int, int] | None:
    """The kernel's slot of each of the driver's NICs; None unless it knows them all."""
    slot_of: dict[str, int] = {}
    for nic in theirs:
        for name in _names(nic):
            slot_of.setdefault(name, nic.slot)
    moves: dict[int, int] = {}
    for nic in ours:
        known = [slot_of[name] for name in _names(nic) if name in slot_of]
        if not known or known[0] in moves.values():
            return None
        moves[nic.slot] = known[0]
    return moves


def _names(nic: NicSlot) -> list[str]:
    return [name for name in (nic.pci_address, *(port.name for port in nic.ports)) if name]


def _wiring(ours: Wiring, theirs: Wiring, match: _Match) -> Wiring:
    if ours.bridges:
        theirs = _without_bridges(theirs)
    at = {slot: gpu for gpu in theirs.gpus if (slot := match.gpus.get(gpu.slot)) is not None}
    nics, levels = ours.nics, ours.pcie_levels
    if match.nics is not None:
        nics, levels = theirs.nics, renumbered(ours, {}, match.nics).pcie_levels
    return Wiring(
        **dict(ours)
        | {
            "numa_nodes": _numa_nodes(ours, theirs),
            "bridges": ours.bridges or theirs.bridges,
            "gpus": tuple(
                _filled(g, at[g.slot], _OF_A_GPU) if g.slot in at else g for g in ours.gpus
            ),
            "nvswitches": _nvswitches(ours.nvswitches, theirs.nvswitches),
            "nics": nics,
            "pcie_levels": _levels(levels, theirs.pcie_levels, match),
        }
    )


def _filled(ours: _M, theirs: _M, names: Iterable[str]) -> _M:
    update = {name: getattr(theirs, name) for name in names if getattr(ours, name) is None}
    return ours.model_copy(update=update)


def _numa_nodes(ours: Wiring, theirs: Wiring) -> tuple[NumaNode, ...]:
    by_numa = {node.numa: node for node in theirs.numa_nodes}
    for node in ours.numa_nodes:
        other = by_numa.get(node.numa, node)
        by_numa[node.numa] = _filled(node, other, _OF_A_NUMA_NODE)
    return tuple(by_numa[numa] for numa in sorted(by_numa))


def _nvswitches(ours: tuple[NvSwitch, ...], theirs: tuple[NvSwitch, ...]) -> tuple[NvSwitch, ...]:
    """The switches that the links reach, and those on the bus that none does."""
    known = {switch.pci_address for switch in ours}
    if None in known:
        return ours
    further = [switch for switch in theirs if switch.pci_address not in known]
    first = max((switch.index for switch in ours), default=-1) + 1
    return (
        *ours,
        *(switch.model_copy(update={"index": i}) for i, switch in enumerate(further, first)),
    )


def _levels(
    ours: tuple[DevicePair, ...], theirs: tuple[DevicePair, ...], match: _Match
) -> tuple[DevicePair, ...]:
    told = {frozenset((pair.a, pair.b)) for pair in ours}
    further = [pair for old in theirs if (pair := _renamed(old, match)) is not None]
    return (*ours, *(pair for pair in further if frozenset((pair.a, pair.b)) not in told))


def _renamed(pair: DevicePair, match: _Match) -> DevicePair | None:
    """A pair of the kernel's with the driver's slots; None where the driver lacks the device."""
    slots: list[tuple[str, int]] = []
    for name in (pair.a, pair.b):
        kind, slot = name[:3], int(name[3:])
        if kind == "gpu" and slot in match.gpus:
            slots.append((kind, match.gpus[slot]))
        elif kind == "nic" and match.nics is not None:
            slots.append((kind, slot))
    if len(slots) < 2:
        return None
    (a, i), (b, j) = sorted(slots)
    return pair.model_copy(update={"a": f"{a}{i}", "b": f"{b}{j}"})


def _without_bridges(wiring: Wiring) -> Wiring:
    def hung_free(devices: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(device.model_copy(update={"bridge": None}) for device in devices)

    update = {"bridges": (), "gpus": hung_free(wiring.gpus), "nics": hung_free(wiring.nics)}
    return wiring.model_copy(update=update)


def _with_further(ours: tuple[_K, ...], theirs: tuple[_K, ...]) -> tuple[_K, ...]:
    known = {element.key for element in ours}
    return (*ours, *(element for element in theirs if element.key not in known))


def _still_absent(base: NodeSnapshot, whole: NodeSnapshot, match: _Match) -> Iterator[Absence]:
    """What the driver does not say and nobody filled; of NICs the kernel's absences count."""
    for absence in base.absences:
        is_of_nics = absence.path.startswith(_OF_NICS) and match.nics is not None
        was_incomplete = is_said(base, absence.path)
        if not is_of_nics and (was_incomplete or not is_said(whole, absence.path)):
            yield absence


def _also_absent(files: NodeSnapshot, whole: NodeSnapshot, match: _Match) -> Iterator[Absence]:
    """What the kernel was to say and does not either."""
    yield from match.unclear
    for absence in files.absences:
        place = _GPU_PATH.fullmatch(absence.path)
        if place is not None and place["name"] in _OF_A_GPU:
            yield from _absent_of_gpus(absence, place, whole, match)
        elif absence.path == "wiring.gpus":
            yield absence.model_copy(update={"path": "unlisted_gpus"})
        elif place is None and _is_open(absence.path, files, whole, match):
            yield absence


def _absent_of_gpus(
    absence: Absence, place: re.Match[str], whole: NodeSnapshot, match: _Match
) -> Iterator[Absence]:
    slots = {match.gpus[old] for old in match.gpus if place["slot"] in ("*", str(old))}
    for gpu in whole.wiring.gpus:
        path = f"wiring.gpus[{gpu.slot}].{place['name']}"
        is_open = gpu.slot in slots and getattr(gpu, place["name"]) is None
        # What the driver says of it stands there already.
        if is_open and not any(path_matches(a.path, path) for a in whole.absences):
            yield absence.model_copy(update={"path": path})


def _is_open(path: str, files: NodeSnapshot, whole: NodeSnapshot, match: _Match) -> bool:
    if path.startswith(_OF_THE_DRIVER) or (path.startswith(_OF_NICS) and match.nics is None):
        return False
    if path == "wiring.pcie_levels":
        return len(whole.wiring.pcie_levels) < _pair_count(whole.wiring)
    return is_said(files, path) or not is_said(whole, path)


def _pair_count(wiring: Wiring) -> int:
    gpus, nics = len(wiring.gpus), sum(1 for nic in wiring.nics if nic.pci_address is not None)
    return gpus * (gpus - 1) // 2 + gpus * nics

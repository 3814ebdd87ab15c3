"""Merge: snapshots, switches and cables to one map. Disagreements become entries, nothing is lost.

The order in which snapshots come does not matter: sources have a rank, hosts a natural order.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final, TypeVar

from fleet.fields import UNREPORTED, Absence, AbsenceReason, FrozenModel, is_keyed, is_said
from fleet.model import (
    SCHEMA_VERSION,
    Cable,
    Conflict,
    FleetMap,
    GpuIdentity,
    Node,
    NodeFacts,
    NodeSnapshot,
    Switch,
)
from fleet.naming import natural_key
from fleet.shapes import Fit, find_shapes, fit_to_shapes, node_wirings
from fleet.slots import renumbered
from fleet.wiring import NodeShape, Wiring

SOURCE_RANK: Final = ("nvml", "nccl_xml", "nvidia_smi", "nvidia_smi_topo")
"""Which source is believed where two disagree, best first; others come after, by name."""

_DEVICE_IN_PATH: Final = re.compile(r"\b(?P<kind>gpu|nic)(?P<list>s\[)?(?P<slot>[0-9]+)")
_P2P_IN_PATH: Final = re.compile(r"\bp2p\[(?P<a>[0-9]+)-(?P<b>[0-9]+)\]")
_Say = Callable[[str, object, object], None]
_Part = TypeVar("_Part")


def merge_snapshots(
    snapshots: Iterable[NodeSnapshot],
    *,
    switches: Iterable[Switch] = (),
    cables: Iterable[Cable] = (),
    spec: str | None = None,
) -> FleetMap:
    """One map from snapshots of any number of nodes, several of one node among them.

    Raises:
        ValueError: the switches and cables do not hold together (pydantic's, with the path).
    """
    conflicts: list[Conflict] = []
    by_host: dict[str, list[NodeSnapshot]] = defaultdict(list)
    for snapshot in snapshots:
        by_host[snapshot.host].append(snapshot)
    hosts = sorted(by_host, key=lambda host: (natural_key(host), host))
    whole = [_join_all(by_host[host], conflicts) for host in hosts]
    whole = _each_device_once(whole, conflicts)
    shapes = find_shapes(snapshot.wiring for snapshot in whole)
    fits: dict[int, Fit] = {}
    known_switches = _each_switch_once(switches, conflicts)
    return FleetMap(
        kind="fleet_map",
        schema_version=SCHEMA_VERSION,
        spec=spec,
        shapes=shapes,
        nodes=tuple(_node(snapshot, _fit(fits, shapes, snapshot.wiring)) for snapshot in whole),
        switches=known_switches,
        cables=tuple(dict.fromkeys(cables)),
        conflicts=_in_order(conflicts),
    )


def merge_fleets(fleets: Sequence[FleetMap]) -> FleetMap:
    """One map from several; their nodes are merged as snapshots are."""
    if len(fleets) == 1:
        return fleets[0]
    merged = merge_snapshots(
        (snapshot for fleet in fleets for snapshot in snapshots_of(fleet)),
        switches=(switch for fleet in fleets for switch in fleet.switches),
        cables=(cable for fleet in fleets for cable in fleet.cables),
    )
    earlier = (conflict for fleet in fleets for conflict in fleet.conflicts)
    return merged.model_copy(update={"conflicts": _in_order((*earlier, *merged.conflicts))})


def snapshots_of(fleet: FleetMap) -> Iterator[NodeSnapshot]:
    """The snapshots a map was made of: each node with its own wiring again."""
    for node, wiring in node_wirings(fleet):
        yield NodeSnapshot(
            kind="node_snapshot", schema_version=SCHEMA_VERSION, wiring=wiring, **_facts(node)
        )


def _fit(fits: dict[int, Fit], shapes: tuple[NodeShape, ...], wiring: Wiring) -> Fit:
    if id(wiring) not in fits:
        fit = fit_to_shapes(shapes, wiring)
        assert fit is not None, "find_shapes covers every wiring it was given"
        fits[id(wiring)] = fit
    return fits[id(wiring)]


def _node(snapshot: NodeSnapshot, fit: Fit) -> Node:
    facts = _facts(snapshot) | _moved_facts(snapshot, fit.gpu_slots, fit.nic_slots)
    return Node(shape=fit.shape.id, deviations=fit.deviations, addresses=fit.addresses, **facts)


def _facts(node: NodeFacts) -> dict[str, Any]:
    return {name: getattr(node, name) for name in NodeFacts.model_fields}


def _moved_facts(
    facts: NodeFacts, gpus: Mapping[int, int], nics: Mapping[int, int]
) -> dict[str, Any]:
    """All that names a slot, with the slots renamed."""
    if not gpus and not nics:
        return {}
    allocations = facts.allocations and tuple(
        held.model_copy(
            update={"slots": tuple(sorted(gpus.get(slot, slot) for slot in held.slots))}
        )
        for held in facts.allocations
    )
    absences = tuple(
        absence.model_copy(update={"path": _moved_path(absence.path, gpus, nics)})
        for absence in facts.absences
    )
    return {
        "gpus": _moved(facts.gpus, gpus),
        "nics": _moved(facts.nics, nics),
        "states": _moved(facts.states, gpus),
        "nic_states": _moved(facts.nic_states, nics),
        "processes": facts.processes and _moved(facts.processes, gpus),
        "allocations": allocations,
        "absences": absences,
    }


def _moved(parts: tuple[Any, ...], slots: Mapping[int, int]) -> tuple[Any, ...]:
    moved = (p.model_copy(update={"slot": slots.get(p.slot, p.slot)}) for p in parts)
    return tuple(sorted(moved, key=lambda part: part.slot))


def _moved_path(path: str, gpus: Mapping[int, int], nics: Mapping[int, int]) -> str:
    """A path with the slots renamed that it names, as ``gpus[3]``, ``gpu3`` or ``p2p[3-4]``.

    >>> _moved_path("wiring.gpus[3].ports[gpu4].version", {3: 5, 4: 6}, {})
    'wiring.gpus[5].ports[gpu6].version'
    """

    def slot(slots: Mapping[int, int], text: str) -> int:
        return slots.get(int(text), int(text))

    def device(match: re.Match[str]) -> str:
        slots = gpus if match["kind"] == "gpu" else nics
        return f"{match['kind']}{match['list'] or ''}{slot(slots, match['slot'])}"

    def pair(match: re.Match[str]) -> str:
        return f"p2p[{slot(gpus, match['a'])}-{slot(gpus, match['b'])}]"

    return _P2P_IN_PATH.sub(pair, _DEVICE_IN_PATH.sub(device, path))


def _in_order(conflicts: Iterable[Conflict]) -> tuple[Conflict, ...]:
    """Each conflict once, by its path."""
    return tuple(sorted(dict.fromkeys(conflicts), key=lambda c: (c.path, c.said, c.taken or "")))


def _each_switch_once(switches: Iterable[Switch], conflicts: list[Conflict]) -> tuple[Switch, ...]:
    """Switches of one id are one switch; where they differ is a conflict."""

    def say(path: str, a: object, b: object) -> None:
        said = (("one map", str(a)), ("another map", str(b)))
        conflicts.append(Conflict(path=path, said=said, taken=str(a)))

    by_id: dict[str, set[Switch]] = defaultdict(set)
    for switch in switches:
        by_id[switch.id].add(switch)
    result = []
    for name, same in by_id.items():
        first, *others = _sorted(same, key=Switch.model_dump_json)
        for other in others:
            joined = _joined(first, other, f"switches[{name}]", say)
            assert isinstance(joined, Switch)
            first = joined
        result.append(first)
    return tuple(result)


def _each_device_once(
    snapshots: list[NodeSnapshot], conflicts: list[Conflict]
) -> list[NodeSnapshot]:
    """A UUID in two places: the first host keeps it, the other is told as a conflict."""
    place: dict[str, str] = {}
    result = []
    for snapshot in snapshots:
        gpus: list[GpuIdentity] = []
        absences: list[Absence] = []
        for gpu in snapshot.gpus:
            here = f"nodes[{snapshot.host}].gpus[{gpu.slot}].uuid"
            first = place.setdefault(gpu.uuid, here) if gpu.uuid else here
            if first != here:
                said = ((first, str(gpu.uuid)), (here, str(gpu.uuid)))
                conflicts.append(Conflict(path=here, said=said, taken=None))
                absences.append(_uuid_taken(gpu.slot, first))
            gpus.append(gpu if first == here else gpu.model_copy(update={"uuid": None}))
        update = {"gpus": tuple(gpus), "absences": (*snapshot.absences, *absences)}
        result.append(snapshot.model_copy(update=update) if absences else snapshot)
    return result


def _uuid_taken(slot: int, holder: str) -> Absence:
    return Absence(
        path=f"gpus[{slot}].uuid",
        reason=AbsenceReason.UNDECODABLE,
        detail=f"it told the uuid of {holder}",
    )


def _join_all(snapshots: list[NodeSnapshot], conflicts: list[Conflict]) -> NodeSnapshot:
    first, *others = _sorted(snapshots, key=_source_order)
    for other in others:
        first = _joined_snapshot(first, other, conflicts)
    return first


def _sorted(alike: Collection[_Part], key: Callable[[_Part], Any]) -> Collection[_Part]:
    """Parts in the order of a key, which is a whole document's text: not asked of a lone one."""
    return sorted(alike, key=key) if len(alike) > 1 else alike


def _source_order(snapshot: NodeSnapshot) -> tuple[int, str, str]:
    source = snapshot.sections[0].source if snapshot.sections else ""
    rank = SOURCE_RANK.index(source) if source in SOURCE_RANK else len(SOURCE_RANK)
    return rank, source, snapshot.model_dump_json()


def _joined_snapshot(
    ours: NodeSnapshot, theirs: NodeSnapshot, conflicts: list[Conflict]
) -> NodeSnapshot:
    names = tuple("+".join(dict.fromkeys(s.source for s in x.sections)) for x in (ours, theirs))

    def say(path: str, a: object, b: object) -> None:
        where = f"nodes[{ours.host}].{path}"
        said = ((names[0], str(a)), (names[1], str(b)))
        conflicts.append(Conflict(path=where, said=said, taken=str(a)))

    counts = len(ours.wiring.gpus), len(theirs.wiring.gpus)
    if counts[0] != counts[1] and all(counts):
        say("gpus", f"{counts[0]} GPUs", f"{counts[1]} GPUs")
        return ours
    theirs = _same_slots(ours.wiring, theirs)
    joined = _joined(ours, theirs, "", say)
    assert isinstance(joined, NodeSnapshot)
    return joined.model_copy(update={"absences": _still_absent(joined, ours, theirs)})


def _same_slots(ours: Wiring, theirs: NodeSnapshot) -> NodeSnapshot:
    """The other snapshot with the slot numbers of ours: by PCI address, NICs by name too.

    Both list as many GPUs, so one at an address we do not know is one of ours at another address.
    A NIC we do not know is a further one.
    """
    wiring = theirs.wiring
    gpus = _slots_by(ours.gpus, wiring.gpus, lambda gpu: [gpu.pci_address], _untaken)
    nics = _slots_by(
        ours.nics,
        wiring.nics,
        lambda nic: [nic.pci_address, *(port.name for port in nic.ports)],
        _further,
    )
    wiring = renumbered(wiring, gpus, nics)
    if ours.bridges:
        wiring = _without_bridges(wiring)
    return theirs.model_copy(update={"wiring": wiring, **_moved_facts(theirs, gpus, nics)})


def _untaken(slots: set[int], taken: set[int]) -> Iterator[int]:
    return iter(sorted(slots - taken))


def _further(slots: set[int], taken: set[int]) -> Iterator[int]:
    return count(max(slots) + 1)


def _slots_by(
    ours: tuple[Any, ...],
    theirs: tuple[Any, ...],
    names_of: Callable[[Any], list[str | None]],
    spare_slots: Callable[[set[int], set[int]], Iterator[int]],
) -> dict[int, int]:
    """Our slot by theirs; empty where names tell nothing, or two of theirs would be one of ours."""
    slot_of = {name: device.slot for device in ours for name in names_of(device) if name}
    if not slot_of:
        return {}
    moves: dict[int, int] = {}
    for device in theirs:
        known = [slot_of[name] for name in names_of(device) if name in slot_of]
        if known:
            moves[device.slot] = known[0]
    spare = spare_slots({device.slot for device in ours}, set(moves.values()))
    for device in theirs:
        if device.slot not in moves and any(names_of(device)):
            moves[device.slot] = next(spare)
    final = {moves.get(device.slot, device.slot) for device in theirs}
    return moves if len(final) == len(theirs) else {}


def _without_bridges(wiring: Wiring) -> Wiring:
    return wiring.model_copy(
        update={
            "bridges": (),
            "gpus": tuple(gpu.model_copy(update={"bridge": None}) for gpu in wiring.gpus),
            "nics": tuple(nic.model_copy(update={"bridge": None}) for nic in wiring.nics),
        }
    )


def _joined(ours: FrozenModel, theirs: FrozenModel, path: str, say: _Say) -> FrozenModel:
    update: dict[str, object] = {}
    for name in type(ours).model_fields:
        a, b = getattr(ours, name), getattr(theirs, name)
        here = f"{path}.{name}" if path else name
        if a == b or _is_unsaid(b):
            continue
        if _is_unsaid(a):
            update[name] = b
        elif name == "ports" and path.startswith("wiring.gpus"):
            _compare_port_counts(here, a, b, say)
        elif isinstance(a, tuple):
            update[name] = _joined_lists(here, a, b, say)
        elif isinstance(a, FrozenModel):
            update[name] = _joined(a, b, here, say)
        else:
            say(here, a, b)
    return ours.model_copy(update=update) if update else ours


def _is_unsaid(value: object) -> bool:
    return value is None or value == () or value == UNREPORTED


def _joined_lists(
    path: str, ours: tuple[Any, ...], theirs: tuple[Any, ...], say: _Say
) -> tuple[Any, ...]:
    if not all(is_keyed(element) for element in (*ours, *theirs)):
        return tuple(dict.fromkeys((*ours, *theirs)))
    by_key = {element.key: element for element in ours}
    for element in theirs:
        known = by_key.get(element.key)
        by_key[element.key] = (
            element if known is None else _joined(known, element, f"{path}[{element.key}]", say)
        )
    return tuple(by_key.values())


def _compare_port_counts(
    path: str, ours: tuple[Any, ...], theirs: tuple[Any, ...], say: _Say
) -> None:
    counts = [sum(port.count for port in ports if port.state == "up") for ports in (ours, theirs)]
    if counts[0] != counts[1]:
        say(path, f"{counts[0]} links up", f"{counts[1]} links up")


def _still_absent(
    joined: NodeSnapshot, ours: NodeSnapshot, theirs: NodeSnapshot
) -> tuple[Absence, ...]:
    """The absences that a join did not fill; one on a list that was there says it is incomplete."""
    kept = (
        absence
        for side in (ours, theirs)
        for absence in side.absences
        if is_said(side, absence.path) or not is_said(joined, absence.path)
    )
    return tuple(dict.fromkeys(kept))

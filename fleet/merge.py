"""Merge: snapshots, switches and cables to one map. Disagreements become entries, nothing is lost.

The order in which snapshots come does not matter: sources have a rank, hosts a natural order.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from fleet.fields import UNREPORTED, Absence, FrozenModel, Keyed, is_said
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
from fleet.shapes import Fit, find_shapes, fit_to_shapes, node_wirings, renumbered
from fleet.wiring import NodeShape, Wiring

SOURCE_RANK: Final = ("nvml", "nccl_xml", "nvidia_smi", "nvidia_smi_topo")
"""Which source is believed where two disagree, best first; others come after, by name."""

_Say = Callable[[str, object, object], None]


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
    whole = [_join_all(by_host[host], conflicts) for host in sorted(by_host, key=natural_key)]
    whole = _each_device_once(whole, conflicts)
    shapes = find_shapes(snapshot.wiring for snapshot in whole)
    fits: dict[int, Fit] = {}
    return FleetMap(
        kind="fleet_map",
        schema_version=SCHEMA_VERSION,
        spec=spec,
        shapes=shapes,
        nodes=tuple(_node(snapshot, _fit(fits, shapes, snapshot.wiring)) for snapshot in whole),
        switches=_unique(switches, lambda switch: switch.id),
        cables=_unique(cables, lambda cable: cable.model_dump_json()),
        conflicts=tuple(sorted(conflicts, key=lambda conflict: conflict.path)),
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
    earlier = tuple(conflict for fleet in fleets for conflict in fleet.conflicts)
    return merged.model_copy(update={"conflicts": (*earlier, *merged.conflicts)})


def snapshots_of(fleet: FleetMap) -> Iterator[NodeSnapshot]:
    """The snapshots a map was made of: each node with its own wiring again."""
    for node, wiring in node_wirings(fleet):
        yield NodeSnapshot(
            kind="node_snapshot", schema_version=SCHEMA_VERSION, wiring=wiring, **_facts(node)
        )


def natural_key(text: str) -> list[tuple[int, int | str]]:
    """Sort key under which node9 stands before node10.

    >>> sorted(["node10", "node9", "login"], key=natural_key)
    ['login', 'node9', 'node10']
    """
    return [(0, int(p)) if p.isdigit() else (1, p) for p in re.split(r"([0-9]+)", text) if p]


def _fit(fits: dict[int, Fit], shapes: tuple[NodeShape, ...], wiring: Wiring) -> Fit:
    if id(wiring) not in fits:
        fit = fit_to_shapes(shapes, wiring)
        assert fit is not None, "find_shapes covers every wiring it was given"
        fits[id(wiring)] = fit
    return fits[id(wiring)]


def _node(snapshot: NodeSnapshot, fit: Fit) -> Node:
    facts = _facts(snapshot)
    facts["gpus"] = _moved(facts["gpus"], fit.gpu_slots)
    facts["nics"] = _moved(facts["nics"], fit.nic_slots)
    return Node(shape=fit.shape.id, deviations=fit.deviations, addresses=fit.addresses, **facts)


def _facts(node: NodeFacts) -> dict[str, Any]:
    return {name: getattr(node, name) for name in NodeFacts.model_fields}


def _moved(parts: tuple[Any, ...], slots: Mapping[int, int]) -> tuple[Any, ...]:
    if not slots:
        return parts
    return tuple(p.model_copy(update={"slot": slots.get(p.slot, p.slot)}) for p in parts)


def _unique(items: Iterable[Any], key: Callable[[Any], str]) -> tuple[Any, ...]:
    return tuple({key(item): item for item in items}.values())


def _each_device_once(
    snapshots: list[NodeSnapshot], conflicts: list[Conflict]
) -> list[NodeSnapshot]:
    """A UUID in two places: the first host keeps it, the other is told as a conflict."""
    place: dict[str, str] = {}
    result = []
    for snapshot in snapshots:
        gpus: list[GpuIdentity] = []
        for gpu in snapshot.gpus:
            here = f"nodes[{snapshot.host}].gpus[{gpu.slot}].uuid"
            first = place.setdefault(gpu.uuid, here) if gpu.uuid else here
            if first != here:
                said = ((first, str(gpu.uuid)), (here, str(gpu.uuid)))
                conflicts.append(Conflict(path=here, said=said, taken=None))
            gpus.append(gpu if first == here else gpu.model_copy(update={"uuid": None}))
        changed = tuple(gpus) != snapshot.gpus
        result.append(snapshot.model_copy(update={"gpus": tuple(gpus)}) if changed else snapshot)
    return result


def _join_all(snapshots: list[NodeSnapshot], conflicts: list[Conflict]) -> NodeSnapshot:
    first, *others = sorted(snapshots, key=_source_order)
    for other in others:
        first = _joined_snapshot(first, other, conflicts)
    return first


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
    """The other snapshot with the slot numbers of ours: by PCI address, NICs by name too."""
    wiring = theirs.wiring
    gpus = _slots_by(ours.gpus, wiring.gpus, lambda gpu: [gpu.pci_address])
    nics = _slots_by(
        ours.nics, wiring.nics, lambda nic: [nic.pci_address, *(port.name for port in nic.ports)]
    )
    wiring = renumbered(wiring, gpus, nics)
    if ours.bridges:
        wiring = _without_bridges(wiring)
    return theirs.model_copy(
        update={
            "wiring": wiring,
            "gpus": _moved(theirs.gpus, gpus),
            "nics": _moved(theirs.nics, nics),
        }
    )


def _slots_by(
    ours: tuple[Any, ...], theirs: tuple[Any, ...], names_of: Callable[[Any], list[str | None]]
) -> dict[int, int]:
    slot_of = {name: device.slot for device in ours for name in names_of(device) if name}
    free = max((device.slot for device in ours), default=-1) + 1
    moves: dict[int, int] = {}
    for device in theirs:
        known = [slot_of[name] for name in names_of(device) if name in slot_of]
        named = any(name for name in names_of(device)) and bool(slot_of)
        if known:
            moves[device.slot] = known[0]
        elif named and any(device.slot == our.slot for our in ours):
            moves[device.slot], free = free, free + 1
    return moves if len(set(moves.values())) == len(moves) else {}


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
    if not all(isinstance(element, Keyed) for element in (*ours, *theirs)):
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

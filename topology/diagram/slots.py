"""Slots: what mark a GPU or CPU rank gets, and the words and legend of the marks."""

from collections import Counter
from dataclasses import replace
from typing import Final

from fleet import Node
from fleet.naming import counted
from topology.diagram.layout import Health, LegendEntry, LegendTable, Mark, Use
from topology.diagram.metrics import ONE_EACH, fitted
from topology.fabric.from_fleet import Fabric, FabricNode

NOT_REPORTED: Final = "place not reported"
LONGEST_PLACE: Final = 40
_LONGEST_SPEC: Final = 100


def fleet_name(fabric: Fabric) -> str:
    """The SPEC of a synthetic fleet, else its shapes."""
    if fabric.fleet.spec is not None:
        return fitted(fabric.fleet.spec, _LONGEST_SPEC, ONE_EACH)
    names = [fitted(shape.id, LONGEST_PLACE, ONE_EACH) for shape in fabric.fleet.shapes]
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def ranks_text(fabric: Fabric) -> str:
    """How many GPUs there are, and how many CPU ranks of nodes without GPUs."""
    cpus = sum(1 for node in fabric.nodes if not node.graph.is_gpu_node)
    texts = [counted(fabric.fleet.gpu_count, "GPU")] if fabric.fleet.gpu_count else []
    texts += [counted(cpus, "CPU rank")] if cpus else []
    return ", ".join(texts) or "no GPU"


def slot_marks(fabric: Fabric, node: Node, fabric_node: FabricNode) -> dict[int, Mark]:
    """The mark of each GPU slot of a node's shape; slot 0 of a node without GPUs is its CPU."""
    slots = [gpu.slot for gpu in fabric.fleet.shape_of(node).gpus]
    if not slots:
        return {0: Mark(_use(node, fabric_node, 0), is_cpu=True)}
    present = {gpu.slot for gpu in fabric_node.graph.wiring.gpus}
    touched = {d.path.partition("]")[0] for d in node.deviations}
    return {
        slot: Mark(_use(node, fabric_node, slot), _health(slot, present, touched)) for slot in slots
    }


def _health(slot: int, present: set[int], touched: set[str]) -> Health:
    if slot not in present:
        return Health.MISSING
    return Health.DEVIATING if f"gpus[{slot}" in touched else Health.AS_SHAPE


def _use(node: Node, fabric_node: FabricNode, slot: int) -> Use:
    if node.allocations is None:
        return Use.UNREPORTED
    return Use.HELD if slot in fabric_node.busy else Use.FREE


def slots_text(counts: Counter[Mark]) -> str:
    """How many slots are held, free, deviating, missing."""
    there = [mark for mark in counts.elements() if mark.health is not Health.MISSING]
    use = Counter(mark.use for mark in there)
    is_told = len(there) > use[Use.UNREPORTED]
    texts = [f"{use[u]:,} {u.value}" for u in (Use.HELD, Use.FREE) if is_told]
    texts += [f"{use[Use.UNREPORTED]:,} of unreported use"] if use[Use.UNREPORTED] else []
    deviating = sum(1 for mark in there if mark.health is Health.DEVIATING)
    texts += [f"{deviating:,} deviating", f"{counts.total() - len(there):,} missing"]
    return ", ".join(texts)


def slot_legend(counts: Counter[Mark]) -> LegendTable:
    """What the marks mean, and how many there are; common ones are explained even at none."""
    entries = []
    for is_cpu in sorted({mark.is_cpu for mark in counts}):
        for health in Health:
            for use in Use if health is not Health.MISSING else (Use.FREE,):
                mark = Mark(use, health, is_cpu)
                count = _count(counts, mark)
                if count or (mark.use, health) in _COMMON[is_cpu]:
                    entries.append(LegendEntry(mark, (_mark_text(mark), f"{count:,}")))
    return LegendTable("Slots", ("", ""), tuple(entries), right=(1,))


_COMMON: Final = {
    False: (
        (Use.FREE, Health.AS_SHAPE),
        (Use.HELD, Health.AS_SHAPE),
        (Use.FREE, Health.DEVIATING),
        (Use.FREE, Health.MISSING),
    ),
    True: ((Use.FREE, Health.AS_SHAPE), (Use.HELD, Health.AS_SHAPE)),
}


def _count(counts: Counter[Mark], mark: Mark) -> int:
    """Slots with a mark; whoever held a missing GPU, it is missing."""
    if mark.health is not Health.MISSING:
        return counts[mark]
    return sum(counts[replace(mark, use=use)] for use in Use)


def _mark_text(mark: Mark) -> str:
    what = "CPU rank" if mark.is_cpu else "GPU"
    if mark.health is Health.MISSING:
        return f"{what}, missing"
    return f"{what}, {mark.use}" + (", deviating" if mark.health is Health.DEVIATING else "")


def place_text(node: Node) -> str:
    """Where a node stands, as far as it is reported."""
    place = node.footprint
    if place is None:
        return NOT_REPORTED
    told = [t for t in (place.site, place.hall, place.row, place.rack) if t]
    told += [] if place.position is None else [f"position {place.position}"]
    return fitted(", ".join(told), LONGEST_PLACE, ONE_EACH) or NOT_REPORTED

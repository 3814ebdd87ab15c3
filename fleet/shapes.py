"""Shapes: finds the few wirings many nodes share, and tells where one node deviates.

Law: a shape with a node's deviations applied is that node's wiring again (PCI addresses apart,
which stand with the node where they differ).
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from fleet.errors import SnapshotError
from fleet.fields import UNREPORTED, FrozenModel, Keyed, Scalar, ShapeId
from fleet.model import Deviation, FleetMap, Node, SlotAddress
from fleet.slots import is_silent, renumbered, silenced, without_pairs
from fleet.wiring import (
    GpuPort,
    GpuSlot,
    LinkState,
    NicSlot,
    NodeShape,
    Wiring,
    wiring_problems,
)

MAY_DEVIATE: Final = frozenset(
    {"state", "count", "bytes_per_s", "pcie_width", "pcie_generation", "read", "write"}
)
MAY_BE_MISSING: Final = frozenset({"gpus", "nvswitches", "nics", "ports"})
_WITH_ADDRESS: Final = ("bridges", "gpus", "nvswitches", "nics")
_NOT_COMPARED: Final = frozenset({"id", "pci_address"})
_STEP: Final = re.compile(r"(?P<name>\w+)(?:\[(?P<key>[^\]]+)\])?\.?")


class OtherWiringError(Exception):
    """Two wirings differ in what no fault changes (internal to this module)."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How a node's wiring is told by a shape: slots renamed, then deviations, then addresses."""

    shape: NodeShape
    deviations: tuple[Deviation, ...] = ()
    gpu_slots: Mapping[int, int] = field(default_factory=dict)
    nic_slots: Mapping[int, int] = field(default_factory=dict)
    addresses: tuple[SlotAddress, ...] = ()


def wiring_digest(wiring: Wiring) -> str:
    """Content of a wiring as 64 hexadecimal digits; PCI addresses and names do not count."""
    no_address: Any = {name: {"__all__": {"pci_address"}} for name in _WITH_ADDRESS}
    if isinstance(wiring, NodeShape):
        no_address["id"] = True
    text = wiring.model_dump_json(exclude=no_address, exclude_defaults=True)
    return hashlib.sha256(text.encode()).hexdigest()


def find_shapes(wirings: Iterable[Wiring]) -> tuple[NodeShape, ...]:
    """The shapes by which all these wirings can be told, completest first.

    A wiring that only lacks parts of a shape, or has a port down, is that shape with deviations.
    The order of the input does not matter.
    """
    count, by_digest = _alike(tuple(wirings))
    shapes: list[NodeShape] = []
    for digest in sorted(by_digest, key=lambda d: (_incompleteness(by_digest[d]), -count[d], d)):
        wiring = by_digest[digest]
        if fit_to_shapes(shapes, wiring) is None:
            shapes.append(NodeShape(id=_shape_name(wiring, digest), **_fields(wiring)))
    return tuple(shapes)


def _alike(wirings: tuple[Wiring, ...]) -> tuple[Counter[str], dict[str, Wiring]]:
    """How many wirings have each content, and one of each, with the PCI addresses most have."""
    told: dict[int, tuple[str, str]] = {}
    count_at: dict[str, Counter[str]] = defaultdict(Counter)
    chosen: dict[tuple[str, str], Wiring] = {}
    for wiring in wirings:
        if id(wiring) not in told:
            told[id(wiring)] = wiring_digest(wiring), _address_text(wiring)
        digest, place = told[id(wiring)]
        count_at[digest][place] += 1
        chosen[digest, place] = wiring
    usual = {d: min(places, key=lambda p: (-places[p], p)) for d, places in count_at.items()}
    count = Counter({digest: places.total() for digest, places in count_at.items()})
    return count, {digest: chosen[digest, place] for digest, place in usual.items()}


def fit_to_shapes(shapes: Iterable[NodeShape], wiring: Wiring) -> Fit | None:
    """The fit with the fewest deviations; None where no shape tells this wiring."""
    fits = [fit for shape in shapes if (fit := fit_to_shape(shape, wiring)) is not None]
    return min(fits, key=lambda fit: len(fit.deviations), default=None)


def fit_to_shape(shape: NodeShape, wiring: Wiring) -> Fit | None:
    """How ``wiring`` is told by ``shape``; None if it is another wiring altogether.

    Another wiring: it has what the shape lacks, differs in a fact that no fault changes, lacks
    GPUs whose place is not known by PCI address, or lacks half of them.
    """
    missing_count = len(shape.gpus) - len(wiring.gpus)
    if missing_count > 0 and missing_count * 2 >= len(shape.gpus):
        return None
    try:
        gpus, nics = _slot_moves(shape.gpus, wiring.gpus), _slot_moves(shape.nics, wiring.nics)
        aligned = renumbered(wiring, gpus, nics)
        expected, silent = _without_silent(_without_missing(shape, aligned), aligned)
        deviations = tuple(_differences(expected, aligned, ""))
        missing = (*_missing(shape, aligned), *silent)
    except OtherWiringError:
        return None
    return Fit(
        shape=shape,
        deviations=tuple(sorted((*missing, *deviations), key=lambda d: d.path)),
        gpu_slots=gpus,
        nic_slots=nics,
        addresses=_other_addresses(shape, aligned),
    )


def wiring_of(
    shape: NodeShape,
    deviations: Iterable[Deviation] = (),
    addresses: Iterable[SlotAddress] = (),
) -> Wiring:
    """The wiring of a node of this shape: what is missing removed, what differs put in.

    Raises:
        SnapshotError: a deviation that this shape cannot have.
    """
    deviations = tuple(deviations)
    gone = {d.path for d in deviations if d.observed is None}
    document: FrozenModel = Wiring(**_fields(shape))
    for deviation in deviations:
        try:
            steps = [(step["name"], step["key"]) for step in _STEP.finditer(deviation.path)]
            if len(steps) == 1 and steps[0][0] == "gpus" and deviation.observed == UNREPORTED:
                document = _with_silence(document, int(steps[0][1] or ""))
            else:
                document = _changed(document, steps, deviation)
        except (AttributeError, LookupError, TypeError, ValueError):
            raise SnapshotError(
                f"{deviation.observed!r} is no value of {deviation.path} in shape {shape.id}",
                field="deviations",
                remedy="take the path and the type from the shape",
            ) from None
    assert isinstance(document, Wiring)
    document = without_pairs(document, gone)
    for problem in wiring_problems(document):
        raise SnapshotError(problem, field="deviations", remedy="say what became of it too")
    by_path = {address.path: address.pci_address for address in addresses}
    return _with_addresses(document, by_path) if by_path else document


def _with_silence(document: FrozenModel, slot: int) -> Wiring:
    assert isinstance(document, Wiring)
    if slot not in [gpu.slot for gpu in document.gpus]:
        raise LookupError(slot)
    return silenced(document, slot)


def node_wirings(fleet: FleetMap) -> Iterator[tuple[Node, Wiring]]:
    """Each node of a map with its own wiring; nodes of one wiring share the object."""
    shapes = {shape.id: shape for shape in fleet.shapes}
    wirings: dict[object, Wiring] = {}
    for node in fleet.nodes:
        key = (node.shape, node.deviations, node.addresses)
        if key not in wirings:
            wirings[key] = wiring_of(shapes[node.shape], node.deviations, node.addresses)
        yield node, wirings[key]


def _slot_moves(
    expected: tuple[GpuSlot, ...] | tuple[NicSlot, ...],
    observed: tuple[GpuSlot, ...] | tuple[NicSlot, ...],
) -> dict[int, int]:
    """New slot by old slot, by PCI address: the driver numbers only what it sees."""
    if len(observed) >= len(expected):
        return {}
    slot_at = {device.pci_address: device.slot for device in expected}
    if None in slot_at or any(device.pci_address not in slot_at for device in observed):
        raise OtherWiringError
    moves = {device.slot: slot_at[device.pci_address] for device in observed}
    if len(set(moves.values())) != len(observed):
        raise OtherWiringError
    return {old: new for old, new in moves.items() if old != new}


def _missing(expected: Wiring, observed: Wiring) -> Iterator[Deviation]:
    for name in MAY_BE_MISSING - {"ports"}:
        there = {element.key for element in getattr(observed, name)}
        for element in getattr(expected, name):
            if element.key not in there:
                yield Deviation(path=f"{name}[{element.key}]", expected="present")


def _without_missing(expected: Wiring, observed: Wiring) -> Wiring:
    gone = {deviation.path for deviation in _missing(expected, observed)}
    update = {
        name: tuple(e for e in getattr(expected, name) if f"{name}[{e.key}]" not in gone)
        for name in MAY_BE_MISSING - {"ports"}
    }
    return without_pairs(expected.model_copy(update=update), gone)


def _without_silent(expected: Wiring, observed: Wiring) -> tuple[Wiring, tuple[Deviation, ...]]:
    """What is expected of a node of whose silent GPUs the driver tells nothing; that as deviations.

    A PCIe level can be known of a silent GPU all the same, from the kernel: each that is not is a
    deviation of its own.
    """
    deviations: list[Deviation] = []
    levels = {pair.key for pair in observed.pcie_levels}
    for slot in [gpu.slot for gpu in observed.gpus if is_silent(gpu, observed)]:
        less = silenced(expected, slot)
        if less == expected:
            continue
        name = f"gpu{slot}"
        unknown = [
            pair for pair in less.pcie_levels if name in (pair.a, pair.b) and pair.key not in levels
        ]
        deviations.append(Deviation(path=f"gpus[{slot}]", expected="told", observed=UNREPORTED))
        deviations += (Deviation(path=f"pcie_levels[{p.key}]", expected=p.level) for p in unknown)
        known = tuple(pair for pair in less.pcie_levels if pair not in unknown)
        expected = less.model_copy(update={"pcie_levels": known})
    return expected, tuple(deviations)


def _differences(
    expected: FrozenModel, observed: FrozenModel, path: str, *, silent: bool = False
) -> Iterator[Deviation]:
    """Deviations below two elements of one key; ``silent``: the driver tells less of this one."""
    silent = silent or _falls_silent(observed)
    for name in (Wiring if isinstance(observed, Wiring) else type(observed)).model_fields:
        here = f"{path}.{name}" if path else name
        a, b = getattr(expected, name), getattr(observed, name)
        if name in _NOT_COMPARED or a == b:
            continue
        if silent and a is not None and (b is None or b == UNREPORTED):
            told = a if isinstance(a, Scalar) else str(a)
            yield Deviation(path=here, expected=told, observed=UNREPORTED)
        elif isinstance(a, tuple):
            yield from _list_differences(name, here, a, b, silent=silent)
        elif isinstance(a, FrozenModel) and isinstance(b, FrozenModel):
            yield from _differences(a, b, here, silent=silent)
        elif name in MAY_DEVIATE and a is not None and b is not None:
            yield Deviation(path=here, expected=a, observed=b)
        else:
            raise OtherWiringError


def _falls_silent(observed: FrozenModel) -> bool:
    """Whether a driver cannot tell of an element what it tells of its peers: down, or lost."""
    if isinstance(observed, GpuPort):
        return observed.state is LinkState.DOWN
    if isinstance(observed, GpuSlot):
        told = (observed.product_name, observed.memory_bytes, observed.compute_capability)
        return not any(told)
    return False


def _list_differences(
    name: str,
    path: str,
    expected: tuple[Keyed, ...],
    observed: tuple[Keyed, ...],
    *,
    silent: bool,
) -> Iterator[Deviation]:
    there = {element.key: element for element in observed}
    if list(there) != [element.key for element in expected if element.key in there]:
        raise OtherWiringError  # one that the shape lacks, or another order
    for element in expected:
        here = f"{path}[{element.key}]"
        other = there.get(element.key)
        if isinstance(element, FrozenModel) and isinstance(other, FrozenModel):
            yield from _differences(element, other, here, silent=silent)
        elif other is None and name in MAY_BE_MISSING:
            yield Deviation(path=here, expected="present")
        else:
            raise OtherWiringError


def _changed(
    document: FrozenModel, steps: list[tuple[str, str | None]], deviation: Deviation
) -> FrozenModel:
    (name, key), *rest = steps
    value = getattr(document, name)
    new: object
    if key is None and not rest:
        values = dict(document) | {name: _put(value, deviation.observed)}
        return type(document).model_validate(values)
    if key is None:
        new = _changed(value, rest, deviation)
    elif key not in [element.key for element in value]:
        raise LookupError(key)
    elif rest:
        new = tuple(_changed(e, rest, deviation) if e.key == key else e for e in value)
    elif deviation.observed is None:
        new = tuple(element for element in value if element.key != key)
    else:
        raise ValueError(deviation.observed)
    return document.model_copy(update={name: new})


def _put(value: object, observed: Scalar | None) -> object:
    """The observed value in the type of its field; unreported is None where it can be."""
    if observed is None:
        raise ValueError(observed)
    if observed == UNREPORTED and not isinstance(value, StrEnum):
        return None
    return type(value)(observed)  # type: ignore[call-arg]


def _other_addresses(shape: Wiring, wiring: Wiring) -> tuple[SlotAddress, ...]:
    return tuple(
        SlotAddress(path=f"{name}[{ours.key}]", pci_address=ours.pci_address)
        for name in _WITH_ADDRESS
        for theirs in getattr(shape, name)
        for ours in getattr(wiring, name)
        if ours.key == theirs.key and ours.pci_address != theirs.pci_address
    )


def _with_addresses(wiring: Wiring, by_path: Mapping[str, str | None]) -> Wiring:
    update = {
        name: tuple(
            element.model_copy(
                update={"pci_address": by_path.get(f"{name}[{element.key}]", element.pci_address)}
            )
            for element in getattr(wiring, name)
        )
        for name in _WITH_ADDRESS
    }
    return wiring.model_copy(update=update)


def _fields(wiring: Wiring) -> dict[str, Any]:
    return {name: getattr(wiring, name) for name in Wiring.model_fields}


def _incompleteness(wiring: Wiring) -> tuple[float, ...]:
    """Sort key: most devices, most ports, most of them up, fastest; what a fault takes away."""
    devices: tuple[GpuSlot | NicSlot, ...] = (*wiring.gpus, *wiring.nics)
    ports = [port for gpu in wiring.gpus for port in gpu.ports]
    return (
        -len(devices) - len(wiring.nvswitches),
        -sum(port.count for port in ports),
        -sum(port.count for port in ports if port.state is LinkState.UP),
        -sum(port.bytes_per_s or 0 for port in ports),
        -sum((d.pcie_generation or 0) * (d.pcie_width or 0) for d in devices),
    )


def _address_text(wiring: Wiring) -> str:
    return " ".join(str(e.pci_address) for name in _WITH_ADDRESS for e in getattr(wiring, name))


def _shape_name(wiring: Wiring, digest: str) -> ShapeId:
    kinds = sorted({gpu.product_name or gpu.vendor.value for gpu in wiring.gpus})
    text = wiring.machine or (f"{len(wiring.gpus)}x {' '.join(kinds)}" if kinds else "no gpu")
    return ShapeId(f"{re.sub(r'[^a-z0-9]+', '-', text.lower()[:99]).strip('-')}-{digest[:8]}")

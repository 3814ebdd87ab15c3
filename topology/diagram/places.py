"""Places: the nodes of a fleet by row of racks and rack, as far as somebody reported them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from fleet import Node
from fleet.naming import natural_key
from topology.diagram.layout import Mark
from topology.diagram.metrics import ONE_EACH, fitted
from topology.diagram.slots import LONGEST_PLACE, NOT_REPORTED, slot_marks
from topology.fabric.from_fleet import Fabric, FabricNode


@dataclass(frozen=True, slots=True)
class Occupant:
    """A node with what is drawn of it. ``domain``: its NVLink domain, if that joins nodes."""

    node: Node
    marks: dict[int, Mark]
    has_other_fault: bool
    domain: int | None


@dataclass(frozen=True, slots=True)
class Rack:
    """Nodes that stand together, lowest first."""

    name: str
    occupants: tuple[Occupant, ...]


@dataclass(frozen=True, slots=True)
class Band:
    """A row of racks, or the nodes that have no place."""

    name: str
    racks: tuple[Rack, ...]

    @property
    def is_place(self) -> bool:
        """Whether somebody said where it is."""
        return self.name != NOT_REPORTED

    @property
    def label(self) -> str:
        """Its name as far as there is room."""
        return fitted(self.name, LONGEST_PLACE, ONE_EACH)


def occupant_of(fabric: Fabric, node: Node, fabric_node: FabricNode, joined: set[int]) -> Occupant:
    """A node with the marks of its slots; ``joined``: the domains that join nodes."""
    numbers = sorted(joined.intersection(fabric_node.domain_of_slot.values()))
    return Occupant(
        node=node,
        marks=slot_marks(fabric, node, fabric_node),
        has_other_fault=any(not d.path.startswith("gpus[") for d in node.deviations),
        domain=numbers[0] if numbers else None,
    )


def bands_of(occupants: Sequence[Occupant]) -> list[Band]:
    """Rows of racks by place; nodes without one stand together, by NVLink domain."""
    members: dict[tuple[str, str], list[Occupant]] = defaultdict(list)
    for occupant in occupants:
        members[_place(occupant)].append(occupant)
    bands: dict[str, list[Rack]] = defaultdict(list)
    for band, rack in sorted(members, key=_place_key):
        bands[band].append(Rack(rack, tuple(sorted(members[band, rack], key=_height_key))))
    return [Band(name, tuple(racks)) for name, racks in bands.items()]


def _place(occupant: Occupant) -> tuple[str, str]:
    place = occupant.node.footprint
    told = [] if place is None else [t for t in (place.site, place.hall, place.row) if t]
    if place is None or not (told or place.rack):
        domain = occupant.domain
        return NOT_REPORTED, "nodes" if domain is None else f"nodes of NVLink domain {domain + 1}"
    return ", ".join(told) or "row not reported", place.rack or "rack not reported"


def _place_key(place: tuple[str, str]) -> tuple[object, ...]:
    band, rack = place
    is_told = band != NOT_REPORTED, not rack.endswith("not reported")
    return not is_told[0], natural_key(band), not is_told[1], natural_key(rack)


def _height_key(occupant: Occupant) -> tuple[object, ...]:
    place = occupant.node.footprint
    position = place.position if place is not None else None
    return position is None, position or 0, natural_key(occupant.node.host)

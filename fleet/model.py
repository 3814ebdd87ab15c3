"""What there is: snapshots, nodes, switches, cables, the fleet map. No reading, no clock, no graph.

A fleet of ten thousand nodes has a handful of wirings. A ``NodeShape`` holds one wiring once; a
``Node`` holds its shape, its identities and its deviations from the shape. Slot (a place) and
device (the part in it) differ: a slot has an index and a PCI address, a device a UUID and serial.
What a source did not report is None, and the snapshot's absences say why.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Final, Literal, Protocol, Self

from pydantic import (
    AwareDatetime,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from fleet.fields import (
    NAME,
    REPORTED,
    TEXT,
    Absence,
    FrozenModel,
    GpuUuid,
    HostName,
    Pci,
    Scalar,
    ShapeId,
    SwitchId,
    Text,
    repeated,
)
from fleet.state import GpuProcess, GpuState, NicState, UnlistedGpu
from fleet.wiring import LinkLayer, LinkState, NodeShape, Wiring

SCHEMA_VERSION: Final = 1

Host = Annotated[HostName, NAME]
Id = Annotated[SwitchId, TEXT]


class SectionName(StrEnum):
    """Parts of a snapshot that are read together."""

    DEVICES = "devices"
    LINKS = "links"
    NETWORK = "network"
    HEALTH = "health"
    USE = "use"


class Section(FrozenModel):
    """Where one part of a snapshot comes from, and from when."""

    name: SectionName
    source: Text
    collected_at: Annotated[AwareDatetime | None, REPORTED] = None

    @property
    def key(self) -> str:
        """Place in a path."""
        return f"{self.name}/{self.source}"


class Deviation(FrozenModel):
    """Where a node differs from its shape; ``observed`` None: that element is missing."""

    path: Text
    expected: Scalar | None = None
    observed: Scalar | None = None


class FabricState(StrEnum):
    """What the driver says of the NVLink fabric; only ``domain`` joins nodes."""

    UNSUPPORTED = "unsupported"
    FORMING = "forming"
    BROKEN = "broken"
    SINGLE_NODE = "single_node"
    DOMAIN = "domain"


class NvlinkFabric(FrozenModel):
    """A GPU's place in an NVLink fabric. The domain is ``cluster_uuid.clique``."""

    state: FabricState
    cluster_uuid: Text | None = None
    clique: NonNegativeInt | None = None

    @property
    def domain(self) -> str | None:
        """Name of the NVLink domain across nodes; None: the fabric joins none or has no name."""
        if self.state is not FabricState.DOMAIN or None in (self.cluster_uuid, self.clique):
            return None
        return f"{self.cluster_uuid}.{self.clique}"


class GpuIdentity(FrozenModel):
    """The part in a GPU slot of one node."""

    slot: NonNegativeInt
    uuid: Annotated[Annotated[GpuUuid, TEXT] | None, REPORTED] = None
    serial: Annotated[Text | None, REPORTED] = None
    part_number: Text | None = None
    vbios: Text | None = None
    fabric: Annotated[NvlinkFabric | None, REPORTED] = None

    @property
    def key(self) -> str:
        """Place in a path."""
        return str(self.slot)


class NicIdentity(FrozenModel):
    """The part in a NIC slot of one node; GUID as 16 hexadecimal digits."""

    slot: NonNegativeInt
    guid: Annotated[
        Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")] | None, REPORTED
    ] = None

    @property
    def key(self) -> str:
        """Place in a path."""
        return str(self.slot)


class SlotAddress(FrozenModel):
    """PCI address of a slot where it differs from the shape's (virtual machines renumber)."""

    path: Text
    pci_address: Pci | None = None


class Allocation(FrozenModel):
    """GPUs of a node that somebody holds; slot 0 of a node without GPUs is its CPU rank."""

    holder: Text
    slots: tuple[NonNegativeInt, ...]


class Footprint(FrozenModel):
    """Where a thing stands and who owns it."""

    site: Text | None = None
    hall: Text | None = None
    row: Text | None = None
    rack: Text | None = None
    position: NonNegativeInt | None = None
    owner: Text | None = None


class SoftwareVersions(FrozenModel):
    """Driver and library versions of a node."""

    driver: Annotated[Text | None, REPORTED] = None
    cuda: Annotated[Text | None, REPORTED] = None
    nvml: Text | None = None


class _Slotted(Protocol):
    """What belongs to a slot."""

    @property
    def slot(self) -> int: ...

    @property
    def key(self) -> str: ...


class NodeFacts(FrozenModel):
    """What is one node's own: a snapshot's and a map node's common part."""

    host: Host
    gpus: tuple[GpuIdentity, ...] = ()
    nics: tuple[NicIdentity, ...] = ()
    versions: Annotated[SoftwareVersions | None, REPORTED] = None
    chassis_serial: Text | None = None
    chassis_slot: NonNegativeInt | None = None
    tray: NonNegativeInt | None = None
    footprint: Footprint | None = None
    allocations: Annotated[tuple[Allocation, ...] | None, REPORTED] = None
    states: tuple[GpuState, ...] = ()
    nic_states: tuple[NicState, ...] = ()
    processes: tuple[GpuProcess, ...] | None = None
    unlisted_gpus: tuple[UnlistedGpu, ...] = ()
    sections: tuple[Section, ...] = ()
    absences: tuple[Absence, ...] = ()


class SnapshotHead(FrozenModel):
    """What stands first in a snapshot, so that the head of a file tells its kind."""

    kind: Literal["node_snapshot"]
    schema_version: Literal[1]


class NodeSnapshot(NodeFacts, SnapshotHead):
    """One node at one moment, as one agent or file tells it."""

    wiring: Wiring

    @model_validator(mode="after")
    def _identities_have_slots(self) -> Self:
        for problem in identity_problems(self, self.wiring):
            raise ValueError(problem)
        return self


class Node(NodeFacts):
    """One node of the map: its shape, its own identities, and where it deviates."""

    shape: Annotated[ShapeId, TEXT]
    deviations: tuple[Deviation, ...] = ()
    addresses: tuple[SlotAddress, ...] = ()


class Switch(FrozenModel):
    """A network switch, or an NVLink switch outside the nodes; tier 0 is the leaf.

    ``adaptive_routing``: whether it chooses among equal ways by load; None: not reported.
    """

    id: Id
    link_layer: LinkLayer | None = None
    nvlink_domain: Text | None = None
    tier: NonNegativeInt | None = None
    guid: Text | None = None
    ports: PositiveInt | None = None
    adaptive_routing: bool | None = None
    footprint: Footprint | None = None


class CableEnd(FrozenModel):
    """One end of a cable: a switch port, or a NIC port of a host."""

    device: Text
    nic: NonNegativeInt | None = None
    port: PositiveInt | None = None


class Cable(FrozenModel):
    """The physical pair between two ports; the rate is one direction's."""

    a: CableEnd
    b: CableEnd
    bytes_per_s: PositiveFloat
    state: LinkState = LinkState.UP
    length_m: PositiveFloat | None = None


class Conflict(FrozenModel):
    """Two sources disagree: what each said, and which value the map took."""

    path: Text
    said: tuple[tuple[str, str], ...]
    taken: str | None = None


class FleetMap(FrozenModel):
    """The fleet: shapes once, nodes by shape, switches, cables, conflicts."""

    kind: Literal["fleet_map"]
    schema_version: Literal[1]
    spec: Text | None = None
    shapes: tuple[NodeShape, ...] = ()
    nodes: tuple[Node, ...] = ()
    switches: tuple[Switch, ...] = ()
    cables: tuple[Cable, ...] = ()
    conflicts: tuple[Conflict, ...] = ()

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        for problem in fleet_problems(self):
            raise ValueError(problem)
        return self

    def shape_of(self, node: Node) -> NodeShape:
        """The shape of a node of this map."""
        return next(shape for shape in self.shapes if shape.id == node.shape)

    @property
    def gpu_count(self) -> int:
        """GPUs present over all nodes."""
        return sum(len(node.gpus) for node in self.nodes)


def identity_problems(facts: NodeFacts, wiring: Wiring) -> Iterator[str]:
    """Identities and allocations that name a slot which the wiring lacks."""
    gpus, nics = {gpu.slot for gpu in wiring.gpus}, {nic.slot for nic in wiring.nics}
    lists: tuple[tuple[str, set[int], Iterable[_Slotted]], ...] = (
        ("gpus", gpus, facts.gpus),
        ("nics", nics, facts.nics),
        ("states", gpus, facts.states),
        ("nic_states", nics, facts.nic_states),
        ("processes", gpus, facts.processes or ()),
    )
    for name, slots, parts in lists:
        parts = tuple(parts)
        yield from repeated(f"{name}[%s]", (part.key for part in parts))
        for part in parts:
            if part.slot not in slots:
                yield f"{name}[{part.key}]: the wiring has no such slot"
    ranks = gpus or {0}
    for i, held in enumerate(facts.allocations or ()):
        for slot in sorted(set(held.slots) - ranks):
            yield f"allocations[{i}].slots: {slot}; the wiring has no such slot"


def fleet_problems(fleet: FleetMap) -> Iterator[str]:
    """What a map must never have: a name twice, a device twice, an end that leads nowhere."""
    yield from repeated("shapes: id %s", (shape.id for shape in fleet.shapes))
    yield from repeated("nodes: host %s", (node.host for node in fleet.nodes))
    yield from repeated("switches: id %s", (switch.id for switch in fleet.switches))
    shapes = {shape.id: shape for shape in fleet.shapes}
    place_of: dict[str, str] = {}
    for i, node in enumerate(fleet.nodes):
        if node.shape not in shapes:
            yield f"nodes[{i}].shape: {node.shape!r} is no shape of this map"
            continue
        for problem in identity_problems(node, shapes[node.shape]):
            yield f"nodes[{i}].{problem}"
        for j, gpu in enumerate(node.gpus):
            if gpu.uuid is None:
                continue
            here = f"nodes[{i}].gpus[{j}]"
            if gpu.uuid in place_of:
                yield f"{here}.uuid: duplicate of {place_of[gpu.uuid]}; expected a unique uuid"
            place_of[gpu.uuid] = here
    yield from _cable_problems(fleet)


def _cable_problems(fleet: FleetMap) -> Iterator[str]:
    switches = {switch.id for switch in fleet.switches}
    nics_of = {shape.id: {nic.slot for nic in shape.nics} for shape in fleet.shapes}
    nics = {node.host: nics_of[node.shape] for node in fleet.nodes if node.shape in nics_of}
    for i, cable in enumerate(fleet.cables):
        for end, name in ((cable.a, "a"), (cable.b, "b")):
            known = end.device in switches if end.nic is None else end.device in nics
            if not known:
                yield f"cables[{i}].{name}.device: {end.device!r} is no host or switch of this map"
            elif end.nic is not None and end.nic not in nics[HostName(end.device)]:
                yield f"cables[{i}].{name}.nic: {end.nic}; {end.device} has no such nic"

"""Metrics of a node, its NICs and what does not answer, from a snapshot."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from fleet.agent.metrics import Family, Kind, Labels, Sample
from fleet.agent.metrics_gpu import gpu_samples
from fleet.faults import DeviceFault, FaultKind
from fleet.fields import AbsenceReason
from fleet.model import NodeSnapshot
from fleet.state import NicState
from fleet.wiring import LinkState, NicPort, NicSlot

NODE: Final = Family("fleetmap_node_info", "The node and its driver; always 1.")
GPUS: Final = Family("fleetmap_gpus", "GPUs that the driver lists.")
UNLISTED: Final = Family(
    "fleetmap_unlisted_gpu", "A GPU on the bus that the driver does not offer; always 1."
)
FAULT: Final = Family(
    "fleetmap_device_fault",
    "What does not answer, a device or the driver in a call, and why; always 1.",
)
FAULTS: Final = Family(
    "fleetmap_device_faults", "How many things do not answer, devices or the driver."
)
ABSENCES: Final = Family("fleetmap_absences", "Paths of the snapshot without a value, by reason.")
SECTION: Final = Family(
    "fleetmap_section_timestamp_seconds",
    "When a part of the snapshot was read, and by which source.",
)
PORT_UP: Final = Family("fleetmap_nic_port_up", "Whether the NIC's port is up.")
PORT_RATE: Final = Family(
    "fleetmap_nic_port_bytes_per_second", "What the NIC's port carries, one direction."
)
PORT_STATE: Final = Family(
    "fleetmap_nic_port_state", "State of the NIC's port in the kernel's words; always 1."
)
LINK_DOWNS: Final = Family(
    "fleetmap_nic_port_link_downs_total", "How often the link went down.", Kind.COUNTER
)

LOGICAL: Final = frozenset({"down", "init", "initializing", "armed", "active", "active_defer"})
PHYSICAL: Final = frozenset(
    {
        "sleep",
        "polling",
        "disabled",
        "portconfigurationtraining",
        "linkup",
        "linkerrorrecovery",
        "phy test",
    }
)
OTHER: Final = "other"


def node_samples(snapshot: NodeSnapshot, faults: Iterable[DeviceFault]) -> Iterator[Sample]:
    """All that a snapshot tells in numbers."""
    faults = tuple(faults)
    yield NODE, _node_labels(snapshot), 1
    if not any(fault.kind is FaultKind.GPU and fault.slot is None for fault in faults):
        yield GPUS, (), len(snapshot.wiring.gpus)
    for unlisted in snapshot.unlisted_gpus:
        yield UNLISTED, (("pci_address", unlisted.pci_address), ("why", unlisted.why.value)), 1
    yield from _fault_samples(faults)
    yield from _source_samples(snapshot)
    yield from gpu_samples(snapshot)
    yield from _nic_samples(snapshot)


def _node_labels(snapshot: NodeSnapshot) -> Labels:
    versions = snapshot.versions
    return (
        ("host", snapshot.host),
        ("driver", (versions and versions.driver) or ""),
        ("cuda", (versions and versions.cuda) or ""),
    )


def _fault_samples(faults: tuple[DeviceFault, ...]) -> Iterator[Sample]:
    said = dict.fromkeys((fault.device, fault.reason) for fault in faults)
    yield FAULTS, (), len({device for device, _ in said})
    for device, reason in said:
        yield FAULT, (("device", device), ("reason", reason.value)), 1


def _source_samples(snapshot: NodeSnapshot) -> Iterator[Sample]:
    counts = Counter(absence.reason for absence in snapshot.absences)
    for reason in AbsenceReason:
        yield ABSENCES, (("reason", reason.value),), counts[reason]
    for section in snapshot.sections:
        if section.collected_at is not None:
            labels = (("section", section.name.value), ("source", section.source))
            yield SECTION, labels, section.collected_at.timestamp()


def _nic_samples(snapshot: NodeSnapshot) -> Iterator[Sample]:
    names = {}
    for nic in snapshot.wiring.nics:
        for port in nic.ports:
            labels = names[nic.slot, port.port] = _port_labels(nic, port)
            if port.state is not LinkState.UNREPORTED:
                yield PORT_UP, labels, port.state is LinkState.UP
            if port.bytes_per_s is not None:
                yield PORT_RATE, labels, port.bytes_per_s
    for state in snapshot.nic_states:
        bare = (("nic", str(state.slot)), ("port", str(state.port)), ("device", ""))
        yield from _nic_state_samples(state, names.get((state.slot, state.port), bare))


def _port_labels(nic: NicSlot, port: NicPort) -> Labels:
    return (("nic", str(nic.slot)), ("port", str(port.port)), ("device", port.name or ""))


def _nic_state_samples(state: NicState, labels: Labels) -> Iterator[Sample]:
    logical, physical = _word(state.logical_state, LOGICAL), _word(state.physical_state, PHYSICAL)
    if logical or physical:
        yield PORT_STATE, (*labels, ("logical", logical), ("physical", physical)), 1
    if state.link_downs is not None:
        yield LINK_DOWNS, labels, state.link_downs


def _word(text: str | None, known: frozenset[str]) -> str:
    """The kernel's word in small letters; what it is not known to say is ``other``."""
    word = (text or "").lower()
    return word if not word or word in known else OTHER

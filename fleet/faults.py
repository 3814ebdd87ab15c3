"""Faults: devices of a node that do not answer as a whole, and calls that hung. From a snapshot."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fleet.fields import AbsenceReason
from fleet.model import NodeFacts
from fleet.state import UnlistedGpu, UnlistedWhy

_DEVICE: Final = re.compile(r"(?P<kind>gpu|nic)s(?:\[(?P<slot>[0-9]+|\*)\])?")
_OF_THE_KERNEL: Final = ("nics", "nic_states", "wiring.nics", "wiring.bridges", "wiring.numa")
_NO_FAULT: Final = frozenset({AbsenceReason.UNSUPPORTED, AbsenceReason.NOT_ASKED})


class FaultKind(StrEnum):
    """What does not answer: a GPU, a NIC, a GPU that the driver does not list, one call."""

    GPU = "gpu"
    NIC = "nic"
    UNLISTED = "unlisted"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class DeviceFault:
    """What does not answer; ``slot`` None: all of its kind on this node.

    ``address`` is the PCI address of a GPU that is not listed, ``path`` what a call was about.
    """

    kind: FaultKind
    slot: int | None
    reason: AbsenceReason
    detail: str
    address: str | None = None
    path: str = ""

    @property
    def device(self) -> str:
        """Such as ``gpu3``, ``GPUs`` for all of a node, ``driver`` or ``kernel`` for a call."""
        if self.kind is FaultKind.CALL:
            return "kernel" if self.path.startswith(_OF_THE_KERNEL) else "driver"
        if self.kind is FaultKind.UNLISTED:
            return f"gpu@{self.address}"
        return f"{self.kind.upper()}s" if self.slot is None else f"{self.kind}{self.slot}"


def device_faults(facts: NodeFacts) -> tuple[DeviceFault, ...]:
    """What is lost, forbidden, silent or failed on a node.

    Devices are told by an absence with their path (``gpus[3]``), GPUs that are on the bus and not
    in the driver's list by ``unlisted_gpus``; a call that hung about something else is told once.
    What a source cannot know or did not ask is no fault.
    """
    devices = tuple(_devices(facts))
    return (*devices, *_unlisted(facts), *_calls(facts, devices))


def why_unlisted(gpu: UnlistedGpu) -> str:
    """Why a GPU on the bus is not among the driver's, for people."""
    match gpu.why:
        case UnlistedWhy.EXCLUDED:
            return "the driver was told to leave it alone"
        case UnlistedWhy.OTHER_DRIVER:
            return f"it is bound to {gpu.driver or 'another driver'}, not to nvidia"
        case UnlistedWhy.NOT_LISTED:
            return "it is on the PCI bus, the driver does not list it"


def _devices(facts: NodeFacts) -> Iterator[DeviceFault]:
    for absence in facts.absences:
        match = _DEVICE.fullmatch(absence.path)
        if match is None or absence.reason in _NO_FAULT:
            continue
        slot = match["slot"]
        yield DeviceFault(
            kind=FaultKind(match["kind"]),
            slot=int(slot) if slot is not None and slot != "*" else None,
            reason=absence.reason,
            detail=absence.detail or absence.reason.value,
        )


def _unlisted(facts: NodeFacts) -> Iterator[DeviceFault]:
    for gpu in facts.unlisted_gpus:
        if gpu.why is UnlistedWhy.NOT_LISTED:
            detail = why_unlisted(gpu)
            yield DeviceFault(
                FaultKind.UNLISTED, None, AbsenceReason.FAILED, detail, gpu.pci_address
            )


def _calls(facts: NodeFacts, devices: tuple[DeviceFault, ...]) -> Iterator[DeviceFault]:
    """Calls that hung and are not told with a device."""
    told = {fault.detail for fault in devices}
    for absence in facts.absences:
        detail = absence.detail or absence.path
        if _DEVICE.fullmatch(absence.path):
            continue
        if absence.reason is AbsenceReason.TIMED_OUT and detail not in told:
            told.add(detail)
            yield DeviceFault(FaultKind.CALL, None, absence.reason, detail, path=absence.path)

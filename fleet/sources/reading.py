"""Reading: a node's own reading becomes its snapshot: driver, kernel and commands joined."""

from collections.abc import Iterable, Iterator
from typing import Final

from pydantic import ValidationError

from fleet.errors import FleetError, NothingCollectedError, SnapshotError
from fleet.fields import Absence, AbsenceReason, HostName
from fleet.merge import merge_snapshots, snapshots_of
from fleet.model import NodeSnapshot, Section, SectionName
from fleet.reading import NodeReading, reading_from_bytes
from fleet.sources import nvidia_smi, nvidia_smi_topo, nvml, sysfs
from fleet.sources.nvml_calls import calls_of, stopped
from fleet.sources.nvml_wiring import WiringMemory

_OUTPUTS: Final = {
    "nvidia-smi -q -x": nvidia_smi,
    "nvidia-smi topo -m": nvidia_smi_topo,
}
PCI_DEVICES: Final = "/sys/bus/pci/devices"


def recognises(head: str) -> bool:
    """Whether a text is a reading of ours."""
    return head.lstrip().startswith("{") and '"node_reading"' in head[:200]


def read(content: bytes, *, where: str, host: HostName) -> tuple[NodeSnapshot, ...]:
    """The snapshot of a reading in a file; ``host`` is not needed, a reading names its own.

    Raises:
        SnapshotError: not a reading of ours.
        NothingCollectedError: nothing on that node answered.
    """
    return (snapshot_from_reading(reading_from_bytes(content, where=where)),)


class Memory:
    """What the last reading gave, for a reader that reads the same node again and again."""

    def __init__(self) -> None:
        self.wiring = WiringMemory()
        self._last: tuple[object, NodeSnapshot] | None = None

    def kernel(self, reading: NodeReading) -> NodeSnapshot:
        """The node as its kernel tells it; not worked out anew where the files are the same."""
        read = (reading.host, reading.files, reading.links, reading.unreadable, reading.stops)
        at = reading.collected_at
        if self._last is None or self._last[0] != read:
            snapshot = sysfs.snapshot_from_files(
                *read[1:4], host=reading.host, collected_at=at.files, stops=reading.stops
            )
            self._last = (read, snapshot)
        snapshot = self._last[1]
        times = {SectionName.NETWORK: at.state or at.files}  # read anew with the state
        sections = tuple(
            s.model_copy(update={"collected_at": times.get(s.name, at.files)})
            for s in snapshot.sections
        )
        return snapshot.model_copy(update={"sections": sections})


def snapshot_from_reading(reading: NodeReading, *, memory: Memory | None = None) -> NodeSnapshot:
    """A node's snapshot from all that its probe read.

    The driver's word comes first, or that of nvidia-smi where the driver's library is not there;
    the kernel completes it. Where neither speaks, the kernel's list of the bus is the node.

    Raises:
        NothingCollectedError: nothing on that node answered.
        SnapshotError: the reading contradicts itself or holds what no node has.
    """
    try:
        return _snapshot(reading, memory or Memory())
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        raise SnapshotError(str(fault["msg"]), where=reading.host, field=field[:200]) from None


def _snapshot(reading: NodeReading, memory: Memory) -> NodeSnapshot:
    calls = calls_of(reading)
    at = reading.collected_at
    kernel = memory.kernel(reading)
    if at.driver is None:
        return kernel
    refusal = nvml.refusal_of(calls)
    if refusal is None:
        driver = nvml.snapshot_from_calls(
            calls,
            host=reading.host,
            collected_at=at.driver,
            state_at=at.state,
            memory=memory.wiring,
        )
        return sysfs.completed(driver, kernel)
    told = _from_outputs(reading)
    if told is not None:
        return sysfs.completed(told, kernel)
    return _without_driver(kernel, refusal, reading)


def _without_driver(
    kernel: NodeSnapshot, refusal: nvml.Refusal, reading: NodeReading
) -> NodeSnapshot:
    """The node as its kernel knows it; a node without GPUs lacks nothing for having no driver."""
    if not kernel.wiring.gpus and refusal.is_absent:
        if not _bus_was_listed(reading):
            raise NothingCollectedError(refusal.problem, where="NVML", remedy=refusal.remedy)
        return kernel
    if not kernel.wiring.gpus and not _bus_was_listed(reading):
        raise NothingCollectedError(refusal.problem, where="NVML", remedy=refusal.remedy)
    reason = AbsenceReason.FAILED if refusal.is_absent else refusal.reason
    why = f"NVML: {refusal.problem}; {refusal.remedy}"
    absences = (
        Absence(path=path, reason=reason, detail=why)
        for path in ("gpus", "wiring.gpus", "states", "versions")
    )
    return _with_absences(kernel, absences)


def _with_absences(snapshot: NodeSnapshot, absences: Iterable[Absence]) -> NodeSnapshot:
    return snapshot.model_copy(update={"absences": (*absences, *snapshot.absences)})


def _bus_was_listed(reading: NodeReading) -> bool:
    stopped_at = {stop.chapter for stop in reading.stops}
    asked = reading.collected_at.files is not None and "pci" not in stopped_at
    return asked and PCI_DEVICES not in reading.unreadable


def _from_outputs(reading: NodeReading) -> NodeSnapshot | None:
    """What nvidia-smi printed, joined; None where it printed nothing that can be read."""
    found: list[NodeSnapshot] = []
    for command, source in _OUTPUTS.items():
        output = reading.outputs.get(command)
        if output is None or not output.text.strip():
            continue
        try:
            found += source.read(output.text.encode(), where=command, host=reading.host)
        except FleetError:
            continue
    if not found:
        return None
    (joined,) = snapshots_of(merge_snapshots(found))
    at = reading.collected_at.outputs
    sections = tuple(
        section
        if section.collected_at
        else Section(name=SectionName(section.name), source=section.source, collected_at=at)
        for section in joined.sections
    )
    return _with_absences(
        joined.model_copy(update={"sections": sections}), _stopped_outputs(reading)
    )


def _stopped_outputs(reading: NodeReading) -> Iterator[Absence]:
    """A command that did not end: what it would have told is missing."""
    for stop in reading.stops:
        if stop.chapter == "outputs":
            why = stopped(stop)
            path = "wiring.pcie_levels" if "topo" in stop.at else "states"
            yield Absence(path=path, reason=why.reason, detail=why.detail)

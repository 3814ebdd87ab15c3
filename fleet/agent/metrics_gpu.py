"""Metrics of GPUs and their NVLink ports, from a snapshot. What was not reported has no sample.

Labels are slots, UUIDs and closed sets of words: no process, no user, no text of the driver's but
a product's name.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final

from fleet.agent.metrics import Family, Kind, Labels, Sample
from fleet.model import FabricState, GpuIdentity, NodeSnapshot
from fleet.state import ClocksReason, FabricSummary, GpuState, PortCounters, RecoveryAction
from fleet.wiring import GpuSlot, LinkState

COUNTER: Final = Kind.COUNTER

INFO: Final = Family("fleetmap_gpu_info", "A GPU that the driver lists; always 1.")
MEMORY: Final = Family("fleetmap_gpu_memory_bytes", "Memory of the GPU.")
WIDTH: Final = Family("fleetmap_gpu_pcie_width", "PCIe lanes.")
FABRIC: Final = Family("fleetmap_gpu_fabric_state", "State of the GPU's NVLink fabric.")
DOMAIN: Final = Family(
    "fleetmap_gpu_nvlink_domain_info", "NVLink domain across nodes the GPU is in; always 1."
)
REASONS: Final = Family(
    "fleetmap_gpu_clocks_reason", "Whether this keeps the GPU from its highest clocks."
)
RECOVERY: Final = Family(
    "fleetmap_gpu_recovery_action", "Whether the driver advises this to recover the GPU."
)
SUMMARY: Final = Family(
    "fleetmap_gpu_fabric_health", "Whether this is the driver's verdict on the GPU's fabric."
)
ECC: Final = Family(
    "fleetmap_gpu_ecc_errors_total",
    "Memory errors, since the driver was loaded or of the board's life.",
    COUNTER,
)
ROWS: Final = Family("fleetmap_gpu_remapped_rows_total", "Rows replaced by spares.", COUNTER)
PROCESSES: Final = Family("fleetmap_gpu_processes", "Processes that hold the GPU.")
IDLE: Final = Family("fleetmap_gpu_idle_processes", "Of those, processes that do not use it.")
PORT_UP: Final = Family("fleetmap_nvlink_up", "Whether the GPU's NVLink port is up.")
PORT_RATE: Final = Family(
    "fleetmap_nvlink_bytes_per_second", "What the NVLink port carries, one direction."
)

_Value = Callable[[GpuState], float | None]

STATE_VALUES: Final[tuple[tuple[Family, _Value], ...]] = (
    (Family("fleetmap_gpu_memory_used_bytes", "Memory in use."), lambda s: s.memory_used_bytes),
    (
        Family("fleetmap_gpu_memory_reserved_bytes", "Memory the driver keeps for itself."),
        lambda s: s.memory_reserved_bytes,
    ),
    (
        Family("fleetmap_gpu_busy_ratio", "Share of time in which it computed."),
        lambda s: s.busy_ratio,
    ),
    (
        Family("fleetmap_gpu_memory_busy_ratio", "Share of time in which its memory was used."),
        lambda s: s.memory_busy_ratio,
    ),
    (Family("fleetmap_gpu_temperature_celsius", "Temperature."), lambda s: s.temperature_celsius),
    (Family("fleetmap_gpu_power_watts", "Power drawn."), lambda s: s.power_watts),
    (Family("fleetmap_gpu_power_limit_watts", "Power limit."), lambda s: s.power_limit_watts),
    (
        Family("fleetmap_gpu_pcie_generation", "PCIe generation now; it drops when idle."),
        lambda s: s.pcie_generation_now,
    ),
    (Family("fleetmap_gpu_pcie_replays_total", "PCIe replays.", COUNTER), lambda s: s.pcie_replays),
    (Family("fleetmap_gpu_mig_enabled", "Whether MIG is on."), lambda s: s.mig_enabled),
    (
        Family("fleetmap_gpu_ecc_enabled", "Whether ECC is on."),
        lambda s: s.ecc.enabled if s.ecc else None,
    ),
    (
        Family("fleetmap_gpu_remapped_rows_pending", "Whether a row waits for a reset."),
        lambda s: s.remapped_rows.pending if s.remapped_rows else None,
    ),
    (
        Family("fleetmap_gpu_remapped_rows_failure", "Whether a row could not be replaced."),
        lambda s: s.remapped_rows.failure if s.remapped_rows else None,
    ),
)

_Count = Callable[[PortCounters], int | None]

PORT_COUNTERS: Final[tuple[tuple[Family, _Count], ...]] = (
    (Family("fleetmap_nvlink_replays_total", "Packets sent again.", COUNTER), lambda p: p.replays),
    (Family("fleetmap_nvlink_recoveries_total", "Recoveries.", COUNTER), lambda p: p.recoveries),
    (
        Family("fleetmap_nvlink_failed_recoveries_total", "Recoveries that failed.", COUNTER),
        lambda p: p.failed_recoveries,
    ),
    (Family("fleetmap_nvlink_crc_errors_total", "CRC errors.", COUNTER), lambda p: p.crc_errors),
    (
        Family("fleetmap_nvlink_receive_errors_total", "Errors in receiving.", COUNTER),
        lambda p: p.receive_errors,
    ),
    (
        Family("fleetmap_nvlink_symbol_errors_total", "Symbol errors.", COUNTER),
        lambda p: p.symbol_errors,
    ),
)


def gpu_samples(snapshot: NodeSnapshot) -> Iterator[Sample]:
    """What a snapshot tells of its GPUs."""
    parts = {gpu.slot: gpu for gpu in snapshot.gpus}
    names = {gpu.slot: gpu_labels(gpu.slot, parts.get(gpu.slot)) for gpu in snapshot.wiring.gpus}
    for slot in snapshot.wiring.gpus:
        yield from _slot_samples(slot, names[slot.slot])
    for part in snapshot.gpus:
        yield from _part_samples(part, names[part.slot])
    for state in snapshot.states:
        yield from _state_samples(state, names[state.slot])
    yield from _process_samples(snapshot, names)


def gpu_labels(slot: int, part: GpuIdentity | None) -> Labels:
    """A GPU's name in every family: its slot, and its UUID where it is known."""
    uuid = part.uuid if part is not None else None
    return (("gpu", str(slot)), ("uuid", uuid or ""))


def one_of(
    family: Family, name: str, labels: Labels, words: type[StrEnum], *said: str
) -> Iterator[Sample]:
    """One sample for each word of a closed set: 1 for those that were said, else 0."""
    for word in words:
        yield family, (*labels, (name, word.value)), word in said


def _slot_samples(slot: GpuSlot, labels: Labels) -> Iterator[Sample]:
    product = ("product", slot.product_name or "")
    yield INFO, (*labels, product, ("pci_address", slot.pci_address or "")), 1
    yield from _told(MEMORY, labels, slot.memory_bytes)
    yield from _told(WIDTH, labels, slot.pcie_width)
    for port in slot.ports:
        if port.port is None:
            continue
        here = (*labels, ("port", str(port.port)))
        if port.state is not LinkState.UNREPORTED:
            yield PORT_UP, here, port.state is LinkState.UP
        yield from _told(PORT_RATE, here, port.bytes_per_s)


def _part_samples(part: GpuIdentity, labels: Labels) -> Iterator[Sample]:
    if part.fabric is not None:
        yield from one_of(FABRIC, "state", labels, FabricState, part.fabric.state)
        if part.fabric.domain is not None:
            yield DOMAIN, (*labels, ("domain", part.fabric.domain)), 1


def _state_samples(state: GpuState, labels: Labels) -> Iterator[Sample]:
    for family, value_of in STATE_VALUES:
        yield from _told(family, labels, value_of(state))
    if state.clocks_reasons is not None:
        yield from one_of(REASONS, "reason", labels, ClocksReason, *state.clocks_reasons)
    if state.recovery_action is not None:
        yield from one_of(RECOVERY, "action", labels, RecoveryAction, state.recovery_action)
    if state.fabric_health is not None and state.fabric_health.summary is not None:
        yield from one_of(SUMMARY, "summary", labels, FabricSummary, state.fabric_health.summary)
    yield from _memory_samples(state, labels)
    for port in state.ports:
        here = (*labels, ("port", str(port.port)))
        for family, count_of in PORT_COUNTERS:
            yield from _told(family, here, count_of(port))


def _memory_samples(state: GpuState, labels: Labels) -> Iterator[Sample]:
    if state.ecc is not None:
        for since in ("volatile", "aggregate"):
            for kind in ("corrected", "uncorrected"):
                here = (*labels, ("since", since), ("kind", kind))
                yield from _told(ECC, here, getattr(state.ecc, f"{since}_{kind}"))
    if state.remapped_rows is not None:
        yield ROWS, (*labels, ("kind", "corrected")), state.remapped_rows.corrected
        yield ROWS, (*labels, ("kind", "uncorrected")), state.remapped_rows.uncorrected


def _process_samples(snapshot: NodeSnapshot, names: dict[int, Labels]) -> Iterator[Sample]:
    """How many hold a GPU; nothing where the driver does not tell processes at all."""
    if snapshot.processes is None:
        return
    held = Counter(process.slot for process in snapshot.processes)
    idle = Counter(process.slot for process in snapshot.processes if process.idle)
    for slot, labels in names.items():
        yield PROCESSES, labels, held[slot]
        yield IDLE, labels, idle[slot]


def _told(family: Family, labels: Labels, value: float | None) -> Iterator[Sample]:
    if value is not None:
        yield family, labels, value

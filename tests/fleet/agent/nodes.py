"""Nodes in use: snapshots with states, processes, NICs and faults, for what an agent shows."""

from datetime import UTC, datetime
from typing import Any

from fleet.fields import Absence, AbsenceReason, GpuUuid
from fleet.model import NodeSnapshot, Section, SectionName, SoftwareVersions
from fleet.state import (
    ClocksReason,
    EccCounts,
    FabricHealth,
    FabricSummary,
    GpuProcess,
    GpuState,
    NicState,
    PortCounters,
    RecoveryAction,
    RemappedRows,
    UnlistedGpu,
    UnlistedWhy,
)
from tests.factories import address, make_gpu, make_snapshot, make_wiring, with_pairs

READ_AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
PORTS = 18


def busy_state(slot: int, **special: Any) -> GpuState:
    """A GPU at work, of which everything is told."""
    plain: dict[str, Any] = {
        "slot": slot,
        "mig_enabled": False,
        "memory_used_bytes": 12_000_000_000 + slot,
        "memory_reserved_bytes": 500_000_000,
        "busy_ratio": 0.75,
        "memory_busy_ratio": 0.5,
        "temperature_celsius": 61.0,
        "power_watts": 512.25,
        "power_limit_watts": 700.0,
        "clocks_reasons": (ClocksReason.SW_POWER_CAP,),
        "pcie_generation_now": 5,
        "pcie_replays": 3,
        "ecc": EccCounts(
            enabled=True,
            volatile_corrected=1,
            volatile_uncorrected=0,
            aggregate_corrected=7,
            aggregate_uncorrected=2,
        ),
        "remapped_rows": RemappedRows(corrected=4, uncorrected=1, pending=True, failure=False),
        "recovery_action": RecoveryAction.RESET_GPU,
        "fabric_health": FabricHealth(mask=426, summary=FabricSummary.HEALTHY),
        "ports": tuple(
            PortCounters(
                port=port,
                replays=port,
                recoveries=1,
                failed_recoveries=0,
                crc_errors=2,
                receive_errors=0,
                symbol_errors=9,
            )
            for port in range(PORTS)
        ),
    }
    return GpuState(**plain | special)


def busy_node(host: str = "node1", *, gpus: int = 8, nics: int = 4, **special: Any) -> NodeSnapshot:
    """A node of H100s at work: one process on each GPU, each NIC port up."""
    slots = tuple(make_gpu(slot, ports=PORTS) for slot in range(gpus))
    wiring = with_pairs(make_wiring(slots, nics))
    plain: dict[str, Any] = {
        "versions": SoftwareVersions(driver="570.124.06", cuda="12.8"),
        "states": tuple(busy_state(slot) for slot in range(gpus)),
        "nic_states": tuple(
            NicState(
                slot=slot, port=1, logical_state="ACTIVE", physical_state="LinkUp", link_downs=2
            )
            for slot in range(nics)
        ),
        "processes": tuple(
            GpuProcess(slot=slot, pid=4242 + slot, name="train.py", user="ada", idle=slot == 0)
            for slot in range(gpus)
        ),
        "sections": tuple(
            Section(name=name, source="nvml", collected_at=READ_AT)
            for name in (SectionName.DEVICES, SectionName.HEALTH)
        ),
        "absences": (),
    }
    return make_snapshot(host, wiring, **plain | special)


def faulty_node() -> NodeSnapshot:
    """A node with a lost GPU, one that hangs, and one that the driver does not list."""
    return busy_node(
        absences=(
            Absence(path="gpus[3]", reason=AbsenceReason.GPU_LOST, detail="GPU is lost (15)"),
            Absence(path="gpus[3]", reason=AbsenceReason.GPU_LOST, detail="said twice"),
            Absence(path="gpus[5]", reason=AbsenceReason.TIMED_OUT, detail="no answer in 5 s"),
            Absence(path="states[*].busy_ratio", reason=AbsenceReason.UNSUPPORTED),
        ),
        unlisted_gpus=(
            UnlistedGpu(pci_address=address(0x77), why=UnlistedWhy.EXCLUDED, uuid=GpuUuid("GPU-x")),
        ),
    )

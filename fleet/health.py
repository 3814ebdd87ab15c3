"""Health: what the state of a node's devices shows to be wrong, with its evidence."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from fleet.faults import FaultKind, device_faults, why_unlisted
from fleet.model import NodeFacts
from fleet.naming import counted
from fleet.state import (
    ClocksReason,
    FabricHealth,
    FabricMisconfiguration,
    FabricSummary,
    GpuState,
    NicState,
    RecoveryAction,
    UnlistedWhy,
)

SLOWED: Final = frozenset(
    {ClocksReason.HW_SLOWDOWN, ClocksReason.HW_THERMAL, ClocksReason.HW_POWER_BRAKE}
)
"""Reasons that protect the hardware; power caps and idling are everyday."""


class Symptom(NamedTuple):
    """One thing wrong on a node: a stable code, whether it stops work, where, and the evidence."""

    code: str
    is_error: bool
    where: str
    text: str


def symptoms(facts: NodeFacts) -> Iterator[Symptom]:
    """All that a node's own state shows to be wrong."""
    for fault in device_faults(facts):
        text = f"{fault.reason.value}: {fault.detail}"
        if fault.kind is FaultKind.CALL:
            yield Symptom("call_hung", True, "driver", text)
        elif fault.kind is not FaultKind.UNLISTED:
            place = f"{fault.kind}s" if fault.slot is None else f"{fault.kind}s[{fault.slot}]"
            yield Symptom(f"{fault.kind}_silent", True, place, text)
    for gpu in facts.unlisted_gpus:
        is_error = gpu.why is UnlistedWhy.NOT_LISTED
        place = f"unlisted_gpus[{gpu.key}]"
        yield Symptom(f"gpu_{gpu.why.value}", is_error, place, why_unlisted(gpu))
    for state in facts.states:
        for symptom in _of_gpu(state):
            yield symptom._replace(where=f"states[{state.slot}].{symptom.where}")
    for nic in facts.nic_states:
        yield from _of_nic(nic)


def _of_gpu(state: GpuState) -> Iterator[Symptom]:
    if state.recovery_action not in (None, RecoveryAction.NONE):
        text = f"the driver advises: {state.recovery_action.value.replace('_', ' ')}"
        yield Symptom("recovery_advised", True, "recovery_action", text)
    rows = state.remapped_rows
    if rows is not None and rows.failure:
        yield Symptom("row_remap_failed", True, "remapped_rows", "a row could not be remapped")
    elif rows is not None and rows.pending:
        text = "remapped rows wait for a reset of the GPU"
        yield Symptom("row_remap_pending", False, "remapped_rows", text)
    if state.ecc is not None and state.ecc.volatile_uncorrected:
        text = counted(state.ecc.volatile_uncorrected, "uncorrected memory error")
        yield Symptom("ecc_uncorrected", True, "ecc", f"{text} since the driver was loaded")
    if state.fabric_health is not None:
        yield from _of_fabric(state.fabric_health)
    slowed = sorted(SLOWED & set(state.clocks_reasons or ()))
    if slowed:
        text = f"clocks are held back: {', '.join(slowed)}"
        yield Symptom("clocks_slowed", False, "clocks_reasons", text)
    for port in state.ports:
        if port.failed_recoveries:
            text = f"{counted(port.failed_recoveries, 'link recovery attempt')} failed"
            yield Symptom("nvlink_not_recovered", True, f"ports[{port.key}]", text)


def _of_fabric(health: FabricHealth) -> Iterator[Symptom]:
    wrong = [
        name.replace("_", " ")
        for name in ("bandwidth_degraded", "route_unhealthy")
        if getattr(health, name)
    ]
    if health.misconfiguration not in (None, FabricMisconfiguration.NONE):
        wrong.append(f"misconfigured: {health.misconfiguration.value.replace('_', ' ')}")
    if health.manager_connected is False:
        wrong.append("fabric manager not connected")
    if not wrong and health.summary in (FabricSummary.UNHEALTHY, FabricSummary.LIMITED_CAPACITY):
        wrong.append(health.summary.value.replace("_", " "))
    if wrong:
        yield Symptom("fabric_unhealthy", True, "fabric_health", ", ".join(wrong))


def _of_nic(nic: NicState) -> Iterator[Symptom]:
    """A port that is cabled and trained, and yet not active: no subnet manager has taken it."""
    if nic.physical_state == "LinkUp" and nic.logical_state == "INIT":
        where = f"nic_states[{nic.key}]"
        yield Symptom("nic_not_active", True, where, "the link is up, no subnet manager took it")

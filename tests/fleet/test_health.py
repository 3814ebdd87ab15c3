from typing import Any

import pytest

from fleet.check import Severity, check_fleet, slowed_hosts
from fleet.fields import Absence, AbsenceReason, PciAddress
from fleet.health import Symptom, symptoms
from fleet.state import (
    ClocksReason,
    EccCounts,
    FabricHealth,
    FabricMisconfiguration,
    FabricSummary,
    GpuState,
    NicState,
    PortCounters,
    RecoveryAction,
    RemappedRows,
    UnlistedGpu,
    UnlistedWhy,
)
from tests.factories import make_fleet, make_snapshot

SOUND = GpuState(
    slot=2,
    clocks_reasons=(ClocksReason.IDLE, ClocksReason.SW_POWER_CAP),
    ecc=EccCounts(enabled=True, volatile_corrected=7, volatile_uncorrected=0),
    remapped_rows=RemappedRows(corrected=1, uncorrected=0, pending=False, failure=False),
    recovery_action=RecoveryAction.NONE,
    fabric_health=FabricHealth(
        mask=0x1AA,
        summary=FabricSummary.HEALTHY,
        bandwidth_degraded=False,
        misconfiguration=FabricMisconfiguration.NONE,
    ),
    ports=(PortCounters(port=0, replays=3, recoveries=1, failed_recoveries=0),),
)
ROWS = {"corrected": 0, "uncorrected": 1}


def found(**state: Any) -> list[Symptom]:
    return list(symptoms(make_snapshot(states=(SOUND.model_copy(update=state),))))


def test_a_sound_gpu_has_no_symptom() -> None:
    assert found() == []


def test_a_gpu_of_which_nothing_is_reported_has_no_symptom() -> None:
    assert list(symptoms(make_snapshot(states=(GpuState(slot=0),)))) == []


@pytest.mark.parametrize(
    ("state", "code", "is_error", "where", "words"),
    [
        (
            {"recovery_action": RecoveryAction.DRAIN_AND_RESET},
            "recovery_advised",
            True,
            "recovery_action",
            "drain and reset",
        ),
        (
            {"remapped_rows": RemappedRows(**ROWS, pending=True, failure=False)},
            "row_remap_pending",
            False,
            "remapped_rows",
            "reset",
        ),
        (
            {"remapped_rows": RemappedRows(**ROWS, pending=True, failure=True)},
            "row_remap_failed",
            True,
            "remapped_rows",
            "could not",
        ),
        (
            {"ecc": EccCounts(volatile_uncorrected=2)},
            "ecc_uncorrected",
            True,
            "ecc",
            "2 uncorrected memory errors",
        ),
        (
            {"fabric_health": FabricHealth(mask=1, bandwidth_degraded=True)},
            "fabric_unhealthy",
            True,
            "fabric_health",
            "bandwidth degraded",
        ),
        (
            {
                "fabric_health": FabricHealth(
                    mask=0x500,
                    misconfiguration=FabricMisconfiguration.INSUFFICIENT_NVLINKS,
                    manager_connected=False,
                )
            },
            "fabric_unhealthy",
            True,
            "fabric_health",
            "misconfigured: insufficient nvlinks, fabric manager not connected",
        ),
        (
            {"fabric_health": FabricHealth(mask=0, summary=FabricSummary.LIMITED_CAPACITY)},
            "fabric_unhealthy",
            True,
            "fabric_health",
            "limited capacity",
        ),
        (
            {"clocks_reasons": (ClocksReason.SW_POWER_CAP, ClocksReason.HW_THERMAL)},
            "clocks_slowed",
            False,
            "clocks_reasons",
            "hw_thermal",
        ),
        (
            {"ports": (PortCounters(port=11, failed_recoveries=1),)},
            "nvlink_not_recovered",
            True,
            "ports[11]",
            "1 link recovery attempt failed",
        ),
    ],
)
def test_what_is_wrong_has_a_code_a_place_and_its_evidence(
    state: dict[str, Any], code: str, is_error: bool, where: str, words: str
) -> None:
    (symptom,) = found(**state)
    assert (symptom.code, symptom.is_error) == (code, is_error)
    assert symptom.where == f"states[2].{where}"
    assert words in symptom.text


def test_a_device_that_does_not_answer_is_an_error() -> None:
    absence = Absence(path="gpus[3]", reason=AbsenceReason.GPU_LOST, detail="fell off the bus")
    (symptom,) = symptoms(make_snapshot(absences=(absence,)))
    assert symptom == Symptom("gpu_silent", True, "gpus[3]", "gpu_lost: fell off the bus")


@pytest.mark.parametrize(
    ("why", "code", "is_error"),
    [
        (UnlistedWhy.EXCLUDED, "gpu_excluded", False),
        (UnlistedWhy.NOT_LISTED, "gpu_not_listed", True),
        (UnlistedWhy.OTHER_DRIVER, "gpu_other_driver", False),
    ],
)
def test_a_gpu_beside_the_driver_s_list_is_told(
    why: UnlistedWhy, code: str, is_error: bool
) -> None:
    unlisted = UnlistedGpu(pci_address=PciAddress("00000000:61:00.0"), why=why)
    (symptom,) = symptoms(make_snapshot(unlisted_gpus=(unlisted,)))
    assert (symptom.code, symptom.is_error) == (code, is_error)
    assert symptom.where == "unlisted_gpus[00000000:61:00.0]"


@pytest.mark.parametrize(
    ("logical", "physical", "count"),
    [("INIT", "LinkUp", 1), ("ACTIVE", "LinkUp", 0), ("DOWN", "Disabled", 0), (None, None, 0)],
)
def test_a_trained_port_that_no_subnet_manager_took_is_told(
    logical: str | None, physical: str | None, count: int
) -> None:
    state = NicState(slot=1, port=1, logical_state=logical, physical_state=physical)
    assert len(list(symptoms(make_snapshot(nic_states=(state,))))) == count


def test_check_tells_symptoms_of_every_node() -> None:
    lost = Absence(path="gpus[0]", reason=AbsenceReason.TIMED_OUT, detail="silent")
    sick = SOUND.model_copy(update={"clocks_reasons": (ClocksReason.HW_SLOWDOWN,)})
    fleet = make_fleet(
        make_snapshot("a", absences=(lost,)), make_snapshot("b", states=(sick,)), make_snapshot("c")
    )
    told = [(f.severity, f.code, f.where) for f in check_fleet(fleet)]
    assert told == [
        (Severity.ERROR, "gpu_silent", "nodes[a].gpus[0]"),
        (Severity.WARNING, "clocks_slowed", "nodes[b].states[2].clocks_reasons"),
    ]


def test_slowed_hosts_are_those_whose_own_state_says_so() -> None:
    slowed = SOUND.model_copy(update={"clocks_reasons": (ClocksReason.HW_SLOWDOWN,)})
    capped = SOUND.model_copy(update={"clocks_reasons": (ClocksReason.SW_POWER_CAP,)})
    lost = Absence(path="gpus[0]", reason=AbsenceReason.TIMED_OUT, detail="silent")
    fleet = make_fleet(
        make_snapshot("a", states=(slowed,)),
        make_snapshot("b", states=(capped,)),
        make_snapshot("c", absences=(lost,)),
    )
    assert slowed_hosts(fleet) == {"a"}

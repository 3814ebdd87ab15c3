import pytest

from fleet.faults import DeviceFault, FaultKind, device_faults
from fleet.fields import Absence, AbsenceReason, PciAddress
from fleet.state import UnlistedGpu, UnlistedWhy
from tests.factories import make_snapshot


def faults_of(path: str, reason: AbsenceReason, detail: str | None = None) -> list[DeviceFault]:
    snapshot = make_snapshot(absences=(Absence(path=path, reason=reason, detail=detail),))
    return list(device_faults(snapshot))


def test_a_device_that_does_not_answer_is_a_fault_with_its_reason() -> None:
    (fault,) = faults_of("gpus[3]", AbsenceReason.TIMED_OUT, "no answer within 2 s")
    assert (fault.kind, fault.slot, fault.device) == ("gpu", 3, "gpu3")
    assert (fault.reason, fault.detail) == (AbsenceReason.TIMED_OUT, "no answer within 2 s")


@pytest.mark.parametrize(
    ("path", "device"), [("gpus", "GPUs"), ("gpus[*]", "GPUs"), ("nics", "NICs")]
)
def test_all_devices_of_a_kind_are_one_fault(path: str, device: str) -> None:
    (fault,) = faults_of(path, AbsenceReason.FAILED)
    assert (fault.slot, fault.device, fault.detail) == (None, device, "failed")


@pytest.mark.parametrize("path", ["gpus[3].serial", "wiring.gpus[3]", "states[3]", "allocations"])
def test_a_datum_that_is_missing_is_no_fault_of_the_device(path: str) -> None:
    assert faults_of(path, AbsenceReason.NO_PERMISSION) == []


def test_a_call_that_hung_is_told_once_and_names_the_driver() -> None:
    hung = [
        Absence(path=path, reason=AbsenceReason.TIMED_OUT, detail="X did not return")
        for path in ("wiring.p2p[0-1]", "wiring.p2p[0-2]")
    ]
    (fault,) = device_faults(make_snapshot(absences=tuple(hung)))
    assert (fault.kind, fault.device) == (FaultKind.CALL, "driver")
    assert fault.detail == "X did not return"


def test_a_call_that_hung_with_its_device_is_not_told_twice() -> None:
    hung = [
        Absence(path=path, reason=AbsenceReason.TIMED_OUT, detail="X did not return")
        for path in ("gpus[0]", "wiring.gpus[0]", "states[0]")
    ]
    (fault,) = device_faults(make_snapshot(absences=tuple(hung)))
    assert fault.device == "gpu0"


@pytest.mark.parametrize(
    ("why", "count"),
    [(UnlistedWhy.NOT_LISTED, 1), (UnlistedWhy.EXCLUDED, 0), (UnlistedWhy.OTHER_DRIVER, 0)],
)
def test_a_gpu_on_the_bus_that_the_driver_does_not_list_is_a_fault(
    why: UnlistedWhy, count: int
) -> None:
    gpu = UnlistedGpu(pci_address=PciAddress("00000000:61:00.0"), why=why)
    faults = device_faults(make_snapshot(unlisted_gpus=(gpu,)))
    assert [fault.device for fault in faults] == ["gpu@00000000:61:00.0"] * count


@pytest.mark.parametrize("reason", [AbsenceReason.UNSUPPORTED, AbsenceReason.NOT_ASKED])
def test_what_a_source_cannot_know_is_no_fault(reason: AbsenceReason) -> None:
    assert faults_of("nics", reason) == []

from fleet.fields import Absence, AbsenceReason
from fleet.sources.nvml_answers import NO_GPU, Missing, agreed, shared_absences
from fleet.wiring import EndKind, GpuPort, GpuSlot, PortEnd, Wiring

LOST = Missing(AbsenceReason.GPU_LOST, "lost")
TOO_OLD = Missing(AbsenceReason.DRIVER_TOO_OLD, "old")


def gpu(slot: int, ports: int = 0) -> GpuSlot:
    end = PortEnd(kind=EndKind.UNREPORTED)
    return GpuSlot(slot=slot, ports=tuple(GpuPort(port=port, end=end) for port in range(ports)))


def absences(*paths: str) -> list[Absence]:
    return [Absence(path=path, reason=AbsenceReason.UNSUPPORTED) for path in paths]


def shared_paths(wiring: Wiring, *paths: str) -> list[str]:
    return [absence.path for absence in shared_absences(absences(*paths), wiring)]


def test_an_absence_of_every_gpu_is_told_once() -> None:
    wiring = Wiring(gpus=(gpu(0), gpu(1)))
    assert shared_paths(wiring, "gpus[0].serial", "gpus[1].serial") == ["gpus[*].serial"]


def test_an_absence_of_some_gpus_stays_with_each() -> None:
    wiring = Wiring(gpus=(gpu(0), gpu(1), gpu(2)))
    paths = ["gpus[0].serial", "gpus[2].serial"]
    assert shared_paths(wiring, *paths) == paths


def test_absences_for_two_reasons_are_not_joined() -> None:
    wiring = Wiring(gpus=(gpu(0), gpu(1)))
    two = [
        Absence(path="gpus[0].serial", reason=AbsenceReason.UNSUPPORTED),
        Absence(path="gpus[1].serial", reason=AbsenceReason.NO_PERMISSION),
    ]
    assert list(shared_absences(two, wiring)) == two


def test_ports_are_joined_within_a_gpu_and_then_over_gpus() -> None:
    wiring = Wiring(gpus=(gpu(0, ports=2), gpu(1, ports=2)))
    first = [f"wiring.gpus[0].ports[{port}].version" for port in range(2)]
    second = [f"wiring.gpus[1].ports[{port}].version" for port in range(2)]
    assert shared_paths(wiring, *first) == ["wiring.gpus[0].ports[*].version"]
    assert shared_paths(wiring, *first, *second) == ["wiring.gpus[*].ports[*].version"]


def test_a_single_gpu_keeps_its_number() -> None:
    assert shared_paths(Wiring(gpus=(gpu(0),)), "gpus[0].serial") == ["gpus[0].serial"]


def test_pairs_are_joined_when_all_lack_the_same() -> None:
    wiring = Wiring(gpus=(gpu(0), gpu(1), gpu(2)))
    pairs = ["wiring.p2p[0-1]", "wiring.p2p[0-2]", "wiring.p2p[1-2]"]
    assert shared_paths(wiring, *pairs) == ["wiring.p2p[*]"]
    assert shared_paths(wiring, *pairs[:2]) == pairs[:2]


def test_answers_agree_over_what_is_missing() -> None:
    assert agreed([LOST, 4, 4], "tray") == 4
    assert agreed([LOST, TOO_OLD], "tray") == LOST
    assert agreed([], "tray") == NO_GPU
    differ = agreed([5, 4, LOST], "tray")
    assert isinstance(differ, Missing)
    assert differ.detail == "GPUs differ in their tray: 4, 5"

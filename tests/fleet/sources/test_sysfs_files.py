"""Values by path: what is one, and why another is none."""

import pytest

from fleet.fields import Absence, AbsenceReason
from fleet.reading import Stop, StopReason
from fleet.sources.nvml_answers import Missing
from fleet.sources.sysfs_files import INFINIBAND, PCI, KernelFiles, folded
from tests.fleet.sources.sysfs_snapshots import stop

GPU = f"{PCI}/0000:19:00.0"


def files_with(path: str, text: str) -> KernelFiles:
    return KernelFiles({path: text}, {}, {})


def missing(answer: object) -> AbsenceReason:
    assert isinstance(answer, Missing)
    return answer.reason


@pytest.mark.parametrize("text", ["16\n", "16", " 16 \n"])
def test_a_value_ends_with_or_without_a_line_end(text: str) -> None:
    """Real captures have lost it (an H100's /sys/class/infiniband)."""
    assert files_with(GPU, text).number(GPU) == 16


@pytest.mark.parametrize("text", ["", "\n", "N/A", "None", "Unknown", "Unknown speed", "(null)"])
def test_a_spelling_of_nothing_is_none(text: str) -> None:
    assert missing(files_with(GPU, text).text(GPU)) is AbsenceReason.UNSUPPORTED


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "x" * 1025])
def test_what_could_harm_a_terminal_or_the_model_is_undecodable(text: str) -> None:
    assert missing(files_with(GPU, text).text(GPU)) is AbsenceReason.UNDECODABLE


@pytest.mark.parametrize("text", ["0x10", "1.5", "1 2", "\u0663", "9" * 19])
def test_what_is_no_whole_number_is_undecodable(text: str) -> None:
    assert missing(files_with(GPU, text).number(GPU)) is AbsenceReason.UNDECODABLE


@pytest.mark.parametrize(
    ("text", "code"), [("0x10de\n", "10de"), ("0x030200", "030200"), ("10de", ""), ("0xzz", "")]
)
def test_codes_are_hexadecimal_digits(text: str, code: str) -> None:
    assert files_with(GPU, text).code(GPU) == code


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("EACCES", AbsenceReason.NO_PERMISSION),
        ("EPERM", AbsenceReason.NO_PERMISSION),
        ("EILSEQ", AbsenceReason.UNDECODABLE),
        ("EINVAL", AbsenceReason.UNSUPPORTED),
        ("ETIMEDOUT", AbsenceReason.TIMED_OUT),
        ("EIO", AbsenceReason.FAILED),
        ("ENODEV", AbsenceReason.FAILED),
        ("anything", AbsenceReason.FAILED),
    ],
)
def test_a_refusal_has_a_reason(name: str, reason: AbsenceReason) -> None:
    assert missing(KernelFiles({}, {}, {GPU: name}).text(GPU)) is reason


@pytest.mark.parametrize(
    ("stops", "path", "reason"),
    [
        ([], f"{GPU}/vendor", AbsenceReason.UNSUPPORTED),
        ([stop("pci", f"{GPU}/max_link_speed")], f"{GPU}/vendor", AbsenceReason.TIMED_OUT),
        ([stop("pci", f"{GPU}/max_link_speed")], f"{PCI}/0/vendor", AbsenceReason.NOT_ASKED),
        ([stop("network", f"{INFINIBAND}/a/x")], f"{GPU}/vendor", AbsenceReason.UNSUPPORTED),
        ([stop("network", f"{INFINIBAND}/a/x")], f"{INFINIBAND}/a/y", AbsenceReason.TIMED_OUT),
        ([stop("network", f"{INFINIBAND}/a/x")], f"{INFINIBAND}/b/y", AbsenceReason.NOT_ASKED),
        ([stop("gpu", "nvmlInit()")], f"{INFINIBAND}/b/y", AbsenceReason.UNSUPPORTED),
        ([stop("pci", GPU, StopReason.DIED)], f"{GPU}/vendor", AbsenceReason.FAILED),
    ],
)
def test_what_was_not_read_is_told_apart_from_what_is_not_there(
    stops: list[Stop], path: str, reason: AbsenceReason
) -> None:
    assert missing(KernelFiles({}, {}, {}, stops).text(path)) is reason


def test_a_chapter_that_was_read_past_a_hang_says_which_files_are_not_there() -> None:
    hung = [stop("network", f"{INFINIBAND}/a/ports/1/state")]
    port = f"{INFINIBAND}/b/ports/1"
    before = KernelFiles({f"{port}/link_layer": "InfiniBand"}, {}, {}, hung)
    assert missing(before.text(f"{port}/rate")) is AbsenceReason.NOT_ASKED
    after = KernelFiles({f"{port}/state": "4: ACTIVE"}, {}, {}, hung)
    assert missing(after.text(f"{port}/rate")) is AbsenceReason.UNSUPPORTED


def test_one_absence_stands_for_all_slots_that_lack_the_same() -> None:
    lacks = [Absence(path=f"nics[{i}].guid", reason=AbsenceReason.FAILED) for i in range(3)]
    other = Absence(path="nics[1].name", reason=AbsenceReason.FAILED)
    paths = [absence.path for absence in folded([*lacks, other], "nics", range(3))]
    assert paths == ["nics[*].guid", "nics[1].name"]
    assert [a.path for a in folded(lacks, "nics", range(4))] == [a.path for a in lacks]
    assert [a.path for a in folded(lacks[:1], "nics", range(1))] == ["nics[0].guid"]

import pytest

from fleet.fields import Absence, AbsenceReason
from fleet.sources.nvidia_smi_values import (
    Gaps,
    count_from_text,
    gpu_uuid_from_text,
    reason_from_text,
    serial_from_text,
    uuid_from_text,
)
from fleet.sources.xml_tree import Element


def element(text: str) -> Element:
    return Element("serial", {}, 1, text=text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("N/A", AbsenceReason.UNSUPPORTED),
        ("[N/A]", AbsenceReason.UNSUPPORTED),
        ("Not Supported", AbsenceReason.UNSUPPORTED),
        ("[Not Supported]", AbsenceReason.UNSUPPORTED),
        ("Requested functionality has been deprecated", AbsenceReason.UNSUPPORTED),
        ("<<<NULL>>>", AbsenceReason.UNSUPPORTED),
        ("Insufficient Permissions", AbsenceReason.NO_PERMISSION),
        ("[Insufficient Permissions]", AbsenceReason.NO_PERMISSION),
        ("GPU is lost", AbsenceReason.GPU_LOST),
        ("[GPU requires reset]", AbsenceReason.GPU_LOST),
        ("Function Not Found", AbsenceReason.FUNCTION_MISSING),
        ("Timeout", AbsenceReason.TIMED_OUT),
        ("Unknown Error", AbsenceReason.UNDECODABLE),
        ("", AbsenceReason.UNDECODABLE),
        ("81559 MiB", None),
        ("Nothing Available", None),
    ],
)
def test_words_for_no_value_have_a_reason(text: str, reason: AbsenceReason | None) -> None:
    assert reason_from_text(text) is reason


@pytest.mark.parametrize(
    ("text", "serial"),
    [
        ("1320222043305", "1320222043305"),
        ("0322218049033", "0322218049033"),
        ("0", None),
        ("0000000000000", None),
        ("REDACTED", None),
        ("", None),
        ("12 34", None),
    ],
)
def test_serials_of_zeros_or_of_words_are_none(text: str, serial: str | None) -> None:
    assert serial_from_text(text) == serial


@pytest.mark.parametrize(
    ("text", "uuid"),
    [
        (
            "GPU-F9BA66FC-a7f5-94c5-da19-019ef2f9c665",
            "GPU-f9ba66fc-a7f5-94c5-da19-019ef2f9c665",
        ),
        ("MIG-f9ba66fc-a7f5-94c5-da19-019ef2f9c665", None),
        ("GPU-f9ba66fc-a7f5-94c5-da19-019ef2f9c66", None),
        ("GPU-00000000-0000-0000-0000-000000000000", None),
        ("GPU-略-332e-08e4-72fe-略", None),
        ("f9ba66fc-a7f5-94c5-da19-019ef2f9c665", None),
    ],
)
def test_only_a_whole_gpu_uuid_is_one(text: str, uuid: str | None) -> None:
    assert gpu_uuid_from_text(text) == uuid


def test_a_uuid_without_dashes_gets_them() -> None:
    assert uuid_from_text("0A" * 16) == "0a0a0a0a-0a0a-0a0a-0a0a-0a0a0a0a0a0a"
    assert uuid_from_text("0a" * 15) is None


def test_counts_have_no_sign_no_unit_and_an_end() -> None:
    texts = ["0", "3666", "-1", "7 GPUs", "1" * 10, ""]
    assert [count_from_text(text) for text in texts] == [0, 3666, None, None, None, None]


def test_what_all_gpus_lack_for_one_reason_is_one_absence() -> None:
    gaps = Gaps(slots=2)
    for slot in (0, 1):
        assert gaps.value("gpus[*].serial", element("N/A"), serial_from_text, slot=slot) is None
    assert gaps.absences() == (
        Absence(path="gpus[*].serial", reason=AbsenceReason.UNSUPPORTED, detail=None),
    )


def test_what_one_gpu_lacks_names_that_gpu() -> None:
    gaps = Gaps(slots=3)
    texts = ["1320222043305", "GPU is lost", "REDACTED"]
    for slot, text in enumerate(texts):
        gaps.value("gpus[*].serial", element(text), serial_from_text, slot=slot)
    assert gaps.absences() == (
        Absence(path="gpus[1].serial", reason=AbsenceReason.GPU_LOST, detail=None),
        Absence(path="gpus[2].serial", reason=AbsenceReason.UNDECODABLE, detail="REDACTED"),
    )


def test_a_missing_element_was_not_asked_unless_the_caller_knows_better() -> None:
    gaps = Gaps(slots=0)
    gaps.value("versions.driver", None, serial_from_text)
    gaps.value("versions.cuda", None, serial_from_text, missing=AbsenceReason.DRIVER_TOO_OLD)
    assert [absence.reason for absence in gaps.absences()] == ["not_asked", "driver_too_old"]


def test_an_empty_element_and_an_endless_one_are_told_briefly() -> None:
    gaps = Gaps(slots=0)
    gaps.value("a", element(""), serial_from_text)
    gaps.value("b", element("x" * 5000), serial_from_text)
    details = [absence.detail for absence in gaps.absences()]
    assert details == ["an empty element", "x" * 200]

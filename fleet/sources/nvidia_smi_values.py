"""Values as nvidia-smi writes them, and the words it writes where there is none. No files."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from fleet.fields import Absence, AbsenceReason, GpuUuid
from fleet.sources.xml_tree import Element

LONGEST_TEXT: Final = 1024
LONGEST_DETAIL: Final = 200

_REASONS: Final = {
    "n/a": AbsenceReason.UNSUPPORTED,
    "none": AbsenceReason.UNSUPPORTED,
    "<<<null>>>": AbsenceReason.UNSUPPORTED,
    "not supported": AbsenceReason.UNSUPPORTED,
    "requested functionality has been deprecated": AbsenceReason.UNSUPPORTED,
    "insufficient permissions": AbsenceReason.NO_PERMISSION,
    "function not found": AbsenceReason.FUNCTION_MISSING,
    "timeout": AbsenceReason.TIMED_OUT,
    "gpu is lost": AbsenceReason.GPU_LOST,
    "gpu requires reset": AbsenceReason.GPU_LOST,
    "unknown error": AbsenceReason.UNDECODABLE,
    "err!": AbsenceReason.UNDECODABLE,
    "": AbsenceReason.UNDECODABLE,
}

T = TypeVar("T")


def reason_from_text(text: str) -> AbsenceReason | None:
    """Why a datum is missing, where the driver's text for a value is no value.

    >>> reason_from_text("[N/A]"), reason_from_text("81559 MiB")
    (<AbsenceReason.UNSUPPORTED: 'unsupported'>, None)
    """
    return _REASONS.get(text.strip("[] \t\r\n").lower())


def gpu_uuid_from_text(text: str) -> GpuUuid | None:
    """A GPU's UUID in lower case; None for what people put over it, and for zeros.

    >>> gpu_uuid_from_text("GPU-[hidden]-332e-08e4-72fe-[hidden]") is None
    True
    """
    match = re.fullmatch(r"GPU-([0-9a-f-]+)", text.strip(), re.IGNORECASE)
    uuid = uuid_from_text(match[1]) if match else None
    return GpuUuid(f"GPU-{uuid}") if uuid and uuid.strip("0-") else None


def serial_from_text(text: str) -> str | None:
    """A serial number. Virtual machines show zeros and people write REDACTED: neither is one.

    >>> serial_from_text("1320222043305"), serial_from_text("0000000000000")
    ('1320222043305', None)
    """
    return text if re.fullmatch(r"(?=.*[1-9])[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text) else None


def count_from_text(text: str) -> int | None:
    """A number that may be zero.

    >>> count_from_text("3666"), count_from_text("-1")
    (3666, None)
    """
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


@dataclass(slots=True)
class Gaps:
    """The absences met while a node of ``slots`` GPUs is read.

    ``[*]`` in a path stands for the slot that is named with it; where all GPUs lack a datum for
    one reason, one absence says so.
    """

    slots: int
    notes: dict[tuple[str, AbsenceReason, str | None], list[int]] = field(default_factory=dict)

    def note(
        self,
        path: str,
        reason: AbsenceReason = AbsenceReason.NOT_ASKED,
        detail: str | None = None,
        *,
        slot: int | None = None,
    ) -> None:
        """Keep one absence; a detail that only repeats ``N/A`` is dropped."""
        short = " ".join((detail or "").split())[:LONGEST_DETAIL].strip() or None
        if short and reason_from_text(short) is AbsenceReason.UNSUPPORTED:
            short = None
        slots = self.notes.setdefault((path, reason, short), [])
        if slot is not None:
            slots.append(slot)

    def value(
        self,
        path: str,
        element: Element | None,
        decode: Callable[[str], T | None],
        *,
        slot: int | None = None,
        missing: AbsenceReason = AbsenceReason.NOT_ASKED,
    ) -> T | None:
        """The value in an element, or None and an absence; ``missing`` for no such element."""
        text = text_of(element)
        if text is None:
            self.note(path, missing, slot=slot)
            return None
        reason = reason_from_text(text)
        value = decode(text) if reason is None else None
        if value is None:
            unclear = reason in (None, AbsenceReason.UNDECODABLE)
            detail = (text or "an empty element") if unclear else None
            self.note(path, reason or AbsenceReason.UNDECODABLE, detail, slot=slot)
        return value

    def absences(self) -> tuple[Absence, ...]:
        """All absences, in the order in which they were met."""
        return tuple(
            Absence(path=here, reason=reason, detail=detail)
            for (path, reason, detail), slots in self.notes.items()
            for here in self._paths(path, slots)
        )

    def _paths(self, path: str, slots: list[int]) -> list[str]:
        if len(set(slots)) in (0, self.slots):
            return [path]
        return [path.replace("[*]", f"[{slot}]", 1) for slot in sorted(set(slots))]


def text_of(element: Element | None) -> str | None:
    """An element's text with single blanks; None for no element."""
    return None if element is None else " ".join(element.text.split())


def plain_text(text: str) -> str | None:
    """Any text that fits the model."""
    return text if len(text) <= LONGEST_TEXT else None


def uuid_from_text(text: str) -> str | None:
    """A UUID in lower case with dashes, as drivers write it with or without them."""
    digits = text.lower().replace("-", "")
    if not re.fullmatch(r"[0-9a-f]{32}", digits):
        return None
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

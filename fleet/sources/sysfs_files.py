"""The kernel's files as a probe read them: values by path, or why there is none. No devices."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from fleet.fields import Absence, AbsenceReason
from fleet.reading import Stop, StopReason
from fleet.sources.nvml_answers import Missing

T = TypeVar("T")

PCI: Final = "/sys/bus/pci/devices"
NUMA: Final = "/sys/devices/system/node"
CPU: Final = "/proc/cpuinfo"
INFINIBAND: Final = "/sys/class/infiniband"
NET: Final = "/sys/class/net"
CXI: Final = "/sys/class/cxi"

_ASKED_OF_DEVICES: Final = frozenset(
    {
        *("max_link_speed", "max_link_width", "current_link_speed", "current_link_width"),
        *("carrier", "speed", "state", "phys_state", "rate", "lid", "sm_lid"),
    }
)
"""What the probe reads last, because the kernel asks the device for it."""

LONGEST_TEXT: Final = 1024
_LONGEST_DETAIL: Final = 200
_LONGEST_CPU_BLOCK: Final = 8192
_LONGEST_NAME: Final = 40
_DEEPEST: Final = 8
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")
_CODE: Final = re.compile(r"0x([0-9a-f]{4,6})")
_NOTHING: Final = re.compile(r"|\(null\)|<NULL>|\[?N/A\]?|None|<<<NULL>>>|[Uu]nknown.*")

_REASONS: Final = {
    "EACCES": AbsenceReason.NO_PERMISSION,
    "EPERM": AbsenceReason.NO_PERMISSION,
    "EILSEQ": AbsenceReason.UNDECODABLE,
    "EFBIG": AbsenceReason.UNDECODABLE,
    "ETIMEDOUT": AbsenceReason.TIMED_OUT,
    "ENOENT": AbsenceReason.UNSUPPORTED,
    "ENOTDIR": AbsenceReason.UNSUPPORTED,
    "EINVAL": AbsenceReason.UNSUPPORTED,
    "EOPNOTSUPP": AbsenceReason.UNSUPPORTED,
}
"""A device that is there and does not answer (EIO, ENODEV) is FAILED. EINVAL: no carrier."""


@dataclass(frozen=True, slots=True)
class KernelFiles:
    """Files, links and refusals of one reading; ``stops`` say where its chapters were given up."""

    files: Mapping[str, str]
    links: Mapping[str, str]
    unreadable: Mapping[str, str]
    stops: Sequence[Stop] = ()
    _names: dict[str, set[str]] = field(
        default_factory=lambda: defaultdict(set), init=False, repr=False
    )

    def __post_init__(self) -> None:
        for paths in (self.files, self.links, self.unreadable):
            for path in paths:
                self._note_names(path)

    def _note_names(self, path: str) -> None:
        folder = ""
        for step in path.split("/", _DEEPEST)[1:_DEEPEST]:
            self._names[folder].add(step)
            folder = f"{folder}/{step}"

    def count(self, folder: str) -> int:
        """How many names a folder has, of whatever form."""
        return len(self._names.get(folder, ()))

    def names(self, folder: str, form: re.Pattern[str]) -> list[str]:
        """Names of the wanted form in a folder, in order."""
        return sorted(name for name in self._names.get(folder, ()) if form.fullmatch(name))

    def text(self, path: str) -> str | Missing:
        """A file's text without blanks around it; a spelling of nothing is none."""
        text = self.files.get(path)
        if text is None:
            return self._missing(path)
        text = text.strip()
        if _NOTHING.fullmatch(text):
            return Missing(AbsenceReason.UNSUPPORTED, f"{_short(path)}: {text[:_LONGEST_NAME]!r}")
        if len(text) > LONGEST_TEXT or not text.isprintable():
            return undecodable(path, text)
        return text

    def number(self, path: str) -> int | Missing:
        """A file's whole number."""
        text = self.text(path)
        if isinstance(text, Missing):
            return text
        return int(text) if _NUMBER.fullmatch(text) else undecodable(path, text)

    def code(self, path: str) -> str:
        """A PCI class, vendor or device without ``0x``; empty where it is not told."""
        match = _CODE.fullmatch(self.files.get(path, "").strip())
        return match[1] if match else ""

    def cpu_block(self) -> str:
        """What /proc/cpuinfo says of the first processor; bounded, as searching it takes time."""
        return self.files.get(CPU, "")[:_LONGEST_CPU_BLOCK]

    def refusal_of(self, path: str) -> Missing | None:
        """Why the kernel refused a file or folder; None where it did not."""
        name = self.unreadable.get(path)
        if name is None:
            return None
        reason = _REASONS.get(name, AbsenceReason.FAILED)
        return Missing(reason, f"{_plain(path)}: {_plain(name)}")

    def stop_of(self, chapter: str) -> Missing | None:
        """Why a chapter was given up; None where it was read to its end."""
        stops = (_given_up(stop) for stop in self.stops if _chapter_of(stop) == chapter)
        return next(stops, None)

    def cut_of(self, chapter: str) -> Missing | None:
        """Why a chapter's lists of devices are not whole; None where they are.

        The lists are read before any device is asked, and a chapter that timed out at a device is
        read again without it.
        """
        for stop in self.stops:
            is_in_the_list = stop.at.count("/") <= _device_of(stop.at).count("/")
            is_over = stop.reason is not StopReason.TIMED_OUT or is_in_the_list
            if _chapter_of(stop) == chapter and is_over:
                return _given_up(stop)
        return None

    def _missing(self, path: str) -> Missing:
        refusal = self.refusal_of(path)
        if refusal is not None:
            return replace(refusal, detail=f"{_short(path)}: {_plain(self.unreadable[path])}")
        for stop in self.stops:
            if _device_of(stop.at) == _device_of(path):
                return _given_up(stop)
        chapter = "pci" if path.startswith((PCI, NUMA, CPU)) else "network"
        stop_before = self.stop_of(chapter)
        if stop_before is not None and not self._was_read(path):
            return Missing(AbsenceReason.NOT_ASKED, f"given up before: {stop_before.detail}")
        return Missing(AbsenceReason.UNSUPPORTED, f"{_short(path)}: no such file")

    def _was_read(self, path: str) -> bool:
        """Whether the step of the reading that reads a file came to its device."""
        folder, _, name = path.rpartition("/")
        known = self._names.get(folder, set())
        return bool(known & _ASKED_OF_DEVICES if name in _ASKED_OF_DEVICES else known)


def value_of(answer: T | Missing) -> T | None:
    """An answer, None where it is missing."""
    return None if isinstance(answer, Missing) else answer


def undecodable(path: str, text: str) -> Missing:
    """What a file says is no value of its kind."""
    return Missing(AbsenceReason.UNDECODABLE, f"{_short(path)}: {text[:_LONGEST_NAME]!r}")


def folded(absences: Iterable[Absence], name: str, slots: Iterable[int]) -> tuple[Absence, ...]:
    """One absence with ``[*]`` where every slot of a list lacks the same for one reason."""
    every = {str(slot) for slot in slots}
    element = re.compile(rf"^(?P<name>{re.escape(name)})\[(?P<slot>[0-9]+)\]")
    groups: dict[Absence, dict[str, Absence]] = {}
    for absence in absences:
        match = element.match(absence.path)
        path = element.sub(r"\g<name>[*]", absence.path)
        group = groups.setdefault(absence.model_copy(update={"path": path}), {})
        group[match["slot"] if match else ""] = absence
    return tuple(
        absence
        for common, members in groups.items()
        for absence in (
            [common] if len(every) > 1 and members.keys() == every else members.values()
        )
    )


def _chapter_of(stop: Stop) -> str:
    return stop.chapter.partition(" ")[0]


def _given_up(stop: Stop) -> Missing:
    reason = {
        StopReason.TIMED_OUT: AbsenceReason.TIMED_OUT,
        StopReason.NOT_STARTED: AbsenceReason.NOT_ASKED,
    }
    known = reason.get(stop.reason, AbsenceReason.FAILED)
    return Missing(known, f"{stop.reason} at {_plain(stop.at)}")


def _device_of(path: str) -> str:
    """The folder of the device that a path belongs to."""
    return "/".join(path.split("/")[: 6 if path.startswith(PCI) else 5])


def _short(path: str) -> str:
    """The file's name alone: the absence names the device, and equal details fold into one."""
    return _plain(path.rpartition("/")[2])


def _plain(text: str) -> str:
    """A text of the reading's as part of a message: one line, bounded."""
    words = "".join(letter if letter.isprintable() else "?" for letter in text).split()
    return " ".join(words)[:_LONGEST_DETAIL].strip() or "?"

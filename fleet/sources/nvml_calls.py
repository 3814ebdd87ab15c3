"""NVML calls: the answers of a reading, checked, or the reason why there is none. No model.

A reading is untrusted: an answer of another form than its call has is undecodable, never an error.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from fleet.fields import AbsenceReason
from fleet.reading import Answer, Lacks, NodeReading, Stop, StopReason
from fleet.sources.nvml_answers import Missing, above_zero

T = TypeVar("T")
Field = tuple[int, int]
"""Number of a driver field and its scope (the link, for fields of a link)."""

INIT: Final = "nvmlInit()"
_WORD_BITS: Final = 64
_LONGEST_TEXT: Final = 1024
_UNSAID: Final = frozenset({"", "N/A", "[N/A]", "None", "<<<NULL>>>"})
_NOT_ASKED: Final = AbsenceReason.NOT_ASKED

REASONS: Final[Mapping[int, tuple[AbsenceReason, str]]] = {
    1: (AbsenceReason.FAILED, "not initialised"),
    2: (AbsenceReason.UNSUPPORTED, "invalid argument"),
    3: (AbsenceReason.UNSUPPORTED, "not supported"),
    4: (AbsenceReason.NO_PERMISSION, "no permission"),
    6: (AbsenceReason.UNSUPPORTED, "not found"),
    9: (AbsenceReason.FAILED, "driver not loaded"),
    10: (AbsenceReason.TIMED_OUT, "timeout"),
    12: (AbsenceReason.FAILED, "library not found"),
    13: (AbsenceReason.FUNCTION_MISSING, "not in this driver"),
    15: (AbsenceReason.GPU_LOST, "GPU is lost"),
    16: (AbsenceReason.GPU_LOST, "GPU needs a reset"),
    17: (AbsenceReason.FAILED, "the operating system refused"),
    18: (AbsenceReason.FAILED, "driver and library differ"),
    19: (AbsenceReason.FAILED, "in use"),
    20: (AbsenceReason.FAILED, "out of memory"),
    21: (AbsenceReason.UNSUPPORTED, "no data"),
    25: (AbsenceReason.DRIVER_TOO_OLD, "no version of the struct fits"),
    26: (AbsenceReason.FUNCTION_MISSING, "deprecated"),
    27: (AbsenceReason.FAILED, "not ready"),
    28: (AbsenceReason.GPU_LOST, "GPU not found"),
    29: (AbsenceReason.FAILED, "invalid state"),
    999: (AbsenceReason.FAILED, "unknown error"),
}
_STOPPED: Final = {
    StopReason.TIMED_OUT: AbsenceReason.TIMED_OUT,
    StopReason.DIED: AbsenceReason.FAILED,
    StopReason.NOT_STARTED: AbsenceReason.NOT_ASKED,
}
_LACKING: Final = {
    Lacks.BINDING: "not in this nvidia-ml-py",
    Lacks.DRIVER: "not in this driver (13)",
}


@dataclass(frozen=True, slots=True)
class Calls:
    """What the driver of one node answered, by call; stops by chapter."""

    answers: Mapping[str, Answer]
    stops: Mapping[str, Stop] = field(default_factory=dict)
    _tables: dict[int, Mapping[str, Any]] = field(default_factory=dict, init=False, compare=False)

    def read(self, name: str, *arguments: object, by: Callable[[Any], T | Missing]) -> T | Missing:
        """What ``by`` makes of a call's value, or why there is none."""
        key = f"{name}({','.join(map(str, arguments))})"
        answer = self.answers.get(key)
        if answer is None:
            return self._unasked(name, arguments)
        return value_of(answer, name, by)

    def text(self, name: str, *arguments: object) -> str | Missing:
        """A call that answers with text; text that says nothing is an absence."""
        answer = self.read(name, *arguments, by=_text)
        if answer in _UNSAID:
            return Missing(AbsenceReason.UNSUPPORTED, f"{name}: printed {answer!r}")
        return answer

    def number(self, name: str, *arguments: object) -> int | Missing:
        """A call that answers with a whole number."""
        return self.read(name, *arguments, by=whole)

    def numbers(self, name: str, *arguments: object) -> tuple[int, ...] | Missing:
        """A call that answers with a row of whole numbers."""
        return self.read(name, *arguments, by=wholes)

    def bus_id(self, name: str, *arguments: object) -> str | Missing:
        """PCI address of a device or of a link's far end, as the driver writes it."""
        return self.read(name, *arguments, by=_text)

    def bits(self, name: str, *arguments: object) -> tuple[int, ...] | Missing:
        """Numbers of the bits set in a driver's bit mask of 64-bit words."""
        return self.read(name, *arguments, by=lambda words: _bits(wholes(words)))

    def field(self, gpu: int, number: int, scope: int = 0) -> int | Missing:
        """One driver field of a GPU, asked alone or with all others in one call."""
        told = self.fields(gpu).get(f"{number},{scope}")
        if type(told) is int:
            return told
        name = "nvmlDeviceGetFieldValues"
        answer = self.answers.get(f"field({gpu},{number},{scope})")
        if answer is None and told is None:
            return self._unasked(name, (gpu,))
        return value_of(answer or _answer_in_table(told), f"field {number}", whole)

    def fields(self, gpu: int) -> Mapping[str, Any]:
        """All fields of a GPU that were asked in one call."""
        if gpu not in self._tables:
            answer = self.answers.get(f"nvmlDeviceGetFieldValues({gpu})")
            told = answer.value if answer is not None else None
            self._tables[gpu] = told if isinstance(told, dict) else {}
        return self._tables[gpu]

    def handle(self, gpu: int) -> bool | Missing:
        """Whether the driver lets us open a GPU."""
        return self.read("nvmlDeviceGetHandleByIndex", gpu, by=bool)

    def stop_of(self, gpu: int) -> Missing | None:
        """Why the reading of a GPU was given up before its end."""
        stop = self.stops.get(f"gpu {gpu}")
        return None if stop is None else stopped(stop)

    def _unasked(self, name: str, arguments: Sequence[object]) -> Missing:
        """Why there is no answer at all: its GPU refused, or its chapter was given up."""
        for argument in arguments[:2] if name in _OF_TWO_GPUS else arguments[:1]:
            gpu = int(str(argument).partition(".")[0])
            handle = self.answers.get(f"nvmlDeviceGetHandleByIndex({gpu})")
            if handle is not None and handle.value is None:
                return value_of(handle, "nvmlDeviceGetHandleByIndex", _nothing)
            if (why := self.stop_of(gpu)) is not None:
                return why
        two = [f"pairs {gpu}" for gpu in arguments[:2]]
        for chapter in two if name in _OF_TWO_GPUS else ["nvml"]:
            if (stop := self.stops.get(chapter)) is not None:
                return stopped(stop)
        return Missing(_NOT_ASKED, f"{name}: not in the reading")


_OF_TWO_GPUS: Final = frozenset({"nvmlDeviceGetTopologyCommonAncestor", "nvmlDeviceGetP2PStatus"})


def calls_of(reading: NodeReading) -> Calls:
    """The driver's answers of a reading."""
    return Calls(reading.answers, {stop.chapter: stop for stop in reading.stops})


def stopped(stop: Stop) -> Missing:
    """A stop of a chapter as the reason of what it did not bring."""
    return Missing(_STOPPED[stop.reason], stop.detail or f"given up at {stop.at}")


def value_of(answer: Answer, name: str, by: Callable[[Any], T | Missing]) -> T | Missing:
    """What ``by`` makes of an answer's value; ``name`` begins the detail of what is missing."""
    if answer.lacks is not None:
        return Missing(AbsenceReason.FUNCTION_MISSING, f"{name}: {_LACKING[answer.lacks]}")
    if answer.code is not None:
        return missing_from_code(name, answer.code)
    if answer.hex is not None:
        return Missing(
            AbsenceReason.UNDECODABLE, f"{name}: bytes {answer.hex}"[:_LONGEST_TEXT].strip()
        )
    if answer.odd is not None:
        return _undecodable(f"{name}: {answer.odd}")
    try:
        return by(answer.value)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return _undecodable(f"{name}: {answer.value!r}")


def missing_from_code(name: str, code: int) -> Missing:
    """A return code of NVML as a reason."""
    unknown = (AbsenceReason.UNDECODABLE, "unexpected return")
    reason, words = REASONS.get(code, unknown)
    return Missing(reason, f"{name}: {words} ({code})", code)


def whole(value: Any) -> int:
    """A whole number, nothing that merely looks like one.

    Raises:
        TypeError: it is something else.
    """
    if type(value) is not int:
        raise TypeError(value)
    return value


def wholes(value: Any) -> tuple[int, ...]:
    """A row of whole numbers.

    Raises:
        TypeError: it is something else.
    """
    return tuple(whole(number) for number in value)


def _text(value: Any) -> str | Missing:
    if not isinstance(value, str):
        raise TypeError(value)
    told = value.strip()
    if len(told) > _LONGEST_TEXT:
        raise ValueError(value)
    return told


def _bits(words: Sequence[int]) -> tuple[int, ...]:
    return tuple(
        i * _WORD_BITS + bit
        for i, word in enumerate(words)
        if word
        for bit in range(_WORD_BITS)
        if word >> bit & 1
    )


def _answer_in_table(told: object) -> Answer:
    """Why a field has no number; what is no such answer is odd."""
    try:
        return Answer.model_validate(told, strict=False)  # its words are plain text here
    except ValidationError:
        return Answer(odd=f"{told!r}"[:_LONGEST_TEXT].strip())


def _nothing(value: Any) -> Missing:
    return _undecodable(repr(value))


def _undecodable(text: str) -> Missing:
    return Missing(AbsenceReason.UNDECODABLE, text[:_LONGEST_TEXT].strip())


@dataclass(frozen=True, slots=True)
class FabricInfo:
    """A GPU's NVLink fabric as the driver words it; ``status`` holds only when completed.

    The health mask is None in the form that has none, the summary in those before the third.
    """

    cluster_uuid: bytes
    status: int
    clique: int
    state: int
    health_mask: int | None
    health_summary: int | None


@dataclass(frozen=True, slots=True)
class PlatformInfo:
    """Where a GPU's tray stands in its chassis; without a chassis serial the rest says nothing."""

    chassis_serial: str | Missing
    slot: int
    tray: int
    module: int


def fabric_info(calls: Calls, gpu: int) -> FabricInfo | Missing:
    """A GPU's place in an NVLink fabric: ``nvmlGpuFabricInfo`` of nvml.h, without its version."""
    return calls.read("nvmlDeviceGetGpuFabricInfoV", gpu, by=_fabric)


def _fabric(value: Any) -> FabricInfo:
    raw = bytes.fromhex(value["hex"])
    version = whole(value["version"])
    word = int.from_bytes
    return FabricInfo(
        cluster_uuid=raw[:16],
        status=word(raw[16:20], "little"),
        clique=word(raw[20:24], "little"),
        state=raw[24],
        health_mask=word(raw[28:32], "little") if version else None,
        health_summary=raw[32] if version >> 24 >= 3 else None,
    )


def platform_info(calls: Calls, gpu: int) -> PlatformInfo | Missing:
    """Chassis, slot, tray and module of a GPU: ``nvmlPlatformInfo_v2_t`` without its version."""

    def read(value: Any) -> PlatformInfo | Missing:
        raw = bytes.fromhex(value["hex"])
        serial = raw[16:32].rstrip(b"\0")
        if not serial:
            none = "nvmlDeviceGetPlatformInfo: no chassis serial"
            return Missing(AbsenceReason.UNSUPPORTED, none)
        return PlatformInfo(_printable(serial), slot=raw[32], tray=raw[33], module=raw[36])

    return calls.read("nvmlDeviceGetPlatformInfo", gpu, by=read)


def _printable(raw: bytes) -> str | Missing:
    words = raw.decode("ascii", errors="replace").strip()
    if words and words.isascii() and words.isprintable():
        return words
    return Missing(AbsenceReason.UNDECODABLE, f"bytes {raw.hex()}")


def memory_of(calls: Calls, gpu: int | str) -> Mapping[str, int] | Missing:
    """Bytes of a GPU's memory by ``total``, ``used`` and, in the newer form, ``reserved``."""

    def read(value: Any) -> Mapping[str, int]:
        return {str(name): whole(size) for name, size in value.items()}

    return calls.read("nvmlDeviceGetMemoryInfo", gpu, by=read)


def memory_bytes(calls: Calls, gpu: int | str) -> int | Missing:
    """Total memory of a GPU. [B]"""
    memory = memory_of(calls, gpu)
    return memory if isinstance(memory, Missing) else above_zero(memory.get("total", 0))

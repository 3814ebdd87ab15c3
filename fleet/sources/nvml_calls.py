"""NVML calls: the binding, its exceptions turned into reasons, its structs into values. No model.

The only module that imports pynvml. Every call answers with a value or with ``Missing``.
"""

import ctypes
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NewType, TypeVar

import pynvml

from fleet.errors import NothingCollectedError
from fleet.fields import AbsenceReason
from fleet.sources.nvml_answers import Missing, above_zero, first_answer

T = TypeVar("T")
Handle = NewType("Handle", object)
Field = tuple[int, int]
"""Number of a driver field and its scope (the link, for fields of a link)."""

NODE_SCOPE: Final = 0
_WORD_BITS: Final = 64
_MEMORY_V2: Final = 0x02000028
_UNSAID: Final = frozenset({"", "N/A", "[N/A]", "None", "<<<NULL>>>"})
_UNION: Final = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")

_REASONS: Final[Mapping[int, tuple[AbsenceReason, str]]] = {
    2: (AbsenceReason.UNSUPPORTED, "invalid argument"),
    3: (AbsenceReason.UNSUPPORTED, "not supported"),
    4: (AbsenceReason.NO_PERMISSION, "no permission"),
    6: (AbsenceReason.UNSUPPORTED, "not found"),
    10: (AbsenceReason.TIMED_OUT, "timeout"),
    13: (AbsenceReason.FUNCTION_MISSING, "not in this driver"),
    15: (AbsenceReason.GPU_LOST, "GPU is lost"),
    16: (AbsenceReason.GPU_LOST, "GPU needs a reset"),
    18: (AbsenceReason.DRIVER_TOO_OLD, "driver and library differ"),
    21: (AbsenceReason.UNSUPPORTED, "no data"),
    25: (AbsenceReason.DRIVER_TOO_OLD, "no version of the struct fits"),
    26: (AbsenceReason.FUNCTION_MISSING, "deprecated"),
    28: (AbsenceReason.GPU_LOST, "GPU not found"),
}

_AT_START: Final[Mapping[int, tuple[str, str]]] = {
    4: (
        "no permission to open the NVIDIA devices",
        "run as a user who may read /dev/nvidia*, or give the container its GPUs",
    ),
    9: (
        "the NVIDIA driver is not loaded",
        "load it (modprobe nvidia), or map this node from files",
    ),
    12: (
        "libnvidia-ml.so.1 is not found",
        "install the NVIDIA driver, give the container its GPUs, or map this node from files",
    ),
    13: ("the driver is too old for this nvidia-ml-py", "upgrade the NVIDIA driver"),
    18: (
        "the loaded driver and its library have different versions",
        "reload the NVIDIA kernel modules or reboot",
    ),
    999: (
        "the driver gave an unknown error",
        "start the container again if this is one; else see the kernel log for NVRM",
    ),
}


@dataclass(frozen=True, slots=True)
class FabricInfo:
    """A GPU's NVLink fabric as the driver words it; ``status`` holds only when completed."""

    cluster_uuid: bytes
    status: int
    clique: int
    state: int


@dataclass(frozen=True, slots=True)
class PlatformInfo:
    """Where a GPU's tray stands in its chassis."""

    chassis_serial: str | Missing
    tray: int


class _FabricStruct(ctypes.Structure):
    """``nvmlGpuFabricInfo_v3_t`` of nvml.h; v2 is its head, v1 lacks the version word.

    Our own layout: in 12.535 and 12.550 the binding has 80 bytes of UUID where nvml.h has 16, so
    that state and status read as 0 without any error.
    """

    _fields_: ClassVar = [
        ("version", ctypes.c_uint32),
        ("cluster_uuid", ctypes.c_uint8 * 16),
        ("status", ctypes.c_uint32),
        ("clique", ctypes.c_uint32),
        ("state", ctypes.c_uint8),
        ("health_mask", ctypes.c_uint32),
        ("health_summary", ctypes.c_uint8),
    ]


class _PlatformStruct(ctypes.Structure):
    """``nvmlPlatformInfo_v2_t`` of nvml.h.

    Our own layout: the binding's fields are text, which ends at a zero byte and fails above 127.
    """

    _fields_: ClassVar = [
        ("version", ctypes.c_uint32),
        ("ib_guid", ctypes.c_uint8 * 16),
        ("chassis_serial", ctypes.c_uint8 * 16),
        ("slot", ctypes.c_uint8),
        ("tray", ctypes.c_uint8),
        ("host", ctypes.c_uint8),
        ("peer_type", ctypes.c_uint8),
        ("module", ctypes.c_uint8),
    ]


@contextmanager
def session() -> Iterator[None]:
    """NVML between init and shutdown.

    Raises:
        NothingCollectedError: no library, no driver, or one that refuses to start.
    """
    started = asked("nvmlInit", read=lambda _: True)
    if isinstance(started, Missing):
        raise _refused(started)
    try:
        yield
    finally:
        asked("nvmlShutdown", read=lambda _: True)


def device_handles() -> tuple[Handle | Missing, ...]:
    """A handle for each GPU the driver lists; a lost or forbidden one is Missing, the rest stay.

    Raises:
        NothingCollectedError: the driver does not even tell how many there are.
    """
    count = number("nvmlDeviceGetCount")
    if isinstance(count, Missing):
        raise _refused(count)
    return tuple(asked("nvmlDeviceGetHandleByIndex", i, read=Handle) for i in range(count))


def _refused(missing: Missing) -> NothingCollectedError:
    unknown = (f"the driver does not answer ({missing.detail})", "see the kernel log for NVRM")
    if missing.code is None:
        unknown = (
            "the module pynvml is not that of nvidia-ml-py",
            "pip uninstall pynvml and install nvidia-ml-py",
        )
    problem, remedy = _AT_START.get(missing.code or 0, unknown)
    return NothingCollectedError(problem, where="NVML", remedy=remedy)


def asked(name: str, *arguments: object, read: Callable[[Any], T | Missing]) -> T | Missing:
    """What ``read`` makes of a call's result, or why there is none.

    Every exception of the binding ends here. An argument that is missing itself (the handle of a
    lost GPU) is the answer.
    """
    for argument in arguments:
        if isinstance(argument, Missing):
            return argument
    function = getattr(pynvml, name, None)
    if function is None:
        return Missing(AbsenceReason.FUNCTION_MISSING, f"{name}: not in this nvidia-ml-py")
    try:
        return read(function(*arguments))
    except pynvml.NVMLError as error:
        return _missing_from_code(name, error.value)
    except UnicodeDecodeError as error:
        return Missing(AbsenceReason.UNDECODABLE, f"{name}: bytes {error.object.hex()}")
    except getattr(pynvml, "NVMLLibraryMismatchError", ()):
        return _missing_from_code(name, 13)


def _missing_from_code(name: str, code: int) -> Missing:
    unknown = (AbsenceReason.UNDECODABLE, "unexpected return")
    reason, words = _REASONS.get(code, unknown)
    return Missing(reason, f"{name}: {words} ({code})", code)


def text(name: str, *arguments: object) -> str | Missing:
    """A call that answers with text; text that says nothing is an absence."""
    answer = asked(name, *arguments, read=lambda value: str(value).strip())
    if answer in _UNSAID:
        return Missing(AbsenceReason.UNSUPPORTED, f"{name}: printed {answer!r}")
    return answer


def number(name: str, *arguments: object) -> int | Missing:
    """A call that answers with a whole number."""
    return asked(name, *arguments, read=int)


def bus_id(name: str, *arguments: object) -> str | Missing:
    """PCI address of a device or of a link's far end, as the driver writes it; may be empty."""
    return asked(name, *arguments, read=lambda pci: str(pci.busId))


def memory_bytes(handle: Handle | Missing) -> int | Missing:
    """Total memory of a GPU. [B]"""
    name = "nvmlDeviceGetMemoryInfo"
    return first_answer(
        (
            lambda: asked(name, handle, _MEMORY_V2, read=lambda memory: int(memory.total)),
            lambda: asked(name, handle, read=lambda memory: int(memory.total)),
        )
    )


def compute_capability(handle: Handle | Missing) -> str | Missing:
    """Such as ``9.0``."""
    name = "nvmlDeviceGetCudaComputeCapability"
    return asked(name, handle, read=lambda pair: f"{pair[0]}.{pair[1]}")


def module_id(handle: Handle | Missing) -> int | Missing:
    """Place of a GPU on its baseboard; GPUs on cards have 0, which is none."""
    name, module = "nvmlDeviceGetModuleId", ctypes.c_uint()

    # Passed by reference the binding does not check the code; passed by value old ones crash, and
    # left out new ones share one object among all callers.
    def checked(code: int) -> int | Missing:
        return _missing_from_code(name, code) if code else module.value

    return above_zero(asked(name, handle, ctypes.byref(module), read=checked))


def affinity(name: str, *arguments: object) -> tuple[int, ...] | Missing:
    """Numbers of the bits set in a driver's bit mask of 64-bit words."""

    def bits(words: Sequence[int]) -> tuple[int, ...]:
        return tuple(
            i * _WORD_BITS + bit
            for i, word in enumerate(words)
            for bit in range(_WORD_BITS)
            if word >> bit & 1
        )

    return asked(name, *arguments, read=bits)


def running_pids(handle: Handle | Missing) -> tuple[int, ...] | Missing:
    """Processes that compute on a GPU."""

    def pids(processes: Sequence[Any]) -> tuple[int, ...]:
        return tuple(int(process.pid) for process in processes)

    name = "nvmlDeviceGetComputeRunningProcesses"
    return first_answer(
        (lambda: asked(name, handle, read=pids), lambda: asked(f"{name}_v2", handle, read=pids))
    )


def field_values(
    handle: Handle | Missing, fields: Sequence[Field]
) -> Mapping[Field, int | Missing]:
    """Many driver fields in one call; each has its own return code."""
    values = asked(
        "nvmlDeviceGetFieldValues",
        handle,
        list(fields),
        read=lambda answered: tuple(_field_value(value) for value in answered),
    )
    if isinstance(values, Missing):
        return dict.fromkeys(fields, values)
    return dict(zip(fields, values, strict=True))


def _field_value(value: Any) -> int | Missing:
    name = f"field {value.fieldId}"
    if value.nvmlReturn:
        return _missing_from_code(name, value.nvmlReturn)
    member = _UNION[value.valueType] if value.valueType < len(_UNION) else ""
    found = getattr(value.value, member, math.nan)
    if not math.isfinite(found):
        return Missing(AbsenceReason.UNDECODABLE, f"{name}: value type {value.valueType}")
    return int(found)


def fabric_info(handle: Handle | Missing) -> FabricInfo | Missing:
    """A GPU's place in an NVLink fabric, by the newest struct the driver takes."""

    def form(version: int) -> FabricInfo | Missing:
        info = _FabricStruct(version=version)
        name = "nvmlDeviceGetGpuFabricInfoV" if version else "nvmlDeviceGetGpuFabricInfo"
        start = 0 if version else _FabricStruct.cluster_uuid.offset
        return asked(name, handle, ctypes.byref(info, start), read=lambda _: _fabric(info))

    return first_answer((lambda: form(0x03000028), lambda: form(0x02000024), lambda: form(0)))


def _fabric(info: _FabricStruct) -> FabricInfo:
    return FabricInfo(bytes(info.cluster_uuid), info.status, info.clique, info.state)


def platform_info(handle: Handle | Missing) -> PlatformInfo | Missing:
    """Chassis and tray of a GPU; without a chassis serial the rest says nothing either."""
    name, info = "nvmlDeviceGetPlatformInfo", _PlatformStruct(version=0x0200002C)

    def read(_: object) -> PlatformInfo | Missing:
        raw = bytes(info.chassis_serial).rstrip(b"\0")
        if not raw:
            return Missing(AbsenceReason.UNSUPPORTED, f"{name}: no chassis serial")
        return PlatformInfo(_printable(raw), info.tray)

    return asked(name, handle, ctypes.byref(info), read=read)


def _printable(raw: bytes) -> str | Missing:
    words = raw.decode("ascii", errors="replace").strip()
    if words and words.isascii() and words.isprintable():
        return words
    return Missing(AbsenceReason.UNDECODABLE, f"bytes {raw.hex()}")

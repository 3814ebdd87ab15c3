"""NVML's binding: each call gives an answer as plain JSON, and no exception gets past here.

The only module that imports pynvml, when it is first asked. An answer is ``{"value": ...}``, or one
of ``{"code": NVML's return code}``, ``{"lacks": "binding" or "driver"}``, ``{"hex": bytes of a text
that does not decode}`` and ``{"odd": what came instead}``.
"""

import ctypes
import math
import struct
from functools import lru_cache
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from fleet.probe.keys import Field

Answer = Dict[str, Any]

FUNCTION_NOT_FOUND = 13
VERSION_MISMATCH = 25
DEPRECATED = 26
FABRIC_VERSIONS = (0x03000028, 0x02000024)
PLATFORM_VERSION = 0x0200002C
MEMORY_V2 = 0x02000028

_PLATFORM_BYTES = 44
_FABRIC_BYTES = 40
_FIELD = struct.Struct("@II16xII8s")
"""nvmlFieldValue_t: number, scope, (time, latency,) value type, return code, value."""

_UNION = tuple(struct.Struct("@" + kind).unpack_from for kind in "dILQqiH")


def value(result: Any) -> Answer:
    """An answer that is there."""
    return {"value": result}


def is_step_down(answer: Answer) -> bool:
    """Whether an older form of the same question is worth asking."""
    return "lacks" in answer or answer.get("code") in (VERSION_MISMATCH, DEPRECATED)


def library_is_loadable() -> bool:
    """Whether the driver's library is on this machine; no call is made."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def _pynvml() -> Any:
    try:
        import pynvml
    except (ImportError, SyntaxError):  # none here, or one that is too new for this Python
        return None
    return pynvml


def call(name: str, *arguments: Any, **how: Any) -> Answer:
    """What ``read`` (a keyword; the result itself) makes of one call, or why there is nothing."""
    read: Callable[[Any], Any] = how.get("read", _same)
    pynvml = _pynvml()
    function = getattr(pynvml, name, None)
    if function is None or not hasattr(pynvml, "NVMLError"):
        return {"lacks": "binding"}
    try:
        return value(read(function(*arguments)))
    except pynvml.NVMLError as error:
        return _refusal(int(error.value))
    except UnicodeDecodeError as error:
        return {"hex": bytes(error.object).hex()}
    except getattr(pynvml, "NVMLLibraryMismatchError", ()):
        return {"lacks": "driver"}  # outside the hierarchy of NVMLError
    except _RefusedError as refused:
        return _refusal(refused.code)
    except (AttributeError, TypeError, ValueError) as error:
        return {"odd": f"{type(error).__name__}: {error}"}


class _RefusedError(Exception):
    """A return code that the binding itself did not check."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _refusal(code: int) -> Answer:
    return {"lacks": "driver"} if code == FUNCTION_NOT_FOUND else {"code": code}


def _same(result: Any) -> Any:
    return result


def text(result: Any) -> str:
    """Text as the driver gives it; bindings before 11.515 give bytes."""
    return result.decode() if isinstance(result, bytes) else str(result)


def bus_id(pci: Any) -> str:
    """PCI address of a device as the driver writes it; may be empty."""
    return text(pci.busId)


def memory(info: Any) -> Dict[str, int]:
    """Bytes of a GPU's memory; the first form of the struct has no ``reserved``."""
    names = ("total", "free", "used", "reserved")
    return {name: int(getattr(info, name)) for name in names if hasattr(info, name)}


def numbers(result: Sequence[Any]) -> List[int]:
    """A row of numbers."""
    return [int(number) for number in result]


def utilization(rates: Any) -> List[int]:
    """Percent of the last sample in which kernels ran, and in which memory was used."""
    return [int(rates.gpu), int(rates.memory)]


def processes(found: Sequence[Any]) -> List[List[Optional[int]]]:
    """Process number and bytes, None where the driver does not tell them."""
    return [[int(p.pid), None if p.usedGpuMemory is None else int(p.usedGpuMemory)] for p in found]


def samples(found: Sequence[Any]) -> List[List[int]]:
    """Process number and percent of each sample in the driver's buffer."""
    return [[int(sample.pid), int(sample.smUtil)] for sample in found]


def excluded(info: Any) -> Dict[str, str]:
    """PCI address and UUID of a GPU that the driver was told to leave alone."""
    return {"bus_id": text(info.pci.busId), "uuid": text(info.uuid)}


def module_id(handle: Any) -> Answer:
    """Place of a GPU on its baseboard.

    Passed by reference the binding does not check the code; passed by value old ones crash; left
    out new ones share one object among all callers.
    """
    module = ctypes.c_uint()

    def checked(code: int) -> int:
        if code:
            raise _RefusedError(code)
        return int(module.value)

    return call("nvmlDeviceGetModuleId", handle, ctypes.byref(module), read=checked)


def fabric_info(handle: Any) -> Answer:
    """A GPU's place in an NVLink fabric: struct version and the bytes after its version word.

    Raw, because 12.535 and 12.550 of the binding have 80 bytes of UUID where nvml.h has 16, so that
    state and status read as 0 without any error. The oldest form has no version: 0.
    """
    for version in FABRIC_VERSIONS:
        answer = _struct("nvmlDeviceGetGpuFabricInfoV", handle, version, version & 0xFFFF)
        if not is_step_down(answer):
            return answer
    first = (ctypes.c_uint8 * _FABRIC_BYTES)()
    oldest = call(
        "nvmlDeviceGetGpuFabricInfo",
        handle,
        ctypes.byref(first),
        read=lambda _: {"version": 0, "hex": bytes(first)[:28].hex()},
    )
    return answer if "lacks" in oldest else oldest


def platform_info(handle: Any) -> Answer:
    """Where a GPU's tray stands: raw, because the binding's texts end at a zero byte."""
    return _struct("nvmlDeviceGetPlatformInfo", handle, PLATFORM_VERSION, _PLATFORM_BYTES)


def _struct(name: str, handle: Any, version: int, size: int) -> Answer:
    raw = (ctypes.c_uint8 * max(size, 64))()
    ctypes.memmove(raw, version.to_bytes(4, "little"), 4)
    return call(
        name,
        handle,
        ctypes.byref(raw),
        read=lambda _: {"version": version, "hex": bytes(raw)[4:size].hex()},
    )


def field_values(handle: Any, fields: Sequence[Field]) -> Dict[Field, Answer]:
    """Many driver fields (number, scope) in one call; each has its own return code.

    In bytes, past the binding's own call: its structs take ten times as long as the driver.
    """
    raw = ctypes.create_string_buffer(_packed(tuple(fields)), _FIELD.size * len(fields))
    count = ctypes.c_int32(len(fields))

    def asked(function: Callable[..., int]) -> List[Answer]:
        code = function(handle, count, ctypes.byref(raw))
        if code:
            raise _RefusedError(code)
        return [_field_answer(*field[2:]) for field in _FIELD.iter_unpack(raw.raw)]

    answer = call("_nvmlGetFunctionPointer", "nvmlDeviceGetFieldValues", read=asked)
    if "value" not in answer:
        return dict.fromkeys(fields, answer)
    return dict(zip(fields, answer["value"]))


@lru_cache(maxsize=64)
def _packed(fields: Tuple[Field, ...]) -> bytes:
    return b"".join(_FIELD.pack(number, scope, 0, 0, b"") for number, scope in fields)


def _field_answer(kind: int, code: int, union: bytes) -> Answer:
    if code:
        return _refusal(code)
    found = _UNION[kind](union)[0] if kind < len(_UNION) else math.nan
    if not math.isfinite(found):
        return {"odd": f"value type {kind}"}
    return {"value": int(found)}

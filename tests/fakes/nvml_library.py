"""A fake of the NVML library in Python, below the real binding.

It answers as the C library does: through pointers, by address, with a return code. A symbol it
lacks is an AttributeError, which the binding tells as "function not found".
"""

import ctypes
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pynvml

from tests.fakes.nvml_machine import FakeProfile
from tests.fakes.nvml_symbols import (
    FORMS,
    INSUFFICIENT_SIZE,
    NOT_FOUND,
    NOT_SUPPORTED,
    SUCCESS,
    UNINITIALIZED,
    VERSION_MISMATCH,
    Form,
    Kind,
    Of,
)
from tests.fakes.nvml_table import Answer, Word, table_of

SIZE_OF_VERSION = 0xFFFFFF
PROCESS = "@IQII"
SAMPLE = "@IQIIII"
FIELD = "@IIqqII8s"
FIELD_VALUES = {1: "@I4x", 3: "@Q"}


@contextmanager
def installed(profile: FakeProfile) -> Iterator["FakeLib"]:
    """The fake in place of the library; the binding is left as it was found."""
    lib, count = pynvml.nvmlLib, pynvml._nvmlLib_refcount
    cache = pynvml._nvmlGetFunctionPointer_cache
    known = dict(cache)
    cache.clear()
    pynvml.nvmlLib = fake = FakeLib(profile)
    try:
        yield fake
    finally:
        pynvml.nvmlLib, pynvml._nvmlLib_refcount = lib, count
        cache.clear()
        cache.update(known)


class FakeLib:
    """What ``ctypes.CDLL`` gives for the library; ``calls`` are the symbols called, in order."""

    def __init__(self, profile: FakeProfile) -> None:
        self.profile = profile
        self.table = table_of(profile)
        self.calls: list[str] = []
        self.threads: set[int] = set()
        self.running = 0
        self.counts: dict[str, int] = {}
        self.handles: dict[str, ctypes.c_uint] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        form = FORMS.get(name)
        if form is None or name in self.profile.lacks:
            raise AttributeError(name)

        # A function of its own for each symbol: the binding sets ``restype`` on some.
        def symbol(*arguments: Any) -> Any:
            self.calls.append(name)
            self.threads.add(threading.get_ident())
            return _CALLS[form.kind](self, name, form, list(arguments))

        return symbol

    def handle_of(self, device: str) -> int:
        """Address that stands for a device."""
        return ctypes.addressof(self.handles.setdefault(device, ctypes.c_uint()))

    def device_at(self, handle: Any) -> str:
        """The device whose handle this is."""
        address = _address(handle)
        return next(d for d, own in self.handles.items() if ctypes.addressof(own) == address)

    def refusal(self, device: str, name: str) -> int:
        """The code of a fault that keeps a device from answering; may be late or never return."""
        self.counts[device] = self.counts.get(device, 0) + 1
        if self.has_fault(device):
            delay = self.table.get(f"{device} delay {name}", (0, (0,)))[1][0]
            if delay:
                time.sleep(int(delay) / 1e6)
            while f"{device} hang {name}" in self.table:
                time.sleep(3600)
            return int(self.answer(f"{device} code", name, (SUCCESS, (SUCCESS,)))[1][0])
        return SUCCESS

    def has_fault(self, device: str) -> bool:
        """Whether the calls that are answered before the first fault are over."""
        after = self.table.get(f"{device} after", (0, (0,)))[1][0]
        return self.counts[device] > int(after)

    def answer(
        self, start: str, last: int | str | None = None, missing: Answer = (NOT_SUPPORTED, ())
    ) -> Answer:
        """Answer under a key, or under the one with ``*`` as its last word."""
        if last is None:
            return self.table.get(start, missing)
        other = self.table.get(f"{start} *", missing)
        return self.table.get(f"{start} {last}", other)


def _address(pointer: Any) -> int:
    address = ctypes.cast(pointer, ctypes.c_void_p).value
    assert address, "the library would write to NULL"
    return address


def _plain(argument: Any) -> int:
    return int(getattr(argument, "value", argument)) & 0xFFFFFFFFFFFFFFFF


def _put(pointer: Any, layout: str, words: Sequence[Word]) -> None:
    raw = struct.pack(f"@{layout}", *words)
    ctypes.memmove(_address(pointer), raw, len(raw))


def _number_at(pointer: Any) -> int:
    return ctypes.c_uint32.from_address(_address(pointer)).value


def _start(lib: FakeLib, name: str, form: Form, arguments: list[Any]) -> int:
    code = lib.refusal("-", name)
    lib.running += code == SUCCESS
    return code


def _stop(lib: FakeLib, name: str, form: Form, arguments: list[Any]) -> int:
    refused = _asked(lib, name, form, arguments)[1]
    lib.running -= refused == SUCCESS
    return refused


def _words(lib: FakeLib, name: str, form: Form, arguments: list[Any]) -> bytes:
    return b"code %d" % _plain(arguments[0])


def _asked(lib: FakeLib, name: str, form: Form, arguments: list[Any]) -> tuple[str, int]:
    """The device that is asked, taken from the arguments, and why it does not answer."""
    if lib.running == 0:
        return "", UNINITIALIZED
    if form.of is Of.SYSTEM:
        return "-", lib.refusal("-", name)
    devices = [lib.device_at(arguments.pop(0)) for _ in range(2 if form.of is Of.PAIR else 1)]
    codes = [lib.refusal(device, name) for device in devices]
    return "+".join(sorted(devices, key=float)), next(filter(None, codes), SUCCESS)


def _answer(
    lib: FakeLib, name: str, form: Form, arguments: list[Any]
) -> tuple[int, tuple[Word, ...]]:
    device, refused = _asked(lib, name, form, arguments)
    if refused:
        return refused, ()
    key = f"{device} {name}"
    picks = [_plain(arguments.pop(0)) & 0xFFFFFFFF for _ in range(form.picks)]
    start = " ".join([key, *(str(pick) for pick in picks[:-1])])
    return lib.answer(start, picks[-1] if picks else None)


def _handle(lib: FakeLib, name: str, form: Form, arguments: list[Any]) -> int:
    code, words = _answer(lib, name, form, arguments)
    if code:
        return code
    assert isinstance(words[0], bytes)
    device = words[0].decode()
    if form.of is Of.SYSTEM and (refused := lib.refusal(device, name)):
        return refused
    ctypes.c_void_p.from_address(_address(arguments[0])).value = lib.handle_of(device)
    return SUCCESS


def _values(lib: FakeLib, name: str, form: Form, arguments: list[Any]) -> int:
    code, words = _answer(lib, name, form, arguments)
    if code:
        return code
    for pointer, layout in zip(arguments, form.outs, strict=True):
        count = len(struct.unpack(f"@{layout}", bytes(struct.calcsize(f"@{layout}"))))
        _put(pointer, layout, words[:count])
        words = words[count:]
    return SUCCESS


def _text(lib: FakeLib, name: str, form: Form, arguments: list[Any]) -> int:
    device, refused = _asked(lib, name, form, arguments)
    code, words = lib.answer(f"{device} {name}")
    if refused or code:
        return refused or code
    bad = f"{device} undecodable {name}"
    if bad in lib.table and lib.has_fault(device):
        words = lib.table[bad][1]
    buffer, length = arguments
    assert isinstance(words[0], bytes)
    if len(words[0]) + 1 > _plain(length):
        return INSUFFICIENT_SIZE
    ctypes.memmove(_address(buffer), words[0] + b"\0", len(words[0]) + 1)
    return SUCCESS


def _bits(lib: FakeLib, name: str, form: Form, arguments: list[Any]) -> int:
    code, words = _answer(lib, name, form, arguments)
    if code:
        return code
    room = _plain(arguments[0])
    if len(words) > room:
        return INSUFFICIENT_SIZE
    _put(arguments[1], f"{room}Q", [*words, *[0] * (room - len(words))])
    return SUCCESS


def _rows(words: Sequence[Word], layout: str, room_at: Any, rows_at: Any) -> int:
    """Puts as many structs as there are, or only their count where the room is too small."""
    width = len(struct.unpack(layout, bytes(struct.calcsize(layout))))
    count, room = len(words) // width, _number_at(room_at)
    _put(room_at, "I", [count])
    if count > room:
        return INSUFFICIENT_SIZE
    size = struct.calcsize(f"{layout}0Q")
    for i in range(count):
        row = struct.pack(layout, *words[i * width : (i + 1) * width]).ljust(size, b"\0")
        ctypes.memmove(_address(rows_at) + i * size, row, size)
    return SUCCESS


def _processes(lib: FakeLib, name: str, form: Form, arguments: list[Any]) -> int:
    code, words = _answer(lib, name, form, arguments)
    return code or _rows(words, PROCESS, *arguments)


def _samples(lib: FakeLib, name: str, form: Form, arguments: list[Any]) -> int:
    code, words = _answer(lib, name, form, arguments)
    if code:
        return code
    rows_at, room_at, since_us = arguments
    rows = [words[i : i + 6] for i in range(0, len(words), 6)]
    newer = [word for row in rows if int(row[1]) > _plain(since_us) for word in row]
    return _rows(newer, SAMPLE, room_at, rows_at) if newer else NOT_FOUND


def _fields(lib: FakeLib, name: str, form: Form, arguments: list[Any]) -> int:
    device, refused = _asked(lib, name, form, arguments)
    if refused:
        return refused
    count, at = _plain(arguments[0]), _address(arguments[1])
    size = struct.calcsize(FIELD)
    for i in range(count):
        place = at + i * size
        number, scope = struct.unpack_from("@II", ctypes.string_at(place, size))
        code, words = lib.answer(f"{device} field {number}", scope)
        kind, value = (int(word) for word in words) if words else (0, 0)
        raw = struct.pack(FIELD_VALUES.get(kind, "@Q"), value)
        ctypes.memmove(place, struct.pack(FIELD, number, scope, 0, 0, kind, code, raw), size)
    return SUCCESS


def _versioned(lib: FakeLib, name: str, form: Form, arguments: list[Any]) -> int:
    device, refused = _asked(lib, name, form, arguments)
    version = _number_at(arguments[0])
    if refused:
        return refused
    if version not in lib.table[f"- versions {name}"][1]:
        return VERSION_MISMATCH
    code, words = lib.answer(f"{device} {name}")
    if code:
        return code
    # The newest struct's head is every older one.
    size = version & SIZE_OF_VERSION
    raw = struct.pack(f"@{form.outs[0]}", version, *words).ljust(size, b"\0")
    ctypes.memmove(_address(arguments[0]), raw, size)
    return SUCCESS


_CALLS: dict[Kind, Callable[[FakeLib, str, Form, list[Any]], Any]] = {
    Kind.START: _start,
    Kind.STOP: _stop,
    Kind.WORDS: _words,
    Kind.HANDLE: _handle,
    Kind.VALUES: _values,
    Kind.TEXT: _text,
    Kind.BITS: _bits,
    Kind.PROCESSES: _processes,
    Kind.SAMPLES: _samples,
    Kind.FIELDS: _fields,
    Kind.VERSIONED: _versioned,
}

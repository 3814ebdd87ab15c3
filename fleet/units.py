"""Units: text to seconds and bytes and back. Inside there are only seconds and bytes."""

import math
import re
from typing import Final

from fleet.errors import ExpectedError

BYTE_UNITS: Final = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
SECOND_EXPONENTS: Final = {"ns": -9, "us": -6, "µs": -6, "ms": -3, "s": 0}
LONG_UNITS_S: Final = {"min": 60.0, "h": 3600.0, "d": 86400.0}
BITS_PER_BYTE: Final = 8

_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-zµ]*)\s*")


class UnitError(ExpectedError):
    """Text that is not a number with a known unit."""


def bytes_from_text(text: str) -> int:
    """Size in bytes from text such as ``1MiB``, ``64 KiB``, ``1GB`` or ``512``. [B]

    ``kB``, ``MB``, ``GB`` are powers of 1000 and ``KiB``, ``MiB``, ``GiB`` powers of 1024; a bare
    ``M`` is refused, because nccl-tests and disk makers disagree on it.

    Raises:
        UnitError: not a number, an unknown unit, or not a whole count of bytes.

    >>> bytes_from_text("1MiB"), bytes_from_text("64 KB"), bytes_from_text("8")
    (1048576, 64000, 8)
    """
    number, unit = _split(text, "a size such as 512, 64KiB, 1MiB or 1GB")
    if unit and unit not in BYTE_UNITS:
        raise UnitError(
            f"{text!r} has the unit {unit!r}", remedy=f"use one of {', '.join(BYTE_UNITS)}"
        )
    size_bytes = number * BYTE_UNITS[unit or "B"]
    # 2.01 kB is 2010 bytes, but 2.01 in binary times 1000 is not: an ulp off is whole.
    if not math.isclose(size_bytes, round(size_bytes), rel_tol=4e-16):
        raise UnitError(f"{text!r} is not a whole number of bytes", remedy="round it")
    return round(size_bytes)


def seconds_from_text(text: str) -> float:
    """Duration in seconds from text such as ``30us``, ``1.5 ms`` or ``10min``. [s]

    Raises:
        UnitError: not a number, or a missing or unknown unit.

    >>> seconds_from_text("30us"), seconds_from_text("10min")
    (3e-05, 600.0)
    """
    number, unit = _split(text, "a duration such as 30us or 1.5ms")
    if unit in LONG_UNITS_S:
        return number * LONG_UNITS_S[unit]
    if unit not in SECOND_EXPONENTS:
        known = ", ".join((*SECOND_EXPONENTS, *LONG_UNITS_S))
        raise UnitError(f"{text!r} has no known unit", remedy=f"use one of {known}")
    return number / 10.0 ** -SECOND_EXPONENTS[unit]


def _split(text: str, wanted: str) -> tuple[float, str]:
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None:
        raise UnitError(f"{text!r} is not {wanted}", remedy=f"write {wanted}")
    number = float(match[1])
    if not math.isfinite(number * max(BYTE_UNITS.values())):
        raise UnitError(f"{text!r} is larger than anything", remedy=f"write {wanted}")
    return number, match[2]


def text_from_bytes(size_bytes: float) -> str:
    """A size in the largest binary unit below it, with one decimal at most.

    >>> [text_from_bytes(n) for n in (8, 1024, 1536, 2**20, 10**9)]
    ['8 B', '1 KiB', '1.5 KiB', '1 MiB', '953.7 MiB']
    """
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        scaled = size_bytes / BYTE_UNITS[unit]
        if scaled >= 1:
            return f"{_trim(scaled)} {unit}"
    return f"{_trim(size_bytes)} B"


def text_from_seconds(duration_s: float) -> str:
    """A duration with four significant figures in the unit that fits.

    >>> [text_from_seconds(t) for t in (0.0, 762e-9, 2.286e-6, 0.0123, 3.0)]
    ['0 s', '762 ns', '2.286 us', '12.3 ms', '3 s']
    """
    if duration_s == 0:
        return "0 s"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(duration_s) >= scale * 0.99995:
            return f"{duration_s / scale:.4g} {unit}"
    return f"{duration_s * 1e9:.4g} ns"


def text_from_rate(bytes_per_s: float) -> str:
    """A bandwidth in GB/s (decimal, as vendors print it).

    >>> text_from_rate(450e9), text_from_rate(0.125e9)
    ('450 GB/s', '0.125 GB/s')
    """
    return f"{bytes_per_s / 1e9:.4g} GB/s"


def bytes_per_s_from_mbit(mbit_per_s: float) -> float:
    """Bytes per second from megabits per second, NCCL's unit of NIC speed. [B/s]

    >>> bytes_per_s_from_mbit(400000)
    50000000000.0
    """
    return mbit_per_s * 1e6 / BITS_PER_BYTE


def bytes_per_s_from_gbit(gbit_per_s: float) -> float:
    """Bytes per second from gigabits per second, the unit of port rates. [B/s]

    >>> bytes_per_s_from_gbit(400)
    50000000000.0
    """
    return gbit_per_s * 1e9 / BITS_PER_BYTE


def _trim(number: float) -> str:
    return f"{number:.1f}".rstrip("0").rstrip(".")

"""What readers of measured tails share: a file's tails, the names of collectives, checked times."""

import math
import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from topology.measured.nccl_tests import SkippedText
from topology.measured.tail import MeasuredTail
from topology.words import Collective

_US: Final = 1e-6
MOST_US: Final = 1e9
"""A time above this is no operation but a slip. [us]"""

MOST_DIGITS: Final = 15
"""Of a count; a longer number is no count of anything."""

_NAMES: Final = {
    "allreduce": Collective.ALL_REDUCE,
    "allgather": Collective.ALL_GATHER,
    "reducescatter": Collective.REDUCE_SCATTER,
    "alltoall": Collective.ALLTOALL,
    "broadcast": Collective.BROADCAST,
    "bcast": Collective.BROADCAST,
    "reduce": Collective.REDUCE,
    "sendrecv": Collective.SENDRECV,
}
SHARED_OUT: Final = (Collective.ALL_GATHER, Collective.REDUCE_SCATTER, Collective.ALLTOALL)
"""Collectives whose size other programs count as one rank's share of the whole buffer."""


@dataclass(frozen=True, slots=True)
class TailFile:
    """The tails of a file in its order, and what of it was left out."""

    format: str
    tails: tuple[MeasuredTail, ...]
    skipped: tuple[SkippedText, ...]


class Told(NamedTuple):
    """What a caller knows that a file may not tell: how many ranks, and which collective."""

    ranks: int | None = None
    collective: Collective | None = None


def collective_named(name: str) -> Collective | None:
    """The collective of a name in any spelling, None where it is another thing.

    >>> collective_named("AllReduce"), collective_named("Reduce_scatter"), collective_named("Scan")
    (<Collective.ALL_REDUCE: 'all_reduce'>, <Collective.REDUCE_SCATTER: 'reduce_scatter'>, None)
    """
    return _NAMES.get(re.sub(r"[^a-z]", "", name.lower()))


def count_from_text(text: str | None) -> int | None:
    """A whole number above 0 of at most 15 digits, None for anything else.

    >>> count_from_text("12"), count_from_text("0"), count_from_text("\u00b2")
    (12, None, None)
    """
    if text is None or not text.isdecimal() or len(text) > MOST_DIGITS:
        return None
    return int(text) or None


def whole_buffer_bytes(collective: Collective | None, share: int, ranks: int | None) -> int | None:
    """One rank's whole buffer from what a program calls its size; None where ranks are missing.

    All-gather, reduce-scatter and all-to-all: ranks times the share; others: the same.
    """
    if collective not in SHARED_OUT:
        return share
    return None if ranks is None else share * ranks


def seconds_from_us(value: object) -> float | None:
    """A time in microseconds, None where it is no number above 0 or a slip of the unit. [s]"""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number * _US if math.isfinite(number) and 0 < number <= MOST_US else None

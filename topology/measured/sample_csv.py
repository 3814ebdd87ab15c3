"""CSV of single times: a column of latencies in a named unit, with what was measured beside it."""

import re
from typing import Final

import numpy as np

from topology.errors import MeasurementError
from topology.measured.sample_columns import FloatArray, head_cells, parse_samples
from topology.measured.tail import MeasuredTail
from topology.measured.tail_file import TailFile, collective_named, count_from_text

FORMAT: Final = "CSV of samples"
_NUMBER: Final = re.compile(r"(?:latency|time|duration)_(ns|us|ms|s)")
_UNITS_S: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
_BESIDE: Final = ("collective", "size_bytes", "ranks", "nodes", "link_class")


def is_sample_csv(content: bytes) -> bool:
    """Whether its head names a column of times."""
    return any(map(_NUMBER.fullmatch, head_cells(content[:10_000])))


def parse_sample_csv(content: bytes, *, where: str) -> TailFile:
    """A tail for each combination of collective, size, ranks, nodes and link class.

    Raises:
        MeasurementError: a row that is cut or holds no time, told with its line; two columns of
            times; a size or a number of ranks that is none.
    """
    head = head_cells(content)
    numbers = [name for name in head if _NUMBER.fullmatch(name)]
    if len(numbers) > 1 or len(set(head)) < len(head):
        remedy = "keep one, in ns, us, ms or s"
        raise MeasurementError(
            f"columns {', '.join(head[:8])}: several of times, or one twice",
            where=where,
            field="line 1",
            remedy=remedy,
        )
    beside = tuple(name for name in _BESIDE if name in head)
    unit = numbers[0].rpartition("_")[2]
    table = parse_samples(
        content, number=numbers[0], unit_s=_UNITS_S[unit], labels=beside, where=where
    )
    groups = table.groups(beside) if beside else {(): table.samples_s}
    tails = [
        _tail(dict(zip(beside, words, strict=True)), samples_s, where)
        for words, samples_s in groups.items()
        if len(samples_s)
    ]
    return TailFile(FORMAT, tuple(tails), ())


def _tail(words: dict[str, str], samples_s: FloatArray, where: str) -> MeasuredTail:
    ordered = np.sort(samples_s)
    ordered.setflags(write=False)
    name = words.get("collective", "")
    return MeasuredTail(
        what=name or words.get("link_class", "") or "samples",
        where=where,
        line=2,
        format=FORMAT,
        collective=collective_named(name),
        size_bytes=_count(words, "size_bytes", where),
        ranks=_count(words, "ranks", where),
        nodes=_count(words, "nodes", where),
        count=len(ordered),
        mean_s=float(ordered.mean()),
        samples_s=ordered,
    )


def _count(words: dict[str, str], column: str, where: str) -> int | None:
    """A whole number above 0 of a column, None where the cell is empty or there is none."""
    text = words.get(column, "")
    if not text:
        return None
    count = count_from_text(text)
    if count is None:
        raise MeasurementError(
            f"{text!r} is not a whole number above 0",
            where=where,
            field=column,
            remedy="correct it, or leave it empty where it is not known",
        )
    return count

"""CSV of published percentiles: a row for each figure, with its unit, machine and sample count.

The form of ``latency_figures.csv`` of published measurements: columns ``what``, ``value``,
``unit``, ``stat`` (p50, p99.9, mean, sample ...), ``size_bytes``, ``nodes``, ``n_samples``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np

from topology.measured.csv_rows import csv_rows
from topology.measured.nccl_tests import SkippedText
from topology.measured.sample_columns import head_cells
from topology.measured.tail import QUANTILES, MeasuredTail, text_of_percentile
from topology.measured.tail_file import TailFile, count_from_text, seconds_from_us

FORMAT: Final = "CSV of percentiles"
_NEEDED: Final = frozenset({"what", "value", "unit", "stat"})
_ABOUT: Final = (
    "category", "what", "hardware", "size_bytes", "nodes", "n_samples", "source_url", "notes"
)  # fmt: skip
_PER_US: Final = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}
_NAME_OF: Final = {text_of_percentile(name): name for name in QUANTILES}
_STATS: Final = frozenset({*_NAME_OF, "mean", "max", "sample"})


def is_percentile_rows(content: bytes) -> bool:
    """Whether its head has the columns of published figures."""
    return set(head_cells(content[:10_000])) >= _NEEDED


@dataclass(slots=True)
class _Draft:
    """Figures of one measurement while its rows are read. [s]"""

    line: int
    printed_s: dict[str, float] = field(default_factory=dict)
    samples_s: list[float] = field(default_factory=list)
    mean_s: float | None = None
    largest_s: float | None = None

    def take(self, stat: str, value_s: float) -> None:
        if stat in _NAME_OF:
            self.printed_s[_NAME_OF[stat]] = value_s
        elif stat == "mean":
            self.mean_s = value_s
        elif stat == "max":
            self.largest_s = value_s
        elif stat == "sample":
            self.samples_s.append(value_s)


def parse_percentile_rows(content: bytes, *, where: str) -> TailFile:
    """A tail for each measurement: rows that agree in all but figure and kind of figure.

    Figures in units that are no time, ranges and single extremes are passed over.

    Raises:
        MeasurementError: no CSV, such as a quote that is never closed.
    """
    head = head_cells(content)
    drafts: dict[tuple[str, ...], _Draft] = {}
    skipped: list[SkippedText] = []
    for number, cells in islice(csv_rows(content, where=where), 1, None):
        if len(cells) != len(head):
            if cells:
                text = f"{len(cells)} cells in a row, {len(head)} in the head"
                skipped.append(SkippedText(number, text, rows=1))
            continue
        row = dict(zip(head, map(str.strip, cells), strict=True))
        if row["unit"] not in _PER_US or row["stat"] not in _STATS:
            continue
        fault = _take(drafts, row, number)
        if fault is not None:
            skipped.append(SkippedText(number, fault, rows=1))
    tails = [_tail(dict(zip(_ABOUT, key, strict=True)), d, where) for key, d in drafts.items()]
    return TailFile(FORMAT, tuple(tail for tail in tails if _is_told(tail)), tuple(skipped))


def _take(drafts: dict[tuple[str, ...], _Draft], row: dict[str, str], number: int) -> str | None:
    """Add a figure to its measurement; the text says why it is none."""
    value_s = seconds_from_us(row["value"])
    if value_s is None:
        return f"value: {row['value'][:40]!r} is not a number above 0"
    key = tuple(row.get(name, "") for name in _ABOUT)
    drafts.setdefault(key, _Draft(number)).take(row["stat"], value_s * _PER_US[row["unit"]])
    return None


def _is_told(tail: MeasuredTail) -> bool:
    return bool(tail.printed_s or tail.samples_s is not None or tail.mean_s is not None)


def _tail(about: dict[str, str], draft: _Draft, where: str) -> MeasuredTail:
    samples_s = _samples(draft.samples_s)
    count = count_from_text(about["n_samples"])
    return MeasuredTail(
        what=" / ".join(text for text in (about["what"], about["hardware"]) if text),
        where=where,
        line=draft.line,
        format=FORMAT,
        size_bytes=count_from_text(about["size_bytes"]),
        nodes=count_from_text(about["nodes"]),
        count=count if samples_s is None else len(samples_s),
        mean_s=draft.mean_s,
        largest_s=draft.largest_s,
        samples_s=samples_s,
        printed_s=draft.printed_s or None,
        notes=tuple(text for text in (about["source_url"], about["notes"]) if text),
    )


def _samples(values_s: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    if not values_s:
        return None
    ordered = np.sort(np.array(values_s))
    ordered.setflags(write=False)
    return ordered

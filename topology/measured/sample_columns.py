"""Columns of samples in a CSV: ten million rows in seconds, and the line of the first bad one."""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fleet import read_bytes
from fleet.errors import StoreError
from topology.errors import MeasurementError
from topology.measured.csv_rows import csv_rows

FloatArray: TypeAlias = NDArray[np.float64]

LARGEST_TABLE_BYTES: Final = 2**31
LONGEST_LABEL: Final = 32
"""Characters of a word beside a number that are kept."""

MOST_LABELS: Final = 1_000
MOST_S: Final = 1_000.0
"""A latency above this is a slip of the unit. [s]"""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def read_measured(path: str | Path, *, limit: int, remedy: str) -> bytes:
    """Content of a text that was measured; ``-`` is stdin, gzip is unpacked.

    Raises:
        MeasurementError: it cannot be read, is empty, binary or larger than ``limit`` bytes.
    """
    try:
        content = read_bytes(path, limit=limit)
    except StoreError as error:
        is_large = error.problem.startswith("larger")
        told = "give a part of it" if is_large else error.remedy
        raise MeasurementError(error.problem, where=error.where, remedy=told) from None
    if not content[:4096].strip() and not content.strip():
        raise MeasurementError("empty", where=str(path), remedy=remedy)
    if b"\0" in content[:4096]:
        raise MeasurementError("binary, no text", where=str(path), remedy=remedy)
    return content.removeprefix(_BYTE_ORDER_MARK)


def head_cells(content: bytes) -> list[str]:
    """Cells of the first line, without blanks around them; none where that is no CSV."""
    end = content.find(b"\n")
    first = (content if end < 0 else content[:end]).decode("utf-8", errors="replace")
    try:
        return [cell.strip() for cell in next(csv.reader([first.rstrip("\r")]), [])]
    except csv.Error:
        return []


@dataclass(frozen=True, slots=True, eq=False)
class SampleTable:
    """Numbers of one column in the file's order, and the words of others beside them.

    ``samples_s``: shape (rows,). [s] ``labels``: by column, shape (rows,), bytes.
    """

    where: str
    samples_s: FloatArray
    labels: Mapping[str, NDArray[np.bytes_]]

    def groups(self, columns: tuple[str, ...]) -> dict[tuple[str, ...], FloatArray]:
        """Samples by the words of some columns, in the order in which those first stand. [s]

        Raises:
            MeasurementError: more than a thousand combinations.
        """
        words, samples = [self.labels[column] for column in columns], self.samples_s
        found: dict[tuple[str, ...], FloatArray] = {}
        while len(samples):
            same = np.ones(len(samples), dtype=np.bool_)
            for column in words:
                same &= column == column[0]
            key = tuple(column[0].decode("utf-8", errors="replace").strip() for column in words)
            found[key] = samples[same]
            words, samples = [column[~same] for column in words], samples[~same]
            if len(found) > MOST_LABELS:
                raise MeasurementError(
                    f"over {MOST_LABELS} kinds",
                    where=self.where,
                    field=" and ".join(columns),
                    remedy="give a file for each",
                )
        return found


def parse_samples(
    content: bytes, *, number: str, unit_s: float, labels: tuple[str, ...], where: str
) -> SampleTable:
    """The numbers of column ``number``, each of ``unit_s`` seconds, with words beside them.

    Raises:
        MeasurementError: a row that is cut or too long, or a value that is no number, not finite,
            0, negative or above 1,000 s; ``field`` is its line and column.
    """
    head = head_cells(content)
    kinds = [
        "f8" if name == number else f"S{LONGEST_LABEL if name in labels else 1}" for name in head
    ]
    body = content.partition(b"\n")[2]
    rows = _loaded(body, kinds)
    samples_s = None if rows is None else np.ascontiguousarray(rows[f"f{head.index(number)}"])
    if rows is None or samples_s is None or not _are_latencies(samples_s * unit_s):
        raise _first_fault(body, head, number=number, unit_s=unit_s, where=where)
    beside = {name: rows[f"f{head.index(name)}"] for name in labels if name in head}
    return SampleTable(where, samples_s * unit_s, beside)


def _loaded(body: bytes, kinds: list[str]) -> NDArray[np.void] | None:
    """Rows by numpy's own reader, None where one of them is not as it should be."""
    if not body.strip():
        return np.empty(0, dtype=[(f"f{i}", kind) for i, kind in enumerate(kinds)])
    try:
        return np.loadtxt(
            io.BytesIO(body),
            dtype=[(f"f{i}", kind) for i, kind in enumerate(kinds)],
            delimiter=",",
            comments=None,
            quotechar='"',
            ndmin=1,
        )
    except ValueError:
        return None


def _are_latencies(samples_s: FloatArray) -> bool:
    return bool(((samples_s > 0) & (samples_s <= MOST_S)).all())


def _first_fault(
    body: bytes, head: list[str], *, number: str, unit_s: float, where: str
) -> MeasurementError:
    """The first row that is no sample, told with its line."""
    place = head.index(number)
    for line, cells in csv_rows(body, where=where, before=1):
        fault = _fault(cells, len(head), place, unit_s) if cells else None
        if fault is not None:
            remedy = f"correct the row or drop it; {number} is a number above 0"
            return MeasurementError(
                fault, where=where, field=f"line {line}: {number}", remedy=remedy
            )
    return MeasurementError("no table of numbers", where=where, field=number)


def _fault(cells: list[str], width: int, place: int, unit_s: float) -> str | None:
    """What is wrong with a row, None where nothing is."""
    if len(cells) != width:
        return f"{len(cells)} cells in a row, {width} in the head"
    cell = cells[place].strip()
    try:
        value = float(cell)
    except ValueError:
        return f"{cell!r} is not a number" if cell else "no value"
    if not math.isfinite(value):
        return f"{cell!r} is no latency"
    if value <= 0:
        return f"{cell!r} is not above 0"
    return None if value * unit_s <= MOST_S else f"{cell!r} is more than {MOST_S:.0f} s"

"""GPCNeT: tables with means and far percentiles of MPI patterns, with and without congestors."""

import re
from collections.abc import Iterator
from typing import Final

from topology.measured.nccl_tests import SkippedText
from topology.measured.tail import MeasuredTail
from topology.measured.tail_file import TailFile, seconds_from_us
from topology.words import Collective

FORMAT: Final = "GPCNeT"
LONGEST_LINE: Final = 1_000
_BANNER: Final = re.compile(r"(?:Network|Network Load) Tests? v\d")
_JOB: Final = re.compile(r"(\d{1,9}) MPI ranks \((\d{1,9}) nodes\)")
_SIZE: Final = re.compile(r"\((\d{1,15}) B\)\s*$")
_COLUMNS: Final = {"50%": "p50_s", "90%": "p90_s", "99%": "p99_s", "99.9%": "p999_s"}
_UNIT: Final = "usec"


def is_gpcnet(text: str) -> bool:
    """Whether it is what GPCNeT prints: its banner, or a table of its form."""
    return _BANNER.search(text) is not None or any(map(_is_head, map(_cells, _lines(text))))


def parse_gpcnet(text: str, *, where: str) -> TailFile:
    """A tail for each row in microseconds; bandwidths and ratios are passed over."""
    tails: list[MeasuredTail] = []
    skipped: list[SkippedText] = []
    section, head, job = "", list[str](), ""
    for number, line in enumerate(_lines(text), start=1):
        cells = _cells(line)
        if (match := _JOB.search(line)) is not None:
            job = f"a job of {int(match[1]):,} ranks on {int(match[2]):,} nodes"
        if len(cells) == 1:
            section, head = cells[0], []
        elif cells[:1] == ["Name"]:
            head = cells if _is_head(cells) else []
        elif head and len(cells) > 1:
            row = _tail(head, cells, number, where, (section, job))
            if isinstance(row, str):
                skipped.append(SkippedText(number, row, rows=1))
            elif row is not None:
                tails.append(row)
    return TailFile(FORMAT, tuple(tails), tuple(skipped))


def _collective(name: str) -> Collective:
    """What a row's pattern is: several all-reduces at once, or messages between two ranks."""
    return Collective.ALL_REDUCE if "allreduce" in name.lower() else Collective.SENDRECV


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield line if len(line) <= LONGEST_LINE else ""


def _cells(line: str) -> list[str]:
    """Cells between bars; none for a line without."""
    bare = line.strip()
    if not bare.startswith("|"):
        return []
    return [cell.strip() for cell in bare.strip("|").split("|")]


def _is_head(cells: list[str]) -> bool:
    return cells[:1] == ["Name"] and any(name in cells for name in _COLUMNS)


def _tail(
    head: list[str], cells: list[str], number: int, where: str, about: tuple[str, str]
) -> MeasuredTail | str | None:
    """A row's tail; a text: why there is none; None: a row that measures no time."""
    if len(cells) != len(head):
        return f"{len(cells)} cells in a row, {len(head)} in its head"
    row = dict(zip(head, cells, strict=True))
    if row.get("Units") != _UNIT:
        return None
    asked = [name for name in ("Avg", *_COLUMNS) if name in row]
    times_s = {name: seconds_from_us(row[name]) for name in asked}
    for name, time_s in times_s.items():
        if time_s is None:
            return f"{name}: {row[name][:40]!r} is not a number above 0"
    told = {name: time_s for name, time_s in times_s.items() if time_s is not None}
    size = _SIZE.search(row["Name"])
    return MeasuredTail(
        what=row["Name"],
        where=where,
        line=number,
        format=FORMAT,
        collective=_collective(row["Name"]),
        size_bytes=None if size is None else int(size[1]) or None,
        mean_s=told.get("Avg"),
        printed_s={_COLUMNS[name]: value for name, value in told.items() if name in _COLUMNS},
        notes=tuple(note for note in about if note),
    )

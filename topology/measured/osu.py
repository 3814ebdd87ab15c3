"""OSU micro-benchmarks: latency by size, with the percentiles that ``-z`` prints in newer ones.

Without them it prints means: minimum and maximum are the fastest and slowest rank's mean.
"""

import re
from dataclasses import dataclass
from typing import Final

from topology.measured.nccl_lines import bare
from topology.measured.nccl_tests import SkippedText
from topology.measured.tail import QUANTILES, MeasuredTail
from topology.measured.tail_file import (
    TailFile,
    Told,
    collective_named,
    count_from_text,
    seconds_from_us,
    whole_buffer_bytes,
)

FORMAT: Final = "OSU micro-benchmarks"
_TITLE: Final = re.compile(r"#\s*OSU\s+(?P<library>[A-Z][\w-]*)\s+(?P<name>\S.{0,60}?)\s+Test\b")
_TAIL: Final = re.compile(r"P(\d{1,2}(?:\.\d{1,4})?)\s+Tail\s+Lat", re.IGNORECASE)
_MEANS: Final = ("Avg Latency(us)", "Latency(us)")
_NAME_OF: Final = {f"{q * 100:.6g}": name for name, q in QUANTILES.items()}


@dataclass(slots=True)
class _Table:
    """A test's table while it is read; no columns: its head has not been seen."""

    name: str
    columns: list[str]
    bandwidth: bool


def is_osu(text: str) -> bool:
    """Whether a title of the OSU micro-benchmarks stands in it."""
    return any(_TITLE.match(bare(line)) for line in text.splitlines() if "OSU" in line)


def parse_osu(text: str, *, where: str, told: Told) -> TailFile:
    """A tail for each row of a latency table; ``told.ranks``: how many ran, which OSU is silent on.

    Tables of bandwidths, rows that are cut and values that are no time are told and left out.
    """
    tails: list[MeasuredTail] = []
    skipped: list[SkippedText] = []
    table: _Table | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        words = bare(line)
        if (title := _TITLE.match(words)) is not None:
            table = _Table(title["name"].removesuffix("Latency").strip(), [], False)
            if "andwidth" in title["name"]:
                table.bandwidth = True
                skipped.append(SkippedText(number, f"{title['name']}: no latencies"))
        elif table is not None and not table.bandwidth and words:
            row = _take(table, words, number, where, told)
            if isinstance(row, str):
                skipped.append(SkippedText(number, row, rows=1))
            elif row is not None:
                tails.append(row)
    return TailFile(FORMAT, tuple(tails), tuple(skipped))


def _take(
    table: _Table, words: str, number: int, where: str, told: Told
) -> MeasuredTail | str | None:
    """The tail of a row; a text: why it is none; None: the line is no row."""
    if words.startswith("#"):
        if "Lat" in words:
            cells = re.split(r"\s{2,}", words.lstrip("# ").strip())
            table.columns = [re.sub(r"\s*\(us\)", "(us)", cell) for cell in cells]
        return None
    cells = words.split()
    if not table.columns or not cells[0].replace(".", "", 1).isdigit():
        return None
    if len(cells) != len(table.columns):
        return f"{len(cells)} cells in a row, {len(table.columns)} in its head"
    return _tail(table, dict(zip(table.columns, cells, strict=True)), number, where, told)


def _tail(
    table: _Table, row: dict[str, str], number: int, where: str, told: Told
) -> MeasuredTail | str:
    times_s = {column: seconds_from_us(cell) for column, cell in row.items() if "(us)" in column}
    wrong = next((column for column, time_s in times_s.items() if time_s is None), None)
    share = count_from_text(row.get("Size"))
    if wrong is not None or ("Size" in row and share is None):
        column = wrong or "Size"
        return f"{column}: {row[column][:40]!r} is not a number above 0"
    found = {column: time_s for column, time_s in times_s.items() if time_s is not None}
    printed = _percentiles(found)
    collective = collective_named(table.name)
    return MeasuredTail(
        what=table.name or "point to point",
        where=where,
        line=number,
        format=FORMAT,
        collective=collective,
        size_bytes=None if share is None else whole_buffer_bytes(collective, share, told.ranks),
        ranks=told.ranks,
        count=count_from_text(row.get("Iterations")),
        mean_s=next((found[name] for name in _MEANS if name in found), None),
        printed_s=printed or None,
        notes=_notes(share, collective is not None and told.ranks is None),
    )


def _percentiles(times_s: dict[str, float]) -> dict[str, float]:
    """Percentiles by our names; those that have none are left out."""
    found = {}
    for column, time_s in times_s.items():
        match = _TAIL.match(column)
        name = None if match is None else _NAME_OF.get(f"{float(match[1]):.6g}")
        if name is not None:
            found[name] = time_s
    return found


def _notes(share: int | None, lacks_ranks: bool) -> tuple[str, ...]:
    if share is None or not lacks_ranks:
        return ()
    return (f"size {share} as OSU counts it; how many ranks ran is not told",)

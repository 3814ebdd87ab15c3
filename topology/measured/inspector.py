"""NCCL Inspector: JSON of single collectives, one record for each operation of each rank.

Fields of NCCL's ``plugins/profiler/inspector``: ``header`` (communicator, ranks, nodes) and
``coll_perf`` or ``p2p_perf`` (name, number, size, time). Records may stand one a line, spread over
lines, or in a list; files of several ranks may be put together.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from topology.errors import MeasurementError
from topology.measured.nccl_tests import SkippedText
from topology.measured.tail import MeasuredTail
from topology.measured.tail_file import (
    TailFile,
    collective_named,
    seconds_from_us,
    whole_buffer_bytes,
)

FORMAT: Final = "NCCL Inspector"
_MOST_RANKS: Final = 10_000_000
_MOST_BYTES: Final = 2**50
_MOST_BROKEN: Final = 1_000
"""Broken documents after which the rest is not read."""


class _Operation(NamedTuple):
    """What is measured together: one name and size on so many ranks."""

    name: str
    share_bytes: int
    ranks: int
    nodes: int | None
    timing: str


class _Record(NamedTuple):
    """One rank's time of one call; ``call`` tells calls apart. [s]"""

    operation: _Operation
    call: tuple[object, ...]
    rank: int | None
    time_s: float


@dataclass(slots=True)
class _Draft:
    """Times of an operation while its records are read: the slowest rank of each call. [s]"""

    line: int
    slowest_s: dict[tuple[object, ...], float] = field(default_factory=dict)
    ranks_seen: set[int | None] = field(default_factory=set)
    communicators: set[object] = field(default_factory=set)

    def take(self, record: _Record) -> None:
        self.slowest_s[record.call] = max(self.slowest_s.get(record.call, 0.0), record.time_s)
        self.ranks_seen.add(record.rank)
        self.communicators.add(record.call[0])


def is_inspector(text: str) -> bool:
    """Whether it holds records of NCCL Inspector."""
    return '"coll_perf"' in text or '"p2p_perf"' in text


def parse_inspector(text: str, *, where: str) -> TailFile:
    """A tail for each collective, size and number of ranks; broken records are told and left out.

    A call is complete when its slowest rank is: of the ranks whose records are there.
    """
    drafts: dict[_Operation, _Draft] = {}
    skipped: list[SkippedText] = []
    for line, document in _documents(text):
        record = _record(document, line)
        if isinstance(record, str):
            skipped.append(SkippedText(line, record))
        elif record is not None:
            drafts.setdefault(record.operation, _Draft(line)).take(record)
    tails = tuple(_tail(operation, draft, where) for operation, draft in drafts.items())
    return TailFile(FORMAT, tails, tuple(skipped))


def _documents(text: str) -> Iterator[tuple[int, Any]]:
    """Documents in a row with their lines; a broken one is an error, as a value."""
    decoder = json.JSONDecoder()
    place, line, counted, broken = 0, 1, 0, 0
    while (place := _next_start(text, place)) < len(text):
        line += text.count("\n", counted, place)
        counted = place
        try:
            document, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            fault = f"cut or broken JSON ({error.msg})"
        except RecursionError:
            fault = "nested too deep"
        else:
            yield line, document
            continue
        broken += 1
        end = broken == _MOST_BROKEN
        yield line, MeasurementError(f"{fault}; what follows is not read" if end else fault)
        place = len(text) if end else _next_line(text, place)


def _next_start(text: str, place: int) -> int:
    """Where the next document begins: past blanks and what joins the members of a list."""
    while place < len(text) and text[place] in " \t\r\n,[]":
        place += 1
    return place


def _next_line(text: str, place: int) -> int:
    """Where the next line begins that opens a document."""
    found = text.find("\n{", place)
    return len(text) if found < 0 else found + 1


def _record(document: Any, line: int) -> _Record | str | None:
    """A record; a text: what is wrong with it; None: it tells of no operation."""
    if isinstance(document, MeasurementError):
        return document.problem
    if not isinstance(document, dict):
        return "no record of NCCL Inspector"
    kind = next((kind for kind in ("coll", "p2p") if f"{kind}_perf" in document), None)
    if kind is None:
        return None
    header, perf = document.get("header"), document[f"{kind}_perf"]
    if not isinstance(header, dict) or not isinstance(perf, dict):
        return f"header or {kind}_perf is no object"
    return _checked(header, perf, kind, line)


def _checked(header: dict[str, Any], perf: dict[str, Any], kind: str, line: int) -> _Record | str:
    name, number = perf.get(kind), perf.get(f"{kind}_sn", f"line {line}")
    time_s = seconds_from_us(perf.get(f"{kind}_exec_time_us"))
    share = _count(perf.get(f"{kind}_msg_size_bytes"), _MOST_BYTES)
    ranks = _count(header.get("n_ranks"), _MOST_RANKS)
    faults = {
        kind: not isinstance(name, str),
        f"{kind}_exec_time_us": time_s is None,
        f"{kind}_msg_size_bytes": share is None,
        "n_ranks": ranks is None,
        f"{kind}_sn": not isinstance(number, str | int),
    }
    for key, wrong in faults.items():
        if wrong:
            value = header.get(key, perf.get(key))
            return f"{key}: {'missing' if value is None else repr(value)[:60]}"
    assert isinstance(name, str)
    assert time_s is not None
    assert share is not None
    assert ranks is not None
    nodes = _count(header.get("nnodes"), _MOST_RANKS)
    timing = str(perf.get(f"{kind}_timing_source", ""))[:40]
    rank = header.get("rank")
    return _Record(
        _Operation(name[:60], share, ranks, nodes, timing),
        (str(header.get("id")), number),
        rank if isinstance(rank, int) else None,
        time_s,
    )


def _count(value: object, most: int) -> int | None:
    """A whole number from 1 to ``most``, None where it is another thing."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
    return value if is_count and isinstance(value, int) else None


def _tail(operation: _Operation, draft: _Draft, where: str) -> MeasuredTail:
    collective = collective_named(operation.name)
    samples_s = np.sort(np.fromiter(draft.slowest_s.values(), dtype=np.float64))
    samples_s.setflags(write=False)
    return MeasuredTail(
        what=operation.name,
        where=where,
        line=draft.line,
        format=FORMAT,
        collective=collective,
        size_bytes=whole_buffer_bytes(collective, operation.share_bytes, operation.ranks),
        ranks=operation.ranks,
        nodes=operation.nodes,
        count=len(samples_s),
        mean_s=float(samples_s.mean()),
        samples_s=samples_s,
        notes=tuple(_notes(operation, draft)),
    )


def _notes(operation: _Operation, draft: _Draft) -> Iterator[str]:
    seen = len(draft.ranks_seen)
    if seen < operation.ranks:
        yield f"the slowest of {seen} of {operation.ranks} ranks: the others' records are not here"
    if len(draft.communicators) > 1:
        yield f"{len(draft.communicators)} communicators together"
    if operation.timing:
        yield f"timed by {operation.timing}; first calls included"

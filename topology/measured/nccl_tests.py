"""Runs from the text that nccl-tests and rccl-tests print, other programs' lines between or not.

What is cut or broken costs its row or its run, and is told with its line.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from fleet import read_bytes
from fleet.errors import StoreError
from topology.errors import MeasurementError
from topology.measured.nccl_lines import (
    Columns,
    Device,
    Row,
    Settings,
    bare,
    collective_of,
    columns_of_row,
    device_of,
    failure_of,
    head_of,
    is_row,
    library_of,
    out_of_bounds_of,
    program_of,
    row_of,
    settings_of,
)
from topology.measured.nccl_rows import collective_by_rows, in_seconds, ranks_by_ratio
from topology.measured.runs import Run
from topology.words import Collective, Launch

LARGEST_TEXT_BYTES: Final = 2**28
"""A log that is larger is refused: a run of nccl-tests prints kilobytes."""

OWN_FAMILY: Final = "nccl-tests"
"""Family of the runs read here: a user's own weigh together."""


class SkippedText(NamedTuple):
    """A run or a number of rows that is left out: the line where it begins, and why.

    ``rows``: how many, 0 for a run.
    """

    line: int
    reason: str
    rows: int = 0


@dataclass(frozen=True, slots=True)
class NcclTestsRun:
    """One table of nccl-tests, of one data type, operation and root.

    ``devices``: one for each rank in rank order, empty where the text lost them; ``ranks`` is then
    told from busbw / algbw. ``library``: as it names itself, "" where it does not.
    """

    line: int
    collective: Collective
    ranks: int
    devices: tuple[Device, ...]
    settings: Settings | None
    library: str
    rows: tuple[Row, ...]
    out_of_bounds: int | None
    notes: tuple[str, ...]

    @property
    def dtype(self) -> str:
        """Data type, as nccl-tests calls it."""
        return self.rows[0].dtype

    @property
    def launch(self) -> Launch:
        """How the ranks were started."""
        settings = self.settings
        if settings is None:
            return Launch.PROCESS
        if settings.graph_launches:
            return Launch.GRAPH
        if settings.gpus_per_thread > 1:
            return Launch.THREAD
        return Launch.THREADS if settings.threads > 1 else Launch.PROCESS

    @property
    def ranks_by_host(self) -> dict[str, int]:
        """How many ranks each host has, in rank order of the first."""
        return dict(Counter(device.host for device in self.devices))

    @property
    def wrong(self) -> int:
        """Wrong values that the check found in all rows."""
        return sum(row.wrong or 0 for row in self.rows)

    @property
    def right_rows(self) -> tuple[Row, ...]:
        """The rows without a wrong value."""
        return tuple(row for row in self.rows if not row.wrong)


_LAUNCH_WORDS: Final = {
    Launch.PROCESS: "1 proc/GPU",
    Launch.THREADS: "1 process per host, -t {settings.threads}",
    Launch.THREAD: "1 process, -g {settings.gpus_per_thread}",
    Launch.GRAPH: "CUDA graph, -G {settings.graph_launches}",
}


def run_of(run: NcclTestsRun, run_id: str) -> Run:
    """The run in the form of the calibration set; rows with wrong values are left out.

    Raises:
        MeasurementError: no row has right values only, or no host is told.
    """
    rows = run.right_rows
    if not rows:
        raise MeasurementError(
            f"line {run.line}: every row has wrong values", remedy="look for the fault first"
        )
    by_host = run.ranks_by_host
    if not by_host:
        raise MeasurementError(
            f"line {run.line}: the ranks' hosts are not told", remedy="keep the lines '# Rank ...'"
        )
    names = dict.fromkeys(device.name for device in run.devices)
    return Run(
        run_id,
        gpus_per_node=max(by_host.values()),
        nodes=len(by_host),
        ranks=run.ranks,
        sizes_bytes=np.array([float(row.size_bytes) for row in rows]),
        times_s=np.array([row.time_s for row in rows]),
        gpu_model=" and ".join(names),
        collective=run.collective.value,
        library=run.library,
        quality="B" if run.wrong else "A",
        family=OWN_FAMILY,
        launch=_LAUNCH_WORDS[run.launch].format(settings=run.settings),
        dtype=run.dtype,
        notes="; ".join(run.notes),
    )


@dataclass(frozen=True, slots=True)
class NcclTestsText:
    """The runs of a text in its order, and what was left out."""

    runs: tuple[NcclTestsRun, ...]
    skipped: tuple[SkippedText, ...]


def read_nccl_tests(path: str | Path, *, collective: Collective | None = None) -> NcclTestsText:
    """Read the text that nccl-tests printed; ``-`` is stdin, gzip is unpacked.

    ``collective`` is that of tables which do not tell theirs.

    Raises:
        MeasurementError: no table that can be used; the message says what was found instead.
        ExpectedError: the file cannot be read.
    """
    content = _read(path)
    if b"\0" in content[:4096]:
        raise MeasurementError("binary, no text", where=str(path), remedy=_REMEDY)
    text = content.decode("utf-8", errors="replace")
    found = parse_nccl_tests(text, collective=collective)
    if not found.runs:
        first = next((f"line {line}: {reason}" for line, reason, _ in found.skipped), "")
        problem = first or ("no table of nccl-tests" if text.strip() else "empty")
        raise MeasurementError(problem, where=str(path), remedy=_REMEDY)
    return found


_REMEDY: Final = "give all that nccl-tests printed, from '# nThread' to '# Avg bus bandwidth'"


def _read(path: str | Path) -> bytes:
    try:
        return read_bytes(path, limit=LARGEST_TEXT_BYTES)
    except StoreError as error:
        remedy = error.remedy
        if error.problem.startswith("larger"):
            remedy = "give the output of nccl-tests without NCCL_DEBUG, or a part of it"
        raise MeasurementError(error.problem, where=error.where, remedy=remedy) from None


@dataclass(slots=True)
class _Draft:
    """A run while its lines are read."""

    line: int
    program: str | None = None
    library: str = ""
    next_program: str | None = None
    next_library: str = ""
    settings: Settings | None = None
    devices: list[Device] = field(default_factory=list)
    columns: Columns | str | None = None
    rows: list[Row] = field(default_factory=list)
    broken: list[SkippedText] = field(default_factory=list)
    out_of_bounds: int | None = None
    failure: str | None = None

    @property
    def has_table(self) -> bool:
        """Whether the table has begun: what follows it belongs to the next run."""
        return self.columns is not None or bool(self.rows) or bool(self.broken)

    @property
    def is_begun(self) -> bool:
        """Whether there is anything of a run."""
        return self.has_table or self.settings is not None or bool(self.devices)


def parse_nccl_tests(text: str, *, collective: Collective | None = None) -> NcclTestsText:
    """The runs of a text, in its order; nothing of it is refused as a whole."""
    runs: list[NcclTestsRun] = []
    skipped: list[SkippedText] = []
    for draft in _drafts(text):
        try:
            runs += _runs_of(draft, collective)
        except MeasurementError as error:
            remedy = f"; {error.remedy}" if error.remedy else ""
            skipped.append(SkippedText(draft.line, f"{error.problem}{remedy}"))
        skipped += _folded(draft.broken)
    return NcclTestsText(tuple(runs), tuple(sorted(skipped)))


def _folded(broken: Sequence[SkippedText]) -> Iterator[SkippedText]:
    """Broken rows of one reason as one entry, with their count."""
    counts = Counter(skip.reason for skip in broken)
    for reason, count in counts.items():
        line = next(skip.line for skip in broken if skip.reason == reason)
        rows = "1 row" if count == 1 else f"{count} rows, the first here"
        yield SkippedText(line, f"{rows}: {reason}", count)


def _drafts(text: str) -> Iterator[_Draft]:
    """What each run's lines say; a run ends where the next begins."""
    draft = _Draft(line=1)
    for number, line in enumerate(text.splitlines(), start=1):
        words = bare(line)
        if not words:
            continue
        if draft.has_table and _begins_run(words, draft):
            yield draft
            draft = _Draft(number, program=draft.next_program, library=draft.next_library)
        _take(draft, words, number)
    if draft.is_begun:
        yield draft


def _begins_run(words: str, draft: _Draft) -> bool:
    return words.startswith("#") and (
        settings_of(words) is not None
        or "Collective test starting" in words
        or device_of(words) is not None
        or (bool(draft.rows) and head_of(words) is not None)
    )


def _take(draft: _Draft, words: str, number: int) -> None:
    """Add a line to the run it belongs to."""
    if words.startswith("#"):
        _take_comment(draft, words, number)
        return
    cells = words.split(maxsplit=40)
    if is_row(cells):
        _take_row(draft, cells, number)
        return
    _take_words(draft, words)
    if "ailure" in words:
        draft.failure = failure_of(words) or draft.failure


def _take_words(draft: _Draft, words: str) -> None:
    """The names of the program and of the library, wherever they stand."""
    if "_perf" in words and "concluded" not in words and (program := program_of(words)):
        draft.next_program = program
        if not draft.has_table:
            draft.program, draft.next_program = program, None
    if "version" in words or "-library" in words:
        draft.next_library = library_of(words) or draft.next_library
        if not draft.has_table:
            draft.library, draft.next_library = draft.next_library or draft.library, ""


def _take_comment(draft: _Draft, words: str, number: int) -> None:
    if (device := device_of(words)) is not None:
        draft.devices.append(device)
    elif (settings := settings_of(words)) is not None:
        draft.settings = settings
        draft.line = number
    elif (columns := head_of(words)) is not None:
        draft.columns = columns
    elif (wrong := out_of_bounds_of(words)) is not None:
        draft.out_of_bounds = wrong
    else:
        _take_words(draft, words)


def _take_row(draft: _Draft, cells: list[str], number: int) -> None:
    if draft.columns is None:
        draft.columns = columns_of_row(cells)
    if draft.columns is None:
        draft.broken.append(SkippedText(number, "its table has no head"))
    elif isinstance(draft.columns, Columns):
        row = row_of(cells, draft.columns, number)
        if isinstance(row, str):
            draft.broken.append(SkippedText(number, row))
        else:
            draft.rows.append(row)


def _runs_of(draft: _Draft, collective: Collective | None) -> list[NcclTestsRun]:
    """A run for each data type, operation and root of a table.

    Raises:
        MeasurementError: there is no row, or the ranks or the collective are not told.
    """
    if isinstance(draft.columns, str):
        raise MeasurementError(draft.columns)
    if not draft.rows:
        what = "the table has no whole row" if draft.has_table else "it ends before its table"
        raise MeasurementError(f"{what}{f' ({draft.failure})' if draft.failure else ''}")
    ranks = _ranks(draft)
    tables: dict[tuple[str, str | None, int | None], list[Row]] = {}
    for row in draft.rows:
        tables.setdefault((row.dtype, row.redop, row.root), []).append(row)
    return [_run(draft, ranks, rows, collective) for rows in tables.values()]


def _run(
    draft: _Draft, ranks: int, rows: Sequence[Row], collective: Collective | None
) -> NcclTestsRun:
    told = _collective(draft, rows, ranks, collective)
    rows, notes = (rows, ()) if told is Collective.ALLTOALLV else in_seconds(rows)
    if draft.failure is not None:
        notes = (*notes, f"it ended early: {draft.failure}")
    if not draft.devices:
        notes = (*notes, f"no list of devices: {ranks} ranks, from busbw / algbw")
    return NcclTestsRun(
        line=draft.line,
        collective=told,
        ranks=ranks,
        devices=tuple(sorted(draft.devices, key=lambda device: device.rank)),
        settings=draft.settings,
        library=draft.library,
        rows=tuple(rows),
        out_of_bounds=draft.out_of_bounds,
        notes=notes,
    )


def _ranks(draft: _Draft) -> int:
    """How many ranks there are, by the devices, which must be all and fit the settings."""
    if not draft.devices:
        return ranks_by_ratio(draft.rows, collective_of(draft.program or ""))
    numbers = sorted(device.rank for device in draft.devices)
    ranks = len(numbers)
    if numbers != list(range(ranks)):
        missing = next((i for i in range(ranks) if numbers[i] != i), ranks)
        what = f"rank {missing} is missing or twice among them"
        raise MeasurementError(f"{ranks} devices, but {what}", remedy="keep all '# Rank' lines")
    settings = draft.settings
    share = settings.threads * settings.gpus_per_thread if settings else 1
    if ranks % share:
        text = f"{ranks} devices for processes of {share} ranks (nThread x nGpus)"
        raise MeasurementError(text, remedy="keep all '# Rank' lines")
    if ranks == 1:
        raise MeasurementError(
            "one rank alone, which sends nothing",
            remedy="build nccl-tests with MPI=1, or give -g or -t",
        )
    return ranks


def _collective(
    draft: _Draft, rows: Sequence[Row], ranks: int, given: Collective | None
) -> Collective:
    """The collective by its program's name, else as given, else by what its rows show."""
    if draft.program is None:
        return collective_by_rows(rows, ranks, given)
    named = collective_of(draft.program)
    if named is None:
        raise MeasurementError(f"{draft.program}_perf is not modelled")
    return named

"""Runs of collectives that were measured: a table of runs and one of points. No model."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleet import read_bytes
from topology.errors import MeasurementError
from topology.latency.calibration import KIB, MIB, REGIONS
from topology.measured.csv_rows import csv_rows
from topology.words import Launch

FloatArray: TypeAlias = NDArray[np.float64]

LARGEST_TABLE_BYTES: Final = 2**28
"""A table that is larger is refused: the one of 16,900 points has a megabyte."""

_TEXTS: Final = {
    "gpu_model": "gpu_model",
    "nvlink_gen_or_pcie": "wiring",
    "nic": "nic",
    "fabric": "fabric",
    "library": "library",
    "collective": "collective",
    "algo_forced": "algorithm",
    "proto_forced": "protocol",
    "quality": "quality",
    "family": "family",
    "launch": "launch",
    "dtype": "dtype",
}
_REMARKS: Final = ("source_url", "date", "notes")
"""Columns that nothing is computed from: a table may lack them."""

_COUNTS: Final = ("gpus_per_node", "nodes", "ranks")
_RUN_COLUMNS: Final = ("run_id", *_COUNTS, *_TEXTS)
_POINT_COLUMNS: Final = ("run_id", "size_bytes", "time_us")


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run: its hardware and settings as the table says, its points as arrays.

    ``sizes_bytes`` (m,) and ``times_s`` (m,), in the table's order and read-only. Texts are the
    table's own, "" where it has none. ``wiring`` is its column ``nvlink_gen_or_pcie``; an
    ``algorithm`` or ``protocol`` is one that was forced.
    """

    run_id: str
    _: KW_ONLY
    gpus_per_node: int
    nodes: int
    ranks: int
    sizes_bytes: FloatArray
    times_s: FloatArray
    gpu_model: str = ""
    collective: str = ""
    wiring: str = ""
    nic: str = ""
    fabric: str = ""
    library: str = ""
    algorithm: str = ""
    protocol: str = ""
    quality: str = ""
    family: str = ""
    launch: str = ""
    dtype: str = ""
    source_url: str = ""
    date: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        for array in (self.sizes_bytes, self.times_s):
            array.setflags(write=False)

    @property
    def across_nodes(self) -> bool:
        """Whether it used more than one node."""
        return self.nodes > 1

    @property
    def launch_style(self) -> Launch:
        """How its ranks were started."""
        return launch_of(self.launch)


class SkippedRun(NamedTuple):
    """A run that is left out, and why."""

    run_id: str
    reason: str


class DroppedPoints(NamedTuple):
    """So many points of a run are left out, and why."""

    run_id: str
    reason: str
    points: int


@dataclass(frozen=True, slots=True)
class RunSet:
    """Runs in the table's order, what was left out of them, and what was left out whole."""

    runs: tuple[Run, ...]
    skipped: tuple[SkippedRun, ...] = ()
    dropped: tuple[DroppedPoints, ...] = ()

    @property
    def points(self) -> int:
        """Points of all runs together."""
        return sum(len(run.sizes_bytes) for run in self.runs)


def read_runs(runs_file: str | Path, points_file: str | Path) -> RunSet:
    """Read runs and their points; what is broken costs its point or its run, and is told.

    A flagged point is dropped, as is one whose size or time is no positive number.

    Raises:
        MeasurementError: no table, or it lacks a column.
        ExpectedError: a file cannot be read.
    """
    points = _read_points(points_file)
    rows: dict[str, list[_Row]] = {}
    for row in _rows(runs_file, _RUN_COLUMNS):
        rows.setdefault(row.cells["run_id"], []).append(row)
    runs: list[Run] = []
    skipped: list[SkippedRun] = []
    for run_id, same in rows.items():
        try:
            runs.append(_run(same, points))
        except MeasurementError as error:
            skipped.append(SkippedRun(run_id, error.problem))
    lost = (run_id for run_id in points.run_ids if run_id not in rows)
    skipped += (SkippedRun(run_id, f"points without a row in {runs_file}") for run_id in lost)
    drops = (DroppedPoints(*what, count) for what, count in points.dropped.items())
    return RunSet(tuple(runs), tuple(skipped), tuple(drops))


class _Row(NamedTuple):
    """One row of a table: its line, and its cells by column."""

    line: int
    cells: dict[str, str]


@dataclass(slots=True)
class _Points:
    """Sizes and times by run, and how many were dropped by run and reason."""

    kept: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def run_ids(self) -> Iterable[str]:
        """Every run that has points, dropped ones too."""
        return dict.fromkeys((*self.kept, *(run_id for run_id, _ in self.dropped)))

    def take(self, cells: dict[str, str]) -> None:
        """Keep a point, or count why not; a time that is not told follows from algbw."""
        run_id, flag = cells["run_id"], cells.get("flag", "").strip()
        size_text, time_text = cells["size_bytes"], cells["time_us"]
        if flag:
            self.dropped[run_id, f"flag: {flag}"] += 1
            return
        size_bytes, time_us = _positive(size_text), _positive(time_text)
        algbw = _positive(cells.get("algbw_GBps", ""))
        if not time_text.strip() and size_bytes and algbw:
            time_us = size_bytes / algbw / 1e3
        if not size_bytes or not time_us:
            column, text = ("time_us", time_text) if size_bytes else ("size_bytes", size_text)
            self.dropped[run_id, f"{column}: {text!r} is no positive number"] += 1
            return
        sizes_bytes, times_s = self.kept.setdefault(run_id, ([], []))
        sizes_bytes.append(size_bytes)
        times_s.append(time_us * 1e-6)


def _read_points(points_file: str | Path) -> _Points:
    points = _Points()
    for _, cells in _rows(points_file, _POINT_COLUMNS):
        points.take(cells)
    return points


def _run(same: Sequence[_Row], points: _Points) -> Run:
    """The run of a row; ``same`` are all rows of one run_id.

    Raises:
        MeasurementError: two rows, a count that is none, counts that disagree, no point.
    """
    cells = same[0].cells
    run_id = cells["run_id"]
    if len(same) > 1:
        lines = " and ".join(str(row.line) for row in same)
        raise MeasurementError(f"lines {lines} have this run_id: whose points they are is not told")
    per_node, nodes, ranks = (_count(same[0], name) for name in _COUNTS)
    if not nodes <= ranks <= nodes * per_node:
        shape = f"{nodes} nodes with {per_node} GPUs each"
        raise MeasurementError(f"line {same[0].line}: {ranks} ranks do not fit {shape}")
    if run_id not in points.kept:
        told = "; ".join(reason for of, reason in points.dropped if of == run_id)
        raise MeasurementError(f"no usable point ({told})" if told else "no points")
    sizes_bytes, times_s = points.kept[run_id]
    texts: dict[str, Any] = {name: cells.get(name, "") for name in _REMARKS}
    texts |= {name: cells[column].strip() for column, name in _TEXTS.items()}
    return Run(
        run_id,
        gpus_per_node=per_node,
        nodes=nodes,
        ranks=ranks,
        sizes_bytes=np.array(sizes_bytes),
        times_s=np.array(times_s),
        **texts,
    )


def _count(row: _Row, column: str) -> int:
    text = row.cells[column]
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS or not int(text):
        raise MeasurementError(f"line {row.line}: {column}: {text!r} is no count")
    return int(text)


_DIGITS: Final = 9
"""A count of more digits is no count of GPUs."""


def _positive(text: str) -> float | None:
    """The number a cell holds, None where it is none, or not positive and finite."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0.0 < number < math.inf else None


def _rows(path: str | Path, columns: Iterable[str]) -> Iterator[_Row]:
    """The rows of a CSV file with a head; an empty line is none."""
    rows = csv_rows(read_bytes(path, limit=LARGEST_TABLE_BYTES), where=str(path))
    _, first = next(rows, (1, []))
    head = [name.strip() for name in first]
    _check_head(head, columns, where=str(path))
    for line, cells in rows:
        if cells:
            padded = (*cells, *[""] * (len(head) - len(cells)))
            yield _Row(line, dict(zip(head, padded, strict=False)))


def _check_head(head: Sequence[str], columns: Iterable[str], *, where: str) -> None:
    missing = [name for name in columns if name not in head]
    twice = [name for name in head if name and head.count(name) > 1]
    if missing:
        raise MeasurementError(
            f"no column {', '.join(missing)}; the columns are {', '.join(head) or 'none'}",
            where=where,
            field="line 1",
            remedy="give a CSV file whose first line names the columns",
        )
    if twice:
        raise MeasurementError(
            f"the column {twice[0]} stands twice",
            where=where,
            field="line 1",
            remedy="name each column once",
        )


def launch_of(text: str) -> Launch:
    """How ranks were started, from a run's own words; a process each where they do not tell.

    >>> [launch_of(t).value for t in ("1 proc/GPU", "1 process, -t 8", "1 process, -g 8", "")]
    ['process', 'threads', 'thread', 'process']
    """
    words = text.lower()
    if "graph" in words:
        return Launch.GRAPH
    if "eager" in words or "torchrun" in words or words.startswith("ray"):
        return Launch.EAGER
    if "-t " in words:
        return Launch.THREADS
    if words.startswith("1 process"):
        return Launch.THREAD
    return Launch.PROCESS


def integer_dtype(text: str) -> bool:
    """Whether a data type holds integers, which no NVSwitch of Hopper's reduces.

    >>> integer_dtype("int8"), integer_dtype("char"), integer_dtype("bfloat16")
    (True, True, False)
    """
    return text.strip().lower().lstrip("u") in _INTEGERS


_INTEGERS: Final = {"char", "int", "int8", "int32", "int64", "int8_t", "int32_t", "int64_t"}


def region_indices(sizes_bytes: ArrayLike) -> NDArray[np.int64]:
    """Places in ``REGIONS`` of message sizes, in their shape: ``region_of`` for arrays."""
    sizes = np.asarray(sizes_bytes, dtype=np.float64)
    small = np.searchsorted((32 * KIB, MIB), sizes, side="left")
    return np.where(sizes >= 64 * MIB, 3, small).astype(np.int64)


def weights(
    *, families: Sequence[str], across_nodes: ArrayLike, sizes_bytes: ArrayLike
) -> FloatArray:
    """What each point weighs: 1 / (points of its family in its cell), shape (m,).

    A cell is one node or across nodes, with the region of size, so that in a cell each family
    weighs 1 together. Arrays have shape (m,), one entry a point.
    """
    cell = np.asarray(across_nodes, dtype=np.int64) * len(REGIONS) + region_indices(sizes_bytes)
    if not cell.size:
        return np.empty(0)
    _, family = np.unique(np.asarray(families), return_inverse=True)
    key = family.reshape(cell.shape) * 2 * len(REGIONS) + cell
    return np.asarray(1.0 / np.bincount(key)[key])


def weighted_quantile(values: ArrayLike, weights: ArrayLike, q: float) -> float:
    """The least value that a share ``q`` of the weight does not exceed; nan of nothing.

    >>> weighted_quantile([3.0, 1.0, 2.0], [1.0, 1.0, 1.0], 0.5)
    2.0
    >>> weighted_quantile([1.0, 9.0], [1.0, 3.0], 0.5)
    9.0
    """
    ordered = np.asarray(values, dtype=np.float64)
    if not ordered.size:
        return math.nan
    order = np.argsort(ordered, kind="stable")
    total = np.cumsum(np.asarray(weights, dtype=np.float64)[order])
    # An ulp below: sums of thirds must not step past a share that they reach exactly.
    place = np.searchsorted(total, q * total[-1] * (1 - 1e-12))
    return float(ordered[order][min(place, len(ordered) - 1)])

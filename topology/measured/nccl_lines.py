"""Lines of nccl-tests' text output, each told from its own words. No file, no order of lines.

The formats are those of ``src/common.cu`` of nccl-tests 2.0 to 2.17; rccl-tests prints the same.
"""

import re
from dataclasses import dataclass
from typing import Final

from topology.words import Collective

LONGEST_LINE: Final = 2000
"""Characters; what is longer is no line of nccl-tests and is passed over."""

_STAMP: Final = r"\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?[^\s\]#]{0,12}\]?:?"
_PREFIX: Final = re.compile(
    r"\s*(?:"
    r"\[\d{1,6},\d{1,6}\](?:<std(?:out|err|diag)>)?:?"  # mpirun --tag-output
    rf"|{_STAMP}(?=\s|\#)"  # ts, kubectl logs --timestamps
    r"|\[\d{1,6}\]:?(?=\s|\#)"
    r"|\d{1,6}:(?=\s|\#)"  # srun --label
    r"|[A-Za-z][\w.-]{0,80}:(?=\s*(?:\#|\d))"  # pdsh, clush
    r"|[A-Za-z][\w.-]{0,80}\s*\|(?=\s)"  # docker compose
    r")\s?"
)
_MOST_PREFIXES: Final = 3
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def bare(line: str) -> str:
    """A line without the colours, timestamps and rank prefixes that launchers add.

    >>> bare("[1,0]<stdout>:# nThread 1 nGpus 1"), bare("12: 2024-05-01T10:00:00Z     8   2 float")
    ('# nThread 1 nGpus 1', '8   2 float')
    """
    if len(line) > LONGEST_LINE:
        return ""
    text = _COLOUR.sub("", line)
    for _ in range(_MOST_PREFIXES):
        match = None if text.lstrip().startswith("#") else _PREFIX.match(text)
        if match is None:
            break
        text = text[match.end() :]
    return text.strip()


@dataclass(frozen=True, slots=True)
class Settings:
    """The line ``# nThread 1 nGpus 8 ...``; what an older version does not print is None."""

    threads: int
    gpus_per_thread: int
    warmup_iterations: int | None = None
    iterations: int | None = None
    graph_launches: int | None = None
    checks: bool | None = None


_SETTINGS: Final = re.compile(r"#\s*nThreads?:?\s+(\d{1,6})\s+nGpus:?\s+(\d{1,6})\b")


def settings_of(text: str) -> Settings | None:
    """The settings that a line tells, None where it is another line."""
    match = _SETTINGS.match(text)
    if match is None or not int(match[1]) or not int(match[2]):
        return None
    checks = _told(text, "validation")
    return Settings(
        threads=int(match[1]),
        gpus_per_thread=int(match[2]),
        warmup_iterations=_told(text, "warmup iters"),
        iterations=_told(text, "(?<!warmup )(?<!agg )iters"),
        graph_launches=_told(text, "graph"),
        checks=None if checks is None else bool(checks),
    )


def _told(text: str, name: str) -> int | None:
    match = re.search(rf"{name}: (\d{{1,9}})\b", text)
    return None if match is None else int(match[1])


@dataclass(frozen=True, slots=True)
class Device:
    """The line of one rank among the devices used."""

    rank: int
    host: str
    device: int
    bus_id: str
    name: str
    pid: int | None = None


_DEVICE: Final = re.compile(
    r"#\s*Rank\s+(?P<rank>\d{1,7})(?:\s+Group\s+\d{1,7})?(?:\s+Pid\s+(?P<pid>\d{1,10}))?"
    r"\s+on\s+(?P<host>\S{1,253})\s+device\s+(?P<device>\d{1,4})\s+\[(?P<bus>[^\]]{1,20})\]"
    r"\s*(?P<name>\S.{0,100})"
)


def device_of(text: str) -> Device | None:
    """The rank that a line tells of, None where it is another line, or is cut before the name."""
    match = _DEVICE.match(text)
    if match is None:
        return None
    return Device(
        rank=int(match["rank"]),
        host=match["host"],
        device=int(match["device"]),
        bus_id=match["bus"],
        name=match["name"].strip(),
        pid=None if match["pid"] is None else int(match["pid"]),
    )


@dataclass(frozen=True, slots=True)
class Columns:
    """Places of a table's columns in a row split at blanks; None: it has no such column.

    ``in_place``: where the columns of the operation in place begin. ``unit_s``: of its times.
    """

    redop: int | None
    root: int | None
    time: int
    algbw: int
    busbw: int
    wrong: int | None
    in_place: int | None
    unit_s: float = 1e-6


_ERROR_NAMES: Final = ("#wrong", "error", "res", "wrong")


def head_of(text: str) -> Columns | str | None:
    """The columns that a table's head names, a text where they will not do, None for no head."""
    names = text.removeprefix("#").split()
    if names[:1] not in (["size"], ["bytes"]) or "algbw" not in names:
        return None
    if "cputime" in names:
        return "its times are the CPU's, not the operation's (-C); run it without"
    time = names.index("time") if "time" in names else len(names)
    if names[2:3] != ["type"] or names[time : time + 3] != list(_BLOCK):
        return (
            f"its columns are {', '.join(names)}; expected size, count, type ... time, algbw, busbw"
        )
    return _columns(names, time)


_BLOCK: Final = ("time", "algbw", "busbw")


def _columns(names: list[str], time: int) -> Columns:
    lead = {name: place for place, name in enumerate(names[:time])}
    after = time + len(_BLOCK)
    wrong = after if names[after : after + 1] and names[after] in _ERROR_NAMES else None
    return Columns(
        redop=lead.get("redop", lead.get("op")),
        root=lead.get("root"),
        time=time,
        algbw=time + 1,
        busbw=time + 2,
        wrong=wrong,
        in_place=names.index("time", after) if "time" in names[after:] else None,
        # nccl-tests 1 counts in ms; its head says bytes.
        unit_s=1e-3 if names[0] == "bytes" else 1e-6,
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One size of a table. ``time_s`` is out of place, ``in_place_s`` None where it is not told.

    ``algbw`` and ``busbw`` as printed, in GB/s; ``wrong`` None: not checked, or an old version's
    error, which is a float. ``checked``: the column is not N/A, out of place and in place.
    """

    line: int
    size_bytes: int
    dtype: str
    redop: str | None
    root: int | None
    time_s: float
    algbw: float
    busbw: float
    wrong: int | None
    in_place_s: float | None
    checked: bool
    in_place_checked: bool


_DTYPE: Final = re.compile(r"[a-z][a-z0-9_]{2,15}")
_MOST_DIGITS: Final = 18


def is_row(cells: list[str]) -> bool:
    """Whether a line's cells begin as a row does: two counts and a data type.

    >>> is_row("1024 256 float".split()), is_row("8 GPUs found".split())
    (True, False)
    """
    return (
        len(cells) > 2
        and all(_is_count(cell) for cell in cells[:2])
        and _DTYPE.fullmatch(cells[2]) is not None
    )


def columns_of_row(cells: list[str]) -> Columns | None:
    """The columns of a row whose head was cut off, from how many there are; None: it fits none."""
    lead = {13: ["redop", "root"], 12: ["redop" if cells[3:4] and cells[3].isalpha() else "root"]}
    if len(cells) not in (11, 12, 13):
        return None
    names = ["size", "count", "type", *lead.get(len(cells), [])]
    block = [*_BLOCK, "#wrong"]
    return _columns([*names, *block, *block], len(names))


def row_of(cells: list[str], columns: Columns, line: int) -> Row | str:
    """A row by its table's columns, or why it is none."""
    if len(cells) <= max(columns.busbw, columns.wrong or 0):
        return "cut"
    time, algbw, busbw = (_number(cells[i]) for i in (columns.time, columns.algbw, columns.busbw))
    size_bytes = int(cells[0])
    if not size_bytes:
        return "size 0"
    if not time or algbw is None or busbw is None:
        return f"time {cells[columns.time]!r} is no positive number"
    after = [] if columns.in_place is None else cells[columns.in_place :]
    in_place = _number(after[0]) if len(after) > 1 else None
    return Row(
        line=line,
        size_bytes=size_bytes,
        dtype=cells[2],
        redop=None if columns.redop is None else cells[columns.redop],
        root=_root(None if columns.root is None else cells[columns.root]),
        time_s=time * columns.unit_s,
        algbw=algbw,
        busbw=busbw,
        wrong=None if columns.wrong is None else _wrong(cells[columns.wrong]),
        in_place_s=in_place * columns.unit_s if in_place else None,
        checked=columns.wrong is not None and cells[columns.wrong] != "N/A",
        in_place_checked=len(after) > 3 and after[3] != "N/A",
    )


def _is_count(cell: str) -> bool:
    return cell.isascii() and cell.isdigit() and len(cell) <= _MOST_DIGITS


def _wrong(cell: str) -> int | None:
    return int(cell) if _is_count(cell) else None


def _root(cell: str | None) -> int | None:
    return int(cell) if cell is not None and _is_count(cell) else None


def _number(cell: str) -> float | None:
    """A cell's number, None for N/A, for what is no number, is below 0 or is infinite."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if 0.0 <= number < 1e300 else None


_PROGRAM: Final = re.compile(r"(?<![A-Za-z0-9_])([a-z_]{3,20}?)_perf(?:_mpi)?(?![A-Za-z0-9_])")
_COLLECTIVES: Final = {
    "all_reduce": Collective.ALL_REDUCE,
    "all_gather": Collective.ALL_GATHER,
    "reduce_scatter": Collective.REDUCE_SCATTER,
    "alltoall": Collective.ALLTOALL,
    "alltoallv": Collective.ALLTOALLV,
    "broadcast": Collective.BROADCAST,
    "reduce": Collective.REDUCE,
    "sendrecv": Collective.SENDRECV,
}
PROGRAMS: Final = frozenset({*_COLLECTIVES, "gather", "scatter", "hypercube", "all_reduce_bias"})


def program_of(text: str) -> str | None:
    """The program of nccl-tests that a line names.

    >>> program_of("$ mpirun -n 16 ./build/all_reduce_perf_mpi -b 8 -e 1G"), program_of("x_perf")
    ('all_reduce', None)
    """
    return next((name for name in _PROGRAM.findall(text) if name in PROGRAMS), None)


def collective_of(program: str) -> Collective | None:
    """The collective of a program, None where the model has none such."""
    return _COLLECTIVES.get(program)


_VERSION: Final = re.compile(r"\b(R?NCCL|RCCL) version\s*:?\s*(\d{1,3}\.\d{1,3}(?:\.\d{1,3})?)")
_LIBRARY: Final = re.compile(r"\b([nr]ccl)-library=(\d{4,6})\b")


def library_of(text: str) -> str | None:
    """The library and its version that a line tells.

    >>> library_of("NCCL version 2.18.3+cuda12.2"), library_of("# nccl-library=22807")
    ('NCCL 2.18.3', 'NCCL 2.28.7')
    """
    if match := _VERSION.search(text):
        return f"{match[1]} {match[2]}"
    if match := _LIBRARY.search(text):
        code = int(match[2])
        return f"{match[1].upper()} {code // 10000}.{code // 100 % 100}.{code % 100}"
    return None


_BOUNDS: Final = re.compile(r"#\s*Out of bounds values\s*:\s*(\d{1,12})\s+(OK|FAILED)")
_FAILURE: Final = re.compile(r"(?:Test (?:NCCL|CUDA|HIP) failure|: Test failure) .{0,300}")


def out_of_bounds_of(text: str) -> int | None:
    """The count of wrong values in the footer."""
    match = _BOUNDS.match(text)
    return None if match is None else int(match[1])


def failure_of(text: str) -> str | None:
    """The words in which nccl-tests gives up."""
    match = _FAILURE.search(text)
    return None if match is None else match[0].strip()

"""Trace: latencies of single messages as they were measured, for noise that is drawn from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fleet.naming import counted
from topology.errors import MeasurementError
from topology.measured.sample_columns import (
    LARGEST_TABLE_BYTES,
    SampleTable,
    head_cells,
    parse_samples,
    read_measured,
)

FloatArray: TypeAlias = NDArray[np.float64]

LATENCY: Final = "latency_ns"
LINK_CLASS: Final = "link_class"
LEAST_ROWS: Final = 100
"""Fewer rows tell no tail at all: the largest of 100 is about a p99."""

WARM_UP_SHARE: Final = 0.02
"""Always dropped from the front: netgauge's authors drop the first 21 of each 1,000 samples."""

MOST_WARM_UP_SHARE: Final = 0.10
SLOW_QUANTILE: Final = 0.90
_NS: Final = 1e-9
_REMEDY: Final = f"give a CSV with column {LATENCY}, and {LINK_CLASS} if there are several"


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Latencies of messages by link class, warm-up left out.

    ``latencies_s``: by link class, or under None where the file tells none; ascending. [s]
    ``rows``: of the file; ``warm_up``: how many of them were dropped as such, by link class.
    """

    where: str
    rows: int
    latencies_s: Mapping[str | None, FloatArray]
    warm_up: Mapping[str | None, int]

    @property
    def warm_up_text(self) -> str:
        """What was dropped, and by which rule."""
        dropped = sum(self.warm_up.values())
        return (
            f"{dropped:,} of {counted(self.rows, 'row')} dropped as warm-up: the first "
            f"{WARM_UP_SHARE:.0%}, and what follows them as long as it lies above the "
            f"p{SLOW_QUANTILE * 100:.0f} of the second half, at most {MOST_WARM_UP_SHARE:.0%}; "
            f"at least {LEAST_ROWS} rows stay"
        )


def read_trace(path: str | Path) -> Trace:
    """Read a noise trace: CSV with column ``latency_ns`` and, optionally, ``link_class``.

    Further columns are ignored; ``-`` is stdin, gzip is unpacked.

    Raises:
        MeasurementError: it cannot be read, has no such column or fewer than 100 rows (of a link
            class, where it tells them), or holds what is no latency; told with its line.
    """
    content = read_measured(path, limit=LARGEST_TABLE_BYTES, remedy=_REMEDY)
    where = str(path)
    head = head_cells(content)
    if LATENCY not in head or len(set(head)) < len(head):
        fault = "a column twice among" if LATENCY in head else f"no column {LATENCY} among"
        text = f"{fault} {', '.join(head[:8])}"
        raise MeasurementError(text, where=where, field="line 1", remedy=_REMEDY)
    table = parse_samples(content, number=LATENCY, unit_s=_NS, labels=(LINK_CLASS,), where=where)
    return _trace(table, where)


def _trace(table: SampleTable, where: str) -> Trace:
    _refuse_few(len(table.samples_s), where=where, of="")
    by_class: Mapping[str | None, FloatArray] = {None: table.samples_s}
    if LINK_CLASS in table.labels:
        groups = table.groups((LINK_CLASS,))
        by_class = {name or None: samples for (name,), samples in groups.items()}
    for name, samples in by_class.items():
        _refuse_few(len(samples), where=where, of=f" of {LINK_CLASS} {name or 'left empty'}")
    warm_up = {
        name: min(warm_up_count(samples), len(samples) - LEAST_ROWS)
        for name, samples in by_class.items()
    }
    kept = {name: _ascending(samples[warm_up[name] :]) for name, samples in by_class.items()}
    return Trace(where, len(table.samples_s), kept, warm_up)


def _refuse_few(rows: int, *, where: str, of: str) -> None:
    if rows < LEAST_ROWS:
        text = f"{counted(rows, 'row')}{of}, which tell no tail"
        remedy = f"measure at least {LEAST_ROWS}"
        raise MeasurementError(text, where=where, field=LATENCY, remedy=remedy)


def warm_up_count(samples_s: FloatArray) -> int:
    """How many samples at the front are warm-up.

    The first 2 %, and what follows them as long as it lies above the p90 of the second half, at
    most 10 % in all: a slow start goes, a steady run loses hardly more than the 2 %.

    >>> warm_up_count(np.array([9.0] * 60 + [1.0, 2.0] * 470))
    60
    """
    count = len(samples_s)
    least, most = int(count * WARM_UP_SHARE), int(count * MOST_WARM_UP_SHARE)
    slow = samples_s[least:most] > np.quantile(samples_s[count // 2 :], SLOW_QUANTILE)
    return least + (int(np.argmin(slow)) if not slow.all() else most - least)


def _ascending(samples_s: FloatArray) -> FloatArray:
    ordered = np.sort(samples_s)
    ordered.setflags(write=False)
    return ordered

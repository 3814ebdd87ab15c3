"""What rows of nccl-tests show where its text does not tell: collective, ranks, unit of time.

busbw / algbw is a number of the collective and its ranks, algbw is size / time. No lines.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from topology.collective.schedule import busbw_factor
from topology.errors import MeasurementError
from topology.measured.nccl_lines import Row
from topology.words import Collective

MOST_RANKS: Final = 4096
"""More ranks than this are not told from busbw / algbw: no digits are left."""


def ranks_by_ratio(rows: Sequence[Row], collective: Collective | None) -> int:
    """How many ranks explain busbw / algbw within what was printed, if only one number does.

    Raises:
        MeasurementError: several numbers do, or none.
    """
    factors = ((n, busbw_factor(collective, n)) for n in range(2, MOST_RANKS + 1) if collective)
    fitting = [n for n, factor in factors if _explains(rows, factor)]
    if len(fitting) != 1:
        raise MeasurementError("the ranks are not told", remedy="keep the lines '# Rank ...'")
    return fitting[0]


_ROUNDING: Final = 0.006
"""Half of the last digit of algbw and busbw, in GB/s, and a little more."""


def _explains(rows: Sequence[Row], factor: float) -> bool:
    """Whether busbw is algbw times the factor in every row, as far as their digits tell."""
    return all(
        abs(row.busbw - row.algbw * factor) <= _ROUNDING * (1 + factor) + 1e-6 * row.busbw
        for row in rows
    )


def collective_by_rows(rows: Sequence[Row], ranks: int, given: Collective | None) -> Collective:
    """The collective as given, where the rows can be of it, else by what they show.

    Raises:
        MeasurementError: they cannot be of it, or can be of several.
    """
    possible = _possible(rows, ranks)
    if given is not None:
        if given not in possible and given is not Collective.ALLTOALLV:
            raise MeasurementError(f"busbw / algbw is not that of {given} with {ranks} ranks")
        return given
    if len(possible) != 1:
        words = " or ".join(possible) or "none that is known"
        raise MeasurementError(f"the collective is not told: {words}", remedy="give --collective")
    return possible[0]


_REDUCING: Final = (Collective.ALL_REDUCE, Collective.REDUCE_SCATTER, Collective.REDUCE)
_ROOTED: Final = (Collective.BROADCAST, Collective.REDUCE)
_EXCHANGES: Final = (Collective.ALL_GATHER, Collective.ALLTOALL)
_BY_NAME_ONLY: Final = (Collective.ALLTOALLV,)


def _possible(rows: Sequence[Row], ranks: int) -> list[Collective]:
    """The collectives whose busbw / algbw, reduction and root are those of the rows."""
    reduces = rows[0].redop not in (None, "none")
    rooted = rows[0].root is not None
    found: list[Collective] = [
        collective
        for collective in Collective
        if collective not in _BY_NAME_ONLY
        and (collective in _REDUCING) == reduces
        and (collective in _ROOTED) == rooted
        and _explains(rows, busbw_factor(collective, ranks))
    ]
    if tuple(found) == _EXCHANGES and all(row.checked for row in rows):
        # An all-to-all cannot be done in place, so that check is N/A.
        in_place = all(row.in_place_checked for row in rows)
        return [Collective.ALL_GATHER if in_place else Collective.ALLTOALL]
    return found


def in_seconds(rows: Sequence[Row]) -> tuple[Sequence[Row], tuple[str, ...]]:
    """The rows with times that agree with size and algbw, and a note: some tables are in ms.

    Raises:
        MeasurementError: time, size and algbw do not agree in any known unit.
    """
    ratios = [row.size_bytes / row.time_s / (row.algbw * 1e9) for row in rows if row.algbw >= 1.0]
    off = float(np.median(ratios)) if ratios else 1.0
    if 1 / _DISAGREE < off < _DISAGREE:
        return rows, ()
    if 1e3 / _DISAGREE < off < 1e3 * _DISAGREE:
        in_ms = [
            replace(
                row, time_s=row.time_s * 1e3, in_place_s=row.in_place_s and row.in_place_s * 1e3
            )
            for row in rows
        ]
        return in_ms, ("times are in ms, by algbw",)
    raise MeasurementError(
        f"size / time is {off:.3g} times algbw", remedy="keep the columns as printed"
    )


_DISAGREE: Final = 1.5
"""Size / time against algbw: what is further apart is another unit or another column."""

"""Size sweep: one collective over sizes on some maps, and from which size on another map is faster.

The ranks are packed on each map. Nothing is printed or drawn here.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, TypeAlias

from fleet.naming import counted
from topology.collective.placement import Placement, pack
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.latency.monte_carlo import Progress
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.latency.summary import LatencySummary

EVEN: Final = 1.02
"""Times that differ by a smaller factor are the same to us, as in a plan: on nobody's side."""

CellNotice: TypeAlias = Callable[[str, int, str], None]
"""Told map, size and words before a cell that will take long."""


@dataclass(frozen=True, slots=True, eq=False)
class NamedFabric:
    """A fabric and what its map is called."""

    name: str
    fabric: Fabric


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One size: a summary for each map, in their order."""

    size_bytes: int
    summaries: tuple[LatencySummary, ...]

    def ratio(self, which: int, key: str = "p99_s") -> float | None:
        """A map's percentile over the first map's; None where trials do not tell one of them."""
        own, first = (self.summaries[i].percentiles[key] for i in (which, 0))
        return None if own is None or first is None else own / first


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where the faster of two maps changes: between two sizes, about at ``at_bytes``.

    ``below`` has the lower p99 up to ``low_bytes``, ``above`` from ``high_bytes`` on.
    """

    below: str
    above: str
    low_bytes: int
    high_bytes: int
    at_bytes: float
    at_s: float


@dataclass(frozen=True, slots=True)
class SizeSweep:
    """A collective over sizes on some maps, by size; ``scenario`` is that of the last size."""

    maps: tuple[str, ...]
    ranks: int
    scenario: Scenario
    rows: tuple[SweepRow, ...]

    @property
    def sizes_bytes(self) -> tuple[int, ...]:
        """Its sizes, ascending."""
        return tuple(row.size_bytes for row in self.rows)

    def crossings(self) -> tuple[Crossing, ...]:
        """All changes of side at p99 between the first map and another."""
        return tuple(crossing for which in range(1, len(self.maps)) for crossing in self._of(which))

    def _of(self, which: int) -> Iterator[Crossing]:
        """Changes between the first map and this one; what is even is on nobody's side."""
        told = [_Side(row, math.log(r)) for row in self.rows if (r := row.ratio(which)) is not None]
        decided = [i for i, side in enumerate(told) if abs(side.log_ratio) > math.log(EVEN)]
        for i, j in pairwise(decided):
            if (told[i].log_ratio > 0) != (told[j].log_ratio > 0):
                names = self.maps[0], self.maps[which]
                below, above = names if told[i].log_ratio > 0 else names[::-1]
                low, high = (told[k].row.size_bytes for k in (i, j))
                yield Crossing(below, above, low, high, *_meeting(told[i : j + 1]))


@dataclass(frozen=True, slots=True)
class _Side:
    """A size, and the logarithm of a map's p99 over the first's."""

    row: SweepRow
    log_ratio: float


def _meeting(sides: Sequence[_Side]) -> tuple[float, float]:
    """Size and time at which two maps first meet, straight between two sizes in logarithms."""
    low, high = next(pair for pair in pairwise(sides) if pair[0].log_ratio * pair[1].log_ratio <= 0)
    share = low.log_ratio / (low.log_ratio - high.log_ratio)
    ends = [side.row.summaries[0].percentiles["p99_s"] for side in (low, high)]
    first_s, last_s = (end for end in ends if end is not None)
    first_bytes, last_bytes = low.row.size_bytes, high.row.size_bytes
    at_bytes = first_bytes * (last_bytes / first_bytes) ** share
    return at_bytes, first_s * (last_s / first_s) ** share


def sweep_sizes(
    maps: Sequence[NamedFabric],
    sizes_bytes: Sequence[int],
    scenario: Scenario,
    *,
    ranks: int | None = None,
    progress: Progress | None = None,
    notice: CellNotice | None = None,
) -> SizeSweep:
    """Simulate a scenario with each size on each map.

    ``ranks`` None: as many as the smallest map has. ``progress`` is told how many runs of how many
    are done.

    Raises:
        WorkloadError: a map with fewer GPUs than asked (it is named), sizes that do not ascend.
        ScheduleError: the named algorithm does not do this; the message names those that do.
        UnreachableError: ranks that no known link joins.
    """
    check_ascending(sizes_bytes)
    count = min(len(named.fabric.endpoints) for named in maps) if ranks is None else ranks
    placed = [(named, _packed(named, count)) for named in maps]
    cells = [(size, named, placement) for size in sizes_bytes for named, placement in placed]
    summaries: list[LatencySummary] = []
    for size_bytes, named, placement in cells:
        asked = replace(scenario, size_bytes=size_bytes)
        told = _about_cell(notice, named.name, size_bytes)
        summaries.append(simulate(named.fabric, placement, asked, notice=told))
        if progress is not None:
            progress(len(summaries), len(cells))
    groups = zip(*[iter(summaries)] * len(maps), strict=True)
    rows = zip(sizes_bytes, groups, strict=True)
    names = tuple(named.name for named in maps)
    return SizeSweep(names, count, scenario, tuple(SweepRow(*row) for row in rows))


def check_ascending(sizes_bytes: Sequence[int]) -> None:
    """Refuse sizes that fall or stand twice.

    Raises:
        WorkloadError: no size, or one that is not above the one before it.
    """
    if not sizes_bytes:
        raise WorkloadError("no size", field="--sizes", remedy="give one, or a range as 8..1GiB")
    for before, after in pairwise(sizes_bytes):
        if after <= before:
            raise WorkloadError(
                f"{after:,} bytes after {before:,}", field="--sizes", remedy="let sizes ascend"
            )


def _packed(named: NamedFabric, ranks: int) -> Placement:
    there = len(named.fabric.endpoints)
    if ranks > there:
        raise WorkloadError(
            f"{counted(ranks, 'rank')} asked, the map has {there}",
            where=named.name,
            field="--gpus",
            remedy=f"ask for {there} or fewer",
        )
    return pack(named.fabric, ranks)


def _about_cell(
    notice: CellNotice | None, name: str, size_bytes: int
) -> Callable[[str], None] | None:
    if notice is None:
        return None
    return lambda text: notice(name, size_bytes, text)

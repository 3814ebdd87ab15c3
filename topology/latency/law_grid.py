"""Law grid: which grid a law needs, told by a pilot of it on few cells. No schedule."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from topology.latency.law import Grid, Law

PILOT_CELLS: Final = 2**11
"""Cells of a pilot: a tenth of the cost of the law itself."""

MOST_PILOTS: Final = 4


def piloted(make: Callable[[Grid], Law], *, end_s: float, last: float) -> Law:
    """A law on few cells that reach to its ``last`` percentile; twice as long until they do.

    ``end_s``: a first guess of how far from its origin that is.
    """
    grid = Grid(end_s / PILOT_CELLS, PILOT_CELLS)
    for _ in range(MOST_PILOTS):
        law = make(grid)
        if law.beyond <= (1 - last) / 2:
            break
        grid = Grid(2 * grid.step_s, grid.cells)
    return law


def fitting_grid(
    pilot: Law,
    *,
    resolution: float,
    last: float,
    shares: Sequence[float] = (0.5, 0.99, 0.999),
    finest_s: float = 0.0,
    most_cells: int = 2**15,
) -> Grid:
    """A grid that reaches to the ``last`` percentile, as coarse as the brackets may be wide.

    Brackets widen with the cells: at each of ``shares`` to the part ``resolution`` of the time.
    ``finest_s``: shorter cells would not help.
    """
    pilot_s = pilot.grid.step_s
    brackets = [pilot.quantile(q) for q in shares]
    widest_s = resolution * min(low / max(high - low, pilot_s) for low, high in brackets) * pilot_s
    step_s = max(finest_s, widest_s) or pilot_s
    end_s = min(pilot.quantile(last)[1] - pilot.origin_s, pilot_s * pilot.grid.cells)
    cells = max(64, math.ceil(end_s / step_s) + 1)
    return Grid(step_s, cells) if cells <= most_cells else Grid(end_s / most_cells, most_cells)

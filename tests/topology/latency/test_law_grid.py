"""Which grid a law needs: brackets as narrow as asked, as far as asked, and no finer."""

import math
from functools import partial

import numpy as np
import pytest

from topology.latency.law import Grid, Law, from_survival
from topology.latency.law_grid import PILOT_CELLS, fitting_grid, piloted


def twenty_exponentials(grid: Grid, *, n: int = 20) -> Law:
    step = from_survival(grid, 0.0, np.exp(-grid.step_s * np.arange(grid.cells)))
    return step.shifted(1.0).times(n)


def test_a_pilot_is_made_longer_until_it_holds_what_is_asked() -> None:
    for end_s in (5.0, 20.0, 200.0):
        pilot = piloted(twenty_exponentials, end_s=end_s, last=0.999)
        assert pilot.grid.cells == PILOT_CELLS
        assert pilot.beyond <= 5e-4
        assert pilot.quantile(0.999)[1] < math.inf


@pytest.mark.parametrize("resolution", [0.02, 0.005])
def test_the_grid_makes_brackets_as_narrow_as_asked_and_not_much_narrower(
    resolution: float,
) -> None:
    pilot = piloted(twenty_exponentials, end_s=60.0, last=0.99999)
    law = twenty_exponentials(fitting_grid(pilot, resolution=resolution, last=0.99999))
    ratios = [high / low - 1 for low, high in map(law.quantile, (0.5, 0.99, 0.999))]
    assert 0.7 * resolution < max(ratios) < 1.05 * resolution
    assert law.beyond < 1e-4


def test_a_limit_on_cells_or_on_fineness_is_kept() -> None:
    pilot = piloted(twenty_exponentials, end_s=60.0, last=0.99999)
    fit = partial(fitting_grid, pilot, resolution=1e-4, last=0.99999)
    assert fit(most_cells=3_000).cells == 3_000
    assert fit(finest_s=0.05).step_s == 0.05


def test_a_bracket_that_is_one_value_asks_for_nothing_finer() -> None:
    certain = piloted(partial(twenty_exponentials, n=0), end_s=1.0, last=0.999)
    assert fitting_grid(certain, resolution=0.01, last=0.999).cells >= 64

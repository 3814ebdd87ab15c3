"""Law noise: the law of one message's jitter, from the figures of its route class."""

import math
from functools import lru_cache
from typing import Final

import numpy as np

from topology.fabric.link_figures import Jitter
from topology.latency.law import ALIGNED, Grid, Law, from_survival, mixture, point
from topology.latency.law_rows import FloatArray, from_tails, placed

FINER: Final = 4
"""So many cells to one, where body and detour are added for a law of one row."""


@lru_cache(maxsize=512)
def noise_law(grid: Grid, jitter: Jitter) -> Law:
    """The law of one message's jitter around its time without noise. [s]

    ``LogNormal(median, sigma) - median + Bernoulli(p) min(LogNormal, cap)``
    """
    body, p = _body(grid, jitter), jitter.detour_probability
    if not p:
        return body
    length = _detour(grid, jitter)
    return body.plus(mixture([(1 - p, point(grid, 0.0)), (p, length)]))


@lru_cache(maxsize=512)
def one_row_noise_law(grid: Grid, jitter: Jitter) -> Law:
    """The same in one row where there is a body: sums cost half, and are 1 / FINER wider. [s]

    On finer cells body and detour lie ``lag`` of them apart from their sum's upper bound. What ends
    within a cell is put on its start, so that the upper bound is ``1 + (lag - 1) / FINER`` cells
    later: P(X > t) falls, and at a cell's last finer one the lower bound's is at most it.
    """
    finer = Grid(grid.step_s / FINER, grid.cells * FINER)
    body, p = _body(finer, jitter), jitter.detour_probability
    if body.is_point or not p:
        return noise_law(grid, jitter)
    both = body.plus(_detour(finer, jitter))
    offset = (both.origin_s - body.origin_s) / finer.step_s
    cell = math.floor(offset + ALIGNED)
    size = FINER * -(-(max(both.rows.cells + cell, body.rows.cells)) // FINER)
    tails = p * placed(both.rows.high, cell, size, both.beyond)
    tails += (1 - p) * placed(body.rows.high, 0, size, body.beyond)
    lag = max(body.lag, both.lag + max(offset - cell, 0.0))
    ends = (law.rows.held + at for law, at in ((body, 0), (both, cell)) if law.beyond)
    held = min(ends, default=size - 1) // FINER
    rows = from_tails(_last_of_each(tails)[None], grid.cells, held)
    return Law(grid, body.origin_s, rows, 1 + (lag - 1) / FINER, both.error)


def _last_of_each(tails: FloatArray) -> FloatArray:
    """Of every FINER cells the last."""
    return np.ascontiguousarray(tails[FINER - 1 :: FINER])


def _body(grid: Grid, jitter: Jitter) -> Law:
    median_s, sigma = jitter.body_median_s, jitter.body_sigma
    if not (median_s and sigma):
        return point(grid, 0.0)
    return _log_normal(grid, median_s, sigma, math.inf).shifted(-median_s)


def _detour(grid: Grid, jitter: Jitter) -> Law:
    median_s, cap_s = jitter.detour_median_s, jitter.detour_cap_s
    if not jitter.detour_sigma:
        return point(grid, min(median_s, cap_s))
    return _log_normal(grid, median_s, jitter.detour_sigma, cap_s)


def _log_normal(grid: Grid, median_s: float, sigma: float, cap_s: float) -> Law:
    """min(LogNormal, cap); an uncapped one ends at its 1 - 1e-18 quantile."""
    end_s = min(cap_s, median_s * math.exp(_LAST_Z * sigma))
    cells = min(math.floor(end_s / grid.step_s) + 2, grid.cells)
    log_step, log_median = math.log(grid.step_s), math.log(median_s)
    above = np.ones(cells)
    scale = 1 / (sigma * math.sqrt(2))
    place = (log_step + np.log(np.arange(1, cells)) - log_median) * scale
    above[1:] = [0.5 * math.erfc(z) for z in place.tolist()]
    above[np.arange(cells) * grid.step_s >= end_s] = 0.0
    return from_survival(grid, 0.0, above)


_LAST_Z: Final = 8.7573
"""The standard normal's 1 - 1e-18 quantile."""

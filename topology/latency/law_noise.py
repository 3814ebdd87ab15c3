"""Law noise: the law of one message's jitter, from the figures of its route class."""

import math
from functools import lru_cache
from typing import Final

import numpy as np

from topology.fabric.link_figures import Jitter
from topology.latency.law import Grid, Law, from_survival, mixture, point


@lru_cache(maxsize=512)
def noise_law(grid: Grid, jitter: Jitter) -> Law:
    """The law of one message's jitter around its time without noise. [s]

    ``LogNormal(median, sigma) - median + Bernoulli(p) min(LogNormal, cap)``
    """
    body = point(grid, 0.0)
    if jitter.body_median_s and jitter.body_sigma:
        median_s, sigma = jitter.body_median_s, jitter.body_sigma
        body = _log_normal(grid, median_s, sigma, math.inf).shifted(-median_s)
    p = jitter.detour_probability
    if not p:
        return body
    length = _detour(grid, jitter)
    return body.plus(mixture([(1 - p, point(grid, 0.0)), (p, length)]))


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

"""Trace noise: messages delayed as a measured trace was, with the interface of ``MessageNoise``.

What a latency of the trace exceeds its median by is added around the route's alpha: a trace tells
the shape of the noise, not how long the way is. Draws are independent.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from topology.errors import WorkloadError
from topology.latency.law import Grid, Law, bracketed, from_quantiles
from topology.latency.noise import LAST, TABLE_SIZE, FloatArray, add_from_table

LEAST_SAMPLES: Final = 100
"""Of fewer latencies the largest is no p99."""


@dataclass(frozen=True, slots=True, eq=False)
class TraceNoise:
    """A trace, ready to draw from.

    ``excess_s``: latency less median, shape (samples,), ascending; equally likely, and evenly
    spread between neighbours. ``table_s``: the middles of 8,192 equally likely cells; what falls
    into the last of them is drawn from the trace itself. [s]
    """

    excess_s: FloatArray
    table_s: FloatArray

    def add_to(self, arrival_s: FloatArray, rng: np.random.Generator) -> None:
        """Add a draw to every element, in place; the array must be contiguous."""
        flat = arrival_s.reshape(-1)
        far = add_from_table(flat, self.table_s, rng)
        if far.size:
            share = 1.0 - (1.0 - rng.random(far.size)) / TABLE_SIZE
            flat[far] += quantiles_s(self.excess_s, share) - self.table_s[LAST]

    def law(self, grid: Grid) -> Law:
        """The law of one draw, certified: row 0 at or below it, row 1 at or above. [s]

        Between neighbours the lower one is below and the upper one above whatever is drawn.
        """
        excess_s = self.excess_s
        low_s = np.concatenate([excess_s[:1], excess_s[:-1]])
        high_s = np.concatenate([excess_s[1:], excess_s[-1:]])
        return bracketed(from_quantiles(grid, low_s), from_quantiles(grid, high_s))

    @property
    def least_s(self) -> float:
        """The least that is added: below 0, as the median adds nothing. [s]"""
        return float(self.excess_s[0])

    @property
    def most_s(self) -> float:
        """The most that is added. [s]"""
        return float(self.excess_s[-1])


def trace_noise(latencies_s: FloatArray) -> TraceNoise:
    """The noise of a trace of single messages' latencies, shape (samples,), ascending. [s]

    Raises:
        WorkloadError: fewer than 100, or not ascending, finite and positive.
    """
    values_s = np.asarray(latencies_s, dtype=np.float64)
    if values_s.ndim != 1 or len(values_s) < LEAST_SAMPLES:
        _refuse(f"{values_s.size} latencies", f"give a trace of at least {LEAST_SAMPLES}")
    if not np.isfinite(values_s).all() or values_s[0] <= 0:
        _refuse("a latency that is not finite and above 0", "leave it out of the trace")
    if (np.diff(values_s) < 0).any():
        _refuse("latencies out of order", "give them ascending")
    excess_s = values_s - np.median(values_s)
    middles = (np.arange(TABLE_SIZE) + 0.5) / TABLE_SIZE
    noise = TraceNoise(excess_s, quantiles_s(excess_s, middles))
    for array in (noise.excess_s, noise.table_s):
        array.setflags(write=False)
    return noise


def quantiles_s(values_s: FloatArray, share: FloatArray) -> FloatArray:
    """Quantiles of equally likely values, ascending, each the middle of its cell. [s]

    Between them a line; beyond the ends their value.
    """
    place = np.clip(share * len(values_s) - 0.5, 0, len(values_s) - 1)
    below = place.astype(np.int64)
    above = np.minimum(below + 1, len(values_s) - 1)
    return np.asarray(values_s[below] + (values_s[above] - values_s[below]) * (place - below))


def _refuse(text: str, remedy: str) -> None:
    raise WorkloadError(text, field="--noise", remedy=remedy)

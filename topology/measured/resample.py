"""Resampling: a collective replayed with latencies of messages that were measured.

Knows a message's law by a few published percentiles, as tables print them. No file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.collective.algorithms import build_schedules
from topology.collective.layout import RankLayout
from topology.collective.stages import Request
from topology.errors import MeasurementError
from topology.latency.cost import Costs, RoundCost
from topology.latency.monte_carlo import Noise, sample_s
from topology.words import Collective

FloatArray: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class QuantileLaw:
    """A law through published quantiles, straight in ``ln x`` over ``-ln(1 - q)`` between them.

    Below the first quantile every draw is that quantile, above the last one it is the last: what
    nobody published is not made up. From a median on, the first errs on the high side.
    ``exceed``: shape (k,), ``-ln(1 - q)``; ``log_s``: shape (k,), ``ln`` of seconds.
    """

    exceed: FloatArray
    log_s: FloatArray

    def add_to(self, arrival_s: FloatArray, rng: np.random.Generator) -> None:
        """Add a draw to every element, in place."""
        draws = rng.standard_exponential(arrival_s.shape)
        arrival_s += np.exp(np.interp(draws, self.exceed, self.log_s))

    def quantile_s(self, q: float) -> float:
        """The q-quantile. [s]"""
        return float(np.exp(np.interp(-np.log1p(-q), self.exceed, self.log_s)))


def quantile_law(
    quantiles_s: Mapping[float, float], *, largest_s: float, count: int
) -> QuantileLaw:
    """A law from quantiles and the largest of ``count`` samples, taken as that of 1 - 1/(count+1).

    >>> law = quantile_law({0.5: 2e-6, 0.99: 4e-6}, largest_s=9e-6, count=9_999)
    >>> [f"{law.quantile_s(q) * 1e6:.2f}" for q in (0.1, 0.5, 0.9, 0.99)]
    ['2.00', '2.00', '2.66', '4.00']

    Raises:
        MeasurementError: no quantile, one outside 0 to 1, or values that are not above 0 or fall.
    """
    points = dict(sorted(quantiles_s.items())) | {1 - 1 / (count + 1): largest_s}
    levels, values = np.array(list(points)), np.array(list(points.values()))
    if not quantiles_s or not ((levels > 0) & (levels < 1)).all() or (np.diff(levels) <= 0).any():
        text = f"quantiles at {', '.join(f'{q:g}' for q in points)}"
        remedy = "give them between 0 and 1, below that of the largest"
        raise MeasurementError(text, field="quantiles", remedy=remedy)
    if not (values > 0).all() or (np.diff(values) < 0).any():
        text = f"values {', '.join(f'{value:g}' for value in values)}"
        raise MeasurementError(text, field="quantiles", remedy="give rising values above 0")
    return QuantileLaw(-np.log1p(-levels), np.log(values))


def recursive_doubling_s(
    law: Noise, *, ranks: int, trials: int, rng: np.random.Generator, message_s: float = 0.0
) -> FloatArray:
    """Completion of a small all-reduce among equal partners, shape (trials,). [s]

    Each message takes ``message_s`` and a draw of ``law``. With ranks a power of two it has the
    rounds and, for each rank, the very law of a dissemination barrier.
    """
    alone = tuple((rank,) for rank in range(ranks))
    layout = RankLayout(ranks, alone, alone, (False,) * ranks, (tuple(range(ranks)),), ())
    request = Request(Collective.ALL_REDUCE, layout)
    (schedule,) = build_schedules("recursive_doubling", request)
    rounds = []
    for round_ in schedule.rounds:
        nothing = np.zeros(round_.transfers)
        wire_s = np.full(round_.transfers, message_s)
        jitter = np.zeros(round_.transfers, dtype=np.int64)
        rounds.append(RoundCost(round_, wire_s, nothing, nothing, jitter))
    costs = Costs(schedule, 0.0, 0.0, tuple(rounds), ("measured",))
    return sample_s(costs, [law], trials=trials, rng=rng)

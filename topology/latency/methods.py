"""Methods: how a scenario's percentiles are found, and what each puts into a summary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from topology.errors import ScheduleError, WorkloadError
from topology.latency.cost import Costs
from topology.latency.exact import exact_law, why_not_exact
from topology.latency.noise import MessageNoise
from topology.latency.ring_bounds import HopColumns, hop_law, ring_bracket_s
from topology.latency.scaling import ring_from_costs, ring_time
from topology.latency.summary import PERCENTILES
from topology.words import MethodName

Range = tuple[float, float | None]

WIDEST_RATIO: Final = 0.02
"""A certified p99 whose bracket is wider than this does not take the place of a replay."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a method without trials finds. ``bracket``: certified; ``interval``: by draws. [s]"""

    method: MethodName
    mean_s: float
    percentiles: dict[str, float | None]
    bracket: dict[str, Range] | None
    interval: dict[str, Range] | None


def find(method: MethodName, costs: Costs, noises: Sequence[MessageNoise], *, seed: int) -> Found:
    """Percentiles by a named method.

    Raises:
        ScheduleError: exact cannot do this schedule; the message says why.
        WorkloadError: scaling does not hold for it; the message says why.
    """
    return (
        by_exact(costs, noises) if method is MethodName.EXACT else by_scaling(costs, noises, seed)
    )


def instead_of_long_replay(
    costs: Costs, noises: Sequence[MessageNoise], *, seed: int
) -> Found | None:
    """Percentiles of what takes too long to replay, None where no other method applies."""
    try:
        if why_not_exact(costs, [noise.jitter for noise in noises]) is None:
            found = by_exact(costs, noises)
            if _is_narrow(found):
                return found
        return by_scaling(costs, noises, seed)
    except (ScheduleError, WorkloadError):
        return None


def by_exact(costs: Costs, noises: Sequence[MessageNoise]) -> Found:
    """By distribution algebra, certified.

    Raises:
        ScheduleError: a schedule that it cannot do.
    """
    law = exact_law(costs, noises)
    return Found(MethodName.EXACT, law.mean_s, law.central_s, law.bracket, None)


def by_scaling(costs: Costs, noises: Sequence[MessageNoise], seed: int) -> Found:
    """By the law of growth of long rings, with bounds on both sides.

    Raises:
        WorkloadError: no ring, or one that is too short or not alike enough.
    """
    ring = ring_from_costs(costs, noises)
    time = ring_time(ring, np.random.default_rng(seed))
    hops = HopColumns(ring.message_s, ring.law_of, [hop_law(noise.jitter) for noise in noises])
    bracket: dict[str, Range] = {}
    for name, q in PERCENTILES.items():
        low, high = ring_bracket_s(
            hops, ranks=ring.ranks, steps=ring.steps, q=q, channels=ring.channels
        )
        bracket[name] = (low + ring.start_s, high + ring.start_s)
    return Found(
        MethodName.SCALING,
        time.mean_s,
        {name: time.quantile_s(q) for name, q in PERCENTILES.items()},
        bracket,
        {name: time.interval_s(q) for name, q in PERCENTILES.items()},
    )


def _is_narrow(found: Found) -> bool:
    low, high = (found.bracket or {}).get("p99_s", (0.0, None))
    return high is not None and high - low <= WIDEST_RATIO * low

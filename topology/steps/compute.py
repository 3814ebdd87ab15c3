"""Draws of compute: log-normal times of ranks, with what they share in a step."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.steps.document import StepDocument

FloatArray: TypeAlias = NDArray[np.float64]

_KEY: Final = 2**31
"""Key of the streams of compute: no collective has so high a number."""


@dataclass(slots=True, eq=False)
class ComputeDraws:
    """A stream each for single times, for what is common to all, and for ranks."""

    step: StepDocument
    ranks: int
    seed: int
    _own: np.random.Generator = field(init=False)
    _common: np.random.Generator = field(init=False)
    _rank: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        streams = np.random.SeedSequence(self.seed, spawn_key=(_KEY,)).spawn(3)
        self._own, self._common, self._rank = map(np.random.default_rng, streams)

    def of_steps(self, trials: int) -> Callable[[float, float], FloatArray]:
        """Durations by mean and spread in the next so many steps, shape (ranks, trials). [s]"""
        shape = self.ranks, trials
        common = factors(self.step.common_spread_ratio, (1, trials), self._common)
        shared = common * factors(self.step.rank_spread_ratio, shape, self._rank)

        def durations(time_s: float, spread_ratio: float) -> FloatArray:
            own = factors(spread_ratio, shape, self._own)
            return np.broadcast_to(time_s * (own * shared), shape)

        return durations


def factors(spread_ratio: float, shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Log-normal factors of mean 1 with this coefficient of variation; 1 without spread.

    ``exp(s z - s^2 / 2)`` with ``s^2 = ln(1 + spread_ratio^2)``.
    """
    if not spread_ratio:
        return np.ones((1, 1))
    sigma = math.sqrt(math.log1p(spread_ratio**2))
    drawn = rng.standard_normal(shape)
    drawn *= sigma
    drawn -= sigma * sigma / 2
    return np.exp(drawn, out=drawn)

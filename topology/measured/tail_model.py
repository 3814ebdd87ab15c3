"""Tail models: laws that carry a percentile beyond the samples, by name only, and told as such."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fleet.units import text_from_seconds
from topology.words import TailModel

FloatArray: TypeAlias = NDArray[np.float64]

LEAST_FOR_FIT: Final = 20
"""Values that a fit of two parameters is made from, at least."""

FLOOR_RATIO: Final = 0.98
"""Floor of a shifted log-normal, as a share of the least sample: published fits of fabric traces
took it so (samples of "Noise in the Clouds")."""

THRESHOLD: Final = 0.90
"""The quantile above which a Pareto tail is fitted."""

_PLOTTING: Final = 0.35
_LEAST_MOMENT: Final = 1e-15


@dataclass(frozen=True, slots=True)
class LognormalFit:
    """``floor_s + LogNormal(median_s, sigma)``, by maximum likelihood of the logarithms."""

    floor_s: float
    median_s: float
    sigma: float
    text: str

    def quantile_s(self, q: float) -> float:
        """The q-quantile. [s]"""
        return self.floor_s + self.median_s * math.exp(self.sigma * NormalDist().inv_cdf(q))


@dataclass(frozen=True, slots=True)
class ParetoFit:
    """A generalised Pareto law above a threshold, by probability-weighted moments.

    ``P(X > threshold + y) = above_share (1 + shape y / scale)^(-1 / shape)``.
    """

    threshold_s: float
    above_share: float
    scale_s: float
    shape: float
    text: str

    def quantile_s(self, q: float) -> float:
        """The q-quantile, for q at or above the threshold's. [s]"""
        log_ratio = math.log(self.above_share / (1 - q))
        if abs(self.shape) < 1e-9:
            return self.threshold_s + self.scale_s * log_ratio
        return self.threshold_s + self.scale_s * math.expm1(self.shape * log_ratio) / self.shape


def fit_tail(samples_s: FloatArray, model: TailModel) -> LognormalFit | ParetoFit | str:
    """The law fitted to ascending samples, or why it cannot be."""
    match model:
        case TailModel.LOGNORMAL:
            return fit_lognormal(samples_s)
        case TailModel.GPD:
            return fit_pareto(samples_s)


def fit_lognormal(samples_s: FloatArray) -> LognormalFit | str:
    """A floor of 0.98 of the least sample, and a log-normal of what lies above it."""
    if len(samples_s) < LEAST_FOR_FIT:
        return f"{len(samples_s)} samples, a log-normal is fitted to {LEAST_FOR_FIT} at least"
    floor_s = FLOOR_RATIO * float(samples_s[0])
    logs = np.log(samples_s - floor_s)
    median_s, sigma = math.exp(float(logs.mean())), float(logs.std())
    text = (
        f"log-normal of {len(samples_s):,} samples by maximum likelihood: "
        f"floor {text_from_seconds(floor_s)}, "
        f"median {text_from_seconds(median_s)} above it, sigma {sigma:.2f}"
    )
    return LognormalFit(floor_s, median_s, sigma, text)


def fit_pareto(samples_s: FloatArray) -> ParetoFit | str:
    """A generalised Pareto law of what lies above the p90 (Hosking and Wallis, 1987).

    ``a0 = mean(y)``, ``a1 = mean((1 - p) y)``: shape ``2 - a0 / (a0 - 2 a1)`` and scale
    ``2 a0 a1 / (a0 - 2 a1)``. From a shape of 0.5 on these moments say little.
    """
    first = math.ceil(THRESHOLD * len(samples_s))
    excess = samples_s[first:] - samples_s[first - 1] if first else samples_s[:0]
    if len(excess) < LEAST_FOR_FIT:
        least = round(LEAST_FOR_FIT / (1 - THRESHOLD))
        return f"{len(samples_s)} samples, a Pareto tail above the p90 needs {least} at least"
    beyond = 1 - (np.arange(1, len(excess) + 1) - _PLOTTING) / len(excess)
    a0, a1 = float(excess.mean()), float((beyond * excess).mean())
    if a0 - 2 * a1 <= _LEAST_MOMENT * a0 or a0 <= 0:
        return "the samples above the p90 are all alike: no Pareto tail"
    shape, scale_s = 2 - a0 / (a0 - 2 * a1), 2 * a0 * a1 / (a0 - 2 * a1)
    heavy = ", too heavy to be told well" if shape >= 0.5 else ""
    text = (
        f"generalised Pareto of the {len(excess):,} samples above the p90 "
        f"({text_from_seconds(float(samples_s[first - 1]))}) by probability-weighted moments: "
        f"shape {shape:.2f}, scale {text_from_seconds(scale_s)}{heavy}"
    )
    share = len(excess) / len(samples_s)
    return ParetoFit(float(samples_s[first - 1]), share, scale_s, shape, text)

"""Rare detours of a ring: what delays that no window shows add to the completion of a long ring.

A delay of length D at one message adds to another only where the first can have caused it: the most
that is gained along one path is the longest chain of points in the plane (Hammersley), about
sqrt(rate) D for each step. No figures of links: rates and lengths come as arguments.
"""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topology.latency.noise import MessageNoise
from topology.latency.ring_growth import growth_units

FloatArray = NDArray[np.float64]

SEEN_OFTEN: Final = 12.0
"""Detours of a rate of (12 / steps)^2 or more meet a path some twelve times in a window of steps:
their speed is then known to some per cent."""

SEEN_ONCE: Final = 1.0
"""So of the longer ones among more frequent detours: only what no window shows is added apart."""

LENGTHS: Final = 512
"""Equally likely lengths that stand for the law of a rare delay."""

TRIALS: Final = 256
MOST_POINTS: Final = 32.0
"""Mean number of delays up to which chains are searched for; more of them grow as the limit law."""


@dataclass(frozen=True, slots=True, eq=False)
class Detours:
    """Delays at random messages: ``rate`` a message, ``length_s`` equally likely, (m,). [s]

    ``is_excess``: they are what frequent detours exceed a cap by; between nothing and all of what
    they would add by themselves is added, and ``length_s`` is halved: the middle.
    """

    rate: float
    length_s: FloatArray
    is_excess: bool = False


class Split(NamedTuple):
    """A noise without its rare delays, and these; None: a window shows them all."""

    calm: MessageNoise
    rare: Detours | None


@dataclass(frozen=True, slots=True, eq=False)
class RareDelay:
    """What rare delays add to a completion: nothing with a probability, else ``delay_s``. [s]"""

    never_probability: float
    delay_s: FloatArray

    @property
    def longest_s(self) -> float:
        """The longest of them. [s]"""
        return float(self.delay_s.max(initial=0.0))

    @property
    def mean_s(self) -> float:
        """Their mean, those of nothing included. [s]"""
        return (1 - self.never_probability) * float(self.delay_s.mean())


def split_detours(noise: MessageNoise, steps: int) -> Split:
    """Cap detours where longer ones are too rare for a window of so many steps.

    What a detour exceeds the cap by is a delay of its own. Adding two delays apart errs on the slow
    side: the best path of a sum is at most the sum of the best paths.
    """
    jitter = noise.jitter
    p = jitter.detour_probability
    if p <= 0:
        return Split(noise, None)
    cap_s, rate = 0.0, p
    if p > (SEEN_OFTEN / steps) ** 2:
        rare = (SEEN_ONCE / steps) ** 2
        z = NormalDist().inv_cdf(1 - rare / p)
        cap_s, rate = jitter.detour_median_s * math.exp(jitter.detour_sigma * z), rare
    levels = 1 - rate / p * (1 - (np.arange(LENGTHS) + 0.5) / LENGTHS)
    z_of = [NormalDist().inv_cdf(level) for level in levels.tolist()]
    longer_s = jitter.detour_median_s * np.exp(jitter.detour_sigma * np.array(z_of))
    excess_s = np.minimum(longer_s, jitter.detour_cap_s) - cap_s
    if cap_s >= jitter.detour_cap_s or not excess_s.max() > 1e-3 * cap_s:
        return Split(noise, None)
    calm = replace(noise, jitter=jitter.model_copy(update={"detour_cap_s": cap_s}))
    is_excess = cap_s > 0
    return Split(calm, Detours(rate, excess_s.clip(min=0.0) / (1 + is_excess), is_excess))


def delay_from_detours(
    detours: Detours, ranks: int, steps: int, rng: np.random.Generator
) -> RareDelay:
    """What delays add to the completion of a ring: the greatest sum along a chain of them.

    Up to some thirty of them chains are searched for. More: with x = sqrt(rate) steps,
    ``D (x + x^(1/3) z / 2)``, D from thirty and z the limit law of the latest of so many ranks.
    """
    count = detours.rate * ranks * steps
    if count <= MOST_POINTS:
        delay_s, _ = _chains(detours, count, ranks / steps, rng)
        return RareDelay(math.exp(-count), delay_s)
    delay_s, links = _chains(detours, MOST_POINTS, ranks / steps, rng)
    mean_s = float(delay_s.mean() / links.mean())
    x = math.sqrt(detours.rate) * steps
    length = 8 * x * ranks / steps / math.cbrt(x) ** 2
    q = (np.arange(TRIALS) + 0.5) / TRIALS
    units = growth_units(math.log(length) - np.log(-np.log(q)))
    return RareDelay(0.0, mean_s * (x + math.cbrt(x) * units / 2))


def _chains(
    detours: Detours, count: float, aspect: float, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Greatest sum of lengths, and most points, along a chain; given that there is a point.

    Shapes (trials,). A point at place x and time t (both 0 ... 1, places ``aspect`` around) can
    cause another if that lies after it by at most as much to the right as later.
    """
    numbers = _numbers(count)
    most = int(numbers.max())
    shape = (len(numbers), most)
    time = np.sort(rng.random(shape), axis=1)
    place = rng.random(shape) * aspect
    length_s = rng.choice(detours.length_s, size=shape)
    exists = rng.random(shape).argsort(axis=1).argsort(axis=1) < numbers[:, None]
    sums = np.zeros((2, *shape))
    weight = np.stack([np.where(exists, length_s, 0.0), exists.astype(np.float64)])
    for j in range(most):
        right = (place[:, j, None] - place[:, :j]) % aspect
        causes = right <= time[:, j, None] - time[:, :j]
        before = np.where(causes, sums[:, :, :j], 0.0).max(axis=2, initial=0.0)
        sums[:, :, j] = before + weight[:, :, j]
    best = sums.max(axis=2)
    return best[0], best[1]


def _numbers(count: float) -> NDArray[np.int64]:
    """Equally likely numbers of points, each at least 1: quantiles of a Poisson law without 0."""
    q = (np.arange(TRIALS) + 0.5) / TRIALS
    k = np.arange(1, int(count + 10 * math.sqrt(count) + 20))
    log_mass = k * math.log(count) - np.array([math.lgamma(i + 1) for i in k.tolist()])
    mass = np.exp(log_mass - log_mass.max())
    return np.asarray(k[np.searchsorted(np.cumsum(mass) / mass.sum(), q).clip(max=len(k) - 1)])

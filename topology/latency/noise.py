"""Noise: the jitter of single messages, drawn fast. A law for each route class, two terms each.

``body``: LogNormal(median, sigma) - median, around the route's alpha. ``detour``: with a small
probability a capped LogNormal on top. Bodies come from a table of 8,192 equally likely values (it
fits a core's first cache), of which the last stands for the whole far tail and is drawn exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from topology.fabric.link_figures import Jitter, LinkFigures
from topology.words import NoiseName

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
TABLE_SIZE: Final = 8_192
LAST: Final = TABLE_SIZE - 1
_INDICES_PER_WORD: Final = 4
_SPARE_BITS: Final = 3


def scaled_jitter(figures: LinkFigures, route_class: str, noise: NoiseName) -> Jitter:
    """The jitter law of a route class under a profile."""
    jitter = figures.route_class[route_class].jitter
    profile = figures.noise_profile[noise.value]
    probability = min(jitter.detour_probability * profile.detour_probability_ratio, 0.5)
    median_s = jitter.detour_median_s * max(profile.detour_median_ratio, 1e-9)
    return jitter.model_copy(
        update={
            "detour_probability": probability,
            "detour_median_s": min(median_s, jitter.detour_cap_s),
        }
    )


def add_from_table(flat: FloatArray, table: FloatArray, rng: np.random.Generator) -> IntArray:
    """Add one of a table's equally likely values to each element; where it was the last is told."""
    words = rng.bit_generator.random_raw(-(-flat.size // _INDICES_PER_WORD))
    index = words.view(np.uint16)[: flat.size] >> _SPARE_BITS
    flat += table.take(index, mode="clip")
    return np.asarray((index == LAST).nonzero()[0])


@dataclass(frozen=True, slots=True, eq=False)
class MessageNoise:
    """One law, ready to draw from. ``body_s``: shape (8192,), ascending, around 0. [s]"""

    jitter: Jitter
    body_s: FloatArray

    def add_to(self, arrival_s: FloatArray, rng: np.random.Generator) -> None:
        """Add a draw to every element, in place; the array must be contiguous."""
        flat = arrival_s.reshape(-1)
        far = add_from_table(flat, self.body_s, rng)
        if far.size:
            flat[far] += self._far_tail_s(rng.random(far.size)) - self.body_s[LAST]
        detours = rng.binomial(flat.size, self.jitter.detour_probability)
        if detours:
            where = rng.choice(flat.size, size=detours, replace=False, shuffle=False)
            flat[where] += self.detour_s(rng.standard_normal(detours))

    def detour_s(self, normal: FloatArray) -> FloatArray:
        """Lengths of detours from standard normal draws. [s]"""
        jitter = self.jitter
        length_s = jitter.detour_median_s * np.exp(jitter.detour_sigma * normal)
        return np.asarray(np.minimum(length_s, jitter.detour_cap_s))

    def _far_tail_s(self, uniform: FloatArray) -> FloatArray:
        """Bodies of the last table cell, drawn exactly from uniform draws. [s]"""
        quantile = NormalDist().inv_cdf
        shares = (1 - (1 - min(u, 1 - 1e-9)) / TABLE_SIZE for u in uniform.tolist())
        z = np.array([quantile(share) for share in shares])
        return _body_s(self.jitter, z)


def message_noise(jitter: Jitter) -> MessageNoise:
    """A law's table: the middles of equally likely cells."""
    return MessageNoise(jitter, _body_s(jitter, _normal_quantiles()))


@cache
def _normal_quantiles() -> FloatArray:
    quantile = NormalDist().inv_cdf
    half = np.array([quantile((i + 0.5) / TABLE_SIZE) for i in range(TABLE_SIZE // 2)])
    return np.concatenate([half, -half[::-1]])


def _body_s(jitter: Jitter, z: FloatArray) -> FloatArray:
    return np.asarray(jitter.body_median_s * (np.exp(jitter.body_sigma * z) - 1.0))


def noises_of(figures: LinkFigures, classes: Sequence[str], noise: NoiseName) -> list[MessageNoise]:
    """The noise of each route class under a profile, in the order of the classes."""
    return [message_noise(scaled_jitter(figures, name, noise)) for name in classes]

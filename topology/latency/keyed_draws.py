"""Keyed draws: random numbers that depend on a key, a unit and a trial alone, not on any order.

A unit (a host, a leaf, a rank's place) has the same number in a trial whatever else takes part, so
two candidates that share a host see the same host. SplitMix64: a counter, mixed.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.fabric.noise_layer_figures import DelayRow

FloatArray: TypeAlias = NDArray[np.float64]
KeyArray: TypeAlias = NDArray[np.uint64]

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)


def unit_keys(names: Sequence[str]) -> KeyArray:
    """A key for each name, the same in every run, shape (names,)."""
    digests = (blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.array([int.from_bytes(digest, "little") for digest in digests], dtype=np.uint64)


def mixed(values: KeyArray) -> KeyArray:
    """SplitMix64's mixing of every element; neighbours in become strangers out."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return np.asarray(values ^ (values >> np.uint64(31)))


def words(key: np.uint64, units: KeyArray, trials: KeyArray) -> KeyArray:
    """Random words, shape (units, trials)."""
    states = mixed(units ^ key)
    return mixed(states[:, None] + (trials + np.uint64(1)) * _GOLDEN)


def uniforms(key: np.uint64, units: KeyArray, trials: KeyArray) -> FloatArray:
    """Uniform numbers in [0, 1), shape (units, trials)."""
    return np.asarray((words(key, units, trials) >> np.uint64(11)) * 2.0**-53)


def delays_s(key: np.uint64, units: KeyArray, trials: KeyArray, row: DelayRow) -> FloatArray:
    """``min(LogNormal(median, sigma), cap)`` for every unit and trial, (units, trials). [s]"""
    near = 1.0 - uniforms(key, units, trials)
    turn = uniforms(np.uint64(~key), units, trials)
    normal = np.sqrt(-2.0 * np.log(near)) * np.cos(2.0 * np.pi * turn)
    return lengths_s(normal, row)


def lengths_s(normal: FloatArray, row: DelayRow) -> FloatArray:
    """Delays from standard normal draws. [s]"""
    return np.asarray(np.minimum(row.median_s * np.exp(row.sigma * normal), row.cap_s))

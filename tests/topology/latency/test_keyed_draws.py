"""Keyed draws: uniform, independent, and the same whoever else takes part."""

import math

import numpy as np
import pytest

from tests.topology.latency.factories import assert_share_below
from topology.fabric.noise_layer_figures import SkewRow
from topology.latency.keyed_draws import FloatArray, delays_s, mixed, uniforms, unit_keys

KEY = np.uint64(0x1234_5678_9ABC_DEF0)
NAMES = [f"host{i}" for i in range(200)]


def drawn(names: list[str], trials: int, key: np.uint64 = KEY) -> FloatArray:
    return uniforms(key, unit_keys(names), np.arange(trials, dtype=np.uint64))


def test_numbers_are_uniform() -> None:
    values = drawn(NAMES, 1_000).ravel()
    assert 0 <= values.min() < values.max() < 1
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        assert_share_below(values, share, share)


@pytest.mark.parametrize("axis", [0, 1])
def test_neighbouring_units_and_trials_are_independent(axis: int) -> None:
    values = drawn(NAMES, 1_000) - 0.5
    a, b = (np.take(values, np.arange(k, values.shape[axis] - 1 + k), axis=axis) for k in (0, 1))
    assert abs(float((a * b).mean()) * 12) < 4 / math.sqrt(a.size)


def test_another_key_draws_others() -> None:
    a, b = drawn(NAMES, 500), drawn(NAMES, 500, ~KEY)
    assert abs(float(((a - 0.5) * (b - 0.5)).mean()) * 12) < 4 / math.sqrt(a.size)


def test_a_unit_has_its_number_whoever_else_takes_part() -> None:
    many, few = drawn(NAMES, 50), drawn(NAMES[7:9], 20)
    assert (few == many[7:9, :20]).all()


def test_mixing_is_that_of_splitmix64() -> None:
    """The published generator's first three outputs from seed 1234567."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    states = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * golden
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert mixed(states).tolist() == expected


def test_delays_follow_a_capped_log_normal() -> None:
    row = SkewRow(
        median_s=1e-6, sigma=0.5, cap_s=2e-6, sources=("E1",), basis="by hand", confidence="guess"
    )
    values = delays_s(KEY, unit_keys(NAMES), np.arange(1_000, dtype=np.uint64), row).ravel()
    assert_share_below(values, 1e-6, 0.5)
    assert_share_below(values, 1e-6 * math.exp(-0.5 * 1.2815515655), 0.1)
    assert values.max() == 2e-6

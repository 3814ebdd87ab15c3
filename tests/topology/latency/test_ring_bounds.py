"""Certified bounds of a ring: around the reference's samples, our replays and the scaled law."""

import math
from typing import TypedDict

import numpy as np
import pytest

from tests.topology.latency.factories import make_jitter
from tests.topology.latency.test_scaling import IB, replayed, ring_of, time_of, two_class_ring
from topology.fabric.link_figures import Jitter
from topology.latency.law import Grid, Law, from_survival
from topology.latency.noise import message_noise
from topology.latency.ring_bounds import (
    HopColumns,
    all_chains_s,
    all_paths_s,
    greedy_path_s,
    hop_law,
    own_paths_s,
    ring_bracket_s,
)


def log_normal_law(median_s: float, sigma: float) -> Law:
    """Its law, capped at the 1 - 1e-18 quantile."""
    grid = Grid(median_s * math.exp(8.76 * sigma) / 8_000, 8_192)
    at = np.arange(1, 8_001) * grid.step_s
    above = [0.5 * math.erfc(math.log(t / median_s) / sigma / math.sqrt(2)) for t in at.tolist()]
    return from_survival(grid, 0.0, np.array([1.0, *above[:-1], 0.0]))


def columns_of(law: Law, hop_s: float = 0.0) -> HopColumns:
    return HopColumns(np.full(1, hop_s), np.zeros(1, dtype=np.int64), [law])


def test_bounds_hold_the_sampled_percentiles_of_the_reference() -> None:
    """Log-normal hops of median 3 us, sigma 0.35: p99.9 at 64 ranks 569, within 463 and 637 us."""
    law = columns_of(log_normal_law(3.0, 0.35))
    sampled = {8: (59.4, 68.6, 72.2), 64: (544.5, 562, 569), 256: (2199, 2226, 2233)}
    for ranks, values in sampled.items():
        for q, value in zip((0.5, 0.99, 0.999), values, strict=True):
            low, high = ring_bracket_s(law, ranks=ranks, steps=2 * (ranks - 1), q=q)
            assert low < value < high
    low, high = ring_bracket_s(law, ranks=64, steps=126, q=0.999)
    assert low > 463
    assert all_paths_s(law, ranks=64, steps=126, q=0.999) == pytest.approx(637, rel=0.01)


class Far(TypedDict):
    ranks: int
    steps: int
    q: float


def test_bounds_of_exponential_hops_are_those_computed_by_hand() -> None:
    """Far on: below E max of two = 1.5 a step, above min_h (ln 2 - ln(1 - h)) / h = 2.678."""
    grid = Grid(42 / 8_000, 8_192)
    above = np.exp(-grid.step_s * np.arange(8_000))
    law = columns_of(from_survival(grid, 0.0, np.append(above, 0.0)))
    far = Far(ranks=500_001, steps=1_000_000, q=0.5)
    assert greedy_path_s(law, steps=1_000_000, q=0.5) / 1e6 == pytest.approx(1.5, rel=0.01)
    assert all_paths_s(law, **far) / 1e6 == pytest.approx(2.678, rel=0.01)
    assert own_paths_s(law, **far) / 1e6 == pytest.approx(1.0, rel=0.01)
    # Chains: least ln(M + sqrt(M (M - 1))) / h with M = 1 / (1 - h).
    tilts = np.linspace(0.05, 0.95, 1_000)
    moment = 1 / (1 - tilts)
    hand = float((np.log(moment + np.sqrt(moment * (moment - 1))) / tilts).min())
    assert all_chains_s(law, **far) / 1e6 == pytest.approx(hand, rel=0.01)


LAWS = (
    IB,
    make_jitter(body_median_s=1e-6, body_sigma=0.5),
    make_jitter(detour_probability=0.01, detour_median_s=2e-6, detour_sigma=0.9),
    make_jitter(detour_probability=1e-5, detour_median_s=1e-3),
)


@pytest.mark.parametrize("jitter", LAWS, ids=["ib", "body", "detours", "stalls"])
@pytest.mark.parametrize("ranks", [8, 64])
def test_no_replay_leaves_the_certified_bounds(jitter: Jitter, ranks: int) -> None:
    samples = replayed(ring_of(message_noise(jitter), ranks, hop_s=3e-6), trials=1_000)
    law = columns_of(hop_law(jitter), hop_s=3e-6)
    for q in (0.05, 0.5, 0.95):
        low, high = ring_bracket_s(law, ranks=ranks, steps=2 * (ranks - 1), q=q)
        error = 4 * math.sqrt(q * (1 - q) / len(samples))
        assert (samples < low).mean() <= q + error
        assert (samples <= high).mean() >= q - error


def test_two_kinds_of_hops_lie_within_their_bounds() -> None:
    noises = [make_jitter(body_median_s=20e-9, body_sigma=0.5), IB]
    ring = two_class_ring(64, [message_noise(jitter) for jitter in noises])
    samples = replayed(ring, trials=500)
    law = HopColumns(ring.message_s, ring.law_of, [hop_law(jitter) for jitter in noises])
    low, high = ring_bracket_s(law, ranks=64, steps=126, q=0.5)
    assert 126 * 3e-6 < low < float(np.median(samples)) < high


def test_a_percentile_beyond_what_the_cap_carries_has_no_upper_bound() -> None:
    """n K messages each beyond the cap with 1e-18: 2e12 of them leave no 1 - 1e-6 quantile."""
    law = columns_of(log_normal_law(1.0, 0.3))
    assert all_paths_s(law, ranks=10**6, steps=2 * 10**6 - 2, q=1 - 1e-6) == math.inf


@pytest.mark.parametrize("ranks", [1_024, 1_000_000])
def test_the_central_value_lies_within_the_certified_bounds(ranks: int) -> None:
    time = time_of(ring_of(message_noise(IB), ranks, hop_s=3e-6))
    law = columns_of(hop_law(IB), hop_s=3e-6)
    for q in (0.5, 0.99, 0.999):
        low, high = ring_bracket_s(law, ranks=ranks, steps=2 * (ranks - 1), q=q)
        assert low < time.quantile_s(q) < high

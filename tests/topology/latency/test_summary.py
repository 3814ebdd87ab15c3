"""Percentiles and their intervals: honest for any law, absent where the trials do not reach."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.latency.summary import (
    COVERAGE,
    PERCENTILES,
    least_trials,
    order_statistics,
    percentile_ranges,
)

SHARES = {
    "p50_s": Fraction(1, 2),
    "p90_s": Fraction(9, 10),
    "p99_s": Fraction(99, 100),
    "p999_s": Fraction(999, 1000),
    "p9999_s": Fraction(9999, 10_000),
}


def test_percentiles_are_those_of_the_contract() -> None:
    assert {name: pytest.approx(float(share)) for name, share in SHARES.items()} == PERCENTILES


def chance(count: int, share: Fraction, first: int, last: int) -> float:
    """P(first <= Binomial(count, share) <= last), exact."""
    return float(
        sum(
            math.comb(count, k) * share**k * (1 - share) ** (count - k)
            for k in range(max(first, 0), min(last, count) + 1)
        )
    )


@pytest.mark.parametrize("share", SHARES.values(), ids=SHARES)
@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 10, 37, 100, 300, 500])
def test_intervals_cover_the_quantile_in_95_of_100_runs(count: int, share: Fraction) -> None:
    """Exact: sample number i lies below the quantile if more than i of all samples do."""
    low, high = order_statistics(count, float(share))
    lowest = 0 if low is None else low + 1
    highest = count if high is None else high
    covered = chance(count, share, lowest, highest)
    assert covered >= COVERAGE - 1e-9
    if low is not None:
        above = chance(count, share, 0, low)
        assert above <= (1 - COVERAGE) / 2 + 1e-9
        assert above + chance(count, share, low + 1, low + 1) > (1 - COVERAGE) / 2 - 1e-9
    if high is not None:
        assert chance(count, share, high + 1, count) <= (1 - COVERAGE) / 2 + 1e-9
    else:
        assert chance(count, share, count, count) > (1 - COVERAGE) / 2 - 1e-9


@pytest.mark.parametrize(("name", "count"), [("p50_s", 200), ("p90_s", 400), ("p99_s", 1_000)])
def test_intervals_cover_the_quantile_of_a_heavy_tail_in_simulation(name: str, count: int) -> None:
    rng = np.random.default_rng(11)
    share = PERCENTILES[name]
    truth = (1 - share) ** (-1 / 1.5)
    runs = 500
    covered = 0
    for _ in range(runs):
        _, ranges = percentile_ranges(1 + rng.pareto(1.5, count))
        low, high = ranges[name]
        assert high is not None
        covered += low <= truth <= high
    error = math.sqrt(COVERAGE * (1 - COVERAGE) / runs)
    assert covered / runs >= COVERAGE - 4 * error


def test_few_trials_carry_no_far_percentile() -> None:
    values, ranges = percentile_ranges(np.arange(1.0, 1_001.0))
    assert values["p99_s"] is not None
    assert values["p999_s"] is None
    assert values["p9999_s"] is None
    assert ranges["p999_s"][1] is None
    assert ranges["p999_s"][0] >= 990, "what can be said: it lies above this"


@pytest.mark.parametrize(
    ("name", "enough"), [("p50_s", 6), ("p90_s", 36), ("p99_s", 368), ("p999_s", 3_688)]
)
def test_a_percentile_needs_the_trials_that_can_lie_above_it(name: str, enough: int) -> None:
    """The largest of N samples lies below the q-quantile with chance q^N, which must be 2.5 %."""
    assert PERCENTILES[name] ** enough <= 0.025 < PERCENTILES[name] ** (enough - 1)
    rng = np.random.default_rng(0)
    assert percentile_ranges(rng.random(enough))[0][name] is not None
    assert percentile_ranges(rng.random(enough - 1))[0][name] is None
    assert least_trials(PERCENTILES[name]) == enough


def test_one_trial_says_nothing_certain_of_the_median() -> None:
    values, ranges = percentile_ranges(np.array([7.0]))
    assert values["p50_s"] is None
    assert ranges["p50_s"] == (0.0, None)


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=800))
def test_no_percentile_without_an_interval_around_it(samples: list[float]) -> None:
    values, ranges = percentile_ranges(np.array(samples))
    assert values.keys() == ranges.keys() == PERCENTILES.keys()
    for name, value in values.items():
        low, high = ranges[name]
        assert (value is None) == (high is None)
        if value is not None and high is not None:
            assert low <= value <= high
    told = [value for value in values.values() if value is not None]
    assert told == sorted(told)


@given(st.lists(st.floats(0.001, 1e6), min_size=10, max_size=300), st.integers(0, 2**32))
def test_order_of_the_trials_does_not_matter(samples: list[float], seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(samples)
    assert percentile_ranges(np.array(samples)) == percentile_ranges(shuffled)


def test_samples_that_are_all_alike_have_a_point_for_an_interval() -> None:
    values, ranges = percentile_ranges(np.full(10_000, 3.0))
    assert values["p999_s"] == 3.0
    assert ranges["p999_s"] == (3.0, 3.0)

"""Noise from a measured trace: drawn values follow the trace, its law certifies them."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from tests.topology.latency.factories import FloatArray, assert_share_below
from topology.errors import WorkloadError
from topology.latency.law import Grid
from topology.latency.trace_noise import TraceNoise, trace_noise

DRAWS = 400_000
QUANTILE = NormalDist().inv_cdf


def draws_of(noise: TraceNoise, count: int = DRAWS, seed: int = 4) -> FloatArray:
    values = np.zeros(count)
    noise.add_to(values, np.random.default_rng(seed))
    return values


def log_normal_trace(samples: int) -> FloatArray:
    """Equally likely values of 2 us x exp(0.5 z), noiseless of themselves."""
    shares = ((i + 0.5) / samples for i in range(samples))
    return np.array([2e-6 * math.exp(0.5 * QUANTILE(share)) for share in shares])


def test_draws_have_the_quantiles_of_the_trace_around_its_median() -> None:
    drawn = draws_of(trace_noise(log_normal_trace(20_001)))
    for share in (0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999):
        exact = 2e-6 * (math.exp(0.5 * QUANTILE(share)) - 1)
        assert_share_below(drawn, exact, share)


def test_half_of_all_messages_are_earlier_than_the_route_alone() -> None:
    assert_share_below(draws_of(trace_noise(log_normal_trace(999))), 0.0, 0.5)


def test_the_far_tail_is_drawn_from_the_trace_not_from_the_table() -> None:
    """The largest of 100,000 comes as often as it stood there, not once in 8,192 draws."""
    trace = np.concatenate([np.linspace(1e-6, 2e-6, 99_999), [1e-3]])
    drawn = draws_of(trace_noise(trace), count=4_000_000)
    far = int((drawn > 0.4e-3).sum())
    # Above the middle between the last two values: half a cell to 0.5, and half a cell at the top.
    assert far == pytest.approx(40, abs=4 * math.sqrt(40))
    assert drawn.max() <= 1e-3 - 1.5e-6 + 1e-12


def test_nothing_is_drawn_beyond_the_trace() -> None:
    trace = log_normal_trace(150)
    noise = trace_noise(trace)
    drawn = draws_of(noise)
    assert drawn.min() >= noise.least_s == trace[0] - np.median(trace)
    assert drawn.max() <= noise.most_s == trace[-1] - np.median(trace)


@pytest.mark.parametrize("shape", [(1,), (3,), (5,), (7, 11), (0,), (0, 5)])
def test_any_shape_is_filled(shape: tuple[int, ...]) -> None:
    values = np.full(shape, 5.0)
    trace_noise(log_normal_trace(200)).add_to(values, np.random.default_rng(1))
    assert values.shape == shape
    assert (values != 5.0).all()


def test_how_many_numbers_are_drawn_does_not_depend_on_the_trace_body() -> None:
    """Two traces of one length: the same trials for the same seed, value by value in order."""
    a, b = (draws_of(trace_noise(log_normal_trace(500) * scale), 1_000) for scale in (1, 3))
    assert b == pytest.approx(3 * a)


@pytest.mark.parametrize("samples", [100, 101, 5_000])
def test_the_law_brackets_every_quantile_of_the_draws(samples: int) -> None:
    noise = trace_noise(log_normal_trace(samples))
    law = noise.law(Grid(noise.most_s / 2_000, 4_096))
    drawn = draws_of(noise)
    for share in (0.05, 0.5, 0.9, 0.99):
        low_s, high_s = law.quantile(share)
        error = 4 * math.sqrt(share * (1 - share) / DRAWS)
        assert (drawn <= high_s).mean() >= share - error
        assert (drawn < low_s).mean() <= share + error


def test_the_law_of_a_long_trace_is_as_narrow_as_the_grid() -> None:
    noise = trace_noise(log_normal_trace(100_000))
    step_s = noise.most_s / 2_000
    low_s, high_s = noise.law(Grid(step_s, 4_096)).quantile(0.9)
    assert high_s - low_s <= 3 * step_s


@pytest.mark.parametrize(
    ("trace", "text"),
    [
        (np.full(99, 1e-6), "99 latencies.*at least 100"),
        (np.linspace(2e-6, 1e-6, 200), "out of order"),
        (np.array([*[1e-6] * 150, np.nan]), "not finite"),
        (np.array([*[1e-6] * 150, np.inf]), "not finite"),
        (np.linspace(-1e-6, 1e-6, 200), "above 0"),
        (np.ones((20, 20)), "at least 100"),
    ],
)
def test_what_is_no_trace_is_refused(trace: FloatArray, text: str) -> None:
    with pytest.raises(WorkloadError, match=text):
        trace_noise(trace)


def test_a_trace_without_spread_adds_nothing() -> None:
    assert (draws_of(trace_noise(np.full(100, 3e-6)), 1_000) == 0).all()


def test_the_sum_of_four_draws_lies_in_the_bracket_of_four_laws() -> None:
    """What a certificate of a chain rests on."""
    noise = trace_noise(log_normal_trace(2_000))
    law = noise.law(Grid(noise.most_s / 1_000, 8_192)).times(4)
    sums = draws_of(noise).reshape(4, -1).sum(axis=0)
    for share in (0.1, 0.5, 0.9, 0.99):
        low_s, high_s = law.quantile(share)
        error = 4 * math.sqrt(share * (1 - share) / len(sums))
        assert (sums <= high_s).mean() >= share - error
        assert (sums < low_s).mean() <= share + error

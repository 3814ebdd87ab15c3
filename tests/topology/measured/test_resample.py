"""Resampling: a law through published quantiles, replayed as a small all-reduce."""

import numpy as np
import pytest

from topology.errors import MeasurementError
from topology.measured.resample import quantile_law, recursive_doubling_s

TABLE = {0.5: 2e-6, 0.9: 3e-6, 0.99: 9e-6, 0.999: 30e-6}


def test_the_law_goes_through_what_was_published() -> None:
    law = quantile_law(TABLE, largest_s=80e-6, count=9_999)
    for q, value_s in {**TABLE, 0.9999: 80e-6}.items():
        assert law.quantile_s(q) == pytest.approx(value_s)
    assert law.quantile_s(0.0) == law.quantile_s(0.5), "below the first nothing is made up"
    assert law.quantile_s(0.999999) == pytest.approx(80e-6), "nor above the largest"


def test_draws_have_the_quantiles_of_the_law() -> None:
    draws = np.zeros(400_000)
    quantile_law(TABLE, largest_s=80e-6, count=9_999).add_to(draws, np.random.default_rng(1))
    for q in (0.9, 0.99):
        # Four standard errors of the share that lies below.
        share = float((draws <= TABLE[q]).mean())
        assert share == pytest.approx(q, abs=4 * np.sqrt(q * (1 - q) / len(draws)))
    assert draws.min() == pytest.approx(2e-6)
    assert draws.max() == pytest.approx(80e-6)


def test_equal_messages_take_log2_n_steps() -> None:
    law = quantile_law({0.5: 2e-6}, largest_s=2e-6, count=99)
    for ranks, steps in ((2, 1), (4, 2), (32, 5)):
        rng = np.random.default_rng(0)
        times_s = recursive_doubling_s(law, ranks=ranks, trials=10, rng=rng, message_s=1e-6)
        assert times_s == pytest.approx(np.full(10, steps * 3e-6))


def test_two_ranks_take_the_longer_of_two_messages() -> None:
    law = quantile_law(TABLE, largest_s=80e-6, count=9_999)
    times_s = recursive_doubling_s(law, ranks=2, trials=200_000, rng=np.random.default_rng(2))
    # P(max of two > x) = 1 - 0.99^2 at the law's p99.
    share, expected = float((times_s > 9e-6).mean()), 1 - 0.99**2
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected / len(times_s)))


@pytest.mark.parametrize(
    ("quantiles_s", "largest_s", "words"),
    [
        ({}, 1e-6, "quantiles at"),
        ({0.5: 2e-6, 1.0: 3e-6}, 4e-6, "give them between 0 and 1"),
        ({0.5: 2e-6, 0.99999: 3e-6}, 4e-6, "below that of the largest"),
        ({0.5: 2e-6, 0.9: 1e-6}, 4e-6, "give rising values above 0"),
        ({0.5: -2e-6}, 4e-6, "give rising values above 0"),
        ({0.5: float("nan")}, 4e-6, "give rising values above 0"),
    ],
)
def test_a_table_that_is_no_law_is_refused(
    quantiles_s: dict[float, float], largest_s: float, words: str
) -> None:
    with pytest.raises(MeasurementError, match=words):
        quantile_law(quantiles_s, largest_s=largest_s, count=999)

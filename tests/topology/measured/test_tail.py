"""Measured percentiles: which a number of samples carries, and the laws that carry more."""

import math

import numpy as np
import pytest

from topology.measured.tail import (
    MeasuredTail,
    Origin,
    least_samples,
    percentiles_of,
)
from topology.measured.tail_model import LognormalFit, ParetoFit, fit_tail
from topology.words import TailModel


def tail_of(samples: np.ndarray[tuple[int], np.dtype[np.float64]]) -> MeasuredTail:
    return MeasuredTail("test", "file", 1, "test", samples_s=np.sort(samples), count=len(samples))


def ladder(count: int) -> MeasuredTail:
    """1 us, 2 us, 3 us ..."""
    return tail_of(np.arange(1.0, count + 1) * 1e-6)


@pytest.mark.parametrize(
    ("q", "count"), [(0.5, 5), (0.9, 29), (0.99, 299), (0.999, 2995), (0.9999, 29956)]
)
def test_a_percentile_needs_ln_005_over_ln_q_samples(q: float, count: int) -> None:
    assert least_samples(q) == count
    assert q**count <= 0.05 < q ** (count - 1)


def test_one_sample_too_few_is_refused_and_enough_is_not() -> None:
    few, enough = percentiles_of(ladder(2994)), percentiles_of(ladder(2995))
    assert few["p999_s"].origin is Origin.REFUSED
    assert few["p999_s"].value_s is None
    assert few["p999_s"].reason == ("2,994 samples carry no p99.9: it needs 2,995, or --tail-model")
    assert enough["p999_s"].origin is Origin.SAMPLES
    assert enough["p999_s"].value_s == pytest.approx(2992.0e-6, rel=1e-3)


def test_an_interval_by_order_statistics_stands_beside_each_percentile() -> None:
    found = percentiles_of(ladder(10_000))
    # Ranks 9,982 and 9,996 from 0 enclose the p99.9 of 10,000 samples, whatever the law.
    assert found["p999_s"].interval == pytest.approx((9983e-6, 9997e-6))
    assert found["p50_s"].interval == pytest.approx((4902e-6, 5099e-6), abs=2e-6)


def test_the_upper_end_is_not_told_where_the_largest_sample_may_lie_below_it() -> None:
    interval = percentiles_of(ladder(300))["p99_s"].interval
    assert interval is not None
    assert interval[1] is None


def test_a_printed_percentile_of_too_few_samples_is_refused_too() -> None:
    printed = {"p50_s": 1e-6, "p99_s": 2e-6, "p999_s": 3e-6}
    few = MeasuredTail("test", "file", 1, "test", count=1000, printed_s=printed)
    found = percentiles_of(few, TailModel.GPD)
    assert found["p99_s"].value_s == 2e-6
    assert found["p999_s"].origin is Origin.REFUSED
    assert "a tail model needs the samples themselves" in str(found["p999_s"].reason)


def test_a_printed_percentile_of_untold_samples_says_so() -> None:
    tail = MeasuredTail("test", "file", 1, "test", printed_s={"p999_s": 3e-6})
    found = percentiles_of(tail)["p999_s"]
    assert (found.value_s, found.origin) == (3e-6, Origin.PRINTED)
    assert found.reason == "of how many samples is not told"


def test_a_mean_has_no_percentiles() -> None:
    found = percentiles_of(MeasuredTail("test", "file", 1, "test", count=20, mean_s=3e-5))
    assert {p.origin for p in found.values()} == {Origin.UNREPORTED}
    assert {p.value_s for p in found.values()} == {None}


@pytest.mark.parametrize("model", list(TailModel))
def test_a_named_model_fills_in_what_samples_do_not_carry_and_says_how(model: TailModel) -> None:
    rng = np.random.default_rng(3)
    tail = tail_of(10e-6 + 5e-6 * rng.standard_exponential(1000))
    with_model, without = percentiles_of(tail, model), percentiles_of(tail)
    assert with_model["p999_s"].origin is Origin.MODELLED
    assert with_model["p999_s"].interval is None
    assert "1,000 samples" in str(with_model["p999_s"].reason) or "100 samples" in str(
        with_model["p999_s"].reason
    )
    assert with_model["p99_s"] == without["p99_s"], "what the samples carry is not modelled"


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.25])
def test_the_pareto_fit_finds_the_law_that_was_drawn(shape: float) -> None:
    uniform = (np.arange(50_000) + 0.5) / 50_000
    excess = -np.log(1 - uniform) if not shape else np.expm1(-shape * np.log(1 - uniform)) / shape
    fit = fit_tail(5e-6 + 1e-6 * excess, TailModel.GPD)
    assert isinstance(fit, ParetoFit)
    assert fit.shape == pytest.approx(shape, abs=0.01)
    level = 1e-4
    true = -math.log(level) if not shape else math.expm1(-shape * math.log(level)) / shape
    assert fit.quantile_s(1 - level) == pytest.approx(5e-6 + 1e-6 * true, rel=0.02)


def test_the_log_normal_fit_is_of_what_lies_above_its_floor() -> None:
    # Logarithms of 1, 2 and 4 parts above a floor of 98: their mean is ln 2.
    samples = np.sort(np.array([100.0] * 7 + [102.0] * 7 + [106.0] * 7)) * 1e-6
    fit = fit_tail(samples, TailModel.LOGNORMAL)
    assert isinstance(fit, LognormalFit)
    assert fit.floor_s == pytest.approx(98e-6)
    assert fit.median_s == pytest.approx(4e-6)
    assert fit.sigma == pytest.approx(math.log(2) * math.sqrt(2 / 3))
    assert fit.quantile_s(0.5) == pytest.approx(102e-6)


def test_a_law_is_not_fitted_to_too_few_or_to_equal_samples() -> None:
    few = percentiles_of(ladder(150), TailModel.GPD)["p99_s"]
    assert few.origin is Origin.REFUSED
    assert "a Pareto tail above the p90 needs 200" in str(few.reason)
    nineteen = fit_tail(np.arange(1.0, 20.0), TailModel.LOGNORMAL)
    assert "fitted to 20 at least" in str(nineteen)
    assert "all alike" in str(fit_tail(np.full(1000, 1e-6), TailModel.GPD))

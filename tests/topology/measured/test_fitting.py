"""Fitting: planted factors are found again, outliers do not move them, nothing is random."""

from dataclasses import replace

import numpy as np
import pytest

from tests.topology.latency.jobs import make_job
from tests.topology.measured.synthetic_runs import (
    log_ratio,
    make_observed,
    many_runs,
    planted,
    with_outliers,
)
from topology.latency.calibration import NO_CALIBRATION, Reach, region_of
from topology.latency.operation import Operation
from topology.measured.fitting import (
    CELL_WEIGHT,
    MOST_POINT_WEIGHT,
    Design,
    Fit,
    design_of,
    fit,
    fit_design,
    patterns_of,
    prior_log_error,
    weight_of,
)
from topology.measured.observed import Observed
from topology.words import AlgorithmName, Collective, Launch, Protocol

TRUTH = {
    "hop.nvlink.ll": 1.5,
    "base.ll": 1.3,
    "bandwidth.link.nvswitch": 1.2,
    "bandwidth.link.ib": 0.8,
    "net.ib": 1.6,
    "nvls": 0.8,
    "ramp.nvls.simple": 2.0,
}


def predicted(found: Fit, runs: list[Observed]) -> np.ndarray:
    calibration = NO_CALIBRATION.model_copy(update={"figure": found.figures()})
    return np.concatenate([run.model(calibration).times_s(run.sizes_bytes) for run in runs])


def measured(runs: list[Observed]) -> np.ndarray:
    return np.concatenate([run.times_s for run in runs])


# Planted truth.


def test_a_planted_figure_is_found_again_within_its_error() -> None:
    """Ring LL forced, so that nothing but its own terms can explain its times."""
    truth = {"hop.nvlink.ll": 1.5, "base.ll": 1.3}
    runs = [
        make_observed(
            f"{gpus}-{launch}",
            planted(truth),
            job=make_job(1, gpus),
            operation=Operation(Collective.ALL_REDUCE, launch),
            algorithm=AlgorithmName.RING,
            protocol=Protocol.LL,
        )
        for gpus in (2, 4, 8, 16)
        for launch in (Launch.PROCESS, Launch.GRAPH)
    ]
    found, design = fit(runs)
    for part, factor in (("hop", 1.5), ("base", 1.3)):
        names = [name for name in design.names if name.split(".")[0] == part]
        at = [found.names.index(name) for name in names]
        total = float(found.theta[at].sum())
        # What always stands together is told apart only by its priors: the product is what counts.
        error = float(np.sqrt((found.log_errors[at] ** 2).sum()))
        assert abs(total - np.log(factor)) < error, (part, total, np.log(factor), error)
        assert np.exp(total) == pytest.approx(factor, rel=0.1)


def test_all_runs_of_a_planted_truth_are_met_nearly_to_their_noise() -> None:
    runs = many_runs(planted(TRUTH))
    found, _ = fit(runs)
    before = np.concatenate([run.model(NO_CALIBRATION).times_s(run.sizes_bytes) for run in runs])
    assert log_ratio(before, measured(runs)) > 0.1
    assert log_ratio(predicted(found, runs), measured(runs)) < 0.025


def test_where_the_priors_are_right_nothing_moves() -> None:
    found, _ = fit(many_runs(NO_CALIBRATION, noise=0.0))
    assert np.abs(found.theta).max() < 1e-6


def test_a_tenth_of_the_points_five_times_too_slow_moves_little() -> None:
    runs = many_runs(planted(TRUTH))
    clean, spoilt = fit(runs)[0], fit(with_outliers(runs, 10, 5.0))[0]
    assert clean.names == spoilt.names
    assert log_ratio(predicted(spoilt, runs), predicted(clean, runs)) < 0.03
    assert log_ratio(predicted(spoilt, runs), measured(runs)) < 0.04


def test_a_fit_is_equal_to_the_last_bit_when_it_is_made_again() -> None:
    runs = many_runs(planted(TRUTH))
    first, second = fit(runs)[0], fit(runs)[0]
    assert first.figures() == second.figures()
    assert first.theta.tobytes() == second.theta.tobytes()


def test_it_does_not_matter_where_a_fit_begins() -> None:
    design = design_of(many_runs(planted(TRUTH)))
    usual = fit_design(design)
    elsewhere = fit_design(design, start=np.full(len(design.names), 0.4))
    assert np.abs(usual.theta - elsewhere.theta).max() < 0.01


def test_a_figure_that_no_run_touches_is_not_there_and_counts_as_one() -> None:
    figures = fit([make_observed("only", planted({"nvls": 0.5}))])[0].figures()
    assert "net.ib" not in figures
    assert "bandwidth.link.pcie" not in figures
    calibration = NO_CALIBRATION.model_copy(update={"figure": figures})
    assert calibration.factor(("nvls", "net.ib")) == figures["nvls"].factor < 0.97


def test_a_figure_without_weight_stays_at_its_prior_with_its_priors_error() -> None:
    """A held-out run's own figures: no other run tells of them."""
    here = make_observed("here")
    there = make_observed("there", planted({"net.ib": 2.0}), job=make_job(2))
    design = design_of([here, there])
    found = fit_design(design, held_out=np.array([1])).figures()
    assert found["net.ib"].factor == 1.0
    assert found["net.ib"].log_error == pytest.approx(prior_log_error("net.ib"))
    assert found["net.ib"].points == 0


def test_the_more_points_the_smaller_the_error() -> None:
    one = fit([make_observed("a")])[0].figures()["nvls"]
    runs = [make_observed(f"a{n}", family=f"lab{n}") for n in range(4)]
    four = fit(runs)[0].figures()["nvls"]
    assert four.log_error < one.log_error < one.prior_log_error
    assert four.points == 4 * one.points


def test_custom_kernels_compete_again_once_they_are_fitted() -> None:
    truth = planted({"one_shot": 0.5, "two_shot": 0.6})
    runs = [
        make_observed(f"{gpus}", truth, job=make_job(1, gpus), custom=True) for gpus in (2, 4, 8)
    ]
    found, _ = fit(runs)
    assert log_ratio(predicted(found, runs), measured(runs)) < 0.03


# Held out.


def test_a_fit_does_not_see_what_is_held_out() -> None:
    """The same design, the third run's times changed: to the last bit the same factors."""
    runs = [make_observed(f"{n}", planted(TRUTH), machine=f"m{n}") for n in range(3)]
    changed = [*runs[:2], replace(runs[2], times_s=runs[2].times_s * 7)]
    first, second = (fit_design(design_of(of), held_out=np.array([2])) for of in (runs, changed))
    assert first.theta.tobytes() == second.theta.tobytes()
    seen = fit_design(design_of(changed))
    assert np.abs(seen.theta - first.theta).max() > 0.02


def test_held_out_runs_weigh_nothing_whatever_the_fit_begins_with() -> None:
    runs = [make_observed(f"{n}", planted(TRUTH), times=1.0 + n, machine=f"m{n}") for n in range(3)]
    design = design_of(runs)
    whole = fit_design(design)
    out = np.array([2])
    begun = fit_design(design, start=whole.theta, held_out=out)
    assert np.abs(begun.theta - fit_design(design, held_out=out).theta).max() < 0.01


# Weights.


def weights_by_run(runs: list[Observed]) -> list[np.ndarray]:
    design = design_of(runs)
    return [design.weights[design.run_of == number] for number in range(len(runs))]


def test_a_family_of_many_runs_weighs_as_much_as_one_of_few() -> None:
    """In a cell whose points are many enough: 13 runs of 500 points beside one."""
    sizes = np.linspace(8.0, 1024.0, 500)
    few, *many = (
        replace(make_observed(f"{n}"), sizes_bytes=sizes, times_s=np.full(500, 2e-5), family=family)
        for n, family in enumerate(["few", *["many"] * 13])
    )
    of_few, *of_many = weights_by_run([few, *many])
    assert of_few.sum() == pytest.approx(CELL_WEIGHT)
    assert sum(weights.sum() for weights in of_many) == pytest.approx(CELL_WEIGHT)


def test_a_family_of_a_few_points_is_held_back() -> None:
    (weights,) = weights_by_run([make_observed("a")])
    assert weights.max() == MOST_POINT_WEIGHT


def test_a_cell_is_a_reach_and_a_region() -> None:
    """One family in one cell of 500 points, and its few points in another."""
    sizes = np.append(np.linspace(8.0, 1024.0, 500), 2.0**27)
    run = replace(make_observed("a"), sizes_bytes=sizes, times_s=np.full(501, 2e-5))
    (weights,) = weights_by_run([run])
    assert region_of(sizes[-1]) is not region_of(sizes[0])
    assert run.reach is Reach.ONE_NODE
    assert weights[:-1] == pytest.approx(CELL_WEIGHT / 500)
    assert weights[-1] == MOST_POINT_WEIGHT


def test_doubtful_runs_weigh_less_and_broken_ones_nothing() -> None:
    assert weight_of(make_observed("a")) == 1.0
    assert weight_of(make_observed("a", quality="B")) == 0.7
    assert weight_of(make_observed("a", quality="C")) == 0.0
    assert weight_of(make_observed("a", trust=0.25)) == 0.25
    assert weight_of(make_observed("a", quality="mine")) == 1.0


def test_a_broken_run_moves_nothing() -> None:
    good = make_observed("good", planted(TRUTH))
    broken = make_observed("broken", times=5.0, quality="C", family="other")
    with_it = fit([good, broken])[0].figures()
    without = fit([good])[0].figures()
    assert {name: with_it[name].factor for name in without} == pytest.approx(
        {name: figure.factor for name, figure in without.items()}, rel=1e-9
    )


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("hop.nvlink", 0.4),
        ("base.ll", 0.4),
        ("base.ll.hopper", 0.3),
        ("net.ib.simple", 0.5),
        ("nvls", 0.4),
        ("bandwidth.link.ib", 0.25),
        ("bandwidth.way.ring.ll.nvlink", 0.2),
        ("bandwidth.ll.ib", 0.6),
        ("ramp.ib.hopper", 0.6),
    ],
)
def test_a_prior_is_as_wide_as_its_group_says(name: str, error: float) -> None:
    assert prior_log_error(name) == error


# Derivatives.


def mixed_design() -> Design:
    runs = many_runs(planted(TRUTH))[::5]
    runs.append(make_observed("slow", operation=Operation(Collective.ALL_REDUCE, Launch.THREAD)))
    runs.append(make_observed("eager", operation=Operation(Collective.ALL_REDUCE, Launch.EAGER)))
    return design_of(runs)


def jacobian(design: Design, theta: np.ndarray) -> np.ndarray:
    """By central differences, shape (points, figures)."""
    step = 1e-6
    columns = []
    for place in range(1, len(theta)):
        ends = []
        for sign in (1, -1):
            moved = theta.copy()
            moved[place] += sign * step
            ends.append(design.predicted(moved)[0])
        columns.append((ends[0] - ends[1]) / (2 * step))
    return np.stack(columns, axis=1)


def test_the_normal_equations_are_those_of_finite_differences() -> None:
    """Blocking launches included: their share is no plain sum."""
    design, rng = mixed_design(), np.random.default_rng(1)
    theta = np.append(0.0, rng.uniform(-0.5, 0.5, len(design.names)))
    slopes = jacobian(design, theta)
    weight, residual = rng.uniform(0.1, 1, len(slopes)), rng.normal(size=len(slopes))
    shares = design.predicted(theta)[1]
    square, pull = patterns_of(design).normal(shares, weight, residual)
    assert square == pytest.approx(slopes.T @ (slopes * weight[:, None]), abs=1e-6)
    assert pull == pytest.approx(slopes.T @ (weight * residual), abs=1e-6)


def test_a_design_predicts_what_the_model_does() -> None:
    runs = many_runs(planted(TRUTH), noise=0.0)
    design = design_of(runs)
    theta = np.append(0.0, [np.log(TRUTH.get(name, 1.0)) for name in design.names])
    assert np.exp(design.predicted(theta)[0]) == pytest.approx(measured(runs), rel=1e-9)


def test_some_points_of_a_design_have_the_same_equations() -> None:
    design = mixed_design()
    kept = design.of(np.arange(len(design.weights)) % 3 == 0)
    theta = np.zeros(len(design.names) + 1)
    shares = kept.predicted(theta)[1]
    slopes = jacobian(kept, theta)
    square, _ = patterns_of(kept).normal(shares, kept.weights, kept.weights)
    assert square == pytest.approx(slopes.T @ (slopes * kept.weights[:, None]), rel=1e-5, abs=1e-4)

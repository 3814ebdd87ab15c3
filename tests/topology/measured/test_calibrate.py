"""Calibrate: what is held out is not seen, intervals hold what they say, data has a name."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from tests.topology.latency.jobs import make_job
from tests.topology.measured.synthetic_runs import (
    SIZES,
    log_ratio,
    make_observed,
    many_runs,
    planted,
)
from topology.errors import MeasurementError
from topology.latency.calibration import Calibration, HeldOut, Reach, Region, region_of
from topology.latency.operation import Operation
from topology.measured.calibrate import (
    LEAST_POINTS,
    calibrate,
    digest_of,
    factors,
    held_out_rows,
    nccl_times_s,
    points_of,
)
from topology.measured.observed import Observed
from topology.words import AlgorithmName, Collective

ALLTOALL = Operation(Collective.ALLTOALL)


def test_a_factor_is_the_same_above_and_below() -> None:
    found = factors(np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0, 3.0]))
    assert found.tolist() == [2.0, 2.0, 1.0]


# Machines that are held out.


def machines_of(speeds: list[float], *, noise: float = 0.02) -> list[Observed]:
    """A run on each of several machines of one kind, each so many times slower than the model."""
    return [
        make_observed(f"r{n}", machine=f"m{n}", family=f"f{n}", times=speed, noise=noise)
        for n, speed in enumerate(speeds)
    ]


def row(calibration: Calibration, family: str | None, region: Region = Region.TINY) -> HeldOut:
    return next(r for r in calibration.held_out if (r.family, r.region) == (family, region))


@pytest.mark.parametrize("region", list(Region))
def test_a_machine_that_is_twice_as_slow_is_missed_by_two_once_it_is_held_out(
    region: Region,
) -> None:
    runs = machines_of([1.0, 1.0, 2.0])
    calibration = calibrate(runs, data="planted")
    assert row(calibration, "f2", region).median_factor == pytest.approx(2.0, rel=0.08)
    mine = np.array([region_of(size) is region for size in SIZES])
    seen_s = runs[2].model(calibration).times_s(SIZES)
    in_sample = float(np.median(factors(seen_s, runs[2].times_s)[mine]))
    assert in_sample < row(calibration, "f2", region).median_factor - 0.03


def test_runs_of_one_machine_are_held_out_together() -> None:
    """Four slow runs of one machine: held out one by one, the others would give it away."""
    slow = [
        make_observed(f"slow{n}", machine="slow", family=f"slow{n}", times=2.0) for n in range(4)
    ]
    calibration = calibrate([*machines_of([1.0]), *slow], data="planted")
    assert row(calibration, "slow0").median_factor == pytest.approx(2.0, rel=0.05)


def test_figures_are_fitted_to_all_machines() -> None:
    runs = many_runs(planted({"hop.nvlink.ll": 1.5, "bandwidth.link.nvswitch": 1.3}))
    calibration = calibrate(runs, data="planted")
    predicted = np.concatenate([run.model(calibration).times_s(SIZES) for run in runs])
    assert log_ratio(predicted, np.concatenate([run.times_s for run in runs])) < 0.03


def test_progress_is_told_machine_by_machine() -> None:
    told: list[tuple[int, int]] = []
    calibrate(machines_of([1.0, 1.1, 1.2]), data="x", progress=lambda *at: told.append(at))
    assert told == [(1, 3), (2, 3), (3, 3)]


# Intervals.


def spread(count: int, sigma: float, shift: float) -> list[float]:
    """Machines as a log-normal spreads them, without chance."""
    steps = (np.arange(count) + shift) / count
    return [float(np.exp(sigma * NormalDist().inv_cdf(step))) for step in steps.tolist()]


def test_four_fifths_of_new_machines_lie_in_the_interval() -> None:
    calibration = calibrate(machines_of(spread(20, 0.3, 0.5)), data="planted")
    inside = []
    for run in machines_of(spread(40, 0.3, 0.37)):
        model = run.model(calibration)
        for size, time_s in zip(SIZES.tolist(), run.times_s.tolist(), strict=True):
            ends = model.predict(size).interval
            assert ends is not None
            inside.append(ends[0] <= time_s <= ends[1])
    assert 0.72 <= np.mean(inside) <= 0.88


def test_machines_that_agree_have_a_narrow_interval() -> None:
    narrow, wide = (
        calibrate(machines_of(spread(10, sigma, 0.5)), data="x").interval_of(
            Reach.ONE_NODE, Region.TINY
        )
        for sigma in (0.01, 0.3)
    )
    assert narrow is not None
    assert wide is not None
    assert narrow.high_ratio / narrow.low_ratio < 1.1
    assert wide.high_ratio / wide.low_ratio == pytest.approx(np.exp(2 * 1.28 * 0.3), rel=0.15)


def test_a_group_of_few_points_has_no_interval() -> None:
    """Two runs: 16 points up to 32 KiB, in each further region fewer."""
    calibration = calibrate(machines_of([1.0, 1.0]), data="x")
    assert sum(region_of(size) is Region.TINY for size in SIZES) * 2 < LEAST_POINTS
    assert calibration.interval == ()
    assert len(calibration.held_out) == len(Region) * 3


# Rows.


def test_nccls_model_stands_beside_ours_where_it_has_a_say() -> None:
    sums = make_observed("sum", family="sums")
    exchange = make_observed("a2a", operation=ALLTOALL, family="exchanges", machine="other")
    calibration = calibrate([sums, exchange], data="x")
    assert row(calibration, "sums").nccl_median_factor is not None
    assert row(calibration, "exchanges").nccl_median_factor is None
    assert row(calibration, "exchanges").nccl_p90_factor is None
    assert row(calibration, None).nccl_median_factor == row(calibration, "sums").nccl_median_factor


def test_nccls_model_says_what_its_fastest_way_takes() -> None:
    run = make_observed("sum")
    model = run.baseline()
    told = nccl_times_s(run)
    for size, time_s in zip(SIZES.tolist(), told.tolist(), strict=True):
        assert time_s == pytest.approx(min(way.nccl_s for way in model.alternatives(size)))
    assert np.isnan(nccl_times_s(make_observed("a2a", operation=ALLTOALL))).all()


def test_custom_kernels_are_held_against_nccls_all_reduce() -> None:
    custom = make_observed("custom", custom=True)
    assert nccl_times_s(custom).tolist() == nccl_times_s(make_observed("plain")).tolist()
    forced = make_observed("forced", algorithm=AlgorithmName.ONE_SHOT)
    assert np.isnan(nccl_times_s(forced)).all()


def test_each_family_weighs_the_same_in_a_row() -> None:
    """Nine runs that are met exactly, one of another family that is missed by three."""
    runs = [make_observed(f"good{n}", family="good") for n in range(9)]
    runs.append(make_observed("bad", family="bad"))
    points = points_of(
        runs, np.concatenate([run.times_s for run in runs[:9]] + [runs[9].times_s * 3])
    )
    all_rows = [r for r in held_out_rows(points) if r.family is None]
    assert [r.p90_factor for r in all_rows] == pytest.approx([3.0] * len(Region))
    assert [r.median_factor for r in all_rows] == pytest.approx([1.0] * len(Region))


def test_what_was_measured_is_told_by_link_and_generation() -> None:
    runs = [
        make_observed("one"),
        make_observed("four", job=make_job(4)),
        make_observed("two", job=make_job(2)),
    ]
    rows = {r.link: r for r in calibrate(runs, data="x").covered}
    assert set(rows) == {"nvswitch", "ib"}
    assert (rows["nvswitch"].most_cliques, rows["nvswitch"].most_ranks) == (1, 8)
    assert (rows["ib"].most_cliques, rows["ib"].most_ranks) == (4, 32)
    assert rows["ib"].points == 2 * len(SIZES)
    assert (rows["ib"].least_bytes, rows["ib"].most_bytes) == (SIZES.min(), SIZES.max())
    assert {r.architecture for r in rows.values()} == {"hopper"}


# Provenance.


def test_a_calibration_tells_what_it_was_fitted_to() -> None:
    told = calibrate(
        [*machines_of([1.0, 1.1]), make_observed("sick", quality="C", family="sick")], data="mine"
    ).provenance
    assert (told.runs, told.points, told.machines, told.data) == (2, 2 * len(SIZES), 2, "mine")
    assert told.families == {"f0": 1, "f1": 1}


def test_broken_runs_alone_calibrate_nothing() -> None:
    for runs in ([], [make_observed("sick", quality="C")]):
        with pytest.raises(MeasurementError, match=r"mine\.csv"):
            calibrate(runs, data="mine.csv")


def test_one_changed_point_changes_the_digest_and_order_does_not() -> None:
    runs = machines_of([1.0, 1.1])
    times_s = runs[1].times_s.copy()
    times_s[3] *= 1 + 1e-12
    changed = [runs[0], replace(runs[1], times_s=times_s)]
    assert digest_of(runs[::-1]) == digest_of(runs)
    assert digest_of(changed) != digest_of(runs)
    assert digest_of([replace(runs[0], run_id="other"), runs[1]]) != digest_of(runs)


def test_the_same_runs_give_the_same_calibration() -> None:
    runs = machines_of([1.0, 1.1, 1.3])
    assert calibrate(runs, data="x") == calibrate(runs, data="x")

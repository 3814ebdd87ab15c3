"""Sick or healthy: curves with a fault planted, and the calibration set's own C and A rows."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from topology.errors import MeasurementError
from topology.latency.calibration import Region
from topology.measured.diagnosis import (
    Diagnosis,
    Expectation,
    State,
    Variant,
    Verdict,
    diagnose,
)

FloatArray = NDArray[np.float64]

SIZES = 8.0 * 2.0 ** np.arange(28)
"""8 B to 1 GiB."""


def line(fixed_s: float, bytes_per_s: float) -> Callable[[FloatArray], FloatArray]:
    return lambda sizes: fixed_s + sizes / bytes_per_s


HEALTH = line(30e-6, 200e9)
FAULTS = {
    "one_rail_missing": line(30e-6, 175e9),
    "one_nic_only": line(30e-6, 25e9),
    "gpudirect_off": line(110e-6, 90e9),
    "sockets": line(400e-6, 10e9),
    "nvls_off": lambda sizes: np.where(sizes < 2**21, 1.0, 1.35) * HEALTH(sizes),
    "pcie_path": line(45e-6, 20e9),
    "ll_forced": line(28e-6, 45e9),
    "simple_forced": line(85e-6, 200e9),
}


def expectation(sizes: FloatArray = SIZES, spread: float = 1.15) -> Expectation:
    """A straight line with an 80 % interval of ``spread`` to either side, and eight faults."""
    predicted = HEALTH(sizes)
    return Expectation(
        predicted_s=predicted,
        low_s=predicted / spread,
        high_s=predicted * spread,
        ways=("ring, simple",) * len(sizes),
        variants=tuple(
            Variant(name, name.replace("_", " "), "look", curve(sizes))
            for name, curve in FAULTS.items()
        ),
    )


def seen(
    curve: Callable[[FloatArray], FloatArray],
    *,
    seed: int = 0,
    sizes: FloatArray = SIZES,
    spread: float = 1.15,
) -> Diagnosis:
    """What is seen of a curve with 5 % of noise on each row."""
    noise = np.exp(np.random.default_rng(seed).normal(0, 0.05, len(sizes)))
    return diagnose(sizes, curve(sizes) * noise, expectation(sizes, spread))


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_is_healthy(seed: int) -> None:
    found = seen(HEALTH, seed=seed)
    assert found.verdict is Verdict.HEALTHY
    assert (found.suspects, found.unexplained, found.slow) == ((), (), ())
    assert {region.state for region in found.regions} == {State.HEALTHY}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [name for name in FAULTS if name != "one_rail_missing"])
def test_a_planted_fault_is_the_first_suspect(name: str, seed: int) -> None:
    found = seen(FAULTS[name], seed=seed)
    assert found.verdict is Verdict.SICK
    assert found.suspects[0].name == name
    assert found.unexplained == ()
    assert set(found.suspects[0].explains) == set(found.slow)


def test_one_rail_of_eight_shows_only_against_a_narrow_interval() -> None:
    # 200 / 175 = 1.14 at large sizes: beyond 1.05 ** 2, within 1.15 ** 2.
    assert seen(FAULTS["one_rail_missing"]).verdict is Verdict.HEALTHY
    found = seen(FAULTS["one_rail_missing"], spread=1.05)
    assert found.slow == (Region.LARGE,)
    assert found.suspects[0].name == "one_rail_missing"


def test_the_evidence_says_what_was_measured_and_expected() -> None:
    sizes = np.array([2.0**26, 2.0**27, 2.0**28])
    measured = np.array([1.0, 2.0, 4.0])
    expected = Expectation(
        predicted_s=np.array([0.5, 1.0, 1.6]),
        low_s=np.array([0.4, 0.8, 1.28]),
        high_s=np.array([0.6, 1.2, 1.92]),
        ways=("nvls, simple", "nvls, simple", "ring, simple"),
        variants=(Variant("half", "half the rate", "look", np.array([1.0, 2.0, 3.2])),),
    )
    found = diagnose(sizes, measured, expected)
    (region,) = found.regions
    assert (region.region, region.rows, region.state) == (Region.LARGE, 3, State.SLOW)
    assert (region.measured_s, region.expected_s) == (2.0, 1.0)
    assert region.factor == pytest.approx(2.0)  # of 2.0, 2.0 and 2.5
    assert region.slow_ratio == pytest.approx(1.2**2)
    assert region.ways == ("nvls, simple", "ring, simple")
    (suspect,) = found.suspects
    assert suspect.factors == ((Region.LARGE, pytest.approx(1.0)),)


def test_slowness_that_no_fault_explains_is_said_to_be_unexplained() -> None:
    found = seen(lambda sizes: HEALTH(sizes) * np.where(sizes > 2**26, 40.0, 1.0))
    assert found.verdict is Verdict.SICK
    assert found.suspects == ()
    assert found.unexplained == (Region.LARGE,)


def test_a_fault_that_would_slow_what_is_fast_is_no_suspect() -> None:
    found = seen(lambda sizes: HEALTH(sizes) * np.where(sizes <= 2**15, 3.0, 1.0))
    assert found.slow == (Region.TINY,)
    names = {suspect.name for suspect in found.suspects}
    assert "gpudirect_off" not in names
    assert "sockets" not in names


def test_two_faults_of_the_same_curve_are_both_named() -> None:
    curve = FAULTS["pcie_path"]
    expected = expectation()
    twin = Variant("twin", "its twin", "look", curve(SIZES))
    both = Expectation(
        expected.predicted_s,
        expected.low_s,
        expected.high_s,
        expected.ways,
        (*expected.variants, twin),
    )
    found = diagnose(SIZES, curve(SIZES), both)
    assert {"pcie_path", "twin"} <= {suspect.name for suspect in found.suspects}


def test_a_first_call_is_named_and_is_no_sickness() -> None:
    measured = HEALTH(SIZES)
    measured[0] = 2.5e-3
    found = diagnose(SIZES, measured, expectation())
    assert found.verdict is Verdict.HEALTHY
    assert found.first_call is not None
    assert found.first_call[:2] == (8.0, 2.5e-3)
    assert found.first_call.expected_s == pytest.approx(30e-6, rel=1e-4)
    assert found.regions[0].rows == int((SIZES <= 2**15).sum()) - 1


def test_a_first_row_of_a_larger_size_is_no_first_call() -> None:
    found = diagnose(SIZES[::-1].copy(), HEALTH(SIZES[::-1]), expectation(SIZES[::-1].copy()))
    assert found.first_call is None


def test_one_row_far_off_makes_no_region_slow() -> None:
    measured = HEALTH(SIZES)
    measured[10] *= 50
    found = diagnose(SIZES, measured, expectation())
    assert found.verdict is Verdict.HEALTHY
    assert found.spikes == ()


def test_several_rows_that_stand_alone_are_told() -> None:
    measured = HEALTH(SIZES)
    measured[[5, 12, 20]] *= 10
    found = diagnose(SIZES, measured, expectation())
    assert [row.size_bytes for row in found.spikes] == SIZES[[5, 12, 20]].tolist()


def test_a_step_between_protocols_is_no_spike() -> None:
    measured = HEALTH(SIZES) * np.where(SIZES > 2**16, 3.0, 1.0)
    assert diagnose(SIZES, measured, expectation()).spikes == ()


def test_wrong_values_are_sickness_whatever_the_speed() -> None:
    found = diagnose(SIZES, HEALTH(SIZES), expectation(), wrong_values=3488)
    assert found.slow == ()
    assert found.verdict is Verdict.SICK


def test_a_region_of_two_rows_is_not_judged() -> None:
    sizes = np.array([8.0, 16.0, 32.0, 2.0**26, 2.0**27])
    found = diagnose(sizes, HEALTH(sizes) * [1, 1, 1, 9, 9], expectation(sizes))
    assert found.regions[-1].state is State.NOT_JUDGED
    assert found.verdict is Verdict.HEALTHY


def test_too_few_rows_for_any_region_are_refused() -> None:
    sizes = np.array([8.0, 2.0**20, 2.0**30])
    with pytest.raises(MeasurementError, match="3 rows, of no region 3; measure more sizes"):
        diagnose(sizes, HEALTH(sizes), expectation(sizes))


def test_faster_than_expected_is_told_and_is_no_sickness() -> None:
    found = seen(lambda sizes: HEALTH(sizes) / 3)
    assert {region.state for region in found.regions} == {State.FAST}
    assert found.verdict is Verdict.HEALTHY


def test_what_no_measurement_covers_is_told() -> None:
    expected = expectation()
    far = Expectation(
        expected.predicted_s, expected.low_s, expected.high_s, expected.ways, (), "no such link"
    )
    assert diagnose(SIZES, HEALTH(SIZES), far).notes == ("extrapolated: no such link",)


@given(
    st.lists(st.floats(1e-7, 10.0), min_size=4, max_size=28),
    st.floats(1.01, 5.0),
)
def test_slower_is_never_healthier(times: list[float], spread: float) -> None:
    sizes = SIZES[: len(times)]
    measured = np.array(times)
    found = diagnose(sizes, measured, expectation(sizes, spread))
    slower = diagnose(sizes, measured * 10, expectation(sizes, spread))
    assert set(found.slow) <= set(slower.slow)

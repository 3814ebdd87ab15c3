"""Ticks of a logarithmic axis: round, inside, not too many, exact."""

import pytest

from topology.diagram.log_ticks import log_ticks


def test_a_narrow_axis_has_fine_steps() -> None:
    assert log_ticks(25e-6, 70e-6) == (30e-6, 40e-6, 50e-6, 60e-6)


def test_a_wider_axis_has_one_two_five() -> None:
    assert log_ticks(9e-6, 1.1e-3, most=7) == (10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3)


def test_many_decades_skip_some() -> None:
    assert log_ticks(1, 1e9, most=5) == (1, 1e2, 1e4, 1e6, 1e8)


def test_both_ends_are_inside() -> None:
    assert log_ticks(1e-6, 2e-6) == (1e-6, 1.5e-6, 2e-6)


@pytest.mark.parametrize("most", [1, 3, 9])
@pytest.mark.parametrize(("low", "high"), [(1e-9, 1e3), (0.9, 1.1), (3e-5, 1.8e-4), (1, 1e12)])
def test_no_axis_has_more_than_asked(low: float, high: float, most: int) -> None:
    ticks = log_ticks(low, high, most=most)
    assert len(ticks) <= most
    assert all(low <= tick <= high for tick in ticks)
    assert list(ticks) == sorted(set(ticks))

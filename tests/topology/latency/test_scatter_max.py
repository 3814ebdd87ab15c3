"""Scatter-max: rows raised to the latest value sent to them, as one value after another would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.latency.scatter_max import MOST_TURNS, ScatterMax


def one_by_one(state: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    raised = state.copy()
    for row, value in zip(rows, values, strict=True):
        raised[row] = np.maximum(raised[row], value)
    return raised


@given(rows=st.lists(st.integers(0, 9), max_size=60), seed=st.integers(0, 2**16))
def test_rows_are_raised_as_one_value_after_another_would(rows: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    state, values = rng.normal(size=(10, 3)), rng.normal(size=(len(rows), 3))
    expected = one_by_one(state, np.array(rows, dtype=np.int64), values)
    ScatterMax(np.array(rows, dtype=np.int64)).raise_to(state, values)
    assert np.array_equal(state, expected)


@pytest.mark.parametrize("most", [1, 2, MOST_TURNS, MOST_TURNS + 1, 500])
def test_a_row_may_get_any_number_of_values(most: int) -> None:
    rows = np.random.default_rng(most).permutation(np.repeat([3, 0, 2], [most, 1, (most + 1) // 2]))
    rng = np.random.default_rng(1)
    state, values = rng.normal(size=(5, 4)), rng.normal(size=(len(rows), 4))
    expected = one_by_one(state, rows, values)
    scatter = ScatterMax(rows)
    assert scatter.is_single is (most == 1)
    scatter.raise_to(state, values)
    assert np.array_equal(state, expected)


def test_what_arrives_before_its_rows_time_changes_nothing() -> None:
    state = np.full((4, 2), 7.0)
    ScatterMax(np.array([1, 1, 3])).raise_to(state, np.zeros((3, 2)))
    assert (state == 7.0).all()

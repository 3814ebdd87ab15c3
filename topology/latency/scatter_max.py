"""Scatter-max: rows of a state raised to the latest of what is sent to them, all trials at once."""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

MOST_TURNS: Final = 32
"""Values that a row gets in turn, at most; of more numpy takes the maximum in one go."""


class ScatterMax:
    """Raises rows of a state to the latest value sent to them; rows may stand several times.

    Where they do, the first values of all rows are taken, then the second ones of those that get
    two, and so on: a third of the time of numpy's ``reduceat``, or less.
    """

    def __init__(self, rows: IntArray) -> None:
        distinct, counts = np.unique(rows, return_counts=True)
        most = int(counts.max(initial=0))
        self.is_single = most <= 1
        self._order = np.argsort(rows, kind="stable")
        self._starts = np.cumsum(counts) - counts
        self._turns: tuple[IntArray, ...] = ()
        self.rows = rows if self.is_single else distinct
        if 1 < most <= MOST_TURNS:
            most_first = np.argsort(-counts, kind="stable")
            self.rows, starts = distinct[most_first], self._starts[most_first]
            getting = [int((counts > turn).sum()) for turn in range(most)]
            self._turns = tuple(self._order[starts[:n] + turn] for turn, n in enumerate(getting))

    def raise_to(self, state: FloatArray, values: FloatArray) -> None:
        """``state[row] = max(state[row], values of that row)``; values: shape (rows given, k)."""
        latest = state.take(self.rows, axis=0)
        if self.is_single:
            np.maximum(latest, values, out=latest)
        elif self._turns:
            for turn in self._turns:
                some = latest[: len(turn)]
                np.maximum(some, values.take(turn, axis=0), out=some)
        else:
            grouped = values.take(self._order, axis=0)
            np.maximum(latest, np.maximum.reduceat(grouped, self._starts, axis=0), out=latest)
        state[self.rows] = latest

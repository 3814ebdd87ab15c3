"""Law: the distribution of one time on a uniform grid, bounded twice, so that it certifies itself.

The lower bound of every law lies stochastically at or below the true one (rounded down), the upper
at or above it (rounded up). Shift, sum, maximum and mixture keep that order, so a percentile comes
as a bracket. Where the upper bound is the lower one, only later, both share a row of masses.
No schedule and no route: ``exact`` composes these.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from topology.latency.law_rows import (
    FloatArray,
    Rows,
    convolved,
    from_tails,
    latest_tails,
    limited,
    placed,
)

FLOOR_CHANCE: Final = 1e-12
"""A floor is undercut with this chance, which is counted as an error."""

ALIGNED: Final = 1e-9
"""Origins that differ by a whole number of cells and less than this part of one are aligned."""

ROUNDED: Final = 1e-13
"""What cumulative probabilities are off by the arithmetic of doubles, at most."""


class Grid(NamedTuple):
    """Cells of ``step_s`` each, at most ``cells`` of them."""

    step_s: float
    cells: int


@dataclass(frozen=True, slots=True, eq=False)
class Law:
    """A random time: ``origin_s + k step_s`` with the masses of ``rows``; the upper bound later.

    ``lag``: by how many cells the upper bound's lie later, a whole number or not. ``error``: by how
    much a cumulative probability may be off by rounding and floors.
    """

    grid: Grid
    origin_s: float
    rows: Rows
    lag: float = 0.0
    error: float = 0.0

    @property
    def is_point(self) -> bool:
        """Whether it is one certain value."""
        return self.rows.cells == 1 and not self.beyond and not self.lag

    @property
    def beyond(self) -> float:
        """Mass above the grid: the upper bound has it at infinity."""
        return self.rows.beyond

    @property
    def last_s(self) -> float:
        """Where the upper bound ends; without what lies beyond. [s]"""
        return self._value_s(self.rows.cells - 1 + self.lag)

    @property
    def tails(self) -> FloatArray:
        """P(above each cell) of both bounds, on cells from the origin, shape (2, m)."""
        later = math.ceil(self.lag - ALIGNED)
        size = self.rows.cells + max(later, 0)
        low = placed(self.rows.low, 0, size, 0.0)
        return np.stack([low, placed(self.rows.high, later, size, self.beyond)])

    def atoms(self, row: int) -> tuple[FloatArray, FloatArray]:
        """Values and masses of the lower bound (row 0) or the upper one (row 1). [s]"""
        cells = np.arange(self.rows.cells) + row * self.lag
        mass = self.rows.mass[-1] if row else self.rows.both[0]
        return np.asarray(self.origin_s + self.grid.step_s * cells), mass

    def shifted(self, by_s: float) -> "Law":
        """Later by a constant; exact."""
        return replace(self, origin_s=self.origin_s + by_s)

    def scaled(self, factor: float) -> "Law":
        """A constant times it; the grid's step grows alike. Exact.

        Raises:
            ValueError: a factor of 0 or less.
        """
        if factor <= 0:
            raise ValueError(f"factor: {factor}; expected a number above 0")
        grid = self.grid._replace(step_s=self.grid.step_s * factor)
        return replace(self, grid=grid, origin_s=self.origin_s * factor)

    def plus(self, other: "Law") -> "Law":
        """The sum of two independent times: FFT convolution, rare masses apart."""
        origin_s = self.origin_s + other.origin_s
        for point, law in ((self, other), (other, self)):
            if point.is_point:
                return replace(law, origin_s=origin_s, error=law.error + point.error)
        rows, noise = convolved(self.rows, other.rows, self.grid.cells)
        error = self.error + other.error + noise
        return Law(self.grid, origin_s, rows, self.lag + other.lag, error)

    def times(self, n: int) -> "Law":
        """The sum of n independent copies, by repeated squaring: log2 n convolutions.

        Raises:
            ValueError: n below 0.
        """
        if n < 0:
            raise ValueError(f"n: {n}; expected 0 or more")
        total, power = point(self.grid, 0.0), self
        while n:
            if n & 1:
                total = total.plus(power)
            n >>= 1
            power = power.plus(power) if n else power
        return total

    def greatest_of(self, n: float) -> "Law":
        """The maximum of n independent copies: F^n."""
        return greatest([(self, n)])

    def shared(self) -> "Law":
        """For a second user of the same value: from below only its floor, from above all of it.

        Times of one schedule are associated: P(all <= t) is at least the product, as if each user
        had a copy of its own. With the floor for all users but one, the product is also a bound
        from the other side.
        """
        if self.is_point:
            return self
        cell = int(np.argmax(np.cumsum(self.rows.mass[0]) > FLOOR_CHANCE))
        mass = self.rows.both.copy()
        mass[0] = 0.0
        mass[0, cell] = 1.0
        return replace(self, rows=Rows(mass, self.beyond), error=self.error + FLOOR_CHANCE)

    def coarser(self, factor: int) -> "Law":
        """On cells ``factor`` times as long, rounded down and up."""
        grid = Grid(self.grid.step_s * factor, self.grid.cells)
        cells = np.arange(self.rows.cells)
        targets = (cells // factor, -(-cells // factor))
        count = int(targets[1][-1]) + 1
        rows = [np.bincount(t, m, count) for t, m in zip(targets, self.rows.both, strict=True)]
        lag = self.lag / factor
        return Law(grid, self.origin_s, Rows(np.array(rows), self.beyond), lag, self.error)

    def cdf(self, time_s: float) -> tuple[float, float]:
        """Bounds from below and from above of P(time <= ``time_s``)."""
        ((low,), (high,)) = self.tails_at(np.array([time_s])).tolist()
        error = self.error + ROUNDED
        return max(0.0, 1 - high - error), min(1.0, 1 - low + error)

    def tails_at(self, time_s: FloatArray) -> FloatArray:
        """P(above each time, shape (m,)) of both bounds, shape (2, m)."""
        place = (time_s - self.origin_s) / self.grid.step_s + ALIGNED
        pairs = ((self.rows.low, place), (self.rows.high, place - self.lag))
        return np.stack([_tails_in(tails, np.floor(cells)) for tails, cells in pairs])

    def quantile(self, q: float) -> tuple[float, float]:
        """A bracket of the q-quantile; its upper end is inf where that left the grid. [s]"""
        error = self.error + ROUNDED
        first = int(np.argmax(self.rows.low <= 1 - q + error))
        reached = self.rows.high <= 1 - q - error
        last = int(np.argmax(reached))
        upper = self._value_s(last + self.lag) if reached[last] else math.inf
        return self._value_s(first), upper

    @property
    def mean_s(self) -> tuple[float, float]:
        """Bounds of the mean; without what lies beyond the grid. [s]"""
        low, high = (float(mass @ value_s) for value_s, mass in map(self.atoms, (0, 1)))
        return low, high

    def _value_s(self, cell: float) -> float:
        return self.origin_s + cell * self.grid.step_s


def _tails_in(tails: FloatArray, cells: FloatArray) -> FloatArray:
    places = np.clip(cells, 0, len(tails) - 1).astype(np.int64)
    return np.where(cells < 0, 1.0, tails[places])


def point(grid: Grid, value_s: float) -> Law:
    """The law of a certain value, which need not lie on the grid."""
    return Law(grid, value_s, Rows(np.ones((1, 1))))


def greatest(terms: Iterable[tuple[Law, float]]) -> Law:
    """The maximum of independent times, each (law, how many of it): the product of F^n.

    It is no earlier than the latest origin: what lies below that counts as that.

    Raises:
        ValueError: no terms.
    """
    terms = list(terms)
    if not terms:
        raise ValueError("terms: none; expected at least one law")
    latest_s = max(law.origin_s for law, _ in terms)
    error = sum(law.error * n for law, n in terms)
    is_later = [law.last_s > latest_s or law.beyond for law, _ in terms]
    terms = [
        term
        for term, later in zip(terms, is_later, strict=True)
        if later or term[0].origin_s == latest_s
    ]
    of = _greatest_of_one_row if all(law.rows.is_one for law, _ in terms) else _greatest_of_two
    return replace(of(terms, latest_s), error=error)


def _greatest_of_one_row(terms: Sequence[tuple[Law, float]], latest_s: float) -> Law:
    """Each no more behind its lower bound than the slowest, on whose cells it is."""
    grid = terms[0][0].grid
    slowest = max((law for law, _ in terms), key=lambda law: (law.lag, law.origin_s))
    ahead = math.floor((latest_s - slowest.origin_s) / grid.step_s + ALIGNED)
    origin_s = slowest.origin_s + ahead * grid.step_s
    places = [(law.origin_s - origin_s) / grid.step_s for law, _ in terms]
    cells = [math.floor(place + ALIGNED) for place in places]
    laws = [law for law, _ in terms]
    size = max(1, *(law.rows.cells + cell for law, cell in zip(laws, cells, strict=True)))
    lag = max(
        law.lag + max(place - cell, 0.0)
        for law, place, cell in zip(laws, places, cells, strict=True)
    )
    tails = latest_tails(
        (placed(law.rows.high, cell, size, law.beyond), n)
        for (law, n), cell in zip(terms, cells, strict=True)
    )
    ends = (law.rows.held + cell for law, cell in zip(laws, cells, strict=True) if law.beyond)
    rows = from_tails(tails[None], grid.cells, max(0, min(ends, default=size - 1)))
    return Law(grid, origin_s, rows, lag)


def _greatest_of_two(terms: Sequence[tuple[Law, float]], latest_s: float) -> Law:
    """Each bound by itself, from its own latest origin."""
    grid, laws = terms[0][0].grid, [law for law, _ in terms]
    uppers_s = [law.origin_s + law.lag * grid.step_s for law in laws]
    latest_upper_s = max(uppers_s)
    low = [_floor(law.origin_s - latest_s, grid) for law in laws]
    high = [_ceil(upper_s - latest_upper_s, grid) for upper_s in uppers_s]
    counts = [n for _, n in terms]
    size = max(1, *(law.rows.cells + max(x) for law, *x in zip(laws, low, high, strict=True)))
    lows = [placed(law.rows.low, x, size, 0.0) for law, x in zip(laws, low, strict=True)]
    highs = [placed(law.rows.high, x, size, law.beyond) for law, x in zip(laws, high, strict=True)]
    tails = [latest_tails(zip(rows, counts, strict=True)) for rows in (lows, highs)]
    rows = from_tails(np.stack(tails), grid.cells, 0)
    return Law(grid, latest_s, rows, (latest_upper_s - latest_s) / grid.step_s)


def _floor(by_s: float, grid: Grid) -> int:
    return math.floor(by_s / grid.step_s + ALIGNED)


def _ceil(by_s: float, grid: Grid) -> int:
    return math.ceil(by_s / grid.step_s - ALIGNED)


def no_earlier_than_each(law: Law, terms: Iterable[Law]) -> Law:
    """A law whose lower bound is raised to each of the terms, which are no later than it is.

    P(all <= t) is at most the least of P(each <= t), however they depend on each other.
    """
    tails, error = law.rows.low.copy(), law.error
    for term in terms:
        if term.origin_s <= law.origin_s:
            cell = _floor(term.origin_s - law.origin_s, law.grid)
            np.maximum(tails, placed(term.rows.low, cell, len(tails), 0.0), out=tails)
            error = max(error, term.error)
    rows = from_tails(np.stack([tails, law.rows.high]), law.grid.cells, 0)
    return replace(law, rows=rows, error=error)


def bracketed(low: Law, high: Law) -> Law:
    """The lower bound of one law and the upper one of another of the same time."""
    mass = np.zeros((2, max(low.rows.cells, high.rows.cells)))
    mass[0, : low.rows.cells] = low.rows.both[0]
    mass[1, : high.rows.cells] = high.rows.mass[-1]
    lag = (high.origin_s - low.origin_s) / low.grid.step_s + high.lag
    error = max(low.error, high.error)
    return Law(low.grid, low.origin_s, Rows(mass, high.beyond), lag, error)


def mixture(terms: Sequence[tuple[float, Law]]) -> Law:
    """One of several laws by chance, each (probability, law).

    Raises:
        ValueError: probabilities that do not sum to 1.
    """
    total = math.fsum(weight for weight, _ in terms)
    if abs(total - 1) > 1e-9 or min(weight for weight, _ in terms) < 0:
        raise ValueError(f"terms: probabilities sum to {total}; expected 1")
    grid = terms[0][1].grid
    laws = [law for _, law in terms]
    uppers_s = [law.origin_s + law.lag * grid.step_s for law in laws]
    origin_s, upper_s = min(law.origin_s for law in laws), min(uppers_s)
    low = [_floor(law.origin_s - origin_s, grid) for law in laws]
    high = [_ceil(at_s - upper_s, grid) for at_s in uppers_s]
    mass = np.zeros((2, max(map(max, low, high)) + max(law.rows.cells for law in laws)))
    for (weight, law), *starts in zip(terms, low, high, strict=True):
        for row, start in enumerate(starts):
            mass[row, start : start + law.rows.cells] += weight * law.rows.both[row]
    beyond = sum(weight * law.beyond for weight, law in terms)
    error = sum(weight * law.error for weight, law in terms)
    rows = limited(Rows(mass, beyond), grid.cells)
    return Law(grid, origin_s, rows, (upper_s - origin_s) / grid.step_s, error)


def from_quantiles(grid: Grid, quantiles_s: FloatArray) -> Law:
    """The law of equally likely values, shape (m,), ascending."""
    origin_s = float(quantiles_s[0])
    place = (quantiles_s - origin_s) / grid.step_s
    cells = (np.floor(place + ALIGNED).astype(int), np.ceil(place - ALIGNED).astype(int))
    size = int(cells[1].max()) + 1
    mass = np.stack([np.bincount(cell, minlength=size) for cell in cells]) / len(place)
    return Law(grid, origin_s, limited(Rows(mass), grid.cells))


def from_survival(grid: Grid, origin_s: float, above: FloatArray) -> Law:
    """The law whose P(X > origin + k step) is ``above[k]``, shape (m,), never below the origin.

    What lies above the last of them is beyond the grid. One row where nothing is at the origin.
    """
    falling = np.minimum.accumulate(np.concatenate([[1.0], above]))
    cells = falling[:-1] - falling[1:]
    beyond, last = float(falling[-1]), len(cells) - 1
    low = np.append(cells[1:], 0.0)
    low[0] += cells[0]
    if not cells[0] and last:
        return Law(grid, origin_s, limited(Rows(low[None], beyond, last), grid.cells), 1.0)
    low[-1] += beyond
    return Law(grid, origin_s, limited(Rows(np.stack([low, cells]), beyond), grid.cells))

"""Law: the distribution of one time on a uniform grid, held twice, so that it certifies itself.

Row 0 of every law lies stochastically at or below the true one (rounded down), row 1 at or above it
(rounded up). Shift, sum, maximum and mixture keep that order, so a percentile comes as a bracket.
No schedule and no route: ``exact`` composes these.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
ComplexArray: TypeAlias = NDArray[np.complex128]

RARE: Final = 1e-7
"""Where the tail is lighter than this, the body ends."""

HIDDEN: Final = 1e-11
"""Mass below this far behind a body is convolved apart: an FFT's noise is relative to its input."""

FLOOR_CHANCE: Final = 1e-12
"""A floor is undercut with this chance, which is counted as an error."""

ALIGNED: Final = 1e-9
"""Origins that differ by a whole number of cells and less than this part of one are aligned."""

UNIT: Final = 2.0**-53
ROUNDED: Final = 1e-13
"""What cumulative probabilities are off by the arithmetic of doubles, at most."""


class Grid(NamedTuple):
    """Cells of ``step_s`` each, at most ``cells`` of them."""

    step_s: float
    cells: int


@dataclass(frozen=True, slots=True, eq=False)
class Law:
    """A random time: ``origin_s + k step_s`` with probability ``mass[row, k]``, shape (2, m).

    ``beyond``: mass above the grid; row 0 holds it in its last cell, row 1 has it at infinity.
    ``error``: by how much a cumulative probability may be off by rounding and floors.
    """

    grid: Grid
    origin_s: float
    mass: FloatArray
    beyond: float = 0.0
    error: float = 0.0
    _spectra: dict[int, ComplexArray] = field(default_factory=dict, repr=False)
    _tails: list[FloatArray] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.mass.setflags(write=False)

    @property
    def is_point(self) -> bool:
        """Whether it is one certain value."""
        return self.mass.shape[1] == 1 and not self.beyond

    @property
    def tails(self) -> FloatArray:
        """P(above each cell) of both rows, shape (2, m); summed from the far end, so relative."""
        if not self._tails:
            above = np.cumsum(self.mass[:, :0:-1], axis=1)[:, ::-1]
            tails = np.concatenate([above, np.zeros((2, 1))], axis=1)
            tails[1] += self.beyond
            self._tails.append(np.minimum(tails, 1.0))
        return self._tails[0]

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
        return replace(self, grid=grid, origin_s=self.origin_s * factor, _spectra={})

    def plus(self, other: "Law") -> "Law":
        """The sum of two independent times: FFT convolution, rare masses apart."""
        origin_s = self.origin_s + other.origin_s
        for point, law in ((self, other), (other, self)):
            if point.is_point:
                return replace(law, origin_s=origin_s, error=law.error + point.error)
        mass, beyond, noise = _convolved(self, other)
        error = self.error + other.error + noise
        return Law(self.grid, origin_s, mass, beyond, error)

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
        cell = int(np.argmax(np.cumsum(self.mass[0]) > FLOOR_CHANCE))
        mass = self.mass.copy()
        mass[0] = 0.0
        mass[0, cell] = 1.0
        return Law(self.grid, self.origin_s, mass, self.beyond, self.error + FLOOR_CHANCE)

    def coarser(self, factor: int) -> "Law":
        """On cells ``factor`` times as long, rounded down and up."""
        grid = Grid(self.grid.step_s * factor, self.grid.cells)
        cells = np.arange(self.mass.shape[1])
        targets = (cells // factor, -(-cells // factor))
        count = int(targets[1][-1]) + 1
        rows = [np.bincount(t, m, count) for t, m in zip(targets, self.mass, strict=True)]
        return Law(grid, self.origin_s, np.array(rows), self.beyond, self.error)

    def cdf(self, time_s: float) -> tuple[float, float]:
        """Bounds from below and from above of P(time <= ``time_s``)."""
        cell = math.floor((time_s - self.origin_s) / self.grid.step_s + ALIGNED)
        if cell < 0:
            return 0.0, self.error + ROUNDED
        low, high = self.tails[:, min(cell, self.mass.shape[1] - 1)]
        error = self.error + ROUNDED
        return max(0.0, 1 - float(high) - error), min(1.0, 1 - float(low) + error)

    def quantile(self, q: float) -> tuple[float, float]:
        """A bracket of the q-quantile; its upper end is inf where that left the grid. [s]"""
        low, high = self.tails
        error = self.error + ROUNDED
        first = int(np.argmax(low <= 1 - q + error))
        reached = high <= 1 - q - error
        upper = self._value_s(int(np.argmax(reached))) if reached.any() else math.inf
        return self._value_s(first), upper

    @property
    def mean_s(self) -> tuple[float, float]:
        """Bounds of the mean; without what lies beyond the grid. [s]"""
        value = self.origin_s + self.grid.step_s * np.arange(self.mass.shape[1])
        low, high = self.mass @ value
        return float(low), float(high)

    def _value_s(self, cell: int) -> float:
        return self.origin_s + cell * self.grid.step_s


def point(grid: Grid, value_s: float) -> Law:
    """The law of a certain value, which need not lie on the grid."""
    return Law(grid, value_s, np.ones((2, 1)))


def greatest(terms: Iterable[tuple[Law, float]]) -> Law:
    """The maximum of independent times, each (law, how many of it): the product of F^n.

    It is no earlier than the latest origin: what lies below that counts as that.

    Raises:
        ValueError: no terms.
    """
    terms = list(terms)
    if not terms:
        raise ValueError("terms: none; expected at least one law")
    origin_s = max(law.origin_s for law, _ in terms)
    size = max(_cells_from(law, origin_s) for law, _ in terms)
    tails = np.zeros((2, size))
    for law, n in terms:
        tails += (1 - tails) * _tails_of_greatest(_tails_from(law, origin_s, size), n)
    error = sum(law.error * n for law, n in terms)
    return _from_tails(terms[0][0].grid, origin_s, tails, error)


def _tails_of_greatest(tails: FloatArray, n: float) -> FloatArray:
    """1 - F^n from 1 - F, exact where that is small; a pair without a logarithm."""
    if n == 1:
        return tails
    if n == 2:
        return tails * (2 - tails)
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(n * np.log1p(-tails)))


def no_earlier_than_each(law: Law, terms: Iterable[Law]) -> Law:
    """A law whose row 0 is raised to each of the terms, which are no later than what it is of.

    P(all <= t) is at most the least of P(each <= t), however they depend on each other.
    """
    size = law.mass.shape[1]
    tails = law.tails.copy()
    error = law.error
    for term in terms:
        if term.origin_s <= law.origin_s:
            tails[0] = np.maximum(tails[0], _tails_from(term, law.origin_s, size)[0])
            error = max(error, term.error)
    return _from_tails(law.grid, law.origin_s, tails, error)


def bracketed(low: Law, high: Law) -> Law:
    """Row 0 of one law and row 1 of another of the same time."""
    origin_s = min(low.origin_s, high.origin_s)
    rows = [_mass_from(law, origin_s)[row] for row, law in enumerate((low, high))]
    mass = np.zeros((2, max(map(len, rows))))
    for row, values in enumerate(rows):
        mass[row, : len(values)] = values
    return _limited(low.grid, origin_s, mass, high.beyond, max(low.error, high.error))


def mixture(terms: Sequence[tuple[float, Law]]) -> Law:
    """One of several laws by chance, each (probability, law).

    Raises:
        ValueError: probabilities that do not sum to 1.
    """
    total = math.fsum(weight for weight, _ in terms)
    if abs(total - 1) > 1e-9 or min(weight for weight, _ in terms) < 0:
        raise ValueError(f"terms: probabilities sum to {total}; expected 1")
    origin_s = min(law.origin_s for _, law in terms)
    parts = [(weight, _mass_from(law, origin_s)) for weight, law in terms]
    mass = np.zeros((2, max(part.shape[1] for _, part in parts)))
    for weight, part in parts:
        mass[:, : part.shape[1]] += weight * part
    beyond = sum(weight * law.beyond for weight, law in terms)
    error = sum(weight * law.error for weight, law in terms)
    return _limited(terms[0][1].grid, origin_s, mass, beyond, error)


def from_quantiles(grid: Grid, quantiles_s: FloatArray) -> Law:
    """The law of equally likely values, shape (m,), ascending."""
    origin_s = float(quantiles_s[0])
    place = (quantiles_s - origin_s) / grid.step_s
    cells = (np.floor(place + ALIGNED).astype(int), np.ceil(place - ALIGNED).astype(int))
    size = int(cells[1].max()) + 1
    mass = np.stack([np.bincount(cell, minlength=size) for cell in cells]) / len(place)
    return _limited(grid, origin_s, mass, 0.0, 0.0)


def from_survival(grid: Grid, origin_s: float, above: FloatArray) -> Law:
    """The law whose P(X > origin + k step) is ``above[k]``, shape (m,), never below the origin.

    What lies above the last of them is beyond the grid.
    """
    falling = np.minimum.accumulate(np.concatenate([[1.0], above]))
    cells = falling[:-1] - falling[1:]
    mass = np.zeros((2, len(cells)))
    mass[1] = cells
    mass[0, : len(cells) - 1] = cells[1:]
    mass[0, 0] += cells[0]
    mass[0, -1] += falling[-1]
    return _limited(grid, origin_s, mass, float(falling[-1]), 0.0)


def _cells_from(law: Law, origin_s: float) -> int:
    offset = (law.origin_s - origin_s) / law.grid.step_s
    return max(1, int(law.mass.shape[1]) + math.ceil(offset - ALIGNED))


def _tails_from(law: Law, origin_s: float, size: int) -> FloatArray:
    """Tails on cells that begin at an origin not below the law's, shape (2, size)."""
    offset = (law.origin_s - origin_s) / law.grid.step_s
    tails = np.zeros((2, size))
    tails[1] = min(law.beyond, 1.0)
    for row, cell in enumerate((math.floor(offset + ALIGNED), math.ceil(offset - ALIGNED))):
        known = law.tails[row, max(-cell, 0) :]
        tails[row, : len(known)] = known[:size]
    return tails


def _mass_from(law: Law, origin_s: float) -> FloatArray:
    """Mass on cells that begin at an origin not above the law's, rounded down and up."""
    offset = (law.origin_s - origin_s) / law.grid.step_s
    down, up = math.floor(offset + ALIGNED), math.ceil(offset - ALIGNED)
    size = law.mass.shape[1]
    mass = np.zeros((2, size + up))
    mass[0, down : down + size] = law.mass[0]
    mass[1, up : up + size] = law.mass[1]
    return mass


def _from_tails(grid: Grid, origin_s: float, tails: FloatArray, error: float) -> Law:
    """The law of which these are the tails, on at most the grid's cells; they are kept with it."""
    tails = tails[:, : grid.cells]
    tails[0, -1] = 0.0
    mass = np.empty_like(tails)
    mass[:, 0] = 1 - tails[:, 0]
    np.subtract(tails[:, :-1], tails[:, 1:], out=mass[:, 1:])
    np.maximum(mass, 0.0, out=mass)
    return Law(grid, origin_s, mass, float(tails[1, -1]), error, _tails=[tails])


def _limited(grid: Grid, origin_s: float, mass: FloatArray, beyond: float, error: float) -> Law:
    """A law of at most the grid's cells: row 0 keeps the rest in its last, row 1 loses it."""
    cells = grid.cells
    if mass.shape[1] > cells:
        rest = mass[:, cells:].sum(axis=1)
        mass = mass[:, :cells].copy()
        mass[0, -1] += rest[0]
        beyond += float(rest[1])
    return Law(grid, origin_s, mass, beyond, error)


def _convolved(a: Law, b: Law) -> tuple[FloatArray, float, float]:
    """Mass of a sum, what lies beyond the grid, and the FFT's noise."""
    size = a.mass.shape[1] + b.mass.shape[1] - 1
    length = _fast_length(size)
    apart = _hides_rare(a) or _hides_rare(b)
    fa, fb = _transformed(a, length, apart=apart), _spectrum(b, length, apart=apart)
    mass = np.fft.irfft(fa[0] * fb[0], length)[:, :size]
    if apart:
        mass[:, _body_cells(a) + _body_cells(b) - 1 :] = 0.0
        rare = np.fft.irfft(fa[0] * fb[1] + fa[1] * (fb[0] + fb[1]), length)[:, :size]
        mass = np.maximum(mass, 0.0) + rare
    np.maximum(mass, 0.0, out=mass)
    beyond = a.beyond + b.beyond - a.beyond * b.beyond
    limited = _limited(a.grid, 0.0, mass, beyond, 0.0)
    return limited.mass, limited.beyond, _fft_noise(a, b, length)


def _fft_noise(a: Law, b: Law, length: int) -> float:
    """Bound of the sum of all cells' errors: Cauchy-Schwarz over the 2-norm bound of an FFT."""
    squares = np.einsum("ij,ij->i", a.mass, a.mass) * np.einsum("ij,ij->i", b.mass, b.mass)
    return 4 * UNIT * math.log2(length) * math.sqrt(length * float(squares.max()))


def _spectrum(law: Law, length: int, *, apart: bool) -> ComplexArray:
    """The transform of a law that is added again and again, kept with it."""
    key = 2 * length + apart
    found = law._spectra.get(key)
    if found is None:
        found = law._spectra[key] = _transformed(law, length, apart=apart)
    return found


def _transformed(law: Law, length: int, *, apart: bool) -> ComplexArray:
    """Transforms of a law, shape (parts, 2, length / 2 + 1): the whole, or body and rare part."""
    if not apart:
        return np.asarray(np.fft.rfft(law.mass[None], length))
    cut = _body_cells(law)
    parts = np.zeros((2, *law.mass.shape))
    parts[0, :, :cut] = law.mass[:, :cut]
    parts[1, :, cut:] = law.mass[:, cut:]
    return np.asarray(np.fft.rfft(parts, length))


def _hides_rare(law: Law) -> bool:
    """Whether far behind its body there is mass so rare that the FFT's noise would hide it."""
    far = law.tails[:, min(2 * _body_cells(law), law.mass.shape[1] - 1)] - [0.0, law.beyond]
    return bool(((far > 0) & (far < HIDDEN)).any())


def _body_cells(law: Law) -> int:
    """Cells before the tail of either row falls below RARE."""
    limits = (RARE, RARE + law.beyond)
    rising = law.tails[:, ::-1]
    light = [int(np.searchsorted(row, x, "right")) for row, x in zip(rising, limits, strict=True)]
    return max(1, int(law.mass.shape[1]) - min(light) + 1)


def _fast_length(size: int) -> int:
    """The least of 2^k, 3 2^k and 5 2^k that is at least ``size``."""
    return min(factor << max(0, math.ceil(math.log2(size / factor))) for factor in (1, 3, 5))

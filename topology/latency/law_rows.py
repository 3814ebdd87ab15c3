"""Law rows: masses on cells in one row or two, their tails, maxima and convolutions.

No grid, no origin, no time: ``law`` says where the cells lie.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
ComplexArray: TypeAlias = NDArray[np.complex128]

RARE: Final = 1e-7
"""Where the tail is lighter than this, the body ends."""

HIDDEN: Final = 1e-11
"""Mass below this far behind a body is convolved apart: an FFT's noise is relative to its input."""

UNIT: Final = 2.0**-53

FAST: Final = (1, 3, 5, 9, 15, 25, 27)
"""Odd factors of lengths that numpy transforms about as fast as powers of 2."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Masses of shape (1, m) or (2, m): of both bounds of a law, or of each.

    ``beyond``: mass above the cells. One row does without it, and the lower bound has it in the
    cell ``held``; of two rows, the first has it in its mass and the second does without.
    """

    mass: FloatArray
    beyond: float = 0.0
    held: int = 0
    _spectra: dict[tuple[int, bool, int], ComplexArray] = field(default_factory=dict, repr=False)
    _above: list[FloatArray] = field(default_factory=list, repr=False)
    _body: list[int] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.mass.setflags(write=False)

    @property
    def is_one(self) -> bool:
        """Whether both bounds share a row."""
        return len(self.mass) == 1

    @property
    def cells(self) -> int:
        """How many there are."""
        return int(self.mass.shape[1])

    @property
    def above(self) -> FloatArray:
        """P(above each cell) of each row; summed from the far end, so relative."""
        if not self._above:
            above = np.empty_like(self.mass)
            above[:, -1] = 0.0
            np.cumsum(self.mass[:, :0:-1], axis=1, out=above[:, -2::-1])
            above[-1] += self.beyond
            self._above.append(np.minimum(above, 1.0, out=above))
        return self._above[0]

    @property
    def low(self) -> FloatArray:
        """P(above each cell) of the lower bound, shape (m,)."""
        if not (self.is_one and self.beyond):
            return np.asarray(self.above[0])
        low = self.above[0].copy()
        low[self.held :] -= self.beyond
        low[-1] = 0.0
        return np.asarray(np.maximum(low, 0.0))

    @property
    def high(self) -> FloatArray:
        """P(above each cell) of the upper bound, shape (m,)."""
        return np.asarray(self.above[-1])

    @property
    def both(self) -> FloatArray:
        """A mass for each bound, shape (2, m)."""
        if not self.is_one:
            return self.mass
        both = np.repeat(self.mass, 2, axis=0)
        both[0, self.held] += self.beyond
        return both

    def twice(self) -> "Rows":
        """The same as two rows."""
        return Rows(self.both, self.beyond) if self.is_one else self

    def spectrum(self, length: int, *, apart: bool, is_kept: bool) -> ComplexArray:
        """Transforms, shape (parts, rows, length / 2 + 1): the whole, or body and rare part.

        ``is_kept``: with these rows, which are added again and again.
        """
        key = (length, apart, len(self.mass))
        found = self._spectra.get(key)
        if found is None:
            found = np.asarray(np.fft.rfft(self._parts() if apart else self.mass[None], length))
            if is_kept:
                self._spectra[key] = found
        return found

    def _parts(self) -> FloatArray:
        cut = self.body_cells()
        parts = np.zeros((2, *self.mass.shape))
        parts[0, :, :cut] = self.mass[:, :cut]
        parts[1, :, cut:] = self.mass[:, cut:]
        return parts

    def hides_rare(self) -> bool:
        """Whether far behind the body there is mass so rare that the FFT's noise would hide it."""
        far = self.above[:, min(2 * self.body_cells(), self.cells - 1)].copy()
        far[-1] -= self.beyond
        return bool(((far > 0) & (far < HIDDEN)).any())

    def body_cells(self) -> int:
        """Cells before the tail of any row falls below RARE."""
        if not self._body:
            limits = (RARE + self.beyond,) if self.is_one else (RARE, RARE + self.beyond)
            pairs = zip(self.above[:, ::-1], limits, strict=True)
            light = [int(np.searchsorted(row, limit, "right")) for row, limit in pairs]
            self._body.append(max(1, self.cells - min(light) + 1))
        return self._body[0]


def from_tails(tails: FloatArray, cells: int, held: int) -> Rows:
    """Rows of which these are the tails, at most so many cells; they are kept with them."""
    tails = tails[:, :cells]
    if len(tails) == 2:
        tails[0, -1] = 0.0
    mass = np.empty_like(tails)
    mass[:, 0] = 1 - tails[:, 0]
    np.subtract(tails[:, :-1], tails[:, 1:], out=mass[:, 1:])
    np.maximum(mass, 0.0, out=mass)
    return Rows(mass, float(tails[-1, -1]), min(held, tails.shape[1] - 1), _above=[tails])


def limited(rows: Rows, cells: int) -> Rows:
    """Rows of at most so many cells: the first of two keeps the rest in its last one."""
    mass, beyond = rows.mass, rows.beyond
    if rows.cells <= cells:
        return rows
    rest = mass[:, cells:].sum(axis=1)
    mass = mass[:, :cells].copy()
    if not rows.is_one:
        mass[0, -1] += rest[0]
    held = min(rows.held, cells - 1) if beyond else cells - 1
    return Rows(mass, beyond + float(rest[-1]), held)


def placed(tails: FloatArray, cell: int, size: int, beyond: float) -> FloatArray:
    """Tails, shape (m,), whose first cell is this one of so many; ``beyond``: behind their last."""
    put = np.empty(size)
    start = min(max(cell, 0), size)
    put[:start] = 1.0
    known = tails[max(-cell, 0) :][: size - start]
    put[start : start + len(known)] = known
    put[start + len(known) :] = beyond
    return put


def latest_tails(terms: Iterable[tuple[FloatArray, float]]) -> FloatArray:
    """Tails of the latest of independent times, each (tails, how many): the product of F^n."""
    latest: FloatArray | None = None
    for tails, n in terms:
        of_all = _tails_of_greatest(tails, n)
        if latest is None:
            latest = of_all
        else:
            of_all *= 1 - latest
            latest += of_all
    assert latest is not None, "the latest of some"
    return latest


def _tails_of_greatest(tails: FloatArray, n: float) -> FloatArray:
    """1 - F^n from 1 - F, exact where that is small; a pair without a logarithm."""
    if n == 1:
        return tails
    if n == 2:
        return np.asarray(tails * (2 - tails))
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(n * np.log1p(-tails)))


def convolved(a: Rows, b: Rows, cells: int) -> tuple[Rows, float]:
    """Rows of a sum on at most so many cells, and the FFT's noise; b's transforms are kept."""
    if a.is_one != b.is_one and (a.beyond or b.beyond):
        a, b = a.twice(), b.twice()
    size = a.cells + b.cells - 1
    length = fast_length(size)
    body = a.body_cells() + b.body_cells() - 1
    apart = a.hides_rare() or b.hides_rare()
    fb = b.spectrum(length, apart=apart, is_kept=True)
    fa = a.spectrum(length, apart=apart, is_kept=False)
    mass = np.fft.irfft(fa[0] * fb[0], length)[:, :size]
    if apart:
        mass[:, body:] = 0.0
        rare = np.fft.irfft(fa[0] * fb[1] + fa[1] * (fb[0] + fb[1]), length)[:, :size]
        mass = np.maximum(mass, 0.0) + rare
    np.maximum(mass, 0.0, out=mass)
    beyond = a.beyond + b.beyond - a.beyond * b.beyond
    held = min([rows.held for rows in (a, b) if rows.beyond], default=size - 1)
    return limited(Rows(mass, beyond, held), cells), _fft_noise(a, b, length)


def _fft_noise(a: Rows, b: Rows, length: int) -> float:
    """Bound of the sum of all cells' errors: Cauchy-Schwarz over the 2-norm bound of an FFT."""
    squares = np.einsum("ij,ij->i", a.mass, a.mass) * np.einsum("ij,ij->i", b.mass, b.mass)
    return 4 * UNIT * math.log2(length) * math.sqrt(length * float(squares.max()))


def fast_length(size: int) -> int:
    """The least product of a power of 2 and a small odd number that is at least ``size``.

    >>> fast_length(24_202), fast_length(25_000)
    (24576, 25600)
    """
    return min(odd << max(0, (-(-size // odd) - 1).bit_length()) for odd in FAST)

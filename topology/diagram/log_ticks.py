"""Ticks of a logarithmic axis: round numbers, as many as can be read. No place, no text."""

import math
from typing import Final

_MANTISSAS: Final = ((1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))


def log_ticks(low: float, high: float, *, most: int = 9) -> tuple[float, ...]:
    """Round numbers from ``low`` to ``high``, both above 0, the finest steps that give ``most``.

    >>> log_ticks(25e-6, 180e-6, most=6)
    (5e-05, 0.0001)
    >>> log_ticks(1, 1000, most=4)
    (1.0, 10.0, 100.0, 1000.0)
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in _MANTISSAS:
        ticks = [_round(m, d) for d in decades for m in mantissas]
        inside = tuple(tick for tick in ticks if low <= tick <= high)
        if len(inside) <= most:
            return inside
    step = math.ceil(len(inside) / most)
    return inside[::step]


def _round(mantissa: float, decade: int) -> float:
    """The float nearest to a short decimal number, not an ulp beside it."""
    return float(f"{mantissa}e{decade}")

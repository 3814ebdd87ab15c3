"""Ring bounds: certified percentiles of a ring's completion from both sides, for any size.

T(i, k+1) = max(T(i, k), T(i-1, k)) + X is the greatest sum along 2^(K-1) paths to each of n ranks.
Below: the slowest of n independent own paths, and one path that at each step goes to the slower of
its two hops. Above: the union over all paths, or over all chains of the messages that matter on
them, whichever is tighter. All hold at any size; none is an estimate.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from topology.fabric.link_figures import Jitter
from topology.latency.law import Grid, Law
from topology.latency.law_noise import noise_law

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Atoms = tuple[FloatArray, FloatArray]

CELLS: Final = 2**13
"""Cells of a hop's law: rounding it up costs a hop about half a cell of its span."""

LAST_Z: Final = 8.7573
"""The standard normal's 1 - 1e-18 quantile, where a body ends: else it has no moments."""

BEYOND: Final = 1e-18
"""Chance of one message beyond that; it is counted against the upper bound."""

SEARCHES: Final = 40
"""Steps of a golden section over the tilt: any tilt gives a bound, the best one the tightest."""


@dataclass(frozen=True, slots=True, eq=False)
class HopColumns:
    """One period of a ring's hops: noiseless time of each, shape (p,) [s], and its noise's law."""

    message_s: FloatArray
    law_of: IntArray
    laws: Sequence[Law]


def hop_law(jitter: Jitter) -> Law:
    """The law of one hop's noise, on a grid that holds all of it. [s]"""
    body_s = jitter.body_median_s * math.exp(LAST_Z * jitter.body_sigma)
    longest_s = jitter.detour_median_s * math.exp(LAST_Z * jitter.detour_sigma)
    detour_s = min(jitter.detour_cap_s, longest_s) if jitter.detour_probability else 0.0
    span_s = max(body_s + detour_s, 1e-12)
    return noise_law(Grid(1.01 * span_s / (CELLS - 8), CELLS), jitter)


def ring_bracket_s(
    hops: HopColumns, *, ranks: int, steps: int, q: float, channels: int = 1
) -> tuple[float, float]:
    """Bounds from below and from above of the q-quantile of a ring's completion. [s]"""
    below = [own_paths_s(hops, ranks=ranks * channels, steps=steps, q=q)]
    if len(hops.message_s) == 1:
        below.append(greedy_path_s(hops, steps=steps, q=q))
    above = [bound(hops, ranks=ranks * channels, steps=steps, q=q) for bound in _ABOVE]
    return max(below), min(above)


def own_paths_s(hops: HopColumns, *, ranks: int, steps: int, q: float) -> float:
    """At least the q-quantile of the slowest of independent own paths, F_K^n. [s]

    The paths of the slowest column alone. P(S > t) is bounded from below by tilting: under the
    tilted law S exceeds its mean less one sd in half of the cases (Cantelli), and then is on
    average at most one sd above it, hence by Jensen
    ``P(S > K L'(h) - w) >= 1/2 exp(K L(h) - h (K L'(h) + w))``, w = sqrt(K L''(h)).
    """
    column = _slowest(hops)
    alike = (hops.law_of == hops.law_of[column]) & (hops.message_s == hops.message_s[column])
    paths = ranks * float(alike.mean())
    needed = -math.expm1(math.log(q) / paths)
    value_s, mass = atoms_of(hops.laws[hops.law_of[column]], row=0)
    mean_s = float(mass @ value_s)
    spread_s = math.sqrt(max(float(mass @ (value_s - mean_s) ** 2), 0.0))
    start_s = steps * float(hops.message_s[column])
    lows = [_lower_tail_s(value_s, mass, steps, math.log(q) / paths)]
    if spread_s > 0:
        widest = math.sqrt(max(-2 * math.log(needed), 0.0) / steps) / spread_s
        for tilt in np.linspace(0, widest, 25)[1:].tolist():
            log_m, mean_t, variance_t = _tilted(value_s, mass, tilt)
            width_s = math.sqrt(steps * variance_t)
            top_s = steps * mean_t + width_s
            if math.log(0.5) + steps * log_m - tilt * top_s >= math.log(needed):
                lows.append(steps * mean_t - width_s)
    return start_s + max(lows)


def greedy_path_s(hops: HopColumns, *, steps: int, q: float) -> float:
    """At least the q-quantile of the path that always takes the slower of two hops. [s]

    Its K - 1 steps are independent, each the greater of two hops: a sum, and Chernoff's bound.
    """
    law = hops.laws[hops.law_of[0]]
    value_s, mass = atoms_of(law.greatest_of(2), row=0)
    first_s, first = atoms_of(law, row=0)
    least_s = float(first_s[np.argmax(first > 0)])
    rest_s = _lower_tail_s(value_s, mass, steps - 1, math.log(q))
    return steps * float(hops.message_s[0]) + least_s + rest_s


def all_paths_s(hops: HopColumns, *, ranks: int, steps: int, q: float) -> float:
    """At most the q-quantile, by the union over all paths. [s]

    ``P(T > t) <= exp(-h t)`` times the sum over all paths of the product of their hops' moments
    M = E exp(h X): ``n 2^(K-1) M^K`` where all hops are alike. Columns that differ: a positive u
    with ``M_i (u_i + u_(i-1)) = r u_i`` bounds the sum by ``n/p sum(u) max(M / u) r^(K-1)``.
    """
    periods = ranks / len(hops.message_s)
    base_s = float(hops.message_s.max())

    def log_sum(atoms: Sequence[Atoms], tilt: float) -> float:
        moments = np.array([log_moment(v, m, tilt) for v, m in atoms])
        log_m = moments[hops.law_of] + tilt * (hops.message_s - base_s)
        return math.log(periods) + _log_path_sum(log_m, steps)

    return steps * base_s + least_bound_s(hops, log_sum, ranks=ranks, steps=steps, q=q)


def all_chains_s(hops: HopColumns, *, ranks: int, steps: int, q: float) -> float:
    """At most the q-quantile, by the union over all chains: tighter where noise is rare. [s]

    With Y = X - least X, ``exp(h Y) = 1 + (exp(h Y) - 1)``: the product along a path is the sum,
    over all chains of its messages, of the products of ``exp(h Y) - 1``. Each chain counts once,
    not once for every path through it. d + 1 places lie d steps on, so that the sum's generating
    function is ``1/(1-z) (1 + n m z / (1-z) / (1 - m (2z - z^2) / (1-z)^2))``, m = E exp(h Y) - 1;
    its value at any z below its pole, times z^-K, bounds the K-th term. Columns count as the worst.
    """
    columns = list(dict.fromkeys(zip(hops.message_s.tolist(), hops.law_of.tolist(), strict=True)))
    least_s = [atoms_of(law, row=1)[0][0] for law in hops.laws]
    base_s = float(max(message_s + least_s[law] for message_s, law in columns))

    def log_sum(atoms: Sequence[Atoms], tilt: float) -> float:
        moments = [
            log_moment((message_s + atoms[law][0] - base_s).clip(min=0.0), atoms[law][1], tilt)
            for message_s, law in columns
        ]
        return _log_chain_sum(max(moments), ranks, steps)

    return steps * base_s + least_bound_s(hops, log_sum, ranks=ranks, steps=steps, q=q)


_ABOVE: Final = (all_paths_s, all_chains_s)


def least_bound_s(
    hops: HopColumns,
    log_sum: Callable[[Sequence[Atoms], float], float],
    *,
    ranks: int,
    steps: int,
    q: float,
) -> float:
    """The least t over all tilts h with ``exp(log_sum - h t)`` at most what q allows. [s]"""
    allowed = 1 - q - ranks * steps * BEYOND
    if allowed <= 0 or any(law.beyond for law in hops.laws):
        return math.inf
    atoms = [atoms_of(law, row=1) for law in hops.laws]
    spread_s = max(_spread_s(*pair) for pair in atoms)
    if spread_s <= 0:
        return steps * max(float(value_s[-1]) for value_s, _ in atoms)

    def bound_s(log_tilt: float) -> float:
        tilt = math.exp(log_tilt)
        return (log_sum(atoms, tilt) - math.log(allowed)) / tilt

    return _golden(bound_s, math.log(1e-4 / spread_s), math.log(1e2 / spread_s))


def _log_chain_sum(log_m: float, ranks: int, steps: int) -> float:
    """Log of a bound of the sum over all chains, from ln E exp(h Y)."""
    if log_m > 300:
        return math.inf
    whole = math.exp(log_m)
    m = math.expm1(log_m)
    if m <= 0:
        return math.log(ranks)
    z = (1 - 1 / (steps + 1)) / (whole + math.sqrt(whole * m))
    left = 1 - m * (2 * z - z * z) / (1 - z) ** 2
    start = 1 + ranks * m * z / (1 - z) / left
    return math.log(start / (1 - z)) - steps * math.log(z)


def _log_path_sum(log_m: FloatArray, steps: int) -> float:
    """Log of a bound of one period's sum over all paths of ``steps`` hops."""
    if np.ptp(log_m) == 0:
        return math.log(len(log_m)) + (steps - 1) * math.log(2) + steps * float(log_m[0])
    top = float(log_m.max())
    m = np.exp(log_m - top)
    low, high = 1.0, 2.0
    for _ in range(60):  # the root lies in (max M, 2 max M]; the upper end errs on the safe side
        rate = (low + high) / 2
        is_below = float(np.log(rate / m - 1).sum()) < 0 if rate > 1 else True
        low, high = (rate, high) if is_below else (low, rate)
    log_u = np.cumsum(-np.log(high / m - 1))
    log_u -= log_u.max()
    # u repeats after a period with a factor of at most 1: u_0 is checked against the last of it.
    ratio = np.exp(np.roll(log_u, 1) - log_u)
    rate = float((m * (1 + ratio)).max())
    prefactor = math.log(float(np.exp(log_u).sum())) + float((np.log(m) - log_u).max())
    return prefactor + (steps - 1) * (math.log(rate) + top) + top


def _slowest(hops: HopColumns) -> int:
    means = np.array([law.mean_s[0] for law in hops.laws])
    return int((hops.message_s + means[hops.law_of]).argmax())


def atoms_of(law: Law, *, row: int) -> Atoms:
    """Values and masses of a law, rounded down (row 0) or up (row 1)."""
    return law.atoms(row)


def _spread_s(value_s: FloatArray, mass: FloatArray) -> float:
    mean_s = float(mass @ value_s)
    return math.sqrt(max(float(mass @ (value_s - mean_s) ** 2), 0.0))


def log_moment(value_s: FloatArray, mass: FloatArray, tilt: float) -> float:
    """Logarithm of E exp(h X)."""
    top_s = float(value_s[-1] if tilt > 0 else value_s[0])
    return tilt * top_s + math.log(float(mass @ np.exp(tilt * (value_s - top_s))))


def _tilted(value_s: FloatArray, mass: FloatArray, tilt: float) -> tuple[float, float, float]:
    """Logarithm of E exp(h X), and mean and variance of the law tilted by h."""
    log_m = log_moment(value_s, mass, tilt)
    weight = mass * np.exp(tilt * value_s - log_m)
    mean_s = float(weight @ value_s)
    return log_m, mean_s, float(weight @ (value_s - mean_s) ** 2)


def _lower_tail_s(value_s: FloatArray, mass: FloatArray, steps: int, log_q: float) -> float:
    """A time that the sum of ``steps`` atoms stays below with chance q at most (Chernoff)."""
    spread_s = _spread_s(value_s, mass)
    if spread_s <= 0:
        return steps * float(mass @ value_s)

    def minus_bound_s(log_tilt: float) -> float:
        tilt = math.exp(log_tilt)
        return -(log_q - steps * log_moment(value_s, mass, -tilt)) / tilt

    centre = math.log(math.sqrt(-2 * log_q / steps) / spread_s)
    return -_golden(minus_bound_s, centre - 5, centre + 5)


def _golden(function: Callable[[float], float], low: float, high: float) -> float:
    """The least value that a golden section finds; where there are several minima, one of them."""
    ratio = (math.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    at_a, at_b = function(a), function(b)
    best = min(at_a, at_b)
    for _ in range(SEARCHES):
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - ratio * (high - low)
            at_a = function(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + ratio * (high - low)
            at_b = function(b)
        best = min(best, at_a, at_b)
    return best

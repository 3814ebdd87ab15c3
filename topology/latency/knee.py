"""Knee: at which rank count rare events, and no longer the jitter of hops, make a percentile.

A percentile q is event-driven once an operation meets an event more often than 1 - q:
``1 - prod (1 - p_l)^hops_l(n) >= 1 - q`` over its layers, about hops x p = 1 - q. The median of the
same operation follows its trend through it. No law and no draw: counts alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from topology.fabric.link_figures import Jitter
from topology.words import AlgorithmName

MOST_RANKS: Final = 2**30
"""Beyond this there is no knee."""

Hops: TypeAlias = Callable[[int], int]
"""Hops that an operation over so many ranks exposes to events."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Links of one kind: events on each hop with ``event_probability``, of about ``event_s``."""

    name: str
    hops: Hops
    event_probability: float
    event_s: float


@dataclass(frozen=True, slots=True)
class Knee:
    """Where a percentile becomes event-driven: from ``ranks`` on, mostly by events of ``layer``.

    ``share``: that layer's share of the events. ``hops``: exposed hops there, all layers. ``own``:
    for each layer the rank count at which it alone would do it, None where it never does;
    ``events_s``: how long its events about are. [s]
    """

    percentile: float
    ranks: int | None
    layer: str | None
    share: float
    event_s: float | None
    hops: int
    own: dict[str, int | None]
    events_s: dict[str, float]


def event_chance(layers: Sequence[Layer], ranks: int) -> float:
    """Chance that an operation meets an event: ``1 - prod (1 - p)^hops``."""
    return -math.expm1(sum(_log_calm(layer, ranks) for layer in layers))


def find_knee(layers: Sequence[Layer], percentile: float = 0.999) -> Knee:
    """The least rank count at which events make a percentile, and the layer they come from.

    Raises:
        ValueError: a percentile that is not between 0 and 1, or no layers.
    """
    if not 0 < percentile < 1:
        raise ValueError(f"percentile: {percentile}; expected one between 0 and 1")
    if not layers:
        raise ValueError("layers: none; expected at least one")
    own = {layer.name: _least_ranks([layer], percentile) for layer in layers}
    events_s = {layer.name: layer.event_s for layer in layers}
    ranks = _least_ranks(layers, percentile)
    if ranks is None:
        return Knee(percentile, None, None, 0.0, None, 0, own, events_s)
    total = sum(_log_calm(layer, ranks) for layer in layers)
    most = min(layers, key=lambda layer: _log_calm(layer, ranks))
    hops = sum(layer.hops(ranks) for layer in layers)
    share = _log_calm(most, ranks) / total
    return Knee(percentile, ranks, most.name, share, most.event_s, hops, own, events_s)


def layers_of(
    algorithm: AlgorithmName,
    *,
    inside: Jitter,
    across: Jitter,
    per_domain: int,
    names: tuple[str, str] = ("inside", "across"),
) -> list[Layer]:
    """The two layers of an algorithm over domains of ``per_domain`` ranks, filled one by one.

    An event is a detour. Hops are those of an all-reduce of one piece; up to ``per_domain`` ranks
    expose none across.

    Raises:
        ValueError: an algorithm whose hops are not counted here, a domain without ranks.
    """
    if algorithm not in _HOPS:
        known = ", ".join(_HOPS)
        raise ValueError(f"algorithm: {algorithm}; expected one of {known}")
    if per_domain < 1:
        raise ValueError(f"per_domain: {per_domain}; expected 1 or more")
    counts = _HOPS[algorithm]

    def hops(layer: int, ranks: int) -> int:
        return counts(ranks, min(per_domain, ranks))[layer] if ranks > 1 else 0

    return [
        Layer(name, partial(hops, i), jitter.detour_probability, _event_s(jitter))
        for i, (name, jitter) in enumerate(zip(names, (inside, across), strict=True))
    ]


def _event_s(jitter: Jitter) -> float:
    return min(jitter.detour_median_s, jitter.detour_cap_s)


def _tree_hops(ranks: int, per_domain: int) -> tuple[int, int]:
    """Up and down one link for each rank but the root."""
    domains = -(-ranks // per_domain)
    return 2 * (ranks - domains), 2 * (domains - 1)


def _double_tree_hops(ranks: int, per_domain: int) -> tuple[int, int]:
    """Two trees on one rail."""
    inside, across = _tree_hops(ranks, per_domain)
    return 2 * inside, 2 * across


def _ring_hops(ranks: int, per_domain: int) -> tuple[int, int]:
    """2 (n - 1) steps over n links, of which one leaves each domain."""
    domains = -(-ranks // per_domain)
    steps = 2 * (ranks - 1)
    leaving = domains if domains > 1 else 0
    return steps * (ranks - leaving), steps * leaving


def _switch_hops(ranks: int, per_domain: int) -> tuple[int, int]:
    """One leg up and one down for each rank, in a domain of all."""
    return 2 * ranks, 0


def _nvls_tree_hops(ranks: int, per_domain: int) -> tuple[int, int]:
    """Two trees on each rail over the domains; in each domain two legs a rank and a head, twice."""
    domains = -(-ranks // per_domain)
    if domains == 1:
        return _switch_hops(ranks, per_domain)
    return 8 * ranks, 4 * per_domain * (domains - 1)


def _hierarchical_hops(ranks: int, per_domain: int) -> tuple[int, int]:
    """Scatter and gather in the switch, a tree across for each share."""
    domains = -(-ranks // per_domain)
    return 4 * ranks, 2 * per_domain * (domains - 1)


_HOPS: Final[dict[AlgorithmName, Callable[[int, int], tuple[int, int]]]] = {
    AlgorithmName.TREE: _tree_hops,
    AlgorithmName.DOUBLE_BINARY_TREE: _double_tree_hops,
    AlgorithmName.RING: _ring_hops,
    AlgorithmName.NVLS: _switch_hops,
    AlgorithmName.NVLS_TREE: _nvls_tree_hops,
    AlgorithmName.HIERARCHICAL: _hierarchical_hops,
}


COUNTED: Final = tuple(_HOPS)
"""Algorithms whose exposed hops are counted."""


def _log_calm(layer: Layer, ranks: int) -> float:
    """Log of the chance that no hop of a layer meets an event."""
    if not layer.event_probability:
        return 0.0
    return layer.hops(ranks) * math.log1p(-layer.event_probability)


def _least_ranks(layers: Sequence[Layer], percentile: float) -> int | None:
    """Bisection: the more ranks, the more hops."""
    low, high = 0, MOST_RANKS
    if event_chance(layers, high) < 1 - percentile:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if event_chance(layers, middle) < 1 - percentile:
            low = middle
        else:
            high = middle
    return high

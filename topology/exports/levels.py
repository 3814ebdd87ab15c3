"""Levels: a placement as simulators of regular networks see it: inside cliques, and across them.

A clique is a node, or an NVLink domain that holds all ranks of its nodes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TypeAlias

import numpy as np

from topology.errors import WorkloadError
from topology.exports.case import Case
from topology.fabric.link_figures import RouteClass
from topology.fabric.route_table import RouteTable
from topology.latency.cost import shared_bandwidth_s
from topology.words import ExportFormat

Pair: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Level:
    """Links of one level. ``count``: how many ranks or cliques it joins.

    ``bytes_per_s``: what a rank gets in one direction while all others send too, efficiency in
    collectives counted. ``is_switched``: over a switch or several links; ``is_mesh``: every pair
    has links of its own.
    """

    count: int
    alpha_s: float
    bytes_per_s: float
    route_class: RouteClass
    is_switched: bool
    is_mesh: bool


def levels_of(case: Case, asked: ExportFormat) -> tuple[Level, ...]:
    """The levels that join something, closest first; the slowest neighbours stand for all.

    Raises:
        WorkloadError: one rank, or cliques of several sizes.
    """
    cliques = case.cliques
    sizes = sorted({len(clique) for clique in cliques})
    if case.placement.ranks < 2:
        text = "one rank has no network"
        raise WorkloadError(text, field="--gpus", remedy="give at least two ranks")
    if len(sizes) > 1:
        raise WorkloadError(
            f"nodes or NVLink domains hold {' and '.join(map(str, sizes))} of the ranks, and "
            f"{asked} knows equal ones only",
            field="--gpus",
            remedy="give as many ranks as fill them alike, or use --format goal",
        )
    place = {rank: number for number, rank in enumerate(case.ring)}
    chains = [sorted(clique, key=place.__getitem__) for clique in cliques]
    inside = [pair for chain in chains for pair in _ring(chain)] if sizes[0] > 1 else []
    across = [pair for like in zip(*cliques, strict=True) for pair in _ring(like)]
    levels = [_level(case, inside, cliques[0])] if inside else []
    heads = [clique[0] for clique in cliques]
    return (*levels, _level(case, across, heads)) if len(cliques) > 1 else tuple(levels)


def _ring(ranks: Sequence[int]) -> Iterator[Pair]:
    return zip(ranks, (*ranks[1:], ranks[0]), strict=True)


def _level(case: Case, pairs: list[Pair], members: Sequence[int]) -> Level:
    """A level by neighbours that all send at once, and by some of its members."""
    table = _table(case, pairs)
    per_byte_s = float(shared_bandwidth_s(table, np.ones(len(pairs))).max())
    worst = max(table.routes, key=lambda route: route.alpha_s)
    is_switched = len(worst.hops) > 1
    return Level(
        count=len(members),
        alpha_s=worst.alpha_s,
        bytes_per_s=1 / per_byte_s,
        route_class=worst.route_class,
        is_switched=is_switched,
        is_mesh=not is_switched and _is_mesh(_table(case, list(permutations(members, 2)))),
    )


def _table(case: Case, pairs: list[Pair]) -> RouteTable:
    source, destination = np.array(pairs, dtype=np.int64).T
    return case.routes.table(source, destination)


def _is_mesh(table: RouteTable) -> bool:
    """Whether each pair has links of its own."""
    return all(len(route.hops) == 1 for route in table.routes)

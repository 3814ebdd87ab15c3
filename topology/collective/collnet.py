"""NCCL's CollNet: the switches of the network reduce (SHARP), a head on each rail sends to them."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from topology.collective.double_tree import chain_stages_up
from topology.collective.layout import RankLayout
from topology.collective.schedule import IntArray, Round, Schedule, pipelined, round_of
from topology.collective.stages import Request, make_schedule


def collnet_builds(request: Request) -> tuple[Callable[[Request], Schedule], ...]:
    """NCCL's two: CollNetDirect and CollNetChain; one where every rank is alone in its clique."""
    if max(len(clique) for clique in request.layout.cliques) == 1:
        return (partial(collnet_direct, variant=""),)
    return (collnet_direct, collnet_chain)


def why_no_collnet(request: Request) -> str | None:
    """Why the network cannot reduce for these ranks, None where it can."""
    if len(request.layout.cliques) == 1:
        return "all ranks lie in one clique, there is no network between them to reduce in"
    if not request.layout.network_reduces:
        return "no SHARP known here: nothing says that the network's switches reduce"
    return None


def collnet_direct(request: Request, *, variant: str = "direct in the node") -> Schedule:
    """All-reduce: every rank sends each rail's share to the rail's head, which sends the sum up.

    What the switches send down to a head it sends on to all ranks of its clique.
    """
    layout, pieces = request.layout, request.pieces
    heads = _heads(layout)
    rails = len(heads)
    rank, rail = np.indices((layout.ranks, rails)).reshape(2, -1)
    head = heads[rail, _clique_of(layout)[rank]]
    rank, head, rail = (column[rank != head] for column in (rank, head, rail))
    stages = [
        round_of(rank, head, rail, reduces=True),
        *_legs(layout, heads, first=np.arange(rails), channel=np.zeros(rails, dtype=np.int64)),
        round_of(head, rank, rail),
    ]
    rounds = pipelined([s for s in stages if s.transfers], pieces=pieces, stride=rails)
    return _scheduled(request, rounds, rails=rails, channels=pieces, variant=variant)


def collnet_chain(request: Request) -> Schedule:
    """All-reduce: on each rail down a chain through the clique to the rail's head, and back."""
    layout, pieces = request.layout, request.pieces
    heads = _heads(layout)
    lane = np.arange(len(heads)) * pieces
    inside = [list(chain_stages_up(chains)) for chains in layout.chains]
    up, down = [], []
    for stage in zip(*inside, strict=True):
        a, b = np.concatenate(stage, axis=1)
        lanes = np.repeat(lane, [links.shape[1] for links in stage])
        up.append(round_of(a, b, lanes, reduces=True, channel=lanes))
        down.append(round_of(b, a, lanes, channel=lanes))
    stages = [*up, *_legs(layout, heads, first=lane, channel=lane), *reversed(down)]
    rounds = pipelined(stages, pieces=pieces, stride=1)
    channels, variant = len(heads) * pieces, "chain in the node"
    return _scheduled(request, rounds, rails=len(heads), channels=channels, variant=variant)


def _scheduled(
    request: Request, rounds: Sequence[Round], *, rails: int, channels: int, variant: str
) -> Schedule:
    return make_schedule(
        request,
        "collnet",
        np.zeros(rails * request.pieces, dtype=np.int64),
        rounds,
        switches=len(request.layout.domains) + rails,
        channels=channels,
        variant=variant,
    )


def _legs(
    layout: RankLayout, heads: IntArray, *, first: IntArray, channel: IntArray
) -> tuple[Round, Round]:
    """From the heads of each rail up to its switches, and down again; one share a rail."""
    rails, cliques = heads.shape
    switch = np.repeat([layout.network_vertex(rail) for rail in range(rails)], cliques)
    share, lane = np.repeat(first, cliques), np.repeat(channel, cliques)
    up = round_of(heads.ravel(), switch, share, reduces=True, channel=lane)
    return up, round_of(switch, heads.ravel(), share, channel=lane)


def _heads(layout: RankLayout) -> IntArray:
    """Head of each rail in each clique, shape (rails, cliques)."""
    return np.array([[ranks[0] for ranks in chains] for chains in layout.chains], dtype=np.int64)


def _clique_of(layout: RankLayout) -> IntArray:
    """Clique of each rank, shape (n,)."""
    clique_of = np.empty(layout.ranks, dtype=np.int64)
    for number, clique in enumerate(layout.cliques):
        clique_of[list(clique)] = number
    return clique_of

"""NCCL's NVLSTree: a sum in each clique's NVSwitch, two trees across the cliques, a multicast.

Every rank sends up; the switch hands each rail's share of the sum to the rail's head in its clique;
the heads of a rail run the double binary tree; the switch multiplies what they bring back.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, zip_longest
from typing import Final

import numpy as np

from topology.collective.double_tree import TREES, tree_stages_up
from topology.collective.layout import RankLayout
from topology.collective.schedule import Schedule, Transfer, pipelined
from topology.collective.stages import Request, answered, make_schedule

IN_FLIGHT: Final = (1, 2, 4)
"""Pieces that a leg or a hop may have on its way at a time; each is tried.

One where the links are the limit, more to cover latency. NCCL's buffers have slots for eight; that
four is the most was chosen by runs on two H100 nodes (those in tests/measured), not derived.
"""


def nvls_tree_builds(request: Request) -> tuple[partial[Schedule], ...]:
    """One for each number of pieces in flight; of a single piece there is but one."""
    counts = [count for count in IN_FLIGHT if count <= request.pieces]
    return tuple(partial(nvls_tree, in_flight=count) for count in counts)


def nvls_tree(request: Request, *, in_flight: int) -> Schedule:
    """All-reduce over cliques, always on all rails; a tree and a piece are a channel.

    A leg costs a whole route. There are two up and two down where the hardware pulls once and
    pushes once: on the bare wire that errs on the slow side, by two legs. Heads send and get their
    share apart from the clique's bytes, which the in-switch efficiency contains already: large
    sizes err on the slow side too, by one part in as many as there are rails.
    """
    layout, pieces = request.layout, request.pieces
    shares = TREES * len(layout.chains)
    trees = [_stages_up(layout, tree, channel=tree * pieces) for tree in range(TREES)]
    up = [list(chain.from_iterable(both)) for both in zip_longest(*trees, fillvalue=[])]
    both_ways = [*up, *(answered(stage) for stage in reversed(up))]
    stages = list(_spaced(both_ways, in_flight))
    rounds = [r for r in pipelined(stages, pieces=pieces, stride=shares) if r.transfers]
    return make_schedule(
        request,
        "nvls_tree",
        np.zeros(shares * pieces, dtype=np.int64),
        rounds,
        switches=len(layout.domains),
        channels=TREES * pieces,
    )


def why_no_nvls_tree(request: Request) -> str | None:
    """Why the cliques of a request cannot run it, None where they can."""
    layout = request.layout
    several = [clique for clique in layout.cliques if len(clique) > 1]
    if len(layout.cliques) == 1:
        return "all ranks lie in one clique, nvls is for that"
    if not several:
        return "every rank is alone in its clique, there is no switch below the trees"
    for clique in several:
        if not layout.reduces(clique):
            return f"no NVSwitch reduces in rank {clique[0]}'s clique (NVLink 4 or later does)"
    return None


def _stages_up(layout: RankLayout, tree: int, *, channel: int) -> list[list[Transfer]]:
    """Stages of one tree's reduce: to the switches, to the heads, up the tree to its root."""
    first = tree * len(layout.chains)

    def shares(stage: list[tuple[int, int, int]], *, reduces: bool) -> list[Transfer]:
        return [Transfer(a, b, first + rail, 1, reduces, channel) for rail, a, b in stage]

    heads = [[ranks[0] for ranks in chains] for chains in layout.chains]
    switch_of = {
        number: layout.switch_of(clique[0])
        for number, clique in enumerate(layout.cliques)
        if len(clique) > 1
    }
    to_switches = [
        Transfer(rank, switch, first, len(heads), reduces=True, channel=channel)
        for number, switch in switch_of.items()
        for rank in layout.cliques[number]
    ]
    to_heads = [
        (rail, switch, of_rail[number])
        for rail, of_rail in enumerate(heads)
        for number, switch in switch_of.items()
    ]
    across = [
        [(rail, of_rail[a], of_rail[b]) for rail, of_rail in enumerate(heads) for a, b in links]
        for links in tree_stages_up(len(layout.cliques), tree)
    ]
    return [
        to_switches,
        shares(to_heads, reduces=False),
        *(shares(level, reduces=True) for level in across),
    ]


def _spaced(stages: Iterable[list[Transfer]], in_flight: int) -> Iterator[list[Transfer]]:
    """Each stage as many steps before the next as it may have pieces in flight.

    So what a head sends meanwhile does not queue up behind what it still waits for.
    """
    for stage in stages:
        yield stage
        yield from [[]] * (in_flight - 1)

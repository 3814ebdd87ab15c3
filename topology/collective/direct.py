"""Direct algorithms: every rank sends to whom its data is for, all messages side by side."""

import numpy as np

from topology.collective.schedule import IntArray, Round, Schedule, round_of
from topology.collective.stages import Request, make_schedule
from topology.words import Collective


def sendrecv(request: Request) -> Schedule:
    """Sendrecv as nccl-tests has it: every rank sends its whole buffer to the next one."""
    ranks = np.arange(request.ranks)
    following = (ranks + 1) % request.ranks
    rounds = [round_of(ranks, following, ranks)] if request.ranks > 1 else []
    return make_schedule(request, "direct", ranks, rounds, fraction=1.0, target=following)


def direct_gather(request: Request) -> Schedule:
    """All-gather: every rank sends its part to all others in one step."""
    source, destination = all_pairs(request.ranks)
    rounds = _sent(source, destination, source, reduces=False)
    return make_schedule(request, "direct", np.arange(request.ranks), rounds)


def direct_scatter(request: Request) -> Schedule:
    """Reduce-scatter: every rank sends to each other one that one's part, which adds them up."""
    source, destination = all_pairs(request.ranks)
    rounds = _sent(source, destination, destination, reduces=True)
    return make_schedule(request, "direct", np.arange(request.ranks), rounds)


def one_shot(request: Request) -> Schedule:
    """All-reduce: every rank sends its whole buffer to all others and adds up what it gets."""
    source, destination = all_pairs(request.ranks)
    rounds = _sent(source, destination, np.zeros_like(source), reduces=True)
    return make_schedule(request, "one_shot", np.zeros(1, dtype=np.int64), rounds)


def two_shot(request: Request) -> Schedule:
    """All-reduce: a direct reduce-scatter, then a direct all-gather."""
    source, destination = all_pairs(request.ranks)
    rounds = [
        *_sent(source, destination, destination, reduces=True),
        *_sent(source, destination, source, reduces=False),
    ]
    return make_schedule(request, "two_shot", np.zeros(request.ranks, dtype=np.int64), rounds)


def all_pairs(ranks: int) -> tuple[IntArray, IntArray]:
    """Source and destination of every pair of ranks; each rank begins with the one after it.

    >>> [column.tolist() for column in all_pairs(3)]
    [[0, 0, 1, 1, 2, 2], [1, 2, 2, 0, 0, 1]]
    """
    source = np.repeat(np.arange(ranks), ranks - 1)
    distance = np.tile(np.arange(1, ranks), ranks)
    return source, (source + distance) % ranks


def why_not_direct(request: Request) -> str | None:
    """Why ranks do not reach each other directly, None where they do or need not."""
    if request.collective not in (Collective.ALL_GATHER, Collective.REDUCE_SCATTER):
        return None
    return why_no_clique(request)


def why_no_clique(request: Request) -> str | None:
    """Why ranks are not joined by NVLink or PCIe alone, None where they are."""
    cliques = len(request.layout.cliques)
    if cliques == 1:
        return None
    return f"the ranks lie in {cliques} nodes that only the network joins, it needs one"


def _sent(
    source: IntArray, destination: IntArray, first: IntArray, *, reduces: bool
) -> list[Round]:
    return [round_of(source, destination, first, reduces=reduces)] if len(source) else []

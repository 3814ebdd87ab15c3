"""Ring broadcast and reduce, as NCCL does them: a chain in pieces from the root, or to it."""

import numpy as np

from topology.collective.schedule import ROOT, Schedule, pipelined, round_of
from topology.collective.stages import Request, make_schedule
from topology.words import Collective


def ring_chain(request: Request) -> Schedule:
    """Broadcast or reduce along every ring of the layout, cut open at the root."""
    pieces = request.pieces
    orders = np.array(request.layout.orders[: max(1, request.channels)], dtype=np.int64)
    paths = np.array([np.roll(order, -int(np.argmax(order == ROOT))) for order in orders])
    reduces = request.collective is Collective.REDUCE
    if reduces:
        paths = np.roll(paths, -1, axis=1)
    lane = np.arange(len(paths)) * pieces
    stages = [
        round_of(paths[:, i], paths[:, i + 1], lane, reduces=reduces, channel=lane)
        for i in range(request.ranks - 1)
    ]
    owner = np.zeros(len(paths) * pieces, dtype=np.int64)
    rounds = pipelined(stages, pieces=pieces, stride=1)
    return make_schedule(request, "ring", owner, rounds, channels=len(owner))

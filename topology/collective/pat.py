"""NCCL's PAT: all-gather and reduce-scatter in ceil(log2 n) steps, the far ranks first.

A Bruck exchange turned round: the message that goes farthest carries least. As NCCL runs it while a
step's data fits its buffers; of larger data NCCL sends the far parts piece by piece.
"""

import numpy as np

from topology.collective.schedule import Round, Schedule, round_of
from topology.collective.stages import Request, make_schedule
from topology.words import Collective


def pat(request: Request) -> Schedule:
    """All-gather: far ranks first; reduce-scatter: the same messages backwards, near ranks first.

    Before the step of distance d a rank has the parts of the ranks 0, 2d, 4d ... behind it, and
    sends to the rank d further on those that it has not had: for n no power of two not quite all.
    """
    n = request.ranks
    scatters = request.collective is Collective.REDUCE_SCATTER
    distances = [1 << k for k in reversed(range((n - 1).bit_length()))]
    steps = [_step(n, distance, scatters=scatters) for distance in distances]
    return make_schedule(request, "pat", np.arange(n), steps[::-1] if scatters else steps)


def why_no_pat(request: Request) -> str | None:
    """Why the ranks cannot run it, None where they can."""
    most = max(len(clique) for clique in request.layout.cliques)
    if most > 1:
        return f"{most} ranks share a node, NCCL runs PAT with one rank a node only"
    return None


def _step(n: int, distance: int, *, scatters: bool) -> Round:
    ranks = np.arange(n)
    ends = (ranks, (ranks + distance) % n)
    return round_of(
        *(ends[::-1] if scatters else ends),
        ranks,
        chunks=(n - 1 - distance) // (2 * distance) + 1,
        reduces=scatters,
        modulus=n,
        stride=-2 * distance,
    )

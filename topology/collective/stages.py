"""Building blocks of algorithms: ring phases, binomial stages, the two legs through a switch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from topology.collective.layout import RankLayout
from topology.collective.schedule import (
    IntArray,
    Round,
    Schedule,
    Transfer,
    pipelined,
)
from topology.words import Collective


@dataclass(frozen=True, slots=True)
class Request:
    """What an algorithm is asked: a collective on a layout.

    ``channels``: most rings side by side. ``pieces``: into how many pieces a pipeline cuts.
    """

    collective: Collective
    layout: RankLayout
    channels: int = 1
    pieces: int = 1

    @property
    def ranks(self) -> int:
        """World size."""
        return self.layout.ranks


def ring_phase(orders: Sequence[Sequence[int]], *, lead: int, reduces: bool) -> Round:
    """N - 1 steps in which position p sends chunk p + lead - step to position p + 1."""
    n = len(orders[0])
    position = np.arange(n)
    order = np.array(orders, dtype=np.int64)
    channels = np.repeat(np.arange(len(orders)), n)
    return Round(
        source=order.ravel(),
        destination=np.roll(order, -1, axis=1).ravel(),
        channel=channels,
        base=channels * n,
        offset=np.tile((position + lead) % n, len(orders)),
        chunk_count=np.ones(order.size, dtype=np.int64),
        reduces=np.full(order.size, reduces),
        modulus=n,
        shift=-1,
        repeats=n - 1,
        lockstep=True,
    )


def binomial_stages(ranks: Sequence[int]) -> Iterator[list[Transfer]]:
    """Stages of a binomial reduce: at stage k, positions with low bits 10..0 send to their 0."""
    distance = 1
    while distance < len(ranks):
        yield [
            Transfer(ranks[i], ranks[i - distance], 0, 1, reduces=True)
            for i in range(distance, len(ranks), 2 * distance)
        ]
        distance *= 2


def answered(stage: Sequence[Transfer]) -> list[Transfer]:
    """The same links the other way, as copies."""
    return [t._replace(source=t.destination, destination=t.source, reduces=False) for t in stage]


def switch_stages(
    ranks: Sequence[int], switch: int, collective: Collective, chunks: int
) -> tuple[list[Transfer], list[Transfer]]:
    """Up and down stage of one domain; chunk i of a piece belongs to its i-th rank."""
    whole = (0, chunks)
    shares = [(i, 1) for i in range(len(ranks))]
    gathers = collective is Collective.ALL_GATHER
    scatters = collective is Collective.REDUCE_SCATTER
    ups = shares if gathers else [whole] * len(ranks)
    downs = shares if scatters else [whole] * len(ranks)
    up = [
        Transfer(rank, switch, *part, reduces=not gathers)
        for rank, part in zip(ranks, ups, strict=True)
    ]
    down = [
        Transfer(switch, rank, *part, reduces=False)
        for rank, part in zip(ranks, downs, strict=True)
    ]
    return up, down


def pipeline_schedule(
    request: Request, name: str, stages: list[list[Transfer]], *, variant: str = ""
) -> Schedule:
    """Stages that each move the whole buffer, cut into the request's pieces."""
    rounds = pipelined(stages, pieces=request.pieces, stride=1)
    owner = np.zeros(request.pieces, dtype=np.int64)
    return make_schedule(request, name, owner, rounds, channels=request.pieces, variant=variant)


def make_schedule(
    request: Request,
    name: str,
    owner: IntArray,
    rounds: Sequence[Round],
    *,
    switches: int = 0,
    channels: int = 1,
    fraction: float | None = None,
    target: IntArray | None = None,
    variant: str = "",
) -> Schedule:
    """A schedule of the request's collective; without ``fraction`` the chunks make up S."""
    return Schedule(
        collective=request.collective,
        algorithm=name,
        ranks=request.ranks,
        switches=switches,
        channels=channels,
        chunk_fraction=1 / len(owner) if fraction is None else fraction,
        owner=owner,
        rounds=tuple(rounds),
        target=target,
        variant=variant,
    )

"""Building blocks of algorithms: ring phases, binomial stages, the two legs through a switch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from topology.collective.layout import RankLayout
from topology.collective.schedule import (
    FloatArray,
    IntArray,
    Round,
    Schedule,
    Transfer,
    pipelined,
)
from topology.errors import WorkloadError
from topology.words import Collective

_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What an algorithm is asked: a collective on a layout.

    ``channels``: most rings side by side. ``pieces``: into how many pieces a pipeline cuts.
    ``pair_fraction``: shape (n, n), the share of its buffer that each rank (row) sends to each
    (column) in an alltoallv; None: equal shares.

    Raises:
        WorkloadError: shares of another shape, below 0, or whose rows do not sum to 1.
    """

    collective: Collective
    layout: RankLayout
    channels: int = 1
    pieces: int = 1
    pair_fraction: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.pair_fraction is not None:
            fraction = np.array(self.pair_fraction, dtype=np.float64)
            _check_fractions(fraction, self.collective, self.ranks)
            fraction.setflags(write=False)
            object.__setattr__(self, "pair_fraction", fraction)

    @property
    def ranks(self) -> int:
        """World size."""
        return self.layout.ranks


def _check_fractions(fraction: FloatArray, collective: Collective, ranks: int) -> None:
    if collective is not Collective.ALLTOALLV:
        raise _wrong_fractions(f"given for {collective.value}", "ask for alltoallv")
    if fraction.shape != (ranks, ranks):
        shape = " x ".join(map(str, fraction.shape))
        raise _wrong_fractions(f"{shape} shares", f"give {ranks} x {ranks}, one a pair of ranks")
    sums = fraction.sum(axis=1)
    for rank in np.flatnonzero((abs(sums - 1) > _ROUNDING) | ~(fraction.min(axis=1) >= 0)):
        text = f"rank {rank}'s shares sum to {sums[rank]:.6g}, the least is {fraction[rank].min()}"
        raise _wrong_fractions(text, "give shares of 0 or more that sum to 1")


def _wrong_fractions(text: str, remedy: str) -> WorkloadError:
    return WorkloadError(text, field="pair_fraction", remedy=remedy)


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


def ring_phases(orders: Sequence[Sequence[int]], collective: Collective) -> list[Round]:
    """The phases of a collective; reduce-scatter and all-gather: position p owns chunk p."""
    all_reduces = collective is Collective.ALL_REDUCE
    phases = []
    if collective is not Collective.ALL_GATHER:
        phases.append(ring_phase(orders, lead=0 if all_reduces else -1, reduces=True))
    if collective is not Collective.REDUCE_SCATTER:
        phases.append(ring_phase(orders, lead=1 if all_reduces else 0, reduces=False))
    return phases


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
    fractions: FloatArray | None = None,
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
        fractions=fractions,
    )

"""Schedule: a collective as rounds of transfers. Sizes are fractions of S; no latency, no fabric.

S is one rank's whole buffer in bytes as nccl-tests counts it (for all-gather and reduce-scatter the
full array). Vertices are ranks 0 ... n-1, then one for each switch that reduces.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.words import Collective

IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

_NO_WRAP: Final = 2**62


_BUS_STEPS: Final = {
    Collective.ALL_REDUCE: 2.0,
    Collective.ALL_GATHER: 1.0,
    Collective.REDUCE_SCATTER: 1.0,
    Collective.ALLTOALL: 1.0,
}


def busbw_factor(collective: Collective, ranks: int) -> float:
    """Busbw / algbw as nccl-tests defines it: what the hardware's links would have to carry.

    2(n-1)/n for all-reduce; (n-1)/n for all-gather, reduce-scatter, all-to-all; 1 for broadcast.

    >>> busbw_factor(Collective.ALL_REDUCE, 8)
    1.75
    """
    if collective is Collective.BROADCAST:
        return 1.0
    return _BUS_STEPS[collective] * (ranks - 1) / ranks


class Transfer(NamedTuple):
    """One message: ``chunks`` chunks from ``first`` on; ``reduces``: the receiver adds them."""

    source: int
    destination: int
    first: int
    chunks: int
    reduces: bool
    channel: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """Transfers that go at the same time, ``repeats`` times over; all arrays have shape (m,).

    Transfer i sends ``chunk_count[i]`` chunks. Its first chunk is ``base + offset``; in repetition
    j the offset is ``(offset + j * shift) mod modulus``. ``reduces``: the receiver adds, else it
    overwrites. ``lockstep``: a message starts only when its receiver, too, has finished its
    previous step (a ring's one buffer); else as soon as the sender has what it sends and its
    sends of the step before have left. A channel is a lane of its own: what arrives on one holds up
    nothing on another. In repetition j it is ``channel + j * channel_shift``.
    """

    source: IntArray
    destination: IntArray
    channel: IntArray
    base: IntArray
    offset: IntArray
    chunk_count: IntArray
    reduces: BoolArray
    modulus: int = _NO_WRAP
    shift: int = 0
    repeats: int = 1
    channel_shift: int = 0
    lockstep: bool = False

    def __post_init__(self) -> None:
        for name in ("source", "destination", "channel", "base", "offset", "chunk_count"):
            self._freeze(name, np.int64)
        self._freeze("reduces", np.bool_)

    def _freeze(self, name: str, dtype: type[np.generic]) -> None:
        array = np.array(getattr(self, name), dtype=dtype)
        array.setflags(write=False)
        object.__setattr__(self, name, array)

    @property
    def transfers(self) -> int:
        """Transfers of one repetition."""
        return len(self.source)

    def first_chunk(self, repetition: int) -> IntArray:
        """First chunk of every transfer in a repetition, shape (m,)."""
        return np.asarray(self.base + (self.offset + repetition * self.shift) % self.modulus)


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """A collective on ``ranks`` ranks: rounds in order; a chunk is ``chunk_fraction`` of S.

    ``owner``: shape (chunks,), the rank that a chunk starts at (all-gather, all-to-all) or must end
    at (reduce-scatter). ``target``: the rank an all-to-all chunk is for.
    """

    collective: Collective
    algorithm: str
    ranks: int
    switches: int
    channels: int
    chunk_fraction: float
    owner: IntArray
    rounds: tuple[Round, ...]
    target: IntArray | None = None
    variant: str = ""

    @property
    def chunks(self) -> int:
        """Chunks of the whole operation."""
        return len(self.owner)

    @property
    def vertices(self) -> int:
        """Ranks and switches."""
        return self.ranks + self.switches

    @property
    def steps(self) -> int:
        """Rounds counted with their repeats."""
        return sum(round_.repeats for round_ in self.rounds)

    @property
    def messages(self) -> int:
        """Transfers over all steps: each is one noisy message."""
        return sum(round_.repeats * round_.transfers for round_ in self.rounds)


def round_from_transfers(transfers: Iterable[Transfer], *, lockstep: bool = False) -> Round:
    """A round of one repetition."""
    rows = list(transfers)
    columns = np.array([row[:4] for row in rows], dtype=np.int64).reshape(-1, 4).T
    return Round(
        source=columns[0],
        destination=columns[1],
        channel=np.array([row.channel for row in rows], dtype=np.int64),
        base=np.zeros(len(rows), dtype=np.int64),
        offset=columns[2],
        chunk_count=columns[3],
        reduces=np.array([row.reduces for row in rows], dtype=np.bool_),
        lockstep=lockstep,
    )


def pipelined(stages: Sequence[Sequence[Transfer]], *, pieces: int, stride: int) -> list[Round]:
    """Rounds in which stage d works on piece k at step d + k; a piece is ``stride`` chunks.

    The transfers of a stage name the chunks and the channel of piece 0; each further piece is the
    next channel. With one piece it is the stages in a row.
    """
    depth = len(stages)
    if not depth:
        return []
    of_stage = [round_from_transfers(stage) for stage in stages]
    rounds: list[Round] = []
    step = 0
    while step < depth + pieces - 1:
        active = range(max(0, step - pieces + 1), min(step, depth - 1) + 1)
        steady = pieces - step if depth - 1 <= step < pieces else 1
        joined = _side_by_side([(of_stage[d], step - d) for d in active], stride)
        rounds.append(replace(joined, repeats=steady, shift=stride, channel_shift=1))
        step += steady
    return rounds


def _side_by_side(stages: Sequence[tuple[Round, int]], stride: int) -> Round:
    """Stages of one step as one round, each on a piece of its own."""

    def joined(name: str) -> IntArray:
        return np.concatenate([getattr(round_, name) for round_, _ in stages])

    sizes = [round_.transfers for round_, _ in stages]
    piece = np.repeat([number for _, number in stages], sizes).astype(np.int64)
    return Round(
        source=joined("source"),
        destination=joined("destination"),
        channel=joined("channel") + piece,
        base=joined("base"),
        offset=joined("offset") + piece * stride,
        chunk_count=joined("chunk_count"),
        reduces=joined("reduces").astype(np.bool_),
    )

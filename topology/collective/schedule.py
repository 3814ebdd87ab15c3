"""Schedule: a collective as rounds of transfers. Sizes are fractions of S; no latency, no fabric.

S is one rank's whole buffer in bytes as nccl-tests counts it (for all-gather and reduce-scatter the
full array). Vertices are ranks 0 ... n-1, then one for each switch that reduces.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topology.words import Collective

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]
BoolArray: TypeAlias = NDArray[np.bool_]

_NO_WRAP: Final = 2**62

ROOT: Final = 0
"""Rank that a broadcast starts from and a reduce ends at."""


_WHOLE_BUFFER: Final = (Collective.BROADCAST, Collective.REDUCE, Collective.SENDRECV)
"""A link carries all of it: bus bandwidth is algorithm bandwidth."""


def busbw_factor(collective: Collective, ranks: int) -> float:
    """Busbw / algbw as nccl-tests defines it: what the hardware's links would have to carry.

    2(n-1)/n for all-reduce; (n-1)/n for all-gather, reduce-scatter and all-to-all, with sizes or
    without; 1 for broadcast, reduce and sendrecv.

    >>> busbw_factor(Collective.ALL_REDUCE, 8)
    1.75
    """
    if collective in _WHOLE_BUFFER:
        return 1.0
    steps = 2.0 if collective is Collective.ALL_REDUCE else 1.0
    return steps * (ranks - 1) / ranks


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

    Transfer i sends ``chunk_count[i]`` chunks. The k-th of them, from 0, is in repetition j
    ``base + (offset + j * shift + k * stride) mod modulus``. ``reduces``: the receiver adds, else
    it overwrites. ``lockstep``: a message starts only when its receiver, too, has finished its
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
    stride: int = 1
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

    def chunks(self, repetition: int) -> tuple[IntArray, IntArray]:
        """Transfer and chunk of everything sent in a repetition, both of shape (chunks sent,)."""
        transfer = np.repeat(np.arange(self.transfers), self.chunk_count)
        ends = np.cumsum(self.chunk_count)
        place = np.arange(len(transfer)) - (ends - self.chunk_count)[transfer]
        within = self.offset[transfer] + repetition * self.shift + place * self.stride
        return transfer, self.base[transfer] + within % self.modulus


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """A collective on ``ranks`` ranks: rounds in order; a chunk is ``chunk_fraction`` of S.

    ``owner``: shape (chunks,), the rank that a chunk starts at (all-gather, all-to-all, sendrecv)
    or must end at (reduce-scatter). ``target``: the rank a chunk of an all-to-all or a sendrecv is
    for. ``fractions``: shape (chunks,), share of S of each chunk where they are not all alike;
    ``chunk_fraction`` is then their mean, and a chunk of no bytes is not sent.
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
    fractions: FloatArray | None = None

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

    def shares(self, round_: Round) -> FloatArray:
        """Share of S that each transfer of a round carries, shape (m,).

        Where chunks differ it is that of the first repetition: their rounds have but one.
        """
        if self.fractions is None:
            return np.asarray(round_.chunk_count * self.chunk_fraction)
        transfer, chunk = round_.chunks(0)
        sums = np.bincount(transfer, self.fractions[chunk], minlength=round_.transfers)
        return sums.astype(np.float64)


def round_of(
    source: ArrayLike,
    destination: ArrayLike,
    first: ArrayLike = 0,
    *,
    chunks: ArrayLike = 1,
    reduces: bool = False,
    channel: ArrayLike = 0,
    modulus: int = _NO_WRAP,
    stride: int = 1,
    lockstep: bool = False,
) -> Round:
    """A round of one repetition from columns; a number stands for a column of it."""
    columns = np.broadcast_arrays(source, destination, channel, first, chunks)
    return Round(
        source=columns[0],
        destination=columns[1],
        channel=columns[2],
        base=np.zeros(columns[0].shape, dtype=np.int64),
        offset=columns[3],
        chunk_count=columns[4],
        reduces=np.full(columns[0].shape, reduces),
        modulus=modulus,
        stride=stride,
        lockstep=lockstep,
    )


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


def pipelined(
    stages: Sequence[Sequence[Transfer] | Round], *, pieces: int, stride: int
) -> list[Round]:
    """Rounds in which stage d works on piece k at step d + k; a piece is ``stride`` chunks.

    The transfers of a stage name the chunks and the channel of piece 0; each further piece is the
    next channel. With one piece it is the stages in a row.
    """
    depth = len(stages)
    if not depth:
        return []
    line = _Line([s if isinstance(s, Round) else round_from_transfers(s) for s in stages])
    rounds: list[Round] = []
    step = 0
    while step < depth + pieces - 1:
        active = range(max(0, step - pieces + 1), min(step, depth - 1) + 1)
        steady = pieces - step if depth - 1 <= step < pieces else 1
        rounds.append(line.at_work(active, step, stride=stride, repeats=steady))
        step += steady
    return rounds


class _Line:
    """The stages of a pipeline one behind another, so that those at work are a slice."""

    def __init__(self, stages: Sequence[Round]) -> None:
        sizes = [stage.transfers for stage in stages]
        self._stage = np.repeat(np.arange(len(stages)), sizes)
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        self._all = side_by_side(stages)

    def at_work(self, stages: range, step: int, *, stride: int, repeats: int) -> Round:
        """Stages of one step as one round, each on a piece of its own."""
        here = slice(self._starts[stages.start], self._starts[stages.stop])
        piece = step - self._stage[here]
        return Round(
            source=self._all.source[here],
            destination=self._all.destination[here],
            channel=self._all.channel[here] + piece,
            base=self._all.base[here],
            offset=self._all.offset[here] + piece * stride,
            chunk_count=self._all.chunk_count[here],
            reduces=self._all.reduces[here],
            shift=stride,
            repeats=repeats,
            channel_shift=1,
        )


def side_by_side(rounds: Sequence[Round]) -> Round:
    """Rounds of one repetition, whose chunks lie in a row, at the same time."""
    return Round(
        source=np.concatenate([round_.source for round_ in rounds]),
        destination=np.concatenate([round_.destination for round_ in rounds]),
        channel=np.concatenate([round_.channel for round_ in rounds]),
        base=np.concatenate([round_.base for round_ in rounds]),
        offset=np.concatenate([round_.offset for round_ in rounds]),
        chunk_count=np.concatenate([round_.chunk_count for round_ in rounds]),
        reduces=np.concatenate([round_.reduces for round_ in rounds]),
    )

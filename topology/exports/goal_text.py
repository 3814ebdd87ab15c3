"""GOAL's text: a schedule as sends, receives and what each waits for, rank by rank. No figure.

Each channel is a tag. What a message's own route takes longer than others is a ``calc`` behind
its receive, on a CPU that holds up nothing else.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from topology.collective.schedule import Round
from topology.exports.goal_block import GoalBlock, Operation, Steps

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SAMPLED_RANKS: Final = 4
"""Ranks whose blocks are made to tell how long the text gets."""

NS: Final = 1e9


@dataclass(frozen=True, slots=True, eq=False)
class _Ends:
    """Messages of a repetition in the order of one of their ends, which has them as ``verb``.

    Those of rank r stand from ``starts[r]`` to ``starts[r + 1]``; the other arrays have shape
    (messages sent,).
    """

    verb: str
    starts: IntArray
    peer: IntArray
    size_bytes: IntArray
    channel: IntArray
    delay_ns: IntArray

    def of(self, rank: int) -> list[Operation]:
        """A rank's messages."""
        first, end = self.starts[rank], self.starts[rank + 1]
        if first == end:
            return []
        columns = (self.peer, self.size_bytes, self.channel, self.delay_ns)
        rows = zip(*(column[first:end].tolist() for column in columns), strict=True)
        return [
            Operation(self.verb.format(size, peer), channel, delay)
            for peer, size, channel, delay in rows
        ]

    def count_of(self, rank: int) -> int:
        """How many messages a rank has."""
        return int(self.starts[rank + 1] - self.starts[rank])


@dataclass(frozen=True, slots=True, eq=False)
class RoundText:
    """A round in whole bytes and nanoseconds, by sender and by receiver."""

    round: Round
    sends: _Ends
    receives: _Ends

    @property
    def messages(self) -> int:
        """Messages of all repetitions; what has no bytes is not sent."""
        return len(self.sends.peer) * self.round.repeats

    @property
    def delayed(self) -> int:
        """Messages that take longer than the figures say, over all repetitions."""
        return int((self.sends.delay_ns > 0).sum()) * self.round.repeats

    def ends_of(self, rank: int) -> int:
        """Sends and receives of a rank over all repetitions."""
        return (self.sends.count_of(rank) + self.receives.count_of(rank)) * self.round.repeats

    def steps_of(self, rank: int) -> Steps:
        """What a rank does in this round."""
        return Steps(
            self.sends.of(rank),
            self.receives.of(rank),
            repeats=self.round.repeats,
            shift=self.round.channel_shift,
            lockstep=self.round.lockstep,
        )


@dataclass(frozen=True, slots=True, eq=False)
class GoalText:
    """A schedule ready to be written. ``launch_ns``: what each rank does before any message."""

    ranks: int
    launch_ns: int
    rounds: tuple[RoundText, ...]

    @property
    def messages(self) -> int:
        """Messages of the whole operation: each is one send and one receive."""
        return sum(round_.messages for round_ in self.rounds)

    @property
    def delayed(self) -> int:
        """Messages with a ``calc`` behind them, for their route is slower than L and G say."""
        return sum(round_.delayed for round_ in self.rounds)

    @property
    def largest_bytes(self) -> int:
        """The longest message. [B]"""
        return max((int(r.sends.size_bytes.max(initial=0)) for r in self.rounds), default=0)

    def expected_bytes(self) -> int:
        """How long the text gets, about: as long for each message as in a few ranks' blocks. [B]"""
        some = np.unique(np.linspace(0, self.ranks - 1, SAMPLED_RANKS).astype(int)).tolist()
        written = sum(len(part) for rank in some for part in self.block(rank))
        ends = sum(round_.ends_of(rank) for round_ in self.rounds for rank in some)
        share = 2 * self.messages / ends if ends else self.ranks / len(some)
        return round(written * share) + len(self.header)

    @property
    def header(self) -> str:
        """What stands before the first block."""
        return f"num_ranks {self.ranks}\n"

    def block(self, rank: int) -> Iterator[str]:
        """One rank's operations, part by part."""
        block = GoalBlock(rank, self.launch_ns)
        for round_ in self.rounds:
            yield from block.add(round_.steps_of(rank))
        yield block.end()


def round_text(
    round_: Round, size_bytes: FloatArray, delay_s: FloatArray, *, ranks: int
) -> RoundText:
    """A round ready to be written: at least a byte a message, none for what has no bytes."""
    sent = np.flatnonzero(size_bytes > 0)
    whole_bytes = np.maximum(np.rint(size_bytes[sent]), 1).astype(np.int64)
    delay_ns = np.rint(delay_s[sent] * NS).astype(np.int64)
    source, destination, channel = (
        of[sent] for of in (round_.source, round_.destination, round_.channel)
    )

    def ends(verb: str, mine: IntArray, peer: IntArray) -> _Ends:
        order = np.argsort(mine, kind="stable")
        columns = (column[order] for column in (peer, whole_bytes, channel, delay_ns))
        starts = np.searchsorted(mine[order], np.arange(ranks + 1))
        return _Ends(verb, starts, *columns)

    return RoundText(
        round_,
        sends=ends("send {}b to {} tag ", source, destination),
        receives=ends("recv {}b from {} tag ", destination, source),
    )

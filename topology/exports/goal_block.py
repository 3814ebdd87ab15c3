"""A block of GOAL: one rank's operations, numbered from 1, each with what it waits for.

What arrives on a channel holds up what is sent on it next; outside of lockstep a send also waits
until the sends of the step before have been handed over. Text and labels are kept apart until they
are handed on: a round that repeats itself is one text whose labels count on.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

FLUSH_LINES: Final = 8192
"""Lines held before they are handed on: a quarter of a megabyte."""

MOST_WAITED_FOR: Final = 2
"""Arrivals that a message names one by one; more of them are joined, or lines would be n^2."""

STEADY_FROM: Final = 3
"""Steps of a round after which its text may repeat itself: the first two differ in what is behind
them."""


class Operation(NamedTuple):
    """A send or receive of the first repetition: its text but for the tag, which is the channel."""

    words: str
    channel: int
    delay_ns: int


class Steps(NamedTuple):
    """What a rank does in a round: the same in each repetition, ``shift`` channels further on."""

    sends: Sequence[Operation]
    receives: Sequence[Operation]
    repeats: int
    shift: int
    lockstep: bool


class _Place(NamedTuple):
    """How far a block has come: lines and labels held, operations numbered."""

    lines: int
    labels: int
    operations: int


class GoalBlock:
    """Makes the text of one rank. ``launch_ns``: what it does before any message."""

    def __init__(self, rank: int, launch_ns: int) -> None:
        self._lines = [f"rank {rank} {{"]
        self._labels: list[int] = []
        self._count = 0
        self._arrived: dict[int, list[int]] = {}
        self._left = 0
        self._launch = [self._add(f"calc {launch_ns}")] if launch_ns else []

    def add(self, steps: Steps) -> Iterator[str]:
        """The operations of a round with its repeats, part by part."""
        if not steps.sends and not steps.receives:
            return
        if len(self._lines) > FLUSH_LINES:
            yield self._flushed()
        places: list[_Place] = []
        for repetition in range(steps.repeats):
            if repetition == STEADY_FROM and not steps.shift and self._is_steady(places):
                yield from self._repeated(places[-1], steps.repeats - repetition)
                return
            if len(self._lines) > FLUSH_LINES and repetition >= STEADY_FROM:
                yield self._flushed()
            places.append(self._place)
            self._step(steps, repetition * steps.shift)

    def end(self) -> str:
        """What is left, and the end of the block."""
        if not self._count:
            self._add("calc 0")  # a block of nothing is no block
        self._lines.append("}")
        return self._flushed()

    def _step(self, steps: Steps, shift: int) -> None:
        arrived: dict[int, list[int]] = {}
        left = [self._left] if self._left and not steps.lockstep else []
        for words, channel, _ in steps.sends:
            self._left = self._add_after(f"{words}{channel + shift}", channel + shift, left)
        for words, channel, delay_ns in steps.receives:
            label = self._add_after(f"{words}{channel + shift}", channel + shift, [])
            if delay_ns:
                later = self._add(f"calc {delay_ns} cpu 1")
                self._require(later, [label])
                label = later
            arrived.setdefault(channel + shift, []).append(label)
        self._arrived.update(arrived)

    def _add_after(self, words: str, channel: int, left: list[int]) -> int:
        """Add a message, behind what arrived on its channel and what has to have left."""
        waits = self._arrived.get(channel, self._launch)
        if len(waits) > MOST_WAITED_FOR:
            join = self._add("calc 0")
            self._require(join, waits)
            waits = self._arrived[channel] = [join]
        label = self._add(words)
        self._require(label, waits)
        self._require(label, left)
        return label

    def _add(self, words: str) -> int:
        self._count += 1
        self._lines.append(f"l%d: {words}")
        self._labels.append(self._count)
        return self._count

    def _require(self, label: int, waits: list[int]) -> None:
        for other in waits:
            self._lines.append("l%d requires l%d")
            self._labels += (label, other)

    @property
    def _place(self) -> _Place:
        return _Place(len(self._lines), len(self._labels), self._count)

    def _is_steady(self, places: list[_Place]) -> bool:
        """Whether the last two steps are the same text, with all labels as many further on."""
        before, last, now = *places[-2:], self._place
        lines, labels = self._lines, self._labels
        if lines[before.lines : last.lines] != lines[last.lines :]:
            return False
        ahead = now.operations - last.operations
        return [n + ahead for n in labels[before.labels : last.labels]] == labels[last.labels :]

    def _repeated(self, last: _Place, repeats: int) -> Iterator[str]:
        """The last step over and over, some steps at a time."""
        ahead = self._count - last.operations
        text = "\n".join(self._lines[last.lines :]) + "\n"
        labels = np.array(self._labels[last.labels :], dtype=np.int64)
        yield self._flushed()
        at_once = max(1, FLUSH_LINES // text.count("\n"))
        for first in range(1, repeats + 1, at_once):
            steps = np.arange(first, min(first + at_once, repeats + 1))
            numbers = labels + ahead * steps[:, None]
            yield (text * len(steps)) % tuple(numbers.ravel().tolist())
        self._count_on(last.operations, ahead * repeats)

    def _count_on(self, since: int, ahead: int) -> None:
        """What was numbered since a place has been repeated: its last numbers are further on."""
        self._count += ahead
        self._left += ahead if self._left > since else 0
        for channel, labels in self._arrived.items():
            self._arrived[channel] = [n + ahead if n > since else n for n in labels]

    def _flushed(self) -> str:
        text = "\n".join(self._lines) % tuple(self._labels) + "\n" if self._lines else ""
        self._lines, self._labels = [], []
        return text

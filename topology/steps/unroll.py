"""Unrolling: a step's parts with their repetitions become operations that wait for each other.

The order of the file is the order of issue: a stream runs its operations one after the other.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from topology.steps.document import PartRow, StepDocument


@dataclass(frozen=True, slots=True)
class Operation:
    """One compute or collective, once. ``after``: numbers of earlier operations it waits for."""

    part: PartRow
    after: tuple[int, ...]


def unroll(step: StepDocument) -> tuple[Operation, ...]:
    """All operations of a step in the order in which every rank issues them."""
    unrolling = _Unrolling()
    unrolling.add(step.parts, ())
    return tuple(unrolling.operations)


@dataclass(slots=True)
class _Unrolling:
    """What is issued so far. ``ends``: by name of a part what is last of it, one for a stream."""

    operations: list[Operation] = field(default_factory=list)
    ends: dict[str, tuple[int, ...]] = field(default_factory=dict)
    last_on: dict[str, int] = field(default_factory=dict)

    def add(self, parts: Iterable[PartRow], before: tuple[int, ...]) -> tuple[int, ...]:
        """Issue parts that begin after ``before``; returns what the next part waits for."""
        for part in parts:
            awaited = before if part.after is None else self._awaited(part.after)
            awaited = (*awaited, *self._awaited(part.also_after))
            first = len(self.operations)
            for _ in range(part.repeat):
                awaited = (
                    self.add(part.parts, awaited) if part.parts else self._issue(part, awaited)
                )
            self.ends[part.name] = self._last_of_streams(first)
            before = before if part.overlap else awaited
        return before

    def _issue(self, part: PartRow, awaited: tuple[int, ...]) -> tuple[int, ...]:
        number, stream = len(self.operations), part.own_stream
        earlier = (self.last_on[stream],) if stream in self.last_on else ()
        self.operations.append(Operation(part, tuple(sorted({*awaited, *earlier}))))
        self.last_on[stream] = number
        return (number,)

    def _awaited(self, names: Iterable[str]) -> tuple[int, ...]:
        return tuple(sorted({number for name in names for number in self.ends[name]}))

    def _last_of_streams(self, first: int) -> tuple[int, ...]:
        return tuple(sorted(number for number in self.last_on.values() if number >= first))

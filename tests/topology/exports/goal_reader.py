"""A reader of GOAL that shares nothing with what writes it, and a replay by LogGOPS's rules.

A send takes o of its rank and leaves when the NIC is free of the one before; its message is there
``o + L + o + (s - 1) G`` after that, one at a time at its receiver. It matches the first receive
posted with its source and tag. A calc holds its CPU. Times are in ns.
"""

import re
from collections import defaultdict, deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

_OPERATION = re.compile(
    r"l(?P<label>\d+): (?:(?P<verb>send|recv) (?P<bytes>\d+)b (?:to|from) (?P<peer>\d+) "
    r"tag (?P<tag>\d+)|calc (?P<ns>\d+)(?: cpu (?P<cpu>\d+))?)"
)
_REQUIRES = re.compile(r"l(\d+) requires l(\d+)")
_RANK = re.compile(r"rank (\d+) \{")


@dataclass
class Operation:
    """One line with a label, and what it waits for."""

    rank: int
    verb: str
    amount: int
    peer: int = -1
    tag: int = -1
    cpu: int = 0
    waits: set[int] = field(default_factory=set)


Goal = list[dict[int, Operation]]
"""Operations by label, rank after rank."""


def read_goal(text: str) -> Goal:
    """Parse; a line of another form, a label twice or an unknown one fails."""
    first, *lines = text.splitlines()
    assert re.fullmatch(r"num_ranks \d+", first), first
    ranks: Goal = []
    for line in lines:
        if opening := _RANK.fullmatch(line):
            assert int(opening[1]) == len(ranks), line
            ranks.append({})
        elif requires := _REQUIRES.fullmatch(line):
            label, other = int(requires[1]), int(requires[2])
            assert other in ranks[-1], line
            assert other < label, line
            ranks[-1][label].waits.add(other)
        elif line != "}":
            found = _OPERATION.fullmatch(line)
            assert found, line
            assert int(found["label"]) == len(ranks[-1]) + 1, line
            ranks[-1][int(found["label"])] = _operation(found, len(ranks) - 1)
    assert len(ranks) == int(first.split()[1])
    return ranks


def _operation(found: re.Match[str], rank: int) -> Operation:
    if found["verb"] is None:
        return Operation(rank, "calc", int(found["ns"]), cpu=int(found["cpu"] or 0))
    peer, tag = int(found["peer"]), int(found["tag"])
    return Operation(rank, found["verb"], int(found["bytes"]), peer, tag)


def messages(goal: Goal) -> list[Operation]:
    """All sends."""
    return [op for rank in goal for op in rank.values() if op.verb == "send"]


def replay_ns(goal: Goal, *, latency: float, overhead: float, per_byte: float) -> float:
    """When the last operation is done; fails where one never is. [ns]"""
    return _Replay(goal, latency, overhead, per_byte).run()


class _Replay:
    def __init__(self, goal: Goal, latency: float, overhead: float, per_byte: float) -> None:
        self.goal = goal
        self.latency, self.overhead, self.per_byte = latency, overhead, per_byte
        self.events: list[tuple[float, int, str, int, int]] = []
        self.number = count()
        self.busy: dict[tuple[object, ...], float] = defaultdict(float)
        self.there: dict[tuple[int, int, int], deque[tuple[float, int]]] = defaultdict(deque)
        self.posted: dict[tuple[int, int, int], deque[int]] = defaultdict(deque)
        self.waiting = [{label: len(op.waits) for label, op in rank.items()} for rank in goal]
        self.heirs: list[dict[int, list[int]]] = [defaultdict(list) for _ in goal]
        for rank, operations in enumerate(goal):
            for label, op in operations.items():
                for other in op.waits:
                    self.heirs[rank][other].append(label)

    def at(self, time: float, what: str, rank: int, label: int) -> None:
        heappush(self.events, (time, next(self.number), what, rank, label))

    def run(self) -> float:
        for rank, waiting in enumerate(self.waiting):
            for label in [label for label, missing in waiting.items() if not missing]:
                self.at(0.0, "start", rank, label)
        last, done = 0.0, 0
        while self.events:
            time, _, what, rank, label = heappop(self.events)
            last = max(last, time)
            done += what == "done"
            getattr(self, f"_{what}")(time, rank, label)
        assert done == sum(map(len, self.goal)), "operations that never start"
        assert not any(self.there.values()), "messages that nobody receives"
        return last

    def _start(self, time: float, rank: int, label: int) -> None:
        op = self.goal[rank][label]
        if op.verb == "calc":
            begin = max(time, self.busy[rank, "cpu", op.cpu])
            self.busy[rank, "cpu", op.cpu] = begin + op.amount
            self.at(begin + op.amount, "done", rank, label)
        elif op.verb == "send":
            begin = max(time, self.busy[rank, "out"])
            self.busy[rank, "out"] = begin + self.overhead + (op.amount - 1) * self.per_byte
            self.at(begin + self.overhead, "done", rank, label)
            self.at(begin + self.overhead + self.latency, "arrive", rank, label)
        else:
            self.posted[op.peer, rank, op.tag].append(label)
            self._match((op.peer, rank, op.tag), time)

    def _arrive(self, time: float, rank: int, label: int) -> None:
        op = self.goal[rank][label]
        begin = max(time, self.busy[op.peer, "in"])
        whole = begin + self.overhead + (op.amount - 1) * self.per_byte
        self.busy[op.peer, "in"] = whole
        self.there[rank, op.peer, op.tag].append((whole, op.amount))
        self._match((rank, op.peer, op.tag), time)

    def _match(self, lane: tuple[int, int, int], time: float) -> None:
        while self.there[lane] and self.posted[lane]:
            whole, amount = self.there[lane].popleft()
            label = self.posted[lane].popleft()
            assert self.goal[lane[1]][label].amount == amount, "sizes of send and receive differ"
            self.at(max(time, whole), "done", lane[1], label)

    def _done(self, time: float, rank: int, label: int) -> None:
        for heir in self.heirs[rank][label]:
            self.waiting[rank][heir] -= 1
            if not self.waiting[rank][heir]:
                self.at(time, "start", rank, heir)

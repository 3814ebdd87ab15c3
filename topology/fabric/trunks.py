"""Trunks: switches and the cables between them as arrays, and how far apart they are.

Distances count cables. No hosts, no names of files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.fabric.graph import HOP_TIE_S

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]
BitArray: TypeAlias = NDArray[np.uint64]
DistanceArray: TypeAlias = NDArray[np.int16]

UNREACHABLE: Final = -1
_WORD_BITS: Final = 64
_MOST_GATHERED_BYTES: Final = 32 * 2**20
"""Bits that one step of a search may copy; more starts are searched batch by batch."""


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """Cables between switches on the shortest way, for any two of some switches.

    Switches with the same neighbours are equally far from all others: one class.
    ``class_of``: (switches,). ``between``: (classes, classes); its diagonal holds the distance of
    two switches of one class, 0 where a class has one only. -1: no way.
    """

    class_of: IntArray
    between: DistanceArray

    @property
    def most(self) -> int:
        """The longest of all distances, -1 only where there is none of 0 or more."""
        return int(self.between.max(initial=0))

    def of(self, a: IntArray, b: IntArray) -> IntArray:
        """Distances of pairs of switches by their numbers."""
        apart = self.between[self.class_of[a], self.class_of[b]]
        return np.where(a == b, 0, apart).astype(np.int64)


class Trunks:
    """Switches by number, each with its neighbours in the order in which cables were laid.

    ``ends``: (2, cables) the two switches of each cable. ``alpha_s``: (cables,) latency. [s]
    """

    def __init__(self, switch_count: int, ends: IntArray, alpha_s: FloatArray) -> None:
        self.switch_count = switch_count
        cables = np.repeat(np.arange(ends.shape[1]), 2)
        source, far = ends.T.reshape(-1), ends[::-1].T.reshape(-1)
        code = source * switch_count + far
        pairs, first, pair_of = np.unique(code, return_index=True, return_inverse=True)
        fastest = np.full(len(pairs), np.inf)
        np.minimum.at(fastest, pair_of, alpha_s[cables])
        order = np.lexsort((first, source[first]))
        self.neighbours = far[first][order]
        self.first_cable = cables[first][order]
        self.cost_s = fastest[order] + HOP_TIE_S
        degrees = np.bincount(source[first], minlength=switch_count)
        self.starts = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)

    def near(self, switch: int) -> slice:
        """Where the neighbours of a switch stand."""
        return slice(int(self.starts[switch]), int(self.starts[switch + 1]))

    def cable_between(self, a: int, b: int) -> int:
        """The first cable that was laid between two neighbours."""
        near = self.near(a)
        place = np.flatnonzero(self.neighbours[near] == b)[0]
        return int(self.first_cable[near][place])

    def distances_from(self, start: int) -> DistanceArray:
        """Distances from one switch to all."""
        distances = np.full(self.switch_count, UNREACHABLE, dtype=np.int16)
        distances[start] = steps = 0
        frontier = np.array([start])
        while len(frontier):
            steps += 1
            reached = self._neighbours_of(frontier)
            distances[reached[distances[reached] == UNREACHABLE]] = steps
            frontier = np.flatnonzero(distances == steps)
        return distances

    def _neighbours_of(self, switches: IntArray) -> IntArray:
        """Neighbours of some switches, one after the other."""
        counts = self.starts[switches + 1] - self.starts[switches]
        skipped = self.starts[switches] - (np.cumsum(counts) - counts)
        places = np.repeat(skipped, counts) + np.arange(counts.sum())
        return np.asarray(self.neighbours[places])

    def distances_among(self, switches: IntArray) -> Distances:
        """Distances between any two of some switches."""
        class_of, chosen, sizes = self._classes(switches)
        between = np.concatenate(
            [self._searched(starts, chosen) for starts in self._batches(chosen)]
            or [np.zeros((0, 0), dtype=np.int16)]
        )
        is_joined = np.diff(self.starts)[chosen] > 0
        within = np.where(is_joined, 2, UNREACHABLE)
        np.fill_diagonal(between, np.where(sizes > 1, within, 0))
        return Distances(class_of, between)

    def _classes(self, switches: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Class of each switch by its neighbours, a switch of each class, and how many it has."""
        number: dict[bytes, int] = {}
        near = (np.sort(self.neighbours[self.near(switch)]) for switch in switches.tolist())
        classes = [number.setdefault(row.tobytes(), len(number)) for row in near]
        class_of = np.array(classes, dtype=np.int64)
        _, first, sizes = np.unique(class_of, return_index=True, return_counts=True)
        return class_of, switches[first], sizes

    def _batches(self, starts: IntArray) -> list[IntArray]:
        """Starts in parts that are searched at once, as wide as memory allows."""
        words = max(1, _MOST_GATHERED_BYTES // (8 * max(len(self.neighbours), 1)))
        step = words * _WORD_BITS
        return [starts[i : i + step] for i in range(0, len(starts), step)]

    def _searched(self, starts: IntArray, targets: IntArray) -> DistanceArray:
        """Distances (starts, targets), breadth first from all starts at once.

        A switch holds one bit for each start that has reached it; a step ORs its neighbours'.
        """
        distances = np.full((len(starts), len(targets)), UNREACHABLE, dtype=np.int16)
        reached = np.zeros((self.switch_count, -(-len(starts) // _WORD_BITS)), dtype=np.uint64)
        word, bit = np.divmod(np.arange(len(starts)), _WORD_BITS)
        reached[starts, word] = np.uint64(1) << bit.astype(np.uint64)
        joined = np.flatnonzero(np.diff(self.starts))
        fresh, steps = reached.copy(), 0
        while fresh.any():
            distances[_flags(fresh[targets], len(starts)).T] = steps
            if not len(joined):
                break
            met = np.bitwise_or.reduceat(fresh[self.neighbours], self.starts[joined], axis=0)
            fresh = np.zeros_like(reached)
            fresh[joined] = met & ~reached[joined]
            reached |= fresh
            steps += 1
        return distances

    def fastest_way(self, a: int, b: int) -> list[int] | None:
        """Switches on the way with the least latency, both ends included; None: no way.

        Equal ways: fewer cables, then the one that is found first (Dijkstra's order), so that the
        answer is always the same.
        """
        is_one_cost = len(self.cost_s) > 0 and self.cost_s.min() == self.cost_s.max()
        return self._shortest_way(a, b) if is_one_cost else self._cheapest_way(a, b)

    def _shortest_way(self, a: int, b: int) -> list[int] | None:
        """The fastest way where all cables cost the same: Dijkstra's order is breadth first.

        Switches on no shortest way are left out, which changes the order of no others.
        """
        here, rest = self.distances_from(a), self.distances_from(b)
        if here[b] == UNREACHABLE:
            return None
        is_on_way = here + rest == here[b]
        before, frontier = {a: a}, [a]
        for step in range(1, int(here[b]) + 1):
            reached: dict[int, int] = {}
            for switch in frontier:
                near = self.neighbours[self.near(switch)]
                for there in near[is_on_way[near] & (here[near] == step)].tolist():
                    reached.setdefault(there, switch)
            before |= reached
            frontier = list(reached)
        return _traced(before, b)

    def _cheapest_way(self, a: int, b: int) -> list[int] | None:
        best_s, before = {a: 0.0}, {a: a}
        settled: set[int] = set()
        fringe = [(0.0, 0, a)]
        pushed = 1
        while fringe:
            here_s, _, here = heappop(fringe)
            if here == b:
                return _traced(before, b)
            if here in settled:
                continue
            settled.add(here)
            near = self.near(here)
            for there, cost_s in zip(
                self.neighbours[near].tolist(), self.cost_s[near].tolist(), strict=True
            ):
                there_s = here_s + cost_s
                if there not in best_s or there_s < best_s[there]:
                    best_s[there], before[there] = there_s, here
                    heappush(fringe, (there_s, pushed, there))
                    pushed += 1
        return None


def _flags(bits: BitArray, count: int) -> NDArray[np.bool_]:
    """The first bits of each row of words, one flag each."""
    little = bits.astype("<u8").view(np.uint8)
    return np.unpackbits(little, axis=1, count=count, bitorder="little").astype(bool)


def _traced(before: dict[int, int], end: int) -> list[int]:
    """The way back from an end to its start, turned round."""
    way = [end]
    while before[way[-1]] != way[-1]:
        way.append(before[way[-1]])
    return way[::-1]


def part_of(count: int, ends: Sequence[IntArray]) -> IntArray:
    """The smallest vertex that cables join with each vertex, 0 to ``count`` - 1."""
    a, b = ends
    part = np.arange(count)
    while True:
        least = np.minimum(part[a], part[b])
        lower = part.copy()
        for side in (part[a], part[b], a, b):
            np.minimum.at(lower, side, least)
        lower = lower[lower]
        if np.array_equal(lower, part):
            return part
        part = lower

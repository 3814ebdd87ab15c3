"""The PCIe tree of a node as places along a row."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from fleet.naming import natural_key
from topology.fabric.graph import Graph, links_between

GPU_WIDTH: Final = 92.0
NIC_WIDTH: Final = 76.0
_LANE: Final = 16.0
_ROOT_GAP: Final = 14.0


class Tree:
    """What hangs below which PCIe switch and root complex, and where along the row it stands."""

    def __init__(self, graph: Graph, devices: Iterable[str], x: float) -> None:
        self.roots = sorted((v for v in graph if v.startswith("numa")), key=natural_key)
        self.children: dict[str, list[str]] = defaultdict(list)
        self.parent: dict[str, str] = {}
        self.depth = dict.fromkeys(self.roots, 0)
        self._hang(graph, lambda kind: kind != "c2c")
        self._hang(graph, lambda kind: kind == "c2c")
        self.idle = [v for v in self.roots if not self.children[v]]
        busy = [v for v in self.roots if self.children[v]]
        lost = [v for v in devices if v not in self.depth]
        self.tops = [*sorted(busy, key=self._order), *sorted(lost, key=self._order)]
        self.place: dict[str, tuple[float, float]] = {}
        for top in (*self.tops, *self.idle[:1]):
            x = self._set(top, x, self._width(top)) + _ROOT_GAP
        self.right = x - _ROOT_GAP

    def _hang(self, graph: Graph, is_wanted: Callable[[str], bool]) -> None:
        """Hang what links of some kinds join on what is nearer to a root."""
        frontier = list(self.depth)
        for above in frontier:
            for vertex in sorted(set(graph.successors(above)), key=natural_key):
                kinds = {link.kind for link in links_between(graph, above, vertex)}
                is_part = vertex not in self.depth and vertex.startswith(("pcie", "gpu", "nic"))
                if is_part and any(map(is_wanted, kinds)):
                    self.depth[vertex] = self.depth[above] + 1
                    self.parent[vertex] = above
                    self.children[above].append(vertex)
                    frontier += [vertex] if vertex.startswith("pcie") else []

    def _order(self, vertex: str) -> tuple[object, ...]:
        """GPUs first, by slot, then NICs; what carries them stands where its first one would."""
        if vertex.startswith(("gpu", "nic")):
            return vertex.startswith("nic"), natural_key(vertex)
        return min((self._order(child) for child in self.children[vertex]), default=(True, ()))

    def _above(self, vertex: str) -> list[str]:
        """Children that stand above a vertex: all but the NICs of a PCIe switch."""
        is_switch = vertex.startswith("pcie")
        children = sorted(self.children[vertex], key=self._order)
        return [c for c in children if not (is_switch and c.startswith("nic"))]

    def _width(self, vertex: str) -> float:
        if vertex.startswith(("gpu", "nic")):
            return GPU_WIDTH if vertex.startswith("gpu") else NIC_WIDTH
        nics = len(self.children[vertex]) - len(self._above(vertex))
        upper = sum(self._width(child) for child in self._above(vertex))
        return max(upper, _LANE + nics * NIC_WIDTH, GPU_WIDTH)

    def _set(self, vertex: str, x: float, width: float) -> float:
        """Give a vertex and all that hangs on it their places; the right end."""
        self.place[vertex] = x, width
        above = self._above(vertex)
        stretch = width / (sum(self._width(child) for child in above) or 1.0)
        left = x
        for child in above:
            left = self._set(child, left, self._width(child) * stretch)
        nics = [child for child in self.children[vertex] if child not in above]
        share = (width - _LANE) / max(1, len(nics))
        for i, nic in enumerate(nics):
            self.place[nic] = x + _LANE + i * share, share
        return x + width

    def mid(self, vertex: str) -> float:
        """Middle of a vertex's place along the row."""
        x, width = self.place[vertex]
        return x + width / 2

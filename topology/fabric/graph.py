"""The graph: networkx with checked edges. The only file that touches networkx attributes.

networkx takes a missing weight for 1 and a missing capacity for infinite, so a link is checked
when it is added, and read back through ``links_between`` and ``all_links``.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import networkx as nx

from topology.errors import FabricError
from topology.fabric.link_figures import Confidence, LinkFigures

if TYPE_CHECKING:
    Graph: TypeAlias = nx.MultiDiGraph[str]
else:
    Graph = nx.MultiDiGraph

_LINK = "link"


@dataclass(frozen=True, slots=True)
class Link:
    """One direction between two ports, or ``count`` of them side by side. Units: s, B/s."""

    kind: str
    alpha_s: float
    jitter_s: float
    bytes_per_s: float
    count: int
    sources: tuple[str, ...]
    confidence: Confidence


def make_link(figures: LinkFigures, kind: str, *, bytes_per_s: float, count: int = 1) -> Link:
    """A link of a kind of ``link_figures.toml``; ``bytes_per_s`` is all ``count`` together.

    Raises:
        FabricError: there is no such kind of edge.
    """
    if kind not in figures.edge:
        raise FabricError(f"no figures for an edge of kind {kind!r}", field="edge")
    edge = figures.edge[kind]
    return Link(
        kind=kind,
        alpha_s=edge.alpha_s,
        jitter_s=edge.jitter_s,
        bytes_per_s=bytes_per_s,
        count=count,
        sources=edge.sources,
        confidence=edge.confidence,
    )


def new_graph() -> Graph:
    """An empty graph."""
    return nx.MultiDiGraph()


def add_link(graph: Graph, source: str, destination: str, link: Link) -> None:
    """Add one direction of a link.

    Raises:
        FabricError: a figure is missing, negative or not finite, or the link is a loop.
    """
    where = f"{source} -> {destination}"
    figures = {"alpha_s": link.alpha_s, "jitter_s": link.jitter_s, "bytes_per_s": link.bytes_per_s}
    for name, value in figures.items():
        least = 0.0 if name != "bytes_per_s" else math.ulp(0.0)
        if not isinstance(value, int | float) or not math.isfinite(value) or value < least:
            raise FabricError(
                f"{value}", where=where, field=name, remedy="expected a positive figure"
            )
    if source == destination:
        raise FabricError("a link from a device to itself", where=where)
    if link.count < 1 or not link.sources:
        raise FabricError("no links or no source", where=where)
    graph.add_edge(source, destination, **{_LINK: link})


def add_both_ways(graph: Graph, a: str, b: str, link: Link) -> None:
    """Add a link in both directions."""
    add_link(graph, a, b, link)
    add_link(graph, b, a, link)


def links_between(graph: Graph, source: str, destination: str) -> list[Link]:
    """All links from one vertex to another, empty where there is none."""
    if not graph.has_edge(source, destination):
        return []
    return [data[_LINK] for data in graph[source][destination].values()]


def all_links(graph: Graph) -> Iterator[tuple[str, str, Link]]:
    """Every link with its two ends."""
    for source, destination, data in graph.edges(data=True):
        link = data[_LINK]
        assert isinstance(link, Link), "add_link is the only way in"
        yield source, destination, link


def shortest_path(
    graph: Graph, source: str, destination: str, *, may_pass: Callable[[str], bool]
) -> list[str] | None:
    """Vertices of the path with the least latency, None where there is none.

    Only vertices for which ``may_pass`` holds are passed through. Equal paths: fewer hops, then
    the link that was added first, so that the answer is always the same.
    """
    if source not in graph or destination not in graph:
        return None

    def weight(u: str, v: str, parallel: Any) -> float | None:
        if v != destination and not may_pass(v):
            return None
        return float(min(data[_LINK].alpha_s for data in parallel.values())) + HOP_TIE_S

    try:
        _, path = nx.single_source_dijkstra(graph, source, destination, weight=weight)
    except nx.NetworkXNoPath:
        return None
    return [str(vertex) for vertex in path]


HOP_TIE_S = 1e-15
"""Breaks ties between equal latencies in favour of fewer hops; never part of a result."""

"""Legends: links with latency, rate and confidence; routes from rank to rank; notes."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from math import sqrt
from typing import Final

from fleet.naming import counted
from fleet.units import text_from_rate, text_from_seconds
from topology.diagram.layout import (
    LegendEntry,
    LegendTable,
    link_look,
)
from topology.fabric.from_fleet import Fabric, FabricNode
from topology.fabric.graph import Link, all_links
from topology.fabric.routes import Endpoint, Route

MOST_SLOTS: Final = 16
MOST_NOTES: Final = 6


@dataclass(slots=True)
class Bundle:
    """Parallel links of a kind, one direction: how many, and the rate of each. [B/s]"""

    kind: str = ""
    count: int = 0
    bytes_per_s: float = 0.0
    rates: set[float] = field(default_factory=set)

    def add(self, link: Link, times: int = 1) -> None:
        """Count a link in, as many times as there are such."""
        self.kind = link.kind
        self.count += link.count * times
        self.bytes_per_s += link.bytes_per_s * times
        self.rates.add(link.bytes_per_s / link.count)

    def merge(self, other: "Bundle") -> None:
        """Count other links in."""
        self.kind = self.kind or other.kind
        self.count += other.count
        self.bytes_per_s += other.bytes_per_s
        self.rates |= other.rates

    @property
    def text(self) -> str:
        """How many of which rate."""
        return f"{self.count:,} x {span(self.rates, text_from_rate)}"

    @property
    def width_pt(self) -> float:
        """Width of its line: grows with the root of its bandwidth."""
        return min(8.0, 0.8 + 0.05 * sqrt(self.bytes_per_s / 1e9))


def link_bundles(fabric: Fabric) -> dict[str, Bundle]:
    """All links of a fabric by kind, one direction each."""
    nodes = Counter(id(node.graph) for node in fabric.nodes)
    graphs = {id(node.graph): node.graph for node in fabric.nodes}
    bundles: dict[str, Bundle] = defaultdict(Bundle)
    for number, node_graph in graphs.items():
        for _, _, link in all_links(node_graph.graph):
            bundles[link.kind].add(link, nodes[number])
    for _, _, link in all_links(fabric.network.graph):
        bundles[link.kind].add(link)
    return dict(bundles)


def link_legend(fabric: Fabric, bundles: dict[str, Bundle]) -> LegendTable:
    """Link kinds, quickest first, with latency, rate and how far to trust the latency."""
    edges = sorted(
        (fabric.figures.edge[kind] for kind in bundles), key=lambda e: (e.alpha_s, e.name)
    )
    longest = max((edge.alpha_s for edge in edges), default=1.0)
    entries = (
        LegendEntry(
            link_look(edge.name),
            (
                edge.name,
                edge.title,
                f"{bundles[edge.name].count:,}",
                span(bundles[edge.name].rates, text_from_rate),
                edge.confidence.value,
                text_from_seconds(edge.alpha_s),
            ),
            kind=edge.name,
            bar=edge.alpha_s / longest,
        )
        for edge in edges
    )
    header = ("link", "from, to", "one direction", "each", "confidence", "latency")
    scale = f"0 to {text_from_seconds(longest)}"
    return LegendTable("Links", header, tuple(entries), right=(2, 3, 5), scale=scale)


def route_legend(samples: Iterable[tuple[str, Route]]) -> LegendTable:
    """Route classes from rank to rank with latency, what one sender gets, and confidence."""
    routes: dict[tuple[str, str], list[Route]] = defaultdict(list)
    for where, route in samples:
        routes[where, route.route_class.name].append(route)
    longest = max((r.alpha_s for found in routes.values() for r in found), default=1.0)
    entries = []
    for (where, _), found in routes.items():
        first, latencies = found[0], {route.alpha_s for route in found}
        row, beyond = first.route_class, max(route.extra_s for route in found)
        cells = (
            where,
            row.title + (f", {text_from_seconds(beyond)} beyond" if beyond > _ROUNDING_S else ""),
            span({route.p2p_bytes_per_s for route in found}, text_from_rate),
            span({row.alpha_low_s, row.alpha_high_s}, text_from_seconds),
            row.latency_confidence.value,
            span(latencies, text_from_seconds),
        )
        slowest = max(first.hops, key=lambda hop: hop.alpha_s)
        entries.append(LegendEntry(link_look(slowest.kind), cells, bar=max(latencies) / longest))
    header = ("rank to rank", "route class", "one sender", "class range", "confidence", "latency")
    scale = f"0 to {text_from_seconds(longest)}"
    return LegendTable("Routes, end to end", header, tuple(entries), right=(2, 3, 5), scale=scale)


_ROUNDING_S: Final = 0.5e-12


def inside_samples(fabric: Fabric, node: FabricNode) -> Iterator[tuple[str, Route]]:
    """Routes between the GPUs of one node."""
    slots = node.graph.slots[:MOST_SLOTS]
    for a, b in combinations(slots, 2):
        route = fabric.route(Endpoint(node.host, a), Endpoint(node.host, b))
        if isinstance(route, Route):
            yield "same node", route


def sheet_notes(fabric: Fabric) -> tuple[str, ...]:
    """What the figures mean, and what the model had to guess."""
    meaning = (
        "Latency: of a small message on idle links, without jitter; a link's is its share of the "
        "routes over it. Confidence: how far to trust the latency; guess: nobody measured it."
    )
    guesses = Counter(re.sub(r" gpu[0-9]+:", ":", guess) for guess in fabric.guesses)
    notes = [f"Guess: {text} ({counted(count, 'GPU')})" for text, count in guesses.items()]
    more = [f"and {len(notes) - MOST_NOTES} more guesses"] if len(notes) > MOST_NOTES else []
    return (meaning, *notes[:MOST_NOTES], *more)


def span(values: Iterable[float], text: Callable[[float], str]) -> str:
    """The smallest and the largest of some values, or the one they all are.

    >>> span([63e9, 31.5e9, 63e9], text_from_rate)
    '31.5 to 63 GB/s'
    """
    texts = list(dict.fromkeys(text(value) for value in sorted(values)))
    low, _, unit = texts[0].partition(" ")
    if len(texts) == 1:
        return texts[0]
    return f"{low if texts[-1].endswith(f' {unit}') else texts[0]} to {texts[-1]}"

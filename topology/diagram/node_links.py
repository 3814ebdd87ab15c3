"""The links between parts of a node: as its shape has them, and as the node has them."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from topology.diagram.legend import Bundle
from topology.fabric.graph import Graph, links_between


@dataclass(frozen=True, slots=True)
class LinkSet:
    """Links between vertices: as the shape has them, and as the node has them."""

    whole: Bundle
    real: Bundle

    @property
    def text(self) -> str:
        """How many, and how many there should be."""
        if self.real.count == self.whole.count:
            return f"{self.whole.count:,}"
        return f"{self.real.count:,} of {self.whole.count:,}"

    @property
    def has_fault(self) -> bool:
        """Whether some are missing."""
        return self.real.count < self.whole.count


def link_set(
    whole: Graph, real: Graph, sources: Iterable[str], destinations: Iterable[str]
) -> LinkSet:
    """All links from some vertices to others, in the shape's graph and in the node's."""
    pairs = list(product(sources, destinations))
    bundles = Bundle(), Bundle()
    for bundle, graph in zip(bundles, (whole, real), strict=True):
        for source, destination in pairs:
            for link in links_between(graph, source, destination):
                bundle.add(link)
    return LinkSet(*bundles)

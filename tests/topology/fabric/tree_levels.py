"""The PCIe levels that a node's tree shows, in nvidia-smi's words, and whether they are told."""

from topology.fabric.graph import Graph, shortest_path
from topology.fabric.node_graph import NodeGraph, is_pcie_vertex

ROOT = "root complex"


def path(graph: Graph, a: str, b: str) -> list[str] | None:
    return shortest_path(graph, a, b, may_pass=is_pcie_vertex)


def level_shown(graph: Graph, a: str, b: str) -> str | None:
    """Level of a pair as the tree shows it: nvidia-smi's words, PHB and NODE being one."""
    vertices = path(graph, a, b)
    if vertices is None:
        return None
    between = vertices[1:-1]
    roots = [vertex for vertex in between if vertex.startswith("numa")]
    if len(roots) > 1:
        return "sys"
    if roots:
        return ROOT
    return "pix" if len(between) == 1 else "pxb"


SHOWN_AS = {"internal": "pix", "pix": "pix", "pxb": "pxb", "phb": ROOT, "node": ROOT, "sys": "sys"}


def assert_shows_its_levels(node: NodeGraph) -> None:
    for row in node.wiring.pcie_levels:
        assert level_shown(node.graph, row.a, row.b) == SHOWN_AS[row.level.value], (
            row.a,
            row.b,
            row.level.value,
        )

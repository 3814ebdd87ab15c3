import ast
import math
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.errors import FabricError
from topology.fabric.graph import (
    Graph,
    Link,
    add_both_ways,
    add_link,
    all_links,
    links_between,
    make_link,
    new_graph,
    shortest_path,
)
from topology.fabric.link_figures import Confidence, load_link_figures

FIGURES = load_link_figures()
NANO = 1e-9


def link(alpha_ns: float = 75.0, *, bytes_per_s: float = 1e9) -> Link:
    return Link("pcie", alpha_ns * NANO, 0.0, bytes_per_s, 1, ("E1",), Confidence.LOW)


def graph_of(*edges: tuple[str, str, float]) -> Graph:
    """Both directions of each link; latency in nanoseconds."""
    graph = new_graph()
    for a, b, alpha_ns in edges:
        add_both_ways(graph, a, b, link(alpha_ns))
    return graph


def test_a_link_takes_the_figures_of_its_kind() -> None:
    made = make_link(FIGURES, "nvlink", bytes_per_s=100e9, count=4)
    edge = FIGURES.edge["nvlink"]
    assert (made.alpha_s, made.jitter_s, made.confidence) == (
        edge.alpha_s,
        edge.jitter_s,
        edge.confidence,
    )
    assert (made.bytes_per_s, made.count, made.sources) == (100e9, 4, edge.sources)


def test_a_kind_without_figures_is_refused() -> None:
    with pytest.raises(FabricError, match="edge: no figures for an edge of kind 'wormhole'"):
        make_link(FIGURES, "wormhole", bytes_per_s=1e9)


@pytest.mark.parametrize("field", ["alpha_s", "jitter_s", "bytes_per_s"])
@pytest.mark.parametrize("value", [None, -1e-12, math.nan, math.inf, -math.inf])
def test_a_link_without_a_proper_figure_is_refused(field: str, value: float | None) -> None:
    graph = new_graph()
    with pytest.raises(FabricError) as caught:
        add_link(graph, "a", "b", replace(link(), **{field: value}))  # type: ignore[arg-type]
    assert str(caught.value) == f"a -> b: {field}: {value}; expected a positive figure"
    assert (caught.value.where, caught.value.field) == ("a -> b", field)
    assert list(all_links(graph)) == []


def test_a_link_without_bandwidth_is_refused() -> None:
    with pytest.raises(FabricError, match=r"a -> b: bytes_per_s: 0\.0; expected"):
        add_link(new_graph(), "a", "b", link(bytes_per_s=0.0))


def test_a_link_from_a_device_to_itself_is_refused() -> None:
    with pytest.raises(FabricError, match="a -> a: a link from a device to itself"):
        add_link(new_graph(), "a", "a", link())


@pytest.mark.parametrize("change", [{"count": 0}, {"count": -1}, {"sources": ()}])
def test_a_link_of_nothing_or_without_source_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(FabricError, match="no links or no source"):
        add_link(new_graph(), "a", "b", replace(link(), **change))  # type: ignore[arg-type]


def test_a_link_of_no_latency_is_taken() -> None:
    graph = new_graph()
    add_link(graph, "a", "b", link(0.0))
    assert [x.alpha_s for x in links_between(graph, "a", "b")] == [0.0]


def test_one_direction_is_one_direction() -> None:
    graph = new_graph()
    add_link(graph, "a", "b", link())
    assert links_between(graph, "b", "a") == []
    assert links_between(graph, "a", "nowhere") == []
    assert [(u, v) for u, v, _ in all_links(graph)] == [("a", "b")]


def test_parallel_links_are_all_kept() -> None:
    graph = new_graph()
    add_link(graph, "a", "b", link(1.0))
    add_link(graph, "a", "b", link(2.0))
    assert [round(x.alpha_s / NANO) for x in links_between(graph, "a", "b")] == [1, 2]


def test_the_path_takes_the_quickest_of_parallel_links() -> None:
    graph = graph_of(("a", "m", 50), ("a", "m", 10), ("m", "b", 10), ("a", "n", 20), ("n", "b", 20))
    assert shortest_path(graph, "a", "b", may_pass=lambda v: True) == ["a", "m", "b"]


def test_of_equal_paths_the_one_with_fewer_hops_is_taken() -> None:
    graph = graph_of(("a", "m", 8), ("m", "n", 8), ("n", "b", 24), ("a", "z", 20), ("z", "b", 20))
    assert shortest_path(graph, "a", "b", may_pass=lambda v: True) == ["a", "z", "b"]


def test_of_equal_paths_of_equal_hops_the_first_laid_is_taken() -> None:
    graph = graph_of(("a", "y", 10), ("a", "x", 10), ("x", "b", 10), ("y", "b", 10))
    assert shortest_path(graph, "a", "b", may_pass=lambda v: True) == ["a", "y", "b"]


def test_nothing_passes_through_a_vertex_that_may_not_be_passed() -> None:
    graph = graph_of(("a", "gpu", 1), ("gpu", "b", 1), ("a", "s", 100), ("s", "b", 100))
    path = shortest_path(graph, "a", "b", may_pass=lambda v: v != "gpu")
    assert path == ["a", "s", "b"]


def test_the_ends_need_no_leave_to_be_passed() -> None:
    assert shortest_path(graph_of(("a", "b", 1)), "a", "b", may_pass=lambda v: False) == ["a", "b"]


@pytest.mark.parametrize(
    ("a", "b"), [("a", "far"), ("far", "a"), ("a", "missing"), ("missing", "a")]
)
def test_no_path_is_none(a: str, b: str) -> None:
    graph = graph_of(("a", "b", 1))
    graph.add_node("far")
    assert shortest_path(graph, a, b, may_pass=lambda v: True) is None


def cheapest_ns(edges: dict[tuple[str, str], int], passable: set[str]) -> int | None:
    """Least latency from a to b over every simple path, tried one by one."""
    best = None
    for length in range(len(passable) + 1):
        for middle in permutations(sorted(passable), length):
            hops = list(pairwise(("a", *middle, "b")))
            if all(hop in edges for hop in hops):
                total = sum(edges[hop] for hop in hops)
                best = total if best is None else min(best, total)
    return best


names = st.sampled_from(["a", "b", "m", "n", "o", "p"])


@given(
    edges=st.dictionaries(
        st.tuples(names, names).filter(lambda ends: ends[0] != ends[1]),
        st.integers(min_value=1, max_value=200),
        max_size=14,
    ),
    passable=st.sets(st.sampled_from(["m", "n", "o", "p"])),
)
def test_the_path_is_the_cheapest_of_all(
    edges: dict[tuple[str, str], int], passable: set[str]
) -> None:
    graph = new_graph()
    graph.add_nodes_from(("a", "b"))
    for (u, v), alpha_ns in edges.items():
        add_link(graph, u, v, link(alpha_ns))
    path = shortest_path(graph, "a", "b", may_pass=lambda v: v in passable)
    expected = cheapest_ns(edges, passable)
    if expected is None:
        assert path is None
    else:
        assert path is not None
        assert set(path[1:-1]) <= passable
        assert sum(edges[hop] for hop in pairwise(path)) == expected


EDGE_DATA_CALLS = {"add_edge", "add_edges_from", "get_edge_data", "set_edge_attributes"}
EDGE_DATA_VIEWS = {"edges", "adj", "_adj", "in_edges", "out_edges"}


def edge_data_uses(source: str) -> list[str]:
    """Where a module reads or writes data of networkx edges."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        name, words = node.func.attr, {word.arg for word in node.keywords}
        if (name in EDGE_DATA_CALLS and words) or (name in EDGE_DATA_VIEWS and "data" in words):
            found.append(name)
    return found


def test_only_the_graph_module_touches_edge_data(root: Path) -> None:
    users = {
        path.relative_to(root).as_posix()
        for path in root.glob("topology/**/*.py")
        if edge_data_uses(path.read_text())
    }
    assert users == {"topology/fabric/graph.py"}


@pytest.mark.parametrize(
    "source",
    ["graph.add_edge(a, b, weight=1)", "for u, v, d in g.edges(data=True): pass"],
)
def test_a_planted_use_of_edge_data_is_found(source: str) -> None:
    assert edge_data_uses(source)

"""Distances and ways between switches, against one plain search for each pair."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.fabric.trunks import UNREACHABLE, Trunks, part_of

Pairs = list[tuple[int, int]]


def trunks_of(switches: int, pairs: Pairs, alpha_s: list[float] | None = None) -> Trunks:
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return Trunks(switches, ends, np.array(alpha_s or [1e-7] * len(pairs)))


def matrix_of(trunks: Trunks, switches: list[int]) -> list[list[int]]:
    among = trunks.distances_among(np.array(switches, dtype=np.int64))
    a, b = np.indices((len(switches), len(switches))).reshape(2, -1)
    return among.of(a, b).reshape(len(switches), len(switches)).tolist()


def searched(count: int, pairs: Pairs, switches: list[int]) -> list[list[int]]:
    """One breadth-first search for each start, by networkx."""
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from(pairs)
    rows = [nx.single_source_shortest_path_length(graph, a) for a in switches]
    return [[row.get(b, UNREACHABLE) for b in switches] for row in rows]


@st.composite
def cabled(draw: st.DrawFn) -> tuple[int, Pairs]:
    """Up to 12 switches with any cables between them, several side by side among them."""
    count = draw(st.integers(2, 12))
    switch = st.integers(0, count - 1)
    pair = st.tuples(switch, switch).filter(lambda ends: ends[0] != ends[1])
    return count, draw(st.lists(pair, max_size=24))


@given(fabric=cabled(), data=st.data())
def test_distances_are_those_of_one_search_for_each_switch(
    fabric: tuple[int, Pairs], data: st.DataObject
) -> None:
    count, pairs = fabric
    switches = data.draw(st.lists(st.integers(0, count - 1), unique=True))
    trunks = trunks_of(count, pairs)
    expected = searched(count, pairs, switches)
    assert matrix_of(trunks, switches) == expected
    most = trunks.distances_among(np.array(switches, dtype=np.int64)).most
    assert most == max([0, *(far for row in expected for far in row)])


@given(fabric=cabled())
def test_distances_from_one_switch_are_those_of_a_search(fabric: tuple[int, Pairs]) -> None:
    count, pairs = fabric
    everyone = list(range(count))
    rows = [trunks_of(count, pairs).distances_from(start).tolist() for start in everyone]
    assert rows == searched(count, pairs, everyone)


def fat_tree(pods: int, leaves: int, spines: int) -> tuple[int, Pairs, list[int]]:
    """Pods of leaves and spines, a core for each spine of a pod; the leaves come first."""
    spine0, core0 = pods * leaves, pods * (leaves + spines)
    pairs = [
        (pod * leaves + leaf, spine0 + pod * spines + spine)
        for pod in range(pods)
        for leaf in range(leaves)
        for spine in range(spines)
    ]
    pairs += [(spine0 + p * spines + s, core0 + s) for p in range(pods) for s in range(spines)]
    return core0 + spines, pairs, list(range(spine0))


def test_leaves_of_a_pod_are_one_class() -> None:
    count, pairs, leaves = fat_tree(pods=3, leaves=4, spines=2)
    among = trunks_of(count, pairs).distances_among(np.array(leaves))
    assert among.between.tolist() == [[2, 4, 4], [4, 2, 4], [4, 4, 2]]
    assert among.class_of.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_a_leaf_that_lost_one_uplink_is_a_class_of_its_own() -> None:
    count, pairs, leaves = fat_tree(pods=2, leaves=3, spines=2)
    among = trunks_of(count, pairs[1:]).distances_among(np.array(leaves))
    assert len(among.between) == 3
    assert matrix_of(trunks_of(count, pairs[1:]), leaves) == searched(count, pairs[1:], leaves)


def dragonfly(groups: int, switches: int) -> tuple[int, Pairs, list[int]]:
    """Groups of switches that are all joined, one cable between any two groups."""
    pairs = [
        (g * switches + a, g * switches + b)
        for g in range(groups)
        for a in range(switches)
        for b in range(a)
    ]
    pairs += [
        (g * switches + h % switches, h * switches + g % switches)
        for g in range(groups)
        for h in range(g)
    ]
    return groups * switches, pairs, list(range(groups * switches))


def test_groups_of_a_dragonfly_are_at_most_three_cables_apart() -> None:
    count, pairs, switches = dragonfly(groups=9, switches=8)
    trunks = trunks_of(count, pairs)
    assert matrix_of(trunks, switches) == searched(count, pairs, switches)
    assert trunks.distances_among(np.array(switches)).most == 3


def test_more_starts_than_bits_of_a_word_and_more_than_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("topology.fabric.trunks._MOST_GATHERED_BYTES", 1)
    ring = [(i, (i + 1) % 150) for i in range(150)]
    whole = matrix_of(trunks_of(150, ring), list(range(150)))
    assert whole == [[min((a - b) % 150, (b - a) % 150) for b in range(150)] for a in range(150)]


def test_islands_do_not_reach_each_other() -> None:
    assert matrix_of(trunks_of(5, [(0, 4), (1, 4)]), [0, 1, 2, 3]) == [
        [0, 2, -1, -1],
        [2, 0, -1, -1],
        [-1, -1, 0, -1],
        [-1, -1, -1, 0],
    ]


def test_one_switch_and_none_at_all() -> None:
    assert matrix_of(trunks_of(1, []), [0]) == [[0]]
    assert matrix_of(trunks_of(0, []), []) == []


@given(fabric=cabled(), data=st.data())
def test_the_fastest_way_is_the_one_that_networkx_finds(
    fabric: tuple[int, Pairs], data: st.DataObject
) -> None:
    count, pairs = fabric
    alpha = st.sampled_from([1e-7, 1e-7, 3e-7])
    alphas_s = data.draw(st.lists(alpha, min_size=len(pairs), max_size=len(pairs)))
    graph: nx.MultiDiGraph[int] = nx.MultiDiGraph()
    graph.add_nodes_from(range(count))
    for (a, b), alpha_s in zip(pairs, alphas_s, strict=True):
        graph.add_edge(a, b, weight=alpha_s + 1e-15)
        graph.add_edge(b, a, weight=alpha_s + 1e-15)
    trunks = trunks_of(count, pairs, alphas_s)
    for b in range(count):
        try:
            expected = nx.dijkstra_path(graph, 0, b)
        except nx.NetworkXNoPath:
            expected = None
        assert trunks.fastest_way(0, b) == expected


def test_of_cables_side_by_side_the_first_is_named_and_the_fastest_counts() -> None:
    trunks = trunks_of(3, [(0, 1), (1, 0), (0, 2), (2, 1)], [3e-7, 1e-7, 1e-7, 1e-7])
    assert trunks.cable_between(0, 1) == trunks.cable_between(1, 0) == 0
    assert trunks.fastest_way(0, 1) == [0, 1]


@given(fabric=cabled())
def test_parts_are_named_by_their_smallest_switch(fabric: tuple[int, Pairs]) -> None:
    count, pairs = fabric
    graph = nx.Graph(pairs)
    graph.add_nodes_from(range(count))
    least = {v: min(part) for part in nx.connected_components(graph) for v in part}
    a, b = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    assert part_of(count, (a, b)).tolist() == [least[v] for v in range(count)]


def test_a_long_chain_is_one_part() -> None:
    a = np.random.default_rng(0).permutation(2000)
    assert set(part_of(2001, (a + 1, a)).tolist()) == {0}

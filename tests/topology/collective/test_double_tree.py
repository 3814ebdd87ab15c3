from math import ceil, log2

import pytest

from tests.topology.collective.layouts import messages_of, packed, schedule_of
from topology.collective.double_tree import tree_parents
from topology.collective.replay import prove
from topology.words import Collective

COUNTS = range(2, 65)


def inner_nodes(parents: list[int]) -> set[int]:
    """Nodes that are a parent."""
    return {parent for node, parent in enumerate(parents) if parent != node}


def depth(parents: list[int], node: int) -> int:
    """Links to the root; fails on a cycle."""
    steps = 0
    while parents[node] != node:
        node, steps = parents[node], steps + 1
        assert steps < len(parents), "a cycle"
    return steps


@pytest.mark.parametrize("count", COUNTS)
def test_both_are_trees_with_one_root_and_two_children_at_most(count: int) -> None:
    for tree in (0, 1):
        parents = tree_parents(count, tree)
        roots = [node for node, parent in enumerate(parents) if parent == node]
        children = [parents.count(node) - (node in roots) for node in range(count)]
        assert len(roots) == 1
        assert max(children) <= 2
        assert children[roots[0]] == 1


@pytest.mark.parametrize("count", COUNTS)
def test_trees_are_no_deeper_than_the_logarithm(count: int) -> None:
    for tree in (0, 1):
        parents = tree_parents(count, tree)
        assert max(depth(parents, node) for node in range(count)) <= ceil(log2(count))


@pytest.mark.parametrize("count", COUNTS)
def test_a_node_is_inner_in_one_tree_but_for_node_0_of_an_odd_count(count: int) -> None:
    both = inner_nodes(tree_parents(count, 0)) & inner_nodes(tree_parents(count, 1))
    assert both == ({0} if count % 2 else set())


def test_one_node_is_its_own_tree() -> None:
    assert [tree_parents(1, tree) for tree in (0, 1)] == [[0], [0]]


def test_the_trees_of_four_are_those_of_nccl() -> None:
    """Tree 0: 0 above 2 above 1 and 3; tree 1 mirrored: 3 above 1 above 2 and 0."""
    assert tree_parents(4, 0) == [0, 2, 0, 2]
    assert tree_parents(4, 1) == [1, 3, 1, 3]


def test_the_trees_of_five_are_shifted_by_one() -> None:
    assert tree_parents(5, 0) == [0, 2, 4, 2, 0]
    assert tree_parents(5, 1) == [1, 1, 3, 0, 3]


@pytest.mark.parametrize(("nodes", "pieces"), [(1, 1), (1, 4), (2, 1), (3, 2), (4, 1), (5, 3)])
def test_steps_are_down_the_chain_and_up_the_tree_and_back(nodes: int, pieces: int) -> None:
    """Chains of eight: seven links; both trees are as deep as the deeper one."""
    placed = packed("model:dgx-h100 node:5", 8 * nodes)
    schedule = schedule_of(
        "double_binary_tree", Collective.ALL_REDUCE, placed, channels=2, pieces=pieces
    )
    deepest = max(
        depth(tree_parents(nodes, tree), node) for tree in (0, 1) for node in range(nodes)
    )
    assert schedule.steps == 2 * (7 + deepest) + pieces - 1
    prove(schedule, placed.routes)


def test_each_of_the_two_trees_carries_half_on_every_rail() -> None:
    placed = packed("model:dgx-h100 node:4", 32)
    schedule = schedule_of("double_binary_tree", Collective.ALL_REDUCE, placed, channels=8)
    assert schedule.chunk_fraction == pytest.approx(1 / (8 * 2))
    assert schedule.messages == 8 * 2 * 2 * (32 - 1)


def test_messages_between_nodes_stay_on_one_rail() -> None:
    placed = packed("model:dgx-h100 node:4", 32)
    schedule = schedule_of("double_binary_tree", Collective.ALL_REDUCE, placed, channels=8)
    for step in messages_of(schedule):
        for message in step:
            (host_a, nic_a), (host_b, nic_b) = (
                placed.nic(message.source),
                placed.nic(message.destination),
            )
            assert host_a == host_b or nic_a == nic_b

"""NCCL's double binary tree: a chain inside each node, two binary trees across the node heads.

A node is an inner node of at most one of the two trees (where the count is odd, node 0 of both), so
that each tree carries half the data and no other port both halves.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from topology.collective.schedule import Schedule, Transfer, pipelined
from topology.collective.stages import Request, answered, make_schedule

TREES = 2


def double_binary_tree(request: Request) -> Schedule:
    """All-reduce: up the chains and trees in pieces, and down again, on each rail side by side."""
    chains = request.layout.chains[: max(1, request.channels)]
    lanes = [(chain, tree) for chain in chains for tree in range(TREES)]
    pieces = request.pieces
    up: list[list[Transfer]] = []
    for lane, (nodes, tree) in enumerate(lanes):
        for stage, links in enumerate(_stages_up(nodes, tree)):
            if stage == len(up):
                up.append([])
            up[stage] += [
                Transfer(a, b, lane * pieces, 1, reduces=True, channel=lane * pieces)
                for a, b in links
            ]
    stages = [*up, *(answered(stage) for stage in reversed(up))]
    owner = np.zeros(len(lanes) * pieces, dtype=np.int64)
    rounds = pipelined(stages, pieces=pieces, stride=1)
    return make_schedule(request, "double_binary_tree", owner, rounds, channels=len(lanes) * pieces)


def _stages_up(nodes: Sequence[Sequence[int]], tree: int) -> Iterator[list[tuple[int, int]]]:
    """Links of each stage of the reduce: down the chains to the heads, then up the tree."""
    yield from chain_stages_up(nodes)
    for links in tree_stages_up(len(nodes), tree):
        yield [(nodes[child][0], nodes[parent][0]) for child, parent in links]


def chain_stages_up(nodes: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, int]]]:
    """Links of each stage of a reduce to the heads of chains; all end together.

    >>> list(chain_stages_up([(0, 1, 2), (5, 6)]))
    [[(2, 1)], [(1, 0), (6, 5)]]
    """
    longest = max(len(chain) for chain in nodes)
    for back in range(longest - 1, 0, -1):
        yield [(chain[back], chain[back - 1]) for chain in nodes if len(chain) > back]


def tree_stages_up(count: int, tree: int) -> Iterator[list[tuple[int, int]]]:
    """Links (child, parent) of each level of one of the two trees, the deepest first.

    >>> list(tree_stages_up(4, 0))
    [[(1, 2), (3, 2)], [(2, 0)]]
    """
    parent = tree_parents(count, tree)
    depth = [_depth(parent, i) for i in range(count)]
    for level in range(max(depth), 0, -1):
        yield [(i, parent[i]) for i in range(count) if depth[i] == level]


def tree_parents(count: int, tree: int) -> list[int]:
    """Parent of each node in one of the two trees; the root is its own parent.

    The first is the in-order binary tree over 0 ... count - 1. The second is its mirror image where
    the count is even, its shift by one where it is odd. Then what is inner in one is a leaf of the
    other, but for node 0 of an odd count.

    >>> tree_parents(8, 0), tree_parents(8, 1)
    ([0, 2, 4, 2, 0, 6, 4, 6], [1, 3, 1, 7, 5, 3, 5, 7])
    """
    first = [_in_order_parent(i, count) for i in range(count)]
    if tree == 0:
        return first
    if count % 2 == 0:
        return [count - 1 - first[count - 1 - i] for i in range(count)]
    return [(first[(i - 1) % count] + 1) % count for i in range(count)]


def _in_order_parent(i: int, count: int) -> int:
    """Clear the lowest set bit and set the next; where that is beyond the end, only clear."""
    if i == 0:
        return 0
    low = i & -i
    up = (i - low) | (low << 1)
    return up if up < count else i - low


def _depth(parent: Sequence[int], i: int) -> int:
    depth = 0
    while parent[i] != i:
        i, depth = parent[i], depth + 1
    return depth

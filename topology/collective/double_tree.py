"""NCCL's double binary tree: a chain inside each node, two binary trees across the node heads.

A node is an inner node of at most one of the two trees (where the count is odd, node 0 of both), so
that each tree carries half the data and no other port both halves.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import Final

import numpy as np

from topology.collective.schedule import IntArray, Schedule, pipelined, round_of
from topology.collective.stages import Request, make_schedule

TREES = 2


def double_binary_tree(request: Request) -> Schedule:
    """All-reduce: up the chains and trees in pieces, and down again, on each rail side by side."""
    chains = request.layout.chains[: max(1, request.channels)]
    pieces = request.pieces
    lanes = np.arange(len(chains) * TREES) * pieces
    rails = [_stages_up(nodes) for nodes in chains]
    up, down = [], []
    for at_once in zip_longest(*(links for rail in rails for links in rail), fillvalue=_NO_LINKS):
        (child, parent), counts = np.concatenate(at_once, axis=1), [e.shape[1] for e in at_once]
        lane = np.repeat(lanes, counts)
        up.append(round_of(child, parent, lane, reduces=True, channel=lane))
        down.append(round_of(parent, child, lane, channel=lane))
    owner = np.zeros(len(lanes) * pieces, dtype=np.int64)
    rounds = pipelined([*up, *reversed(down)], pieces=pieces, stride=1)
    return make_schedule(request, "double_binary_tree", owner, rounds, channels=len(lanes) * pieces)


_NO_LINKS: Final = np.empty((2, 0), dtype=np.int64)


def _stages_up(nodes: Sequence[Sequence[int]]) -> list[list[IntArray]]:
    """For each tree the links of each stage of the reduce: down the chains, then up the tree."""
    heads = np.array([chain[0] for chain in nodes], dtype=np.int64)
    inside = list(chain_stages_up(nodes))
    return [[*inside, *(heads[links] for links in _levels(len(nodes), t))] for t in range(TREES)]


@lru_cache(maxsize=2 * TREES)
def _levels(count: int, tree: int) -> tuple[IntArray, ...]:
    """The links of each level of a tree, shape (2, links)."""
    return tuple(np.array(links, dtype=np.int64).T for links in tree_stages_up(count, tree))


def chain_stages_up(nodes: Sequence[Sequence[int]]) -> Iterator[IntArray]:
    """Links of each stage of a reduce to the heads of chains, shape (2, links); all end together.

    >>> [links.T.tolist() for links in chain_stages_up([(0, 1, 2), (5, 6)])]
    [[[2, 1]], [[1, 0], [6, 5]]]
    """
    longest = max(len(chain) for chain in nodes)
    rows = (chain if len(chain) == longest else _filled(chain, longest) for chain in nodes)
    ranks = np.array(list(rows), dtype=np.int64)
    for back in range(longest - 1, 0, -1):
        links = ranks[:, [back, back - 1]].T
        yield links[:, links[0] != _NO_RANK]


_NO_RANK: Final = -1


def _filled(chain: Sequence[int], length: int) -> list[int]:
    return [*chain, *[_NO_RANK] * (length - len(chain))]


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

"""Groups: which ranks communicate, and which groups are alike, so that one stands for all."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.collective.placement import Placement
from topology.fabric.from_fleet import Fabric
from topology.fabric.routes import Endpoint

IntArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Groups of one kind side by side.

    ``members``: ranks of each, shape (groups, size). ``shape_of``: (groups,), equal for groups
    whose ranks stand alike. ``first_of``: the first group of each shape. ``group_of``: the group of
    each rank, shape (ranks,).
    """

    name: str
    members: IntArray
    shape_of: IntArray
    first_of: tuple[int, ...]
    group_of: IntArray

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.members)

    @property
    def size(self) -> int:
        """Ranks of each."""
        return int(self.members.shape[1])

    def counts(self) -> list[int]:
        """How many groups there are of each shape."""
        counts = np.bincount(self.shape_of, minlength=len(self.first_of))
        return [int(count) for count in counts]

    def placement(self, shape: int, placement: Placement) -> Placement:
        """Where the first group of a shape stands."""
        ranks = self.members[self.first_of[shape]]
        return Placement(tuple(placement.endpoints[rank] for rank in ranks))


def members_of(ranks: int, size: int, stride: int) -> IntArray:
    """Ranks of each group, shape (groups, size): ``stride`` apart, side by side over all ranks.

    >>> members_of(8, 2, 1).tolist()
    [[0, 1], [2, 3], [4, 5], [6, 7]]
    >>> members_of(8, 4, 2).tolist()
    [[0, 2, 4, 6], [1, 3, 5, 7]]
    """
    blocks = np.arange(ranks, dtype=np.int64).reshape(-1, size, stride)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1).reshape(-1, size))


def groups_on(fabric: Fabric, placement: Placement, name: str, *, size: int, stride: int) -> Groups:
    """The groups of one kind on a placement, like ones found."""
    members = members_of(placement.ranks, size, stride)
    number: dict[Hashable, int] = {}
    first: list[int] = []
    shapes = np.empty(len(members), dtype=np.int64)
    for group, ranks in enumerate(members.tolist()):
        key = shape_key(fabric, [placement.endpoints[rank] for rank in ranks])
        if key not in number:
            number[key] = len(number)
            first.append(group)
        shapes[group] = number[key]
    group_of = np.empty(placement.ranks, dtype=np.int64)
    group_of[members] = np.arange(len(members))[:, None]
    return Groups(name, members, shapes, tuple(first), group_of)


def shape_key(fabric: Fabric, endpoints: Sequence[Endpoint]) -> Hashable:
    """Equal for groups whose ranks have the same wirings, slots and ways between them.

    Hosts, domains and leaves are numbered in the order in which the ranks meet them.
    """
    nodes = [fabric.node_of[endpoint.host] for endpoint in endpoints]
    hosts = _numbered([endpoint.host for endpoint in endpoints])
    domains = _numbered([id(fabric.domain_of(endpoint)) for endpoint in endpoints])
    inside = tuple(
        (id(node.graph), endpoint.slot, host, domain)
        for node, endpoint, host, domain in zip(nodes, endpoints, hosts, domains, strict=True)
    )
    reduces = tuple(fabric.domain_of(endpoint).reduces_in_switch for endpoint in endpoints)
    outside = _outside(fabric, endpoints) if max(domains) > 0 else ()
    return inside, reduces, outside


def _outside(fabric: Fabric, endpoints: Sequence[Endpoint]) -> Hashable:
    """What the network is to these ranks: cables to leaves, ways between, what leaves carry."""
    network = fabric.network
    cables = []
    for endpoint in endpoints:
        graph = fabric.node_of[endpoint.host].graph
        first = graph.nic_of_gpu.get(endpoint.slot)
        nics = dict.fromkeys((first, *graph.nics_of_gpu.get(endpoint.slot, ())))
        cables.append([network.leaf_of.get((endpoint.host, n)) for n in nics if n is not None])
    names = list(dict.fromkeys(cable.leaf for row in cables for cable in row if cable))
    place = {name: number for number, name in enumerate(names)}
    rows = tuple(
        tuple((place[c.leaf], c.bytes_per_s) if c else None for c in row) for row in cables
    )
    ways = tuple(tuple(network.trunks_between(a, b) for b in names) for a in names)
    pods = [network.pod_of.get(name, 0) for name in names]
    carried = tuple(
        (
            network.layer_of[name],
            network.up_bytes_per_s.get(name),
            pod_number,
            network.pod_up_bytes_per_s.get(pod),
        )
        for name, pod, pod_number in zip(names, pods, _numbered(pods), strict=True)
    )
    return rows, ways, carried


def _numbered(things: Sequence[Hashable]) -> list[int]:
    """Each thing's number in the order of first appearance.

    >>> _numbered("abac")
    [0, 1, 0, 2]
    """
    number: dict[Hashable, int] = defaultdict(lambda: len(number))
    return [number[thing] for thing in things]

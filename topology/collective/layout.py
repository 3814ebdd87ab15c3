"""Layout: what an algorithm needs to know of a placement: nodes, domains, ring orders, switches."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from topology.collective.placement import Placement
from topology.fabric.from_fleet import Fabric
from topology.fabric.graph import links_between
from topology.fabric.node_graph import NodeGraph
from topology.fabric.route_table import RouteMap

MOST_SEARCH_STEPS: Final = 20_000
MOST_RAILS: Final = 32
"""Rings side by side; no GPU's NVLink feeds more NICs than this."""


@dataclass(frozen=True, eq=False)
class RankLayout:
    """Ranks grouped by clique and by NVLink domain, each group in rank order.

    A clique is what NCCL takes for one node: a node, or nodes all of whose ranks one NVLink domain
    holds. ``domain_reduces``: whether each domain's switches reduce. ``orders``: rings side by
    side. ``chains``: for each rail a chain through every clique, which starts at its head, a rank
    on that rail. ``network_reduces``: whether the switches of the network do (SHARP).
    """

    ranks: int
    cliques: tuple[tuple[int, ...], ...]
    domains: tuple[tuple[int, ...], ...]
    domain_reduces: tuple[bool, ...]
    orders: tuple[tuple[int, ...], ...]
    chains: tuple[tuple[tuple[int, ...], ...], ...]
    network_reduces: bool = False

    @property
    def has_equal_domains(self) -> bool:
        """Whether every domain has the same number of ranks."""
        return len({len(domain) for domain in self.domains}) == 1

    @property
    def reduces_in_switch(self) -> bool:
        """Whether the switches of every domain reduce."""
        return all(self.domain_reduces)

    def reduces(self, clique: Sequence[int]) -> bool:
        """Whether a clique lies in one domain, whose switches reduce."""
        number = self._domain_of[clique[0]]
        return self.domain_reduces[number] and set(clique) <= set(self.domains[number])

    def switch_of(self, rank: int) -> int:
        """Vertex of the switches of a rank's domain."""
        return self.ranks + self._domain_of[rank]

    def network_vertex(self, rail: int) -> int:
        """Vertex of the network's switches that reduce on a rail, behind those of the domains."""
        return self.ranks + len(self.domains) + rail

    @cached_property
    def _domain_of(self) -> dict[int, int]:
        return {rank: number for number, domain in enumerate(self.domains) for rank in domain}


def layout_of(
    fabric: Fabric, placement: Placement, routes: RouteMap, *, network_reduces: bool = False
) -> RankLayout:
    """The layout of a placement; ring orders are found, not assumed.

    ``network_reduces``: whether the network's switches reduce. No source of a map tells.
    """
    nodes, domains = _groups(routes.node_of.tolist()), _groups(routes.domain_of.tolist())
    cliques = cliques_of(nodes, domains)
    return RankLayout(
        ranks=placement.ranks,
        cliques=cliques,
        domains=domains,
        domain_reduces=tuple(
            fabric.domain_of(placement.endpoints[domain[0]]).reduces_in_switch for domain in domains
        ),
        orders=ring_orders(fabric, placement, cliques),
        chains=clique_chains(fabric, placement, cliques),
        network_reduces=network_reduces,
    )


def cliques_of(
    nodes: Sequence[Sequence[int]], domains: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """Ranks by clique: nodes are one where one NVLink domain holds all their ranks.

    >>> cliques_of([[0, 1], [2, 3], [4, 5]], [[0, 1, 2, 3], [4], [5]])
    ((0, 1, 2, 3), (4, 5))
    """
    domain_of = {rank: number for number, domain in enumerate(domains) for rank in domain}
    members: dict[tuple[bool, int], list[int]] = defaultdict(list)
    for number, node in enumerate(nodes):
        mine = {domain_of[rank] for rank in node}
        members[(True, mine.pop()) if len(mine) == 1 else (False, number)] += node
    return tuple(tuple(sorted(ranks)) for ranks in members.values())


def ring_orders(
    fabric: Fabric, placement: Placement, cliques: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """Rank orders of the rings that together use the links: one for each channel.

    In a mesh of direct links: Hamiltonian cycles that share no link, each in both directions. Over
    several cliques: one ring for each rail, which leaves one on the rail it enters the next by.
    Otherwise (one clique over switches or PCIe) one ring in the order of nodes and slots.
    """
    inside = [_inside_cycles(fabric, placement, clique) for clique in cliques]
    if len(cliques) == 1:
        return tuple(inside[0])
    heads = _rail_heads(fabric, placement, cliques)
    rails = len(heads[0])
    return tuple(
        tuple(
            rank
            for cycles, head, (enter, leave) in zip(
                inside, heads, _rails_met(len(cliques), rail, rails), strict=True
            )
            for rank in _through_clique(cycles, rail, head[enter], head[leave])
        )
        for rail in range(rails)
    )


def clique_chains(
    fabric: Fabric, placement: Placement, cliques: Sequence[Sequence[int]]
) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """For each rail a chain through every clique, head first."""
    inside = [_inside_cycles(fabric, placement, clique) for clique in cliques]
    if len(cliques) == 1:
        return tuple((cycle,) for cycle in inside[0])
    heads = _rail_heads(fabric, placement, cliques)
    return tuple(
        tuple(
            _starting_at(cycles[rail % len(cycles)], head[rail])
            for cycles, head in zip(inside, heads, strict=True)
        )
        for rail in range(len(heads[0]))
    )


def _starting_at(cycle: tuple[int, ...], rank: int) -> tuple[int, ...]:
    start = cycle.index(rank)
    return cycle[start:] + cycle[:start]


def _rails_met(cliques: int, rail: int, rails: int) -> Iterator[tuple[int, int]]:
    """Rail by which a ring enters each clique, and the one by which it leaves.

    Two neighbours meet on one rail, by turns ``rail + 1`` and ``rail``; where the cliques are odd
    in number the last meets the first on a third rail. With fewer than three those two miss.
    """
    leaves = [(rail + (i + 1) % 2) % rails for i in range(cliques)]
    if cliques % 2 and rails > 2:
        leaves[-1] = (rail + 2) % rails
    for i, leave in enumerate(leaves):
        yield rail if leaves[i - 1] == leave else leaves[i - 1], leave


def _through_clique(
    cycles: Sequence[tuple[int, ...]], rail: int, enter: int, leave: int
) -> tuple[int, ...]:
    """Way through a clique's ranks from one to another: round a cycle where they are neighbours."""
    if enter == leave:
        return _starting_at(cycles[rail % len(cycles)], enter)
    for cycle in (cycles[rail % len(cycles)], *cycles):
        for order in (cycle, cycle[::-1]):
            turned = _starting_at(order, enter)
            if turned[-1] == leave:
                return turned
    between = [rank for rank in cycles[0] if rank not in (enter, leave)]
    return (enter, *between, leave)


def _rail_heads(
    fabric: Fabric, placement: Placement, cliques: Sequence[Sequence[int]]
) -> list[tuple[int, ...]]:
    """First rank of each rail in each clique: the rails that all have, then others.

    A rail is a NIC's place in its node, and its node's place among those of the clique.
    """
    first_of_nic: list[dict[tuple[int, int], int]] = [{} for _ in cliques]
    for clique, first in zip(cliques, first_of_nic, strict=True):
        hosts = list(dict.fromkeys(placement.endpoints[rank].host for rank in clique))
        for rank in clique:
            endpoint = placement.endpoints[rank]
            nic = fabric.node_of[endpoint.host].graph.nic_of_gpu.get(endpoint.slot, 0)
            first.setdefault((hosts.index(endpoint.host), nic), rank)
    common = set.intersection(*(set(first) for first in first_of_nic))
    rails = min(MOST_RAILS, *(len(first) for first in first_of_nic))
    return [
        tuple(first[nic] for nic in sorted(first, key=lambda nic: (nic not in common, nic))[:rails])
        for first in first_of_nic
    ]


def _inside_cycles(
    fabric: Fabric, placement: Placement, clique: Sequence[int]
) -> list[tuple[int, ...]]:
    """Cycles through a clique's ranks: over direct links where they are a mesh, else by slot."""
    hosts = list(dict.fromkeys(placement.endpoints[rank].host for rank in clique))
    in_order = sorted(
        clique,
        key=lambda rank: (
            hosts.index(placement.endpoints[rank].host),
            placement.endpoints[rank].slot,
        ),
    )
    if len(hosts) > 1:
        return [tuple(in_order)]
    graph = fabric.node_of[hosts[0]].graph
    rank_of = {placement.endpoints[rank].slot: rank for rank in clique}
    cycles = _slot_cycles(graph, tuple(rank_of))
    if not cycles:
        return [tuple(in_order)]
    return [tuple(rank_of[slot] for slot in cycle) for cycle in cycles]


@lru_cache(maxsize=64)
def _slot_cycles(graph: NodeGraph, slots: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Cycles through slots over direct links, both ways; none where they are no mesh.

    Kept, for most nodes of a fleet are wired alike.
    """
    cycles = list(_disjoint_cycles(_direct_links(graph, slots), slots))
    if len(slots) <= 2:
        return tuple(cycles)
    return tuple(way for cycle in cycles for way in (cycle, cycle[::-1]))


def _direct_links(graph: NodeGraph, slots: Sequence[int]) -> dict[tuple[int, int], int]:
    """Links of each pair of slots that has direct ones."""
    if not graph.is_gpu_node:
        return {}
    links = {}
    for a in slots:
        for b in slots:
            count = sum(link.count for link in links_between(graph.graph, f"gpu{a}", f"gpu{b}"))
            if a != b and count:
                links[a, b] = count
    return links


def _disjoint_cycles(
    links: dict[tuple[int, int], int], slots: Sequence[int]
) -> Iterator[tuple[int, ...]]:
    """Hamiltonian cycles that use each link at most once, greedily, widest pairs first."""
    left = dict(links)
    while True:
        cycle = _hamiltonian_cycle(left, tuple(slots))
        if cycle is None:
            return
        yield cycle
        for a, b in zip(cycle, cycle[1:] + cycle[:1], strict=True):
            for pair in ((a, b), (b, a)):
                left[pair] -= 1
                if not left[pair]:
                    del left[pair]
            if len(cycle) == 2:
                break


def _hamiltonian_cycle(
    links: dict[tuple[int, int], int], slots: tuple[int, ...]
) -> tuple[int, ...] | None:
    """A cycle through all slots over links that are left, None where none is found."""
    budget = [MOST_SEARCH_STEPS]

    def extend(path: tuple[int, ...]) -> tuple[int, ...] | None:
        budget[0] -= 1
        if budget[0] < 0:
            return None
        if len(path) == len(slots):
            return path if (path[-1], path[0]) in links else None
        nexts = [b for b in slots if b not in path and (path[-1], b) in links]
        for b in sorted(nexts, key=lambda b: (-links[path[-1], b], b)):
            found = extend((*path, b))
            if found is not None:
                return found
        return None

    return extend(slots[:1]) if len(slots) > 1 and links else None


def _groups(numbers: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    members: dict[int, list[int]] = defaultdict(list)
    for rank, number in enumerate(numbers):
        members[number].append(rank)
    return tuple(tuple(ranks) for ranks in members.values())

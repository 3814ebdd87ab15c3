"""Routes of many rank pairs at once, and the links they share, as arrays.

A resource is one direction of what messages share: a GPU's NVLinks out, a PCIe link, a NIC port,
all uplinks of a leaf. Pairs with the same wirings, slots and tiers between share one route; their
resources differ by node only, so a table of any number of pairs is a few array operations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fleet import collector_paused
from topology.errors import UnreachableError
from topology.fabric.from_fleet import Fabric
from topology.fabric.graph import all_links
from topology.fabric.network_route import Lanes
from topology.fabric.node_graph import NodeGraph
from topology.fabric.routes import Endpoint, Hop, HopPlace, Route

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]
BoolArray: TypeAlias = NDArray[np.bool_]

_NO_LEAF, _NO_VERTEX = -1, -1
_UP_TO_SWITCH, _DOWN_FROM_SWITCH, _SAME_NODE, _SAME_NODE_APART, _SAME_DOMAIN, _NETWORK = range(6)
_UP_TO_NETWORK, _DOWN_FROM_NETWORK = 6, 7
_MOST_AT_ONCE: Final = 2**20
"""Pairs that are looked up at once; more take no less time each, and more memory."""

_OWN_UP: Final = (HopPlace.SOURCE_NODE, HopPlace.NIC_OUT)
_OWN_DOWN: Final = (HopPlace.NIC_IN, HopPlace.DESTINATION_NODE)
_AT_SOURCE: Final = (HopPlace.SOURCE_NODE, HopPlace.UP_TO_SWITCH, HopPlace.NIC_OUT)
_AT_DESTINATION: Final = (HopPlace.DESTINATION_NODE, HopPlace.DOWN_FROM_SWITCH, HopPlace.NIC_IN)

LocalKey: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class RouteTable:
    """Routes and resources of pairs.

    ``route_of``: (pairs,) index into ``routes``. ``resources``: (pairs, width) index into
    ``bytes_per_s``, filled up with the last one, which is infinitely wide.
    """

    routes: tuple[Route, ...]
    route_of: IntArray
    resources: IntArray
    bytes_per_s: FloatArray


class RouteMap:
    """Routes between the ranks of one placement. Vertices n, n+1 ... are switches of domains.

    Those behind them are switches of the network that reduce: a leg to or from one is as long as
    the route to the farthest rank, and shares with others only the links of its rank's node.

    ``switch_vertex_of``: vertex of the in-switch reducer, by rank; domains are numbered in the
    order of their first ranks.
    """

    def __init__(self, fabric: Fabric, endpoints: Sequence[Endpoint]) -> None:
        with collector_paused():
            self._place(fabric, endpoints)

    def _place(self, fabric: Fabric, endpoints: Sequence[Endpoint]) -> None:
        """Number nodes, wirings and domains of the ranks, and lay out what they share."""
        self.fabric = fabric
        self.endpoints = tuple(endpoints)
        nodes = [fabric.node_of[endpoint.host] for endpoint in self.endpoints]
        hosts = list(dict.fromkeys(node.host for node in nodes))
        graphs = list({id(node.graph): node.graph for node in nodes}.values())
        graph_number = {id(graph): i for i, graph in enumerate(graphs)}
        host_number = {host: i for i, host in enumerate(hosts)}
        self._node = np.array([host_number[node.host] for node in nodes], dtype=np.int64)
        self._graph = np.array([graph_number[id(node.graph)] for node in nodes], dtype=np.int64)
        self._slot = np.array([endpoint.slot for endpoint in self.endpoints], dtype=np.int64)
        domains = [
            node.domain_of_slot[e.slot] for node, e in zip(nodes, self.endpoints, strict=True)
        ]
        domain_number = {domain: i for i, domain in enumerate(dict.fromkeys(domains))}
        self._domain = np.array([domain_number[domain] for domain in domains], dtype=np.int64)
        self.switch_vertex_of = len(self.endpoints) + self._domain
        self.domain_count = len(domain_number)
        self._route_of_key: dict[int, Route] = {}
        self._far: dict[int, int] = {}
        self._tiers = _Tiers(fabric, self.endpoints)
        self._local = [_LocalResources(graph) for graph in graphs]
        self._bases = self._lay_out([fabric.node_of[host].graph for host in hosts], graph_number)

    @property
    def rank_count(self) -> int:
        """Ranks, without switch vertices."""
        return len(self.endpoints)

    @property
    def domain_of(self) -> IntArray:
        """Number of the NVLink domain of each rank, counted from 0 within the placement."""
        return self._domain

    @property
    def node_of(self) -> IntArray:
        """Number of the node of each rank, counted from 0 within the placement."""
        return self._node

    def _lay_out(self, graphs: list[NodeGraph], number: dict[int, int]) -> IntArray:
        """Number the resources: node by node, then the tiers, then the idle one."""
        locals_of = [self._local[number[id(graph)]] for graph in graphs]
        sizes = [len(local.bytes_per_s) for local in locals_of]
        bases = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        tiers = self._tiers.bytes_per_s
        parts = [*(local.bytes_per_s for local in locals_of), tiers, np.array([np.inf])]
        self._bytes_per_s = np.concatenate(parts)
        self._tier_base = int(bases[-1])
        self._set_network_rates(bases)
        return bases

    def _set_network_rates(self, bases: IntArray) -> None:
        """A NIC port is as fast as its cable; a GPU's several NICs count as their first."""
        rates = self._tiers.cable_bytes_per_s
        ranks = np.flatnonzero(rates > 0)
        slots = int(self._slot.max(initial=0)) + 1
        kinds, kind = np.unique(self._graph[ranks] * slots + self._slot[ranks], return_inverse=True)
        ports = np.zeros((len(kinds), 2), dtype=np.int64)
        for i, (graph, slot) in enumerate(np.stack(np.divmod(kinds, slots), axis=1).tolist()):
            nic = f"nic{self._local[graph].graph.nic_of_gpu[slot]}"
            ports[i] = [self._local[graph].number[key] for key in ((nic, ""), ("", nic))]
        for port in ports[kind].T:
            self._bytes_per_s[bases[self._node[ranks]] + port] = rates[ranks]

    def table(self, source: IntArray, destination: IntArray) -> RouteTable:
        """Routes of pairs of vertices.

        Raises:
            UnreachableError: no link joins a pair, or a rank and the switch of another domain.
            FabricError: a switch vertex whose domain does not reduce in the switch.
        """
        return self.tables([(source, destination)])[0]

    def tables(self, pairs: Sequence[tuple[IntArray, IntArray]]) -> tuple[RouteTable, ...]:
        """A table for each step's (sources, destinations), many steps looked up at once.

        Raises:
            UnreachableError: no link joins a pair, or a rank and the switch of another domain.
            FabricError: a switch vertex whose domain does not reduce in the switch.
        """
        group_of = np.cumsum([len(source) for source, _ in pairs]) // _MOST_AT_ONCE
        groups = groupby(zip(group_of, pairs, strict=True), key=itemgetter(0))
        return tuple(t for _, group in groups for t in self._tables([pair for _, pair in group]))

    def _tables(self, pairs: Sequence[tuple[IntArray, IntArray]]) -> Iterator[RouteTable]:
        source, destination = map(np.concatenate, zip(*pairs, strict=True))
        routes, route_of, resources = self._routed(source, destination)
        ends = np.cumsum([len(source) for source, _ in pairs])[:-1]
        for part in zip(np.split(route_of, ends), np.split(resources, ends), strict=True):
            yield self._part(routes, *part)

    def _part(self, routes: Sequence[Route], route_of: IntArray, used_of: IntArray) -> RouteTable:
        """The table of some pairs, with no more routes than they take."""
        used, own = np.unique(route_of, return_inverse=True)
        taken = tuple(routes[number] for number in used.tolist())
        width = max((len(route.hops) for route in taken), default=1)
        return RouteTable(taken, own.astype(np.int64), used_of[:, :width], self._bytes_per_s)

    def _routed(
        self, source: IntArray, destination: IntArray
    ) -> tuple[tuple[Route, ...], IntArray, IntArray]:
        """All routes, which of them each pair takes, and its resources, (pairs, width)."""
        for rank, switch in ((source, destination), (destination, source)):
            self._check_switches(rank, switch)
        ends, (source, destination) = (source, destination), self._met(source, destination)
        keys = self._pair_keys(source, destination, *ends)
        known, first, route_of = np.unique(keys, return_index=True, return_inverse=True)
        routes = tuple(
            self._route(key, int(source[i]), int(destination[i]))
            for key, i in zip(known.tolist(), first, strict=True)
        )
        width = max((len(route.hops) for route in routes), default=1)
        resources = np.full((len(source), width), len(self._bytes_per_s) - 1, dtype=np.int64)
        for number, route in enumerate(routes):
            members = np.flatnonzero(route_of == number)
            s, d = source[members], destination[members]
            met = (int(ends[0][members[0]]), int(ends[1][members[0]]))
            for column, hop in enumerate(self._shared_hops(route, *met)):
                resources[members, column] = self._resource_numbers(hop, s, d)
        return routes, route_of.astype(np.int64), resources

    def crowding(self, table: RouteTable) -> float:
        """How much longer equal messages need on shared uplinks than at their ends, >= 1.

        What oversubscription does to them: 1 where no tier is busier than the busiest NIC.
        """
        load = np.zeros(len(table.bytes_per_s))
        for column in table.resources.T:
            np.add.at(load, column, 1.0)
        with np.errstate(invalid="ignore"):
            needed = np.nan_to_num(load / table.bytes_per_s)
        tiers = needed[self._tier_base :].max(initial=0.0)
        ends = needed[: self._tier_base].max(initial=0.0)
        return float(max(1.0, tiers / ends)) if ends > 0 else 1.0

    def _check_switches(self, rank: IntArray, switch: IntArray) -> None:
        """Ranks that meet a switch meet that of their own domain."""
        meets = np.flatnonzero(switch >= self.rank_count)
        meets = meets[switch[meets] < self.rank_count + self.domain_count]
        own = np.append(self.switch_vertex_of, np.full(self.domain_count, _NO_VERTEX))
        wrong = meets[own[rank[meets]] != switch[meets]]
        if len(wrong):
            ends = ", ".join(str(end) for end in self.endpoints[rank[wrong[0]] :][:1])
            raise UnreachableError(
                f"no link to vertex {switch[wrong[0]]}, the switch of another NVLink domain",
                where=ends,
            )

    def _met(self, source: IntArray, destination: IntArray) -> tuple[IntArray, IntArray]:
        """The pairs with each switch of the network replaced by the rank farthest from its end."""
        most = self.rank_count + self.domain_count
        if max(source.max(initial=0), destination.max(initial=0)) < most:
            return source, destination
        return (
            np.where(source < most, source, self._farthest(destination, source >= most)),
            np.where(destination < most, destination, self._farthest(source, destination >= most)),
        )

    def _farthest(self, ranks: IntArray, is_asked: BoolArray) -> IntArray:
        """For each rank asked one of another node farthest from it, of its slot if there is one."""
        for rank in np.unique(ranks[is_asked]).tolist():
            if rank not in self._far:
                self._far[rank] = self._found_farthest(rank)
        pairs = zip(ranks.tolist(), is_asked.tolist(), strict=True)
        return np.array([self._far[rank] if asked else rank for rank, asked in pairs])

    def _found_farthest(self, rank: int) -> int:
        others = np.flatnonzero(self._node != self._node[rank])
        if not len(others):
            where = str(self.endpoints[rank])
            raise UnreachableError("no network between ranks of one node", where=where)
        alike = others[self._slot[others] == self._slot[rank]]
        near = alike if len(alike) else others
        return int(near[self._tiers.trunks(np.full(len(near), rank), near).argmax()])

    def _pair_keys(
        self,
        source: IntArray,
        destination: IntArray,
        asked_source: IntArray,
        asked_destination: IntArray,
    ) -> IntArray:
        n, most = self.rank_count, self.rank_count + self.domain_count
        s = np.where(source < n, source, destination)
        d = np.where(destination < n, destination, source)
        is_node, is_domain = (of[s] == of[d] for of in (self._node, self._domain))
        relation = np.select(
            [
                *(asked_source >= most, asked_destination >= most),
                *(source >= n, destination >= n),
                *(is_node & is_domain, is_node, is_domain),
            ],
            [
                *(_DOWN_FROM_NETWORK, _UP_TO_NETWORK),
                *(_DOWN_FROM_SWITCH, _UP_TO_SWITCH),
                *(_SAME_NODE, _SAME_NODE_APART, _SAME_DOMAIN),
            ],
            default=_NETWORK,
        ).astype(np.int64)
        trunks = np.where(relation >= _SAME_DOMAIN, self._tiers.trunks(s, d), 0)
        key = relation
        columns = (
            (trunks + 1, self._tiers.most_trunks + 2),
            *((self._graph[x], len(self._local)) for x in (s, d)),
            *((self._slot[x], int(self._slot.max()) + 1) for x in (s, d)),
            *((self._tiers.rate_number[x], self._tiers.rate_count) for x in (s, d)),
        )
        for column, size in columns:
            key = key * size + column
        return key

    def _ends(self, source: int, destination: int) -> tuple[Endpoint | None, Endpoint | None]:
        n = self.rank_count
        return (
            self.endpoints[source] if source < n else None,
            self.endpoints[destination] if destination < n else None,
        )

    def _route(self, key: int, source: int, destination: int) -> Route:
        """The route of a pair, found once for all pairs of one key."""
        if key not in self._route_of_key:
            self._route_of_key[key] = self._found_route(source, destination)
        return self._route_of_key[key]

    def _found_route(self, source: int, destination: int) -> Route:
        a, b = self._ends(source, destination)
        if a is None or b is None:
            end = a or b
            assert end is not None, "a switch sends to ranks only"
            return self.fabric.leg(end)
        return self.fabric.reachable_route(a, b)

    def _shared_hops(self, route: Route, source: int, destination: int) -> Sequence[Hop]:
        """The hops of a route that are links of a rank; a switch vertex shares nothing."""
        n, most = self.rank_count, self.rank_count + self.domain_count
        if max(source, destination) < n:
            return route.hops
        if source >= n:
            places = _OWN_DOWN if source >= most else (HopPlace.DOWN_FROM_SWITCH,)
        else:
            places = _OWN_UP if destination >= most else (HopPlace.UP_TO_SWITCH,)
        return [hop for hop in route.hops if hop.place in places]

    def _resource_numbers(self, hop: Hop, source: IntArray, destination: IntArray) -> IntArray:
        """Resource of a hop for pairs that share the route."""
        if hop.place in _AT_SOURCE or hop.place in _AT_DESTINATION:
            rank = source if hop.place in _AT_SOURCE else destination
            local = self._local[self._graph[rank[0]]]
            return np.asarray(self._bases[self._node[rank]] + local.number[hop.local])
        rank = source if hop.place in (HopPlace.LEAF_UP, HopPlace.POD_UP) else destination
        return np.asarray(self._tier_base + self._tiers.number(hop.place, rank))


class _LocalResources:
    """Resources inside the nodes of one wiring: every link, all scale-up links of a GPU, NICs."""

    def __init__(self, graph: NodeGraph) -> None:
        self.graph = graph
        rates: dict[LocalKey, float] = {}
        for u, v, link in all_links(graph.graph):
            if not any("switch" in vertex for vertex in (u, v)):
                rates[u, v] = rates.get((u, v), 0.0) + link.bytes_per_s
        for slot, rate in graph.scale_up.items():
            rates[f"gpu{slot}", ""] = rates["", f"gpu{slot}"] = rate
        for group in graph.nics_of_gpu.values():
            for key in [key for key in rates if f"nic{group[0]}" in key]:
                rates[key] *= len(group)
        for nic in graph.wiring.nics:
            rates[f"nic{nic.slot}", ""] = rates["", f"nic{nic.slot}"] = np.inf
        self.number = {key: i for i, key in enumerate(rates)}
        self.bytes_per_s = np.fromiter(rates.values(), dtype=np.float64)


class _Tiers:
    """Leaves and pods of the ranks, and what they carry towards the tier above.

    A GPU with NICs on several leaves has all of them behind the first.
    """

    def __init__(self, fabric: Fabric, endpoints: tuple[Endpoint, ...]) -> None:
        network = fabric.network
        places = [_nic_place(fabric, endpoint) for endpoint in endpoints]
        attachments = [network.leaf_of.get(place) if place else None for place in places]
        lanes = [Lanes.of(fabric.node_of[e.host].graph, e, network) for e in endpoints]
        self.cable_bytes_per_s = np.array([lane.bytes_per_s for lane in lanes], dtype=np.float64)
        rates = np.unique(self.cable_bytes_per_s, return_inverse=True)
        self.rate_number, self.rate_count = rates[1].astype(np.int64), len(rates[0])
        names = sorted({a.leaf for a in attachments if a})
        number = {name: i for i, name in enumerate(names)}
        self._leaf = np.array([number[a.leaf] if a else _NO_LEAF for a in attachments])
        self._pod = np.array([network.pod_of.get(name, 0) for name in names] or [0])
        self._distances = network.distances_among(names)
        self.most_trunks = self._distances.most
        leaves_of = {lane.leaves[0]: set(lane.leaves) for lane in lanes if lane.leaves}
        up = [
            sum(network.up_bytes_per_s.get(leaf, np.inf) for leaf in leaves_of.get(name, {name}))
            for name in names
        ]
        pods = [network.pod_up_bytes_per_s.get(i, np.inf) for i in range(int(self._pod.max()) + 1)]
        self.bytes_per_s = np.array([*up, *up, *pods, *pods], dtype=np.float64)
        self._leaf_count, self._pod_count = len(names), len(pods)

    def trunks(self, source: IntArray, destination: IntArray) -> IntArray:
        """Cables between switches for pairs of ranks; -1 where none is known."""
        a, b = self._leaf[source], self._leaf[destination]
        known = (a != _NO_LEAF) & (b != _NO_LEAF)
        result = np.full(len(source), -1, dtype=np.int64)
        result[known] = self._distances.of(a[known], b[known])
        return result

    def number(self, place: HopPlace, rank: IntArray) -> IntArray:
        """Resource of a tier for ranks, counted from the first tier resource."""
        leaf = self._leaf[rank].astype(np.int64)
        pod = 2 * self._leaf_count + self._pod[leaf]
        match place:
            case HopPlace.LEAF_UP:
                return leaf
            case HopPlace.LEAF_DOWN:
                return leaf + self._leaf_count
            case HopPlace.POD_UP:
                return pod
        return pod + self._pod_count


def _nic_place(fabric: Fabric, endpoint: Endpoint) -> tuple[str, int] | None:
    nic = fabric.node_of[endpoint.host].graph.nic_of_gpu.get(endpoint.slot)
    return None if nic is None else (endpoint.host, nic)

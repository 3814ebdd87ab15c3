"""Between nodes: switches and cables as a graph, tiers, and how far two leaves are apart.

Vertices: switch ids, and ``host:nic0`` for a NIC of a host.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from fleet import Cable, CableEnd, FleetMap, HostName, LinkLayer, LinkState
from topology.errors import FabricError
from topology.fabric.graph import Graph, add_both_ways, make_link, new_graph, shortest_path
from topology.fabric.link_figures import LinkFigures

UNREACHABLE: Final = -1
LEAF_TIER: Final = 0

_FAMILY: Final = {
    LinkLayer.ROCE: "roce",
    LinkLayer.SLINGSHOT: "slingshot",
    LinkLayer.EFA: "efa",
    LinkLayer.ARIES: "aries",
}
_INFINIBAND_BY_RATE: Final = ((12.5e9, "ib_edr"), (25e9, "ib_hdr"), (50e9, "ib_ndr"))
_SLOW_ETHERNET_BYTES_PER_S: Final = 0.2e9


@dataclass(frozen=True, slots=True)
class Attachment:
    """A NIC port's leaf, and the rate of the cable. [B/s]"""

    leaf: str
    bytes_per_s: float


@dataclass(slots=True, eq=False)
class Network:
    """The switches of a fleet.

    ``leaf_of``: by (host, NIC slot). ``up_bytes_per_s``: what a switch can send to the tier above.
    ``layer_of``: what each switch speaks; one that does not tell speaks what the first says.
    """

    graph: Graph
    tier_of: dict[str, int]
    leaf_of: dict[tuple[str, int], Attachment]
    up_bytes_per_s: dict[str, float]
    pod_of: dict[str, int]
    pod_up_bytes_per_s: dict[int, float]
    layer_of: dict[str, LinkLayer]
    _index: dict[str, int] = field(default_factory=dict)
    _neighbours: list[NDArray[np.int32]] = field(default_factory=list)
    _rows: dict[str, NDArray[np.int16]] = field(default_factory=dict)

    def trunks_between(self, a: str, b: str) -> int:
        """Cables between switches on the shortest way from one leaf to another; -1: no way."""
        if a not in self._rows:
            self._rows[a] = self._distances(a)
        return int(self._rows[a][self._index[b]])

    def joined_hosts(self) -> list[set[HostName]]:
        """Hosts by the part of the network that they hang on."""
        parts = nx.weakly_connected_components(self.graph)
        return [{h for vertex in part if (h := host_of_vertex(vertex))} for part in parts]

    def _distances(self, start: str) -> NDArray[np.int16]:
        """Cables from a switch to every other, breadth first; kept for each leaf that is asked."""
        if not self._index:
            self._number_switches()
        distance = np.full(len(self._index), UNREACHABLE, dtype=np.int16)
        frontier = np.array([self._index[start]], dtype=np.int32)
        steps = 0
        while frontier.size:
            distance[frontier] = steps
            reached = np.unique(np.concatenate([self._neighbours[i] for i in frontier]))
            frontier = reached[distance[reached] == UNREACHABLE]
            steps += 1
        return distance

    def _number_switches(self) -> None:
        self._index.update({switch: i for i, switch in enumerate(self.tier_of)})
        for switch in self._index:
            near = (self._index[n] for n in self.graph.successors(switch) if n in self._index)
            self._neighbours.append(np.fromiter(near, dtype=np.int32))

    def switches_between(self, a: str, b: str) -> list[str]:
        """The switches of one shortest way from leaf to leaf, both ends included."""
        path = shortest_path(self.graph, a, b, may_pass=lambda vertex: vertex in self.tier_of)
        assert path is not None, "asked only where trunks_between is not negative"
        return path


def build_network(fleet: FleetMap, figures: LinkFigures) -> Network:
    """The network of a map: its switches and its cables that are up."""
    switches = [switch for switch in fleet.switches if switch.nvlink_domain is None]
    layers = [switch.link_layer for switch in switches if switch.link_layer is not None]
    first = layers[0] if layers else LinkLayer.UNREPORTED
    layer_of: dict[str, LinkLayer] = {switch.id: switch.link_layer or first for switch in switches}
    cables = sorted(_network_cables(fleet, layer_of.keys()), key=_cable_name)
    shares: dict[str, float] = {s.id: _share(s.adaptive_routing, figures) for s in switches}
    cables = [_as_routed(cable, shares) for cable in cables]
    tier_of = _tiers({switch.id: switch.tier for switch in switches}, cables)
    up, pod_of, pod_up = _capacities(tier_of, cables)
    return Network(
        graph=_switch_graph(tier_of, cables, layer_of, figures),
        tier_of=tier_of,
        leaf_of=_attachments(cables),
        up_bytes_per_s=up,
        pod_of=pod_of,
        pod_up_bytes_per_s=pod_up,
        layer_of=layer_of,
    )


def _share(adaptive_routing: bool | None, figures: LinkFigures) -> float:
    """Share of their rate that a switch's trunks carry."""
    if adaptive_routing is None:
        return 1.0
    return figures.trunk_share["adaptive" if adaptive_routing else "static"].share_ratio


def _as_routed(cable: Cable, shares: Mapping[str, float]) -> Cable:
    """A trunk as wide as the routing of its switches lets it be; static routing collides."""
    ends = [end.device for end in (cable.a, cable.b) if end.nic is None]
    share = min(shares[end] for end in ends)
    if len(ends) < len((cable.a, cable.b)) or share == 1.0:
        return cable
    return cable.model_copy(update={"bytes_per_s": cable.bytes_per_s * share})


def _network_cables(fleet: FleetMap, switches: Collection[str]) -> Iterator[Cable]:
    """Cables that are up and join network switches; from host to host none is modelled."""
    for cable in fleet.cables:
        ends = [end for end in (cable.a, cable.b) if end.nic is None]
        joins_switches = bool(ends) and all(end.device in switches for end in ends)
        if joins_switches and cable.state is not LinkState.DOWN:
            yield cable


def cabled_nics(fleet: FleetMap) -> dict[str, frozenset[int]]:
    """Slots of the NICs of each host from which a cable that is up leads to a switch."""
    switches = {switch.id for switch in fleet.switches if switch.nvlink_domain is None}
    slots: dict[str, set[int]] = defaultdict(set)
    for cable in _network_cables(fleet, switches):
        for end in (cable.a, cable.b):
            if end.nic is not None:
                slots[end.device].add(end.nic)
    return {host: frozenset(nics) for host, nics in slots.items()}


def _cable_name(cable: Cable) -> tuple[str, int, str, int]:
    """Where a cable stands in the order in which they are laid, whatever the map's order is."""
    a, b = cable.a, cable.b
    return a.device, a.port or 0, b.device, b.port or 0


def nic_vertex(host: str, nic: int) -> str:
    """Vertex of a NIC of a host."""
    return f"{host}:nic{nic}"


def host_of_vertex(vertex: str) -> HostName | None:
    """Host of a NIC's vertex, None for a switch."""
    host, colon, device = vertex.rpartition(":")
    return HostName(host) if colon and device.startswith("nic") else None


def edge_kind(layer: LinkLayer, bytes_per_s: float, where: str) -> str:
    """Kind of edge for a cable; ``where`` is host, trunk or core.

    A layer whose figures know no core links takes its trunk's.

    Raises:
        FabricError: the switches do not tell what they speak.
    """
    family = _FAMILY.get(layer)
    if layer is LinkLayer.INFINIBAND:
        rows = (name for limit, name in _INFINIBAND_BY_RATE if bytes_per_s <= limit)
        family = next(rows, "ib_xdr")
    if layer is LinkLayer.ETHERNET:
        family = "gbe" if bytes_per_s <= _SLOW_ETHERNET_BYTES_PER_S else "ethernet"
    if family is None:
        raise FabricError(
            "no switch tells its link layer",
            field="switches[*].link_layer",
            remedy="give infiniband, roce, ethernet, efa, slingshot or aries",
        )
    return f"{family}_{where if where != 'core' or family == 'roce' else 'trunk'}"


def _switch_graph(
    tier_of: dict[str, int],
    cables: Iterable[Cable],
    layer_of: Mapping[str, LinkLayer],
    figures: LinkFigures,
) -> Graph:
    graph = new_graph()
    graph.add_nodes_from(tier_of)
    for cable in cables:
        ends = [_vertex(cable.a), _vertex(cable.b)]
        tiers = [tier_of[end] for end in ends if end in tier_of]
        where = "host" if len(tiers) < len(ends) else "core" if min(tiers) > LEAF_TIER else "trunk"
        layer = next((layer_of[end] for end in ends if end in tier_of), LinkLayer.UNREPORTED)
        kind = edge_kind(layer, cable.bytes_per_s, where)
        link = make_link(figures, kind, bytes_per_s=cable.bytes_per_s)
        add_both_ways(graph, ends[0], ends[1], link)
    return graph


def _vertex(end: CableEnd) -> str:
    return end.device if end.nic is None else nic_vertex(end.device, end.nic)


def _attachments(cables: Iterable[Cable]) -> dict[tuple[str, int], Attachment]:
    """Leaf of every NIC; of a NIC with two cables the first."""
    leaf_of: dict[tuple[str, int], Attachment] = {}
    for cable in cables:
        for near, far in ((cable.a, cable.b), (cable.b, cable.a)):
            if near.nic is not None and far.nic is None:
                attachment = Attachment(far.device, cable.bytes_per_s)
                leaf_of.setdefault((near.device, near.nic), attachment)
    return leaf_of


def _tiers(told: dict[str, int | None], cables: list[Cable]) -> dict[str, int]:
    """Tier of every switch: as told, else by distance from the switches that have hosts."""
    distance = {far.device: LEAF_TIER for far in _switch_ends_of_host_cables(cables)}
    neighbours: dict[str, set[str]] = defaultdict(set)
    for cable in cables:
        if cable.a.nic is None and cable.b.nic is None:
            neighbours[cable.a.device].add(cable.b.device)
            neighbours[cable.b.device].add(cable.a.device)
    frontier = sorted(distance)
    while frontier:
        reached = {n for switch in frontier for n in neighbours[switch]} - distance.keys()
        distance.update(dict.fromkeys(reached, distance[frontier[0]] + 1))
        frontier = sorted(reached)
    return {
        switch: tier if tier is not None else distance.get(switch, LEAF_TIER)
        for switch, tier in told.items()
    }


def _switch_ends_of_host_cables(cables: Iterable[Cable]) -> Iterator[CableEnd]:
    for cable in cables:
        if cable.a.nic is not None and cable.b.nic is None:
            yield cable.b
        elif cable.b.nic is not None and cable.a.nic is None:
            yield cable.a


def _capacities(
    tier_of: dict[str, int], cables: Iterable[Cable]
) -> tuple[dict[str, float], dict[str, int], dict[int, float]]:
    """Rate of each switch towards the tier above, pod of each switch, rate out of each pod."""
    up: dict[str, float] = defaultdict(float)
    pods: nx.Graph[str] = nx.Graph()
    pods.add_nodes_from(switch for switch, tier in tier_of.items() if tier <= LEAF_TIER + 1)
    for cable in cables:
        if cable.a.nic is not None or cable.b.nic is not None:
            continue
        low, high = sorted((cable.a.device, cable.b.device), key=lambda name: tier_of[name])
        up[low] += cable.bytes_per_s
        if tier_of[low] == tier_of[high]:
            up[high] += cable.bytes_per_s
        if tier_of[high] <= LEAF_TIER + 1:
            pods.add_edge(low, high)
    pod_of = {s: i for i, pod in enumerate(nx.connected_components(pods)) for s in pod}
    pod_up: dict[int, float] = defaultdict(float)
    for switch, rate in up.items():
        if tier_of[switch] == LEAF_TIER + 1:
            pod_up[pod_of[switch]] += rate
    return dict(up), pod_of, dict(pod_up)

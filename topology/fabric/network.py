"""Between nodes: switches and cables as a graph, tiers, and how far two leaves are apart.

Vertices: switch ids, and ``host:nic0`` for a NIC of a host.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fleet import FleetMap, HostName, LinkLayer
from topology.errors import FabricError
from topology.fabric.cable_columns import CableColumns
from topology.fabric.graph import Graph, Link, add_both_ways, make_link, new_graph
from topology.fabric.link_figures import LinkFigures
from topology.fabric.trunks import UNREACHABLE, Distances, Trunks, part_of

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]

LEAF_TIER: Final = 0

_FAMILY: Final = {
    LinkLayer.ROCE: "roce",
    LinkLayer.SLINGSHOT: "slingshot",
    LinkLayer.EFA: "efa",
    LinkLayer.ARIES: "aries",
}
_INFINIBAND_BY_RATE: Final = ((12.5e9, "ib_edr"), (25e9, "ib_hdr"), (50e9, "ib_ndr"))
_SLOW_ETHERNET_BYTES_PER_S: Final = 0.2e9
_PLACES: Final = ("host", "trunk", "core")
_HOST, _TRUNK, _CORE = range(3)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A NIC port's leaf, and the rate of the cable. [B/s]"""

    leaf: str
    bytes_per_s: float


@dataclass(eq=False)
class Network:
    """The switches of a fleet.

    ``leaf_of``: by (host, NIC slot). ``up_bytes_per_s``: what a switch can send to the tier above.
    ``layer_of``: what each switch speaks; one that does not tell speaks what the first says.
    ``cables``: as wide as routing lets them be; ``link_of_cable``: (cables,) index into ``links``.
    """

    tier_of: dict[str, int]
    leaf_of: dict[tuple[str, int], Attachment]
    up_bytes_per_s: dict[str, float]
    pod_of: dict[str, int]
    pod_up_bytes_per_s: dict[int, float]
    layer_of: dict[str, LinkLayer]
    cables: CableColumns
    links: tuple[Link, ...]
    link_of_cable: IntArray
    _rows: dict[str, NDArray[np.int16]] = field(default_factory=dict)
    _ways: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    @cached_property
    def graph(self) -> Graph:
        """All switches, NICs and cables, one edge for each: for pictures, not for many routes."""
        graph = new_graph()
        graph.add_nodes_from(self.tier_of)
        for cable, link in enumerate(self.link_of_cable.tolist()):
            add_both_ways(graph, *_vertices(self.cables, cable), self.links[link])
        return graph

    def trunks_between(self, a: str, b: str) -> int:
        """Cables between switches on the shortest way from one leaf to another; -1: no way."""
        if a not in self._rows:
            self._rows[a] = self._trunks.distances_from(self._number[a])
        return int(self._rows[a][self._number[b]])

    def distances_among(self, switches: Sequence[str]) -> Distances:
        """What ``trunks_between`` says of any two of some switches, all at once."""
        numbers = np.array([self._number[switch] for switch in switches], dtype=np.int64)
        return self._trunks.distances_among(numbers)

    def joined_hosts(self) -> list[set[HostName]]:
        """Hosts by the part of the network that they hang on."""
        cables, switches = self.cables, len(self.cables.switches)
        nic = cables.nic + switches
        a, b = (np.where(end < 0, nic, end) for end in cables.ends)
        part = part_of(switches + len(cables.nics), (a, b))
        hosts: dict[int, set[HostName]] = {p: set() for p in np.unique(part[:switches]).tolist()}
        for (host, _), number in zip(cables.nics, part[switches:].tolist(), strict=True):
            hosts[number].add(HostName(host))
        return list(hosts.values())

    @cached_property
    def _number(self) -> dict[str, int]:
        return {switch: i for i, switch in enumerate(self.cables.switches)}

    @cached_property
    def _trunk_cables(self) -> IntArray:
        return np.flatnonzero(self.cables.is_trunk)

    @cached_property
    def _trunks(self) -> Trunks:
        cables = self._trunk_cables
        alpha_s = np.array([link.alpha_s for link in self.links], dtype=np.float64)
        alphas_s = alpha_s[self.link_of_cable[cables]]
        return Trunks(len(self.cables.switches), self.cables.ends[:, cables], alphas_s)

    def switches_between(self, a: str, b: str) -> list[str]:
        """The switches of one shortest way from leaf to leaf, both ends included."""
        if (a, b) not in self._ways:
            way = self._trunks.fastest_way(self._number[a], self._number[b])
            assert way is not None, "asked only where trunks_between is not negative"
            self._ways[a, b] = [self.cables.switches[switch] for switch in way]
        return self._ways[a, b]

    def trunk(self, a: str, b: str) -> Link:
        """The first link that was laid from a switch to a neighbour."""
        cable = self._trunk_cables[self._trunks.cable_between(self._number[a], self._number[b])]
        return self.links[int(self.link_of_cable[cable])]

    def host_link(self, place: tuple[str, int]) -> Link:
        """The link from a NIC to its leaf."""
        return self.links[int(self.link_of_cable[self._cable_of_nic[place]])]

    @cached_property
    def _cable_of_nic(self) -> dict[tuple[str, int], int]:
        return dict(zip(self.cables.nics, _first_of_nic(self.cables).tolist(), strict=True))


def build_network(fleet: FleetMap, figures: LinkFigures, columns: CableColumns) -> Network:
    """The network of a map: its switches, and its cables that are up (``columns``)."""
    switches = [switch for switch in fleet.switches if switch.nvlink_domain is None]
    layers = [switch.link_layer for switch in switches if switch.link_layer is not None]
    first = layers[0] if layers else LinkLayer.UNREPORTED
    layer_of: dict[str, LinkLayer] = {switch.id: switch.link_layer or first for switch in switches}
    shares: dict[str, float] = {s.id: _share(s.adaptive_routing, figures) for s in switches}
    cables = _as_routed(columns, shares)
    tier_of = _tiers({switch.id: switch.tier for switch in switches}, cables)
    up, pod_of, pod_up = _capacities(tier_of, cables)
    links, link_of_cable = _links(tier_of, cables, layer_of, figures)
    return Network(
        tier_of=tier_of,
        leaf_of=_attachments(cables),
        up_bytes_per_s=up,
        pod_of=pod_of,
        pod_up_bytes_per_s=pod_up,
        layer_of=layer_of,
        cables=cables,
        links=links,
        link_of_cable=link_of_cable,
    )


def _share(adaptive_routing: bool | None, figures: LinkFigures) -> float:
    """Share of their rate that a switch's trunks carry."""
    if adaptive_routing is None:
        return 1.0
    return figures.trunk_share["adaptive" if adaptive_routing else "static"].share_ratio


def _as_routed(cables: CableColumns, shares: Mapping[str, float]) -> CableColumns:
    """Trunks as wide as the routing of their switches lets them be; static routing collides."""
    share = np.array([shares[switch] for switch in cables.switches], dtype=np.float64)
    rates = cables.bytes_per_s.copy()
    rates[cables.is_trunk] *= share[cables.ends[:, cables.is_trunk]].min(axis=0)
    return replace(cables, bytes_per_s=rates)


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


def _vertices(cables: CableColumns, cable: int) -> tuple[str, str]:
    """Vertices of both ends of a cable."""
    nic = int(cables.nic[cable])
    a, b = (
        cables.switches[end] if end >= 0 else nic_vertex(*cables.nics[nic])
        for end in cables.ends[:, cable].tolist()
    )
    return a, b


def _links(
    tier_of: Mapping[str, int],
    cables: CableColumns,
    layer_of: Mapping[str, LinkLayer],
    figures: LinkFigures,
) -> tuple[tuple[Link, ...], IntArray]:
    """Links of each layer, place and rate, in the order of their first cables, and each cable's.

    Raises:
        FabricError: a figure is missing, or a cable joins a switch with itself.
    """
    tier = np.array([tier_of[switch] for switch in cables.switches], dtype=np.int64)
    layers = list(LinkLayer)
    layer = np.array([layers.index(layer_of[s]) for s in cables.switches], dtype=np.int64)
    is_core = (tier[cables.ends] > LEAF_TIER).all(axis=0) if len(tier) else cables.is_trunk
    place = np.where(cables.is_trunk, np.where(is_core, _CORE, _TRUNK), _HOST)
    speaks = layer[np.where(cables.ends[0] >= 0, cables.ends[0], cables.ends[1])]
    is_loop = cables.ends[0] == cables.ends[1]
    rates, rate = np.unique(cables.bytes_per_s, return_inverse=True)
    code = ((rate * len(layers) + speaks) * len(_PLACES) + place) * 2 + is_loop
    _, first, kind_of = np.unique(code, return_index=True, return_inverse=True)
    laid = np.argsort(first)
    links = [
        _proved_link(
            cables, i, edge_kind(layers[speaks[i]], rates[rate[i]], _PLACES[place[i]]), figures
        )
        for i in first[laid].tolist()
    ]
    return tuple(links), np.argsort(laid)[kind_of]


def _proved_link(cables: CableColumns, cable: int, kind: str, figures: LinkFigures) -> Link:
    """The link of a cable, refused where the graph would refuse it."""
    link = make_link(figures, kind, bytes_per_s=float(cables.bytes_per_s[cable]))
    add_both_ways(new_graph(), *_vertices(cables, cable), link)
    return link


def _first_of_nic(cables: CableColumns) -> IntArray:
    """The first cable of every NIC."""
    on_nic = np.flatnonzero(~cables.is_trunk)
    _, first = np.unique(cables.nic[on_nic], return_index=True)
    return on_nic[first]


def _attachments(cables: CableColumns) -> dict[tuple[str, int], Attachment]:
    """Leaf of every NIC; of a NIC with two cables the first."""
    first = _first_of_nic(cables)
    leaves = cables.ends[:, first].max(axis=0).tolist()
    rows = list(zip(leaves, cables.bytes_per_s[first].tolist(), strict=True))
    known = {row: Attachment(cables.switches[row[0]], row[1]) for row in dict.fromkeys(rows)}
    return {nic: known[row] for nic, row in zip(cables.nics, rows, strict=True)}


def _tiers(told: Mapping[str, int | None], cables: CableColumns) -> dict[str, int]:
    """Tier of every switch: as told, else by distance from the switches that have hosts."""
    if None not in told.values():
        return {switch: tier for switch, tier in told.items() if tier is not None}
    distance = _from_hosts(cables).tolist()
    return {
        switch: tier if tier is not None else max(far, LEAF_TIER)
        for (switch, tier), far in zip(told.items(), distance, strict=True)
    }


def _from_hosts(cables: CableColumns) -> IntArray:
    """Trunks from each switch to the nearest that has hosts, -1 where none is joined to any."""
    distance = np.full(len(cables.switches), UNREACHABLE, dtype=np.int64)
    distance[cables.ends[:, ~cables.is_trunk].max(axis=0)] = LEAF_TIER
    trunks = cables.ends[:, cables.is_trunk]
    a, b = np.concatenate([trunks, trunks[::-1]], axis=1)
    step = LEAF_TIER
    while True:
        reached = b[(distance[a] == step) & (distance[b] == UNREACHABLE)]
        if not len(reached):
            return distance
        step += 1
        distance[reached] = step


def _capacities(
    tier_of: Mapping[str, int], cables: CableColumns
) -> tuple[dict[str, float], dict[str, int], dict[int, float]]:
    """Rate of each switch towards the tier above, pod of each switch, rate out of each pod."""
    tier = np.array([tier_of[switch] for switch in cables.switches], dtype=np.int64)
    trunks = np.flatnonzero(cables.is_trunk)
    a, b = cables.ends[:, trunks]
    is_turned = tier[b] < tier[a]
    low, high = np.where(is_turned, b, a), np.where(is_turned, a, b)
    sends = np.stack([np.ones_like(is_turned), tier[low] == tier[high]], axis=1)
    sender = np.stack([low, high], axis=1)[sends]
    rates = np.stack([cables.bytes_per_s[trunks]] * 2, axis=1)[sends]
    up = _sums(sender, rates)
    in_pod = tier[high] <= LEAF_TIER + 1
    part = part_of(len(tier), (low[in_pod], high[in_pod]))
    inside = np.flatnonzero(tier <= LEAF_TIER + 1)
    _, pod = np.unique(part[inside], return_inverse=True)
    pod_of = dict(zip(inside.tolist(), pod.tolist(), strict=True))
    outward = [switch for switch in up if tier[switch] == LEAF_TIER + 1]
    pods = np.array([pod_of[switch] for switch in outward], dtype=np.int64)
    names = cables.switches
    return (
        {names[switch]: rate for switch, rate in up.items()},
        {names[switch]: number for switch, number in pod_of.items()},
        _sums(pods, np.array([up[switch] for switch in outward])),
    )


def _sums(keys: IntArray, values: FloatArray) -> dict[int, float]:
    """Sums by key, added up in order; keys as they first come."""
    found, first, number = np.unique(keys, return_index=True, return_inverse=True)
    sums = np.bincount(number, values, minlength=len(found))
    order = np.argsort(first)
    return dict(zip(found[order].tolist(), sums[order].tolist(), strict=True))

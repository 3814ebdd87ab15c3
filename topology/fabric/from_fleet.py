"""Fabric: the map as links and routes. Built by wiring and by tier, so 10,000 GPUs stay small.

The inside of a node is built once for all nodes of one wiring, the network once. What many rank
pairs share (wirings, slots, tiers between) is routed once.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Final

from networkx.utils import UnionFind

from fleet import (
    FleetMap,
    HostName,
    Node,
    Wiring,
    collector_paused,
    device_faults,
    load_fleet,
    node_wirings,
)
from topology.errors import FabricError, UnreachableError, WorkloadError
from topology.fabric.cable_columns import columns_from_fleet
from topology.fabric.domains import DomainFinder, NvlinkDomain
from topology.fabric.graph import Graph, add_link, all_links, new_graph
from topology.fabric.link_figures import LinkFigures, load_link_figures
from topology.fabric.network import Network, build_network, host_of_vertex
from topology.fabric.network_route import network_route
from topology.fabric.node_graph import NodeGraph, build_node_graph, compute_nics
from topology.fabric.routes import (
    Endpoint,
    LinkKind,
    Route,
    Unreachable,
    UnreachableReason,
    inside_route,
    make_route,
    pcie_route,
    switched_class,
    switched_hops,
)


@dataclass(frozen=True, slots=True)
class FabricNode:
    """One node: host, its wiring's graph, the NVLink domain of each slot, and who holds it."""

    host: HostName
    graph: NodeGraph
    domain_of_slot: dict[int, int]
    busy: frozenset[int]


class Fabric:
    """Links and routes of a fleet."""

    def __init__(self, fleet: FleetMap, figures: LinkFigures | None = None) -> None:
        self.fleet = fleet
        self.figures = figures or load_link_figures()
        self._cables = columns_from_fleet(fleet)
        graphs = _NodeGraphs(self._cables.cabled_nics(), self.figures)
        pairs = [(node, graphs.of(node, wiring)) for node, wiring in node_wirings(fleet)]
        finder = DomainFinder()
        self.nodes = tuple(
            FabricNode(node.host, graph, finder.add_node(node, graph), _busy(node))
            for node, graph in pairs
        )
        self.node_of = {node.host: node for node in self.nodes}
        self.domains: tuple[NvlinkDomain, ...] = finder.domains()
        self._routes: dict[tuple[Endpoint, Endpoint], Route | Unreachable] = {}

    @cached_property
    def network(self) -> Network:
        """The switches between the nodes."""
        return build_network(self.fleet, self.figures, self._cables)

    @cached_property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every place that carries a rank, node by node: GPUs, or CPUs where the map has none."""
        has_gpus = self.fleet.gpu_count > 0
        nodes = (node for node in self.nodes if node.graph.is_gpu_node or not has_gpus)
        return tuple(Endpoint(node.host, slot) for node in nodes for slot in node.graph.slots)

    @cached_property
    def island_of(self) -> dict[HostName, HostName]:
        """The first host of all that NVLink or the network joins with each host."""
        order = {node.host: i for i, node in enumerate(self.nodes)}
        islands = UnionFind(order)
        for hosts in (*self.network.joined_hosts(), *(domain.hosts for domain in self.domains)):
            islands.union(*hosts)
        return {
            host: min(island, key=order.__getitem__)
            for island in islands.to_sets()
            for host in island
        }

    def leaves_of(self, host: HostName) -> frozenset[str]:
        """The leaves that the NICs of a host's GPUs hang on."""
        nics = set(self.node_of[host].graph.nic_of_gpu.values())
        attached = (self.network.leaf_of.get((host, nic)) for nic in nics)
        return frozenset(attachment.leaf for attachment in attached if attachment)

    def domain_of(self, endpoint: Endpoint) -> NvlinkDomain:
        """The NVLink domain of an endpoint; alone in it where it has no NVLink."""
        return self.domains[self.node_of[endpoint.host].domain_of_slot[endpoint.slot]]

    def is_free(self, endpoint: Endpoint) -> bool:
        """Whether nobody holds the endpoint, and its GPU answers."""
        return endpoint.slot not in self.node_of[endpoint.host].busy

    def endpoint_from_text(self, text: str) -> Endpoint:
        """An endpoint from ``host:3``, ``host:gpu3`` or a GPU's UUID.

        Raises:
            WorkloadError: there is no such host, slot or UUID.
        """
        for node in self.fleet.nodes:
            for gpu in node.gpus:
                if gpu.uuid == text:
                    return Endpoint(node.host, gpu.slot)
        host, _, name = text.rpartition(":")
        slot = slot_from_text(name.removeprefix("gpu").removeprefix("cpu"))
        if slot is not None and host and HostName(host) not in self.node_of:
            raise self._no_host(HostName(host))
        if slot is None or not host:
            raise WorkloadError(
                f"{text!r} is no endpoint of this map",
                remedy=f"write host:slot, such as {self.endpoints[0] if self.endpoints else 'a:0'}",
            )
        return self.checked(Endpoint(HostName(host), slot))

    def checked(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, if the map has it.

        Raises:
            WorkloadError: no such host or slot.
        """
        node = self.node_of.get(endpoint.host)
        if node is None:
            raise self._no_host(endpoint.host)
        if endpoint.slot not in node.graph.slots:
            slots = ", ".join(str(slot) for slot in node.graph.slots)
            raise WorkloadError(
                f"{endpoint.host} has no slot {endpoint.slot}", remedy=f"it has {slots}"
            )
        return endpoint

    def _no_host(self, host: HostName) -> WorkloadError:
        near = get_close_matches(host, self.node_of, n=1) or list(self.node_of)[:1]
        remedy = f"it has {near[0]}, say" if near else "it has none"
        return WorkloadError(f"no host {host!r} in this map", remedy=remedy)

    def route(self, a: Endpoint, b: Endpoint) -> Route | Unreachable:
        """The way from one endpoint to another, or why none is known."""
        if (a, b) not in self._routes:
            self._routes[a, b] = self._find_route(a, b)
        return self._routes[a, b]

    def reachable_route(self, a: Endpoint, b: Endpoint) -> Route:
        """The way from one endpoint to another.

        Raises:
            UnreachableError: no link joins them that the map knows.
        """
        route = self.route(a, b)
        if isinstance(route, Unreachable):
            raise UnreachableError(route.text, where=f"{a} -> {b}", field=route.reason.value)
        return route

    def leg(self, endpoint: Endpoint) -> Route:
        """The way of a message that is reduced or multiplied in the domain's NVSwitches.

        Both ways cost a whole route: the message is issued at one end and seen at the other.

        Raises:
            FabricError: the domain has no NVSwitch that reduces.
        """
        domain = self.domain_of(endpoint)
        node = self.node_of[endpoint.host].graph
        hops = switched_hops(node, endpoint.host, endpoint.slot, node, endpoint.host, endpoint.slot)
        if not domain.reduces_in_switch or not hops:
            raise FabricError(
                "no NVSwitch that reduces in the switch (NVLink 4 or later)",
                where=str(endpoint),
                field="nvls",
                remedy="choose another algorithm",
            )
        route_class = switched_class(node, endpoint.slot, hops[0].kind, self.figures)
        return replace(make_route(self.figures, route_class, LinkKind.NVLINK, hops), in_switch=True)

    def _find_route(self, a: Endpoint, b: Endpoint) -> Route | Unreachable:
        node_a, node_b = self.node_of[a.host], self.node_of[b.host]
        if a == b:
            return Unreachable(UnreachableReason.SAME_ENDPOINT, "an endpoint and itself")
        is_one_domain = self.domain_of(a) is self.domain_of(b)
        if a.host == b.host:
            find = inside_route if is_one_domain else pcie_route
            return find(node_a.graph, a.host, a.slot, b.slot, self.figures)
        if is_one_domain:
            hops = switched_hops(node_a.graph, a.host, a.slot, node_b.graph, b.host, b.slot)
            if hops:
                route_class = switched_class(node_a.graph, a.slot, hops[0].kind, self.figures)
                return make_route(self.figures, route_class, LinkKind.NVLINK, hops)
        return network_route(((node_a.graph, a), (node_b.graph, b)), self.network, self.figures)

    def graph(self, hosts: Iterable[str] | None = None) -> Graph:
        """The whole graph, or that of some hosts and all switches, one vertex for each device."""
        wanted = set(hosts) if hosts is not None else {node.host for node in self.nodes}
        graph = new_graph()
        for node in self.nodes:
            if node.host in wanted:
                names = {vertex: self._name(node, vertex) for vertex in node.graph.graph}
                graph.add_nodes_from(names.values())
                for u, v, link in all_links(node.graph.graph):
                    add_link(graph, names[u], names[v], link)
        for u, v, link in all_links(self.network.graph):
            if all(host_of_vertex(vertex) in (None, *wanted) for vertex in (u, v)):
                add_link(graph, u, v, link)
        return graph

    def _name(self, node: FabricNode, vertex: str) -> str:
        if not vertex.startswith("domain_switch"):
            return f"{node.host}:{vertex}"
        return f"{self.domains[next(iter(node.domain_of_slot.values()))].name}:{vertex}"

    @cached_property
    def guesses(self) -> tuple[str, ...]:
        """What the model guessed or could not know because no source told it, once a wiring."""
        texts: dict[str, None] = {}
        for fleet_node, node in zip(self.fleet.nodes, self.nodes, strict=True):
            name = node.graph.wiring.machine or node.host
            for slot, facts in node.graph.facts.items():
                for guess in facts.guesses:
                    texts[f"{name} gpu{slot}: {guess}"] = None
            untold = any(_SCALE_UP_UNTOLD.fullmatch(a.path) for a in fleet_node.absences)
            if untold and not node.graph.scale_up:
                texts[f"{name}: no source tells of NVLinks, so routes are over PCIe"] = None
        return tuple(texts)


_SCALE_UP_UNTOLD = re.compile(r"wiring\.gpus\[[^\]]+\]\.ports")


def slot_from_text(text: str) -> int | None:
    """The number of a slot, None where the text is no number that a slot can have."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= _MOST_SLOT_DIGITS
    return int(text) if is_number else None


_MOST_SLOT_DIGITS: Final = 9


def load_fabric(path: str | Path) -> Fabric:
    """The fabric of a map on disk; ``-`` is stdin.

    Raises:
        FleetError: the map cannot be loaded.
        FabricError: a link's rate can neither be read nor derived.
    """
    with collector_paused():
        return Fabric(load_fleet(path))


class _NodeGraphs:
    """Graphs of nodes, one for all that are wired and cabled alike."""

    def __init__(self, cabled: Mapping[str, frozenset[int]], figures: LinkFigures) -> None:
        self._figures, self._cabled = figures, cabled
        self._known: dict[tuple[int, bool, frozenset[int] | None], NodeGraph] = {}
        self._wirings: list[Wiring] = []
        self._compute: dict[int, frozenset[int]] = {}

    def of(self, node: Node, wiring: Wiring) -> NodeGraph:
        """The graph of a node; a GPU whose nearest NIC has no cable sends through another."""
        in_domain = any(gpu.fabric is not None and gpu.fabric.domain for gpu in node.gpus)
        nics = self._cabled.get(node.host)
        if nics is not None and nics >= self._compute_slots(wiring):
            nics = None
        key = (id(wiring), in_domain, nics)
        if key not in self._known:
            self._wirings.append(wiring)  # so that no other wiring gets its id
            self._known[key] = build_node_graph(
                wiring, self._figures, in_rack_domain=in_domain, nics=nics
            )
        return self._known[key]

    def _compute_slots(self, wiring: Wiring) -> frozenset[int]:
        """Slots of the NICs of a wiring that carry collectives."""
        if id(wiring) not in self._compute:
            self._wirings.append(wiring)  # so that no other wiring gets its id
            self._compute[id(wiring)] = frozenset(nic.slot for nic in compute_nics(wiring))
        return self._compute[id(wiring)]


def _busy(node: Node) -> frozenset[int]:
    """Slots that nobody else can have: held by somebody, or with a GPU that does not answer."""
    silent = {fault.slot for fault in device_faults(node) if fault.kind == "gpu"}
    if None in silent:
        silent |= {gpu.slot for gpu in node.gpus}
    held = {slot for held in node.allocations or () for slot in held.slots}
    return frozenset(held | {slot for slot in silent if slot is not None})

"""Routes: which way a message takes between two endpoints, hop by hop, and what class it is of."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import TypeAlias

from fleet import HostName, P2pState, PortTechnology
from topology.errors import FabricError
from topology.fabric.graph import Graph, Link, links_between, shortest_path
from topology.fabric.link_figures import Confidence, LinkFigures, RouteClass
from topology.fabric.node_graph import NodeGraph, is_pcie_vertex
from topology.fabric.pcie_tree import pcie_class_generation

Links: TypeAlias = dict[str, Link]


class LinkKind(StrEnum):
    """What a communication library calls the slowest part of a route."""

    NVLINK = "nvlink"
    PCI = "pci"
    NET = "net"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place that can carry a rank: a GPU slot of a host, or the CPU of a node without GPUs."""

    host: HostName
    slot: int

    def __str__(self) -> str:
        return f"{self.host}:{self.slot}"


class HopPlace(StrEnum):
    """Whose link a hop is: what it shares with other messages."""

    SOURCE_NODE = "source_node"
    DESTINATION_NODE = "destination_node"
    UP_TO_SWITCH = "up_to_switch"
    DOWN_FROM_SWITCH = "down_from_switch"
    NIC_OUT = "nic_out"
    LEAF_UP = "leaf_up"
    POD_UP = "pod_up"
    POD_DOWN = "pod_down"
    LEAF_DOWN = "leaf_down"
    NIC_IN = "nic_in"


@dataclass(frozen=True, slots=True)
class Hop:
    """One link of a route; ``count`` parallel links carry ``bytes_per_s`` together.

    ``local``: the link's two vertices inside its node, empty between switches.
    """

    source: str
    destination: str
    place: HopPlace
    local: tuple[str, str]
    kind: str
    alpha_s: float
    bytes_per_s: float
    count: int
    confidence: Confidence


@dataclass(frozen=True, slots=True)
class Route:
    """A way from one endpoint to another. ``alpha_s`` = endpoints + hops = its class's, or more.

    ``in_switch``: a leg to or from a switch that reduces, as long as a whole route.
    """

    route_class: RouteClass
    link_kind: LinkKind
    hops: tuple[Hop, ...]
    endpoints_s: float
    in_switch: bool = False

    @property
    def alpha_s(self) -> float:
        """Latency of a small message without jitter. [s]"""
        return self.endpoints_s + sum(hop.alpha_s for hop in self.hops)

    @property
    def link_bytes_per_s(self) -> float:
        """Rate of the narrowest hop, one direction, before efficiency. [B/s]"""
        return min(hop.bytes_per_s for hop in self.hops)

    @property
    def p2p_bytes_per_s(self) -> float:
        """What one sender gets on an idle route. [B/s]"""
        return self.link_bytes_per_s * self.route_class.p2p_efficiency_ratio

    @property
    def collective_efficiency_ratio(self) -> float:
        """Share of the links' rate that a collective gets."""
        in_switch = self.route_class.in_switch_efficiency_ratio
        if self.in_switch and in_switch is not None:
            return in_switch
        return self.route_class.collective_efficiency_ratio

    @property
    def extra_s(self) -> float:
        """How much longer this route is than its class, for hops the class does not have. [s]"""
        return self.alpha_s - self.route_class.alpha_s


class UnreachableReason(StrEnum):
    """Why no route is known."""

    SAME_ENDPOINT = "same_endpoint"
    WIRING_UNKNOWN = "wiring_unknown"
    NO_NIC = "no_nic"
    NO_CABLE = "no_cable"
    SEPARATE_NETWORKS = "separate_networks"


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Two endpoints that no known link joins, and what would tell more."""

    reason: UnreachableReason
    text: str


def make_route(
    figures: LinkFigures, route_class: RouteClass, link_kind: LinkKind, hops: Iterable[Hop]
) -> Route:
    """A route of a class over these hops; never shorter than its class."""
    hops = tuple(hops)
    hops_s = sum(hop.alpha_s for hop in hops)
    endpoints_s = max(figures.endpoints_s(route_class), route_class.alpha_s - hops_s)
    return Route(route_class, link_kind, hops, endpoints_s)


def inside_route(
    node: NodeGraph, host: str, a: int, b: int, figures: LinkFigures
) -> Route | Unreachable:
    """The way between two GPUs of one node: NVLink if there is any, else PCIe."""
    source, destination = f"gpu{a}", f"gpu{b}"
    direct = links_between(node.graph, source, destination)
    if direct:
        hops = [_inside_hop(host, source, destination, direct, HopPlace.SOURCE_NODE)]
        return make_route(figures, _direct_class(node, a, b, figures), LinkKind.NVLINK, hops)
    switched = switched_hops(node, host, a, node, host, b)
    if switched:
        route_class = switched_class(node, a, switched[0].kind, figures)
        return make_route(figures, route_class, LinkKind.NVLINK, switched)
    return pcie_route(node, host, a, b, figures)


def switched_hops(
    node_a: NodeGraph, host_a: str, a: int, node_b: NodeGraph, host_b: str, b: int
) -> list[Hop]:
    """Up to the NVSwitches that both GPUs reach and down again; empty where they share none.

    GPU-GPU bandwidth through the switches: sum over shared switches of the narrower side.
    """
    up = _switch_links(node_a.graph, f"gpu{a}")
    down = _switch_links(node_b.graph, f"gpu{b}")
    shared = [name for name in up if name in down]
    if not shared:
        return []
    rate = sum(min(up[name].bytes_per_s, down[name].bytes_per_s) for name in shared)
    names = _switch_names(shared)
    where = host_a if not names.startswith("domain") else "rack"
    first = up[shared[0]]
    switch = f"{where}:{names}"

    def hop(source: str, destination: str, place: HopPlace, gpu: str, links: Links) -> Hop:
        local = (gpu, "") if place is HopPlace.UP_TO_SWITCH else ("", gpu)
        count = sum(links[name].count for name in shared)
        kind, alpha_s, confidence = first.kind, first.alpha_s, first.confidence
        return Hop(source, destination, place, local, kind, alpha_s, rate, count, confidence)

    return [
        hop(f"{host_a}:gpu{a}", switch, HopPlace.UP_TO_SWITCH, f"gpu{a}", up),
        hop(switch, f"{host_b}:gpu{b}", HopPlace.DOWN_FROM_SWITCH, f"gpu{b}", down),
    ]


def switched_class(node: NodeGraph, slot: int, kind: str, figures: LinkFigures) -> RouteClass:
    """Class of a route over NVSwitches.

    Raises:
        FabricError: no class is known for that NVLink version.
    """
    version = node.facts[slot].nvlink_version or ""
    name = (
        "nvlink5_nvl72" if kind == "nvlink_rack" else f"nvlink{version.partition('.')[0]}_nvswitch"
    )
    if name not in figures.route_class:
        raise FabricError(
            f"no route class for NVLink {version} over switches",
            field=f"gpus[{slot}].ports",
            remedy="add one to link_figures.toml with its source",
        )
    return figures.route_class[name]


def _direct_class(node: NodeGraph, a: int, b: int, figures: LinkFigures) -> RouteClass:
    gpu = next(gpu for gpu in node.wiring.gpus if gpu.slot == a)
    port = next(port for port in gpu.ports if port.end.index == b)
    if port.technology is PortTechnology.XGMI:
        return figures.route_class["xgmi_direct"]
    version = (node.facts[a].nvlink_version or "").partition(".")[0]
    name = f"nvlink{version}_direct"
    if name not in figures.route_class:
        raise FabricError(
            f"no route class for NVLink {version} between GPUs",
            field=f"gpus[{a}].ports",
            remedy="add one to link_figures.toml with its source",
        )
    return figures.route_class[name]


def pcie_route(
    node: NodeGraph, host: str, a: int, b: int, figures: LinkFigures
) -> Route | Unreachable:
    """The way between two GPUs of one node without NVLink."""
    source, destination = f"gpu{a}", f"gpu{b}"
    hops = path_hops(node, host, source, destination, HopPlace.SOURCE_NODE)
    if not hops:
        return Unreachable(
            UnreachableReason.WIRING_UNKNOWN,
            f"{host}: how {source} and {destination} are wired is not reported; "
            "add nvidia-smi topo -m of the same node",
        )
    slowest = min(node.facts[slot].pcie_generation for slot in (a, b))
    generation = pcie_class_generation(slowest)
    if not _has_peer_access(node, a, b):
        through_memory = figures.route_class[f"pcie_gen{generation}_host_memory"]
        most = through_memory.bytes_per_s
        hops = [replace(hop, bytes_per_s=min(hop.bytes_per_s, most)) for hop in hops]
        return make_route(figures, through_memory, LinkKind.PCI, hops)
    kinds = {hop.kind for hop in hops}
    if "socket" in kinds:
        name = f"pcie_gen{generation}_cross_socket"
    elif kinds & {"pcie_uplink", "pcie_root_port"}:
        name = f"pcie_gen{generation}_root_complex"
    else:
        name = f"pcie_gen{generation}_x16_switch"
    return make_route(figures, figures.route_class[name], LinkKind.PCI, hops)


def _has_peer_access(node: NodeGraph, a: int, b: int) -> bool:
    """What the driver says of the pair; silence counts as access, as NCCL takes it."""
    rows = [row for row in node.wiring.p2p if {row.a, row.b} == {a, b}]
    return all(row.write is P2pState.OK for row in rows)


def path_hops(
    node: NodeGraph, host: str, source: str, destination: str, place: HopPlace
) -> list[Hop]:
    """Hops over PCIe between two vertices of a node; empty where none is known."""
    path = shortest_path(node.graph, source, destination, may_pass=is_pcie_vertex)
    if path is None:
        return []
    graph = node.graph
    return [_inside_hop(host, u, v, links_between(graph, u, v), place) for u, v in pairwise(path)]


def _inside_hop(
    host: str, source: str, destination: str, links: list[Link], place: HopPlace
) -> Hop:
    return Hop(
        source=f"{host}:{source}",
        destination=f"{host}:{destination}",
        place=place,
        local=(source, destination),
        kind=links[0].kind,
        alpha_s=links[0].alpha_s,
        bytes_per_s=sum(link.bytes_per_s for link in links),
        count=sum(link.count for link in links),
        confidence=links[0].confidence,
    )


def _switch_links(graph: Graph, gpu: str) -> Links:
    if gpu not in graph:
        return {}
    return {
        name: links_between(graph, gpu, name)[0]
        for name in graph.successors(gpu)
        if name.startswith(("nvswitch", "domain_switch"))
    }


def _switch_names(names: list[str]) -> str:
    """``nvswitch0-3`` for switches with numbers, the names themselves where one has none."""
    stem = names[0].rstrip("0123456789")
    numbers = [name.removeprefix(stem) for name in names]
    if len(names) == 1 or not all(number.isdecimal() for number in numbers):
        return "+".join(sorted(names))
    return f"{stem}{min(map(int, numbers))}-{max(map(int, numbers))}"

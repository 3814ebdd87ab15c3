"""Job: the few facts of a placement that a closed-form model reads. No schedule, no figure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fleet import GpuVendor
from topology.collective.layout import cliques_of
from topology.collective.placement import Placement
from topology.errors import UnreachableError
from topology.fabric.from_fleet import Fabric
from topology.fabric.node_graph import NodeGraph
from topology.fabric.route_table import RouteMap
from topology.fabric.routes import Endpoint, LinkKind, Route

IntArray: TypeAlias = NDArray[np.int64]


class Architecture(StrEnum):
    """Generation of a GPU, as far as software tells them apart."""

    PASCAL = "pascal"
    VOLTA = "volta"
    AMPERE = "ampere"
    ADA = "ada"
    HOPPER = "hopper"
    BLACKWELL = "blackwell"
    CDNA = "cdna"
    UNREPORTED = "unreported"


class Cpu(StrEnum):
    """Whose CPU runs the proxy."""

    INTEL = "intel"
    AMD = "amd"
    ARM = "arm"
    UNREPORTED = "unreported"


class IntraKind(StrEnum):
    """What joins the ranks of a clique at their slowest neighbours."""

    NVSWITCH = "nvswitch"
    NVLINK = "nvlink"
    XGMI = "xgmi"
    PCIE = "pcie"
    HOST = "host"


class NetKind(StrEnum):
    """What joins the cliques."""

    INFINIBAND = "ib"
    ROCE = "roce"
    EFA = "efa"
    SLINGSHOT = "slingshot"
    TCPXO = "tcpxo"
    ARIES = "aries"
    ETHERNET = "ethernet"


@dataclass(frozen=True, slots=True)
class Intra:
    """Links inside a clique: latency of a hop, nominal rate of one GPU in one direction."""

    kind: IntraKind
    alpha_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Net:
    """Links between cliques: latency of a hop, nominal rate of a clique in one direction.

    ``nics``: how many make up that rate. ``declared_s``: latency that its plug-in declares to NCCL.
    ``port_bytes_per_s``: what one NIC carries while nothing else does; 0 for a share of the rate.
    """

    kind: NetKind
    alpha_s: float
    bytes_per_s: float
    nics: int = 1
    declared_s: float = 0.0
    port_bytes_per_s: float = 0.0

    @property
    def one_nic_bytes_per_s(self) -> float:
        """Rate of a single NIC. [B/s]"""
        return self.port_bytes_per_s or self.bytes_per_s / self.nics


@dataclass(frozen=True, slots=True)
class Job:
    """Ranks in cliques, which are what NCCL takes for nodes: a node, or an NVLink domain.

    ``per_clique``: ranks of the largest. ``intra`` None: every rank alone; ``net`` None: one
    clique. ``has_ll128``: whether NCCL enables LL128 for these GPUs together.
    """

    ranks: int
    cliques: int
    per_clique: int
    architecture: Architecture
    cpu: Cpu
    intra: Intra | None
    net: Net | None
    reduces_in_switch: bool = False
    has_ll128: bool = True
    network_reduces: bool = False

    @property
    def is_pcie(self) -> bool:
        """Whether ranks of a clique reach each other by PCIe or host memory only."""
        return self.intra is not None and self.intra.kind in (IntraKind.PCIE, IntraKind.HOST)


_NET_OF_CLASS: Final = {
    "ib": NetKind.INFINIBAND,
    "roce": NetKind.ROCE,
    "efa": NetKind.EFA,
    "slingshot": NetKind.SLINGSHOT,
    "tcpxo": NetKind.TCPXO,
    "aries": NetKind.ARIES,
    "tcp": NetKind.ETHERNET,
}


def job_of(fabric: Fabric, placement: Placement, routes: RouteMap) -> Job:
    """What a model reads of a placement.

    The links of the first of the largest cliques stand for all; the network is as slow as the
    slowest way between two neighbouring cliques, and as narrow as crowded uplinks make it.

    Raises:
        UnreachableError: neighbours that no known link joins.
    """
    nodes, domains = _groups(routes.node_of.tolist()), _groups(routes.domain_of.tolist())
    cliques = cliques_of(nodes, domains)
    first = max(cliques, key=len)
    ends = [placement.endpoints[rank] for rank in first]
    graph = fabric.node_of[ends[0].host].graph
    domain = fabric.domain_of(ends[0])
    in_one_domain = all(fabric.domain_of(end) is domain for end in ends)
    return Job(
        ranks=placement.ranks,
        cliques=len(cliques),
        per_clique=len(first),
        architecture=architecture_of(graph, ends[0].slot),
        cpu=cpu_of(graph),
        intra=_intra(fabric, ends, in_one_domain),
        net=_net(fabric, routes, cliques, ends),
        reduces_in_switch=in_one_domain and domain.reduces_in_switch,
        has_ll128=has_ll128(fabric, placement),
    )


_VOLTA, _HOPPER = 7.0, 9.0


def has_ll128(fabric: Fabric, placement: Placement) -> bool:
    """Whether NCCL enables LL128: all GPUs of one kind, Volta or newer, or all Hopper or newer."""
    graphs = {id(g): g for g in (fabric.node_of[host].graph for host in placement.hosts)}.values()
    told = {_number(facts.compute_capability) for g in graphs for facts in g.facts.values()}
    kinds = {kind for kind in told if kind is not None}
    if not kinds:
        return True
    return min(kinds) >= _VOLTA and (len(kinds) == 1 or min(kinds) >= _HOPPER)


def _number(capability: str | None) -> float | None:
    """A compute capability as a number, None where it is not told or none of NVIDIA's."""
    if capability is None or re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", capability) is None:
        return None
    return float(capability)


_ARCHITECTURES: Final = (
    (10.0, Architecture.BLACKWELL),
    (9.0, Architecture.HOPPER),
    (8.9, Architecture.ADA),
    (8.0, Architecture.AMPERE),
    (7.0, Architecture.VOLTA),
    (6.0, Architecture.PASCAL),
)


def architecture_of(graph: NodeGraph, slot: int) -> Architecture:
    """Generation of a GPU by its compute capability; Turing counts as Volta."""
    facts = graph.facts.get(slot)
    capability = None if facts is None else _number(facts.compute_capability)
    vendors = {gpu.vendor for gpu in graph.wiring.gpus if gpu.slot == slot}
    if GpuVendor.NVIDIA not in vendors:
        return Architecture.CDNA if vendors == {GpuVendor.AMD} else Architecture.UNREPORTED
    if capability is None:
        return Architecture.UNREPORTED
    found = (name for least, name in _ARCHITECTURES if capability >= least)
    return next(found, Architecture.UNREPORTED)


_CPU_WORDS: Final = (
    ("genuineintel", Cpu.INTEL),
    ("intel", Cpu.INTEL),
    ("xeon", Cpu.INTEL),
    ("authenticamd", Cpu.AMD),
    ("amd", Cpu.AMD),
    ("epyc", Cpu.AMD),
    ("grace", Cpu.ARM),
    ("neoverse", Cpu.ARM),
    ("aarch64", Cpu.ARM),
    ("arm", Cpu.ARM),
)


def cpu_of(graph: NodeGraph) -> Cpu:
    """Whose CPU a node has: reported, or a superchip's."""
    if any(gpu.c2c is not None for gpu in graph.wiring.gpus):
        return Cpu.ARM
    parts = ((n.vendor, n.model, n.architecture) for n in graph.wiring.numa_nodes)
    told = " ".join(part for numa in parts for part in numa if part).lower()
    return next((cpu for word, cpu in _CPU_WORDS if word in told), Cpu.UNREPORTED)


def _intra(fabric: Fabric, ends: list[Endpoint], in_one_domain: bool) -> Intra | None:
    if len(ends) == 1:
        return None
    if in_one_domain:
        first = fabric.reachable_route(ends[0], ends[1])
        if any("switch" in hop.source for hop in first.hops):
            return Intra(IntraKind.NVSWITCH, first.alpha_s, first.link_bytes_per_s)
        direct = _direct(fabric, ends)
        if direct is not None:
            return direct
    pairs = pairwise([*ends, ends[0]])
    worst = max((fabric.reachable_route(a, b) for a, b in pairs), key=_slowness)
    return Intra(IntraKind.PCIE, worst.alpha_s, worst.link_bytes_per_s)


def _direct(fabric: Fabric, ends: list[Endpoint]) -> Intra | None:
    """Links from GPU to GPU: of the rank with the fewest, all that lead to the others."""
    widths: list[float] = []
    direct: list[Route] = []
    for a in ends:
        routes = [fabric.reachable_route(a, b) for b in ends if b != a]
        mine = [route for route in routes if route.link_kind is LinkKind.NVLINK]
        widths.append(sum(route.link_bytes_per_s for route in mine))
        direct += mine
    if not min(widths):
        return None
    is_xgmi = any(hop.kind == "xgmi" for hop in direct[0].hops)
    kind = IntraKind.XGMI if is_xgmi else IntraKind.NVLINK
    return Intra(kind, max(route.alpha_s for route in direct), min(widths))


def _slowness(route: Route) -> tuple[float, float]:
    return -route.link_bytes_per_s, route.alpha_s


def _net(
    fabric: Fabric, routes: RouteMap, cliques: Sequence[Sequence[int]], ends: list[Endpoint]
) -> Net | None:
    """The network between cliques: its slowest way, the NICs of the poorest clique."""
    if len(cliques) == 1:
        return None
    table = routes.table(*_neighbours(cliques))
    worst = max(table.routes, key=lambda route: route.alpha_s)
    if worst.link_kind is not LinkKind.NET:
        heads = [routes.endpoints[clique[0]] for clique in cliques]
        raise UnreachableError("no network joins them", where=f"{heads[0]} -> {heads[1]}")
    kind = _NET_OF_CLASS.get(worst.route_class.name.split("_")[0].rstrip("0123456789"))
    of_head = max(1, len(_nics(fabric, ends[0])))
    of_all = min(_nic_count(fabric, routes, clique) for clique in cliques)
    narrowest = min(route.link_bytes_per_s for route in table.routes)
    port_bytes_per_s = narrowest / of_head
    return Net(
        kind=kind or NetKind.ETHERNET,
        alpha_s=worst.alpha_s,
        bytes_per_s=port_bytes_per_s * of_all / routes.crowding(table),
        nics=of_all,
        declared_s=worst.route_class.declared_s,
        port_bytes_per_s=port_bytes_per_s,
    )


def _neighbours(cliques: Sequence[Sequence[int]]) -> tuple[IntArray, IntArray]:
    """Rank i of each clique and rank i of the next: how rings and trees load the network."""
    pairs = [
        pair
        for a, b in pairwise([*cliques, cliques[0]])
        for pair in zip(a, b, strict=False)
        if a is not b
    ]
    source, destination = np.array(pairs, dtype=np.int64).T
    return source, destination


def _nic_count(fabric: Fabric, routes: RouteMap, clique: Sequence[int]) -> int:
    """NICs that a clique's ranks send through: one that has few holds up all others."""
    return max(1, len({nic for rank in clique for nic in _nics(fabric, routes.endpoints[rank])}))


def _nics(fabric: Fabric, end: Endpoint) -> list[tuple[str, int]]:
    """NICs that an endpoint sends through at once."""
    graph = fabric.node_of[end.host].graph
    return [(end.host, nic) for nic in graph.nics_of_gpu.get(end.slot, ())]


def _groups(numbers: list[int]) -> list[list[int]]:
    members: dict[int, list[int]] = {}
    for rank, number in enumerate(numbers):
        members.setdefault(number, []).append(rank)
    return list(members.values())

"""Inside a node: one wiring as a graph of GPUs, switches, PCIe, sockets and NICs.

Vertices: ``gpu3``, ``nvswitch0``, ``domain_switch5``, ``pcie2`` (a PCIe switch), ``numa1`` (a root
complex, where a CPU rank lives) and ``nic0``. Nothing outside the node.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from fleet import EndKind, GpuPort, GpuSlot, LinkState, NicSlot, PortTechnology, Wiring
from topology.errors import FabricError
from topology.fabric.gpu_facts import GpuFacts, gpu_facts
from topology.fabric.graph import (
    Graph,
    Link,
    add_both_ways,
    add_link,
    links_between,
    make_link,
    new_graph,
    shortest_path,
)
from topology.fabric.link_figures import LinkFigures, LinkName
from topology.fabric.pcie_tree import add_pcie_tree

_HIDDEN: Final = "hidden"


@dataclass(frozen=True, slots=True, eq=False)
class NodeGraph:
    """The inside of all nodes of one wiring.

    ``nic_of_gpu``: the NIC slot each GPU slot sends through, by affinity; missing: it has none.
    ``nics_of_gpu``: all NICs it sends through at once where several are as near; that one first.
    """

    wiring: Wiring
    graph: Graph
    facts: dict[int, GpuFacts]
    nic_of_gpu: dict[int, int]
    in_rack_domain: bool
    scale_up: dict[int, float] = field(default_factory=dict)
    nics_of_gpu: dict[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def is_gpu_node(self) -> bool:
        """Whether the node has GPUs; else its one rank is a CPU."""
        return bool(self.wiring.gpus)

    @property
    def slots(self) -> tuple[int, ...]:
        """Slots that carry a rank: the GPUs, or slot 0 for the CPU rank."""
        return tuple(gpu.slot for gpu in self.wiring.gpus) or (0,)

    def vertex(self, slot: int) -> str:
        """Vertex of the rank in a slot."""
        return f"gpu{slot}" if self.is_gpu_node else self.root_of(None)

    def root_of(self, numa: int | None) -> str:
        """Root complex of a NUMA node; the first one where none is named."""
        if numa is not None:
            return f"numa{numa}"
        first = self.wiring.numa_nodes[0].numa if self.wiring.numa_nodes else 0
        return f"numa{first}"


def build_node_graph(
    wiring: Wiring,
    figures: LinkFigures,
    *,
    in_rack_domain: bool = False,
    nics: frozenset[int] | None = None,
) -> NodeGraph:
    """The graph of one wiring.

    ``in_rack_domain``: its GPUs belong to an NVLink domain across nodes, so a switch that the
    driver hides is one of the rack's. ``nics``: slots of the NICs that GPUs may send through.

    Raises:
        FabricError: a link's rate can neither be read nor derived.
    """
    graph = new_graph()
    facts = {gpu.slot: gpu_facts(gpu, figures) for gpu in wiring.gpus}
    node = NodeGraph(wiring, graph, facts, nic_of_gpu={}, in_rack_domain=in_rack_domain)
    graph.add_nodes_from(node.vertex(slot) for slot in node.slots)
    outward = {gpu.slot: _scale_up_links(node, gpu, figures) for gpu in wiring.gpus}
    for slot, links in outward.items():
        _add_scale_up_links(node, slot, links, outward)
    add_pcie_tree(graph, wiring, facts, figures)
    usable = [nic for nic in compute_nics(wiring) if nics is None or nic.slot in nics]
    distances = {slot: _nic_distances(node, slot, usable) for slot in node.slots}
    node.nic_of_gpu.update(_affinity(distances))
    node.nics_of_gpu.update(_parallel_nics(node.nic_of_gpu, distances, usable))
    return node


def _scale_up_links(node: NodeGraph, gpu: GpuSlot, figures: LinkFigures) -> dict[str, Link]:
    """NVLink or xGMI from one GPU outward, by far end."""
    total: dict[str, list[GpuPort]] = defaultdict(list)
    for port in gpu.ports:
        if port.state is not LinkState.DOWN:
            total[_end_vertex(node, gpu, port)].append(port)
    total.pop("", None)
    return {
        end: make_link(
            figures,
            _link_kind(ports[0], end),
            bytes_per_s=sum(port.count * _link_rate(node, gpu, port, figures) for port in ports),
            count=sum(port.count for port in ports),
        )
        for end, ports in total.items()
    }


def _add_scale_up_links(
    node: NodeGraph, slot: int, links: dict[str, Link], outward: dict[int, dict[str, Link]]
) -> None:
    """Links of one GPU; a direct one is as wide as the end that tells less of it says."""
    me = f"gpu{slot}"
    for end, link in links.items():
        if not end.startswith("gpu"):
            add_both_ways(node.graph, me, end, link)
            node.scale_up[slot] = node.scale_up.get(slot, 0.0) + link.bytes_per_s
            continue
        back = outward.get(int(end.removeprefix("gpu")), {}).get(me)
        if back is not None:
            narrower = min(link, back, key=lambda side: side.bytes_per_s)
            add_link(node.graph, me, end, narrower)
            node.scale_up[slot] = node.scale_up.get(slot, 0.0) + narrower.bytes_per_s


def _end_vertex(node: NodeGraph, gpu: GpuSlot, port: GpuPort) -> str:
    """Vertex at the far end; a hidden switch of a superchip or rack domain is the rack's."""
    end = port.end
    match end.kind:
        case EndKind.GPU:
            return "" if end.index is None else f"gpu{end.index}"
        case EndKind.SWITCH if end.index is not None:
            return f"nvswitch{end.index}"
        case EndKind.SWITCH:
            is_racks = gpu.c2c is not None or node.in_rack_domain
            return f"domain_switch-{_HIDDEN}" if is_racks else f"nvswitch-{_HIDDEN}"
        case EndKind.DOMAIN_SWITCH:
            return f"domain_switch{f'-{_HIDDEN}' if end.index is None else end.index}"
    return ""


def _link_kind(port: GpuPort, end: str) -> str:
    if port.technology is PortTechnology.XGMI:
        return "xgmi"
    return "nvlink_rack" if end.startswith("domain_switch") else "nvlink"


def _link_rate(node: NodeGraph, gpu: GpuSlot, port: GpuPort, figures: LinkFigures) -> float:
    if port.bytes_per_s is not None:
        return port.bytes_per_s
    facts = node.facts[gpu.slot]
    if port.technology is PortTechnology.XGMI:
        rate = figures.rate_of(LinkName.XGMI, facts.compute_capability or "")
        what = f"Infinity Fabric of {facts.compute_capability}"
    else:
        rate = figures.rate_of(LinkName.NVLINK, facts.nvlink_version or "")
        what = f"NVLink version {facts.nvlink_version}"
    if rate is None:
        raise FabricError(
            f"no rate is known for {what}",
            field=f"gpus[{gpu.slot}].ports[{port.key}].bytes_per_s",
            remedy="report the rate, or add one to link_figures.toml with its source",
        )
    return rate


def _nic_distances(node: NodeGraph, slot: int, nics: Sequence[NicSlot]) -> dict[int, float]:
    """Latency of the PCIe links from a GPU to every NIC that it reaches, by slot. [s]"""
    found: dict[int, float] = {}
    for nic in nics:
        path = shortest_path(
            node.graph, node.vertex(slot), f"nic{nic.slot}", may_pass=is_pcie_vertex
        )
        if path is not None:
            found[nic.slot] = path_alpha_s(node.graph, path)
    return found


def _affinity(distances: Mapping[int, dict[int, float]]) -> dict[int, int]:
    """NIC for each GPU: the nearest on PCIe; of equals the one fewest GPUs use, then the first."""
    used: dict[int, int] = defaultdict(int)
    chosen: dict[int, int] = {}
    for slot, reached in distances.items():
        if reached:
            chosen[slot] = min(reached, key=lambda nic: (reached[nic], used[nic], nic))
            used[chosen[slot]] += 1
    return chosen


def _parallel_nics(
    chosen: Mapping[int, int], distances: Mapping[int, dict[int, float]], nics: Sequence[NicSlot]
) -> dict[int, tuple[int, ...]]:
    """NICs that each GPU sends through at once, as communication libraries stripe.

    A NIC that no GPU chose goes to a GPU whose own is as near and alike, of several to the one
    with fewest. Only NICs with a rail: which of the others carry collectives is not known.
    """
    groups = {slot: [nic] for slot, nic in chosen.items()}
    kind_of = {nic.slot: _nic_kind(nic) for nic in nics}
    for nic in nics:
        if nic.slot in chosen.values() or all(port.rail is None for port in nic.ports):
            continue
        takers = [
            slot
            for slot, own in chosen.items()
            if distances[slot].get(nic.slot) == distances[slot][own]
            and kind_of[own] == kind_of[nic.slot]
        ]
        if takers:
            groups[min(takers, key=lambda slot: (len(groups[slot]), slot))].append(nic.slot)
    return {slot: tuple(group) for slot, group in groups.items()}


def _nic_kind(nic: NicSlot) -> tuple[tuple[str, float | None], ...]:
    return tuple((port.link_layer.value, port.bytes_per_s) for port in nic.ports)


def compute_nics(wiring: Wiring) -> list[NicSlot]:
    """NICs that carry collectives: those with a rail, or all with a port up where none has one."""
    up = [nic for nic in wiring.nics if any(p.state is not LinkState.DOWN for p in nic.ports)]
    with_rail = [nic for nic in up if any(port.rail is not None for port in nic.ports)]
    return with_rail or up


def is_pcie_vertex(vertex: str) -> bool:
    """Whether PCIe traffic may pass through a vertex: switches and root complexes, no devices."""
    return vertex.startswith(("pcie", "numa"))


def path_alpha_s(graph: Graph, path: list[str]) -> float:
    """Latency of the links of a path. [s]"""
    pairs = pairwise(path)
    return sum(min(link.alpha_s for link in links_between(graph, a, b)) for a, b in pairs)

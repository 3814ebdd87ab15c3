"""NVLink domains: which endpoints reach each other by NVLink (or Infinity Fabric) alone."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from fleet import HostName, Node
from topology.fabric.node_graph import NodeGraph
from topology.fabric.routes import Endpoint

IN_SWITCH_REDUCTION_FROM: Final = 4.0
"""The NVSwitch that came with NVLink 4 is the first that reduces in the switch."""


@dataclass(frozen=True, slots=True)
class NvlinkDomain:
    """Endpoints that reach each other by NVLink alone; a lone endpoint is a domain of one."""

    name: str
    endpoints: tuple[Endpoint, ...]
    reduces_in_switch: bool

    @property
    def hosts(self) -> tuple[HostName, ...]:
        """Hosts of the domain, in order."""
        return tuple(dict.fromkeys(endpoint.host for endpoint in self.endpoints))


@dataclass(frozen=True, slots=True)
class _Linked:
    """What links some slots of a graph: switches of a rack, switches that reduce."""

    is_racks: bool
    reduces_in_switch: bool


class DomainFinder:
    """Collects domains node by node; GPUs of one cluster uuid and clique share a domain."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._endpoints: list[list[Endpoint]] = []
        self._reduces: list[bool] = []
        self._groups: dict[int, list[tuple[int, ...]]] = {}
        self._linked: dict[tuple[int, tuple[int, ...]], _Linked] = {}

    def add_node(self, node: Node, graph: NodeGraph) -> dict[int, int]:
        """Domain number of each slot of a node."""
        if id(graph) not in self._groups:
            self._groups[id(graph)] = _groups(graph)
        domain_of_slot: dict[int, int] = {}
        for slots in _cliques(node, self._groups[id(graph)]):
            linked = self._linked_by(graph, slots)
            number = self._number_of(_domain_name(node, graph, slots, linked))
            self._endpoints[number].extend(Endpoint(node.host, slot) for slot in slots)
            self._reduces[number] |= linked.reduces_in_switch
            domain_of_slot.update(dict.fromkeys(slots, number))
        return domain_of_slot

    def _linked_by(self, graph: NodeGraph, slots: tuple[int, ...]) -> "_Linked":
        """What links some slots, looked up once for all nodes of one graph."""
        key = (id(graph), slots)
        if key not in self._linked:
            ends = {end for slot in slots for end in scale_up_ends(graph, slot)}
            is_racks = any(end.startswith("domain_switch") for end in ends)
            self._linked[key] = _Linked(is_racks, _reduces_in_switch(graph, slots))
        return self._linked[key]

    def domains(self) -> tuple[NvlinkDomain, ...]:
        """All domains, by their number."""
        rows = zip(self._number, self._endpoints, self._reduces, strict=True)
        return tuple(NvlinkDomain(name, tuple(ends), reduces) for name, ends, reduces in rows)

    def _number_of(self, name: str) -> int:
        if name not in self._number:
            self._number[name] = len(self._number)
            self._endpoints.append([])
            self._reduces.append(False)
        return self._number[name]


def _groups(graph: NodeGraph) -> list[tuple[int, ...]]:
    """Slots of a node joined by scale-up links, directly or over switches."""
    if not graph.is_gpu_node:
        return [graph.slots]
    group = {f"gpu{slot}": {slot} for slot in graph.slots}
    for slot in graph.slots:
        for end in scale_up_ends(graph, slot):
            merged = group.setdefault(f"gpu{slot}", {slot}) | group.get(end, set())
            for vertex in [v for v, slots in group.items() if slots & merged] + [end]:
                group[vertex] = merged
    unique = {tuple(sorted(slots)) for slots in group.values() if slots}
    return sorted(unique)


def _cliques(node: Node, groups: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Linked slots apart by what the driver says: a partition of a cluster reaches no other."""
    told = _told_domains(node)
    if not told:
        return groups
    cliques: list[tuple[int, ...]] = []
    for slots in groups:
        members: dict[str | None, list[int]] = defaultdict(list)
        for slot in slots:
            members[told.get(slot)].append(slot)
        cliques += [tuple(part) for part in members.values()]
    return cliques


def _told_domains(node: Node) -> dict[int, str]:
    """Domain across nodes of each slot of which the driver tells one."""
    fabrics = ((gpu.slot, gpu.fabric) for gpu in node.gpus if gpu.fabric is not None)
    return {slot: domain for slot, fabric in fabrics if (domain := fabric.domain) is not None}


def scale_up_ends(graph: NodeGraph, slot: int) -> list[str]:
    """GPUs and switches at the far ends of a GPU's scale-up links; none of a CPU's."""
    if not graph.is_gpu_node:
        return []
    ends = graph.graph.successors(f"gpu{slot}")
    return [end for end in ends if end.startswith(("gpu", "nvswitch", "domain_switch"))]


def _domain_name(node: Node, graph: NodeGraph, slots: tuple[int, ...], linked: _Linked) -> str:
    if linked.is_racks:
        told = {gpu.fabric.domain for gpu in node.gpus if gpu.slot in slots and gpu.fabric}
        names = sorted(name for name in told if name)
        if names:
            return names[0]
    if len(slots) == len(graph.slots):
        return node.host
    return f"{node.host}/" + "+".join(f"gpu{slot}" for slot in slots)


def _reduces_in_switch(graph: NodeGraph, slots: tuple[int, ...]) -> bool:
    if not graph.is_gpu_node:
        return False
    has_switch = any("switch" in end for slot in slots for end in scale_up_ends(graph, slot))
    versions = [float(graph.facts[slot].nvlink_version or 0) for slot in slots]
    return has_switch and min(versions) >= IN_SWITCH_REDUCTION_FROM

"""PCIe inside a node: from reported bridges, or a tree that shows the levels a matrix prints."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from fleet import GpuSlot, NicSlot, PcieLevel, Wiring
from topology.fabric.gpu_facts import FALLBACK_PCIE_GENERATION, GpuFacts
from topology.fabric.graph import Graph, add_both_ways, make_link
from topology.fabric.link_figures import LinkFigures, LinkName

LANES: Final = 16
_OLDEST_CLASS, _NEWEST_CLASS = 3, 6

Facts: TypeAlias = Mapping[int, GpuFacts]


def add_pcie_tree(graph: Graph, wiring: Wiring, facts: Facts, figures: LinkFigures) -> None:
    """Add switches, root complexes and sockets, and hang GPUs and NICs below them."""
    if wiring.bridges or not wiring.pcie_levels:
        roots = _add_reported_tree(graph, wiring, facts, figures)
    else:
        roots = _add_tree_from_levels(graph, wiring, facts, figures)
    for gpu in wiring.gpus:
        if gpu.c2c is not None and gpu.numa is not None:
            rate = gpu.c2c.count * gpu.c2c.bytes_per_s
            link = make_link(figures, "c2c", bytes_per_s=rate, count=gpu.c2c.count)
            add_both_ways(graph, f"gpu{gpu.slot}", f"numa{gpu.numa}", link)
    ordered = sorted(roots)
    for i, a in enumerate(ordered):
        for b in ordered[i + 1 :]:
            rate = _socket_rate(facts, figures)
            add_both_ways(graph, a, b, make_link(figures, "socket", bytes_per_s=rate))


def _add_reported_tree(
    graph: Graph, wiring: Wiring, facts: Facts, figures: LinkFigures
) -> set[str]:
    """The PCIe tree as bridges report it; bridge ports of one switch become one vertex."""
    roots = {f"numa{numa_node.numa}" for numa_node in wiring.numa_nodes}
    graph.add_nodes_from(sorted(roots))
    switch_of: dict[int, str] = {}
    by_number = {bridge.bridge: bridge for bridge in wiring.bridges}
    for _, bridge in sorted(by_number.items()):
        above = None if bridge.parent is None else by_number[bridge.parent]
        same = above is not None and bridge.vendor_device is not None
        if above is not None and same and bridge.vendor_device == above.vendor_device:
            switch_of[bridge.bridge] = switch_of[above.bridge]
            continue
        switch = switch_of[bridge.bridge] = f"pcie{bridge.bridge}"
        rate = _pcie_rate(bridge.pcie_generation, bridge.pcie_width, facts, figures)
        if above is not None:
            link = make_link(figures, "pcie_switch", bytes_per_s=rate)
            add_both_ways(graph, switch, switch_of[above.bridge], link)
        elif bridge.numa is not None:
            roots.add(f"numa{bridge.numa}")
            link = make_link(figures, "pcie_uplink", bytes_per_s=rate)
            add_both_ways(graph, switch, f"numa{bridge.numa}", link)
    for device, vertex in _devices(wiring):
        above_device = switch_of.get(device.bridge) if device.bridge is not None else None
        by_c2c_alone = isinstance(device, GpuSlot) and device.c2c is not None
        if above_device is None and (device.numa is None or by_c2c_alone):
            continue
        if above_device is None:
            roots.add(f"numa{device.numa}")
        kind = "pcie_root_port" if above_device is None else "pcie"
        rate = _device_rate(device, facts, figures)
        link = make_link(figures, kind, bytes_per_s=rate)
        add_both_ways(graph, vertex, above_device or f"numa{device.numa}", link)
    return roots


def _add_tree_from_levels(
    graph: Graph, wiring: Wiring, facts: Facts, figures: LinkFigures
) -> set[str]:
    """A PCIe tree that shows the levels a matrix prints.

    Devices at PIX share a switch, at PXB a switch above that, at PHB or NODE a root complex. What
    no row joins stays apart; roots are joined where a row says SYS or their NUMA numbers differ.
    """
    devices = {vertex: device for device, vertex in _devices(wiring)}
    near, middle, root = (_Groups(devices) for _ in range(3))
    for pair in wiring.pcie_levels:
        for groups, levels in ((near, _NEAR), (middle, _MIDDLE), (root, _ROOT)):
            if pair.level in levels and pair.a in devices and pair.b in devices:
                groups.join(pair.a, pair.b)
    for vertices in _by_numa(wiring).values():
        for vertex in vertices[1:]:
            root.join(vertices[0], vertex)
    told = {vertex for pair in wiring.pcie_levels for vertex in (pair.a, pair.b)}
    roots: set[str] = set()
    for vertex, device in devices.items():
        rate = _device_rate(device, facts, figures)
        top = _root_name(root.members(vertex), devices)
        graph.add_node(top)
        if vertex in told or device.numa is not None:
            roots.add(top)
        here = vertex
        for above in (*_switches_above(vertex, near, middle), top):
            kind = _kind_between(here, above, top)
            if not graph.has_edge(here, above):
                add_both_ways(graph, here, above, make_link(figures, kind, bytes_per_s=rate))
            here = above
    has_sys = any(pair.level is PcieLevel.SYS for pair in wiring.pcie_levels)
    return roots if has_sys or len(_by_numa(wiring)) > 1 else set()


def _switches_above(vertex: str, near: "_Groups", middle: "_Groups") -> Iterator[str]:
    """The switch that a device shares at PIX, and the one above it that it shares at PXB."""
    if len(middle.members(vertex)) > 1:
        yield f"pcie-{near.name(vertex)}"
    if middle.members(vertex) != near.members(vertex):
        yield f"pcie-{middle.name(vertex)}-upper"


_NEAR: Final = (PcieLevel.INTERNAL, PcieLevel.PIX)
_MIDDLE: Final = (*_NEAR, PcieLevel.PXB)
_ROOT: Final = (*_MIDDLE, PcieLevel.PHB, PcieLevel.NODE)


def _kind_between(here: str, above: str, top: str) -> str:
    if here.startswith("pcie-"):
        return "pcie_uplink" if above == top else "pcie_switch"
    return "pcie_root_port" if above == top else "pcie"


class _Groups:
    """Vertices joined step by step (union-find)."""

    def __init__(self, vertices: Iterable[str]) -> None:
        self._group = {vertex: [vertex] for vertex in vertices}

    def join(self, a: str, b: str) -> None:
        first, second = self._group[a], self._group[b]
        if first is second:
            return
        first.extend(second)
        for vertex in second:
            self._group[vertex] = first

    def members(self, vertex: str) -> list[str]:
        return sorted(self._group[vertex])

    def name(self, vertex: str) -> str:
        return self.members(vertex)[0]


def _by_numa(wiring: Wiring) -> dict[int, list[str]]:
    vertices: dict[int, list[str]] = defaultdict(list)
    for device, vertex in _devices(wiring):
        if device.numa is not None:
            vertices[device.numa].append(vertex)
    return vertices


def _root_name(members: list[str], devices: dict[str, GpuSlot | NicSlot]) -> str:
    numas = sorted({n for vertex in members if (n := devices[vertex].numa) is not None})
    return f"numa{numas[0]}" if numas else f"numa-of-{members[0]}"


def _devices(wiring: Wiring) -> Iterator[tuple[GpuSlot | NicSlot, str]]:
    for gpu in wiring.gpus:
        yield gpu, f"gpu{gpu.slot}"
    for nic in wiring.nics:
        yield nic, f"nic{nic.slot}"


def _device_rate(device: GpuSlot | NicSlot, facts: Facts, figures: LinkFigures) -> float:
    generation = device.pcie_generation
    if generation is None and isinstance(device, GpuSlot):
        generation = facts[device.slot].pcie_generation
    return _pcie_rate(generation, device.pcie_width, facts, figures)


def _pcie_rate(
    generation: int | None, width: int | None, facts: Facts, figures: LinkFigures
) -> float:
    """Rate of a PCIe link; what is not reported is taken from the node's GPUs, 16 lanes. [B/s]"""
    if generation is None:
        known = [facts.pcie_generation for facts in facts.values()]
        generation = max(known, default=FALLBACK_PCIE_GENERATION)
    generation = min(generation, figures.newest_pcie_generation)
    rate = figures.rate_of(LinkName.PCIE_X16, str(generation))
    assert rate is not None, "there is a row for every generation up to the newest"
    return rate * (width or LANES) / LANES


def _socket_rate(facts: Facts, figures: LinkFigures) -> float:
    generations = [facts.pcie_generation for facts in facts.values()]
    generation = pcie_class_generation(max(generations, default=FALLBACK_PCIE_GENERATION))
    return figures.route_class[f"pcie_gen{generation}_cross_socket"].bytes_per_s


def pcie_class_generation(generation: int) -> int:
    """The generation with route classes that is nearest to a PCIe generation."""
    return min(max(generation, _OLDEST_CLASS), _NEWEST_CLASS)

"""The view node: the inside of one node, NVLink on top, CPU sockets at the bottom.

The picture is its shape's; what the node itself lacks is marked.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import cos, pi, sin
from typing import Final

from fleet import Node
from fleet.naming import counted, natural_key
from fleet.units import text_from_rate
from topology.diagram.layout import (
    Anchor,
    Body,
    Box,
    BoxKind,
    Dash,
    Line,
    LineLook,
    Mark,
    Point,
    Role,
    Sheet,
    Style,
    Text,
    Tier,
    chip,
    link_look,
)
from topology.diagram.legend import (
    Bundle,
    inside_samples,
    link_legend,
    route_legend,
    sheet_notes,
    span,
)
from topology.diagram.metrics import fitted, text_width
from topology.diagram.node_links import LinkSet, link_set
from topology.diagram.node_tree import GPU_WIDTH, NIC_WIDTH, Tree
from topology.diagram.node_words import (
    cpu_name,
    deviation_notes,
    device_fault,
    device_words,
    node_number,
    parts_text,
    port_notes,
    scale_up_name,
)
from topology.diagram.slots import fleet_name, place_text, slot_legend, slot_marks, slots_text
from topology.fabric.from_fleet import Fabric, FabricNode
from topology.fabric.graph import all_links
from topology.fabric.node_graph import build_node_graph

MOST_ARCS: Final = 64

_CAPTION: Final = 84.0
_PAD: Final = 12.0
_HEAD: Final = 36.0
_LEAST_WIDTH: Final = 260.0
_GAP: Final = 30.0
_NIC_GAP: Final = 16.0
_SWITCH: Final = 26.0
_GPU: Final = 40.0
_PCIE: Final = 22.0
_NIC: Final = 28.0
_ROOT: Final = 34.0
_BUS: Final = 14.0
_RACK_GAP: Final = 40.0
_RACK: Final = "NVLink switches of the rack"


def node_sheet(fabric: Fabric, host: str | None = None) -> Sheet:
    """The inside of one node, the first one where none is named.

    Raises:
        WorkloadError: no such host.
    """
    number = node_number(fabric, host)
    node, map_node = fabric.nodes[number], fabric.fleet.nodes[number]
    counts = Counter(slot_marks(fabric, map_node, node).values())
    bundles: dict[str, Bundle] = defaultdict(Bundle)
    for _, _, link in all_links(node.graph.graph):
        bundles[link.kind].add(link)
    return Sheet(
        kicker=f"Node of {fleet_name(fabric)}, shape {fitted(map_node.shape, 280, 7.0)}",
        title=f"{fitted(node.host, 340, 17.0, bold=True)}: {parts_text(node)}",
        subtitle=slots_text(counts),
        body=_Inside(fabric, node, map_node).body(),
        legend=(
            link_legend(fabric, dict(bundles)),
            route_legend(inside_samples(fabric, node)),
            slot_legend(counts),
        ),
        notes=(*deviation_notes(map_node), *port_notes(node), *sheet_notes(fabric)),
    )


class _Inside:
    """Boxes of a node from its shape's wiring; what the node itself lacks is marked."""

    def __init__(self, fabric: Fabric, node: FabricNode, map_node: Node) -> None:
        self.fabric, self.node, self.map_node = fabric, node, map_node
        self.shape = fabric.fleet.shape_of(map_node)
        whole = build_node_graph(self.shape, fabric.figures) if map_node.deviations else node.graph
        self.graph, self.real = whole.graph, node.graph.graph
        self._links_of = partial(link_set, self.graph, self.real)
        self.marks = slot_marks(fabric, map_node, node)
        devices = [f"gpu{gpu.slot}" for gpu in self.shape.gpus]
        devices += [f"nic{nic.slot}" for nic in self.shape.nics]
        self.tree = Tree(self.graph, devices, _CAPTION + _PAD)
        self.right = max(self.tree.right, _CAPTION + _PAD + _LEAST_WIDTH)
        self.buses: list[tuple[Box, list[str], list[str]]] = []
        self.boxes: dict[str, Box] = {}
        self.lines: list[Line] = []
        self.texts: list[Text] = []
        self.tiers: list[Tier] = []

    def body(self) -> Body:
        """The picture: rows from the NVLink switches down to the sockets."""
        top = self._add_rack()
        y = self._add_scale_up(top + _HEAD)
        for caption, vertices, height, gap in self._rows():
            if vertices:
                self.tiers.append(_tier(caption, len(vertices), y, height))
                for vertex in vertices:
                    self._add_device(vertex, y, height)
                y += height + gap
        bottom = self._add_roots(y) + _PAD
        self._connect()
        place, style = place_text(self.map_node), Style(Anchor.TOP_LEFT, 8.5, bold=True)
        at = _CAPTION, top, self.right + _PAD - _CAPTION, bottom - top
        host = fitted(self.node.host, at[2] - 2 * _PAD, style.size_pt, bold=True)
        frame = Box("frame", BoxKind.NODE, *at, host, (fitted(place, at[2] - _PAD, 7.5),), style)
        boxes = frame, *self.boxes.values()
        drawn = tuple(self.lines), tuple(self.texts), tuple(self.tiers)
        return Body(frame.right, bottom, boxes, *drawn)

    def _rows(self) -> Iterator[tuple[str, list[str], float, float]]:
        """Rows below the NVLink part: caption, vertices, height, gap below."""
        tree = self.tree
        yield "GPU", [v for v in tree.place if v.startswith("gpu")], _GPU, _GAP
        switches = [v for v in tree.place if v.startswith("pcie")]
        nics = [v for v in tree.place if v.startswith("nic")]
        for depth in sorted({tree.depth[v] for v in switches}, reverse=True):
            here = [v for v in switches if tree.depth[v] == depth]
            below = [v for v in nics if tree.parent.get(v) in here]
            yield "PCIe switch", here, _PCIE, _NIC_GAP if below else _GAP
            yield "NIC", below, _NIC, _GAP
        yield "NIC", [v for v in nics if tree.parent.get(v) not in switches], _NIC, _GAP

    def _add(self, box: Box, fault: str = "") -> Box:
        box = replace(box, level=box.level or 1, inside=box.inside or "frame")
        if fault:
            box = replace(box, role=Role.DEVIATING, dash=Dash.DASHED)
        self.boxes[box.name] = box
        return box

    def _add_device(self, vertex: str, y: float, height: float) -> None:
        x, width = self.tree.place[vertex]
        wide = min(width - 8, 1.2 * NIC_WIDTH) if vertex.startswith("nic") else width - 8
        label, detail = device_words(self.fabric, self.node, self.shape, vertex)
        fault = device_fault(self.node, self.map_node, vertex)
        details = (fitted(fault or detail, wide - 4, 6.5),) if fault or detail else ()
        at = x + (width - wide) / 2, y, wide, height
        role = {"gpu": Role.PANEL, "nic": Role.SHADE}.get(vertex[:3], Role.PCIE_SHADE)
        label = fitted(label, wide - 4, 7.5)
        box = self._add(Box(vertex, BoxKind.DEVICE, *at, label, details, role=role), fault)
        if vertex.startswith("gpu") and int(vertex[3:]) in self.marks:
            self._add_mark(box, self.marks[int(vertex[3:])])

    def _add_mark(self, box: Box, mark: Mark) -> None:
        at = box.right - 12, box.y + 3, 9.0, 9.0
        self._add(Box(f"{box.name} slot", BoxKind.SLOT, *at, level=2, inside=box.name, mark=mark))

    def _add_line(
        self, points: tuple[Point, ...], ends: tuple[str, str], links: LinkSet, label: str = ""
    ) -> None:
        """A line for some links; broken and in the colour of faults where all are gone."""
        look = link_look(links.whole.kind, width_pt=links.whole.width_pt)
        if not links.real.count:
            look = LineLook(Role.DEVIATING, Dash.DASHED, 1.2)
        self.lines.append(Line(points, links.whole.kind, look, ends, label or links.whole.text))

    def _add_chip(
        self, at: Point, text: str, links: LinkSet | None = None, patch: Role = Role.PANEL
    ) -> None:
        role = Role.DEVIATING if links is not None and links.has_fault else Role.INK
        self.texts.append(chip(*at, text, patch, role))

    def _add_rack(self) -> float:
        """The NVLink switches outside the node, in one box; where the node's frame begins."""
        rack = [vertex for vertex in self.graph if vertex.startswith("domain_switch")]
        if not rack:
            return 0.0
        is_told = "hidden" not in rack[0]
        label = f"{counted(len(rack), 'NVLink switch')} of the rack" if is_told else _RACK
        details = () if is_told else ("their number is not reported",)
        at = _CAPTION + _PAD, 0.0, self.right - _CAPTION - _PAD, _SWITCH
        box = Box(_RACK, BoxKind.SWITCH, *at, label, details, role=Role.NVLINK_SHADE)
        self.boxes[_RACK] = replace(box, count=len(rack), dash=Dash.DASHED)
        return _SWITCH + _RACK_GAP

    def _add_scale_up(self, y: float) -> float:
        """NVLink above the GPUs: switches and a bus for each set of GPUs, or arcs."""
        told = [f"nvswitch{switch.index}" for switch in self.shape.nvswitches]
        found = [v for v in self.graph if v.startswith(("nvswitch", "domain_switch"))]
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for vertex in sorted({*told, *found}, key=natural_key):
            gpus = set(self.graph.successors(vertex)) if vertex in self.graph else set()
            groups[tuple(sorted(gpus, key=natural_key))].append(vertex)
        inner = [v for group in groups.values() for v in group if v.startswith("nvswitch")]
        if inner:
            self._add_nvswitches(inner, y)
            y += _SWITCH + _GAP
        for joined, switches in groups.items():
            y = self._add_bus(list(joined), switches, y) if joined else y
        return self._add_arcs(y + _GAP - 10 if self.buses else y)

    def _add_nvswitches(self, vertices: list[str], y: float) -> None:
        gpus_at = [self.tree.mid(v) for v in self.tree.place if v.startswith("gpu")]
        left = min(gpus_at, default=self.right) - GPU_WIDTH / 2
        share = (max(gpus_at, default=self.right) + GPU_WIDTH / 2 - left) / len(vertices)
        wide = min(share - 6, 104.0)
        for i, vertex in enumerate(vertices):
            label = "NVSwitches" if "hidden" in vertex else f"NVSwitch {vertex[8:]}"
            label = next((t for t in (label, vertex[8:]) if text_width(t, 7.5) < wide), "")
            at, fault = (
                (left + (i + 0.5) * share - wide / 2, y, wide, _SWITCH),
                device_fault(self.node, self.map_node, vertex),
            )
            details = (fitted(fault, wide - 4, 6.5),) if fault else ()
            box = Box(vertex, BoxKind.SWITCH, *at, label, details, role=Role.NVLINK_SHADE)
            self._add(box, fault)
        self.tiers.append(_tier("NVSwitch", len(vertices), y, _SWITCH))

    def _add_bus(self, gpus: list[str], switches: list[str], y: float) -> float:
        """A bar that stands for the links of every GPU to every switch of a set."""
        mids = [self.tree.mid(gpu) for gpu in gpus]
        left, wide = min(mids) - 14, max(mids) - min(mids) + 28
        bundles = [self._links_of([gpu], switches).whole for gpu in gpus]
        count = span((bundle.count for bundle in bundles), lambda n: f"{n:.0f}")
        rates = span((bundle.bytes_per_s for bundle in bundles), text_from_rate)
        what = scale_up_name(bundles[0].kind)
        texts = (f"{what}, {count} links, {rates} from each GPU", f"{count} links, {rates}", count)
        label = next((t for t in texts if text_width(t, 6.5) <= wide - 4), "")
        name, style = f"bus {len(self.buses)}", Style(size_pt=6.5)
        box = Box(name, BoxKind.BUS, left, y, wide, _BUS, label, (), style, Role.NVLINK_SHADE)
        self.buses.append((self._add(box), gpus, switches))
        return y + _BUS + 10

    def _add_arcs(self, y: float) -> float:
        """Links from GPU to GPU as arcs, higher for farther ones; the foot of the arcs."""
        mid = self.tree.mid
        ends = [(u, v) for u, v, _ in all_links(self.graph) if u[:3] == v[:3] == "gpu"]
        pairs = sorted({(u, v) if mid(u) < mid(v) else (v, u) for u, v in ends})
        order = sorted({v for pair in pairs for v in pair}, key=mid)
        if not pairs or len(pairs) > MOST_ARCS:
            return self._add_bus(order, order, y) + _GAP - 10 if pairs else y
        reach = {(a, b): order.index(b) - order.index(a) for a, b in pairs}
        spans = sorted(set(reach.values()))
        foot = y + 16.0 + 17 * len(spans)
        fans: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for a, b in pairs:
            fans[a].append((1, -reach[a, b], b))
            fans[b].append((0, reach[a, b], a))
        for a, b in pairs:
            xs = self._port(a, sorted(fans[a]), b), self._port(b, sorted(fans[b]), a)
            self._add_arc((a, b), xs, foot, 22.0 + 17 * spans.index(reach[a, b]))
        rates = {rate for a, b in pairs for rate in self._links_of([a], [b]).whole.rates}
        details = counted(len(pairs), "pair"), f"{span(rates, text_from_rate)} a link"
        what = scale_up_name(self._links_of(pairs[0][:1], pairs[0][1:]).whole.kind)
        self.tiers.append(Tier(what, details, (y + foot) / 2, 0.0))
        return foot

    def _port(self, vertex: str, fan: list[tuple[int, int, str]], far: str) -> float:
        """Where an arc meets its GPU: the shortest one beside the neighbour it leads to."""
        place = next(i for i, (_, _, other) in enumerate(fan) if other == far)
        return self.tree.mid(vertex) + (GPU_WIDTH - 20) * ((place + 1) / (len(fan) + 1) - 0.5)

    def _add_arc(self, pair: tuple[str, str], xs: Point, foot: float, height: float) -> None:
        links = self._links_of(pair[:1], pair[1:])
        middle, radius = (xs[0] + xs[1]) / 2, (xs[1] - xs[0]) / 2
        turns = [pi * i / 32 for i in range(33)]
        points = tuple((middle - radius * cos(t), foot - height * sin(t)) for t in turns)
        self._add_line(points, pair, links, counted(links.whole.count, "link"))
        look = replace(self.lines[-1].look, width_pt=min(0.5 + 0.7 * links.whole.count, 6.0))
        self.lines[-1] = replace(self.lines[-1], look=look)
        self._add_chip((middle, foot - height), links.text, links)

    def _add_roots(self, y: float) -> float:
        """CPU sockets with what joins them; the lower end."""
        busy = [[vertex] for vertex in self.tree.tops if vertex in self.tree.roots]
        groups = [*busy, self.tree.idle] if self.tree.idle else busy
        boxes = [self._add_root(vertices, y) for vertices in groups]
        if not boxes:
            return y - _GAP
        self.tiers.append(_tier("CPU", len(self.tree.roots), y, _ROOT))
        low = y + _ROOT
        pairs = [(u, v) for u, v, link in all_links(self.graph) if link.kind == "socket" and u < v]
        if not pairs or len(boxes) == 1:
            return low
        each = self._links_of(pairs[0][:1], pairs[0][1:])
        for a, b in pairwise(boxes):
            turn = low + 12
            points = (a.mid_x, low), (a.mid_x, turn), (b.mid_x, turn), (b.mid_x, low)
            self._add_line(points, (a.name, b.name), each)
        rate = text_from_rate(each.whole.bytes_per_s)
        text = rate if len(pairs) == 1 else f"{len(pairs)} pairs, {rate} each"
        self._add_chip(((boxes[0].mid_x + boxes[1].mid_x) / 2, low + 12), text)
        return low + 20

    def _add_root(self, vertices: list[str], y: float) -> Box:
        x, width = self.tree.place[vertices[0]]
        numbers = [vertex.removeprefix("numa") for vertex in vertices]
        is_told = numbers[0].isdecimal()
        label = f"NUMA node {numbers[0]}" if is_told else "root complex"
        told = [n for n in self.shape.numa_nodes if str(n.numa) == numbers[0]]
        words = [
            word for n in told for word in (cpu_name(n.model, n.vendor), n.architecture) if word
        ]
        detail = " ".join(words) if is_told else "NUMA not reported"
        if len(vertices) > 1:
            label, detail = f"NUMA {', '.join(numbers)}", "no devices"
        is_rank = not self.node.graph.is_gpu_node and self.node.graph.vertex(0) in vertices
        details = ("CPU rank" if is_rank else fitted(detail, width - 12, 6.5),)
        at = x + 4, y, width - 8, _ROOT
        box = Box(vertices[0], BoxKind.DEVICE, *at, fitted(label, width - 12, 7.5), details)
        box = self._add(replace(box, count=len(vertices)))
        if is_rank:
            self._add_mark(box, self.marks[0])
        return box

    def _connect(self) -> None:
        """Lines from each bus to its GPUs and switches, and along the PCIe tree."""
        for bus, gpus, switches in self.buses:
            for gpu in gpus:
                links = self._links_of([gpu], switches)
                x, top = self.tree.mid(gpu), self.boxes[gpu].y
                self._add_line(((x, bus.bottom), (x, top)), (bus.name, gpu), links)
                if links.has_fault:
                    self._add_chip((x, (bus.bottom + top) / 2), links.text, links)
            self._connect_switches(bus, gpus, switches)
        for u, v, link in all_links(self.graph):
            is_tree = self.tree.parent.get(u) == v
            is_other = self.tree.parent.get(v) != u and u < v and link.kind in _TREE_KINDS
            if is_tree or is_other:
                self._add_line(self._way(u, v), (u, v), self._links_of([u], [v]))

    def _connect_switches(self, bus: Box, gpus: list[str], switches: list[str]) -> None:
        """Lines from a bus to its switches, with the links each has to a GPU."""
        for vertex in switches:
            if not vertex.startswith("nvswitch"):
                continue
            box, links = self.boxes[vertex], self._links_of(gpus, [vertex])
            x = min(max(box.mid_x, bus.x + 4), bus.right - 4)
            self._add_line(((box.mid_x, box.bottom), (x, bus.y)), (vertex, bus.name), links)
            counts = [self._links_of([gpu], [vertex]).whole.count for gpu in gpus]
            text = f"{span(counts, lambda n: f'{n:.0f}')} to each GPU"
            if text_width(text, 6.5) > box.width:
                text = text.partition(" to each")[0]
            middle = (box.mid_x + x) / 2, (box.bottom + bus.y) / 2
            self._add_chip(middle, links.text if links.has_fault else text, links)
        if switches[0].startswith("domain_switch"):
            rack, links = self.boxes[_RACK], self._links_of(gpus, switches)
            points = (bus.mid_x, rack.bottom), (bus.mid_x, bus.y)
            self._add_line(points, (_RACK, bus.name), links)
            at, text = (bus.mid_x, rack.bottom + _RACK_GAP / 2), links.whole.text
            self._add_chip(at, links.text if links.has_fault else text, links, Role.PAPER)

    def _way(self, low: str, high: str) -> tuple[Point, Point]:
        """Line from a device to what it hangs on: straight down, or up from a NIC."""
        a, b = self.boxes[low], self.boxes[high]
        if a.y > b.y:
            return (a.mid_x, a.y), (a.mid_x, b.bottom)
        x = a.x + 5 if low.startswith("pcie") else a.mid_x
        return (x, a.bottom), (x if b.x <= x <= b.right else b.mid_x, b.y)


_TREE_KINDS: Final = ("pcie", "pcie_switch", "pcie_uplink", "pcie_root_port", "c2c")


def _tier(label: str, count: int, y: float, height: float) -> Tier:
    return Tier(label, (f"{count:,}",) if count > 1 else (), y, height)

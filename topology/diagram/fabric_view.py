"""The view fabric: nodes, leaves, spines and cores as tiers, and what a message costs in them.

Where there are many, what is wired alike folds into one box that says how many it stands for.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from fleet import HostName
from fleet.naming import counted, name_range, natural_key
from topology.diagram.cables import Cabling
from topology.diagram.columns import Column, Vertex, columns, route_samples
from topology.diagram.fabric_words import bus_of, rails_text, tier_name
from topology.diagram.layout import (
    Anchor,
    Body,
    Box,
    BoxKind,
    LegendEntry,
    LegendTable,
    Line,
    Role,
    Sheet,
    Style,
    Text,
    Tier,
    chip,
    link_look,
)
from topology.diagram.legend import (
    MOST_SLOTS,
    Bundle,
    link_bundles,
    link_legend,
    route_legend,
    sheet_notes,
)
from topology.diagram.metrics import fitted, text_width
from topology.diagram.slots import fleet_name, ranks_text
from topology.fabric.from_fleet import Fabric, FabricNode
from topology.fabric.graph import all_links
from topology.fabric.network import LEAF_TIER

MOST_SWITCHES: Final = 10
MOST_LINES: Final = 40
MOST_NODES: Final = 4
MOST_SHAPES: Final = 3

_CAPTION: Final = 112.0
_COLUMN: Final = 118.0
_COLUMN_GAP: Final = 14.0
_SWITCH: Final = 72.0
_LEAST_WIDTH: Final = 900.0
_ROW: Final = 34.0
_GAP: Final = 62.0
_MESH_GAP: Final = 108.0
_NODE: Final = 72.0
_PLAIN_NODE: Final = 50.0
_RACK_GAP: Final = 36.0
_MARK: Final = 9.0
_PAD: Final = 9.0

Place: TypeAlias = tuple[float, float, float]
"""Left, top and width."""


def fabric_sheet(fabric: Fabric) -> Sheet:
    """The fabric as tiers, and the latency of every link and route class in it."""
    picture = _Picture(fabric)
    switches = counted(len(fabric.fleet.switches), "switch")
    tiers = Counter(fabric.network.tier_of.values())
    parts = [counted(tiers[tier], tier_name(tier)) for tier in sorted(tiers)]
    nvlink = sum(1 for switch in fabric.fleet.switches if switch.nvlink_domain is not None)
    parts += [counted(nvlink, "NVLink switch")] if nvlink else []
    return Sheet(
        kicker=f"Fabric of {fleet_name(fabric)}",
        title=f"{counted(len(fabric.nodes), 'node')}, {ranks_text(fabric)}, {switches}",
        subtitle=", ".join(parts) or "no switch is known",
        body=picture.body(),
        legend=(
            link_legend(fabric, link_bundles(fabric)),
            route_legend(route_samples(fabric, picture.columns)),
            _box_legend(picture),
        ),
        notes=sheet_notes(fabric),
    )


class _Picture:
    """Boxes from the cores down to the nodes, then the lines between them."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.columns = columns(fabric)
        with_switches = {switch.nvlink_domain for switch in fabric.fleet.switches}
        self.joined = {
            i
            for i, domain in enumerate(fabric.domains)
            if len(domain.hosts) > 1 or domain.name in with_switches
        }
        self.shape_of = {node.host: str(node.shape) for node in fabric.fleet.nodes}
        self.node_groups = [self._groups_of(column) for column in self.columns]
        self.groups = self._switch_groups()
        self.is_fine = self._find_fine_tiers()
        self.boxes: dict[str, Box] = {}
        self.box_of: dict[Vertex, Box] = {}
        self.lines: list[Line] = []
        self.texts: list[Text] = []
        self.tiers: list[Tier] = []
        has_bus = any(node.graph.is_gpu_node for node in fabric.nodes)
        self.node_height = _NODE if has_bus else _PLAIN_NODE
        self.nodes_y = 0.0
        self._set_columns()

    def _groups_of(self, column: Column) -> list[tuple[HostName, ...]]:
        """Nodes of a column that one box stands for: those of one shape, domains first."""
        groups: dict[tuple[bool, str], list[HostName]] = defaultdict(list)
        shapes = {self.shape_of[host] for host in column.hosts}
        for host in column.hosts:
            kind = self.shape_of[host] if len(shapes) <= MOST_SHAPES else ""
            kind = host if len(self.fabric.nodes) <= MOST_NODES else kind
            groups[not self._domains_of([host]), kind].append(host)
        return [tuple(groups[key]) for key in sorted(groups)]

    def _domains_of(self, hosts: Iterable[HostName]) -> list[int]:
        """NVLink domains of nodes, where they join nodes or have switches outside."""
        numbers = {n for h in hosts for n in self.fabric.node_of[h].domain_of_slot.values()}
        return sorted(self.joined & numbers)

    def _switch_groups(self) -> dict[int, list[tuple[list[str], int, int]]]:
        """Switches of each tier, top first, with the first and last column they stand over."""
        tier_of, pod_of = self.fabric.network.tier_of, self.fabric.network.pod_of
        last = len(self.columns) - 1
        groups: dict[int, dict[tuple[int, int], list[str]]] = defaultdict(lambda: defaultdict(list))
        columns_of: dict[int, list[int]] = defaultdict(list)
        for i, column in enumerate(self.columns):
            for pod in column.pods:
                columns_of[pod].append(i)
            if column.leaves:
                groups[LEAF_TIER][i, i] = list(column.leaves)
        for switch in sorted(tier_of, key=natural_key):
            if tier_of[switch] != LEAF_TIER:
                over = columns_of.get(pod_of.get(switch, -1), [0, last])
                groups[tier_of[switch]][min(over), max(over)].append(switch)
        return {tier: _disjoint(groups[tier]) for tier in sorted(groups, reverse=True)}

    def _find_fine_tiers(self) -> set[int]:
        """Tiers whose switches are drawn one by one: few, and few lines down."""
        fine = set()
        below = sum(len(groups) for groups in self.node_groups)
        for tier in sorted(self.groups):
            count = sum(len(names) for names, _, _ in self.groups[tier])
            if count <= MOST_SWITCHES and count * below <= MOST_LINES:
                fine.add(tier)
                below = count
            else:
                below = len(self.groups[tier])
        return fine

    def _set_columns(self) -> None:
        """Left edge and width of each column."""
        is_fine = LEAF_TIER in self.is_fine
        widths = [
            max(_COLUMN * max(1, len(groups)), _SWITCH * len(column.leaves) * is_fine)
            for column, groups in zip(self.columns, self.node_groups, strict=True)
        ]
        gaps = _COLUMN_GAP * (len(widths) - 1)
        factor = max(1.0, (_LEAST_WIDTH - gaps) / sum(widths))
        x = _CAPTION
        self.places: list[tuple[float, float]] = []
        for width in widths:
            self.places.append((x, width * factor))
            x += width * factor + _COLUMN_GAP
        self.width = x - _COLUMN_GAP

    def body(self) -> Body:
        """The picture."""
        y = 0.0
        for tier, groups in self.groups.items():
            for names, first, last in groups:
                self._add_switches(tier, names, (first, last), y)
            total = sum(len(names) for names, _, _ in groups)
            self.tiers.append(Tier(tier_name(tier), (counted(total, "switch"),), y, _ROW))
            is_mesh = tier in self.is_fine and total > 1 and tier > LEAF_TIER
            y += _ROW + (_MESH_GAP if is_mesh else _GAP)
        self.nodes_y = y
        bottom = max((self._add_column(i, y) for i in range(len(self.columns))), default=y)
        ranks = ranks_text(self.fabric).split(", ")
        details = (counted(len(self.fabric.nodes), "node"), *ranks)
        self.tiers.append(Tier("nodes", details, y, _PLAIN_NODE))
        cabling = Cabling(self.fabric, self.box_of, self.nodes_y)
        self.lines += cabling.lines
        self.texts += cabling.texts
        self.tiers += cabling.tiers
        boxes = tuple(self.boxes.values())
        return Body(
            self.width, bottom, boxes, tuple(self.lines), tuple(self.texts), tuple(self.tiers)
        )

    def _add(self, box: Box, vertices: Iterable[Vertex] = ()) -> Box:
        self.boxes[box.name] = box
        self.box_of.update(dict.fromkeys(vertices, box))
        return box

    def _add_switches(self, tier: int, names: list[str], span: tuple[int, int], y: float) -> None:
        """The switches of a group one by one, or folded into one box over their columns."""
        x = self.places[span[0]][0]
        width = sum(self.places[span[1]]) - x
        folds = [[name] for name in names] if tier in self.is_fine else [names]
        share = width / len(folds)
        wide = share if len(folds) == 1 else min(share - 8, 1.6 * _SWITCH)
        for i, fold in enumerate(folds):
            name, label, details = fold[0], fold[0], [""]
            if len(fold) > 1:
                name = label = counted(len(fold), tier_name(tier))
                name = f"{name} from {fold[0]}"
                label += rails_text(self.fabric, fold) if tier == LEAF_TIER else ""
                details = [fitted(name_range(fold), wide - 6, 6.5)]
            at = x + share * i + (share - wide) / 2, y, wide, _ROW
            box = Box(name, BoxKind.SWITCH, *at, fitted(label, wide - 6, 7.5), tuple(details))
            self._add(replace(box, count=len(fold)), ((False, switch) for switch in fold))

    def _add_column(self, number: int, y: float) -> float:
        """Nodes of a column with their NVLink domains; the lower end."""
        column, groups = self.columns[number], self.node_groups[number]
        x, width = self.places[number]
        joined = [group for group in groups if self._domains_of(group)]
        step = (width + _COLUMN_GAP) / max(1, len(groups))
        low = y + self.node_height if groups else y
        if joined or column.nvlink_switches:
            wide = step * max(1, len(joined)) - _COLUMN_GAP
            name = f"NVLink domains of column {number}"
            low = max(low, self._add_domain(name, column, joined, (x, y, wide)))
        for i, group in enumerate(groups[len(joined) :], start=len(joined)):
            self._add_node(group, (x + i * step, y, step - _COLUMN_GAP))
        return low

    def _add_domain(
        self, name: str, column: Column, groups: Sequence[tuple[HostName, ...]], place: Place
    ) -> float:
        """The box of NVLink domains around nodes, with their switches below; the lower end."""
        (x, y, width), names = place, column.nvlink_switches
        joined = [host for group in groups for host in group]
        domain = Box(name, BoxKind.DOMAIN, x, y, width, 0, role=Role.NVLINK_PANEL)
        self._add(replace(domain, count=len(self._domains_of(joined))))
        step = (width - 2 * _PAD + _COLUMN_GAP) / max(1, len(groups))
        nodes = [
            self._add_node(
                group, (x + _PAD + i * step, y + _PAD, step - _COLUMN_GAP), domain=domain
            )
            for i, group in enumerate(groups)
        ]
        low = y + _PAD + (_PLAIN_NODE if nodes else 0.0)
        if names:
            low += _RACK_GAP if nodes else 0.0
            label = fitted(counted(len(names), "NVLink switch"), width - 2 * _PAD - 6, 7.5)
            at = x + _PAD, low, width - 2 * _PAD, 20.0
            switch = Box(f"NVLink switches from {names[0]}", BoxKind.SWITCH, *at, label)
            switch = replace(switch, role=Role.NVLINK_SHADE, level=1, inside=name, count=len(names))
            self._add(switch)
            low += switch.height
            for node in nodes:
                self._add_domain_line(node, switch)
        low += 17.0
        texts = self._domain_texts(joined)
        label = next((t for t in texts if text_width(t, 7.0) <= width - 8), texts[-1])
        label, style = fitted(label, width - 8, 7.0), Style(Anchor.BOTTOM, 7.0)
        self.boxes[name] = replace(self.boxes[name], height=low - y, label=label, style=style)
        return low

    def _domain_texts(self, joined: Sequence[HostName]) -> tuple[str, ...]:
        """What the domains of some nodes are, the longest text first."""
        domains = [self.fabric.domains[number] for number in self._domains_of(joined)]
        if not domains:
            return ("NVLink domain not in this map",)
        sizes = sorted({len(domain.endpoints) for domain in domains})
        size = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else str(sizes[0])
        hosts = {host for domain in domains for host in domain.hosts}
        part = "" if hosts <= set(joined) else "part of "
        if len(domains) == 1:
            return f"{part}NVLink domain, {size} GPUs", f"{part}{size} GPUs"
        return (
            f"{part}{len(domains)} NVLink domains of {size} GPUs",
            f"{part}{len(domains)} x {size} GPUs",
        )

    def _add_domain_line(self, node: Box, switch: Box) -> None:
        """One line for all NVLinks of the nodes of a box to the switches of their rack."""
        hosts = [name for (is_host, name), box in self.box_of.items() if is_host and box is node]
        bundle = Bundle()
        for graph, times in Counter(self.fabric.node_of[HostName(h)].graph for h in hosts).items():
            for _, v, link in all_links(graph.graph):
                if v.startswith("domain_switch"):
                    bundle.add(link, times)
        if bundle.count:
            x, y = node.mid_x, (node.bottom + switch.y) / 2
            look = link_look(bundle.kind, width_pt=bundle.width_pt)
            points = (x, node.bottom), (x, switch.y)
            ends = node.name, switch.name
            self.lines.append(Line(points, bundle.kind, look, ends, bundle.text, level=1))
            self.texts.append(chip(x, y, bundle.text, Role.NVLINK_PANEL))

    def _add_node(self, hosts: Sequence[HostName], place: Place, domain: Box | None = None) -> Box:
        """The box of some nodes, one of them drawn: its slots, and the bus that joins them."""
        graphs = [self.fabric.node_of[host].graph for host in hosts]
        slots = Counter(slot for graph in graphs for slot in graph.slots)
        rank = "GPU" if graphs[0].is_gpu_node else "CPU rank"
        each = counted(len(graphs[0].slots), rank)
        if len({(len(graph.slots), graph.is_gpu_node) for graph in graphs}) > 1:
            each = f"{slots.total():,} slots together"
        x, y, width = place
        detail = each if len(hosts) == 1 else f"{counted(len(hosts), 'node')} x {each}"
        if each.endswith("together"):
            detail = f"{counted(len(hosts), 'node')}, {each}"
        name = hosts[0] if len(hosts) == 1 else f"{counted(len(hosts), 'node')} from {hosts[0]}"
        label = fitted(name_range(hosts), width - 8, 8.0, bold=True)
        details, style = (fitted(detail, width - 8, 7.0),), Style(Anchor.TOP, 8.0, bold=True)
        at = x, y, width, self.node_height if domain is None else _PLAIN_NODE
        box = Box(name, BoxKind.NODE, *at, label, details, style, level=1, count=len(hosts))
        box = replace(box, inside=domain.name if domain is not None else "")
        self._add(box, ((True, host) for host in hosts))
        usual = Counter(map(id, graphs)).most_common(1)[0][0]
        drawn = next(h for h, graph in zip(hosts, graphs, strict=True) if id(graph) == usual)
        self._add_slots(box, self.fabric.node_of[drawn], slots, domain or box)
        return box

    def _add_slots(self, node: Box, first: FabricNode, slots: Counter[int], around: Box) -> None:
        """Marks of one node; where there is room they stand below the leaves."""
        shown = sorted(slots)[:MOST_SLOTS]
        left, width = node.x + _PAD, node.width - 2 * _PAD
        if width > _SWITCH * len(shown) / 2 and node.width + 2 * _PAD >= around.width:
            left, width = around.x, around.width
        share = width / len(shown)
        size, top = min(_MARK, share - 2), node.y + 32.0
        marks = []
        for i, slot in enumerate(shown):
            at = left + (i + 0.5) * share - size / 2, top, size, size
            mark = Box(f"{node.name}:{slot}", BoxKind.SLOT, *at, role=Role.SLOT, level=2)
            count = slots[slot] if slot != shown[-1] else sum(slots[s] for s in slots if s >= slot)
            marks.append(self._add(replace(mark, inside=node.name, count=count)))
        if around is not node or not first.graph.is_gpu_node:
            return
        kind, texts, role = bus_of(first)
        left, wide = marks[0].x - 3, marks[-1].right - marks[0].x + 6
        label = next((t for t in texts if text_width(t, 6.5) <= wide - 4), "")
        at, style = (left, top + size + 9, wide, 14.0), Style(size_pt=6.5)
        bus = Box(f"{node.name} {kind}", BoxKind.BUS, *at, label, (), style, role, 2, node.name)
        self._add(bus)
        for mark in marks:
            points = (mark.mid_x, mark.bottom), (mark.mid_x, bus.y)
            self.lines.append(Line(points, kind, link_look(kind), (mark.name, bus.name), "", 1))


def _disjoint(groups: dict[tuple[int, int], list[str]]) -> list[tuple[list[str], int, int]]:
    """Switches by the columns they stand over; those that stand over common ones together."""
    result: list[tuple[list[str], int, int]] = []
    for (first, last), names in sorted(groups.items()):
        if result and first <= result[-1][2]:
            others, start, end = result.pop()
            result.append(([*others, *names], start, max(end, last)))
        else:
            result.append((names, first, last))
    return result


def _box_legend(picture: _Picture) -> LegendTable:
    rows = [(Role.PANEL, "switch or node; with a count: so many wired alike, one drawn")]
    rows.append((Role.SLOT, "slot of a GPU or CPU rank"))
    if any(box.kind is BoxKind.DOMAIN for box in picture.boxes.values()):
        rows.append((Role.NVLINK_PANEL, "NVLink domain across nodes"))
    entries = [LegendEntry(role, (text,)) for role, text in rows]
    entries.append(LegendEntry(None, ("the width of a line grows with the root of its bandwidth",)))
    return LegendTable("Boxes", ("",), tuple(entries))

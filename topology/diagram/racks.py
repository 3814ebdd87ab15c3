"""The view racks: where the nodes stand, and who holds their GPUs."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final

from fleet.naming import counted
from topology.diagram.layout import (
    Anchor,
    Body,
    Box,
    BoxKind,
    Dash,
    LegendEntry,
    LegendTable,
    Role,
    Sheet,
    Style,
    Swatch,
)
from topology.diagram.metrics import LINE_SPACING, ONE_EACH, SMALLEST_PT, fitted, text_width
from topology.diagram.places import Band, Occupant, Rack, bands_of, occupant_of
from topology.diagram.slots import (
    LONGEST_PLACE,
    fleet_name,
    ranks_text,
    slot_legend,
    slots_text,
)
from topology.fabric.from_fleet import Fabric

_MARKS_PER_LINE: Final = 8
_GAP: Final = 8.0
_BAND_HEAD: Final = 15.0
_SPINE: Final = 13.0
_COLUMN_GAP: Final = 3.0
_SLIMMEST: Final = 0.3
_BREAK: Final = 0.2
_ASPECT: Final = 1.6
_AROUND: Final = (72.0, 280.0)
"""What margins, header and legend add to the picture's width and height."""
_FULL_NAMES_UP_TO: Final = 48
_LONGEST_NAME: Final = 20
_SHAPES_SHOWN: Final = 6


@dataclass(frozen=True, slots=True)
class _Scale:
    """Sizes by how many nodes there are: marks and their pitch, types, gaps."""

    up_to_nodes: float
    pitch: float
    mark: float
    label_pt: float
    rack_pt: float
    row_gap: float
    pad: float
    band_gap: float


_SCALES: Final = (
    _Scale(2, 25.0, 19.0, 11.0, 11.0, 12.0, 8.0, 24.0),
    _Scale(8, 17.0, 13.0, 9.0, 9.0, 7.0, 6.0, 24.0),
    _Scale(_FULL_NAMES_UP_TO, 11.0, 8.6, 7.5, 8.0, 4.0, 5.0, 20.0),
    _Scale(400, 8.0, 6.4, 6.0, 6.5, 2.0, 4.0, 18.0),
    _Scale(math.inf, 4.8, 3.9, 0.0, 6.0, 0.8, 3.0, 12.0),
)


def racks_sheet(fabric: Fabric) -> Sheet:
    """The fleet as racks: a row for each node, a mark for each GPU slot."""
    joined = {i for i, domain in enumerate(fabric.domains) if len(domain.hosts) > 1}
    pairs = zip(fabric.fleet.nodes, fabric.nodes, strict=True)
    occupants = [occupant_of(fabric, node, fabric_node, joined) for node, fabric_node in pairs]
    bands = bands_of(occupants)
    drawing = _Drawing(fabric, bands)
    counts = Counter(mark for occupant in occupants for mark in occupant.marks.values())
    return Sheet(
        kicker=f"Fleet map of {fleet_name(fabric)}",
        title=_title(fabric, bands),
        subtitle=slots_text(counts),
        body=drawing.body(),
        legend=(
            slot_legend(counts),
            _place_legend(fabric, drawing, occupants),
            _shape_legend(fabric),
        ),
    )


class _Drawing:
    """Sizes that all racks share, and the flow of racks that comes nearest to 16:10."""

    def __init__(self, fabric: Fabric, bands: Sequence[Band]) -> None:
        occupants = [o for band in bands for rack in band.racks for o in rack.occupants]
        self.fabric, self.bands = fabric, bands
        self.scale = next(s for s in _SCALES if len(occupants) <= s.up_to_nodes)
        is_short = len(occupants) > _FULL_NAMES_UP_TO
        self.prefix = _common_prefix([o.node.host for o in occupants]) if is_short else ""
        self.has_domains = any(o.domain is not None for o in occupants)
        racks_of = Counter(
            d for b in bands for r in b.racks for d in {o.domain for o in r.occupants}
        )
        self.is_numbered = any(n > 1 for domain, n in racks_of.items() if domain is not None)
        self.columns_of: dict[str, int] = {}
        self._measure(occupants)

    def _measure(self, occupants: Sequence[Occupant]) -> None:
        scale = self.scale
        most = max(len(o.marks) for o in occupants)
        self.per_line = min(most, _MARKS_PER_LINE)
        labels = [text_width(self.label(o), scale.label_pt) for o in occupants]
        self.label_width = max(labels) + scale.pad if scale.label_pt else 0.0
        marks = self.per_line * scale.pitch
        self.cell_width = 2 * scale.pad + self.label_width + marks + _COLUMN_GAP
        lines = -(-most // self.per_line)
        self.cell_height = max(lines * scale.pitch + scale.row_gap, scale.label_pt + 3)
        self.head = scale.rack_pt * LINE_SPACING + scale.pad + 2
        sizes = [len(rack.occupants) for band in self.bands if band.is_place for rack in band.racks]
        columns = self._columns(max(sizes, default=1), _SLIMMEST)
        for band in self.bands:
            most = max(len(rack.occupants) for rack in band.racks)
            self.columns_of[band.name] = columns if band.is_place else self._columns(most, _ASPECT)

    def _columns(self, nodes: int, aspect: float) -> int:
        """The fewest columns of nodes that make a rack no slimmer; a domain needs one column."""
        if self.has_domains:
            return 1
        fits = (
            c
            for c in range(1, nodes + 1)
            if c * self.cell_width >= aspect * -(-nodes // c) * self.cell_height
        )
        least = next(fits, nodes)
        even = (c for c in range(least, least + 3) if nodes % c == 0)
        return next(even, least)

    def label(self, occupant: Occupant) -> str:
        """Name of a node as far as there is room."""
        if not self.scale.label_pt:
            return ""
        name = occupant.node.host.removeprefix(self.prefix)
        return fitted(name, _LONGEST_NAME, ONE_EACH)

    def body(self) -> Body:
        """The racks in the flow whose sheet is nearest to 16:10."""
        longest = max(len(band.racks) for band in self.bands)
        flows = [_Flow(self, n, 1) for n in range(1, longest)]
        flows += [_Flow(self, longest, n) for n in range(1, len(self.bands) + 1)]
        best = min(flows, key=lambda flow: flow.distance_from_aspect)
        return Body(best.width, best.height, tuple(best.boxes()))

    def rack_width(self, band: Band) -> float:
        """Width of the racks of a band."""
        spine = _SPINE + self.scale.pad if self.has_domains else 0.0
        nodes = self.columns_of[band.name] * self.cell_width - _COLUMN_GAP
        return nodes + 2 * self.scale.pad + spine

    def line_height(self, band: Band, racks: Iterable[Rack]) -> float:
        """Height of racks that stand in one line: that of the fullest."""
        rows = max(-(-len(rack.occupants) // self.columns_of[band.name]) for rack in racks)
        return self.head + rows * self.cell_height + self.scale.pad

    def rack_boxes(
        self, band: Band, rack: Rack, place: tuple[float, float, float]
    ) -> Iterator[Box]:
        """A rack with its nodes; the lowest position stands at the bottom."""
        (x, y, height), scale = place, self.scale
        width, columns = self.rack_width(band), self.columns_of[band.name]
        name = f"in {band.name}: {rack.name}"
        style = Style(Anchor.TOP_LEFT, scale.rack_pt, bold=True)
        label = fitted(rack.name, width - 2 * scale.pad, scale.rack_pt, bold=True)
        box = Box(name, BoxKind.RACK, x, y, width, height, label, (), style, level=1)
        dash = Dash.SOLID if band.is_place else Dash.DASHED
        yield replace(box, inside=f"in {band.name}", count=len(rack.occupants), dash=dash)
        floor = y + height - scale.pad
        for i, occupant in enumerate(rack.occupants):
            row, column = divmod(i, columns)
            if not band.is_place:
                row = -(-len(rack.occupants) // columns) - 1 - row
            left = x + scale.pad + column * self.cell_width
            yield from self._node_boxes(occupant, name, left, floor - (row + 1) * self.cell_height)
        yield from self._spines(rack, name, x + width - scale.pad - _SPINE, floor)

    def _node_boxes(self, occupant: Occupant, rack: str, x: float, y: float) -> Iterator[Box]:
        scale, host, gap = self.scale, occupant.node.host, min(1.5, self.scale.row_gap / 2)
        size = self.cell_width - _COLUMN_GAP, self.cell_height - gap
        style = Style(Anchor.LEFT, scale.label_pt or SMALLEST_PT)
        label = self.label(occupant)
        box = Box(host, BoxKind.NODE, x, y + gap / 2, *size, label, (), style, Role.SHADE, 2, rack)
        if occupant.has_other_fault:
            box = replace(box, role=Role.DEVIATING, dash=Dash.DASHED)
        yield box
        lines = -(-len(occupant.marks) // self.per_line)
        inset = (scale.pitch - scale.mark) / 2
        left = x + scale.pad + self.label_width + inset
        top = y + (self.cell_height - lines * scale.pitch) / 2 + inset
        for i, (slot, mark) in enumerate(occupant.marks.items()):
            line, place = divmod(i, self.per_line)
            at = left + place * scale.pitch, top + line * scale.pitch, scale.mark, scale.mark
            name = f"{host}:{slot}"
            yield Box(name, BoxKind.SLOT, *at, level=3, inside=host, mark=mark)

    def _spines(self, rack: Rack, name: str, x: float, floor: float) -> Iterator[Box]:
        """A spine along each run of nodes of one NVLink domain."""
        first, spine_pt = 0, min(7.0, self.scale.rack_pt)
        domains = [occupant.domain for occupant in rack.occupants]
        for i, domain in enumerate(domains):
            if i + 1 < len(domains) and domains[i + 1] == domain:
                continue
            height = (i + 1 - first) * self.cell_height
            if domain is not None:
                at = x, floor - (i + 1) * self.cell_height + 1, _SPINE, height - 2
                label, style = self._spine_label(domain, height - 4), Style(Anchor.TURNED, spine_pt)
                spine = f"{name}, NVLink domain {domain} from node {first}"
                box = Box(spine, BoxKind.DOMAIN, *at, label, (), style, level=2, inside=name)
                yield replace(box, role=(Role.NVLINK_SHADE, Role.NVLINK_SHADE_2)[domain % 2])
            first = i + 1

    def _spine_label(self, domain: int, height: float) -> str:
        size = counted(len(self.fabric.domains[domain].endpoints), "GPU")
        number = f" {domain + 1}" if self.is_numbered else ""
        texts = (f"NVLink domain{number}, {size}", size, size.partition(" ")[0], "")
        return next(t for t in texts if text_width(t, min(7.0, self.scale.rack_pt)) <= height)


class _Flow:
    """Racks of a band in lines of at most ``per_line``, bands side by side as wide as ``bands``."""

    def __init__(self, drawing: _Drawing, per_line: int, bands: int) -> None:
        self.drawing, self.per_line = drawing, per_line
        sizes = [self._band_size(band) for band in drawing.bands]
        gap = drawing.scale.band_gap
        limit = bands * (max(width for width, _ in sizes) + gap)
        self.places: list[tuple[float, float]] = []
        x = y = deepest = self.width = 0.0
        for width, height in sizes:
            if x > 0 and x + width > limit:
                x, y, deepest = 0.0, y + deepest + gap, 0.0
            self.places.append((x, y))
            self.width = max(self.width, x + width)
            x, deepest = x + width + gap, max(deepest, height)
        self.height = y + deepest

    @property
    def distance_from_aspect(self) -> float:
        """How far from 16:10; rows of racks are broken only for a clear gain."""
        width, height = self.width + _AROUND[0], self.height + _AROUND[1]
        is_broken = any(len(band.racks) > self.per_line for band in self.drawing.bands)
        return abs(math.log(width / height / _ASPECT)) + _BREAK * is_broken

    def _lines(self, band: Band) -> list[tuple[Rack, ...]]:
        step = self.per_line
        return [band.racks[i : i + step] for i in range(0, len(band.racks), step)]

    def _band_size(self, band: Band) -> tuple[float, float]:
        columns = min(self.per_line, len(band.racks))
        width = columns * (self.drawing.rack_width(band) + _GAP) - _GAP
        heights = [self.drawing.line_height(band, line) + _GAP for line in self._lines(band)]
        label_width = text_width(band.label, 8.0, bold=True)
        return max(width, label_width), _BAND_HEAD + sum(heights) - _GAP

    def boxes(self) -> Iterator[Box]:
        """All boxes, each after the one around it."""
        for band, (x, y) in zip(self.drawing.bands, self.places, strict=True):
            size, style = self._band_size(band), Style(Anchor.HEADING, 8.0, bold=True)
            box = Box(f"in {band.name}", BoxKind.BAND, x, y, *size, band.label, (), style)
            yield replace(box, count=len(band.racks))
            step, y = self.drawing.rack_width(band) + _GAP, y + _BAND_HEAD
            for line in self._lines(band):
                height = self.drawing.line_height(band, line)
                for i, rack in enumerate(line):
                    yield from self.drawing.rack_boxes(band, rack, (x + i * step, y, height))
                y += height + _GAP


def _common_prefix(hosts: Sequence[str]) -> str:
    """What all names begin with, up to their number."""
    low, high = min(hosts), max(hosts)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False))
    return "".join(a for a, _ in same).rstrip("0123456789")


def _title(fabric: Fabric, bands: Sequence[Band]) -> str:
    racks = sum(len(band.racks) for band in bands if band.is_place)
    text = f"{counted(len(fabric.nodes), 'node')}, {ranks_text(fabric)}"
    return f"{text}, {counted(racks, 'rack')}" if racks else text


def _place_legend(fabric: Fabric, drawing: _Drawing, occupants: Sequence[Occupant]) -> LegendTable:
    rows: list[tuple[Swatch, str]] = []
    if any(band.is_place for band in drawing.bands):
        rows.append((Role.PANEL, "rack, its lowest position at the bottom"))
    without = f", named without {drawing.prefix!r}" if drawing.prefix else ""
    rows.append((Role.SHADE, f"node{without if drawing.scale.label_pt else ''}"))
    sizes = Counter(len(d.endpoints) for d in fabric.domains if len(d.hosts) > 1)
    for size, count in sorted(sizes.items(), reverse=True):
        rows.append((Role.NVLINK_SHADE, f"NVLink domain of {size} GPUs across nodes ({count:,})"))
    own = {len(d.endpoints) for d in fabric.domains if len(d.hosts) == 1} - {1}
    rows += [
        (None, f"{size} GPUs of one node are an NVLink domain of their own")
        for size in sorted(own, reverse=True)
    ]
    if any(occupant.has_other_fault for occupant in occupants):
        rows.append((Role.DEVIATING, "node that deviates outside its GPUs"))
    return LegendTable("Places", ("",), tuple(LegendEntry(sign, (text,)) for sign, text in rows))


def _shape_legend(fabric: Fabric) -> LegendTable:
    nodes = Counter(node.shape for node in fabric.fleet.nodes)
    rows = []
    for shape in sorted(fabric.fleet.shapes, key=lambda shape: -nodes[shape.id]):
        products = ", ".join(sorted({gpu.product_name or "" for gpu in shape.gpus} - {""}))
        words = [fitted(text, LONGEST_PLACE, ONE_EACH) for text in (shape.id, products)]
        rows.append((words[0], f"{nodes[shape.id]:,}", str(len(shape.gpus)), words[1]))
    shown = rows[:_SHAPES_SHOWN]
    if len(rows) > len(shown):
        shown.append((f"and {len(rows) - len(shown)} more shapes", "", "", ""))
    cells = tuple(LegendEntry(None, row) for row in shown)
    return LegendTable("Shapes", ("", "nodes", "GPUs each", "GPU"), cells, right=(1, 2))

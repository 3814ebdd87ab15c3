"""The cables of the fabric view: one line for all between two boxes, sums beside each gap."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fleet.naming import counted
from fleet.units import text_from_seconds
from topology.diagram.columns import Vertex
from topology.diagram.fabric_words import rate_text
from topology.diagram.layout import Box, BoxKind, Line, Point, Text, Tier, chip, link_look
from topology.diagram.legend import Bundle, span
from topology.diagram.metrics import text_width
from topology.fabric.from_fleet import Fabric
from topology.fabric.graph import all_links
from topology.fabric.network import host_of_vertex


@dataclass(frozen=True, slots=True)
class _Cables:
    """The cables of a kind between two boxes."""

    low: Box
    high: Box
    bundle: Bundle


class Cabling:
    """Lines between boxes that have their place; ``box_of``: the box of each vertex."""

    def __init__(self, fabric: Fabric, box_of: Mapping[Vertex, Box], nodes_y: float) -> None:
        self.fabric, self.box_of, self.nodes_y = fabric, box_of, nodes_y
        self.lines: list[Line] = []
        self.texts: list[Text] = []
        self.tiers: list[Tier] = []
        self._add_cables()

    def _add_cables(self) -> None:
        """One line for all cables between two boxes; their sum stands beside each gap."""
        gaps: dict[tuple[float, float], list[_Cables]] = defaultdict(list)
        boxes = {box.name: box for box in self.box_of.values()}
        for (low, high, _), bundle in self._bundles().items():
            cables = _Cables(boxes[low], boxes[high], bundle)
            is_node = cables.low.kind is BoxKind.NODE
            gaps[self.nodes_y if is_node else cables.low.y, cables.high.y].append(cables)
        for (low_y, high_y), members in gaps.items():
            if low_y > high_y:
                self._add_gap(members)
            else:
                self._add_side_lines(members)

    def _bundles(self) -> dict[tuple[str, str, str], Bundle]:
        """Cables by the boxes at their ends, the lower one first, and by kind."""
        tier_of = self.fabric.network.tier_of
        bundles: dict[tuple[str, str, str], Bundle] = defaultdict(Bundle)
        for u, v, link in all_links(self.fabric.network.graph):
            host = host_of_vertex(u)
            if host is None and (v not in tier_of or (tier_of[u], u) > (tier_of[v], v)):
                continue
            low = self.box_of[(True, host) if host is not None else (False, u)]
            high = self.box_of[False, v]
            if low is not high:
                bundles[low.name, high.name, link.kind].add(link)
        return dict(bundles)

    def _add_gap(self, cables: Sequence[_Cables]) -> None:
        """Lines up from one row to another: straight where all can be, else as fans."""
        is_straight = all(_meets(c.low, c.high) for c in cables)
        fans: dict[tuple[str, bool], list[tuple[float, int]]] = defaultdict(list)
        for i, c in enumerate(cables):
            fans[c.low.name, True].append((c.high.mid_x, i))
            fans[c.high.name, False].append((c.low.mid_x, i))
        xs = []
        for i, c in enumerate(cables):
            ends = (
                _port(c.low, fans[c.low.name, True], i),
                _port(c.high, fans[c.high.name, False], i),
            )
            if is_straight:
                ends = (min(c.low, c.high, key=lambda box: box.width).mid_x,) * 2
            self._add_cable_line(c, ((ends[0], c.low.y), (ends[1], c.high.bottom)))
            xs.append(ends[0])
        y = (cables[0].low.y + cables[0].high.bottom) / 2
        texts = {c.bundle.text for c in cables}
        steps = [b - a for a, b in pairwise(sorted(xs))]
        widest = max(text_width(text, 6.5) for text in texts) + 6
        details = self._gap_details(cables)
        if is_straight and min(steps, default=widest) >= widest:
            self.texts += [chip(x, y, c.bundle.text) for x, c in zip(xs, cables, strict=True)]
        elif len(texts) == 1:
            details.append(f"each line {texts.pop()}")
        else:
            counts = span((c.bundle.count for c in cables), lambda n: f"{n:,.0f}")
            details.append(f"each line {counts} cables")
        self.tiers.append(Tier("", tuple(details), y, 0.0))

    def _gap_details(self, cables: Iterable[_Cables]) -> list[str]:
        """Kinds of the cables of a gap with their latency, their number and sum."""
        totals: dict[str, Bundle] = defaultdict(Bundle)
        for c in cables:
            totals[c.bundle.kind].merge(c.bundle)
        details = []
        for kind, total in totals.items():
            latency = text_from_seconds(self.fabric.figures.edge[kind].alpha_s)
            rate = rate_text(total.bytes_per_s)
            details += [f"{kind}, {latency}", f"{counted(total.count, 'cable')}, {rate}"]
        return details

    def _add_side_lines(self, cables: Sequence[_Cables]) -> None:
        """Lines between boxes of one row, over their heads."""
        for i, c in enumerate(cables):
            y = min(c.low.y, c.high.y) - 8 - 3 * (i % 4)
            a, b = c.low.x + c.low.width * 0.8, c.high.x + c.high.width * 0.2
            self._add_cable_line(c, ((a, c.low.y), (a, y), (b, y), (b, c.high.y)))

    def _add_cable_line(self, cables: _Cables, points: tuple[Point, ...]) -> None:
        low, high, bundle = cables.low, cables.high, cables.bundle
        look = link_look(bundle.kind, width_pt=bundle.width_pt)
        self.lines.append(Line(points, bundle.kind, look, (low.name, high.name), bundle.text))


def _meets(low: Box, high: Box) -> bool:
    """Whether the narrower of two boxes stands within the width of the other."""
    narrow, wide = sorted((low, high), key=lambda box: box.width)
    return wide.x + 1 < narrow.mid_x < wide.right - 1


def _port(box: Box, fan: list[tuple[float, int]], line: int) -> float:
    """Where a line leaves a box: in the order of the far ends."""
    place = next(i for i, (_, number) in enumerate(sorted(fan)) if number == line)
    return box.x + box.width * (place + 1) / (len(fan) + 1)

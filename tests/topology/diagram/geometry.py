"""What every diagram must keep, measured on its boxes, lines and texts; fleets to try it on."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import combinations
from typing import TypeVar

from fleet import fleet_from_spec
from topology.diagram.draw import layout_of
from topology.diagram.layout import Box, BoxKind, Frame, Layout, LegendTable, Line
from topology.diagram.metrics import SMALLEST_PT
from topology.fabric.from_fleet import Fabric
from topology.words import View

SPECS = (
    "model:dgx-h100 node:32",
    "model:dgx-h100 node:1",
    "model:dgx-h100 node:128 busy:8,3,0",
    "model:gb200-nvl72 rack:2",
    "model:gb200-nvl72 node:1",
    "model:dgx1-v100 node:2",
    "model:pcie-l40s node:4",
    "model:beowulf-2006 node:200",
    "model:dgx-a100 node:9 busy:0,8,4",
    "model:dgx-h100 node:1250",
)
CELL = 40.0
SLACK = 0.05

T = TypeVar("T")


@cache
def fabric_of(spec: str) -> Fabric:
    return Fabric(fleet_from_spec(spec))


@cache
def layout_of_spec(spec: str, view: View) -> Layout:
    return layout_of(fabric_of(spec), view)


def of_kind(layout: Layout, kind: BoxKind) -> list[Box]:
    return [box for box in layout.boxes if box.kind is kind]


def table_of(layout: Layout, title: str) -> LegendTable:
    return next(table for table in layout.sheet.legend if table.title == title)


def rows_of(layout: Layout, title: str) -> list[tuple[str, ...]]:
    return [entry.cells for entry in table_of(layout, title).entries]


def problems(layout: Layout) -> list[str]:
    """All that is wrong with a layout, in words."""
    return [
        *overlapping_boxes(layout.boxes),
        *boxes_outside_their_parent(layout.boxes),
        *labels_that_do_not_fit(layout.boxes),
        *labels_over_parts(layout.boxes),
        *overlapping_texts(layout),
        *things_off_the_canvas(layout),
        *(f"{t.text!r} in {t.size_pt} pt" for t in layout.texts if t.size_pt < SMALLEST_PT),
    ]


def overlapping_boxes(boxes: Iterable[Box]) -> Iterator[str]:
    levels: dict[int, list[tuple[Frame, Box]]] = defaultdict(list)
    for box in boxes:
        levels[box.level].append((box.frame, box))
    for members in levels.values():
        for a, b in pairs_that_meet(members):
            yield f"{a.name!r} overlaps {b.name!r}"


def boxes_outside_their_parent(boxes: Iterable[Box]) -> Iterator[str]:
    boxes = list(boxes)
    frame_of = {box.name: box.frame for box in boxes}
    if len(frame_of) < len(boxes):
        yield "two boxes have one name"
    for box in boxes:
        if box.inside and not holds(frame_of[box.inside], box.frame):
            yield f"{box.name!r} sticks out of {box.inside!r}"


def labels_that_do_not_fit(boxes: Iterable[Box]) -> Iterator[str]:
    for box in boxes:
        for text in box.texts:
            if not holds(box.frame, text.frame):
                yield f"{text.text!r} does not fit {box.name!r}"


def labels_over_parts(boxes: Iterable[Box]) -> Iterator[str]:
    boxes = list(boxes)
    texts_of = {box.name: [text.frame for text in box.texts] for box in boxes}
    for box in boxes:
        if box.inside and any(meet(box.frame, frame) for frame in texts_of[box.inside]):
            yield f"{box.name!r} stands on the label of {box.inside!r}"


def overlapping_texts(layout: Layout) -> Iterator[str]:
    texts = [(text.frame, text) for text in layout.texts]
    for a, b in pairs_that_meet(texts):
        yield f"{a.text!r} overlaps {b.text!r}"


def things_off_the_canvas(layout: Layout) -> Iterator[str]:
    canvas = 0.0, 0.0, layout.width, layout.height
    frames = [(box.name, box.frame) for box in layout.boxes]
    frames += [(text.text, text.frame) for text in layout.texts]
    frames += [("swatch", frame_of(swatch)) for swatch in layout.swatches]
    frames += [(" -- ".join(line.ends), frame_of(line)) for line in layout.lines]
    for name, frame in frames:
        if not holds(canvas, frame):
            yield f"{name!r} lies off the canvas"


def frame_of(thing: Box | Line) -> Frame:
    if isinstance(thing, Box):
        return thing.frame
    xs, ys = zip(*thing.points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def meet(a: Frame, b: Frame) -> bool:
    return (
        a[0] < b[2] - SLACK and b[0] < a[2] - SLACK and a[1] < b[3] - SLACK and b[1] < a[3] - SLACK
    )


def holds(outer: Frame, inner: Frame) -> bool:
    return (
        outer[0] <= inner[0] + SLACK
        and outer[1] <= inner[1] + SLACK
        and outer[2] >= inner[2] - SLACK
        and outer[3] >= inner[3] - SLACK
    )


def pairs_that_meet(things: Iterable[tuple[Frame, T]]) -> Iterator[tuple[T, T]]:
    """Pairs of things that overlap; only what shares a cell of a grid is compared."""
    cells: dict[tuple[int, int], list[tuple[Frame, T]]] = defaultdict(list)
    for frame, thing in things:
        for i in range(int(frame[0] // CELL), int(frame[2] // CELL) + 1):
            for j in range(int(frame[1] // CELL), int(frame[3] // CELL) + 1):
                cells[i, j].append((frame, thing))
    for members in cells.values():
        for (frame_a, a), (frame_b, b) in combinations(members, 2):
            if meet(frame_a, frame_b):
                yield a, b

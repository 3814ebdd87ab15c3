"""The checker of layouts finds what is planted."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pytest

from tests.topology.diagram.geometry import (
    SPECS,
    boxes_outside_their_parent,
    labels_over_parts,
    labels_that_do_not_fit,
    layout_of_spec,
    overlapping_boxes,
    overlapping_texts,
    problems,
    things_off_the_canvas,
)
from topology.diagram.layout import Box, BoxKind, Style, Text
from topology.words import View

OUTER = Box("outer", BoxKind.RACK, 0, 0, 100, 100)
INNER = Box("inner", BoxKind.NODE, 10, 10, 20, 20, level=1, inside="outer")

Finder = Callable[[Iterable[Box]], Iterator[str]]


@pytest.mark.parametrize(
    ("finder", "boxes"),
    [
        (overlapping_boxes, [INNER, replace(INNER, name="other", x=25)]),
        (boxes_outside_their_parent, [OUTER, replace(INNER, x=90)]),
        (boxes_outside_their_parent, [OUTER, OUTER]),
        (labels_that_do_not_fit, [replace(INNER, label="much too long")]),
        (labels_that_do_not_fit, [replace(INNER, label="a", details=("b", "c", "d"))]),
        (labels_over_parts, [replace(OUTER, label="outer"), replace(INNER, x=45, y=45)]),
    ],
)
def test_a_planted_fault_is_found(finder: Finder, boxes: list[Box]) -> None:
    assert list(finder(boxes)) != []


@pytest.mark.parametrize(
    "finder",
    [overlapping_boxes, boxes_outside_their_parent, labels_that_do_not_fit, labels_over_parts],
)
def test_boxes_that_only_touch_are_fine(finder: Finder) -> None:
    beside = replace(INNER, name="beside", x=INNER.right, label="b", style=Style(size_pt=6))
    assert list(finder([OUTER, INNER, beside])) == []


def test_texts_over_one_another_off_the_canvas_or_too_small_are_found() -> None:
    layout = layout_of_spec(SPECS[1], View.NODE)
    some = layout.texts[0]
    twice = replace(layout, texts=(*layout.texts, some))
    assert list(overlapping_texts(twice)) != []
    off = replace(layout, texts=(*layout.texts, Text(layout.width, 9, "off")))
    assert list(things_off_the_canvas(off)) != []
    small = replace(layout, texts=(*layout.texts, Text(1, 9, "small", 4.0)))
    assert problems(small) == ["'small' in 4.0 pt"]

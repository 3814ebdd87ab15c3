"""Labels in their boxes, lines and looks."""

import pytest

from topology.diagram.layout import (
    Align,
    Anchor,
    Box,
    BoxKind,
    Style,
    Text,
    link_look,
)


def make_box(**special: object) -> Box:
    plain = {"name": "a", "kind": BoxKind.SWITCH, "x": 10.0, "y": 20.0, "width": 100.0}
    return Box(**plain | {"height": 40.0} | special)  # type: ignore[arg-type]


def test_centred_text_covers_both_sides_of_its_place() -> None:
    assert Text(100, 50, "ab", 10, align=Align.CENTER).frame == pytest.approx(
        (100 - 6.2, 45, 100 + 6.2, 55)
    )


def test_turned_text_covers_a_column() -> None:
    frame = Text(100, 50, "abcd", 10, turned=True).frame
    assert frame == pytest.approx((95, 50 - 12.4, 105, 50 + 12.4))


def test_label_and_detail_stand_in_the_middle_one_below_the_other() -> None:
    label, detail = make_box(label="spine1", details=("8 ports",), style=Style(size_pt=8.0)).texts
    assert (label.x, detail.x) == (60, 60)
    # 8 pt and 7 pt lines are 10.8 and 9.45 high: 20.25 around the middle at 40.
    assert label.y == pytest.approx(40 - 20.25 / 2 + 5.4)
    assert detail.y == pytest.approx(40 + 20.25 / 2 - 4.725)


def test_detail_is_never_smaller_than_six_points() -> None:
    _, detail = make_box(label="a", details=("b",), style=Style(size_pt=6.0)).texts
    assert detail.size_pt == 6.0


def test_label_at_the_left_begins_inside_the_edge() -> None:
    (label,) = make_box(label="a", style=Style(Anchor.LEFT)).texts
    assert (label.x, label.y, label.align) == (14, 40, Align.LEFT)


def test_box_without_words_has_no_texts() -> None:
    assert make_box().texts == ()


def test_link_kinds_of_one_picture_look_different() -> None:
    kinds = (
        *("nvlink", "nvlink_rack", "xgmi", "c2c", "socket"),
        *("pcie", "pcie_switch", "pcie_uplink", "pcie_root_port"),
        *("roce_host", "roce_trunk", "roce_core"),
    )
    assert len({link_look(kind) for kind in kinds}) == len(kinds)

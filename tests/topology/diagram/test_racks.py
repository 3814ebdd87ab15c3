"""The view racks: every node and slot stands where it is and shows who holds it."""

from collections import Counter
from typing import Any

import pytest

from fleet import Node, fleet_from_spec
from fleet.model import Footprint
from tests.topology.diagram.fleets import (
    changed,
    missing,
    port_down,
    with_first_deviating,
    with_nodes,
)
from tests.topology.diagram.geometry import (
    SPECS,
    fabric_of,
    layout_of_spec,
    of_kind,
    problems,
    rows_of,
    table_of,
)
from topology.diagram.draw import layout_of
from topology.diagram.layout import BoxKind, Dash, Health, Layout, Mark, Role, Use
from topology.fabric.from_fleet import Fabric
from topology.words import View

TITLES = {
    "model:dgx-h100 node:32": "32 nodes, 256 GPUs, 8 racks",
    "model:dgx-h100 node:1": "1 node, 8 GPUs, 1 rack",
    "model:dgx-h100 node:128 busy:8,3,0": "128 nodes, 1,024 GPUs, 32 racks",
    "model:gb200-nvl72 rack:2": "36 nodes, 144 GPUs, 2 racks",
    "model:dgx1-v100 node:2": "2 nodes, 16 GPUs, 1 rack",
    "model:pcie-l40s node:4": "4 nodes, 32 GPUs, 1 rack",
    "model:beowulf-2006 node:200": "200 nodes, 200 CPU ranks, 5 racks",
    "model:dgx-a100 node:9 busy:0,8,4": "9 nodes, 72 GPUs, 3 racks",
    "model:dgx-h100 node:1250": "1,250 nodes, 10,000 GPUs, 313 racks",
}
SUBTITLES = {
    # 8, 3 and 0 held in turn: 42 rounds of 11, then 8 and 3.
    "model:dgx-h100 node:128 busy:8,3,0": "473 held, 551 free, 0 deviating, 0 missing",
    # 0, 8 and 4 held in turn, three rounds.
    "model:dgx-a100 node:9 busy:0,8,4": "36 held, 36 free, 0 deviating, 0 missing",
    "model:beowulf-2006 node:200": "0 held, 200 free, 0 deviating, 0 missing",
}


def racks_of(spec: str) -> Layout:
    return layout_of_spec(spec, View.RACKS)


def marks_of(layout: Layout, host: str) -> list[Mark | None]:
    return [box.mark for box in of_kind(layout, BoxKind.SLOT) if box.inside == host]


@pytest.mark.parametrize("spec", SPECS)
def test_nothing_overlaps_sticks_out_or_is_cut(spec: str) -> None:
    assert problems(racks_of(spec)) == []


@pytest.mark.parametrize("spec", SPECS)
def test_every_node_and_every_slot_is_there_once(spec: str) -> None:
    fabric, layout = fabric_of(spec), racks_of(spec)
    hosts = Counter(box.name for box in of_kind(layout, BoxKind.NODE))
    assert hosts == Counter(node.host for node in fabric.nodes)
    slots = Counter(box.name for box in of_kind(layout, BoxKind.SLOT))
    assert slots == Counter(str(endpoint) for endpoint in fabric.endpoints)


@pytest.mark.parametrize(("spec", "title"), TITLES.items())
def test_title_counts_nodes_ranks_and_racks(spec: str, title: str) -> None:
    assert racks_of(spec).sheet.title == title


@pytest.mark.parametrize(("spec", "subtitle"), SUBTITLES.items())
def test_subtitle_counts_who_holds_what(spec: str, subtitle: str) -> None:
    assert racks_of(spec).sheet.subtitle == subtitle


@pytest.mark.parametrize("spec", SPECS)
def test_legend_explains_every_mark_with_its_number(spec: str) -> None:
    layout = racks_of(spec)
    drawn = Counter(box.mark for box in of_kind(layout, BoxKind.SLOT))
    told = {e.swatch: e.cells[1] for e in table_of(layout, "Slots").entries}
    assert {mark: f"{count:,}" for mark, count in drawn.items()}.items() <= told.items()


@pytest.mark.parametrize("spec", SPECS)
def test_sheet_is_about_as_wide_as_a_screen(spec: str) -> None:
    layout = racks_of(spec)
    assert 1.3 < layout.width / layout.height < 2.0


def test_held_slots_are_told_by_fill_and_free_ones_too() -> None:
    layout = racks_of("model:dgx-h100 node:128 busy:8,3,0")
    assert marks_of(layout, "h100-002") == [Mark(Use.HELD)] * 3 + [Mark(Use.FREE)] * 5


def test_the_lowest_position_stands_at_the_bottom() -> None:
    y_of = {box.name: box.y for box in of_kind(racks_of(SPECS[0]), BoxKind.NODE)}
    assert y_of["h100-001"] > y_of["h100-002"] > y_of["h100-003"] > y_of["h100-004"]


def test_racks_of_a_row_stand_together_and_rows_are_in_order() -> None:
    bands = of_kind(racks_of("model:dgx-h100 node:1250"), BoxKind.BAND)
    assert [band.label for band in bands[:3]] == ["hall1, row1", "hall1, row2", "hall1, row3"]
    assert [band.count for band in bands] == [10] * 31 + [3]


def test_few_nodes_have_full_names_and_many_leave_out_what_all_share() -> None:
    one = of_kind(racks_of("model:dgx-h100 node:1"), BoxKind.NODE)
    many = of_kind(racks_of("model:dgx-h100 node:128 busy:8,3,0"), BoxKind.NODE)
    assert one[0].label == "h100-001"
    assert {box.name: box.label for box in many}["h100-128"] == "128"
    notes = rows_of(racks_of("model:dgx-h100 node:128 busy:8,3,0"), "Places")
    assert ("node, named without 'h100-'",) in notes


def test_of_very_many_nodes_only_the_racks_are_named() -> None:
    layout = racks_of("model:dgx-h100 node:1250")
    assert {box.label for box in of_kind(layout, BoxKind.NODE)} == {""}
    assert of_kind(layout, BoxKind.RACK)[-1].label == "rack313"


def test_nodes_of_an_nvlink_domain_share_a_spine_that_tells_its_size() -> None:
    layout = racks_of("model:gb200-nvl72 rack:2")
    spines = of_kind(layout, BoxKind.DOMAIN)
    assert [spine.label for spine in spines] == ["NVLink domain, 72 GPUs"] * 2
    nodes = [box for box in of_kind(layout, BoxKind.NODE) if box.inside == spines[0].inside]
    assert len(nodes) == 18
    assert spines[0].y <= min(box.mid_y for box in nodes)
    assert spines[0].bottom >= max(box.mid_y for box in nodes)


def test_a_node_that_is_a_domain_of_its_own_has_no_spine() -> None:
    assert of_kind(racks_of(SPECS[0]), BoxKind.DOMAIN) == []


def test_a_domain_across_racks_has_its_number_on_each_spine() -> None:
    def change(i: int, node: Node) -> dict[str, Any]:
        return {"footprint": Footprint(rack=f"r{i // 9}", position=i % 9)}

    layout = layout_of(with_nodes("model:gb200-nvl72 rack:1", change), View.RACKS)
    labels = [box.label for box in of_kind(layout, BoxKind.DOMAIN)]
    assert labels == ["NVLink domain 1, 72 GPUs"] * 2


def test_a_cpu_node_shows_one_circle() -> None:
    assert marks_of(racks_of("model:beowulf-2006 node:200"), "node-001") == [
        Mark(Use.FREE, is_cpu=True)
    ]


def test_a_node_without_a_place_stands_in_a_group_that_says_so() -> None:
    def change(i: int, node: Node) -> dict[str, Any]:
        return {"footprint": None} if i == 5 else {}

    layout = layout_of(with_nodes("model:dgx-h100 node:12", change), View.RACKS)
    assert problems(layout) == []
    rack = next(box for box in layout.boxes if box.name == "h100-006").inside
    band = next(box for box in layout.boxes if box.name == rack).inside
    assert next(box for box in layout.boxes if box.name == band).label == "place not reported"
    assert layout.sheet.title == "12 nodes, 96 GPUs, 3 racks"


def test_a_rack_without_a_row_stands_in_a_row_not_reported() -> None:
    def change(i: int, node: Node) -> dict[str, Any]:
        return {"footprint": Footprint(rack="r1")}

    layout = layout_of(with_nodes("model:dgx-h100 node:2", change), View.RACKS)
    assert [box.label for box in of_kind(layout, BoxKind.BAND)] == ["row not reported"]
    assert [box.label for box in of_kind(layout, BoxKind.RACK)] == ["r1"]


def test_unreported_use_is_drawn_neither_free_nor_held() -> None:
    def change(i: int, node: Node) -> dict[str, Any]:
        return {"allocations": None}

    layout = layout_of(with_nodes("model:dgx-h100 node:2", change), View.RACKS)
    assert {box.mark for box in of_kind(layout, BoxKind.SLOT)} == {Mark(Use.UNREPORTED)}
    assert layout.sheet.subtitle == "16 of unreported use, 0 deviating, 0 missing"


def test_missing_and_deviating_gpus_have_marks_of_their_own() -> None:
    fabric = with_first_deviating(
        "model:dgx-h100 node:4 busy:2", missing("gpus[3]"), port_down("gpus[1].ports[7]")
    )
    layout = layout_of(fabric, View.RACKS)
    marks = marks_of(layout, "h100-001")
    assert marks[0] == Mark(Use.HELD)
    assert marks[1] == Mark(Use.HELD, Health.DEVIATING)
    assert marks[2] == Mark(Use.FREE)
    assert marks[3] == Mark(Use.FREE, Health.MISSING)
    assert layout.sheet.title == "4 nodes, 31 GPUs, 1 rack"
    assert layout.sheet.subtitle == "8 held, 23 free, 1 deviating, 1 missing"
    assert ("GPU, missing", "1") in rows_of(layout, "Slots")


def test_a_node_that_deviates_outside_its_gpus_is_outlined() -> None:
    fabric = with_first_deviating("model:dgx-h100 node:4", port_down("nics[2].ports[1]"))
    layout = layout_of(fabric, View.RACKS)
    looks = [(box.role, box.dash) for box in of_kind(layout, BoxKind.NODE)]
    assert looks == [(Role.DEVIATING, Dash.DASHED)] + [(Role.SHADE, Dash.SOLID)] * 3
    assert ("node that deviates outside its GPUs",) in rows_of(layout, "Places")


def test_a_fleet_with_a_spec_is_named_by_it_and_one_without_by_its_shapes() -> None:
    fleet = fleet_from_spec("model:dgx-h100 node:2")
    named, bare = (
        layout_of(Fabric(fleet), View.RACKS),
        layout_of(Fabric(changed(fleet, spec=None)), View.RACKS),
    )
    assert named.sheet.kicker == "Fleet map of model:dgx-h100 node:2"
    assert bare.sheet.kicker == f"Fleet map of {fleet.shapes[0].id}"


def test_very_long_names_are_cut_to_their_room() -> None:
    def change(i: int, node: Node) -> dict[str, Any]:
        return {"footprint": Footprint(hall="x" * 900, rack="W" * 500 + str(i))}

    assert problems(layout_of(with_nodes("model:dgx-h100 node:3", change), View.RACKS)) == []

"""The text pen: what a terminal shows of a diagram."""

from dataclasses import replace

import pytest

from tests.topology.diagram.fleets import missing, port_down, with_first_deviating
from tests.topology.diagram.geometry import SPECS, layout_of_spec
from topology.diagram.draw import layout_of
from topology.diagram.draw_text import COLUMNS, text_of_layout
from topology.words import View


def lines_of(spec: str, view: View) -> list[str]:
    return text_of_layout(layout_of_spec(spec, view)).splitlines()


@pytest.mark.parametrize("view", View)
@pytest.mark.parametrize("spec", SPECS)
def test_no_line_is_wider_than_120_columns_or_ends_in_a_blank(spec: str, view: View) -> None:
    lines = lines_of(spec, view)
    assert max(len(line) for line in lines) <= COLUMNS == 120
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_rack_is_a_line_with_a_sign_for_each_slot() -> None:
    lines = lines_of("model:dgx-h100 node:128 busy:8,3,0", View.RACKS)
    assert lines[5] == (
        "  rack001 | h100-001 ########  h100-002 ###.....  h100-003 ........  h100-004 ########"
    )


def test_signs_tell_missing_and_deviating_gpus() -> None:
    faults = missing("gpus[3]"), port_down("gpus[1].ports[7]"), port_down("gpus[6].ports[7]")
    fabric = with_first_deviating("model:dgx-h100 node:1 busy:2", *faults)
    text = text_of_layout(layout_of(fabric, View.RACKS))
    assert "rack001 | h100-001 #%.x..!." in text


def test_a_domain_is_told_behind_its_rack() -> None:
    lines = lines_of("model:gb200-nvl72 rack:2", View.RACKS)
    assert sum("| NVLink domain, 72 GPUs" in line for line in lines) == 2


def test_tiers_stand_from_the_top_with_their_cables_between() -> None:
    lines = lines_of("model:dgx-h100 node:32", View.FABRIC)
    assert lines[4:12] == [
        "spine: 4 switches",
        "  [spine1]  [spine2]  [spine3]  [spine4]",
        "    ib_ndr_trunk, 350 ns; 256 cables, 12.8 TB/s; each line 8 x 50 GB/s",
        "leaf: 8 switches",
        "  [leaf01-rail0]  [leaf01-rail1]  [leaf01-rail2]  [leaf01-rail3]  [leaf01-rail4]"
        "  [leaf01-rail5]  [leaf01-rail6]",
        "  [leaf01-rail7]",
        "    ib_ndr_host, 200 ns; 256 cables, 12.8 TB/s",
        "nodes: 32 nodes; 256 GPUs",
    ]


def test_lines_between_the_same_boxes_are_told_at_once() -> None:
    lines = lines_of("model:dgx-h100 node:32", View.FABRIC)
    assert "ib_ndr_trunk, 8 x 50 GB/s: leaf01-rail0..7 -- spine1..4" in lines


def test_a_domain_is_told_with_its_nodes_and_switches() -> None:
    lines = lines_of("model:gb200-nvl72 rack:2", View.FABRIC)
    nodes = "[gb200-001..018, 18 nodes x 4 GPUs]  [18 NVLink switches]"
    assert f"  NVLink domain, 72 GPUs: {nodes}" in lines


def test_pairs_of_a_mesh_are_told_by_their_number_of_links() -> None:
    text = text_of_layout(layout_of_spec("model:dgx1-v100 node:2", View.NODE))
    # Read off the model: the pairs with two links.
    assert (
        "nvlink, 2 links: gpu0 -- gpu3..4;  gpu1 -- gpu2, gpu5;  gpu2 -- gpu3;  "
        "gpu4, gpu6 -- gpu7;  gpu5 -- gpu6\n"
    ) in text


def test_the_legend_is_a_table_with_latencies() -> None:
    lines = lines_of("model:dgx-h100 node:32", View.FABRIC)
    (row,) = [line for line in lines if line.strip().startswith("ib_ndr_trunk  ")]
    assert row.split() == [
        *("ib_ndr_trunk", "InfiniBand", "NDR", "between", "two", "switches"),
        *("512", "50", "GB/s", "low", "350", "ns"),
    ]


def test_signs_are_explained() -> None:
    text = text_of_layout(layout_of_spec("model:dgx-h100 node:128 busy:8,3,0", View.RACKS))
    assert "  .  GPU, free             551\n  #  GPU, held             473\n" in text


def test_control_characters_never_reach_the_terminal() -> None:
    layout = layout_of_spec(SPECS[1], View.RACKS)
    evil = replace(layout, sheet=replace(layout.sheet, title="\x1b[2Jgone"))
    assert "\x1b" not in text_of_layout(evil)
    assert "?[2Jgone" in text_of_layout(evil)

"""The view fabric: whatever is folded, all nodes, slots, switches and cables are counted."""

import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from fleet import Cable, CableEnd, LinkLayer, Switch, fleet_from_spec
from fleet.fields import SwitchId
from fleet.sources.registry import gather_files
from tests.topology.diagram.fleets import changed, missing, together, with_first_deviating
from tests.topology.diagram.geometry import (
    SPECS,
    fabric_of,
    holds,
    layout_of_spec,
    of_kind,
    problems,
    rows_of,
    table_of,
)
from topology.diagram.draw import layout_of
from topology.diagram.layout import Box, BoxKind, Layout
from topology.fabric.from_fleet import Fabric
from topology.fabric.report import link_counts
from topology.words import View

TITLES = {
    # 8 leaves of one unit, each 32 links up to 4 spines of 64 ports.
    "model:dgx-h100 node:32": ("32 nodes, 256 GPUs, 12 switches", "8 leaves, 4 spines"),
    "model:dgx-h100 node:128 busy:8,3,0": (
        "128 nodes, 1,024 GPUs, 48 switches",
        "32 leaves, 16 spines",
    ),
    # 2 racks of 18 NVLink switches, 4 leaves each.
    "model:gb200-nvl72 rack:2": (
        "36 nodes, 144 GPUs, 47 switches",
        "8 leaves, 3 spines, 36 NVLink switches",
    ),
    "model:beowulf-2006 node:200": ("200 nodes, 200 CPU ranks, 6 switches", "5 leaves, 1 spine"),
    # 40 units of 8 leaves; 10 pods of 32 spines; each spine has 32 links to the cores.
    "model:dgx-h100 node:1250": (
        "1,250 nodes, 10,000 GPUs, 800 switches",
        "320 leaves, 320 spines, 160 cores",
    ),
}


def fabric_layout(spec: str) -> Layout:
    return layout_of_spec(spec, View.FABRIC)


def box_named(layout: Layout, name: str) -> Box:
    return next(box for box in layout.boxes if box.name == name)


def cables_drawn(layout: Layout) -> int:
    """Cables by the labels of the lines between nodes and switches."""
    counts = [
        int(line.label.partition(" x ")[0].replace(",", ""))
        for line in layout.lines
        if re.search("_(host|trunk|core)$", line.kind)
    ]
    return sum(counts)


@pytest.mark.parametrize("spec", SPECS)
def test_nothing_overlaps_sticks_out_or_is_cut(spec: str) -> None:
    assert problems(fabric_layout(spec)) == []


@pytest.mark.parametrize("spec", SPECS)
def test_folds_add_up_to_all_nodes_slots_switches_and_cables(spec: str) -> None:
    fabric, layout = fabric_of(spec), fabric_layout(spec)
    count = Counter[BoxKind]()
    for box in layout.boxes:
        count[box.kind] += box.count
    assert count[BoxKind.NODE] == len(fabric.nodes)
    assert count[BoxKind.SLOT] == len(fabric.endpoints)
    assert count[BoxKind.SWITCH] == len(fabric.fleet.switches)
    assert cables_drawn(layout) == len(fabric.fleet.cables)


@pytest.mark.parametrize(("spec", "words"), TITLES.items())
def test_title_counts_nodes_ranks_and_switches(spec: str, words: tuple[str, str]) -> None:
    sheet = fabric_layout(spec).sheet
    assert (sheet.title, sheet.subtitle) == words


@pytest.mark.parametrize("spec", SPECS)
def test_every_link_kind_is_in_the_legend_with_its_figures(spec: str) -> None:
    fabric, table = fabric_of(spec), table_of(fabric_layout(spec), "Links")
    assert {e.kind: e.cells[2] for e in table.entries} == {
        kind: f"{count:,}" for kind, count in link_counts(fabric).items()
    }
    for entry in table.entries:
        edge = fabric.figures.edge[entry.kind]
        assert entry.cells[1] == edge.title
        assert entry.cells[4] == edge.confidence.value


@pytest.mark.parametrize("spec", SPECS)
def test_every_line_is_of_a_kind_that_the_legend_explains(spec: str) -> None:
    layout = fabric_layout(spec)
    told = {e.kind: e.swatch for e in table_of(layout, "Links").entries}
    assert {line.kind for line in layout.lines} <= told.keys()
    for line in layout.lines:
        swatch = told[line.kind]
        assert (line.look.role, line.look.dash) == (swatch.role, swatch.dash)  # type: ignore[union-attr]


def test_the_legend_tells_latency_rate_and_confidence_of_a_link() -> None:
    # Figures of the edge ib_ndr_trunk, and NDR's 400 Gb/s.
    rows = {row[0]: row for row in rows_of(fabric_layout(SPECS[0]), "Links")}
    assert rows["ib_ndr_trunk"][2:] == ("512", "50 GB/s", "low", "350 ns")


def test_the_legend_tells_what_a_message_costs_by_how_far_it_goes() -> None:
    rows = rows_of(fabric_layout("model:dgx-h100 node:1250"), "Routes, end to end")
    assert [(row[0], row[5]) for row in rows] == [
        ("same node", "762 ns"),
        ("same leaf", "2.3 us"),
        ("through a spine", "3 us"),
        # Two cables more between switches, 350 ns each.
        ("through a core", "3.7 us"),
    ]


def test_nvlink_across_nodes_has_a_row_of_its_own() -> None:
    rows = rows_of(fabric_layout("model:gb200-nvl72 rack:2"), "Routes, end to end")
    assert [row[0] for row in rows] == ["same node", "same NVLink domain", "through a spine"]


def test_cpu_ranks_have_no_route_inside_their_node() -> None:
    rows = rows_of(fabric_layout("model:beowulf-2006 node:200"), "Routes, end to end")
    assert [(row[0], row[4]) for row in rows] == [
        ("same leaf", "guess"),
        ("through a spine", "guess"),
    ]


def test_few_leaves_are_drawn_one_by_one_above_the_gpus_of_their_rail() -> None:
    layout = fabric_layout("model:dgx-h100 node:32")
    leaves = [box_named(layout, f"leaf01-rail{i}") for i in range(8)]
    slots = of_kind(layout, BoxKind.SLOT)
    assert [slot.mid_x for slot in slots] == pytest.approx([leaf.mid_x for leaf in leaves])


def test_many_leaves_fold_into_one_box_that_names_their_rails() -> None:
    layout = fabric_layout("model:dgx-h100 node:128 busy:8,3,0")
    folds = [box for box in of_kind(layout, BoxKind.SWITCH) if "leaves" in box.label]
    assert [fold.label for fold in folds] == ["8 leaves, rail 0-7"] * 4
    assert folds[1].details == ("leaf02-rail0..7",)


def test_nodes_with_the_same_leaves_fold_into_one_box() -> None:
    nodes = of_kind(fabric_layout("model:dgx-h100 node:128 busy:8,3,0"), BoxKind.NODE)
    assert [(node.label, node.details) for node in nodes] == [
        ("h100-001..032", ("32 nodes x 8 GPUs",)),
        ("h100-033..064", ("32 nodes x 8 GPUs",)),
        ("h100-065..096", ("32 nodes x 8 GPUs",)),
        ("h100-097..128", ("32 nodes x 8 GPUs",)),
    ]


def test_a_line_tells_how_many_cables_and_how_fast() -> None:
    layout = fabric_layout("model:dgx-h100 node:32")
    labels = Counter((line.kind, line.label) for line in layout.lines if line.label)
    # One cable from each node to each leaf; 32 from each leaf to 4 spines.
    assert labels == {("ib_ndr_host", "32 x 50 GB/s"): 8, ("ib_ndr_trunk", "8 x 50 GB/s"): 32}


def test_more_bandwidth_is_a_wider_line() -> None:
    layout = fabric_layout("model:dgx-h100 node:32")
    width_of = {line.kind: line.look.width_pt for line in layout.lines if line.label}
    assert width_of["ib_ndr_host"] > width_of["ib_ndr_trunk"]


def test_an_nvlink_domain_is_drawn_around_its_nodes_and_switches() -> None:
    layout = fabric_layout("model:gb200-nvl72 rack:2")
    domains = of_kind(layout, BoxKind.DOMAIN)
    assert [domain.label for domain in domains] == ["NVLink domain, 72 GPUs"] * 2
    for domain in domains:
        parts = [box for box in layout.boxes if box.inside == domain.name]
        assert [(part.label, part.count) for part in parts][1:] == [("18 NVLink switches", 18)]
        assert parts[0].count == 18
    # 18 trays of 4 GPUs with 18 links each.
    links = {line.label for line in layout.lines if line.kind == "nvlink_rack"}
    assert links == {"1,296 x 50 GB/s"}


def test_nodes_outside_a_domain_stand_outside_its_box() -> None:
    fabric = Fabric(together("model:dgx-h100 node:4", "model:gb200-nvl72 rack:1"))
    layout = layout_of(fabric, View.FABRIC)
    assert problems(layout) == []
    (domain,) = of_kind(layout, BoxKind.DOMAIN)
    inside = [n.label for n in of_kind(layout, BoxKind.NODE) if holds(domain.frame, n.frame)]
    assert inside == ["gb200-001..018"]


def test_nvlink_switches_of_an_unknown_domain_are_drawn_too() -> None:
    fleet = fleet_from_spec("model:gb200-nvl72 rack:2")
    kept = fleet.nodes[:18]
    hosts = {node.host for node in kept}
    cables = tuple(c for c in fleet.cables if c.a.nic is None or c.a.device in hosts)
    layout = layout_of(Fabric(changed(fleet, nodes=kept, cables=cables)), View.FABRIC)
    assert problems(layout) == []
    labels = [box.label for box in of_kind(layout, BoxKind.DOMAIN)]
    assert labels == ["NVLink domain, 72 GPUs", "NVLink domain not in this map"]
    assert sum(box.count for box in of_kind(layout, BoxKind.SWITCH)) == 47


def test_a_fleet_without_a_known_network_shows_its_nodes() -> None:
    fleet = fleet_from_spec("model:pcie-l40s node:4")
    layout = layout_of(Fabric(changed(fleet, switches=(), cables=())), View.FABRIC)
    assert problems(layout) == []
    assert layout.sheet.subtitle == "no switch is known"
    assert sum(box.count for box in of_kind(layout, BoxKind.NODE)) == 4
    assert not any(row[0].startswith("same leaf") for row in rows_of(layout, "Routes, end to end"))


def test_switches_without_hosts_are_drawn() -> None:
    fleet = fleet_from_spec("model:dgx-h100 node:2")
    idle = Switch(id=SwitchId("idle"), link_layer=LinkLayer.INFINIBAND, tier=0)
    layout = layout_of(Fabric(changed(fleet, switches=(*fleet.switches, idle))), View.FABRIC)
    assert problems(layout) == []
    assert sum(box.count for box in of_kind(layout, BoxKind.SWITCH)) == 10


def test_cables_between_switches_of_one_tier_are_drawn_over_their_heads() -> None:
    fleet = fleet_from_spec("model:pcie-l40s node:4")
    leaves = [switch.id for switch in fleet.switches if switch.tier == 0]
    side = tuple(
        Cable(a=CableEnd(device=a, port=60), b=CableEnd(device=b, port=61), bytes_per_s=50e9)
        for a, b in combinations(leaves, 2)
    )
    layout = layout_of(Fabric(changed(fleet, cables=(*fleet.cables, *side))), View.FABRIC)
    assert problems(layout) == []
    assert cables_drawn(layout) == len(fleet.cables) + 6


def test_spines_that_share_some_leaves_only_do_not_overlap() -> None:
    # Three leaves with two nodes each; one spine over the first two, one over the last two.
    fleet = fleet_from_spec("model:pcie-l40s node:6")
    layer = LinkLayer.ROCE
    ids = [SwitchId(name) for name in ("leafA", "leafB", "leafC")]
    leaves = tuple(Switch(id=name, link_layer=layer, tier=0) for name in ids)
    spines = tuple(Switch(id=SwitchId(f"spine{i}"), link_layer=layer, tier=1) for i in (1, 2))
    ends = [(ids[i // 2], node.host) for i, node in enumerate(fleet.nodes)]
    down = tuple(
        Cable(
            a=CableEnd(device=host, nic=0, port=1),
            b=CableEnd(device=leaf, port=i + 1),
            bytes_per_s=50e9,
        )
        for i, (leaf, host) in enumerate(ends)
    )
    pairs = (("leafA", "spine1"), ("leafB", "spine1"), ("leafB", "spine2"), ("leafC", "spine2"))
    up = tuple(
        Cable(a=CableEnd(device=a, port=9 + i), b=CableEnd(device=b, port=i + 1), bytes_per_s=50e9)
        for i, (a, b) in enumerate(pairs)
    )
    changes = {"switches": (*leaves, *spines), "cables": (*down, *up)}
    layout = layout_of(Fabric(changed(fleet, **changes)), View.FABRIC)
    assert problems(layout) == []
    assert cables_drawn(layout) == 10


def test_many_shapes_on_one_leaf_still_fold() -> None:
    models = ("dgx-h100", "dgx-a100", "dgx1-v100", "pcie-l40s", "dgx-b200")
    fabric = Fabric(together(*(f"model:{model} node:2" for model in models)))
    layout = layout_of(fabric, View.FABRIC)
    assert problems(layout) == []
    assert [box.count for box in of_kind(layout, BoxKind.NODE)] == [10]


def test_a_missing_gpu_is_not_counted() -> None:
    fabric = with_first_deviating("model:dgx-h100 node:12", missing("gpus[3]"))
    layout = layout_of(fabric, View.FABRIC)
    (node,) = of_kind(layout, BoxKind.NODE)
    assert node.details == ("12 nodes, 95 slots together",)
    assert [slot.count for slot in of_kind(layout, BoxKind.SLOT)] == [12, 12, 12, 11] + [12] * 4


def test_figures_are_explained() -> None:
    (note,) = fabric_layout(SPECS[0]).sheet.notes
    assert note.startswith("Latency: of a small message on idle links, without jitter")


def test_guesses_are_told_once_with_their_number(root: Path) -> None:
    path = root / "samples/captures/l40s-8/nvidia-smi-topo-m.txt"
    layout = layout_of(Fabric(gather_files([path], host=None).fleet), View.FABRIC)
    guesses = [note for note in layout.sheet.notes if note.startswith("Guess: ")]
    assert any("PCIe generation 4 guessed" in note and "(8 GPUs)" in note for note in guesses)

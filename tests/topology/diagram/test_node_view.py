"""The view node: every device of one node, the links between them, and what is wrong with it."""

from collections import Counter
from pathlib import Path

import pytest

from fleet import EndKind, GpuPort, fleet_from_spec
from fleet.sources.registry import gather_files
from fleet.wiring import PortEnd
from tests.topology.diagram.fleets import missing, port_down, with_first_deviating, with_nodes
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
from topology.diagram.layout import Box, BoxKind, Dash, Layout, Mark, Role, Use
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.fabric.graph import all_links
from topology.words import View

TITLES = {
    "model:dgx-h100 node:1": "h100-001: 8 GPUs, 4 NVSwitches, 8 NICs, 2 NUMA nodes",
    "model:gb200-nvl72 rack:2": "gb200-001: 4 GPUs, 4 NICs, 2 NUMA nodes",
    "model:dgx1-v100 node:2": "dgx1-001: 8 GPUs, 4 NICs, 2 NUMA nodes",
    "model:beowulf-2006 node:200": "node-001: 1 CPU rank, 1 NIC, 1 NUMA node",
}


def node_layout(spec: str) -> Layout:
    return layout_of_spec(spec, View.NODE)


def box_named(layout: Layout, name: str) -> Box:
    return next(box for box in layout.boxes if box.name == name)


def labels_of(layout: Layout, kind: str) -> Counter[str]:
    return Counter(line.label for line in layout.lines if line.kind == kind)


@pytest.mark.parametrize("spec", SPECS)
def test_nothing_overlaps_sticks_out_or_is_cut(spec: str) -> None:
    assert problems(node_layout(spec)) == []


@pytest.mark.parametrize("spec", SPECS)
def test_every_device_is_there(spec: str) -> None:
    wiring = fabric_of(spec).nodes[0].graph.wiring
    names = {box.name for box in node_layout(spec).boxes}
    assert {f"gpu{gpu.slot}" for gpu in wiring.gpus} <= names
    assert {f"nic{nic.slot}" for nic in wiring.nics} <= names
    assert {f"nvswitch{switch.index}" for switch in wiring.nvswitches} <= names


@pytest.mark.parametrize(("spec", "title"), TITLES.items())
def test_title_counts_the_parts(spec: str, title: str) -> None:
    assert node_layout(spec).sheet.title == title


@pytest.mark.parametrize("spec", SPECS)
def test_every_link_kind_of_the_node_is_drawn_and_in_the_legend(spec: str) -> None:
    layout = node_layout(spec)
    kinds = Counter[str]()
    for _, _, link in all_links(fabric_of(spec).nodes[0].graph.graph):
        kinds[link.kind] += link.count
    assert {line.kind for line in layout.lines} == kinds.keys()
    table = table_of(layout, "Links")
    assert {e.kind: e.cells[2] for e in table.entries} == {k: f"{n:,}" for k, n in kinds.items()}


def test_gpus_reach_their_nvswitches_over_one_bus() -> None:
    layout = node_layout("model:dgx-h100 node:1")
    (bus,) = of_kind(layout, BoxKind.BUS)
    assert bus.label == "NVLink, 18 links, 450 GB/s from each GPU"
    # 8 GPUs with 5, 5, 4 and 4 links to the four switches.
    assert labels_of(layout, "nvlink") == {
        "18 x 25 GB/s": 8,
        "40 x 25 GB/s": 2,
        "32 x 25 GB/s": 2,
    }
    chips = [text.text for text in layout.texts if text.text.endswith("to each GPU")]
    assert Counter(chips) == {"5 to each GPU": 2, "4 to each GPU": 2}


def test_nvswitches_stand_above_gpus_above_pcie_switches_above_sockets() -> None:
    layout = node_layout("model:dgx-h100 node:1")
    order = ("nvswitch0", "gpu0", "pcie0", "nic0", "numa0")
    ys = [box_named(layout, name).y for name in order]
    assert ys == sorted(ys)


def test_gpu_and_nic_hang_on_their_pcie_switch() -> None:
    layout = node_layout("model:dgx-a100 node:9 busy:0,8,4")
    switch = box_named(layout, "pcie1")
    for name in ("gpu2", "gpu3", "nic2", "nic3"):
        assert switch.x <= box_named(layout, name).x
        assert box_named(layout, name).right <= switch.right


def test_numa_nodes_without_devices_fold_into_one_box() -> None:
    layout = node_layout("model:dgx-a100 node:9 busy:0,8,4")
    fold = box_named(layout, "numa0")
    assert (fold.label, fold.count) == ("NUMA 0, 2, 4, 6", 4)


def test_a_mesh_is_drawn_as_arcs_with_their_number_of_links() -> None:
    layout = node_layout("model:dgx1-v100 node:2")
    # Read off the model: 16 pairs, 8 of them with two links; 24 links, 6 at each of 8 GPUs.
    assert labels_of(layout, "nvlink") == {"1 link": 8, "2 links": 8}
    assert Counter(t.text for t in layout.texts if t.chip and t.text in "12") == {"1": 8, "2": 8}
    widths = {line.label: line.look.width_pt for line in layout.lines if line.kind == "nvlink"}
    assert widths["2 links"] > 1.5 * widths["1 link"]


def test_links_of_a_tray_leave_to_the_switches_of_the_rack() -> None:
    layout = node_layout("model:gb200-nvl72 rack:2")
    rack, frame = box_named(layout, "NVLink switches of the rack"), box_named(layout, "frame")
    assert (rack.label, rack.count, rack.dash) == (
        "18 NVLink switches of the rack",
        18,
        Dash.DASHED,
    )
    assert rack.bottom < frame.y
    assert labels_of(layout, "nvlink_rack") == {"18 x 50 GB/s": 4, "72 x 50 GB/s": 1}
    assert labels_of(layout, "c2c") == {"1 x 450 GB/s": 4}


def test_gpus_without_nvlink_have_neither_bus_nor_arcs() -> None:
    layout = node_layout("model:pcie-l40s node:4")
    assert of_kind(layout, BoxKind.BUS) == []
    assert {row[1] for row in rows_of(layout, "Routes, end to end")} == {
        "PCIe 4.0 x16 through one PCIe switch",
        "PCIe 4.0 x16 across CPU root complex, same socket",
        "PCIe 4.0 x16 across CPU sockets (UPI, xGMI)",
    }


def test_a_cpu_node_shows_its_rank_in_its_socket() -> None:
    layout = node_layout("model:beowulf-2006 node:200")
    (slot,) = of_kind(layout, BoxKind.SLOT)
    assert slot.mark == Mark(Use.FREE, is_cpu=True)
    assert slot.inside == "numa0"
    assert box_named(layout, "numa0").details == ("CPU rank",)


def test_a_nic_tells_the_leaf_it_is_cabled_to() -> None:
    layout = node_layout("model:dgx-h100 node:1")
    nic = box_named(layout, "nic3")
    assert (nic.label, nic.details) == ("mlx5_3", ("to leaf01-rail3",))


def test_the_node_asked_for_is_drawn() -> None:
    layout = layout_of(fabric_of("model:dgx-a100 node:9 busy:0,8,4"), View.NODE, host="a100-003")
    assert layout.sheet.title.startswith("a100-003: 8 GPUs")
    assert layout.sheet.subtitle == "4 held, 4 free, 0 deviating, 0 missing"


def test_an_unknown_host_is_refused_and_near_ones_are_named() -> None:
    with pytest.raises(WorkloadError, match=r"no host 'a100-03'.*it has .*a100-003"):
        layout_of(fabric_of("model:dgx-a100 node:9 busy:0,8,4"), View.NODE, host="a100-03")


def test_missing_parts_keep_their_place_and_are_marked() -> None:
    fabric = with_first_deviating(
        "model:dgx-h100 node:4", missing("gpus[3]"), missing("nics[5]"), missing("nvswitches[2]")
    )
    layout = layout_of(fabric, View.NODE)
    assert problems(layout) == []
    for name in ("gpu3", "nic5", "nvswitch2"):
        box = box_named(layout, name)
        assert (box.role, box.dash, box.details) == (Role.DEVIATING, Dash.DASHED, ("missing",))
    gone = {line.ends for line in layout.lines if line.look.role is Role.DEVIATING}
    assert gone == {("bus 0", "gpu3"), ("gpu3", "pcie3"), ("nic5", "pcie5")}
    assert layout.sheet.title == "h100-001: 7 GPUs, 3 NVSwitches, 7 NICs, 2 NUMA nodes"
    assert "Deviation: gpus[3]: missing; its shape has present" in layout.sheet.notes


def test_ports_that_are_down_are_counted_at_the_gpu_and_on_its_line() -> None:
    fabric = with_first_deviating(
        "model:dgx-h100 node:4", port_down("gpus[1].ports[0]"), port_down("gpus[1].ports[1]")
    )
    layout = layout_of(fabric, View.NODE)
    assert problems(layout) == []
    assert box_named(layout, "gpu1").details == ("2 ports down",)
    faults = [text.text for text in layout.texts if text.role is Role.DEVIATING]
    # Ports 0 and 1 lead to NVSwitch 0, which has 5 links to each of 8 GPUs.
    assert sorted(faults) == ["16 of 18", "38 of 40"]


def test_a_nic_port_that_is_down_is_told() -> None:
    fabric = with_first_deviating("model:dgx-h100 node:4", port_down("nics[2].ports[1]"))
    assert box_named(layout_of(fabric, View.NODE), "nic2").details == ("1 port down",)


def test_another_deviation_is_counted() -> None:
    from fleet.model import Deviation

    slow = Deviation(path="gpus[6].pcie_width", expected=16, observed=8)
    layout = layout_of(with_first_deviating("model:dgx-h100 node:4", slow), View.NODE)
    assert box_named(layout, "gpu6").details == ("1 deviation",)
    assert "Deviation: gpus[6].pcie_width: 8; its shape has 16" in layout.sheet.notes


def test_of_many_deviations_the_rest_is_counted() -> None:
    many = [port_down(f"gpus[0].ports[{port}]") for port in range(9)]
    layout = layout_of(with_first_deviating("model:dgx-h100 node:4", *many), View.NODE)
    assert sum(note.startswith("Deviation: ") for note in layout.sheet.notes) == 6
    assert "and 3 more deviations" in layout.sheet.notes


def test_a_gpu_with_c2c_and_pcie_hangs_on_its_pcie_switch(root: Path) -> None:
    fleet = gather_files([root / "samples/captures/two-trays"], host=None).fleet
    layout = layout_of(Fabric(fleet), View.NODE)
    assert problems(layout) == []
    ends = {line.ends for line in layout.lines}
    assert {kind for kind in ("c2c", "pcie") if labels_of(layout, kind)} == {"c2c", "pcie"}
    assert any(a.startswith("gpu") and b.startswith("pcie") for a, b in ends)


CAPTURES = ("dgx-h100-01", "hgx-h100-8", "l40s-8", "two-trays", "v100-mesh-8")


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize("view", View)
def test_maps_of_captures_can_be_drawn(capture: str, view: View, root: Path) -> None:
    fleet = gather_files([root / "samples/captures" / capture], host=None).fleet
    assert problems(layout_of(Fabric(fleet), view)) == []


def test_a_matrix_that_only_counts_links_shows_switches_of_unknown_number(root: Path) -> None:
    path = root / "samples/captures/dgx-h100-01/nvidia-smi-topo-m.txt"
    layout = layout_of(Fabric(gather_files([path], host=None).fleet), View.NODE)
    assert problems(layout) == []
    assert box_named(layout, "nvswitch-hidden").label == "NVSwitches"
    assert labels_of(layout, "nvlink") == {"18 x 25 GB/s": 8, "144 x 25 GB/s": 1}


REAL_FILES = (
    "nccl-topo-xml/aws-p4d-a100.xml",
    "nccl-topo-xml/azure-ndv2-v100.xml",
    "nccl-topo-xml/gb300-nvl72-1tray.xml",
    "nccl-topo-xml/oci-h100.xml",
    "nccl-topo-xml/rccl-16p1h.xml",
    "nccl-topo-xml/rccl-8p_940.xml",
    "nvidia-smi-topo/dgxa100-8gpu-10nic-tabs.txt",
    "nvidia-smi-topo/power9-4xv100-nv3-4nic.txt",
    "nvidia-smi-xml/telegraf-tesla-t4.xml",
)


@pytest.mark.parametrize("name", REAL_FILES)
def test_maps_of_real_files_can_be_drawn(name: str, artifacts: Path) -> None:
    fabric = Fabric(gather_files([artifacts / name], host=None).fleet)
    for view in View:
        assert problems(layout_of(fabric, view)) == []


def test_ports_without_a_known_far_end_are_told() -> None:
    fleet = fleet_from_spec("model:dgx1-v100 node:1")
    shape = fleet.shapes[0]
    lost = GpuPort(port=9, end=PortEnd(kind=EndKind.UNREPORTED), version="2.0", bytes_per_s=25e9)
    gpus = (
        shape.gpus[0].model_copy(update={"ports": (*shape.gpus[0].ports, lost)}),
        *shape.gpus[1:],
    )
    fleet = fleet.model_copy(update={"shapes": (shape.model_copy(update={"gpus": gpus}),)})
    notes = layout_of(Fabric(fleet), View.NODE).sheet.notes
    assert "Not drawn: 1 port of GPUs whose far end is not reported or no GPU or switch." in notes


def test_a_full_mesh_of_many_gpus_becomes_a_bus() -> None:
    fleet = fleet_from_spec("model:pcie-l40s node:1")
    shape = fleet.shapes[0]
    gpus = tuple(
        shape.gpus[0].model_copy(
            update={
                "slot": i,
                "bridge": None,
                "pci_address": None,
                "ports": tuple(
                    GpuPort(end=PortEnd(kind=EndKind.GPU, index=j), version="3.0", bytes_per_s=25e9)
                    for j in range(16)
                    if j != i
                ),
            }
        )
        for i in range(16)
    )
    wide = shape.model_copy(update={"gpus": gpus})
    layout = layout_of(Fabric(fleet.model_copy(update={"shapes": (wide,)})), View.NODE)
    assert problems(layout) == []
    (bus,) = of_kind(layout, BoxKind.BUS)
    assert bus.label == "NVLink, 15 links, 375 GB/s from each GPU"


def test_the_second_node_of_a_changed_fleet_is_found_by_name() -> None:
    fabric = with_nodes("model:dgx-h100 node:2", lambda i, node: {})
    assert layout_of(fabric, View.NODE, host="h100-002").sheet.title.startswith("h100-002: ")

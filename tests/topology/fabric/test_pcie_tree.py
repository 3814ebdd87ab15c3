from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.wiring import (
    C2cLinks,
    NumaNode,
    PcieBridge,
    PcieLevel,
    Wiring,
)
from tests.topology.fabric.factories import levels, make_gpu, make_nic, node_graph
from tests.topology.fabric.tree_levels import ROOT, assert_shows_its_levels, level_shown, path
from topology.fabric.graph import Graph, links_between
from topology.fabric.pcie_tree import pcie_class_generation


def kinds(graph: Graph, a: str, b: str) -> list[str]:
    vertices = path(graph, a, b)
    assert vertices is not None
    return [links_between(graph, u, v)[0].kind for u, v in pairwise(vertices)]


def test_bridge_ports_of_one_switch_are_one_vertex() -> None:
    wiring = Wiring(
        numa_nodes=(NumaNode(numa=0),),
        bridges=(
            PcieBridge(bridge=0, numa=0, vendor_device="0x1000c030"),
            PcieBridge(bridge=1, parent=0, vendor_device="0x1000c030"),
            PcieBridge(bridge=2, parent=0, vendor_device="0x1000c030"),
        ),
        gpus=(make_gpu(0, bridge=1), make_gpu(1, bridge=2)),
    )
    node = node_graph(wiring)
    assert {v for v in node.graph if v.startswith("pcie")} == {"pcie0"}
    assert path(node.graph, "gpu0", "gpu1") == ["gpu0", "pcie0", "gpu1"]
    assert kinds(node.graph, "gpu0", "gpu1") == ["pcie", "pcie"]


@pytest.mark.parametrize("devices", [("0x1000c030", "0x11f84000"), (None, None)])
def test_nested_bridges_of_two_makers_or_none_told_are_two_switches(
    devices: tuple[str | None, str | None],
) -> None:
    wiring = Wiring(
        bridges=(
            PcieBridge(bridge=0, numa=0, vendor_device=devices[0]),
            PcieBridge(bridge=1, parent=0, vendor_device=devices[1]),
        ),
        gpus=(make_gpu(0, bridge=1), make_gpu(1, bridge=0)),
    )
    node = node_graph(wiring)
    assert path(node.graph, "gpu0", "gpu1") == ["gpu0", "pcie1", "pcie0", "gpu1"]
    assert kinds(node.graph, "gpu0", "gpu1") == ["pcie", "pcie_switch", "pcie"]


def test_the_order_of_the_bridges_does_not_matter() -> None:
    bridges = (
        PcieBridge(bridge=0, numa=0),
        PcieBridge(bridge=1, parent=0),
        PcieBridge(bridge=2, parent=1),
    )
    gpus = (make_gpu(0, bridge=2), make_gpu(1, bridge=1))
    paths = {
        tuple(path(node_graph(Wiring(bridges=order, gpus=gpus)).graph, "gpu0", "gpu1") or ())
        for order in (bridges, bridges[::-1])
    }
    assert paths == {("gpu0", "pcie2", "pcie1", "gpu1")}


def test_sockets_are_joined_and_their_links_are_of_kind_socket() -> None:
    wiring = Wiring(
        bridges=(PcieBridge(bridge=0, numa=0), PcieBridge(bridge=1, numa=1)),
        gpus=(make_gpu(0, bridge=0), make_gpu(1, bridge=1)),
    )
    node = node_graph(wiring)
    assert kinds(node.graph, "gpu0", "gpu1") == [
        "pcie",
        "pcie_uplink",
        "socket",
        "pcie_uplink",
        "pcie",
    ]


def test_a_device_without_bridge_hangs_at_its_root_complex() -> None:
    node = node_graph(Wiring(gpus=(make_gpu(0, numa=1), make_gpu(1, numa=1))))
    assert path(node.graph, "gpu0", "gpu1") == ["gpu0", "numa1", "gpu1"]
    assert kinds(node.graph, "gpu0", "gpu1") == ["pcie_root_port", "pcie_root_port"]


def test_a_device_of_unknown_place_hangs_nowhere() -> None:
    node = node_graph(Wiring(gpus=(make_gpu(0), make_gpu(1, numa=0)), nics=(make_nic(0),)))
    assert path(node.graph, "gpu0", "gpu1") is None
    assert path(node.graph, "gpu0", "nic0") is None


def test_a_superchip_reaches_its_cpu_by_c2c_and_not_by_pcie() -> None:
    gpu = make_gpu(0, numa=0, c2c=C2cLinks(count=2, bytes_per_s=225e9))
    node = node_graph(
        Wiring(numa_nodes=(NumaNode(numa=0),), gpus=(gpu,), nics=(make_nic(0, numa=0),))
    )
    assert kinds(node.graph, "gpu0", "nic0") == ["c2c", "pcie_root_port"]
    (link,) = links_between(node.graph, "gpu0", "numa0")
    assert (link.bytes_per_s, link.count) == (450e9, 2)


@pytest.mark.parametrize(
    ("generation", "width", "rate"),
    [(3, 16, 15.75e9), (4, 8, 15.75e9), (5, 16, 63e9), (5, None, 63e9), (6, 16, 121e9)],
)
def test_a_pcie_link_is_as_wide_as_reported(
    generation: int, width: int | None, rate: float
) -> None:
    gpu = make_gpu(0, numa=0, pcie_generation=generation, pcie_width=width)
    (link,) = links_between(node_graph(Wiring(gpus=(gpu,))).graph, "gpu0", "numa0")
    assert link.bytes_per_s == rate


def test_a_nic_of_unknown_generation_takes_that_of_the_gpus() -> None:
    wiring = Wiring(gpus=(make_gpu(0, numa=0, pcie_generation=5),), nics=(make_nic(0, numa=0),))
    (link,) = links_between(node_graph(wiring).graph, "nic0", "numa0")
    assert link.bytes_per_s == 63e9


@pytest.mark.parametrize(("generation", "nearest"), [(1, 3), (3, 3), (5, 5), (6, 6), (7, 6)])
def test_a_generation_without_classes_takes_the_nearest(generation: int, nearest: int) -> None:
    assert pcie_class_generation(generation) == nearest


def test_pxb_neighbours_that_share_no_switch_have_two_switches_between() -> None:
    node = node_graph(
        Wiring(
            gpus=(make_gpu(0), make_gpu(1)),
            pcie_levels=levels({("gpu0", "gpu1"): PcieLevel.PXB}),
        )
    )
    assert kinds(node.graph, "gpu0", "gpu1") == ["pcie", "pcie_switch", "pcie_switch", "pcie"]
    assert_shows_its_levels(node)


def test_what_no_row_joins_stays_apart() -> None:
    node = node_graph(
        Wiring(
            gpus=tuple(make_gpu(slot) for slot in range(4)),
            nics=(make_nic(0),),
            pcie_levels=levels({("gpu0", "gpu1"): PcieLevel.SYS, ("gpu2", "gpu3"): PcieLevel.PIX}),
        )
    )
    assert level_shown(node.graph, "gpu0", "gpu1") == "sys"
    assert path(node.graph, "gpu0", "nic0") is None


def test_two_islands_without_a_sys_row_or_numa_stay_apart() -> None:
    rows = {("gpu0", "gpu1"): PcieLevel.PIX, ("gpu2", "gpu3"): PcieLevel.PHB}
    node = node_graph(
        Wiring(gpus=tuple(make_gpu(slot) for slot in range(4)), pcie_levels=levels(rows))
    )
    assert path(node.graph, "gpu0", "gpu2") is None
    assert_shows_its_levels(node)


def test_devices_of_one_numa_node_meet_at_its_root_where_a_matrix_is_silent() -> None:
    node = node_graph(
        Wiring(
            gpus=(make_gpu(0, numa=0), make_gpu(1, numa=0), make_gpu(2, numa=1)),
            nics=(make_nic(0, numa=0),),
            pcie_levels=levels({("gpu0", "nic0"): PcieLevel.PIX}),
        )
    )
    assert level_shown(node.graph, "gpu0", "gpu1") == ROOT
    assert level_shown(node.graph, "gpu0", "gpu2") == "sys"
    assert level_shown(node.graph, "gpu0", "nic0") == "pix"


def test_rows_about_devices_that_are_not_there_change_nothing() -> None:
    rows = {("gpu0", "nic7"): PcieLevel.PIX, ("gpu0", "gpu1"): PcieLevel.PIX}
    node = node_graph(Wiring(gpus=(make_gpu(0), make_gpu(1)), pcie_levels=levels(rows)))
    assert "nic7" not in node.graph
    assert level_shown(node.graph, "gpu0", "gpu1") == "pix"


CLOSEST_FIRST = (PcieLevel.PIX, PcieLevel.PXB, PcieLevel.PHB, PcieLevel.SYS)


@st.composite
def nested_groups(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """For each device its socket, upper switch and switch, each group inside the one above."""
    count = draw(st.integers(min_value=2, max_value=9))
    places = []
    for _ in range(count):
        socket, upper, switch = (draw(st.integers(min_value=0, max_value=2)) for _ in range(3))
        places.append((socket, upper, switch))
    return places


@given(places=nested_groups(), gpus=st.integers(min_value=1, max_value=8), data=st.data())
def test_a_tree_from_levels_shows_those_levels_again(
    places: list[tuple[int, int, int]], gpus: int, data: st.DataObject
) -> None:
    gpus = min(gpus, len(places))
    names = [f"gpu{i}" if i < gpus else f"nic{i - gpus}" for i in range(len(places))]
    rows = {}
    for (name_a, a), (name_b, b) in combinations(zip(names, places, strict=True), 2):
        shared = next((3 - n for n in (3, 2, 1) if a[:n] == b[:n]), 3)
        rows[name_a, name_b] = CLOSEST_FIRST[shared]
    tells_numa = data.draw(st.booleans())
    numa_of = [place[0] if tells_numa else None for place in places]
    wiring = Wiring(
        gpus=tuple(make_gpu(i, numa=numa_of[i]) for i in range(gpus)),
        nics=tuple(make_nic(i - gpus, numa=numa_of[i]) for i in range(gpus, len(places))),
        pcie_levels=levels(dict(data.draw(st.permutations(list(rows.items()))))),
    )
    assert_shows_its_levels(node_graph(wiring))

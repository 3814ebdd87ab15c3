from fleet.check import check_fleet
from fleet.fields import SwitchId
from fleet.model import FleetMap, Switch
from fleet.report import HEADER, finding_rows, fleet_lines, fleet_rows
from fleet.wiring import C2cLinks, EndKind, GpuSlot, LinkState, PortEnd, PortTechnology, Wiring
from tests.factories import (
    fleet_of,
    make_fleet,
    make_gpu,
    make_nic,
    make_port,
    make_snapshot,
    make_wiring,
    replaced,
)


def cell(fleet: FleetMap, column: str, row: int = 0) -> str:
    return fleet_rows(fleet)[row][HEADER.index(column)]


def of_ports(*ends: PortEnd, **special: object) -> FleetMap:
    ports = tuple(make_port(i, end=end, **special) for i, end in enumerate(ends))
    return make_fleet(make_snapshot(wiring=make_wiring((make_gpu(0, ports=ports),))))


def test_fleet_is_two_lines() -> None:
    assert fleet_lines(fleet_of("model:dgx-h100 node:32")) == [
        "32 nodes, 256 GPUs, 1 shape",
        "12 switches, 512 cables",
    ]


def test_domains_across_nodes_are_counted_and_their_switches_are_not() -> None:
    assert fleet_lines(fleet_of("model:gb200-nvl72 rack:1")) == [
        "18 nodes, 72 GPUs, 1 shape",
        "6 switches, 144 cables, 1 NVLink domain across nodes",
    ]


def test_empty_fleet_is_printed_too() -> None:
    empty = FleetMap(kind="fleet_map", schema_version=1)
    assert fleet_lines(empty) == ["0 nodes, 0 GPUs, 0 shapes", "0 switches, 0 cables"]
    assert fleet_rows(empty) == []


def test_conflicts_are_counted() -> None:
    fleet = make_fleet(make_snapshot(tray=1), make_snapshot(tray=2, source="zzz"))
    assert fleet_lines(fleet)[1] == "0 switches, 0 cables, 1 conflict"


def test_thousands_are_grouped() -> None:
    switches = [Switch(id=SwitchId(f"s{i}")) for i in range(1000)]
    assert fleet_lines(make_fleet(make_snapshot(), switches=switches))[1].startswith("1,000 switch")


def test_hosts_of_one_wiring_are_one_row() -> None:
    (row,) = fleet_rows(fleet_of("model:dgx-h100 node:3"))
    assert row == (
        "h100-[001-003]",
        "3",
        "8",
        "NVIDIA H100 80GB HBM3",
        "79.6 GiB",
        "18 nvlink to switch",
        "8 x infiniband 50 GB/s",
        "",
    )


def test_broken_node_has_a_row_of_its_own_and_says_in_how_many_places() -> None:
    wiring = make_wiring()
    broken = replaced(wiring, "gpus", (make_gpu(0, pcie_width=8), *wiring.gpus[1:]))
    fleet = make_fleet(
        make_snapshot("a"), make_snapshot("b", broken), make_snapshot("c"), make_snapshot("d")
    )
    rows = fleet_rows(fleet)
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("a", "1", ""),
        ("b", "1", "1 place"),
        ("c,d", "2", ""),
    ]


def test_node_without_gpus_has_a_dash() -> None:
    fleet = make_fleet(make_snapshot(wiring=Wiring(), nics=()))
    assert fleet_rows(fleet)[0][2:] == ("0", "-", "-", "-", "-", "")


def test_what_is_not_told_is_a_question_mark_and_never_zero() -> None:
    nic = make_nic(0, ports=(make_nic().ports[0].model_copy(update={"bytes_per_s": None}),))
    gpu = GpuSlot(slot=0, compute_capability="9.0")
    fleet = make_fleet(make_snapshot(wiring=make_wiring((gpu,), (nic,))))
    assert fleet_rows(fleet)[0][3:7] == (
        "nvidia 9.0",
        "?",
        "none told",
        "1 x infiniband rate ?",
    )


def test_gpus_that_differ_are_counted_most_first() -> None:
    gpus = (make_gpu(0, product_name="NVIDIA T4"), make_gpu(1), make_gpu(2))
    fleet = make_fleet(make_snapshot(wiring=make_wiring(gpus)))
    assert cell(fleet, "GPU") == "2 x NVIDIA H100 80GB HBM3, 1 x NVIDIA T4"


def test_far_end_of_a_link_is_named_only_where_it_is_told() -> None:
    switch, domain = PortEnd(kind=EndKind.SWITCH), PortEnd(kind=EndKind.DOMAIN_SWITCH, index=3)
    assert cell(of_ports(switch, domain), "scale-up") == "2 nvlink to switch"
    assert cell(of_ports(PortEnd(kind=EndKind.GPU)), "scale-up") == "1 nvlink to GPUs"
    assert cell(of_ports(PortEnd(kind=EndKind.NPU, index=0)), "scale-up") == "1 nvlink to NPU"
    assert cell(of_ports(PortEnd(kind=EndKind.UNREPORTED)), "scale-up") == "1 nvlink to ?"


def test_links_down_are_not_counted_and_xgmi_is_named() -> None:
    switch = PortEnd(kind=EndKind.SWITCH)
    assert cell(of_ports(switch, state=LinkState.DOWN), "scale-up") == "none told"
    assert cell(of_ports(switch, technology=PortTechnology.XGMI), "scale-up") == "1 xgmi to switch"


def test_c2c_is_no_scale_up_link() -> None:
    gpu = make_gpu(0, ports=0, c2c=C2cLinks(count=1, bytes_per_s=450e9))
    assert cell(make_fleet(make_snapshot(wiring=make_wiring((gpu,)))), "scale-up") == "none told"


def test_finding_rows_have_the_words_of_the_findings() -> None:
    fleet = make_fleet(make_snapshot(tray=1), make_snapshot(tray=2, source="zzz"))
    assert finding_rows(check_fleet(fleet)) == [
        ("warning", "sources_disagree", "nodes[node1].tray", "nvml says 1, zzz says 2; took 1")
    ]
    assert finding_rows([]) == []

from typing import Any

import pytest

from fleet.check import Finding, Severity, check_fleet, worst
from fleet.fields import GpuUuid, SwitchId
from fleet.model import Cable, CableEnd, FabricState, FleetMap, NvlinkFabric, Switch
from fleet.sources.machines import machine_names
from fleet.wiring import EndKind, GpuPort, GpuSlot, LinkState, PortEnd, Wiring
from tests.factories import (
    fleet_of,
    make_fleet,
    make_gpu,
    make_identity,
    make_nic,
    make_port,
    make_snapshot,
    make_wiring,
    replaced,
)


def codes_of(fleet: FleetMap) -> list[str]:
    return [finding.code for finding in check_fleet(fleet)]


def beside_healthy(wiring: Wiring, **special: Any) -> FleetMap:
    """A healthy node1 and node3, and between them a node2 of this wiring."""
    return make_fleet(
        make_snapshot("node1"), make_snapshot("node2", wiring, **special), make_snapshot("node3")
    )


@pytest.mark.parametrize("name", machine_names())
def test_reference_fleet_has_no_finding(name: str) -> None:
    assert codes_of(fleet_of(f"model:{name} node:40")) == []


def test_empty_fleet_has_no_finding() -> None:
    assert check_fleet(FleetMap(kind="fleet_map", schema_version=1)) == ()
    assert worst([]) is None


def test_worst_is_the_highest_severity() -> None:
    def finding(severity: Severity) -> Finding:
        return Finding(code="x", severity=severity, where="y", text="z")

    assert worst([finding(Severity.INFO), finding(Severity.WARNING)]) is Severity.WARNING
    assert worst([finding(Severity.ERROR), finding(Severity.INFO)]) is Severity.ERROR


def first_gpu(**special: Any) -> Wiring:
    wiring = make_wiring()
    return replaced(wiring, "gpus", (make_gpu(0, **special), *wiring.gpus[1:]))


LEFT = tuple(make_gpu(slot) for slot in (0, 1, 3))
NIC_DOWN = make_nic(1).ports[0].model_copy(update={"state": LinkState.DOWN})


@pytest.mark.parametrize(
    ("wiring", "code", "where", "severity"),
    [
        (make_wiring(LEFT), "gpu_missing", "gpus[2]", Severity.ERROR),
        (make_wiring(nics=(make_nic(1),)), "nic_missing", "nics[0]", Severity.ERROR),
        (make_wiring(nvswitches=()), "nvswitch_missing", "nvswitches[0]", Severity.ERROR),
        (first_gpu(ports=1), "port_missing", "gpus[0].ports[1]", Severity.ERROR),
        (
            first_gpu(ports=(make_port(0), make_port(1, state=LinkState.DOWN))),
            "port_down",
            "gpus[0].ports[1].state",
            Severity.ERROR,
        ),
        (
            first_gpu(ports=(make_port(0), make_port(1, state=LinkState.UNREPORTED))),
            "port_unreported",
            "gpus[0].ports[1].state",
            Severity.ERROR,
        ),
        (
            make_wiring(nics=(make_nic(0), make_nic(1, ports=(NIC_DOWN,)))),
            "port_down",
            "nics[1].ports[1].state",
            Severity.ERROR,
        ),
        (
            first_gpu(pcie_width=8),
            "pcie_width_differs",
            "gpus[0].pcie_width",
            Severity.WARNING,
        ),
        (
            first_gpu(pcie_generation=4),
            "pcie_generation_differs",
            "gpus[0].pcie_generation",
            Severity.WARNING,
        ),
    ],
)
def test_node_that_differs_from_its_shape_is_found(
    wiring: Wiring, code: str, where: str, severity: Severity
) -> None:
    findings = [f for f in check_fleet(beside_healthy(wiring)) if f.code == code]
    assert [(f.where, f.severity) for f in findings] == [(f"nodes[node2].{where}", severity)]


def test_finding_tells_what_was_expected() -> None:
    (finding,) = check_fleet(beside_healthy(first_gpu(pcie_width=8)))
    assert finding.text.startswith("8; its shape ")
    assert finding.text.endswith(" has 16")


def to_gpu(port: int, far: int, **special: Any) -> GpuPort:
    return make_port(port, end=PortEnd(kind=EndKind.GPU, index=far), **special)


def pair(a: tuple[GpuPort, ...], b: tuple[GpuPort, ...]) -> FleetMap:
    gpus = (GpuSlot(slot=0, ports=a), GpuSlot(slot=1, ports=b))
    return make_fleet(make_snapshot(wiring=Wiring(gpus=gpus)))


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        ((to_gpu(0, 1), to_gpu(1, 1)), (to_gpu(0, 0),), "2 links to gpu 1, which has 1 back"),
        ((to_gpu(0, 1),), (), "1 links to gpu 1, which has 0 back"),
        ((), (to_gpu(0, 0),), "0 links to gpu 1, which has 1 back"),
        (
            (to_gpu(0, 1, count=3),),
            (to_gpu(0, 0, count=3, state=LinkState.DOWN),),
            "3 links to gpu 1, which has 0 back",
        ),
    ],
)
def test_links_that_one_side_alone_has_are_found(
    a: tuple[GpuPort, ...], b: tuple[GpuPort, ...], text: str
) -> None:
    found = [f for f in check_fleet(pair(a, b)) if f.code == "links_asymmetric"]
    assert [(f.where, f.text) for f in found] == [("nodes[node1].gpus[0].ports", text)]


def test_links_that_both_sides_have_are_no_finding() -> None:
    assert codes_of(pair((to_gpu(0, 1),), (to_gpu(5, 0),))) == []


@pytest.mark.parametrize(
    ("links", "weak"),
    [
        ((18, 18, 18, 17), [3]),
        ((18, 18, 18, 0), [3]),
        ((18, 17, 16, 18, 18), [1, 2]),
        ((18, 17, 18, 17), []),
        ((18,), []),
        ((), []),
        ((17, 17, 17, 18), []),
    ],
)
def test_gpu_with_fewer_links_than_most_of_its_peers_is_found(
    links: tuple[int, ...], weak: list[int]
) -> None:
    gpus = tuple(make_gpu(slot, ports=count) for slot, count in enumerate(links))
    fleet = make_fleet(make_snapshot(wiring=make_wiring(gpus)))
    found = [f.where for f in check_fleet(fleet) if f.code == "links_fewer_than_peers"]
    assert found == [f"nodes[node1].gpus[{slot}].ports" for slot in weak]


def test_gpus_of_another_product_are_no_peers() -> None:
    gpus = (make_gpu(0), make_gpu(1), make_gpu(2, product_name="NVIDIA T4", ports=0))
    assert codes_of(make_fleet(make_snapshot(wiring=make_wiring(gpus)))) == []


def test_odd_wiring_is_told_once_at_its_first_host() -> None:
    wiring = first_gpu(ports=1)
    fleet = make_fleet(*(make_snapshot(f"node{i}", wiring) for i in range(1, 4)))
    assert [f.where for f in check_fleet(fleet)] == ["nodes[node1].gpus[0].ports"]


def with_fabric(*fabrics: NvlinkFabric | None) -> FleetMap:
    wiring = make_wiring(gpus=len(fabrics))
    gpus = tuple(make_identity("node1", i, fabric=f) for i, f in enumerate(fabrics))
    return make_fleet(make_snapshot(wiring=wiring, gpus=gpus))


def clique(number: int) -> NvlinkFabric:
    return NvlinkFabric(state=FabricState.DOMAIN, cluster_uuid="c", clique=number)


def test_broken_fabric_is_found() -> None:
    broken = NvlinkFabric(state=FabricState.BROKEN)
    found = check_fleet(with_fabric(broken, NvlinkFabric(state=FabricState.SINGLE_NODE)))
    assert [(f.code, f.where) for f in found] == [("fabric_broken", "nodes[node1].gpus[0].fabric")]


def test_gpus_of_one_node_in_two_domains_are_found() -> None:
    (finding,) = check_fleet(with_fabric(clique(1), clique(2)))
    assert (finding.code, finding.where) == ("domain_split", "nodes[node1].gpus")
    assert "c.1 and c.2" in finding.text


@pytest.mark.parametrize("fabrics", [(), (None, None), (clique(1), clique(1)), (clique(1), None)])
def test_one_domain_is_no_finding(fabrics: tuple[NvlinkFabric | None, ...]) -> None:
    assert codes_of(with_fabric(*fabrics)) == []


def cabled(*cables: tuple[int | None, int, LinkState]) -> FleetMap:
    """Cables from a port of node1's NIC to a port of the leaf."""
    return make_fleet(
        make_snapshot(),
        switches=[Switch(id=SwitchId("leaf1"))],
        cables=[
            Cable(
                a=CableEnd(device="node1", nic=0, port=near),
                b=CableEnd(device="leaf1", port=far),
                bytes_per_s=50e9,
                state=state,
            )
            for near, far, state in cables
        ],
    )


def test_cable_down_is_found() -> None:
    (finding,) = check_fleet(cabled((1, 1, LinkState.UP), (2, 2, LinkState.DOWN)))
    assert (finding.code, finding.where) == ("cable_down", "cables[1]")
    assert finding.text == "between node1 and leaf1"


def test_two_cables_at_one_port_are_found() -> None:
    (finding,) = check_fleet(cabled((1, 7, LinkState.UP), (2, 7, LinkState.UP)))
    assert (finding.code, finding.where) == ("port_shared", "cables[1]")
    assert finding.text == "port 7 of leaf1 also holds cables[0]"


def test_cables_of_which_no_port_is_told_share_none() -> None:
    assert codes_of(cabled((None, 1, LinkState.UP), (None, 2, LinkState.UP))) == []


def test_conflict_is_a_warning_with_both_values() -> None:
    twin = make_identity("x", 0, uuid=GpuUuid("GPU-1"))
    wiring = make_wiring(gpus=1)
    fleet = make_fleet(*(make_snapshot(h, wiring, gpus=(twin,)) for h in ("node1", "node2")))
    (finding,) = check_fleet(fleet)
    assert (finding.code, finding.severity) == ("sources_disagree", Severity.WARNING)
    assert finding.where == "nodes[node2].gpus[0].uuid"
    assert finding.text.endswith("took neither")
    other = make_fleet(make_snapshot(tray=1), make_snapshot(tray=2, source="zzz"))
    assert check_fleet(other)[0].text == "nvml says 1, zzz says 2; took 1"

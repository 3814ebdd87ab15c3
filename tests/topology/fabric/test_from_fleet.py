import re
from pathlib import Path

import pytest

from fleet.errors import StoreError
from fleet.fields import Absence, AbsenceReason, HostName
from fleet.merge import merge_fleets
from fleet.store import save_fleet
from fleet.wiring import EndKind, Wiring
from tests.topology.fabric.factories import (
    fabric_of,
    fleet_of,
    joined,
    make_gpu,
    ports_to,
    rewired,
    snapshot,
    with_cables_down,
    with_port_down,
)
from topology.errors import FabricError, UnreachableError, WorkloadError
from topology.fabric.from_fleet import Fabric, load_fabric
from topology.fabric.graph import all_links
from topology.fabric.routes import Endpoint, HopPlace

H100 = "model:dgx-h100 node:2"


@pytest.mark.parametrize("text", ["h100-002:3", "h100-002:gpu3"])
def test_an_endpoint_is_named_by_host_and_slot(text: str) -> None:
    assert fabric_of(H100).endpoint_from_text(text) == Endpoint(HostName("h100-002"), 3)


def test_an_endpoint_is_named_by_its_uuid() -> None:
    fabric = fabric_of(H100)
    uuid = fabric.fleet.nodes[1].gpus[5].uuid
    assert uuid is not None
    assert fabric.endpoint_from_text(uuid) == Endpoint(HostName("h100-002"), 5)


def test_a_cpu_rank_is_slot_0_of_its_host() -> None:
    fabric = fabric_of("model:beowulf-2006 node:2")
    assert fabric.endpoint_from_text("node-002:cpu0") == fabric.endpoints[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h100-001",
        "h100-001:",
        "h100-001:x",
        "h100-001:-1",
        "h100-001:٣",
        "GPU-0",
        "a:b:c",
        pytest.param(f"h100-001:{'9' * 5000}", id="long"),
    ],
)
def test_text_that_names_no_endpoint_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(WorkloadError) as caught:
        fabric_of(H100).endpoint_from_text(text)
    assert str(caught.value) == (
        f"{text!r} is no endpoint of this map; write host:slot, such as h100-001:0"
    )
    assert caught.value.exit_code == 2


def test_a_slot_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(WorkloadError) as caught:
        fabric_of(H100).endpoint_from_text("h100-001:8")
    assert str(caught.value) == "h100-001 has no slot 8; it has 0, 1, 2, 3, 4, 5, 6, 7"


def test_a_host_that_is_not_there_is_refused() -> None:
    fabric = fabric_of(H100)
    with pytest.raises(WorkloadError, match="no host 'other' in this map; it has h100-001, say"):
        fabric.checked(Endpoint(HostName("other"), 0))
    with pytest.raises(WorkloadError, match="no host 'h100-2' in this map; it has h100-002, say"):
        fabric.endpoint_from_text("h100-2:0")


def test_an_empty_map_has_no_endpoints_and_refuses_every_name() -> None:
    fabric = joined([])
    assert (fabric.endpoints, fabric.domains, fabric.guesses) == ((), (), ())
    with pytest.raises(WorkloadError, match="no host 'a' in this map; it has none"):
        fabric.endpoint_from_text("a:0")


def test_an_unreachable_pair_raises_with_its_reason_and_exit_code() -> None:
    fabric = joined([snapshot("a", Wiring(gpus=(make_gpu(0), make_gpu(1))))])
    with pytest.raises(UnreachableError) as caught:
        fabric.reachable_route(*fabric.endpoints)
    error = caught.value
    assert (error.where, error.field, error.exit_code) == ("a:0 -> a:1", "wiring_unknown", 1)
    assert str(error).startswith("a:0 -> a:1: wiring_unknown: a: how gpu0 and gpu1 are wired")


def test_held_endpoints_are_not_free() -> None:
    fabric = fabric_of("model:dgx-h100 node:3 busy:2,0")
    free = [str(endpoint) for endpoint in fabric.endpoints if fabric.is_free(endpoint)]
    assert len(free) == 3 * 8 - 2 * 2
    assert not {"h100-001:0", "h100-001:1", "h100-003:0", "h100-003:1"} & set(free)


@pytest.mark.parametrize(("path", "free"), [("gpus[1]", 7), ("gpus[*]", 0), ("gpus", 0)])
def test_a_gpu_that_does_not_answer_is_not_free(path: str, free: int) -> None:
    absence = Absence(path=path, reason=AbsenceReason.GPU_LOST)
    (node,) = fleet_of("model:dgx1-v100 node:1").nodes
    fleet = fleet_of("model:dgx1-v100 node:1").model_copy(
        update={"nodes": (node.model_copy(update={"absences": (absence,)}),)}
    )
    fabric = Fabric(fleet)
    assert sum(fabric.is_free(endpoint) for endpoint in fabric.endpoints) == free


def test_a_leg_is_as_long_as_a_whole_route_and_as_wide_as_the_gpu() -> None:
    fabric = fabric_of("model:dgx-h100 node:1")
    a, b = fabric.endpoints[:2]
    leg, route = fabric.leg(a), fabric.reachable_route(a, b)
    assert leg.in_switch
    assert not route.in_switch
    assert leg.alpha_s == route.alpha_s == pytest.approx(762e-9)
    assert leg.link_bytes_per_s == 450e9
    assert leg.collective_efficiency_ratio == 0.61
    assert route.collective_efficiency_ratio == 0.81
    assert [hop.place for hop in leg.hops] == [HopPlace.UP_TO_SWITCH, HopPlace.DOWN_FROM_SWITCH]


@pytest.mark.parametrize("model", ["dgx-a100", "dgx1-v100", "pcie-l40s", "beowulf-2006"])
def test_a_domain_that_does_not_reduce_has_no_leg(model: str) -> None:
    fabric = fabric_of(f"model:{model} node:1")
    with pytest.raises(FabricError) as caught:
        fabric.leg(fabric.endpoints[0])
    assert str(caught.value) == (
        f"{fabric.endpoints[0]}: nvls: no NVSwitch that reduces in the switch "
        "(NVLink 4 or later); choose another algorithm"
    )


def test_routes_are_found_once() -> None:
    fabric = fabric_of(H100)
    a, b = fabric.endpoints[0], fabric.endpoints[9]
    assert fabric.route(a, b) is fabric.route(a, b)


def test_nodes_of_one_wiring_share_one_graph() -> None:
    fabric = fabric_of("model:dgx-h100 node:32")
    assert len({id(node.graph) for node in fabric.nodes}) == 1
    worn = Fabric(
        rewired(
            fleet_of("model:dgx-h100 node:4"),
            lambda host, w: with_port_down(w, 0, (1,)) if host == "h100-003" else w,
        )
    )
    assert len({id(node.graph) for node in worn.nodes}) == 2


def test_the_whole_graph_has_every_device_and_link_once() -> None:
    """8 GPUs, 4 NVSwitches, 8 PCIe switches, 2 sockets, 8 NICs a node; 9 network switches."""
    fabric = fabric_of(H100)
    graph = fabric.graph()
    assert len(graph) == 2 * (8 + 4 + 8 + 2 + 8) + len(fabric.network.tier_of)
    kinds: dict[str, int] = {}
    for _, _, link in all_links(graph):
        kinds[link.kind] = kinds.get(link.kind, 0) + link.count
    assert kinds == {
        "nvlink": 2 * 2 * 8 * 18,
        "pcie": 2 * 2 * 16,
        "pcie_uplink": 2 * 2 * 8,
        "socket": 2 * 2,
        "ib_ndr_host": 2 * 2 * 8,
        "ib_ndr_trunk": 2 * 8 * 2,
    }


def test_the_graph_of_some_hosts_has_all_switches_and_no_other_host() -> None:
    fabric = fabric_of(H100)
    vertices = set(fabric.graph(["h100-002"]))
    assert {v for v in vertices if v.startswith("h100-001")} == set()
    assert fabric.network.tier_of.keys() <= vertices
    assert "h100-002:gpu7" in vertices


def test_switches_of_a_rack_are_one_vertex_for_all_its_trays() -> None:
    fabric = fabric_of("model:gb200-nvl72 node:20")
    chips = {v for v in fabric.graph() if "domain_switch" in v}
    assert len(chips) == 2 * 18, "two racks"


def test_a_fabric_of_reported_facts_has_no_guesses() -> None:
    assert fabric_of(H100).guesses == ()


def test_a_guess_is_told_once_for_each_wiring() -> None:
    ports = [
        port.model_copy(update={"version": None, "bytes_per_s": None})
        for port in ports_to(EndKind.SWITCH, 0, 18)
    ]
    wiring = Wiring(
        machine="box", gpus=tuple(make_gpu(slot, numa=0, ports=ports) for slot in (0, 1))
    )
    fabric = joined(snapshot(host, wiring) for host in ("a", "b"))
    assert fabric.guesses == tuple(
        f"box gpu{slot}: {guess}"
        for slot in (0, 1)
        for guess in (
            "NVLink 4.0 guessed from 18 links",
            "PCIe generation 4 guessed: not reported",
        )
    )


def test_a_map_on_disk_becomes_a_fabric(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    save_fleet(fleet_of(H100), path)
    assert load_fabric(path).endpoints == fabric_of(H100).endpoints


def test_a_map_that_is_not_there_is_refused() -> None:
    with pytest.raises(StoreError, match=re.escape("missing.json: no such file")):
        load_fabric("missing.json")


def test_endpoints_are_gpus_where_the_map_has_any() -> None:
    """Login and storage nodes carry no ranks beside GPUs; among CPUs alone each is one."""
    mixed = Fabric(
        merge_fleets([fleet_of("model:beowulf-2006 node:2"), fleet_of("model:dgx-h100 node:1")])
    )
    assert {endpoint.host for endpoint in mixed.endpoints} == {"h100-001"}
    assert len(Fabric(fleet_of("model:beowulf-2006 node:2")).endpoints) == 2


def test_islands_are_what_the_network_or_nvlink_joins() -> None:
    fleet = with_cables_down(
        fleet_of("model:dgx-h100 node:4"), lambda c: c.a.device in ("h100-001", "h100-003")
    )
    assert Fabric(fleet).island_of == {
        "h100-001": "h100-001",
        "h100-002": "h100-002",
        "h100-003": "h100-003",
        "h100-004": "h100-002",
    }
    rack = with_cables_down(fleet_of("model:gb200-nvl72 rack:2"), lambda _: True)
    assert set(Fabric(rack).island_of.values()) == {"gb200-001", "gb200-019"}

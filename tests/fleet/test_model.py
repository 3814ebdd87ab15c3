from datetime import datetime

import pytest
from pydantic import ValidationError

from fleet.fields import GpuUuid, HostName, ShapeId, SwitchId
from fleet.model import (
    Allocation,
    Cable,
    CableEnd,
    FabricState,
    FleetMap,
    GpuIdentity,
    NicIdentity,
    Node,
    NodeSnapshot,
    NvlinkFabric,
    Section,
    SectionName,
    Switch,
    fleet_problems,
)
from fleet.wiring import NodeShape, Wiring
from tests.factories import make_identity, make_snapshot, make_wiring

SHAPE = NodeShape(id=ShapeId("plain"), **dict(make_wiring(gpus=2, nics=1)))


def make_node(host: str = "node1", **special: object) -> Node:
    return Node.model_validate({"host": host, "shape": "plain"} | special)


def cable(a: CableEnd, b: CableEnd) -> Cable:
    return Cable(a=a, b=b, bytes_per_s=50e9)


def at_nic(host: str = "node1", nic: int = 0) -> CableEnd:
    return CableEnd(device=host, nic=nic, port=1)


def at_switch(name: str = "leaf1", port: int = 1) -> CableEnd:
    return CableEnd(device=name, port=port)


def make_map(**special: object) -> FleetMap:
    plain: dict[str, object] = {
        "kind": "fleet_map",
        "schema_version": 1,
        "shapes": (SHAPE,),
        "nodes": (make_node(), make_node("node2")),
        "switches": (Switch(id=SwitchId("leaf1")),),
        "cables": (cable(at_nic(), at_switch()),),
    }
    return FleetMap.model_validate(plain | special)


def test_plain_map_holds_together() -> None:
    assert list(fleet_problems(make_map())) == []


def test_empty_map_holds_together() -> None:
    fleet = FleetMap(kind="fleet_map", schema_version=1)
    assert (fleet.gpu_count, list(fleet_problems(fleet))) == (0, [])


def same_uuid_twice() -> tuple[Node, ...]:
    gpu = make_identity("x", 1, uuid=GpuUuid("GPU-1"))
    return make_node(gpus=(gpu,)), make_node("node2", gpus=(gpu,))


@pytest.mark.parametrize(
    ("special", "problem"),
    [
        ({"shapes": (SHAPE, SHAPE)}, "shapes: id plain: stands twice; expected once"),
        ({"nodes": (make_node(), make_node())}, "nodes: host node1: stands twice; expected once"),
        (
            {"switches": (Switch(id=SwitchId("leaf1")),) * 2},
            "switches: id leaf1: stands twice; expected once",
        ),
        (
            {"nodes": (make_node(shape="other"),)},
            "nodes[0].shape: 'other' is no shape of this map",
        ),
        (
            {"nodes": same_uuid_twice()},
            "nodes[1].gpus[0].uuid: duplicate of nodes[0].gpus[0]; expected a unique uuid",
        ),
        (
            {"nodes": (make_node(gpus=(GpuIdentity(slot=2),)),), "cables": ()},
            "nodes[0].gpus[2]: the wiring has no such slot",
        ),
        (
            {"nodes": (make_node(nics=(NicIdentity(slot=1),)),), "cables": ()},
            "nodes[0].nics[1]: the wiring has no such slot",
        ),
        (
            {"nodes": (make_node(gpus=(GpuIdentity(slot=0),) * 2),), "cables": ()},
            "nodes[0].gpus[0]: stands twice; expected once",
        ),
        (
            {"nodes": (make_node(allocations=(Allocation(holder="job", slots=(1, 2)),)),)},
            "nodes[0].allocations[0].slots: 2; the wiring has no such slot",
        ),
        (
            {"cables": (cable(at_nic(), at_switch("leaf9")),)},
            "cables[0].b.device: 'leaf9' is no host or switch of this map",
        ),
        (
            {"cables": (cable(at_nic("node9"), at_switch()),)},
            "cables[0].a.device: 'node9' is no host or switch of this map",
        ),
        (
            {"cables": (cable(at_nic(nic=1), at_switch()),)},
            "cables[0].a.nic: 1; node1 has no such nic",
        ),
        (
            {"cables": (cable(at_switch("node1"), at_switch()),)},
            "cables[0].a.device: 'node1' is no host or switch of this map",
        ),
    ],
)
def test_map_that_does_not_hold_together_is_refused(
    special: dict[str, object], problem: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        make_map(**special)
    assert problem in str(caught.value)


def test_cpu_rank_of_a_node_without_gpus_is_slot_0() -> None:
    shape = NodeShape(id=ShapeId("cpu"))
    held = make_node(shape="cpu", allocations=(Allocation(holder="job", slots=(0,)),))
    make_map(shapes=(shape,), nodes=(held,), cables=())
    wrong = make_node(shape="cpu", allocations=(Allocation(holder="job", slots=(1,)),))
    with pytest.raises(ValidationError, match="no such slot"):
        make_map(shapes=(shape,), nodes=(wrong,), cables=())


def test_uuids_that_nobody_told_are_no_duplicates() -> None:
    nodes = tuple(make_node(host, gpus=(GpuIdentity(slot=0),)) for host in ("node1", "node2"))
    assert make_map(nodes=nodes).gpu_count == 2


@pytest.mark.parametrize(
    ("broken", "part"),
    [
        ({"gpus": (GpuIdentity(slot=9),)}, "no such slot"),
        ({"nics": (NicIdentity(slot=9),)}, "no such slot"),
        ({"gpus": (GpuIdentity(slot=1),) * 2}, "stands twice"),
        ({"host": "no host"}, "host"),
        ({"schema_version": 2}, "schema_version"),
        ({"kind": "fleet_map"}, "node_snapshot"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_snapshot_that_does_not_hold_together_is_refused(
    broken: dict[str, object], part: str
) -> None:
    facts = dict(make_snapshot())
    NodeSnapshot.model_validate(facts)
    with pytest.raises(ValidationError, match=part):
        NodeSnapshot.model_validate(facts | broken)


def test_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        Section(name=SectionName.USE, source="nvml", collected_at=datetime(2026, 1, 2, 3, 4))


@pytest.mark.parametrize(
    ("state", "cluster_uuid", "clique", "domain"),
    [
        (FabricState.DOMAIN, "c1", 3, "c1.3"),
        (FabricState.DOMAIN, "c1", 0, "c1.0"),
        (FabricState.DOMAIN, None, 3, None),
        (FabricState.DOMAIN, "c1", None, None),
        (FabricState.SINGLE_NODE, "c1", 3, None),
        (FabricState.FORMING, "c1", 3, None),
        (FabricState.BROKEN, "c1", 3, None),
        (FabricState.UNSUPPORTED, None, None, None),
    ],
)
def test_only_a_named_finished_fabric_joins_nodes(
    state: FabricState, cluster_uuid: str | None, clique: int | None, domain: str | None
) -> None:
    fabric = NvlinkFabric(state=state, cluster_uuid=cluster_uuid, clique=clique)
    assert fabric.domain == domain


@pytest.mark.parametrize("guid", ["0x2c9020046c588", "2C90200046C58800", "123", "g" * 16])
def test_guid_in_another_form_is_refused(guid: str) -> None:
    with pytest.raises(ValidationError):
        NicIdentity(slot=0, guid=guid)


def test_shape_of_a_node_is_found_by_its_id() -> None:
    other = NodeShape(id=ShapeId("other"), **dict(Wiring()))
    fleet = make_map(shapes=(other, SHAPE))
    assert fleet.shape_of(fleet.nodes[0]) == SHAPE


def test_identities_count_the_gpus() -> None:
    gpus = tuple(make_identity("node1", slot) for slot in range(2))
    assert make_map(nodes=(make_node(gpus=gpus), make_node("node2"))).gpu_count == 2
    assert HostName("node1") == make_map().nodes[0].host

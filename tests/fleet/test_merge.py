from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.fields import AbsenceReason, GpuUuid, SwitchId, path_matches, unreported
from fleet.merge import merge_fleets, merge_snapshots, natural_key, snapshots_of
from fleet.model import (
    Allocation,
    Cable,
    CableEnd,
    FleetMap,
    NicIdentity,
    NodeSnapshot,
    SoftwareVersions,
    Switch,
)
from fleet.store import bytes_from_document, document_from_bytes
from fleet.wiring import LinkLayer, PcieBridge, Wiring
from tests.contracts import assert_honest
from tests.factories import (
    absent,
    address,
    fleet_of,
    hosts_of,
    make_fleet,
    make_gpu,
    make_identity,
    make_nic,
    make_snapshot,
    make_wiring,
)


def driver_view(host: str = "node1", **special: Any) -> NodeSnapshot:
    """What NVML tells: the GPUs, no NICs and no PCIe tree."""
    gpus = tuple(make_gpu(i, bridge=None) for i in range(4))
    plain: dict[str, Any] = {
        "absences": absent(
            "wiring.nics", "versions", "allocations", "sections[*].collected_at", "nics"
        )
    }
    wiring = make_wiring(gpus, nics=0, bridges=())
    return make_snapshot(host, wiring, source="nvml", **plain | special)


def topology_view(host: str = "node1", **special: Any) -> NodeSnapshot:
    """What NCCL tells: NICs and GPUs without names, identities and memory."""
    bare = tuple(
        make_gpu(i, product_name=None, memory_bytes=None, pcie_generation=None) for i in range(4)
    )
    plain: dict[str, Any] = {
        "gpus": (),
        "absences": absent(
            "wiring.gpus[*].product_name",
            "wiring.gpus[*].memory_bytes",
            "wiring.gpus[*].pcie_generation",
            "gpus",
            "versions",
            "allocations",
            "sections[*].collected_at",
        ),
    }
    return make_snapshot(host, make_wiring(bare), source="nccl_xml", **plain | special)


def use_view(host: str = "node1") -> NodeSnapshot:
    """What another look tells: versions and who holds GPUs, of no GPU anything."""
    return make_snapshot(
        host,
        Wiring(),
        source="nvidia_smi",
        versions=SoftwareVersions(driver="570.1", cuda="12.8"),
        allocations=(Allocation(holder="pid 7", slots=()),),
        absences=absent("wiring", "sections[*].collected_at", "gpus", "nics"),
    )


def joined(*snapshots: NodeSnapshot) -> NodeSnapshot:
    (snapshot,) = snapshots_of(merge_snapshots(snapshots))
    return snapshot


def conflicts_of(*snapshots: NodeSnapshot) -> dict[str, tuple[tuple[tuple[str, str], ...], Any]]:
    return {c.path: (c.said, c.taken) for c in merge_snapshots(snapshots).conflicts}


def test_partial_snapshots_of_a_host_are_one_node() -> None:
    whole = joined(driver_view(), topology_view(), use_view())
    assert whole.wiring == make_wiring()
    assert [gpu.uuid for gpu in whole.gpus] == [f"GPU-node1-{i}" for i in range(4)]
    assert [nic.guid for nic in whole.nics] == ["0000000000000001", "0000000000000002"]
    assert whole.versions == SoftwareVersions(driver="570.1", cuda="12.8")
    assert [s.source for s in whole.sections] == ["nvml", "nccl_xml", "nvidia_smi"]
    assert_honest(whole)


def test_absences_that_the_join_fills_are_gone_and_the_others_stay_true() -> None:
    whole = joined(driver_view(), topology_view())
    assert [a.path for a in whole.absences] == [
        "versions",
        "allocations",
        "sections[*].collected_at",
    ]
    missing = list(unreported(whole))
    assert all(any(path_matches(a.path, path) for a in whole.absences) for path in missing)


def test_joined_sources_that_agree_have_no_conflict() -> None:
    assert conflicts_of(driver_view(), topology_view(), use_view()) == {}


def test_disagreement_keeps_both_values_and_says_which_was_taken() -> None:
    driver = driver_view(gpus=(make_identity("node1", 0, serial="A"),))
    other = make_snapshot(
        source="nvidia_smi", gpus=(make_identity("node1", 0, serial="B"),), nics=()
    )
    said = (("nvml", "A"), ("nvidia_smi", "B"))
    for snapshots in ((driver, other), (other, driver)):
        assert conflicts_of(*snapshots) == {"nodes[node1].gpus[0].serial": (said, "A")}
        assert joined(*snapshots).gpus[0].serial == "A"


def test_source_of_no_rank_is_believed_last() -> None:
    ours = make_snapshot(source="nvidia_smi_topo", chassis_serial="A")
    theirs = make_snapshot(source="aaa", chassis_serial="B")
    assert joined(theirs, ours).chassis_serial == "A"


def test_different_gpu_counts_are_a_conflict_and_no_mixture() -> None:
    four, six = driver_view(), make_snapshot(wiring=make_wiring(gpus=6), source="nccl_xml")
    said = (("nvml", "4 GPUs"), ("nccl_xml", "6 GPUs"))
    assert conflicts_of(six, four) == {"nodes[node1].gpus": (said, "4 GPUs")}
    assert merge_snapshots([six, four]).gpu_count == 4


def reversed_view() -> NodeSnapshot:
    """A source that lists GPUs and NICs the other way round, and has no memory of slot 0."""
    gpus = tuple(make_gpu(i, pci_address=address(0x13 - i)) for i in range(4))
    silent = make_gpu(0, pci_address=address(0x13), memory_bytes=None)
    nics = tuple(make_nic(i, pci_address=address(0x81 - i), ports=()) for i in range(2))
    return make_snapshot(
        wiring=make_wiring((silent, *gpus[1:]), nics),
        source="nvidia_smi",
        gpus=tuple(make_identity("node1", i, uuid=GpuUuid(f"GPU-node1-{3 - i}")) for i in range(4)),
        nics=tuple(NicIdentity(slot=i, guid=f"{2 - i:016x}") for i in range(2)),
        allocations=(Allocation(holder="pid 7", slots=(0, 1)),),
        absences=absent("versions", "wiring.gpus[0].memory_bytes", "sections[*].collected_at"),
    )


def test_slots_are_matched_by_pci_address() -> None:
    silent = tuple(make_gpu(i, memory_bytes=None) for i in range(4))
    ours = make_snapshot(
        wiring=make_wiring(silent),
        gpus=(),
        nics=(),
        absences=absent(
            "wiring.gpus[*].memory_bytes", "gpus", "nics", "sections[*].collected_at", "versions"
        ),
    )
    whole = joined(ours, reversed_view())
    assert [gpu.uuid for gpu in whole.gpus] == [f"GPU-node1-{i}" for i in range(4)]
    assert [nic.guid for nic in whole.nics] == ["0000000000000001", "0000000000000002"]
    assert whole.allocations == (Allocation(holder="pid 7", slots=(2, 3)),)
    assert whole.wiring.gpus[3].memory_bytes is None
    assert "wiring.gpus[3].memory_bytes" in [a.path for a in whole.absences]
    assert "wiring.gpus[0].memory_bytes" not in [a.path for a in whole.absences]


def test_other_addresses_make_no_further_gpus() -> None:
    moved = tuple(make_gpu(i, pci_address=address(0x10 + i, domain=10)) for i in range(4))
    other = make_snapshot(wiring=make_wiring(moved), source="nvidia_smi")
    found = conflicts_of(driver_view(), other)
    assert merge_snapshots([driver_view(), other]).gpu_count == 4
    assert sorted(found) == [f"nodes[node1].wiring.gpus[{i}].pci_address" for i in range(4)]
    assert found["nodes[node1].wiring.gpus[0].pci_address"] == (
        (("nvml", "00000000:10:00.0"), ("nvidia_smi", "0000000a:10:00.0")),
        "00000000:10:00.0",
    )


def test_one_gpu_at_an_unknown_address_is_the_one_that_is_left() -> None:
    swapped = tuple(
        make_gpu(i, pci_address=address(bus)) for i, bus in enumerate((0x13, 0x77, 0x11, 0x10))
    )
    other = make_snapshot(
        wiring=make_wiring(swapped),
        source="nvidia_smi",
        gpus=tuple(
            make_identity("node1", i, uuid=GpuUuid(f"GPU-node1-{u}"))
            for i, u in enumerate((3, 2, 1, 0))
        ),
    )
    found = conflicts_of(driver_view(), other)
    assert "nodes[node1].wiring.gpus[2].pci_address" in found
    assert not any("uuid" in path for path in found)


def named_nics(*names: str) -> Wiring:
    port = make_nic().ports[0]
    return make_wiring(
        nics=tuple(
            make_nic(i, pci_address=None, ports=(port.model_copy(update={"name": name}),))
            for i, name in enumerate(names)
        )
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("a", "b"), ("b", "a")),
        (("a", "b"), ("x", "a", "b", "y")),
        (("a", "b"), ("x", "a", "y")),
        (("a", "b"), ("x", "y")),
        (("a",), ("x", "y", "a")),
        (("a", "b", "c"), ()),
        ((), ("a", "b")),
    ],
)
def test_nics_are_matched_by_name_and_none_is_lost(
    ours: Sequence[str], theirs: Sequence[str]
) -> None:
    whole = joined(
        make_snapshot(wiring=named_nics(*ours), nics=(), source="nccl_xml"),
        make_snapshot(wiring=named_nics(*theirs), nics=(), source="nvidia_smi_topo"),
    )
    names = [nic.ports[0].name for nic in whole.wiring.nics]
    assert names[: len(ours)] == list(ours)
    assert sorted(filter(None, names)) == sorted({*ours, *theirs})
    assert len({nic.slot for nic in whole.wiring.nics}) == len(names)


def test_pcie_tree_is_taken_whole_from_one_source() -> None:
    other = make_wiring(
        tuple(make_gpu(i, bridge=3) for i in range(4)),
        tuple(make_nic(i, bridge=3) for i in range(2)),
        bridges=(PcieBridge(bridge=3, numa=0),),
    )
    whole = joined(make_snapshot(), make_snapshot(wiring=other, source="zzz"))
    assert whole.wiring == make_wiring()


def test_uuid_at_two_hosts_is_a_conflict_and_no_crash() -> None:
    twin = make_identity("x", 0, uuid=GpuUuid("GPU-1"))
    wiring = make_wiring(gpus=1)
    fleet = make_fleet(*(make_snapshot(h, wiring, gpus=(twin,)) for h in ("node2", "node1")))
    assert [node.gpus[0].uuid for node in fleet.nodes] == ["GPU-1", None]
    (conflict,) = fleet.conflicts
    assert conflict.path == "nodes[node2].gpus[0].uuid"
    assert conflict.said == (
        ("nodes[node1].gpus[0].uuid", "GPU-1"),
        ("nodes[node2].gpus[0].uuid", "GPU-1"),
    )
    assert conflict.taken is None
    assert document_from_bytes(bytes_from_document(fleet), where="memory") == fleet
    (absence,) = [a for a in fleet.nodes[1].absences if a.path == "gpus[0].uuid"]
    assert absence.reason is AbsenceReason.UNDECODABLE
    assert "nodes[node1].gpus[0].uuid" in str(absence.detail)
    for snapshot in snapshots_of(fleet):
        assert_honest(snapshot)


def test_uuid_twice_in_one_host_is_a_conflict_too() -> None:
    twins = tuple(make_identity("x", i, uuid=GpuUuid("GPU-1")) for i in range(2))
    fleet = make_fleet(make_snapshot(wiring=make_wiring(gpus=2), gpus=twins))
    assert [gpu.uuid for gpu in fleet.nodes[0].gpus] == ["GPU-1", None]
    assert len(fleet.conflicts) == 1


def test_facts_of_a_node_that_lost_a_gpu_stay_with_their_slots() -> None:
    left = tuple(make_gpu(i, pci_address=address(0x11 + i)) for i in range(3))
    broken = make_snapshot(
        "node2",
        make_wiring(left),
        gpus=(*(make_identity("node2", i) for i in range(2)), make_identity("n", 2, serial=None)),
        allocations=(Allocation(holder="pid 7", slots=(0, 2)),),
        absences=absent("gpus[2].serial", "versions", "sections[*].collected_at"),
    )
    node = make_fleet(make_snapshot(), broken).nodes[1]
    assert [(gpu.slot, gpu.uuid) for gpu in node.gpus] == [
        (1, "GPU-node2-0"),
        (2, "GPU-node2-1"),
        (3, "GPU-n-2"),
    ]
    assert node.allocations == (Allocation(holder="pid 7", slots=(1, 3)),)
    assert "gpus[3].serial" in [a.path for a in node.absences]
    assert [d.path for d in node.deviations] == ["gpus[0]"]


@st.composite
def views(draw: st.DrawFn) -> list[NodeSnapshot]:
    serial = st.sampled_from([None, "A", "B"])
    result = []
    for host in draw(st.lists(st.sampled_from(["n1", "n01", "n10", "n2"]), max_size=5)):
        make = draw(st.sampled_from([driver_view, topology_view]))
        result.append(make(host, chassis_serial=draw(serial)))
    return result


@settings(deadline=None, max_examples=60)
@given(views().flatmap(lambda known: st.tuples(st.just(known), st.permutations(known))))
def test_order_of_snapshots_changes_nothing(
    case: tuple[list[NodeSnapshot], list[NodeSnapshot]],
) -> None:
    known, shuffled = case
    assert merge_snapshots(shuffled) == merge_snapshots(known)


@settings(deadline=None, max_examples=30)
@given(views())
def test_what_a_map_gives_back_makes_the_same_map(known: list[NodeSnapshot]) -> None:
    fleet = merge_snapshots(known)
    again = merge_snapshots(snapshots_of(fleet))
    assert again.model_copy(update={"conflicts": fleet.conflicts}) == fleet


def test_hosts_stand_in_natural_order() -> None:
    hosts = ["node10", "node9", "login", "node09"]
    fleet = make_fleet(*(make_snapshot(host, Wiring(), nics=()) for host in hosts))
    assert hosts_of(fleet) == ["login", "node09", "node9", "node10"]
    assert sorted(["b2", "b10", "a"], key=natural_key) == ["a", "b2", "b10"]


def test_nothing_merges_to_the_empty_map() -> None:
    assert merge_snapshots([]) == FleetMap(kind="fleet_map", schema_version=1)


def test_one_map_stays_as_it_is() -> None:
    fleet = fleet_of("model:dgx-h100 node:2")
    assert merge_fleets([fleet]) is fleet


def test_map_merged_with_itself_is_itself() -> None:
    fleet = fleet_of("model:gb200-nvl72 node:3").model_copy(
        update={
            "conflicts": make_fleet(driver_view(), make_snapshot(source="zzz", tray=1)).conflicts
        }
    )
    assert merge_fleets([fleet, fleet]) == fleet.model_copy(update={"spec": None})


def test_maps_of_different_fleets_are_put_side_by_side() -> None:
    a, b = fleet_of("model:dgx-a100 node:2"), fleet_of("model:beowulf-2006 node:3")
    both = merge_fleets([a, b])
    assert (len(both.nodes), both.gpu_count, len(both.shapes)) == (5, 16, 2)
    assert len(both.cables) == len(a.cables) + len(b.cables)
    assert both.nodes == merge_fleets([b, a]).nodes


def test_switches_of_one_id_that_differ_are_a_conflict() -> None:
    a = Switch(id=SwitchId("leaf1"), ports=64, tier=0)
    b = Switch(id=SwitchId("leaf1"), ports=40, link_layer=LinkLayer.INFINIBAND)
    for switches in ((a, b), (b, a)):
        fleet = merge_snapshots([], switches=switches)
        (switch,) = fleet.switches
        (conflict,) = fleet.conflicts
        assert (switch.tier, switch.link_layer) == (0, LinkLayer.INFINIBAND)
        assert conflict.path == "switches[leaf1].ports"
        assert {value for _, value in conflict.said} == {"64", "40"}
        assert conflict.taken == str(switch.ports)


def test_cable_told_twice_is_one_cable() -> None:
    switches = [Switch(id=SwitchId(name)) for name in ("leaf1", "leaf2")]
    ends = [CableEnd(device=switch.id, port=1) for switch in switches]
    cable = Cable(a=ends[0], b=ends[1], bytes_per_s=50e9)
    assert merge_snapshots([], switches=switches, cables=[cable, cable]).cables == (cable,)


def test_absence_with_a_path_that_is_none_does_no_harm() -> None:
    odd = make_snapshot(absences=absent("?", "versions", "allocations"), source="zzz")
    assert len(merge_snapshots([make_snapshot(), odd]).nodes) == 1

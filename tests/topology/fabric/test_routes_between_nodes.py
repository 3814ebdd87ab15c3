from pathlib import Path

import pytest

from fleet.fields import HostName
from fleet.model import Cable
from fleet.wiring import (
    LinkLayer,
    Wiring,
)
from tests.topology.fabric.factories import (
    cable,
    fabric_of,
    fleet_of,
    hosts_of,
    joined,
    leaf,
    make_gpu,
    make_nic,
    route_between,
    snapshot,
    spine,
    unreachable_between,
    with_cables_down,
)
from topology.fabric.from_fleet import Fabric
from topology.fabric.link_figures import load_link_figures
from topology.fabric.routes import (
    HopPlace,
    Route,
    Unreachable,
    UnreachableReason,
)

FIGURES = load_link_figures()


@pytest.mark.parametrize("model", ["dgx-h100", "dgx-h200", "dgx-b200"])
def test_a_message_leaves_and_enters_by_the_nearest_nic(model: str) -> None:
    fabric = fabric_of(f"model:{model} node:2")
    first, second = fabric.nodes
    for a, b in ((0, 0), (2, 5), (7, 3)):
        route = route_between(fabric, f"{first.host}:{a}", f"{second.host}:{b}")
        places = {hop.place: hop for hop in route.hops}
        assert places[HopPlace.NIC_OUT].source == f"{first.host}:nic{a}"
        assert places[HopPlace.NIC_IN].destination == f"{second.host}:nic{b}"


def test_one_rail_is_one_leaf_and_two_rails_meet_in_a_spine() -> None:
    fabric = fabric_of("model:dgx-h100 node:2")
    one = route_between(fabric, "h100-001:3", "h100-002:3")
    two = route_between(fabric, "h100-001:3", "h100-002:4")
    assert (one.route_class.name, two.route_class.name) == ("ib_ndr_1hop", "ib_ndr_3hop")
    assert [hop.place for hop in one.hops if hop.local == ("", "")] == []
    assert [hop.place.value for hop in two.hops if hop.local == ("", "")] == [
        "leaf_up",
        "leaf_down",
    ]
    assert one.link_bytes_per_s == two.link_bytes_per_s == 50e9


def test_one_rail_of_two_groups_goes_through_a_spine() -> None:
    fabric = fabric_of("model:dgx-h100 node:3 leaf:16")
    near = route_between(fabric, "h100-001:0", "h100-002:0")
    far = route_between(fabric, "h100-001:0", "h100-003:0")
    assert (near.route_class.name, far.route_class.name) == ("ib_ndr_1hop", "ib_ndr_3hop")


def test_three_tiers_of_roce_cross_blocks_through_a_core() -> None:
    """Two pods: leaf, spine, core, spine, leaf are six hops between the NICs."""
    wiring_cables = [
        cable(("h0", 0), "a"),
        cable(("h1", 0), "b"),
        cable("a", "s"),
        cable("b", "t"),
        cable("s", "c", port=1),
        cable("t", "c", port=2),
    ]
    switches = [
        *(leaf(name, LinkLayer.ROCE) for name in "ab"),
        *(spine(name, LinkLayer.ROCE) for name in "st"),
        leaf("c", LinkLayer.ROCE).model_copy(update={"tier": 2}),
    ]
    fabric = joined(hosts_of(2), switches, wiring_cables)
    route = route_between(fabric, "h0:0", "h1:0")
    assert route.route_class.name == "roce400_cross_block"
    assert [hop.place.value for hop in route.hops[1:-1]] == [
        "nic_out", "leaf_up", "pod_up", "pod_down", "leaf_down", "nic_in",
    ]  # fmt: skip
    assert [hop.kind for hop in route.hops[1:-1]] == [
        "roce_host", "roce_trunk", "roce_core", "roce_core", "roce_trunk", "roce_host",
    ]  # fmt: skip


def test_a_detour_is_longer_than_its_class_by_its_further_hops() -> None:
    """a - s - m - t - b: two more trunks than leaf, spine, leaf."""
    switches = [leaf("a"), leaf("m"), leaf("b"), spine("s"), spine("t")]
    cables = [
        cable(("h0", 0), "a"),
        cable(("h1", 0), "b"),
        *(cable(u, v) for u, v in (("a", "s"), ("m", "s"), ("m", "t"), ("b", "t"))),
    ]
    route = route_between(joined(hosts_of(2), switches, cables), "h0:0", "h1:0")
    assert route.route_class.name == "ib_ndr_3hop"
    canonical_s = sum(FIGURES.edge[name].alpha_s for name in route.route_class.edges)
    hops_s = 2 * (175 + 200) * 1e-9 + 4 * 350e-9
    assert sum(hop.alpha_s for hop in route.hops) == pytest.approx(hops_s)
    assert route.extra_s == pytest.approx(hops_s - canonical_s)


def is_trunk(c: Cable) -> bool:
    return c.a.nic is None and c.b.nic is None


def test_a_leaf_without_uplinks_is_cut_off() -> None:
    fleet = fleet_of("model:dgx1-v100 node:2 leaf:8 spine:2")

    def route_with(dead: tuple[str, ...]) -> Route | Unreachable:
        broken = with_cables_down(
            fleet,
            lambda c: is_trunk(c) and c.a.device == "leaf01-rail0" and c.b.device in dead,
        )
        fabric = Fabric(broken)
        return fabric.route(*(fabric.endpoint_from_text(f"dgx1-00{i}:0") for i in (1, 2)))

    whole, cut = route_with(()), route_with(("spine1", "spine2"))
    assert isinstance(whole, Route)
    assert isinstance(cut, Unreachable)
    assert cut.reason is UnreachableReason.SEPARATE_NETWORKS
    assert cut.text == "no way from leaf01-rail0 to leaf02-rail0"


def test_the_slower_of_two_cables_gives_class_and_bandwidth() -> None:
    cables = [cable(("h0", 0), "a"), cable(("h1", 0), "a", bytes_per_s=25e9)]
    fabric = joined(hosts_of(2), [leaf("a")], cables)
    for a, b in (("h0:0", "h1:0"), ("h1:0", "h0:0")):
        route = route_between(fabric, a, b)
        assert (route.route_class.name, route.link_bytes_per_s) == ("ib_hdr_1hop", 25e9)


def test_leaves_joined_without_a_spine_are_one_trunk_apart() -> None:
    cables = [cable(("h0", 0), "a"), cable(("h1", 0), "b"), cable("a", "b")]
    route = route_between(joined(hosts_of(2), [leaf("a"), leaf("b")], cables), "h0:0", "h1:0")
    assert [hop.place for hop in route.hops if hop.kind == "ib_ndr_trunk"] == [HopPlace.LEAF_UP]
    assert route.route_class.name == "ib_ndr_1hop"
    assert route.extra_s == pytest.approx((2 * (175 - 2 * 75) + 350) * 1e-9), (
        "root ports, and a trunk"
    )


def test_nodes_without_a_nic_are_unreachable() -> None:
    lone = Wiring(gpus=(make_gpu(0, numa=0),))
    wired = Wiring(gpus=(make_gpu(0, numa=0),), nics=(make_nic(0, numa=0),))
    fabric = joined(
        [snapshot("a", lone), snapshot("b", wired)], [leaf("l")], [cable(("b", 0), "l")]
    )
    for a, b in (("a:0", "b:0"), ("b:0", "a:0")):
        answer = unreachable_between(fabric, a, b)
        assert answer.reason is UnreachableReason.NO_NIC
        assert answer.text.startswith("a:0 has no NIC it can reach")


@pytest.mark.parametrize(
    ("words", "nics", "rate"),
    [
        ("network:efa-v2 nic:32", 4, 50e9),
        ("network:roce nic:16 nic_rate:100Gbit/s", 2, 25e9),
        ("network:ib-ndr nic:8", 1, 50e9),
        # two GPUs' NIC is one cable for both
        ("network:ib-ndr nic:4", 1, 50e9),
        # PCIe 5 is narrower than eight times 200G
        ("network:efa-v3 nic:64", 8, 63e9),
    ],
)
def test_a_gpu_with_several_nics_sends_over_all_of_them(words: str, nics: int, rate: float) -> None:
    fabric = Fabric(fleet_of(f"model:dgx-h100 node:2 {words}"))
    route = route_between(fabric, "h100-001:3", "h100-002:4")
    assert route.link_bytes_per_s == rate
    inside = (HopPlace.SOURCE_NODE, HopPlace.DESTINATION_NODE)
    between = [hop for hop in route.hops if hop.place not in inside]
    assert len(between) == 4, "out, up, down, in"
    assert {hop.count for hop in between} == {nics}


@pytest.mark.parametrize(
    ("words", "rate"), [("", 50e9), ("routing:adaptive", 50e9), ("routing:static", 0.7 * 50e9)]
)
def test_static_routing_narrows_the_trunks_and_not_a_rail_s_own_leaf(
    words: str, rate: float
) -> None:
    fabric = Fabric(fleet_of(f"model:dgx-h100 node:2 {words}"))
    same_leaf = route_between(fabric, "h100-001:0", "h100-002:0")
    across = route_between(fabric, "h100-001:0", "h100-002:1")
    assert (same_leaf.link_bytes_per_s, across.link_bytes_per_s) == (50e9, rate)
    assert across.route_class.name == "ib_ndr_3hop"
    leaf_up = fabric.network.up_bytes_per_s["leaf01-rail0"]
    assert leaf_up == 2 * rate, "two links up for two nodes"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("network:ib-edr", "ib_edr_1hop"),
        ("network:ib-hdr", "ib_hdr_1hop"),
        ("network:ib-ndr", "ib_ndr_1hop"),
        ("network:ib-xdr", "ib_xdr_1hop"),
        ("network:roce nic_rate:100Gbit/s", "roce200_in_rack"),
        ("network:roce nic_rate:200Gbit/s", "roce200_in_rack"),
        ("network:roce nic_rate:400Gbit/s", "roce400_in_rack"),
        ("network:roce nic_rate:800Gbit/s", "roce800_in_rack"),
        ("network:efa-v1", "efa_v1"),
        ("network:efa-v2", "efa_v2"),
        ("network:efa-v3", "efa_v3_v4"),
        ("network:efa-v4", "efa_v3_v4"),
        ("network:efa nic_rate:100Gbit/s", "efa_v2"),
        ("network:tcpxo", "tcpxo"),
        ("network:slingshot", "slingshot11_same_switch"),
        ("network:aries", "aries_same_group"),
        ("network:ethernet nic_rate:1Gbit/s", "tcp_1g_2006"),
        ("network:ethernet nic_rate:10Gbit/s", "tcp_25g_cloud"),
        ("network:ethernet nic_rate:25Gbit/s", "tcp_25g_cloud"),
        ("network:ethernet nic_rate:100Gbit/s", "tcp_100g_cloud"),
    ],
)
def test_every_network_of_a_spec_has_its_route_class(words: str, name: str) -> None:
    fabric = Fabric(fleet_of(f"model:dgx-h100 node:2 {words}"))
    assert route_between(fabric, "h100-001:0", "h100-002:0").route_class.name == name


def test_a_node_without_a_cable_that_is_up_is_unreachable() -> None:
    fleet = with_cables_down(fleet_of("model:dgx-h100 node:2"), lambda c: c.a.device == "h100-002")
    answer = unreachable_between(Fabric(fleet), "h100-001:0", "h100-002:5")
    assert answer.reason is UnreachableReason.NO_CABLE
    assert "no cable from h100-002 nic5 to a switch is known to be up" in answer.text


def test_a_gpu_whose_nic_has_no_cable_sends_through_another_of_its_node() -> None:
    fleet = with_cables_down(
        fleet_of("model:dgx-h100 node:3"), lambda c: (c.a.device, c.a.nic) == ("h100-002", 5)
    )
    fabric = Fabric(fleet)
    nics = fabric.node_of[HostName("h100-002")].graph.nic_of_gpu
    assert nics[5] not in (None, 5)
    assert {slot: nic for slot, nic in nics.items() if slot != 5} == {
        slot: slot for slot in range(8) if slot != 5
    }
    route = route_between(fabric, "h100-001:0", "h100-002:5")
    assert f"h100-002:nic{nics[5]}" in [hop.destination for hop in route.hops]
    others = [fabric.node_of[HostName(f"h100-{n:03d}")].graph for n in (1, 3)]
    assert others[0] is others[1], "nodes that are cabled alike share a graph"
    assert others[0].nic_of_gpu == {slot: slot for slot in range(8)}


def test_leaves_that_no_switch_joins_are_separate_networks() -> None:
    cables = [cable(("h0", 0), "a"), cable(("h1", 0), "b")]
    answer = unreachable_between(
        joined(hosts_of(2), [leaf("a"), leaf("b")], cables), "h0:0", "h1:0"
    )
    assert (answer.reason, answer.text) == (
        UnreachableReason.SEPARATE_NETWORKS,
        "no way from a to b",
    )


def test_every_reason_has_a_test_here() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_routes*.py"))
    assert all(f"UnreachableReason.{reason.name}" in text for reason in UnreachableReason)

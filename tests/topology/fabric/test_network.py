from collections import deque
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.merge import merge_fleets
from fleet.model import Cable, Switch
from fleet.wiring import LinkLayer, LinkState
from tests.topology.fabric.factories import (
    cable,
    fleet_of,
    hosts_of,
    joined,
    leaf,
    spine,
    with_cables_down,
)
from topology.errors import FabricError
from topology.fabric.from_fleet import Fabric
from topology.fabric.graph import all_links, links_between, shortest_path
from topology.fabric.network import Network, edge_kind, host_of_vertex, nic_vertex

NDR = 50e9


def network_of(
    switches: Iterable[Switch], cables: Iterable[Cable], hosts: int = 3, nics: int = 1
) -> Network:
    return joined(hosts_of(hosts, nics=nics), tuple(switches), tuple(cables)).network


def core(name: str) -> Switch:
    return leaf(name).model_copy(update={"tier": 2})


def untiered(name: str) -> Switch:
    return leaf(name).model_copy(update={"tier": None})


def two_tiers() -> tuple[list[Switch], list[Cable]]:
    """h0 and h1 on leaf a, h2 on leaf b; a has two cables up, b has one."""
    switches = [leaf("a"), leaf("b"), spine("s")]
    cables = [
        cable(("h0", 0), "a", port=1),
        cable(("h1", 0), "a", port=2),
        cable(("h2", 0), "b", port=1),
        cable("a", "s", port=3),
        cable("a", "s", port=4),
        cable("b", "s", port=5),
    ]
    return switches, cables


def test_nics_are_attached_to_the_leaves_of_their_cables() -> None:
    network = network_of(*two_tiers())
    assert {place: a.leaf for place, a in network.leaf_of.items()} == {
        ("h0", 0): "a",
        ("h1", 0): "a",
        ("h2", 0): "b",
    }
    assert {a.bytes_per_s for a in network.leaf_of.values()} == {NDR}


def test_cables_from_a_switch_to_a_nic_count_as_well() -> None:
    switches, cables = two_tiers()
    turned = [c.model_copy(update={"a": c.b, "b": c.a}) for c in cables]
    assert network_of(switches, turned).leaf_of == network_of(switches, cables).leaf_of


def test_of_a_nic_with_two_cables_the_first_port_counts() -> None:
    first, second = cable(("h0", 0), "a"), cable(("h0", 0), "b")
    second = second.model_copy(update={"a": second.a.model_copy(update={"port": 2})})
    for order in ([first, second], [second, first]):
        network = network_of([leaf("a"), leaf("b")], order)
        assert network.leaf_of["h0", 0].leaf == "a"


def test_a_leaf_carries_up_what_its_uplinks_carry_together() -> None:
    network = network_of(*two_tiers())
    assert network.up_bytes_per_s == {"a": 2 * NDR, "b": NDR}
    assert network.pod_up_bytes_per_s == {}


def test_leaves_without_a_spine_carry_up_what_joins_them() -> None:
    network = network_of([leaf("a"), leaf("b")], [cable(("h0", 0), "a"), cable("a", "b")])
    assert network.up_bytes_per_s == {"a": NDR, "b": NDR}


def test_a_link_that_is_down_carries_nothing() -> None:
    switches, cables = two_tiers()
    cables[3] = cables[3].model_copy(update={"state": LinkState.DOWN})
    network = network_of(switches, cables)
    assert network.up_bytes_per_s["a"] == NDR
    assert len(links_between(network.graph, "a", "s")) == 1


def test_a_cable_of_unreported_state_counts_as_up() -> None:
    switches, cables = two_tiers()
    cables[5] = cables[5].model_copy(update={"state": LinkState.UNREPORTED})
    assert network_of(switches, cables).trunks_between("a", "b") == 2


def three_tiers() -> tuple[list[Switch], list[Cable]]:
    """Two pods of a leaf and a spine each below one core."""
    switches = [leaf("a"), leaf("b"), spine("s"), spine("t"), core("c")]
    cables = [
        cable(("h0", 0), "a"),
        cable(("h2", 0), "b"),
        cable("a", "s"),
        cable("b", "t"),
        cable("s", "c", port=1),
        cable("s", "c", port=2),
        cable("t", "c", port=3),
    ]
    return switches, cables


def test_pods_are_leaves_with_the_spines_they_share() -> None:
    network = network_of(*three_tiers())
    pod = network.pod_of
    assert (pod["a"], pod["b"]) == (pod["s"], pod["t"])
    assert pod["a"] != pod["b"]
    assert "c" not in pod
    assert network.pod_up_bytes_per_s == {pod["a"]: 2 * NDR, pod["b"]: NDR}


def test_links_are_host_trunk_or_core_by_the_tiers_they_join() -> None:
    network = network_of(*three_tiers())
    kinds = {(u, v): link.kind for u, v, link in all_links(network.graph)}
    assert kinds["h0:nic0", "a"] == "ib_ndr_host"
    assert kinds["a", "s"] == "ib_ndr_trunk"
    assert kinds["s", "c"] == "ib_ndr_trunk", "no core figures for InfiniBand: the trunk's"
    assert all(kinds[v, u] == kind for (u, v), kind in kinds.items())


def test_untold_tiers_are_counted_from_the_switches_that_have_hosts() -> None:
    switches, cables = three_tiers()
    untold = [untiered(switch.id) for switch in switches]
    network = network_of(untold, cables)
    assert network.tier_of == {"a": 0, "b": 0, "s": 1, "t": 1, "c": 2}


def test_a_told_tier_wins_and_an_unreached_switch_is_a_leaf() -> None:
    switches = [untiered("a"), spine("b"), untiered("lone")]
    network = network_of(switches, [cable(("h0", 0), "a"), cable(("h1", 0), "b")])
    assert network.tier_of == {"a": 0, "b": 1, "lone": 0}


def test_no_switches_is_an_empty_network() -> None:
    network = network_of([], [])
    assert (network.tier_of, network.leaf_of, list(network.graph)) == ({}, {}, [])


def test_a_cable_from_host_to_host_is_no_link_of_the_network() -> None:
    network = network_of([], [cable(("h0", 0), ("h1", 0))])
    assert (network.leaf_of, list(network.graph)) == ({}, [])


def test_cables_of_nvlink_switches_are_not_the_networks() -> None:
    fleet = fleet_of("model:gb200-nvl72 rack:1")
    chips = [switch.id for switch in fleet.switches if switch.nvlink_domain is not None]
    more = (*fleet.cables, cable(chips[0], chips[1]), cable(("gb200-001", 0), chips[0]))
    network = Fabric(fleet.model_copy(update={"cables": more})).network
    assert not set(chips) & network.tier_of.keys()
    assert not set(chips) & set(network.graph)


def test_each_switch_speaks_its_own_layer() -> None:
    fabric = Fabric(
        merge_fleets([fleet_of("model:dgx-h100 node:2"), fleet_of("model:beowulf-2006 node:2")])
    )
    route = fabric.reachable_route(
        fabric.endpoint_from_text("node-001:0"), fabric.endpoint_from_text("node-002:0")
    )
    assert route.route_class.name == "tcp_1g_2006"
    route = fabric.reachable_route(
        fabric.endpoint_from_text("h100-001:0"), fabric.endpoint_from_text("h100-002:0")
    )
    assert route.route_class.name == "ib_ndr_1hop"


def test_a_switch_that_tells_no_layer_speaks_what_the_others_do() -> None:
    switches, cables = two_tiers()
    switches[1] = leaf("b", None)
    kinds = {link.kind for _, _, link in all_links(network_of(switches, cables).graph)}
    assert kinds == {"ib_ndr_host", "ib_ndr_trunk"}


def test_cables_of_switches_that_tell_no_layer_are_refused_with_a_remedy() -> None:
    with pytest.raises(FabricError) as caught:
        network_of([leaf("a", None)], [cable(("h0", 0), "a")])
    assert str(caught.value) == (
        "switches[*].link_layer: no switch tells its link layer; "
        "give infiniband, roce, ethernet, efa, slingshot or aries"
    )


@pytest.mark.parametrize(
    ("layer", "rate", "where", "kind"),
    [
        (LinkLayer.INFINIBAND, 7e9, "host", "ib_edr_host"),
        (LinkLayer.INFINIBAND, 12.5e9, "host", "ib_edr_host"),
        (LinkLayer.INFINIBAND, 25e9, "trunk", "ib_hdr_trunk"),
        (LinkLayer.INFINIBAND, 50e9, "core", "ib_ndr_trunk"),
        (LinkLayer.INFINIBAND, 100e9, "host", "ib_xdr_host"),
        (LinkLayer.ROCE, 50e9, "core", "roce_core"),
        (LinkLayer.ROCE, 25e9, "trunk", "roce_trunk"),
        (LinkLayer.ETHERNET, 0.125e9, "host", "gbe_host"),
        (LinkLayer.ETHERNET, 1.25e9, "core", "ethernet_trunk"),
        (LinkLayer.EFA, 50e9, "host", "efa_host"),
        (LinkLayer.SLINGSHOT, 25e9, "trunk", "slingshot_trunk"),
    ],
)
def test_a_cable_is_of_the_kind_of_its_layer_rate_and_place(
    layer: LinkLayer, rate: float, where: str, kind: str
) -> None:
    assert edge_kind(layer, rate, where) == kind


@pytest.mark.parametrize(
    ("vertex", "host"),
    [("h0:nic3", "h0"), ("a.b-c:nic0", "a.b-c"), ("leaf01-rail3", None), ("spine1", None)],
)
def test_the_host_of_a_vertex_is_that_of_its_nic(vertex: str, host: str | None) -> None:
    assert host_of_vertex(vertex) == host
    if host is not None:
        assert nic_vertex(host, int(vertex[-1])) == vertex


def trunks_by_search(pairs: Iterable[tuple[str, str]], a: str, b: str) -> int:
    """Fewest cables from one switch to another, breadth first over an adjacency list."""
    near: dict[str, set[str]] = {}
    for u, v in pairs:
        near.setdefault(u, set()).add(v)
        near.setdefault(v, set()).add(u)
    seen, waiting = {a: 0}, deque([a])
    while waiting:
        here = waiting.popleft()
        for there in near.get(here, set()) - seen.keys():
            seen[there] = seen[here] + 1
            waiting.append(there)
    return seen.get(b, -1)


switch_names = st.sampled_from(["a", "b", "c", "s", "t", "u"])


@given(
    trunks=st.sets(
        st.tuples(switch_names, switch_names).filter(lambda ends: ends[0] < ends[1]), max_size=9
    )
)
def test_trunks_between_switches_are_those_of_a_plain_search(trunks: set[tuple[str, str]]) -> None:
    switches = [leaf(n) if n < "d" else spine(n) for n in "abcstu"]
    cables = [cable(u, v, port=i + 1) for i, (u, v) in enumerate(sorted(trunks))]
    network = network_of(switches, [*cables, *(cable((f"h{i}", 0), "abc"[i]) for i in range(3))])
    for a in "abcstu":
        for b in "abcstu":
            expected = trunks_by_search(trunks, a, b)
            assert network.trunks_between(a, b) == expected
            if expected >= 0:
                chain = network.switches_between(a, b)
                assert (chain[0], chain[-1], len(chain) - 1) == (a, b, expected)


@given(data=st.data())
def test_the_order_of_the_cables_does_not_matter(data: st.DataObject) -> None:
    fleet = fleet_of("model:dgx1-v100 node:3 leaf:8 spine:2")
    shuffled = tuple(data.draw(st.permutations(fleet.cables)))
    ours, theirs = (Fabric(f) for f in (fleet, fleet.model_copy(update={"cables": shuffled})))
    assert ours.network.leaf_of == theirs.network.leaf_of
    assert ours.network.up_bytes_per_s == theirs.network.up_bytes_per_s
    a, b = ours.endpoints[0], ours.endpoints[-1]
    assert ours.route(a, b) == theirs.route(a, b)


def test_a_leaf_that_lost_its_uplinks_reaches_no_other() -> None:
    fleet = with_cables_down(
        fleet_of("model:dgx-h100 node:2 leaf:16"),
        lambda c: c.a.nic is None and "leaf01-rail0" in (c.a.device, c.b.device),
    )
    network = Fabric(fleet).network
    assert network.trunks_between("leaf01-rail0", "leaf02-rail0") == -1
    assert network.trunks_between("leaf01-rail1", "leaf02-rail0") == 2


def test_ways_and_links_are_those_of_the_whole_graph() -> None:
    """With every sixth cable of three tiers down, and narrower ones among the rest."""
    fleet = fleet_of("model:dgx-h100 node:40 leaf:64 core:5")
    cables = [
        c.model_copy(update={"bytes_per_s": c.bytes_per_s / (1 + i % 5 % 2)})
        for i, c in enumerate(fleet.cables)
        if i % 6
    ]
    network = Fabric(fleet.model_copy(update={"cables": tuple(cables)})).network
    leaves = [switch for switch, tier in network.tier_of.items() if tier == 0]
    is_switch = network.tier_of.__contains__
    for a, b in pairwise(leaves):
        chain = shortest_path(network.graph, a, b, may_pass=is_switch)
        assert network.switches_between(a, b) == chain
        for u, v in pairwise(chain or ()):
            assert network.trunk(u, v) == links_between(network.graph, u, v)[0]
    for (host, nic), attachment in network.leaf_of.items():
        ends = nic_vertex(host, nic), attachment.leaf
        assert network.host_link((host, nic)) == links_between(network.graph, *ends)[0]


def test_distances_of_many_leaves_are_those_of_each_pair() -> None:
    network = Fabric(fleet_of("model:dgx-h100 node:70 oversubscription:2")).network
    leaves = sorted({attachment.leaf for attachment in network.leaf_of.values()})
    a, b = np.indices((len(leaves), len(leaves))).reshape(2, -1)
    expected = [network.trunks_between(leaves[i], leaves[j]) for i, j in zip(a, b, strict=True)]
    assert network.distances_among(leaves).of(a, b).tolist() == expected


def test_hosts_are_joined_by_switches_and_by_a_nic_on_two_leaves() -> None:
    bond = cable(("h1", 0), "b")
    bond = bond.model_copy(update={"a": bond.a.model_copy(update={"port": 2})})
    cables = [cable((f"h{i}", 0), name) for i, name in enumerate("aab")]
    switches = [leaf("a"), leaf("b"), leaf("lone")]
    assert network_of(switches, cables).joined_hosts() == [{"h0", "h1"}, {"h2"}, set()]
    assert network_of(switches, [*cables, bond]).joined_hosts() == [{"h0", "h1", "h2"}, set()]


def test_a_cable_from_a_switch_to_itself_is_refused() -> None:
    with pytest.raises(FabricError, match="a -> a: a link from a device to itself"):
        network_of([leaf("a")], [cable(("h0", 0), "a"), cable("a", "a", port=2)])

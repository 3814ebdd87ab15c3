from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.check import check_fleet
from fleet.errors import SourceError
from fleet.fields import AbsenceReason
from fleet.merge import snapshots_of
from fleet.model import Allocation, FleetMap
from fleet.shapes import node_wirings
from fleet.sources.machines import machine_from_name, machine_names
from fleet.sources.synthetic import MOST_NODES, fleet_from_spec, spec_from_text
from fleet.store import bytes_from_document, document_from_bytes
from fleet.wiring import LinkLayer, P2pState
from tests.contracts import assert_honest
from tests.factories import fleet_of, hosts_of


@st.composite
def specs(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(machine_names()))
    ranks = machine_from_name(name).ranks
    words = [f"model:{name}"]
    words += draw(st.sampled_from([[], ["node:1"], ["node:3"], ["node:70"], ["rack:2"]]))
    words += draw(st.sampled_from([[], ["network:roce"], ["network:efa-v3", "nic:2"]]))
    words += draw(st.sampled_from([[], ["nic_rate:25Gbit/s"], ["cpu:amd", "oversubscription:2"]]))
    busy = draw(st.lists(st.integers(0, ranks), max_size=3))
    words += [f"busy:{','.join(map(str, busy))}"] if busy else []
    return " ".join(draw(st.permutations(words)))


@settings(deadline=None, max_examples=30)
@given(specs())
def test_spec_to_map_to_spec_is_the_identity(spec: str) -> None:
    fleet = fleet_from_spec(spec)
    assert fleet.spec == spec
    assert fleet_from_spec(fleet.spec) == fleet
    loaded = document_from_bytes(bytes_from_document(fleet), where="memory")
    assert loaded == fleet


@pytest.mark.parametrize("name", machine_names())
def test_every_model_is_honest_and_without_findings(name: str) -> None:
    fleet = fleet_of(f"model:{name} node:3 busy:1,0")
    assert len(fleet.shapes) == 1
    assert [d for node in fleet.nodes for d in node.deviations] == []
    assert check_fleet(fleet) == ()
    for snapshot in snapshots_of(fleet):
        assert_honest(snapshot)


@pytest.mark.parametrize("name", machine_names())
def test_model_alone_is_one_rack(name: str) -> None:
    machine = machine_from_name(name)
    fleet = fleet_of(f"model:{name}")
    assert len(fleet.nodes) == machine.nodes_per_rack
    assert fleet.gpu_count == machine.nodes_per_rack * (machine.ranks if machine.gpu else 0)
    assert {node.footprint.rack for node in fleet.nodes if node.footprint} == {"rack001"}


def test_nodes_have_the_wiring_of_their_model() -> None:
    fleet = fleet_of("model:dgx-h100 node:3")
    wiring = machine_from_name("dgx-h100").wiring()
    assert [known for _, known in node_wirings(fleet)] == [wiring] * 3


@pytest.fixture(scope="module")
def large() -> FleetMap:
    return fleet_of("model:dgx-h100 node:1250")


def test_hosts_and_identities_are_unique_and_sorted(large: FleetMap) -> None:
    assert hosts_of(large)[0] == "h100-0001"
    assert hosts_of(large) == sorted(hosts_of(large))
    for field in ("uuid", "serial"):
        values = [getattr(gpu, field) for node in large.nodes for gpu in node.gpus]
        assert len(set(values)) == 10_000
    assert len({nic.guid for node in large.nodes for nic in node.nics}) == 10_000


def test_ten_thousand_gpus_are_one_shape(large: FleetMap) -> None:
    assert (large.gpu_count, len(large.shapes), len(large.switches)) == (10_000, 1, 800)


def test_rack_of_gb200_is_one_nvlink_domain_of_72() -> None:
    fleet = fleet_of("model:gb200-nvl72 rack:2")
    domains = Counter(
        gpu.fabric.domain for node in fleet.nodes for gpu in node.gpus if gpu.fabric is not None
    )
    assert sorted(domains.values()) == [72, 72]
    chips = Counter(s.nvlink_domain for s in fleet.switches if s.nvlink_domain)
    assert chips == Counter(dict.fromkeys(domains, 18))
    assert [node.tray for node in fleet.nodes] == [*range(18), *range(18)]
    racks = {
        (n.footprint.rack, n.gpus[0].fabric.domain)
        for n in fleet.nodes
        if n.footprint and n.gpus[0].fabric
    }
    assert len(racks) == 2


def test_part_of_a_rack_is_a_domain_with_all_its_switches() -> None:
    fleet = fleet_of("model:gb200-nvl72 node:20")
    sizes = Counter(g.fabric.domain for n in fleet.nodes for g in n.gpus if g.fabric)
    assert sorted(sizes.values()) == [8, 72]
    assert sum(1 for s in fleet.switches if s.nvlink_domain) == 36


def test_nodes_of_other_models_share_no_domain() -> None:
    for name in ("dgx-h100", "dgx1-v100", "pcie-l40s"):
        fleet = fleet_of(f"model:{name} node:2")
        assert {g.fabric.domain for n in fleet.nodes for g in n.gpus if g.fabric} == {None}


def test_words_of_the_network_make_its_nics_switches_and_cables() -> None:
    fleet = fleet_of("model:dgx-h100 node:2 network:efa-v2 nic:32 nic_rate:50Gbit/s cpu:amd")
    wiring = fleet.shapes[0]
    ports = {(port.link_layer, port.bytes_per_s) for nic in wiring.nics for port in nic.ports}
    assert (len(wiring.nics), ports) == (32, {(LinkLayer.EFA, 6.25e9)})
    assert {nic.vendor_device for nic in wiring.nics} == {"1d0f:efa1"}
    assert {switch.link_layer for switch in fleet.switches} == {LinkLayer.EFA}
    assert {cable.bytes_per_s for cable in fleet.cables} == {6.25e9}
    assert {numa.vendor for numa in wiring.numa_nodes} == {"AuthenticAMD"}
    assert [len(node.nics) for node in fleet.nodes] == [32, 32]


def test_routing_stands_at_every_switch() -> None:
    for words, told in (("routing:static", False), ("routing:adaptive", True), ("", None)):
        fleet = fleet_of(f"model:dgx-h100 node:40 {words}")
        assert {switch.adaptive_routing for switch in fleet.switches} == {told}


def test_peer_off_is_in_the_map() -> None:
    (shape,) = fleet_of("model:pcie-l40s node:1 peer:off").shapes
    assert {row.write for row in shape.p2p} == {P2pState.UNSUPPORTED}


def test_an_amd_node_says_why_its_links_have_no_version() -> None:
    (node,) = fleet_of("model:mi300x node:1").nodes
    told = [absence for absence in node.absences if absence.path.endswith("version")]
    assert [(a.reason, a.detail) for a in told] == [
        (AbsenceReason.UNSUPPORTED, "xGMI tells no version")
    ]


def test_busy_gpus_repeat_over_the_nodes() -> None:
    fleet = fleet_of("model:dgx-h100 node:5 busy:8,0,3")
    held = [
        [slot for allocation in node.allocations or () for slot in allocation.slots]
        for node in fleet.nodes
    ]
    assert held == [[*range(8)], [], [0, 1, 2], [*range(8)], []]


def test_nobody_holds_gpus_unless_asked() -> None:
    assert {node.allocations for node in fleet_of("model:dgx-h100 node:2").nodes} == {()}
    (node,) = fleet_of("model:beowulf-2006 node:1 busy:1").nodes
    assert node.allocations == (Allocation(holder="busy in the SPEC", slots=(0,)),)


def test_words_may_stand_in_any_order_and_spacing() -> None:
    spec = spec_from_text("  spine:4   node:32\tmodel:dgx-h100\nleaf:8 ")
    assert spec.text == "spine:4 node:32 model:dgx-h100 leaf:8"
    assert (spec.nodes, spec.counts.leaf, spec.counts.spine, spec.counts.core) == (32, 8, 4, None)
    assert spec.machine.name == "dgx-h100"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "SPEC: no model; add model:"),
        (" ", "SPEC: no model; add model:"),
        ("model:", "SPEC: 'model:' has no value; words are model:"),
        ("node:3", "SPEC: node:3: no model"),
        ("model:dgx-h100 nodes:3", "'nodes:3' is no word of a SPEC; did you mean node:? words are"),
        ("model:dgx-h100 colour:red", "'colour:red' is no word of a SPEC; "),
        ("dgx-h100", "'dgx-h100' is no word of a SPEC"),
        ("model:dgx-h100 node", "'node' has no value"),
        ("model:dgx-h100 node:", "'node:' has no value"),
        ("model:dgx-h100 node:2 node:2", "SPEC: node:2: node stands twice; keep one"),
        ("model:dgx-h100 node:2 rack:1", "both node and rack; keep one"),
        ("model:dgx-h1000", "model: 'dgx-h1000' is no model; use one of beowulf-2006, dgx-a100"),
        ("model:dgx-h100 node:0", "SPEC: node: '0' is no count; give a whole number from 1 to"),
        ("model:dgx-h100 node:-1", "'-1' is no count"),
        ("model:dgx-h100 node:1.5", "'1.5' is no count"),
        ("model:dgx-h100 node:1e3", "'1e3' is no count"),
        ("model:dgx-h100 node:٣", "'٣' is no count"),
        ("model:dgx-h100 node:200001", "'200001' is no count; give a whole number from 1 to 200"),
        (f"model:dgx-h100 node:{'9' * 900}", "is no count"),
        (f"model:dgx-h100 node:{'9' * 5000}", "write 1024 at most"),
        ("model:gb200-nvl72 rack:200000", "rack: 200000 racks are 3600000 nodes; ask for 11111"),
        ("model:dgx-h100 leaf:0", "leaf: '0' is no count"),
        ("model:dgx-h100 busy:9", "SPEC: busy: '9' is no list of counts; give counts from 0 to 8"),
        ("model:dgx-h100 busy:1,,2", "'1,,2' is no list of counts"),
        ("model:dgx-h100 busy:a", "'a' is no list of counts"),
        ("model:beowulf-2006 busy:2", "give counts from 0 to 1, such as busy:1,0"),
        (
            "model:dgx-h100 network:token-ring",
            "network: 'token-ring' is no network; use one of ib,",
        ),
        ("model:dgx-h100 nic:0", "SPEC: nic: '0' is no count"),
        ("model:dgx-h100 nic:99", "SPEC: nic: 99 NICs for 8 ranks a node; ask for 64 at most"),
        ("model:dgx-h100 nic_rate:400", "SPEC: nic_rate: '400' is no rate of a port; give a"),
        ("model:dgx-h100 oversubscription:0.5", "oversubscription: '0.5' is no count"),
        ("model:dgx-h100 routing:random", "routing: 'random' is no routing; use one of adaptive,"),
        ("model:dgx-h100 cpu:m68k", "SPEC: cpu: 'm68k' is no cpu; use one of intel, amd, arm"),
        ("model:dgx-h100 peer:maybe", "SPEC: peer: 'maybe' is no peer; use one of on, off"),
        ("model:dgx-a100 node:40 nic:64", "SPEC: nic: 64 rails for spines of 40 ports; ask for"),
        ("model:dgx-h100 node:9 busy:" + ",".join("8" * 600), "write 1024 at most"),
    ],
)
def test_wrong_spec_is_refused_in_one_line(text: str, part: str) -> None:
    with pytest.raises(SourceError) as caught:
        fleet_from_spec(text)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    assert caught.value.exit_code == 2


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="modelnrackspibuy:-0123,h .", max_size=40))
def test_no_text_makes_another_error(text: str) -> None:
    try:
        spec = spec_from_text(f"model:dgx-h100 {text}")
    except SourceError:
        return
    assert 1 <= spec.nodes <= MOST_NODES

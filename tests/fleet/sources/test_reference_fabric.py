from collections import Counter, defaultdict
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.errors import SourceError
from fleet.fields import HostName
from fleet.model import Cable, Switch
from fleet.sources.machines import machine_from_name, machine_names
from fleet.sources.reference_fabric import SwitchCounts, build_fabric

LARGE = settings(deadline=None, max_examples=25)


def fabric_of(
    model: str,
    nodes: int,
    *,
    leaf: int | None = None,
    spine: int | None = None,
    core: int | None = None,
    oversubscription: int | None = None,
) -> tuple[tuple[Switch, ...], tuple[Cable, ...]]:
    hosts = [HostName(f"n{i}") for i in range(nodes)]
    counts = SwitchCounts(leaf, spine, core, oversubscription)
    return build_fabric(machine_from_name(model), hosts, counts)


def tiers(switches: Iterable[Switch]) -> list[int]:
    """Count of switches from the leaves up."""
    count = Counter(switch.tier for switch in switches)
    return [count[tier] for tier in sorted(t for t in count if t is not None)]


def links(cables: Iterable[Cable]) -> dict[str, Counter[str]]:
    """Cables of each device to each other device."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for cable in cables:
        found[cable.a.device][cable.b.device] += 1
        found[cable.b.device][cable.a.device] += 1
    return found


def assert_cabled_as_the_ports_allow(switches: Iterable[Switch], cables: Iterable[Cable]) -> None:
    ports = {str(switch.id): switch.ports for switch in switches}
    ends = Counter((e.device, e.nic, e.port) for cable in cables for e in (cable.a, cable.b))
    assert [end for end, count in ends.items() if count > 1] == []
    for device, nic, port in ends:
        assert port is not None
        if nic is None:
            assert 1 <= port <= (ports[device] or 0)


def reach_of(start: str, cabled: dict[str, Counter[str]], switches: set[str]) -> set[str]:
    """Devices that are reached over switches alone, by brute force."""
    seen, edge = {start}, [start]
    while edge:
        here = edge.pop()
        fresh = [far for far in cabled[here] if far not in seen]
        seen.update(fresh)
        edge.extend(far for far in fresh if far in switches)
    return seen


@pytest.mark.parametrize(
    ("model", "nodes", "counts"),
    [
        # DGX SuperPOD with NDR: scalable units of 32 nodes, 8 leaves each; 4, 8 and 16 spines
        ("dgx-h100", 32, [8, 4]),
        ("dgx-h100", 64, [16, 8]),
        ("dgx-h100", 128, [32, 16]),
        ("dgx-b200", 128, [32, 16]),
        # 256 nodes fill 64-port spines: 64 leaves with 32 links up on 32 spines
        ("dgx-h100", 256, [64, 32]),
        # 10,000 GPUs: 40 groups of 8 leaves in 10 pods of 32; 32 spines a pod; 10 * 32 * 32 / 64
        ("dgx-h100", 1250, [320, 320, 160]),
        # 20 nodes a leaf on 40 ports: 8 leaves with 20 links up
        ("dgx-a100", 20, [8, 4]),
        # 18 trays a rack, 4 rails: 8 leaves with 18 links up on 64 ports: 144 / 64
        ("gb200-nvl72", 36, [8, 3]),
        # 44 nodes a switch with 4 links up: 5 switches, 20 links on one spine of 48 ports
        ("beowulf-2006", 200, [5, 1]),
        ("beowulf-2006", 44, [1]),
        ("dgx-h100", 1, [8, 1]),
    ],
)
def test_reference_design_has_the_switches_of_its_maker(
    model: str, nodes: int, counts: list[int]
) -> None:
    switches, cables = fabric_of(model, nodes)
    assert tiers(switches) == counts
    assert_cabled_as_the_ports_allow(switches, cables)


def test_rail_i_of_every_node_of_a_group_is_on_leaf_i() -> None:
    _, cables = fabric_of("dgx-h100", 64)
    for cable in cables[: 64 * 8]:
        group = 1 if int(cable.a.device[1:]) < 32 else 2
        assert cable.b.device == f"leaf{group:02d}-rail{cable.a.nic}"
        assert cable.bytes_per_s == 50e9


def test_leaf_has_as_many_links_up_as_down_and_evenly_to_every_spine() -> None:
    _, cables = fabric_of("dgx-h100", 128)
    cabled = links(cables)
    for leaf in (name for name in cabled if name.startswith("leaf")):
        up = {far: count for far, count in cabled[leaf].items() if far.startswith("spine")}
        assert sum(up.values()) == 32
        assert up == {f"spine{i + 1:02d}": 2 for i in range(16)}


def test_three_tiers_use_every_port_and_join_spine_i_to_core_group_i() -> None:
    switches, cables = fabric_of("dgx-h100", 1250)
    assert_cabled_as_the_ports_allow(switches, cables)
    cabled = links(cables)
    for switch in switches:
        far = cabled[switch.id]
        up = sum(n for name, n in far.items() if "spine" in name and switch.tier == 0)
        assert switch.tier != 0 or up == 32
        assert switch.tier != 0 or sum(far.values()) <= 64
        assert switch.tier == 0 or sum(far.values()) == 64
    for p in range(1, 11):
        cores = {name for name in cabled[f"pod{p}-spine07"] if name.startswith("core")}
        assert cores == {f"core{i:03d}" for i in range(31, 36)}


@LARGE
@given(st.sampled_from(machine_names()), st.integers(1, 400))
def test_any_count_of_nodes_is_cabled_within_the_ports_and_all_meet(model: str, nodes: int) -> None:
    switches, cables = fabric_of(model, nodes)
    assert_cabled_as_the_ports_allow(switches, cables)
    nics = Counter(cable.a.device for cable in cables if cable.a.nic is not None)
    count = machine_from_name(model).nic.count
    assert nics == Counter({f"n{i}": count for i in range(nodes)})
    names = {str(switch.id) for switch in switches}
    assert reach_of("n0", links(cables), names) == names | set(nics)


@LARGE
@given(st.integers(1, 256), st.integers(1, 8), st.integers(1, 70))
def test_asked_counts_are_built_or_refused(nodes: int, groups: int, spine: int) -> None:
    try:
        switches, cables = fabric_of("dgx-h100", nodes, leaf=8 * groups, spine=spine)
    except SourceError as error:
        assert error.field in ("leaf", "spine")  # noqa: PT017
        return
    assert tiers(switches) == [8 * groups, spine]
    assert_cabled_as_the_ports_allow(switches, cables)
    cabled = links(cables)
    for switch in switches:
        if switch.tier == 0:
            assert sum(1 for far in cabled[switch.id] if far.startswith("spine")) == spine


@pytest.mark.parametrize(
    ("ratio", "up", "spines"), [(1, 32, 8), (2, 16, 4), (3, 11, 3), (32, 1, 1)]
)
def test_oversubscription_is_links_down_for_each_link_up(ratio: int, up: int, spines: int) -> None:
    switches, cables = fabric_of("dgx-h100", 64, oversubscription=ratio)
    # 16 leaves with 32 nodes each; spines of 64 ports
    assert tiers(switches) == [16, spines]
    assert_cabled_as_the_ports_allow(switches, cables)
    cabled = links(cables)
    for leaf in (name for name in cabled if name.startswith("leaf")):
        assert sum(n for far, n in cabled[leaf].items() if far.startswith("spine")) == up


def test_oversubscribed_leaves_below_a_core_have_half_the_spines() -> None:
    switches, cables = fabric_of("dgx-h100", 1250, oversubscription=2)
    # 10 pods of 32 leaves with 16 links up, 16 spines a pod, 5 cores for each of 16 groups
    assert tiers(switches) == [320, 160, 80]
    assert_cabled_as_the_ports_allow(switches, cables)


def test_core_asks_for_three_tiers() -> None:
    switches, cables = fabric_of("dgx-h100", 32, core=32)
    assert tiers(switches) == [8, 32, 32]
    assert_cabled_as_the_ports_allow(switches, cables)


def test_spine_above_one_switch_is_built() -> None:
    assert tiers(fabric_of("beowulf-2006", 10, spine=1)[0]) == [1, 1]


def test_counts_of_the_reference_design_can_be_asked_for() -> None:
    # 57 leaves of 44 nodes, in pods of 24 with 4 spines; 2 cores for each of 4 groups
    asked = fabric_of("beowulf-2006", 2500, leaf=57, spine=12, core=8)
    assert asked == fabric_of("beowulf-2006", 2500)


@pytest.mark.parametrize(
    ("nodes", "counts", "field", "part"),
    [
        (70, {"leaf": 8}, "leaf", "70 links down on 64 ports"),
        (64, {"leaf": 8}, "leaf", "64 links down on 64 ports"),
        (8, {"leaf": 7}, "leaf", "7 is no multiple of 8 rails"),
        (64, {"spine": 0}, "spine", "512 links on 0 x 64 ports; use spine:8 or more"),
        (64, {"spine": 7}, "spine", "512 links on 7 x 64 ports; use spine:8 or more"),
        (64, {"spine": 33}, "spine", "33 spines for 32 links up from a leaf; use spine:32 or few"),
        (1250, {"spine": 16}, "spine", "16 for 10 pods of 32 spines; use spine:320"),
        (1250, {"core": 99}, "core", "99 for 10 pods of 32 spines; use core:160"),
        (32, {"core": 1}, "core", "1 for 1 pods of 32 spines; use core:32"),
        (30_000, {}, "node", "ask for fewer nodes"),
    ],
)
def test_counts_that_do_not_fit_the_ports_are_refused(
    nodes: int, counts: dict[str, int], field: str, part: str
) -> None:
    with pytest.raises(SourceError) as caught:
        fabric_of("dgx-h100", nodes, **counts)
    assert caught.value.field == field
    assert caught.value.where == "SPEC"
    assert part in str(caught.value)

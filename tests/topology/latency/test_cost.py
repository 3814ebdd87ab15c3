"""Cost of messages on real routes: what shares a link takes longer, no link carries too much."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.latency.factories import FloatArray, fabric_of
from topology.collective.algorithms import build_schedules, usable_names
from topology.collective.layout import layout_of
from topology.collective.placement import Placement, pack, placement_from_text, spread
from topology.collective.schedule import Schedule, Transfer, round_from_transfers
from topology.collective.stages import Request
from topology.errors import UnreachableError
from topology.fabric.from_fleet import Fabric
from topology.fabric.route_table import RouteMap
from topology.latency.cost import RoutedSchedule, route_schedule, schedule_costs
from topology.latency.monte_carlo import noiseless_s
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.latency.stack import Stack, load_stack_figures
from topology.words import AlgorithmName, Collective, Launch, NoiseName, StackName

GIB = 2**30
WIRE = Stack(StackName.WIRE, None, Launch.PROCESS, load_stack_figures())


def step_of(*pairs: tuple[int, int], ranks: int) -> Schedule:
    """One step in which each pair sends the whole buffer."""
    round_ = round_from_transfers(Transfer(a, b, 0, 1, reduces=False) for a, b in pairs)
    return Schedule(
        collective=Collective.BROADCAST,
        algorithm="step",
        ranks=ranks,
        switches=0,
        channels=1,
        chunk_fraction=1.0,
        owner=np.zeros(1, dtype=np.int64),
        rounds=(round_,),
    )


def bandwidth_s(fabric: Fabric, placement: Placement, *pairs: tuple[int, int]) -> FloatArray:
    """Time for a GiB of each pair that sends at the same time."""
    routes = RouteMap(fabric, placement.endpoints)
    routed = route_schedule(step_of(*pairs, ranks=placement.ranks), routes, GIB)
    return routed.bandwidth_s[0]


# Sharing.


def test_two_gpus_on_one_nic_take_twice_as_long() -> None:
    """DGX-1: GPUs 0 and 1 send through one EDR port, which is narrower than either's PCIe."""
    fabric = fabric_of("dgx1-v100 node:2")
    placement = pack(fabric, 16)
    alone = bandwidth_s(fabric, placement, (0, 8))
    ratio = fabric.figures.route_class["ib_edr_1hop"].collective_efficiency_ratio
    assert alone == pytest.approx([GIB / (12.5e9 * ratio)])
    assert bandwidth_s(fabric, placement, (0, 8), (1, 9)) == pytest.approx(2 * alone[0])
    assert bandwidth_s(fabric, placement, (0, 8), (2, 10)) == pytest.approx(alone[0])


def test_both_directions_of_a_nic_are_links_of_their_own() -> None:
    fabric = fabric_of("dgx1-v100 node:2")
    placement = pack(fabric, 16)
    alone = bandwidth_s(fabric, placement, (0, 8))[0]
    assert bandwidth_s(fabric, placement, (0, 8), (8, 0)) == pytest.approx(alone)


def test_two_messages_to_one_gpu_share_its_way_in() -> None:
    fabric = fabric_of("dgx-h100 node:2")
    placement = pack(fabric, 16)
    alone = bandwidth_s(fabric, placement, (0, 2))[0]
    assert bandwidth_s(fabric, placement, (0, 2), (1, 2)) == pytest.approx(2 * alone)
    assert bandwidth_s(fabric, placement, (0, 2), (1, 3)) == pytest.approx(alone)


def test_an_oversubscribed_leaf_slows_what_crosses_it() -> None:
    """Beowulf: 44 nodes of 1 GbE share four uplinks, so 44 senders take 11 times as long as one."""
    fabric = fabric_of("beowulf-2006 node:88")
    placement = spread(fabric, 88)
    alone = bandwidth_s(fabric, placement, (0, 44))[0]
    ratio = fabric.figures.route_class["tcp_1g_2006_far"].collective_efficiency_ratio
    assert alone == pytest.approx(GIB / (0.125e9 * ratio))
    for senders, factor in ((1, 1), (4, 1), (8, 2), (44, 11)):
        pairs = [(i, 44 + i) for i in range(senders)]
        assert bandwidth_s(fabric, placement, *pairs) == pytest.approx(factor * alone)


def test_neighbours_on_one_leaf_are_not_slowed_by_what_crosses() -> None:
    fabric = fabric_of("beowulf-2006 node:88")
    placement = spread(fabric, 88)
    alone = bandwidth_s(fabric, placement, (42, 43))[0]
    crossing = [(i, 44 + i) for i in range(40)]
    assert bandwidth_s(fabric, placement, (42, 43), *crossing)[0] == pytest.approx(alone)


@pytest.mark.parametrize("nodes", [2, 8])
def test_a_ring_over_dgx_h100_uses_all_eight_nics(nodes: int) -> None:
    """Busbw is 8 x 50 GB/s times the class's 0.75, less what the latency of the steps costs."""
    fabric = fabric_of("dgx-h100 node:8")
    scenario = Scenario(
        Collective.ALL_REDUCE,
        GIB,
        algorithm=AlgorithmName.RING,
        stack=StackName.WIRE,
        noise=NoiseName.NONE,
    )
    busbw = simulate(fabric, pack(fabric, 8 * nodes), scenario).busbw_bytes_per_s
    assert 0.9 * 8 * 50e9 * 0.75 <= busbw <= 8 * 50e9 * 0.92


def test_ranks_that_no_link_joins_are_refused_by_name() -> None:
    fleet = fabric_of("dgx-h100 node:2").fleet
    fabric = Fabric(fleet.model_copy(update={"cables": (), "switches": ()}))
    with pytest.raises(UnreachableError, match=r"h100-001:0 -> h100-002:0"):
        bandwidth_s(fabric, pack(fabric, 16), (0, 8))


# Whatever the schedule, a link carries at most what it can. Sharing is counted step by step: where
# ranks drift apart, messages of different steps may overlap on one link unseen.

IN_STEP = ("ring", "nvls", "direct", "one_shot")
LEAST_SHARE_OF_DRIFTING = 0.7
LEAST_SHARE_OF_TREE_REDUCE = 0.3
"""All leaves of a tree send at once, whichever step they are counted in."""


def least_share(name: str, collective: Collective) -> float:
    """Which part of the busiest link's time an algorithm takes at least."""
    if (name, collective) == ("tree", Collective.REDUCE):
        return LEAST_SHARE_OF_TREE_REDUCE
    drifts = collective in (Collective.BROADCAST, Collective.REDUCE)
    return 1 - 1e-9 if name in IN_STEP and not drifts else LEAST_SHARE_OF_DRIFTING


def busiest_link_s(routed: RoutedSchedule, size_bytes: int) -> float:
    """Time the busiest link needs for all that the operation sends over it."""
    schedule = routed.schedule
    load = np.zeros(len(routed.tables[0].bytes_per_s))
    for round_, table in zip(schedule.rounds, routed.tables, strict=True):
        ratio = np.array([route.collective_efficiency_ratio for route in table.routes])
        sent = schedule.shares(round_) * size_bytes * round_.repeats
        for column in table.resources.T:
            np.add.at(load, column, sent / ratio[table.route_of])
    return float((load / routed.tables[0].bytes_per_s).max())


FABRICS = (
    "dgx-h100 node:3",
    "dgx1-v100 node:2",
    "pcie-l40s node:2",
    "gb200-nvl72 rack:2",
    "beowulf-2006 node:60",
)


@st.composite
def placements(draw: Any) -> tuple[Fabric, Placement]:
    fabric = fabric_of(draw(st.sampled_from(FABRICS)))
    chosen = draw(st.lists(st.sampled_from(fabric.endpoints), min_size=2, max_size=12, unique=True))
    return fabric, Placement(tuple(chosen))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    where=placements(),
    collective=st.sampled_from(list(Collective)),
    channels=st.integers(1, 8),
    pieces=st.sampled_from([1, 3, 16]),
)
def test_no_link_carries_more_than_it_can(
    where: tuple[Fabric, Placement], collective: Collective, channels: int, pieces: int
) -> None:
    fabric, placement = where
    routes = RouteMap(fabric, placement.endpoints)
    layout = layout_of(fabric, placement, routes)
    request = Request(collective, layout, channels=channels, pieces=pieces)
    for name in usable_names(request):
        for schedule in build_schedules(name, request):
            routed = route_schedule(schedule, routes, GIB)
            time_s = noiseless_s(schedule_costs(routed, WIRE))
            least_s = busiest_link_s(routed, GIB)
            least_s *= least_share(name, collective)
            assert time_s >= least_s, f"{name} {schedule.variant}"


@settings(max_examples=8, deadline=None)
@given(where=placements(), seed=st.integers(0, 1000))
def test_a_placement_read_back_from_its_text_costs_the_same(
    where: tuple[Fabric, Placement], seed: int
) -> None:
    fabric, placement = where
    again = placement_from_text(fabric, placement.text(), where="text")
    scenario = Scenario(Collective.ALL_REDUCE, 2**20, trials=50, seed=seed)
    assert simulate(fabric, again, scenario) == simulate(fabric, placement, scenario)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(3, 8))
def test_relabelled_gpus_of_one_switch_change_nothing(seed: int, count: int) -> None:
    """Eight GPUs behind one NVSwitch are all alike."""
    fabric = fabric_of("dgx-h100 node:1")
    order = np.random.default_rng(seed).permutation(8)[:count]
    mixed = Placement(tuple(fabric.endpoints[i] for i in order))
    for algorithm in (AlgorithmName.RING, AlgorithmName.TREE, AlgorithmName.NVLS):
        scenario = Scenario(Collective.ALL_REDUCE, 2**20, algorithm=algorithm, trials=300)
        assert simulate(fabric, mixed, scenario) == simulate(fabric, pack(fabric, count), scenario)

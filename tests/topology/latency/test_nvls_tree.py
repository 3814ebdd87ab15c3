"""NVLSTree in time: by hand on uniform and on real links, NCCL's sum, two racks as published."""

from dataclasses import replace

import pytest

from tests.topology.latency.factories import fabric_of, uniform_costs, uniform_layout
from topology.collective.algorithms import build_schedules
from topology.collective.placement import pack
from topology.collective.stages import Request
from topology.errors import ScheduleError
from topology.fabric.from_fleet import Fabric
from topology.latency.monte_carlo import noiseless_s
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.latency.stack import Stack, load_stack_figures
from topology.latency.summary import LatencySummary
from topology.words import AlgorithmName, Collective, Launch, NoiseName, Protocol, StackName

US, MS = 1e-6, 1e-3
KIB, MIB, GIB = 2**10, 2**20, 2**30
CALM = Scenario(Collective.ALL_REDUCE, 8, algorithm=AlgorithmName.NVLS_TREE, noise=NoiseName.NONE)


def calm(fabric: Fabric, gpus: int, size_bytes: int, **changes: object) -> LatencySummary:
    scenario = replace(CALM, size_bytes=size_bytes, **changes)  # type: ignore[arg-type]
    return simulate(fabric, pack(fabric, gpus), scenario)


def test_on_equal_links_it_is_the_sum_by_hand() -> None:
    """Two cliques of two on two rails, S = 8 B, 1 B/s, alpha 10 s: 6 alpha + 2 (S/2 + S/4 + S/4).

    A rank's message to the switch is one tree's half; a head's, and one between heads, a quarter.
    """
    layout = replace(
        uniform_layout(4),
        cliques=((0, 1), (2, 3)),
        domains=((0, 1), (2, 3)),
        domain_reduces=(True, True),
        chains=(((0, 1), (2, 3)), ((1, 0), (3, 2))),
    )
    (schedule,) = build_schedules("nvls_tree", Request(Collective.ALL_REDUCE, layout))
    costs = uniform_costs(schedule, alpha_s=10.0, size_bytes=8.0, bytes_per_s=1.0)
    assert noiseless_s(costs) == pytest.approx(6 * 10 + 2 * (4 + 2 + 2))


def test_on_two_real_nodes_each_link_carries_its_share() -> None:
    """4 legs, 2 hops; each way S and a head's eighth by NVLink, a sixteenth by its NIC."""
    fabric = fabric_of("dgx-h100 node:2")
    leg = fabric.leg(fabric.endpoints[0])
    hop = fabric.reachable_route(fabric.endpoints[0], fabric.endpoints[8])
    switch, nic = (r.link_bytes_per_s * r.collective_efficiency_ratio for r in (leg, hop))
    assert (leg.link_bytes_per_s, hop.link_bytes_per_s) == (450e9, 50e9)
    for size in (8, 2**18):  # one piece
        legs_s = 4 * leg.alpha_s + 2 * size * (1 + 1 / 8) / switch
        hops_s = 2 * hop.alpha_s + 2 * size / 16 / nic
        found = calm(fabric, 16, size, stack=StackName.WIRE)
        assert found.noiseless_s == pytest.approx(legs_s + hops_s, rel=1e-9)


@pytest.mark.parametrize(("nodes", "levels"), [(2, 1), (4, 2), (8, 3)])
def test_a_small_operation_takes_what_nccl_says(nodes: int, levels: int) -> None:
    """25 us inside and 20.9 us for each level, up and down; the launch is in it, no base is."""
    fabric = fabric_of("dgx-h100 node:8")
    found = calm(fabric, 8 * nodes, 1, stack=StackName.NCCL_TUNER)
    assert found.noiseless_s == pytest.approx((25 + 2 * levels * 20.9) * US, rel=1e-3)


def test_four_legs_cost_what_two_of_nvls_do() -> None:
    figures = load_stack_figures()
    stack = Stack(StackName.NCCL, Protocol.SIMPLE, Launch.PROCESS, figures)
    leg = fabric_of("dgx-h100 node:1").leg(fabric_of("dgx-h100 node:1").endpoints[0])
    tree_s, nvls_s = (leg.alpha_s + stack.software_s(leg, n) for n in ("nvls_tree", "nvls"))
    assert 4 * tree_s == pytest.approx(2 * nvls_s)


def test_it_runs_over_the_protocol_simple_alone() -> None:
    for protocol in (Protocol.LL, Protocol.LL128):
        with pytest.raises(ScheduleError, match=r"nvls_tree does not run .*--protocol simple"):
            calm(fabric_of("dgx-h100 node:2"), 16, KIB, protocol=protocol)


@pytest.mark.parametrize(
    ("size_bytes", "measured_s"), [(4 * GIB, 11.311 * MS), (8 * GIB, 21.313 * MS)]
)
def test_two_racks_come_near_the_published_times(size_bytes: int, measured_s: float) -> None:
    """128 GB200 on 32 trays (OCI GPU Quick Start: NVIDIA GB200)."""
    found = calm(fabric_of("gb200-nvl72 rack:2"), 128, size_bytes, algorithm=AlgorithmName.AUTO)
    assert found.algorithm == "nvls_tree"
    assert found.noiseless_s == pytest.approx(measured_s, rel=0.15)


@pytest.mark.parametrize(
    ("size_bytes", "least_us", "most_us"), [(64 * KIB, 65, 90), (16 * MIB, 120, 180)]
)
def test_two_racks_are_within_what_is_expected(
    size_bytes: int, least_us: float, most_us: float
) -> None:
    found = calm(fabric_of("gb200-nvl72 rack:2"), 128, size_bytes, algorithm=AlgorithmName.AUTO)
    assert least_us * US <= found.noiseless_s <= most_us * US


@pytest.mark.parametrize("shift", range(18, 33, 2))
def test_more_bytes_are_never_faster(shift: int) -> None:
    fabric = fabric_of("dgx-h100 node:4")
    less, more = (calm(fabric, 32, 2**n).noiseless_s for n in (shift, shift + 1))
    assert less <= more

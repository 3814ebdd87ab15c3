"""Laws of the direct, logarithmic, chained and two-level algorithms: replay is the closed form."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from tests.topology.latency.factories import (
    fabric_of,
    schedule_of,
    uniform_costs,
    uniform_layout,
)
from topology.collective.algorithms import build_schedules
from topology.collective.layout import RankLayout
from topology.collective.placement import pack
from topology.collective.schedule import Schedule
from topology.collective.stages import Request
from topology.latency.closed_form import (
    chain_s,
    collnet_chain_s,
    collnet_direct_s,
    direct_s,
    hierarchical_all_to_all_s,
    hierarchical_gather_s,
    one_shot_s,
    pat_s,
    sendrecv_s,
    tree_reduce_s,
    two_shot_s,
)
from topology.latency.cost import Costs
from topology.latency.monte_carlo import noiseless_breakdown, noiseless_s
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.words import AlgorithmName, Collective, NoiseName, StackName

RANKS = (2, 3, 4, 5, 7, 8, 12, 16, 17, 33, 64)
LINKS = (
    {"size_bytes": 8.0, "alpha_s": 2e-6, "bytes_per_s": 50e9},
    {"size_bytes": 2.0**20, "alpha_s": 762e-9, "bytes_per_s": 450e9},
    {"size_bytes": 2.0**30, "alpha_s": 2e-6, "bytes_per_s": 50e9},
    {"size_bytes": 1e6, "alpha_s": 1e-3, "bytes_per_s": 1e9},
)
CLOSED_FORMS = [
    ("direct", Collective.SENDRECV, sendrecv_s),
    ("direct", Collective.ALL_GATHER, direct_s),
    ("direct", Collective.REDUCE_SCATTER, direct_s),
    ("direct", Collective.ALLTOALL, direct_s),
    ("direct", Collective.ALLTOALLV, direct_s),
    ("one_shot", Collective.ALL_REDUCE, one_shot_s),
    ("two_shot", Collective.ALL_REDUCE, two_shot_s),
    ("tree", Collective.REDUCE, tree_reduce_s),
    ("ring", Collective.BROADCAST, chain_s),
    ("ring", Collective.REDUCE, chain_s),
]


def shared_costs(
    schedule: Schedule, *, size_bytes: float, alpha_s: float, bytes_per_s: float
) -> Costs:
    """Equal hops, where what a rank sends, or gets, in one step shares its link."""
    costs = uniform_costs(schedule, alpha_s=alpha_s)
    rounds = []
    for cost in costs.rounds:
        ends = (cost.round.source, cost.round.destination)
        sent_s = schedule.shares(cost.round) * size_bytes / bytes_per_s
        loads = [np.bincount(end, sent_s, minlength=schedule.vertices) for end in ends]
        for load in loads:
            load[schedule.ranks :] = 0.0
        busiest = np.maximum(*(load[end] for load, end in zip(loads, ends, strict=True)))
        rounds.append(replace(cost, bandwidth_s=busiest))
    return replace(costs, rounds=tuple(rounds))


@pytest.mark.parametrize(("name", "collective", "closed_form_s"), CLOSED_FORMS)
def test_without_noise_the_replay_is_the_closed_form(
    name: str, collective: Collective, closed_form_s: object
) -> None:
    assert callable(closed_form_s)
    for ranks in RANKS:
        schedule = schedule_of(name, ranks, collective)
        for link in LINKS:
            replayed = noiseless_s(shared_costs(schedule, **link))
            assert replayed == pytest.approx(closed_form_s(ranks=ranks, **link), rel=1e-12)


@pytest.mark.parametrize("collective", [Collective.BROADCAST, Collective.REDUCE])
@pytest.mark.parametrize("pieces", [1, 2, 7, 33])
def test_a_chain_in_pieces_is_the_closed_form(collective: Collective, pieces: int) -> None:
    for ranks, link in product(RANKS, LINKS):
        schedule = schedule_of("ring", ranks, collective, pieces=pieces)
        expected = chain_s(ranks=ranks, **link, pieces=pieces)
        assert noiseless_s(shared_costs(schedule, **link)) == pytest.approx(expected, rel=1e-12)


def nodes_of(count: int, size: int) -> RankLayout:
    """Nodes of ranks that are all alike, a domain and a rail for each rank; SHARP between them."""
    nodes = [tuple(range(i * size, (i + 1) * size)) for i in range(count)]
    rails = [tuple(node[r:] + node[:r] for node in nodes) for r in range(size)]
    return replace(
        uniform_layout(count * size),
        cliques=tuple(nodes),
        domains=tuple(nodes),
        domain_reduces=(False,) * count,
        chains=tuple(rails),
        network_reduces=True,
    )


def schedules_on(layout: RankLayout, name: str, collective: Collective) -> list[Schedule]:
    return build_schedules(name, Request(collective, layout))


@pytest.mark.parametrize("collective", [Collective.ALL_GATHER, Collective.REDUCE_SCATTER])
def test_pat_is_the_closed_form_for_any_number_of_ranks(collective: Collective) -> None:
    for ranks, link in product((*RANKS, 100, 1000), LINKS):
        (schedule,) = schedules_on(nodes_of(ranks, 1), "pat", collective)
        expected = pat_s(ranks=ranks, **link)
        assert noiseless_s(shared_costs(schedule, **link)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("nodes", [2, 3, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_collnet_is_the_closed_form_however_many_nodes(nodes: int, size: int) -> None:
    made = schedules_on(nodes_of(nodes, size), "collnet", Collective.ALL_REDUCE)
    forms = [collnet_direct_s, collnet_chain_s][: len(made)]
    assert len(made) == (1 if size == 1 else 2)
    for link, (schedule, form_s) in product(LINKS, zip(made, forms, strict=True)):
        expected = form_s(ranks_per_node=size, **link)
        assert noiseless_s(shared_costs(schedule, **link)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("domains", "size"), [(2, 2), (2, 8), (3, 4), (8, 2), (5, 3)])
def test_two_levels_are_the_closed_forms(domains: int, size: int) -> None:
    layout = nodes_of(domains, size)
    for collective, form_s in (
        (Collective.ALL_GATHER, hierarchical_gather_s),
        (Collective.REDUCE_SCATTER, hierarchical_gather_s),
        (Collective.ALLTOALL, hierarchical_all_to_all_s),
    ):
        (schedule,) = schedules_on(layout, "hierarchical", collective)
        for link in LINKS:
            expected = form_s(domains=domains, ranks_per_domain=size, **link)
            assert noiseless_s(shared_costs(schedule, **link)) == pytest.approx(expected, rel=1e-12)


def test_an_all_to_all_of_unequal_shares_waits_for_its_busiest_rank() -> None:
    """Rank 0 gets half of what each of four ranks has, the others a sixth: 1.5 S over one link."""
    link = LINKS[2]
    shares = np.array([[1 / 2, 1 / 6, 1 / 6, 1 / 6]] * 4)
    request = Request(Collective.ALLTOALLV, uniform_layout(4), pair_fraction=shares)
    (direct,) = build_schedules("direct", request)
    hot_s = link["alpha_s"] + 1.5 * link["size_bytes"] / link["bytes_per_s"]
    assert noiseless_s(shared_costs(direct, **link)) == pytest.approx(hot_s, rel=1e-12)
    (pairwise,) = build_schedules("pairwise", request)
    steps_s = 3 * link["alpha_s"] + 1.5 * link["size_bytes"] / link["bytes_per_s"]
    assert noiseless_s(shared_costs(pairwise, **link)) == pytest.approx(steps_s, rel=1e-12)


@pytest.mark.parametrize(
    ("algorithm", "collective", "closed_form_s"),
    [
        (AlgorithmName.ONE_SHOT, Collective.ALL_REDUCE, one_shot_s),
        (AlgorithmName.TWO_SHOT, Collective.ALL_REDUCE, two_shot_s),
        (AlgorithmName.DIRECT, Collective.ALL_GATHER, direct_s),
        (AlgorithmName.DIRECT, Collective.REDUCE_SCATTER, direct_s),
        (AlgorithmName.DIRECT, Collective.ALLTOALL, direct_s),
        (AlgorithmName.DIRECT, Collective.ALLTOALLV, direct_s),
        (AlgorithmName.DIRECT, Collective.SENDRECV, sendrecv_s),
        (AlgorithmName.TREE, Collective.REDUCE, tree_reduce_s),
        (AlgorithmName.RING, Collective.BROADCAST, chain_s),
    ],
)
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_on_one_node_of_a_real_fabric_it_is_the_closed_form(
    algorithm: AlgorithmName, collective: Collective, closed_form_s: object, ranks: int
) -> None:
    assert callable(closed_form_s)
    fabric = fabric_of("dgx-h100 node:1")
    nvlink = fabric.figures.route_class["nvlink4_nvswitch"]
    rate = 18 * 25e9 * nvlink.collective_efficiency_ratio
    for size in (8, 4096, 2**18):  # one piece: a pipeline is cut from 512 KiB on
        scenario = Scenario(
            collective, size, algorithm=algorithm, stack=StackName.WIRE, noise=NoiseName.NONE
        )
        calm = simulate(fabric, pack(fabric, ranks), scenario)
        expected = closed_form_s(
            ranks=ranks, size_bytes=size, alpha_s=nvlink.alpha_s, bytes_per_s=rate
        )
        assert calm.noiseless_s == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("name", "collective", "closed_form_s"), CLOSED_FORMS)
def test_breakdown_adds_up_to_the_completion(
    name: str, collective: Collective, closed_form_s: object
) -> None:
    assert callable(closed_form_s)
    for ranks, link in product((2, 3, 8, 13), LINKS):
        costs = shared_costs(schedule_of(name, ranks, collective), **link)
        assert noiseless_breakdown(costs).total_s == pytest.approx(noiseless_s(costs), rel=1e-12)

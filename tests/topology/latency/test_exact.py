"""Exact laws of collectives: anchors, the replay, the closed form without noise."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from tests.topology.latency.factories import (
    fabric_of,
    make_jitter,
    samples_of,
    schedule_of,
    uniform_costs,
)
from topology.collective.algorithms import build_schedules
from topology.collective.layout import layout_of
from topology.collective.placement import pack
from topology.collective.stages import Request
from topology.errors import ScheduleError
from topology.fabric.link_figures import Jitter
from topology.fabric.route_table import RouteMap
from topology.latency.cost import Costs, route_schedule, schedule_costs
from topology.latency.exact import ExactLaw, exact_law
from topology.latency.law import Grid, Law, from_survival, point
from topology.latency.law_noise import noise_law
from topology.latency.law_shapes import hierarchical_law, switch_law, tree_law
from topology.latency.monte_carlo import noiseless_s
from topology.latency.noise import MessageNoise, message_noise, noises_of
from topology.latency.stack import Stack, load_stack_figures
from topology.words import Collective, Launch, NoiseName, StackName

US = 1e-6
FIGURES = fabric_of("dgx-h100 node:1").figures


def class_noise(route_class: str, noise: NoiseName = NoiseName.DEDICATED) -> MessageNoise:
    return noises_of(FIGURES, [route_class], noise)[0]


def class_costs(
    name: str,
    ranks: int,
    route_class: str = "ib_ndr_3hop",
    collective: Collective = Collective.ALL_REDUCE,
    *,
    pieces: int = 1,
    bytes_per_s: float = math.inf,
) -> Costs:
    schedule = schedule_of(name, ranks, collective, pieces=pieces)
    alpha_s = FIGURES.route_class[route_class].alpha_s
    return uniform_costs(schedule, alpha_s=alpha_s, size_bytes=1.0, bytes_per_s=bytes_per_s)


def fabric_costs(
    spec: str, ranks: int, name: str, collective: Collective = Collective.ALL_REDUCE
) -> list[tuple[Costs, list[MessageNoise]]]:
    """Every variant of an algorithm over 8 bytes on a synthetic fleet, on the bare wire."""
    fabric = fabric_of(spec)
    placement = pack(fabric, ranks)
    routes = RouteMap(fabric, placement.endpoints)
    layout = layout_of(fabric, placement, routes, network_reduces=True)
    stack = Stack(StackName.WIRE, None, Launch.PROCESS, load_stack_figures())
    made = []
    for schedule in build_schedules(name, Request(collective, layout)):
        costs = schedule_costs(route_schedule(schedule, routes, 8.0), stack)
        made.append((costs, noises_of(fabric.figures, costs.classes, NoiseName.DEDICATED)))
    return made


def assert_holds_the_replay(
    costs: Costs, noises: Sequence[MessageNoise], *, trials: int, widest: float | None = None
) -> ExactLaw:
    """The replay's p50, p90, p99 lie in the bracket within 4 standard errors of the replay."""
    exact = exact_law(costs, noises)
    samples = samples_of(costs, *noises, trials=trials, seed=7)
    for name, q in (("p50_s", 0.5), ("p90_s", 0.9), ("p99_s", 0.99)):
        low, high = exact.bracket[name]
        error = 4 * math.sqrt(q * (1 - q) / trials)
        # The replay draws bodies from a table of 8,192 values: 1e-4 of a time is its grain.
        assert (samples < low * (1 - 1e-4)).mean() <= q + error, (
            name,
            low,
            np.quantile(samples, q),
        )
        assert high is not None
        assert (samples <= high * (1 + 1e-4)).mean() >= q - error, (name, high)
        if widest is not None:
            assert exact.width_ratio(name) <= widest, (name, low, high)
    return exact


TREES = ("tree", "nvls", "one_shot", "two_shot")


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("ranks", [2, 3, 8, 13, 64])
def test_on_trees_the_bracket_is_narrow_and_holds_the_replay(name: str, ranks: int) -> None:
    for route_class, bytes_per_s in (("ib_ndr_3hop", 1e6), ("nvlink4_nvswitch", math.inf)):
        costs = class_costs(name, ranks, route_class, bytes_per_s=bytes_per_s)
        trials = min(6_000, 4_000_000 // costs.schedule.messages)
        assert_holds_the_replay(costs, [class_noise(route_class)], trials=trials, widest=0.006)


@pytest.mark.parametrize("name", ["tree", "nvls"])
def test_at_512_ranks_it_holds_the_replay(name: str) -> None:
    noise = class_noise("ib_ndr_3hop")
    assert_holds_the_replay(class_costs(name, 512), [noise], trials=4_000, widest=0.006)


@pytest.mark.parametrize("collective", [Collective.BROADCAST, Collective.REDUCE])
@pytest.mark.parametrize("name", ["tree", "ring"])
@pytest.mark.parametrize("ranks", [2, 7, 40])
def test_rooted_trees_and_chains(name: str, collective: Collective, ranks: int) -> None:
    costs = class_costs(name, ranks, collective=collective, bytes_per_s=1e6)
    noise = class_noise("ib_ndr_3hop")
    assert_holds_the_replay(costs, [noise], trials=6_000, widest=0.006)


@pytest.mark.parametrize("collective", [Collective.ALL_GATHER, Collective.REDUCE_SCATTER])
@pytest.mark.parametrize("name", ["nvls", "direct"])
def test_gather_and_scatter_in_one_clique(name: str, collective: Collective) -> None:
    costs = class_costs(name, 8, "nvlink4_nvswitch", collective, bytes_per_s=1e6)
    noise = class_noise("nvlink4_nvswitch")
    assert_holds_the_replay(costs, [noise], trials=10_000, widest=0.009)


@pytest.mark.parametrize("ranks", [2, 3, 8, 12, 64, 256])
def test_recursive_doubling_has_a_certificate_from_both_sides(ranks: int) -> None:
    costs = class_costs("recursive_doubling", ranks)
    trials = min(6_000, 4_000_000 // costs.schedule.messages)
    assert_holds_the_replay(costs, [class_noise("ib_ndr_3hop")], trials=trials)


def test_pairwise_has_one_on_few_ranks_and_is_refused_on_many() -> None:
    for ranks in (2, 3, 9):
        costs = class_costs("pairwise", ranks, collective=Collective.ALLTOALL)
        assert_holds_the_replay(costs, [class_noise("ib_ndr_3hop")], trials=4_000)
    many = class_costs("pairwise", 64, collective=Collective.ALLTOALL)
    with pytest.raises(ScheduleError, match="63 steps"):
        exact_law(many, [class_noise("ib_ndr_3hop")])


@pytest.mark.parametrize(
    ("name", "widest"),
    [("tree", 0.01), ("double_binary_tree", 0.03), ("nvls_tree", 0.25), ("collnet", 0.01)],
)
def test_on_nodes_with_in_node_and_network_links(name: str, widest: float) -> None:
    for spec, ranks in (("dgx-h100 node:4", 32), ("dgx-h100 node:3", 20)):
        for costs, noises in fabric_costs(spec, ranks, name):
            assert_holds_the_replay(costs, noises, trials=4_000, widest=widest)


def test_hierarchical_over_switches_and_by_leaders() -> None:
    held = 0
    for costs, noises in fabric_costs("dgx-h100 node:4", 32, "hierarchical"):
        if "ring" not in costs.schedule.variant:
            assert_holds_the_replay(costs, noises, trials=4_000, widest=0.03)
            held += 1
    assert held == 2


@pytest.mark.parametrize("collective", [Collective.ALL_GATHER, Collective.REDUCE_SCATTER])
def test_pat_on_one_rank_a_node(collective: Collective) -> None:
    for ranks in (4, 6, 8):
        for costs, noises in fabric_costs("beowulf-2006 node:8", ranks, "pat", collective):
            assert_holds_the_replay(costs, noises, trials=6_000)


def test_few_pieces_have_a_certificate() -> None:
    costs = class_costs("tree", 32, pieces=4, bytes_per_s=1e6)
    exact = assert_holds_the_replay(costs, [class_noise("ib_ndr_3hop")], trials=4_000)
    assert exact.width_ratio("p50_s") < 0.5


def test_rings_and_long_pipelines_are_refused_with_the_reason() -> None:
    noise = class_noise("ib_ndr_3hop")
    with pytest.raises(ScheduleError, match="neighbours on a ring"):
        exact_law(class_costs("ring", 8), [noise])
    with pytest.raises(ScheduleError, match="pieces of a pipeline"):
        exact_law(class_costs("tree", 8, pieces=32, bytes_per_s=1e6), [noise])


def test_a_message_that_could_arrive_before_it_left_is_refused() -> None:
    noise = message_noise(make_jitter(body_median_s=2e-6, body_sigma=0.5))
    costs = uniform_costs(schedule_of("tree", 4), alpha_s=1e-6)
    with pytest.raises(ScheduleError, match="before it has left"):
        exact_law(costs, [noise])


@pytest.mark.parametrize(
    "name", ["tree", "nvls", "one_shot", "two_shot", "recursive_doubling", "double_binary_tree"]
)
def test_without_noise_it_is_the_closed_form(name: str) -> None:
    calm = message_noise(make_jitter())
    for ranks in (2, 3, 8, 31, 64):
        schedule = schedule_of(name, ranks)
        link = {"alpha_s": 2e-6, "size_bytes": 2.0**16, "bytes_per_s": 50e9}
        costs = uniform_costs(schedule, **link, launch_s=3e-6, base_s=1e-6)
        exact = exact_law(costs, [calm])
        for low, high in exact.bracket.values():
            assert low == pytest.approx(noiseless_s(costs), rel=1e-11)
            assert high == pytest.approx(noiseless_s(costs), rel=1e-11)


def test_one_rank_alone_takes_launch_and_base() -> None:
    costs = uniform_costs(schedule_of("tree", 1), alpha_s=1e-6, launch_s=3e-6, base_s=1e-6)
    assert exact_law(costs, [message_noise(make_jitter())]).central_s["p99_s"] == 4e-6


REFERENCE = [
    ("nvlink4_nvswitch", 8, "recursive_doubling", 2.3, 2.7),
    ("nvlink4_nvswitch", 8, "tree", 4.6, 4.7),
    ("nvlink4_nvswitch", 8, "nvls", 1.6, 1.9),
    ("nvlink5_nvl72", 64, "recursive_doubling", 5.9, 6.6),
    ("nvlink5_nvl72", 64, "tree", 11.4, 11.8),
    ("nvlink5_nvl72", 64, "nvls", 2.0, 2.7),
    ("ib_ndr_1hop", 8, "recursive_doubling", 7.0, 10.9),
    ("ib_ndr_1hop", 8, "tree", 13.8, 16.5),
    ("ib_ndr_1hop", 8, "nvls", 4.7, 8.3),
    ("ib_ndr_3hop", 64, "tree", 36.3, 48.2),
    ("ib_ndr_3hop", 64, "nvls", 8.3, 26.1),
    ("ib_ndr_3hop", 512, "tree", 55.1, 81.1),
    ("ib_ndr_3hop", 512, "nvls", 17.9, 45.0),
    ("roce400_in_block", 64, "tree", 45.3, 107.0),
    ("roce400_in_block", 64, "nvls", 13.7, 81.7),
    ("roce400_in_block", 512, "tree", 86.5, 202.0),
    ("roce400_in_block", 512, "nvls", 47.7, 164.0),
]


@pytest.mark.parametrize(("route_class", "ranks", "name", "p50", "p99"), REFERENCE)
def test_8_5_the_reference_outputs(
    route_class: str, ranks: int, name: str, p50: float, p99: float
) -> None:
    exact = exact_law(class_costs(name, ranks, route_class), [class_noise(route_class)])
    printed = 0.05  # The reference prints one decimal, in microseconds.
    assert exact.central_s["p50_s"] == pytest.approx(p50 * US, rel=0.03, abs=printed * US)
    assert exact.central_s["p99_s"] == pytest.approx(p99 * US, rel=0.10)


@pytest.mark.parametrize(
    ("route_class", "ranks", "p50", "p99"),
    [
        ("ib_ndr_3hop", 64, 22.8, 43.4),
        ("ib_ndr_3hop", 512, 41.7, 74.5),
        ("roce400_in_block", 64, 37.8, 118),
    ],
)
def test_8_5_recursive_doubling_lies_in_its_certificate(
    route_class: str, ranks: int, p50: float, p99: float
) -> None:
    costs = class_costs("recursive_doubling", ranks, route_class)
    exact = exact_law(costs, [class_noise(route_class)])
    for name, value, tolerance in (("p50_s", p50, 0.03), ("p99_s", p99, 0.1)):
        low, high = exact.bracket[name]
        assert high is not None
        assert low * (1 - tolerance) <= value * US <= high * (1 + tolerance)


def exponential(*, step: float = 0.004, end: float = 60.0) -> Law:
    grid = Grid(step, math.ceil(end / step))
    return from_survival(grid, 0.0, np.exp(-step * np.arange(grid.cells)))


@pytest.mark.parametrize(
    ("ranks", "mean", "p99", "all_mean", "all_p99"),
    [
        (8, 4.305, 9.84, 6.69, 12.0),
        (64, 10.67, 17.39, 16.56, 22.7),
        (1024, 20.12, 27.50, 30.75, 36.8),
    ],
)
def test_c3_and_c4_one_rank_is_exact_and_all_of_them_lie_above(
    ranks: int, mean: float, p99: float, all_mean: float, all_p99: float
) -> None:
    step = exponential()
    law = step
    for _ in range(int(math.log2(ranks)) - 1):
        law = law.greatest_of(2).plus(step)
    assert sum(law.mean_s) / 2 == pytest.approx(mean, rel=3e-3)
    assert sum(law.quantile(0.99)) / 2 == pytest.approx(p99, rel=3e-3)
    every = law.greatest_of(ranks)
    assert law.quantile(0.99)[0] <= all_p99 <= every.quantile(0.99)[1]
    assert law.mean_s[0] <= all_mean <= every.mean_s[1]


def test_c5_the_root_of_a_binary_tree_moves_at_the_speed_of_a_branching_walk() -> None:
    step, mean = exponential(step=0.02, end=140.0), {}
    law = point(step.grid, 0.0)
    for depth in range(1, 29):
        law = law.plus(step).greatest_of(2)
        mean[depth] = sum(law.mean_s) / 2
    grown = mean[28] - mean[14]
    assert grown == pytest.approx(2.6783 * 14 - 2.394 * math.log(2), rel=0.02)


@pytest.mark.parametrize(("n", "mean", "p99"), [(8, 5.436, 10.70), (72, 9.722, 14.99)])
def test_c6_in_switch(n: int, mean: float, p99: float) -> None:
    law = switch_law(exponential(), n)
    harmonic = sum(1 / i for i in range(1, n + 1))
    assert law.mean_s[0] <= 2 * harmonic <= law.mean_s[1]
    assert law.mean_s[1] == pytest.approx(mean, rel=3e-3)
    # The reference sampled it: 1 % is its own noise.
    assert sum(law.quantile(0.99)) / 2 == pytest.approx(p99, rel=0.01)


def test_c7_one_common_step_is_scaled_and_its_maximum_is_itself() -> None:
    step = exponential()
    low, high = step.quantile(0.9)
    assert step.scaled(6.0).quantile(0.9) == pytest.approx((6 * low, 6 * high))
    assert step.greatest_of(8).quantile(0.9)[0] > high


def log_normal_hop(p: float = 0.0, *, step: float = 30e-9, cells: int = 10_000) -> Law:
    """Median 3 us, sigma 0.35, and a 500 us event with chance p."""
    jitter = Jitter(
        body_median_s=3 * US,
        body_sigma=0.35,
        detour_probability=p,
        detour_median_s=500 * US,
        detour_sigma=0.0,
        detour_cap_s=1e-3,
    )
    return noise_law(Grid(step, cells), jitter).shifted(3 * US)


def test_the_tree_of_1024_ranks_that_was_sampled() -> None:
    law = point(Grid(30e-9, 10_000), 0.0)
    for _ in range(10):
        law = law.greatest_of(2).plus(log_normal_hop())
    both = law.plus(law)
    for q, value in ((0.5, 84.9), (0.99, 95.0), (0.999, 99.4)):
        assert sum(both.quantile(q)) / 2 == pytest.approx(value * US, rel=0.01)


@pytest.mark.parametrize("ranks", [2, 3, 5, 8, 23, 64, 100])
def test_the_shape_of_a_tree_is_its_schedule(ranks: int) -> None:
    exact = exact_law(class_costs("tree", ranks), [class_noise("ib_ndr_3hop")])
    grid = Grid(5e-9, 30_000)
    hop = noise_law(grid, class_noise("ib_ndr_3hop").jitter).shifted(3 * US)
    law = tree_law(ranks, [hop] * 7)
    for name, q in (("p50_s", 0.5), ("p99_s", 0.99), ("p999_s", 0.999)):
        low, high = exact.bracket[name]
        lower, higher = law.quantile(q)
        assert high is not None
        assert max(low, lower) <= min(high, higher)


def test_the_shape_of_a_hierarchical_one_is_its_schedule() -> None:
    (costs, noises), *_ = (
        made
        for made in fabric_costs("dgx-h100 node:4", 32, "hierarchical")
        if made[0].schedule.variant == "switch in the domain, tree across"
    )
    exact = exact_law(costs, noises)
    laws = [noise_law(Grid(5e-9, 30_000), noise.jitter) for noise in noises]
    alpha_s = [FIGURES.route_class[name].alpha_s for name in costs.classes]
    hops = [law.shifted(alpha) for law, alpha in zip(laws, alpha_s, strict=True)]
    assert len(hops) == 2
    law = hierarchical_law(4, 8, hops[0], [hops[1]] * 2)
    for name, q in (("p50_s", 0.5), ("p99_s", 0.99)):
        low, high = exact.bracket[name]
        lower, higher = law.quantile(q)
        assert high is not None
        # Eight bytes take a nanosecond or two that the shape leaves out.
        assert max(low, lower) <= min(high, higher) + 5e-9


def test_a_shape_of_more_ranks_than_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="3 levels"):
        tree_law(8, [exponential()] * 2)


def percentiles_of(costs: Costs, jitter: Jitter) -> dict[str, tuple[float, float | None]]:
    return exact_law(costs, [message_noise(jitter)]).bracket


@pytest.mark.parametrize("name", ["tree", "nvls", "one_shot", "recursive_doubling"])
def test_8_7_more_of_anything_is_never_faster(name: str) -> None:
    usual = {"body_median_s": 150e-9, "body_sigma": 0.45, "detour_probability": 0.01}
    usual |= {"detour_median_s": 2e-6, "detour_sigma": 0.9, "detour_cap_s": 130e-6}
    make = partial(uniform_costs, schedule_of(name, 8), alpha_s=3e-6)
    base = percentiles_of(make(), make_jitter(**usual))
    worse = [
        percentiles_of(make(), make_jitter(**{**usual, "detour_probability": 0.03})),
        percentiles_of(make(), make_jitter(**{**usual, "detour_median_s": 4e-6})),
        percentiles_of(make(software_s=1e-7), make_jitter(**usual)),
        percentiles_of(uniform_costs(schedule_of(name, 16), alpha_s=3e-6), make_jitter(**usual)),
    ]
    for other in worse:
        for key, (low, _) in base.items():
            high = other[key][1]
            assert high is None or high >= low
    values = [low for low, _ in base.values()]
    assert values == sorted(values)

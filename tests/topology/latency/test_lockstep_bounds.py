"""Certified bounds of what goes in lockstep: around replays at every size, and what is refused."""

import math

import numpy as np
import pytest

from tests.topology.latency.factories import make_jitter, samples_of, schedule_of, uniform_costs
from tests.topology.latency.test_exact import class_costs, class_noise, fabric_costs
from topology.errors import ScheduleError
from topology.fabric.link_figures import Jitter
from topology.latency.cost import Costs
from topology.latency.lockstep_bounds import lockstep_brackets_s, lockstep_of
from topology.latency.monte_carlo import noiseless_s
from topology.latency.noise import MessageNoise, message_noise
from topology.words import Collective

LAWS = (
    class_noise("ib_ndr_3hop").jitter,
    make_jitter(body_median_s=1e-6, body_sigma=0.5),
    make_jitter(detour_probability=1e-5, detour_median_s=1e-3, detour_sigma=0.3),
)


def assert_holds(costs: Costs, noises: list[MessageNoise], *, trials: int) -> None:
    brackets = lockstep_brackets_s(costs, noises)
    samples = samples_of(costs, *noises, trials=trials, seed=3)
    for name, q in (("p50_s", 0.5), ("p90_s", 0.9), ("p99_s", 0.99)):
        low, high = brackets[name]
        error = 4 * math.sqrt(q * (1 - q) / trials)
        assert (samples < low * (1 - 1e-4)).mean() <= q + error, (name, low)
        assert (samples <= high * (1 + 1e-4)).mean() >= q - error, (name, high)
        assert 0.5 * noiseless_s(costs) < low <= high < 4 * np.quantile(samples, q)


@pytest.mark.parametrize("ranks", [2, 3, 16, 64])
@pytest.mark.parametrize("jitter", LAWS, ids=["ib", "body", "stalls"])
def test_a_pairwise_exchange_lies_in_its_bounds(ranks: int, jitter: Jitter) -> None:
    costs = uniform_costs(schedule_of("pairwise", ranks, Collective.ALLTOALL), alpha_s=3e-6)
    assert_holds(costs, [message_noise(jitter)], trials=min(4_000, 4_000_000 // ranks**2))


@pytest.mark.parametrize(
    "ranks", [32, *(pytest.param(n, marks=pytest.mark.proof) for n in (128, 256, 512))]
)
def test_a_long_pairwise_exchange_lies_in_its_bounds(ranks: int) -> None:
    costs = class_costs("pairwise", ranks, collective=Collective.ALLTOALL)
    assert_holds(costs, [class_noise("ib_ndr_3hop")], trials=20_000_000 // ranks**2)


def test_over_nodes_with_two_kinds_of_links() -> None:
    ((costs, noises),) = fabric_costs("dgx-h100 node:4", 32, "pairwise", Collective.ALLTOALL)
    assert_holds(costs, noises, trials=2_000)


@pytest.mark.parametrize("name", ["pairwise", "ring"])
def test_without_noise_both_bounds_are_the_closed_form(name: str) -> None:
    collective = Collective.ALLTOALL if name == "pairwise" else Collective.ALL_REDUCE
    costs = uniform_costs(
        schedule_of(name, 24, collective), alpha_s=2e-6, size_bytes=1e6, bytes_per_s=1e9
    )
    for low, high in lockstep_brackets_s(costs, [message_noise(make_jitter())]).values():
        assert low == pytest.approx(noiseless_s(costs), rel=1e-9)
        assert high == pytest.approx(noiseless_s(costs), rel=1e-9)


def test_a_ring_is_in_lockstep_too() -> None:
    costs = class_costs("ring", 32)
    assert lockstep_of(costs).count == 62
    assert_holds(costs, [class_noise("ib_ndr_3hop")], trials=2_000)


@pytest.mark.parametrize("name", ["tree", "recursive_doubling"])
def test_what_is_not_in_lockstep_is_refused(name: str) -> None:
    with pytest.raises(ScheduleError, match="in lockstep"):
        lockstep_brackets_s(class_costs(name, 8), [class_noise("ib_ndr_3hop")])

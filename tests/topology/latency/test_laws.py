"""Laws: the replay without noise is the closed form; with noise it is what theory says."""

from dataclasses import replace
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest

from tests.topology.latency.factories import (
    FloatArray,
    Steps,
    assert_mean,
    assert_quantile,
    assert_share_below,
    exponential,
    fabric_of,
    make_jitter,
    samples_of,
    schedule_of,
    uniform_costs,
)
from topology.collective.placement import pack
from topology.latency.closed_form import (
    in_switch_all_reduce_s,
    recursive_doubling_s,
    ring_all_reduce_s,
    ring_gather_s,
    tree_all_reduce_s,
    tree_broadcast_s,
)
from topology.latency.cost import Costs
from topology.latency.monte_carlo import MOST_SIDE_BY_SIDE, noiseless_breakdown, noiseless_s
from topology.latency.noise import message_noise, noises_of
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.words import AlgorithmName, Collective, NoiseName, StackName

RANKS = range(2, 65)
LINKS = [
    {"size_bytes": 8.0, "alpha_s": 2e-6, "bytes_per_s": 50e9},
    {"size_bytes": 2.0**20, "alpha_s": 762e-9, "bytes_per_s": 450e9},
    {"size_bytes": 2.0**30, "alpha_s": 2e-6, "bytes_per_s": 50e9},
    {"size_bytes": 1e6, "alpha_s": 1e-3, "bytes_per_s": 1e9},
]
CLOSED_FORMS = [
    ("ring", Collective.ALL_REDUCE, ring_all_reduce_s),
    ("ring", Collective.ALL_GATHER, ring_gather_s),
    ("ring", Collective.REDUCE_SCATTER, ring_gather_s),
    ("pairwise", Collective.ALLTOALL, ring_gather_s),
    ("tree", Collective.ALL_REDUCE, tree_all_reduce_s),
    ("tree", Collective.BROADCAST, tree_broadcast_s),
]


@pytest.mark.parametrize(
    ("name", "collective", "closed_form_s"),
    CLOSED_FORMS,
    ids=lambda value: getattr(value, "value", None),
)
def test_without_noise_the_replay_is_the_closed_form(
    name: str, collective: Collective, closed_form_s: object
) -> None:
    assert callable(closed_form_s)
    for ranks in RANKS:
        schedule = schedule_of(name, ranks, collective)
        for link in LINKS[ranks % 2 :: 2]:
            replayed = noiseless_s(uniform_costs(schedule, **link))
            assert replayed == pytest.approx(closed_form_s(ranks=ranks, **link), rel=1e-12)


def test_recursive_doubling_is_the_closed_form_on_powers_of_two_and_below_it_elsewhere() -> None:
    for ranks, link in product(RANKS, LINKS):
        replayed = noiseless_s(uniform_costs(schedule_of("recursive_doubling", ranks), **link))
        bound = recursive_doubling_s(ranks=ranks, **link)
        if ranks & (ranks - 1):
            steps = ranks.bit_length()
            assert replayed <= bound * (1 + 1e-12)
            assert replayed >= steps * link["alpha_s"]
        else:
            assert replayed == pytest.approx(bound, rel=1e-12)


@pytest.mark.parametrize("pieces", [1, 2, 7, 64])
def test_in_switch_is_the_closed_form_whatever_the_ranks(pieces: int) -> None:
    for ranks, link in product((2, 3, 8, 64), LINKS):
        schedule = schedule_of("nvls", ranks, pieces=pieces)
        expected = in_switch_all_reduce_s(**link, pieces=pieces)
        assert noiseless_s(uniform_costs(schedule, **link)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("algorithm", "closed_form_s"),
    [
        (AlgorithmName.RING, ring_all_reduce_s),
        (AlgorithmName.TREE, tree_all_reduce_s),
        (AlgorithmName.RECURSIVE_DOUBLING, recursive_doubling_s),
    ],
)
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_on_one_node_of_a_real_fabric_it_is_the_closed_form(
    algorithm: AlgorithmName, closed_form_s: object, ranks: int
) -> None:
    assert callable(closed_form_s)
    fabric = fabric_of("dgx-h100 node:1")
    nvlink = fabric.figures.route_class["nvlink4_nvswitch"]
    rate = 18 * 25e9 * nvlink.collective_efficiency_ratio
    for size in (8, 4096, 2**18):  # one piece: a pipeline is cut from 512 KiB on
        calm = simulate(fabric, pack(fabric, ranks), calm_wire(size, algorithm))
        expected = closed_form_s(
            ranks=ranks, size_bytes=size, alpha_s=nvlink.alpha_s, bytes_per_s=rate
        )
        assert calm.noiseless_s == pytest.approx(expected, rel=1e-9)


def test_in_switch_on_a_real_node_uses_its_own_efficiency() -> None:
    fabric = fabric_of("dgx-h100 node:1")
    nvlink = fabric.figures.route_class["nvlink4_nvswitch"]
    assert nvlink.in_switch_efficiency_ratio is not None
    rate = 18 * 25e9 * nvlink.in_switch_efficiency_ratio
    for size, pieces in ((8, 1), (2**18, 1), (2**24, 32), (2**30, 64)):
        calm = simulate(fabric, pack(fabric, 8), calm_wire(size, AlgorithmName.NVLS))
        expected = in_switch_all_reduce_s(
            size_bytes=size, alpha_s=nvlink.alpha_s, bytes_per_s=rate, pieces=pieces
        )
        assert calm.noiseless_s == pytest.approx(expected, rel=1e-9)


def calm_wire(size_bytes: int, algorithm: AlgorithmName) -> Scenario:
    return Scenario(
        Collective.ALL_REDUCE,
        size_bytes,
        algorithm=algorithm,
        stack=StackName.WIRE,
        noise=NoiseName.NONE,
    )


@pytest.mark.parametrize("name", ["ring", "tree", "recursive_doubling", "nvls"])
def test_breakdown_adds_up_to_the_completion(name: str) -> None:
    for ranks, link in product((2, 3, 8, 13), LINKS):
        costs = uniform_costs(
            schedule_of(name, ranks), **link, software_s=3e-7, launch_s=2.67e-6, base_s=4e-6
        )
        terms = noiseless_breakdown(costs)
        assert terms.total_s == pytest.approx(noiseless_s(costs), rel=1e-12)
        assert terms.launch_s == 2.67e-6
        assert terms.noise_s == 0


# Maxima (anchors A1 ... A4): an in-switch operation whose way down is quiet.


def up_is_noisy(ranks: int) -> Costs:
    """In-switch with alpha 0; messages up are of class 0, messages down of class 1."""
    costs = uniform_costs(schedule_of("nvls", ranks), alpha_s=0.0)
    up, down = costs.rounds
    quiet = replace(down, jitter=np.ones(ranks, dtype=np.int64))
    return replace(costs, rounds=(up, quiet), classes=("noisy", "quiet"))


QUIET = message_noise(make_jitter())


@pytest.mark.parametrize(
    ("ranks", "p50", "p99"), [(8, 2.49, 6.68), (72, 4.65, 8.88), (1024, 7.30, 11.53)]
)
def test_maximum_of_exponentials_has_the_exact_quantiles(
    ranks: int, p50: float, p99: float
) -> None:
    samples = samples_of(up_is_noisy(ranks), Steps(exponential), QUIET, trials=10_000)
    for share, rounded in ((0.5, p50), (0.99, p99)):
        exact = -np.log1p(-(share ** (1 / ranks)))
        assert exact == pytest.approx(rounded, abs=0.005)
        assert_share_below(samples, exact, share)


@pytest.mark.parametrize(("ranks", "mean"), [(8, 2.718), (72, 4.861), (1024, 7.509)])
def test_mean_of_the_maximum_of_exponentials_is_harmonic(ranks: int, mean: float) -> None:
    harmonic = sum(1 / k for k in range(1, ranks + 1))
    assert harmonic == pytest.approx(mean, abs=0.0005)
    samples = samples_of(up_is_noisy(ranks), Steps(exponential), QUIET, trials=10_000)
    assert_mean(samples, harmonic)


@pytest.mark.parametrize(("ranks", "p99"), [(8, 2.48), (72, 2.97), (1024, 3.60)])
def test_maximum_of_shipped_bodies_reaches_the_far_tail(ranks: int, p99: float) -> None:
    """At 1,024 ranks the p99 lies beyond the table's last cell, the p50 among cells 1.5 % wide."""
    noisy = message_noise(make_jitter(body_median_s=1.0, body_sigma=0.3))
    samples = samples_of(up_is_noisy(ranks), noisy, QUIET, trials=10_000) + 1.0
    for share in (0.5, 0.99, 0.999):
        exact = np.exp(0.3 * NormalDist().inv_cdf(share ** (1 / ranks)))
        assert_quantile(samples, exact, share, rel=0.01)
    exact = np.exp(0.3 * NormalDist().inv_cdf(0.99 ** (1 / ranks)))
    assert exact == pytest.approx(p99, abs=0.005)


def test_maximum_of_pareto_steps_grows_like_frechet() -> None:
    def pareto(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
        return np.asarray(1 + rng.pareto(3, shape))

    for ranks, rounded in ((8, 2.29), (1024, 11.4)):
        median = (1 - 2 ** (-1 / ranks)) ** (-1 / 3)
        assert median == pytest.approx(rounded, abs=0.05)
        samples = samples_of(up_is_noisy(ranks), Steps(pareto), QUIET, trials=5_000)
        assert_share_below(samples, median, 0.5)


@pytest.mark.parametrize(("ranks", "epsilon", "meets"), [(50, 0.01, 0.634), (16, 1e-4, 0.0469)])
def test_share_of_operations_that_meet_a_detour(ranks: int, epsilon: float, meets: float) -> None:
    """Anchor A5: 1 - (1 - epsilon)^M over M messages: 2n in-switch, 2n(n-1) in a ring."""
    name, messages = ("nvls", 2 * ranks) if ranks == 50 else ("ring", 2 * ranks * (ranks - 1))
    costs = uniform_costs(schedule_of(name, ranks), alpha_s=0.0)
    assert costs.schedule.messages == messages
    law = make_jitter(detour_probability=epsilon, detour_median_s=1.0, detour_cap_s=1.0)
    exact = 1 - (1 - epsilon) ** messages
    assert exact == pytest.approx(meets, abs=0.0005)
    assert_share_below(samples_of(costs, message_noise(law), trials=20_000), 0.0, 1 - exact)


# Rings: last-passage percolation (anchors B1 ... B8).


def ring(ranks: int, alpha_s: float = 0.0) -> Costs:
    return uniform_costs(schedule_of("ring", ranks), alpha_s=alpha_s)


def test_a_steady_ring_takes_its_steps_exactly() -> None:
    for ranks in (2, 3, 8, 64):
        assert noiseless_s(ring(ranks, alpha_s=1.0)) == 2 * (ranks - 1)


@pytest.mark.parametrize(
    ("ranks", "trials", "mean", "p50", "p99"),
    [
        (8, 60_000, 1.952, 1.932, 2.626),
        (32, 5_000, 2.032, 2.025, 2.266),
        (64, 1_500, 2.034, 2.030, 2.175),
    ],
)
def test_ring_of_exponential_steps_pays_twice_the_mean(
    ranks: int, trials: int, mean: float, p50: float, p99: float
) -> None:
    """Anchor B3: completion over K; not H_n times the mean, which would be 4.7 at 64 ranks."""
    speed = samples_of(ring(ranks), Steps(exponential), trials=trials) / (2 * (ranks - 1))
    assert speed.mean() == pytest.approx(mean, rel=5e-3)
    for anchor, share in ((p50, 0.5), (p99, 0.99)):
        assert_quantile(speed, anchor, share, rel=5e-3)
    harmonic = sum(1 / k for k in range(1, ranks + 1))
    assert 1 <= speed.mean() <= harmonic, "anchor B4: between no waiting and a barrier each step"


@pytest.mark.parametrize(
    ("law", "speed"),
    [("gamma of shape 4", 1.483), ("log-normal, cv 0.1", 1.091), ("log-normal, cv 0.5", 1.502)],
)
def test_ring_of_256_has_the_speed_of_its_step_law(law: str, speed: float) -> None:
    """Anchor B5: completion over K for steps of mean 1."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
        if law.startswith("gamma"):
            return rng.standard_gamma(4.0, shape) / 4
        sigma = np.sqrt(np.log1p(float(law.split()[-1]) ** 2))
        return rng.lognormal(-(sigma**2) / 2, sigma, shape)

    samples = samples_of(ring(256), Steps(draw), trials=40)
    assert samples.mean() / 510 == pytest.approx(speed, rel=5e-3)


def test_rare_detours_cost_a_ring_the_root_of_their_rate() -> None:
    """Anchor B7: 17.2 detours at 256 ranks and 1 in 1,000, where the naive sum is 0.5."""
    law = make_jitter(detour_probability=1e-3, detour_median_s=1.0, detour_cap_s=1.0)
    extra = samples_of(ring(256), message_noise(law), trials=80)
    assert extra.mean() == pytest.approx(17.2, rel=0.03)
    assert 510 * 1e-3 < 1


def test_steps_that_are_all_alike_make_a_ring_a_sum() -> None:
    """Anchor C7: perfectly correlated steps, T = K X."""
    one = np.random.default_rng(3).exponential(size=MOST_SIDE_BY_SIDE)
    same = Steps(lambda rng, shape: np.broadcast_to(one[: shape[1]], shape))
    assert samples_of(ring(16), same, trials=500) == pytest.approx(30 * one[:500])


# Two legs through a switch (anchor C6).


@pytest.mark.parametrize(("ranks", "mean", "p99"), [(8, 5.436, 10.70), (72, 9.722, 14.99)])
def test_in_switch_of_exponential_legs_is_two_maxima(ranks: int, mean: float, p99: float) -> None:
    costs = uniform_costs(schedule_of("nvls", ranks), alpha_s=0.0)
    samples = samples_of(costs, Steps(exponential), trials=30_000)
    assert_mean(samples, 2 * sum(1 / k for k in range(1, ranks + 1)))
    assert samples.mean() == pytest.approx(mean, abs=0.04)
    exact = quantile_of_two_maxima(ranks, 0.99)
    assert exact == pytest.approx(p99, rel=0.01), "the anchor's own digits are a simulation's"
    assert_share_below(samples, exact, 0.99)


def quantile_of_two_maxima(ranks: int, share: float) -> float:
    """Quantile of the sum of two independent maxima of exponentials, by convolution."""
    step = 4e-3
    grid = np.arange(0, 40, step)
    mass = np.diff((1 - np.exp(-grid)) ** ranks)
    total = np.cumsum(np.convolve(mass, mass))
    return float((np.searchsorted(total, share) + 1) * step)


# Reference table 8.5: default classes, wire path, small message. Columns: noiseless, p50, p99 [us].

TABLE = [
    ("nvlink4_nvswitch", 8, "ring", 10.7, 10.9, 11.5),
    ("nvlink4_nvswitch", 8, "recursive_doubling", 2.3, 2.3, 2.7),
    ("nvlink4_nvswitch", 8, "tree", 4.6, 4.6, 4.7),
    ("nvlink4_nvswitch", 8, "nvls", 1.5, 1.6, 1.9),
    ("nvlink5_nvl72", 64, "ring", 119.7, 123.4, 124.7),
    ("nvlink5_nvl72", 64, "recursive_doubling", 5.7, 5.9, 6.6),
    ("nvlink5_nvl72", 64, "tree", 11.4, 11.4, 11.8),
    ("nvlink5_nvl72", 64, "nvls", 1.9, 2.0, 2.7),
    ("ib_ndr_1hop", 8, "ring", 32.2, 33.0, 40.1),
    ("ib_ndr_1hop", 8, "recursive_doubling", 6.9, 7.0, 10.9),
    ("ib_ndr_1hop", 8, "tree", 13.8, 13.8, 16.5),
    ("ib_ndr_1hop", 8, "nvls", 4.6, 4.7, 8.3),
    ("ib_ndr_3hop", 64, "ring", 378, 445, 492),
    ("ib_ndr_3hop", 64, "recursive_doubling", 18.0, 22.8, 43.4),
    ("ib_ndr_3hop", 64, "tree", 36.0, 36.3, 48.2),
    ("ib_ndr_3hop", 64, "nvls", 6.0, 8.3, 26.1),
    ("ib_ndr_3hop", 512, "recursive_doubling", 27.0, 41.7, 74.5),
    ("ib_ndr_3hop", 512, "tree", 54.0, 55.1, 81.1),
    ("ib_ndr_3hop", 512, "nvls", 6.0, 17.9, 45.0),
    ("roce400_in_block", 64, "ring", 466, 692, 907),
    ("roce400_in_block", 64, "recursive_doubling", 22.2, 37.8, 118),
    ("roce400_in_block", 64, "tree", 44.4, 45.3, 107),
    ("roce400_in_block", 64, "nvls", 7.4, 13.7, 81.7),
    ("roce400_in_block", 512, "recursive_doubling", 33.3, 91.1, 239),
    ("roce400_in_block", 512, "tree", 66.6, 86.5, 202),
    ("roce400_in_block", 512, "nvls", 7.4, 47.7, 164),
    ("ib_ndr_3hop", 512, "ring", 3067, 3675, 3772),
    ("roce400_in_block", 512, "ring", 3782, 5919, 6407),
]
MESSAGES = 5_000_000
HALF_A_DIGIT_US = 0.05


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]}-{row[1]}-{row[2]}")
def test_default_classes_give_the_reference_table(
    row: tuple[str, int, str, float, float, float],
) -> None:
    name, ranks, algorithm, calm_us, p50_us, p99_us = row
    figures = fabric_of("dgx-h100 node:1").figures
    schedule = schedule_of(algorithm, ranks)
    costs = uniform_costs(schedule, alpha_s=figures.route_class[name].alpha_s)
    noise = noises_of(figures, [name], NoiseName.DEDICATED)[0]
    trials = min(6_000, max(60, MESSAGES // schedule.messages))
    samples = samples_of(costs, noise, trials=trials) * 1e6
    assert noiseless_s(costs) * 1e6 == pytest.approx(calm_us, rel=1e-3, abs=HALF_A_DIGIT_US)
    assert np.quantile(samples, 0.5) == pytest.approx(p50_us, rel=0.03, abs=HALF_A_DIGIT_US)
    assert np.quantile(samples, 0.99) == pytest.approx(p99_us, rel=0.1, abs=HALF_A_DIGIT_US)

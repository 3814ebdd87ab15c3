"""Rings beyond replay: the printed anchors, a replay where one can be made, and what is refused."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.topology.latency.factories import (
    FloatArray,
    Steps,
    exponential,
    make_jitter,
    samples_of,
    schedule_of,
    uniform_costs,
)
from topology.errors import WorkloadError
from topology.fabric.link_figures import load_link_figures
from topology.latency.cost import Costs, RoundCost
from topology.latency.monte_carlo import Noise, noiseless_s
from topology.latency.noise import message_noise
from topology.latency.rare_detours import Detours, delay_from_detours
from topology.latency.scaling import LEAST_RANKS, Ring, RingTime, ring_from_costs, ring_time
from topology.words import Collective

IB = load_link_figures().route_class["ib_ndr_3hop"].jitter


def ring_of(noise: Noise, ranks: int, *, hop_s: float = 0.0, steps: int | None = None) -> Ring:
    """An all-reduce ring whose hops are all alike."""
    steps = 2 * (ranks - 1) if steps is None else steps
    return Ring(ranks, steps, np.full(1, hop_s), np.zeros(1, dtype=np.int64), [noise])


def two_class_ring(ranks: int, noises: Sequence[Noise]) -> Ring:
    """Nodes of 8: one hop of 3 us across, then seven of 0.8 us inside."""
    law_of = np.array([1, 0, 0, 0, 0, 0, 0, 0])
    return Ring(ranks, 2 * (ranks - 1), np.where(law_of == 1, 3e-6, 0.8e-6), law_of, noises)


def time_of(ring: Ring, seed: int = 1) -> RingTime:
    return ring_time(ring, np.random.default_rng(seed))


def log_normal(cv: float) -> Steps:
    """Mean 1 and this coefficient of variation."""
    sigma = math.sqrt(math.log(1 + cv**2))
    return Steps(
        lambda rng, shape: np.asarray(
            np.exp(sigma * rng.standard_normal(shape) - sigma**2 / 2), dtype=np.float64
        )
    )


def gamma(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Four exponential parts, mean 1."""
    return np.asarray(rng.standard_gamma(4, shape) / 4, dtype=np.float64)


# Anchors, with the tolerances printed beside them.


@pytest.mark.parametrize(
    ("ranks", "mean", "p50", "p99", "tolerance"),
    [
        (256, 2.024, 2.022, 2.076, 0.005),
        (1024, 2.013, 2.012, 2.031, 0.01),
    ],
)
def test_exponential_steps_complete_as_printed(
    ranks: int, mean: float, p50: float, p99: float, tolerance: float
) -> None:
    """Anchor B3: completion over steps is a maximum over the ring, not one Tracy-Widom value."""
    steps = 2 * (ranks - 1)
    time = time_of(ring_of(Steps(exponential), ranks))
    assert time.mean_s / steps == pytest.approx(mean, rel=0.005)
    assert time.quantile_s(0.5) / steps == pytest.approx(p50, rel=0.005)
    assert time.quantile_s(0.99) / steps == pytest.approx(p99, rel=tolerance)


def test_the_speed_and_the_spread_of_exponential_steps_are_those_of_the_limit_law() -> None:
    """Anchor B2: E[T_i] = 2 K - 1.520 K^(1/3), hence a speed of 2 and a unit of 2^(1/3) K^(1/3)."""
    time = time_of(ring_of(Steps(exponential), 1024))
    assert time.speed_s == pytest.approx(2.0, rel=0.005)
    assert time.centre_s == pytest.approx(2 * 2046, rel=0.005)
    assert time.scale_s == pytest.approx(2 ** (1 / 3) * 2046 ** (1 / 3), rel=0.2)


@pytest.mark.parametrize(
    ("noise", "printed"),
    [
        (Steps(gamma), 1.483),
        (log_normal(0.1), 1.091),
        (log_normal(0.5), 1.502),
        (log_normal(1.0), 2.084),
    ],
    ids=["gamma k=4", "cv 0.1", "cv 0.5", "cv 1"],
)
def test_general_steps_complete_as_printed(noise: Steps, printed: float) -> None:
    """Anchor B5, n = 256."""
    assert time_of(ring_of(noise, 256)).mean_s / 510 == pytest.approx(printed, rel=0.005)


@pytest.mark.parametrize(("q", "formula"), [(0.1, 0.4625), (0.01, 0.1111)])
def test_geometric_detours_slow_each_step_by_the_formula(q: float, formula: float) -> None:
    """Anchor B6: sqrt(q) / (1 - sqrt(q)) a step; replays miss it by up to 3 %."""
    noise = Steps(lambda rng, shape: rng.geometric(1 - q, shape).astype(np.float64) - 1)
    assert formula == pytest.approx(math.sqrt(q) / (1 - math.sqrt(q)), rel=1e-3)
    assert time_of(ring_of(noise, 512)).speed_s == pytest.approx(formula, rel=0.03)


@pytest.mark.parametrize(
    ("probability", "ranks", "replayed"),
    [(1e-3, 256, 17.2), (1e-3, 1024, 69.4), (1e-4, 1024, 21.9)],
)
def test_rare_detours_add_their_root_times_the_steps(
    probability: float, ranks: int, replayed: float
) -> None:
    """Anchor B7: sqrt(p) K is itself up to 7 % off the printed replay; ours are no farther."""
    steps = 2 * (ranks - 1)
    formula = math.sqrt(probability) * steps
    tolerance = abs(formula / replayed - 1)
    noise = message_noise(make_jitter(detour_probability=probability, detour_median_s=1.0))
    assert time_of(ring_of(noise, ranks)).mean_s == pytest.approx(replayed, rel=tolerance)
    detours = Detours(probability, np.ones(1))
    apart = delay_from_detours(detours, ranks, steps, np.random.default_rng(0))
    assert apart.mean_s == pytest.approx(replayed, rel=tolerance)


# Against the replay.


def replayed(ring: Ring, trials: int, seed: int = 5) -> FloatArray:
    """The ring through the replay of schedules, as its ground truth."""
    schedule = schedule_of("ring", ring.ranks)
    rounds = []
    for round_ in schedule.rounds:
        place = round_.destination % len(ring.message_s)
        none = np.zeros(round_.transfers)
        rounds.append(RoundCost(round_, ring.message_s[place], none, none, ring.law_of[place]))
    names = tuple(f"law {i}" for i in range(len(ring.noises)))
    return samples_of(
        Costs(schedule, 0.0, 0.0, tuple(rounds), names), *ring.noises, trials=trials, seed=seed
    )


FIVE_LAWS: list[tuple[str, Noise, float]] = [
    ("exponential", Steps(exponential), 0.0),
    ("gamma k=4", Steps(gamma), 0.0),
    ("log-normal cv 0.1", log_normal(0.1), 0.0),
    ("log-normal cv 0.5", log_normal(0.5), 0.0),
    ("dedicated ib_ndr_3hop", message_noise(IB), 3e-6),
]


def assert_within(time: RingTime, samples: FloatArray, tolerance: float) -> None:
    """p50 and p99 agree, but for 3 standard errors of the replay's own."""
    ordered = np.sort(samples)
    for q in (0.5, 0.99):
        reach = 3 * math.sqrt(q * (1 - q) * len(ordered))
        low = ordered[max(0, math.floor(q * len(ordered) - reach))]
        high = ordered[min(len(ordered) - 1, math.ceil(q * len(ordered) + reach))]
        assert low * (1 - tolerance) <= time.quantile_s(q) <= high * (1 + tolerance), q


@pytest.mark.slow
@pytest.mark.parametrize(
    "ranks",
    [pytest.param(n, marks=pytest.mark.proof) for n in (256, 512, 1024, 2048)],
)
@pytest.mark.parametrize(
    ("noise", "hop_s"), [row[1:] for row in FIVE_LAWS], ids=[row[0] for row in FIVE_LAWS]
)
def test_scaling_is_within_2_percent_of_a_replay(noise: Noise, hop_s: float, ranks: int) -> None:
    ring = ring_of(noise, ranks, hop_s=hop_s)
    assert_within(
        time_of(ring),
        replayed(ring, trials=(30_000_000 if ranks == 256 else 100_000_000) // ranks**2),
        0.02,
    )


def test_a_ring_over_nodes_of_two_kinds_of_hops_is_within_2_percent_of_a_replay() -> None:
    inside = make_jitter(body_median_s=20e-9, body_sigma=0.5)
    ring = two_class_ring(256, [message_noise(inside), message_noise(IB)])
    assert_within(time_of(ring), replayed(ring, trials=250), 0.02)


# What follows from the model.


def test_without_noise_it_is_the_closed_form_at_any_size() -> None:
    """K steps of the slowest hop."""
    quiet = message_noise(make_jitter())
    for ranks in (256, 4_096, 1_000_000):
        alike = time_of(ring_of(quiet, ranks, hop_s=3e-6))
        assert alike.quantile_s(0.99) == pytest.approx(2 * (ranks - 1) * 3e-6, rel=1e-9)
        mixed = time_of(two_class_ring(ranks, [quiet, quiet]))
        assert mixed.quantile_s(0.5) == pytest.approx(2 * (ranks - 1) * 3e-6, rel=1e-9)


def test_constants_scales_and_starts_pass_through() -> None:
    """Anchor B1: T(c X) = c T(X); a constant on every step adds K of it."""
    base = time_of(ring_of(Steps(exponential), 2_048))
    scaled = time_of(ring_of(Steps(lambda g, s: 3.0 * exponential(g, s)), 2_048))
    shifted = time_of(replace(ring_of(Steps(exponential), 2_048, hop_s=5.0), start_s=7.0))
    for q in (0.5, 0.99):
        assert scaled.quantile_s(q) == pytest.approx(3 * base.quantile_s(q))
        assert shifted.quantile_s(q) == pytest.approx(base.quantile_s(q) + 4_094 * 5 + 7)


@pytest.mark.parametrize("noise", [Steps(exponential), message_noise(IB)], ids=["exp", "ib"])
def test_percentiles_rise_with_their_level_and_with_the_ring(noise: Noise) -> None:
    levels = (0.5, 0.9, 0.99, 0.999, 0.9999)
    rows = [
        [time_of(ring_of(noise, n, hop_s=3e-6)).quantile_s(q) for q in levels]
        for n in (1_024, 16_384, 1_000_000)
    ]
    for row in rows:
        assert row == sorted(row)
    assert (np.diff(np.array(rows), axis=0) > 0).all()


def test_several_channels_are_later_than_one_but_hardly() -> None:
    one = ring_of(Steps(exponential), 1_024)
    alone, beside = time_of(one), time_of(replace(one, channels=8))
    assert alone.quantile_s(0.5) < beside.quantile_s(0.5) < 1.01 * alone.quantile_s(0.5)


def test_a_quantile_and_its_probability_are_inverse() -> None:
    rare = make_jitter(
        body_median_s=1e-6, body_sigma=0.3, detour_probability=1e-9, detour_median_s=5e-4
    )
    for noise in (message_noise(rare), message_noise(IB)):
        time = time_of(ring_of(noise, 100_000, hop_s=3e-6))
        for q in (0.1, 0.5, 0.99, 0.999):
            assert time.cdf(time.quantile_s(q)) == pytest.approx(q, abs=2e-3)


def test_detours_that_an_operation_hardly_meets_show_in_the_far_tail_alone() -> None:
    """Anchor A5: 1 - exp(-p 2 n (n - 1)) of operations meet one; here one in 100."""
    ranks, stall_s = 10_000, 5e-3
    probability = 0.01 / (2 * ranks * (ranks - 1))
    body = {"body_median_s": 1e-6, "body_sigma": 0.3}
    stalls = make_jitter(**body, detour_probability=probability, detour_median_s=stall_s)
    calm = time_of(ring_of(message_noise(make_jitter(**body)), ranks, hop_s=3e-6))
    noisy = time_of(ring_of(message_noise(stalls), ranks, hop_s=3e-6))
    assert noisy.rare is not None
    assert 1 - noisy.rare.never_probability == pytest.approx(0.01, rel=0.01)
    assert noisy.quantile_s(0.5) == pytest.approx(calm.quantile_s(0.5), rel=1e-3)
    assert noisy.quantile_s(0.999) == pytest.approx(calm.quantile_s(0.5) + stall_s, rel=0.01)


def test_same_generator_same_bytes() -> None:
    ring = ring_of(message_noise(IB), 50_000, hop_s=3e-6)
    values = [[time_of(ring, seed).quantile_s(q) for q in (0.5, 0.99)] for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


def test_the_interval_holds_the_percentile_and_covers_another_seed() -> None:
    ring = ring_of(Steps(exponential), 100_000)
    low, high = time_of(ring, 1).interval_s(0.5)
    assert low < time_of(ring, 1).quantile_s(0.5) < high
    others = [time_of(ring, seed).quantile_s(0.5) for seed in range(2, 8)]
    assert sum(low <= other <= high for other in others) >= 4


# From costs, and what is refused.


def test_the_ring_of_a_schedule_has_its_period_its_steps_and_its_start() -> None:
    schedule = schedule_of("ring", 64)
    rounds = []
    for round_ in schedule.rounds:
        across = (round_.destination % 8 == 0).astype(np.int64)
        none = np.zeros(round_.transfers)
        rounds.append(RoundCost(round_, 1e-6 + 2e-6 * across, none, none, across))
    ring = ring_from_costs(Costs(schedule, 4e-6, 1e-6, tuple(rounds), ("in", "out")), [])
    assert (ring.ranks, ring.steps, ring.channels) == (64, 126, 1)
    assert ring.start_s == pytest.approx(5e-6)
    assert sorted(ring.message_s.tolist()) == pytest.approx([1e-6] * 7 + [3e-6])
    assert len(ring.law_of) == 8


@pytest.mark.parametrize(
    ("collective", "steps"), [(Collective.ALL_REDUCE, 510), (Collective.ALL_GATHER, 255)]
)
def test_without_noise_it_is_what_the_replay_of_the_costs_takes(
    collective: Collective, steps: int
) -> None:
    schedule = schedule_of("ring", 256, collective)
    costs = uniform_costs(schedule, alpha_s=2e-6, launch_s=3e-6, size_bytes=1e6, bytes_per_s=1e9)
    ring = ring_from_costs(costs, [message_noise(make_jitter())])
    assert ring.steps == steps
    assert time_of(ring).quantile_s(0.5) == pytest.approx(noiseless_s(costs), rel=1e-9)


Change = Callable[[Ring], Ring]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: replace(r, ranks=255, steps=508), f"255 ranks; .* from {LEAST_RANKS} on"),
        (lambda r: replace(r, steps=100), "100 steps on 4096 ranks"),
        (
            lambda r: replace(r, message_s=np.ones(3), law_of=np.zeros(3, dtype=np.int64)),
            "period of 3 hops does not divide 4096",
        ),
        (
            lambda r: replace(r, message_s=np.ones(2_048), law_of=np.zeros(2_048, dtype=np.int64)),
            "repeat only every 2048 ranks",
        ),
    ],
)
def test_a_ring_outside_the_range_is_refused_with_its_reason(change: Change, reason: str) -> None:
    with pytest.raises(WorkloadError, match=reason) as caught:
        time_of(change(ring_of(Steps(exponential), 4_096)))
    assert "monte_carlo" in str(caught.value)


def test_a_tail_without_a_cap_never_settles_and_is_refused() -> None:
    """Anchor B9: Pareto with alpha 0.7 grows as (2 n^2)^(1/alpha), not as its steps."""
    heavy = Steps(lambda rng, shape: rng.pareto(0.7, shape))
    with pytest.raises(WorkloadError, match="standard error"):
        time_of(ring_of(heavy, 100_000))


def test_a_schedule_that_is_no_ring_is_refused() -> None:
    costs = uniform_costs(schedule_of("tree", 64), alpha_s=1e-6)
    with pytest.raises(WorkloadError, match="tree is no ring"):
        ring_from_costs(costs, [message_noise(make_jitter())])

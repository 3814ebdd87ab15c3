"""Steps against what is known of sums and maxima, and against ``simulate`` of a collective."""

import math
from statistics import NormalDist
from typing import Any

import pytest

from tests.topology.steps.factories import all_reduce, compute, h100, run, step_of
from topology.collective.placement import pack
from topology.errors import ScheduleError, WorkloadError
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.latency.summary import PERCENTILES
from topology.steps.summary import NO_CONTENTION
from topology.words import Collective, NoiseName

MS = 1e-3


def sigma_of(spread: float) -> float:
    return math.sqrt(math.log1p(spread**2))


def quantile_of_greatest(q: float, n: int, *, mean_s: float, spread: float) -> float:
    """Quantile of the greatest of n log-normal times, by F^n."""
    sigma = sigma_of(spread)
    return mean_s * math.exp(sigma * NormalDist().inv_cdf(q ** (1 / n)) - sigma**2 / 2)


def time_of_all_reduce(size_bytes: int, gpus: int = 8) -> float:
    scenario = Scenario(Collective.ALL_REDUCE, size_bytes, noise=NoiseName.NONE)
    fabric = h100(max(1, gpus // 8))
    return simulate(fabric, pack(fabric, gpus), scenario).noiseless_s


# Without anything random.


def test_constants_in_a_row_sum_to_the_last_bit() -> None:
    summary = run(
        step_of(compute("a", 0.1), compute("b", 0.2), compute("c", 0.3), compute("d", 0.7))
    )
    assert summary.noiseless_s == 0.1 + 0.2 + 0.3 + 0.7
    assert summary.percentiles == dict.fromkeys(PERCENTILES, summary.noiseless_s)
    assert summary.mean_s == summary.noiseless_s
    assert (summary.interval, summary.trials, summary.seed) == (None, None, None)


def test_a_layer_repeated_sums_to_the_last_bit() -> None:
    layer = {"name": "layer", "repeat": 5, "parts": [compute("a", "3ms"), all_reduce("s", 65_536)]}
    total, one_s = 0.0, time_of_all_reduce(65_536)
    for _ in range(5):
        total = (total + 3 * MS) + one_s
    assert run(step_of(layer)).noiseless_s == total


def test_two_branches_take_as_long_as_the_longer() -> None:
    def branches(a_s: float, b_s: float) -> float:
        parts = compute("a", a_s), compute("b", b_s, after=[], stream="other")
        return run(step_of(*parts)).noiseless_s

    assert branches(3 * MS, 5 * MS) == branches(5 * MS, 3 * MS) == 5 * MS


def test_who_waits_for_both_branches_begins_after_the_longer() -> None:
    parts = compute("a", 3 * MS), compute("b", 5 * MS, after=[], stream="other")
    joined = step_of(*parts, compute("c", 2 * MS, after=["a", "b"]))
    assert run(joined).noiseless_s == 5 * MS + 2 * MS


def test_parts_of_one_stream_never_overlap() -> None:
    summary = run(step_of(compute("a", 3 * MS), compute("b", 5 * MS, after=[])))
    assert summary.noiseless_s == 3 * MS + 5 * MS
    assert summary.not_modelled == ()


def test_collectives_overlap_each_other_only_on_streams_of_their_own() -> None:
    one_s = time_of_all_reduce(2**20)
    serial = run(step_of(all_reduce("a", 2**20), all_reduce("b", 2**20, after=[])))
    apart = run(step_of(all_reduce("a", 2**20), all_reduce("b", 2**20, after=[], stream="x")))
    assert serial.noiseless_s == one_s + one_s
    assert apart.noiseless_s == one_s
    assert NO_CONTENTION in apart.not_modelled


def test_an_overlapped_collective_is_hidden_behind_what_follows() -> None:
    one_s = time_of_all_reduce(2**20)
    hidden = run(step_of(all_reduce("a", 2**20, overlap=True), compute("b", 5 * MS)))
    assert hidden.noiseless_s == 5 * MS > one_s
    assert hidden.exposed_s("p50_s") == 0
    assert hidden.exposed_ratio("p50_s") == 0
    assert hidden.communication_s("p50_s") == pytest.approx(one_s)


def test_what_sticks_out_behind_compute_is_exposed_and_no_more() -> None:
    one_s = time_of_all_reduce(2**30)
    assert one_s > 1 * MS
    part = run(step_of(all_reduce("a", 2**30, overlap=True), compute("b", 1 * MS)))
    assert part.noiseless_s == one_s
    assert part.exposed_s("p50_s") == pytest.approx(one_s - 1 * MS)
    assert part.exposed_ratio("p50_s") == pytest.approx(1 - 1 * MS / one_s)


def test_without_overlap_all_communication_is_exposed() -> None:
    summary = run(
        step_of(compute("a", "3ms"), all_reduce("s"), compute("b", "1ms"), all_reduce("t"))
    )
    assert summary.exposed_ratio("p50_s") == pytest.approx(1)


def test_a_step_without_collectives_has_none_to_expose() -> None:
    assert run(step_of(compute("a", "3ms"))).exposed_ratio("p50_s") is None


def test_prefetched_weights_are_awaited_by_their_own_block_only() -> None:
    one_s = time_of_all_reduce(2**30)
    gather = all_reduce("gather", 2**30, after=[], overlap=True)
    block = {
        "name": "block",
        "repeat": 3,
        "parts": [gather, compute("use", 2 * one_s, also_after=["gather"])],
    }
    assert run(step_of(block)).noiseless_s == pytest.approx(one_s + 3 * 2 * one_s)


# Spread of compute.


def test_the_slowest_of_eight_ranks_follows_the_power_law_of_maxima() -> None:
    summary = run(step_of(compute("a", 1 * MS, 0.3)), trials=100_000)
    for name, q in (("p50_s", 0.5), ("p99_s", 0.99)):
        assert summary.interval is not None
        low, high = summary.interval[name]
        assert high is not None
        value = quantile_of_greatest(q, 8, mean_s=1 * MS, spread=0.3)
        slack = 0.5 * (high - low)
        assert low - slack < value < high + slack


def test_anchor_of_eight_log_normal_times_of_sigma_0_3() -> None:
    spread = math.sqrt(math.expm1(0.3**2))
    summary = run(step_of(compute("a", 1 * MS, spread)), trials=100_000)
    median_s = 1 * MS * math.exp(-(0.3**2) / 2)
    p99_s = summary.percentiles["p99_s"]
    assert p99_s is not None
    assert p99_s / median_s == pytest.approx(2.48, rel=0.01)


def test_a_rank_alone_has_the_mean_and_the_spread_that_it_was_given() -> None:
    summary = run(step_of(compute("a", 1 * MS, 0.2), gpus=1), trials=100_000)
    assert summary.mean_s == pytest.approx(1 * MS, rel=4 * 0.2 / math.sqrt(1e5))
    p50_s, p90_s = summary.percentiles["p50_s"], summary.percentiles["p90_s"]
    assert p50_s is not None
    assert p90_s is not None
    told = math.log(p90_s / p50_s) / NormalDist().inv_cdf(0.9)
    assert told == pytest.approx(sigma_of(0.2), rel=0.02)


def test_repeats_have_k_times_the_mean_and_k_times_the_variance() -> None:
    k, spread = 16, 0.1
    one = run(step_of(compute("a", 1 * MS, spread), gpus=1), trials=40_000)
    many = run(step_of(compute("a", 1 * MS, spread, repeat=k), gpus=1), trials=40_000)
    assert many.mean_s == pytest.approx(k * one.mean_s, rel=5 * spread / math.sqrt(40_000))
    widths = [_width(summary) for summary in (one, many)]
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(k), rel=0.05)


def test_a_common_factor_makes_no_rank_wait_for_another() -> None:
    step = step_of(compute("a", 1 * MS), gpus=8, common_spread_ratio=0.1)
    summary = run(step, trials=40_000)
    assert summary.mean_s == pytest.approx(1 * MS, rel=5 * 0.1 / math.sqrt(40_000))


def test_a_rank_that_is_slow_is_so_in_every_repetition() -> None:
    """A factor a rank and step does not average out over layers; single times do."""
    one, many = (
        run(step_of(compute("a", 1 * MS, repeat=k), rank_spread_ratio=0.1), trials=20_000)
        for k in (1, 10)
    )
    assert many.mean_s == pytest.approx(10 * one.mean_s)
    p50_s = one.percentiles["p50_s"]
    assert p50_s == pytest.approx(quantile_of_greatest(0.5, 8, mean_s=1 * MS, spread=0.1), rel=0.01)


def test_ranks_that_meet_after_each_layer_wait_more_than_ranks_that_meet_once() -> None:
    """The sum of maxima against the maximum of sums: 8 layers of 8 ranks."""
    layer = [compute("a", 1 * MS, 0.1), all_reduce("s", 8)]
    meeting = run(step_of({"name": "layer", "repeat": 8, "parts": layer}), trials=20_000)
    once = run(step_of(compute("a", 1 * MS, 0.1, repeat=8), all_reduce("s", 8)), trials=20_000)
    wait_s = meeting.noiseless_s - once.noiseless_s
    assert meeting.mean_s - wait_s > 1.05 * once.mean_s


def test_ranks_of_other_groups_do_not_wait_for_each_other_until_they_meet() -> None:
    groups = [{"name": "half", "size": 4}]
    layer = [compute("a", 1 * MS, 0.1), all_reduce("s", 8, group="half")]
    halves = step_of({"name": "layer", "repeat": 8, "parts": layer}, groups=groups)
    whole = step_of({"name": "layer", "repeat": 8, "parts": [layer[0], all_reduce("s", 8)]})
    compute_s = [run(s, trials=20_000).bare_at["p50_s"] for s in (halves, whole)]
    assert compute_s[0] < 0.99 * compute_s[1]


def _width(summary: Any) -> float:
    return float(summary.percentiles["p90_s"] - summary.percentiles["p50_s"])


# Collectives with noise.


@pytest.mark.parametrize("seed", [0, 7])
def test_a_step_of_one_collective_is_that_collective(seed: int) -> None:
    fabric = h100(2)
    scenario = Scenario(Collective.ALL_REDUCE, 65_536, trials=500, seed=seed)
    alone = simulate(fabric, pack(fabric, 16), scenario)
    step = run(
        step_of(all_reduce("s", 65_536), gpus=16), noise=NoiseName.DEDICATED, trials=500, seed=seed
    )
    assert step.percentiles == alone.percentiles
    assert step.interval == alone.interval
    assert (step.mean_s, step.noiseless_s) == (alone.mean_s, alone.noiseless_s)


def test_repeated_collectives_are_drawn_anew_each_time() -> None:
    k = 25
    steps = [step_of(all_reduce("s", 65_536, repeat=n)) for n in (1, k)]
    one, many = (run(s, noise=NoiseName.DEDICATED, trials=4_000, seed=3) for s in steps)
    assert many.mean_s == pytest.approx(k * one.mean_s, rel=0.005)
    assert _width(many) < 0.6 * k * _width(one)


OVERLAPS: dict[str, Any] = {
    "one hidden": [compute("a", "1ms", 0.05), all_reduce("s", "64MiB"), compute("b", "1ms", 0.05)],
    "several": [
        compute("a", "200us", 0.1),
        all_reduce("s", "16MiB"),
        compute("b", "300us", 0.1),
        all_reduce("t", "16MiB"),
        compute("c", "100us", 0.1),
    ],
}


@pytest.mark.parametrize("name", OVERLAPS)
def test_overlap_is_never_slower_with_the_same_draws(name: str) -> None:
    parts = OVERLAPS[name]
    overlapped = [{**part, "overlap": True} if "collective" in part else part for part in parts]
    more = {"noise": NoiseName.SHARED, "trials": 1_000, "seed": 5}
    serial, free = (run(step_of(*rows), **more) for rows in (parts, overlapped))
    assert free.mean_s < serial.mean_s
    for key, value in serial.percentiles.items():
        faster = free.percentiles[key]
        assert (value is None and faster is None) or (faster or 0) <= (value or 0)
    assert (free.exposed_ratio("p50_s") or 0) < (serial.exposed_ratio("p50_s") or 0)


def test_parts_on_the_path_sum_to_the_step() -> None:
    groups = [{"name": "tensor", "size": 8}, {"name": "data", "size": 2}]
    step = step_of(
        compute("a", "300us", 0.1),
        all_reduce("s", group="tensor", repeat=3),
        all_reduce("g", "4MiB", group="data", overlap=True, stream="data"),
        compute("b", "100us", 0.2),
        gpus=16,
        groups=groups,
        rank_spread_ratio=0.02,
    )
    summary = run(step, noise=NoiseName.CONTENDED, trials=1_000)
    for name, step_s in summary.step_at.items():
        assert sum(part.at[name] for part in summary.parts) == pytest.approx(step_s)
        assert 0 <= summary.exposed_s(name) <= summary.communication_s(name) * (1 + 1e-9)
    assert sum(part.noiseless_s for part in summary.parts) == pytest.approx(summary.noiseless_s)


def test_more_noise_never_makes_a_step_faster() -> None:
    step = step_of(compute("a", "1ms", 0.01), all_reduce("s", repeat=8), gpus=8)
    means = [run(step, noise=noise, trials=1_000).mean_s for noise in NoiseName]
    assert means == sorted(means)


def test_the_same_seed_gives_the_same_step_and_another_another() -> None:
    step = step_of(compute("a", "1ms", 0.1), all_reduce("s"))
    first, again, other = (
        run(step, noise=NoiseName.DEDICATED, trials=400, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.mean_s != other.mean_s


def test_few_trials_tell_no_p99_and_nothing_of_it() -> None:
    summary = run(step_of(compute("a", "1ms", 0.1)), trials=100)
    assert summary.percentiles["p99_s"] is None
    assert set(summary.step_at) == {"p50_s"}
    assert summary.slowdown_ratio("p99_s") is None
    assert summary.slowdown_ratio("p50_s") == pytest.approx(
        quantile_of_greatest(0.5, 8, mean_s=1.0, spread=0.1), rel=0.03
    )


# Refusals.


def test_a_collective_that_cannot_be_names_its_part() -> None:
    with pytest.raises(ScheduleError, match=r"^part s: ") as told:
        run(step_of(all_reduce("s", algorithm="pat")))
    assert "--" not in str(told.value)


def test_other_ranks_placed_than_asked_are_refused() -> None:
    from topology.steps.simulate import simulate_step

    fabric = h100(1)
    with pytest.raises(WorkloadError, match=r"^s: gpus: 8 asked, 4 placed; make them agree"):
        simulate_step(step_of(compute("a", "1ms")), fabric, pack(fabric, 4))


def test_no_trials_are_refused() -> None:
    with pytest.raises(WorkloadError, match="--trials: 0; give at least one"):
        run(step_of(compute("a", "1ms", 0.1)), trials=0)

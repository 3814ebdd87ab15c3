"""Simulations as a whole: which way is taken, what the summary says of it, what is refused."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.latency.factories import fabric_of, schedule_of
from topology.collective.placement import Placement, pack, spread
from topology.collective.schedule import Schedule
from topology.errors import ScheduleError, UnreachableError, WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.latency.replay import LEAST_TRIALS, MOST_TRIALS, default_trials, long_run_text
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate, simulate_samples
from topology.latency.summary import LatencySummary, order_statistics
from topology.words import (
    AlgorithmName,
    Collective,
    Launch,
    NoiseName,
    Protocol,
    StackName,
)

MIB = 2**20
CALM = Scenario(Collective.ALL_REDUCE, 8, noise=NoiseName.NONE)
NOISY = Scenario(Collective.ALL_REDUCE, 8, trials=2_000)


def h100(nodes: int = 2) -> Fabric:
    return fabric_of(f"dgx-h100 node:{nodes}")


def run(scenario: Scenario, gpus: int = 16, fabric: Fabric | None = None) -> LatencySummary:
    fabric = fabric or h100()
    return simulate(fabric, pack(fabric, gpus), scenario)


# What the summary says.


def test_without_noise_every_percentile_is_the_one_time() -> None:
    calm = run(CALM)
    assert set(calm.percentiles.values()) == {calm.noiseless_s, calm.mean_s} == {calm.noiseless_s}
    assert calm.interval is None
    assert calm.trials is None
    assert calm.seed is None
    assert calm.method == "exact"


@pytest.mark.parametrize("collective", Collective)
@pytest.mark.parametrize("stack", [StackName.WIRE, StackName.NCCL])
@pytest.mark.parametrize("size_bytes", [8, 3 * MIB])
def test_breakdown_adds_up_to_the_percentile(
    collective: Collective, stack: StackName, size_bytes: int
) -> None:
    scenario = Scenario(collective, size_bytes, stack=stack, trials=400)
    for launch in (Launch.PROCESS, Launch.THREAD):
        noisy = run(replace(scenario, launch=launch), gpus=12)
        for name in ("p50", "p99"):
            if name in noisy.breakdown:
                told = noisy.percentiles[f"{name}_s"]
                assert noisy.breakdown[name].total_s == pytest.approx(told, rel=1e-9)
    calm = run(replace(scenario, noise=NoiseName.NONE), gpus=12)
    assert calm.breakdown["p50"].total_s == pytest.approx(calm.noiseless_s, rel=1e-9)
    assert noisy.breakdown["p50"].noise_s == pytest.approx(
        noisy.breakdown["p50"].total_s - noisy.noiseless_s, rel=1e-6, abs=1e-15
    )


def test_percentiles_ascend_and_only_those_the_trials_carry_are_told() -> None:
    noisy = run(replace(NOISY, trials=1_000))
    told = [noisy.percentiles[name] for name in ("p50_s", "p90_s", "p99_s")]
    assert told == sorted(told, key=lambda value: value or 0)
    assert noisy.percentiles["p999_s"] is None
    assert noisy.percentiles["p9999_s"] is None
    assert "p99" in noisy.breakdown
    few = run(replace(NOISY, trials=100))
    assert few.percentiles["p99_s"] is None
    assert "p99" not in few.breakdown


@pytest.mark.parametrize(
    ("collective", "factor"),
    [
        (Collective.ALL_REDUCE, 2 * 15 / 16),
        (Collective.ALL_GATHER, 15 / 16),
        (Collective.REDUCE_SCATTER, 15 / 16),
        (Collective.ALLTOALL, 15 / 16),
        (Collective.BROADCAST, 1.0),
    ],
)
def test_bandwidths_are_those_of_nccl_tests(collective: Collective, factor: float) -> None:
    for noise in (NoiseName.NONE, NoiseName.DEDICATED):
        summary = run(Scenario(collective, MIB, noise=noise, trials=500))
        p50 = summary.percentiles["p50_s"]
        assert p50 is not None
        assert summary.algbw_bytes_per_s == pytest.approx(MIB / p50)
        assert summary.busbw_bytes_per_s == pytest.approx(factor * MIB / p50)


def test_ranks_nodes_and_domains_are_counted() -> None:
    summary = run(CALM, gpus=12)
    assert (summary.ranks, summary.nodes, summary.domains) == (12, 2, 2)
    racks = fabric_of("gb200-nvl72 rack:2")
    inside = simulate(racks, pack(racks, 64), CALM)
    assert (inside.ranks, inside.nodes, inside.domains) == (64, 16, 1)
    across = simulate(racks, spread(racks, 36), CALM)
    assert (across.nodes, across.domains) == (36, 2)


def test_launch_is_told_only_where_something_is_launched() -> None:
    assert run(CALM).launch == "process"
    wire = run(replace(CALM, stack=StackName.WIRE))
    assert wire.launch is None
    assert wire.protocol is None
    assert wire.breakdown["p50"].launch_s == wire.breakdown["p50"].software_s == 0


@pytest.mark.parametrize("collective", Collective)
def test_one_rank_alone_has_nothing_to_send(collective: Collective) -> None:
    alone = run(Scenario(collective, MIB), gpus=1)
    assert alone.method == "exact"
    assert alone.breakdown["p50"].wire_s == alone.breakdown["p50"].bandwidth_s == 0
    assert alone.noiseless_s == pytest.approx(alone.breakdown["p50"].total_s)


# Which way is taken.


@pytest.mark.parametrize("size_bytes", [8, MIB, 2**30])
@pytest.mark.parametrize("gpus", [8, 16])
def test_auto_takes_what_is_fastest_by_nccls_own_model(size_bytes: int, gpus: int) -> None:
    tuner = replace(CALM, size_bytes=size_bytes, stack=StackName.NCCL_TUNER)
    auto = run(tuner, gpus=gpus)
    ours = run(replace(tuner, stack=StackName.NCCL), gpus=gpus)
    assert (ours.algorithm, ours.protocol) == (auto.algorithm, auto.protocol)
    named = []
    in_switch = (AlgorithmName.NVLS, AlgorithmName.NVLS_TREE)
    for algorithm in (AlgorithmName.RING, AlgorithmName.DOUBLE_BINARY_TREE, *in_switch):
        for protocol in Protocol:
            scenario = replace(tuner, algorithm=algorithm, protocol=protocol)
            try:
                named.append(run(scenario, gpus=gpus).noiseless_s)
            except ScheduleError:
                assert algorithm in in_switch
    assert auto.noiseless_s == pytest.approx(min(named), rel=1e-3)


def test_ways_not_taken_carry_their_true_time_or_say_that_it_is_a_bound() -> None:
    for size_bytes in (8, MIB, 2**30):
        auto = run(replace(CALM, size_bytes=size_bytes))
        assert auto.considered[0].name == f"{auto.algorithm}, {auto.protocol}"
        others = [way.noiseless_s for way in auto.considered[1:]]
        assert others == sorted(others)
        for way in auto.considered:
            algorithm, protocol = way.name.split(", ")
            scenario = replace(
                CALM,
                size_bytes=size_bytes,
                algorithm=AlgorithmName(algorithm),
                protocol=Protocol(protocol),
            )
            true_s = run(scenario).noiseless_s
            assert not way.is_bound
            assert way.noiseless_s == pytest.approx(true_s, rel=1e-9)


def test_ways_that_cannot_win_on_the_wire_are_bounded_not_replayed() -> None:
    auto = run(replace(CALM, size_bytes=2**30, stack=StackName.WIRE))
    bounded = [way for way in auto.considered if way.is_bound]
    assert bounded
    for way in bounded:
        name = AlgorithmName(way.name.split(", ")[0])
        true_s = run(replace(CALM, size_bytes=2**30, stack=StackName.WIRE, algorithm=name))
        assert auto.noiseless_s < way.noiseless_s <= true_s.noiseless_s * (1 + 1e-9)


def test_nccl_does_not_choose_what_nccl_lacks() -> None:
    auto = run(replace(CALM, stack=StackName.NCCL))
    names = {way.name.split(",")[0] for way in auto.considered}
    assert names <= {"ring", "double_binary_tree", "nvls", "nvls_tree", "pairwise"}
    wire = run(replace(CALM, stack=StackName.WIRE))
    assert {way.name.split(",")[0] for way in wire.considered} > names


def test_h100_switches_from_ring_to_the_switch_between_one_and_two_mebibytes() -> None:
    """As measured on 8 H100: Ring/LL to 1 MiB, NVLS/Simple from 2 MiB."""
    below, above = (run(replace(CALM, size_bytes=n * MIB), gpus=8) for n in (1, 2))
    assert (below.algorithm, below.protocol) == ("ring", "ll")
    assert (above.algorithm, above.protocol) == ("nvls", "simple")


def test_ranks_without_nvidia_gpus_run_on_the_bare_wire() -> None:
    beowulf = fabric_of("beowulf-2006 node:8")
    assert simulate(beowulf, pack(beowulf, 8), CALM).stack == "wire"
    with pytest.raises(WorkloadError, match=r"--stack nccl: .* use --stack wire"):
        simulate(beowulf, pack(beowulf, 8), replace(CALM, stack=StackName.NCCL))


# More of anything is never faster.


@settings(max_examples=15, deadline=None)
@given(
    size_bytes=st.integers(1, 2**28),
    gpus=st.integers(2, 16),
    collective=st.sampled_from(list(Collective)),
)
def test_more_bytes_are_never_faster_on_the_wire(
    size_bytes: int, gpus: int, collective: Collective
) -> None:
    scenario = Scenario(collective, size_bytes, stack=StackName.WIRE, noise=NoiseName.NONE)
    here, more = (
        run(replace(scenario, size_bytes=n), gpus=gpus) for n in (size_bytes, 2 * size_bytes)
    )
    assert more.noiseless_s >= here.noiseless_s * (1 - 2e-3)


@settings(max_examples=15, deadline=None)
@given(
    size_bytes=st.integers(1, 2**15),
    gpus=st.integers(2, 8),
    collective=st.sampled_from(list(Collective)),
)
def test_small_operations_are_never_faster_than_the_wire(
    size_bytes: int, gpus: int, collective: Collective
) -> None:
    scenario = Scenario(collective, size_bytes, stack=StackName.NCCL, noise=NoiseName.NONE)
    wire = run(replace(scenario, stack=StackName.WIRE), gpus=gpus)
    assert wire.noiseless_s <= run(scenario, gpus=gpus).noiseless_s * (1 + 2e-3)


@pytest.mark.parametrize("algorithm", [AlgorithmName.RING, AlgorithmName.TREE])
def test_noisier_profiles_raise_every_percentile(algorithm: AlgorithmName) -> None:
    scenario = replace(NOISY, algorithm=algorithm, stack=StackName.WIRE, trials=4_000)
    order = (NoiseName.NONE, NoiseName.DEDICATED, NoiseName.SHARED, NoiseName.CONTENDED)
    summaries = [run(replace(scenario, noise=noise)) for noise in order]
    for name in ("p90_s", "p99_s"):
        values = [summary.percentiles[name] for summary in summaries]
        assert values == sorted(values, key=lambda value: value or 0)
    assert summaries[0].noiseless_s == summaries[3].noiseless_s


def test_leaving_the_nvlink_domain_costs_more_at_the_tail_than_at_the_median() -> None:
    """Reference 8.5: 64 GPUs in one NVL72 domain against 64 over 3-hop NDR, ring to ring."""
    racks, nodes = fabric_of("gb200-nvl72 rack:1"), fabric_of("dgx-h100 node:8")
    scenario = Scenario(Collective.ALL_REDUCE, 8, stack=StackName.WIRE, trials=3_000)
    inside, across = (simulate(fabric, pack(fabric, 64), scenario) for fabric in (racks, nodes))
    assert inside.tail_ratio < across.tail_ratio
    for name in ("p50_s", "p99_s"):
        assert (inside.percentiles[name] or 0) < (across.percentiles[name] or 0)


# Draws.


def test_same_seed_same_summary_and_another_seed_another() -> None:
    assert run(NOISY) == run(NOISY)
    assert run(NOISY).percentiles != run(replace(NOISY, seed=1)).percentiles


def test_samples_are_the_ones_behind_the_percentiles() -> None:
    fabric = h100()
    summary, samples = simulate_samples(fabric, pack(fabric, 16), NOISY)
    assert samples.shape == (2_000,)
    assert summary.mean_s == pytest.approx(samples.mean())
    assert summary.trials == 2_000
    assert summary.interval is not None
    for name, (low, high) in summary.interval.items():
        assert low in samples, name
        assert high is None or high in samples, name


@pytest.mark.parametrize(
    ("ranks", "trials"),
    [(1, 10_000), (8, 10_000), (100, 9_090), (144, 4_370), (160, 1_000), (2_000, 368)],
)
def test_trials_by_default_fall_with_the_messages(ranks: int, trials: int) -> None:
    """180 million messages, 10,000 trials to 368, 1,000 without a p99.9; a ring has 2 n (n - 1)."""
    assert default_trials(schedule_of("ring", ranks)) == trials
    assert LEAST_TRIALS <= trials <= MOST_TRIALS


@given(st.integers(1, 10_000))
def test_trials_by_default_always_carry_a_p99(ranks: int) -> None:
    trials = default_trials(replace_repeats(schedule_of("ring", 2), ranks**2))
    assert order_statistics(trials, 0.99)[1] is not None


def replace_repeats(schedule: Schedule, repeats: int) -> Schedule:
    return replace(schedule, rounds=tuple(replace(r, repeats=repeats) for r in schedule.rounds))


def test_a_long_run_says_so_once_and_what_would_be_faster() -> None:
    ring = schedule_of("ring", 2_000)
    assert long_run_text(ring, 10) is None
    assert long_run_text(ring, 368) == ("about 147 s; --trials 50 is faster, but tells no p99")
    assert long_run_text(schedule_of("ring", 500), 10_000) == "about 250 s; --trials 801 is faster"


def test_a_short_run_says_nothing_and_a_long_one_before_its_first_trial() -> None:
    fabric = h100()
    told: list[str] = []
    simulate(fabric, pack(fabric, 16), NOISY, notice=told.append)
    assert told == []

    def stop(text: str) -> None:
        raise InterruptedError(text)

    endless = replace(NOISY, trials=10**9)
    with pytest.raises(InterruptedError, match=r"about \d+ s; --trials \d+ is faster"):
        simulate(fabric, pack(fabric, 16), endless, notice=stop)


# Refusals.


def test_size_below_one_byte_is_refused() -> None:
    with pytest.raises(WorkloadError, match=r"--size: 0 bytes; give at least one byte"):
        run(replace(CALM, size_bytes=0))


def test_trials_below_one_are_refused() -> None:
    with pytest.raises(WorkloadError, match=r"--trials: 0"):
        run(replace(NOISY, trials=0))


def test_algorithm_that_does_not_do_the_collective_is_refused_and_others_are_named() -> None:
    scenario = Scenario(Collective.ALLTOALL, 8, algorithm=AlgorithmName.RING)
    with pytest.raises(ScheduleError, match=r"ring does no alltoall; use .*pairwise"):
        run(scenario)


def test_in_switch_over_two_domains_is_refused() -> None:
    with pytest.raises(ScheduleError, match=r"2 NVLink domains, nvls needs one; use ring"):
        run(replace(CALM, algorithm=AlgorithmName.NVLS))


def test_in_switch_before_nvlink_4_is_refused() -> None:
    with pytest.raises(ScheduleError, match=r"no NVSwitch here reduces in the switch"):
        run(
            replace(CALM, algorithm=AlgorithmName.NVLS), gpus=8, fabric=fabric_of("dgx-a100 node:1")
        )


def test_protocol_that_does_not_run_in_the_switch_is_refused() -> None:
    scenario = replace(CALM, algorithm=AlgorithmName.NVLS, protocol=Protocol.LL)
    with pytest.raises(ScheduleError, match=r"--protocol: nvls .*; use --protocol simple"):
        run(scenario, gpus=8)


def test_protocol_on_the_bare_wire_is_refused_not_ignored() -> None:
    scenario = replace(CALM, stack=StackName.WIRE, protocol=Protocol.LL)
    with pytest.raises(WorkloadError, match=r"--protocol ll: the wire stack has no protocols"):
        run(scenario)


def test_ranks_that_no_link_joins_are_refused() -> None:
    fleet = h100().fleet.model_copy(update={"cables": ()})
    with pytest.raises(UnreachableError, match="no_cable"):
        run(CALM, fabric=Fabric(fleet))


def test_ranks_of_one_node_need_no_network() -> None:
    fleet = h100().fleet.model_copy(update={"cables": (), "switches": ()})
    assert run(CALM, gpus=8, fabric=Fabric(fleet)) == run(CALM, gpus=8)


def test_no_ranks_at_all_are_refused() -> None:
    fabric = h100()
    with pytest.raises(WorkloadError, match="--gpus: 0 ranks"):
        pack(fabric, 0)
    with pytest.raises(WorkloadError, match="17 ranks asked of 16; ask for 16 or fewer"):
        pack(fabric, 17)


def test_any_order_of_the_same_gpus_is_a_placement() -> None:
    fabric = h100()
    backwards = Placement(fabric.endpoints[::-1])
    assert simulate(fabric, backwards, CALM).noiseless_s == pytest.approx(run(CALM).noiseless_s)


def test_collnet_needs_to_be_told_of_sharp_and_is_called_unmeasured() -> None:
    """Source: NCCL's own CollNet chain, 2 (g - 1) 2.8 us inside and 30 us across."""
    scenario = replace(CALM, algorithm=AlgorithmName.COLLNET, stack=StackName.NCCL_TUNER)
    with pytest.raises(ScheduleError, match="no SHARP known here"):
        run(scenario)
    told = run(replace(scenario, sharp=True, size_bytes=1))
    assert told.noiseless_s == pytest.approx((2 * 7 * 2.8 + 30) * 1e-6, rel=1e-3)
    ours = run(replace(scenario, sharp=True, stack=StackName.NCCL))
    assert ours.extrapolated == "no measurement of collnet"

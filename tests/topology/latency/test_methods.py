"""Methods: replay, certified algebra and the law of growth agree where two apply, else say why."""

import re
from dataclasses import replace
from typing import Any

import pytest

from tests.topology.latency.factories import fabric_of
from topology.collective.placement import pack
from topology.errors import ScheduleError, WorkloadError
from topology.latency.report import summary_document, summary_lines
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.latency.summary import PERCENTILES, LatencySummary
from topology.words import AlgorithmName, Collective, MethodName, NoiseName, StackName

SMALL = Scenario(Collective.ALL_REDUCE, 128, method=MethodName.EXACT)
LONG_RING = Scenario(
    Collective.ALL_REDUCE,
    2**20,
    algorithm=AlgorithmName.RING,
    stack=StackName.WIRE,
    method=MethodName.SCALING,
)


def run(scenario: Scenario, spec: str = "dgx-h100 node:2", gpus: int = 16) -> LatencySummary:
    fabric = fabric_of(spec)
    return simulate(fabric, pack(fabric, gpus), scenario)


@pytest.mark.parametrize("noise", [NoiseName.DEDICATED, NoiseName.CONTENDED])
def test_the_certified_bracket_overlaps_the_replays_interval(noise: NoiseName) -> None:
    exact = run(replace(SMALL, noise=noise))
    replay = run(replace(SMALL, noise=noise, method=MethodName.MONTE_CARLO, trials=20_000))
    assert exact.method == "exact"
    assert exact.bracket is not None
    assert replay.interval is not None
    for name in ("p50_s", "p90_s", "p99_s", "p999_s"):
        low, high = exact.bracket[name]
        from_s, to_s = replay.interval[name]
        assert high is not None
        assert to_s is not None
        assert low <= to_s * (1 + 1e-4), name
        assert from_s <= high * (1 + 1e-4), name


def test_exact_needs_no_trials_and_says_so() -> None:
    exact = run(SMALL)
    assert (exact.trials, exact.seed, exact.interval) == (None, None, None)
    document = summary_document(exact)
    assert set(document["bracket"]) == set(PERCENTILES)
    assert "exact, certified ranges, no trials" in summary_lines(exact)[1]
    assert run(SMALL) == exact


def test_percentiles_rise_and_lie_in_their_brackets() -> None:
    exact = run(SMALL)
    assert exact.bracket is not None
    values = [value for value in exact.percentiles.values() if value is not None]
    assert values == sorted(values)
    for name, value in exact.percentiles.items():
        low, high = exact.bracket[name]
        assert value is None or (high is not None and low <= value <= high)


def test_exact_is_refused_on_a_ring_with_the_reason() -> None:
    with pytest.raises(ScheduleError, match=r"neighbours on a ring wait.*--method monte_carlo"):
        run(replace(SMALL, algorithm=AlgorithmName.RING))


def test_scaling_brackets_its_own_percentiles_on_a_long_ring() -> None:
    scaled = run(LONG_RING, "dgx-h100 node:32", 256)
    assert scaled.method == "scaling"
    assert scaled.bracket is not None
    for name in ("p50_s", "p99_s"):
        low, high = scaled.bracket[name]
        value = scaled.percentiles[name]
        assert value is not None
        assert high is not None
        assert scaled.noiseless_s < low <= value <= high


def test_scaling_is_refused_on_a_short_ring() -> None:
    with pytest.raises(WorkloadError, match="256"):
        run(LONG_RING)


def test_auto_replays_what_takes_seconds() -> None:
    auto = run(replace(SMALL, method=MethodName.AUTO, trials=400))
    assert (auto.method, auto.trials) == ("monte_carlo", 400)


def test_auto_certifies_trees_and_replays_where_trials_are_asked() -> None:
    asked = replace(SMALL, method=MethodName.AUTO)
    assert run(asked).method == "exact"
    assert run(asked).percentiles == run(SMALL).percentiles
    assert run(replace(asked, precision=0.05)).method == "monte_carlo"


def test_a_wide_certificate_stands_beside_a_replay() -> None:
    fabric = fabric_of("beowulf-2006 node:16")
    doubling = Scenario(Collective.ALL_REDUCE, 8, method=MethodName.EXACT)
    told = simulate(fabric, pack(fabric, 16), doubling)
    assert (told.algorithm, told.method) == ("recursive_doubling", "monte_carlo")
    assert told.bracket is not None
    assert told.interval is not None
    for name in ("p50_s", "p99_s"):
        low, high = told.bracket[name]
        from_s, to_s = told.interval[name]
        assert high is not None
        assert to_s is not None
        assert low <= to_s
        assert from_s <= high
    heading = summary_lines(told)[3]
    assert re.sub(" +", " ", heading.strip()) == (
        "95 % interval certified dedicated to contended (3,688 trials)"
    )


def test_a_long_replay_without_a_law_of_growth_has_its_wide_certificate_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("topology.latency.replay.LONG_S", 1e-3)
    told = run(Scenario(Collective.ALL_REDUCE, 8, algorithm=AlgorithmName.RECURSIVE_DOUBLING))
    assert (told.method, told.band) == ("monte_carlo", None)
    assert told.bracket is not None
    assert told.interval is not None
    (low, high), (from_s, to_s) = told.bracket["p99_s"], told.interval["p99_s"]
    assert high is not None
    assert to_s is not None
    assert max(low, from_s) <= min(high, to_s)


def test_trials_that_are_asked_are_drawn_beside_a_narrow_certificate() -> None:
    told = run(replace(SMALL, trials=400))
    assert (told.method, told.trials) == ("monte_carlo", 400)
    assert told.bracket == run(SMALL).bracket
    with pytest.raises(WorkloadError, match="--trials: scaling has no trials"):
        run(replace(LONG_RING, trials=400))


@pytest.mark.parametrize(
    ("asked", "option"),
    [({"attribute": True}, "--attribute"), ({"precision": 0.02}, "--precision")],
)
def test_one_rank_alone_has_no_tail_to_ask_about(asked: dict[str, Any], option: str) -> None:
    alone = Scenario(Collective.ALL_REDUCE, 128)
    with pytest.raises(WorkloadError, match=f"{option}: one rank alone sends nothing"):
        run(replace(alone, **asked), gpus=1)


def test_a_pairwise_exchange_is_bounded_on_both_sides_beside_its_replay() -> None:
    fabric = fabric_of("dgx-h100 node:4")
    exchange = Scenario(
        Collective.ALLTOALL,
        8,
        algorithm=AlgorithmName.PAIRWISE,
        stack=StackName.WIRE,
        method=MethodName.EXACT,
    )
    told = simulate(fabric, pack(fabric, 32), exchange)
    assert (told.algorithm, told.method) == ("pairwise", "monte_carlo")
    assert told.bracket is not None
    for name in ("p50_s", "p99_s"):
        low, high = told.bracket[name]
        assert high is not None
        assert low < (told.percentiles[name] or 0) < high


def test_auto_does_not_replay_a_ring_of_512_ranks() -> None:
    auto = run(replace(LONG_RING, method=MethodName.AUTO), "dgx-h100 node:64", 512)
    assert auto.method == "scaling"


def test_who_makes_the_tail_over_infiniband_is_infiniband() -> None:
    told = run(replace(SMALL, method=MethodName.AUTO, trials=2_000, attribute=True))
    assert told.attribution is not None
    share = {row.name: row.share for row in told.attribution}
    assert share["net"] > 0.6 > share["nvlink"]
    assert share["detour"] > share["body"]
    assert summary_document(told)["attribution"][0]["share"] == max(share.values())
    assert any(line.startswith("tail: ") for line in summary_lines(told))


def test_without_the_network_the_tail_is_that_of_nvlink() -> None:
    scenario = replace(SMALL, method=MethodName.AUTO, trials=2_000)
    noisy, fixed = run(scenario), run(replace(scenario, without="net"))
    assert (fixed.percentiles["p99_s"] or 0) < (noisy.percentiles["p99_s"] or 0)
    assert "noise dedicated without net, 2,000 trials" in summary_lines(fixed)[1]


def test_without_something_that_is_not_there_is_refused() -> None:
    scenario = replace(SMALL, method=MethodName.AUTO, trials=400, without="myrinet")
    with pytest.raises(WorkloadError, match=r"--without: myrinet: no node, link or layer"):
        run(scenario)
    with pytest.raises(WorkloadError, match="exact has no trials, and causes are taken away"):
        run(replace(scenario, method=MethodName.EXACT))

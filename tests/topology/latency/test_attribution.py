"""Who makes the tail: a planted cause is found, an innocent one is cleared, draws stay the same."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.topology.latency.factories import Recorder, exponential, make_jitter, schedule_of
from tests.topology.latency.layer_factories import layers_for
from topology.errors import WorkloadError
from topology.latency.attribution import (
    MOST_NODES,
    Attribution,
    Case,
    Cause,
    CauseKind,
    Layer,
    attribute,
    causes_of,
    find_cause,
    links_of,
    noises_without,
)
from topology.latency.cost import Costs, RoundCost
from topology.latency.monte_carlo import Noise, noiseless_s
from topology.latency.noise import message_noise
from topology.words import NoiseLayer

NODES, GPUS = 4, 4
QUIET = {"body_median_s": 0.02e-6, "body_sigma": 0.3, "detour_probability": 0.01}
INSIDE = make_jitter(**QUIET, detour_median_s=0.2e-6, detour_sigma=0.3)
ACROSS = make_jitter(**QUIET, detour_median_s=2e-6, detour_sigma=0.3)


def two_level_case(*noises: Noise, trials: int = 2_000, seed: int = 3) -> Case:
    """A ring over 4 nodes of 4: hops inside a node are of one class, between nodes of another."""
    ranks = NODES * GPUS
    schedule = schedule_of("ring", ranks)
    rounds = []
    for round_ in schedule.rounds:
        leaves = round_.source // GPUS != round_.destination // GPUS
        wire_s = np.full(round_.transfers, 1e-6)
        none = np.zeros(round_.transfers)
        rounds.append(RoundCost(round_, wire_s, none, none, leaves.astype(np.int64)))
    return Case(
        costs=Costs(schedule, 0.0, 0.0, tuple(rounds), ("inside", "across")),
        noises=list(noises) or [message_noise(INSIDE), message_noise(ACROSS)],
        hosts=[f"node{rank // GPUS}" for rank in range(ranks)],
        kind_of={"inside": "nvlink", "across": "net"},
        trials=trials,
        seed=seed,
    )


def by_name(rows: list[Attribution]) -> dict[str, Attribution]:
    return {row.name: row for row in rows}


def test_a_class_with_ten_times_the_detours_carries_nearly_all_of_the_tail() -> None:
    """About three chained detours of 2 us across, 6 us, against 1 us of all that is inside."""
    rows = by_name(attribute(two_level_case()))
    assert rows["across"].share > 0.8
    assert rows["net"].share == rows["across"].share
    assert rows["inside"].share < 0.1
    assert rows["detour"].share > 0.8


def test_the_largest_share_comes_first_and_p99_without_it_is_the_lowest() -> None:
    rows = attribute(two_level_case())
    assert [row.share for row in rows] == sorted((row.share for row in rows), reverse=True)
    assert rows[0].p99_without_s == min(row.p99_without_s for row in rows)


def test_the_share_is_the_part_of_what_noise_adds_to_p99() -> None:
    """With p99 and p99 without a cause above the noiseless time as they are."""
    case = two_level_case()
    p99_s = float(np.quantile(case.samples_s(), 0.99))
    for row in attribute(case):
        expected = (p99_s - row.p99_without_s) / (p99_s - noiseless_s(case.costs))
        assert row.share == pytest.approx(expected)


def test_without_all_links_nothing_but_the_noiseless_time_is_left() -> None:
    case = two_level_case()
    alone = replace(case, kind_of={"inside": "any", "across": "any"})
    row = by_name(attribute(alone))["any"]
    assert row.share == pytest.approx(1.0)
    assert row.p99_without_s == pytest.approx(noiseless_s(case.costs))


def test_an_innocent_class_is_cleared_to_the_last_bit() -> None:
    """A class whose noise is 0 changes no sample when it is taken away."""
    case = two_level_case(message_noise(make_jitter()), message_noise(ACROSS))
    without = case.samples_s(Cause(CauseKind.LINK_CLASS, "inside"))
    assert without.tobytes() == case.samples_s().tobytes()


@pytest.mark.parametrize("layer", Layer)
def test_a_layer_that_a_noise_does_not_have_changes_nothing(layer: Layer) -> None:
    laws = {
        Layer.BODY: make_jitter(detour_probability=0.01, detour_median_s=2e-6),
        Layer.DETOUR: make_jitter(body_median_s=0.1e-6, body_sigma=0.5),
    }
    noise = message_noise(laws[layer])
    case = two_level_case(noise, noise)
    without = case.samples_s(Cause(CauseKind.LAYER, layer))
    assert without == pytest.approx(case.samples_s(), rel=1e-12)
    (other,) = set(Layer) - {layer}
    assert case.samples_s(Cause(CauseKind.LAYER, other)) == pytest.approx(noiseless_s(case.costs))


def test_taking_a_cause_of_delays_away_makes_no_trial_slower() -> None:
    """Same draws: a detour that is not added can only help, trial by trial."""
    case = two_level_case(*[message_noise(make_jitter(detour_probability=0.05))] * 2)
    before = case.samples_s()
    for cause in causes_of(case):
        assert (case.samples_s(cause) <= before).all(), cause


def test_a_slow_node_is_found_among_its_equals() -> None:
    """Only messages of node 2 have a class with noise: without it nothing is left of it."""
    case = two_level_case()
    rounds = tuple(
        replace(
            cost,
            jitter=(
                (cost.round.source // GPUS == 2) | (cost.round.destination // GPUS == 2)
            ).astype(np.int64),
        )
        for cost in case.costs.rounds
    )
    noises = [message_noise(make_jitter()), message_noise(ACROSS)]
    planted = replace(case, costs=replace(case.costs, rounds=rounds), noises=noises)
    rows = by_name(attribute(planted))
    assert rows["node2"].share == pytest.approx(1.0)
    assert rows["node0"].share == pytest.approx(0.0, abs=1e-9)


def test_without_a_node_its_messages_alone_lose_their_noise() -> None:
    case = two_level_case(*[Recorder(exponential) for _ in range(2)], trials=1)
    masked = noises_without(case, Cause(CauseKind.NODE, "node1"))
    rng = np.random.default_rng(0)
    inside, across = np.zeros((12, 1)), np.zeros((4, 1))
    masked[0].add_to(inside, rng)
    masked[1].add_to(across, rng)
    # Hops inside: three a node, in rank order. Across: 3 -> 4 and 7 -> 8 touch node 1.
    assert (inside[:, 0] == 0).tolist() == [3 <= i < 6 for i in range(12)]
    assert (across[:, 0] == 0).tolist() == [True, True, False, False]


def test_without_a_way_between_two_nodes_its_messages_alone_lose_their_noise() -> None:
    case = two_level_case(*[Recorder(exponential) for _ in range(2)], trials=1)
    assert links_of(case) == ["node0+node1", "node0+node3", "node1+node2", "node2+node3"]
    cause = find_cause(case, "node2+node1")
    assert cause == Cause(CauseKind.LINK, "node1+node2")
    masked = noises_without(case, cause)
    rng = np.random.default_rng(0)
    inside, across = np.zeros((12, 1)), np.zeros((4, 1))
    masked[0].add_to(inside, rng)
    masked[1].add_to(across, rng)
    assert (inside[:, 0] != 0).all()
    # Hops across go 3 -> 4, 7 -> 8, 11 -> 12 and 15 -> 0: the second joins nodes 1 and 2.
    assert (across[:, 0] == 0).tolist() == [False, True, False, False]


def test_nodes_alike_have_shares_alike_that_sum_to_about_one() -> None:
    noise = message_noise(make_jitter(detour_probability=0.002, detour_median_s=3e-6))
    rows = attribute(two_level_case(noise, noise, trials=4_000))
    shares = [row.share for row in rows if row.kind is CauseKind.NODE]
    assert len(shares) == NODES
    assert all(0 <= share <= 0.6 for share in shares)
    assert 0.2 < sum(shares) < 2.0


def test_same_seed_same_rows() -> None:
    assert attribute(two_level_case()) == attribute(two_level_case())
    assert attribute(two_level_case(seed=4)) != attribute(two_level_case())


def test_known_samples_spare_a_replay_and_change_nothing() -> None:
    case = two_level_case(trials=500)
    assert attribute(case, case.samples_s()) == attribute(case)


def test_many_nodes_are_not_taken_away_one_by_one_but_each_can_be_named() -> None:
    case = two_level_case()
    many = replace(case, hosts=[f"node{rank}" for rank in range(NODES * GPUS)])
    assert [c.name for c in causes_of(many) if c.kind is CauseKind.NODE] == list(many.hosts)
    wide: Any = replace(many, hosts=[f"node{rank}" for rank in range(MOST_NODES + 1)])
    assert not [c for c in causes_of(wide) if c.kind is CauseKind.NODE]
    assert find_cause(wide, "node9") == Cause(CauseKind.NODE, "node9")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("node3", "node"), ("inside", "link_class"), ("net", "link_kind"), ("detour", "layer")],
)
def test_a_cause_is_found_by_its_name(name: str, kind: str) -> None:
    assert find_cause(two_level_case(), name) == Cause(CauseKind(kind), name)


def test_an_unknown_name_is_refused_with_those_that_would_do() -> None:
    with pytest.raises(WorkloadError, match=r"node9: no node, link or layer.*inside, across"):
        find_cause(two_level_case(), "node9")


# Layers beyond single messages.


def layered_case(*names: NoiseLayer) -> Case:
    case = two_level_case(trials=1_000)
    return replace(case, layers=layers_for(case.costs, *names, gpus=GPUS, leaves=2))


def test_each_layer_that_is_on_is_a_cause_and_no_other() -> None:
    case = layered_case(NoiseLayer.STALL, NoiseLayer.SKEW)
    names = [cause.name for cause in causes_of(case) if cause.kind is CauseKind.LAYER]
    assert names == ["body", "detour", "skew", "stall"]
    assert find_cause(case, "stall") == Cause(CauseKind.LAYER, "stall")


def test_a_layer_that_is_off_cannot_be_taken_away() -> None:
    with pytest.raises(WorkloadError, match=r"slow: no node, link or layer.*skew"):
        find_cause(layered_case(NoiseLayer.SKEW), "slow")


@pytest.mark.parametrize("layer", [*NoiseLayer][:-1])
def test_without_a_layer_is_as_if_it_had_never_been_on(layer: NoiseLayer) -> None:
    others = [name for name in NoiseLayer if name is not layer]
    without = layered_case(*NoiseLayer).samples_s(Cause(CauseKind.LAYER, layer))
    assert without.tobytes() == layered_case(*others).samples_s().tobytes()
    assert (without < layered_case(*NoiseLayer).samples_s()).any()


def test_a_planted_layer_makes_nearly_all_of_the_tail() -> None:
    """Stalls of 9 us with chance 0.01 at each of 480 sends, beside jitter that is far shorter."""
    case = layered_case(NoiseLayer.STALL)
    quiet = [message_noise(make_jitter(body_median_s=1e-9, body_sigma=0.3))] * 2
    rows = by_name(attribute(replace(case, noises=quiet)))
    assert rows["stall"].share > 0.95
    assert rows["stall"].kind is CauseKind.LAYER
    assert rows["body"].share < 0.05


def test_a_node_is_taken_away_with_all_that_befalls_it() -> None:
    """Only its host is slow: without it nothing is left of the layer."""
    case = layered_case(NoiseLayer.SLOW)
    assert case.layers is not None
    case = replace(case, layers=replace(case.layers, slow_hosts=frozenset({"host2"})))
    silent = [message_noise(make_jitter())] * 2
    hosts = [f"host{rank // GPUS}" for rank in range(NODES * GPUS)]
    case = replace(case, noises=silent, hosts=hosts)
    calm_s = noiseless_s(case.costs)
    assert (case.samples_s() > calm_s).all()
    assert (case.samples_s(Cause(CauseKind.NODE, "host2")) == calm_s).all()
    assert case.samples_s(Cause(CauseKind.NODE, "host1")).tobytes() == case.samples_s().tobytes()

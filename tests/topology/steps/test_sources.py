"""Where times of collectives come from: replay, a law, a pool; and which is taken when."""

from dataclasses import replace

import numpy as np
import pytest

from tests.topology.steps.factories import all_reduce, compute, h100, run, step_of
from topology.collective.placement import pack
from topology.latency.replay import LEAST_TRIALS, MESSAGE_BUDGET, MOST_TRIALS
from topology.latency.scenario import Scenario
from topology.steps.case import make_case
from topology.steps.replay import replay
from topology.steps.sources import (
    Recipe,
    Source,
    Supply,
    draws_of,
    find_source,
    law_of,
    pool_error_s,
    pool_of,
)
from topology.steps.summary import summarise
from topology.steps.trials import TrialPlan, long_text, plan_trials
from topology.words import AlgorithmName, Collective, MethodName, NoiseName, StackName

REPLAY = Recipe(MethodName.MONTE_CARLO)


def source(
    size_bytes: int = 65_536,
    *,
    gpus: int = 8,
    algorithm: AlgorithmName = AlgorithmName.AUTO,
    noise: NoiseName = NoiseName.SHARED,
) -> Source:
    scenario = Scenario(
        Collective.ALL_REDUCE,
        size_bytes,
        algorithm=algorithm,
        noise=noise,
        stack=StackName.WIRE if algorithm is AlgorithmName.TREE else None,
    )
    fabric = h100(max(1, gpus // 8))
    return find_source(fabric, pack(fabric, gpus), scenario, 0)


def ignore(_: int) -> None:
    pass


def test_draws_of_a_law_are_those_of_replays() -> None:
    tree = source(8, gpus=16, algorithm=AlgorithmName.TREE)
    law = law_of(tree)
    assert law is not None
    assert law.method is MethodName.EXACT
    drawn = draws_of(tree, law, None, ignore)(60_000)
    replayed = draws_of(tree, REPLAY, None, ignore)(60_000)
    for q, rel in ((0.1, 0.002), (0.5, 0.002), (0.9, 0.002), (0.99, 0.03)):
        assert np.quantile(drawn, q) == pytest.approx(np.quantile(replayed, q), rel=rel)


def test_a_long_rings_law_is_drawn_from_its_growth() -> None:
    ring = source(8, gpus=256, algorithm=AlgorithmName.RING)
    law = law_of(ring)
    assert law is not None
    assert law.method is MethodName.SCALING
    drawn = draws_of(ring, law, None, ignore)(10_000)
    replayed = draws_of(ring, REPLAY, None, ignore)(200)
    assert np.median(drawn) == pytest.approx(np.median(replayed), rel=0.02)


def test_a_short_ring_has_no_law_but_its_replay() -> None:
    assert law_of(source(gpus=16, algorithm=AlgorithmName.RING)) is None


def test_a_pool_gives_what_is_in_it() -> None:
    ring = source()
    recipe = Recipe(MethodName.MONTE_CARLO, pool=50)
    pool = pool_of(ring, recipe, ignore)
    assert pool is not None
    assert len(pool) == 50
    drawn = draws_of(ring, recipe, pool, ignore)(5_000)
    assert set(drawn.tolist()) == set(pool.tolist())


def test_error_of_a_pool_is_that_of_its_mean() -> None:
    pool = np.random.default_rng(1).normal(10.0, 2.0, 10_000)
    assert pool_error_s(pool, groups=1, operations=3) == pytest.approx(
        1.96 * 3 * 2.0 / 100, rel=0.03
    )
    assert pool_error_s(np.ones(100), groups=4, operations=3) == 0


def test_without_noise_every_draw_is_the_noiseless_time() -> None:
    calm = source(noise=NoiseName.NONE)
    assert calm.messages == 0
    assert set(draws_of(calm, REPLAY, None, ignore)(5).tolist()) == {calm.noiseless_s}


def test_draws_are_handed_out_once_and_in_order() -> None:
    stock = iter(range(100))
    supply = Supply(lambda wanted: np.array([next(stock) for _ in range(wanted)], float), left=10)
    assert supply.take(3).tolist() == [0, 1, 2]
    assert supply.take(0).tolist() == []
    assert supply.take(9).tolist() == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert supply.take(1).tolist() == [12]


# Which is taken.


def test_what_takes_seconds_is_replayed() -> None:
    plan = plan_trials([source()], [10], own_work=100, asked=None)
    (recipe,) = plan.recipes
    assert (recipe.method, recipe.table, recipe.pool) == (MethodName.MONTE_CARLO, None, None)
    assert plan.trials == MOST_TRIALS
    assert long_text(plan) is None


def test_what_takes_minutes_is_drawn_from_its_law_or_from_a_pool() -> None:
    tree, ring = source(8, gpus=16, algorithm=AlgorithmName.TREE), source()
    plan = plan_trials([tree, ring], [10**6, 10**6], own_work=100, asked=None)
    assert plan.recipes[0].method is MethodName.EXACT
    assert plan.recipes[1].pool is not None
    assert plan.recipes[1].pool * ring.messages <= MESSAGE_BUDGET
    assert plan.trials == LEAST_TRIALS


def test_what_is_asked_is_done_and_told_to_take_long() -> None:
    plan = plan_trials([source()], [10], own_work=10**6, asked=5_000)
    assert plan.trials == 5_000
    text = long_text(plan)
    assert text is not None
    assert text.startswith("about 2")
    assert text.endswith("s; fewer --trials are faster")


def test_a_step_from_pools_says_so_and_has_the_same_middle() -> None:
    step = step_of(
        compute("a", "100us", 0.02), all_reduce("s", "64KiB", repeat=40, group="t"), gpus=16,
        groups=[{"name": "t", "size": 8}],
    )  # fmt: skip
    replayed = run(step, noise=NoiseName.SHARED, trials=400)
    pooled = run(step, noise=NoiseName.SHARED, trials=60_000)
    assert replayed.parts[1].ways[0].pool is None
    pool = pooled.parts[1].ways[0].pool
    assert pool is not None
    assert pooled.not_modelled[-1].endswith(f"once in {pool:,} replays")
    assert pooled.interval is not None
    low_s, high_s = pooled.interval["p50_s"]
    assert high_s is not None
    assert high_s - low_s > 2 * pooled.pool_error_s > 0
    assert replayed.pool_error_s == 0
    assert pooled.mean_s == pytest.approx(replayed.mean_s, rel=2e-3)


def test_rails_that_cost_the_same_share_their_replays() -> None:
    """Eight data groups, each in a slot of its own: eight shapes, one source."""
    groups = [{"name": "t", "size": 8}, {"name": "d", "size": 4}]
    step = step_of(all_reduce("s", "1MiB", group="d"), gpus=32, groups=groups)
    fabric = h100(4)
    common = Scenario(Collective.ALL_REDUCE, 1, noise=NoiseName.SHARED)
    case = make_case(step, fabric, pack(fabric, 32), common)
    assert len(case.groups["d"].first_of) == 8
    assert len(case.sources) == 1
    assert case.uses == [(1, 8)]


def test_collectives_of_other_sizes_share_nothing() -> None:
    assert source(8).is_like(source(8))
    assert not source(8).is_like(source(16))
    assert not source(8).is_like(source(8, noise=NoiseName.CONTENDED))
    assert not source(8, gpus=16).is_like(source(8))


def test_what_the_pool_does_not_carry_is_not_told_of_the_step() -> None:
    large = all_reduce("s", "256MiB", repeat=2, group="t")
    step = step_of(compute("a", "1ms", 0.05), large, gpus=8, groups=[{"name": "t", "size": 8}])
    case = make_case(step, h100(1), pack(h100(1), 8), Scenario(Collective.ALL_REDUCE, 1))
    calm = replay(case.issue, case.noiseless_s, 1)
    spread_s = np.linspace(1.0, 2.0, 20_000)
    many = replace(
        calm, step_s=spread_s, bare_s=spread_s,
        part_s=np.tile(calm.part_s, 20_000), hidden_s=np.tile(calm.hidden_s, 20_000),
    )  # fmt: skip
    recipes = (Recipe(MethodName.MONTE_CARLO, pool=LEAST_TRIALS),)
    plan = TrialPlan(20_000, recipes, own_work=1, work=1)
    told = summarise(case, calm, many, plan=plan, seed=0)
    assert told.percentiles["p99_s"] == pytest.approx(1.99)
    assert told.percentiles["p999_s"] is None
    assert told.interval is not None
    assert told.interval["p999_s"][1] is None

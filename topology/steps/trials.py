"""How many steps are replayed, and how times of collectives are drawn: so that it takes seconds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from topology.latency.replay import (
    LEAST_TRIALS,
    LONG_S,
    MESSAGE_BUDGET,
    MESSAGES_PER_S,
    MOST_TRIALS,
)
from topology.latency.summary import PERCENTILES, least_trials
from topology.steps.sources import Recipe, Source, law_of
from topology.words import MethodName

WANTED_TRIALS: Final = least_trials(PERCENTILES["p999_s"])
"""What takes too long to replay so often is drawn from its law, or from a pool of replays."""

POOL_BUDGET: Final = MESSAGE_BUDGET // 8
"""Messages that are replayed for all pools together."""

_REPLAY: Final = Recipe(MethodName.MONTE_CARLO)
_POOL: Final = Recipe(MethodName.MONTE_CARLO, pool=0)


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """How many trials, and how each source is drawn.

    ``work``: all of it, in messages; ``own_work``: of a trial, besides what replays do.
    """

    trials: int
    recipes: tuple[Recipe, ...]
    own_work: int
    work: int


def plan_trials(
    sources: Sequence[Source], draws: Sequence[int], *, own_work: int, asked: int | None
) -> TrialPlan:
    """Trials and recipes for sources of which each trial takes ``draws``.

    ``own_work``: what the step itself draws and compares, each about as long as a message.
    """
    recipes = [_REPLAY] * len(sources)
    loads = [count * source.messages for source, count in zip(sources, draws, strict=True)]
    by_load = sorted(range(len(sources)), key=lambda number: -loads[number])
    for number in by_load:
        if loads[number] and not _fits(own_work + sum(loads), asked):
            recipes[number] = law_of(sources[number]) or _POOL
            loads[number] = draws[number]
    pools = _pools(sources, draws, recipes)
    recipes = [replace(r, pool=pools[i]) if i in pools else r for i, r in enumerate(recipes)]
    replayed = sum(pool * sources[number].messages for number, pool in pools.items())
    work = own_work + sum(loads)
    trials = asked or min(max(MESSAGE_BUDGET // work, LEAST_TRIALS), MOST_TRIALS)
    drawn = sum(load for load, recipe in zip(loads, recipes, strict=True) if recipe is not _REPLAY)
    return TrialPlan(trials, tuple(recipes), own_work + drawn, trials * work + replayed)


def _pools(
    sources: Sequence[Source], draws: Sequence[int], recipes: Sequence[Recipe]
) -> dict[int, int]:
    """Replays of each pool: as the root of what is drawn of it, which makes all errors least.

    But at least what a p99.9 needs where the budget carries that, and what a p99 needs.
    """
    weight = {i: math.sqrt(draws[i]) for i, recipe in enumerate(recipes) if recipe is _POOL}
    messages = sum(sources[i].messages for i in weight)
    all_weight = sum(weight[i] * sources[i].messages for i in weight)
    least = min(max(POOL_BUDGET // max(messages, 1), LEAST_TRIALS), WANTED_TRIALS)
    return {i: max(int(POOL_BUDGET * weight[i] / all_weight), least) for i in weight}


def _fits(work: int, asked: int | None) -> bool:
    if asked is not None:
        return asked * work <= LONG_S * MESSAGES_PER_S
    return WANTED_TRIALS * work <= MESSAGE_BUDGET


def long_text(plan: TrialPlan) -> str | None:
    """How long a run will about take, None if it is done soon."""
    run_s = plan.work / MESSAGES_PER_S
    if run_s <= LONG_S:
        return None
    hint = "; fewer --trials are faster" if plan.trials > LEAST_TRIALS else ""
    return f"about {run_s:.0f} s{hint}"

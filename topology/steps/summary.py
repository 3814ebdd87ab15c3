"""Summary of a step: percentiles, and what the path that decides the end is made of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.latency.summary import PERCENTILES, least_trials, percentile_ranges
from topology.steps.case import StepCase
from topology.steps.document import CollectiveRow, leaves
from topology.steps.replay import Issue, Replay
from topology.steps.trials import TrialPlan

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

AROUND: Final = 0.005
"""Trials that lie so near to a percentile, in rank, tell what it is made of."""

NO_CONTENTION: Final = "operations that overlap slowing each other down on shared links"
RARER: Final = "what befalls a collective more rarely than once in {:,} replays"
ALONE: Final = "groups side by side slowing each other down: each is simulated as if alone"


@dataclass(frozen=True, slots=True)
class Way:
    """How a collective goes on groups that stand alike.

    ``method``: how its times are drawn; ``pool``: from so many replays again and again, None where
    no draw is used twice.
    """

    groups: int
    ranks: int
    algorithm: str
    protocol: str | None
    noiseless_s: float
    method: str
    pool: int | None = None


@dataclass(frozen=True, slots=True)
class PartShare:
    """A part's time on the path that decides the end of the step, all its repetitions. [s]

    ``noiseless_s``: without noise; ``at``: mean over the trials near a percentile, by its name;
    a percentile that the trials do not carry is missing. ``hidden``: the same of its time off the
    path, of collectives only.
    """

    name: str
    kind: str
    group: str | None
    repetitions: int
    noiseless_s: float
    at: Mapping[str, float]
    hidden: Mapping[str, float]
    ways: tuple[Way, ...]

    @property
    def is_communication(self) -> bool:
        """Whether it is a collective."""
        return self.kind != "compute"


@dataclass(frozen=True, slots=True)
class StepSummary:
    """The distribution of a step's time. Times in seconds.

    ``interval``: as in ``LatencySummary``; None without noise and spread, when all percentiles are
    ``noiseless_s``. ``step_at``: mean step of the trials near a percentile: the parts sum to it;
    ``bare_at``: of the same steps if no collective took any time. ``pool_error_s``: by how much
    pools of replays may put off all trials alike, at 95 %; the intervals contain it.
    ``not_modelled``: what would make this step slower than told.
    """

    name: str
    gpus: int
    nodes: int
    stack: str | None
    noise: str
    noiseless_s: float
    mean_s: float
    percentiles: dict[str, float | None]
    interval: dict[str, tuple[float, float | None]] | None
    trials: int | None
    seed: int | None
    parts: tuple[PartShare, ...]
    step_at: Mapping[str, float]
    bare_at: Mapping[str, float]
    pool_error_s: float
    not_modelled: tuple[str, ...]

    def slowdown_ratio(self, percentile: str) -> float | None:
        """A percentile as a multiple of the noiseless time."""
        value = self.percentiles[percentile]
        return None if value is None else value / self.noiseless_s

    def communication_s(self, percentile: str) -> float:
        """Time of all collectives near a percentile, hidden or not. [s]"""
        rows = [part for part in self.parts if part.is_communication]
        return sum(part.at[percentile] + part.hidden[percentile] for part in rows)

    def exposed_s(self, percentile: str) -> float:
        """What collectives add to the steps near a percentile: what no compute hides. [s]"""
        return self.step_at[percentile] - self.bare_at[percentile]

    def exposed_ratio(self, percentile: str) -> float | None:
        """Part of the collectives' time that is exposed; None where there is none."""
        all_s = self.communication_s(percentile)
        return self.exposed_s(percentile) / all_s if all_s else None


def summarise(
    case: StepCase,
    calm: Replay,
    noisy: Replay,
    *,
    plan: TrialPlan | None,
    seed: int | None,
    pool_error_s: float = 0.0,
) -> StepSummary:
    """Percentiles and shares of replayed steps; without a plan they are the noiseless one."""
    step, noiseless_s = case.step, float(calm.step_s[0])
    percentiles: dict[str, float | None] = dict.fromkeys(PERCENTILES, noiseless_s)
    interval = None
    if plan is not None:
        percentiles, interval = percentile_ranges(noisy.step_s)
        interval = {name: _wider(ends, pool_error_s) for name, ends in interval.items()}
        for name in _untold(plan):
            percentiles[name], interval[name] = None, (interval[name][0], None)
    near = {
        name: near_quantile(noisy.step_s, PERCENTILES[name])
        for name in SHOWN
        if percentiles[name] is not None
    }
    stacks = {source.setting.choice.stack.name.value for source in case.sources}
    parts = tuple(_shares(case, calm, noisy, near, plan))
    return StepSummary(
        name=step.name,
        gpus=step.gpus,
        nodes=len(case.placement.hosts),
        stack=", ".join(sorted(stacks)) or None,
        noise=case.noise.value,
        noiseless_s=noiseless_s,
        mean_s=float(noisy.step_s.mean()),
        percentiles=percentiles,
        interval=interval,
        trials=None if plan is None else plan.trials,
        seed=seed,
        parts=parts,
        step_at={name: float(noisy.step_s[chosen].mean()) for name, chosen in near.items()},
        bare_at={name: float(noisy.bare_s[chosen].mean()) for name, chosen in near.items()},
        pool_error_s=pool_error_s,
        not_modelled=tuple(_not_modelled(case.issue, parts)),
    )


def _untold(plan: TrialPlan) -> list[str]:
    """Percentiles that the smallest pool of replays does not carry: the step's neither."""
    pools = [recipe.pool for recipe in plan.recipes if recipe.pool is not None]
    return [
        name
        for name, q in PERCENTILES.items()
        if min(pools, default=least_trials(q)) < least_trials(q)
    ]


def _wider(ends: tuple[float, float | None], by_s: float) -> tuple[float, float | None]:
    low, high = ends
    return max(low - by_s, 0.0), None if high is None else high + by_s


SHOWN: Final = ("p50_s", "p99_s")


def near_quantile(step_s: FloatArray, q: float) -> IntArray:
    """Trials that lie within AROUND of a quantile by rank, one at least.

    >>> near_quantile(np.arange(1_000.0), 0.5).tolist()
    [495, 496, 497, 498, 499, 500, 501, 502, 503, 504]
    """
    count = len(step_s)
    low = min(int((q - AROUND) * count), count - 1)
    return np.argsort(step_s, kind="stable")[low : max(round((q + AROUND) * count), low + 1)]


def _shares(
    case: StepCase,
    calm: Replay,
    noisy: Replay,
    near: Mapping[str, IntArray],
    plan: TrialPlan | None,
) -> Iterator[PartShare]:
    repetitions = np.bincount(case.issue.part_of)
    for number, (_, part) in enumerate(leaves(case.step.parts)):
        on, off = noisy.part_s[number], noisy.hidden_s[number]
        yield PartShare(
            name=part.name,
            kind=part.kind,
            group=None if part.collective is None else part.collective.group,
            repetitions=int(repetitions[number]),
            noiseless_s=float(calm.part_s[number, 0]),
            at={name: float(on[chosen].mean()) for name, chosen in near.items()},
            hidden={name: float(off[chosen].mean()) for name, chosen in near.items()},
            ways=tuple(_ways(case, part.collective, plan)) if part.collective else (),
        )


def _ways(case: StepCase, row: CollectiveRow, plan: TrialPlan | None) -> Iterator[Way]:
    for number, count in case.sources_of(row):
        source = case.sources[number]
        choice = source.setting.choice
        recipe = plan.recipes[number] if plan and source.is_noisy else None
        yield Way(
            groups=count,
            ranks=case.groups[row.group].size,
            algorithm=choice.schedule.algorithm,
            protocol=choice.stack.protocol.value if choice.stack.protocol else None,
            noiseless_s=source.noiseless_s,
            method="exact" if recipe is None else recipe.method.value,
            pool=None if recipe is None else recipe.pool,
        )


def _not_modelled(issue: Issue, parts: Sequence[PartShare]) -> Iterator[str]:
    """What would make this step slower than told: only what it has."""
    if overlaps(issue):
        yield NO_CONTENTION
    if any(sum(way.groups for way in part.ways) > 1 for part in parts):
        yield ALONE
    pools = [way.pool for part in parts for way in part.ways if way.pool is not None]
    if pools:
        yield RARER.format(min(pools))


def overlaps(issue: Issue) -> bool:
    """Whether an operation may begin before another that was issued earlier is done."""
    return any(
        number > 0 and number - 1 not in operation.after
        for number, operation in enumerate(issue.operations)
    )

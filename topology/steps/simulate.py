"""Simulate a step: operations with drawn durations become the distribution of the whole."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.collective.placement import Placement
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.latency.monte_carlo import Progress
from topology.latency.replay import Notice
from topology.latency.scenario import Scenario
from topology.steps.case import StepCase, make_case
from topology.steps.compute import ComputeDraws
from topology.steps.document import StepDocument
from topology.steps.replay import Replay, joined, replay
from topology.steps.sources import Supply, draws_of, pool_error_s, pool_of
from topology.steps.summary import StepSummary, summarise
from topology.steps.trials import TrialPlan, long_text, plan_trials
from topology.steps.unroll import Operation
from topology.words import Collective, NoiseName, StackName

FloatArray: TypeAlias = NDArray[np.float64]

TIMES_KEPT: Final = 2**21
"""Times of all operations and ranks that are kept at once, 16 MiB, and as many durations."""


def simulate_step(
    step: StepDocument,
    fabric: Fabric,
    placement: Placement,
    *,
    noise: NoiseName = NoiseName.DEDICATED,
    stack: StackName | None = None,
    trials: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> StepSummary:
    """The distribution of a step's time on a placement.

    A compute takes each rank its own log-normal time. A collective begins when all ranks of its
    group are ready, and takes a time drawn for each group and each repetition independently, each
    group simulated where it stands and as if alone; groups that stand alike are simulated once.
    Operations that overlap do not slow each other down. ``progress`` is told how much of how much
    is done, ``notice`` that it will take long.

    Raises:
        WorkloadError: other ranks placed than asked; a collective that cannot be there, by part.
        ScheduleError: the named algorithm does not do this; names the part.
        UnreachableError: ranks that no known link joins; names the part.
    """
    _check(step, placement, trials)
    # Collective and size stand for those of every part in turn.
    common = Scenario(Collective.ALL_REDUCE, 1, stack=stack, noise=noise, seed=seed)
    case = make_case(step, fabric, placement, common)
    calm = replay(case.issue, case.noiseless_s, 1)
    if not case.is_random:
        return summarise(case, calm, calm, plan=None, seed=None)
    draws = [times * groups for times, groups in case.uses]
    plan = plan_trials(case.sources, draws, own_work=case.own_work, asked=trials)
    long = long_text(plan)
    if notice is not None and long is not None:
        notice(long)
    noisy, error_s = _replayed(case, plan, seed, progress)
    return summarise(case, calm, noisy, plan=plan, seed=seed, pool_error_s=error_s)


def _check(step: StepDocument, placement: Placement, trials: int | None) -> None:
    if placement.ranks != step.gpus:
        text = f"{step.gpus} asked, {placement.ranks} placed"
        raise WorkloadError(text, where=step.name, field="gpus", remedy="make them agree")
    if trials is not None and trials < 1:
        raise WorkloadError(f"{trials}", field="--trials", remedy="give at least one")


def _replayed(
    case: StepCase, plan: TrialPlan, seed: int, progress: Progress | None
) -> tuple[Replay, float]:
    """All trials, in batches whose times fit in memory; and by how much pools may put them off."""
    counter = _Counter(plan.work, progress)
    supplies, error_s = _supplies(case, plan, counter)
    compute = ComputeDraws(case.step, case.issue.ranks, seed)
    batch = max(1, TIMES_KEPT // case.times_kept)
    done: list[Replay] = []
    for first in range(0, plan.trials, batch):
        count = min(batch, plan.trials - first)
        durations = partial(_durations_s, case, supplies, compute.of_steps(count), count)
        done.append(replay(case.issue, durations, count))
        counter.add(count * plan.own_work)
    return joined(done), error_s


def _supplies(case: StepCase, plan: TrialPlan, counter: "_Counter") -> tuple[list[Supply], float]:
    """Draws of every source, and by how much its pools may put off a step. [s]"""
    supplies: list[Supply] = []
    errors_s: list[float] = []
    rows = zip(case.sources, plan.recipes, case.uses, strict=True)
    for source, recipe, (operations, groups) in rows:
        pool = pool_of(source, recipe, counter.add)
        if pool is not None:
            errors_s.append(pool_error_s(pool, groups=groups, operations=operations))
        draws = draws_of(source, recipe, pool, counter.add)
        supplies.append(Supply(draws, plan.trials * operations * groups))
    return supplies, math.hypot(*errors_s)


def _durations_s(
    case: StepCase,
    supplies: Sequence[Supply],
    compute: Callable[[float, float], FloatArray],
    trials: int,
    operation: Operation,
) -> FloatArray:
    """Drawn durations of one operation, shape (ranks, trials) or (groups, trials). [s]"""
    row = operation.part.collective
    if row is None:
        assert operation.part.compute is not None, "it computes or communicates"
        return compute(operation.part.compute.time_s, operation.part.compute.spread_ratio)
    groups = case.groups[row.group]
    taken = np.empty((groups.count, trials))
    for shape, (number, count) in enumerate(case.sources_of(row)):
        drawn = supplies[number].take(count * trials)
        taken[groups.shape_of == shape] = drawn.reshape(count, trials)
    return taken


@dataclass(slots=True)
class _Counter:
    """Work done of work to do, told to whoever asks."""

    total: int
    progress: Progress | None
    done: int = 0

    def add(self, work: int) -> None:
        """So much more is done."""
        self.done = min(self.done + work, self.total)
        if self.progress is not None:
            self.progress(self.done, self.total)

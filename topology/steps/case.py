"""Case: a step on a placement, its groups found and the way of every collective chosen."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.collective.placement import Placement
from topology.errors import TopologyError
from topology.fabric.from_fleet import Fabric
from topology.latency.scenario import Scenario
from topology.steps.document import CollectiveRow, PartRow, StepDocument, leaves, strides_of
from topology.steps.groups import Groups, groups_on
from topology.steps.replay import Issue
from topology.steps.sources import Source, find_source
from topology.steps.unroll import Operation, unroll
from topology.words import NoiseName

FloatArray: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class StepCase:
    """A step on a placement. ``source_of``: number of a source by collective and shape of group."""

    step: StepDocument
    placement: Placement
    issue: Issue
    sources: tuple[Source, ...]
    source_of: Mapping[tuple[CollectiveRow, int], int]
    groups: Mapping[str, Groups]
    noise: NoiseName

    @property
    def uses(self) -> list[tuple[int, int]]:
        """Of each source: operations of a step that use it, and groups of each at once."""
        rows = Counter(operation.part.collective for operation in self.issue.operations)
        times = [0] * len(self.sources)
        groups = [0] * len(self.sources)
        for row, repetitions in rows.items():
            at_once: Counter[int] = Counter()
            for number, count in self.sources_of(row) if row else ():
                at_once[number] += count
            for number, count in at_once.items():
                times[number] += repetitions
                groups[number] = count
        return list(zip(times, groups, strict=True))

    @property
    def times_kept(self) -> int:
        """Times of one step that are kept at once: of all operations on all ranks."""
        return self.issue.ranks * len(self.issue.operations)

    @property
    def own_work(self) -> int:
        """Work of one step besides replays, in messages: a draw is about one, a maximum half."""
        computes = sum(groups is None for groups in self.issue.groups_of)
        return self.issue.ranks * computes + self.times_kept // 2

    @property
    def is_random(self) -> bool:
        """Whether two steps may differ."""
        step = self.step
        spreads = [part.compute.spread_ratio for _, part in leaves(step.parts) if part.compute]
        spreads += [step.common_spread_ratio, step.rank_spread_ratio]
        return any(spreads) or any(source.is_noisy for source in self.sources)

    def sources_of(self, row: CollectiveRow) -> list[tuple[int, int]]:
        """Number of the source of each shape of a collective's groups, and how many groups."""
        counts = self.groups[row.group].counts()
        return [(self.source_of[row, shape], count) for shape, count in enumerate(counts)]

    def noiseless_s(self, operation: Operation) -> FloatArray:
        """Duration without noise and spread, shape (ranks, 1) or (groups, 1). [s]"""
        row = operation.part.collective
        if row is None:
            assert operation.part.compute is not None, "it computes or communicates"
            return np.full((self.issue.ranks, 1), operation.part.compute.time_s)
        times = np.array([self.sources[number].noiseless_s for number, _ in self.sources_of(row)])
        return times[self.groups[row.group].shape_of][:, None]


def make_case(
    step: StepDocument, fabric: Fabric, placement: Placement, scenario: Scenario
) -> StepCase:
    """A step on a placement; of the scenario only noise, stack and seed count.

    Raises:
        WorkloadError: a collective that cannot be there; names the part.
        ScheduleError: the named algorithm does not do this; names the part.
        UnreachableError: ranks that no known link joins; names the part.
    """
    parts = [part for _, part in leaves(step.parts)]
    groups = _groups(step, parts, fabric, placement)
    sources: list[Source] = []
    source_of: dict[tuple[CollectiveRow, int], int] = {}
    for part in parts:
        row = part.collective
        for shape in range(len(groups[row.group].first_of) if row else 0):
            assert row is not None, "only collectives have groups"
            if (row, shape) not in source_of:
                there = groups[row.group].placement(shape, placement)
                asked = scenario_of(row, scenario)
                found = _source(fabric, there, asked, part, len(sources))
                alike = (i for i, s in enumerate(sources) if found.is_like(s))
                source_of[row, shape] = next(alike, len(sources))
                if source_of[row, shape] == len(sources):
                    sources.append(found)
    issue = _issue(step, groups)
    return StepCase(step, placement, issue, tuple(sources), source_of, groups, noise=scenario.noise)


def scenario_of(row: CollectiveRow, common: Scenario) -> Scenario:
    """What ``simulate`` would be asked for one collective."""
    return Scenario(
        collective=row.collective,
        size_bytes=row.size_bytes,
        algorithm=row.algorithm,
        protocol=row.protocol,
        launch=row.launch,
        dtype=row.dtype,
        stack=common.stack,
        noise=common.noise,
        seed=common.seed,
    )


def _groups(
    step: StepDocument, parts: list[PartRow], fabric: Fabric, placement: Placement
) -> dict[str, Groups]:
    """The kinds of groups that communicate."""
    sizes = strides_of(step, where=step.name)
    used = dict.fromkeys(part.collective.group for part in parts if part.collective is not None)
    return {
        name: groups_on(fabric, placement, name, size=sizes[name][0], stride=sizes[name][1])
        for name in used
    }


def _issue(step: StepDocument, groups: Mapping[str, Groups]) -> Issue:
    number = {part.name: i for i, (_, part) in enumerate(leaves(step.parts))}
    operations = unroll(step)
    rows = [operation.part.collective for operation in operations]
    return Issue(
        ranks=step.gpus,
        operations=operations,
        part_of=tuple(number[operation.part.name] for operation in operations),
        groups_of=tuple(None if row is None else groups[row.group] for row in rows),
    )


def _source(
    fabric: Fabric, placement: Placement, scenario: Scenario, part: PartRow, number: int
) -> Source:
    """The source of a part; a refusal names the part, and keys where options have their name.

    ``--stack`` stays: it is an option of a step's, too.
    """
    try:
        return find_source(fabric, placement, scenario, number)
    except TopologyError as error:
        field, remedy = (
            text if "--stack" in text else text.replace("--", "")
            for text in (error.field, error.remedy)
        )
        where = f"part {part.name}" + (f", {error.where}" if error.where else "")
        raise type(error)(error.problem, where=where, field=field, remedy=remedy) from None

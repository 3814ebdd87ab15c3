"""Exact: the law of a collective's completion from its costs, certified, without any draw.

Where the messages of a schedule form trees, every maximum is one of independent times, and the
bracket is as wide as the grid is coarse: from the leaves to a waist of the schedule, and from its
ends back to it. Where a value has several users it is a bracket of its own: all times are
associated, so P(all <= t) is at least the product; and with the floor of the value for all users
but one, it is at most the product. No rings: see ``why_not_exact``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Final

import numpy as np

from topology.errors import ScheduleError
from topology.fabric.link_figures import Jitter
from topology.latency.cost import Costs
from topology.latency.law import (
    Grid,
    Law,
    bracketed,
    greatest,
    no_earlier_than_each,
    point,
)
from topology.latency.law_graph import graph_of, waist_of
from topology.latency.law_noise import noise_law
from topology.latency.law_passes import Laws, laws_at_waist
from topology.latency.monte_carlo import noiseless_s
from topology.latency.noise import MessageNoise
from topology.latency.summary import PERCENTILES
from topology.words import Collective

RESOLUTION: Final = 0.004
"""The steps of a schedule together may round by this part of its time without noise."""

UNSEEN: Final = 1e-6
"""The grid ends where about this chance is left."""

MOST_LOST: Final = 5e-6
"""With more than this beyond its end the grid is made twice as long."""

MOST_CELLS: Final = 2**15
MOST_GROWTH: Final = 4
MOST_STEPS: Final = 512
REMEDY: Final = "use --method monte_carlo"
MOST_LOCKSTEPS: Final = 16
MOST_PIECES: Final = 8

MOST_ERROR: Final = 1e-4
"""A law with more than this of error has no percentile worth a bracket."""


@dataclass(frozen=True, slots=True, eq=False)
class ExactLaw:
    """Percentiles of a completion time: ``bracket`` holds the model's true one for certain. [s]

    The upper end is None where it lies beyond the grid. ``central_s``: their middles, None there.
    ``mean_s``: of the middle law, without what lies beyond. ``mass_lost``: chance beyond the grid
    and by rounding; the bracket contains it.
    """

    law: Law
    bracket: dict[str, tuple[float, float | None]]
    central_s: dict[str, float | None]
    mean_s: float
    mass_lost: float

    def width_ratio(self, name: str) -> float:
        """Width of a percentile's bracket, as a part of its lower end; inf if it has no upper."""
        low, high = self.bracket[name]
        return math.inf if high is None else (high - low) / low


def exact_law(costs: Costs, noises: Sequence[MessageNoise]) -> ExactLaw:
    """The certified law of a schedule's completion; launch and base included.

    ``noises``: one for each of ``costs.classes``. Cost: a convolution for each distinct law, of
    which a tree over alike links has one a level.

    Raises:
        ScheduleError: a schedule that this cannot do; the message says why.
    """
    jitters = [noise.jitter for noise in noises]
    reason = why_not_exact(costs, jitters)
    if reason is not None:
        raise ScheduleError(reason, field=costs.schedule.algorithm, remedy=REMEDY)
    grid = chosen_grid(costs, jitters)
    for _ in range(MOST_GROWTH):
        law = _law(costs, [noise_law(grid, jitter) for jitter in jitters], grid)
        if law.error > MOST_ERROR:
            text = "so many messages wait for each other that products of laws say nothing"
            raise ScheduleError(text, field=costs.schedule.algorithm, remedy=REMEDY)
        if law.beyond <= MOST_LOST:
            break
        grid = grown(grid)
    return summed_up(law.shifted(costs.launch_s + costs.base_s))


def why_not_exact(costs: Costs, jitters: Sequence[Jitter]) -> str | None:
    """Why a schedule has no certified law here, None where it has one."""
    schedule = costs.schedule
    rounds = [cost.round for cost in costs.rounds]
    if any(r.lockstep and r.repeats > 1 for r in rounds):
        return "neighbours on a ring wait for each other: products of laws overstate it"
    if any(r.repeats > 1 for r in rounds) or _most_uses(costs) > MOST_PIECES:
        return "the pieces of a pipeline wait for each other: products of laws overstate it"
    locksteps = sum(r.lockstep for r in rounds)
    if schedule.steps > MOST_STEPS or locksteps > MOST_LOCKSTEPS:
        most = MOST_LOCKSTEPS if locksteps else MOST_STEPS
        return f"{schedule.steps} steps, of which a bracket is too wide or too slow beyond {most}"
    for cost in costs.rounds:
        for number, jitter in enumerate(jitters):
            own = cost.message_s[cost.jitter == number] - cost.bandwidth_s[cost.jitter == number]
            if own.size and own.min() < jitter.body_median_s * bool(jitter.body_sigma) * (1 - 1e-9):
                name = costs.classes[number]
                return (
                    f"a message over {name} could arrive before it has left: its jitter exceeds it"
                )
    return None


def _most_uses(costs: Costs) -> int:
    """In how many steps a link is used at most; in one where there is but one channel."""
    schedule = costs.schedule
    if schedule.channels == 1 or not costs.rounds:
        return 1
    rounds = [cost.round for cost in costs.rounds]
    links = [np.unique(r.source * schedule.vertices + r.destination) for r in rounds]
    return int(np.unique(np.concatenate(links), return_counts=True)[1].max())


def chosen_grid(costs: Costs, jitters: Sequence[Jitter]) -> Grid:
    """Cells fine enough for the schedule's steps together, and so many that little lies beyond."""
    own_s = sum(float(c.message_s.min()) for c in costs.rounds if len(c.message_s))
    steps, messages = max(costs.schedule.steps, 1), max(costs.schedule.messages, 1)
    end_s = max((noise_end_s(jitter, steps, messages) for jitter in jitters), default=0.0)
    step_s = max(RESOLUTION * own_s / steps, 1e-12)
    cells = max(64, math.ceil(end_s / step_s))
    if cells > MOST_CELLS:
        return Grid(end_s / MOST_CELLS, MOST_CELLS)
    return Grid(step_s, cells)


def noise_end_s(jitter: Jitter, steps: int, messages: int) -> float:
    """Where about UNSEEN of the noise of a schedule is left: a first guess for the grid. [s]"""
    quantile = NormalDist().inv_cdf
    last = jitter.body_median_s * math.exp(jitter.body_sigma * quantile(1 - UNSEEN / messages))
    usual = jitter.body_median_s * math.exp(jitter.body_sigma * quantile(0.99))
    met = UNSEEN / messages / max(jitter.detour_probability, 1e-300)
    detour_s = 0.0
    if met < 1:
        z = min(-quantile(max(met, 1e-30)), 9.0)
        length_s = jitter.detour_median_s * math.exp(jitter.detour_sigma * z)
        often_s = steps * min(jitter.detour_probability, 0.5) * jitter.detour_median_s
        detour_s = min(length_s, jitter.detour_cap_s) + often_s
    return 1.25 * detour_s + last + steps * usual


def grown(grid: Grid) -> Grid:
    """Twice as long: with more cells as long as there may be, then with longer ones."""
    if 2 * grid.cells <= MOST_CELLS:
        return Grid(grid.step_s, 2 * grid.cells)
    return Grid(2 * grid.step_s, grid.cells)


def _law(costs: Costs, hops: Sequence[Law], grid: Grid) -> Law:
    """Without launch and base."""
    schedule = costs.schedule
    copies_replace = schedule.collective is Collective.ALL_REDUCE
    graph = graph_of(costs, copies_replace=copies_replace, gated=False)
    if not graph.steps:
        return point(grid, 0.0)
    laws = Laws(grid, hops)
    waist = waist_of(graph)
    law = _latest(laws_at_waist(graph, laws, waist))
    if _has_tree_cones(costs):
        cones = laws_at_waist(graph, laws, len(graph.steps), shares=False)
        law = no_earlier_than_each(law, [cone for cone, _ in cones])
    if not _channels_meet(costs):
        return law
    gated = graph_of(costs, copies_replace=copies_replace, gated=True)
    high = _latest(laws_at_waist(gated, Laws(grid, hops), waist, shares=False))
    return bracketed(greatest([(law, 1), (point(grid, floor_s(costs, hops)), 1)]), high)


def floor_s(costs: Costs, hops: Sequence[Law]) -> float:
    """The least that the schedule can take: every message at its jitter's least. [s]"""
    least_s = np.array([min(hop.origin_s, 0.0) for hop in hops])
    rounds = tuple(replace(c, wire_s=c.wire_s + least_s[c.jitter]) for c in costs.rounds)
    return noiseless_s(replace(costs, rounds=rounds, launch_s=0.0, base_s=0.0)) * (1 - 1e-12)


def _latest(terms: Sequence[tuple[Law, int]]) -> Law:
    return greatest(terms)


def _has_tree_cones(costs: Costs) -> bool:
    schedule = costs.schedule
    is_power = schedule.ranks & (schedule.ranks - 1) == 0
    return schedule.algorithm == "recursive_doubling" or (schedule.algorithm == "pat" and is_power)


def _channels_meet(costs: Costs) -> bool:
    """Whether a vertex sends on one channel after it has sent on another: the first may hold it."""
    schedule = costs.schedule
    if schedule.channels == 1 or not any(cost.bandwidth_s.any() for cost in costs.rounds):
        return False
    sent_on = np.full(schedule.vertices, _NONE)
    for round_ in (cost.round for cost in costs.rounds):
        before = sent_on[round_.source]
        if ((before != _NONE) & (before != round_.channel)).any():
            return True
        sent_on[round_.source] = round_.channel
        several = sent_on[round_.source] != round_.channel
        sent_on[round_.source[several]] = _SEVERAL
    return False


_NONE: Final = -1
_SEVERAL: Final = -2


def summed_up(law: Law) -> ExactLaw:
    """Percentiles of a law."""
    bracket: dict[str, tuple[float, float | None]] = {}
    central: dict[str, float | None] = {}
    for name, q in PERCENTILES.items():
        low, high = law.quantile(q)
        bracket[name] = (low, None if high == math.inf else high)
        central[name] = None if high == math.inf else (low + high) / 2
    return ExactLaw(law, bracket, central, sum(law.mean_s) / 2, law.beyond + law.error)

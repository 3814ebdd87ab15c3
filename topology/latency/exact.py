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
from functools import lru_cache
from statistics import NormalDist
from typing import Final

import numpy as np

from topology.errors import ScheduleError
from topology.fabric.link_figures import Jitter
from topology.latency.cost import Costs, RoundCost
from topology.latency.law import (
    Grid,
    Law,
    bracketed,
    greatest,
    no_earlier_than_each,
    point,
)
from topology.latency.law_graph import graph_of, waist_of
from topology.latency.law_grid import PILOT_CELLS, fitting_grid, piloted
from topology.latency.law_noise import FINER, noise_law, one_row_noise_law
from topology.latency.law_passes import Laws, laws_at_waist
from topology.latency.law_rows import FloatArray
from topology.latency.monte_carlo import noiseless_s
from topology.latency.noise import MessageNoise
from topology.latency.summary import PERCENTILES
from topology.words import Collective

RESOLUTION: Final = 0.004
"""The steps of a schedule together may round by this part of its time."""

UNSEEN: Final = 1e-6
"""The grid ends where about this chance is left."""

COARSE: Final = 1.2
"""A bracket is too wide from this times RESOLUTION on; finer cells are finer by that at least."""

CLOSER_CELLS: Final = 2**13
"""Cells of a grid that is laid for percentiles which the whole one is too coarse for."""

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
    and by rounding; the bracket contains it. ``laws``: of the one time; the first reaches farthest,
    others are finer and certify what they reach.
    """

    laws: tuple[Law, ...]
    bracket: dict[str, tuple[float, float | None]]
    central_s: dict[str, float | None]
    mean_s: float
    mass_lost: float

    def width_ratio(self, name: str) -> float:
        """Width of a percentile's bracket, as a part of its lower end; inf if it has no upper."""
        low, high = self.bracket[name]
        return math.inf if high is None else (high - low) / low

    def quantile(self, q: float) -> tuple[float, float]:
        """What all laws certify of the q-quantile; the upper end is inf beyond the grid. [s]"""
        return _bracket(self.laws, q)

    def middle(self) -> tuple[FloatArray, FloatArray]:
        """Times and P(later), each of shape (m,): in the middle of what all laws certify. [s]

        On the cells of the finest law up to its end, then on those of the next.
        """
        return _middle(self.laws)


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
    plan = last_plan_of(costs)
    grid = chosen_grid(plan, jitters)
    for _ in range(MOST_GROWTH):
        law = _law(plan, jitters, grid)
        if law.error > MOST_ERROR:
            text = "so many messages wait for each other that products of laws say nothing"
            raise ScheduleError(text, field=costs.schedule.algorithm, remedy=REMEDY)
        if law.beyond <= MOST_LOST:
            break
        grid = grown(grid)
    start_s = costs.launch_s + costs.base_s
    return summed_up([law.shifted(start_s) for law in [law, *_closer(plan, jitters, law)]])


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Formulas of a schedule's laws, to be worked out on any grid: numbers, and how many of each.

    ``latest``: the completion is the latest of them. ``cones``: each is no later than that.
    ``held``: the latest of these bounds it from above where channels wait for each other.
    ``own_s``: each step's least message, without noise. [s]
    """

    costs: Costs
    laws: Laws
    latest: list[tuple[int, int]]
    cones: list[int]
    held: list[tuple[int, int]] | None
    own_s: float = 0.0

    @property
    def has_one_row(self) -> bool:
        """Whether the upper bounds of all laws are the lower ones, only later."""
        return not (self.laws.has_shared or self.cones or self.held)


def plan_of(costs: Costs) -> Plan:
    """The formulas of a schedule that ``why_not_exact`` has no objection to."""
    copies_replace = costs.schedule.collective is Collective.ALL_REDUCE
    graph = graph_of(costs, copies_replace=copies_replace, gated=False)
    laws, cones, held = Laws(), list[int](), None
    if not graph.steps:
        return Plan(costs, laws, [(0, 1)], cones, held)
    waist = waist_of(graph)
    latest = laws_at_waist(graph, laws, waist)
    if _has_tree_cones(costs):
        cones = [cone for cone, _ in laws_at_waist(graph, laws, len(graph.steps), shares=False)]
    if _channels_meet(costs):
        gated = graph_of(costs, copies_replace=copies_replace, gated=True)
        held = laws_at_waist(gated, laws, waist, shares=False)
    own_s = sum(float(c.message_s.min()) for c in costs.rounds if len(c.message_s))
    return Plan(costs, laws, latest, cones, held, own_s)


last_plan_of = lru_cache(maxsize=1)(plan_of)
"""The same; kept until the next, as one schedule is asked for under several noises in a row."""


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
    for number, jitter in enumerate(jitters):
        earliest_s = jitter.body_median_s * bool(jitter.body_sigma) * (1 - 1e-9)
        if earliest_s and any(_own_s(cost, number) < earliest_s for cost in costs.rounds):
            name = costs.classes[number]
            return f"a message over {name} could arrive before it has left: its jitter exceeds it"
    return None


def _own_s(cost: RoundCost, jitter: int) -> float:
    """The least time of a round's messages of a route class, without their bytes. [s]"""
    own_s = cost.wire_s + cost.software_s
    return float(own_s.min(where=cost.jitter == jitter, initial=math.inf))


def _most_uses(costs: Costs) -> int:
    """In how many steps a link is used at most; in one where there is but one channel."""
    schedule = costs.schedule
    if schedule.channels == 1 or not costs.rounds:
        return 1
    rounds = [cost.round for cost in costs.rounds]
    links = [np.unique(r.source * schedule.vertices + r.destination) for r in rounds]
    return int(np.unique(np.concatenate(links), return_counts=True)[1].max())


def chosen_grid(plan: Plan, jitters: Sequence[Jitter]) -> Grid:
    """Cells fine enough for the schedule's steps together, and so many that little lies beyond.

    A pilot on few cells tells where the law ends, and how long cells may be where noise makes the
    time longer than it is without.
    """
    costs = plan.costs
    steps, messages = max(costs.schedule.steps, 1), max(costs.schedule.messages, 1)
    end_s = max((noise_end_s(jitter, steps, messages) for jitter in jitters), default=0.0)
    step_s = finest_s(plan)
    if end_s <= PILOT_CELLS * step_s:
        return Grid(step_s, max(64, math.ceil(end_s / step_s)))
    pilot = piloted(lambda grid: _law(plan, jitters, grid), end_s=2 * end_s, last=1 - 2 * UNSEEN)
    return fitting_grid(
        pilot,
        resolution=RESOLUTION,
        last=1 - 2 * UNSEEN,
        finest_s=step_s,
        most_cells=MOST_CELLS,
    )


def finest_s(plan: Plan) -> float:
    """Cells that all steps together round the time without noise by RESOLUTION with. [s]"""
    wider = 1 + plan.has_one_row / FINER
    steps = max(plan.costs.schedule.steps, 1)
    return max(RESOLUTION * plan.own_s / wider / steps, 1e-12)


def _closer(plan: Plan, jitters: Sequence[Jitter], law: Law) -> list[Law]:
    """The same law on shorter and finer grids, where one that reaches rare detours is too coarse.

    Each certifies the percentiles that it reaches: what is beyond counts as its end, or as never.
    """
    closer: list[Law] = []
    for q in PERCENTILES.values():
        for _ in range(MOST_GROWTH):
            grid = _closer_grid(plan, [law, *closer], q)
            if grid is None:
                break
            # Of one row, the lower bound loses more where much lies beyond the grid.
            closer.append(_law_of(plan, [noise_law(grid, jitter) for jitter in jitters], grid))
    return closer


def _closer_grid(plan: Plan, laws: Sequence[Law], q: float) -> Grid | None:
    """A grid that narrows a percentile's bracket and reaches those after it that it can."""
    (low, high), finest = _bracket(laws, q), min(law.grid.step_s for law in laws)
    if high == math.inf or high - low <= COARSE * RESOLUTION * low:
        return None
    step_s = max(finest_s(plan), RESOLUTION * low * finest / (high - low))
    step_s = max(step_s, (high - laws[0].origin_s) / (CLOSER_CELLS - 1))
    if step_s > finest / COARSE:
        return None
    ends = [_bracket(laws, other)[1] - laws[0].origin_s for other in PERCENTILES.values()]
    end_s = max(end for end in ends if end <= step_s * CLOSER_CELLS)
    return Grid(step_s, max(64, math.ceil(end_s / step_s) + 1))


def _bracket(laws: Sequence[Law], q: float) -> tuple[float, float]:
    """What all laws of one time certify together."""
    brackets = [law.quantile(q) for law in laws]
    return max(low for low, _ in brackets), min(high for _, high in brackets)


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


def _law(plan: Plan, jitters: Sequence[Jitter], grid: Grid) -> Law:
    """Without launch and base."""
    of_hop = one_row_noise_law if plan.has_one_row else noise_law
    return _law_of(plan, [of_hop(grid, jitter) for jitter in jitters], grid)


def _law_of(plan: Plan, hops: Sequence[Law], grid: Grid) -> Law:
    laws = plan.laws.worked_out(grid, hops)
    law = _latest(laws, plan.latest)
    if plan.cones:
        law = no_earlier_than_each(law, [laws[cone] for cone in plan.cones])
    if plan.held is None:
        return law
    floor = point(grid, floor_s(plan.costs, hops))
    return bracketed(greatest([(law, 1), (floor, 1)]), _latest(laws, plan.held))


def _latest(laws: Sequence[Law], numbers: Sequence[tuple[int, int]]) -> Law:
    return greatest([(laws[number], count) for number, count in numbers])


def floor_s(costs: Costs, hops: Sequence[Law]) -> float:
    """The least that the schedule can take: every message at its jitter's least. [s]"""
    least_s = np.array([min(hop.origin_s, 0.0) for hop in hops])
    rounds = tuple(replace(c, wire_s=c.wire_s + least_s[c.jitter]) for c in costs.rounds)
    return noiseless_s(replace(costs, rounds=rounds, launch_s=0.0, base_s=0.0)) * (1 - 1e-12)


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


def summed_up(laws: Sequence[Law]) -> ExactLaw:
    """Percentiles of laws of one time, the first of which reaches farthest."""
    bracket: dict[str, tuple[float, float | None]] = {}
    central: dict[str, float | None] = {}
    for name, q in PERCENTILES.items():
        low, high = _bracket(laws, q)
        bracket[name] = (low, None if high == math.inf else high)
        central[name] = None if high == math.inf else (low + high) / 2
    mass_lost = laws[0].beyond + laws[0].error
    return ExactLaw(tuple(laws), bracket, central, _mean_s(laws), mass_lost)


def _mean_s(laws: Sequence[Law]) -> float:
    """The first time plus the sum of P(later), without what lies beyond. [s]"""
    time_s, later = _middle(laws)
    within = np.maximum(later - laws[0].beyond / 2, 0.0)
    return float(time_s[0] + np.diff(time_s) @ within[:-1])


def _middle(laws: Sequence[Law]) -> tuple[FloatArray, FloatArray]:
    times_s: list[FloatArray] = []
    reached_s = -math.inf
    for law in sorted(laws, key=lambda law: law.grid.step_s):
        cells_s = law.atoms(0)[0]
        times_s.append(cells_s[cells_s > reached_s])
        reached_s = max(reached_s, float(cells_s[-1]))
    time_s = np.concatenate(times_s)
    tails = np.stack([law.tails_at(time_s) for law in laws])
    return time_s, (tails[:, 0].max(axis=0) + tails[:, 1].min(axis=0)) / 2

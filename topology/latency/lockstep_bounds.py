"""Lockstep bounds: certified percentiles of any schedule in lockstep, such as a pairwise exchange.

Each rank gets one message a step: ``T(i, k+1) = max(T(i, k), T(j, k)) + X``. Below: the slowest of
the ranks' own paths, which share no message; where all hops are alike also one path that at each
step goes to the slower of its two hops. Above: a barrier after every step, or the union over all
2^(K-1) paths to each rank, whichever is tighter. All hold at any size; none is an estimate.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from topology.errors import ScheduleError
from topology.latency.cost import Costs
from topology.latency.exact import MOST_CELLS, noise_end_s
from topology.latency.law import Grid, Law, greatest, point
from topology.latency.law_graph import Kind, kinds_of
from topology.latency.law_noise import noise_law
from topology.latency.law_rows import FloatArray
from topology.latency.noise import MessageNoise
from topology.latency.ring_bounds import Atoms, HopColumns, hop_law, least_bound_s, log_moment
from topology.latency.summary import PERCENTILES

CELLS: Final = MOST_CELLS // 4
Path = tuple[tuple[Kind, int], ...]
"""Kinds of hops with how many of each: along a way, or side by side in a step."""


@dataclass(frozen=True, slots=True, eq=False)
class Lockstep:
    """A schedule's steps by what they are made of, and its ranks by their own paths."""

    ranks: int
    steps: Counter[Path]
    paths: Counter[Path]

    @property
    def count(self) -> int:
        """Steps of it all."""
        return self.steps.total()


def lockstep_brackets_s(
    costs: Costs, noises: Sequence[MessageNoise]
) -> dict[str, tuple[float, float]]:
    """A certified range of each percentile; launch and base included. [s]

    Raises:
        ScheduleError: not in lockstep, or a rank gets several messages in a step, or none.
    """
    lockstep = lockstep_of(costs)
    grid = _grid(lockstep, noises)
    hops = [noise_law(grid, noise.jitter) for noise in noises]
    below, above = _own_paths(lockstep, hops, grid), _barriers(lockstep, hops, grid)
    start_s = costs.launch_s + costs.base_s
    brackets = {}
    for name, q in PERCENTILES.items():
        low = max(law.quantile(q)[0] for law in below)
        high = min(above.quantile(q)[1], all_paths_s(lockstep, noises, q))
        brackets[name] = (low + start_s, high + start_s)
    return brackets


def lockstep_of(costs: Costs) -> Lockstep:
    """The steps and the own paths of a schedule in lockstep.

    Raises:
        ScheduleError: not in lockstep, or a rank gets several messages in a step, or none.
    """
    schedule = costs.schedule
    steps: Counter[Path] = Counter()
    got: list[Counter[Kind]] = [Counter() for _ in range(schedule.ranks)]
    everyone = np.arange(schedule.ranks)
    for cost in costs.rounds:
        round_ = cost.round
        if not round_.lockstep or not np.array_equal(np.sort(round_.destination), everyone):
            text = "not every rank gets one message at every step, in lockstep"
            raise ScheduleError(text, field=schedule.algorithm, remedy="use --method monte_carlo")
        place, kinds = kinds_of(cost)
        counts = np.bincount(place, minlength=len(kinds)).tolist()
        steps[tuple(zip(kinds, counts, strict=True))] += round_.repeats
        for rank, kind in zip(round_.destination.tolist(), place.tolist(), strict=True):
            got[rank][kinds[kind]] += round_.repeats
    return Lockstep(schedule.ranks, steps, Counter(tuple(sorted(own.items())) for own in got))


def _grid(lockstep: Lockstep, noises: Sequence[MessageNoise]) -> Grid:
    steps = lockstep.count
    messages = lockstep.ranks * steps
    ends_s = [noise_end_s(noise.jitter, steps, messages) for noise in noises]
    return Grid(max([1e-12, *(2 * end_s / CELLS for end_s in ends_s)]), CELLS)


def _hop(kind: Kind, hops: Sequence[Law]) -> Law:
    return hops[kind.jitter].shifted(kind.message_s)


def _along(path: Path, hops: Sequence[Law], grid: Grid) -> Law:
    """The sum of the hops of a path."""
    law = point(grid, 0.0)
    for kind, count in path:
        law = law.plus(_hop(kind, hops).times(count))
    return law


def _own_paths(lockstep: Lockstep, hops: Sequence[Law], grid: Grid) -> list[Law]:
    """Laws that the completion is no earlier than."""
    own = [(_along(path, hops, grid), count) for path, count in lockstep.paths.items()]
    below = [greatest(own)]
    if len(lockstep.steps) == 1 and len(next(iter(lockstep.steps))) == 1 and lockstep.ranks > 2:
        ((kind, _),) = next(iter(lockstep.steps))
        hop = _hop(kind, hops)
        below.append(hop.greatest_of(2).times(lockstep.count - 1).plus(hop))
    return below


def _barriers(lockstep: Lockstep, hops: Sequence[Law], grid: Grid) -> Law:
    """The law of a barrier after every step."""
    law = point(grid, 0.0)
    for step, repeats in lockstep.steps.items():
        law = law.plus(greatest([(_hop(kind, hops), n) for kind, n in step]).times(repeats))
    return law


def all_paths_s(lockstep: Lockstep, noises: Sequence[MessageNoise], q: float) -> float:
    """At most the q-quantile, by the union over all paths. [s]

    ``P(T > t) <= n 2^(K-1) exp(-h t) prod M_k``, M_k the greatest moment E exp(h X) of a step.
    """
    n, steps = lockstep.ranks, lockstep.count
    base_s = sum(
        max(kind.message_s for kind, _ in step) * repeats
        for step, repeats in lockstep.steps.items()
    )
    longest_s = [max(kind.message_s for kind, _ in step) for step in lockstep.steps]

    def log_sum(atoms: Sequence[Atoms], tilt: float) -> float:
        moments = [log_moment(value_s, mass, tilt) for value_s, mass in atoms]
        logs = [
            repeats * max(moments[k.jitter] + tilt * (k.message_s - most_s) for k, _ in step)
            for (step, repeats), most_s in zip(lockstep.steps.items(), longest_s, strict=True)
        ]
        return math.log(n) + (steps - 1) * math.log(2) + math.fsum(logs)

    none: FloatArray = np.zeros(len(noises))
    columns = HopColumns(none, np.arange(len(noises)), [hop_law(x.jitter) for x in noises])
    return base_s + least_bound_s(columns, log_sum, ranks=n, steps=steps, q=q)

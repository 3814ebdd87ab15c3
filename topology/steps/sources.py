"""Sources: where the times of one collective on one shape of group are drawn from.

Replay where it takes seconds; else the certified law where messages form trees, or the law of
growth of long rings; where neither applies, a pool of replays that is drawn from again and again.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.collective.placement import Placement
from topology.errors import ScheduleError, WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.latency.cost import RoundCost
from topology.latency.exact import exact_law, why_not_exact
from topology.latency.noise import MessageNoise
from topology.latency.scaling import RingTime, ring_from_costs, ring_time
from topology.latency.scenario import Scenario
from topology.latency.setting import Setting, settle
from topology.words import MethodName

FloatArray: TypeAlias = NDArray[np.float64]

CHUNK: Final = 2**22
"""Draws made at once: 32 MiB."""

TABLE_POINTS: Final = 513
RAREST: Final = 1e-7
"""Nothing rarer is drawn from a table of quantiles."""


Draws: TypeAlias = Callable[[int], FloatArray]
"""Makes so many independent completion times. [s]"""

Told: TypeAlias = Callable[[int], None]
"""Told how much more work is done, in messages."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One collective on one shape of group, its way chosen. ``seeds``: of each run of replays."""

    setting: Setting
    seeds: Iterator[int]

    @property
    def is_noisy(self) -> bool:
        """Whether its time differs from draw to draw."""
        return not self.setting.is_silent

    @property
    def noiseless_s(self) -> float:
        """Time without noise. [s]"""
        return self.setting.choice.noiseless_s

    @property
    def messages(self) -> int:
        """Noisy messages of one replay."""
        return self.setting.choice.schedule.messages if self.is_noisy else 0

    def is_like(self, other: "Source") -> bool:
        """Whether another's times have the same law: the same messages, each costing the same."""
        mine, its = (source.setting for source in (self, other))
        a, b = mine.choice.costs, its.choice.costs
        ends = (a.launch_s, a.base_s, a.classes) == (b.launch_s, b.base_s, b.classes)
        if not ends or mine.scenario != its.scenario or len(a.rounds) != len(b.rounds):
            return False
        return all(map(_are_alike, a.rounds, b.rounds))

    @property
    def noises(self) -> Sequence[MessageNoise]:
        """The noise of each route class."""
        return self.setting.noises(self.setting.scenario.noise)


def _are_alike(a: RoundCost, b: RoundCost) -> bool:
    """Whether two rounds have the same messages at the same cost."""
    one, other = a.round, b.round
    if (one.repeats, one.lockstep, one.channel_shift) != (
        other.repeats,
        other.lockstep,
        other.channel_shift,
    ):
        return False
    pairs = (
        (one.source, other.source),
        (one.destination, other.destination),
        (one.channel, other.channel),
        (a.wire_s, b.wire_s),
        (a.software_s, b.software_s),
        (a.bandwidth_s, b.bandwidth_s),
        (a.jitter, b.jitter),
    )
    return all(np.array_equal(mine, its) for mine, its in pairs)


def find_source(fabric: Fabric, placement: Placement, scenario: Scenario, number: int) -> Source:
    """How a collective goes on the ranks of one group; ``number``: of this source in its step.

    Raises:
        ScheduleError: the named algorithm does not do this here.
        WorkloadError: the stack does not run on these ranks.
        UnreachableError: ranks that no known link joins.
    """
    return Source(settle(fabric, placement, scenario), seeds_of(scenario.seed, number))


def seeds_of(seed: int, number: int) -> Iterator[int]:
    """A seed for each run of replays of a source; the very first is the step's own.

    So a step of one collective draws what ``simulate`` draws for it.

    >>> next(seeds_of(7, 0)), next(seeds_of(7, 1)) != 7
    (7, True)
    """
    for run in count():
        if number == run == 0:
            yield seed
        else:
            words = np.random.SeedSequence(seed, spawn_key=(number, run)).generate_state(2)
            yield int(words[0]) << 32 | int(words[1])


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """How a source's times are drawn.

    ``table``: chances and times of its law, each of shape (m,), where none is replayed. ``pool``:
    so many replays are drawn from again and again; None: every draw is a replay of its own.
    """

    method: MethodName
    table: tuple[FloatArray, FloatArray] | None = None
    pool: int | None = None


def law_of(source: Source) -> Recipe | None:
    """A source's law without replay: certified where messages form trees, or of a long ring."""
    costs, noises = source.setting.choice.costs, source.noises
    try:
        if why_not_exact(costs, [noise.jitter for noise in noises]) is None:
            return Recipe(MethodName.EXACT, _exact_table(source))
        ring = ring_time(ring_from_costs(costs, noises), np.random.default_rng(next(source.seeds)))
    except (WorkloadError, ScheduleError):
        return None
    return Recipe(MethodName.SCALING, _scaling_table(ring))


def _exact_table(source: Source) -> tuple[FloatArray, FloatArray]:
    """Chances and times of the certified law, in the middle of its bracket."""
    time_s, later = exact_law(source.setting.choice.costs, source.noises).middle()
    return _rising(1 - later, time_s)


def _scaling_table(ring: RingTime) -> tuple[FloatArray, FloatArray]:
    """Chances and times of a long ring, closer together in the tail."""
    tail: FloatArray = np.logspace(-2, np.log10(RAREST), TABLE_POINTS // 4)
    body: FloatArray = np.linspace(1e-4, 0.99, TABLE_POINTS)
    chance = np.concatenate([body, 1 - tail[1:]])
    return _rising(chance, np.array([ring.quantile_s(q) for q in chance]))


def _rising(chance: FloatArray, time_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Without the points that tell nothing new: for these the inverse has no one value."""
    rises = np.concatenate([[True], np.diff(chance) > 0])
    return chance[rises], time_s[rises]


def pool_of(source: Source, recipe: Recipe, told: Told) -> FloatArray | None:
    """The replays that are drawn from again and again, shape (pool,), if the recipe says so. [s]"""
    return None if recipe.pool is None else _replayed(source, told, recipe.pool)


def pool_error_s(pool: FloatArray, *, groups: int, operations: int) -> float:
    """By how much a pool may put off a step, at 95 %: its error is the same in every trial. [s]

    ``1.96 operations s / sqrt(pool / groups)``, s the deviation of the latest of the groups, as if
    all operations were on the path that decides the end.
    """
    rows = max(len(pool) // groups, 1)
    latest = np.resize(pool, (rows, groups)).max(axis=1)
    return 1.96 * operations * float(latest.std()) / math.sqrt(rows)


def draws_of(source: Source, recipe: Recipe, pool: FloatArray | None, told: Told) -> Draws:
    """Draws of a source's times by a recipe; without noise always the same."""
    if not source.is_noisy:
        return lambda wanted: np.full(wanted, source.noiseless_s)
    if recipe.table is None and pool is None:
        return partial(_replayed, source, told)
    rng = np.random.default_rng(next(source.seeds))
    if recipe.table is not None:
        chance, time_s = recipe.table
        return lambda wanted: np.interp(rng.random(wanted), chance, time_s)
    assert pool is not None, "without a law it is a pool"
    return lambda wanted: pool[rng.integers(len(pool), size=wanted)]


def _replayed(source: Source, told: Told, trials: int) -> FloatArray:
    """A run of replays."""
    before = 0

    def tell(done: int, _: int) -> None:
        nonlocal before
        told((done - before) * source.messages)
        before = done

    case = source.setting.case(source.setting.scenario.noise, trials)
    return replace(case, seed=next(source.seeds)).samples_s(progress=tell)


@dataclass(slots=True, eq=False)
class Supply:
    """Draws handed out in order; made in large chunks, so that few are made in vain."""

    draws: Draws
    left: int
    _ready: FloatArray = field(default_factory=lambda: np.empty(0))
    _taken: int = 0

    def take(self, wanted: int) -> FloatArray:
        """The next so many, shape (wanted,). [s]"""
        ready = self._ready[self._taken : self._taken + wanted]
        self._taken += len(ready)
        missing = wanted - len(ready)
        if not missing:
            return ready
        made = max(missing, min(self.left, CHUNK))
        self._ready, self._taken = self.draws(made), missing
        self.left -= made
        return np.concatenate([ready, self._ready[:missing]])

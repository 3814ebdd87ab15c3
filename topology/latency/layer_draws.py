"""Layer draws: which units the noise layers hit in each trial, batch by batch.

Every layer has a stream of its own: switching one on or off changes no draw of another, nor of the
messages. ``round_draws`` says what becomes of the messages.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.latency.cost import Costs
from topology.latency.flow_collisions import Uplinks
from topology.latency.keyed_draws import KeyArray, delays_s, uniforms, unit_keys
from topology.latency.noise_layers import Layers
from topology.words import NoiseLayer

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Bursts:
    """Bursts that were drawn, each hitting one unit in one trial from its first step on. [s]

    ``unit_of``: the unit of each vertex.
    """

    unit_of: IntArray
    unit: IntArray
    trial: IntArray
    first: IntArray
    length_s: FloatArray

    def at(self, step: int, *, steps: int) -> "Bursts":
        """Those at work in a step, each ``steps`` long."""
        here = (self.first <= step) & (step < self.first + steps)
        columns = (self.unit[here], self.trial[here], self.first[here], self.length_s[here])
        return Bursts(self.unit_of, *columns)


class LayerDraws:
    """The layers of one run: their streams, and what does not change from trial to trial.

    The generator's own numbers are not touched: every stream is a child of its seed.
    """

    def __init__(self, layers: Layers, costs: Costs, rng: np.random.Generator) -> None:
        streams = dict(zip(NoiseLayer, rng.spawn(len(NoiseLayer)), strict=True))
        keys = {name: rng.integers(2**64, dtype=np.uint64) for name, rng in streams.items()}
        self.layers, self.costs = layers, costs
        self.places, self.rows = layers.places, layers.rows
        self.key = keys
        self.stalls = streams[NoiseLayer.STALL]
        self.ranks, self.hosts = unit_keys(self.places.ranks), unit_keys(self.places.hosts)
        self.leaves = unit_keys(self.places.leaves)
        self.uplinks = Uplinks(self.places, self.rows.collision, keys[NoiseLayer.COLLISION])
        calm = np.isin(self.places.hosts, list(layers.calm_hosts))
        self.is_calm_vertex = np.append(calm, False)[self.places.host_of]
        self._done = 0

    def batch(self, trials: int) -> "BatchDraws":
        """The next trials."""
        numbers = np.arange(self._done, self._done + trials, dtype=np.uint64)
        self._done += trials
        return BatchDraws(self, numbers)

    def is_on(self, layer: NoiseLayer) -> bool:
        """Whether a layer is switched on."""
        return layer in self.layers.on


class BatchDraws:
    """The units that the layers hit in the trials of one batch.

    ``episode``, ``slow``: time over usual time, less 1, of each host and of nowhere, shape
    (hosts + 1, trials); None: of none. ``step``: steps that are done.
    """

    def __init__(self, draws: LayerDraws, trials: KeyArray) -> None:
        self.draws, self.trials = draws, trials
        self.episode = _with_nowhere(self._episode_excess())
        self.slow = _with_nowhere(self._slow_excess())
        self.bursts = self._bursts()
        self.step = 0

    def start_s(self) -> FloatArray | None:
        """How much later each rank starts, shape (ranks, trials); None: none does. [s]"""
        draws, row = self.draws, self.draws.rows.skew
        if not draws.is_on(NoiseLayer.SKEW) or not row.median_s:
            return None
        late_s = delays_s(draws.key[NoiseLayer.SKEW], draws.ranks, self.trials, row)
        late_s[draws.is_calm_vertex[: len(late_s)]] = 0.0
        return late_s

    def _episode_excess(self) -> FloatArray | None:
        draws, row = self.draws, self.draws.rows.episode
        chance = draws.layers.chance_of_episode()
        if not draws.is_on(NoiseLayer.EPISODE) or not chance:
            return None
        key = draws.key[NoiseLayer.EPISODE]
        is_hit = uniforms(key, draws.hosts, self.trials) < chance
        speed = uniforms(~key, draws.hosts, self.trials)
        speed *= row.most_speed_ratio - row.least_speed_ratio
        return np.asarray(is_hit * (1.0 / (row.least_speed_ratio + speed) - 1.0))

    def _slow_excess(self) -> FloatArray | None:
        draws, row = self.draws, self.draws.rows.slow
        if not draws.is_on(NoiseLayer.SLOW) or row.speed_ratio == 1.0:
            return None
        named = draws.layers.slow_hosts
        if named is None:
            drawn = uniforms(draws.key[NoiseLayer.SLOW], draws.hosts, self.trials)
            is_slow = drawn < row.share_ratio
        else:
            listed = np.isin(draws.places.hosts, list(named))
            is_slow = np.repeat(listed[:, None], len(self.trials), axis=1)
        return np.asarray(is_slow * (1.0 / row.speed_ratio - 1.0))

    def _bursts(self) -> list[Bursts]:
        draws, row = self.draws, self.draws.rows.correlated
        if not draws.is_on(NoiseLayer.CORRELATED) or not row.median_s:
            return []
        places, key = draws.places, draws.key[NoiseLayer.CORRELATED]
        return [
            self._burst(key, places.leaf_of, draws.leaves, row.leaf_probability),
            self._burst(~key, places.host_of, draws.hosts, row.host_probability),
        ]

    def _burst(
        self, key: np.uint64, unit_of: IntArray, units: KeyArray, probability: float
    ) -> Bursts:
        """Bursts of one operation: a chance for each ``steps`` of its steps, at least one chance.

        A unit has one burst at most; of a long operation that could meet several, the first.
        """
        row = self.draws.rows.correlated
        spare = max(self.draws.costs.schedule.steps - row.steps, 0)
        chance = -np.expm1(np.log1p(-probability) * (1.0 + spare / row.steps))
        unit, trial = np.nonzero(uniforms(key, units, self.trials) < chance)
        begins = uniforms(key ^ np.uint64(1), units, self.trials)[unit, trial]
        length_s = delays_s(key ^ np.uint64(2), units, self.trials, row)[unit, trial]
        return Bursts(unit_of, unit, trial, (begins * (spare + 1)).astype(np.int64), length_s)


def _with_nowhere(excess: FloatArray | None) -> FloatArray | None:
    """With a last row for what is on no host; None where no host is hit."""
    if excess is None or not excess.any():
        return None
    return np.concatenate([excess, np.zeros((1, excess.shape[1]))])

"""Flow collisions: messages of one step that a hash puts on the same uplink, like balls into bins.

A connection keeps its uplinks for the whole operation. Where each leaf has one cable to each spine,
the uplink that a flow takes also decides on which downlink it arrives; elsewhere that is assumed.
"""

from math import exp
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.collective.schedule import Round
from topology.fabric.noise_layer_figures import CollisionRow
from topology.latency.keyed_draws import KeyArray, mixed, uniforms, unit_keys, words
from topology.latency.noise_layers import Places, RoundPlaces

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

_TURN: Final = np.uint64(0xD6E8FEB86659FD93)
_SMALLEST: Final = 1e-12


class Uplinks:
    """The uplinks and downlinks of a placement's leaves, and how a hash fills them."""

    def __init__(self, places: Places, row: CollisionRow, key: np.uint64) -> None:
        self._places, self._row, self._key = places, row, key
        self._ranks = unit_keys(places.ranks)
        self._width = int(places.uplinks.max(initial=1))
        self._bins = unit_keys(
            [f"{leaf} {i}" for leaf in places.leaves for i in range(self._width)]
        )
        self._others_cdf = _poisson_cdf(row.other_flows)

    def stretch(self, round_: Round, here: RoundPlaces, trials: KeyArray) -> FloatArray | None:
        """Bandwidth time with collisions over without, >= 1, shape (m, trials); None: none can be.

        A message is done when the last flow is that shares a bin with one of its own.
        """
        hashed = np.flatnonzero(here.uplink_s > 0)
        if not len(hashed) or not self._row.queue_pairs:
            return None
        flows = np.repeat(hashed, self._row.queue_pairs)
        fullest_s = self._fullest_s(round_, flows, here.uplink_s[flows], trials)
        shape = (len(hashed), self._row.queue_pairs, len(trials))
        stretch = np.ones((len(here.uplink_s), len(trials)))
        of_message = fullest_s.reshape(shape).max(axis=1) / here.needed_s[hashed, None]
        stretch[hashed] = np.maximum(of_message, 1.0)
        return stretch

    def _fullest_s(
        self, round_: Round, flows: IntArray, message_s: FloatArray, trials: KeyArray
    ) -> FloatArray:
        """Load of the fuller of the two bins of each flow, shape (flows, trials). [s]"""
        flow_s = message_s / self._row.queue_pairs
        source, destination = round_.source[flows], round_.destination[flows]
        word = words(self._key, self._flow_keys(source, destination), trials)
        fullest = np.zeros((len(flows), len(trials)))
        for side, rank in enumerate((source, destination)):
            bins = self._bin(rank, word) * len(trials) + np.arange(len(trials))
            size = len(self._bins) * len(trials)
            weights = np.broadcast_to(flow_s[:, None], bins.shape)
            ours_s = np.bincount(bins.ravel(), weights.ravel(), minlength=size)
            load = ours_s + float(flow_s.mean()) * self._others(side, trials).ravel()
            np.maximum(fullest, load[bins], out=fullest)
        return fullest

    def _flow_keys(self, source: IntArray, destination: IntArray) -> KeyArray:
        """A key for each flow of each connection; flows of one connection lie in a row."""
        connection = mixed(self._ranks[source]) + self._ranks[destination]
        number = np.arange(len(source), dtype=np.uint64) % np.uint64(self._row.queue_pairs)
        return np.asarray(mixed(connection) + number * _TURN)

    def _bin(self, rank: IntArray, word: KeyArray) -> IntArray:
        """Number of the bin at a rank's leaf, shape (flows, trials)."""
        leaf = self._places.leaf_of[rank]
        way = (word >> np.uint64(11)) % self._places.uplinks[leaf, None].astype(np.uint64)
        return np.asarray(leaf[:, None] * self._width + way.astype(np.int64))

    def _others(self, side: int, trials: KeyArray) -> FloatArray:
        """Other jobs' flows in each bin: Poisson, shape (bins, trials)."""
        if len(self._others_cdf) == 1:
            return np.zeros((len(self._bins), len(trials)))
        drawn = uniforms(self._key ^ np.uint64(side + 1), self._bins, trials)
        return np.searchsorted(self._others_cdf, drawn, side="right").astype(np.float64)


def _poisson_cdf(mean: float) -> FloatArray:
    """P(at most k) for k = 0, 1 ... as far as it matters; of mean 0 a single 1."""
    chance, total, cdf = exp(-mean), exp(-mean), [exp(-mean)]
    while 1.0 - total > _SMALLEST:
        chance *= mean / len(cdf)
        total += chance
        cdf.append(total)
    return np.array(cdf)

"""Round draws: what the noise layers add to the messages of one round in the trials of a batch.

What touches few trials is reckoned for those alone; nothing is done where nothing is hit.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.latency.cost import RoundCost
from topology.latency.keyed_draws import lengths_s
from topology.latency.layer_draws import BatchDraws, Bursts
from topology.latency.noise_layers import RoundPlaces
from topology.words import NoiseLayer

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

PROPOSED: Final = 2.0**-6
"""Stalls are proposed this often and kept in part: those of a quiet profile stay in a noisy one."""


@dataclass(frozen=True, slots=True, eq=False)
class Slower:
    """What slow hosts, episodes and collisions add, shape (m, trials hit). [s]

    ``trials``: those that are hit. ``bandwidth_s``: the part of it that holds the sender's link.
    """

    trials: IntArray | slice
    message_s: FloatArray
    bandwidth_s: FloatArray


class RoundDraws:
    """A round's messages, in the order of a plan, under the layers of a batch."""

    def __init__(self, batch: BatchDraws, number: int, order: IntArray) -> None:
        draws = batch.draws
        cost, here = draws.costs.rounds[number], draws.places.rounds[number]
        source, destination = cost.round.source, cost.round.destination
        calm = draws.is_calm_vertex
        self._batch, self._order = batch, order
        self._ends = source, destination
        self._is_heard = ~(calm[source] | calm[destination])
        self._is_delayed = here.is_network & self._is_heard
        self._delayed = order[self._is_delayed[order]]
        self._slower = self._slower_by(cost, here)
        self._stalls = self._posted(here) if draws.is_on(NoiseLayer.STALL) else None

    def hold(self, start_s: FloatArray) -> None:
        """Add stalls to the times at which messages start, in place; once a step. [s]"""
        if self._stalls is None or not len(self._stalls.senders):
            return
        row, rng = self._batch.draws.rows.stall, self._batch.draws.stalls
        size = len(self._stalls.senders) * start_s.shape[1]
        proposed = max(PROPOSED, row.probability)
        count = rng.binomial(size, proposed)
        where = rng.choice(size, size=count, replace=False, shuffle=False)
        kept = rng.random(count) * proposed < row.probability
        length_s = lengths_s(rng.standard_normal(count), row)[kept]
        sender, trial = np.divmod(where[kept], start_s.shape[1])
        message, stall = self._stalls.messages_of(sender)
        heard_s = length_s[stall] * self._is_heard[self._order][message]
        start_s[message, trial[stall]] += heard_s

    def slowed_link(self, left_s: FloatArray) -> FloatArray:
        """Times at which messages have left their sender, changed in place. [s]"""
        if self._slower is not None:
            left_s[:, self._slower.trials] += self._slower.bandwidth_s
        return left_s

    def delay(self, arrival_s: FloatArray) -> None:
        """Add slow links and bursts to the times at which messages arrive; once a step. [s]"""
        batch = self._batch
        if self._slower is not None:
            arrival_s[:, self._slower.trials] += self._slower.message_s
        steps = batch.draws.rows.correlated.steps
        for bursts in batch.bursts:
            now = bursts.at(batch.step, steps=steps)
            if len(now.trial) and len(self._delayed):
                self._add(now, arrival_s)
        batch.step += 1

    def _add(self, bursts: Bursts, arrival_s: FloatArray) -> None:
        trials, column = np.unique(bursts.trial, return_inverse=True)
        delay_s = np.zeros((int(bursts.unit_of.max()) + 1, len(trials)))
        delay_s[bursts.unit, column] = bursts.length_s
        source, destination = (bursts.unit_of[end[self._delayed]] for end in self._ends)
        message_s = np.maximum(delay_s[source], delay_s[destination])
        rows = self._is_delayed[self._order].nonzero()[0]
        arrival_s[np.ix_(rows, trials)] += message_s

    def _slower_by(self, cost: RoundCost, here: RoundPlaces) -> Slower | None:
        batch = self._batch
        stretch = self._stretch(cost, here)
        trials = _hit_trials([batch.episode, batch.slow], stretch)
        if trials is None:
            return None
        link_s = cost.bandwidth_s[:, None] * self._is_delayed[:, None]
        wire_s = cost.wire_s[:, None] * self._is_delayed[:, None]
        bandwidth_s = link_s * (stretch - 1.0) if stretch is not None else 0.0 * link_s
        episode, slow = (self._excess(of, trials) for of in (batch.episode, batch.slow))
        bandwidth_s = bandwidth_s + link_s * episode
        message_s = bandwidth_s + wire_s * episode
        own_s = cost.message_s[:, None] * self._is_heard[:, None]
        message_s = message_s + own_s * slow
        bandwidth_s = bandwidth_s + cost.bandwidth_s[:, None] * self._is_heard[:, None] * slow
        return Slower(trials, message_s[self._order], bandwidth_s[self._order])

    def _stretch(self, cost: RoundCost, here: RoundPlaces) -> FloatArray | None:
        draws = self._batch.draws
        if not draws.is_on(NoiseLayer.COLLISION) or not cost.bandwidth_s.any():
            return None
        return draws.uplinks.stretch(cost.round, here, self._batch.trials)

    def _excess(self, of_host: FloatArray | None, trials: IntArray | slice) -> FloatArray | float:
        """By how much the slower end of each message is slower, (m, trials hit)."""
        if of_host is None:
            return 0.0
        host_of, hit = self._batch.draws.places.host_of, of_host[:, trials]
        return np.asarray(np.maximum(*(hit[host_of[end]] for end in self._ends)))

    def _posted(self, here: RoundPlaces) -> "_Senders":
        """What a CPU posts: ranks' messages over the network; a switch's leave by themselves."""
        source = self._ends[0]
        is_posted = here.is_network & (source < len(self._batch.draws.places.ranks))
        return _Senders(np.flatnonzero(is_posted[self._order]), source[self._order])


class _Senders:
    """The messages of each rank that sends over the network."""

    def __init__(self, messages: IntArray, source: IntArray) -> None:
        order = np.argsort(source[messages], kind="stable")
        self._messages = messages[order]
        self.senders, self._counts = np.unique(source[messages], return_counts=True)
        self._starts = np.concatenate([[0], np.cumsum(self._counts)[:-1]]).astype(np.int64)

    def messages_of(self, senders: IntArray) -> tuple[IntArray, IntArray]:
        """All messages of some senders, and whose each is: its place among those asked for."""
        counts = self._counts[senders]
        asked = np.repeat(np.arange(len(senders)), counts)
        within = np.arange(len(asked)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self._messages[self._starts[senders][asked] + within], asked


def _hit_trials(
    hosts: list[FloatArray | None], stretch: FloatArray | None
) -> IntArray | slice | None:
    """Trials in which a host or a collision slows anything; None if in none."""
    if stretch is not None:
        return slice(None)
    hit = [of.any(axis=0) for of in hosts if of is not None]
    return np.flatnonzero(np.logical_or.reduce(hit)) if hit else None

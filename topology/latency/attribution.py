"""Attribution: who makes the tail. Each cause is taken away, with the same draws; p99 tells.

A cause is a link class or kind, a way between two nodes, a node or a layer of the noise. Its noise
is still drawn, so that every other message keeps its own, but not added. Links take their messages'
jitter with them; what befalls hosts, leaves and uplinks is a layer's, and goes with that or a node.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import cycle
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.errors import WorkloadError
from topology.latency.cost import Costs, RoundCost
from topology.latency.monte_carlo import Noise, Progress, noiseless_s, sample_s
from topology.latency.noise import MessageNoise
from topology.latency.noise_layers import Layers
from topology.latency.trace_noise import TraceNoise
from topology.words import NoiseLayer

FloatArray: TypeAlias = NDArray[np.float64]
BoolArray: TypeAlias = NDArray[np.bool_]

P99: Final = 0.99

MOST_NODES: Final = 16
"""Nodes that are taken away one by one; of more, each has about the share 1 / nodes."""

MOST_LINKS: Final = 16
"""Ways between two nodes that are taken away one by one."""

BETWEEN: Final = "+"
"""Joins the names of two nodes to that of the way between them."""


class CauseKind(StrEnum):
    """What a cause is."""

    LINK_CLASS = "link_class"
    LINK_KIND = "link_kind"
    LINK = "link"
    NODE = "node"
    LAYER = "layer"


class Layer(StrEnum):
    """A layer of a message's noise: its jitter's body, or its rare detours."""

    BODY = "body"
    DETOUR = "detour"


@dataclass(frozen=True, slots=True)
class Cause:
    """Something whose noise can be taken away, by its name."""

    kind: CauseKind
    name: str


@dataclass(frozen=True, slots=True)
class Attribution:
    """p99 without a cause's noise. [s]

    ``share``: part of what noise adds to p99 that goes with the cause:
    ``(p99 - p99_without) / (p99 - noiseless)``. Shares need not sum to 1: where either of two
    causes alone holds an operation up, taking one away helps little.
    """

    kind: CauseKind
    name: str
    p99_without_s: float
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A simulated case: costs, one noise for each of their classes, and who is who.

    ``hosts``: host of each rank. ``kind_of``: link kind of each route class, by its name.
    ``layers``: noise beyond single messages, None for none.
    """

    costs: Costs
    noises: Sequence[Noise]
    hosts: Sequence[str]
    kind_of: Mapping[str, str]
    trials: int
    seed: int
    layers: Layers | None = None

    def samples_s(
        self, without: Cause | None = None, progress: Progress | None = None
    ) -> FloatArray:
        """Completion times, shape (trials,), with or without a cause; always the same draws. [s]"""
        noises = self.noises if without is None else noises_without(self, without)
        return sample_s(
            self.costs,
            noises,
            trials=self.trials,
            rng=np.random.default_rng(self.seed),
            progress=progress,
            layers=layers_without(self.layers, without),
        )


def attribute(
    case: Case, samples_s: FloatArray | None = None, progress: Progress | None = None
) -> list[Attribution]:
    """What p99 becomes without each cause, the largest share first. Replays once for each cause.

    ``samples_s``: the case's own completion times, if they are known already. ``progress`` is told
    how many causes are done.
    """
    samples_s = case.samples_s() if samples_s is None else samples_s
    p99_s = float(np.quantile(samples_s, P99))
    calm_s = noiseless_s(case.costs)
    causes, rows = causes_of(case), []
    for number, cause in enumerate(causes, start=1):
        rows.append(_row(cause, case, p99_s, calm_s))
        if progress is not None:
            progress(number, len(causes))
    return sorted(rows, key=lambda row: (-row.share, row.kind, row.name))


def _row(cause: Cause, case: Case, p99_s: float, calm_s: float) -> Attribution:
    without_s = float(np.quantile(case.samples_s(cause), P99))
    share = (p99_s - without_s) / (p99_s - calm_s) if p99_s > calm_s else 0.0
    return Attribution(cause.kind, cause.name, without_s, share)


def causes_of(case: Case) -> list[Cause]:
    """All that can be taken away from a case; nodes and ways between them only where few."""
    kinds = dict.fromkeys(case.kind_of[name] for name in case.costs.classes if name in case.kind_of)
    hosts, links = dict.fromkeys(case.hosts), links_of(case)
    return [
        *(Cause(CauseKind.LINK_CLASS, name) for name in case.costs.classes),
        *(Cause(CauseKind.LINK_KIND, kind) for kind in kinds),
        *(Cause(CauseKind.NODE, host) for host in hosts if 1 < len(hosts) <= MOST_NODES),
        *(Cause(CauseKind.LINK, link) for link in links if 1 < len(links) <= MOST_LINKS),
        *(Cause(CauseKind.LAYER, layer.value) for layer in Layer if not _has_trace(case)),
        *(Cause(CauseKind.LAYER, layer.value) for layer in NoiseLayer if layer in _on(case)),
    ]


def _has_trace(case: Case) -> bool:
    """Whether a noise was measured whole: nobody can tell its body from its detours."""
    return any(isinstance(noise, TraceNoise) for noise in case.noises)


def links_of(case: Case) -> list[str]:
    """Ways between two nodes that messages go, by their names in order, joined by a plus."""
    host_of = _host_of(case)
    pairs: set[tuple[str, str]] = set()
    for cost in case.costs.rounds:
        ends = np.stack([cost.round.source, cost.round.destination], axis=1)
        for a, b in np.unique(ends, axis=0).tolist():
            if host_of[a] and host_of[b] and host_of[a] != host_of[b]:
                pairs.add((min(host_of[a], host_of[b]), max(host_of[a], host_of[b])))
    return [BETWEEN.join(pair) for pair in sorted(pairs)]


def _host_of(case: Case) -> list[str]:
    """Host of every vertex; switches that reduce have none."""
    return [*case.hosts, *[""] * case.costs.schedule.switches]


def _on(case: Case) -> frozenset[NoiseLayer]:
    return case.layers.on if case.layers is not None else frozenset()


def find_cause(case: Case, name: str) -> Cause:
    """The node, way between two nodes, link class, link kind or layer of a name.

    Raises:
        WorkloadError: nothing here has that name.
    """
    nodes = [Cause(CauseKind.NODE, host) for host in dict.fromkeys(case.hosts)]
    few = [c for c in causes_of(case) if c.kind not in (CauseKind.NODE, CauseKind.LINK)]
    for cause in [*nodes, *few]:
        if cause.name == name:
            return cause
    link = BETWEEN.join(sorted(name.split(BETWEEN)))
    if link in links_of(case):
        return Cause(CauseKind.LINK, link)
    shown = [cause.name for cause in few]
    raise WorkloadError(
        f"{name}: no node, link or layer of this run",
        field="--without",
        remedy=f"use a host, two as a{BETWEEN}b, or one of {', '.join(shown)}",
    )


def noises_without(case: Case, cause: Cause) -> list[Noise]:
    """The noises of a case without a cause; every draw is made as with it."""
    names = case.costs.classes
    match cause.kind:
        case CauseKind.LINK_CLASS:
            silent = [name == cause.name for name in names]
        case CauseKind.LINK_KIND:
            silent = [case.kind_of.get(name) == cause.name for name in names]
        case CauseKind.LAYER if cause.name in _BEYOND_MESSAGES:
            return list(case.noises)
        case CauseKind.LAYER:
            return [_without_layer(noise, Layer(cause.name)) for noise in case.noises]
        case CauseKind.NODE:
            return _without_messages(case, partial(_touches, case, cause.name))
        case CauseKind.LINK:
            return _without_messages(case, partial(_goes_between, case, cause.name))
    pairs = zip(case.noises, silent, strict=True)
    return [_Silent(noise) if is_silent else noise for noise, is_silent in pairs]


_BEYOND_MESSAGES: Final = frozenset(layer.value for layer in NoiseLayer)


def layers_without(layers: Layers | None, cause: Cause | None) -> Layers | None:
    """The layers of a case without a cause; every draw is made as with it."""
    if layers is None or cause is None:
        return layers
    if cause.kind is CauseKind.LAYER and cause.name in _BEYOND_MESSAGES:
        return layers.without(NoiseLayer(cause.name))
    return layers.without_host(cause.name) if cause.kind is CauseKind.NODE else layers


@dataclass(frozen=True, slots=True, eq=False)
class _Silent:
    """Draws what a noise draws, and adds nothing."""

    noise: Noise

    def add_to(self, arrival_s: FloatArray, rng: np.random.Generator) -> None:
        self.noise.add_to(np.zeros_like(arrival_s), rng)


@dataclass(frozen=True, slots=True, eq=False)
class _Masked:
    """Draws what a noise draws, and adds it to some rows; ``kept`` gives them call by call.

    The replay calls a noise once at each step that has messages of its class, batch after batch.
    """

    noise: Noise
    kept: Iterator[BoolArray]

    def add_to(self, arrival_s: FloatArray, rng: np.random.Generator) -> None:
        drawn_s = np.zeros_like(arrival_s)
        self.noise.add_to(drawn_s, rng)
        kept = next(self.kept)
        arrival_s[kept] += drawn_s[kept]


def _touches(case: Case, host: str, cost: RoundCost) -> BoolArray:
    """Which messages of a round a host sends or receives."""
    is_there = np.array([name == host for name in _host_of(case)], dtype=np.bool_)
    return np.asarray(is_there[cost.round.source] | is_there[cost.round.destination])


def _goes_between(case: Case, link: str, cost: RoundCost) -> BoolArray:
    """Which messages of a round go from one of two nodes to the other."""
    a, b = (
        np.array([name == host for name in _host_of(case)], dtype=np.bool_)
        for host in link.split(BETWEEN)
    )
    source, destination = cost.round.source, cost.round.destination
    return np.asarray((a[source] & b[destination]) | (b[source] & a[destination]))


def _without_messages(case: Case, is_silent: Callable[[RoundCost], BoolArray]) -> list[Noise]:
    """Some messages go without noise."""
    calls: list[list[BoolArray]] = [[] for _ in case.noises]
    for cost in case.costs.rounds:
        kept = ~is_silent(cost)
        for number in np.unique(cost.jitter).tolist():
            calls[number] += [kept[cost.jitter == number]] * cost.round.repeats
    pairs = zip(case.noises, calls, strict=True)
    return [_Masked(noise, cycle(masks)) for noise, masks in pairs]


def _without_layer(noise: Noise, layer: Layer) -> Noise:
    """A noise with one layer of length 0; others than a message's have no layers."""
    if not isinstance(noise, MessageNoise):
        return noise
    match layer:
        case Layer.DETOUR:
            jitter = noise.jitter.model_copy(update={"detour_median_s": 0.0})
            return replace(noise, jitter=jitter)
        case Layer.BODY:
            jitter = noise.jitter.model_copy(update={"body_median_s": 0.0})
            return MessageNoise(jitter, np.zeros_like(noise.body_s))

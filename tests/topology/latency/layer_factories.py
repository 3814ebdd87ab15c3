"""Makes what the tests of noise layers need: made-up figures, places, and cases by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.topology.latency.factories import (
    FloatArray,
    fabric_of,
    make_jitter,
    schedule_of,
    uniform_costs,
)
from topology.collective.schedule import Schedule, round_of
from topology.fabric.noise_layer_figures import (
    CollisionRow,
    CorrelatedRow,
    EpisodeRow,
    SkewRow,
    SlowRow,
    StallRow,
)
from topology.latency.cost import Costs
from topology.latency.monte_carlo import noiseless_s, sample_s
from topology.latency.noise import message_noise
from topology.latency.noise_layers import (
    LayerRows,
    Layers,
    Places,
    RoundPlaces,
    layer_rows,
)
from topology.words import Collective, NoiseLayer, NoiseName

BoolArray = NDArray[np.bool_]
ALPHA_S = 1e-6
TRIALS = 20_000
SILENT = message_noise(make_jitter())
FIGURES = fabric_of("dgx-h100 node:1").figures
NONE = layer_rows(FIGURES, NoiseName.NONE)
TOLD: dict[str, Any] = {"sources": ("E1",), "basis": "made up for a test", "confidence": "guess"}
ROWS = {
    NoiseLayer.SKEW: SkewRow(median_s=3e-6, sigma=0.8, cap_s=1e-3, **TOLD),
    NoiseLayer.STALL: StallRow(median_s=9e-6, sigma=0.5, cap_s=1e-3, probability=0.01, **TOLD),
    NoiseLayer.EPISODE: EpisodeRow(
        rate_per_s=1e-4, duration_s=500, least_speed_ratio=0.4, most_speed_ratio=0.8, **TOLD
    ),
    NoiseLayer.SLOW: SlowRow(share_ratio=0.02, speed_ratio=0.8, **TOLD),
    NoiseLayer.CORRELATED: CorrelatedRow(
        median_s=5e-6,
        sigma=0.5,
        cap_s=1e-3,
        leaf_probability=0.05,
        host_probability=0.03,
        steps=4,
        **TOLD,
    ),
    NoiseLayer.COLLISION: CollisionRow(queue_pairs=1, other_flows=0.25, **TOLD),
}
ALL_ROWS = LayerRows(**{layer.value: row for layer, row in ROWS.items()})


def places_for(
    costs: Costs, *, gpus: int = 1, leaves: int = 1, uplinks: int = 4, network: bool = True
) -> Places:
    """Ranks in hosts of ``gpus``, leaves in blocks of hosts."""
    schedule = costs.schedule
    hosts = -(-schedule.ranks // gpus)
    rank = np.arange(schedule.vertices)
    host_of = np.where(rank < schedule.ranks, rank // gpus, hosts)
    leaf_of = np.where(host_of < hosts, host_of * leaves // hosts, leaves)
    return Places(
        ranks=tuple(f"host{i // gpus}:{i % gpus}" for i in range(schedule.ranks)),
        hosts=tuple(f"host{i}" for i in range(hosts)),
        leaves=tuple(f"leaf{i}" for i in range(leaves)),
        host_of=host_of,
        leaf_of=leaf_of,
        uplinks=np.full(leaves, uplinks),
        rounds=tuple(
            RoundPlaces(
                is_network=np.full(cost.round.transfers, network),
                uplink_s=(leaf_of[cost.round.source] != leaf_of[cost.round.destination])
                * np.ones(cost.round.transfers),
                needed_s=np.ones(cost.round.transfers),
            )
            for cost in costs.rounds
        ),
    )


def layers_for(
    costs: Costs, *names: NoiseLayer, rows: LayerRows = ALL_ROWS, **where: Any
) -> Layers:
    return Layers(frozenset(names), rows, places_for(costs, **where))


def rows_with(row: Any) -> LayerRows:
    """Nothing but one layer."""
    name = next(layer.value for layer, known in ROWS.items() if type(known) is type(row))
    return replace(NONE, **{name: row})


def changed(layer: NoiseLayer, **changes: float) -> LayerRows:
    """One layer's made-up figures with some others; nothing else."""
    return rows_with(ROWS[layer].model_copy(update=changes))


def samples_of(
    costs: Costs, layers: Layers | None, *, trials: int = TRIALS, seed: int = 5
) -> FloatArray:
    rng = np.random.default_rng(seed)
    return sample_s(costs, [SILENT], trials=trials, rng=rng, layers=layers)


def chain(hops: int) -> Costs:
    """A message handed on from rank to rank."""
    schedule = chain_of([round_of([i], [i + 1]) for i in range(hops)], hops + 1)
    return uniform_costs(schedule, alpha_s=ALPHA_S)


def chain_of(rounds: Sequence[Any], ranks: int) -> Schedule:
    return Schedule(
        collective=Collective.SENDRECV,
        algorithm="by hand",
        ranks=ranks,
        switches=0,
        channels=1,
        chunk_fraction=1.0,
        owner=np.zeros(1, dtype=np.int64),
        rounds=tuple(rounds),
    )


def at_once(source: Sequence[int], destination: Sequence[int], ranks: int, **cost: float) -> Costs:
    """One step of messages that wait for nothing."""
    schedule = chain_of([round_of(source, destination)], ranks)
    return uniform_costs(schedule, **{"alpha_s": ALPHA_S, **cost})


def pairs(hosts: int, **cost: float) -> Costs:
    """Each host sends to the next, all at once."""
    ranks = list(range(hosts))
    return at_once(ranks, [*ranks[1:], 0], hosts, **cost)


def is_late(samples_s: FloatArray, costs: Costs) -> BoolArray:
    """Trials that took longer than without noise."""
    return np.asarray(samples_s > noiseless_s(costs) * (1 + 1e-12))


def assert_chance(seen: BoolArray, chance: float) -> None:
    """As often as a chance says, within 4 standard errors."""
    error = math.sqrt(chance * (1 - chance) / len(seen))
    assert seen.mean() == pytest.approx(chance, abs=4 * error)


def leaf_to_leaf(flows: int) -> Costs:
    """As many hosts of one leaf send to as many of the other, nothing but bandwidth."""
    senders, receivers = range(flows), range(flows, 2 * flows)
    return at_once(senders, receivers, 2 * flows, alpha_s=0.0, size_bytes=1.0, bytes_per_s=1.0)


def noisy_ring() -> Costs:
    return uniform_costs(
        schedule_of("ring", 8), alpha_s=ALPHA_S, size_bytes=8.0, bytes_per_s=2e6, launch_s=4e-6
    )

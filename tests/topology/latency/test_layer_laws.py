"""Noise beyond messages: what must never change, whichever layers are on; places of a fabric."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.topology.latency.factories import (
    FloatArray,
    Recorder,
    exponential,
    fabric_of,
    make_jitter,
    schedule_of,
    uniform_costs,
)
from tests.topology.latency.layer_factories import (
    ALL_ROWS,
    ALPHA_S,
    NONE,
    ROWS,
    at_once,
    chain_of,
    changed,
    layers_for,
    noisy_ring,
    pairs,
    rows_with,
    samples_of,
)
from topology.collective.placement import pack
from topology.collective.schedule import round_of
from topology.errors import WorkloadError
from topology.fabric.route_table import RouteMap
from topology.latency.layer_draws import LayerDraws
from topology.latency.monte_carlo import noiseless_s, sample_s
from topology.latency.noise import message_noise
from topology.latency.noise_layers import Layers, layers_of, places_of
from topology.words import NoiseLayer, NoiseName


@pytest.mark.parametrize("algorithm", ["ring", "tree", "recursive_doubling", "nvls"])
def test_layers_of_zeros_are_the_closed_form_to_the_last_bit(algorithm: str) -> None:
    costs = uniform_costs(
        schedule_of(algorithm, 8), alpha_s=ALPHA_S, size_bytes=8.0, bytes_per_s=2e6
    )
    layers = layers_for(costs, *NoiseLayer, rows=NONE, leaves=2)
    assert set(samples_of(costs, layers, trials=20).tolist()) == {noiseless_s(costs)}


def test_no_layer_switched_on_changes_no_bit() -> None:
    costs = noisy_ring()
    noise = [message_noise(make_jitter(body_median_s=1e-7, body_sigma=0.5))]
    rows = [
        sample_s(costs, noise, trials=100, rng=np.random.default_rng(2), layers=layers)
        for layers in (None, layers_for(costs))
    ]
    assert rows[0].tobytes() == rows[1].tobytes()


@pytest.mark.parametrize("layer", NoiseLayer)
def test_a_layer_changes_no_draw_of_the_messages(layer: NoiseLayer) -> None:
    costs = noisy_ring()
    recorders = [Recorder(exponential), Recorder(exponential)]
    for recorder, names in zip(recorders, ((), (layer,)), strict=True):
        layers = layers_for(costs, *names, leaves=2)
        rng = np.random.default_rng(3)
        sample_s(costs, [recorder], trials=50, rng=rng, layers=layers)
    assert all((a == b).all() for a, b in zip(recorders[0].added, recorders[1].added, strict=True))


@pytest.mark.parametrize("layer", NoiseLayer)
def test_a_layer_changes_no_draw_of_another(layer: NoiseLayer) -> None:
    """Late by what one layer alone adds, where the others are on but cannot touch anything."""
    costs = noisy_ring()
    names = [NoiseLayer(layer), *NoiseLayer]
    alone, among = (
        samples_of(costs, layers_for(costs, *on, rows=rows_with(ROWS[layer]), leaves=2), trials=400)
        for on in (names[:1], names)
    )
    assert alone.tobytes() == among.tobytes()
    assert (alone > noiseless_s(costs)).any()


@pytest.mark.parametrize("layer", NoiseLayer)
def test_a_layer_makes_no_trial_earlier(layer: NoiseLayer) -> None:
    costs = noisy_ring()
    noise = [message_noise(make_jitter(body_median_s=1e-7, body_sigma=0.5))]
    others = frozenset(NoiseLayer) - {layer}
    less, more = (
        sample_s(costs, noise, trials=400, rng=np.random.default_rng(2), layers=layers)
        for layers in (
            layers_for(costs, *others, leaves=2),
            layers_for(costs, *NoiseLayer, leaves=2),
        )
    )
    assert (more >= less * (1 - 1e-12)).all()
    assert (more > less).any()


@pytest.mark.parametrize(
    ("layer", "changes"),
    [
        (NoiseLayer.SKEW, {"median_s": 5e-6}),
        (NoiseLayer.STALL, {"median_s": 20e-6}),
        (NoiseLayer.STALL, {"probability": 0.014}),
        (NoiseLayer.EPISODE, {"duration_s": 2_000.0}),
        (NoiseLayer.EPISODE, {"least_speed_ratio": 0.2}),
        (NoiseLayer.SLOW, {"share_ratio": 0.1}),
        (NoiseLayer.SLOW, {"speed_ratio": 0.5}),
        (NoiseLayer.CORRELATED, {"leaf_probability": 0.2}),
        (NoiseLayer.CORRELATED, {"median_s": 50e-6}),
        (NoiseLayer.COLLISION, {"other_flows": 2.0}),
    ],
)
def test_more_of_a_layer_makes_no_trial_earlier(
    layer: NoiseLayer, changes: dict[str, float]
) -> None:
    """Same draws: what is hit seldom is hit, too, where more is."""
    costs = noisy_ring()
    less, more = (
        samples_of(costs, layers_for(costs, layer, rows=rows, leaves=2), trials=1_000)
        for rows in (rows_with(ROWS[layer]), changed(layer, **changes))
    )
    assert (more >= less * (1 - 1e-12)).all()
    assert (more > less).any()


def test_fewer_trials_are_the_first_of_more() -> None:
    costs = noisy_ring()
    layers = layers_for(costs, *NoiseLayer, leaves=2)
    few, many = (samples_of(costs, layers, trials=trials) for trials in (37, 5_000))
    assert few.tobytes() == many[:37].tobytes()


def test_same_seed_same_trials_and_another_seed_others() -> None:
    costs = noisy_ring()
    layers = layers_for(costs, *NoiseLayer, leaves=2)
    a, b, c = (samples_of(costs, layers, trials=100, seed=seed) for seed in (1, 1, 2))
    assert a.tobytes() == b.tobytes()
    assert (a != c).any()


def test_a_host_fares_alike_in_every_placement_that_has_it() -> None:
    """Common random numbers between candidates: by name, not by place in a list."""
    few, many = pairs(3), pairs(9)
    drawn = [
        LayerDraws(layers_for(c, *NoiseLayer), c, np.random.default_rng(7)).batch(2_000)
        for c in (few, many)
    ]
    for name in ("episode", "slow"):
        a, b = (getattr(of, name) for of in drawn)
        assert a.any()
        assert (a[:3] == b[:3]).all()
    starts = [of.start_s() for of in drawn]
    assert starts[0] is not None
    assert starts[1] is not None
    assert (starts[0] == starts[1][:3]).all()


def test_without_a_host_nothing_of_it_is_left_and_the_others_keep_theirs() -> None:
    costs = at_once([0, 2], [1, 3], 4)
    layers = layers_for(costs, *NoiseLayer, rows=replace(ALL_ROWS, collision=NONE.collision))
    only_last = layers.without_host("host0").without_host("host1")
    nobody = only_last.without_host("host2").without_host("host3")
    full, part, none = (
        samples_of(costs, which, trials=3_000) for which in (layers, only_last, nobody)
    )
    assert (none == noiseless_s(costs)).all()
    assert (part <= full).all()
    assert (part == full).any()
    assert (part < full).any()
    assert (part > none).any()


# On a fabric.


def fabric_layers(spec: str, ranks: int, **named: Any) -> Layers:
    fabric = fabric_of(spec)
    placement = pack(fabric, ranks)
    routes = RouteMap(fabric, placement.endpoints)
    schedule = schedule_of("ring", ranks)
    words = {"noise": NoiseName.CONTENDED, "names": NoiseLayer, **named}
    layers = layers_of(fabric, routes, schedule, **words)
    assert layers is not None
    return layers


def test_places_of_a_fleet_are_its_hosts_and_leaves() -> None:
    places = fabric_layers("dgx-h100 node:4", 32).places
    assert len(places.hosts) == 4
    assert places.host_of.tolist() == [rank // 8 for rank in range(32)]
    assert (places.leaf_of < len(places.leaves)).all()
    assert places.rounds[0].is_network.tolist() == [rank % 8 == 7 for rank in range(32)]


def test_no_layer_and_no_noise_are_none() -> None:
    fabric = fabric_of("dgx-h100 node:2")
    routes = RouteMap(fabric, pack(fabric, 16).endpoints)
    schedule = schedule_of("ring", 16)
    assert layers_of(fabric, routes, schedule, noise=NoiseName.SHARED, names=()) is None
    assert layers_of(fabric, routes, schedule, noise=NoiseName.NONE, names=NoiseLayer) is None


def test_a_slow_host_that_the_map_does_not_have_is_refused() -> None:
    with pytest.raises(WorkloadError, match="no host nowhere"):
        fabric_layers("dgx-h100 node:2", 16, slow_hosts=["nowhere"])


def uplinks_of(routing: str) -> tuple[set[int], FloatArray]:
    """Uplinks of each leaf, and how long one takes a message that crosses, over what it needs."""
    places = fabric_layers(f"dgx-h100 node:64 {routing}", 512).places
    here = places.rounds[0]
    crosses = here.uplink_s > 0
    assert (crosses <= here.is_network).all()
    return set(places.uplinks.tolist()), (here.uplink_s / here.needed_s)[crosses]


def test_switches_that_route_statically_or_do_not_tell_hash_flows_onto_their_uplinks() -> None:
    """32 hosts of a leaf send over its 32 uplinks: each alone takes as long as its NIC needs."""
    uplinks, ratio = uplinks_of("")
    assert uplinks == {32}
    assert ratio == pytest.approx(np.ones(64))


def test_the_mean_share_of_static_routing_is_not_counted_twice() -> None:
    """A message alone on an uplink has all of it: 0.7 of what the mean of static routing needs."""
    uplinks, ratio = uplinks_of("routing:static")
    assert uplinks == {32}
    assert ratio == pytest.approx(np.full(64, 0.7))


def test_adaptive_switches_hash_nothing() -> None:
    assert len(uplinks_of("routing:adaptive")[1]) == 0


def test_legs_to_a_switch_that_reduces_go_by_no_hash() -> None:
    """The vertices behind those of the NVLink domains are switches of the network."""
    fabric = fabric_of("dgx-h100 node:64")
    routes = RouteMap(fabric, pack(fabric, 512).endpoints)
    top = 512 + routes.domain_count
    legs = [round_of([7], [top]), round_of([top], [7])]
    schedule = replace(chain_of(legs, 512), switches=routes.domain_count + 1)
    rounds = places_of(fabric, routes, schedule).rounds
    assert [here.uplink_s.tolist() for here in rounds] == [[0.0], [0.0]]
    assert rounds[0].is_network.all()


def test_collisions_cost_bandwidth_and_spare_small_messages() -> None:
    """With no bytes there is nothing to share; with many, 32 balls in 32 bins."""
    layers = fabric_layers("dgx-h100 node:64", 512, names=[NoiseLayer.COLLISION])
    schedule = schedule_of("ring", 512)
    rounds = tuple(replace(r, repeats=1) for r in schedule.rounds[:1])
    short = replace(schedule, rounds=rounds)
    places = replace(layers.places, rounds=layers.places.rounds[:1])
    layers = replace(layers, places=places)
    small, large = (
        uniform_costs(short, alpha_s=ALPHA_S, size_bytes=size, bytes_per_s=1e9)
        for size in (0.0, 512e6)
    )
    assert set(samples_of(small, layers, trials=8).tolist()) == {ALPHA_S}
    slowed = samples_of(large, layers, trials=64) / noiseless_s(large)
    assert 3 <= np.median(slowed) <= 8

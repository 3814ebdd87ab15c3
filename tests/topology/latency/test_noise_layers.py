"""Noise beyond messages: every layer against its own closed form."""

import math
from collections import Counter
from dataclasses import replace
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest

from tests.topology.latency.factories import (
    assert_share_below,
    make_jitter,
    schedule_of,
    uniform_costs,
)
from tests.topology.latency.layer_factories import (
    ALPHA_S,
    assert_chance,
    at_once,
    chain,
    chain_of,
    changed,
    is_late,
    layers_for,
    leaf_to_leaf,
    pairs,
    samples_of,
)
from topology.collective.schedule import round_of
from topology.latency.cost import Costs
from topology.latency.monte_carlo import noiseless_s, sample_s
from topology.latency.noise import message_noise
from topology.latency.noise_layers import LayerRows
from topology.words import NoiseLayer

quantile = NormalDist().inv_cdf


# Skew.


def test_a_barrier_in_the_switch_ends_with_the_last_of_n_late_starts() -> None:
    """A1: the p-quantile of the maximum of n is F^-1(p^(1/n))."""
    n = 8
    costs = uniform_costs(schedule_of("nvls", n), alpha_s=0.0)
    late_s = samples_of(costs, layers_for(costs, NoiseLayer.SKEW))
    for share in (0.1, 0.5, 0.9, 0.99):
        exact = 3e-6 * math.exp(0.8 * quantile(share ** (1 / n)))
        assert_share_below(late_s, exact, share)


def test_no_rank_starts_later_than_the_cap() -> None:
    costs = uniform_costs(schedule_of("nvls", 4), alpha_s=0.0)
    layers = layers_for(costs, NoiseLayer.SKEW, rows=changed(NoiseLayer.SKEW, cap_s=4e-6))
    late_s = samples_of(costs, layers)
    assert late_s.max() == 4e-6
    one_below = NormalDist().cdf(math.log(4 / 3) / 0.8)
    assert_chance(late_s == 4e-6, 1 - one_below**4)


def test_a_rank_starts_late_on_all_its_channels() -> None:
    """The first rank's start, and a message that is longer than any skew."""
    long = at_once([0], [1], 4, alpha_s=1.0)
    schedule = replace(chain_of([round_of([0], [1], channel=2)], 4), channels=3)
    on_third = uniform_costs(schedule, alpha_s=1.0)
    a, b = (samples_of(c, layers_for(c, NoiseLayer.SKEW), trials=100) for c in (long, on_third))
    assert (a == b).all()
    assert (a > 1.0).all()


# Stalls.


def test_stalls_on_a_chain_are_a_compound_binomial() -> None:
    hops, p, stall_s = 10, 0.1, 7e-6
    costs = chain(hops)
    rows = changed(NoiseLayer.STALL, probability=p, median_s=stall_s, sigma=0.0)
    extra_s = samples_of(costs, layers_for(costs, NoiseLayer.STALL, rows=rows)) - hops * ALPHA_S
    stalls = np.rint(extra_s / stall_s)
    assert extra_s == pytest.approx(stalls * stall_s, abs=1e-12)
    for k in range(5):
        assert_chance(stalls == k, math.comb(hops, k) * p**k * (1 - p) ** (hops - k))


def test_a_stall_holds_every_message_that_a_rank_sends_in_the_step() -> None:
    """One rank sends to five: late with chance p, not 1 - (1 - p)^5; and all five are late."""
    costs = at_once([0] * 5, [1, 2, 3, 4, 5], 6)
    rows = changed(NoiseLayer.STALL, probability=0.2, sigma=0.0)
    done_s = samples_of(costs, layers_for(costs, NoiseLayer.STALL, rows=rows))
    assert_chance(is_late(done_s, costs), 0.2)
    assert set(np.round(done_s * 1e6, 6).tolist()) == {1.0, 10.0}


def test_five_senders_stall_each_for_itself() -> None:
    costs = at_once([0, 1, 2, 3, 4], [5] * 5, 6)
    rows = changed(NoiseLayer.STALL, probability=0.1)
    done_s = samples_of(costs, layers_for(costs, NoiseLayer.STALL, rows=rows))
    assert_chance(is_late(done_s, costs), 1 - 0.9**5)


def test_lengths_of_stalls_follow_their_law_up_to_the_cap() -> None:
    costs = chain(1)
    rows = changed(NoiseLayer.STALL, probability=0.5, cap_s=20e-6)
    late_s = samples_of(costs, layers_for(costs, NoiseLayer.STALL, rows=rows)) - ALPHA_S
    stalls_s = late_s[late_s > 1e-12]
    for share in (0.1, 0.5, 0.9):
        assert_share_below(stalls_s, 9e-6 * math.exp(0.5 * quantile(share)), share)
    assert stalls_s.max() == pytest.approx(20e-6)


@pytest.mark.parametrize("layer", [NoiseLayer.STALL, NoiseLayer.EPISODE, NoiseLayer.CORRELATED])
def test_messages_inside_a_node_know_nothing_of_what_befalls_the_network(
    layer: NoiseLayer,
) -> None:
    costs = uniform_costs(schedule_of("ring", 8), alpha_s=ALPHA_S)
    done_s = samples_of(costs, layers_for(costs, layer, network=False), trials=2_000)
    assert (done_s == noiseless_s(costs)).all()


# Episodes and slow hosts.


def test_the_chance_that_any_of_h_hosts_is_in_an_episode_is_that_of_h_coins() -> None:
    """A host is in one with 1 - exp(-rate x duration): 1 - exp(-0.05)."""
    h, share = 6, 1 - math.exp(-0.05)
    costs = pairs(h)
    done_s = samples_of(costs, layers_for(costs, NoiseLayer.EPISODE))
    assert_chance(is_late(done_s, costs), 1 - (1 - share) ** h)


def test_an_episode_slows_wire_and_bandwidth_but_not_the_software() -> None:
    costs = at_once([0], [1], 2, size_bytes=3.0, bytes_per_s=1e6, software_s=5e-6)
    rows = changed(NoiseLayer.EPISODE, rate_per_s=0.01, least_speed_ratio=0.5, most_speed_ratio=0.5)
    done_s = samples_of(costs, layers_for(costs, NoiseLayer.EPISODE, rows=rows), trials=500)
    assert set(np.round(done_s * 1e6, 6).tolist()) == {2 * (1 + 3) + 5.0}


def test_speed_in_an_episode_is_spread_evenly_between_least_and_most() -> None:
    """Two hosts, both in one: the slower of the two speeds counts."""
    costs = at_once([0], [1], 2)
    rows = changed(NoiseLayer.EPISODE, rate_per_s=1.0)
    slowest = ALPHA_S / samples_of(costs, layers_for(costs, NoiseLayer.EPISODE, rows=rows))
    for share in (0.1, 0.5, 0.9):
        # P(minimum of two <= x) = 1 - (1 - F(x))^2, F even on 0.4 to 0.8.
        assert_share_below(slowest, 0.4 + 0.4 * (1 - math.sqrt(1 - share)), share)


def test_the_chance_that_any_of_h_hosts_is_slow_is_that_of_h_coins() -> None:
    h = 12
    costs = pairs(h)
    done_s = samples_of(costs, layers_for(costs, NoiseLayer.SLOW))
    assert_chance(is_late(done_s, costs), 1 - 0.98**h)
    assert done_s.max() == pytest.approx(ALPHA_S / 0.8)


def test_slow_hosts_that_are_named_are_slow_in_every_trial_and_no_others() -> None:
    costs = pairs(12)
    layers = replace(layers_for(costs, NoiseLayer.SLOW), slow_hosts=frozenset({"host3"}))
    assert samples_of(costs, layers, trials=50) == pytest.approx(ALPHA_S / 0.8)
    nobody = replace(layers, slow_hosts=frozenset())
    assert (samples_of(costs, nobody, trials=50) == noiseless_s(costs)).all()


def test_a_slow_host_that_takes_no_part_changes_no_bit() -> None:
    costs = pairs(12)
    layers = replace(layers_for(costs, NoiseLayer.SLOW), slow_hosts=frozenset({"elsewhere"}))
    noisy = [message_noise(make_jitter(body_median_s=1e-7, body_sigma=0.5))]
    with_it, without = (
        sample_s(costs, noisy, trials=300, rng=np.random.default_rng(1), layers=which)
        for which in (layers, None)
    )
    assert with_it.tobytes() == without.tobytes()


def test_a_slow_host_is_slow_inside_too() -> None:
    costs = uniform_costs(schedule_of("ring", 8), alpha_s=ALPHA_S)
    layers = layers_for(costs, NoiseLayer.SLOW, gpus=8, network=False)
    slow = replace(layers, slow_hosts=frozenset({"host0"}))
    assert samples_of(costs, slow, trials=10) == pytest.approx(noiseless_s(costs) / 0.8)


def two_sends() -> Costs:
    """A rank sends 3 us of bytes to one, then to another: the second waits for the first."""
    schedule = chain_of([round_of([0], [1]), round_of([0], [2])], 3)
    return uniform_costs(schedule, alpha_s=ALPHA_S, size_bytes=3.0, bytes_per_s=1e6)


def test_a_slow_host_holds_its_own_next_message_up() -> None:
    costs = two_sends()
    slow = replace(layers_for(costs, NoiseLayer.SLOW), slow_hosts=frozenset({"host0"}))
    assert noiseless_s(costs) == pytest.approx(2 * 3e-6 + ALPHA_S)
    assert samples_of(costs, slow, trials=5) == pytest.approx((2 * 3e-6 + ALPHA_S) / 0.8)


def test_stalls_of_two_sends_in_a_row_add_up() -> None:
    costs = two_sends()
    rows = changed(NoiseLayer.STALL, probability=0.3, median_s=50e-6, sigma=0.0)
    late_s = samples_of(costs, layers_for(costs, NoiseLayer.STALL, rows=rows)) - noiseless_s(costs)
    stalls = np.round(late_s / 50e-6, 1)
    assert_chance(stalls == 2.0, 0.3 * 0.3)
    # A stall of the first send alone holds the second, too; of the second alone it is its own.
    assert_chance(stalls == 1.0, 2 * 0.3 * 0.7)


# Bursts.


def burst(**changes: float) -> LayerRows:
    told = {"sigma": 0.0, "host_probability": 0.0, "leaf_probability": 0.5, **changes}
    return changed(NoiseLayer.CORRELATED, **told)


def test_a_burst_over_the_whole_operation_delays_every_step_alike() -> None:
    """C7: perfectly correlated steps, T = K (alpha + D) on a ring."""
    costs = uniform_costs(schedule_of("ring", 8), alpha_s=ALPHA_S)
    steps = costs.schedule.steps
    rows = burst(steps=steps)
    done_s = samples_of(costs, layers_for(costs, NoiseLayer.CORRELATED, rows=rows))
    hit = is_late(done_s, costs)
    assert done_s[hit] == pytest.approx(steps * (ALPHA_S + 5e-6))
    assert_chance(hit, 0.5)


def test_a_burst_shorter_than_the_operation_delays_as_many_steps_as_it_lasts() -> None:
    """14 steps, of which 4: the chance is that of 14 / 4 coins."""
    costs = uniform_costs(schedule_of("ring", 8), alpha_s=ALPHA_S)
    rows = burst(leaf_probability=0.1)
    done_s = samples_of(costs, layers_for(costs, NoiseLayer.CORRELATED, rows=rows))
    hit = is_late(done_s, costs)
    assert done_s[hit] == pytest.approx(14 * ALPHA_S + 4 * 5e-6)
    assert_chance(hit, 1 - 0.9 ** (14 / 4))


def test_a_burst_begins_in_any_step_alike() -> None:
    """A burst of one step in an operation of three, of which the last alone uses the network."""
    costs = chain(3)
    rows = burst(steps=1, leaf_probability=0.3)
    layers = layers_for(costs, NoiseLayer.CORRELATED, rows=rows)
    inside, across = (
        replace(layers.places.rounds[0], is_network=np.array([w])) for w in (False, True)
    )
    places = replace(layers.places, rounds=(inside, inside, across))
    done_s = samples_of(costs, replace(layers, places=places))
    assert_chance(is_late(done_s, costs), (1 - 0.7**3) / 3)


def test_a_burst_at_one_leaf_spares_messages_of_the_other() -> None:
    """Pairs within each of four leaves: each is in time with chance 1/2."""
    costs = at_once([0, 2, 4, 6], [1, 3, 5, 7], 8)
    rows = burst()
    done_s = samples_of(costs, layers_for(costs, NoiseLayer.CORRELATED, rows=rows, leaves=4))
    assert_chance(is_late(done_s, costs), 1 - 0.5**4)
    assert done_s.max() == pytest.approx(ALPHA_S + 5e-6)


def test_a_host_and_its_leaf_can_be_hit_at_once() -> None:
    costs = at_once([0], [1], 2)
    rows = burst(host_probability=0.3)
    done_s = samples_of(costs, layers_for(costs, NoiseLayer.CORRELATED, rows=rows))
    bursts = np.rint((done_s - ALPHA_S) / 5e-6)
    hosts = 1 - 0.7**2
    for count, chance in ((0, 0.5 * (1 - hosts)), (1, 0.5), (2, 0.5 * hosts)):
        assert_chance(bursts == count, chance)


# Collisions.


@pytest.mark.parametrize(("flows", "uplinks"), [(2, 2), (4, 4), (5, 3), (3, 8)])
def test_the_fullest_uplink_is_that_of_balls_in_bins(flows: int, uplinks: int) -> None:
    """Every way of throwing the balls counted once."""
    costs = leaf_to_leaf(flows)
    rows = changed(NoiseLayer.COLLISION, other_flows=0.0)
    layers = layers_for(costs, NoiseLayer.COLLISION, rows=rows, leaves=2, uplinks=uplinks)
    load = samples_of(costs, layers)
    throws = product(range(uplinks), repeat=flows)
    fullest = Counter(max(Counter(throw).values()) for throw in throws)
    for count, ways in fullest.items():
        assert_chance(load == count, ways / uplinks**flows)
    assert set(load.tolist()) <= set(fullest)


def test_flows_from_two_leaves_meet_on_the_downlinks_of_a_third() -> None:
    costs = at_once([0, 1], [4, 5], 6, alpha_s=0.0, size_bytes=1.0, bytes_per_s=1.0)
    rows = changed(NoiseLayer.COLLISION, other_flows=0.0)
    layers = layers_for(costs, NoiseLayer.COLLISION, rows=rows)
    places = replace(
        layers.places,
        leaves=("a", "b", "c"),
        leaf_of=np.array([0, 1, 2, 2, 2, 2]),
        uplinks=np.array([4, 4, 4]),
        rounds=tuple(replace(r, uplink_s=np.ones(2)) for r in layers.places.rounds),
    )
    load = samples_of(costs, replace(layers, places=places))
    assert_chance(load == 2, 1 / 4)


def test_flows_of_other_jobs_fill_uplinks_and_downlinks() -> None:
    """One flow alone: undisturbed where both its bins are empty, exp(-2 x mean)."""
    costs = leaf_to_leaf(1)
    layers = layers_for(costs, NoiseLayer.COLLISION, leaves=2)
    load = samples_of(costs, layers)
    assert_chance(load == 1, math.exp(-2 * 0.25))
    at_most_one = math.exp(-0.25) * 1.25
    assert_chance(load <= 2, at_most_one**2)


def test_more_queue_pairs_spread_a_connection() -> None:
    """Two flows each of half a message: 2 on one uplink of 4 is then the worst, 1/64 of all."""
    costs = leaf_to_leaf(2)
    rows = changed(NoiseLayer.COLLISION, queue_pairs=2, other_flows=0.0)
    layers = layers_for(costs, NoiseLayer.COLLISION, rows=rows, leaves=2)
    load = samples_of(costs, layers)
    assert set(load.tolist()) <= {1.0, 1.5, 2.0}
    assert_chance(load == 2.0, 1 / 64)


def test_messages_under_one_leaf_do_not_collide() -> None:
    costs = leaf_to_leaf(4)
    layers = layers_for(costs, NoiseLayer.COLLISION, leaves=1)
    assert (samples_of(costs, layers, trials=200) == 1.0).all()


def test_a_connection_keeps_its_uplinks_from_step_to_step() -> None:
    """The same four messages five times over: five times the same load."""
    one = leaf_to_leaf(4)
    schedule = chain_of([replace(one.schedule.rounds[0], repeats=5)], 8)
    costs = uniform_costs(schedule, alpha_s=0.0, size_bytes=1.0, bytes_per_s=1.0)
    once, five = (
        samples_of(c, layers_for(c, NoiseLayer.COLLISION, leaves=2), trials=300)
        for c in (one, costs)
    )
    assert five == pytest.approx(5 * once)

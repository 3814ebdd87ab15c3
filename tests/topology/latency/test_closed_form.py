"""Closed forms by hand: figures a person can check, and what they must be in the limits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.latency.closed_form import (
    chain_s,
    collnet_chain_s,
    collnet_direct_s,
    direct_s,
    hierarchical_all_to_all_s,
    hierarchical_gather_s,
    in_switch_all_reduce_s,
    one_shot_s,
    pat_s,
    recursive_doubling_s,
    ring_all_reduce_s,
    ring_gather_s,
    sendrecv_s,
    tree_all_reduce_s,
    tree_broadcast_s,
    tree_reduce_s,
    two_shot_s,
)

BY_RANKS = (
    ring_all_reduce_s,
    ring_gather_s,
    tree_broadcast_s,
    tree_all_reduce_s,
    recursive_doubling_s,
    tree_reduce_s,
    chain_s,
    sendrecv_s,
    direct_s,
    one_shot_s,
    two_shot_s,
    pat_s,
)
LINK = {"size_bytes": 1e6, "alpha_s": 1e-6, "bytes_per_s": 1e9}
"""One hop of the whole buffer: 1 us and 1 ms."""


def test_ring_of_four_takes_six_steps_of_a_quarter() -> None:
    assert ring_all_reduce_s(ranks=4, **LINK) == pytest.approx(6 * (1e-6 + 0.25e-3))
    assert ring_gather_s(ranks=4, **LINK) == pytest.approx(3 * (1e-6 + 0.25e-3))


@pytest.mark.parametrize(
    ("ranks", "deep", "turns"), [(2, 1, 1), (3, 1, 2), (4, 2, 2), (5, 2, 3), (8, 3, 3), (9, 3, 4)]
)
def test_broadcast_waits_for_turns_and_for_parents(ranks: int, deep: int, turns: int) -> None:
    assert tree_broadcast_s(ranks=ranks, **LINK) == pytest.approx(deep * 1e-6 + turns * 1e-3)
    both_ways = 2 * deep * 1e-6 + (deep + turns) * 1e-3
    assert tree_all_reduce_s(ranks=ranks, **LINK) == pytest.approx(both_ways)


@pytest.mark.parametrize(("ranks", "steps"), [(2, 1), (4, 2), (64, 6), (3, 3), (63, 7)])
def test_recursive_doubling_folds_what_is_over_a_power_of_two(ranks: int, steps: int) -> None:
    assert recursive_doubling_s(ranks=ranks, **LINK) == pytest.approx(steps * (1e-6 + 1e-3))


def test_in_switch_is_up_and_down_and_more_pieces_hide_the_way_down() -> None:
    one = in_switch_all_reduce_s(size_bytes=1e6, alpha_s=1e-6, bytes_per_s=1e9)
    assert one == pytest.approx(2e-6 + 2e-3)
    ten = in_switch_all_reduce_s(size_bytes=1e6, alpha_s=1e-6, bytes_per_s=1e9, pieces=10)
    assert ten == pytest.approx(2e-6 + 1.1e-3)


def test_a_chain_of_eight_takes_seven_hops_and_pieces_hide_most_of_them() -> None:
    assert chain_s(ranks=8, **LINK) == pytest.approx(7 * (1e-6 + 1e-3))
    assert chain_s(ranks=8, **LINK, pieces=6) == pytest.approx(7e-6 + 2e-3)
    assert chain_s(ranks=2, **LINK, pieces=100) == pytest.approx(1e-6 + 1e-3)


def test_of_four_ranks_one_shot_sends_thrice_the_buffer_and_two_shot_half_of_that() -> None:
    assert sendrecv_s(ranks=4, **LINK) == pytest.approx(1e-6 + 1e-3)
    assert direct_s(ranks=4, **LINK) == pytest.approx(1e-6 + 0.75e-3)
    assert one_shot_s(ranks=4, **LINK) == pytest.approx(1e-6 + 3e-3)
    assert two_shot_s(ranks=4, **LINK) == pytest.approx(2e-6 + 1.5e-3)


@pytest.mark.parametrize(("ranks", "steps"), [(2, 1), (3, 2), (4, 2), (5, 3), (64, 6), (65, 7)])
def test_pat_takes_the_logarithm_of_the_ranks_rounded_up(ranks: int, steps: int) -> None:
    expected = steps * 1e-6 + (ranks - 1) / ranks * 1e-3
    assert pat_s(ranks=ranks, **LINK) == pytest.approx(expected)


@pytest.mark.parametrize(("size", "direct", "chain"), [(1, 2, 2), (2, 4, 4), (8, 4, 16)])
def test_collnet_moves_the_buffer_there_and_back(size: int, direct: int, chain: int) -> None:
    for form_s, hops in ((collnet_direct_s, direct), (collnet_chain_s, chain)):
        assert form_s(ranks_per_node=size, **LINK) == pytest.approx(hops * 1e-6 + 2e-3)


def test_two_levels_of_three_by_four_take_two_and_three_steps() -> None:
    levels = {"domains": 3, "ranks_per_domain": 4}
    across, inside = 2 * (1e-6 + 1e-3 / 12), 3 * (1e-6 + 1e-3 / 4)
    assert hierarchical_gather_s(**levels, **LINK) == pytest.approx(across + inside)
    shares = 3 / 4 + 2 / 3
    assert hierarchical_all_to_all_s(**levels, **LINK) == pytest.approx(2e-6 + shares * 1e-3)


@pytest.mark.parametrize("time_s", BY_RANKS, ids=lambda f: f.__name__)
def test_one_rank_alone_takes_no_time(time_s: object) -> None:
    assert callable(time_s)
    assert time_s(ranks=1, **LINK) == 0


@given(
    ranks=st.integers(2, 4096),
    size=st.floats(1, 1e12),
    alpha=st.floats(1e-9, 1e-3),
    rate=st.floats(1e8, 1e13),
)
def test_more_bandwidth_is_never_slower_and_more_bytes_or_latency_never_faster(
    ranks: int, size: float, alpha: float, rate: float
) -> None:
    for time_s in BY_RANKS:
        here = time_s(ranks=ranks, size_bytes=size, alpha_s=alpha, bytes_per_s=rate)
        assert math.isfinite(here)
        assert time_s(ranks=ranks, size_bytes=size, alpha_s=alpha, bytes_per_s=2 * rate) <= here
        assert time_s(ranks=ranks, size_bytes=2 * size, alpha_s=alpha, bytes_per_s=rate) >= here
        assert time_s(ranks=ranks, size_bytes=size, alpha_s=2 * alpha, bytes_per_s=rate) >= here


@given(ranks=st.integers(2, 4096))
def test_ring_all_reduce_moves_twice_n_minus_one_nths_of_the_buffer(ranks: int) -> None:
    t = ring_all_reduce_s(ranks=ranks, size_bytes=1e9, alpha_s=0.0, bytes_per_s=1e9)
    assert t == pytest.approx(2 * (ranks - 1) / ranks)

"""Jitter of single messages: drawn values follow the law, body, far tail and detours."""

import math
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest

from tests.topology.latency.factories import (
    FloatArray,
    assert_mean,
    assert_share_below,
    fabric_of,
    make_jitter,
)
from topology.fabric.link_figures import Jitter, LinkFigures
from topology.latency.noise import (
    TABLE_SIZE,
    MessageNoise,
    message_noise,
    noises_of,
    scaled_jitter,
)
from topology.words import NoiseName

DRAWS = 400_000
QUANTILE = NormalDist().inv_cdf


def figures() -> LinkFigures:
    return fabric_of("dgx-h100 node:1").figures


def draws_of(noise: MessageNoise, count: int = DRAWS, seed: int = 4) -> FloatArray:
    values = np.zeros(count)
    noise.add_to(values, np.random.default_rng(seed))
    return values


def body_quantile_s(jitter: Jitter, share: float) -> float:
    """LogNormal(median, sigma) - median."""
    return jitter.body_median_s * (math.exp(jitter.body_sigma * QUANTILE(share)) - 1)


ONE_US = make_jitter(body_median_s=1e-6, body_sigma=0.5)


# The body.


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.2])
def test_body_has_the_quantiles_of_its_law(sigma: float) -> None:
    jitter = make_jitter(body_median_s=1e-6, body_sigma=sigma)
    drawn = draws_of(message_noise(jitter))
    for share in (0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999):
        assert_share_below(drawn, body_quantile_s(jitter, share), share)


def test_body_has_the_mean_of_its_law() -> None:
    mean = 1e-6 * (math.exp(0.5**2 / 2) - 1)
    assert_mean(draws_of(message_noise(ONE_US)), mean)


def test_body_of_a_half_microsecond_median_is_centred_on_the_route() -> None:
    """The route's alpha is a median: half of all messages are earlier."""
    assert_share_below(draws_of(message_noise(ONE_US)), 0.0, 0.5)


def test_far_tail_beyond_the_table_follows_the_law() -> None:
    """The last cell holds one draw in TABLE_SIZE; shares within it are exact."""
    drawn = draws_of(message_noise(ONE_US), count=200 * TABLE_SIZE)
    last = body_quantile_s(ONE_US, 1 - 1 / TABLE_SIZE)
    beyond = drawn[drawn > last]
    assert len(beyond) == pytest.approx(200, abs=4 * math.sqrt(200))
    assert len(set(beyond.tolist())) == len(beyond), "drawn, not the table's last value"
    for share in (0.5, 0.9):
        exact = body_quantile_s(ONE_US, 1 - (1 - share) / TABLE_SIZE)
        assert_share_below(beyond, exact, share)


def test_table_ascends_and_is_as_long_as_it_says() -> None:
    table = message_noise(ONE_US).body_s
    assert table.shape == (TABLE_SIZE,)
    assert (np.diff(table) > 0).all()
    middle = (np.arange(TABLE_SIZE) + 0.5) / TABLE_SIZE
    assert table[::1000] == pytest.approx([body_quantile_s(ONE_US, p) for p in middle[::1000]])


def test_law_without_spread_adds_nothing() -> None:
    assert (draws_of(message_noise(make_jitter()), count=1000) == 0).all()
    flat = make_jitter(body_median_s=1e-6, body_sigma=0.0)
    assert draws_of(message_noise(flat), count=1000) == pytest.approx(0)


@pytest.mark.parametrize("shape", [(1,), (3,), (4,), (5,), (7, 11), (1, 1), (0,), (0, 5)])
def test_any_shape_is_filled(shape: tuple[int, ...]) -> None:
    values = np.full(shape, 5.0)
    message_noise(ONE_US).add_to(values, np.random.default_rng(1))
    assert values.shape == shape
    assert (values != 5.0).all()
    assert (values > 5.0 - 1e-6).all(), "never earlier than the floor"


def test_draws_of_neighbours_are_independent() -> None:
    """Four indices come out of one random word."""
    drawn = draws_of(message_noise(ONE_US))
    for lag in (1, 2, 3, 4):
        correlation = np.corrcoef(drawn[:-lag], drawn[lag:])[0, 1]
        assert abs(correlation) < 4 / math.sqrt(DRAWS)


# Detours.


def test_detours_come_as_often_as_the_law_says() -> None:
    law = make_jitter(detour_probability=0.02, detour_median_s=1e-5, detour_sigma=0.8)
    drawn = draws_of(message_noise(law))
    assert_share_below(drawn, 0.0, 0.98)
    detours = drawn[drawn > 0]
    for share in (0.1, 0.5, 0.9, 0.99):
        exact = 1e-5 * math.exp(0.8 * QUANTILE(share))
        assert_share_below(detours, exact, share)


def test_no_detour_is_longer_than_the_cap() -> None:
    law = make_jitter(
        detour_probability=0.3, detour_median_s=1e-5, detour_sigma=1.0, detour_cap_s=2e-5
    )
    drawn = draws_of(message_noise(law))
    assert drawn.max() == 2e-5
    below_cap = NormalDist().cdf(math.log(2))
    capped = (drawn == 2e-5).sum() / (drawn > 0).sum()
    error = math.sqrt(below_cap * (1 - below_cap) / (drawn > 0).sum())
    assert capped == pytest.approx(1 - below_cap, abs=4 * error)


def test_a_message_makes_at_most_one_detour() -> None:
    law = make_jitter(detour_probability=0.4, detour_median_s=1.0, detour_cap_s=1.0)
    drawn = draws_of(message_noise(law))
    assert set(drawn.tolist()) == {0.0, 1.0}
    assert_share_below(drawn, 0.0, 0.6)


# Profiles.


def test_profiles_scale_the_detours_as_the_figures_say() -> None:
    plain = figures().route_class["ib_ndr_3hop"].jitter
    for name in (NoiseName.DEDICATED, NoiseName.SHARED, NoiseName.CONTENDED):
        profile = figures().noise_profile[name.value]
        scaled = scaled_jitter(figures(), "ib_ndr_3hop", name)
        probability = plain.detour_probability * profile.detour_probability_ratio
        assert scaled.detour_probability == pytest.approx(probability)
        median_s = plain.detour_median_s * profile.detour_median_ratio
        assert scaled.detour_median_s == pytest.approx(median_s)
        for kept in ("body_median_s", "body_sigma", "detour_sigma", "detour_cap_s"):
            assert getattr(scaled, kept) == getattr(plain, kept)


def test_profile_factors_are_those_of_the_reference() -> None:
    """Section 7: dedicated 1 and 1, shared 3 and 2, contended 10 and 5."""
    factors = {
        name: (row.detour_probability_ratio, row.detour_median_ratio)
        for name, row in figures().noise_profile.items()
    }
    assert factors == {
        "none": (0, 0),
        "dedicated": (1, 1),
        "shared": (3, 2),
        "contended": (10, 5),
    }


def test_every_class_stays_a_law_under_every_profile() -> None:
    for name, profile in product(figures().route_class, NoiseName):
        jitter = scaled_jitter(figures(), name, profile)
        assert 0 <= jitter.detour_probability <= 0.5, name
        assert 0 < jitter.detour_median_s <= jitter.detour_cap_s, name


def test_noisier_profiles_are_noisier() -> None:
    order = (NoiseName.DEDICATED, NoiseName.SHARED, NoiseName.CONTENDED)
    noises = [noises_of(figures(), ["ib_ndr_3hop"], name)[0] for name in order]
    tails = [np.quantile(draws_of(noise), 0.999) for noise in noises]
    assert tails == sorted(tails)


def test_noises_keep_the_order_of_the_classes() -> None:
    names = ["ib_ndr_1hop", "nvlink4_nvswitch"]
    noises = noises_of(figures(), names, NoiseName.DEDICATED)
    laws = [figures().route_class[name].jitter for name in names]
    assert [noise.jitter for noise in noises] == laws

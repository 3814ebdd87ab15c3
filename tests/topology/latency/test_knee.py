"""The knee: where rare events, and not the jitter of hops, make a percentile."""

import math

import pytest

from tests.topology.latency.factories import make_jitter
from tests.topology.latency.test_exact import US, log_normal_hop
from topology.latency.knee import Layer, event_chance, find_knee, layers_of
from topology.latency.law import Grid, point
from topology.words import AlgorithmName


def tree_layer(p: float, name: str = "link") -> Layer:
    return Layer(name, lambda ranks: 2 * (ranks - 1), p, 500 * US)


@pytest.mark.parametrize(
    ("p", "q", "hops"),
    [(1e-6, 0.999, 1_000.5), (1e-7, 0.999, 10_005), (1e-5, 0.999, 100.05), (1e-6, 0.99, 10_050.3)],
)
def test_it_stands_where_hops_times_probability_reach_one_minus_q(
    p: float, q: float, hops: float
) -> None:
    knee = find_knee([tree_layer(p)], q)
    assert knee.ranks == math.ceil(hops / 2) + 1
    assert knee.hops == pytest.approx((1 - q) / p, rel=0.1)
    assert event_chance([tree_layer(p)], knee.ranks) >= 1 - q
    assert event_chance([tree_layer(p)], knee.ranks - 1) < 1 - q


def test_a5_the_chance_to_meet_an_event() -> None:
    hundred = Layer("link", lambda _: 100, 0.01, 1e-6)
    assert event_chance([hundred], 2) == pytest.approx(0.634, abs=5e-4)
    jitter = make_jitter(detour_probability=1e-4)
    layers = layers_of(AlgorithmName.RING, inside=jitter, across=jitter, per_domain=64)
    assert event_chance(layers, 64) == pytest.approx(0.554, abs=5e-4)


TABLE = {
    0.0: ["61/71/74", "80/90/95", "110/120/125", "140/151/155", "160/171/175"],
    1e-7: ["61/71/74", "80/90/95", "110/121/128", "140/153/628", "160/641/651"],
    1e-6: ["61/71/75", "80/91/564", "110/124/603", "140/629/1094", "162/1116/1130"],
    1e-5: ["61/71/556", "80/563/578", "110/604/1083", "148/1114/1122", "1112/1137/1145"],
}
RANKS = (128, 512, 4_096, 32_768, 131_072)


@pytest.mark.parametrize("p", TABLE)
def test_the_table_of_events_and_ranks(p: float) -> None:
    hop = log_normal_hop(p, step=100e-9, cells=20_000)
    law = point(Grid(100e-9, 20_000), 0.0)
    for level in range(1, 18):
        law = law.greatest_of(2).plus(hop)
        if 1 << level in RANKS:
            both = law.plus(law)
            row = TABLE[p][RANKS.index(1 << level)].split("/")
            for q, value in zip((0.5, 0.99, 0.999), map(float, row), strict=True):
                assert sum(both.quantile(q)) / 2 == pytest.approx(value * US, rel=0.1)


@pytest.mark.parametrize("p", [1e-7, 1e-6, 1e-5])
@pytest.mark.parametrize(("place", "q"), [(0, 0.5), (1, 0.99), (2, 0.999)])
def test_the_knee_stands_between_the_columns_of_the_table_where_it_jumps(
    p: float, place: int, q: float
) -> None:
    knee = find_knee([tree_layer(p)], q).ranks
    assert knee is not None
    for ranks, cell in zip(RANKS, TABLE[p], strict=True):
        is_event = float(cell.split("/")[place]) > 500
        assert is_event == (ranks >= knee)


def test_it_names_the_layer_that_most_events_come_from() -> None:
    inside = make_jitter(detour_probability=1e-7, detour_median_s=1e-6)
    across = make_jitter(detour_probability=1e-5, detour_median_s=500e-6)
    layers = layers_of(AlgorithmName.TREE, inside=inside, across=across, per_domain=8)
    knee = find_knee(layers, 0.999)
    assert knee.layer == "across"
    assert knee.event_s == 500e-6
    # 2 (n / 8 - 1) hops across at 1e-5 and 14 n / 8 inside at 1e-7 make 1e-3: n is about 376.
    assert knee.ranks == pytest.approx(376, abs=9)
    assert knee.share == pytest.approx(0.93, abs=0.02)
    assert knee.own["across"] == pytest.approx(401, abs=8)
    assert knee.own["inside"] == pytest.approx(5_718, abs=10)


def test_one_domain_is_not_hit_by_what_lies_across() -> None:
    inside = make_jitter()
    across = make_jitter(detour_probability=0.01)
    layers = layers_of(AlgorithmName.TREE, inside=inside, across=across, per_domain=72)
    assert event_chance(layers, 72) == 0.0
    assert find_knee(layers, 0.99).ranks == 73


@pytest.mark.parametrize("algorithm", [AlgorithmName.NVLS, AlgorithmName.TREE])
def test_without_events_there_is_none(algorithm: AlgorithmName) -> None:
    calm = make_jitter()
    knee = find_knee(layers_of(algorithm, inside=calm, across=calm, per_domain=8))
    assert knee.ranks is None
    assert knee.layer is None
    assert knee.own == {"inside": None, "across": None}


def test_absurd_questions_are_refused() -> None:
    calm = make_jitter()
    with pytest.raises(ValueError, match="percentile: 1"):
        find_knee([tree_layer(0.1)], 1.0)
    with pytest.raises(ValueError, match="layers"):
        find_knee([])
    with pytest.raises(ValueError, match="pairwise"):
        layers_of(AlgorithmName.PAIRWISE, inside=calm, across=calm, per_domain=8)
    with pytest.raises(ValueError, match="per_domain"):
        layers_of(AlgorithmName.TREE, inside=calm, across=calm, per_domain=0)

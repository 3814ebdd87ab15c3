"""Laws on a grid: what they are of lies inside the bracket, every time."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from tests.topology.latency.factories import make_jitter
from topology.fabric.link_figures import Jitter
from topology.latency.law import (
    Grid,
    Law,
    from_quantiles,
    from_survival,
    greatest,
    mixture,
    no_earlier_than_each,
    point,
)
from topology.latency.law_noise import FINER, noise_law, one_row_noise_law

SHARES = (0.5, 0.9, 0.99, 0.999, 0.9999)


def survival_law(above: Callable[[float], float], *, step: float, end: float) -> Law:
    grid = Grid(step, math.ceil(end / step))
    return from_survival(grid, 0.0, np.array([above(k * step) for k in range(grid.cells)]))


def exponential(*, step: float = 0.002, end: float = 40.0) -> Law:
    return survival_law(lambda x: math.exp(-x), step=step, end=end)


def assert_inside(law: Law, q: float, value: float) -> None:
    low, high = law.quantile(q)
    rounding = 1e-12 * abs(value) + 1e-18
    assert low - rounding <= value <= high + rounding


@pytest.mark.parametrize(
    ("n", "p50", "p99"),
    [(8, 2.49, 6.68), (72, 4.65, 8.88), (1024, 7.30, 11.53), (8192, 9.38, 13.61)],
)
def test_a1_the_maximum_of_n_is_f_inverse_of_the_nth_root(n: int, p50: float, p99: float) -> None:
    law = exponential().greatest_of(n)
    for q in SHARES:
        assert_inside(law, q, -math.log(-math.expm1(math.log(q) / n)))
    assert law.quantile(0.5)[0] == pytest.approx(p50, abs=0.008)
    assert law.quantile(0.99)[1] == pytest.approx(p99, abs=0.008)


@pytest.mark.parametrize(("n", "harmonic"), [(8, 2.718), (72, 4.861), (1024, 7.509)])
def test_a2_the_mean_maximum_of_exponentials_is_a_harmonic_number(n: int, harmonic: float) -> None:
    low, high = exponential().greatest_of(n).mean_s
    exact = sum(1 / i for i in range(1, n + 1))
    assert low <= exact <= high
    assert high == pytest.approx(harmonic, rel=2e-3)


@pytest.mark.parametrize(("n", "ratio"), [(8, 2.48), (72, 2.97), (1024, 3.60)])
def test_a3_the_p99_of_a_log_normal_maximum(n: int, ratio: float) -> None:
    median_s = 1e-6
    jitter = make_jitter(body_median_s=median_s, body_sigma=0.3)
    law = noise_law(Grid(1e-9, 16_000), jitter).shifted(median_s).greatest_of(n)
    low, high = law.quantile(0.99)
    assert (low + high) / 2 / median_s == pytest.approx(ratio, abs=0.006)


@pytest.mark.parametrize(
    ("alpha", "n", "median"), [(3, 8, 2.29), (3, 1024, 11.4), (2, 8, 3.5), (2, 1024, 38.4)]
)
def test_a4_a_pareto_maximum_grows_as_the_root_of_n(alpha: int, n: int, median: float) -> None:
    law = survival_law(lambda x: 1.0 if x < 1 else x**-alpha, step=0.01, end=100.0).greatest_of(n)
    assert_inside(law, 0.5, (1 - 2 ** (-1 / n)) ** (-1 / alpha))
    assert law.quantile(0.5)[0] == pytest.approx(median, rel=0.01)


def test_a5_the_chance_to_meet_a_detour() -> None:
    grid = Grid(1.0, 16)
    hop = mixture([(0.99, point(grid, 0.0)), (0.01, point(grid, 10.0))])
    low, high = hop.greatest_of(100).cdf(5.0)
    assert 1 - low == pytest.approx(0.634, abs=5e-4)
    assert low <= 0.99**100 <= high


@pytest.mark.parametrize("n", [1, 2, 3, 10, 64])
def test_a_sum_of_exponentials_is_gamma(n: int) -> None:
    law = exponential(step=0.01, end=150.0).times(n)

    def above(t: float) -> float:
        return sum(math.exp(-t + k * math.log(t) - math.lgamma(k + 1)) for k in range(n))

    for q in SHARES:
        low, high = law.quantile(q)
        assert above(low) >= 1 - q - 1e-9
        assert above(high) <= 1 - q + 1e-9
        assert high - low <= (n + 1) * 0.01


def test_a_sum_of_none_is_zero_and_fewer_are_refused() -> None:
    assert exponential().times(0).quantile(0.99) == (0.0, 0.0)
    with pytest.raises(ValueError, match="-1"):
        exponential().times(-1)


def test_masses_far_below_the_noise_of_a_fourier_transform_survive_a_sum() -> None:
    grid = Grid(1.0, 4096)
    body = from_quantiles(grid, np.linspace(0.0, 50.0, 51))
    rare = mixture([(1 - 1e-15, point(grid, 0.0)), (1e-15, point(grid, 500.0))])
    total = body.plus(rare).times(64)
    # 64 hops, each with the event at 1e-15; the body alone ends at 3,200 and is far below 2,000.
    beyond = total.plus(point(grid, 0.0)).tails[:, 2200]
    assert beyond == pytest.approx([beyond[0]] * 2, rel=0.1)
    single = body.plus(rare)
    assert single.tails[:, 400] == pytest.approx([1e-15, 1e-15], rel=1e-6)
    assert single.plus(single).tails[:, 400] == pytest.approx([2e-15, 2e-15], rel=1e-6)


def test_a_maximum_keeps_the_relative_size_of_what_is_rarest() -> None:
    grid = Grid(1.0, 64)
    rare = mixture([(1 - 1e-20, point(grid, 0.0)), (1e-20, point(grid, 50.0))])
    assert rare.greatest_of(1e6).tails[:, 25] == pytest.approx([1e-14, 1e-14], rel=1e-9)


def test_shift_and_scale_are_exact() -> None:
    law = exponential(step=0.01).greatest_of(3)
    low, high = law.quantile(0.99)
    assert law.shifted(1 / 3).quantile(0.99) == pytest.approx(
        (low + 1 / 3, high + 1 / 3), rel=1e-14
    )
    assert law.scaled(7.0).quantile(0.99) == pytest.approx((7 * low, 7 * high), rel=1e-14)
    with pytest.raises(ValueError, match="factor"):
        law.scaled(0.0)


def test_points_stay_points_whatever_the_grid() -> None:
    grid = Grid(1.0, 8)
    a, b = point(grid, 1 / 3), point(grid, 1e9)
    assert a.plus(b).quantile(0.5) == (1e9 + 1 / 3, 1e9 + 1 / 3)
    assert greatest([(a, 5), (b, 2)]).quantile(0.999) == (1e9, 1e9)


def test_coarser_cells_contain_the_finer_bracket() -> None:
    law = exponential(step=0.01, end=30.0).greatest_of(9)
    coarse = law.coarser(7)
    for q in SHARES[:3]:
        (low, high), (lower, higher) = law.quantile(q), coarse.quantile(q)
        assert lower <= low + 1e-12
        assert high <= higher + 1e-12
        assert higher - lower <= high - low + 2 * 0.07 + 1e-12


def test_what_leaves_the_grid_is_told_and_never_guessed() -> None:
    law = exponential(step=0.01, end=3.0)
    assert law.beyond == pytest.approx(math.exp(-2.99), rel=1e-9)
    assert law.quantile(0.99)[1] == math.inf
    assert law.quantile(0.99)[0] <= -math.log(0.01)
    assert_inside(law.plus(law).plus(point(law.grid, 0.0)), 0.5, 1.67835)


def test_a_bound_from_each_raises_the_lower_row_alone() -> None:
    law, later = exponential().greatest_of(4), exponential().greatest_of(6)
    raised = no_earlier_than_each(law, [later])
    assert raised.quantile(0.9)[0] == pytest.approx(later.quantile(0.9)[0])
    assert raised.quantile(0.9)[1] == law.quantile(0.9)[1]


def test_a_shared_value_is_its_floor_from_below_and_all_of_it_from_above() -> None:
    law = exponential(step=0.01).greatest_of(50).shifted(2.0)
    shared = law.shared()
    assert shared.quantile(0.99)[0] == shared.quantile(0.01)[0] <= law.quantile(1e-6)[0]
    assert shared.quantile(0.99)[1] == law.quantile(0.99)[1]


def test_mixtures_and_maxima_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no"):
        greatest([])
    with pytest.raises(ValueError, match="sum to"):
        mixture([(0.5, exponential())])


@pytest.mark.parametrize("noise", [noise_law, one_row_noise_law])
@pytest.mark.parametrize("sigma", [0.0, 0.6])
def test_a_message_s_noise_is_body_and_capped_detour(
    sigma: float, noise: Callable[[Grid, Jitter], Law]
) -> None:
    jitter = make_jitter(
        body_median_s=1e-6,
        body_sigma=0.4,
        detour_probability=0.02,
        detour_median_s=20e-6,
        detour_sigma=sigma,
        detour_cap_s=35e-6,
    )
    law = noise(Grid(2e-8, 4096), jitter)
    rng = np.random.default_rng(5)
    body = 1e-6 * (np.exp(0.4 * rng.standard_normal(400_000)) - 1)
    length = np.minimum(20e-6 * np.exp(sigma * rng.standard_normal(body.size)), 35e-6)
    samples = body + (rng.random(body.size) < 0.02) * length
    for q in (0.1, 0.5, 0.95, 0.985, 0.995, 0.999):
        low, high = law.quantile(q)
        error = 4 * math.sqrt(q * (1 - q) / body.size)
        assert (samples < low).mean() <= q + error
        assert (samples <= high).mean() >= q - error
    assert law.beyond == 0.0


@pytest.mark.parametrize("sigma", [0.0, 0.6])
@pytest.mark.parametrize("cells", [300, 4_096])
def test_noise_in_one_row_lies_a_quarter_of_a_cell_further_apart(cells: int, sigma: float) -> None:
    """On 300 cells, 6 us, detours lie beyond the grid."""
    jitter = make_jitter(
        body_median_s=1e-6,
        body_sigma=0.4,
        detour_probability=0.02,
        detour_median_s=20e-6,
        detour_sigma=sigma,
        detour_cap_s=35e-6,
    )
    one, two = (noise(Grid(2e-8, cells), jitter) for noise in (one_row_noise_law, noise_law))
    assert one.rows.is_one
    assert one.lag <= 1 + 1 / FINER
    assert one.beyond == pytest.approx(two.beyond, rel=0.01, abs=1e-12)
    for q in (0.01, 0.5, 0.97, 0.98, 0.99, 0.9999):
        (low, high), (lower, higher) = one.quantile(q), two.quantile(q)
        assert max(low, lower) <= min(high, higher) * (1 + 1e-12)


Atoms = dict[float, float]


def combined(a: Atoms, b: Atoms, how: Callable[[float, float], float]) -> Atoms:
    """The law of a function of two independent times, atom by atom: the truth."""
    result: Atoms = {}
    for (x, p), (y, q) in itertools.product(a.items(), b.items()):
        result[how(x, y)] = result.get(how(x, y), 0.0) + p * q
    return result


def quantile_of(atoms: Atoms, q: float) -> tuple[float, float]:
    """The q-quantile, and the one at 1e-12 more: between them rounding may choose."""
    values = np.array(sorted(atoms))
    below = np.cumsum([atoms[value] for value in values])
    last = len(values) - 1
    first = int(np.searchsorted(below, q - 1e-12))
    return float(values[first]), float(values[min(int(np.searchsorted(below, q + 1e-12)), last)])


def random_atoms(rng: np.random.Generator) -> Atoms:
    count = int(rng.integers(1, 5))
    weights = rng.random(count) ** int(rng.integers(1, 12)) + 1e-12
    values = rng.uniform(0.0, 10.0, count)
    return dict(zip(values.tolist(), (weights / weights.sum()).tolist(), strict=True))


def law_of(grid: Grid, atoms: Atoms) -> Law:
    return mixture([(p, point(grid, value)) for value, p in atoms.items()])


def test_in_a_thousand_random_cases_the_truth_is_inside_every_time() -> None:
    rng = np.random.default_rng(11)
    for _ in range(1_000):
        grid = Grid(float(rng.uniform(0.01, 1.0)), int(rng.integers(64, 4096)))
        truth = random_atoms(rng)
        law = law_of(grid, truth)
        for _ in range(int(rng.integers(1, 5))):
            other = random_atoms(rng)
            kind = int(rng.integers(3))
            if kind == 0:
                truth, law = combined(truth, other, float.__add__), law.plus(law_of(grid, other))
            elif kind == 1:
                truth = combined(truth, other, max)
                law = greatest([(law, 1), (law_of(grid, other), 1)])
            else:
                move = float(rng.uniform(-5, 5))
                truth, law = {x + move: p for x, p in truth.items()}, law.shifted(move)
        for q in (float(rng.random()), 0.5, 0.99, 0.999):
            first, last = quantile_of(truth, q)
            low, high = law.quantile(q)
            assert low <= last + 1e-9, (low, last, q)
            assert first <= high + 1e-9, (high, first, q)


def one_row_law_of(grid: Grid, atoms: Atoms, ahead: float) -> Law:
    """From an origin so far ahead of the least value that nothing lies at it."""
    values = np.array(sorted(atoms))
    origin = float(values[0]) - ahead
    places = np.searchsorted(values, origin + grid.step_s * np.arange(grid.cells), side="right")
    later = np.append(np.cumsum([atoms[value] for value in values[::-1]])[::-1], 0.0)
    return from_survival(grid, origin, np.where(places == 0, 1.0, later[places]))


def test_bounds_that_share_a_row_hold_the_truth_in_a_thousand_random_cases() -> None:
    """Many of the grids end before what they are of does."""
    rng = np.random.default_rng(12)
    lost = 0
    for _ in range(1_000):
        grid = Grid(float(rng.uniform(0.01, 0.3)), int(rng.integers(32, 256)))
        truth = random_atoms(rng)
        law = one_row_law_of(grid, truth, float(rng.uniform(0.001, 0.5)))
        for _ in range(int(rng.integers(1, 5))):
            other = random_atoms(rng)
            hop = one_row_law_of(grid, other, float(rng.uniform(0.001, 0.5)))
            kind = int(rng.integers(4))
            if kind == 0:
                truth, law = combined(truth, other, float.__add__), law.plus(hop)
            elif kind == 1:
                truth, law = combined(truth, other, max), greatest([(law, 1), (hop, 1)])
            elif kind == 2:
                truth, law = combined(truth, truth, max), law.greatest_of(2)
            else:
                move = float(rng.uniform(-5, 5))
                truth, law = {x + move: p for x, p in truth.items()}, law.shifted(move)
        assert law.rows.is_one
        lost += law.beyond > 1e-6
        for q in (float(rng.random()), 0.5, 0.99, 0.999):
            first, last = quantile_of(truth, q)
            low, high = law.quantile(q)
            assert low <= last + 1e-9, (low, last, q)
            assert first <= high + 1e-9, (high, first, q)
    assert lost > 100


def test_one_row_and_two_make_two_that_hold_the_truth() -> None:
    """With mass beyond the grid of each."""
    rng = np.random.default_rng(13)
    for case in range(300):
        grid = Grid(float(rng.uniform(0.01, 0.2)), int(rng.integers(16, 256)))
        one, two = random_atoms(rng), random_atoms(rng)
        a, b = one_row_law_of(grid, one, 0.01), law_of(grid, two)
        pairs = [
            (combined(one, two, float.__add__), a.plus(b)),
            (combined(one, two, float.__add__), b.plus(a)),
            (combined(one, two, max), greatest([(a, 1), (b, 1)])),
        ]
        for (truth, law), q in itertools.product(pairs, (0.1, 0.5, 0.9, 0.999)):
            first, last = quantile_of(truth, q)
            low, high = law.quantile(q)
            assert low <= last + 1e-9, (case, low, last, q)
            assert first <= high + 1e-9, (case, high, first, q)

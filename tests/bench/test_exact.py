"""Exact laws: time, memory and width of the bracket up to a million GPUs, beside the replay."""

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from tests.topology.latency.factories import fabric_of, schedule_of, uniform_costs
from tests.topology.latency.test_exact import fabric_costs
from topology.fabric.link_figures import Jitter
from topology.latency.exact import chosen_grid, exact_law, last_plan_of
from topology.latency.knee import find_knee, layers_of
from topology.latency.law import Grid, Law
from topology.latency.law_grid import fitting_grid, piloted
from topology.latency.law_noise import noise_law, one_row_noise_law
from topology.latency.law_shapes import hierarchical_law, switch_law, tree_law
from topology.latency.monte_carlo import sample_s
from topology.latency.noise import noises_of
from topology.words import AlgorithmName, NoiseName

pytestmark = pytest.mark.bench

FIGURES = fabric_of("dgx-h100 node:1").figures
CLASSES = ("nvlink4_nvswitch", "ib_ndr_3hop")
NOISES = noises_of(FIGURES, CLASSES, NoiseName.DEDICATED)
ALPHA_S = [FIGURES.route_class[name].alpha_s for name in CLASSES]
SHARES = (0.5, 0.99, 0.999)


def hops_on(grid: Grid, of_hop: Callable[[Grid, Jitter], Law] = one_row_noise_law) -> list[Law]:
    """One hop over NVLink and one over InfiniBand."""
    laws = (of_hop(grid, noise.jitter) for noise in NOISES)
    return [law.shifted(alpha) for law, alpha in zip(laws, ALPHA_S, strict=True)]


def fitted(make: Callable[[Grid], Law], end_s: float) -> Law:
    """A law that certifies p50, p99 and p99.9 within half a per cent."""
    pilot = piloted(make, end_s=end_s, last=0.99998)
    return make(fitting_grid(pilot, resolution=0.0045, last=0.99998))


def a_tree(ranks: int) -> Law:
    levels = ranks.bit_length() - 1

    def on(grid: Grid) -> Law:
        inside, across = hops_on(grid)
        return tree_law(ranks, [inside] * 3 + [across] * (levels - 3))

    return fitted(on, 300e-6)


def in_domains(ranks: int) -> Law:
    levels = ranks.bit_length() - 4

    def on(grid: Grid) -> Law:
        inside, across = hops_on(grid, noise_law)
        return hierarchical_law(ranks // 8, 8, inside, [across] * levels)

    return fitted(on, 300e-6)


def in_switch(ranks: int) -> Law:
    return fitted(lambda grid: switch_law(hops_on(grid)[0], ranks), 6e-6)


@pytest.mark.parametrize("ranks", [1_024, 131_072, 1_048_576])
@pytest.mark.parametrize("made", [a_tree, in_domains, in_switch], ids=lambda f: f.__name__)
def test_a_law_from_its_shape(made: Callable[[int], Law], ranks: int) -> None:
    took = []
    for _ in range(5):
        start = time.perf_counter()
        law = made(ranks)
        brackets = [law.quantile(q) for q in SHARES]
        took.append(time.perf_counter() - start)
    cells = law.grid.cells
    row = np.ones(2 * cells)
    start = time.perf_counter()
    for _ in range(20):
        np.fft.irfft(np.fft.rfft(row), 2 * cells)
    numpy_s = (time.perf_counter() - start) / 20
    tracemalloc.start()
    made(ranks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    widths = ", ".join(f"{low * 1e6:.1f} us +{(high / low - 1):.2%}" for low, high in brackets)
    print(
        f"\n{made.__name__} of {ranks}: {min(took) * 1e3:.1f} ms warm ({min(took) / numpy_s:.0f} "
        f"FFTs of its {cells} cells there and back), {peak / 1e6:.0f} MB; p50, p99, p99.9 {widths}"
    )


@pytest.mark.parametrize("ranks", [1_024, 131_072])
@pytest.mark.parametrize("name", ["tree", "nvls"])
def test_a_law_from_a_schedule_and_the_replay_beside_it(name: str, ranks: int) -> None:
    costs = uniform_costs(schedule_of(name, ranks), alpha_s=ALPHA_S[1])
    noises, jitters = NOISES[1:], [noise.jitter for noise in NOISES[1:]]
    took: list[float] = []
    again: list[float] = []
    for _ in range(5):
        last_plan_of.cache_clear()
        for taken in (took, again):
            start = time.perf_counter()
            exact = exact_law(costs, noises)
            taken.append(time.perf_counter() - start)
    plan = last_plan_of(costs)
    tracemalloc.start()
    exact_law(costs, noises)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    trials = max(8, 4_000_000 // costs.schedule.messages)
    start = time.perf_counter()
    sample_s(costs, noises, trials=trials, rng=np.random.default_rng(1))
    trial_s = (time.perf_counter() - start) / trials
    widths = ", ".join(f"{exact.width_ratio(key):.2%}" for key in ("p50_s", "p99_s", "p999_s"))
    print(
        f"\n{name} of {ranks} from its schedule: {min(took) * 1e3:.0f} ms, and "
        f"{min(again) * 1e3:.0f} ms again with its {len(plan.laws.formulas)} formulas, "
        f"{chosen_grid(plan, jitters).cells} cells, {peak / 1e6:.0f} MB; p50, p99, p99.9 within "
        f"{widths}; 100,000 trials of the replay take {trial_s * 1e5:.0f} s"
    )


@pytest.mark.parametrize("nodes", [128, 1_024])
@pytest.mark.parametrize("name", ["tree", "double_binary_tree", "nvls_tree", "hierarchical"])
def test_a_law_over_a_fleet(name: str, nodes: int) -> None:
    """One variant of each algorithm on a synthetic fleet of 8 GPUs a node."""
    for costs, noises in fabric_costs(f"dgx-h100 node:{nodes}", 8 * nodes, name)[-1:]:
        took = []
        for _ in range(3):
            start = time.perf_counter()
            exact = exact_law(costs, noises)
            took.append(time.perf_counter() - start)
        widths = ", ".join(f"{exact.width_ratio(key):.2%}" for key in ("p50_s", "p99_s", "p999_s"))
        print(
            f"\n{name} ({costs.schedule.variant}) over {8 * nodes} GPUs, "
            f"{costs.schedule.messages} messages: {min(took) * 1e3:.0f} ms; p50, p99, p99.9 "
            f"within {widths}"
        )


def test_the_knee() -> None:
    inside, across = (noise.jitter for noise in NOISES)
    start = time.perf_counter()
    layers = layers_of(AlgorithmName.TREE, inside=inside, across=across, per_domain=8)
    knee = find_knee(layers)
    print(f"\nknee at {knee.ranks} ranks: {(time.perf_counter() - start) * 1e3:.2f} ms")

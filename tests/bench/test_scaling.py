"""Speed of the ring's law: the same from a thousand ranks to a million, a replay beside it."""

import time
import tracemalloc

import numpy as np
import pytest

from topology.fabric.link_figures import load_link_figures
from topology.latency.noise import message_noise
from topology.latency.ring_bounds import HopColumns, hop_law, ring_bracket_s
from topology.latency.scaling import MESSAGES, Ring, ring_time

pytestmark = pytest.mark.bench

ROUTE = load_link_figures().route_class["ib_ndr_3hop"]


def ib_ring(ranks: int) -> Ring:
    hop_s, law_of = np.full(1, ROUTE.alpha_s), np.zeros(1, dtype=np.int64)
    return Ring(ranks, 2 * (ranks - 1), hop_s, law_of, [message_noise(ROUTE.jitter)])


def numpy_s() -> float:
    """What numpy needs for the window's messages: raw words, a table look-up, two maxima, a sum."""
    rng, table = np.random.default_rng(0), np.zeros(8_192)
    state, other = np.zeros(4_096), np.zeros(4_096)
    start = time.perf_counter()
    for _ in range(MESSAGES // 4_096):
        index = rng.bit_generator.random_raw(1_024).view(np.uint16) >> 3
        np.maximum(state, other, out=other)
        other += np.take(table, index)
    return time.perf_counter() - start


@pytest.mark.parametrize("ranks", [1_024, 32_768, 1_000_000])
def test_the_law_of_a_ring(ranks: int) -> None:
    ring = ib_ring(ranks)
    own_s = min(numpy_s() for _ in range(3))
    runs = []
    for seed in range(5):
        start = time.perf_counter()
        law = ring_time(ring, np.random.default_rng(seed))
        values = [law.quantile_s(q) for q in (0.5, 0.99, 0.999)]
        runs.append(time.perf_counter() - start)
    start = time.perf_counter()
    columns = HopColumns(ring.message_s, ring.law_of, [hop_law(ROUTE.jitter)])
    bounds = ring_bracket_s(columns, ranks=ranks, steps=ring.steps, q=0.99)
    bounds_s = time.perf_counter() - start
    tracemalloc.start()
    ring_time(ring, np.random.default_rng(0))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(
        f"\nring of {ranks} ranks: {min(runs) * 1e3:.0f} ms ({min(runs) / own_s:.1f} x numpy), "
        f"p50 {values[0] * 1e3:.3f} ms, p99 {values[1] * 1e3:.3f} ms, certified "
        f"{bounds[0] * 1e3:.3f} to {bounds[1] * 1e3:.3f} ms in {bounds_s * 1e3:.0f} ms, "
        f"peak {peak_bytes / 1e6:.1f} MB"
    )

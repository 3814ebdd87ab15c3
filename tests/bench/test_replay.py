"""Replay speed: noisy messages a second on one core, beside what numpy needs for one bare pass."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from fleet import fleet_from_spec
from topology.collective.placement import pack
from topology.fabric.from_fleet import Fabric
from topology.fabric.route_table import RouteMap
from topology.latency.choice import Choice, choose
from topology.latency.monte_carlo import STEP_ELEMENTS, sample_s
from topology.latency.noise import TABLE_SIZE, noises_of
from topology.latency.noise_layers import layers_of
from topology.latency.scenario import Scenario
from topology.words import AlgorithmName, Collective, NoiseLayer, NoiseName, StackName

pytestmark = pytest.mark.bench
MESSAGES = 6_000_000


def least_s(work: Callable[[], object], times: int = 3) -> float:
    """The shortest of some runs: what the machine does when nothing else runs."""
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return min(spent)


def bare_pass_s() -> float:
    """numpy's own cost of one message: look a value up in the table, add it, take the later."""
    rng = np.random.default_rng(0)
    table, time_s, other = (
        rng.random(TABLE_SIZE),
        rng.random(STEP_ELEMENTS),
        rng.random(STEP_ELEMENTS),
    )
    index = rng.integers(0, TABLE_SIZE, STEP_ELEMENTS, dtype=np.uint16)
    drawn = np.empty(STEP_ELEMENTS)

    def work() -> None:
        for _ in range(200):
            table.take(index, out=drawn, mode="clip")
            np.add(time_s, drawn, out=drawn)
            np.maximum(drawn, other, out=drawn)

    return least_s(work) / 200 / STEP_ELEMENTS


def ring_of(nodes: int) -> tuple[Fabric, RouteMap, Choice]:
    fabric = Fabric(fleet_from_spec(f"model:dgx-h100 node:{nodes}"))
    placement = pack(fabric, 8 * nodes)
    routes = RouteMap(fabric, placement.endpoints)
    words = {"algorithm": AlgorithmName.RING, "stack": StackName.WIRE}
    scenario = Scenario(Collective.ALL_REDUCE, 8, **words)  # type: ignore[arg-type]
    return fabric, routes, choose(fabric, placement, routes, scenario)


@pytest.mark.parametrize("nodes", [1, 8, 64])
def test_noisy_messages_a_second(nodes: int) -> None:
    """Whole batches only, so that nothing drawn is thrown away."""
    fabric, routes, choice = ring_of(nodes)
    costs, schedule = choice.costs, choice.schedule
    noises = noises_of(fabric.figures, costs.classes, NoiseName.DEDICATED)
    batch = min(STEP_ELEMENTS // schedule.ranks, 2**11)
    trials = batch * max(1, MESSAGES // (batch * schedule.messages))
    bare_s = bare_pass_s()
    for names in ((), *((layer,) for layer in NoiseLayer), tuple(NoiseLayer)):
        on = layers_of(fabric, routes, schedule, noise=NoiseName.CONTENDED, names=names)

        def work(on: object = on) -> None:
            rng = np.random.default_rng(0)
            sample_s(costs, noises, trials=trials, rng=rng, layers=on)  # type: ignore[arg-type]

        each_s = least_s(work) / trials / schedule.messages
        told = "+".join(names) if len(names) < len(NoiseLayer) else "all layers"
        print(
            f"\nring of {schedule.ranks} ranks, {told or 'messages alone'}: {1e-6 / each_s:.0f} "
            f"million a second, {each_s * 1e9:.1f} ns each, {each_s / bare_s:.1f} x a bare pass",
            end="",
        )


def test_a_ring_of_1024_ranks_over_1000_trials() -> None:
    fabric, _, choice = ring_of(128)
    noises = noises_of(fabric.figures, choice.costs.classes, NoiseName.DEDICATED)
    start = time.perf_counter()
    samples_s = sample_s(choice.costs, noises, trials=1_000, rng=np.random.default_rng(0))
    spent_s = time.perf_counter() - start
    messages = choice.schedule.messages * len(samples_s)
    print(
        f"\nring of 1,024 ranks, 1,000 trials, {messages / 1e9:.2f} billion messages: "
        f"{spent_s:.1f} s, {messages / spent_s / 1e6:.0f} million a second"
    )

"""Simulation speed: noisy messages a second, growth with ranks, a cold command."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleet import fleet_from_spec
from topology.collective.placement import pack
from topology.fabric.from_fleet import Fabric
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.words import AlgorithmName, Collective, NoiseName, StackName

pytestmark = pytest.mark.bench


def scenario(algorithm: str, *, noise: str = "dedicated", trials: int | None = None) -> Scenario:
    """An 8-byte all-reduce on the bare wire."""
    return Scenario(
        Collective.ALL_REDUCE,
        8,
        algorithm=AlgorithmName(algorithm),
        stack=StackName.WIRE,
        noise=NoiseName(noise),
        trials=trials,
    )


@pytest.mark.parametrize("nodes", [1, 8, 64])
def test_messages_a_second_on_a_ring(nodes: int) -> None:
    fabric = Fabric(fleet_from_spec(f"model:dgx-h100 node:{nodes}"))
    ranks = 8 * nodes
    trials = max(20, 4_000_000 // (2 * ranks * (ranks - 1)))
    placement = pack(fabric, ranks)
    simulate(fabric, placement, scenario("ring", noise="none"))
    start = time.perf_counter()
    simulate(fabric, placement, scenario("ring", noise="none"))
    calm_s = time.perf_counter() - start
    start = time.perf_counter()
    summary = simulate(fabric, placement, scenario("ring", trials=trials))
    noisy_s = time.perf_counter() - start - calm_s
    messages = 2 * ranks * (ranks - 1) * (summary.trials or 0)
    print(
        f"\nring of {ranks} ranks: {messages / noisy_s / 1e6:.0f} million noisy messages a second "
        f"({trials} trials in {noisy_s:.2f} s), noiseless {calm_s * 1e3:.0f} ms"
    )


@pytest.mark.parametrize("size", ["8", "1MiB", "1GiB"])
def test_a_cold_command(size: str, root: Path) -> None:
    program = Path(sys.executable).parent / "topology"
    words = f"simulate samples/fleets/dgx-h100-9-ib.json --collective all_reduce --size {size}"
    start = time.perf_counter()
    subprocess.run([str(program), *words.split()], cwd=root, check=True, capture_output=True)
    print(f"\ntopology {words}: {time.perf_counter() - start:.2f} s cold, all included")

"""Exports: messages written a second, peak memory, growth with ranks, a cold command."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleet import fleet_from_spec, save_fleet
from topology.collective.placement import pack
from topology.exports.case import Case, make_case
from topology.exports.goal import goal_product, goal_text
from topology.fabric.from_fleet import Fabric
from topology.latency.scenario import Scenario
from topology.words import AlgorithmName, Collective, StackName

pytestmark = pytest.mark.bench


def case_of(ranks: int, algorithm: str) -> Case:
    fabric = Fabric(fleet_from_spec(f"model:dgx-h100 node:{ranks // 8}"))
    scenario = Scenario(
        Collective.ALL_REDUCE, 8, algorithm=AlgorithmName(algorithm), stack=StackName.WIRE
    )
    return make_case(fabric, pack(fabric, ranks), scenario, command="")


@pytest.mark.parametrize("algorithm", ["ring", "recursive_doubling"])
@pytest.mark.parametrize("ranks", [128, 512, 1024])
def test_goal_messages_a_second(ranks: int, algorithm: str) -> None:
    case = case_of(ranks, algorithm)
    start = time.perf_counter()
    product = goal_product(case, "case.goal")
    made_s = time.perf_counter() - start
    start = time.perf_counter()
    ((_, parts),) = product.files()
    size_bytes = sum(map(len, parts))
    written_s = time.perf_counter() - start
    messages = product.messages or 0
    print(
        f"\n{algorithm} of {ranks} ranks: {messages} messages, {size_bytes / 2**20:.0f} MiB in "
        f"{written_s:.2f} s, {messages / written_s / 1e3:.0f} thousand a second, "
        f"{size_bytes / max(messages, 1):.0f} bytes each; made ready in {made_s * 1e3:.0f} ms"
    )


@pytest.mark.parametrize("ranks", [128, 1024, 4096])
def test_memory_of_a_blocks_parts(ranks: int) -> None:
    text, _ = goal_text(case_of(ranks, "ring"))
    longest = max(len(part) for rank in (0, ranks // 2) for part in text.block(rank))
    print(f"\nring of {ranks} ranks: parts of {longest / 1024:.0f} KiB at most")


@pytest.mark.parametrize("ranks", [128, 1024])
def test_a_cold_command_and_its_memory(ranks: int, tmp_path: Path) -> None:
    save_fleet(fleet_from_spec(f"model:dgx-h100 node:{ranks // 8}"), tmp_path / "map.json")
    program = Path(sys.executable).parent / "topology"
    for output in ("goal", "astra-sim"):
        words = f"export map.json --format {output} --collective all_reduce --size 8"
        words += f" --algorithm ring --stack wire -o {output}"
        start = time.perf_counter()
        subprocess.run([str(program), *words.split()], cwd=tmp_path, check=True, stderr=-1)
        wall_s = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"\ntopology export --format {output}, ring of {ranks} ranks: {wall_s:.2f} s cold, "
            f"{peak:.0f} MiB at most of all children so far"
        )

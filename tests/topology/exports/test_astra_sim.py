"""ASTRA-sim: its network, system and traces say what our map and schedule say."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet import fleet_from_spec
from tests.topology.exports.factories import NODE, TWO_NODES, case_of
from topology.collective.placement import Placement
from topology.errors import ScheduleError, WorkloadError
from topology.exports.astra_sim import astra_sim_product
from topology.exports.case import Case, make_case
from topology.fabric.from_fleet import Fabric
from topology.latency.scenario import Scenario
from topology.words import AlgorithmName, Collective, StackName


def files_of(case: Case) -> dict[str, bytes]:
    return {name: b"".join(parts) for name, parts in astra_sim_product(case, "x").files()}


def network_of(case: Case) -> Any:
    return yaml.safe_load(files_of(case)["network.yml"])


def system_of(case: Case) -> Any:
    return json.loads(files_of(case)["system.json"])


def test_a_node_is_one_switch() -> None:
    # 762 ns are two links of 381; 450 GB/s of which collectives get 0.81.
    assert network_of(case_of(NODE)) == {
        "topology": ["Switch"],
        "npus_count": [8],
        "bandwidth": [364.5],
        "latency": [381],
    }


def test_two_nodes_are_a_switch_of_switches() -> None:
    # InfiniBand NDR: 2.3 us, 50 GB/s for each GPU, of which collectives get 0.75.
    assert network_of(case_of(TWO_NODES, ranks=16, algorithm="tree")) == {
        "topology": ["Switch", "Switch"],
        "npus_count": [8, 2],
        "bandwidth": [364.5, 37.5],
        "latency": [381, 1150],
    }


def test_nodes_that_lend_one_gpu_each_are_one_dimension() -> None:
    fabric = Fabric(fleet_from_spec(TWO_NODES))
    ends = tuple(end for end in fabric.endpoints if end.slot == 0)
    scenario = Scenario(
        Collective.ALL_REDUCE, 1024, algorithm=AlgorithmName.RING, stack=StackName.WIRE
    )
    case = make_case(fabric, Placement(ends), scenario, command="")
    assert network_of(case)["npus_count"] == [2]
    assert network_of(case)["bandwidth"] == [37.5]


def test_an_nvl72_rack_is_one_switch_of_72() -> None:
    network = network_of(case_of("model:gb200-nvl72 rack:1", ranks=72, algorithm="tree"))
    assert (network["topology"], network["npus_count"]) == (["Switch"], [72])


@pytest.mark.parametrize(("ranks", "kind"), [(4, "FullyConnected"), (8, "Ring")])
def test_direct_links_are_a_mesh_or_a_ring(ranks: int, kind: str) -> None:
    # Four V100s of a DGX-1 have a link to each other; of eight each lacks three.
    network = network_of(case_of("model:dgx1-v100 node:1", ranks=ranks))
    assert (network["topology"], network["npus_count"]) == ([kind], [ranks])


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [
        ("ring", ["ring", "ring"]),
        ("double_binary_tree", ["ring", "doubleBinaryTree"]),
        ("recursive_doubling", ["halvingDoubling", "halvingDoubling"]),
    ],
)
def test_each_dimension_has_its_algorithm(algorithm: str, words: list[str]) -> None:
    system = system_of(case_of(TWO_NODES, ranks=16, algorithm=algorithm))
    assert system["all-reduce-implementation"] == words
    assert system["all-gather-implementation"] == ["ring", "ring"]


def test_system_has_the_keys_of_the_published_schema() -> None:
    # Names of astra-sim-sdk 1.2.1, openapi.yaml: System.Configuration, RemoteMemory.
    known = {
        "scheduling-policy",
        "endpoint-delay",
        "active-chunks-per-dimension",
        "preferred-dataset-splits",
        "all-reduce-implementation",
        "all-gather-implementation",
        "reduce-scatter-implementation",
        "all-to-all-implementation",
        "collective-optimization",
        "local-mem-bw",
    }
    assert set(system_of(case_of())) == known
    memory = json.loads(files_of(case_of())["memory.json"])
    assert memory == {"memory-type": "NO_MEMORY_EXPANSION"}


def test_software_is_the_endpoints_delay() -> None:
    assert system_of(case_of())["endpoint-delay"] == 1
    case = case_of(size_bytes=64 * 1024, stack="nccl")
    software_s = min(float(cost.software_s.min()) for cost in case.choice.costs.rounds)
    assert software_s > 0
    assert system_of(case)["endpoint-delay"] == max(1, round(software_s * 1e9))


@pytest.mark.parametrize(
    ("collective", "comm_type", "comm_size"),
    [
        (Collective.ALL_REDUCE, 0, 4096),
        (Collective.ALL_GATHER, 2, 512),
        (Collective.REDUCE_SCATTER, 7, 4096),
        (Collective.ALLTOALL, 6, 4096),
    ],
)
def test_every_rank_has_the_same_trace(
    collective: Collective, comm_type: int, comm_size: int
) -> None:
    algorithm = "direct" if collective is Collective.ALLTOALL else "ring"
    case = case_of(collective=collective, algorithm=algorithm, size_bytes=4096)
    traces = {n: c for n, c in files_of(case).items() if n.endswith(".et")}
    assert sorted(traces) == [f"workload/{collective}.{rank}.et" for rank in range(8)]
    (content,) = set(traces.values())
    # An attribute is its name (field 1), then its value: 0x48 is field 9, a varint.
    assert b"comm_type\x48" + bytes([comm_type]) in content
    low = bytes([comm_size & 0x7F | 0x80, comm_size >> 7])
    assert b"comm_size\x48" + low in content


@pytest.mark.parametrize("collective", [Collective.BROADCAST, Collective.REDUCE])
def test_a_collective_it_has_not_is_refused_with_those_it_has(collective: Collective) -> None:
    with pytest.raises(WorkloadError, match=f"no {collective}") as refusal:
        astra_sim_product(case_of(collective=collective, algorithm="tree"), "x")
    assert "all_reduce, all_gather, reduce_scatter, alltoall" in refusal.value.remedy


def test_an_algorithm_it_has_not_is_refused() -> None:
    with pytest.raises(ScheduleError, match="no nvls for all_reduce"):
        astra_sim_product(case_of(algorithm="nvls"), "x")


def test_nodes_with_unequal_ranks_are_refused() -> None:
    with pytest.raises(WorkloadError, match="hold 4 and 8 of the ranks"):
        astra_sim_product(case_of(TWO_NODES, ranks=12), "x")


def test_one_rank_is_refused() -> None:
    with pytest.raises(WorkloadError, match="no network"):
        astra_sim_product(case_of(ranks=1), "x")


def test_its_size_is_foretold() -> None:
    product = astra_sim_product(case_of(), "x")
    assert product.size_bytes == sum(map(len, files_of(case_of()).values()))


def test_commands_name_files_that_are_written() -> None:
    case = case_of()
    files = files_of(case)
    for command in astra_sim_product(case, "x").commands:
        options = dict(word.split("=") for word in command.split() if "=" in word)
        prefix = options.pop("--workload-configuration")
        assert f"{prefix}.0.et" in files
        assert {Path(name).name for name in options.values()} <= set(files)

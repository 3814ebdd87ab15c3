"""ASTRA-sim: a Chakra trace for each rank, and the files of its system, network and memory.

Its network is a product of dimensions, each all alike: the ranks of a clique, and the cliques.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from topology.errors import ScheduleError, WorkloadError
from topology.exports.case import Case, Figure, Parts, Product
from topology.exports.chakra import CommType, collective_trace
from topology.exports.levels import Level, levels_of
from topology.words import AlgorithmName, Collective, ExportFormat

SYSTEM, NETWORK, MEMORY = "system.json", "network.yml", "memory.json"
WORKLOAD: Final = "workload"

COMM_TYPES: Final = {
    Collective.ALL_REDUCE: CommType.ALL_REDUCE,
    Collective.ALL_GATHER: CommType.ALL_GATHER,
    Collective.REDUCE_SCATTER: CommType.REDUCE_SCATTER,
    Collective.ALLTOALL: CommType.ALL_TO_ALL,
}
"""Collectives that ASTRA-sim runs."""

_RING, _DIRECT, _TREE, _HALVING = "ring", "direct", "doubleBinaryTree", "halvingDoubling"

INSIDE_AND_ACROSS: Final = {
    AlgorithmName.RING: (_RING, _RING),
    AlgorithmName.HIERARCHICAL: (_RING, _RING),
    AlgorithmName.DOUBLE_BINARY_TREE: (_RING, _TREE),
    AlgorithmName.TREE: (_TREE, _TREE),
    AlgorithmName.RECURSIVE_DOUBLING: (_HALVING, _HALVING),
    AlgorithmName.DIRECT: (_DIRECT, _DIRECT),
    AlgorithmName.PAIRWISE: (_DIRECT, _DIRECT),
    AlgorithmName.ONE_SHOT: (_DIRECT, _DIRECT),
    AlgorithmName.TWO_SHOT: (_DIRECT, _DIRECT),
}
"""ASTRA-sim's algorithm that comes nearest to ours, inside a clique and across cliques."""

_LEVEL_BY_LEVEL: Final = (AlgorithmName.HIERARCHICAL,)
"""Of our algorithms those that go level by level, as ASTRA-sim's all do."""

_NS: Final = 1e9
LINKS_OF_A_SWITCH: Final = 2
"""A message over a switch takes two links, and ASTRA-sim counts the latency of each."""


def astra_sim_product(case: Case, _: str) -> Product:
    """The files of a case for ASTRA-sim's analytical network.

    Raises:
        WorkloadError: a collective it has not, or cliques of several sizes.
        ScheduleError: an algorithm it has not.
    """
    comm_type = _comm_type(case)
    levels = levels_of(case, ExportFormat.ASTRA_SIM)
    words = _implementation(case, len(levels))
    trace = collective_trace(case.scenario.collective.value, comm_type, _comm_bytes(case))
    software_ns = _software_ns(case)
    settings = (
        (SYSTEM, _json(_system(case, words, software_ns))),
        (NETWORK, network_yaml(levels)),
        (MEMORY, _json({"memory-type": "NO_MEMORY_EXPANSION"})),
    )
    ranks = case.placement.ranks
    return Product(
        format=ExportFormat.ASTRA_SIM,
        files=partial(_files, settings, _trace_name(case), trace, ranks),
        size_bytes=ranks * len(trace) + sum(len(text) for _, text in settings),
        messages=None,
        figures=tuple(_figures(case, levels, software_ns)),
        build=_BUILD,
        commands=_commands(case),
        differs=_differs(case, levels, words),
        unchecked=_UNCHECKED,
    )


def network_yaml(levels: Sequence[Level]) -> bytes:
    """The network file: lists of equal length, one entry a dimension; GB/s and ns."""
    rows = {
        "topology": [_kind(level) for level in levels],
        "npus_count": [str(level.count) for level in levels],
        "bandwidth": [f"{level.bytes_per_s / 1e9:.6g}" for level in levels],
        "latency": [f"{_link_ns(level):.6g}" for level in levels],
    }
    return "".join(f"{key}: [ {', '.join(row)} ]\n" for key, row in rows.items()).encode()


def _kind(level: Level) -> str:
    if level.is_switched:
        return "Switch"
    return "FullyConnected" if level.is_mesh else "Ring"


def _link_ns(level: Level) -> float:
    """Latency of one of the links of a message's way. [ns]"""
    return level.alpha_s * _NS / (LINKS_OF_A_SWITCH if level.is_switched else 1)


def _comm_type(case: Case) -> CommType:
    collective = case.scenario.collective
    if collective not in COMM_TYPES:
        raise WorkloadError(
            f"ASTRA-sim has no {collective.value}",
            field="--collective",
            remedy=f"use {', '.join(COMM_TYPES)}, or --format goal",
        )
    return COMM_TYPES[collective]


def _comm_bytes(case: Case) -> int:
    """What ASTRA-sim calls the size: of an all-gather it is one rank's part. [B]"""
    size = case.scenario.size_bytes
    if case.scenario.collective is Collective.ALL_GATHER:
        return max(1, round(size / case.placement.ranks))
    return size


def _implementation(case: Case, dimensions: int) -> list[str]:
    """ASTRA-sim's word for our algorithm, for each dimension."""
    name = AlgorithmName(case.choice.schedule.algorithm)
    words = INSIDE_AND_ACROSS.get(name)
    only_all_reduce = words is not None and _TREE in words
    if words is None or (only_all_reduce and case.scenario.collective is not Collective.ALL_REDUCE):
        raise ScheduleError(
            f"ASTRA-sim has no {name.value} for {case.scenario.collective.value}",
            field="--format astra-sim",
            remedy="name an --algorithm it has, such as ring",
        )
    if dimensions == 1:
        return [words[1]]
    return list(words)


def _system(case: Case, words: list[str], software_ns: int) -> dict[str, Any]:
    """The system file. One chunk: more would overlap dimensions, and pay each latency again."""
    collective = case.scenario.collective
    keys = {
        Collective.ALL_REDUCE: "all-reduce-implementation",
        Collective.ALL_GATHER: "all-gather-implementation",
        Collective.REDUCE_SCATTER: "reduce-scatter-implementation",
        Collective.ALLTOALL: "all-to-all-implementation",
    }
    rings = [_RING] * len(words)
    return {
        "scheduling-policy": "LIFO",
        "endpoint-delay": software_ns,
        "active-chunks-per-dimension": 1,
        "preferred-dataset-splits": 1,
        **{key: words if name is collective else rings for name, key in keys.items()},
        "collective-optimization": "localBWAware",
        "local-mem-bw": LOCAL_MEMORY_GB_S,
    }


LOCAL_MEMORY_GB_S: Final = 3350
"""Memory of an H100, as ASTRA-sim's own HGX H100 example has it; a collective alone reads none."""


def _software_ns(case: Case) -> int:
    """What software adds to a message, the least over all; 1 ns where it is nothing. [ns]"""
    rounds = [cost.software_s for cost in case.choice.costs.rounds if len(cost.software_s)]
    least_s = min((float(software_s.min()) for software_s in rounds), default=0.0)
    return max(1, round(least_s * _NS))


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()


def _trace_name(case: Case) -> str:
    return f"{WORKLOAD}/{case.scenario.collective.value}"


def _files(
    settings: Sequence[tuple[str, bytes]], name: str, trace: bytes, ranks: int
) -> Iterator[tuple[str, Parts]]:
    for file, content in settings:
        yield file, (content,)
    for rank in range(ranks):
        yield f"{name}.{rank}.et", (trace,)


def _figures(case: Case, levels: Sequence[Level], software_ns: int) -> Iterator[Figure]:
    for place, level in enumerate(levels, start=1):
        kind = f"dimension {place}, {_kind(level)} of {level.count}"
        text = f"{level.bytes_per_s / 1e9:.6g} GB/s, {_link_ns(level):.6g} ns a link"
        yield Figure(kind, text, level.route_class.name)
    stack = case.choice.stack.name.value
    yield Figure("endpoint-delay", f"{software_ns} ns", f"software of the {stack} stack, a message")


_BUILD: Final = (
    "ASTRA-sim 2 (astra-sim/astra-sim), analytical backend: build with its own",
    "build/astra_analytical/build.sh, which makes the two programs named below.",
)
_PROGRAM: Final = "AstraSim_Analytical_Congestion_"


def _commands(case: Case) -> tuple[str, ...]:
    options = (
        f"--workload-configuration={_trace_name(case)} --system-configuration={SYSTEM} "
        f"--network-configuration={NETWORK} --remote-memory-configuration={MEMORY}"
    )
    return tuple(f"{_PROGRAM}{way} {options}" for way in ("Unaware", "Aware"))


def _differs(case: Case, levels: Sequence[Level], words: list[str]) -> tuple[str, ...]:
    name = case.choice.schedule.algorithm
    lines = [f"ours is {name}; ASTRA-sim's is {', then '.join(words)}"]
    if len(levels) > 1 and name not in _LEVEL_BY_LEVEL:
        lines.append(
            "ours goes over all ranks at once, ASTRA-sim's level by level: hierarchical is nearer"
        )
    if case.choice.costs.launch_s:
        lines.append("launch is in ours only")
    return (
        *lines,
        "ASTRA-sim counts cycles of 1 ns, gives one time and no percentiles",
        "its congestion-aware switch sends each message on only when all of it is there: large "
        "sizes take up to twice as long as congestion-unaware",
    )


_UNCHECKED: Final = (
    "field numbers of the .et files (int64_val 9, bool_val 27 ...) are those of Chakra's schema "
    "0.0.4 from memory: compare with chakra_jsonizer or protoc --decode and the et_def.proto of "
    "your ASTRA-sim",
    "that a switch counts its latency twice and an all-gather's size is one rank's part: from "
    "memory of ASTRA-sim's source",
    "keys of system.json and memory.json agree with astra-sim-sdk 1.2.1; no ASTRA-sim was at hand "
    "to run them",
)

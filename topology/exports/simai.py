"""SimAI: a workload of one collective in AICB's form, and the options of its analytical mode.

One layer does nothing but the collective, over a tensor-parallel group of all ranks.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from topology.errors import WorkloadError
from topology.exports.case import Case, Figure, Parts, Product
from topology.exports.levels import Level, levels_of
from topology.words import Collective, ExportFormat

WORKLOAD: Final = "workload.txt"

COMM_TYPES: Final = {
    Collective.ALL_REDUCE: "ALLREDUCE",
    Collective.ALL_GATHER: "ALLGATHER",
    Collective.REDUCE_SCATTER: "REDUCESCATTER",
    Collective.ALLTOALL: "ALLTOALL",
}
"""Collectives that SimAI runs, in its words."""


def simai_product(case: Case, _: str) -> Product:
    """The workload of a case for SimAI.

    Raises:
        WorkloadError: a collective it has not, or nodes with unequal numbers of ranks.
    """
    collective = case.scenario.collective
    if collective not in COMM_TYPES:
        remedy = f"use {', '.join(COMM_TYPES)}, or --format goal"
        text = f"SimAI's workloads have no {collective.value}"
        raise WorkloadError(text, field="--collective", remedy=remedy)
    levels = levels_of(case, ExportFormat.SIMAI)
    workload = workload_text(
        COMM_TYPES[collective], ranks=case.placement.ranks, size_bytes=case.scenario.size_bytes
    )
    return Product(
        format=ExportFormat.SIMAI,
        files=partial(_files, workload),
        size_bytes=len(workload),
        messages=None,
        figures=tuple(_figures(case, levels)),
        build=_BUILD,
        commands=_commands(case, levels),
        differs=(
            f"ours is {case.choice.schedule.algorithm}; SimAI's analytical mode takes the time "
            "from bandwidth alone, below 1 MB from a fixed list by number of ranks",
            "SimAI gives one time and no percentiles",
        ),
        unchecked=_UNCHECKED,
    )


def workload_text(comm_type: str, *, ranks: int, size_bytes: int) -> str:
    """AICB's workload: a header, the number of layers, then the layer.

    A layer is name, dependency, then forward, input gradient and weight gradient, each as compute
    time in ns, collective and bytes; then the time to process it.

    >>> print(workload_text("ALLREDUCE", ranks=8, size_bytes=1048576), end="")
    HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: 8 ep: 1 pp: 1 vpp: 1 ga: 1 \
all_gpus: 8 checkpoints: 0 checkpoint_initiates: 0
    1
    collective -1 1 ALLREDUCE 1048576 1 NONE 0 1 NONE 0 1
    """
    return (
        f"HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: {ranks} ep: 1 pp: 1 vpp: 1 "
        f"ga: 1 all_gpus: {ranks} checkpoints: 0 checkpoint_initiates: 0\n"
        "1\n"
        f"collective -1 1 {comm_type} {size_bytes} 1 NONE 0 1 NONE 0 1\n"
    )


def _files(workload: str) -> Iterator[tuple[str, Parts]]:
    yield WORKLOAD, (workload.encode(),)


def _inside(case: Case, levels: Sequence[Level]) -> Level | None:
    """The level inside nodes, None where each rank has a node to itself."""
    return levels[0] if len(case.cliques[0]) > 1 else None


def _across(case: Case, levels: Sequence[Level]) -> Level | None:
    return levels[-1] if len(case.cliques) > 1 else None


def _figures(case: Case, levels: Sequence[Level]) -> Iterator[Figure]:
    named = (("-nv", _inside(case, levels)), ("-nic", _across(case, levels)))
    for name, level in named:
        source = "unused: there is no such link" if level is None else level.route_class.name
        yield Figure(name, f"{_gb_s(level)} GB/s for each GPU", source)


def _gb_s(level: Level | None) -> str:
    """Rate of a level; 1 where there is none, for the option must be given."""
    return "1" if level is None else f"{level.bytes_per_s / 1e9:.4g}"


def _commands(case: Case, levels: Sequence[Level]) -> tuple[str, ...]:
    ranks, per_node = case.placement.ranks, len(case.cliques[0])
    inside, across = _gb_s(_inside(case, levels)), _gb_s(_across(case, levels))
    return (
        f"SimAI_analytical -w {WORKLOAD} -g {ranks} -g_p_s {per_node} -n_p_s {per_node} "
        f"-nv {inside} -nic {across} -r result-",
    )


_BUILD: Final = (
    "SimAI (aliyun/SimAI), analytical mode: its scripts/build.sh -c analytical makes the program",
    "named below.",
)
_UNCHECKED: Final = (
    "the workload's form and the options are AICB's and SimAI's from memory; no SimAI was at hand "
    "to run them",
    "whether SimAI takes the size of an all-gather or reduce-scatter as one rank's part: here it "
    "is the whole array",
    "a topology file for SimAI's ns-3 mode is not written, for its form could not be checked: make "
    "one with SimAI's own generator (gen_Topo_Template.py)",
)

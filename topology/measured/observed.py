"""Observed: a run as the model sees it: its hardware columns a job, its settings an operation."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet.errors import ExpectedError
from topology.collective.placement import Placement
from topology.errors import ScheduleError
from topology.fabric.route_table import RouteMap
from topology.latency.calibration import NO_CALIBRATION, Calibration, Reach
from topology.latency.job import IntraKind, Job, job_of
from topology.latency.model import EXCHANGES, Model, make_model
from topology.latency.terms import Operation
from topology.measured.hardware import RunMachine, fabric_of, machine_of
from topology.measured.runs import Run, SkippedRun, integer_dtype, launch_of
from topology.words import AlgorithmName, Collective, Protocol

FloatArray = NDArray[np.float64]

DOUBTFUL_TRUST: Final = 0.25
"""Weight of a run whose network or launch is not told, or whose machine has broken runs."""


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """One run as the model sees it.

    ``machine``: what is held out together in cross-validation. ``trust``: weight of its points,
    below 1 where its hardware is assumed.
    """

    run_id: str
    machine: str
    family: str
    quality: str
    job: Job
    operation: Operation
    algorithm: AlgorithmName
    protocol: Protocol | None
    custom: bool
    sizes_bytes: FloatArray
    times_s: FloatArray
    trust: float = 1.0

    @property
    def reach(self) -> Reach:
        """Whether it stays in one clique."""
        return Reach.ONE_NODE if self.job.net is None else Reach.ACROSS_NODES

    def model(self, calibration: Calibration) -> Model:
        """The model of this run under a calibration.

        Raises:
            ScheduleError: NCCL has no such way here.
        """
        return make_model(
            self.job,
            self.operation,
            algorithm=self.algorithm,
            protocol=self.protocol,
            custom=self.custom,
            calibration=calibration,
        )

    def baseline(self) -> Model:
        """As NCCL alone would run it, for its own model's prediction."""
        return self.model(NO_CALIBRATION)

    @property
    def is_exchange(self) -> bool:
        """Whether it is made of point-to-point operations."""
        return self.operation.collective in EXCHANGES


_ALGORITHMS: Final = {
    "": AlgorithmName.AUTO,
    "ring": AlgorithmName.RING,
    "tree": AlgorithmName.DOUBLE_BINARY_TREE,
    "nvls": AlgorithmName.NVLS,
    "nvlstree": AlgorithmName.NVLS_TREE,
    "collnet": AlgorithmName.COLLNET,
    "collnetchain": AlgorithmName.COLLNET,
    "collnetdirect": AlgorithmName.COLLNET,
    "pat": AlgorithmName.PAT,
    "custom kernel": AlgorithmName.AUTO,
}
_PROTOCOLS: Final = {"": None, **{protocol.value: protocol for protocol in Protocol}}
_COLLECTIVES: Final = {
    **{collective.value: collective for collective in Collective},
    "all_to_all": Collective.ALLTOALL,
    "send_recv": Collective.SENDRECV,
}
_LIBRARIES: Final = (("vllm", "vllm"), ("sglang", "sglang"), ("tensorrt", "trtllm"))


def observe(runs: Iterable[Run]) -> tuple[tuple[Observed, ...], tuple[SkippedRun, ...]]:
    """Every run that the model can take, and why each of the others is left out."""
    taken: list[Observed] = []
    skipped: list[SkippedRun] = []
    runs = tuple(runs)
    doubtful = {machine_name(run) for run in runs if run.quality == "C"}
    for run in runs:
        seen = observed_from_run(run, is_doubtful=machine_name(run) in doubtful)
        if isinstance(seen, SkippedRun):
            skipped.append(seen)
        else:
            taken.append(seen)
    return tuple(taken), tuple(skipped)


def observed_from_run(run: Run, *, is_doubtful: bool = False) -> Observed | SkippedRun:
    """A run as the model sees it, or why it cannot: unknown hardware, collective, or setting.

    ``is_doubtful``: other runs of its machine are called slow or broken.
    """
    collective = _COLLECTIVES.get(run.collective.lower())
    algorithm = _ALGORITHMS.get(run.algorithm.lower())
    protocol = _PROTOCOLS.get(run.protocol.lower(), ...)
    if collective is None:
        return SkippedRun(run.run_id, f"collective: no {run.collective!r} in the model")
    if algorithm is None:
        return SkippedRun(run.run_id, f"algo_forced: no {run.algorithm!r} in the model")
    if protocol is ...:
        return SkippedRun(run.run_id, f"proto_forced: no {run.protocol!r} in the model")
    machine = machine_of(run)
    if isinstance(machine, SkippedRun):
        return machine
    job = job_of_machine(machine)
    if isinstance(job, str):
        return SkippedRun(run.run_id, job)
    if job.ranks == 1:
        return SkippedRun(run.run_id, "ranks: 1 alone does no collective")
    library, custom = run.library.lower(), run.algorithm.lower() == "custom kernel"
    observed = Observed(
        run_id=run.run_id,
        machine=machine_name(run),
        family=run.family,
        quality=run.quality,
        job=job,
        operation=Operation(
            collective,
            launch_of(f"{run.launch} {run.library if custom else ''}"),
            integer_dtype(run.dtype),
            next((name for word, name in _LIBRARIES if word in library), ""),
        ),
        algorithm=algorithm,
        protocol=protocol,
        custom=custom,
        sizes_bytes=run.sizes_bytes,
        times_s=run.times_s,
        trust=DOUBTFUL_TRUST if is_doubtful or _is_vague(run, machine) else 1.0,
    )
    try:
        observed.model(NO_CALIBRATION)
    except ScheduleError as error:
        return SkippedRun(run.run_id, f"algo_forced, proto_forced: {error}")
    return observed


def _is_vague(run: Run, machine: RunMachine) -> bool:
    """Whether the network is assumed, or workers of a framework say nothing of their launch."""
    is_told = not run.launch.lower().startswith("ray")
    return not is_told or any(note.startswith("assumed: the network") for note in machine.notes)


def machine_name(run: Run) -> str:
    """What is held out together: the same GPUs, wiring and network of one laboratory."""
    lab = run.family.split("-")[0]
    net = f", {run.nic}" if run.across_nodes else ""
    return f"{run.gpu_model} ({run.wiring}{net}), {lab}"


def job_of_machine(machine: RunMachine) -> Job | str:
    """The job of a run's machine, or why no map of it can be made."""
    key = (machine.spec, machine.nodes, machine.ranks_per_node, machine.racks)
    return _job(key, machine.run_id, machine.slow_peer_path)


_JOBS: dict[tuple[object, ...], Job | str] = {}


def _job(key: tuple[str, int, int, int], run_id: str, slow: bool) -> Job | str:
    if (*key, slow) not in _JOBS:
        spec, nodes, per_node, racks = key
        machine = RunMachine(run_id, spec, nodes, per_node, racks, slow_peer_path=slow)
        _JOBS[(*key, slow)] = _find_job(machine)
    return _JOBS[(*key, slow)]


def _find_job(machine: RunMachine) -> Job | str:
    fabric = fabric_of(machine)
    if isinstance(fabric, SkippedRun):
        return fabric.reason
    try:
        endpoints = machine.endpoints(fabric)
        job = job_of(fabric, Placement(endpoints), RouteMap(fabric, endpoints))
    except ExpectedError as error:
        return str(error)
    if machine.slow_peer_path and job.intra is not None and job.intra.kind is IntraKind.PCIE:
        return replace(job, intra=replace(job.intra, kind=IntraKind.HOST))
    return job

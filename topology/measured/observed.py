"""Observed: a run as the model sees it: its hardware columns a job, its settings an operation."""

import re
from collections import Counter
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
from topology.latency.job import IntraKind, Job, Net, job_of
from topology.latency.model import EXCHANGES, Model, make_model
from topology.latency.operation import Operation
from topology.measured.hardware import RunMachine, fabric_of, machine_of
from topology.measured.runs import Run, SkippedRun, integer_dtype, launch_of
from topology.words import AlgorithmName, Collective, Protocol

FloatArray = NDArray[np.float64]

DOUBTFUL_TRUST: Final = 0.25
"""What each doubt leaves of a run's weight: a network that is assumed, few iterations, a machine
that has broken runs."""

SICK_TRUST: Final = 0.02
"""Weight of a run on a machine of which most runs are called slow or broken."""


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """One run as the model sees it.

    ``machine``: what is held out together in cross-validation. ``trust``: weight of its points,
    below 1 where its network is assumed, its iterations are few, or its machine has broken runs.
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
    count = Counter(machine_name(run) for run in runs)
    broken = Counter(machine_name(run) for run in runs if run.quality == "C")
    for run in runs:
        name = machine_name(run)
        seen = observed_from_run(run, broken_ratio=broken[name] / count[name])
        if isinstance(seen, SkippedRun):
            skipped.append(seen)
        else:
            taken.append(seen)
    return tuple(taken), tuple(skipped)


def observed_from_run(run: Run, *, broken_ratio: float = 0.0) -> Observed | SkippedRun:
    """A run as the model sees it, or why it cannot: unknown hardware, collective, or setting.

    ``broken_ratio``: how many of its machine's runs are called slow or broken.
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
    if machine.is_cut_off and machine.nodes == 1:
        return SkippedRun(run.run_id, "notes: no model of one node all of whose traffic is on NICs")
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
        trust=_trust(run, machine, broken_ratio),
    )
    try:
        observed.model(NO_CALIBRATION)
    except ScheduleError as error:
        return SkippedRun(run.run_id, f"algo_forced, proto_forced: {error}")
    return observed


def _trust(run: Run, machine: RunMachine, broken_ratio: float) -> float:
    """What a run's points weigh beside those of a clean run on hardware that is told."""
    if broken_ratio > 0.5:
        return SICK_TRUST
    is_vague = any(note.startswith("assumed: the network") for note in machine.notes)
    is_short = _FEW_ITERATIONS.search(run.notes) is not None
    doubts = (broken_ratio > 0) + is_vague + is_short
    return float(max(DOUBTFUL_TRUST**doubts, SICK_TRUST))


_FEW_ITERATIONS: Final = re.compile(r"\bonly [1-4] iterations?\b", re.IGNORECASE)


def machine_name(run: Run) -> str:
    """What is held out together: the same GPUs, wiring and network of one laboratory."""
    lab = run.family.split("-")[0]
    net = f", {run.nic}" if run.across_nodes else ""
    return f"{run.gpu_model} ({run.wiring}{net}), {lab}"


def job_of_machine(machine: RunMachine) -> Job | str:
    """The job of a run's machine, or why no map of it can be made."""
    alike = replace(machine, run_id="", notes=())
    if alike not in _JOBS:
        _JOBS[alike] = _find_job(machine)
    return _JOBS[alike]


_JOBS: dict[RunMachine, Job | str] = {}


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
    if machine.is_cut_off and job.net is not None:
        return _through_nics(job, job.net)
    return job


def _through_nics(job: Job, net: Net) -> Job:
    """Neither peer access nor shared memory: each rank is alone with its share of the NICs."""
    share = replace(
        net,
        bytes_per_s=net.bytes_per_s / job.per_clique,
        nics=max(1, net.nics // job.per_clique),
        port_bytes_per_s=net.one_nic_bytes_per_s,
    )
    return replace(job, cliques=job.ranks, per_clique=1, intra=None, net=share)

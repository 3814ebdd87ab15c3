"""The public Python API: the arrows of the flow under the names of the commands."""

from collections.abc import Iterable
from pathlib import Path

from topology.collective.placement import Placement, pack
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.latency.calibration import Calibration, load_calibration
from topology.latency.scenario import MeasuredNoise, Scenario
from topology.latency.simulate import simulate as simulate_placement
from topology.latency.summary import LatencySummary
from topology.measured.calibrate import calibrate as calibrate_runs
from topology.measured.examine import Examination, examine
from topology.measured.nccl_tests import read_nccl_tests
from topology.measured.observed import observe
from topology.measured.runs import read_runs
from topology.measured.trace import read_trace
from topology.measured.validation import Validation, held_out_tolerance
from topology.measured.validation import validate as validate_runs
from topology.plan.planner import Plan, plan_workload
from topology.plan.workload import Workload
from topology.steps.document import StepDocument, load_step
from topology.steps.simulate import simulate_step as run_step
from topology.steps.summary import StepSummary
from topology.words import (
    AlgorithmName,
    Collective,
    DType,
    Launch,
    MethodName,
    NoiseLayer,
    NoiseName,
    Objective,
    Protocol,
    StackName,
)


def simulate(
    fabric: Fabric,
    *,
    collective: Collective | str,
    size_bytes: int,
    gpus: int | None = None,
    placement: Placement | None = None,
    algorithm: AlgorithmName | str = AlgorithmName.AUTO,
    protocol: Protocol | str | None = None,
    launch: Launch | str = Launch.PROCESS,
    dtype: DType | str = DType.FLOAT32,
    stack: StackName | str | None = None,
    noise: NoiseName | str = NoiseName.DEDICATED,
    method: MethodName | str = MethodName.AUTO,
    trace: str | Path | None = None,
    layers: Iterable[NoiseLayer | str] = (),
    sharp: bool = False,
    without: str | None = None,
    attribute: bool = False,
    knee: bool = False,
    precision: float | None = None,
    trials: int | None = None,
    seed: int = 0,
) -> LatencySummary:
    """The distribution of a collective's completion time on a fabric. [s]

    Without ``placement`` the ranks are packed: ``gpus`` of them, or as many as there are.
    ``protocol`` None: the fastest. ``trace``: latencies that were measured, as CSV, in place of the
    profile's noise. ``layers``: noise beyond single messages. The others: see ``Scenario``.

    Raises:
        WorkloadError: more ranks than endpoints or other than placed, a size below one byte.
        MeasurementError: a trace that cannot be read, or tells too little.
        UnreachableError: ranks that no known link joins.
        ValueError: a word that is none of its set.

    >>> from fleet import fleet_from_spec
    >>> fabric = Fabric(fleet_from_spec("model:dgx-h100 node:1"))
    >>> asked = {"collective": "all_reduce", "size_bytes": 8, "algorithm": "nvls"}
    >>> calm = simulate(fabric, **asked, stack="wire", noise="none")
    >>> f"{calm.noiseless_s * 1e9:.0f} ns"
    '1524 ns'
    """
    if placement is None:
        placement = pack(fabric, len(fabric.endpoints) if gpus is None else gpus)
    elif gpus not in (None, placement.ranks):
        raise WorkloadError(f"{placement.ranks} ranks placed, {gpus} asked", field="gpus")
    scenario = Scenario(
        collective=Collective(collective),
        size_bytes=size_bytes,
        algorithm=AlgorithmName(algorithm),
        protocol=None if protocol is None else Protocol(protocol),
        launch=Launch(launch),
        dtype=DType(dtype),
        stack=None if stack is None else StackName(stack),
        noise=NoiseName(noise),
        method=MethodName(method),
        measured=None if trace is None else _measured_noise(trace),
        layers=frozenset(map(NoiseLayer, layers)),
        sharp=sharp,
        without=without,
        attribute=attribute,
        knee=knee,
        precision=precision,
        trials=trials,
        seed=seed,
    )
    return simulate_placement(fabric, placement, scenario)


def _measured_noise(path: str | Path) -> MeasuredNoise:
    return MeasuredNoise(Path(path).name, read_trace(path).latencies_s)


def simulate_step(
    fabric: Fabric,
    step: StepDocument | str | Path,
    *,
    placement: Placement | None = None,
    stack: StackName | str | None = None,
    noise: NoiseName | str = NoiseName.DEDICATED,
    trials: int | None = None,
    seed: int = 0,
) -> StepSummary:
    """The distribution of a step of several collectives, from a document or its file. [s]

    Without ``placement`` its ranks are packed.

    Raises:
        WorkloadError: a step that cannot be read, or cannot be there; names the part.
        UnreachableError: ranks that no known link joins.
    """
    document = step if isinstance(step, StepDocument) else load_step(step)
    return run_step(
        document,
        fabric,
        placement or pack(fabric, document.gpus),
        noise=NoiseName(noise),
        stack=None if stack is None else StackName(stack),
        trials=trials,
        seed=seed,
    )


def plan_fleet(
    fabric: Fabric,
    workload: Workload,
    *,
    objective: Objective | str = Objective.P99,
    stack: StackName | str | None = None,
    noise: NoiseName | str = NoiseName.DEDICATED,
    trials: int | None = None,
    seed: int = 0,
) -> Plan:
    """Every move tried, one chosen, every other with the reason it lost.

    Raises:
        NoCandidateError: fewer GPUs free than asked, or none that links join.
        ValueError: a word that is none of its set.
    """
    return plan_workload(
        fabric,
        workload,
        objective=Objective(objective),
        stack=None if stack is None else StackName(stack),
        noise=NoiseName(noise),
        trials=trials,
        seed=seed,
    )


def validate(
    runs: str | Path, points: str | Path, *, calibration: Calibration | None = None
) -> Validation:
    """Measured runs held against the model, cell by cell, beside NCCL's own model.

    The tolerance of a cell is the shipped calibration's held-out figure of it.

    Raises:
        MeasurementError: a table that cannot be read.
    """
    shipped = load_calibration()
    table = read_runs(runs, points)
    return validate_runs(table, calibration or shipped, held_out_tolerance(shipped))


def calibrate(runs: str | Path, points: str | Path, *, data_name: str = "own runs") -> Calibration:
    """Figures fitted to measured runs, with intervals from machines held out one by one.

    Raises:
        MeasurementError: a table that cannot be read, or no run that weighs anything.
    """
    observed, _ = observe(read_runs(runs, points).runs)
    return calibrate_runs(observed, data=data_name)


def diagnose(
    nccl_tests: str | Path, fabric: Fabric, *, calibration: Calibration | None = None
) -> Examination:
    """Runs of nccl-tests held against what the fabric should do: healthy, or sick with suspects.

    Raises:
        MeasurementError: a text that holds no run.
        TopologyError: no run that this fabric can have run.
    """
    return examine(read_nccl_tests(nccl_tests), fabric, calibration=calibration)

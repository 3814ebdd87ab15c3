"""The public Python API: the arrows of the flow under the names of the commands."""

from topology.collective.placement import Placement, pack
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate as simulate_placement
from topology.latency.summary import LatencySummary
from topology.plan.planner import Plan, plan_workload
from topology.plan.workload import Workload
from topology.words import (
    AlgorithmName,
    Collective,
    DType,
    Launch,
    MethodName,
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
    trials: int | None = None,
    seed: int = 0,
) -> LatencySummary:
    """The distribution of a collective's completion time on a fabric. [s]

    Without ``placement`` the ranks are packed: ``gpus`` of them, or as many as there are.
    ``protocol`` None: the fastest.

    Raises:
        WorkloadError: more ranks than endpoints or other than placed, a size below one byte.
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
        trials=trials,
        seed=seed,
    )
    return simulate_placement(fabric, placement, scenario)


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

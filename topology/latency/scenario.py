"""Scenario: what is simulated besides the placement. No schedule, no figure."""

from dataclasses import dataclass

from topology.errors import WorkloadError
from topology.words import (
    AlgorithmName,
    Collective,
    DType,
    Launch,
    MethodName,
    NoiseName,
    Protocol,
    StackName,
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated besides the placement.

    ``sharp``: the network's switches reduce. ``without``: a node, link class, link kind or layer
    of noise whose noise is taken away.
    ``attribute``: also find who makes the tail, by replays. ``stack`` None: nccl on NVIDIA
    GPUs, rccl on AMD's, else wire.
    """

    collective: Collective
    size_bytes: int
    algorithm: AlgorithmName = AlgorithmName.AUTO
    protocol: Protocol | None = None
    launch: Launch = Launch.PROCESS
    dtype: DType = DType.FLOAT32
    stack: StackName | None = None
    noise: NoiseName = NoiseName.DEDICATED
    method: MethodName = MethodName.AUTO
    sharp: bool = False
    without: str | None = None
    attribute: bool = False
    trials: int | None = None
    seed: int = 0


def check_scenario(scenario: Scenario) -> None:
    """Refuse what no run can answer.

    Raises:
        WorkloadError: a size or a number of trials below one.
    """
    if scenario.size_bytes < 1:
        raise WorkloadError(
            f"{scenario.size_bytes} bytes", field="--size", remedy="give at least one byte"
        )
    if scenario.trials is not None and scenario.trials < 1:
        raise WorkloadError(f"{scenario.trials}", field="--trials", remedy="give at least one")

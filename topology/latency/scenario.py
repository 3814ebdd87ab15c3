"""Scenario: what is simulated besides the placement. No schedule, no figure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.errors import WorkloadError
from topology.words import (
    AlgorithmName,
    Collective,
    DType,
    Launch,
    MethodName,
    NoiseLayer,
    NoiseName,
    Protocol,
    StackName,
)

FloatArray: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredNoise:
    """Latencies of messages that were measured, by route class.

    Under None those of no class that is told: they stand for the network's messages, or for all
    where there is no network. ``name``: where they come from. ``latencies_s``: each ascending, of
    shape (samples,). [s]
    """

    name: str
    latencies_s: Mapping[str | None, FloatArray]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated besides the placement.

    ``measured``: stands in for the profile's noise where it has a route class. ``layers``: noise
    beyond single messages. ``sharp``: the network's switches reduce. ``without``: a node, link
    class, link kind or layer of noise whose noise is taken away. ``attribute``: also find who makes
    the tail, by replays. ``precision``: how far p99's 95 % interval may reach to either side, as a
    part of p99; ``trials`` are then the most. ``knee``: also find from which rank count rare events
    make p99.9. ``stack`` None: nccl on NVIDIA GPUs, rccl on AMD's, else wire.
    """

    collective: Collective
    size_bytes: int
    algorithm: AlgorithmName = AlgorithmName.AUTO
    protocol: Protocol | None = None
    launch: Launch = Launch.PROCESS
    dtype: DType = DType.FLOAT32
    stack: StackName | None = None
    noise: NoiseName = NoiseName.DEDICATED
    measured: MeasuredNoise | None = None
    layers: frozenset[NoiseLayer] = frozenset()
    method: MethodName = MethodName.AUTO
    sharp: bool = False
    without: str | None = None
    attribute: bool = False
    knee: bool = False
    precision: float | None = None
    trials: int | None = None
    seed: int = 0


def check_scenario(scenario: Scenario) -> None:
    """Refuse what no run can answer.

    Raises:
        WorkloadError: a size or a number of trials below one, a precision that is none.
    """
    if scenario.size_bytes < 1:
        raise WorkloadError(
            f"{scenario.size_bytes} bytes", field="--size", remedy="give at least one byte"
        )
    if scenario.trials is not None and scenario.trials < 1:
        raise WorkloadError(f"{scenario.trials}", field="--trials", remedy="give at least one")
    if scenario.noise is NoiseName.NONE and (idle := noise_asked(scenario)):
        raise WorkloadError(
            "without noise it has no meaning", field=idle, remedy="leave it out, or --noise none"
        )
    if scenario.knee and scenario.measured is not None:
        raise WorkloadError(
            "a trace tells no chance of events",
            field="--knee",
            remedy="leave it out, or --noise FILE",
        )
    if scenario.precision is not None and not 0 < scenario.precision < 1:
        raise WorkloadError(
            f"{scenario.precision:.2%}",
            field="--precision",
            remedy="give more than 0 and below 100 %",
        )


def noise_asked(scenario: Scenario) -> str | None:
    """The first option that asks for something of noise."""
    asked = {
        "--layers": bool(scenario.layers),
        "--without": scenario.without is not None,
        "--attribute": scenario.attribute,
        "--precision": scenario.precision is not None,
    }
    return next((option for option, is_asked in asked.items() if is_asked), None)

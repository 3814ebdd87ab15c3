"""Runs that a model makes: with planted factors, a little noise, and outliers on demand."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from tests.topology.latency.jobs import EIGHT_NDR, PCIE4, make_job
from topology.latency.calibration import NO_CALIBRATION, Calibration, FittedFigure
from topology.latency.job import Architecture, Job
from topology.latency.operation import Operation
from topology.measured.observed import Observed
from topology.words import AlgorithmName, Collective, Launch, Protocol

SIZES = 2.0 ** np.arange(3, 31, 1.5)


def planted(factors: Mapping[str, float]) -> Calibration:
    """A calibration with these factors."""
    figures = {
        name: FittedFigure(factor=factor, log_error=0.1, prior_log_error=0.3, points=1)
        for name, factor in factors.items()
    }
    return NO_CALIBRATION.model_copy(update={"figure": figures})


def make_observed(
    run_id: str,
    truth: Calibration = NO_CALIBRATION,
    *,
    job: Job | None = None,
    operation: Operation | None = None,
    algorithm: AlgorithmName = AlgorithmName.AUTO,
    protocol: Protocol | None = None,
    custom: bool = False,
    family: str = "lab",
    machine: str = "box",
    quality: str = "A",
    trust: float = 1.0,
    noise: float = 0.02,
    times: float = 1.0,
) -> Observed:
    """A run as the model with these factors makes it, off by ``noise`` up and down, in turn."""
    job = job or make_job()
    operation = operation or Operation(Collective.ALL_REDUCE)
    run = Observed(
        run_id=run_id,
        machine=machine,
        family=family,
        quality=quality,
        job=job,
        operation=operation,
        algorithm=algorithm,
        protocol=protocol,
        custom=custom,
        sizes_bytes=SIZES,
        times_s=np.ones_like(SIZES),
        trust=trust,
    )
    phase = sum(run_id.encode()) % 7
    wobble = np.exp(noise * np.sin(2.4 * np.arange(len(SIZES)) + phase))
    return replace(run, times_s=run.model(truth).times_s(SIZES) * wobble * times)


def many_runs(truth: Calibration, *, noise: float = 0.02) -> list[Observed]:
    """Four machines of two laboratories, each with several collectives, ways and launch styles."""
    jobs = {
        "h100": make_job(),
        "h100 pair": make_job(2, net=EIGHT_NDR),
        "a100": make_job(architecture=Architecture.AMPERE),
        "cards": make_job(architecture=Architecture.AMPERE, intra=PCIE4),
    }
    return [
        make_observed(
            f"{machine}-{collective}-{launch}-{algorithm}",
            truth,
            job=job,
            operation=Operation(collective, launch),
            algorithm=algorithm,
            machine=machine,
            family=f"lab{number % 2}-x",
            noise=noise,
        )
        for number, (machine, job) in enumerate(jobs.items())
        for collective, algorithm in (
            (Collective.ALL_REDUCE, AlgorithmName.AUTO),
            (Collective.ALL_REDUCE, AlgorithmName.RING),
            (Collective.ALL_REDUCE, AlgorithmName.DOUBLE_BINARY_TREE),
            (Collective.ALL_GATHER, AlgorithmName.AUTO),
            (Collective.ALLTOALL, AlgorithmName.AUTO),
        )
        for launch in (Launch.PROCESS, Launch.GRAPH)
    ]


def with_outliers(runs: Iterable[Observed], every: int, times: float) -> list[Observed]:
    """The runs with each so many-th point off by a factor."""
    found = []
    for run in runs:
        is_out = np.arange(len(run.times_s)) % every == sum(run.run_id.encode()) % every
        found.append(replace(run, times_s=np.where(is_out, run.times_s * times, run.times_s)))
    return found


def log_ratio(a: np.ndarray, b: np.ndarray) -> float:
    """Median of how far two sets of times are apart, in log."""
    return float(np.median(np.abs(np.log(a / b)))) if len(a) else math.nan

"""Runs made up for tests: real hardware's columns, times that a test chooses."""

from collections.abc import Callable, Sequence

import numpy as np

from topology.latency.calibration import Calibration
from topology.measured.observed import Observed, observed_from_run
from topology.measured.runs import Run, RunSet

TINY = tuple(2.0**k for k in range(3, 13))
"""8 B to 4 KiB: ten sizes of the first region."""

LARGE = tuple(2.0**k for k in range(26, 31))
"""64 MiB to 1 GiB: five sizes of the last region."""


def make_run(
    run_id: str = "a",
    *,
    sizes: Sequence[float] = TINY,
    times: Sequence[float] | None = None,
    gpu: str = "H100 SXM5 80GB",
    nodes: int = 1,
    collective: str = "all_reduce",
    quality: str = "A",
    family: str = "f",
    library: str = "NCCL 2.26",
) -> Run:
    """A run of nodes with eight GPUs each."""
    return Run(
        run_id,
        gpus_per_node=8,
        nodes=nodes,
        ranks=8 * nodes,
        sizes_bytes=np.array(sizes),
        times_s=np.array([2e-5] * len(sizes) if times is None else times),
        gpu_model=gpu,
        collective=collective,
        wiring="NVLink4/NVSwitch",
        nic="8x CX-7 NDR" if nodes > 1 else "",
        fabric="NDR InfiniBand" if nodes > 1 else "",
        library=library,
        quality=quality,
        family=family,
        launch="1 proc/GPU",
        dtype="float",
    )


def seen(run: Run) -> Observed:
    """A run as the model sees it."""
    observed = observed_from_run(run)
    assert isinstance(observed, Observed), observed
    return observed


def off_by(factor: float | Callable[[float], float], calibration: Calibration, run: Run) -> Run:
    """The run with times that a calibrated model misses by a factor: measured / predicted."""
    predicted_s = seen(run).model(calibration).times_s(run.sizes_bytes)
    factors = [factor(size) if callable(factor) else factor for size in run.sizes_bytes]
    return Run(
        **{name: getattr(run, name) for name in Run.__slots__ if name != "times_s"},
        times_s=predicted_s * np.array(factors),
    )


def table_of(*runs: Run) -> RunSet:
    """Runs as read from tables."""
    return RunSet(runs)

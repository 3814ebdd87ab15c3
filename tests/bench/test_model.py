"""The closed form: one prediction warm, making a model, growth with ranks, and the fit.

Goals: a warm prediction under 100 us, a calibration under 5 min on two cores.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.topology.latency.jobs import job_on, make_job
from tests.topology.measured.synthetic_runs import many_runs, planted
from topology.latency.calibration import NO_CALIBRATION, load_calibration
from topology.latency.model import cached_model, make_model
from topology.latency.operation import Operation
from topology.measured.calibrate import calibrate
from topology.measured.fitting import design_of, fit_design
from topology.measured.observed import observe
from topology.measured.runs import read_runs
from topology.words import AlgorithmName, Collective

pytestmark = pytest.mark.bench

MIB = 2**20
MEASURED = Path(__file__).parents[3] / "shared/data/measured"


def best_us(work: Callable[[], object], *, calls: int = 500, rounds: int = 7) -> float:
    """Time of a call, the best of some rounds: a busy machine only makes it longer."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        times.append((time.perf_counter() - start) / calls)
    return min(times) * 1e6


@pytest.mark.parametrize("collective", [Collective.ALL_REDUCE, Collective.ALLTOALL])
@pytest.mark.parametrize(("spec", "ranks"), [("dgx-h100 node:1", 8), ("dgx-h100 node:4", 32)])
def test_one_prediction(spec: str, ranks: int, collective: Collective) -> None:
    job, operation = job_on(spec, ranks), Operation(collective)
    calibration = load_calibration()

    def make() -> object:
        return make_model(job, operation, calibration=calibration)

    def find() -> object:
        return cached_model(job, operation, AlgorithmName.AUTO, None).predict(MIB)

    model = make_model(job, operation, calibration=calibration)
    custom = make_model(job, operation, calibration=calibration, custom=True)
    print(
        f"\n{spec} {collective}: make_model {best_us(make, calls=50):.0f} us, "
        f"predict {best_us(lambda: model.predict(MIB)):.1f} us, "
        f"with custom kernels {best_us(lambda: custom.predict(MIB)):.1f} us, "
        f"looked up and predicted {best_us(find):.1f} us"
    )


def test_growth_with_ranks() -> None:
    """A closed form: 4,096 nodes take as long as two."""
    jobs = {cliques: make_job(cliques) for cliques in (2, 64, 4096)}
    operation = Operation(Collective.ALL_REDUCE)
    models = {n: make_model(job, operation, calibration=NO_CALIBRATION) for n, job in jobs.items()}
    times = {n: best_us(lambda m=model: m.predict(MIB)) for n, model in models.items()}  # type: ignore[misc]
    told = ", ".join(f"{8 * n} ranks {us:.1f} us" for n, us in times.items())
    print(f"\npredict: {told}; ratio {times[4096] / times[2]:.2f}")


def test_a_fit_of_planted_runs() -> None:
    """Twice the runs: how the fit grows with points."""
    runs = many_runs(planted({"hop.nvlink.ll": 1.5}))
    took = []
    for times in (1, 4, 16):
        start = time.perf_counter()
        design = design_of(runs * times)
        designed = time.perf_counter()
        fit_design(design)
        took.append((len(design.weights), designed - start, time.perf_counter() - designed))
    for points, design_s, fit_s in took:
        print(f"\n{points} points: design {design_s:.2f} s, fit {fit_s:.2f} s", end="")


def test_a_calibration_of_all_published_runs() -> None:
    if not MEASURED.is_dir():
        pytest.skip("shared/data/measured is not beside this checkout")
    start = time.perf_counter()
    runs = read_runs(MEASURED / "runs.csv", MEASURED / "points.csv").runs
    read = time.perf_counter()
    observed, _ = observe(runs)
    seen = time.perf_counter()
    found = calibrate(observed, data="published")
    end = time.perf_counter()
    told = found.provenance
    print(
        f"\n{told.runs} runs, {told.points} points, {told.machines} machines on {os.cpu_count()} "
        f"cores: read {read - start:.2f} s, seen {seen - read:.2f} s, calibrated {end - seen:.1f} s"
    )

"""Published measurements against the calibrated model, within the tolerances of the README."""

import csv
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.topology.latency.factories import fabric_of
from topology.collective.placement import pack, spread
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.words import (
    AlgorithmName,
    Collective,
    Launch,
    NoiseName,
    ProtocolChoice,
    StackName,
)

MEASURED = Path(__file__).resolve().parents[2] / "measured"
MOST_POINTS = 60
REGIONS = ("<= 32 KiB", "<= 1 MiB", "< 64 MiB", ">= 64 MiB")
KIB, MIB = 2**10, 2**20


class Point(NamedTuple):
    """One row of points.csv."""

    run_id: str
    source: str
    gpu: str
    nodes: int
    ranks: int
    collective: Collective
    launch: Launch
    algorithm: AlgorithmName
    protocol: ProtocolChoice
    size_bytes: int
    measured_us: float
    tolerance_factor: float


def read_points() -> list[Point]:
    with (MEASURED / "points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Point(
            run_id=row["run_id"],
            source=row["source"],
            gpu=row["gpu"],
            nodes=int(row["nodes"]),
            ranks=int(row["ranks"]),
            collective=Collective(row["collective"]),
            launch=Launch(row["launch"]),
            algorithm=AlgorithmName(row["algorithm"]),
            protocol=ProtocolChoice(row["protocol"]),
            size_bytes=int(row["size_bytes"]),
            measured_us=float(row["measured_us"]),
            tolerance_factor=float(row["tolerance_factor"]),
        )
        for row in rows
    ]


def rows_of_table(heading: str) -> list[list[str]]:
    """Rows of the README's table with this heading, without the heading."""
    text = (MEASURED / "README.md").read_text()
    match = re.search(rf"^\| {heading} .*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert match, f"no table {heading}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in match[1].splitlines()]


POINTS = read_points()
MODELS = dict(rows_of_table("gpu"))
TOLERANCES = {
    (row[0], nodes): float(row[nodes]) for row in rows_of_table("region") for nodes in (1, 2)
}


def region_of(size_bytes: int) -> str:
    limits = (size_bytes <= 32 * KIB, size_bytes <= MIB, size_bytes < 64 * MIB, True)
    return REGIONS[limits.index(True)]


def predicted_us(point: Point) -> float:
    model = next(name for gpu, name in MODELS.items() if point.gpu.startswith(gpu))
    fabric = fabric_of(f"{model} node:2")
    place = pack if point.nodes == 1 else spread
    scenario = Scenario(
        collective=point.collective,
        size_bytes=point.size_bytes,
        algorithm=point.algorithm,
        protocol=point.protocol.protocol,
        launch=point.launch,
        stack=StackName.NCCL,
        noise=NoiseName.NONE,
    )
    placement = place(fabric, point.ranks)
    assert len(placement.hosts) == point.nodes
    return simulate(fabric, placement, scenario).noiseless_s * 1e6


def factor(predicted: float, measured: float) -> float:
    return max(predicted, measured) / min(predicted, measured)


def name_of(point: Point) -> str:
    return f"{point.run_id}-{point.size_bytes}"


@pytest.mark.parametrize("point", POINTS, ids=name_of)
def test_prediction_is_within_the_stated_tolerance(point: Point) -> None:
    predicted = predicted_us(point)
    assert factor(predicted, point.measured_us) <= point.tolerance_factor, (
        f"{predicted:.1f} us predicted, {point.measured_us:.1f} us measured"
    )


def test_tolerances_are_those_of_the_cells_in_the_readme() -> None:
    for point in POINTS:
        cell = region_of(point.size_bytes), point.nodes
        assert point.tolerance_factor == TOLERANCES[cell], name_of(point)


def test_points_name_where_they_were_published() -> None:
    for point in POINTS:
        assert point.source.startswith("https://"), name_of(point)


def test_the_subset_is_small_and_fills_every_cell() -> None:
    assert 0 < len(POINTS) <= MOST_POINTS
    assert {(region_of(point.size_bytes), point.nodes) for point in POINTS} == set(TOLERANCES)
    assert len({(point.run_id, point.size_bytes) for point in POINTS}) == len(POINTS)


def test_model_that_is_too_fast_or_too_slow_by_more_than_the_tolerance_is_caught() -> None:
    point = POINTS[0]
    for wrong in (2.0, 0.5):
        assert factor(point.measured_us * wrong, point.measured_us) > point.tolerance_factor


def test_one_thread_for_all_gpus_costs_more_than_a_process_each() -> None:
    point = next(p for p in POINTS if p.launch is Launch.THREAD and p.size_bytes == KIB)
    assert predicted_us(point) > predicted_us(point._replace(launch=Launch.PROCESS))


def test_two_racks_of_nvl72_together_are_not_held_to_one_nodes_nics() -> None:
    """128 GB200 on 32 trays of 4 NICs: 8 GiB in 21.3 ms (OCI GPU Quick Start: NVIDIA GB200)."""
    fabric = fabric_of("gb200-nvl72 rack:2")
    scenario = Scenario(
        collective=Collective.ALL_REDUCE, size_bytes=8 * 2**30, noise=NoiseName.NONE
    )
    predicted = simulate(fabric, pack(fabric, 128), scenario).noiseless_s
    assert factor(predicted, 21.313e-3) <= TOLERANCES[">= 64 MiB", 2]

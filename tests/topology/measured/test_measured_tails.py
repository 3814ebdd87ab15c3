"""Measured tails: published traces of messages, resampled, predict measured collectives."""

from pathlib import Path

import pytest

from tests.bench.measured_tails import (
    FABRICS,
    MEDIAN_TOLERANCE,
    Comparison,
    comparisons,
    markdown,
)
from topology.measured.tail_files import read_tails

FIGURES = Path(__file__).parents[4] / "shared/data/measured/latency_figures.csv"
pytestmark = pytest.mark.skipif(
    not FIGURES.is_file(), reason="shared/data/measured is not beside this checkout"
)


@pytest.fixture(scope="module")
def rows() -> list[Comparison]:
    return comparisons(read_tails(FIGURES).tails)


def test_every_fabric_and_node_count_that_was_published_is_compared(
    rows: list[Comparison],
) -> None:
    nodes = {
        fabric.name: {row.measured.nodes for row in rows if row.fabric is fabric}
        for fabric in FABRICS
    }
    to_16, to_32 = {4, 8, 16}, {4, 8, 16, 32}
    assert list(nodes.values()) == [to_16, to_32, to_32, to_16, to_32, to_16]
    assert len(rows) == 40


def test_medians_are_predicted_within_17_percent(rows: list[Comparison]) -> None:
    errors = {
        (row.fabric.name, row.measured.nodes): row.median_error
        for row in rows
        if row.fabric.is_held
    }
    assert len(errors) == 7
    wrong = {
        key: error
        for key, error in errors.items()
        if error is None or abs(error) > MEDIAN_TOLERANCE
    }
    assert wrong == {}


def test_the_report_says_where_the_band_does_not_cover_the_measured_p99(
    rows: list[Comparison],
) -> None:
    table = list(markdown(rows))[2:]
    held = [line for line in table if line.startswith(("| Azure", "| DEEP-EST", "| GCP"))]
    assert [line.split("|")[-2].strip() for line in held] == [
        *(["1 of 1"] * 3),
        *(["2 of 2"] * 4),
        *(["1 of 1"] * 3),
    ]
    missed = [row for row in rows if row.covers is False]
    assert {row.fabric.name.partition(",")[0] for row in missed} == {"Alps", "Piz Daint"}
    untold = [row for row in rows if row.covers is None]
    assert {row.fabric.name for row in untold} == {"Oracle HPC, RoCE 100G"}

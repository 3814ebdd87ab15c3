"""Calibration: regions, products of factors, files that are refused with where and what."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.errors import MeasurementError
from topology.latency.calibration import (
    KIB,
    MIB,
    NO_CALIBRATION,
    Calibration,
    FittedFigure,
    Interval,
    Reach,
    Region,
    calibration_from_text,
    read_calibration,
    region_of,
)
from topology.measured.runs import region_indices

TEXT = """
provenance = {runs = 2, points = 30, machines = 2, data = "mine", data_digest = "00ff"}
[[interval]]
reach = "one_node"
region = "<= 32 KiB"
low_ratio = 0.8
high_ratio = 1.5
points = 20
machines = 2
[figure]
"hop.nvlink.ll" = {factor = 1.5, log_error = 0.1, prior_log_error = 0.4, points = 20}
"hop.nvlink.hopper" = {factor = 0.5, log_error = 0.1, prior_log_error = 0.4, points = 20}
"""


@pytest.mark.parametrize(
    ("size_bytes", "region"),
    [
        (1, Region.TINY),
        (32 * KIB, Region.TINY),
        (32 * KIB + 1, Region.SMALL),
        (MIB, Region.SMALL),
        (MIB + 1, Region.MEDIUM),
        (64 * MIB - 1, Region.MEDIUM),
        (64 * MIB, Region.LARGE),
        (2**40, Region.LARGE),
    ],
)
def test_regions_end_where_the_issue_says(size_bytes: float, region: Region) -> None:
    assert region_of(size_bytes) is region


@given(st.integers(1, 2**41))
def test_regions_of_one_size_and_of_many_agree(size_bytes: int) -> None:
    assert list(Region)[int(region_indices([size_bytes])[0])] is region_of(size_bytes)


def test_factors_multiply_and_what_nothing_moved_counts_as_one() -> None:
    calibration = calibration_from_text(TEXT, "mine.toml")
    assert calibration.factor(("hop.nvlink.ll", "hop.nvlink.hopper")) == 0.75
    assert calibration.factor(("hop.nvlink.ll", "hop.nvlink.blackwell")) == 1.5
    assert calibration.factor(()) == 1.0
    assert NO_CALIBRATION.factor(("hop.nvlink.ll",)) == 1.0


def test_an_interval_is_its_groups_or_none() -> None:
    calibration = calibration_from_text(TEXT, "mine.toml")
    found = calibration.interval_of(Reach.ONE_NODE, Region.TINY)
    assert found is not None
    assert (found.low_ratio, found.high_ratio) == (0.8, 1.5)
    assert calibration.interval_of(Reach.ONE_NODE, Region.LARGE) is None
    assert calibration.interval_of(Reach.ACROSS_NODES, Region.TINY) is None
    assert NO_CALIBRATION.interval_of(Reach.ONE_NODE, Region.TINY) is None


def test_a_file_is_read_as_its_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    assert read_calibration(path) == calibration_from_text(TEXT, "elsewhere")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("figure = ", "Invalid value"),
        ("", "provenance"),
        (TEXT.replace("factor = 1.5", "factor = -1.5"), "hop.nvlink.ll"),
        (TEXT.replace("factor = 1.5", "factor = nan"), "finite"),
        (TEXT.replace("factor = 1.5", "factr = 1.5"), "hop.nvlink.ll"),
        (TEXT.replace("low_ratio = 0.8", "low_ratio = 1.8"), "low_ratio is above high_ratio"),
        (TEXT.replace('"<= 32 KiB"', '"<= 31 KiB"'), "region"),
        (TEXT.replace('"one_node"', '"one_rack"'), "reach"),
    ],
    ids=["toml", "empty", "negative", "nan", "misspelt", "order", "region", "reach"],
)
def test_a_broken_file_is_refused_with_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(MeasurementError, match="topology calibrate") as caught:
        calibration_from_text(text, "mine.toml")
    assert problem in str(caught.value)
    assert str(caught.value).startswith("mine.toml")


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"none\.toml"):
        read_calibration(tmp_path / "none.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(MeasurementError, match=r"binary\.toml"):
        read_calibration(binary)


def test_no_calibration_says_that_it_is_none() -> None:
    assert NO_CALIBRATION.provenance.points == 0
    assert (NO_CALIBRATION.figure, NO_CALIBRATION.covered) == ({}, ())


def test_a_calibration_survives_json() -> None:
    calibration = calibration_from_text(TEXT, "mine.toml")
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


def test_an_interval_may_be_a_point() -> None:
    row = Interval(
        reach=Reach.ONE_NODE,
        region=Region.TINY,
        low_ratio=1.0,
        high_ratio=1.0,
        points=1,
        machines=1,
    )
    assert row.low_ratio == row.high_ratio


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_the_order_of_figures_does_not_matter(a: float, b: float) -> None:
    rows = {
        name: FittedFigure(factor=factor, log_error=0.1, prior_log_error=0.1, points=1)
        for name, factor in (("a", a), ("b", b))
    }
    calibration = NO_CALIBRATION.model_copy(update={"figure": rows})
    assert calibration.factor(("a", "b")) == pytest.approx(calibration.factor(("b", "a")))

"""A calibration as TOML: what is written is read back, the same bytes each time."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.errors import MeasurementError
from topology.latency.calibration import (
    NO_CALIBRATION,
    Calibration,
    Covered,
    FittedFigure,
    HeldOut,
    Interval,
    Provenance,
    Reach,
    Region,
    calibration_from_text,
)
from topology.measured.calibration_text import calibration_text, rounded, toml_text

FITTED = FittedFigure(factor=1.23456789, log_error=0.0123456, prior_log_error=0.3, points=7)
FULL = Calibration(
    provenance=Provenance(
        runs=3,
        points=40,
        machines=2,
        data='published "runs"',
        data_digest="0123456789abcdef",
        families={"b": 1, "a-b": 2, "c d": 3},
    ),
    figure={"hop.nvlink.ll": FITTED, "base.ll": FITTED, "hop.net": FITTED},
    interval=(
        Interval(
            reach=Reach.ONE_NODE,
            region=Region.TINY,
            low_ratio=0.777777,
            high_ratio=1.5,
            points=30,
            machines=2,
        ),
    ),
    held_out=(
        HeldOut(
            reach=Reach.ONE_NODE,
            region=Region.TINY,
            points=30,
            median_factor=1.1,
            p90_factor=1.4,
            nccl_median_factor=1.5,
            nccl_p90_factor=2.0,
        ),
        HeldOut(
            reach=Reach.ACROSS_NODES,
            region=Region.LARGE,
            family="a-b",
            points=10,
            median_factor=1.2,
            p90_factor=1.3,
        ),
    ),
    covered=(
        Covered(
            link="ib",
            architecture="hopper",
            least_bytes=8.0,
            most_bytes=17179869184.0,
            most_cliques=4,
            most_ranks=32,
            points=40,
        ),
    ),
)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
numbers = st.floats(min_value=1e-9, max_value=1e9)
figures = st.builds(
    FittedFigure,
    factor=numbers,
    log_error=numbers,
    prior_log_error=numbers,
    points=st.integers(0, 10**6),
)


def test_what_is_written_is_read_back() -> None:
    assert calibration_from_text(calibration_text(FULL), "text") == rounded(FULL)


def test_numbers_have_four_significant_digits() -> None:
    read = calibration_from_text(calibration_text(FULL), "text")
    assert read.figure["base.ll"].factor == 1.235
    assert read.figure["base.ll"].log_error == 0.01235
    assert read.interval[0].low_ratio == 0.7778


def test_sizes_are_exact() -> None:
    assert "most_bytes = 17179869184," in calibration_text(FULL)
    read = calibration_from_text(calibration_text(FULL), "text")
    assert read.covered[0].most_bytes == 17179869184.0


def test_what_is_rounded_stays_as_it_is() -> None:
    assert rounded(rounded(FULL)) == rounded(FULL)
    assert calibration_text(rounded(FULL)) == calibration_text(FULL)


def test_the_order_of_figures_and_families_changes_no_byte() -> None:
    told = FULL.provenance
    other = FULL.model_copy(
        update={
            "figure": dict(reversed(FULL.figure.items())),
            "provenance": told.model_copy(
                update={"families": dict(reversed(told.families.items()))}
            ),
        }
    )
    assert calibration_text(other) == calibration_text(FULL)


def test_the_head_says_what_it_was_fitted_to() -> None:
    head = calibration_text(FULL).split("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert '3 runs with 40 points of 2 machines: published "runs"' in head


def test_figures_stand_in_groups_that_are_explained() -> None:
    text = calibration_text(FULL)
    assert text.index("# base: ") < text.index('"base.ll"') < text.index("# hop: ")
    assert text.index('"hop.net"') < text.index('"hop.nvlink.ll"')


def test_a_row_without_a_family_says_none() -> None:
    document = tomllib.loads(calibration_text(FULL))
    assert "family" not in document["held_out"][0]
    assert document["held_out"][1]["family"] == "a-b"
    assert "nccl_median_factor" not in document["held_out"][1]


def test_nothing_fitted_is_a_calibration_too() -> None:
    text = calibration_text(NO_CALIBRATION)
    assert calibration_from_text(text, "text") == NO_CALIBRATION
    assert "interval = [" not in text


@given(data=names, figure=st.dictionaries(names, figures, max_size=4), family=names)
def test_any_name_survives(data: str, figure: dict[str, FittedFigure], family: str) -> None:
    told = Provenance(
        runs=1, points=1, machines=1, data=data, data_digest="d", families={family: 1}
    )
    given_one = Calibration(provenance=told, figure=figure)
    assert calibration_from_text(calibration_text(given_one), "text") == rounded(given_one)


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb\t", "\x7f\x00", "é 节"])
def test_a_text_is_read_back_by_toml(text: str) -> None:
    assert tomllib.loads(f"a = {toml_text(text)}")["a"] == text


@pytest.mark.parametrize(
    "text", ["", "[figure]", "provenance.runs = 1", "not toml", "interval = 3"]
)
def test_what_is_no_calibration_is_refused(text: str) -> None:
    with pytest.raises(MeasurementError, match="topology calibrate") as raised:
        calibration_from_text(text, "mine.toml")
    assert raised.value.where == "mine.toml"

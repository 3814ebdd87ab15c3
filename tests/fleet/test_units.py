import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import ExpectedError
from fleet.units import (
    BYTE_UNITS,
    SECOND_EXPONENTS,
    UnitError,
    bytes_from_text,
    bytes_per_s_from_gbit,
    bytes_per_s_from_mbit,
    seconds_from_text,
    text_from_bytes,
    text_from_rate,
    text_from_seconds,
)

DECIMAL_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("512", 512),
        ("8B", 8),
        ("64 KB", 64_000),
        ("64kB", 64_000),
        ("64KiB", 65_536),
        ("1MiB", 1_048_576),
        ("1.5 KiB", 1_536),
        ("1GB", 1_000_000_000),
        ("2TiB", 2_199_023_255_552),
        ("1e3", 1_000),
        (" 4 GiB ", 4_294_967_296),
    ],
)
def test_size_is_read_in_its_unit(text: str, size_bytes: int) -> None:
    assert bytes_from_text(text) == size_bytes


@given(st.integers(0, 10_000), st.sampled_from(sorted(BYTE_UNITS)))
def test_whole_number_of_any_unit_is_that_many_bytes(number: int, unit: str) -> None:
    assert bytes_from_text(f"{number}{unit}") == number * BYTE_UNITS[unit]


@given(st.integers(1, 99_999), st.sampled_from(sorted(DECIMAL_UNITS)))
def test_decimals_that_are_whole_bytes_are_never_refused(hundredths: int, unit: str) -> None:
    text = f"{hundredths // 100}.{hundredths % 100:02d}{unit}"
    assert bytes_from_text(text) == hundredths * DECIMAL_UNITS[unit] // 100


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("1M", "the unit 'M'"),
        ("1Mib", "the unit 'Mib'"),
        ("3 gb", "the unit 'gb'"),
        ("", "is not a size"),
        ("-1", "is not a size"),
        ("٣KiB", "is not a size"),
        ("nan", "is not a size"),
        ("1.5", "not a whole number of bytes"),
        ("0.3 KiB", "not a whole number of bytes"),
        ("1.0000000001GB", "not a whole number of bytes"),
        ("1e400", "larger than anything"),
        ("1e300TiB", "larger than anything"),
    ],
)
def test_wrong_size_is_refused_with_its_text_and_a_remedy(text: str, part: str) -> None:
    with pytest.raises(UnitError) as caught:
        bytes_from_text(text)
    assert part in str(caught.value)
    assert repr(text) in caught.value.problem
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [("30us", 30e-6), ("30 µs", 30e-6), ("1.5 ms", 1.5e-3), ("7ns", 7e-9), ("2s", 2.0), ("0s", 0)],
)
def test_duration_is_read_in_its_unit(text: str, duration_s: float) -> None:
    assert seconds_from_text(text) == duration_s


@pytest.mark.parametrize("text", ["30", "30 weeks", "us", "", "1e400s", "-1us", "1,5us"])
def test_wrong_duration_is_refused(text: str) -> None:
    with pytest.raises(UnitError) as caught:
        seconds_from_text(text)
    assert repr(text) in caught.value.problem
    assert caught.value.remedy


def test_unit_error_is_an_expected_one_of_exit_code_2() -> None:
    with pytest.raises(ExpectedError) as caught:
        seconds_from_text("30")
    assert caught.value.exit_code == 2


@given(st.integers(1, 10**6), st.sampled_from(sorted(SECOND_EXPONENTS)))
def test_duration_is_the_float_nearest_to_its_decimal_text(number: int, unit: str) -> None:
    exact = Fraction(number) * Fraction(10) ** SECOND_EXPONENTS[unit]
    assert seconds_from_text(f"{number}{unit}") == float(exact)


@given(st.floats(1e-9, 9e3))
def test_printed_duration_is_within_its_four_figures(duration_s: float) -> None:
    back = seconds_from_text(text_from_seconds(duration_s))
    assert math.isclose(back, duration_s, rel_tol=5.1e-4)


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [(0.0, "0 s"), (999.9e-9, "999.9 ns"), (1e-6, "1 us"), (3.25e-3, "3.25 ms"), (61.0, "61 s")],
)
def test_duration_is_printed_in_the_unit_that_fits(duration_s: float, text: str) -> None:
    assert text_from_seconds(duration_s) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (10 * 2**40, "10 TiB")],
)
def test_size_is_printed_in_binary_units(size_bytes: int, text: str) -> None:
    assert text_from_bytes(size_bytes) == text


@given(st.integers(1, 2**50))
def test_printed_size_is_within_a_twentieth_of_its_unit(size_bytes: int) -> None:
    number, unit = text_from_bytes(size_bytes).split()
    assert abs(float(number) * BYTE_UNITS[unit] - size_bytes) <= 0.0501 * BYTE_UNITS[unit]


def test_rates_are_decimal_and_of_one_direction() -> None:
    assert text_from_rate(450e9) == "450 GB/s"
    assert text_from_rate(12.5e9) == "12.5 GB/s"
    assert bytes_per_s_from_gbit(400) == 50e9
    assert bytes_per_s_from_mbit(1000) == 125e6

"""Names in order, folded, and counts with their noun."""

import pytest

from fleet.naming import counted, name_range, name_runs, natural_key


def test_names_that_miss_a_number_are_two_runs() -> None:
    assert name_runs(["n1", "n2", "n4"]) == ["n1..2", "n4"]


def test_leading_zeros_are_part_of_the_range() -> None:
    assert name_range(["n099", "n100", "n101"]) == "n099..101"


def test_names_without_numbers_are_counted() -> None:
    assert name_range(["alpha", "beta"]) == "alpha and 1 more"


def test_numbers_sort_as_numbers() -> None:
    assert sorted(["r10", "r9", "r"], key=natural_key) == ["r", "r9", "r10"]


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "node", "0 nodes"),
        (1, "leaf", "1 leaf"),
        (3, "leaf", "3 leaves"),
        (2, "switch", "2 switches"),
    ],
)
def test_a_count_takes_its_nouns_plural(count: int, noun: str, text: str) -> None:
    assert counted(count, noun) == text

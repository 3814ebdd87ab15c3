"""Unrolling: which operation waits for which."""

from typing import Any

from tests.topology.steps.factories import all_reduce, compute, step_of
from topology.steps.unroll import unroll


def waits(*parts: dict[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    return [(op.part.name, op.after) for op in unroll(step_of(*parts))]


def test_a_part_waits_for_the_one_before_it() -> None:
    assert waits(compute("a", 1), all_reduce("s"), compute("b", 1)) == [
        ("a", ()),
        ("s", (0,)),
        ("b", (0, 1)),
    ]


def test_repetitions_stand_in_a_row() -> None:
    assert waits(compute("a", 1, repeat=3)) == [("a", ()), ("a", (0,)), ("a", (1,))]


def test_an_overlapped_part_is_not_waited_for_but_by_name() -> None:
    rows = waits(
        compute("a", 1),
        all_reduce("s", overlap=True),
        compute("b", 1),
        compute("c", 1, after=["s"]),
    )
    assert rows == [("a", ()), ("s", (0,)), ("b", (0,)), ("c", (1, 2))]


def test_a_block_is_gone_through_as_often_as_it_says() -> None:
    block = {"name": "l", "repeat": 2, "parts": [compute("a", 1), all_reduce("s", overlap=True)]}
    assert waits(block, compute("end", 1, after=["l"])) == [
        ("a", ()),
        ("s", (0,)),
        ("a", (0,)),
        ("s", (1, 2)),
        ("end", (2, 3)),
    ]


def test_a_name_in_a_block_is_the_latest_repetition() -> None:
    gather = all_reduce("g", after=[], overlap=True)
    block = {"name": "l", "repeat": 2, "parts": [gather, compute("a", 1, also_after=["g"])]}
    assert waits(block) == [("g", ()), ("a", (0,)), ("g", (0,)), ("a", (1, 2))]


def test_an_overlapped_block_is_passed_by() -> None:
    block = {"name": "l", "overlap": True, "parts": [all_reduce("s", repeat=2)]}
    assert waits(compute("a", 1), block, compute("b", 1)) == [
        ("a", ()),
        ("s", (0,)),
        ("s", (1,)),
        ("b", (0,)),
    ]

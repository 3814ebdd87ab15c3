"""Naming: names in the order people expect, folded into ranges, counts with their noun."""

import re
from collections.abc import Iterable, Sequence


def natural_key(text: str) -> tuple[tuple[int, str], ...]:
    """Sort key that takes digits for numbers.

    >>> sorted(["row10", "row2"], key=natural_key)
    ['row2', 'row10']
    """
    parts = re.split(r"([0-9]+)", text)
    return tuple((int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts))


def counted(count: int, noun: str) -> str:
    """A count with its noun.

    >>> counted(1, "leaf"), counted(1250, "node"), counted(2, "leaf"), counted(2, "switch")
    ('1 leaf', '1,250 nodes', '2 leaves', '2 switches')
    """
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("leaf"):
        return f"{count:,} {noun[:-1]}ves"
    return f"{count:,} {noun}{'es' if noun.endswith('ch') else 's'}"


def name_runs(names: Iterable[str]) -> list[str]:
    """Names in order, those that are numbered in a row as one range.

    >>> name_runs(["h100-001", "h100-002", "h100-003", "core7"])
    ['h100-001..003', 'core7']
    """
    runs: list[list[str]] = []
    for name in names:
        if runs and name == _successor(runs[-1][-1]):
            runs[-1].append(name)
        else:
            runs.append([name])
    return [_range(run[0], run[-1]) for run in runs]


def name_range(names: Sequence[str]) -> str:
    """Names as a range where they are numbered in a row, else the first and how many more.

    >>> name_range(["spine1", "spine2"]), name_range(["a", "b", "c"])
    ('spine1..2', 'a and 2 more')
    """
    runs = name_runs(names)
    return runs[0] if len(runs) == 1 else f"{names[0]} and {len(names) - 1:,} more"


def _successor(name: str) -> str:
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    return f"{stem}{int(digits) + 1:0{len(digits)}d}" if digits else ""


def _range(first: str, last: str) -> str:
    return first if first == last else f"{first}..{last[len(first.rstrip('0123456789')) :]}"

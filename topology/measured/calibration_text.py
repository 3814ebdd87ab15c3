"""Calibration as TOML, for people to read and compare. Same calibration, same bytes; no file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from fleet.naming import counted
from topology.fabric.link_figures import Figures
from topology.latency.calibrated_figures import FIGURE_GROUPS, group_of
from topology.latency.calibration import (
    Calibration,
    Covered,
    FittedFigure,
    HeldOut,
    Interval,
    Provenance,
)

DIGITS: Final = 4
"""Significant digits of a figure: the last is far below any error of a figure."""

_HEAD: Final = """\
Calibration: factors of the model's figures, fitted to measurements. Written by topology calibrate;
the same data gives the same bytes.

Fitted to {runs} with {points} of {machines}: {data}.
The digest names exactly these runs and points. Each family of runs weighs the same in a cell."""

_INTERVALS: Final = """\
Measured / predicted at 10 % and at 90 % of the points of machines that were held out, one machine
after another: 80 % of them lie between."""

_HELD_OUT: Final = """\
How far the points of held-out machines were missed, as max / min of predicted and measured: ours,
and NCCL's own model on those that it has a model for (none of point-to-point operations). Without
family: all families, each weighing the same."""

_COVERED: Final = "What was measured at all; beyond it the model says extrapolated. [bytes]"

_FIGURES: Final = """\
factor: on the figure's prior, which is NCCL's constant or a nominal rate. log_error: error of the
factor in log (0.1: about 10 %), as the weights of the fit have it: a guide, no test.
prior_log_error: how far it may lie from its prior. points: how many have it in their time. A
log_error close to prior_log_error: hardly any data."""


def rounded(calibration: Calibration) -> Calibration:
    """A calibration with its numbers at ``DIGITS`` significant digits, sizes exact: as its text."""
    return Calibration.model_validate_json(json.dumps(_document(calibration)))


def calibration_text(calibration: Calibration) -> str:
    """A calibration as TOML, which ``calibration_from_text`` reads back as ``rounded``."""
    document = _document(calibration)
    blocks = [
        [*_head(calibration.provenance), "", *_provenance_lines(calibration.provenance)],
        *_rows("interval", _INTERVALS, document["interval"], Interval),
        *_rows("held_out", _HELD_OUT, document["held_out"], HeldOut),
        *_rows("covered", _COVERED, document["covered"], Covered),
        [*_comment(_FIGURES), "[figure]"],
        *_figure_blocks(document["figure"]),
    ]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _document(calibration: Calibration) -> dict[str, Any]:
    document = _rounded(calibration.model_dump(mode="json", exclude_none=True))
    assert isinstance(document, dict), "a model is dumped as a dict"
    return document


def _rounded(value: object, name: str = "") -> object:
    """A value and all inside it; sizes are exact, or 4 GiB would not be measured at 4 GiB."""
    if isinstance(value, dict):
        return {key: _rounded(of, key) for key, of in value.items()}
    if isinstance(value, list):
        return [_rounded(of) for of in value]
    if isinstance(value, float) and name.endswith("_bytes"):
        return int(value) if value.is_integer() else value
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _head(told: Provenance) -> list[str]:
    text = _HEAD.format(
        runs=counted(told.runs, "run"),
        points=counted(told.points, "point"),
        machines=counted(told.machines, "machine"),
        data=told.data,
    )
    return _comment(text)


def _provenance_lines(told: Provenance) -> list[str]:
    facts = told.model_dump(exclude={"families"}) | {
        "families": dict(sorted(told.families.items()))
    }
    return [f"provenance.{name} = {toml_value(value)}" for name, value in facts.items()]


def _rows(
    name: str, comment: str, rows: Sequence[Mapping[str, Any]], row_type: type[Figures]
) -> Iterator[list[str]]:
    """An array of tables, a line each; nothing where it is empty."""
    if rows:
        lines = (f"    {line}," for line in _aligned(rows, list(row_type.model_fields)))
        yield [*_comment(comment), f"{name} = [", *lines, "]"]


def _figure_blocks(figures: Mapping[str, Any]) -> Iterator[list[str]]:
    """The figures in groups of the first part of their names."""
    names = sorted(figures, key=lambda name: (group_of(name), name))
    width = max((len(toml_text(name)) for name in names), default=0)
    keys = list(FittedFigure.model_fields)
    lines = dict(zip(names, _aligned([figures[name] for name in names], keys), strict=True))
    for group, members in groupby(names, key=group_of):
        comment = f"{group}: {FIGURE_GROUPS.get(group, 'no description')}"
        yield [*_comment(comment), *(f"{toml_text(n):<{width}} = {lines[n]}" for n in members)]


def _aligned(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """Inline tables with their values below one another; a key that a row lacks leaves a gap."""
    cells = [
        {key: f"{key} = {toml_value(row[key])}, " for key in keys if key in row} for row in rows
    ]
    widths = {key: max((len(row.get(key, "")) for row in cells), default=0) for key in keys}
    joined = ("".join(row.get(key, "").ljust(widths[key]) for key in keys) for row in cells)
    return [f"{{ {line.rstrip().removesuffix(',')} }}" for line in joined]


def _comment(text: str) -> list[str]:
    """Lines of a comment, in which no control character may stand."""
    safe = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    return [f"# {line}".rstrip() for line in safe.split("\n")]


def toml_value(value: object) -> str:
    """A value as TOML: text, number, or an inline table of them.

    >>> toml_value({"factor": 0.5, "points": 3}), toml_value(1e15)
    ('{ factor = 0.5, points = 3 }', '1000000000000000.0')
    """
    match value:
        case str():
            return toml_text(value)
        case dict():
            inside = ", ".join(f"{_key(k)} = {toml_value(of)}" for k, of in value.items())
            return f"{{ {inside} }}" if inside else "{}"
    return repr(value)


def _key(name: str) -> str:
    is_bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if is_bare else toml_text(name)


def toml_text(text: str) -> str:
    r"""A basic string of TOML: as JSON has it, and DEL escaped as well.

    >>> print(toml_text('8 "GPUs"\n'))
    "8 \"GPUs\"\n"
    """
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

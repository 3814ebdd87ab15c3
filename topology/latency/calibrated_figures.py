"""Calibrated figures, and NCCL's own constants, as people and programs read them."""

from collections.abc import Iterator, Mapping
from math import expm1
from typing import Any, Final

from fleet.units import text_from_bytes, text_from_rate, text_from_seconds
from topology.fabric.report import Table
from topology.latency.calibration import Calibration
from topology.latency.nccl_figures import NcclTunerFigures

FIGURE_GROUPS: Final = {
    "bandwidth": "time per byte, by way, link, GPU generation and collective",
    "base": "software once per operation, by protocol, medium and GPU generation",
    "chain": "waits along a pipelined chain (broadcast, reduce), rank after rank",
    "custom": "serving frameworks' own kernels, by GPU generation",
    "fill": "first pieces of a pipeline crossing every hop: trees between nodes, chains",
    "hop": "a hop inside a clique, by link, protocol and GPU generation",
    "launch": "starting the operation, by launch style",
    "net": "a hop between nodes, by network and protocol",
    "nvls": "an operation in the NVSwitch",
    "one_shot": "custom kernels that read all others' whole buffers",
    "p2p": "point-to-point operations, by protocol and GPU generation",
    "peer": "one further peer of an all-to-all",
    "plugin": "what a network's plug-in adds to an operation",
    "ramp": "links filling up as a message grows",
    "two_shot": "custom kernels that reduce their share, then read the others'",
}
"""What the figures stand for, by the first part of their names."""


def group_of(name: str) -> str:
    """The first part of a figure's name.

    >>> group_of("hop.nvlink.ll")
    'hop'
    """
    return name.partition(".")[0]


def calibrated_table(calibration: Calibration) -> Table:
    """All fitted factors on their priors as rows of text, with one standard error."""
    rows = [
        (name, f"{fitted.factor:.3f}", error_text(fitted.log_error), f"{fitted.points:,}")
        for name, fitted in sorted(calibration.figure.items(), key=_in_groups)
    ]
    return ("calibrated figure", "factor", "+/-", "points"), rows


def _in_groups(item: tuple[str, object]) -> tuple[str, str]:
    return group_of(item[0]), item[0]


def error_text(log_error: float) -> str:
    """A standard error in log as a share of the factor.

    >>> error_text(0.1)
    '11 %'
    """
    return f"{expm1(log_error) * 100:.0f} %"


def tuner_table(figures: NcclTunerFigures) -> Table:
    """NCCL's own constants as rows of text."""
    rows = [(name, *_trust(name, figures), text) for name, text in _leaves("", _constants(figures))]
    return (f"NCCL {figures.version} constant", "confidence", "source", "value"), rows


def calibrated_document(calibration: Calibration, figures: NcclTunerFigures) -> dict[str, Any]:
    """Calibrated figures and NCCL's constants as JSON, with where they come from."""
    calibrated = calibration.model_dump(mode="json", include={"provenance", "figure"})
    return {"calibrated": calibrated, "nccl_tuner": figures.model_dump(mode="json")}


_ABOUT: Final = {"version", "source", "confidence", "channels_confidence", "guesses"}


def _constants(figures: NcclTunerFigures) -> dict[str, Any]:
    return figures.model_dump(mode="json", exclude=_ABOUT, exclude_unset=True)


def _trust(name: str, figures: NcclTunerFigures) -> tuple[str, str]:
    """Confidence and source; what the topology search finds is restated, not a constant."""
    if name in figures.guesses:
        return "guess", "E1"
    told = figures.channels_confidence if group_of(name) == "channels" else figures.confidence
    return told.value, figures.source


def _leaves(path: str, value: object) -> Iterator[tuple[str, str]]:
    """Dotted names with their values as text; a list is one value."""
    if not isinstance(value, Mapping):
        yield path, _value_text(path, value)
        return
    for key, inside in value.items():
        yield from _leaves(f"{path}.{key}" if path else key, inside)


def _value_text(name: str, value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_value_text(name, one) for one in value)
    assert isinstance(value, int | float), f"{name} is no number"
    group, last = group_of(name), name.rpartition(".")[2]
    if last.endswith("_ratio"):
        return f"{value:g}"
    if last.endswith("bytes_per_s") or group == "cap":
        return text_from_rate(value)
    if last.endswith("_bytes"):
        return text_from_bytes(value)
    return text_from_seconds(value) if group.endswith("_s") else f"{value:g}"

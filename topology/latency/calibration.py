"""Calibration: factors of figures, fitted to measurements, with what they were fitted to.

The file that ships is written by ``topology calibrate``; a user's own takes its place.
"""

import json
import tomllib
from enum import StrEnum
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from topology.errors import MeasurementError
from topology.fabric.link_figures import Figures, Words

FILE_NAME: Final = "calibration.toml"
KIB, MIB = 2**10, 2**20


class Region(StrEnum):
    """Sizes that behave alike."""

    TINY = "<= 32 KiB"
    SMALL = "<= 1 MiB"
    MEDIUM = "< 64 MiB"
    LARGE = ">= 64 MiB"


REGIONS: Final = tuple(Region)


def region_of(size_bytes: float) -> Region:
    """The region of a size.

    >>> region_of(32 * 1024), region_of(32 * 1024 + 1)
    (<Region.TINY: '<= 32 KiB'>, <Region.SMALL: '<= 1 MiB'>)
    """
    limits = (size_bytes <= 32 * KIB, size_bytes <= MIB, size_bytes < 64 * MIB, True)
    return REGIONS[limits.index(True)]


class Reach(StrEnum):
    """Whether a run stays in one clique."""

    ONE_NODE = "one_node"
    ACROSS_NODES = "across_nodes"


class FittedFigure(Figures):
    """Factor of a prior with its standard error in log; ``points``: observations that move it."""

    factor: PositiveFloat
    log_error: NonNegativeFloat
    prior_log_error: PositiveFloat
    points: NonNegativeInt


class Interval(Figures):
    """What measured / predicted was at 10 % and 90 % of held-out points of a group."""

    reach: Reach
    region: Region
    low_ratio: PositiveFloat
    high_ratio: PositiveFloat
    points: PositiveInt
    machines: PositiveInt

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low_ratio > self.high_ratio:
            raise ValueError("low_ratio is above high_ratio")
        return self


class HeldOut(Figures):
    """How far held-out machines were missed: factor max / min of predicted and measured.

    Ours, and ``nccl`` for NCCL's own model on those points that it has a model of, None where it
    has of none; ``family`` None: all, each weighing the same.
    """

    reach: Reach
    region: Region
    family: str | None = None
    points: PositiveInt
    median_factor: PositiveFloat
    p90_factor: PositiveFloat
    nccl_median_factor: PositiveFloat | None = None
    nccl_p90_factor: PositiveFloat | None = None


class Covered(Figures):
    """A class of links that was measured: with which GPUs, how small, over how many cliques."""

    link: Words
    architecture: Words
    least_bytes: PositiveFloat
    most_bytes: PositiveFloat
    most_cliques: PositiveInt
    most_ranks: PositiveInt
    points: PositiveInt


class Provenance(Figures):
    """What a calibration was fitted to, and by what."""

    runs: NonNegativeInt
    points: NonNegativeInt
    machines: NonNegativeInt
    data: Words
    data_digest: Words
    families: dict[str, NonNegativeInt] = Field(default_factory=dict)


class Calibration(Figures):
    """Fitted factors by figure, intervals by group, and what was measured at all."""

    provenance: Provenance
    figure: dict[str, FittedFigure]
    interval: tuple[Interval, ...] = ()
    held_out: tuple[HeldOut, ...] = ()
    covered: tuple[Covered, ...] = ()

    def factor(self, names: tuple[str, ...]) -> float:
        """Product of the factors of these figures; a figure that nothing moved counts as 1."""
        product = 1.0
        for name in names:
            fitted = self.figure.get(name)
            product *= 1.0 if fitted is None else fitted.factor
        return product

    def interval_of(self, reach: Reach, region: Region) -> Interval | None:
        """The interval of a group, None where nothing was held out."""
        found = (i for i in self.interval if i.reach is reach and i.region is region)
        return next(found, None)


NO_CALIBRATION: Final = Calibration(
    provenance=Provenance(runs=0, points=0, machines=0, data="none", data_digest="none"), figure={}
)


def calibration_from_text(text: str, where: str) -> Calibration:
    """A calibration from TOML.

    Raises:
        MeasurementError: no TOML, or none that ``topology calibrate`` writes.
    """
    try:
        return Calibration.model_validate_json(json.dumps(tomllib.loads(text)))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        first = str(error).splitlines()
        raise MeasurementError(
            " ".join(line.strip() for line in first[:3]),
            where=where,
            remedy="give a file that topology calibrate wrote",
        ) from error


def read_calibration(path: Path) -> Calibration:
    """A calibration from a file.

    Raises:
        MeasurementError: the file cannot be read, or is no calibration.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise MeasurementError(str(error), where=str(path)) from error
    return calibration_from_text(text, str(path))


@cache
def load_calibration() -> Calibration:
    """The calibration that ships with fleetmap."""
    text = (files("topology.latency") / FILE_NAME).read_text()
    return calibration_from_text(text, FILE_NAME)

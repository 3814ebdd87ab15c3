"""Figures of noise beyond single messages: for each layer and noise profile one row with source.

A row of zeros is a layer that does nothing. A delay is ``min(LogNormal(median_s, sigma), cap_s)``.
"""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, model_validator

from topology.fabric.figure_types import Confidence, Figures, Probability, Words

Sigma = Annotated[float, Field(ge=0, le=5)]
DelaySeconds = Annotated[float, Field(ge=0, le=3600)]
Speed = Annotated[float, Field(ge=0.01, le=1)]


class LayerRow(Figures):
    """Where a row's figures come from."""

    sources: tuple[Words, ...]
    basis: Words
    confidence: Confidence

    @property
    def text(self) -> str:
        """The figures of the row, without where they come from."""
        own = self.model_dump(exclude=set(LayerRow.model_fields))
        return ", ".join(f"{name} {value:g}" for name, value in own.items())


class DelayRow(LayerRow):
    """A delay: ``min(LogNormal(median_s, sigma), cap_s)``; a median of 0 is none. [s]"""

    median_s: DelaySeconds
    sigma: Sigma
    cap_s: DelaySeconds

    @model_validator(mode="after")
    def _median_below_cap(self) -> Self:
        if self.median_s > self.cap_s:
            raise ValueError("median_s lies above cap_s")
        return self


class SkewRow(DelayRow):
    """How much later than asked each rank starts."""


class StallRow(DelayRow):
    """``probability``: that a rank's sends over the network are held up in a step."""

    probability: Probability


class CorrelatedRow(DelayRow):
    """A burst that delays every message of a leaf or a host over the network.

    ``steps``: how many steps in a row it lasts. Probabilities are of as many steps.
    """

    leaf_probability: Probability
    host_probability: Probability
    steps: Annotated[int, Field(ge=1, le=1_000_000)]


class EpisodeRow(LayerRow):
    """Minutes in which a host's links to the network are slow.

    They start ``rate_per_s`` times a second and host and last ``duration_s`` in the mean. Speed
    while they last, of bandwidth and wire alike: evenly between least and most.
    """

    rate_per_s: Annotated[float, Field(ge=0, le=1)]
    duration_s: Annotated[float, Field(ge=0, le=1e7)]
    least_speed_ratio: Speed
    most_speed_ratio: Speed

    @model_validator(mode="after")
    def _speeds_in_order(self) -> Self:
        if self.least_speed_ratio > self.most_speed_ratio:
            raise ValueError("least_speed_ratio lies above most_speed_ratio")
        return self


class SlowRow(LayerRow):
    """``share_ratio`` of all hosts do everything at ``speed_ratio``, for good."""

    share_ratio: Probability
    speed_ratio: Speed


class CollisionRow(LayerRow):
    """Flows that a hash puts on uplinks.

    ``queue_pairs``: flows that a connection's bytes are spread over; 0: evenly over all uplinks.
    ``other_flows``: mean number of other jobs' flows on an uplink, as wide as ours.
    """

    queue_pairs: Annotated[int, Field(ge=0, le=128)]
    other_flows: Annotated[NonNegativeFloat, Field(le=100)]


class NoiseLayerFigures(Figures):
    """Rows of every layer by noise profile."""

    skew: dict[str, SkewRow]
    stall: dict[str, StallRow]
    episode: dict[str, EpisodeRow]
    slow: dict[str, SlowRow]
    correlated: dict[str, CorrelatedRow]
    collision: dict[str, CollisionRow]

    def rows(self) -> Iterator[tuple[str, str, LayerRow]]:
        """Every row with its layer and its profile."""
        for layer in type(self).model_fields:
            for profile, row in getattr(self, layer).items():
                yield layer, profile, row

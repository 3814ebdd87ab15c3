"""Band: the same operation simulated under each noise profile, held against what was measured.

A tail belongs to a time and an allocation, so a measured percentile is compared with a band over
profiles and never with one number. The band reaches from the lowest to the highest end of the
profiles' sampling intervals, widened by the calibration's own interval of the noiseless time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias, TypeVar

import numpy as np

from topology.collective.placement import Placement
from topology.errors import TopologyError, WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.latency.scenario import Scenario
from topology.latency.setting import PROFILES
from topology.latency.simulate import simulate_samples
from topology.latency.summary import LatencySummary, order_statistics
from topology.measured.tail import (
    QUANTILES,
    FloatArray,
    MeasuredPercentile,
    MeasuredTail,
    percentiles_of,
)
from topology.words import Collective, TailModel

Place: TypeAlias = Callable[[int | None], Placement]
"""Where so many ranks sit; None: as many as there are."""

T = TypeVar("T")

Step: TypeAlias = Callable[[int, int], None]
"""Told how many simulations are done, and of how many."""


class Cover(StrEnum):
    """Where a measured percentile lies; untold: it was not measured, or the trials are too few."""

    COVERED = "covered"
    ABOVE = "above the band"
    BELOW = "below the band"
    UNTOLD = "untold"


@dataclass(frozen=True, slots=True)
class Band:
    """Of one percentile: its ends and each profile's value; None: too few trials. [s]"""

    low_s: float
    high_s: float | None
    by_profile_s: Mapping[str, float]

    def cover(self, measured: MeasuredPercentile) -> Cover:
        """Whether the measured percentile, with its interval where it has one, meets the band."""
        value_s = measured.value_s
        if value_s is None or self.high_s is None:
            return Cover.UNTOLD
        low_s, high_s = measured.interval or (value_s, value_s)
        if low_s > self.high_s:
            return Cover.ABOVE
        if high_s is None and value_s < self.low_s:
            return Cover.UNTOLD  # too few samples to tell how far up it reaches
        return Cover.BELOW if high_s is not None and high_s < self.low_s else Cover.COVERED


@dataclass(frozen=True, slots=True)
class HeldTail:
    """A measured tail with its percentiles, and the band of each where it was simulated.

    ``reason``: why it was not, where it was not; ``model``: the simulation at the quietest profile.
    """

    tail: MeasuredTail
    percentiles: Mapping[str, MeasuredPercentile]
    bands: Mapping[str, Band] | None = None
    model: LatencySummary | None = None
    reason: str | None = None

    def cover(self, name: str) -> Cover | None:
        """Where a percentile lies, None where nothing was simulated."""
        return None if self.bands is None else self.bands[name].cover(self.percentiles[name])

    @property
    def is_outside(self) -> bool:
        """Whether a measured percentile lies outside its band."""
        return any(self.cover(name) in (Cover.ABOVE, Cover.BELOW) for name in self.percentiles)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is simulated: the file's own collective, size and ranks, else these.

    A tail that tells another collective, size or number of ranks than asked for is left out.
    ``scenario``: all other options; its collective, size and noise are not used.
    """

    scenario: Scenario
    place: Place
    collective: Collective | None = None
    size_bytes: int | None = None
    ranks: int | None = None


def without_bands(
    tails: Sequence[MeasuredTail], model: TailModel | None = None
) -> tuple[HeldTail, ...]:
    """The tails with their percentiles alone."""
    return tuple(HeldTail(tail, percentiles_of(tail, model)) for tail in tails)


def hold_against(
    tails: Sequence[MeasuredTail],
    fabric: Fabric,
    asked: Asked,
    *,
    model: TailModel | None = None,
    step: Step | None = None,
) -> tuple[HeldTail, ...]:
    """The tails with their percentiles, and with bands where the model has the operation.

    Raises:
        TopologyError: none of the tails can be simulated; that of the first is raised.
    """
    held: list[HeldTail] = []
    first: TopologyError | None = None
    for number, tail in enumerate(tails):
        percentiles = percentiles_of(tail, model)
        try:
            held.append(_with_bands(tail, percentiles, fabric, asked))
        except TopologyError as error:
            first = first or error
            held.append(HeldTail(tail, percentiles, reason=str(error)))
        if step is not None:
            step(number + 1, len(tails))
    if first is not None and all(tail.bands is None for tail in held):
        raise first
    return tuple(held)


def _with_bands(
    tail: MeasuredTail,
    percentiles: Mapping[str, MeasuredPercentile],
    fabric: Fabric,
    asked: Asked,
) -> HeldTail:
    if all(found.value_s is None for found in percentiles.values()):
        raise WorkloadError("no percentile to hold against", where=tail.where, field=_line(tail))
    scenario = _scenario(tail, asked)
    placement = asked.place(_agreed(tail, "--gpus", tail.ranks, asked.ranks))
    runs = [
        simulate_samples(fabric, placement, replace(scenario, noise=profile))
        for profile in PROFILES
    ]
    bands = {name: _band(name, runs) for name in percentiles}
    return HeldTail(tail, percentiles, bands, model=runs[0][0])


def _line(tail: MeasuredTail) -> str:
    return f"line {tail.line}"


def _scenario(tail: MeasuredTail, asked: Asked) -> Scenario:
    collective = _agreed(tail, "--collective", tail.collective, asked.collective)
    size_bytes = _agreed(tail, "--size", tail.size_bytes, asked.size_bytes)
    if collective is None or size_bytes is None:
        missing = "--collective" if collective is None else "--size"
        raise WorkloadError(
            f"{tail.what}: its {missing.removeprefix('--')} is not told",
            where=tail.where,
            field=_line(tail),
            remedy=f"give {missing}",
        )
    return replace(asked.scenario, collective=collective, size_bytes=size_bytes)


def _agreed(tail: MeasuredTail, option: str, told: T | None, given: T | None) -> T | None:
    """What the file tells, else what is given; refused where they differ."""
    if told is not None and given is not None and told != given:
        raise WorkloadError(
            f"{tail.what}: the file tells {told}, {option} {given}",
            where=tail.where,
            field=_line(tail),
            remedy=f"leave {option} out, or name one that is there",
        )
    return given if told is None else told


def _band(name: str, runs: Sequence[tuple[LatencySummary, FloatArray]]) -> Band:
    """From the lowest to the highest end of the profiles' intervals, model interval included."""
    q = QUANTILES[name]
    lows, highs, values = [], [], {}
    for summary, samples_s in runs:
        ordered = np.sort(samples_s)
        low, high = order_statistics(len(ordered), q)
        below_s, above_s = _model_spread_s(summary)
        lows.append(max(0.0, (0.0 if low is None else float(ordered[low])) - below_s))
        highs.append(None if high is None else float(ordered[high]) + above_s)
        values[summary.noise] = float(np.quantile(ordered, q))
    told = [high for high in highs if high is not None]
    return Band(min(lows), max(told) if len(told) == len(highs) else None, values)


def _model_spread_s(summary: LatencySummary) -> tuple[float, float]:
    """How far the noiseless time may lie below and above, by the calibration. [s]"""
    if summary.model_interval is None:
        return 0.0, 0.0
    low_s, high_s = summary.model_interval
    return max(0.0, summary.noiseless_s - low_s), max(0.0, high_s - summary.noiseless_s)

"""The band over noise profiles, and what was measured held against it."""

from dataclasses import replace

import numpy as np
import pytest

from fleet import fleet_from_spec
from topology.collective.placement import Placement, spread
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate_samples
from topology.measured.tail import MeasuredPercentile, MeasuredTail, Origin
from topology.measured.tail_band import (
    Asked,
    Band,
    Cover,
    HeldTail,
    hold_against,
    without_bands,
)
from topology.words import AlgorithmName, Collective, NoiseName, StackName

SCENARIO = Scenario(
    Collective.ALL_REDUCE, 64, AlgorithmName.RING, stack=StackName.WIRE, trials=4000
)


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(fleet_from_spec("model:dgx-h100 node:2"))


@pytest.fixture
def asked(fabric: Fabric) -> Asked:
    def place(ranks: int | None) -> Placement:
        return spread(fabric, len(fabric.endpoints) if ranks is None else ranks)

    return Asked(SCENARIO, place)


def drawn(fabric: Fabric, noise: NoiseName, *, ratio: float = 1.0, seed: int = 7) -> MeasuredTail:
    """A ring over 4 GPUs of two nodes as the model draws it, slower by a ratio."""
    scenario = replace(SCENARIO, noise=noise, seed=seed)
    samples_s = np.sort(simulate_samples(fabric, spread(fabric, 4), scenario)[1]) * ratio
    return MeasuredTail(
        "ring", "file", 1, "test", Collective.ALL_REDUCE, 64, 4, samples_s=samples_s, count=4000
    )


def percentile(value_s: float | None, *interval: float | None) -> MeasuredPercentile:
    low_high = (interval[0] or 0.0, interval[1]) if interval else None
    return MeasuredPercentile("p99_s", value_s, Origin.SAMPLES, interval=low_high)


@pytest.mark.parametrize(
    ("measured", "cover"),
    [
        (percentile(5.0), Cover.COVERED),
        (percentile(2.9), Cover.BELOW),
        (percentile(9.1), Cover.ABOVE),
        (percentile(9.1, 8.9, 9.5), Cover.COVERED),
        (percentile(9.5, 9.1, None), Cover.ABOVE),
        (percentile(2.5, 2.0, None), Cover.UNTOLD),
        (percentile(3.5, 2.0, None), Cover.COVERED),
        (percentile(2.5, 2.0, 2.9), Cover.BELOW),
        (percentile(None), Cover.UNTOLD),
    ],
)
def test_a_percentile_is_covered_where_its_interval_meets_the_band(
    measured: MeasuredPercentile, cover: Cover
) -> None:
    assert Band(3.0, 9.0, {}).cover(measured) is cover


def test_a_band_of_too_few_trials_tells_nothing() -> None:
    assert Band(3.0, None, {}).cover(percentile(5.0)) is Cover.UNTOLD


@pytest.mark.parametrize("noise", [NoiseName.DEDICATED, NoiseName.SHARED, NoiseName.CONTENDED])
def test_the_band_covers_what_the_model_itself_draws(
    noise: NoiseName, fabric: Fabric, asked: Asked
) -> None:
    (held,) = hold_against([drawn(fabric, noise)], fabric, asked)
    assert held.cover("p99_s") is Cover.COVERED
    assert held.cover("p999_s") is Cover.COVERED
    assert not held.is_outside


def test_the_band_does_not_cover_what_is_half_as_fast(fabric: Fabric, asked: Asked) -> None:
    (held,) = hold_against([drawn(fabric, NoiseName.DEDICATED, ratio=2.0)], fabric, asked)
    assert held.cover("p50_s") is Cover.ABOVE
    assert held.is_outside
    (fast,) = hold_against([drawn(fabric, NoiseName.DEDICATED, ratio=0.5)], fabric, asked)
    assert fast.cover("p50_s") is Cover.BELOW


def test_the_band_reaches_over_all_profiles(fabric: Fabric, asked: Asked) -> None:
    (held,) = hold_against([drawn(fabric, NoiseName.DEDICATED)], fabric, asked)
    assert held.bands is not None
    band = held.bands["p99_s"]
    assert list(band.by_profile_s) == ["dedicated", "shared", "contended"]
    assert band.high_s is not None
    assert band.low_s < min(band.by_profile_s.values())
    assert max(band.by_profile_s.values()) < band.high_s


def test_the_calibrations_own_doubt_widens_the_band(fabric: Fabric, asked: Asked) -> None:
    nccl = replace(
        asked, scenario=replace(SCENARIO, stack=StackName.NCCL, algorithm=AlgorithmName.AUTO)
    )
    (held,) = hold_against([drawn(fabric, NoiseName.DEDICATED)], fabric, nccl)
    assert held.model is not None
    assert held.bands is not None
    assert held.model.model_interval is not None
    low_s, high_s = held.model.model_interval
    band = held.bands["p50_s"]
    assert band.high_s is not None
    assert band.high_s - band.low_s > high_s - low_s


def test_what_the_file_does_not_tell_is_filled_in_and_what_differs_is_left_out(
    fabric: Fabric, asked: Asked
) -> None:
    told = drawn(fabric, NoiseName.DEDICATED)
    silent = replace(told, collective=None, size_bytes=None, ranks=None)
    other = replace(told, size_bytes=128)
    filled = replace(asked, collective=Collective.ALL_REDUCE, size_bytes=64, ranks=4)
    first, second, third = hold_against([told, silent, other], fabric, filled)
    assert first.bands == second.bands
    assert third.bands is None
    assert third.reason == (
        "file: line 1: ring: the file tells 128, --size 64; "
        "leave --size out, or name one that is there"
    )


def test_nothing_that_can_be_simulated_is_refused(fabric: Fabric, asked: Asked) -> None:
    silent = replace(drawn(fabric, NoiseName.DEDICATED), collective=None)
    with pytest.raises(WorkloadError, match="its collective is not told; give --collective"):
        hold_against([silent], fabric, asked)
    many = replace(silent, collective=Collective.ALL_REDUCE, ranks=17)
    with pytest.raises(WorkloadError, match="17"):
        hold_against([many], fabric, asked)
    mean = MeasuredTail("mean", "file", 3, "test", Collective.ALL_REDUCE, 64, 4, mean_s=1e-5)
    with pytest.raises(WorkloadError, match="no percentile to hold against"):
        hold_against([mean], fabric, asked)


def test_without_a_map_there_is_no_band(fabric: Fabric) -> None:
    (held,) = without_bands([drawn(fabric, NoiseName.DEDICATED)])
    assert isinstance(held, HeldTail)
    assert held.cover("p99_s") is None
    assert not held.is_outside

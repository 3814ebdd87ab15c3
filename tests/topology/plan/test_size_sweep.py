"""A sweep over sizes: each cell is a simulation, and where maps change sides is found."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest

from fleet import fleet_from_spec
from topology.collective.placement import pack
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.plan.size_sweep import NamedFabric, SizeSweep, SweepRow, sweep_sizes
from topology.plan.sweep_report import (
    band_of,
    band_text,
    closing_lines,
    heading_lines,
    sweep_document,
    sweep_table,
)
from topology.words import AlgorithmName, Collective, NoiseName, StackName

SIZES = (8, 64 * 1024, 2**20)
ASKED = Scenario(collective=Collective.ALL_REDUCE, size_bytes=8, trials=400)


@cache
def named(spec: str) -> NamedFabric:
    return NamedFabric(spec.split()[0].removeprefix("model:"), Fabric(fleet_from_spec(spec)))


BOX = "model:dgx-h100 node:1"
BOXES = "model:dgx-h100 node:4"
PCIE = "model:pcie-l40s node:2"


@cache
def two_maps() -> SizeSweep:
    return sweep_sizes([named(BOX), named(PCIE)], SIZES, ASKED, ranks=8)


def with_p99(*times_us: tuple[float | None, float | None]) -> SizeSweep:
    """A sweep whose first and second map have these p99 at 8 B, 64 B, 512 B ..."""
    summary = two_maps().rows[0].summaries[0]
    rows = []
    for step, pair in enumerate(times_us):
        percentiles = [
            {**summary.percentiles, "p99_s": None if t is None else t * 1e-6} for t in pair
        ]
        cells = tuple(replace(summary, percentiles=told, band=None) for told in percentiles)
        rows.append(SweepRow(8 * 8**step, cells))
    return SizeSweep(("first", "second"), 8, ASKED, tuple(rows))


def test_every_cell_is_what_simulate_says() -> None:
    sweep = two_maps()
    assert sweep.sizes_bytes == SIZES
    for row in sweep.rows:
        for spec, summary in zip((BOX, PCIE), row.summaries, strict=True):
            fabric = named(spec).fabric
            alone = replace(ASKED, size_bytes=row.size_bytes)
            assert summary == simulate(fabric, pack(fabric, 8), alone)


def test_ranks_default_to_those_of_the_smallest_map() -> None:
    calm = replace(ASKED, noise=NoiseName.NONE)
    sweep = sweep_sizes([named(BOXES), named(BOX)], (8,), calm)
    assert sweep.ranks == 8
    assert [summary.ranks for summary in sweep.rows[0].summaries] == [8, 8]


def test_a_ratio_is_the_map_over_the_first() -> None:
    (row,) = with_p99((10, 25)).rows
    assert row.ratio(0) == 1
    assert row.ratio(1) == pytest.approx(2.5)


def test_a_ratio_without_trials_for_it_is_none() -> None:
    assert [row.ratio(1) for row in with_p99((10, None), (None, 10)).rows] == [None, None]


def test_more_ranks_than_a_map_has_names_the_map() -> None:
    with pytest.raises(WorkloadError, match=r"^dgx-h100: --gpus: 9 ranks asked, the map has 8; "):
        sweep_sizes([named(PCIE), named(BOX)], SIZES, ASKED, ranks=9)


@pytest.mark.parametrize("sizes", [(), (8, 8), (64, 8), (8, 64, 32)])
def test_sizes_that_do_not_ascend_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(WorkloadError, match=r"^--sizes: "):
        sweep_sizes([named(BOX)], sizes, ASKED)


def test_progress_tells_each_run() -> None:
    told: list[tuple[int, int]] = []
    calm = replace(ASKED, noise=NoiseName.NONE)
    sweep_sizes(
        [named(BOX), named(PCIE)],
        SIZES,
        calm,
        ranks=8,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(done, 6) for done in range(1, 7)]


class ToldError(Exception):
    """Ends a sweep that is about to take long."""


def stop(name: str, size_bytes: int, text: str) -> None:
    raise ToldError(name, size_bytes, text)


def test_a_long_run_is_told_with_its_map_and_size() -> None:
    asked = replace(ASKED, trials=10_000_000, algorithm=AlgorithmName.RING)
    with pytest.raises(ToldError) as told:
        sweep_sizes([named(BOX)], (64,), asked, notice=stop)
    assert told.value.args[:2] == ("dgx-h100", 64)
    sweep_sizes([named(BOX)], (64,), ASKED, notice=stop)


def test_maps_change_sides_where_their_lines_meet() -> None:
    # From half to twice the first's p99 over one step of eight times: they meet in its middle.
    (crossing,) = with_p99((10, 5), (10, 20)).crossings()
    assert (crossing.below, crossing.above) == ("second", "first")
    assert (crossing.low_bytes, crossing.high_bytes) == (8, 64)
    assert crossing.at_bytes == pytest.approx((8 * 64) ** 0.5)
    assert crossing.at_s == pytest.approx(10e-6)


def test_maps_may_change_sides_twice() -> None:
    sides = [(c.below, c.above) for c in with_p99((1, 2), (2, 1), (1, 2)).crossings()]
    assert sides == [("first", "second"), ("second", "first")]


def test_what_is_nearly_even_is_on_nobodys_side() -> None:
    assert with_p99((10, 10.1), (10, 9.9), (10, 10.1)).crossings() == ()
    (crossing,) = with_p99((10, 20), (10, 10.1), (10, 9.9), (10, 5)).crossings()
    assert (crossing.low_bytes, crossing.high_bytes) == (8, 4096)
    assert 64 < crossing.at_bytes < 512


def test_maps_that_are_even_at_a_size_meet_there() -> None:
    (crossing,) = with_p99((10, 20), (10, 10), (10, 5)).crossings()
    assert crossing.at_bytes == pytest.approx(64)


def test_a_size_that_is_not_told_is_passed_over() -> None:
    (crossing,) = with_p99((10, 20), (10, None), (10, 5)).crossings()
    assert (crossing.low_bytes, crossing.high_bytes) == (8, 512)


def test_one_map_crosses_nothing() -> None:
    calm = replace(ASKED, noise=NoiseName.NONE)
    assert sweep_sizes([named(BOX)], SIZES, calm).crossings() == ()


# What is told of it.


def test_the_band_holds_all_profiles() -> None:
    summary = two_maps().rows[0].summaries[0]
    assert summary.band is not None
    ends = band_of(summary, "p99_s")
    values = [row["p99_s"] for row in summary.band.values()]
    assert ends == (min(v for v in values if v), max(v for v in values if v))
    assert len(values) == 3


def test_a_band_that_a_profile_does_not_tell_is_a_dash() -> None:
    summary = replace(two_maps().rows[0].summaries[0], band={})
    known = {"p50_s": 1e-6, "p99_s": 2e-6, "p999_s": 30e-6}
    told = replace(summary, band={"dedicated": known, "contended": {**known, "p999_s": 410e-6}})
    far = replace(summary, band={"dedicated": known, "contended": {**known, "p999_s": 2e-3}})
    torn = replace(summary, band={"dedicated": known, "contended": {**known, "p999_s": None}})
    assert [band_text(s) for s in (told, far, torn)] == ["30 to 410 us", "30 us to 2 ms", "-"]


def test_without_noise_a_band_is_one_number() -> None:
    calm = replace(ASKED, noise=NoiseName.NONE, stack=StackName.WIRE)
    (row,) = sweep_sizes([named(BOX)], (8,), calm).rows
    assert row.summaries[0].band is None
    assert " to " not in band_text(row.summaries[0])


def test_the_table_has_a_row_for_each_size() -> None:
    header, rows = sweep_table(two_maps())
    assert header == (
        *("size", "dgx-h100", "p50", "p99", "p99.9", "pcie-l40s", "p50", "p99", "p99.9"),
        "2nd / 1st at p99",
    )
    assert [row[0] for row in rows] == ["8 B", "64 KiB", "1 MiB"]
    assert {len(row) for row in rows} == {len(header)}
    for row, told in zip(rows, two_maps().rows, strict=True):
        assert row[-1] == f"{told.ratio(1):.2f} x"


def test_the_document_has_every_figure() -> None:
    document = sweep_document(two_maps())
    assert (document["kind"], document["schema_version"]) == ("size_sweep", 1)
    assert document["maps"] == ["dgx-h100", "pcie-l40s"]
    for row, told in zip(document["rows"], two_maps().rows, strict=True):
        assert row["size_bytes"] == told.size_bytes
        assert row["p99_ratios"] == [1.0, told.ratio(1)]
        for shown, summary in zip(row["summaries"], told.summaries, strict=True):
            assert shown["p99_s"] == summary.percentiles["p99_s"]
            assert shown["band"] == summary.band


def test_the_words_say_where_and_how_the_maps_compare() -> None:
    head = heading_lines(two_maps())
    assert head[0].startswith("all_reduce over 8 ranks")
    assert head[1] == "dgx-h100: 1 node, 1 NVLink domain, nccl stack"
    low, high = (f"{f([r.ratio(1) or 0 for r in two_maps().rows]):.2f}" for f in (min, max))
    assert (
        closing_lines(two_maps())[0] == f"p99 of pcie-l40s: {low} to {high} times that of dgx-h100"
    )


def test_the_words_say_from_which_size_on_the_other_is_faster() -> None:
    line = closing_lines(with_p99((10, 5), (10, 20)))[-1]
    assert line == "even at about 22.6 B: up to 8 B second is faster, from 64 B on first"


def test_larger_messages_take_longer_on_each_map() -> None:
    for which in (0, 1):
        medians = [row.summaries[which].percentiles["p50_s"] or 0 for row in two_maps().rows]
        assert all(before < after for before, after in pairwise(medians))

"""What people and programs read of a size sweep."""

from dataclasses import asdict
from typing import Any, Final

from fleet.naming import counted
from fleet.units import text_from_bytes, text_from_seconds
from topology.fabric.report import Table
from topology.latency.report import domains_text, summary_document
from topology.latency.summary import PERCENTILES, LatencySummary, least_trials
from topology.plan.size_sweep import Crossing, SizeSweep

SCHEMA_VERSION: Final = 1


def sweep_document(sweep: SizeSweep) -> dict[str, Any]:
    """A sweep as JSON: by size, for each map its summary in full."""
    return {
        "kind": "size_sweep",
        "schema_version": SCHEMA_VERSION,
        "collective": sweep.scenario.collective.value,
        "ranks": sweep.ranks,
        "noise": sweep.scenario.noise.value,
        "maps": list(sweep.maps),
        "rows": [
            {
                "size_bytes": row.size_bytes,
                "summaries": [summary_document(summary) for summary in row.summaries],
                "p99_ratios": [row.ratio(which) for which in range(len(sweep.maps))],
            }
            for row in sweep.rows
        ],
        "crossings": [asdict(crossing) for crossing in sweep.crossings()],
    }


def heading_lines(sweep: SizeSweep) -> list[str]:
    """What was swept, and what each map gave room on."""
    scenario = sweep.scenario
    over = f"{scenario.collective.value} over {counted(sweep.ranks, 'rank')}"
    summaries = sweep.rows[0].summaries
    told_of = [s for row in sweep.rows for s in row.summaries if band_of(s) is not None]
    profiles = next((tuple(s.band) for s in told_of if s.band is not None), ())
    told = f"noise {scenario.noise.value}"
    if profiles:
        told += f", p99.9 from {profiles[0]} to {profiles[-1]}"
    lines = [f"{over}, launched by {scenario.launch.value}; {told}"]
    for name, summary in zip(sweep.maps, summaries, strict=True):
        where = f"{counted(summary.nodes, 'node')}, {domains_text(summary)}"
        lines.append(f"{name}: {where}, {summary.stack} stack")
    return lines


def sweep_table(sweep: SizeSweep) -> Table:
    """A row for each size; a map's columns begin with its name, above how it was done."""
    header = ["size"]
    for name in sweep.maps:
        header += [name, "p50", "p99", "p99.9"]
    header += [f"{_short(which)} at p99" for which in range(1, len(sweep.maps))]
    rows = []
    for row in sweep.rows:
        cells = [text_from_bytes(row.size_bytes)]
        for summary in row.summaries:
            cells += [way_text(summary), *_figures(summary)]
        ratios = [row.ratio(which) for which in range(1, len(sweep.maps))]
        cells += ["-" if ratio is None else f"{ratio:.2f} x" for ratio in ratios]
        rows.append(tuple(cells))
    return tuple(header), rows


def _short(which: int) -> str:
    """What a map's ratio is called: the second map over the first is 2nd / 1st."""
    ordinal = {1: "2nd", 2: "3rd"}.get(which, f"{which + 1}th")
    return f"{ordinal} / 1st"


def right_columns(sweep: SizeSweep) -> tuple[int, ...]:
    """Columns of the table that are right-aligned: all but the ways."""
    ways = {1 + 4 * which for which in range(len(sweep.maps))}
    return tuple(i for i in range(1 + 5 * len(sweep.maps) - 1) if i not in ways)


def way_text(summary: LatencySummary) -> str:
    """Algorithm and protocol."""
    return f"{summary.algorithm}, {summary.protocol}" if summary.protocol else summary.algorithm


def _figures(summary: LatencySummary) -> list[str]:
    shown = [_time_text(summary.percentiles[key]) for key in ("p50_s", "p99_s")]
    return [*shown, band_text(summary)]


def _time_text(time_s: float | None) -> str:
    return "-" if time_s is None else text_from_seconds(time_s)


def band_of(summary: LatencySummary, key: str = "p999_s") -> tuple[float, float] | None:
    """The least and the most of a percentile over profiles; None where one does not tell it. [s]"""
    band = summary.band
    if band is None:
        value = summary.percentiles[key]
        return None if value is None else (value, value)
    values = [row[key] for row in band.values()]
    told = [value for value in values if value is not None]
    return (min(told), max(told)) if told and len(told) == len(values) else None


def band_text(summary: LatencySummary) -> str:
    """p99.9 over the profiles, the unit once where both have it; ``-``: trials do not tell it."""
    ends = band_of(summary)
    if ends is None:
        return "-"
    low, high = map(text_from_seconds, ends)
    if low == high:
        return low
    number, _, unit = low.partition(" ")
    return f"{number if high.endswith(f' {unit}') else low} to {high}"


def closing_lines(sweep: SizeSweep) -> list[str]:
    """How the maps compare at p99, and where they change sides."""
    lines = []
    for which in range(1, len(sweep.maps)):
        ratios = [ratio for row in sweep.rows if (ratio := row.ratio(which)) is not None]
        if ratios:
            low, high = f"{min(ratios):.2f}", f"{max(ratios):.2f}"
            times = low if low == high else f"{low} to {high}"
            lines.append(f"p99 of {sweep.maps[which]}: {times} times that of {sweep.maps[0]}")
    lines += _needed_lines(sweep)
    return lines + [crossing_text(crossing) for crossing in sweep.crossings()]


def _needed_lines(sweep: SizeSweep) -> list[str]:
    """Of each percentile that some run cannot tell, how many trials do."""
    summaries = [summary for row in sweep.rows for summary in row.summaries]
    lines = []
    for name, key in (("p50", "p50_s"), ("p99", "p99_s"), ("p99.9", "p999_s")):
        is_untold = [s.trials is not None and band_of(s, key) is None for s in summaries]
        if any(is_untold):
            lines.append(f"{name} needs {least_trials(PERCENTILES[key]):,} trials or more")
    return lines


def crossing_text(crossing: Crossing) -> str:
    """Where which map becomes the faster one."""
    low, high = text_from_bytes(crossing.low_bytes), text_from_bytes(crossing.high_bytes)
    return (
        f"even at about {text_from_bytes(crossing.at_bytes)}: up to {low} {crossing.below} "
        f"is faster, from {high} on {crossing.above}"
    )

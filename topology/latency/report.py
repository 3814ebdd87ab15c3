"""What people and programs read of a latency summary."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final, TypeAlias

from fleet.naming import counted
from fleet.units import text_from_bytes, text_from_rate, text_from_seconds
from topology.latency.monte_carlo import Breakdown
from topology.latency.replay import reached_by
from topology.latency.summary import (
    PERCENTILE_NAMES,
    PERCENTILES,
    LatencySummary,
    least_trials,
)
from topology.words import NoiseName

SCHEMA_VERSION: Final = 1
Range: TypeAlias = tuple[float, float | None]


def summary_document(summary: LatencySummary) -> dict[str, Any]:
    """A summary as JSON; what this version cannot tell is null."""
    interval = summary.interval
    return {
        "kind": "latency_summary",
        "schema_version": SCHEMA_VERSION,
        "collective": summary.collective,
        "algorithm": summary.algorithm,
        "variant": summary.variant or None,
        "protocol": summary.protocol,
        "stack": summary.stack,
        "launch": summary.launch,
        "noise": summary.noise,
        "measured_classes": list(summary.measured_classes),
        "layers": list(summary.layers),
        "method": summary.method,
        "ranks": summary.ranks,
        "nodes": summary.nodes,
        "domains": summary.domains,
        "size_bytes": summary.size_bytes,
        "noiseless_s": summary.noiseless_s,
        "mean_s": summary.mean_s,
        **summary.percentiles,
        "algbw_bytes_per_s": summary.algbw_bytes_per_s,
        "busbw_bytes_per_s": summary.busbw_bytes_per_s,
        "trials": summary.trials,
        "seed": summary.seed,
        "interval": None if interval is None else {k: list(v) for k, v in interval.items()},
        "bracket": None if (b := summary.bracket) is None else {k: list(v) for k, v in b.items()},
        "model_interval": list(summary.model_interval) if summary.model_interval else None,
        "extrapolated": summary.extrapolated,
        "reason": summary.reason,
        "breakdown": {name: asdict(terms) for name, terms in summary.breakdown.items()},
        "without": summary.without,
        "attribution": _attribution_rows(summary),
        "band": summary.band,
        "band_trials": summary.band_trials,
        "precision": summary.precision,
        "knee": None if summary.knee is None else asdict(summary.knee),
        "considered": [asdict(way) for way in summary.considered],
    }


def summary_lines(summary: LatencySummary) -> list[str]:
    """A summary as lines of text."""
    return [
        headline(summary),
        how(summary),
        "",
        *_percentile_lines(summary),
        *_tail_lines(summary),
        "",
        *(f"{name}: {_terms(terms) or 'no time'}" for name, terms in summary.breakdown.items()),
        *_bandwidths(summary),
        *_attribution_lines(summary),
        *_knee_lines(summary),
        *_model_lines(summary),
        *_considered(summary),
    ]


def headline(summary: LatencySummary) -> str:
    """What was simulated, where."""
    is_joined = summary.domains < summary.ranks or summary.ranks == 1
    joined = f"{' in' if is_joined else ','} {domains_text(summary)}"
    return (
        f"{summary.collective} of {text_from_bytes(summary.size_bytes)} over "
        f"{counted(summary.ranks, 'rank')} on {counted(summary.nodes, 'node')}{joined}"
    )


def domains_text(summary: LatencySummary) -> str:
    """NVLink domains of a run, or that there are none."""
    if summary.domains == summary.ranks > 1:
        return "no NVLink between them"
    return counted(summary.domains, "NVLink domain")


def how(summary: LatencySummary) -> str:
    """By which algorithm and stack, under which noise, by how many trials."""
    variant = f" ({summary.variant})" if summary.variant else ""
    stack = f"{summary.stack} stack"
    if summary.protocol is not None:
        stack += f", protocol {summary.protocol}, launched by {summary.launch}"
    trials = "no noise"
    if summary.bracket is not None:
        told = "certified ranges" if summary.interval is None else f"seed {summary.seed}"
        trials = f"noise {summary.noise}, {summary.method}, {told}, no trials"
    if summary.trials is not None:
        gone = f" without {summary.without}" if summary.without else ""
        also = f" on {', '.join(summary.measured_classes)}" if summary.measured_classes else ""
        also += f" and {', '.join(summary.layers)}" if summary.layers else ""
        count = counted(summary.trials, "trial")
        trials = f"noise {summary.noise}{also}{gone}, {count}, seed {summary.seed}"
    return f"{summary.algorithm}{variant}, {stack}; {trials}"


def _percentile_lines(summary: LatencySummary) -> list[str]:
    """A line for each percentile: its value, its ranges, and the band over profiles."""
    calm = f"{'noiseless':<10}{text_from_seconds(summary.noiseless_s):>10}"
    columns = list(_columns(summary))
    if not columns:
        return [calm]
    widths = [max(map(len, cells)) for cells in columns]
    rows = [
        "   ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
    head, *others = rows
    lines = [f"{'':<20}   {head}", calm]
    for (name, shown), row in zip(PERCENTILE_NAMES.items(), others, strict=True):
        value = summary.percentiles[name]
        text = "-" if value is None else text_from_seconds(value)
        lines.append(f"{shown:<10}{text:>10}   {row}".rstrip())
    return lines


def _columns(summary: LatencySummary) -> Iterator[list[str]]:
    """Columns beside the values, each with its heading."""
    if summary.interval is not None:
        yield ["95 % interval", *map(_range_text, _in_order(summary.interval))]
    if summary.bracket is not None:
        yield ["certified", *map(_range_text, _in_order(summary.bracket))]
    if summary.band is not None:
        yield [
            _band_heading(summary),
            *(_band_text(summary.band, name) for name in PERCENTILE_NAMES),
        ]


def _in_order(ranges: dict[str, Range]) -> list[Range]:
    return [ranges[name] for name in PERCENTILE_NAMES]


def _range_text(told: Range) -> str:
    low, high = told
    if high is None and not low:
        return "unknown"
    if high is None:
        return f"above {text_from_seconds(low)}"
    return f"{text_from_seconds(low)} to {text_from_seconds(high)}"


def _band_heading(summary: LatencySummary) -> str:
    """Over the profiles, and over measured noise if there is some; by how many trials."""
    names = list(summary.band or ())
    profiles = [name for name in names if name in set(NoiseName)]
    measured = ", measured" if len(profiles) < len(names) else ""
    few = summary.band_trials not in (None, summary.trials)
    trials = f" ({summary.band_trials:,} trials)" if few else ""
    return f"{profiles[0]} to {profiles[-1]}{measured}{trials}"


def _band_text(band: dict[str, dict[str, float | None]], name: str) -> str:
    """From the least to the most of all profiles; nothing where one of them cannot tell."""
    values = [row.get(name) for row in band.values()]
    told = [value for value in values if value is not None]
    if not told or len(told) < len(values):
        return ""
    return f"{text_from_seconds(min(told))} to {text_from_seconds(max(told))}"


def _terms(terms: Breakdown) -> str:
    parts = [
        ("launch", terms.launch_s),
        ("software", terms.software_s),
        ("wire", terms.wire_s),
        ("bandwidth", terms.bandwidth_s),
        ("noise", terms.noise_s),
    ]
    return ", ".join(f"{name} {text_from_seconds(value)}" for name, value in parts if value)


def _bandwidths(summary: LatencySummary) -> list[str]:
    algbw, busbw = summary.algbw_bytes_per_s, summary.busbw_bytes_per_s
    if algbw is None or busbw is None:
        return []
    return [f"algbw {text_from_rate(algbw)}, busbw {text_from_rate(busbw)} (of p50)"]


def _attribution_rows(summary: LatencySummary) -> list[dict[str, Any]] | None:
    rows = summary.attribution
    return None if rows is None else [asdict(row) for row in rows]


def _attribution_lines(summary: LatencySummary, most: int = 6) -> list[str]:
    """Who makes the tail: whose noise gone takes how much of what noise adds to p99."""
    rows = [row for row in summary.attribution or () if row.share >= _LEAST_SHARE]
    more = [f"tail: {counted(len(rows) - most, 'more cause')} in --json"][: len(rows) > most]
    shown = [
        f"tail: {row.share:>4.0%} with {row.kind.replace('_', ' ')} {row.name}, "
        f"without it p99 {text_from_seconds(row.p99_without_s)}"
        for row in rows[:most]
    ]
    return [*shown, *more]


_LEAST_SHARE: Final = 0.01


def _tail_lines(summary: LatencySummary) -> list[str]:
    """Ratios to the median, whether the precision was reached, what missing percentiles need."""
    lines = []
    if summary.precision is not None and summary.interval is not None:
        reached = reached_by(summary.percentiles["p99_s"], summary.interval["p99_s"])
        is_reached = reached <= summary.precision
        word = "within" if is_reached else f"not within {summary.precision:.2%} but"
        lines.append(f"p99 is known {word} {reached:.2%}")
    p50_s = summary.percentiles["p50_s"]
    tails = [(name, summary.percentiles[name]) for name in ("p99_s", "p999_s")]
    ratios = [f"{PERCENTILE_NAMES[n]} {t / p50_s:.3g}" for n, t in tails if t is not None and p50_s]
    if ratios and (summary.interval or summary.bracket):
        lines.append(f"times p50: {', '.join(ratios)}")
    missing = [name for name, value in summary.percentiles.items() if value is None]
    if summary.trials is not None and missing:
        needed = least_trials(PERCENTILES[missing[0]])
        lines.append(f"{PERCENTILE_NAMES[missing[0]]} needs {needed:,} trials or more")
    return lines


def _knee_lines(summary: LatencySummary) -> list[str]:
    """From which rank count rare events make p99.9, by all layers and by each of them alone."""
    knee = summary.knee
    if knee is None:
        return []
    if knee.ranks is None:
        return ["knee: at no rank count do rare events make p99.9"]
    lines = [
        f"knee of p99.9, here {summary.ranks:,} ranks, by rare events of one piece's messages:"
    ]
    for name, ranks in knee.own.items():
        since = "at no rank count" if ranks is None else f"from {counted(ranks, 'rank')} on"
        event_s = knee.events_s[name]
        part = f"{event_s / summary.noiseless_s:.1%} of the noiseless time"
        lines.append(f"  {name}: {since}, about {text_from_seconds(event_s)} each ({part})")
    return lines


def _model_lines(summary: LatencySummary) -> list[str]:
    """How far to trust the noiseless time, and why this way."""
    lines = []
    if summary.model_interval is not None:
        low, high = (text_from_seconds(value) for value in summary.model_interval)
        lines.append(
            f"model: on machines it had not seen, 80 % of such times lay in {low} to {high}"
        )
    if summary.extrapolated is not None:
        lines.append(f"extrapolated: {summary.extrapolated}")
    if summary.reason is not None:
        lines.append(f"chosen by {summary.reason}")
    return lines


def _considered(summary: LatencySummary, most: int = 5) -> list[str]:
    others = summary.considered[1:most]
    if not others:
        return []
    text = "; ".join(
        f"{way.name} {text_from_seconds(way.noiseless_s)}{' or more' * way.is_bound}"
        for way in others
    )
    return [f"not chosen (noiseless): {text}"]

"""What people and programs read of a latency summary."""

from dataclasses import asdict
from typing import Any, Final

from fleet.naming import counted
from fleet.units import text_from_bytes, text_from_rate, text_from_seconds
from topology.fabric.report import Table
from topology.latency.monte_carlo import Breakdown
from topology.latency.stack import (
    InSwitchFigures,
    LaunchFigures,
    MpiFigures,
    NcclFigures,
    PipelineFigures,
    PriorFigures,
    ProtocolFigures,
    StackFigures,
)
from topology.latency.summary import PERCENTILES, LatencySummary

SCHEMA_VERSION: Final = 1
_NAMES: Final = {
    "p50_s": "p50",
    "p90_s": "p90",
    "p99_s": "p99",
    "p999_s": "p99.9",
    "p9999_s": "p99.99",
}


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
        "band": None,
        "considered": [asdict(way) for way in summary.considered],
    }


def summary_lines(summary: LatencySummary) -> list[str]:
    """A summary as lines of text."""
    return [
        headline(summary),
        how(summary),
        "",
        *_percentile_lines(summary),
        "",
        *(f"{name}: {_terms(terms) or 'no time'}" for name, terms in summary.breakdown.items()),
        *_bandwidths(summary),
        *_attribution_lines(summary),
        *_model_lines(summary),
        *_considered(summary),
    ]


def headline(summary: LatencySummary) -> str:
    """What was simulated, where."""
    joined = f" in {counted(summary.domains, 'NVLink domain')}"
    if summary.domains == summary.ranks > 1:
        joined = ", no NVLink between them"
    return (
        f"{summary.collective} of {text_from_bytes(summary.size_bytes)} over "
        f"{counted(summary.ranks, 'rank')} on {counted(summary.nodes, 'node')}{joined}"
    )


def how(summary: LatencySummary) -> str:
    """By which algorithm and stack, under which noise, by how many trials."""
    variant = f" ({summary.variant})" if summary.variant else ""
    stack = f"{summary.stack} stack"
    if summary.protocol is not None:
        stack += f", protocol {summary.protocol}, launched by {summary.launch}"
    trials = "no noise"
    if summary.bracket is not None:
        trials = f"noise {summary.noise}, {summary.method}, certified ranges, no trials"
    if summary.trials is not None:
        gone = f" without {summary.without}" if summary.without else ""
        trials = f"noise {summary.noise}{gone}, {summary.trials:,} trials, seed {summary.seed}"
    return f"{summary.algorithm}{variant}, {stack}; {trials}"


def _percentile_lines(summary: LatencySummary) -> list[str]:
    lines = [f"{'noiseless':<10}{text_from_seconds(summary.noiseless_s):>10}"]
    ranges = summary.bracket or summary.interval
    if ranges is None:
        return lines
    for name in PERCENTILES:
        low, high = ranges[name]
        value = summary.percentiles[name]
        if value is None or high is None:
            shown = f"{'-':>10}   above {text_from_seconds(low)}; more trials would tell"
        else:
            between = f"{text_from_seconds(low)} to {text_from_seconds(high)}"
            shown = f"{text_from_seconds(value):>10}   {between}"
        lines.append(f"{_NAMES[name]:<10}{shown}")
    return lines


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
    return [
        f"tail: {row.share:>4.0%} with {row.kind.replace('_', ' ')} {row.name}, "
        f"without it p99 {text_from_seconds(row.p99_without_s)}"
        for row in rows[:most]
    ]


_LEAST_SHARE: Final = 0.01


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


def stack_table(figures: StackFigures) -> Table:
    """All figures of stacks as rows of text."""
    header = ("stack figure", "value", "confidence", "sources", "basis")
    rows: list[tuple[str, ...]] = []
    for protocol, row in figures.protocol.items():
        told = [(f"{protocol} base, {f}", getattr(row.base_s, f)) for f in _FAMILIES]
        for kind, hop in row.hop_s.items():
            told += [(f"{protocol} hop over {kind}, {f}", getattr(hop, f)) for f in _FAMILIES]
        tail = _tail(row)
        rows += [(name, text_from_seconds(value), *tail) for name, value in told]
        rows.append((f"{protocol} payload", f"{row.payload_ratio:g}", *tail))
        if row.in_switch is not None:
            leg = text_from_seconds(row.in_switch.leg_s)
            rows.append((f"{protocol} leg in the switch", leg, *_tail(row.in_switch)))
        if row.nvls_tree is not None:
            tree, tail = row.nvls_tree, _tail(row.nvls_tree)
            rows.append(
                (f"{protocol} leg in the switch, nvls_tree", text_from_seconds(tree.leg_s), *tail)
            )
            rows.append(
                (f"{protocol} hop over net, nvls_tree", text_from_seconds(tree.net_hop_s), *tail)
            )
    for launch, start in figures.launch.items():
        tail = _tail(start)
        rows.append((f"launch by {launch}", text_from_seconds(start.once_s), *tail))
        further = text_from_seconds(start.per_further_gpu_s)
        rows.append((f"launch by {launch}, each further GPU", further, *tail))
    prior = figures.prior
    told_priors = {
        **{f"prior, point to point by {p}": s for p, s in prior.point_to_point_s.items()},
        "prior, one further peer": prior.peer_s,
        "prior, one-shot kernel": prior.one_shot_s,
        "prior, two-shot kernel": prior.two_shot_s,
        "prior, links filling up": prior.ramp_s,
    }
    rows += [(name, text_from_seconds(s), *_tail(prior)) for name, s in told_priors.items()]
    message = text_from_seconds(figures.mpi.message_s)
    rows.append(("MPI, each message", message, *_tail(figures.mpi)))
    contained = text_from_seconds(figures.nccl.contained_launch_s)
    rows.append(("launch in each base", contained, *_tail(figures.nccl)))
    rows.append(("piece", text_from_bytes(figures.pipeline.piece_bytes), *_tail(figures.pipeline)))
    rows.append(("most pieces", str(figures.pipeline.most_pieces), *_tail(figures.pipeline)))
    return header, rows


def _tail(
    row: ProtocolFigures
    | InSwitchFigures
    | LaunchFigures
    | PipelineFigures
    | NcclFigures
    | MpiFigures
    | PriorFigures,
) -> tuple[str, str, str]:
    return row.confidence.value, " ".join(row.sources), row.basis


_FAMILIES: Final = ("ring", "tree")

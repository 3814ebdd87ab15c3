"""What people and programs read of a step's summary."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from fleet.console import table_lines
from fleet.naming import counted
from fleet.units import text_from_seconds
from topology.latency.summary import PERCENTILE_NAMES, PERCENTILES, least_trials
from topology.steps.summary import PartShare, StepSummary

SCHEMA_VERSION: Final = 1


def step_document(summary: StepSummary) -> dict[str, Any]:
    """A step's summary as JSON; what the trials do not carry is null or missing."""
    interval = summary.interval
    return {
        "kind": "step_summary",
        "schema_version": SCHEMA_VERSION,
        "name": summary.name,
        "gpus": summary.gpus,
        "nodes": summary.nodes,
        "stack": summary.stack,
        "noise": summary.noise,
        "noiseless_s": summary.noiseless_s,
        "mean_s": summary.mean_s,
        **summary.percentiles,
        "interval": None if interval is None else {k: list(v) for k, v in interval.items()},
        "slowdown_ratio": {
            name.removesuffix("_s"): summary.slowdown_ratio(name) for name in PERCENTILES
        },
        "pool_error_s": summary.pool_error_s,
        "trials": summary.trials,
        "seed": summary.seed,
        "communication": {
            name.removesuffix("_s"): {
                "all_s": summary.communication_s(name),
                "exposed_s": summary.exposed_s(name),
                "exposed_ratio": summary.exposed_ratio(name),
                "exposed_of_step_ratio": summary.exposed_s(name) / summary.step_at[name],
            }
            for name in summary.step_at
        },
        "parts": [_part_document(summary, part) for part in summary.parts],
        "not_modelled": list(summary.not_modelled),
    }


def _part_document(summary: StepSummary, part: PartShare) -> dict[str, Any]:
    return {
        "name": part.name,
        "kind": part.kind,
        "group": part.group,
        "repetitions": part.repetitions,
        "noiseless_s": part.noiseless_s,
        "critical_path": {
            name.removesuffix("_s"): {
                "time_s": part.at[name],
                "share_ratio": part.at[name] / step_s,
                "hidden_s": part.hidden[name] if part.is_communication else None,
            }
            for name, step_s in summary.step_at.items()
        },
        "ways": [asdict(way) for way in part.ways],
    }


def step_lines(summary: StepSummary) -> list[str]:
    """A step's summary as lines of text, with one table: its parts."""
    return [
        f"{summary.name}: {counted(summary.gpus, 'rank')} on {counted(summary.nodes, 'node')}",
        _how(summary),
        "",
        *_percentile_lines(summary),
        "",
        *_table(summary),
        "",
        *_communication(summary),
        *(f"not modelled: {text}" for text in summary.not_modelled),
    ]


def _how(summary: StepSummary) -> str:
    stack = f"{summary.stack} stack, " if summary.stack else ""
    if summary.trials is None:
        return f"{stack}noise {summary.noise}, nothing random"
    return f"{stack}noise {summary.noise}, {counted(summary.trials, 'trial')}, seed {summary.seed}"


def _percentile_lines(summary: StepSummary) -> Iterator[str]:
    if summary.interval:
        yield f"{'':<23}95 % interval"
    yield f"{'noiseless':<10}{text_from_seconds(summary.noiseless_s):>10}"
    for name, (low, high) in (summary.interval or {}).items():
        value, ratio = summary.percentiles[name], summary.slowdown_ratio(name)
        if value is None or ratio is None or high is None:
            needed = f"needs {least_trials(PERCENTILES[name]):,} trials or more"
            shown = f"{'-':>10}   above {text_from_seconds(low)}; {needed}"
        else:
            between = f"{text_from_seconds(low)} to {text_from_seconds(high)}"
            shown = f"{text_from_seconds(value):>10}   {between}, {ratio:.3f} times noiseless"
        yield f"{PERCENTILE_NAMES[name]:<10}{shown}"


def _table(summary: StepSummary) -> list[str]:
    """A row a part: its time on the path that decides the end, and its share of the step."""
    shown = list(summary.step_at) if summary.trials is not None else []
    header = ["part", "what", "times", "noiseless"]
    for name in shown:
        header += [f"at {PERCENTILE_NAMES[name]}", "share"]
    rows = [_row(summary, part, shown) for part in summary.parts]
    right = tuple(range(2, len(header)))
    return table_lines((*header, "by"), rows, right=right)


def _row(summary: StepSummary, part: PartShare, shown: list[str]) -> tuple[str, ...]:
    cells = [part.name, part.kind, str(part.repetitions), text_from_seconds(part.noiseless_s)]
    for name in shown:
        cells += [text_from_seconds(part.at[name]), f"{part.at[name] / summary.step_at[name]:.1%}"]
    return (*cells, "; ".join(dict.fromkeys(_way_texts(part))))


def _way_texts(part: PartShare) -> Iterator[str]:
    """How a part communicates; groups that go alike are told once."""
    for way in part.ways:
        protocol = f", {way.protocol}" if way.protocol else ""
        side_by_side = sum(other.groups for other in part.ways)
        times = f"{side_by_side} x " if side_by_side > 1 else ""
        yield f"{way.algorithm}{protocol} of {times}{counted(way.ranks, 'rank')}"


def _communication(summary: StepSummary) -> Iterator[str]:
    """How much of the collectives' time no compute hides."""
    for name, step_s in summary.step_at.items():
        ratio = summary.exposed_ratio(name)
        if ratio is not None and (name == "p50_s" or summary.trials is not None):
            exposed_s = summary.exposed_s(name)
            where = f" at {PERCENTILE_NAMES[name]}" if summary.trials is not None else ""
            yield (
                f"communication{where}: {text_from_seconds(summary.communication_s(name))}, "
                f"of which {ratio:.0%} exposed: {text_from_seconds(exposed_s)}, "
                f"{exposed_s / step_s:.1%} of the step"
            )

"""What people and programs read of a plan."""

from typing import Any, Final

from fleet.naming import counted
from fleet.units import text_from_bytes, text_from_seconds
from topology.plan.planner import Candidate, Plan, Verdict

SCHEMA_VERSION: Final = 1
DEFINITION: Final = (
    "scale in: the same work in fewer nodes and NVLink domains, closer together\n"
    "scale out: more nodes across the network (autoscalers mean removing and adding instances)"
)


def plan_document(plan: Plan) -> dict[str, Any]:
    """A plan as JSON; what this version cannot tell is null."""
    return {
        "kind": "plan",
        "schema_version": SCHEMA_VERSION,
        "workload": plan.workload.model_dump(mode="json"),
        "verdict": plan.verdict.value,
        "objective": plan.objective.value,
        "compared_by": plan.compared.value,
        "chosen": None if plan.chosen is None else _candidate_document(plan.chosen),
        "candidates": [_candidate_document(candidate) for candidate in plan.candidates],
        "crossing": {
            "crosses": plan.crosses,
            "largest_free_domain": plan.largest_free_domain,
            "free_gpus": plan.free_gpus,
            "total_gpus": plan.total_gpus,
            "text": crossing_text(plan),
        },
        "knee": None,
        "sensitivity": None,
    }


def _candidate_document(candidate: Candidate) -> dict[str, Any]:
    summary = candidate.summary
    placement = candidate.placement
    percentiles = summary.percentiles if summary else {}
    return {
        "move": candidate.move.name,
        "placement": [[e.host, e.slot] for e in placement.endpoints] if placement else None,
        "gpus": placement.ranks if placement else None,
        "nodes": summary.nodes if summary else None,
        "domains": summary.domains if summary else None,
        "p50_s": percentiles.get("p50_s"),
        "p99_s": percentiles.get("p99_s"),
        "p999_s": percentiles.get("p999_s"),
        "cost": None,
        "verdict": "chosen" if candidate.reason.value == "chosen" else "refused",
        "reason": candidate.reason.value,
        "text": candidate.text,
        "probability": candidate.probability,
        "algorithm": summary.algorithm if summary else None,
        "trials": summary.trials if summary else None,
    }


def plan_lines(plan: Plan) -> list[str]:
    """Lines above and below the table of candidates."""
    workload = plan.workload
    return [
        f"{workload.name}: {workload.collective.value} of {text_from_bytes(workload.size_bytes)} "
        f"on {counted(workload.gpus, 'GPU')}; "
        f"{plan.free_gpus:,} of {plan.total_gpus:,} are free",
        verdict_text(plan),
        crossing_text(plan),
        *_comparison(plan),
        DEFINITION,
    ]


def _comparison(plan: Plan) -> list[str]:
    """By what the candidates were compared, where it is not the objective."""
    if plan.compared is plan.objective:
        return []
    asked, used = (name.value for name in (plan.objective, plan.compared))
    return [f"compared by {used}: the trials of some candidate do not carry {asked}"]


def verdict_text(plan: Plan) -> str:
    """The verdict in words."""
    if plan.verdict is Verdict.NO_CANDIDATE:
        target = plan.workload.target_p99_s
        best = min(_p99s(plan), default=None)
        asked = text_from_seconds(target) if target is not None else "what was asked"
        reached = f", the best reaches {text_from_seconds(best)}" if best is not None else ""
        return f"verdict: no candidate keeps p99 within {asked}{reached}"
    assert plan.chosen is not None, "a verdict other than no_candidate has a choice"
    assert plan.chosen.placement is not None, "what was chosen has a placement"
    words = "scale in" if plan.verdict is Verdict.SCALE_IN else "scale out"
    where = plan.chosen.placement.summary()
    return f"verdict: {words} ({plan.chosen.move.title}): {where}"


def crossing_text(plan: Plan) -> str:
    """Whether scale-in has topped out, and at what."""
    asked, room = plan.workload.gpus, plan.largest_free_domain
    if not plan.could_stay:
        return f"scale-in has topped out: the largest NVLink domain has {room} free, {asked} asked"
    where = "one NVLink domain" if asked <= room else "one node"
    if plan.verdict is Verdict.NO_CANDIDATE:
        return f"{where} has room for {asked}, and that is as close together as it gets"
    if plan.crosses:
        return f"{where} has room for {asked}, and crossing is faster all the same"
    if asked > room:
        return "scale-in holds: one node has room, over PCIe where no NVLink joins its GPUs"
    return f"scale-in holds: one NVLink domain has {room} free, {asked} asked"


def candidate_table(plan: Plan) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One row for each candidate."""
    header = ("move", "nodes", "domains", "p50", "p99", "p99.9", "beats chosen", "verdict")
    return header, [_row(candidate) for candidate in plan.candidates]


def _row(candidate: Candidate) -> tuple[str, ...]:
    summary = candidate.summary
    verdict = candidate.text or candidate.reason.value
    if summary is None:
        return (candidate.move.name, "-", "-", "-", "-", "-", "-", verdict)
    times = (summary.percentiles[name] for name in ("p50_s", "p99_s", "p999_s"))
    shown = ("-" if time is None else text_from_seconds(time) for time in times)
    probability = candidate.probability
    odds = "-" if probability is None or verdict.startswith("chosen") else f"{probability:.0%}"
    return (
        candidate.move.name,
        str(summary.nodes),
        str(summary.domains),
        *shown,
        odds,
        verdict,
    )


def _p99s(plan: Plan) -> list[float]:
    summaries = [c.summary for c in plan.candidates if c.summary is not None]
    values = [summary.percentiles["p99_s"] for summary in summaries]
    return [value for value in values if value is not None]

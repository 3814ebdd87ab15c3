"""Report of a sweep: hosts folded by what became of them, as a line, a table, or a document."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from fleet.gather.hostlist import fold_hosts
from fleet.gather.outcome import FailureReason, Group, group_outcomes
from fleet.gather.sweep import Gathering

HEADER: Final = ("hosts", "count", "outcome", "detail")
FAULTY: Final = "faulty"
"""Outcome of a host that answered while one of its devices did not."""


def outcome_groups(gathering: Gathering) -> tuple[Group, ...]:
    """Hosts by outcome; a host that is stale and faulty stands in two groups."""
    return group_outcomes(gathering.asked, _told(gathering))


def outcome_text(gathering: Gathering) -> str:
    """All outcomes in one line, such as ``gpu[001-120] ok, gpu121 timed_out (...)``."""
    return ", ".join(group.text for group in outcome_groups(gathering))


def outcome_rows(gathering: Gathering) -> list[tuple[str, ...]]:
    """One row for each outcome."""
    return [
        (fold_hosts(group.hosts), f"{len(group.hosts):,}", group.outcome, group.detail)
        for group in outcome_groups(gathering)
    ]


def gathering_document(gathering: Gathering) -> dict[str, Any]:
    """The sweep as one document: the map in numbers, every host, failure and fault."""
    fleet, failures = gathering.fleet, gathering.failures
    node_of = {one.host: one.snapshot.host for one in gathering.collected}
    stale = sum(failure.reason is FailureReason.STALE for failure in failures)
    return {
        "kind": "gathering",
        "schema_version": 1,
        "summary": {
            "asked": len(gathering.asked),
            "collected": len(gathering.collected),
            "stale": stale,
            "failed": len(failures) - stale,
            "text": outcome_text(gathering),
        },
        "map": {
            "nodes": len(fleet.nodes),
            "gpus": fleet.gpu_count,
            "shapes": len(fleet.shapes),
            "conflicts": len(fleet.conflicts),
        },
        "outcomes": [
            {
                "outcome": group.outcome,
                "detail": group.detail or None,
                "hosts": fold_hosts(group.hosts),
                "count": len(group.hosts),
            }
            for group in outcome_groups(gathering)
        ],
        "hosts": [{"host": host, "node": node_of.get(host)} for host in gathering.asked],
        "failures": [
            {"host": f.host, "reason": f.reason.value, "detail": f.detail or None} for f in failures
        ],
        "faults": [
            {"node": node, "device": fault.device, "reason": fault.reason, "detail": fault.detail}
            for node, fault in gathering.faults
        ],
    }


def _told(gathering: Gathering) -> Iterator[tuple[str, str, str]]:
    for failure in gathering.failures:
        yield failure.host, failure.reason.value, failure.detail
    asked_as: dict[str, str] = {one.snapshot.host: one.host for one in gathering.collected}
    faults: dict[str, list[str]] = defaultdict(list)
    for node, fault in gathering.faults:
        faults[asked_as[node]].append(f"{fault.device}: {fault.detail}")
    for host, texts in faults.items():
        yield host, FAULTY, ", ".join(texts)

"""The fake NVML library under the real binding, and what tests of its readers need with it."""

import json
import threading
from datetime import UTC, datetime
from typing import Any

from fleet.fields import Absence, HostName, path_matches
from fleet.model import NodeSnapshot
from fleet.probe.plan import Out, Plan
from fleet.reading import Answer
from fleet.sources.nvml import Refusal, refusal_of, snapshot_from_calls
from fleet.sources.nvml_calls import Calls
from tests.contracts import assert_honest
from tests.fakes.nvml_library import FakeLib, installed
from tests.fakes.nvml_machine import FakeProfile
from tests.fakes.nvml_symbols import SYMBOLS

__all__ = ["SYMBOLS", "FakeLib", "installed"]

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
HOST = HostName("node1")


def absence_of(snapshot: NodeSnapshot, path: str) -> Absence:
    """The one absence of exactly this path, or of the whole device it is below."""
    exact = [absence for absence in snapshot.absences if absence.path == path]
    covering = [absence for absence in snapshot.absences if path_matches(absence.path, path)]
    (absence,) = exact or covering
    return absence


def reason_of(snapshot: NodeSnapshot, path: str) -> str:
    """Reason of the one absence of a path."""
    return absence_of(snapshot, path).reason.value


def detail_of(snapshot: NodeSnapshot, path: str) -> str:
    """Detail of the one absence of a path."""
    return absence_of(snapshot, path).detail or ""


class Kept(Out):
    """Keeps the answers of a plan, as they would come out of the child's lines."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []

    def asking(self, key: str) -> None:
        self.asked.append(key)

    def answer(self, key: str, answer: dict[str, Any]) -> None:
        self.answers[key] = Answer.model_validate_json(json.dumps(answer))


def asked_here() -> Kept:
    """All chapters of the call plan, in this process and this thread."""
    kept = Kept()
    plan = Plan(kept)
    plan.nvml()
    count = kept.answers.get("nvmlDeviceGetCount()", Answer()).value or 0
    for gpu in range(count):
        plan.gpu(gpu)
    for gpu in range(count - 1):
        plan.pairs(gpu, range(gpu + 1, count))
    plan.stop()
    return kept


def calls_of(profile: FakeProfile) -> Calls:
    """What the driver of a machine answers."""
    with installed(profile) as lib:
        calls = Calls(asked_here().answers)
    assert lib.running == 0, "each init has its shutdown"
    assert lib.threads <= {threading.get_ident()}
    return calls


def refusal(profile: FakeProfile) -> Refusal:
    """Why the driver of a machine says nothing at all."""
    told = refusal_of(calls_of(profile))
    assert told is not None
    return told


def snapshot_of(profile: FakeProfile) -> NodeSnapshot:
    """The node as its driver's answers tell it, after the checks that hold for every machine."""
    calls = calls_of(profile)
    assert refusal_of(calls) is None
    snapshot = snapshot_from_calls(calls, host=HOST, collected_at=NOON)
    assert_honest(snapshot)
    return snapshot

"""Doctor: which datum needs which right or package, what is missing here, and how to get it."""

from typing import Final, Literal

from fleet.doctor import driver, machine, reach
from fleet.doctor.check import Check, Outcome, State
from fleet.doctor.surroundings import Surroundings, surroundings_of
from fleet.fields import FrozenModel

__all__ = [
    "CHECKS",
    "Check",
    "CheckResult",
    "Diagnosis",
    "Outcome",
    "State",
    "Surroundings",
    "examine",
    "surroundings_of",
]

CHECKS: Final = (*driver.CHECKS, *machine.CHECKS, *reach.CHECKS)
"""All checks, in the order in which they are worth mending."""

HELPED: Final = frozenset({State.MISSING, State.LIMITED})
"""States for which a remedy is told."""


class CheckResult(FrozenModel):
    """What one check found here; ``remedy`` None: nothing needs one."""

    id: str
    title: str
    needed_for: str
    state: State
    evidence: str
    remedy: str | None = None


class Diagnosis(FrozenModel):
    """What all checks found."""

    kind: Literal["diagnosis"] = "diagnosis"
    schema_version: Literal[1] = 1
    results: tuple[CheckResult, ...]

    @property
    def is_complete(self) -> bool:
        """Whether the map of this node lacks nothing that could be mended."""
        return all(result.state is not State.MISSING for result in self.results)


def examine(here: Surroundings, checks: tuple[Check, ...] = CHECKS) -> Diagnosis:
    """Every check against these surroundings."""
    return Diagnosis(results=tuple(_result(check, check.probe(here)) for check in checks))


def _result(check: Check, outcome: Outcome) -> CheckResult:
    remedy = outcome.remedy or check.remedy
    return CheckResult(
        id=check.id,
        title=check.title,
        needed_for=check.needed_for,
        state=outcome.state,
        evidence=outcome.evidence,
        remedy=remedy if outcome.state in HELPED else None,
    )

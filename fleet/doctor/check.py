"""Check: one thing the doctor looks at, and what it can find. No looking itself."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fleet.doctor.surroundings import Surroundings


class State(StrEnum):
    """What a check found.

    ``missing``: the map of this node lacks something for it; ``limited``: less is told than could
    be, or another command cannot be used; ``not_applicable``: nothing here needs it.
    """

    OK = "ok"
    MISSING = "missing"
    LIMITED = "limited"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found, the evidence in one line, and what would help here if not the usual."""

    state: State
    evidence: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """A right or package that some datum or command needs.

    ``id`` is a contract: it stays what it is in every version. ``remedy`` is what usually helps.
    """

    id: str
    title: str
    needed_for: str
    remedy: str
    probe: Callable[[Surroundings], Outcome]


def ok(evidence: str) -> Outcome:
    """All is there."""
    return Outcome(State.OK, evidence)


def missing(evidence: str, remedy: str | None = None) -> Outcome:
    """The map of this node lacks something."""
    return Outcome(State.MISSING, evidence, remedy)


def limited(evidence: str, remedy: str | None = None) -> Outcome:
    """Less is told, or a command cannot be used."""
    return Outcome(State.LIMITED, evidence, remedy)


def not_applicable(evidence: str) -> Outcome:
    """Nothing here needs it."""
    return Outcome(State.NOT_APPLICABLE, evidence)


NO_GPU: Final = not_applicable("no NVIDIA GPU here")
NO_DRIVER: Final = not_applicable("the driver is not loaded: see nvml.driver")
NOT_HERE: Final = not_applicable("a captured tree does not tell")
NOT_ASKED: Final = not_applicable("the driver was not asked")
NOT_STARTED: Final = not_applicable("the driver did not start: see nvml.starts")

GIVE_CONTAINER_GPUS: Final = (
    "give the container its GPUs: docker run --gpus all, or the device plugin of Kubernetes"
)

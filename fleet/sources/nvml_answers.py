"""Answers that may be missing: a value or the reason, and the absences they become. No calls."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from fleet.fields import Absence, AbsenceReason
from fleet.wiring import Wiring

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Missing:
    """Why NVML did not answer; ``code`` is its return code where there is one."""

    reason: AbsenceReason
    detail: str
    code: int | None = None


NO_GPU: Final = Missing(AbsenceReason.NOT_ASKED, "no GPU to ask")


@dataclass(frozen=True, slots=True)
class Gaps:
    """Puts answers into the model, and why others are missing into absences with their paths."""

    at: str = ""
    absences: list[Absence] = field(default_factory=list)

    def below(self, step: str) -> "Gaps":
        """The same list, for the answers below a step of the path."""
        return Gaps(f"{self.at}{step}.", self.absences)

    def value(self, name: str, answer: T | Missing) -> T | None:
        """The answer, or None and an absence with its path."""
        if not isinstance(answer, Missing):
            return answer
        path = f"{self.at}{name}"
        self.absences.append(Absence(path=path, reason=answer.reason, detail=answer.detail))
        return None


def then(answer: T | Missing, make: Callable[[T], U | Missing]) -> U | Missing:
    """What ``make`` makes of an answer; what is missing stays so."""
    return answer if isinstance(answer, Missing) else make(answer)


def looked_up(table: Mapping[int, T], what: str) -> Callable[[int], T | Missing]:
    """The meaning of a driver's number; one that is newer than the table is undecodable."""

    def look(code: int) -> T | Missing:
        return table.get(code, Missing(AbsenceReason.UNDECODABLE, f"{what} {code}"))

    return look


def agreed(answers: Iterable[T | Missing], what: str) -> T | Missing:
    """What all that answered say; missing where they differ, or where none answered."""
    answers = list(answers)
    said = {answer for answer in answers if not isinstance(answer, Missing)}
    if len(said) > 1:
        words = ", ".join(sorted(str(answer) for answer in said))
        return Missing(AbsenceReason.UNDECODABLE, f"GPUs differ in their {what}: {words}")
    return next(iter([*said, *answers]), NO_GPU)


def above_zero(answer: int | Missing) -> int | Missing:
    """A number of which 0 means that the driver has none."""
    return Missing(AbsenceReason.UNSUPPORTED, "the driver gave 0") if answer == 0 else answer


def shared_absences(absences: Iterable[Absence], wiring: Wiring) -> tuple[Absence, ...]:
    """One absence with ``[*]`` where every element of a list lacks the same for one reason."""
    ports = {f"wiring.gpus[{gpu.slot}].ports[*]": len(gpu.ports) for gpu in wiring.gpus}
    count = len(wiring.gpus)

    def port_count(path: str) -> int:
        return ports.get(path[: path.find("[*]") + 3], 0)

    absences = _folded(absences, r"(?<=\.ports)\[\d+\]", port_count)
    absences = _folded(absences, r"(?:(?<=gpus)|(?<=states))\[\d+\]", lambda _: count)
    pairs = count * (count - 1) // 2
    return tuple(_folded(absences, r"\[(gpu)?\d+-(gpu)?\d+\]", lambda _: pairs))


def _folded(
    absences: Iterable[Absence], element: str, size_of: Callable[[str], int]
) -> list[Absence]:
    groups: dict[Absence, list[Absence]] = defaultdict(list)
    for absence in absences:
        path = re.sub(element, "[*]", absence.path)
        groups[absence.model_copy(update={"path": path})].append(absence)
    return [
        absence
        for every, members in groups.items()
        for absence in ([every] if 1 < len(members) == size_of(every.path) else members)
    ]

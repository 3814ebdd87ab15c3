import os

from fleet.probe.binding import Answer
from fleet.probe.plan import Out, Plan
from fleet.probe.processes import read_processes

LOST: Answer = {"code": 15}
TOO_OLD: Answer = {"code": 25}
NO_FUNCTION: Answer = {"lacks": "driver"}


def first_of(*answers: Answer) -> Answer:
    return Plan(Out()).first_of("key", [lambda a=answer: a for answer in answers])


def test_the_first_form_that_is_known_answers() -> None:
    assert first_of(NO_FUNCTION, TOO_OLD, {"value": 7}, {"value": 8}) == {"value": 7}


def test_a_refusal_that_no_older_form_would_change_ends_the_search() -> None:
    assert first_of(LOST, {"value": 7}) == LOST


def test_too_old_is_said_rather_than_missing() -> None:
    assert first_of(NO_FUNCTION, TOO_OLD, NO_FUNCTION) == TOO_OLD
    assert first_of(NO_FUNCTION) == NO_FUNCTION
    assert first_of() == {"lacks": "binding"}


class Kept(Out):
    def __init__(self) -> None:
        self.lines: list[tuple[str, Answer]] = []

    def answer(self, key: str, answer: Answer) -> None:
        self.lines.append((key, answer))


def test_a_process_has_its_command_and_its_owner() -> None:
    kept = Kept()
    read_processes([os.getpid()], kept)
    ((key, answer),) = kept.lines
    assert key == f"process({os.getpid()})"
    assert answer["value"]["name"].startswith(("python", "pytest"))
    assert answer["value"]["user"]


def test_a_process_that_is_gone_gives_no_answer() -> None:
    kept = Kept()
    read_processes([2**30], kept)
    assert kept.lines == []

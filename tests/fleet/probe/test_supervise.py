"""The parent against children that hang, die, lie and never end: real processes, no driver."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fleet.probe.supervise import Supervisor

HEAD = """
import json, os, signal, subprocess, sys, time
def say(*lines):
    os.write(1, ("\\n".join(lines) + "\\n").encode())
say("?ready", ".")
for line in sys.stdin:
    chapter = json.loads(line)
    say("?call(%s)" % chapter[0])
"""
DEADLINE_S = 0.3


class Book:
    def __init__(self) -> None:
        self.found: list[tuple[str, str, Any]] = []

    def take(self, part: str, key: str, what: Any) -> None:
        self.found.append((part, key, what))


def supervisor_of(body: str, deadline_s: float = DEADLINE_S, **options: Any) -> Supervisor:
    script = HEAD + "".join(f"    {line}\n" for line in body.splitlines())
    return Supervisor([sys.executable, "-c", script], deadline_s=deadline_s, **options)


ANSWER = """say('=[["answers","call(%s)",{"value":1}]]' % chapter[0], ".")"""
HANG_ON_BAD = f"""
if chapter[0] == "bad": time.sleep(600)
{ANSWER}
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_what_a_child_found_is_taken_and_the_child_is_kept() -> None:
    supervisor, book = supervisor_of(ANSWER), Book()
    assert supervisor.run(["one"], book.take) is None
    pid = supervisor.pid()
    assert supervisor.run(["two"], book.take) is None
    assert supervisor.pid() == pid
    assert [key for _, key, _ in book.found] == ["call(one)", "call(two)"]
    supervisor.close()


def test_a_silent_child_is_killed_and_the_call_is_named() -> None:
    supervisor = supervisor_of(HANG_ON_BAD)
    assert supervisor.run(["good"], Book().take) is None
    pid = supervisor.pid()
    stop = supervisor.run(["bad"], Book().take)
    assert stop is not None
    assert (stop["reason"], stop["at"], stop["waited_s"]) == ("timed_out", "call(bad)", DEADLINE_S)
    assert stop["detail"] == "call(bad) did not return within 0.3 s"
    assert pid is not None
    assert not is_alive(pid)
    supervisor.close()


def test_after_a_silent_child_the_next_chapter_is_read_by_another() -> None:
    supervisor, book = supervisor_of(HANG_ON_BAD), Book()
    assert supervisor.run(["bad"], book.take) is not None
    assert supervisor.run(["next"], book.take) is None
    assert book.found == [("answers", "call(next)", {"value": 1})]
    assert supervisor.starts == 2
    supervisor.close()


def test_what_was_found_before_the_hang_is_kept() -> None:
    supervisor, book = supervisor_of(ANSWER.replace(', ".")', ")") + "\ntime.sleep(600)"), Book()
    assert supervisor.run(["gpu"], book.take) is not None
    assert book.found == [("answers", "call(gpu)", {"value": 1})]
    supervisor.close()


def test_a_child_that_speaks_is_given_more_time_than_one_deadline() -> None:
    slow = "for i in range(5):\n    time.sleep(0.15)\n    say('?step')\nsay('.')"
    supervisor = supervisor_of(slow)
    assert supervisor.run(["slow"], Book().take) is None
    supervisor.close()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("os._exit(3)", "exit status 3"),
        ("say('=not json')", "no answer"),
        ("say('=[1]')", "no answer"),
    ],
)
def test_a_child_that_dies_or_lies_is_told_and_replaced(body: str, words: str) -> None:
    supervisor = supervisor_of(f"if chapter[0] == 'bad':\n    {body}\n{ANSWER}")
    stop = supervisor.run(["bad"], Book().take)
    assert stop is not None
    assert stop["reason"] == "died"
    assert words in stop["detail"]
    assert supervisor.run(["good"], Book().take) is None
    supervisor.close()


def test_a_child_that_writes_without_end_is_stopped() -> None:
    supervisor = supervisor_of("while True: os.write(1, b'x' * 65536)")
    stop = supervisor.run(["bad"], Book().take)
    assert stop is not None
    assert stop["detail"] == "it wrote without end"
    supervisor.close()


def test_a_chapter_that_failed_in_the_child_is_told_and_the_child_stays() -> None:
    supervisor = supervisor_of("say('!ValueError: no', '.')")
    stop = supervisor.run(["odd"], Book().take)
    assert stop is not None
    assert (stop["reason"], stop["detail"]) == ("died", "ValueError: no")
    assert supervisor.starts == 1
    supervisor.close()


def test_a_program_that_does_not_exist_is_told() -> None:
    stop = Supervisor(["/nonexistent/python"]).run(["any"], Book().take)
    assert stop is not None
    assert stop["reason"] == "not_started"
    assert "cannot be started" in stop["detail"]


class Undead:
    """A process in state D, as the parent sees it: SIGKILL is sent, and it does not end."""

    def __init__(self) -> None:
        self.let_go = False

    def poll(self) -> int | None:
        return -9 if self.let_go else None


def test_stuck_children_are_counted_and_capped_and_forgotten_when_they_end() -> None:
    supervisor = supervisor_of(ANSWER, most_stuck=2)
    stuck = [Undead(), Undead()]
    supervisor._stuck.extend(stuck)  # type: ignore[arg-type]
    stop = supervisor.run(["any"], Book().take)
    assert stop is not None
    assert stop["reason"] == "not_started"
    assert stop["detail"] == "2 reading processes are stuck in the driver"
    assert supervisor.starts == 0
    stuck[0].let_go = True
    assert supervisor.run(["any"], Book().take) is None
    assert supervisor.stuck_count() == 1
    supervisor.close()


def test_closing_leaves_no_child() -> None:
    supervisor = supervisor_of(ANSWER)
    supervisor.run(["one"], Book().take)
    pid = supervisor.pid()
    supervisor.close()
    assert pid is not None
    assert not is_alive(pid)


def test_an_interrupted_parent_leaves_no_child() -> None:
    supervisor = supervisor_of("time.sleep(600)")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            supervisor.run(["one"], Book().take)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert supervisor.pid() is None
    assert supervisor.stuck_count() == 0


def test_another_thread_ends_a_chapter_that_hangs() -> None:
    supervisor = supervisor_of("time.sleep(600)")
    supervisor.deadline_s = 600.0
    threading.Timer(0.5, supervisor.interrupt).start()
    stop = supervisor.run(["one"], Book().take)
    assert stop is not None
    assert (stop["reason"], "signal 9" in stop["detail"]) == ("died", True)
    after = supervisor.run(["two"], Book().take)
    assert after is not None
    assert after["detail"] == "the reading was ended"
    assert supervisor.starts == 1


def test_a_child_that_started_others_takes_them_along() -> None:
    body = "p = subprocess.Popen(['sleep', '600'])\n" + (
        """say('=[["answers","pid",{"value":%d}]]' % p.pid)\ntime.sleep(600)"""
    )
    supervisor, book = supervisor_of(body, deadline_s=2), Book()
    supervisor.run(["bad"], book.take)
    pid = book.found[0][2]["value"]
    until = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_alive(pid)


FIVE_CALLS = """
for i in range(5):
    say("?call(%d)" % i)
    if chapter[0] == "bad" and i == 3: time.sleep(600)
    say('=[["answers","call(%d)",{"value":1}]]' % i)
say(".")
"""


def test_lines_that_gather_are_taken_in_their_order_and_a_hung_call_is_named() -> None:
    supervisor, book = supervisor_of(FIVE_CALLS, gather_s=0.02), Book()
    assert supervisor.run(["good"], book.take) is None
    stop = supervisor.run(["bad"], book.take)
    supervisor.close()
    assert stop is not None
    assert (stop["at"], stop["reason"]) == ("call(3)", "timed_out")
    assert [key for _, key, _ in book.found] == [f"call({i})" for i in (0, 1, 2, 3, 4, 0, 1, 2)]

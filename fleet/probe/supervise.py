"""The parent: runs chapters in a child that may hang, with a deadline for each call.

A child that is silent for too long is killed and never waited for: one that sleeps in the driver
(state D) does not die of SIGKILL, and waiting would hang the parent too. It is counted as stuck
until the kernel lets it go; beyond ``most_stuck`` no further child is started.
"""

import json
import os
import select
import signal
import subprocess
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple, Union

from fleet.probe.child import READY
from fleet.probe.fork import Forked
from fleet.probe.keys import INIT

LONGEST_LINE_BYTES = 4 * 2**20
SLOW_START = 4.0
"""The first call may wake every GPU, one to two seconds each; it gets so many deadlines."""

START_S = 20.0
"""For the interpreter itself, on a busy node."""

_GRACE_S = 0.25

Process = Union["subprocess.Popen[bytes]", Forked]
Take = Callable[[str, str, Any], None]
Stop = Dict[str, Any]


class ChildGoneError(Exception):
    """The child answers no more."""

    def __init__(self, reason: str, waited_s: float, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.waited_s = waited_s
        self.detail = detail


class Supervisor:
    """Runs chapters one at a time, each in a living child; keeps the child for the next reading.

    ``command`` starts the child; a function is run in a fork, for a parent of one thread alone.
    ``gather_s``: so long its lines may gather before they are read, to wake up less often.
    """

    def __init__(
        self,
        command: Union[List[str], Callable[[], None]],
        deadline_s: float = 5.0,
        most_stuck: int = 3,
        environment: Optional[Dict[str, str]] = None,
        gather_s: float = 0.0,
    ) -> None:
        self._command = command
        self._environment = environment
        self._gather_s = gather_s
        self.deadline_s = deadline_s
        self.most_stuck = most_stuck
        self._child: Optional[_Child] = None
        self._stuck: List[Process] = []
        self.stuck_since: Optional[float] = None
        self.starts = 0
        self._is_closed = False

    def run(self, chapter: List[Any], take: Take) -> Optional[Stop]:
        """Read one chapter; gives None, or where and why it was given up. Never raises for that."""
        name = chapter_name(chapter)
        if self._child is None:
            refusal = self._start()
            if refusal is not None:
                return a_stop(name, READY, "not_started", 0.0, refusal)
        child = self._child
        if child is None:
            return a_stop(name, READY, "not_started", 0.0, "the reading was ended")
        try:
            failed = child.read(chapter, take, self.deadline_s)
        except ChildGoneError as gone:
            at = child.asked
            self._drop()
            return a_stop(name, at, gone.reason, gone.waited_s, gone.detail)
        except BaseException:
            self._drop()  # the caller is interrupted in the middle of a chapter
            raise
        return None if failed is None else a_stop(name, child.asked, "died", 0.0, failed)

    def interrupt(self) -> None:
        """From another thread: end the chapter that is being read, and start no other child."""
        self._is_closed = True
        child = self._child
        if child is not None:
            child.send_kill()

    def close(self) -> None:
        """Let the child go, and start no other; nothing is left behind that can be killed."""
        self._is_closed = True
        if self._child is not None:
            self._drop()

    def stuck_count(self) -> int:
        """Killed children which the kernel has not let go yet."""
        self._stuck = [process for process in self._stuck if process.poll() is None]
        if not self._stuck:
            self.stuck_since = None
        return len(self._stuck)

    def pid(self) -> Optional[int]:
        """Process number of the living child."""
        return None if self._child is None else self._child.process.pid

    def _start(self) -> Optional[str]:
        if self._is_closed:
            return "the reading was ended"
        stuck = self.stuck_count()
        if stuck >= self.most_stuck:
            return "{} reading processes are stuck in the driver".format(stuck)
        try:
            self._child = _Child(self._started(), self._gather_s)
            self.starts += 1
            self._child.greet()
        except OSError as error:
            self._child = None
            return "the reading process cannot be started ({})".format(error.strerror)
        except ChildGoneError as gone:
            self._drop()
            return "the reading process did not start ({})".format(gone.detail)
        return None

    def _started(self) -> Process:
        if callable(self._command):
            return Forked(self._command)
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # the terminal's Ctrl-C is for the parent
            close_fds=True,
            env=self._environment,
        )

    def _drop(self) -> None:
        child, self._child = self._child, None
        if child is None:  # another thread has closed us meanwhile
            return
        child.kill()
        if child.process.poll() is None:
            self._stuck.append(child.process)
            self.stuck_since = self.stuck_since or time.time()


def chapter_name(chapter: List[Any]) -> str:
    """Name of a chapter in a reading: ``network``, ``gpu 3``."""
    number = [str(part) for part in chapter[1:2] if isinstance(part, int)]
    return " ".join([chapter[0]] + number)


def a_stop(chapter: str, at: str, reason: str, waited_s: float, detail: str) -> Stop:
    """Where and why a chapter was given up, as it stands in a reading."""
    return {
        "chapter": chapter,
        "at": at or chapter,
        "reason": reason,
        "waited_s": round(waited_s, 3),
        "detail": detail,
    }


class _Child:
    """One child process and the lines it has written."""

    def __init__(self, process: Process, gather_s: float) -> None:
        self.asked = READY
        self._gather_s = gather_s
        self._begun = b""
        self._lines: Deque[bytes] = deque()
        self.process = process
        assert self.process.stdout is not None
        self._output = self.process.stdout.fileno()
        self._poll = select.poll()
        self._poll.register(self._output, select.POLLIN | select.POLLHUP)

    def greet(self) -> None:
        """Wait for the first sign of life."""
        self._until_the_end(lambda part, key, what: None, START_S)

    def read(self, chapter: List[Any], take: Take, deadline_s: float) -> Optional[str]:
        """Read one chapter; gives what failed in it, if anything.

        Raises:
            ChildGoneError: it was silent for longer than the deadline, or ended.
        """
        self.asked = ""
        self._send(json.dumps(chapter))
        return self._until_the_end(take, deadline_s)

    def kill(self) -> None:
        """Kill it and all it started; never wait for it."""
        for stream in (self.process.stdin, self.process.stdout):
            try:
                assert stream is not None
                stream.close()
            except OSError:
                continue
        self.send_kill()
        self._given_grace()

    def send_kill(self) -> None:
        """Send SIGKILL to it and to all it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except OSError:
            self.process.kill()

    def _given_grace(self) -> None:
        """A child that can die does so at once: a moment to see it, no more."""
        until = time.monotonic() + _GRACE_S
        while self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)

    def _send(self, line: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise self._died() from None

    def _until_the_end(self, take: Take, deadline_s: float) -> Optional[str]:
        failed: Optional[str] = None
        while True:
            kind, rest = self._line(deadline_s)
            if kind == ".":
                return failed
            if kind == "?":
                self.asked = rest
            elif kind == "!":
                failed = rest
            elif kind == "=":
                for part, key, what in self._found(rest):
                    take(part, key, what)

    def _found(self, text: str) -> List[Tuple[str, str, Any]]:
        try:
            return [(part, key, what) for part, key, what in json.loads(text)]
        except (TypeError, ValueError):
            raise ChildGoneError("died", 0.0, "it wrote what is no answer") from None

    def _line(self, deadline_s: float) -> Tuple[str, str]:
        while not self._lines:
            *whole, self._begun = (self._begun + self._more(deadline_s)).split(b"\n")
            self._lines.extend(whole)
            if len(self._begun) > LONGEST_LINE_BYTES:
                raise ChildGoneError("died", 0.0, "it wrote without end")
        text = self._lines.popleft().decode("utf-8", "replace")
        return text[:1], text[1:]

    def _more(self, deadline_s: float) -> bytes:
        allowed_s = deadline_s * (SLOW_START if self.asked == INIT else 1.0)
        if not self._poll.poll(max(1, int(allowed_s * 1000))):
            detail = "{} did not return within {:g} s".format(self.asked or "it", allowed_s)
            raise ChildGoneError("timed_out", allowed_s, detail)
        if self._gather_s:
            time.sleep(self._gather_s)
        data = os.read(self._output, 1 << 16)
        if not data:
            raise self._died()
        return data

    def _died(self) -> ChildGoneError:
        self._given_grace()
        code = self.process.poll()
        if code is None:
            return ChildGoneError("died", 0.0, "the reading process closed its output")
        ended = "signal {}".format(-code) if code < 0 else "exit status {}".format(code)
        what = "{} ended the reading process ({})".format(self.asked or READY, ended)
        return ChildGoneError("died", 0.0, what)

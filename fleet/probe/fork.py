"""A child by fork, where a second interpreter would cost more than all that it reads.

For a parent that has loaded no driver and runs one thread: the far side of a sweep.
"""

import os
import signal
import sys
from typing import Callable, Optional

_USUAL_DESCRIPTORS = 256
"""Where the kernel does not list those that are open."""


class Forked:
    """A forked process that runs a function; what a supervisor needs of a ``Popen``."""

    def __init__(self, run: Callable[[], None]) -> None:
        their_stdin, stdin = os.pipe()
        stdout, their_stdout = os.pipe()
        self.returncode: Optional[int] = None
        self.pid = os.fork()
        if not self.pid:
            _become(run, their_stdin, their_stdout)
        os.close(their_stdin)
        os.close(their_stdout)
        self.stdin = os.fdopen(stdin, "wb")
        self.stdout = os.fdopen(stdout, "rb", 0)

    def poll(self) -> Optional[int]:
        """Exit status, or the signal that ended it as a negative number; None while it lives."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                by_signal = os.WIFSIGNALED(status)
                self.returncode = -os.WTERMSIG(status) if by_signal else os.WEXITSTATUS(status)
        return self.returncode

    def kill(self) -> None:
        """Send it SIGKILL, if it lives."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _become(run: Callable[[], None], stdin: int, stdout: int) -> None:
    """Be the child: a session, stdin and stdout of its own, and nothing else that is open."""
    status = 1
    try:
        os.setsid()
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        _close_all_but_stdio()
        sys.stdin = os.fdopen(0)
        run()
        status = 0
    finally:
        os._exit(status)  # nothing of the parent's is finished or flushed a second time


def _close_all_but_stdio() -> None:
    """The parent's ends of our pipes above all: with them open we would never see its end."""
    try:
        is_open = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        is_open = list(range(_USUAL_DESCRIPTORS))
    for descriptor in is_open:
        if descriptor > 2:
            os.closerange(descriptor, descriptor + 1)  # one that is closed by now is no error

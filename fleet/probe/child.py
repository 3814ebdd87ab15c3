"""The child: reads one chapter after another, as told on stdin, and may hang or die at any call.

It writes lines: ``?KEY`` before it asks, ``=JSON`` for all it found since, ``!TEXT`` where a
chapter failed, ``.`` at a chapter's end. It ends when its stdin does, or with its parent.
"""

import ctypes
import json
import os
import signal
import sys
from typing import Any, List

from fleet.probe import files
from fleet.probe.binding import Answer
from fleet.probe.plan import Out, Plan
from fleet.probe.processes import read_processes

READY = "ready"
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Lines(Out):
    """Lines to the parent; what was found goes out with the next announcement, in one write."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._found: List[Any] = []
        self._waiting: List[str] = []
        self._text = json.JSONEncoder(separators=(",", ":")).encode

    def asking(self, key: str) -> None:
        """Announce a call, and send all that was found before it."""
        self._waiting.append("?" + key.replace("\n", " "))
        self.flush()

    def answer(self, key: str, answer: Answer) -> None:
        """An answer of the driver."""
        self._found.append(("answers", key, answer))

    def file(self, path: str, text: str) -> None:
        """Content of a file."""
        self._found.append(("files", path, text))

    def link(self, path: str, target: str) -> None:
        """Target of a link."""
        self._found.append(("links", path, target))

    def unreadable(self, path: str, errno_name: str) -> None:
        """A file that could not be read."""
        self._found.append(("unreadable", path, errno_name))

    def failed(self, text: str) -> None:
        """The chapter cannot go on."""
        self._waiting.append("!" + text.replace("\n", " "))

    def end(self) -> None:
        """The chapter is done."""
        self._waiting.append(".")
        self.flush()

    def flush(self) -> None:
        """Send what waits: what was found first."""
        if self._found:
            self._waiting.insert(0, "=" + self._text(self._found))
            self._found = []
        data = ("\n".join(self._waiting) + "\n").encode("utf-8", "replace")
        self._waiting = []
        while data:
            data = data[os.write(self._descriptor, data) :]


def main() -> None:
    """Read chapters until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    _die_with_parent()
    out = Lines(_private_stdout())
    plan = Plan(out)
    out.asking(READY)
    out.end()
    for line in sys.stdin:
        try:
            _read(json.loads(line), plan, out)
        except Exception as error:
            out.failed("{}: {}".format(type(error).__name__, error))
        out.end()
    plan.stop()


def _read(chapter: List[Any], plan: Plan, out: Lines) -> None:
    name, arguments = chapter[0], chapter[1:]
    if name == "pci":
        files.read_pci(arguments[0], out, arguments[1])
    elif name == "network":
        files.read_network(arguments[0], out, arguments[1])
    elif name == "processes":
        read_processes(arguments[1], out, arguments[0])
    elif name == "nvml":
        plan.nvml(arguments[0])
    elif name in ("gpu", "state", "pairs"):
        started = plan.start()
        if "value" not in started:
            out.failed("nvmlInit gave {} when asked again".format(started))
        elif name == "gpu":
            plan.gpu(arguments[0])
        elif name == "state":
            plan.link_counts[str(arguments[0])] = arguments[1]
            plan.state(arguments[0])
        else:
            plan.pairs(arguments[0], arguments[1])
    else:
        out.failed("no chapter {!r}".format(name))


def _private_stdout() -> int:
    """Stdout for us alone: what the driver's library prints there goes nowhere."""
    ours = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return ours


def _die_with_parent() -> None:
    """Have the kernel kill us when the thread that started us is gone: a hung call sees no EOF."""
    try:
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return


if __name__ == "__main__":
    main()

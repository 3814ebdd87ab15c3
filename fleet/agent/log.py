"""Log: one line per event on stderr. What goes wrong again and again is said once, then counted."""

import os
import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Final

from fleet.naming import counted

LONGEST_LINE: Final = 500
MOST_KINDS: Final = 8
"""So many different troubles of one topic are said until it works again."""


class Log:
    """Writes events; ``trouble`` on a topic is silent while it stays the same, digits aside."""

    def __init__(self, write: Callable[[str], object], now: Callable[[], datetime]) -> None:
        self._write = write
        self._now = now
        self._trouble: dict[str, set[str]] = {}
        self._times: Counter[str] = Counter()

    def say(self, text: str) -> None:
        """One event, in one line."""
        line = text_in_one_line(text)
        self._write(f"{self._now().isoformat(timespec='seconds')} {line}\n")

    def trouble(self, topic: str, text: str) -> None:
        """Something went wrong; said when it is new."""
        self._times[topic] += 1
        kind, known = re.sub(r"[0-9]+", "#", text), self._trouble.setdefault(topic, set())
        if kind not in known and len(known) < MOST_KINDS:
            known.add(kind)
            self.say(f"{topic}: {text}")

    def fine(self, topic: str, text: str) -> None:
        """It works; said when it did not before."""
        if self._trouble.pop(topic, None) is not None:
            self.say(f"{topic}: {text} (after {counted(self._times.pop(topic), 'failure')})")


def text_in_one_line(text: str) -> str:
    """Text without line breaks or control characters, and not too long."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."


def write_to_stderr(text: str) -> None:
    """Write at once and whole; a stderr that is gone does not end the agent."""
    try:
        os.write(2, text.encode(errors="replace"))
    except OSError:
        return

"""systemd: tells the service manager that the agent is ready, alive, about to end."""

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final

_BEATS_PER_DEADLINE: Final = 3


class Notifier:
    """Sends states to the manager's socket; without one it does nothing.

    Takes the variables out of the environment: they are not for our children.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        limit_us = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", str(os.getpid()))
        self.beat_s: float | None = None
        self._next_beat_s = 0.0
        if self._address and limit_us.isdigit() and int(limit_us) and watched == str(os.getpid()):
            self.beat_s = int(limit_us) / 1e6 / _BEATS_PER_DEADLINE

    def ready(self) -> None:
        """The agent listens."""
        self._send("READY=1")

    def beat(self, now_s: float) -> None:
        """The agent is alive; said as often as the manager wants to hear it. [s]"""
        if self.beat_s is not None and now_s >= self._next_beat_s:
            self._next_beat_s = now_s + self.beat_s
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The agent ends."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # A leading @ stands for the zero byte of an address that is in no file system.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)

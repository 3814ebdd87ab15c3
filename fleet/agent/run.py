"""Run: puts the agent together: one thread reads, one writes the spool, this one serves."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Final

from fleet.agent.access import Access, access_from_settings
from fleet.agent.addresses import TcpAddress, bound_address, listen_on, remove_socket
from fleet.agent.answers import Answers
from fleet.agent.board import Board, Edition, Reader
from fleet.agent.channels import Channel, PlainChannel
from fleet.agent.log import Log, write_to_stderr
from fleet.agent.readings import ReadingLoop, intervals_s
from fleet.agent.server import Server
from fleet.agent.settings import AgentSettings
from fleet.agent.spool import Spool
from fleet.agent.systemd import Notifier
from fleet.errors import FleetError

ANSWERS_END_S: Final = 0.2
THREADS_END_S: Final = 0.3
INTERRUPTED: Final = 130
"""Exit status after Ctrl-C; the command line's table has it too."""


class Agent:
    """A running agent: its threads, its server, and how it ends."""

    def __init__(
        self,
        settings: AgentSettings,
        reader: Reader,
        *,
        clock: Callable[[], float],
        rng: Random,
        log: Log,
    ) -> None:
        self.board = Board()
        self._settings = settings
        self._reader = reader
        self._clock = clock
        self._log = log
        self._ends = Event()
        self._intervals = intervals_s(
            interval_s=settings.interval_s, jitter_ratio=settings.jitter_ratio, rng=rng
        )
        access = access_from_settings(settings)
        self._listener = listen_on(settings.listen)
        self._answers = Answers(
            self.board, access, stale_after_s=settings.stale_after_s, clock=clock, log=log
        )
        self.server = Server(
            self._listener,
            self._answers,
            channel_from_socket=_channels(access),
            clock=clock,
        )
        self._spool = self._make_spool()
        self._threads: list[Thread] = []

    def start(self) -> None:
        """Begin to read; say where it listens."""
        self._say_where()
        loop = ReadingLoop(
            self._reader, self.board, clock=self._clock, log=self._log, publish=self._publish
        )
        self._begin(partial(loop.run, self._intervals, self._ends.wait), "reading")
        if self._spool is not None:
            self._begin(self._spool.run, "spool")

    def reload(self) -> None:
        """Read the token and the certificates again; where that fails the old ones stay."""
        try:
            access = access_from_settings(self._settings)
        except FleetError as error:
            self._log.say(f"reload: {error}; the old ones stay")
            return
        self._answers.access = access
        self.server.channel_from_socket = _channels(access)
        self._log.say("reload: token and certificates read again")

    def close(self) -> None:
        """End within a second: finish answers and writes for a moment, let everything go."""
        self._ends.set()
        if self._spool is not None:
            self._spool.close()
        until_s = self._clock() + ANSWERS_END_S
        while self.server.is_answering and self._clock() < until_s:
            self.server.turn(ANSWERS_END_S / 10)
        self.server.close()
        remove_socket(self._settings.listen)
        until_s = self._clock() + THREADS_END_S
        for thread in self._threads:
            thread.join(max(until_s - self._clock(), 0.01))
        with suppress(Exception):  # its thread may be in the middle of a reading
            self._reader.close()

    def _make_spool(self) -> Spool | None:
        if self._settings.spool is None:
            return None
        return Spool(
            Path(self._settings.spool),
            self.board,
            clock=self._clock,
            log=self._log,
            retry_s=self._settings.interval_s,
        )

    def _publish(self, edition: Edition) -> None:
        if self._spool is not None:
            self._spool.offer(edition)

    def _begin(self, work: Callable[[], object], name: str) -> None:
        # A daemon: one that hangs in the driver or in a dead file system must not hold the end up.
        thread = Thread(target=work, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _say_where(self) -> None:
        address, access = bound_address(self._listener), self._answers.access
        scheme = "https" if access.tls else "http"
        self._log.say(
            f"listening on {scheme}://{address}"
            if isinstance(address, TcpAddress)
            else f"listening on {address}"
        )
        is_bare = isinstance(address, TcpAddress) and not address.is_loopback and not access.tls
        if is_bare and access.token:
            self._log.say("the token crosses the network in clear text; give --tls-cert, --tls-key")


def run_agent(
    settings: AgentSettings,
    make_reader: Callable[[AgentSettings], Reader],
    *,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    rng: Random | None = None,
    write: Callable[[str], object] = write_to_stderr,
) -> int:
    """Run an agent until a signal ends it; gives the exit status. Main thread only.

    Raises:
        FleetError: it cannot listen, or a file of the settings does not do.
    """
    notifier = Notifier(os.environ)
    agent = Agent(
        settings,
        make_reader(settings),
        clock=clock,
        rng=rng or Random(),
        log=Log(write, now),
    )
    signals = Signals(agent)
    agent.start()
    notifier.ready()
    while signals.status is None:
        agent.server.turn(notifier.beat_s)
        notifier.beat(clock())
        signals.reload_if_asked()
    notifier.stopping()
    agent.close()
    return signals.status


class Signals:
    """What the signals ask for. A byte on a socket wakes the server; the rest is done there."""

    def __init__(self, agent: Agent) -> None:
        self.status: int | None = None
        self._agent = agent
        self._asks_reload = False
        self._wakes, self._waked = socket.socketpair()
        for end in (self._wakes, self._waked):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        agent.server.watch(self._waked, lambda: self._waked.recv(4096))
        signal.signal(signal.SIGTERM, lambda *_: self._end(0))
        signal.signal(signal.SIGINT, lambda *_: self._end(INTERRUPTED))
        signal.signal(signal.SIGHUP, lambda *_: self._ask_reload())

    def reload_if_asked(self) -> None:
        """Reload, where a SIGHUP came."""
        if self._asks_reload:
            self._asks_reload = False
            self._agent.reload()

    def _end(self, status: int) -> None:
        if self.status is None:
            self.status = status

    def _ask_reload(self) -> None:
        self._asks_reload = True


def _channels(access: Access) -> Callable[[socket.socket], Channel]:
    if access.tls is None:
        return PlainChannel
    from fleet.agent.tls import TlsChannel

    return partial(TlsChannel, context=access.tls)


def main(arguments: list[str], make_reader: Callable[[AgentSettings], Reader]) -> int:
    """The agent's own entry point: what can be expected to fail is one line and an exit status."""
    from fleet.agent.settings import settings_from_arguments
    from fleet.errors import ExpectedError

    try:
        return run_agent(settings_from_arguments(arguments), make_reader)
    except ExpectedError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code

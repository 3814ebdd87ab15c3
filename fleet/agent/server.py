"""Server: many clients in one thread. Every client has a deadline, and there is a limit to them.

Measured against threads and asyncio in ``tests/bench/agent_server.md``: the least memory, with TLS
by far, and no slower.
"""

import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import Final, Protocol

from fleet.agent.channels import Channel, Wait
from fleet.agent.http import HEAD_END, LARGEST_HEAD_BYTES, Reply

ACCEPTS_PER_TURN: Final = 64
SWEEP_S: Final = 1.0
SMALL_BODY_BYTES: Final = 16_384
"""Goes out in one piece with its head; a larger one is not worth a copy for each client."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many clients, and how long one may take to ask, to take its answer, to stay silent."""

    clients: int = 256
    head_s: float = 5.0
    answer_s: float = 15.0
    idle_s: float = 30.0
    leave_s: float = 1.0


class Handler(Protocol):
    """What answers."""

    def answer(self, head: bytes) -> Reply:
        """The reply to a request's head, without the empty line that ends it."""

    def refuse(self, status: int) -> Reply:
        """The reply to what is no request; the connection ends with it."""


class _Next(Enum):
    GO_ON = auto()
    GONE = auto()


class _Phase(Enum):
    IDLE = auto()
    ASKING = auto()
    ANSWERING = auto()
    LEAVING = auto()


@dataclass(slots=True, eq=False)
class _Client:
    channel: Channel
    deadline_s: float
    phase: _Phase = _Phase.ASKING
    came: bytes = b""
    goes: list[memoryview] = field(default_factory=list)
    ends: bool = False
    waits: Wait = Wait.TO_READ


class Server:
    """Serves the clients of a listener, one turn after another."""

    def __init__(
        self,
        listener: socket.socket,
        handler: Handler,
        *,
        channel_from_socket: Callable[[socket.socket], Channel],
        clock: Callable[[], float],
        limits: Limits = Limits(),
    ) -> None:
        self.channel_from_socket = channel_from_socket
        self._listener = listener
        self._handler = handler
        self._clock = clock
        self._limits = limits
        self._clients: set[_Client] = set()
        self._again: list[_Client] = []
        self._sweep_at_s = clock() + SWEEP_S
        self._selector = selectors.DefaultSelector()
        self._accepts = False
        self._accept_from_now()

    def watch(self, file: socket.socket, callback: Callable[[], object]) -> None:
        """Call back whenever something can be read from a file."""
        self._selector.register(file, selectors.EVENT_READ, callback)

    def turn(self, longest_s: float | None = None) -> None:
        """Wait until something happens, at most so long, and do what there is to do. [s]"""
        for key, _ in self._selector.select(self._wait_s(longest_s)):
            key.data()
        again, self._again = self._again, []
        for client in again:
            self._go_on(client)
        if self._clock() >= self._sweep_at_s:
            self._sweep()

    @property
    def is_answering(self) -> bool:
        """Whether some client's answer is on its way."""
        return any(client.phase is _Phase.ANSWERING for client in self._clients)

    def close(self) -> None:
        """Let go of every client and of the listener."""
        for client in tuple(self._clients):
            self._drop(client)
        self._listener.close()
        self._selector.close()

    def _wait_s(self, longest_s: float | None) -> float | None:
        if self._again:
            return 0.0
        if not self._clients and self._accepts:
            return longest_s
        return SWEEP_S if longest_s is None else min(SWEEP_S, longest_s)

    def _accept_from_now(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._accepts = True

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # out of descriptors: until the next sweep nobody is let in
                self._selector.unregister(self._listener)
                self._accepts = False
                return
            self._admit(client)

    def _admit(self, client: socket.socket) -> None:
        if len(self._clients) >= self._limits.clients and not self._is_room_made():
            client.close()
            return
        client.setblocking(False)
        try:
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            channel = self.channel_from_socket(client)
        except OSError:  # it left already
            client.close()
            return
        one = _Client(channel, self._clock() + self._limits.head_s)
        self._clients.add(one)
        self._selector.register(channel, Wait.TO_READ, partial(self._go_on, one))

    def _is_room_made(self) -> bool:
        """Send away who is silent and nearest to its deadline; not one that gets its answer."""
        silent = [c for c in self._clients if c.phase is not _Phase.ANSWERING]
        if not silent:
            return False
        self._drop(min(silent, key=lambda client: client.deadline_s))
        return True

    def _go_on(self, client: _Client) -> None:
        """Do for a client what can be done without waiting, at most one request of it."""
        if client not in self._clients:
            return
        try:
            waits = self._step(client)
        except OSError:
            waits = _Next.GONE
        if not isinstance(waits, Wait):
            self._drop(client)
        elif waits is not client.waits:
            client.waits = waits
            self._selector.modify(client.channel, waits, partial(self._go_on, client))

    def _step(self, client: _Client) -> Wait | _Next:
        """Go on to where the client has to be waited for, or is gone."""
        result: Wait | _Next = _Next.GO_ON
        while result is _Next.GO_ON:
            match client.phase:
                case _Phase.ANSWERING:
                    result = self._send(client)
                case _Phase.LEAVING:
                    # What it still sends is thrown away, a piece a turn.
                    result = _Next.GONE if client.channel.receive() == b"" else Wait.TO_READ
                case _Phase.IDLE | _Phase.ASKING:
                    result = self._listen(client)
        return result

    def _listen(self, client: _Client) -> Wait | _Next:
        """Take in a request's head and answer it."""
        while HEAD_END not in client.came:
            if len(client.came) > LARGEST_HEAD_BYTES:
                self._reply(client, self._handler.refuse(431))
                return _Next.GO_ON
            received = client.channel.receive()
            if isinstance(received, Wait):
                return received
            if not received:
                return _Next.GONE
            if client.phase is _Phase.IDLE:
                client.phase = _Phase.ASKING
                client.deadline_s = self._clock() + self._limits.head_s
            client.came += received
        head, _, client.came = client.came.partition(HEAD_END)
        self._reply(client, self._handler.answer(head))
        return _Next.GO_ON

    def _reply(self, client: _Client, reply: Reply) -> None:
        client.phase = _Phase.ANSWERING
        client.deadline_s = self._clock() + self._limits.answer_s
        small = len(reply.body) <= SMALL_BODY_BYTES
        parts = (reply.head + reply.body,) if small else (reply.head, reply.body)
        client.goes = [memoryview(part) for part in parts]
        client.ends = reply.ends

    def _send(self, client: _Client) -> Wait | _Next:
        """Send what goes out; then others come first, even where more was asked already."""
        while client.goes:
            sent = client.channel.send(client.goes[0])
            if isinstance(sent, Wait):
                return sent
            client.goes[0] = client.goes[0][sent:]
            if not client.goes[0]:
                client.goes.pop(0)
        self._after_answer(client)
        if client.came or client.channel.has_more():
            self._again.append(client)
        return Wait.TO_READ

    def _after_answer(self, client: _Client) -> None:
        """Wait for the next request, or for the client to leave: closing at once could cut it."""
        if client.ends:
            client.came = b""
            client.phase = _Phase.LEAVING
            client.deadline_s = self._clock() + self._limits.leave_s
            client.channel.finish()
        else:
            client.phase = _Phase.IDLE
            client.deadline_s = self._clock() + self._limits.idle_s

    def _sweep(self) -> None:
        """Let go of those whose time is over."""
        now_s = self._clock()
        self._sweep_at_s = now_s + SWEEP_S
        for client in [client for client in self._clients if client.deadline_s <= now_s]:
            self._drop(client)
        if not self._accepts:
            self._accept_from_now()

    def _drop(self, client: _Client) -> None:
        self._clients.discard(client)
        self._selector.unregister(client.channel)
        client.channel.close()

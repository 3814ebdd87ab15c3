"""Channels: bytes to and from one client, never blocking. TLS has its own in ``tls``."""

import socket
from contextlib import suppress
from enum import IntEnum
from selectors import EVENT_READ, EVENT_WRITE
from typing import Final, Protocol

PIECE_BYTES: Final = 4096


class Wait(IntEnum):
    """What a channel waits for before it can go on."""

    TO_READ = EVENT_READ
    TO_WRITE = EVENT_WRITE


class Channel(Protocol):
    """One client. Every method may raise OSError: then the client is gone."""

    def fileno(self) -> int:
        """Descriptor to wait on."""

    def receive(self) -> bytes | Wait:
        """What has come, ``b""`` at the end, or what to wait for."""

    def send(self, content: memoryview) -> int | Wait:
        """How many bytes went, or what to wait for."""

    def has_more(self) -> bool:
        """Whether bytes have come that waiting on the descriptor does not show."""

    def finish(self) -> None:
        """Tell the client that nothing more comes."""

    def close(self) -> None:
        """Let go of the client."""


class PlainChannel:
    """A client on a bare socket."""

    def __init__(self, client: socket.socket) -> None:
        self._socket = client

    def fileno(self) -> int:
        """Descriptor to wait on."""
        return self._socket.fileno()

    def receive(self) -> bytes | Wait:
        """What has come, ``b""`` at the end, or what to wait for."""
        try:
            return self._socket.recv(PIECE_BYTES)
        except BlockingIOError:
            return Wait.TO_READ

    def send(self, content: memoryview) -> int | Wait:
        """How many bytes went, or what to wait for."""
        try:
            return self._socket.send(content)
        except BlockingIOError:
            return Wait.TO_WRITE

    def has_more(self) -> bool:
        """Never: the kernel shows all there is."""
        return False

    def finish(self) -> None:
        """Tell the client that nothing more comes."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of the client."""
        self._socket.close()

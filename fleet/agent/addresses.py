"""Addresses: where the agent listens, a TCP port or a Unix socket, and how it is opened."""

import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet.errors import FleetError

BACKLOG: Final = 256
_SOCKET_UMASK: Final = 0o117
"""Leaves 0660: the owner and the group may connect."""

_EXPECTED: Final = "give HOST:PORT, [IPV6]:PORT or unix:/PATH"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host name or address, and a port; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it; a name other than localhost may be anything."""
        if self.host == "localhost":
            return True
        with suppress(OSError):
            return socket.inet_pton(socket.AF_INET, self.host)[0] == 127
        with suppress(OSError):
            return socket.inet_pton(socket.AF_INET6, self.host) == bytes(15) + b"\x01"
        return False


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


def address_from_text(text: str) -> Address:
    """An address from ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:/PATH``.

    Raises:
        FleetError: the text is none of them.

    >>> address_from_text("[::1]:9409"), str(address_from_text("unix:/run/a.sock"))
    (TcpAddress(host='::1', port=9409), 'unix:/run/a.sock')
    """
    kind, _, path = text.partition(":")
    if kind == "unix":
        if not path.startswith("/"):
            raise FleetError(f"{text!r} names no path", field="--listen", remedy=_EXPECTED)
        return UnixAddress(path)
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (":" in bare) != (bare != host) or not _is_port(port):
        raise FleetError(f"{text!r} is no address", field="--listen", remedy=_EXPECTED)
    return TcpAddress(bare, int(port))


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 2**16


def listen_on(address: Address) -> socket.socket:
    """A socket that listens there and does not block.

    Raises:
        FleetError: the address is taken, not ours, or not of this machine.
    """
    try:
        if isinstance(address, UnixAddress):
            listener = _unix_listener(address.path)
        else:
            listener = _tcp_listener(address)
    except (OSError, UnicodeError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise FleetError(
            f"cannot listen there ({problem})",
            where=str(address),
            remedy="stop what listens there, or choose another --listen",
        ) from None
    listener.setblocking(False)
    return listener


def bound_address(listener: socket.socket) -> Address:
    """The address a listener really has: the port that was free, where 0 was asked."""
    name = listener.getsockname()
    return UnixAddress(name) if isinstance(name, str) else TcpAddress(name[0], name[1])


def remove_socket(address: Address) -> None:
    """Take a Unix socket out of the file system when its listener ends."""
    if isinstance(address, UnixAddress):
        with suppress(OSError):
            os.unlink(address.path)


def _tcp_listener(address: TcpAddress) -> socket.socket:
    family, _, _, _, place = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(place[:2], family=family, backlog=BACKLOG)


def _unix_listener(path: str) -> socket.socket:
    _clear_stale(Path(path))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(_SOCKET_UMASK)  # set at bind: there is no moment in which anyone may connect
    try:
        listener.bind(path)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    return listener


def _clear_stale(path: Path) -> None:
    """Take away the socket of an agent that is gone; nothing else is ever removed."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FleetError("is there and is no socket", where=str(path), remedy="move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise FleetError("somebody answers there", where=str(path), remedy="stop the other agent first")

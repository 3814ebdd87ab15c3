"""Agents: nodes asked over HTTP or a Unix socket for the snapshot their agent holds.

A small client of its own: one deadline over everything (a server that drips is cut off), a bound on
what is taken in, no redirect followed, no proxy. It speaks HTTP/1.0, so that nothing is chunked.
"""

import asyncio
import errno
import os
import re
import socket
import ssl
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fleet.errors import FleetError
from fleet.gather.hostlist import HostListError, expand_list
from fleet.gather.outcome import (
    Answer,
    AnswerError,
    FailureReason,
    HostFailure,
    plain_detail,
    timed_out,
    too_large,
)
from fleet.reading import LARGEST_READING_BYTES
from fleet.store import read_bytes

SNAPSHOT_PATH: Final = "/snapshot"
LARGEST_HEAD_BYTES: Final = 64 * 1024
LARGEST_TOKEN_BYTES: Final = 4096
_PORTS: Final = {"http": 80, "https": 443}
_LITERAL: Final = re.compile(r"\[[0-9A-Fa-f:.%]*:[0-9A-Fa-f:.%]*\]")
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: ([^\r\n]{0,200}))?\r?\n")
_LENGTH: Final = re.compile(rb"^content-length:[ \t]*([0-9]{1,18})[ \t]*\r?$", re.I | re.M)
_CODED: Final = re.compile(rb"^(?:transfer|content)-encoding:[ \t]*(?!identity)", re.I | re.M)
_UNAUTHORISED: Final = (401, 403)
_OK: Final = 200
_REASONS: Final = {
    errno.ECONNREFUSED: FailureReason.REFUSED,
    errno.ENOENT: FailureReason.REFUSED,
    errno.EACCES: FailureReason.AUTH,
    errno.EHOSTUNREACH: FailureReason.UNREACHABLE,
    errno.ENETUNREACH: FailureReason.UNREACHABLE,
    errno.EHOSTDOWN: FailureReason.UNREACHABLE,
    errno.ETIMEDOUT: FailureReason.TIMED_OUT,
}
"""What an error of the network means; every other one is a connection that was lost."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Where an agent listens; ``host`` None: on the Unix socket ``path``."""

    label: str
    path: str
    host: str | None = None
    port: int = 0
    is_tls: bool = False


@dataclass(frozen=True, slots=True)
class AgentsTransport:
    """Asks agents for their snapshots."""

    agents: dict[str, Agent]
    deadline_s: float
    token: str | None = None
    tls: ssl.SSLContext | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        """The agents' labels."""
        return tuple(self.agents)

    async def ask(self, host: str) -> Answer | HostFailure:
        """GET the snapshot of one agent."""
        try:
            async with asyncio.timeout(self.deadline_s):
                body = await _get(self.agents[host], self.token, self.tls)
        except AnswerError as error:
            return error.failure(host)
        except TimeoutError:
            return timed_out(self.deadline_s).failure(host)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            return _reason_of(error).failure(host)
        return Answer(host, lambda: body)


def agents_from_text(texts: Sequence[str]) -> dict[str, Agent]:
    """Agents by label from URLs: ``http://gpu[001-128]:9409``, ``unix:/run/fleetmap.sock``.

    The label is the host, with its port where two agents share one host.

    Raises:
        FleetError: a URL is wrong, or there is none.
    """
    urls = dict.fromkeys(url for text in texts for url in _urls(text))
    agents = [_agent_from_url(url) for url in urls]
    if not agents:
        raise FleetError("no URL", field="--agents", remedy="such as http://gpu[001-128]:9409")
    shared = Counter(agent.host for agent in agents)
    labelled = {}
    for agent in agents:
        is_alone = agent.host is not None and shared[agent.host] == 1
        labelled[agent.host if is_alone and agent.host else agent.label] = agent
    return labelled


def token_from_file(path: Path) -> str:
    """The bearer token in a file, its one line.

    Raises:
        FleetError: the file cannot be read, or holds no token.
    """
    text = read_bytes(path, limit=LARGEST_TOKEN_BYTES).decode("ascii", "replace").strip()
    if not re.fullmatch(r"[!-~]+", text):
        raise FleetError(
            "holds no token", where=str(path), remedy="write it on one line, in plain ASCII"
        )
    return text


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """TLS that checks the server's certificate and name, against ``ca_file`` or the system's.

    Raises:
        FleetError: the file holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise FleetError(
            f"no certificates ({error})", where=str(ca_file), remedy="give a PEM file"
        ) from None


def _urls(text: str) -> list[str]:
    """The URLs of a list; an IPv6 address stands in brackets too, and is left alone."""
    parts = re.split(r"([,\s]+)", text)
    if not any(_LITERAL.search(part) for part in parts):
        return list(expand_list(text, where="--agents"))
    return [
        url
        for part in parts
        for url in ([part] if _LITERAL.search(part) else expand_list(part, where="--agents"))
    ]


def _agent_from_url(url: str) -> Agent:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _no_url(url, str(error)) from None
    if not url.isascii() or not url.isprintable() or parts.query or parts.fragment or "@" in url:
        raise _no_url(url, "more than scheme, host, port and path")
    if parts.scheme == "unix" and parts.path.startswith("/") and not host:
        return Agent(label=url, path=parts.path)
    if parts.scheme not in _PORTS or not host:
        raise _no_url(url, "no http://, https:// or unix:/")
    port = port or _PORTS[parts.scheme]
    path = parts.path if parts.path not in ("", "/") else SNAPSHOT_PATH
    return Agent(f"{host}:{port}", path, host, port, parts.scheme == "https")


def _no_url(url: str, why: str) -> HostListError:
    return HostListError(
        f"{url[:100]!r} is no agent's URL ({why})",
        where="--agents",
        remedy="write http://HOST:PORT, https://HOST:PORT or unix:/PATH",
    )


async def _get(agent: Agent, token: str | None, tls: ssl.SSLContext | None) -> bytes:
    reader, writer = await _connect(agent, tls)
    try:
        writer.write(_request(agent, token))
        await writer.drain()
        return await _body(reader)
    finally:
        writer.transport.abort()  # a polite end of TLS would wait for the other side


async def _connect(
    agent: Agent, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if agent.host is None:
        return await asyncio.open_unix_connection(agent.path)
    context = tls if agent.is_tls else None
    return await asyncio.open_connection(agent.host, agent.port, ssl=context)


def _request(agent: Agent, token: str | None) -> bytes:
    path = SNAPSHOT_PATH if agent.host is None else agent.path
    host = "localhost" if agent.host is None else agent.host
    shown = f"[{host}]" if ":" in host else host
    lines = [f"GET {path} HTTP/1.0", f"Host: {shown}", "Accept: application/json"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "User-Agent: fleetmap", "", ""]).encode("ascii")


async def _body(reader: asyncio.StreamReader) -> bytes:
    """The body of an answer with status 200, whole.

    Raises:
        AnswerError: another status, an answer that is cut, coded, too large or not HTTP.
    """
    head = await _head(reader)
    if _CODED.search(head):
        raise AnswerError(FailureReason.GARBAGE, "the answer is encoded, which was not asked for")
    told = _LENGTH.search(head)
    length = int(told[1]) if told else None
    if length is not None and length > LARGEST_READING_BYTES:
        raise too_large()
    body = bytearray()
    while len(body) <= LARGEST_READING_BYTES and (length is None or len(body) < length):
        data = await reader.read(1 << 16)
        if not data:
            break
        body += data
    if len(body) > LARGEST_READING_BYTES:
        raise too_large()
    if length is not None and len(body) < length:
        raise AnswerError(FailureReason.GARBAGE, f"cut at {len(body)} of {length} bytes")
    return bytes(body if length is None else body[:length])


async def _head(reader: asyncio.StreamReader) -> bytes:
    head = bytearray()
    while len(head) <= LARGEST_HEAD_BYTES:
        line = await reader.readline()
        head += line
        if line in (b"\r\n", b"\n", b""):
            break
    status = _STATUS.match(head)
    if not head:
        raise AnswerError(FailureReason.NO_ANSWER, "the connection was closed without an answer")
    if status is None or len(head) > LARGEST_HEAD_BYTES:
        raise AnswerError(FailureReason.GARBAGE, "no HTTP answer")
    code = int(status[1])
    if code != _OK:
        reason = FailureReason.AUTH if code in _UNAUTHORISED else FailureReason.HTTP_STATUS
        words = plain_detail((status[2] or b"").decode("ascii", "replace"))
        followed = ", which is not followed" if code // 100 == 3 else ""
        raise AnswerError(reason, f"{code} {words}".strip() + followed)
    return bytes(head)


def _reason_of(error: Exception) -> AnswerError:
    """The reason that an exception of the network stands for."""
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        told = getattr(error, "verify_message", None) or error.reason or str(error)
        return AnswerError(FailureReason.TLS, str(told))
    if isinstance(error, socket.gaierror):
        return AnswerError(FailureReason.UNKNOWN_HOST, str(error.strerror))
    code = _error_number(error)
    if code is None:
        return AnswerError(FailureReason.GARBAGE, str(error))
    return AnswerError(_REASONS.get(code, FailureReason.CLOSED), os.strerror(code))


def _error_number(error: Exception) -> int | None:
    """The system's number of an error; a host of several addresses gives one error for all."""
    if not isinstance(error, OSError):
        return None
    told = re.search(r"\[Errno ([0-9]{1,4})\]", str(error))
    return error.errno or (int(told[1]) if told else None)

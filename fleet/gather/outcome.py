"""Outcomes of a sweep: what a host gave, or the one reason why it gave nothing. No network."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from fleet.gather.hostlist import fold_hosts
from fleet.model import NodeSnapshot
from fleet.reading import LARGEST_READING_BYTES
from fleet.units import text_from_bytes, text_from_seconds

LONGEST_DETAIL: Final = 300
OK: Final = "ok"


class FailureReason(StrEnum):
    """Why a host is not in the map, or not as it should be."""

    TIMED_OUT = "timed_out"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    UNKNOWN_HOST = "unknown_host"
    HOST_KEY = "host_key"
    AUTH = "auth"
    CLOSED = "closed"
    TLS = "tls"
    HTTP_STATUS = "http_status"
    NOT_STARTED = "not_started"
    NO_COLLECTOR = "no_collector"
    DIED = "died"
    NO_ANSWER = "no_answer"
    GARBAGE = "garbage"
    TOO_LARGE = "too_large"
    WRONG_SCHEMA = "wrong_schema"
    UNREADABLE = "unreadable"
    NAME_TAKEN = "name_taken"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class HostFailure:
    """A host that gave nothing to the map, or (``stale``) something too old. ``host``: as asked."""

    host: str
    reason: FailureReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Collected:
    """A host that answered. ``host`` is the name we asked; the snapshot holds the node's own."""

    host: str
    snapshot: NodeSnapshot


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from one host, not yet unpacked.

    ``document()`` gives the reading or snapshot as JSON, or raises AnswerError; it may take time.
    """

    host: str
    document: Callable[[], bytes]


class Transport(Protocol):
    """A way to ask hosts."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Whom to ask, in order."""

    async def ask(self, host: str) -> Answer | HostFailure:
        """Ask one host within its deadline; what a host does never raises."""


@dataclass(frozen=True, slots=True)
class Group:
    """Hosts with one outcome; ``outcome`` is ``ok`` or a reason."""

    hosts: tuple[str, ...]
    outcome: str
    detail: str = ""

    @property
    def text(self) -> str:
        """Hosts folded, outcome, and the detail in brackets."""
        told = f"{fold_hosts(self.hosts)} {self.outcome}"
        return f"{told} ({self.detail})" if self.detail else told


class AnswerError(Exception):
    """An answer that cannot be taken; becomes the failure of its host."""

    def __init__(self, reason: FailureReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = plain_detail(detail)

    def failure(self, host: str) -> HostFailure:
        """The failure of the host that gave the answer."""
        return HostFailure(host, self.reason, self.detail)


def too_large() -> AnswerError:
    """The reason of an answer beyond what any node has to say."""
    limit = text_from_bytes(LARGEST_READING_BYTES)
    return AnswerError(FailureReason.TOO_LARGE, f"more than {limit}")


def timed_out(deadline_s: float) -> AnswerError:
    """The reason of a host that did not answer in time. [s]"""
    within = text_from_seconds(deadline_s)
    return AnswerError(FailureReason.TIMED_OUT, f"no answer within {within}")


def plain_detail(text: str) -> str:
    r"""Foreign text fit for a terminal: one line, printable, short.

    >>> plain_detail("Permission denied\x1b[31m\n (publickey).\n")
    'Permission denied [31m (publickey).'
    """
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * LONGEST_DETAIL])
    return re.sub(r" +", " ", printable).strip()[:LONGEST_DETAIL]


def group_outcomes(asked: Iterable[str], told: Iterable[tuple[str, str, str]]) -> tuple[Group, ...]:
    """Hosts by outcome: those of whom nothing is told first, then by frequency.

    ``told`` are host, outcome and detail.

    >>> late = [(f"g{i}", "timed_out", "no answer within 20 s") for i in (3, 4)]
    >>> [group.text for group in group_outcomes(["g1", "g2", "g3", "g4"], late)]
    ['g[1-2] ok', 'g[3-4] timed_out (no answer within 20 s)']
    """
    by_outcome: dict[tuple[str, str], list[str]] = defaultdict(list)
    mentioned = set()
    for host, outcome, detail in told:
        mentioned.add(host)
        by_outcome[outcome, detail].append(host)
    well = tuple(host for host in asked if host not in mentioned)
    groups = [Group(tuple(hosts), *outcome) for outcome, hosts in by_outcome.items()]
    groups.sort(key=lambda group: (-len(group.hosts), group.outcome, group.detail))
    return (*((Group(well, OK),) if well else ()), *groups)

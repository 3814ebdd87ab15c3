"""Board: what the agent's threads show each other. Values are replaced whole and never changed.

The reading thread puts up editions and readings, the spool thread what it wrote, and the thread
that serves looks: no lock, and no half-changed value to see.
"""

import gzip
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from fleet.model import NodeSnapshot

_PACKED_LEVEL: Final = 6
_TAG_DIGITS: Final = 32


class Reader(Protocol):
    """What reads the node: may take long, may raise a FleetError. One thread uses it.

    Only ``close`` is also called from another thread, when ``read`` has not come back in time and
    the process is about to end.
    """

    @property
    def wedged_since(self) -> datetime | None:
        """Since when reading processes are stuck in the driver; None: none is."""

    def read(self) -> NodeSnapshot:
        """The node as it is now."""

    def close(self) -> None:
        """End what reads; nothing stays behind."""


@dataclass(frozen=True, slots=True)
class Page:
    """Bytes that are served as they are, packed too; ``tag`` names the content."""

    content: bytes
    packed: bytes
    tag: str


@dataclass(frozen=True, slots=True)
class Edition:
    """What one good reading gave; ``read_at_s`` is the monotonic clock when it began."""

    host: str
    gpu_count: int
    faults: tuple[str, ...]
    snapshot: Page
    metrics: bytes
    read_at_s: float
    took_s: float

    def is_fresh(self, *, now_s: float, stale_after_s: float) -> bool:
        """Whether it is still the node's state."""
        return now_s - self.read_at_s <= stale_after_s


@dataclass(frozen=True, slots=True)
class Readings:
    """How the readings went; ``failure`` is that of the last one, None where it was good."""

    good: int = 0
    failed: int = 0
    failure: str | None = None
    running_since_s: float | None = None
    wedged_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Spooled:
    """How the writing to the spool went."""

    good: int = 0
    failed: int = 0
    failure: str | None = None
    last_good_s: float | None = None


@dataclass(slots=True)
class Board:
    """The newest of everything; each attribute has one thread that replaces it."""

    edition: Edition | None = None
    readings: Readings = Readings()
    spooled: Spooled | None = None
    answered: Counter[int] = field(default_factory=Counter)


def page_from_content(content: bytes) -> Page:
    """A page, packed once for all its readers."""
    tag = hashlib.sha256(content).hexdigest()[:_TAG_DIGITS]
    return Page(content, gzip.compress(content, _PACKED_LEVEL, mtime=0), tag)


def snapshot_bytes(snapshot: NodeSnapshot) -> bytes:
    """The snapshot's JSON text, the same as ``fleet.store`` writes.

    Not imported from there: the store brings the command line's packages along.
    """
    return (snapshot.model_dump_json(exclude_defaults=True) + "\n").encode()

"""Redact: a reading, snapshot or map that can be shared, with pseudonyms for what identifies.

Replaced: hosts, GPU and MIG UUIDs, cluster UUIDs, serials (chassis too), GUIDs, GIDs, MAC and IP
addresses, switches, users, process names, holders of GPUs, owners and places. Unchanged: how the
node is wired, PCI addresses, interface names, local identifiers (LIDs), process numbers, versions,
product names, rates, counters, times. A pseudonym has the form of what it stands for, so that
importers still take it, and it is the same wherever the same text stands, in every document that is
redacted with the same key: documents still join. Zeros and words such as ``N/A`` stay.

What it cannot know: a name in free text (the detail of an absence, the alias of an interface) that
stands nowhere in the documents by its field, or stands there in another case of letters; a name of
one or two letters, or one that is a common word (``gpu``, ``node``), outside its own field; a name
of a host in a path. Numbers and wiring of a rare machine may tell it too. Read what you share.
"""

from collections.abc import Sequence
from typing import TypeVar

from fleet.model import FleetMap, NodeSnapshot
from fleet.reading import NodeReading
from fleet.redact.key import key_path, redaction_key
from fleet.redact.models import rewritten
from fleet.redact.pseudonyms import Pseudonyms
from fleet.redact.sweep import Collector, Sweeper

__all__ = ["key_path", "redacted", "redacted_together", "redaction_key"]

D = TypeVar("D", bound=NodeReading | NodeSnapshot | FleetMap)


def redacted(document: D, key: bytes) -> D:
    """A document with pseudonyms in the place of identities.

    Raises:
        ValueError: the key has fewer than 16 bytes.
    """
    return redacted_together((document,), key)[0]


def redacted_together(documents: Sequence[D], key: bytes) -> tuple[D, ...]:
    """Several documents, each without the identities of any of them.

    Raises:
        ValueError: the key has fewer than 16 bytes.
    """
    known = Collector()
    for document in documents:
        rewritten(document, known)
    sweeper = Sweeper(Pseudonyms(key), known)
    return tuple(_checked(rewritten(document, sweeper)) for document in documents)


def _checked(document: D) -> D:
    """The document again, with all that its model demands."""
    checked = type(document).model_validate_json(document.model_dump_json())
    assert isinstance(checked, type(document))
    return checked

"""Recorded: snapshots and maps that fleetmap wrote itself."""

import re
from typing import Final

from fleet.fields import HostName
from fleet.model import FleetMap, NodeSnapshot
from fleet.store import document_from_bytes

_KIND: Final = re.compile(r'"kind"\s*:\s*"(fleet_map|node_snapshot)"')


def recognises(head: str) -> bool:
    """Whether a text is a snapshot or map of ours."""
    return head.lstrip().startswith("{") and _KIND.search(head) is not None


def read(content: bytes, *, where: str, host: HostName) -> tuple[NodeSnapshot, ...] | FleetMap:
    """The snapshot or map as it was; ``host`` is not needed, ours name their host.

    Raises:
        StoreError: not JSON, or of a newer schema.
        SnapshotError: a field is wrong.
    """
    document = document_from_bytes(content, where=where)
    return document if isinstance(document, FleetMap) else (document,)

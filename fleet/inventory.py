"""Inventory: one call from the asked source to a fleet map: this node, files, or a SPEC."""

from collections.abc import Sequence
from pathlib import Path

from fleet.errors import FleetError
from fleet.fields import HostName
from fleet.merge import merge_snapshots, snapshots_of
from fleet.model import FleetMap, NodeSnapshot
from fleet.node import BegunReading, NodeReader
from fleet.reading import NodeReading
from fleet.sources.reading import snapshot_from_reading
from fleet.sources.registry import Gathered, gather_files, host_name_from_text
from fleet.store import bytes_from_document, make_folder, write_bytes


def take_inventory(
    *,
    files: Sequence[Path] = (),
    spec: str | None = None,
    host: str | None = None,
    begun: BegunReading | None = None,
) -> Gathered:
    """A map of this node, or of ``files``, or of a synthetic ``spec``.

    ``begun`` is a reading of this node that is under way.

    Raises:
        FleetError: files and a SPEC together, or what the source itself raises.
    """
    if files and spec is not None:
        raise FleetError("--from and --synthetic exclude each other", remedy="keep one")
    if host is not None and spec is not None:
        raise FleetError("--host and --synthetic exclude each other", remedy="keep one")
    if host is not None and host_name_from_text(host) != host:
        raise FleetError(
            f"{host!r} is no host name",
            field="--host",
            remedy="use letters, digits, '.', '_' and '-', beginning with a letter or digit; "
            "253 at most",
        )
    name = HostName(host) if host is not None else None
    if files:
        return gather_files(files, host=name)
    if spec is not None:
        from fleet.sources.synthetic import fleet_from_spec

        return Gathered(fleet_from_spec(spec), (), ())
    return this_node(begun or BegunReading(NodeReader()), host=name)


def this_node(begun: BegunReading, *, host: HostName | None = None) -> Gathered:
    """A map of this node as its driver and its kernel report it, read by a supervised child.

    Raises:
        NothingCollectedError: there is no driver, and no list of the PCI bus either.
    """
    reading = begun.result()
    if host is not None:
        reading = reading.model_copy(update={"host": host})
    fleet = merge_snapshots([snapshot_from_reading(reading)])
    return Gathered(fleet, (), (), reading)


def record(
    fleet: FleetMap,
    folder: Path,
    *,
    reading: NodeReading | None = None,
    key: bytes | None = None,
) -> list[Path]:
    """Keep what was read, one file for each node; it replays to the same map with ``--from``.

    This node's reading is kept word for word (``HOST.reading.json``), other nodes as their
    snapshots (``HOST.snapshot.json``). With a ``key``, pseudonyms stand for serials, UUIDs, GUIDs,
    hosts and users.

    Raises:
        StoreError: the folder cannot be made or written.
    """
    make_folder(folder)
    documents = [reading] if reading is not None else list(snapshots_of(fleet))
    paths = []
    for document in documents if key is None else _redacted(documents, key):
        kind = "reading" if reading is not None else "snapshot"
        path = folder / f"{document.host}.{kind}.json"
        write_bytes(bytes_from_document(document), path)
        paths.append(path)
    return paths


def _redacted(
    documents: list[NodeReading] | list[NodeSnapshot], key: bytes
) -> Sequence[NodeReading | NodeSnapshot]:
    from fleet.redact import redacted_together

    return redacted_together(documents, key)

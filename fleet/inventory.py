"""Inventory: one call from the asked source to a fleet map: this node, files, or a SPEC."""

import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fleet.errors import FleetError, StoreError
from fleet.fields import HostName
from fleet.merge import merge_snapshots, snapshots_of
from fleet.model import FleetMap
from fleet.sources.registry import Gathered, gather_files, host_name_from_text
from fleet.store import bytes_from_document, write_bytes


def take_inventory(
    *, files: Sequence[Path] = (), spec: str | None = None, host: str | None = None
) -> Gathered:
    """A map of this node through NVML, or of ``files``, or of a synthetic ``spec``.

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
    return Gathered(this_node(host=name), (), ())


def this_node(*, host: HostName | None = None) -> FleetMap:
    """A map of this node as its NVIDIA driver reports it.

    Raises:
        NothingCollectedError: there is no driver, or it does not answer.
    """
    from fleet.sources.nvml import read_node

    name = host or host_name_from_text(socket.gethostname())
    return merge_snapshots([read_node(host=name, now=datetime.now(UTC))])


def record(fleet: FleetMap, folder: Path) -> list[Path]:
    """Write each node's snapshot as ``HOST.snapshot.json``; they replay with ``--from FOLDER``.

    Raises:
        StoreError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot be made ({error.strerror})", where=str(folder), remedy="name another folder"
        ) from None
    paths = []
    for snapshot in snapshots_of(fleet):
        path = folder / f"{snapshot.host}.snapshot.json"
        write_bytes(bytes_from_document(snapshot), path)
        paths.append(path)
    return paths

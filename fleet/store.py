"""Store: maps and snapshots on disk. Strict when reading, atomic when writing."""

import gzip
import io
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field, TypeAdapter, ValidationError

from fleet.console import STDIO
from fleet.errors import SnapshotError, StoreError
from fleet.fields import FrozenModel
from fleet.memory import collector_paused
from fleet.model import SCHEMA_VERSION, FleetMap, NodeSnapshot
from fleet.naming import counted
from fleet.reading import NodeReading
from fleet.shapes import node_wirings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

LARGEST_DOCUMENT_BYTES: Final = 2 * 2**30
"""A document that unpacks to more is refused: a map of 100,000 nodes is a tenth of it."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
KINDS: Final[dict[str, type[FleetMap | NodeSnapshot]]] = {
    "fleet_map": FleetMap,
    "node_snapshot": NodeSnapshot,
}
_DOCUMENT: Final[TypeAdapter[FleetMap | NodeSnapshot]] = TypeAdapter(
    Annotated[FleetMap | NodeSnapshot, Field(discriminator="kind")]
)


def load_fleet(path: str | Path) -> FleetMap:
    """Load a fleet map from ``.json`` or ``.json.gz``; ``-`` is stdin.

    Raises:
        StoreError: no such file, not readable, not JSON, or of a newer schema.
        SnapshotError: a field is wrong; the message names file, field, value and what would do.
    """
    document = document_from_bytes(read_bytes(path), where=str(path))
    if not isinstance(document, FleetMap):
        raise StoreError(
            "a node snapshot, not a fleet map",
            where=str(path),
            remedy=f"make one with: fleet inventory --from {path} -o fleet.json",
        )
    return document


def save_fleet(fleet: FleetMap, path: str | Path) -> None:
    """Save a map; the file is there whole or not at all. ``.gz`` compresses, ``-`` is stdout."""
    write_bytes(bytes_from_document(fleet), path)


def bytes_from_document(document: FrozenModel) -> bytes:
    """JSON text of a map or snapshot: what has its default value is left out."""
    text = document.model_dump_json(exclude_defaults=True)
    return (text + "\n").encode()


def read_bytes(path: str | Path, *, limit: int = LARGEST_DOCUMENT_BYTES) -> bytes:
    """Content of a file or of stdin, unpacked where it is gzip, bounded in size.

    Raises:
        StoreError: it cannot be read, is cut or is larger than ``limit``.
    """
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == STDIO else open(path, "rb") as file:
            raw = file.read(limit + 1)
        if len(raw) <= limit and raw.startswith(_GZIP_MAGIC):
            with gzip.GzipFile(fileobj=io.BytesIO(raw)) as packed:
                raw = packed.read(limit + 1)
    except FileNotFoundError:
        raise StoreError("no such file", where=str(path), remedy="check the path") from None
    except IsADirectoryError:
        raise StoreError("a folder, not a file", where=str(path), remedy="name a file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise StoreError(
            f"cannot be read ({error})",
            where=str(path),
            remedy="check that it is whole and yours to read",
        ) from None
    if len(raw) > limit:
        raise StoreError(f"larger than {limit} bytes", where=str(path), remedy="split the fleet")
    return raw


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where it is not there.

    Raises:
        StoreError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot be made ({error.strerror})", where=str(folder), remedy="name another folder"
        ) from None


def write_bytes(content: bytes, path: str | Path) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part.

    A link stays a link: the file it leads to is replaced. What ends in ``.gz`` is packed.

    Raises:
        StoreError: the folder is not there or not writable.
    """
    write_parts((content,), path)


def write_parts(parts: Iterable[bytes], path: str | Path) -> None:
    """As ``write_bytes``, of content that comes part by part and need not fit into memory.

    Raises:
        StoreError: the folder is not there or not writable.
    """
    if str(path) == STDIO:
        if sys.stdout is None:
            raise StoreError("stdout is closed", where=STDIO, remedy="open it, or name a file")
        sys.stdout.buffer.writelines(parts)
        sys.stdout.buffer.flush()
        return
    target = Path(path)
    if target.suffix == ".gz":
        parts = _packed(parts)
    try:
        if target.is_dir():
            raise StoreError("a folder, not a file", where=str(path) or "''", remedy="name a file")
        if target.is_fifo() or target.is_char_device():
            with target.open("wb") as file:  # to replace it would break it for others
                file.writelines(parts)
            return
        target = Path(os.path.realpath(target))
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise StoreError(
            f"cannot be written ({error.strerror})",
            where=str(path),
            remedy="name a file in a folder that exists and is yours",
        ) from None


def document_from_bytes(content: bytes, *, where: str) -> FleetMap | NodeSnapshot:
    """A map or a snapshot from JSON text, checked strictly.

    Raises:
        StoreError: not JSON, not one of our documents, or of a newer schema.
        SnapshotError: a field is wrong.
    """
    try:
        with collector_paused():
            document = _DOCUMENT.validate_json(content)
    except ValidationError as error:
        _refuse_foreign(content, where)
        raise SnapshotError(**_first_fault(error), where=where) from None
    if isinstance(document, FleetMap):
        _refuse_loose_deviations(document, where)
    return document


def _refuse_loose_deviations(fleet: FleetMap, where: str) -> None:
    """Each node's wiring must come out of its shape; only applying its deviations tells."""
    wirings = node_wirings(fleet)
    for i in range(len(fleet.nodes)):
        try:
            next(wirings)
        except SnapshotError as error:
            field = f"nodes[{i}].{error.field}"
            raise SnapshotError(
                error.problem, where=where, field=field, remedy=error.remedy
            ) from None


def _refuse_foreign(content: bytes, where: str) -> None:
    """Say first what is no document of ours, or is newer than we are."""
    try:
        head = json.loads(content)
    except (ValueError, RecursionError) as error:
        remedy = "give a fleet map, made with: fleet inventory -o fleet.json"
        raise StoreError(f"not JSON ({error})", where=where, remedy=remedy) from None
    kind = head.get("kind") if isinstance(head, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise StoreError(
            f"no document of ours: kind is {kind!r}",
            where=where,
            remedy=f"expected one of {', '.join(KINDS)}",
        )
    version = head.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise StoreError(
            f"schema_version {version} is newer than this fleetmap, which reads {SCHEMA_VERSION}",
            where=where,
            remedy="upgrade fleetmap",
        )


def json_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of a document kind: ``fleet_map``, ``node_snapshot``, ``node_reading``."""
    documents: dict[str, type[FrozenModel]] = {**KINDS, "node_reading": NodeReading}
    return documents[kind].model_json_schema()


def _first_fault(error: ValidationError) -> dict[str, str]:
    faults = error.errors(include_url=False)
    first, more = faults[0], len(faults) - 1
    if first["type"] == "json_invalid":
        remedy = "save it as plain UTF-8, without a byte order mark"
        return {"problem": first["msg"], "remedy": remedy}
    if first["type"] == "extra_forbidden":
        first["msg"] = "no such key"
    text = f"{first['msg'].removeprefix('Value error, ')}{_value_text(first)}"
    return {
        "field": path_from_location(first["loc"]),
        "problem": text,
        "remedy": f"and {counted(more, 'more fault')}" if more else "",
    }


def _value_text(fault: "ErrorDetails") -> str:
    value = fault["input"]
    return f" (was {value!r})" if isinstance(value, str | int | float | None) else ""


def path_from_location(location: Sequence[str | int]) -> str:
    """A path such as ``nodes[3].gpus[1].uuid`` from pydantic's location.

    >>> path_from_location(("nodes", 3, "gpus", 1, "uuid"))
    'nodes[3].gpus[1].uuid'
    """
    parts = location[1:] if location[:1] and location[0] in KINDS else location
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".")


def _packed(parts: Iterable[bytes]) -> Iterator[bytes]:
    """A gzip stream without a time, so that the same content gives the same bytes."""
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP_WINDOW)
    for part in parts:
        yield packer.compress(part)
    yield packer.flush()


_GZIP_WINDOW: Final = 31
"""zlib's sign for a gzip header and its largest window."""


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

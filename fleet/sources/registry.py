"""Registry: the file formats that hold facts, told from their content, never from their name."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet.errors import FleetError, NothingCollectedError, SourceError
from fleet.fields import HostName
from fleet.merge import merge_fleets, merge_snapshots
from fleet.model import FleetMap, NodeSnapshot
from fleet.naming import counted
from fleet.reading import NodeReading
from fleet.sources import nccl_xml, nvidia_smi, nvidia_smi_topo, reading, recorded
from fleet.store import read_bytes

LARGEST_SOURCE_BYTES: Final = 256 * 2**20
_HEAD_BYTES: Final = 65536
_NAME_THEIR_HOST: Final = frozenset({"recorded", "reading"})


@dataclass(frozen=True, slots=True)
class FileSource:
    """A format: its name, whether a text is of it, and how it becomes snapshots.

    ``read(content, where=..., host=...)`` raises SourceError on what it cannot understand;
    ``host`` is the name for a node whose file does not tell its own.
    """

    name: str
    title: str
    recognises: Callable[[str], bool]
    read: Callable[..., tuple[NodeSnapshot, ...] | FleetMap]


FILE_SOURCES: Final = (
    FileSource("reading", "fleetmap reading", reading.recognises, reading.read),
    FileSource("recorded", "fleetmap JSON", recorded.recognises, recorded.read),
    FileSource("nccl_xml", "NCCL topology XML", nccl_xml.recognises, nccl_xml.read),
    FileSource("nvidia_smi", "nvidia-smi -q -x XML", nvidia_smi.recognises, nvidia_smi.read),
    FileSource(
        "nvidia_smi_topo",
        "nvidia-smi topo -m matrix",
        nvidia_smi_topo.recognises,
        nvidia_smi_topo.read,
    ),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An input that was not taken, and why; the reason does not repeat the path."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Gathered:
    """The map, what was refused, what is no source at all; the reading where this node was read."""

    fleet: FleetMap
    refused: tuple[Refusal, ...]
    skipped: tuple[str, ...]
    reading: NodeReading | None = None


@dataclass(frozen=True, slots=True)
class _Input:
    path: Path
    content: bytes
    source: FileSource


def source_of(content: bytes) -> FileSource | None:
    """The format of a file's content, None where it is none of ours."""
    head = content[:_HEAD_BYTES].decode("utf-8", errors="replace")
    return next((source for source in FILE_SOURCES if source.recognises(head)), None)


def gather_files(paths: Iterable[Path], *, host: HostName | None = None) -> Gathered:
    """One map from files and folders.

    Files that stand together (one folder, or named one by one) and are each of another kind are
    taken for one machine, named ``host``, or after the folder or the first file. A file of a kind
    that stands there twice is a machine of its own, named after the file. Where two machines would
    have one name, the folders above tell them apart.

    Raises:
        NothingCollectedError: every input was refused; the message says why.
        SourceError: ``host`` is given for more than one machine.
    """
    refused: list[Refusal] = []
    skipped: list[str] = []
    groups = _groups(paths, refused, skipped)
    owned = [(_owner(folder, group, item), item) for folder, group in groups for item in group]
    if host is not None:
        _refuse_many_machines(
            {owner for owner, item in owned if item.source.name not in _NAME_THEIR_HOST}
        )
    fleets = _read_all(owned, host, refused)
    if not fleets:
        raise _nothing(refused, skipped)
    fleet = merge_fleets(fleets)
    if host is not None:
        _refuse_many_machines({node.host for node in fleet.nodes})
        _refuse_other_name(fleet, host)
    return Gathered(fleet=fleet, refused=tuple(refused), skipped=tuple(skipped))


def _refuse_many_machines(machines: Collection[object]) -> None:
    if len(machines) > 1:
        raise SourceError(
            f"the files hold {len(machines)} machines",
            field="--host",
            remedy="name one machine's files, or leave --host out",
        )


def _refuse_other_name(fleet: FleetMap, host: HostName) -> None:
    """A file of ours names its host itself."""
    for node in fleet.nodes:
        if node.host != host:
            raise SourceError(
                f"the file names its host {node.host}, not {host}",
                field="--host",
                remedy="leave --host out",
            )


def _groups(
    paths: Iterable[Path], refused: list[Refusal], skipped: list[str]
) -> list[tuple[Path, list[_Input]]]:
    """Files that stand together, with their folder, or the first of those named one by one."""
    named: list[_Input] = []
    groups: list[tuple[Path, list[_Input]]] = []
    for path in paths:
        if not path.is_dir():
            named.extend(_inputs([path], refused, None))
            continue
        folders = sorted({file.parent for file in path.rglob("*") if file.is_file()})
        for folder in folders:
            files = sorted(file for file in folder.iterdir() if file.is_file())
            groups.append((folder, _inputs(files, refused, skipped)))
    if named:
        groups.insert(0, (named[0].path, named))
    return groups


def _inputs(
    files: Iterable[Path], refused: list[Refusal], skipped: list[str] | None
) -> list[_Input]:
    """Files with their kind; a file of no kind is skipped in a folder and refused when named."""
    inputs = []
    for file in files:
        try:
            content = read_bytes(file, limit=LARGEST_SOURCE_BYTES)
        except FleetError as error:
            if not file.exists():
                raise  # a mistyped path is the caller's mistake, no refused input
            refused.append(_refusal(file, error))
            continue
        source = source_of(content)
        if source is not None:
            inputs.append(_Input(file, content, source))
        elif skipped is not None:
            skipped.append(str(file))
        else:
            what = "no source we know" if content else "empty"
            refused.append(Refusal(str(file), f"{what}; expected one of: {_kinds()}"))
    return inputs


def _owner(together: Path, group: list[_Input], item: _Input) -> Path:
    """The path a machine is named after: the folder of all its files, or its one file."""
    kinds = [other.source.name for other in group]
    return Path(os.path.abspath(together if len(set(kinds)) == len(kinds) else item.path))


def _read_all(
    owned: list[tuple[Path, _Input]], host: HostName | None, refused: list[Refusal]
) -> list[FleetMap]:
    names = _machine_names(owned)
    maps: list[FleetMap] = []
    snapshots: list[NodeSnapshot] = []
    for owner, item in owned:
        told = host or names[owner]
        try:
            result = item.source.read(item.content, where=str(item.path), host=told)
        except FleetError as error:
            refused.append(_refusal(item.path, error))
            continue
        if isinstance(result, FleetMap):
            maps.append(result)
        else:
            snapshots.extend(result)
    return [*maps, merge_snapshots(snapshots)] if snapshots else maps


def _machine_names(owned: list[tuple[Path, _Input]]) -> dict[Path, HostName]:
    """For each owner the shortest name that no other owner of a file of its kinds could have.

    Owners that share a name and no kind are one machine, its files sorted by kind.
    """
    kinds: dict[Path, set[str]] = defaultdict(set)
    for owner, item in owned:
        kinds[owner].add(item.source.name)
    choices = {owner: _name_choices(owner) for owner in kinds}
    taken = Counter((k, name) for owner in kinds for k in kinds[owner] for name in choices[owner])
    names: dict[Path, HostName] = {}
    for i, owner in enumerate(kinds):
        free = (n for n in choices[owner] if all(taken[k, n] == 1 for k in kinds[owner]))
        names[owner] = next(free, HostName(f"node-{i + 1}"))
    return names


def _name_choices(owner: Path) -> list[HostName]:
    """The name, then with its folders before it; a file's name first without its endings."""
    bases = [owner.name] if owner.is_dir() else [owner.name.partition(".")[0], owner.name]
    above = owner.parts[1:-1]
    texts = ("-".join((*above[i:], base)) for base in bases for i in range(len(above), -1, -1))
    return list(dict.fromkeys(host_name_from_text(text) for text in texts))


def host_name_from_text(text: str) -> HostName:
    """A legal host name from a file's or folder's name.

    >>> host_name_from_text("my box (2)")
    'my-box--2-'
    """
    return HostName(re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip(".-")[:253] or "node")


def _refusal(path: Path, error: FleetError) -> Refusal:
    return Refusal(str(path), str(error).removeprefix(f"{path}: "))


def _nothing(refused: list[Refusal], skipped: list[str]) -> NothingCollectedError:
    """What to say when every input was refused: the one reason, or all of them."""
    if len(refused) == 1 and not skipped:
        return NothingCollectedError(refused[0].reason, where=refused[0].path)
    if not refused:
        what = f"{counted(len(skipped), 'file')}, none a source" if skipped else "no files"
        return NothingCollectedError(f"nothing to map: {what}", remedy=f"give {_kinds()}")
    reasons = "".join(f"\n  {refusal.path}: {refusal.reason}" for refusal in refused)
    counts = f"{counted(len(refused), 'input')} refused, {counted(len(skipped), 'file')} skipped"
    return NothingCollectedError(f"nothing to map: {counts}{reasons}")


def _kinds() -> str:
    return ", ".join(source.title for source in FILE_SOURCES)

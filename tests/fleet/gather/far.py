"""Far sides for tests: readings, a stub of ssh, a fake nvidia-smi, and folders to be PATH."""

import base64
import json
import shutil
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fleet.gather.answer import READING_MARK
from fleet.model import NodeSnapshot, Section, SectionName
from fleet.store import bytes_from_document
from tests.factories import make_snapshot

ROOT = Path(__file__).resolve().parents[3]
CAPTURE = ROOT / "samples" / "captures" / "l40s-8"
MARK = "@fleetmap-0123"
NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
SMALL_TOOLS = ("sh", "echo", "uname", "date", "cat", "sleep", "kill", "env", "true")


def reading(host: str = "gpu1", **special: Any) -> dict[str, Any]:
    """A reading of a node on which there is nothing but nvidia-smi's XML."""
    xml = (CAPTURE / "nvidia-smi-q.xml").read_text()
    return {
        "kind": "node_reading",
        "schema_version": 1,
        "host": host,
        "collected_at": {"driver": NOW.isoformat(), "outputs": NOW.isoformat()},
        "outputs": {"nvidia-smi -q -x": {"text": xml, "exit_code": 0}},
    } | special


def packed(document: bytes) -> bytes:
    """The marked line of a far side that has python3."""
    return READING_MARK + base64.b64encode(zlib.compress(document)) + b"\n"


def packed_reading(host: str = "gpu1", **special: Any) -> bytes:
    """The marked line with a reading."""
    return packed(json.dumps(reading(host, **special)).encode())


def snapshot_of(host: str, *, at: datetime | None = NOW, **special: Any) -> NodeSnapshot:
    """A snapshot that says when it was read."""
    section = Section(name=SectionName.DEVICES, source="nvml", collected_at=at)
    return make_snapshot(host, sections=(section,), **special)


def snapshot_bytes(host: str, *, at: datetime | None = NOW, **special: Any) -> bytes:
    """The same as JSON."""
    return bytes_from_document(snapshot_of(host, at=at, **special))


def script(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def tools(folder: Path, *names: str) -> Path:
    """A folder to be PATH, with links to these programs and the small ones every system has."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*SMALL_TOOLS, *names):
        found = shutil.which(name, path="/usr/bin:/bin")
        if found is not None and not (folder / name).exists():
            (folder / name).symlink_to(found)
    return folder


def fake_nvidia_smi(folder: Path) -> Path:
    """An nvidia-smi that prints a sample of ours."""
    cases = (
        f"case \"$*\" in '-q -x') cat {CAPTURE}/nvidia-smi-q.xml ;;"
        f" 'topo -m') cat {CAPTURE}/nvidia-smi-topo-m.txt ;; *) exit 3 ;; esac"
    )
    return script(folder / "nvidia-smi", cases)


def stub_ssh(folder: Path, **by_host: str) -> Path:
    """An ssh that reaches no network: each host is a node of its own name with nvidia-smi.

    ``by_host`` is a script line for a special host, in which ``$1`` is the command; dashes in its
    name are underscores. Who is asked is written to ``asked`` beside it.
    """
    far = tools(folder / "far")
    fake_nvidia_smi(far)
    (far / "uname").unlink()
    script(far / "uname", 'echo "$FAR_HOST"')
    cases = "".join(f"{host.replace('_', '-')}) {line} ;;\n" for host, line in by_host.items())
    text = (
        'while [ "$1" != -- ]; do shift; done\n'
        f"FAR_HOST=$2; export FAR_HOST; shift 2; echo $FAR_HOST >>{folder}/asked\n"
        f'case $FAR_HOST in\n{cases}*) PATH={far} exec /bin/sh -c "$1" ;;\nesac'
    )
    return script(folder / "ssh", text)

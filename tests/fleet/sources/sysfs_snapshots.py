"""What the kernel's files of a fake tree are understood as."""

from datetime import UTC, datetime
from pathlib import Path

from fleet.fields import AbsenceReason, HostName, path_matches
from fleet.model import NodeSnapshot
from fleet.probe.files import files_below
from fleet.reading import Stop, StopReason
from fleet.sources.sysfs import snapshot_from_files
from fleet.wiring import NicPort, PcieLevel
from tests.fakes.sysfs_trees import SysTree

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def snapshot_of(tree: SysTree | Path, *stops: Stop) -> NodeSnapshot:
    root = tree.root if isinstance(tree, SysTree) else tree
    return snapshot_from_files(
        *files_below(str(root)), host=HostName("node1"), collected_at=NOW, stops=stops
    )


def stop(chapter: str, at: str, reason: StopReason = StopReason.TIMED_OUT) -> Stop:
    return Stop(chapter=f"{chapter} /", at=at, reason=reason, waited_s=5.0)


def reason_of(snapshot: NodeSnapshot, path: str) -> AbsenceReason:
    """The one reason that a snapshot gives for a path."""
    (reason,) = {a.reason for a in snapshot.absences if path_matches(a.path, path)}
    return reason


def levels_of(snapshot: NodeSnapshot) -> dict[str, PcieLevel]:
    return {pair.key: pair.level for pair in snapshot.wiring.pcie_levels}


def ports_of(snapshot: NodeSnapshot) -> dict[str | None, NicPort]:
    return {port.name: port for nic in snapshot.wiring.nics for port in nic.ports}

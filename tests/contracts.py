"""What every source must keep, whatever it reads: one checker for all of them."""

import re
from collections.abc import Collection

from fleet.fields import is_said, leaves, path_matches, unreported
from fleet.merge import merge_snapshots, snapshots_of
from fleet.model import NodeSnapshot
from fleet.store import bytes_from_document, document_from_bytes

PLAUSIBLE_BYTES_PER_S = (1e6, 1e13)
NO_VALUES = re.compile(r"\[?N/A\]?|None|<<<NULL>>>")


def assert_honest(snapshot: NodeSnapshot) -> None:
    """Each missing datum is explained, nothing is zero by default, and it survives the map."""
    unexplained = [
        path
        for path in unreported(snapshot)
        if not any(path_matches(absence.path, path) for absence in snapshot.absences)
    ]
    assert unexplained == [], f"None without an absence: {unexplained[:5]}"
    told = dict(leaves(snapshot))
    idle = [a.path for a in snapshot.absences if names_what_is_there(snapshot, a.path, told)]
    assert idle == [], f"absence of what is there: {idle[:5]}"
    for path, value in told.items():
        assert_plausible(path, value)
    assert snapshot.sections, "a source says what it is and from when"
    assert document_from_bytes(bytes_from_document(snapshot), where="memory") == snapshot
    assert list(snapshots_of(merge_snapshots([snapshot]))) == [snapshot]


def names_what_is_there(snapshot: NodeSnapshot, path: str, told: Collection[str]) -> bool:
    """Whether a path names a value that was reported; on a list it may say: incomplete."""
    if "[*]" in path:
        pattern = re.compile(re.escape(path).replace(r"\[\*\]", r"\[[^\]]+\]"))
        is_value = any(map(pattern.fullmatch, told))
    else:
        is_value = path in told
    return is_value and is_said(snapshot, path)


def assert_plausible(path: str, value: object) -> None:
    """A rate is a rate, and no text is a word for nothing."""
    if path.endswith("bytes_per_s"):
        low, high = PLAUSIBLE_BYTES_PER_S
        assert isinstance(value, float)
        assert low <= value <= high, f"{path}: {value} B/s"
    if isinstance(value, str):
        assert value.strip() == value, f"{path}: untrimmed {value!r}"
        assert not NO_VALUES.fullmatch(value), f"{path}: {value!r}"

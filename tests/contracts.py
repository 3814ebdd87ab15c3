"""What every source must keep, whatever it reads: one checker for all of them."""

import re

from fleet.fields import leaves, path_matches, unreported
from fleet.merge import merge_snapshots, snapshots_of
from fleet.model import NodeSnapshot
from fleet.store import bytes_from_document, document_from_bytes

PLAUSIBLE_BYTES_PER_S = (1e6, 1e13)


def assert_honest(snapshot: NodeSnapshot) -> None:
    """Each missing datum is explained, nothing is zero by default, and it survives the map."""
    unexplained = [
        path
        for path in unreported(snapshot)
        if not any(path_matches(absence.path, path) for absence in snapshot.absences)
    ]
    assert unexplained == [], f"None without an absence: {unexplained[:5]}"
    there = [path for path, _ in leaves(snapshot)]
    missing = list(unreported(snapshot))
    for absence in snapshot.absences:
        idle = any(path_matches(absence.path, path) for path in there) and not any(
            path_matches(absence.path, path) for path in missing
        )
        assert not idle, f"absence of what is there: {absence.path}"
    for path, value in leaves(snapshot):
        if path.endswith("bytes_per_s"):
            low, high = PLAUSIBLE_BYTES_PER_S
            assert low <= float(value) <= high, f"{path}: {value} B/s"
        if isinstance(value, str):
            assert value.strip() == value, f"{path}: untrimmed {value!r}"
            assert not re.fullmatch(r"\[?N/A\]?|None|<<<NULL>>>", value), f"{path}: {value!r}"
    assert snapshot.sections, "a source says what it is and from when"
    assert document_from_bytes(bytes_from_document(snapshot), where="memory") == snapshot
    again = list(snapshots_of(merge_snapshots([snapshot])))
    assert again == [snapshot]

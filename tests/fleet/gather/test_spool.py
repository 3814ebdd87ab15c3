import gzip
import os
from datetime import timedelta
from pathlib import Path

import pytest

from fleet.errors import StoreError
from fleet.gather.outcome import FailureReason
from fleet.gather.spool import spool_from_folder
from fleet.gather.sweep import Gathering, gather_fleet
from fleet.reading import LARGEST_READING_BYTES
from fleet.store import write_bytes
from tests.fleet.gather.far import NOW, packed_reading, reading, snapshot_bytes

MAX_AGE_S = 600.0


def swept(folder: Path) -> Gathering:
    """A spool folder read at a given moment."""
    return gather_fleet(spool_from_folder(folder), max_age_s=MAX_AGE_S, now=NOW)


def reasons(found: Gathering) -> dict[str, FailureReason]:
    """What is wrong, by file."""
    return {failure.host: failure.reason for failure in found.failures}


def test_every_snapshot_and_reading_is_a_node(tmp_path: Path) -> None:
    import json

    (tmp_path / "gpu1.snapshot.json").write_bytes(snapshot_bytes("gpu1"))
    write_bytes(snapshot_bytes("gpu2"), tmp_path / "gpu2.json.gz")
    (tmp_path / "gpu3.reading.json").write_text(json.dumps(reading("gpu3")))
    found = swept(tmp_path)
    assert found.asked == ("gpu1", "gpu2", "gpu3")
    assert [node.host for node in found.fleet.nodes] == ["gpu1", "gpu2", "gpu3"]
    assert found.failures == ()


def test_a_node_is_named_by_what_it_says_and_not_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "whatever.json").write_bytes(snapshot_bytes("gpu1"))
    assert [node.host for node in swept(tmp_path).fleet.nodes] == ["gpu1"]


def test_what_a_killed_writer_left_and_what_is_no_json_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".gpu1.snapshot.json.x7").write_bytes(snapshot_bytes("gpu1")[:50])
    (tmp_path / ".gpu1.json").write_bytes(b"{")
    (tmp_path / "README").write_text("hello")
    (tmp_path / "gpu2.json").write_bytes(snapshot_bytes("gpu2"))
    assert swept(tmp_path).asked == ("gpu2",)


def test_garbage_costs_only_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "a-good.json").write_bytes(snapshot_bytes("gpu1"))
    (tmp_path / "b-empty.json").write_bytes(b"")
    (tmp_path / "c-cut.json").write_bytes(snapshot_bytes("gpu2")[:-90])
    (tmp_path / "d-cut.json.gz").write_bytes(gzip.compress(snapshot_bytes("gpu2"))[:-20])
    (tmp_path / "e-bomb.json.gz").write_bytes(gzip.compress(b" " * (LARGEST_READING_BYTES + 1)))
    (tmp_path / "f-marked.json").write_bytes(packed_reading("gpu2"))
    (tmp_path / "g-folder.json").mkdir()
    os.mkfifo(tmp_path / "h-pipe.json")
    (tmp_path / "i-link.json").symlink_to("a-good.json")
    (tmp_path / "j-away.json").symlink_to("nowhere")
    found = swept(tmp_path)
    assert [node.host for node in found.fleet.nodes] == ["gpu1"]
    assert reasons(found) == {
        "b-empty": FailureReason.GARBAGE,
        "c-cut": FailureReason.GARBAGE,
        "d-cut": FailureReason.GARBAGE,
        "e-bomb": FailureReason.TOO_LARGE,
        "f-marked": FailureReason.GARBAGE,
        "g-folder": FailureReason.UNREADABLE,
        "h-pipe": FailureReason.UNREADABLE,
        "i-link": FailureReason.UNREADABLE,
        "j-away": FailureReason.UNREADABLE,
    }


def test_a_file_too_large_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(LARGEST_READING_BYTES + 1)
    assert reasons(swept(tmp_path)) == {"huge": FailureReason.TOO_LARGE}


def test_a_stale_node_is_told_and_is_in_the_map(tmp_path: Path) -> None:
    ages = {"gpu1": 599, "gpu2": 601, "gpu3": -599, "gpu4": -601}
    for host, age_s in ages.items():
        at = NOW - timedelta(seconds=age_s)
        (tmp_path / f"{host}.json").write_bytes(snapshot_bytes(host, at=at))
    found = swept(tmp_path)
    assert len(found.fleet.nodes) == 4
    assert found.is_partial
    assert [(f.host, f.reason, f.detail) for f in found.failures] == [
        ("gpu2", FailureReason.STALE, "older than 600 s; still in the map"),
        (
            "gpu4",
            FailureReason.STALE,
            "read more than 600 s from now: a clock is wrong; still in the map",
        ),
    ]


def test_a_node_that_does_not_say_when_it_was_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "gpu1.json").write_bytes(snapshot_bytes("gpu1", at=None))
    found = swept(tmp_path)
    assert reasons(found) == {"gpu1": FailureReason.STALE}
    assert len(found.fleet.nodes) == 1


def test_two_files_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    (tmp_path / "gpu1.json").write_bytes(snapshot_bytes("gpu1", chassis_serial="right"))
    (tmp_path / "gpu9.json").write_bytes(snapshot_bytes("gpu1", chassis_serial="wrong"))
    found = swept(tmp_path)
    (node,) = found.fleet.nodes
    assert node.chassis_serial == "right"
    (failure,) = found.failures
    assert (failure.host, failure.reason) == ("gpu9", FailureReason.NAME_TAKEN)
    assert failure.detail == "calls itself gpu1, as gpu1 does"


def test_names_of_files_are_shown_plainly_and_each_once(tmp_path: Path) -> None:
    for name in ("a\x1b[2J.json", "b[1,2].json", "c.json", "c.json.gz", "c.snapshot.json"):
        (tmp_path / name).write_bytes(b"")
    assert spool_from_folder(tmp_path).hosts == (
        "a??2J",
        "b?1?2?",
        "c",
        "c.json.gz",
        "c.snapshot.json",
    )


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        spool_from_folder(tmp_path / "none")

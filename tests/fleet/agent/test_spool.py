import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest

from fleet.agent.board import Board, Edition, Spooled, page_from_content, snapshot_bytes
from fleet.agent.log import Log
from fleet.agent.spool import Spool, write_whole
from fleet.errors import StoreError
from fleet.sources.registry import gather_files
from fleet.store import document_from_bytes
from tests.fleet.agent.nodes import busy_node
from tests.fleet.agent.running import PATIENCE_S
from tests.users import nobody_special

KILLS = 200

KILLER = """
import os, random, signal, sys, time
from itertools import cycle
from pathlib import Path
from fleet.agent.spool import write_whole

path, kills, *files = sys.argv[1:]
contents = [Path(name).read_bytes() for name in files]
rng = random.Random(20260304)
for _ in range(int(kills)):
    writer = os.fork()
    if writer == 0:
        for content in cycle(contents):
            write_whole(content, Path(path))
    time.sleep(rng.uniform(0, 0.02))
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    found = Path(path).read_bytes()
    assert found in contents, found
    others = set(os.listdir(Path(path).parent)) - {Path(path).name}
    assert others <= {f".{Path(path).name}.part"}, others
    print(contents.index(found), bool(others))
"""
"""Kills a writer again and again and looks at what it left."""


def edition(host: str = "node1", gpus: int = 2) -> Edition:
    page = page_from_content(snapshot_bytes(busy_node(host, gpus=gpus)))
    return Edition(host, gpus, (), page, b"", read_at_s=0.0, took_s=0.0)


@contextmanager
def spool(folder: Path, retry_s: float = 0.01) -> Iterator[tuple[Spool, Board, list[str]]]:
    """A spool with its thread."""
    board, lines = Board(), list[str]()
    log = Log(lines.append, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    one = Spool(folder, board, clock=lambda: 7.0, log=log, retry_s=retry_s)
    thread = Thread(target=one.run)
    thread.start()
    try:
        yield one, board, lines
    finally:
        one.close()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def wait_for(board: Board, *, good: int = 0, failed: int = 0) -> Spooled:
    """Until so much was written, or not."""
    until = time.monotonic() + PATIENCE_S
    while True:
        now = board.spooled
        assert now is not None
        if now.good >= good and now.failed >= failed:
            return now
        assert time.monotonic() < until, now
        time.sleep(0.002)


def test_the_newest_snapshot_stands_in_the_folder_under_the_name_of_its_host(
    tmp_path: Path,
) -> None:
    with spool(tmp_path) as (one, board, lines):
        one.offer(edition(gpus=2))
        wait_for(board, good=1)
        one.offer(edition(gpus=4))
        assert wait_for(board, good=2) == Spooled(good=2, last_good_s=7.0)
    assert os.listdir(tmp_path) == ["node1.snapshot.json"]
    fleet = gather_files([tmp_path]).fleet
    assert [(node.host, len(node.gpus)) for node in fleet.nodes] == [("node1", 4)]
    assert lines == []


def test_what_was_offered_is_written_before_the_spool_ends(tmp_path: Path) -> None:
    with spool(tmp_path) as (one, _, _):
        one.offer(edition())
    assert (tmp_path / "node1.snapshot.json").exists()


def test_a_folder_that_is_not_there_is_said_once_counted_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "not mounted"
    with spool(folder) as (one, board, lines):
        one.offer(edition())
        failed = wait_for(board, failed=5)
        assert failed.failure is not None
        assert "No such file" in failed.failure
        assert not folder.exists()  # a mount point that is made by us would hide that it is missing
        folder.mkdir()
        assert wait_for(board, good=1).failure is None
    assert (folder / "node1.snapshot.json").exists()
    assert len(lines) == 2
    assert "cannot be written" in lines[0]
    assert "is written again" in lines[1]


def test_a_folder_that_is_not_ours_is_said(open_folder: Path) -> None:
    open_folder.chmod(0o500)
    with nobody_special(), spool(open_folder) as (one, board, _):
        one.offer(edition())
        failure = wait_for(board, failed=1).failure
    assert failure is not None
    assert "Permission denied" in failure


def test_a_folder_with_the_name_of_the_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "node1.snapshot.json").mkdir()
    with spool(tmp_path) as (one, board, _):
        one.offer(edition())
        failure = wait_for(board, failed=1).failure
    assert failure is not None
    assert "directory" in failure
    assert os.listdir(tmp_path) == ["node1.snapshot.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_leaves_the_old_snapshot_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "node1.snapshot.json"
    write_whole(b"old", path)
    real = os.open

    def on_a_full_disk(name: str, flags: int, mode: int = 0o777) -> int:
        if not flags & os.O_CREAT:
            return real(name, flags, mode)
        os.close(real(name, flags, mode))
        return real("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(os, "open", on_a_full_disk)
    with pytest.raises(StoreError, match=os.strerror(errno.ENOSPC)):
        write_whole(b"new", path)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


def test_a_link_laid_where_the_unfinished_file_goes_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "node1.snapshot.json"
    (tmp_path / f".{path.name}.part").symlink_to(victim)
    write_whole(b"new", path)
    assert (victim.read_text(), path.read_bytes()) == ("precious", b"new")


def test_what_a_kill_left_unfinished_is_gone_after_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "node1.snapshot.json"
    (tmp_path / f".{path.name}.part").write_bytes(b"{")
    write_whole(b"new", path)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.proof
def test_a_writer_killed_at_any_moment_loses_no_snapshot(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    path, files = folder / "node1.snapshot.json", []
    for gpus in (1, 8):
        files.append(tmp_path / f"{gpus}.json")
        files[-1].write_bytes(snapshot_bytes(busy_node(gpus=gpus)))
    write_whole(files[0].read_bytes(), path)
    command = [sys.executable, "-c", KILLER, path, str(KILLS), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == KILLS
    assert "True" in done.stdout  # some kills did come in the middle of a write
    assert document_from_bytes(path.read_bytes(), where="spool").kind == "node_snapshot"

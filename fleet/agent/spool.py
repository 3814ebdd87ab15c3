"""Spool: the thread that writes the newest snapshot into a folder, often on a shared file system.

It is a thread of its own, because a write to a file system whose server is gone does not return.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event

from fleet.agent.board import Board, Edition, Spooled
from fleet.agent.log import Log, text_in_one_line
from fleet.errors import StoreError

TOPIC = "spool"


class Spool:
    """Keeps ``HOST.snapshot.json`` in a folder; only the newest snapshot waits to be written."""

    def __init__(
        self, folder: Path, board: Board, *, clock: Callable[[], float], log: Log, retry_s: float
    ) -> None:
        self._folder = folder
        self._board = board
        self._clock = clock
        self._log = log
        self._retry_s = retry_s
        self._newest: Edition | None = None
        self._wake = Event()
        self._ends = False
        board.spooled = Spooled()

    def offer(self, edition: Edition) -> None:
        """Have this written; what waited before is no longer wanted."""
        self._newest = edition
        self._wake.set()

    def close(self) -> None:
        """Let the thread end, once what it was offered is written."""
        self._ends = True
        self._wake.set()

    def run(self) -> None:
        """Write what is offered until closed; what could not be written is tried again."""
        unwritten: Edition | None = None
        while not self._ends:
            self._wake.wait(self._retry_s if unwritten else None)
            self._wake.clear()
            newest, self._newest = self._newest, None
            unwritten = newest or unwritten
            if unwritten is not None and self._is_written(unwritten):
                unwritten = None

    def _is_written(self, edition: Edition) -> bool:
        before = self._board.spooled or Spooled()
        path = self._folder / f"{edition.host}.snapshot.json"
        try:
            write_whole(edition.snapshot.content, path)
        except StoreError as error:
            failure = text_in_one_line(str(error))
            self._board.spooled = replace(before, failed=before.failed + 1, failure=failure)
            self._log.trouble(TOPIC, str(error))
            return False
        self._board.spooled = Spooled(
            good=before.good + 1, failed=before.failed, last_good_s=self._clock()
        )
        self._log.fine(TOPIC, f"{path} is written again")
        return True


def write_whole(content: bytes, path: Path) -> None:
    """Write a file so that a reader sees the old content or the new, and a kill leaves either.

    The unfinished file has one fixed name, hidden, so that kills do not pile them up.

    Raises:
        StoreError: the folder is not there, not writable or full.
    """
    unfinished = path.with_name(f".{path.name}.part")
    try:
        unfinished.unlink(missing_ok=True)
        try:
            _write_new(content, unfinished)
            os.replace(unfinished, path)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(
            f"cannot be written ({error.strerror})",
            where=str(path),
            remedy="name a folder that exists, is yours and has room",
        ) from None


def _write_new(content: bytes, path: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o644), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the new name last through a power cut, where the file system can."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)

"""Spool: a folder, mostly on a shared filesystem, into which agents write their snapshots.

A file is one snapshot or reading; it says itself whose it is, its name only says which file it is.
What a killed writer left (names that begin with a dot) is passed over. Files are only read.
A filesystem that hangs holds the sweep up: there is no deadline for the kernel's own files.
"""

import gzip
import io
import os
import re
import stat
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from fleet.errors import StoreError
from fleet.gather.hostlist import LARGEST_HOST_COUNT
from fleet.gather.outcome import Answer, AnswerError, FailureReason, HostFailure, too_large
from fleet.reading import LARGEST_READING_BYTES

ENDINGS: Final = (".json", ".json.gz")
_KINDS: Final = (".snapshot", ".reading")
_GZIP_MAGIC: Final = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class SpoolTransport:
    """Reads the files of a folder; a "host" is what a file's name says without its endings."""

    files: dict[str, Path]

    @property
    def hosts(self) -> tuple[str, ...]:
        """One name for each file."""
        return tuple(self.files)

    async def ask(self, host: str) -> Answer | HostFailure:
        """The file of that name, which is read when it is unpacked."""
        return Answer(host, partial(read_untrusted, self.files[host]))


def spool_from_folder(folder: Path) -> SpoolTransport:
    """The files of a folder by a name fit to be shown.

    Raises:
        StoreError: no such folder, or it holds too many files.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if _is_wanted(e.name))
    except OSError as error:
        raise StoreError(
            f"cannot be read ({error.strerror})", where=str(folder), remedy="name a folder"
        ) from None
    if len(names) > LARGEST_HOST_COUNT:
        raise StoreError(f"holds {len(names):,} files", where=str(folder), remedy="split it")
    files: dict[str, Path] = {}
    for name in names:
        files[_free_name(name, files)] = folder / name
    return SpoolTransport(files)


def read_untrusted(path: Path) -> bytes:
    """Content of a plain file of somebody else's, unpacked where it is gzip, bounded.

    Raises:
        AnswerError: it cannot be read, is no plain file, is cut or too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise AnswerError(FailureReason.UNREADABLE, "no plain file")
            raw = file.read(LARGEST_READING_BYTES + 1)
            if raw.startswith(_GZIP_MAGIC) and len(raw) <= LARGEST_READING_BYTES:
                with gzip.GzipFile(fileobj=io.BytesIO(raw)) as packed:
                    raw = packed.read(LARGEST_READING_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise AnswerError(FailureReason.GARBAGE, f"cannot be unpacked ({error})") from None
    except OSError as error:
        raise AnswerError(FailureReason.UNREADABLE, str(error.strerror)) from None
    if len(raw) > LARGEST_READING_BYTES:
        raise too_large()
    return raw


def _is_wanted(name: str) -> bool:
    return not name.startswith(".") and name.endswith(ENDINGS)


def _free_name(name: str, taken: dict[str, Path]) -> str:
    """The file's name without endings where that is free, else with them; odd characters hidden."""
    short = name
    for ending in (*reversed(ENDINGS), *_KINDS):
        short = short.removesuffix(ending)
    for choice in (short, name):
        shown = re.sub(r"[^A-Za-z0-9._:@%+-]", "?", choice)[:253]
        if shown and shown not in taken:
            return shown
    return f"file-{len(taken) + 1}"

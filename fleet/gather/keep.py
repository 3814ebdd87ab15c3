"""Keep: each host's answer as a file, whole or not at all, so that a killed sweep can go on.

A file is what the host said, a reading or a snapshot; ``fleet inventory --from DIR`` reads it too.
A host's name becomes a file's name only where it is a plain name; else its hash does.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet.fields import NAME
from fleet.gather.outcome import AnswerError
from fleet.gather.spool import read_untrusted
from fleet.store import make_folder, write_bytes

ENDING: Final = ".json.gz"
_LONGEST_STEM: Final = 200
_PLAIN: Final = re.compile(str(NAME.pattern))


@dataclass(frozen=True, slots=True)
class Keep:
    """A folder of answers, one file for each host."""

    folder: Path

    def path(self, host: str) -> Path:
        """The file of a host."""
        return self.folder / f"{file_stem(host)}{ENDING}"

    def write(self, host: str, document: bytes) -> None:
        """Keep an answer; an older one of that host is replaced.

        Raises:
            StoreError: the folder cannot be written.
        """
        write_bytes(document, self.path(host))

    def read(self, host: str) -> bytes | None:
        """The answer that was kept, None where there is none that can be read."""
        try:
            return read_untrusted(self.path(host))
        except AnswerError:
            return None


def keep_in(folder: Path) -> Keep:
    """A folder to keep answers in, made where it is not there.

    Raises:
        StoreError: it cannot be made.
    """
    make_folder(folder)
    return Keep(folder)


def file_stem(host: str) -> str:
    """The beginning of a host's file name: its name, or a hash of what is no plain name.

    >>> file_stem("gpu007"), file_stem("../etc/passwd")
    ('gpu007', 'host-7fef78f53440346c')
    """
    if _PLAIN.fullmatch(host) and len(host) <= _LONGEST_STEM:
        return host
    return f"host-{hashlib.sha256(host.encode()).hexdigest()[:16]}"

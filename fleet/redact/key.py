"""Key: the secret of a user's pseudonyms, made at first use, kept where only the user reads."""

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fleet.errors import StoreError

KEY_BYTES: Final = 32
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def key_path(environment: Mapping[str, str]) -> Path:
    """Where it is: ``fleetmap/redaction.key`` below ``$XDG_STATE_HOME`` or ``~/.local/state``.

    Raises:
        StoreError: neither variable tells a folder.
    """
    state, home = environment.get("XDG_STATE_HOME", ""), environment.get("HOME", "")
    if os.path.isabs(state):  # a relative one is to be ignored, says the standard
        folder = Path(state)
    elif os.path.isabs(home):
        folder = Path(home, ".local", "state")
    else:
        raise StoreError(
            "there is no place for the redaction key",
            field="HOME",
            remedy="set HOME or XDG_STATE_HOME to a folder of yours",
        )
    return folder / "fleetmap" / "redaction.key"


def redaction_key(environment: Mapping[str, str] = os.environ) -> bytes:
    """The key of this user's pseudonyms: 32 bytes, made at first use, readable by the user alone.

    Raises:
        StoreError: it cannot be made or read, is no key, or others may read it.
    """
    path = key_path(environment)
    try:
        if not path.exists():
            _make(path)
        return _checked(path)
    except OSError as error:
        raise StoreError(
            f"cannot be used as the redaction key ({error.strerror})",
            where=str(path),
            remedy="make it yours, or set XDG_STATE_HOME to a folder of yours",
        ) from None


def _make(path: Path) -> None:
    """Whole or not at all: of two who make it at once, one wins and both have its key."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        os.unlink(draft)


def _checked(path: Path) -> bytes:
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        key = file.read(KEY_BYTES + 1)
    if found.st_mode & _OTHERS:
        raise StoreError(
            f"others may read the redaction key (mode {stat.S_IMODE(found.st_mode):04o})",
            where=str(path),
            remedy=f"chmod 600 {path}, or remove it: a new one gives other pseudonyms",
        )
    if len(key) != KEY_BYTES or not stat.S_ISREG(found.st_mode):
        raise StoreError(
            f"no redaction key; expected a file of {KEY_BYTES} bytes",
            where=str(path),
            remedy="remove it: a new one gives other pseudonyms",
        )
    return key

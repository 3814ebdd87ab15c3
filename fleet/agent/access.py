"""Access: who may read what the agent serves. Tokens are compared in constant time."""

import hmac
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fleet.agent.settings import AgentSettings
from fleet.errors import FleetError

if TYPE_CHECKING:
    import ssl

LONGEST_TOKEN: Final = 4096
SHORTEST_TOKEN: Final = 16


@dataclass(frozen=True, slots=True)
class Access:
    """What a client needs: a token, a certificate, both or nothing."""

    token: bytes | None = None
    tls: "ssl.SSLContext | None" = None

    def allows(self, authorization: str | None) -> bool:
        """Whether an Authorization header holds the token; where none is asked, anybody may."""
        if self.token is None:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self.token)
        return right and scheme.lower() == "bearer"


def access_from_settings(settings: AgentSettings) -> Access:
    """Read the token and the certificates.

    Raises:
        FleetError: a file is missing, readable by everybody, or not what it should be.
    """
    token = None if settings.token_file is None else token_from_file(settings.token_file)
    if settings.tls is None:
        return Access(token)
    from fleet.agent.tls import context_from_files  # ssl weighs a megabyte; most agents need none

    refuse_open_secret(settings.tls.key)
    return Access(token, context_from_files(settings.tls))


def token_from_file(path: str) -> bytes:
    """The token: the file's content without white space around it.

    Raises:
        FleetError: it cannot be read, everybody can read it, or it holds no token.
    """
    refuse_open_secret(path)
    try:
        with open(path, "rb") as file:
            token = file.read(LONGEST_TOKEN + 1).strip()
    except OSError as error:
        raise unreadable(path, error) from None
    if not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN or not _is_printable(token):
        raise FleetError(
            "holds no token",
            where=path,
            remedy=f"write one line of {SHORTEST_TOKEN} to {LONGEST_TOKEN} printable characters, "
            "as `openssl rand -hex 32` prints",
        )
    return token


def refuse_open_secret(path: str) -> None:
    """See that nobody but the owner and the group can read or write a secret.

    Raises:
        FleetError: everybody can read it, or others than its owner can write it.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise unreadable(path, error) from None
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise FleetError(
            f"mode {stat.S_IMODE(mode):04o}: a secret that others can read or write",
            where=path,
            remedy=f"chmod 0600 {path}, or 0640",
        )


def unreadable(path: str, error: OSError) -> FleetError:
    """What to say of a file that cannot be read."""
    problem = f"cannot be read ({error.strerror})"
    return FleetError(problem, where=path, remedy="check the path and whose it is")


def _is_printable(token: bytes) -> bool:
    return all(0x20 < byte < 0x7F for byte in token)

"""TLS: the server's context and a channel that speaks it. Imported only where TLS is asked."""

import socket
import ssl
from contextlib import suppress

from fleet.agent.channels import PIECE_BYTES, Wait
from fleet.agent.settings import TlsFiles
from fleet.errors import FleetError


def context_from_files(files: TlsFiles) -> ssl.SSLContext:
    """The server's side of TLS 1.2 and later; with ``client_ca`` clients must show a certificate.

    Raises:
        FleetError: a file is missing or of another kind, or key and certificate do not match.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_prompt)
    except OSError as error:
        raise _refusal(f"{files.certificate}, {files.key}", error) from None
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except OSError as error:
            raise _refusal(files.client_ca, error) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_prompt() -> str:
    """OpenSSL asks on the terminal for the password of a key; an agent has nobody to ask."""
    return ""


def _refusal(where: str, error: OSError) -> FleetError:
    why = getattr(error, "reason", None) or error.strerror or str(error)
    return FleetError(
        f"not usable for TLS ({why})",
        where=where,
        remedy="give PEM files, a key without a password, and the key of that certificate",
    )


class TlsChannel:
    """A client behind TLS; the handshake is part of the first receive."""

    def __init__(self, client: socket.socket, context: ssl.SSLContext) -> None:
        self._socket = context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)

    def fileno(self) -> int:
        """Descriptor to wait on."""
        return self._socket.fileno()

    def receive(self) -> bytes | Wait:
        """What has come, ``b""`` at the end, or what to wait for."""
        try:
            return self._socket.recv(PIECE_BYTES)
        except (ssl.SSLWantReadError, BlockingIOError):
            return Wait.TO_READ
        except ssl.SSLWantWriteError:
            return Wait.TO_WRITE

    def send(self, content: memoryview) -> int | Wait:
        """How many bytes went, or what to wait for."""
        try:
            return self._socket.send(content)
        except ssl.SSLWantReadError:
            return Wait.TO_READ
        except (ssl.SSLWantWriteError, BlockingIOError):
            return Wait.TO_WRITE

    def has_more(self) -> bool:
        """Whether decrypted bytes wait that the descriptor does not show."""
        return self._socket.pending() > 0

    def finish(self) -> None:
        """Tell the client that nothing more comes, in TLS and below it."""
        with suppress(OSError, ValueError):
            self._socket.unwrap()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of the client."""
        self._socket.close()

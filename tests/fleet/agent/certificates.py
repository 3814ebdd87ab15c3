"""Certificates made for a test by the ``openssl`` command: an authority, a server, a client."""

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificates:
    """Files of an authority, of localhost and of a client."""

    folder: Path

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def client(self, *, shows: str | None = None) -> ssl.SSLContext:
        """What a client trusts, and the certificate it shows."""
        context = ssl.create_default_context(cafile=self.path("ca.pem"))
        if shows is not None:
            context.load_cert_chain(self.path(f"{shows}.pem"), self.path(f"{shows}.key"))
        return context


def made_certificates(folder: Path) -> Certificates:
    """An authority ``ca``, what it signed (``server``, ``client``), and a stranger: ``other``."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    made = Certificates(folder)
    for name in ("ca", "other"):
        _openssl("req", "-x509", *_new_key(made, name), "-out", made.path(f"{name}.pem"))
    for name in ("server", "client"):
        signed = ("-CA", made.path("ca.pem"), "-CAkey", made.path("ca.key"))
        place = ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        out = ("-out", made.path(f"{name}.pem"))
        _openssl("req", "-x509", *_new_key(made, name), *signed, *place, *out)
    return made


def _new_key(made: Certificates, name: str) -> tuple[str, ...]:
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    return (*kind, "-subj", f"/CN={name}", "-keyout", made.path(f"{name}.key"))


def _openssl(*words: str) -> None:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this openssl cannot: {done.stderr.strip()[-200:]}")

"""Settings: what an agent is asked to do, from the texts of its options. No file, no socket."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from fleet.agent.addresses import Address, TcpAddress, address_from_text
from fleet.errors import FleetError
from fleet.units import seconds_from_text

SHORTEST_INTERVAL_S: Final = 0.1
LONGEST_INTERVAL_S: Final = 86_400.0
LONGEST_DEADLINE_S: Final = 600.0
STALE_AFTER_INTERVALS: Final = 3
"""A snapshot older than so many intervals is not the node's state any more."""

DEFAULTS: Final = {
    "interval": "60s",
    "jitter": "10%",
    "deadline": "5s",
    "listen": "127.0.0.1:9409",
}
OPTIONS: Final = (
    *DEFAULTS,
    "host",
    "spool",
    "tls-cert",
    "tls-key",
    "client-ca",
    "token-file",
    "insecure",
)
_HOST: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificate, its key, and the authority that clients' certificates must come from."""

    certificate: str
    key: str
    client_ca: str | None = None


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What to read how often, where to keep it, and for whom to serve it."""

    interval_s: float
    jitter_ratio: float
    deadline_s: float
    listen: Address
    host: str | None = None
    spool: str | None = None
    tls: TlsFiles | None = None
    token_file: str | None = None

    @property
    def stale_after_s(self) -> float:
        """Age at which the last good snapshot is no longer shown as the node's state. [s]"""
        return STALE_AFTER_INTERVALS * self.interval_s


def settings_from_arguments(arguments: Iterable[str]) -> AgentSettings:
    """Settings from arguments of the form ``--name=value``.

    Raises:
        FleetError: an argument has another form, no such option, or a value does not do.
    """
    texts: dict[str, str] = {}
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in OPTIONS:
            known = " ".join(f"--{option}" for option in OPTIONS)
            raise FleetError(f"{argument!r} is no option of the agent", remedy=f"use {known}")
        texts[name] = value
    return settings_from_texts(texts)


def settings_from_texts(texts: Mapping[str, str]) -> AgentSettings:
    """Settings from the texts of options, by name; what is left out has its default.

    Raises:
        FleetError: a value does not do, or the options together would serve strangers.
    """
    told = {**DEFAULTS, **texts}
    settings = AgentSettings(
        interval_s=_interval_s(told["interval"]),
        jitter_ratio=_ratio(told["jitter"]),
        deadline_s=_deadline_s(told["deadline"]),
        listen=address_from_text(told["listen"]),
        host=_host(told.get("host")),
        spool=told.get("spool"),
        tls=_tls(told),
        token_file=told.get("token-file"),
    )
    if "insecure" not in told:
        _refuse_strangers(settings)
    return settings


def _interval_s(text: str) -> float:
    seconds = seconds_from_text(text)
    if not SHORTEST_INTERVAL_S <= seconds <= LONGEST_INTERVAL_S:
        raise FleetError(f"{text!r} is no interval", field="--interval", remedy="100ms to 86400s")
    return seconds


def _deadline_s(text: str) -> float:
    seconds = seconds_from_text(text)
    if not 0 < seconds <= LONGEST_DEADLINE_S:
        raise FleetError(f"{text!r} is no deadline", field="--deadline", remedy="up to 600s")
    return seconds


def _ratio(text: str) -> float:
    number = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]+)?)\s*%", text.strip())
    if number is None or float(number[1]) > 50:
        raise FleetError(f"{text!r} is no jitter", field="--jitter", remedy="give 0% to 50%")
    return float(number[1]) / 100


def _host(text: str | None) -> str | None:
    if text is not None and _HOST.fullmatch(text) is None:
        remedy = "use letters, digits, '.', '_' and '-', beginning with a letter or digit"
        raise FleetError(f"{text!r} is no host name", field="--host", remedy=remedy)
    return text


def _tls(told: Mapping[str, str]) -> TlsFiles | None:
    certificate, key, client_ca = (told.get(n) for n in ("tls-cert", "tls-key", "client-ca"))
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        missing = "--tls-cert" if certificate is None else "--tls-key"
        raise FleetError("TLS needs a certificate and its key", field=missing, remedy="give both")
    return TlsFiles(certificate, key, client_ca)


def _refuse_strangers(settings: AgentSettings) -> None:
    """A port that others can reach needs a token, or certificates of its clients."""
    listen = settings.listen
    known = settings.token_file or (settings.tls and settings.tls.client_ca)
    if isinstance(listen, TcpAddress) and not listen.is_loopback and not known:
        raise FleetError(
            f"{listen} is open to the network and asks nobody who they are",
            field="--listen",
            remedy="give --token-file or --client-ca, or say --insecure",
        )

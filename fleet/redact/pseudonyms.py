"""Pseudonyms: another text of the same form for an identity, by a key. No documents, no files.

The same text gives the same pseudonym as long as the key is the same; without the key nobody can
tell, or try out, which text it was.
"""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from typing import Final

SHORTEST_KEY_BYTES: Final = 16

_NAME_DIGITS: Final = 12
"""48 bits: among 100,000 hosts two share a pseudonym once in 50,000 keys."""

_HEX: Final = frozenset("0123456789abcdefABCDEF")
_LINK_LOCAL: Final = "fe80" + "0" * 12
_UUID: Final = re.compile(
    r"(?P<head>(?:MIG-)?(?:GPU-)?)(?P<digits>[0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12})"
    r"(?P<tail>(?:/[0-9]+)*)",
    re.IGNORECASE,
)
_GUID: Final = re.compile(
    r"(?P<head>(?:0x|[SHR]-)?)(?P<digits>[0-9a-f]{16}|[0-9a-f]{4}(?::[0-9a-f]{4}){3})",
    re.IGNORECASE,
)
_UNSAID: Final = frozenset(
    {
        *(
            "",
            "-",
            "n/a",
            "none",
            "(none)",
            "null",
            "<<<null>>>",
            "unknown",
            "unknown error",
            "err!",
        ),
        *(
            "not found",
            "not supported",
            "not specified",
            "not available",
            "insufficient permissions",
        ),
        *("function not found", "timeout", "gpu is lost", "gpu requires reset", "redacted"),
        *("to be filled by o.e.m.", "default string", "system serial number", "root"),
        *("localhost", "localhost.localdomain", "a process without pid and name"),
    }
)


class Kind(StrEnum):
    """What an identity identifies; a name's pseudonym begins with the word."""

    UUID = "uuid"
    GUID = "guid"
    HEX = "hex"
    SERIAL = "serial"
    HOST = "host"
    DOMAIN = "domain"
    ADDRESS = "ip"
    SWITCH = "switch"
    NVLINK_DOMAIN = "nvlink_domain"
    USER = "user"
    PROCESS = "process"
    HOLDER = "holder"
    SITE = "site"
    HALL = "hall"
    ROW = "row"
    RACK = "rack"
    OWNER = "owner"


def is_unsaid(text: str) -> bool:
    """Whether a text stands for no identity: a word for nothing, or all zeros.

    >>> is_unsaid("[N/A]"), is_unsaid("00000000-0000-0000-0000-000000000000"), is_unsaid("1320")
    (True, True, False)
    """
    return text.strip(" \t\r\n[]").lower() in _UNSAID or not _says_something(text)


def _says_something(text: str) -> bool:
    return any(letter.isalnum() and letter != "0" for letter in text)


def hex_digits(kind: Kind, text: str) -> str | None:
    """The hexadecimal digits that are a UUID or GUID, in lower case; None where it has none."""
    match = {Kind.UUID: _UUID, Kind.GUID: _GUID}[kind].fullmatch(text)
    return re.sub("[^0-9a-f]", "", match["digits"].lower()) if match else None


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Pseudonyms by a key of at least 16 bytes.

    Raises:
        ValueError: the key is shorter.
    """

    key: bytes

    def __post_init__(self) -> None:
        if len(self.key) < SHORTEST_KEY_BYTES:
            raise ValueError(
                f"a key of {len(self.key)} bytes; expected {SHORTEST_KEY_BYTES} or more"
            )

    def of(self, kind: Kind, text: str) -> str:
        """The pseudonym of an identity, in its form; what stands for nothing stays."""
        if is_unsaid(text):
            return text
        forms: dict[Kind, Callable[[str], str]] = {
            Kind.UUID: self._uuid,
            Kind.GUID: self._guid,
            Kind.HEX: self._address_digits,
            Kind.SERIAL: self._scrambled,
            Kind.HOST: self._host,
            Kind.ADDRESS: self._address,
            Kind.SWITCH: self._switch,
            Kind.NVLINK_DOMAIN: self._nvlink_domain,
            Kind.HOLDER: self._holder,
        }
        return forms[kind](text) if kind in forms else self._name(kind, text)

    def digits(self, digits: str) -> str:
        """Other digits for those of an address: 12 of a MAC, 16 of a GUID, 32 of a GID, 40 of both.

        The fixed parts stay: zeros, broadcast, the prefix of local links, an IPv4 address's frame.
        """
        if not digits.strip("0") or digits == "f" * 12:
            return digits
        match len(digits):
            case 12:
                return self._mac(digits)
            case 32:
                return self._gid(digits)
            case 40:  # an InfiniBand interface: flags, queue pair, GID
                return digits[:8] + self._gid(digits[8:])
        return self._hex(Kind.GUID, digits, len(digits))

    def uuid_digits(self, digits: str) -> str:
        """Other digits for the 32 of a UUID; zeros stay."""
        return self._hex(Kind.UUID, digits, len(digits)) if digits.strip("0") else digits

    def _uuid(self, text: str) -> str:
        match = _UUID.fullmatch(text)
        if match is None:  # a UUID in name only: what comes out is one
            head = (re.match("(?:MIG-)?(?:GPU-)?", text) or [""])[0]
            digits = self._hex(Kind.UUID, text, 32)
            parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
            return f"{head}{'-'.join(parts)}"
        digits = self.uuid_digits(hex_digits(Kind.UUID, text) or "")
        return f"{match['head']}{laid_over(match['digits'], digits)}{match['tail']}"

    def _guid(self, text: str) -> str:
        match = _GUID.fullmatch(text)
        if match is None:
            return self._scrambled(text)
        digits = self.digits(hex_digits(Kind.GUID, text) or "")
        return match["head"] + laid_over(match["digits"], digits)

    def _address_digits(self, text: str) -> str:
        return laid_over(text, self.digits(re.sub("[^0-9a-f]", "", text.lower())))

    def _address(self, text: str) -> str:
        return self._name(Kind.ADDRESS, ipaddress.ip_address(text).exploded)

    def _switch(self, text: str) -> str:
        is_guid = hex_digits(Kind.GUID, text) is not None
        return self._guid(text) if is_guid else self._name(Kind.SWITCH, text)

    def _mac(self, digits: str) -> str:
        """A local unicast address: no maker's."""
        new = self._hex(Kind.GUID, digits, 12)
        return f"{int(new[:2], 16) & 0xFC | 0x02:02x}{new[2:]}"

    def _gid(self, digits: str) -> str:
        head, tail = digits[:16], digits[16:]
        if digits.startswith("0" * 20 + "ffff"):
            return digits[:24] + self._hex(Kind.ADDRESS, digits[24:], 8)
        return (head if head == _LINK_LOCAL else self.digits(head)) + self.digits(tail)

    def _host(self, text: str) -> str:
        """The short name and the domain each by itself, so that ``n1`` and ``n1.cluster`` join."""
        if is_address(text):
            return self._address(text)
        short, _, domain = text.partition(".")
        below = f".{self._name(Kind.DOMAIN, domain)}" if domain else ""
        return self._name(Kind.HOST, short) + below

    def _nvlink_domain(self, text: str) -> str:
        """Cluster and clique, as GPUs of the domain name them."""
        match = re.fullmatch(r"(?P<cluster>.+)\.(?P<clique>[0-9]+)", text)
        return f"{self._uuid(match['cluster'])}.{match['clique']}" if match else self._uuid(text)

    def _holder(self, text: str) -> str:
        """The number of a process or job stays."""
        match = re.fullmatch(r"(?P<number>(?:pid|job) [0-9]+)(?: (?P<name>.*))?", text, re.DOTALL)
        if match is None:
            return self._name(Kind.HOLDER, text)
        name = match["name"]
        return match["number"] + (f" {self.of(Kind.PROCESS, name)}" if name else "")

    def _name(self, kind: Kind, text: str) -> str:
        return f"{kind}-{self._hex(kind, text, _NAME_DIGITS)}"

    def _scrambled(self, text: str) -> str:
        """Digits for digits, letters for letters, never zeros alone: those stand for nothing."""
        drawn = self._stream(Kind.SERIAL, text)
        new = "".join(_drawn_like(letter, next(drawn)) for letter in text)
        return new if _says_something(new) else re.sub("0", "1", new, count=1)

    def _hex(self, kind: Kind, text: str, length: int) -> str:
        """So many hexadecimal digits."""
        blocks = -(-length // (2 * hashlib.sha256().digest_size))
        return "".join(self._block(kind, text, i).hex() for i in range(blocks))[:length]

    def _stream(self, kind: Kind, text: str) -> Iterator[int]:
        for block in count():
            yield from self._block(kind, text, block)

    def _block(self, kind: Kind, text: str, block: int) -> bytes:
        told = f"{kind}\0{block}\0{text}".encode("utf-8", "surrogatepass")
        return hmac.digest(self.key, told, hashlib.sha256)


def is_address(text: str) -> bool:
    """Whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def laid_over(form: str, digits: str) -> str:
    """Hexadecimal digits with the marks and the case of a form.

    >>> laid_over("AA:BB-C0", "012def")
    '01:2D-EF'
    """
    rest = iter(digits.upper() if form.isupper() else digits)
    return "".join(next(rest) if letter in _HEX else letter for letter in form)


def _drawn_like(letter: str, drawn: int) -> str:
    if not (letter.isascii() and letter.isalnum()):
        return letter
    if letter.isdecimal():
        return "0123456789"[drawn % 10]
    drawn_letter = "abcdefghijklmnopqrstuvwxyz"[drawn % 26]
    return drawn_letter.upper() if letter.isupper() else drawn_letter

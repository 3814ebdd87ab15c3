"""Sweep: finds identities in texts, by their form or because they stand elsewhere by name.

Three ways of reading a text, from the most structured to the least: ``plain`` (keys, paths, wiring:
addresses and serials only), ``value`` (what a file or driver said), ``prose`` (for people).
"""

import ipaddress
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final, Protocol

from fleet.redact.pseudonyms import Kind, Pseudonyms, hex_digits, is_address, is_unsaid

SHORTEST_WORD: Final = 3
SHORTEST_SERIAL: Final = 8
"""A shorter text is replaced where it stands by name, and looked for nowhere else."""
LONGEST_SERIAL: Final = 64
LONGEST_ADDRESS: Final = 64
"""What is longer is neither: it is replaced where it stands, too."""

COMMON_WORDS: Final = frozenset(
    {
        *("gpu", "gpus", "nic", "node", "host", "switch", "rank", "link", "port", "slot", "driver"),
        *("nvidia", "nvml", "mlx5", "mlx5_core", "infiniband", "ethernet", "pci", "usb", "cpu"),
        *("python", "python3", "bash", "ssh", "sshd", "up", "down", "active", "unknown", "default"),
        *("enabled", "disabled", "not", "the", "and", "for", "with", "from", "this"),
    }
)
"""Words of the documents themselves: a host of this name tells nobody where it is."""

_FORMS: Final = re.compile(
    r"(?<![0-9A-Za-z])(?:"
    r"(?P<uuid>[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})"
    r"|(?P<pairs>[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5,})"
    r"|(?P<quads>[0-9a-f]{4}(?::[0-9a-f]{4}){3,7})"
    r")(?![0-9A-Za-z])"
    r"|(?<=\benx)(?P<interface>[0-9a-f]{12})(?![0-9A-Za-z])|(?P<run>[0-9a-f]{12,})",
    re.IGNORECASE,
)
_TOKEN: Final = re.compile(r"[^\W_]+")
_ADDRESS: Final = re.compile(
    r"(?<![\w.:-])(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9a-f]{0,4}:[0-9a-f:]*:[0-9a-f.:]*[0-9a-f]|::)"
    r"(?![\w-]|\.\w|:\w)",
    re.IGNORECASE,
)
_UNDECODED: Final = re.compile(r"(?=[\w.-]*[0-9])[^\W_][\w.-]{4,}[^\W_]")

Span = tuple[int, int, str]
"""Where a text is replaced, and by what."""


class Visit(Protocol):
    """What a walk through a document does with each text; it gives the text to stand there."""

    def identity(self, kind: Kind, text: str) -> str:
        """Here an identity stands."""

    def plain(self, text: str) -> str:
        """Here is a text of a fixed form, which an address or serial may be part of."""

    def value(self, text: str) -> str:
        """Here is a text of the machine, which any identity may be part of."""

    def prose(self, text: str) -> str:
        """Here is a text for people."""

    def undecoded(self, text: str) -> str:
        """Here is a text for people about an identity that could not be understood."""


@dataclass(slots=True)
class Collector:
    """A visit that changes nothing and remembers every identity it meets."""

    words: dict[str, Kind] = field(default_factory=dict)
    addresses: dict[str, Kind] = field(default_factory=dict)

    def identity(self, kind: Kind, text: str) -> str:
        """Remember an identity, and the parts by which it may stand elsewhere."""
        if is_unsaid(text):
            return text
        digits = hex_digits(kind, text) if kind in (Kind.UUID, Kind.GUID) else None
        if digits is not None:
            self.addresses[digits] = kind
        elif kind is Kind.HEX:
            self.plain(text)
        elif kind is Kind.HOST and not is_address(text):
            self._host(text)
        elif kind is Kind.HOLDER:
            self._holder(text)
        elif kind is not Kind.NVLINK_DOMAIN:
            self.words.setdefault(text, kind)
        return text

    def plain(self, text: str) -> str:
        """Remember the addresses in a text."""
        for match in _FORMS.finditer(text):
            if match.lastgroup != "run":
                digits = re.sub("[^0-9a-f]", "", match[0].lower())
                kind = Kind.UUID if match.lastgroup == "uuid" else Kind.HEX
                self._address(digits, kind)
        return text

    value = prose = undecoded = plain

    def _address(self, digits: str, kind: Kind) -> None:
        if not digits.strip("0") or digits == "f" * len(digits) or len(digits) > LONGEST_ADDRESS:
            return
        self.addresses.setdefault(digits, kind)
        if kind is Kind.HEX and len(digits) in (32, 40):  # a GID, alone or after a queue pair
            self._address(digits[-16:], kind)

    def _host(self, text: str) -> None:
        short, _, domain = text.partition(".")
        self.words[text] = Kind.HOST
        self.words[short] = Kind.HOST
        if domain:
            self.words.setdefault(domain, Kind.DOMAIN)

    def _holder(self, text: str) -> None:
        match = re.fullmatch(r"(?:pid|job) [0-9]+(?: (.*))?", text, re.DOTALL)
        if match is None:
            self.words.setdefault(text, Kind.HOLDER)
        elif match[1]:
            self.identity(Kind.PROCESS, match[1])


class Sweeper:
    """A visit that puts pseudonyms in the place of the identities that were collected."""

    def __init__(self, pseudonyms: Pseudonyms, known: Collector) -> None:
        self.identity = cache(pseudonyms.of)
        self.plain = cache(self._plain)
        self._known = known.words
        self._digits = dict(_digits_by_digits(pseudonyms, known))
        self._lengths = sorted({len(digits) for digits in self._digits}, reverse=True)
        self._serials = _index({w: k for w, k in known.words.items() if _is_found_in_plain(w, k)})
        self._words = _index({w: k for w, k in known.words.items() if _is_found(w, k)})

    def _plain(self, text: str) -> str:
        """The text without known serials and without addresses, known or not."""
        return _swept(text, (self._serial_spans, self._form_spans))

    def value(self, text: str) -> str:
        """The text without any known identity and without addresses."""
        return _swept(text, (self._word_spans, self._form_spans))

    def prose(self, text: str) -> str:
        """The text without any known identity and without addresses, IP's among them."""
        return _swept(text, (self._word_spans, self._form_spans, self._address_spans))

    def undecoded(self, text: str) -> str:
        """As prose, and without anything in it that may be an identity."""
        return _swept(text, (self._word_spans, self._form_spans, self._undecoded_spans))

    def _serial_spans(self, text: str) -> Iterator[Span]:
        return self._spans_of_words(text, self._serials)

    def _word_spans(self, text: str) -> Iterator[Span]:
        return self._spans_of_words(text, self._words)

    def _spans_of_words(self, text: str, index: "_Index") -> Iterator[Span]:
        done = 0
        for token in _TOKEN.finditer(text) if index else ():
            if token.start() < done:
                continue
            for word, offset in index.get(token[0], ()):
                start = token.start() - offset
                end = start + len(word)
                if start >= done and text.startswith(word, start) and not _goes_on(text, end):
                    kind = self._known[word]
                    end = _end_of_host(text, end) if kind is Kind.HOST else end
                    yield start, end, self.identity(kind, text[start:end])
                    done = end
                    break

    def _form_spans(self, text: str) -> Iterator[Span]:
        for match in _FORMS.finditer(text):
            new = self._of_form(match)
            if new != match[0]:
                yield match.start(), match.end(), new

    def _of_form(self, match: re.Match[str]) -> str:
        if match.lastgroup == "run":
            return self._run(match[0])
        return self.identity(Kind.UUID if match.lastgroup == "uuid" else Kind.HEX, match[0])

    def _run(self, run: str) -> str:
        """Hexadecimal digits, in which known ones may stand at any place."""
        digits, laid, i = run.lower(), [], 0
        while i < len(digits):
            windows = (digits[i : i + length] for length in self._lengths)
            found = next((window for window in windows if window in self._digits), None)
            new = run[i] if found is None else self._digits[found]
            laid.append(new.upper() if found and run.isupper() else new)
            i += len(found or "1")
        return "".join(laid)

    def _address_spans(self, text: str) -> Iterator[Span]:
        for match in _ADDRESS.finditer(text):
            if is_address(match[0]) and not _is_anybodys(match[0]):
                new = self.identity(Kind.ADDRESS, match[0])
                yield match.start(), match.end(), new

    def _undecoded_spans(self, text: str) -> Iterator[Span]:
        for match in _UNDECODED.finditer(text):
            yield match.start(), match.end(), self.identity(Kind.SERIAL, match[0])


_Index = dict[str, list[tuple[str, int]]]
"""Words by their first token, longest first, each with what stands before that token."""

_Pass = Callable[[str], Iterator[Span]]


def _swept(text: str, passes: Sequence[_Pass]) -> str:
    """A text after all passes; what one has replaced the next does not see."""
    if not passes or not text:
        return text
    parts, end = [], 0
    for start, stop, new in passes[0](text):
        parts += [_swept(text[end:start], passes[1:]), new]
        end = stop
    return "".join((*parts, _swept(text[end:], passes[1:])))


def _digits_by_digits(pseudonyms: Pseudonyms, known: Collector) -> Iterator[tuple[str, str]]:
    """Known addresses, and the bytes of known serials as drivers' structs hold them."""
    for digits, kind in known.addresses.items():
        is_uuid = kind is Kind.UUID
        yield digits, pseudonyms.uuid_digits(digits) if is_uuid else pseudonyms.digits(digits)
    for word, kind in known.words.items():
        if _is_found_in_plain(word, kind):
            yield word.encode().hex(), pseudonyms.of(kind, word).encode().hex()


def _index(words: dict[str, Kind]) -> _Index:
    index: _Index = defaultdict(list)
    for word in sorted(words, key=len, reverse=True):
        token = _TOKEN.search(word)
        if token is not None:
            index[token[0]].append((word, token.start()))
    return dict(index)


def _is_found(word: str, kind: Kind) -> bool:
    """Whether a word is looked for outside its own place."""
    if kind in (Kind.SERIAL, Kind.UUID, Kind.GUID):
        return _is_found_in_plain(word, kind)
    return len(word) >= SHORTEST_WORD and word.lower() not in COMMON_WORDS and not word.isdecimal()


def _is_found_in_plain(word: str, kind: Kind) -> bool:
    if kind not in (Kind.SERIAL, Kind.UUID, Kind.GUID):
        return False
    is_telling = any(letter.isdigit() for letter in word)
    return SHORTEST_SERIAL <= len(word) <= LONGEST_SERIAL and is_telling


def _goes_on(text: str, end: int) -> bool:
    """Whether a word of a text does not end here."""
    return end < len(text) and text[end].isalnum() and text[end - 1].isalnum()


def _end_of_host(text: str, end: int) -> int:
    """Where a host's name ends with its domain."""
    match = re.compile(r"(?:\.[A-Za-z0-9][A-Za-z0-9-]*)*").match(text, end)
    return match.end() if match else end


def _is_anybodys(address: str) -> bool:
    """An address that every host has."""
    told = ipaddress.ip_address(address)
    return (
        told.is_loopback or told.is_unspecified or told == ipaddress.ip_address("255.255.255.255")
    )

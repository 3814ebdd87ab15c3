"""Host lists: ``gpu[001-128],rack[1-2]n[01-04,07]`` to hosts and back. Slurm's grammar; no network.

As ``scontrol show hostnames`` reads them: commas and blanks part items, the first number of a range
gives the width, the last bracket varies fastest. Wider than Slurm: text may follow the last
bracket (``gpu[1-4].example.org``) and a host stands once. Narrower: what Slurm quietly
misreads (blanks in brackets, ``[1-]``, ``[+1]``, numbers that overflow, a lone ``]``) is refused.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from math import prod
from pathlib import Path
from typing import Final

from fleet.errors import FleetError
from fleet.naming import natural_key
from fleet.store import read_bytes

LARGEST_HOST_COUNT: Final = 100_000
LONGEST_HOST: Final = 253
"""Characters of a host's name; DNS allows no more."""

LARGEST_HOSTFILE_BYTES: Final = 2 * LARGEST_HOST_COUNT * LONGEST_HOST
_BRACKETED: Final = re.compile(r"\[(?P<ranges>[^\[\]]*)\]|(?P<text>[^\[\]]+)|(?P<stray>[\[\]])")
_LIST: Final = re.compile(r"(?:\[[^\[\]]*\]|[^, \t\r\n\[])+|\[")
_RANGE: Final = re.compile(r"(?P<low>[0-9]+)(?:-(?P<high>[0-9]+))?")
_HOST: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:@%+-]*")
_RANGE_HELP: Final = "write numbers and ranges such as [1-4,07]"


class HostListError(FleetError):
    """A host list that cannot be read (``where`` is the option or file, ``field`` the place)."""


@dataclass(frozen=True, slots=True)
class _Range:
    """Numbers of one range, written with the width of the first."""

    low: str
    high: str

    @property
    def count(self) -> int:
        return int(self.high) - int(self.low) + 1

    def __iter__(self) -> Iterator[str]:
        width = len(self.low)
        return (f"{number:0{width}d}" for number in range(int(self.low), int(self.high) + 1))


@dataclass(frozen=True, slots=True)
class _Item:
    """One item of a list: pieces of text and of ranges, in order."""

    pieces: tuple[tuple[_Range | str, ...], ...]

    @property
    def count(self) -> int:
        return prod(sum(1 if isinstance(r, str) else r.count for r in p) for p in self.pieces)

    def __iter__(self) -> Iterator[str]:
        for parts in product(*(tuple(_words(piece)) for piece in self.pieces)):
            yield "".join(parts)


def _words(piece: Iterable[_Range | str]) -> Iterator[str]:
    for part in piece:
        yield from (part,) if isinstance(part, str) else part


def expand_list(text: str, *, where: str) -> tuple[str, ...]:
    """The words of a list in its order, each once.

    >>> expand_list("rack[1-2]n[09-10],login", where="--hosts")
    ('rack1n09', 'rack1n10', 'rack2n09', 'rack2n10', 'login')

    Raises:
        HostListError: a bracket or range is wrong, or there are more than 100,000 hosts.
    """
    items = [_item(match, where) for match in _LIST.finditer(text)]
    count = sum(item.count for item in items)
    if count > LARGEST_HOST_COUNT:
        raise HostListError(
            f"names {count:,} hosts",
            where=where,
            remedy=f"name at most {LARGEST_HOST_COUNT:,} at a time",
        )
    return tuple(dict.fromkeys(word for item in items for word in item))


def expand_hosts(text: str, *, where: str = "--hosts") -> tuple[str, ...]:
    """The hosts of a list in its order, each once, each fit to stand on a command line.

    >>> expand_hosts("gpu[098-101]")
    ('gpu098', 'gpu099', 'gpu100', 'gpu101')

    Raises:
        HostListError: as :func:`expand_list`, or a name begins with '-' or holds odd characters.
    """
    hosts = expand_list(text, where=where)
    for host in hosts:
        if len(host) > LONGEST_HOST or not _HOST.fullmatch(host):
            raise HostListError(
                f"{host[:64]!r} is no host name",
                where=where,
                remedy="use letters, digits and '._-:@%+', beginning with a letter or digit",
            )
    return hosts


def select_hosts(
    lists: Sequence[str], *, hostfile: str | None = None, exclude: Sequence[str] = ()
) -> tuple[str, ...]:
    """The hosts of the lists and of a file, in order, each once, without those excluded.

    Raises:
        HostListError: a list or the file is wrong, or nothing is left.
        StoreError: the file cannot be read.
    """
    named = [host for text in lists for host in expand_hosts(text)]
    if hostfile is not None:
        named.extend(hosts_from_file(hostfile))
    left_out = {host for text in exclude for host in expand_hosts(text, where="--exclude")}
    hosts = tuple(host for host in dict.fromkeys(named) if host not in left_out)
    if not hosts:
        what = "all hosts are excluded" if named else "no host is named"
        raise HostListError(what, where="--hosts", remedy="name some, such as 'gpu[001-128]'")
    return hosts


def hosts_from_file(path: str | Path) -> tuple[str, ...]:
    """The hosts of a file, ``-`` for stdin: lists on any number of lines, ``#`` begins a comment.

    Raises:
        HostListError: a list is wrong; ``where`` names the line.
        StoreError: the file cannot be read.
    """
    content = read_bytes(path, limit=LARGEST_HOSTFILE_BYTES).decode("utf-8", errors="replace")
    hosts: dict[str, None] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        told = line.partition("#")[0]
        hosts.update(dict.fromkeys(expand_hosts(told, where=f"{path}: line {number}")))
        if len(hosts) > LARGEST_HOST_COUNT:
            remedy = f"name at most {LARGEST_HOST_COUNT:,} at a time"
            raise HostListError("names too many hosts", where=str(path), remedy=remedy)
    return tuple(hosts)


def fold_hosts(hosts: Iterable[str]) -> str:
    """Hosts as one list, in natural order, numbers in a row as ranges.

    >>> fold_hosts(["gpu3", "gpu1", "gpu2", "login", "rack1n07", "rack1n01"])
    'gpu[1-3],login,rack1n[01,07]'
    """
    ordered = sorted(set(hosts), key=lambda host: (natural_key(host), host))
    parted = [_parted(host) for host in ordered]
    groups = groupby(parted, key=lambda parts: (parts[0], parts[2], not parts[1]))
    return ",".join(
        _group_text(before, after, [parts[1] for parts in group])
        for (before, after, _), group in groups
    )


def _item(match: re.Match[str], where: str) -> _Item:
    start = match.start()
    return _Item(
        tuple(
            _ranges(m["ranges"], start + m.start("ranges"), where)
            if m["ranges"] is not None
            else (_literal(m, start, where),)
            for m in _BRACKETED.finditer(match[0])
        )
    )


def _literal(match: re.Match[str], start: int, where: str) -> str:
    if match["stray"]:
        other = "]" if match["stray"] == "[" else "["
        raise HostListError(
            f"{match['stray']!r} without {other!r}",
            where=where,
            field=f"character {start + match.start() + 1}",
            remedy="close each bracket once, and put none inside another",
        )
    return match["text"]


def _ranges(text: str, start: int, where: str) -> tuple[_Range | str, ...]:
    ranges = []
    for part in text.split(","):
        place = f"character {start + 1}"
        ranges.append(_range(part, place, where))
        start += len(part) + 1
    return tuple(ranges)


def _range(text: str, place: str, where: str) -> _Range:
    match = _RANGE.fullmatch(text)
    if match is None or len(text) > LONGEST_HOST:
        raise HostListError(
            f"{text[:64]!r} is no range", where=where, field=place, remedy=_RANGE_HELP
        )
    low, high = match["low"], match["high"] or match["low"]
    if int(high) < int(low):
        raise HostListError(
            f"{text!r} ends before it begins",
            where=where,
            field=place,
            remedy=f"write {high}-{low}",
        )
    return _Range(low, high)


def _parted(host: str) -> tuple[str, str, str]:
    """A name as text, number, text: the last number of its first label, of an address the last."""
    label = host.partition(".")[0] if re.search("[A-Za-z]", host) else host
    match = re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", label, re.DOTALL)
    if match is None:
        return host, "", ""
    return match[1], match[2], match[3] + host[len(label) :]


def _group_text(before: str, after: str, numbers: list[str]) -> str:
    if len(numbers) == 1:
        return f"{before}{numbers[0]}{after}"
    runs: list[list[str]] = []
    for number in numbers:
        if runs and number == f"{int(runs[-1][-1]) + 1:0{len(runs[-1][0])}d}":
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = (run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"{before}[{','.join(texts)}]{after}"

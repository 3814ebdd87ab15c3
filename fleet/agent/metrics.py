"""Metrics: Prometheus' text format 0.0.4 from samples. Knows the format, not what is measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LONGEST_LABEL: Final = 128
"""A label's value is a name; a longer one is cut."""


class Kind(StrEnum):
    """What a family's number does: goes up and down, or only up."""

    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True)
class Family:
    """Samples of one name, with what the number means."""

    name: str
    help: str
    kind: Kind = Kind.GAUGE


Labels = tuple[tuple[str, str], ...]
Sample = tuple[Family, Labels, float]


def page_from_samples(samples: Iterable[Sample]) -> bytes:
    """The page: each family once with its help and type, families in the order they come.

    >>> print(page_from_samples([(Family("up", "Whether it is."), (), True)]).decode(), end="")
    # HELP up Whether it is.
    # TYPE up gauge
    up 1
    """
    lines_of: dict[str, list[str]] = {}
    text_of: dict[Labels, str] = {}  # one port's labels stand in many families
    for family, labels, value in samples:
        name, text = family.name, text_of.get(labels)
        if text is None:
            text = text_of[labels] = labels_text(labels)
        if name not in lines_of:
            lines_of[name] = [_head(family)]
        lines_of[name].append(f"{name}{text} {value_text(value)}\n")
    return "".join(chain.from_iterable(lines_of.values())).encode(errors="replace")


def labels_text(labels: Labels) -> str:
    r"""Labels in braces, values escaped.

    >>> print(labels_text((("name", 'a "b" \\ c'),)))
    {name="a \"b\" \\ c"}
    """
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def value_text(value: float) -> str:
    """A number as Prometheus reads it; a truth is 1 or 0.

    >>> value_text(True), value_text(2**53 + 1), value_text(0.5)
    ('1', '9007199254740993', '0.5')
    """
    return str(int(value)) if isinstance(value, bool) else repr(value)


def _head(family: Family) -> str:
    text = family.help.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {family.name} {text}\n# TYPE {family.name} {family.kind}\n"


def _escaped(value: str) -> str:
    cut = value[:LONGEST_LABEL]
    return cut.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

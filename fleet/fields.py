"""The grain of the model: strict base, names, absence, and paths into a document.

A path looks like ``gpus[3].ports[7].state``; in brackets stands an element's key, not its index.
"""

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Final, NewType, Protocol, TypeGuard

from pydantic import BaseModel, ConfigDict, StringConstraints

HostName = NewType("HostName", str)
GpuUuid = NewType("GpuUuid", str)
ShapeId = NewType("ShapeId", str)
SwitchId = NewType("SwitchId", str)
PciAddress = NewType("PciAddress", str)

NAME = StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=253)
TEXT = StringConstraints(min_length=1, max_length=1024)
PCI = StringConstraints(pattern=r"^[0-9a-f]{8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]$")

Text = Annotated[str, TEXT]
Pci = Annotated[PciAddress, PCI]

Scalar = str | int | float


class Reported:
    """Marks an optional field that a source may report: None needs an absence with a reason."""


REPORTED: Final = Reported()


class FrozenModel(BaseModel):
    """Immutable, strict about names and types, never nan or inf."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class AbsenceReason(StrEnum):
    """Why a datum is missing."""

    UNSUPPORTED = "unsupported"
    NO_PERMISSION = "no_permission"
    DRIVER_TOO_OLD = "driver_too_old"
    FUNCTION_MISSING = "function_missing"
    TIMED_OUT = "timed_out"
    GPU_LOST = "gpu_lost"
    UNDECODABLE = "undecodable"
    FAILED = "failed"
    NOT_ASKED = "not_asked"


class Absence(FrozenModel):
    """A datum that was not reported, and why. ``[*]`` in the path means every element."""

    path: Text
    reason: AbsenceReason
    detail: Text | None = None


class Keyed(Protocol):
    """An element of a list that is found by key, not by position."""

    @property
    def key(self) -> str:
        """Place in a path."""


def is_keyed(element: object) -> TypeGuard[Keyed]:
    """Whether an element is found by key; ``isinstance`` with a protocol takes 30 times longer."""
    return hasattr(type(element), "key")


def leaves(model: BaseModel, path: str = "") -> Iterator[tuple[str, Scalar]]:
    """Every reported scalar of a document with its path; what is None is left out."""
    for name in type(model).model_fields:
        here = f"{path}.{name}" if path else name
        yield from _leaves_of(getattr(model, name), here)


def _leaves_of(value: object, path: str) -> Iterator[tuple[str, Scalar]]:
    if isinstance(value, BaseModel):
        yield from leaves(value, path)
    elif isinstance(value, tuple):
        for i, element in enumerate(value):
            key = element.key if is_keyed(element) else str(i)
            yield from _leaves_of(element, f"{path}[{key}]")
    elif isinstance(value, Scalar):
        yield path, value


def unreported(model: BaseModel, path: str = "") -> Iterator[str]:
    """Paths of the fields a source may report and this one did not: each wants an absence."""
    for name, field in type(model).model_fields.items():
        here = f"{path}.{name}" if path else name
        value = getattr(model, name)
        if value is None:
            if REPORTED in field.metadata:
                yield here
        elif isinstance(value, BaseModel):
            yield from unreported(value, here)
        elif isinstance(value, tuple):
            for i, element in enumerate(value):
                if isinstance(element, BaseModel):
                    key = element.key if is_keyed(element) else str(i)
                    yield from unreported(element, f"{here}[{key}]")


def repeated(where: str, names: Iterable[str]) -> Iterator[str]:
    """One line for each name that stands more than once; ``where`` has a %s."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield f"{where % name}: stands twice; expected once"
        seen.add(name)


def path_matches(pattern: str, path: str) -> bool:
    """Whether an absence's path covers a concrete one: ``[*]`` stands for any element.

    A path also covers everything below it.

    >>> path_matches("gpus[*].uuid", "gpus[3].uuid"), path_matches("gpus[1]", "gpus[1].uuid")
    (True, True)
    """
    return _covering(pattern).match(path) is not None


@lru_cache(maxsize=4096)
def _covering(pattern: str) -> re.Pattern[str]:
    regex = re.escape(pattern).replace(r"\[\*\]", r"\[[^\]]+\]")
    return re.compile(regex + r"(?=$|[.\[])")


def is_said(model: BaseModel, path: str) -> bool:
    """Whether everything a path names is there: no None, no empty list, nothing unreported.

    ``[*]`` stands for every element. An optional list that is empty was said to be empty. A path
    that leads nowhere names nothing that is there.
    """
    steps = [(m["name"], m["key"]) for m in _STEP.finditer(path)]
    found = list(_said_below(model, steps)) if steps else []
    return bool(found) and all(found)


def _said_below(model: BaseModel, steps: list[tuple[str, str | None]]) -> Iterator[bool]:
    (name, key), *rest = steps
    field = type(model).model_fields.get(name)
    if field is None:
        return
    value = getattr(model, name)
    if key is None and not rest:
        empty = value == () and field.default is not None
        yield not (value is None or value == UNREPORTED or empty)
    elif isinstance(value, tuple):
        for i, element in enumerate(value):
            own = element.key if is_keyed(element) else str(i)
            if key not in ("*", own):
                continue
            if rest and isinstance(element, BaseModel):
                yield from _said_below(element, rest)
            elif not rest:
                yield True
    elif isinstance(value, BaseModel) and rest:
        yield from _said_below(value, rest)


_STEP = re.compile(r"(?P<name>\w+)(?:\[(?P<key>[^\]]+)\])?\.?")
UNREPORTED = "unreported"
"""What an enumeration says where nothing was reported."""

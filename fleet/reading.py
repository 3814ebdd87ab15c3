"""Reading: what a probe read of one node, word for word and not yet understood.

A reading is what crosses the network and what ``--record`` keeps: the driver's answers by call, the
kernel's files by path, the output of commands. It is untrusted: size, depth, counts and names are
bounded here, and nothing in it is ever used as a path or a command.
"""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, Field, NonNegativeFloat, StringConstraints, ValidationError

from fleet.errors import SnapshotError
from fleet.fields import NAME, FrozenModel, HostName, Text

LARGEST_READING_BYTES: Final = 32 * 2**20
"""Eight GPUs of 18 links are 0.1 MiB; nvidia-smi's XML of a busy node a few."""

Key = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Content = Annotated[str, StringConstraints(max_length=LARGEST_READING_BYTES)]


class Lacks(StrEnum):
    """Which side does not know a call."""

    BINDING = "binding"
    DRIVER = "driver"


class Answer(FrozenModel):
    """What one call of the driver gave: a value, or one of the ways in which there is none.

    ``code`` is NVML's return code, ``hex`` the bytes of a text that does not decode, ``odd`` what
    the binding gave that no answer has the form of.
    """

    value: Any = None
    code: int | None = None
    lacks: Lacks | None = None
    hex: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]*$", max_length=4096)] | None = None
    odd: Annotated[str, StringConstraints(max_length=4096)] | None = None


class StopReason(StrEnum):
    """Why a chapter of a reading was given up."""

    TIMED_OUT = "timed_out"
    DIED = "died"
    NOT_STARTED = "not_started"


class Stop(FrozenModel):
    """A chapter of a reading that was given up, at which call, and after how long."""

    chapter: Key
    at: Key
    reason: StopReason
    waited_s: NonNegativeFloat
    detail: Text | None = None


class CommandOutput(FrozenModel):
    """What a command printed; ``exit_code`` None: it was stopped at its deadline."""

    text: Content
    exit_code: int | None = None


class CollectedAt(FrozenModel):
    """When each part was read; ``state``: health, use and network, where later than the rest."""

    files: AwareDatetime | None = None
    driver: AwareDatetime | None = None
    state: AwareDatetime | None = None
    outputs: AwareDatetime | None = None


class NodeReading(FrozenModel):
    """One node as its probe read it."""

    kind: Literal["node_reading"]
    schema_version: Literal[1]
    host: Annotated[HostName, NAME]
    probe: Text | None = None
    collected_at: CollectedAt = CollectedAt()
    answers: Annotated[dict[Key, Answer], Field(default_factory=dict, max_length=500_000)]
    files: Annotated[dict[Key, Content], Field(default_factory=dict, max_length=100_000)]
    links: Annotated[dict[Key, Key], Field(default_factory=dict, max_length=100_000)]
    unreadable: Annotated[dict[Key, Text], Field(default_factory=dict, max_length=100_000)]
    outputs: Annotated[dict[Key, CommandOutput], Field(default_factory=dict, max_length=64)]
    stops: Annotated[tuple[Stop, ...], Field(max_length=10_000)] = ()


def reading_from_bytes(content: bytes, *, where: str) -> NodeReading:
    """A reading from JSON text, checked strictly.

    Raises:
        SnapshotError: too large, not JSON, or a field is wrong; ``where`` is the file or host.
    """
    if len(content) > LARGEST_READING_BYTES:
        raise SnapshotError(
            f"a reading of more than {LARGEST_READING_BYTES} bytes", where=where, remedy="refused"
        )
    try:
        return NodeReading.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        raise SnapshotError(str(fault["msg"]), where=where, field=field[:200]) from None

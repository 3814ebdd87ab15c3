"""The step document: what is computed and communicated, in which order. No map, no draws."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PositiveInt, Strict, model_validator

from fleet.units import bytes_from_text, seconds_from_text
from topology.documents import checked, from_text, ratio_from_text, yaml_from_file
from topology.errors import WorkloadError
from topology.fabric.link_figures import Figures, Words
from topology.words import AlgorithmName, Collective, DType, Launch, Protocol

SEE: Final = "see samples/steps"
WORLD: Final = "world"
MOST_RANKS: Final = 2**20
MOST_OPERATIONS: Final = 100_000
COMPUTE_STREAM: Final = "compute"
COMMUNICATION_STREAM: Final = "communication"

Seconds = Annotated[float, Strict(), from_text(seconds_from_text), Field(gt=0)]
Bytes = Annotated[PositiveInt, Strict(), from_text(bytes_from_text)]
Spread = Annotated[float, Strict(), from_text(ratio_from_text), Field(ge=0, le=10)]
Count = Annotated[PositiveInt, Strict()]


class GroupRow(Figures):
    """Ranks that communicate: ``size`` of them, ``stride`` apart, side by side over all ranks.

    Rank r is in the group of all ranks that differ from it by multiples of the stride within the
    same ``size * stride``. Without ``stride`` it is the product of the sizes above: Megatron's
    order, in which the first group's ranks are next to each other.
    """

    name: Words
    size: Count
    stride: Count | None = None


class ComputeRow(Figures):
    """Compute of every rank: mean time, and coefficient of variation of one rank's time. [s]

    A rank's time is log-normal, drawn for each rank and each repetition independently.
    """

    time_s: Seconds
    spread_ratio: Spread = 0.0


class CollectiveRow(Figures):
    """One collective of one size, by every group of a kind at once; without group by all ranks."""

    collective: Collective
    size_bytes: Bytes
    algorithm: AlgorithmName = AlgorithmName.AUTO
    protocol: Protocol | None = None
    group: Words = WORLD
    launch: Launch = Launch.PROCESS
    dtype: DType = DType.FLOAT32


class PartRow(Figures):
    """One part: compute, a collective, or a block of parts; ``repeat`` times in a row.

    ``after``: parts that it waits for, the part before it where nothing is said, [] for none;
    ``also_after``: further ones. Of a part in a block it waits for the latest repetition.
    ``overlap``: what follows does not wait for it, unless its ``after`` says so.
    ``stream``: parts of one stream run one after the other, in the order of the file.
    """

    name: Words
    compute: ComputeRow | None = None
    collective: CollectiveRow | None = None
    parts: tuple["PartRow", ...] | None = Field(default=None, min_length=1)
    repeat: Count = 1
    after: tuple[Words, ...] | None = None
    also_after: tuple[Words, ...] = ()
    overlap: Annotated[bool, Strict()] = False
    stream: Words | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        given = [self.compute, self.collective, self.parts]
        if sum(thing is not None for thing in given) != 1:
            raise ValueError(f"part {self.name!r} must have one of compute, collective and parts")
        if self.parts is not None and self.stream is not None:
            raise ValueError(f"part {self.name!r} is a block: give its parts the stream")
        return self

    @property
    def kind(self) -> str:
        """What it is: compute, the name of a collective, or block."""
        if self.collective is not None:
            return self.collective.collective.value
        return "block" if self.compute is None else "compute"

    @property
    def own_stream(self) -> str:
        """The stream it runs on."""
        usual = COMPUTE_STREAM if self.compute is not None else COMMUNICATION_STREAM
        return self.stream or usual

    @property
    def waits(self) -> tuple[str, ...]:
        """All parts that it names to wait for."""
        return (*(self.after or ()), *self.also_after)

    @property
    def operations(self) -> int:
        """Computes and collectives in it, repetitions counted."""
        inner = 1 if self.parts is None else sum(part.operations for part in self.parts)
        return self.repeat * inner


class StepDocument(Figures):
    """A training or decode step of ``gpus`` ranks.

    ``common_spread_ratio``: coefficient of variation of one factor a step, the same for all
    compute. ``rank_spread_ratio``: of one factor a rank and step, the same for all its compute.
    """

    kind: Literal["step"]
    schema_version: Literal[1]
    name: Words
    gpus: Annotated[int, Strict(), Field(ge=1, le=MOST_RANKS)]
    groups: tuple[GroupRow, ...] = ()
    parts: tuple[PartRow, ...] = Field(min_length=1)
    common_spread_ratio: Spread = 0.0
    rank_spread_ratio: Spread = 0.0
    note: Words | None = None


def load_step(path: str | Path) -> StepDocument:
    """A step from a YAML file; numbers may carry units (``1MiB``, ``2ms``, ``3 %``).

    Raises:
        StoreError: it cannot be read, or is larger than a mebibyte.
        WorkloadError: not YAML, an unknown key, or a wrong value; names file and field.
    """
    where = str(path)
    return step_from_document(yaml_from_file(path, what="step", remedy=SEE), where=where)


def step_from_document(document: dict[Any, Any], *, where: str) -> StepDocument:
    """A step from its keys and values, checked.

    Raises:
        WorkloadError: an unknown key or a wrong value, groups that do not divide the ranks, parts
            that wait for what does not come before them; names file and field.
    """
    step = checked(StepDocument, document, where=where, remedy=SEE)
    strides_of(step, where=where)
    _check_names(step, where)
    _check_order(step, where)
    operations = sum(part.operations for part in step.parts)
    if operations > MOST_OPERATIONS:
        raise WorkloadError(
            f"{operations:,} operations with their repetitions",
            where=where,
            field="parts",
            remedy=f"put them together to {MOST_OPERATIONS:,} or fewer",
        )
    return step


def strides_of(step: StepDocument, *, where: str) -> dict[str, tuple[int, int]]:
    """Size and stride of each named group, and of all ranks together.

    Raises:
        WorkloadError: a name that stands twice, or a group that does not divide the ranks.
    """
    found = {WORLD: (step.gpus, 1)}
    stride = 1
    for number, row in enumerate(step.groups):
        own = row.stride or stride
        if row.name in found:
            raise WorkloadError(
                f"{row.name!r} stands twice, or means all ranks",
                where=where,
                field=f"groups.{number}.name",
                remedy="give each group a name of its own",
            )
        if step.gpus % (row.size * own):
            raise WorkloadError(
                f"groups of {row.size}, {own} apart, do not divide {step.gpus} GPUs",
                where=where,
                field=f"groups.{number}.size",
                remedy="size times stride has to divide gpus",
            )
        found[row.name] = (row.size, own)
        stride *= row.size
    return found


def leaves(parts: tuple[PartRow, ...], field: str = "parts") -> Iterator[tuple[str, PartRow]]:
    """Computes and collectives in the order of the file, each with its place there."""
    for place, part in _all_parts(parts, field):
        if part.parts is None:
            yield place, part


def _all_parts(parts: tuple[PartRow, ...], field: str) -> Iterator[tuple[str, PartRow]]:
    """Every part with its place, a block after what is in it, as it ends after it."""
    for number, part in enumerate(parts):
        place = f"{field}.{number}"
        if part.parts is not None:
            yield from _all_parts(part.parts, f"{place}.parts")
        yield place, part


def _check_names(step: StepDocument, where: str) -> None:
    known = {WORLD, *(row.name for row in step.groups)}
    seen: set[str] = set()
    for place, part in _all_parts(step.parts, "parts"):
        if part.name in seen:
            raise WorkloadError(
                f"{part.name!r} stands twice",
                where=where,
                field=f"{place}.name",
                remedy="give each part a name of its own",
            )
        seen.add(part.name)
        if part.collective is not None and part.collective.group not in known:
            raise WorkloadError(
                f"no group {part.collective.group!r}",
                where=where,
                field=f"{place}.collective.group",
                remedy=f"groups are {', '.join(sorted(known))}",
            )


def _check_order(step: StepDocument, where: str) -> None:
    """Parts wait only for parts that end before they begin: so no circle can close."""
    rows = list(_all_parts(step.parts, "parts"))
    ends = {part.name: number for number, (_, part) in enumerate(rows)}
    for number, (place, part) in enumerate(rows):
        begins = number - sum(1 for _ in _all_parts(part.parts or (), ""))
        for name in part.waits:
            if ends.get(name, begins) < begins:
                continue
            known = ", ".join(earlier.name for _, earlier in rows[:begins])
            raise WorkloadError(
                _order_text(part.name, name, {p.name: set(p.waits) for _, p in rows}),
                where=where,
                field=f"{place}.{'after' if name in (part.after or ()) else 'also_after'}",
                remedy=f"parts that end before it are {known or 'none'}",
            )


def _order_text(name: str, waited: str, waits: dict[str, set[str]]) -> str:
    """Why a part cannot wait for another."""
    if waited not in waits:
        return f"no part {waited!r}"
    reached, open_names = {waited}, [waited]
    while open_names:
        for further in waits.get(open_names.pop(), set()) - reached:
            reached.add(further)
            open_names.append(further)
    if name in reached:
        return f"{name!r} waits for {waited!r}, and that for {name!r}: a circle"
    return f"{waited!r} ends later in the file than {name!r} begins"

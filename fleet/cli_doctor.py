"""``fleet doctor``: parse, one library call, print."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleet.console import AsJson, ExitCode, leave, print_json, print_table

if TYPE_CHECKING:
    from fleet.doctor import Diagnosis
    from fleet.reading import NodeReading


def doctor(
    *,
    root: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Where this node's /sys, /proc and /dev stand. Below another root only files are "
            "looked at, neither the driver nor programs.",
        ),
    ] = Path("/"),
    spool: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder that an agent here shall write to; is it fit?"),
    ] = None,
    deadline: Annotated[
        str, typer.Option(metavar="TIME", help="Longest wait for one call of the driver.")
    ] = "5s",
    as_json: AsJson = False,
) -> None:
    """Say which right or package this node lacks, for what, and how to get it.

    Exit 1 if the map of this node lacks something for it; 'limited' is told and is no fault.
    """
    from fleet.doctor import examine, surroundings_of
    from fleet.units import seconds_from_text

    reading = _reading(root, seconds_from_text(deadline))
    diagnosis = examine(surroundings_of(root, spool=spool, reading=reading))
    if as_json:
        print_json(diagnosis.model_dump(mode="json"))
    else:
        _print(diagnosis)
    if not diagnosis.is_complete:
        leave(ExitCode.FINDINGS)


def _reading(root: Path, deadline_s: float) -> "NodeReading | None":
    """What this node's driver and kernel tell; None below another root, which has no driver."""
    from fleet.node import NodeReader

    if root.resolve() != Path("/"):
        return None
    reader = NodeReader(deadline_s=deadline_s)
    try:
        return reader.read_raw()
    finally:
        reader.close()


def _print(diagnosis: "Diagnosis") -> None:
    print_table(
        ("check", "state", "what", "remedy"),
        [(r.id, r.state.value, r.evidence, r.remedy or "") for r in diagnosis.results],
    )

"""``topology diagnose``: parse, one library call, print."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleet.console import STDIO, AsJson, ExitCode, leave, print_json, print_table, printable, say
from topology.errors import WorkloadError
from topology.words import Collective

if TYPE_CHECKING:
    from topology.measured.examine import Examination


def diagnose(
    *,
    nccl_tests: Annotated[
        str,
        typer.Option(
            "--nccl-tests",
            metavar="FILE",
            help="What nccl-tests or rccl-tests printed, several runs or other programs' lines "
            "between or not; '-' is stdin.",
        ),
    ],
    fleet_file: Annotated[
        str,
        typer.Option(
            "--map", metavar="MAP", help="Fleet map (.json or .json.gz) of the machine that ran it."
        ),
    ],
    collective: Annotated[
        Collective | None,
        typer.Option(help="Collective of tables that do not tell theirs."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your own calibration; default: the one that ships."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a run of nccl-tests is as fast as this map should be, and if not, what ails it.

    Exit 1 if a run is sick, 3 if a run could not be judged.
    """
    from topology.fabric.from_fleet import load_fabric
    from topology.latency.calibration import read_calibration
    from topology.measured.diagnosis import Verdict
    from topology.measured.examine import examine
    from topology.measured.nccl_tests import read_nccl_tests

    if nccl_tests == fleet_file == STDIO:
        raise WorkloadError("stdin is asked for twice", where=STDIO, remedy="give one as a file")
    figures = None if calibration is None else read_calibration(calibration)
    text = read_nccl_tests(nccl_tests, collective=collective)
    examination = examine(text, load_fabric(fleet_file), calibration=figures)
    _print(examination, as_json=as_json)
    if examination.verdict is Verdict.SICK:
        leave(ExitCode.FINDINGS)
    if examination.lost_runs:
        leave(ExitCode.PARTIAL)


def _print(examination: "Examination", *, as_json: bool) -> None:
    from topology.measured.diagnosis_report import (
        HEADER,
        RIGHT,
        diagnosis_document,
        evidence_lines,
        headline,
        region_rows,
        skipped_lines,
    )

    if as_json:
        print_json(diagnosis_document(examination))
        return
    for line in skipped_lines(examination.skipped):
        say(line)
    for place, run in enumerate(examination.runs):
        print("\n" * (place > 0) + printable(headline(run)))
        print_table(HEADER, region_rows(run.diagnosis), right=RIGHT)
        for line in evidence_lines(run):
            print(printable(line))

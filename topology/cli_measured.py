"""``topology validate`` and ``topology calibrate``: parse, one library call, print."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleet.console import (
    STDIO,
    AsJson,
    ExitCode,
    leave,
    print_json,
    print_table,
    printable,
    progress,
    say,
)
from topology.errors import WorkloadError
from topology.words import Collective

if TYPE_CHECKING:
    from topology.latency.calibration import Calibration
    from topology.measured.observed import Observed
    from topology.measured.own_runs import OwnRuns
    from topology.measured.validation import Tolerance, Validation

RUNS = "Table of runs (CSV): one row a run, with its hardware and settings."
POINTS = "Table of points (CSV): run_id, size_bytes, time_us."
Calibrated = Annotated[
    Path | None,
    typer.Option(
        "--calibration", metavar="FILE", help="Your own calibration; default: the one that ships."
    ),
]


def validate(
    *,
    runs: Annotated[str, typer.Option(metavar="FILE", help=RUNS)],
    points: Annotated[str, typer.Option(metavar="FILE", help=POINTS)],
    calibration: Calibrated = None,
    tolerance: Annotated[
        str,
        typer.Option(
            metavar="WORD|MEDIAN/P90",
            help="Factors that no cell may exceed: held-out (what the shipped calibration does on "
            "machines that were held out, rounded up), aim (what the model aims for), "
            "or numbers for all cells, e.g. 1.3/2.",
        ),
    ] = "held-out",
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Draw predicted against measured: .png, .svg or .pdf."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write the JSON document to FILE."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hold the model against runs that were measured, cell by cell, beside NCCL's own model.

    A cell is one node or across nodes, and a region of sizes. Exit 1 if a cell is outside the
    tolerance, 4 if no run can be used; runs that cannot are named and counted.
    """
    from topology.measured.runs import read_runs
    from topology.measured.validation import validate as run_validation

    if plot is not None:
        from topology.diagram.plot_file import plot_form

        plot_form(plot)
    if runs == points == STDIO:
        raise WorkloadError("stdin is asked for twice", where=STDIO, remedy="give one as a file")
    limits = _tolerance(tolerance)
    figures = _calibration(calibration)
    found = run_validation(read_runs(runs, points), figures, limits)
    if plot is not None:
        from topology.diagram.validation_plot import draw_validation

        draw_validation(found, plot)
        say(f"wrote {plot}")
    _print_validation(found, output=output, as_json=as_json)
    if not found.cells:
        leave(ExitCode.NOTHING_COLLECTED)
    if found.outside:
        leave(ExitCode.FINDINGS)


def _tolerance(text: str) -> "Tolerance":
    """A tolerance by its name, or from two numbers."""
    from topology.latency.calibration import load_calibration
    from topology.measured.validation import (
        Factors,
        aimed_tolerance,
        held_out_tolerance,
        one_tolerance,
    )

    if text == "held-out":
        return held_out_tolerance(load_calibration())
    if text == "aim":
        return aimed_tolerance()
    try:
        median, p90 = (float(part) for part in text.split("/"))
    except ValueError:
        median = p90 = 0.0
    if not 1 <= median <= p90 < float("inf"):
        raise WorkloadError(
            f"{text!r} is no tolerance",
            field="--tolerance",
            remedy="write held-out, aim, or MEDIAN/P90 with 1 <= MEDIAN <= P90, e.g. 1.3/2",
        )
    return one_tolerance(Factors(median, p90))


def _calibration(path: Path | None) -> "Calibration":
    from topology.latency.calibration import load_calibration, read_calibration

    return load_calibration() if path is None else read_calibration(path)


def _print_validation(found: "Validation", *, output: str | None, as_json: bool) -> None:
    from topology.measured import validation_report as report

    if output is not None:
        import json

        from fleet import write_bytes

        document = json.dumps(report.validation_document(found), allow_nan=False)
        write_bytes(f"{document}\n".encode(), output)
    if as_json and output != STDIO:
        print_json(report.validation_document(found))
    elif output != STDIO:
        print(report.used_line(found))
        print_table(*report.cell_table(found), right=report.RIGHT)
        print("\n" + report.family_title(found))
        print_table(*report.family_table(found), right=report.RIGHT)
        print()
        if found.skipped:
            print_table(*report.skipped_table(found), right=(0,))
            print()
        for line in report.note_lines(found):
            print(printable(line))


def calibrate(
    *,
    runs: Annotated[str | None, typer.Option(metavar="FILE", help=RUNS)] = None,
    points: Annotated[str | None, typer.Option(metavar="FILE", help=POINTS)] = None,
    nccl_tests: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="What your own nccl-tests printed; give it several times for several files. "
            "Alone it moves the shipped calibration, beside --runs it joins them.",
        ),
    ] = None,
    fleet_file: Annotated[
        str | None,
        typer.Option(
            "--map", metavar="MAP", help="Fleet map of the machine that ran --nccl-tests."
        ),
    ] = None,
    collective: Annotated[
        Collective | None,
        typer.Option(help="Collective of nccl-tests tables that do not tell theirs."),
    ] = None,
    calibration: Calibrated = None,
    data_name: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What the data is called; default: the files' names."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Write the calibration (TOML); '-' is stdout."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fit the model's figures to runs that were measured, yours or published ones.

    Machines are held out one after another, which tells how far a machine never seen is missed.
    Runs called slow or broken (quality C) are not used. The same input gives the same bytes.
    """
    from topology.measured.own_runs import read_own_runs

    _check_inputs(runs, points, nccl_tests, fleet_file)
    if output is None and not as_json:
        raise WorkloadError("no file is asked for", field="-o", remedy="give FILE, '-' or --json")
    own = None
    if nccl_tests:
        from topology.fabric.from_fleet import load_fabric

        own = read_own_runs(nccl_tests, load_fabric(str(fleet_file)), collective=collective)
        _say_own(own)
    names = [Path(path).name for path in (runs, *(nccl_tests or ())) if path is not None]
    data = data_name or ", ".join(names)
    if runs is not None and points is not None:
        fitted = _fitted(runs, points, own.runs if own else (), data)
        _finish(fitted, output=output, as_json=as_json)
    elif own is not None:
        from topology.measured.own_runs import recalibrate

        before = _calibration(calibration)
        fitted = recalibrate(own.runs, before, data=data)
        _finish(fitted, before=before, output=output, as_json=as_json)


def _check_inputs(
    runs: str | None, points: str | None, nccl_tests: Sequence[str] | None, fleet_file: str | None
) -> None:
    """What belongs together is given together, and something is given at all."""
    pairs = (
        ("--runs", runs, "--points", points),
        ("--nccl-tests", nccl_tests, "--map", fleet_file),
    )
    for a, has_a, b, has_b in pairs:
        if bool(has_a) != bool(has_b):
            here, missing = (a, b) if has_a else (b, a)
            raise WorkloadError(f"{here} alone says nothing", field=missing, remedy="give both")
    if not runs and not nccl_tests:
        raise WorkloadError(
            "no measurements", remedy="give --runs and --points, or --nccl-tests and --map"
        )


def _say_own(own: "OwnRuns") -> None:
    for run_id, reason in own.skipped:
        say(f"skipped {run_id}: {reason}")
    for note in own.notes:
        say(f"note: {note}")


def _fitted(runs: str, points: str, own: "Sequence[Observed]", data: str) -> "Calibration":
    from fleet.naming import counted
    from topology.measured.calibrate import calibrate as fit_and_hold_out
    from topology.measured.observed import observe
    from topology.measured.runs import read_runs

    table = read_runs(runs, points)
    seen, unseen = observe(table.runs)
    skipped = (*table.skipped, *unseen)
    if skipped:
        say(f"skipped {counted(len(skipped), 'run')}, as {skipped[0].run_id}: {skipped[0].reason}")
    with progress("machines held out") as bar:
        task = bar.add_task("machines", total=None)
        return fit_and_hold_out(
            (*seen, *own),
            data=data,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _finish(
    fitted: "Calibration",
    *,
    output: str | None,
    as_json: bool,
    before: "Calibration | None" = None,
) -> None:
    """Write the file, and print what was found."""
    from topology.measured import calibration_report as report
    from topology.measured.calibration_text import calibration_text, rounded

    if output is not None:
        from fleet import write_bytes

        write_bytes(calibration_text(fitted).encode(), output)
    if output == STDIO:
        return
    if output is not None:
        say(f"wrote {output}")
    if as_json:
        print_json(report.calibration_document(rounded(fitted)))
        return
    print(printable(report.headline(fitted)))
    for table, right in report.tables(fitted, before):
        print()
        print_table(*table, right=right)

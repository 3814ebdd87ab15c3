"""``topology plan``: parse, one library call, print."""

from typing import TYPE_CHECKING, Annotated

import typer

from fleet.console import (
    STDIO,
    AsJson,
    ExitCode,
    FleetFile,
    Seed,
    leave,
    print_json,
    print_table,
    progress,
    say,
)
from topology.cli_options import Noise, Stack, Trials, bytes_of, refuse_twice, seconds_of
from topology.errors import WorkloadError
from topology.words import Collective, NoiseName, Objective

if TYPE_CHECKING:
    from topology.plan.workload import Workload


def plan(
    fleet_file: FleetFile,
    workload: Annotated[
        str | None,
        typer.Argument(help="Workload (YAML); else give the options.", metavar="WORKLOAD"),
    ] = None,
    *,
    collective: Annotated[
        Collective | None, typer.Option(help="What the ranks do together.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="One rank's whole buffer: 8 (bytes), 64KiB, 1GB."),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", "--ranks", help="World size.", min=1)
    ] = None,
    objective: Annotated[Objective, typer.Option(help="What to make small.")] = Objective.P99,
    target_p99: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Exit 1 if no candidate keeps its p99 within this, e.g. 30us."
        ),
    ] = None,
    stack: Stack = None,
    noise: Noise = NoiseName.DEDICATED,
    trials: Trials = None,
    seed: Seed = 0,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Write the chosen placement to FILE ('host slot' a line); '-' is stdout.",
            metavar="FILE",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose where to run a workload: scale in before scale out, and a reason for the others."""
    from fleet import write_bytes
    from topology.fabric.from_fleet import load_fabric
    from topology.plan.planner import Verdict, plan_workload
    from topology.plan.report import candidate_table, plan_document, plan_lines, verdict_text

    refuse_twice(fleet_file, workload)
    wanted = _workload(workload, collective, size, gpus, target_p99)
    fabric = load_fabric(fleet_file)
    with progress("candidates") as bar:
        task = bar.add_task("candidates", total=None)
        result = plan_workload(
            fabric,
            wanted,
            objective=objective,
            stack=stack,
            noise=noise,
            trials=trials,
            seed=seed,
            progress=lambda title: bar.update(task, description=title),
            notice=say if bar.disable else None,
        )
    if output is not None and result.chosen is not None and result.chosen.placement is not None:
        write_bytes(result.chosen.placement.text().encode(), output)
    if output == STDIO:
        say(verdict_text(result))
    elif as_json:
        print_json(plan_document(result))
    else:
        head, *rest = plan_lines(result)
        print(head)
        print_table(*candidate_table(result), right=(1, 2, 3, 4, 5, 6))
        print("\n".join(rest))
    if result.verdict is Verdict.NO_CANDIDATE:
        leave(ExitCode.FINDINGS)


def _workload(
    path: str | None,
    collective: Collective | None,
    size: str | None,
    gpus: int | None,
    target_p99: str | None,
) -> "Workload":
    """A workload from its file, or from the three options; options win over the file."""
    from topology.plan.workload import load_workload, workload_from_document

    told = {
        "collective": collective,
        "size_bytes": None if size is None else bytes_of("--size", size),
        "gpus": gpus,
        "target_p99_s": None if target_p99 is None else seconds_of("--target-p99", target_p99),
    }
    given = {name: value for name, value in told.items() if value is not None}
    if path is not None:
        told_there = load_workload(path).model_dump()
        return workload_from_document({**told_there, **given}, where=path)
    missing = [name for name in ("collective", "size_bytes", "gpus") if name not in given]
    if missing:
        raise WorkloadError(
            "no workload",
            field=", ".join(missing),
            remedy="give a workload file, or --collective, --size and --gpus",
        )
    head = {"kind": "workload", "schema_version": 1, "name": "from the options"}
    return workload_from_document({**head, **given}, where="options")

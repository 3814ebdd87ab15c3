"""The ``topology`` command: parse, one library call, print."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from fleet.console import (
    STDIO,
    AsJson,
    ExitCode,
    FleetFile,
    Seed,
    leave,
    make_app,
    print_json,
    print_table,
    progress,
    run_app,
    say,
)
from topology.cli_diagnose import diagnose
from topology.cli_figures import figures
from topology.cli_measured import calibrate, validate
from topology.cli_show import path, show
from topology.errors import WorkloadError
from topology.words import (
    AlgorithmName,
    Collective,
    DType,
    Launch,
    MethodName,
    NoiseName,
    Objective,
    ProtocolChoice,
    StackName,
    View,
)

if TYPE_CHECKING:
    from topology.collective.placement import Placement
    from topology.fabric.from_fleet import Fabric
    from topology.plan.workload import Workload

T = TypeVar("T")

app = make_app("Links of a fleet with their latency, collectives in percentiles, and plans.")
COMMANDS_OF_THEIR_OWN = (figures, validate, calibrate, diagnose)
COMMANDS_OF_LINKS = (show, path)

Ranks = Annotated[
    int | None,
    typer.Option("--gpus", "--ranks", help="World size; default: all there are.", min=1),
]
Stack = Annotated[
    StackName | None,
    typer.Option(
        help="Whose software is counted: NCCL's or RCCL's, calibrated; nccl-tuner: as NCCL itself "
        "predicts; MPI's; or none, the bare wire. Default: nccl on NVIDIA GPUs, rccl on AMD's, "
        "else wire."
    ),
]
for of_links in COMMANDS_OF_LINKS:
    app.command()(of_links)

Noise = Annotated[NoiseName, typer.Option(help="How noisy the fabric is.")]
TRIALS = "Noisy runs to replay; default: 368, which a p99 needs, to 10000 as seconds allow."
Trials = Annotated[int | None, typer.Option(help=TRIALS, min=1)]


@app.command()
def simulate(
    fleet_file: FleetFile,
    *,
    collective: Annotated[Collective, typer.Option(help="What the ranks do together.")],
    size: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="One rank's whole buffer, as nccl-tests counts it: 8 (bytes), 64KiB, 1GB.",
        ),
    ],
    gpus: Ranks = None,
    placement: Annotated[
        str,
        typer.Option(
            metavar="WORD|FILE",
            help="pack (fewest domains and nodes), spread (all nodes), "
            "or a FILE with one 'host slot' a line in rank order.",
        ),
    ] = "pack",
    algorithm: Annotated[
        AlgorithmName,
        typer.Option(help="auto takes what NCCL takes; on the wire the fastest without noise."),
    ] = AlgorithmName.AUTO,
    protocol: Annotated[
        ProtocolChoice, typer.Option(help="NCCL's protocol; auto takes what NCCL takes.")
    ] = ProtocolChoice.AUTO,
    launch: Annotated[
        Launch,
        typer.Option(
            help="One process or one thread for each GPU, one thread for all of a node, "
            "a CUDA graph, or eager: a framework's call."
        ),
    ] = Launch.PROCESS,
    dtype: Annotated[
        DType, typer.Option(help="Type of an element: no NVSwitch of Hopper's sums integers.")
    ] = DType.FLOAT32,
    stack: Stack = None,
    noise: Noise = NoiseName.DEDICATED,
    method: Annotated[
        MethodName,
        typer.Option(
            help="How percentiles are found: replay (monte_carlo), certified algebra (exact, where "
            "messages form trees), a law of growth (scaling, long rings); auto replays what takes "
            "seconds."
        ),
    ] = MethodName.AUTO,
    sharp: Annotated[
        bool, typer.Option("--sharp", help="The network's switches reduce (SHARP): allows collnet.")
    ] = False,
    without: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What if it were fixed: take away the noise of a node, a link class, "
            "a kind of link (nvlink, pci, net) or a layer (body, detour).",
        ),
    ] = None,
    attribute: Annotated[
        bool,
        typer.Option("--attribute", help="Also say who makes the tail: a replay for each cause."),
    ] = False,
    trials: Trials = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Simulate a collective: percentiles of its completion time, and what they are made of."""
    from topology.fabric.from_fleet import load_fabric
    from topology.latency.report import summary_document, summary_lines
    from topology.latency.scenario import Scenario
    from topology.latency.simulate import simulate as run_simulation

    scenario = Scenario(
        collective=collective,
        size_bytes=_bytes("--size", size),
        algorithm=algorithm,
        protocol=protocol.protocol,
        launch=launch,
        dtype=dtype,
        stack=stack,
        noise=noise,
        method=method,
        sharp=sharp,
        without=without,
        attribute=attribute,
        trials=trials,
        seed=seed,
    )
    _refuse_twice(fleet_file, placement)
    fabric = load_fabric(fleet_file)
    placed = _placement(fabric, placement, gpus)
    with progress("trials") as bar:
        task = bar.add_task("trials", total=None)
        summary = run_simulation(
            fabric,
            placed,
            scenario,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            notice=say if bar.disable else None,
        )
    if as_json:
        print_json(summary_document(summary))
    else:
        print("\n".join(summary_lines(summary)))


@app.command()
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

    _refuse_twice(fleet_file, workload)
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


@app.command()
def draw(
    fleet_file: FleetFile,
    *,
    view: Annotated[View, typer.Option(help="What to show.")] = View.RACKS,
    host: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Node whose inside is shown; default: the first."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Picture: .png, .svg, .pdf or .txt; '-' is text on stdout.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw the fleet as racks, the fabric as tiers, or one node's inside."""
    from topology.diagram.draw import draw_view, drawing_document, layout_of
    from topology.fabric.from_fleet import load_fabric

    if output is None and not as_json:
        raise WorkloadError(
            "no picture is asked for", field="-o", remedy="give FILE, '-' or --json"
        )
    _refuse_twice(STDIO if as_json else None, output, what="stdout")
    fabric = load_fabric(fleet_file)
    if output is not None:
        draw_view(fabric, view, host=host, output=output)
    if as_json:
        print_json(drawing_document(layout_of(fabric, view, host=host), view))
    elif output != STDIO:
        say(f"wrote {output}")


for command in COMMANDS_OF_THEIR_OWN:
    app.command()(command)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a workload."""
    from topology.plan.workload import Workload

    print_json(Workload.model_json_schema())


def _placement(fabric: "Fabric", words: str, ranks: int | None) -> "Placement":
    """The placement asked for: pack or spread as many ranks as asked, or a file's."""
    from fleet import read_bytes
    from topology.collective.placement import pack, placement_from_text, spread

    place = {"pack": pack, "spread": spread}.get(words)
    if place is not None:
        return place(fabric, len(fabric.endpoints) if ranks is None else ranks)
    text = read_bytes(Path(words)).decode("utf-8", errors="replace")
    placed = placement_from_text(fabric, text, where=words)
    if ranks is not None and ranks != placed.ranks:
        text = f"{placed.ranks} lines for {ranks} ranks"
        raise WorkloadError(text, where=words, remedy="make them agree")
    return placed


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
        "size_bytes": None if size is None else _bytes("--size", size),
        "gpus": gpus,
        "target_p99_s": None if target_p99 is None else _seconds("--target-p99", target_p99),
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


def _refuse_twice(*paths: str | None, what: str = "stdin") -> None:
    """Stdin can be read once, and stdout holds one document."""
    if paths.count(STDIO) > 1:
        text = f"{what} is asked for twice"
        raise WorkloadError(text, where=STDIO, remedy="give one of the two as a file")


def _bytes(option: str, text: str) -> int:
    from fleet.units import bytes_from_text

    return _more_than_0(bytes_from_text, option, text, "give at least one byte")


def _seconds(option: str, text: str) -> float:
    from fleet.units import seconds_from_text

    return _more_than_0(seconds_from_text, option, text, "give more than 0 s")


def _more_than_0(convert: Callable[[str], T], option: str, text: str, remedy: str) -> T:
    """What an option's text stands for; a fault names the option."""
    from fleet.units import UnitError

    try:
        value = convert(text)
    except UnitError as error:
        raise WorkloadError(error.problem, field=option, remedy=error.remedy) from None
    if not value:
        raise WorkloadError(f"{text!r} is nothing", field=option, remedy=remedy)
    return value


def main() -> None:
    """Entry point of the console script."""
    run_app(app)

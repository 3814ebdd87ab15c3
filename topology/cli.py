"""The ``topology`` command: parse, one library call, print."""

from typing import Annotated

import typer

from fleet.console import STDIO, AsJson, FleetFile, make_app, print_json, run_app, say
from topology.cli_diagnose import diagnose
from topology.cli_export import export
from topology.cli_figures import figures
from topology.cli_measured import calibrate, validate
from topology.cli_options import refuse_twice
from topology.cli_plan import plan
from topology.cli_show import path, show
from topology.cli_simulate import simulate
from topology.cli_step import step
from topology.cli_sweep import sweep
from topology.cli_tail import tail
from topology.errors import WorkloadError
from topology.words import DocumentKind, View

app = make_app("Links of a fleet with their latency, collectives in percentiles, and plans.")
FIRST_COMMANDS = (show, path, simulate, plan)
COMMANDS_OF_THEIR_OWN = (figures, validate, calibrate, diagnose, export, step, tail, sweep)
for first in FIRST_COMMANDS:
    app.command()(first)


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
    refuse_twice(STDIO if as_json else None, output, what="stdout")
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
def schema(
    kind: Annotated[
        DocumentKind, typer.Argument(help="Document whose JSON Schema is printed.")
    ] = DocumentKind.WORKLOAD,
) -> None:
    """Print the JSON Schema of a workload or of a step."""
    if kind is DocumentKind.STEP:
        from topology.steps.document import StepDocument

        print_json(StepDocument.model_json_schema())
    else:
        from topology.plan.workload import Workload

        print_json(Workload.model_json_schema())


def main() -> None:
    """Entry point of the console script."""
    run_app(app)

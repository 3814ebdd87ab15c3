"""``topology export``: parse, one library call, print."""

from typing import TYPE_CHECKING, Annotated

import typer

from fleet.console import STDIO, AsJson, FleetFile, print_json, printable, progress, say
from topology.cli_options import (
    BufferSize,
    NcclProtocol,
    Ranks,
    Stack,
    Where,
    bytes_of,
    placement_from_words,
    refuse_twice,
)
from topology.words import (
    AlgorithmName,
    Collective,
    ExportFormat,
    Launch,
    ProtocolChoice,
)

if TYPE_CHECKING:
    from topology.exports.case import Product
    from topology.latency.scenario import Scenario


def export(
    fleet_file: FleetFile,
    *,
    format_: Annotated[
        ExportFormat,
        typer.Option("--format", help="goal is LogGOPSim's; the others are named as they are."),
    ],
    collective: Annotated[Collective, typer.Option(help="What the ranks do together.")],
    size: BufferSize,
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER|FILE",
            help="New folder for the files and a README.txt; goal also to one FILE, if it ends in "
            ".goal or .goal.gz, or to stdout ('-').",
        ),
    ],
    gpus: Ranks = None,
    placement: Where = "pack",
    algorithm: Annotated[
        AlgorithmName, typer.Option(help="auto takes what simulate takes.")
    ] = AlgorithmName.AUTO,
    protocol: NcclProtocol = ProtocolChoice.AUTO,
    launch: Annotated[
        Launch, typer.Option(help="How the operation is started, as simulate has it.")
    ] = Launch.PROCESS,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Write a simulation's case for LogGOPSim, ASTRA-sim or SimAI, with the commands to compare."""
    from topology.exports.case import make_case
    from topology.exports.export import export_document, export_product, long_export_text
    from topology.exports.write import write_export
    from topology.fabric.from_fleet import load_fabric
    from topology.latency.scenario import Scenario

    scenario = Scenario(
        collective=collective,
        size_bytes=bytes_of("--size", size),
        algorithm=algorithm,
        protocol=protocol.protocol,
        launch=launch,
        stack=stack,
    )
    refuse_twice(fleet_file, placement)
    refuse_twice(output, STDIO if as_json else None, what="stdout")
    fabric = load_fabric(fleet_file)
    placed = placement_from_words(fabric, placement, gpus)
    command = own_command(fleet_file, placement, placed.ranks, scenario)
    case = make_case(fabric, placed, scenario, command=command)
    product = export_product(case, format_, output)
    large = long_export_text(product)
    if large is not None:
        say(large)
    with progress("bytes") as bar:
        task = bar.add_task("bytes", total=None)
        files = write_export(
            case,
            product,
            output,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        print_json(export_document(case, product, files))
    else:
        _say(product, files, command, output)


def own_command(fleet_file: str, placement: str, ranks: int, scenario: "Scenario") -> str:
    """The command that simulates the same case here."""
    from shlex import join

    words = ["topology", "simulate", fleet_file]
    words += ["--collective", scenario.collective, "--size", str(scenario.size_bytes)]
    words += ["--gpus", str(ranks), "--placement", placement, "--algorithm", scenario.algorithm]
    words += ["--launch", scenario.launch]
    words += ["--protocol", scenario.protocol] if scenario.protocol else []
    words += ["--stack", scenario.stack] if scenario.stack else []
    return join(words)


def _say(product: "Product", files: list[str], command: str, output: str) -> None:
    """Where it is, and how to run it and ours beside it."""
    count = f" ({len(files)} files)" if len(files) > 1 else ""
    say(f"wrote {output}{count}" if output != STDIO else "wrote stdout")
    for line in (*product.commands, command):
        say(f"  {printable(line)}")

"""The ``fleet`` command: parse, one library call, print."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fleet.console import (
    STDIO,
    AsJson,
    ExitCode,
    FleetFile,
    Output,
    leave,
    make_app,
    print_json,
    print_table,
    run_app,
    say,
)

app = make_app("Map a fleet of GPUs: where they are, in which state, wired how.")


class DocumentKind(StrEnum):
    """Documents that have a schema."""

    FLEET_MAP = "fleet_map"
    NODE_SNAPSHOT = "node_snapshot"


@app.command()
def inventory(
    *,
    sources: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="File or folder that holds facts: NCCL topology XML, nvidia-smi -q -x, "
            "nvidia-smi topo -m, fleetmap JSON. Told from content; may be given several times.",
        ),
    ] = None,
    synthetic: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Make a fleet from words such as 'model:dgx-h100 node:32 leaf:8 spine:4'; "
            "what is left out follows the model's reference design.",
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the one machine read.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write each node's snapshot into DIR, to be read again."),
    ] = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Map this node (its NVIDIA driver), or files, or a synthetic fleet."""
    from fleet.inventory import record as write_record
    from fleet.inventory import take_inventory
    from fleet.naming import counted
    from fleet.store import save_fleet

    gathered = take_inventory(files=sources or (), spec=synthetic, host=host)
    if record is not None:
        count = counted(len(write_record(gathered.fleet, record)), "snapshot")
        say(f"recorded {count} in {record}")
        if gathered.fleet.switches:
            say("switches and cables are in no node's snapshot; keep them with -o FILE")
    if output is not None:
        save_fleet(gathered.fleet, output)
    _print_inventory(gathered, as_json=as_json, quiet=output == STDIO)
    if gathered.refused:
        leave(ExitCode.PARTIAL)


@app.command()
def check(fleet_file: FleetFile, as_json: AsJson = False) -> None:
    """Say what the map alone shows to be wrong or odd; exit 1 if there is anything."""
    from fleet.check import check_fleet
    from fleet.report import finding_rows
    from fleet.store import load_fleet

    findings = check_fleet(load_fleet(fleet_file))
    if as_json:
        rows = [finding.model_dump(mode="json") for finding in findings]
        print_json({"kind": "findings", "schema_version": 1, "findings": rows})
    elif findings:
        print_table(("severity", "code", "where", "what"), finding_rows(findings))
    else:
        print("nothing found")
    if findings:
        leave(ExitCode.FINDINGS)


@app.command()
def schema(
    kind: Annotated[
        DocumentKind, typer.Argument(help="Document whose JSON Schema is printed.")
    ] = DocumentKind.FLEET_MAP,
) -> None:
    """Print the JSON Schema of the map or of a node's snapshot."""
    from fleet.store import json_schema

    print_json(json_schema(kind.value))


_NAMED = 3
"""So many of the skipped files are named."""


def _print_inventory(gathered: object, *, as_json: bool, quiet: bool) -> None:
    import json

    from fleet.naming import counted
    from fleet.report import HEADER, fleet_lines, fleet_rows
    from fleet.sources.registry import Gathered
    from fleet.store import bytes_from_document

    assert isinstance(gathered, Gathered)
    if gathered.skipped:
        count = counted(len(gathered.skipped), "file")
        more = ", ..." if len(gathered.skipped) > _NAMED else ""
        say(f"skipped {count}, no source: {', '.join(gathered.skipped[:_NAMED])}{more}")
    for refusal in gathered.refused:
        say(f"refused {refusal.path}: {refusal.reason}")
    if quiet:
        return
    if as_json:
        print_json(json.loads(bytes_from_document(gathered.fleet)))
        return
    print("\n".join(fleet_lines(gathered.fleet)))
    print_table(HEADER, fleet_rows(gathered.fleet), right=(1, 2))


def main() -> None:
    """Entry point of the console script."""
    run_app(app)

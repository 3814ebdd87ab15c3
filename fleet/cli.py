"""The ``fleet`` command: parse, one library call, print."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fleet.cli_agent import agent
from fleet.cli_doctor import doctor
from fleet.cli_gather import gather
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
    printable,
    run_app,
    say,
)

app = make_app("Map a fleet of GPUs: where they are, in which state, wired how.")
COMMANDS_OF_THEIR_OWN = (gather, agent, doctor)


class DocumentKind(StrEnum):
    """Documents that have a schema."""

    FLEET_MAP = "fleet_map"
    NODE_SNAPSHOT = "node_snapshot"
    NODE_READING = "node_reading"


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
    deadline: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Longest wait for one call of the driver on this node; a device that is silent "
            "for longer is left out. The first call, which may wake the GPUs, gets four times as "
            "long.",
        ),
    ] = "5s",
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="Where this node's /sys and /proc stand.")
    ] = Path("/"),
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep what was read in DIR, one file for each node; --from DIR reads it again.",
        ),
    ] = None,
    redact: Annotated[
        bool,
        typer.Option(
            "--redact",
            help="With --record: stable pseudonyms for serials, UUIDs, GUIDs, hosts and users.",
        ),
    ] = False,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Map this node (its NVIDIA driver), or files, or a synthetic fleet."""
    from fleet.node import BegunReading, NodeReader
    from fleet.units import seconds_from_text

    reader = NodeReader(root=str(root), deadline_s=seconds_from_text(deadline))
    # This node is read while the model loads, which takes as long.
    begun = None if sources or synthetic is not None else BegunReading(reader)

    from fleet.inventory import take_inventory
    from fleet.store import save_fleet

    gathered = take_inventory(files=sources or (), spec=synthetic, host=host, begun=begun)
    _record(gathered, record, redact=redact)
    if output is not None:
        save_fleet(gathered.fleet, output)
    faults = _print_inventory(gathered, as_json=as_json, quiet=output == STDIO)
    if gathered.refused or faults:
        leave(ExitCode.PARTIAL)


for command in COMMANDS_OF_THEIR_OWN:
    app.command()(command)


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
    """Print the JSON Schema of the map, of a node's snapshot or of its reading."""
    from fleet.store import json_schema

    print_json(json_schema(kind.value))


_NAMED = 3
"""So many of the skipped files are named."""


def _record(gathered: object, folder: Path | None, *, redact: bool) -> None:
    from fleet.errors import FleetError
    from fleet.inventory import record
    from fleet.naming import counted
    from fleet.sources.registry import Gathered

    assert isinstance(gathered, Gathered)
    if folder is None:
        if redact:
            raise FleetError("has no effect alone", field="--redact", remedy="add --record DIR")
        return
    key = None
    if redact:
        from fleet.redact import redaction_key

        key = redaction_key()
    paths = record(gathered.fleet, folder, reading=gathered.reading, key=key)
    say(f"recorded {counted(len(paths), 'node')} in {folder}")
    if gathered.fleet.switches:
        say("switches and cables are in no node's snapshot; keep them with -o FILE")


def _print_inventory(gathered: object, *, as_json: bool, quiet: bool) -> bool:
    """Print the map; whether devices do not answer."""
    import json

    from fleet.naming import counted
    from fleet.report import (
        FAULT_HEADER,
        HEADER,
        fault_rows,
        fleet_lines,
        fleet_rows,
        set_aside_lines,
    )
    from fleet.sources.registry import Gathered
    from fleet.store import bytes_from_document

    assert isinstance(gathered, Gathered)
    if gathered.skipped:
        count = counted(len(gathered.skipped), "file")
        more = ", ..." if len(gathered.skipped) > _NAMED else ""
        say(f"skipped {count}, no source: {', '.join(gathered.skipped[:_NAMED])}{more}")
    for refusal in gathered.refused:
        say(f"refused {refusal.path}: {refusal.reason}")
    faults = fault_rows(gathered.fleet)
    if quiet:
        return bool(faults)
    if as_json:
        print_json(json.loads(bytes_from_document(gathered.fleet)))
        return bool(faults)
    print("\n".join(fleet_lines(gathered.fleet)))
    print_table(HEADER, fleet_rows(gathered.fleet), right=(1, 2))
    for line in set_aside_lines(gathered.fleet):
        print(printable(line))
    if faults:
        print("does not answer:")
        print_table(FAULT_HEADER, faults)
    return bool(faults)


def main() -> None:
    """Run the command line, with its exit codes."""
    run_app(app)

"""``fleet gather``: parse, one library call, print."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleet.console import (
    STDIO,
    AsJson,
    ExitCode,
    Output,
    leave,
    print_json,
    print_table,
    progress,
    say,
)

if TYPE_CHECKING:
    from fleet.gather.sweep import Gathering
    from fleet.gather.ways import Whom

MOST_PARALLEL = 512


def gather(
    *,
    hosts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Hosts to ask over ssh, such as 'gpu[001-128],a1'; may be given several times.",
        ),
    ] = None,
    hostfile: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Further hosts, lists on lines; '-' is stdin."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("-x", "--exclude", metavar="LIST", help="Hosts not to ask."),
    ] = None,
    srun: Annotated[
        bool,
        typer.Option(
            "--srun", help="Ask through Slurm's srun; inside an allocation its nodes by default."
        ),
    ] = False,
    spool: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Ask nobody: read what agents wrote into a folder."),
    ] = None,
    agents: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URLS",
            help="Ask agents: 'http://gpu[001-128]:9409', 'unix:/run/fleetmap.sock'.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Bearer token for agents.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates to trust agents by (PEM).")
    ] = None,
    ssh: Annotated[
        str, typer.Option(metavar="COMMAND", help="OpenSSH's client, with options if need be.")
    ] = "ssh",
    ssh_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Setting for ssh -o; may be given several times."),
    ] = None,
    parallel: Annotated[
        int, typer.Option(min=1, max=MOST_PARALLEL, help="Hosts asked at a time.")
    ] = 64,
    deadline: Annotated[
        str, typer.Option(metavar="TIME", help="Longest wait for one host, such as 20s.")
    ] = "20s",
    max_age: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="Older answers of a spool or an agent are told as stale."
        ),
    ] = "10min",
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write each host's answer into DIR as it comes."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Ask only hosts of which --keep DIR has no answer.")
    ] = False,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Map many nodes: over ssh, through srun, from a spool folder, or from their agents."""
    from fleet.gather.ways import Whom, duration_s

    whom = Whom(
        hosts=hosts or (),
        hostfile=hostfile,
        exclude=exclude or (),
        srun=srun,
        spool=spool,
        agents=agents or (),
        token_file=token_file,
        ca_file=ca_file,
        ssh=ssh,
        ssh_options=ssh_option or (),
    )
    gathering = _gathered(
        whom,
        deadline_s=duration_s(deadline, field="--deadline"),
        max_age_s=duration_s(max_age, field="--max-age"),
        parallel=parallel,
        keep=keep,
        resume=resume,
    )
    _save(gathering, output)
    _print(gathering, as_json=as_json, quiet=output == STDIO)
    if gathering.is_empty:
        leave(ExitCode.NOTHING_COLLECTED)
    if gathering.is_partial:
        leave(ExitCode.PARTIAL)


def _gathered(
    whom: "Whom",
    *,
    deadline_s: float,
    max_age_s: float,
    parallel: int,
    keep: Path | None,
    resume: bool,
) -> "Gathering":
    from fleet.errors import FleetError
    from fleet.gather.keep import keep_in
    from fleet.gather.sweep import gather_fleet
    from fleet.gather.ways import exposed_agents, is_stored, transport_for

    if resume and keep is None:
        raise FleetError("--resume goes with --keep DIR", remedy="name the folder")
    transport = transport_for(whom, deadline_s=deadline_s)
    exposed = exposed_agents(transport)
    if exposed:
        say(f"the token travels unencrypted to {', '.join(exposed[:3])}; https:// would hide it")
    kept = keep_in(keep) if keep is not None else None
    try:
        with progress("gather") as bar:
            task = bar.add_task("", total=len(transport.hosts))
            return gather_fleet(
                transport,
                parallel=parallel,
                keep=kept,
                resume=resume,
                max_age_s=max_age_s if is_stored(whom) else None,
                on_outcome=lambda outcome: bar.advance(task),
            )
    except KeyboardInterrupt:
        where = f"; what came is in {keep}, go on with --resume" if keep else ""
        say(f"interrupted{where}")
        leave(ExitCode.INTERRUPTED)


def _save(gathering: "Gathering", output: str | None) -> None:
    from fleet.store import save_fleet

    if output is not None and not gathering.is_empty:
        save_fleet(gathering.fleet, output)


def _print(gathering: "Gathering", *, as_json: bool, quiet: bool) -> None:
    from fleet.gather.report import HEADER, gathering_document, outcome_rows, outcome_text
    from fleet.report import HEADER as FLEET_HEADER
    from fleet.report import fleet_lines, fleet_rows

    if quiet or as_json:
        say(outcome_text(gathering))
    if quiet:
        return
    if as_json:
        print_json(gathering_document(gathering))
        return
    if not gathering.is_empty:
        print("\n".join(fleet_lines(gathering.fleet)))
        print_table(FLEET_HEADER, fleet_rows(gathering.fleet), right=(1, 2))
        print()
    print_table(HEADER, outcome_rows(gathering), right=(1,))

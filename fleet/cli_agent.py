"""The ``fleet agent`` command: parse, then become the agent."""

from typing import Annotated

import typer

_IN_CLEAR = "Serve a port that others can reach without asking who they are."


def agent(
    *,
    interval: Annotated[
        str, typer.Option(metavar="DURATION", help="Time between readings, such as 60s.")
    ] = "60s",
    jitter: Annotated[
        str,
        typer.Option(
            metavar="PERCENT",
            help="Each interval is longer or shorter by up to this, so that nodes do not read "
            "all at once.",
        ),
    ] = "10%",
    deadline: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="Longest wait for one call of the driver; the first call gets four times as long.",
        ),
    ] = "5s",
    host: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of this node; its own host name by default."),
    ] = None,
    spool: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Also keep the last good snapshot in DIR, as HOST.snapshot.json; DIR must exist.",
        ),
    ] = None,
    listen: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Serve on HOST:PORT, [IPV6]:PORT or unix:/PATH (mode 0660)."
        ),
    ] = "127.0.0.1:9409",
    tls_cert: Annotated[
        str | None, typer.Option(metavar="FILE", help="Certificate (PEM): serve over TLS.")
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(metavar="FILE", help="Key of the certificate (PEM).")
    ] = None,
    client_ca: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Clients need a certificate of this authority (PEM)."),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Clients need this bearer token; nobody else's to read."),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help=_IN_CLEAR)] = False,
) -> None:
    """Read this node on an interval; keep, spool and serve its last good snapshot and metrics."""
    from fleet.agent.launch import become_agent

    become_agent(
        {
            "interval": interval,
            "jitter": jitter,
            "deadline": deadline,
            "host": host,
            "spool": spool,
            "listen": listen,
            "tls-cert": tls_cert,
            "tls-key": tls_key,
            "client-ca": client_ca,
            "token-file": token_file,
            "insecure": "yes" if insecure else None,
        }
    )

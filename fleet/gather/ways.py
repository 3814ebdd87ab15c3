"""Ways to reach nodes: one transport from what the command line says."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet.errors import FleetError
from fleet.gather.agents import Agent, AgentsTransport, agents_from_text, tls_context
from fleet.gather.agents import token_from_file as read_token
from fleet.gather.hostlist import expand_hosts, select_hosts
from fleet.gather.outcome import Transport
from fleet.gather.shell import program_from_text
from fleet.gather.spool import SpoolTransport, spool_from_folder
from fleet.gather.srun import SrunTransport, allocated_hosts, is_inside_allocation
from fleet.gather.ssh import SshTransport
from fleet.units import seconds_from_text

_LOOPBACK: Final = re.compile(r"localhost|127\.[0-9.]+|::1")


@dataclass(frozen=True, slots=True)
class Whom:
    """Whom to ask and how, as the command line says it."""

    hosts: Sequence[str] = ()
    hostfile: str | None = None
    exclude: Sequence[str] = ()
    srun: bool = False
    spool: Path | None = None
    agents: Sequence[str] = ()
    token_file: Path | None = None
    ca_file: Path | None = None
    ssh: str = "ssh"
    ssh_options: Sequence[str] = ()


def transport_for(whom: Whom, *, deadline_s: float) -> Transport:
    """The one transport that is asked for. [s]

    Raises:
        FleetError: none or several are asked for, or a host, URL, file or program is wrong.
    """
    _refuse_contradictions(whom)
    if whom.spool is not None:
        return _without(spool_from_folder(whom.spool), whom.exclude)
    if whom.agents:
        return _agents(whom, deadline_s)
    if whom.srun:
        return _srun(whom, deadline_s)
    return SshTransport(
        hosts=select_hosts(whom.hosts, hostfile=whom.hostfile, exclude=whom.exclude),
        deadline_s=deadline_s,
        program=program_from_text(whom.ssh),
        options=tuple(whom.ssh_options),
    )


def is_stored(whom: Whom) -> bool:
    """Whether the answers were read some time ago, so that their age matters."""
    return whom.spool is not None or bool(whom.agents)


def exposed_agents(transport: Transport) -> tuple[str, ...]:
    """Agents to which the token would travel in the open, over a network without TLS."""
    if not isinstance(transport, AgentsTransport) or transport.token is None:
        return ()
    return tuple(label for label, agent in transport.agents.items() if _is_exposed(agent))


def duration_s(text: str, *, field: str) -> float:
    """A duration such as ``20s``, ``10min`` or ``2h``. [s]

    >>> duration_s("10min", field="--max-age"), duration_s("20s", field="--deadline")
    (600.0, 20.0)

    Raises:
        FleetError: it is none, or it is not above zero.
    """
    value_s = seconds_from_text(text)
    if value_s <= 0:
        raise FleetError(f"{text!r} is no time to wait", field=field, remedy="such as 20s")
    return value_s


def _refuse_contradictions(whom: Whom) -> None:
    ways = list(_ways(whom))
    if len(ways) != 1:
        raise FleetError(
            f"{' and '.join(ways)} exclude each other" if ways else "nobody to ask",
            remedy="give one of --hosts, --hostfile, --srun, --spool or --agents",
        )
    for given, option, way in (
        (whom.token_file, "--token-file", "--agents"),
        (whom.ca_file, "--ca-file", "--agents"),
        (whom.ssh_options, "--ssh-option", "--hosts"),
    ):
        if given and ways != [way]:
            raise FleetError(f"{option} goes with {way}", remedy="leave it out")


def _ways(whom: Whom) -> Iterator[str]:
    if whom.srun:
        yield "--srun"
    elif whom.hosts or whom.hostfile:
        yield "--hosts"
    if whom.spool is not None:
        yield "--spool"
    if whom.agents:
        yield "--agents"


def _srun(whom: Whom, deadline_s: float) -> SrunTransport:
    lists = list(whom.hosts)
    if not lists and whom.hostfile is None:
        lists = [",".join(allocated_hosts())]
    return SrunTransport(
        hosts=select_hosts(lists, hostfile=whom.hostfile, exclude=whom.exclude),
        deadline_s=deadline_s,
        program=program_from_text("srun"),
        is_inside=is_inside_allocation(),
    )


def _agents(whom: Whom, deadline_s: float) -> AgentsTransport:
    agents = agents_from_text(whom.agents)
    for host in _excluded(whom.exclude):
        agents.pop(host, None)
    return AgentsTransport(
        agents=agents,
        deadline_s=deadline_s,
        token=read_token(whom.token_file) if whom.token_file else None,
        tls=tls_context(whom.ca_file) if any(a.is_tls for a in agents.values()) else None,
    )


def _without(spool: SpoolTransport, exclude: Sequence[str]) -> SpoolTransport:
    left_out = set(_excluded(exclude))
    return SpoolTransport({name: f for name, f in spool.files.items() if name not in left_out})


def _excluded(lists: Sequence[str]) -> Iterator[str]:
    for text in lists:
        yield from expand_hosts(text, where="--exclude")


def _is_exposed(agent: Agent) -> bool:
    return not agent.is_tls and agent.host is not None and not _LOOPBACK.fullmatch(agent.host)

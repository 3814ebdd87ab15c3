"""ssh: nodes asked over the user's own OpenSSH; his configuration, agent and known hosts hold."""

import secrets
from dataclasses import dataclass, field
from typing import Final

from fleet.gather.outcome import Answer, AnswerError, FailureReason, HostFailure
from fleet.gather.processes import Ran
from fleet.gather.program import login_command
from fleet.gather.shell import ask_by_command, reason_from_words, signs

FAILED: Final = 255
"""Exit status of the client where it is the client that failed."""

SIGNS: Final = signs(
    (r"could not resolve hostname [^:]*: (.*)", FailureReason.UNKNOWN_HOST),
    (r"(remote host identification has changed)", FailureReason.HOST_KEY),
    (r"(no \S+ host key is known)", FailureReason.HOST_KEY),
    (r"(host key verification failed)", FailureReason.HOST_KEY),
    (r"(permission denied.*)", FailureReason.AUTH),
    (r"(too many authentication failures)", FailureReason.AUTH),
    (r"(connection refused)", FailureReason.REFUSED),
    (r"(no route to host|network is unreachable|host is down)", FailureReason.UNREACHABLE),
    (r"(connection timed out.*|operation timed out)", FailureReason.TIMED_OUT),
    (r"(timeout, server \S+ not responding)", FailureReason.TIMED_OUT),
    (r"(no matching .* found)", FailureReason.CLOSED),
    (r"(connection (?:closed|reset))", FailureReason.CLOSED),
    (r"([^\n]*)\s*\Z", FailureReason.CLOSED),
)
_OPTIONS: Final = (
    "BatchMode=yes",
    "LogLevel=ERROR",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "RemoteCommand=none",
    "ServerAliveInterval=15",
)


def new_mark() -> str:
    """What begins the marked lines of one sweep; nobody can know it beforehand."""
    return f"@fleetmap-{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class SshTransport:
    """Asks over OpenSSH. ``program`` is the client's command line, ``options`` are for its -o."""

    hosts: tuple[str, ...]
    deadline_s: float
    program: tuple[str, ...] = ("ssh",)
    options: tuple[str, ...] = ()
    mark: str = field(default_factory=new_mark)

    async def ask(self, host: str) -> Answer | HostFailure:
        """Run the probe on a host and take what it prints."""
        return await ask_by_command(
            host, self.argv(host), mark=self.mark, deadline_s=self.deadline_s, told_by=told_by_ssh
        )

    def argv(self, host: str) -> list[str]:
        """The client's command line. The first of two settings wins, so the user's stand first."""
        settings = (*self.options, *_OPTIONS, f"ConnectTimeout={max(1, int(self.deadline_s))}")
        options = [word for setting in settings for word in ("-o", setting)]
        return [
            *self.program,
            *options,
            "-T",
            "--",
            host,
            login_command(self.mark, self.deadline_s),
        ]


def told_by_ssh(ran: Ran) -> AnswerError | None:
    """What the client says went wrong, None where it was not the client."""
    return reason_from_words(ran, SIGNS) if ran.exit_code == FAILED else None

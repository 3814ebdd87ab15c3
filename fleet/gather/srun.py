"""srun: nodes asked through Slurm, one task on each, inside an allocation or outside of one."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fleet.errors import FleetError
from fleet.gather.hostlist import expand_hosts
from fleet.gather.outcome import Answer, AnswerError, FailureReason, HostFailure
from fleet.gather.processes import Ran
from fleet.gather.program import far_side_argv
from fleet.gather.shell import ask_by_command, reason_from_words, signs
from fleet.gather.ssh import new_mark

SIGNS: Final = signs(
    (r"(invalid node name specified)", FailureReason.UNKNOWN_HOST),
    (r"(requested nodes? (?:are|is) busy)", FailureReason.UNREACHABLE),
    (r"(required node not available[^\n]*)", FailureReason.UNREACHABLE),
    (r"(nodes required for job are [^\n]*)", FailureReason.UNREACHABLE),
    (r"(unable to contact slurm controller[^\n]*)", FailureReason.UNREACHABLE),
    (r"(invalid account[^\n]*|access/permission denied)", FailureReason.AUTH),
    (
        r"unable to (?:allocate resources|create step for job \d+): ([^\n]*)",
        FailureReason.NOT_STARTED,
    ),
    (r"task launch for \S+ failed on node \S+: ([^\n]*)", FailureReason.NOT_STARTED),
    (r"(queued and waiting for resources)\s*\Z", FailureReason.NOT_STARTED),
    (r"(could not establish a configuration source)", FailureReason.NOT_STARTED),
)
_MINUTES: Final = 2


@dataclass(frozen=True, slots=True)
class SrunTransport:
    """Asks through ``srun``: beside the job's other steps, or in a short job of its own."""

    hosts: tuple[str, ...]
    deadline_s: float
    program: tuple[str, ...] = ("srun",)
    is_inside: bool = False
    mark: str = field(default_factory=new_mark)

    async def ask(self, host: str) -> Answer | HostFailure:
        """Run the probe on a node and take what it prints."""
        return await ask_by_command(
            host, self.argv(host), mark=self.mark, deadline_s=self.deadline_s, told_by=told_by_srun
        )

    def argv(self, host: str) -> list[str]:
        """The command line of srun."""
        wait = f"--immediate={max(1, int(self.deadline_s))}"
        place = ["--overlap"] if self.is_inside else [wait, f"--time={_MINUTES}"]
        return [
            *self.program,
            "--nodes=1",
            "--ntasks=1",
            f"--nodelist={host}",
            "--job-name=fleetmap",
            "--mpi=none",
            "--chdir=/",
            *place,
            *far_side_argv(self.mark, self.deadline_s),
        ]


def told_by_srun(ran: Ran) -> AnswerError | None:
    """What srun says went wrong, None where it was not srun."""
    return reason_from_words(ran, SIGNS)


def is_inside_allocation(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether we run in a job of Slurm's."""
    return "SLURM_JOB_ID" in environment


def allocated_hosts(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The nodes of the allocation we are in.

    Raises:
        FleetError: we are in none.
    """
    text = environment.get("SLURM_JOB_NODELIST", "")
    if not text:
        raise FleetError(
            "no hosts, and not inside an allocation", field="--srun", remedy="name --hosts"
        )
    return expand_hosts(text, where="SLURM_JOB_NODELIST")

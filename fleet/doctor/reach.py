"""Checks of the ways to other nodes, and of what an agent writes."""

import re
from typing import Final

from fleet.doctor.check import NOT_HERE, Check, Outcome, limited, missing, not_applicable, ok
from fleet.doctor.surroundings import Surroundings

OLDEST_PYTHON: Final = (3, 6)
"""The probe that a sweep sends to a node needs no newer one."""


def _ssh(here: Surroundings) -> Outcome:
    if not here.is_here:
        return NOT_HERE
    tool = here.tools.get("ssh")
    return limited("it is not installed") if tool is None else ok(tool.version or tool.path)


def _srun(here: Surroundings) -> Outcome:
    if not here.has_slurm:
        return not_applicable("no Slurm here")
    if not here.is_here:
        return NOT_HERE
    tool = here.tools.get("srun")
    if tool is None:
        return limited("it is not installed")
    if not tool.version.startswith("slurm"):
        what = f"{tool.path} --version: {tool.version or 'no answer'}"
        return limited(what, "give it the cluster's slurm.conf, in /etc/slurm or SLURM_CONF")
    return ok(tool.version)


def _python3(here: Surroundings) -> Outcome:
    if not here.is_here:
        return NOT_HERE
    tool = here.tools.get("python3")
    if tool is None:
        smi = " (nvidia-smi is there: a sweep takes its XML)" if "nvidia-smi" in here.tools else ""
        return limited(f"it is not on the path{smi}")
    found = re.search(r"([0-9]+)\.([0-9]+)", tool.version)
    if found and (int(found[1]), int(found[2])) < OLDEST_PYTHON:
        return limited(f"{tool.version} is too old")
    return ok(tool.version or tool.path)


def _spool(here: Surroundings) -> Outcome:
    if here.spool is None:
        return not_applicable("no spool named: give --spool DIR")
    if here.spool_problem is not None:
        return missing(
            f"{here.spool}: {here.spool_problem}",
            f"sudo install -d -o {here.user.name} {here.spool}",
        )
    return ok(f"{here.user.name} may write to {here.spool}")


CHECKS: Final = (
    Check(
        "gather.ssh",
        "OpenSSH's client",
        "fleet gather --hosts, from here",
        "sudo apt install openssh-client",
        _ssh,
    ),
    Check(
        "gather.srun",
        "Slurm's srun",
        "fleet gather --srun, from here",
        "sudo apt install slurm-client",
        _srun,
    ),
    Check(
        "gather.python3",
        "python3 of version 3.6 or newer",
        "fleet gather of this node, from elsewhere",
        "sudo apt install python3",
        _python3,
    ),
    Check(
        "agent.spool",
        "a spool folder that can be written",
        "fleet agent --spool DIR",
        "sudo install -d -o USER DIR",
        _spool,
    ),
)

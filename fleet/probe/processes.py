"""Processes that hold GPUs: whose they are and what they run, from /proc. Reads, asks no driver."""

import os
import pwd
from typing import Sequence

from fleet.probe import binding
from fleet.probe.keys import key_of
from fleet.probe.plan import Out

MOST_PROCESSES = 4096


def read_processes(pids: Sequence[int], out: Out, root: str = "/") -> None:
    """Command and owner of processes; one that is gone or hidden gives no answer."""
    for pid in list(pids)[:MOST_PROCESSES]:
        folder = os.path.join(root, "proc", str(int(pid)))
        key = key_of("process", int(pid))
        out.asking(key)
        try:
            with open(os.path.join(folder, "comm"), "rb") as file:
                name = file.read(64).decode("utf-8", "replace").strip()
            owner = os.stat(folder).st_uid
        except OSError:
            continue
        out.answer(key, binding.value({"name": name, "user": _user(owner)}))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

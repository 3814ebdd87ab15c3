"""Launch: the command line's process becomes the agent's, so that its packages weigh nothing."""

import os
import sys
from collections.abc import Mapping
from typing import NoReturn


def become_agent(options: Mapping[str, str | None]) -> NoReturn:
    """Become the agent: same process number, signals and manager; None leaves an option out."""
    arguments = [f"--{name}={text}" for name, text in options.items() if text is not None]
    sys.stderr.flush()
    # One arena of memory for all threads: glibc would give each its own, a megabyte of holes.
    environment = {"MALLOC_ARENA_MAX": "1", **os.environ}
    # -P: nothing is imported from the folder we happen to be in.
    command = [sys.executable, "-P", "-m", "fleet.agent", *arguments]
    os.execve(sys.executable, command, environment)

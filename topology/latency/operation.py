"""Operation: what is asked of a job besides sizes."""

from dataclasses import dataclass

from topology.words import Collective, Launch


@dataclass(frozen=True, slots=True)
class Operation:
    """What is asked of a job besides sizes. ``library``: whose custom kernels, if known."""

    collective: Collective
    launch: Launch = Launch.PROCESS
    is_integer: bool = False
    library: str = ""

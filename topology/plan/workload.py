"""Workload: what is to be run, from a YAML file or from options."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import PositiveFloat, PositiveInt, Strict

from fleet.units import bytes_from_text, seconds_from_text
from topology.documents import checked, from_text, yaml_from_file
from topology.fabric.link_figures import Figures, Words
from topology.words import Collective

REMEDY: Final = "see samples/workloads"


class Workload(Figures):
    """One collective of one size on so many GPUs, and the p99 it should keep, if any. [B], [s]"""

    kind: Literal["workload"]
    schema_version: Literal[1]
    name: Words
    collective: Collective
    size_bytes: Annotated[PositiveInt, Strict(), from_text(bytes_from_text)]
    gpus: Annotated[PositiveInt, Strict()]
    target_p99_s: Annotated[PositiveFloat | None, Strict(), from_text(seconds_from_text)] = None
    note: Words | None = None


def load_workload(path: str | Path) -> Workload:
    """A workload from a YAML file; sizes and times may carry units (``1MiB``, ``30us``).

    Raises:
        StoreError: it cannot be read, or is larger than a mebibyte.
        WorkloadError: not YAML, an unknown key, or a wrong value; names file and field.
    """
    document = yaml_from_file(path, what="workload", remedy=REMEDY)
    return workload_from_document(document, where=str(path))


def workload_from_document(document: dict[Any, Any], *, where: str) -> Workload:
    """A workload from its keys and values, checked.

    Raises:
        WorkloadError: an unknown key, or a wrong value; names file and field.
    """
    return checked(Workload, document, where=where, remedy=REMEDY)

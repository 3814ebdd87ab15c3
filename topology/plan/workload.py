"""Workload: what is to be run, from a YAML file or from options."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, PositiveFloat, PositiveInt, ValidationError

from fleet import read_bytes
from fleet.errors import ExpectedError
from fleet.units import bytes_from_text, seconds_from_text
from topology.errors import WorkloadError
from topology.fabric.link_figures import Figures, Words
from topology.words import Collective

LARGEST_WORKLOAD_BYTES = 1024 * 1024


def _bytes(value: Any) -> Any:
    return bytes_from_text(value) if isinstance(value, str) else value


def _seconds(value: Any) -> Any:
    return seconds_from_text(value) if isinstance(value, str) else value


class Workload(Figures):
    """One collective of one size on so many GPUs, and the p99 it should keep, if any. [B], [s]"""

    kind: Literal["workload"]
    schema_version: Literal[1]
    name: Words
    collective: Collective
    size_bytes: Annotated[PositiveInt, BeforeValidator(_bytes)]
    gpus: PositiveInt
    target_p99_s: Annotated[PositiveFloat | None, BeforeValidator(_seconds)] = None
    note: Words | None = None


def load_workload(path: str | Path) -> Workload:
    """A workload from a YAML file; sizes and times may carry units (``1MiB``, ``30us``).

    Raises:
        WorkloadError: not YAML, an unknown key, or a wrong value; names file and field.
    """
    where = str(path)
    content = read_bytes(path, limit=LARGEST_WORKLOAD_BYTES)
    try:
        document = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        raise WorkloadError(
            f"not YAML ({getattr(error, 'problem', None) or error})",
            where=where,
            field="" if line is None else f"line {line + 1}",
            remedy="see samples/workloads",
        ) from None
    if not isinstance(document, dict):
        raise WorkloadError("no workload", where=where, remedy="see samples/workloads")
    return _checked(document, where)


def _checked(document: dict[Any, Any], where: str) -> Workload:
    try:
        return Workload.model_validate(document)
    except ExpectedError as error:
        raise WorkloadError(error.problem, where=where, remedy=error.remedy) from None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        known = ", ".join(Workload.model_fields)
        unknown = fault["type"] == "extra_forbidden"
        raise WorkloadError(
            "no such key" if unknown else f"{fault['msg']} (was {fault['input']!r})",
            where=where,
            field=field,
            remedy=f"keys are {known}" if unknown else "see samples/workloads",
        ) from None

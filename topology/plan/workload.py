"""Workload: what is to be run, from a YAML file or from options."""

from collections.abc import Callable
from pathlib import Path
from reprlib import repr as short_repr
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, PositiveFloat, PositiveInt, Strict, ValidationError

from fleet import read_bytes
from fleet.units import UnitError, bytes_from_text, seconds_from_text
from topology.errors import WorkloadError
from topology.fabric.link_figures import Figures, Words
from topology.words import Collective

LARGEST_WORKLOAD_BYTES = 1024 * 1024


def _from_text(convert: Callable[[str], float]) -> BeforeValidator:
    """Text with a unit becomes a number before the field is checked."""

    def converted(value: Any) -> Any:
        try:
            return convert(value) if isinstance(value, str) else value
        except UnitError as error:
            raise ValueError(str(error)) from None

    return BeforeValidator(converted)


class Workload(Figures):
    """One collective of one size on so many GPUs, and the p99 it should keep, if any. [B], [s]"""

    kind: Literal["workload"]
    schema_version: Literal[1]
    name: Words
    collective: Collective
    size_bytes: Annotated[PositiveInt, Strict(), _from_text(bytes_from_text)]
    gpus: Annotated[PositiveInt, Strict()]
    target_p99_s: Annotated[PositiveFloat | None, Strict(), _from_text(seconds_from_text)] = None
    note: Words | None = None


def load_workload(path: str | Path) -> Workload:
    """A workload from a YAML file; sizes and times may carry units (``1MiB``, ``30us``).

    Raises:
        StoreError: it cannot be read, or is larger than a mebibyte.
        WorkloadError: not YAML, an unknown key, or a wrong value; names file and field.
    """
    where = str(path)
    content = read_bytes(path, limit=LARGEST_WORKLOAD_BYTES)
    try:
        document = yaml.safe_load(content)
    except (yaml.YAMLError, *_BAD_SCALARS, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise WorkloadError(
            f"not YAML ({reason})",
            where=where,
            field="" if line is None else f"line {line + 1}",
            remedy="see samples/workloads",
        ) from None
    if not isinstance(document, dict):
        raise WorkloadError("no workload", where=where, remedy="see samples/workloads")
    return workload_from_document(document, where=where)


_BAD_SCALARS = (ValueError, LookupError, AttributeError, TypeError, OverflowError)
"""What PyYAML lets out of scalars that are not what they look like, such as month 13."""


def workload_from_document(document: dict[Any, Any], *, where: str) -> Workload:
    """A workload from its keys and values, checked.

    Raises:
        WorkloadError: an unknown key, or a wrong value; names file and field.
    """
    try:
        return Workload.model_validate(document)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        known = ", ".join(Workload.model_fields)
        unknown = fault["type"] == "extra_forbidden"
        problem = f"{fault['msg']}{_value_text(fault['input'])}"
        if fault["type"] == "value_error":
            problem = str(fault["ctx"]["error"])
        raise WorkloadError(
            "no such key" if unknown else problem,
            where=where,
            field=field,
            remedy=f"keys are {known}" if unknown else "see samples/workloads",
        ) from None


def _value_text(value: object) -> str:
    return f" (was {short_repr(value)})" if isinstance(value, str | int | float) else ""

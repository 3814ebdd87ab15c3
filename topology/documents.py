"""Documents that people write: YAML with units becomes a checked model. One-line refusals."""

import re
from collections.abc import Callable
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ValidationError

from fleet import read_bytes
from fleet.units import UnitError
from topology.errors import WorkloadError

LARGEST_DOCUMENT_BYTES: Final = 1024 * 1024
_BAD_SCALARS = (ValueError, LookupError, AttributeError, TypeError, OverflowError)
"""What PyYAML lets out of scalars that are not what they look like, such as month 13."""

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Safe YAML in which no key stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Keys and values; a key that comes twice would lose what was said first."""
        plain = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        told = [key.value for key in plain if key.tag != _MERGE]
        for key in plain:
            if key.tag != _MERGE and told.count(key.value) > 1:
                again = [k for k in plain if k.value == key.value][1]
                problem = f"the key {key.value} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, again.start_mark)
        return super().construct_mapping(node, deep)


_MERGE: Final = "tag:yaml.org,2002:merge"
_EXPONENT_NUMBER: Final = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+")
"""Text to YAML 1.1, a number to JSON and YAML 1.2."""


def from_text(convert: Callable[[str], float]) -> BeforeValidator:
    """Text with a unit becomes a number before the field is checked; so does ``1e-3``.

    YAML 1.1 reads ``1e-3`` as text, and its writers leave a name such as ``0E0`` unquoted: only a
    field that wants a number can tell what is meant.
    """

    def converted(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return convert(value)
        except UnitError as error:
            if _EXPONENT_NUMBER.fullmatch(value):
                return float(value)
            raise ValueError(str(error)) from None

    return BeforeValidator(converted)


def ratio_from_text(text: str) -> float:
    """A ratio from text such as ``3 %``.

    Raises:
        UnitError: not a number of per cent.

    >>> ratio_from_text("3 %"), ratio_from_text("0.5%")
    (0.03, 0.005)
    """
    match = re.fullmatch(r"\s*([+-]?[0-9]+(?:\.[0-9]+)?)\s*%\s*", text)
    if match is None:
        raise UnitError(f"{text!r} is no ratio", remedy="write 3 %, or 0.03")
    return float(match[1]) / 100


def yaml_from_file(path: str | Path, *, what: str, remedy: str) -> dict[Any, Any]:
    """The keys and values of a YAML file; ``what`` it should hold, and where to see one.

    Raises:
        StoreError: it cannot be read, or is larger than a mebibyte.
        WorkloadError: not YAML, or no keys; names the file and the line.
    """
    where = str(path)
    content = read_bytes(path, limit=LARGEST_DOCUMENT_BYTES)
    try:
        document = yaml.load(content, _Loader)
    except (yaml.YAMLError, *_BAD_SCALARS, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise WorkloadError(
            f"not YAML ({reason})",
            where=where,
            field="" if line is None else f"line {line + 1}",
            remedy=remedy,
        ) from None
    if not isinstance(document, dict):
        raise WorkloadError(f"no {what}", where=where, remedy=remedy)
    return document


def checked(model: type[Model], document: dict[Any, Any], *, where: str, remedy: str) -> Model:
    """A model from its keys and values.

    Raises:
        WorkloadError: an unknown key, or a wrong value; names file, field and value.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        problem = f"{fault['msg']}{_value_text(fault['input'])}"
        if fault["type"] == "extra_forbidden":
            problem = "no such key"
            if len(fault["loc"]) == 1:
                remedy = f"keys are {', '.join(model.model_fields)}"
        elif fault["type"] == "value_error":
            problem = str(fault["ctx"]["error"])
        raise WorkloadError(problem, where=where, field=field, remedy=remedy) from None


def _value_text(value: object) -> str:
    return f" (was {short_repr(value)})" if isinstance(value, str | int | float) else ""

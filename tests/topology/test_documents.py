from pathlib import Path
from typing import Annotated

import pytest
import yaml
from pydantic import BaseModel, Field, Strict

from fleet.units import seconds_from_text
from topology.documents import checked, from_text, yaml_from_file
from topology.errors import WorkloadError


def read(folder: Path, text: str) -> dict[object, object]:
    path = folder / "document.yaml"
    path.write_text(text)
    return yaml_from_file(path, what="step", remedy="see the samples")


class Row(BaseModel):
    """A document of a name and a number."""

    name: str = "row"
    time_s: Annotated[float, Strict(), from_text(seconds_from_text), Field(allow_inf_nan=False)]


@pytest.mark.parametrize(
    ("text", "time_s"),
    [("1e-3", 1e-3), ("2E6", 2e6), ("1.5e-3", 1.5e-3), ("-1e+2", -100.0), ("1e3s", 1e3)],
)
def test_numbers_are_read_as_json_reads_them(tmp_path: Path, text: str, time_s: float) -> None:
    document = read(tmp_path, f"time_s: {text}")
    assert checked(Row, document, where="here", remedy="").time_s == time_s


@pytest.mark.parametrize("text", ["1e", "e3", "1e3 parsecs", "1e999"])
def test_what_only_looks_like_a_number_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(WorkloadError, match="time_s"):
        checked(Row, read(tmp_path, f"time_s: {text}"), where="here", remedy="")


@pytest.mark.parametrize("name", ["0E0", "1e-3", "12E10"])
def test_a_name_that_looks_like_a_number_stays_a_name(tmp_path: Path, name: str) -> None:
    text = yaml.safe_dump({"name": name, "time_s": 1.0})
    assert checked(Row, read(tmp_path, text), where="here", remedy="").name == name


@pytest.mark.parametrize("text", ["gpus: 8\nname: a\ngpus: 16\n", "{gpus: 8, gpus: 8}\n"])
def test_a_key_that_is_there_twice_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(WorkloadError) as refusal:
        read(tmp_path, text)
    line = 3 if "name" in text else 1
    assert f"line {line}: not YAML (the key gpus is there twice)" in str(refusal.value)


def test_keys_may_be_merged_in_and_said_anew(tmp_path: Path) -> None:
    merged = read(tmp_path, "base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\n")
    assert merged["more"] == {"x": 1, "y": 3}

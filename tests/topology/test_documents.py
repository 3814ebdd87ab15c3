from pathlib import Path

import pytest

from topology.documents import yaml_from_file
from topology.errors import WorkloadError


def read(folder: Path, text: str) -> dict[object, object]:
    path = folder / "document.yaml"
    path.write_text(text)
    return yaml_from_file(path, what="step", remedy="see the samples")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("2E6", 2e6), ("1.5e-3", 1.5e-3), ("-1e+2", -100.0), ("1e3s", "1e3s")],
)
def test_numbers_are_read_as_json_reads_them(tmp_path: Path, text: str, value: object) -> None:
    assert read(tmp_path, f"time_s: {text}") == {"time_s": value}


@pytest.mark.parametrize("text", ["gpus: 8\nname: a\ngpus: 16\n", "{gpus: 8, gpus: 8}\n"])
def test_a_key_that_is_there_twice_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(WorkloadError) as refusal:
        read(tmp_path, text)
    line = 3 if "name" in text else 1
    assert f"line {line}: not YAML (the key gpus is there twice)" in str(refusal.value)


def test_keys_may_be_merged_in_and_said_anew(tmp_path: Path) -> None:
    merged = read(tmp_path, "base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\n")
    assert merged["more"] == {"x": 1, "y": 3}

"""Workloads from YAML: what may stand there, and every refusal in one clear line."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from topology.documents import LARGEST_DOCUMENT_BYTES
from topology.errors import TopologyError, WorkloadError
from topology.plan.workload import (
    Workload,
    load_workload,
    workload_from_document,
)
from topology.words import Collective

MIB = 2**20
GOOD: dict[str, Any] = {
    "kind": "workload",
    "schema_version": 1,
    "name": "decode",
    "collective": "all_reduce",
    "size_bytes": "64KiB",
    "gpus": 8,
}


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "work.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal_of(folder: Path, text: str | bytes) -> str:
    path = write(folder, text)
    with pytest.raises(WorkloadError) as told:
        load_workload(path)
    line = str(told.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) - len(str(path)) < 400
    assert told.value.exit_code == 2
    return line.removeprefix(f"{path}: ")


def refusal_of_change(folder: Path, **changes: Any) -> str:
    return refusal_of(folder, yaml.safe_dump({**GOOD, **changes}))


def test_sizes_and_times_may_carry_units(tmp_path: Path) -> None:
    text = yaml.safe_dump({**GOOD, "size_bytes": "1.5MiB", "target_p99_s": "30us"})
    workload = load_workload(write(tmp_path, text))
    assert workload.size_bytes == 1.5 * MIB
    assert workload.target_p99_s == 30e-6
    assert workload.collective is Collective.ALL_REDUCE
    assert workload.note is None


def test_plain_numbers_are_bytes_and_seconds(tmp_path: Path) -> None:
    text = yaml.safe_dump({**GOOD, "size_bytes": 4096, "target_p99_s": 0.001})
    workload = load_workload(write(tmp_path, text))
    assert (workload.size_bytes, workload.target_p99_s) == (4096, 0.001)


def test_whole_seconds_are_seconds(tmp_path: Path) -> None:
    assert load_workload(write(tmp_path, yaml.safe_dump({**GOOD, "target_p99_s": 2}))).target_p99_s


def test_comments_and_any_order_of_keys_are_fine(tmp_path: Path) -> None:
    lines = [f"{key}: {value}  # why\n" for key, value in reversed(GOOD.items())]
    workload = load_workload(write(tmp_path, "# a comment\n" + "".join(lines)))
    assert workload == workload_from_document(GOOD, where="here")


# Refusals.


@pytest.mark.parametrize("key", sorted(GOOD))
def test_missing_key_is_named(tmp_path: Path, key: str) -> None:
    text = yaml.safe_dump({name: value for name, value in GOOD.items() if name != key})
    assert refusal_of(tmp_path, text).startswith(f"{key}: ")


def test_misspelt_key_is_refused_and_the_keys_are_listed(tmp_path: Path) -> None:
    line = refusal_of_change(tmp_path, target_p99="30us")
    assert line.startswith("target_p99: no such key; keys are kind, schema_version, name")
    assert "target_p99_s" in line


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("size_bytes", "1M", "'1M' has the unit 'M'; use one of B, kB"),
        ("size_bytes", "30us", "'30us' has the unit 'us'"),
        ("size_bytes", "1.5", "'1.5' is not a whole number of bytes"),
        ("size_bytes", "many", "'many' is not a size"),
        ("size_bytes", "-1", "'-1' is not a size"),
        ("size_bytes", 0, "greater than 0 (was 0)"),
        ("size_bytes", -8, "greater than 0 (was -8)"),
        ("size_bytes", 1.5, "(was 1.5)"),
        ("size_bytes", True, "(was True)"),
        ("size_bytes", None, "integer"),
        ("size_bytes", [8], "integer"),
        ("size_bytes", float("nan"), "(was nan)"),
        ("gpus", "8", "(was '8')"),
        ("gpus", 8.0, "(was 8.0)"),
        ("gpus", True, "(was True)"),
        ("gpus", 0, "greater than 0 (was 0)"),
        ("gpus", -1, "greater than 0 (was -1)"),
        ("target_p99_s", "30", "'30' has no known unit; use one of ns, us"),
        ("target_p99_s", "30 weeks", "'30 weeks' has no known unit"),
        ("target_p99_s", "8KiB", "'8KiB' has no known unit"),
        ("target_p99_s", 0, "greater than 0 (was 0)"),
        ("target_p99_s", float("nan"), "finite number (was nan)"),
        ("target_p99_s", float("inf"), "finite number (was inf)"),
        ("target_p99_s", True, "(was True)"),
        ("collective", "allreduce", "'all_reduce', 'all_gather'"),
        ("collective", 3, "'all_reduce'"),
        ("kind", "fleet_map", "'workload' (was 'fleet_map')"),
        ("schema_version", 2, "1 (was 2)"),
        ("name", "", "at least 1 character"),
        ("name", 7, "string (was 7)"),
        ("note", ["why"], "string"),
    ],
)
def test_wrong_value_names_field_value_and_what_would_do(
    tmp_path: Path, key: str, value: object, told: str
) -> None:
    line = refusal_of_change(tmp_path, **{key: value})
    assert line.startswith(f"{key}: ")
    assert told in line


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: b: c",
        "\t- x",
        "{",
        "a: \x01",
        "a: *nothing",
        "a: !!python/object:os.system x",
        "--- a\n--- b",
        "%YAML 9.0\n--- a",
        "name: 2024-13-45",
        "name: !!timestamp x",
        'a: !!int ""',
        "a: !!int x",
        "a: !!float x",
        "a: !!bool x",
        "a: !!binary x",
        "? [a]\n: b",
        "<<: 5",
        "a: " + "[" * 1_100,
        b"\xff\xfe\x00",
        b"\x80\x81",
        b"name: \xc3\x28",
        b"\x1f\x8b\x08 not gzip",
    ],
)
def test_what_is_not_yaml_is_refused_in_one_line(tmp_path: Path, text: str | bytes) -> None:
    path = write(tmp_path, text)
    with pytest.raises(Exception, match=r"^[^\n]*$") as told:
        load_workload(path)
    assert getattr(told.value, "exit_code", None) == 2, repr(told.value)
    assert "not YAML" in str(told.value) or "cannot be read" in str(told.value)


def test_line_of_a_fault_is_told(tmp_path: Path) -> None:
    assert refusal_of(tmp_path, "kind: workload\nname: [\n").startswith("line 3: not YAML (")


@pytest.mark.parametrize("text", ["", "# nothing\n", "5", "- a\n- b", "workload", "null", "--- \n"])
def test_what_has_no_keys_is_no_workload(tmp_path: Path, text: str) -> None:
    assert refusal_of(tmp_path, text).startswith("no workload; see samples/workloads")


def test_keys_that_are_no_words_are_refused(tmp_path: Path) -> None:
    for key in (1, None, 2.5, True):
        refusal_of(tmp_path, yaml.safe_dump(GOOD) + yaml.safe_dump({key: 2}))


def test_huge_file_is_refused_unread_by_the_parser(tmp_path: Path) -> None:
    path = write(tmp_path, "#" * (LARGEST_DOCUMENT_BYTES + 1))
    with pytest.raises(Exception, match=f"larger than {LARGEST_DOCUMENT_BYTES} bytes") as told:
        load_workload(path)
    assert getattr(told.value, "exit_code", None) == 2


def test_aliases_that_unfold_to_billions_are_told_in_a_short_line(tmp_path: Path) -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    document = {name: value for name, value in GOOD.items() if name != "name"}
    refusal_of(tmp_path, "\n".join([*rows, "name: *a8", yaml.safe_dump(document)]))


def test_long_value_is_shortened(tmp_path: Path) -> None:
    refusal_of_change(tmp_path, collective="x" * 100_000)
    refusal_of_change(tmp_path, gpus="9" * 100_000)


@pytest.mark.parametrize("path", ["no/such.yaml", "."])
def test_file_that_cannot_be_read_is_named(path: str) -> None:
    with pytest.raises(Exception, match=f"^{path}: ") as told:
        load_workload(path)
    assert getattr(told.value, "exit_code", None) == 2


@settings(max_examples=40, deadline=None)
@example(size_bytes=1, gpus=1, target=None, collective="all_reduce", name="0E0")
@given(
    size_bytes=st.integers(1, 2**50),
    gpus=st.integers(1, 100_000),
    target=st.none() | st.floats(1e-9, 10, allow_nan=False),
    collective=st.sampled_from([c.value for c in Collective]),
    name=st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1),
)
def test_a_workload_written_as_yaml_reads_back(
    tmp_path_factory: pytest.TempPathFactory,
    size_bytes: int,
    gpus: int,
    target: float | None,
    collective: str,
    name: str,
) -> None:
    document = {
        **GOOD,
        "size_bytes": size_bytes,
        "gpus": gpus,
        "collective": collective,
        "name": name,
        "target_p99_s": target,
    }
    workload = workload_from_document(document, where="here")
    again = yaml.safe_dump(workload.model_dump(mode="json"), allow_unicode=True)
    path = tmp_path_factory.getbasetemp() / "again.yaml"
    path.write_text(again, encoding="utf-8")
    assert load_workload(path) == workload


def test_a_workload_does_not_change() -> None:
    workload = workload_from_document(GOOD, where="here")
    with pytest.raises(Exception, match="frozen"):
        workload.gpus = 9  # type: ignore[misc]


def test_schema_names_every_key() -> None:
    properties = Workload.model_json_schema()["properties"]
    assert set(GOOD) | {"target_p99_s", "note"} == set(properties)


def test_refusals_are_errors_of_the_topology() -> None:
    with pytest.raises(TopologyError, match=r"^options: gpus: "):
        workload_from_document({**GOOD, "gpus": 0}, where="options")

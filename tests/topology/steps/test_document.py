"""Step documents: what may stand there, and every refusal in one clear line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from topology.errors import WorkloadError
from topology.steps.document import (
    MOST_OPERATIONS,
    PartRow,
    StepDocument,
    leaves,
    load_step,
    step_from_document,
    strides_of,
)
from topology.words import Collective, Launch

SAMPLES = sorted((Path(__file__).parents[3] / "samples" / "steps").glob("*.yaml"))
COMPUTE: dict[str, Any] = {"name": "matmul", "compute": {"time_s": "2ms", "spread_ratio": "3 %"}}
SUM: dict[str, Any] = {
    "name": "sum",
    "collective": {"collective": "all_reduce", "size_bytes": "64KiB"},
}
GOOD: dict[str, Any] = {
    "kind": "step",
    "schema_version": 1,
    "name": "s",
    "gpus": 16,
    "groups": [{"name": "tensor", "size": 8}, {"name": "data", "size": 2}],
    "parts": [COMPUTE, SUM],
}


def compute(name: str, **more: Any) -> dict[str, Any]:
    return {**COMPUTE, "name": name, **more}


def refusal(**changes: Any) -> str:
    with pytest.raises(WorkloadError) as told:
        step_from_document({**GOOD, **changes}, where="s.yaml")
    line = str(told.value)
    assert line.startswith("s.yaml: ")
    assert "\n" not in line
    assert told.value.exit_code == 2
    return line.removeprefix("s.yaml: ")


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_sample_loads_and_names_itself_after_its_file(path: Path) -> None:
    assert load_step(path).name == path.stem


def test_there_are_samples() -> None:
    assert len(SAMPLES) >= 2


def test_times_sizes_and_ratios_may_carry_units() -> None:
    step = step_from_document(GOOD, where="here")
    matmul, total = step.parts
    assert matmul.compute is not None
    assert (matmul.compute.time_s, matmul.compute.spread_ratio) == (2e-3, 0.03)
    assert total.collective is not None
    assert total.collective.size_bytes == 65_536
    assert total.collective.collective is Collective.ALL_REDUCE
    assert total.collective.launch is Launch.PROCESS


def test_plain_numbers_are_seconds_bytes_and_ratios() -> None:
    parts = [
        {"name": "a", "compute": {"time_s": 0.002, "spread_ratio": 0.03}},
        {"name": "b", "collective": {"collective": "broadcast", "size_bytes": 8}},
    ]
    a, b = step_from_document({**GOOD, "parts": parts}, where="here").parts
    assert a.compute is not None
    assert (a.compute.time_s, a.compute.spread_ratio) == (0.002, 0.03)
    assert b.collective is not None
    assert b.collective.size_bytes == 8


def test_groups_stand_in_megatrons_order() -> None:
    step = step_from_document(GOOD, where="here")
    assert strides_of(step, where="here") == {"world": (16, 1), "tensor": (8, 1), "data": (2, 8)}


def test_a_stride_of_its_own_wins() -> None:
    step = step_from_document(
        {**GOOD, "groups": [{"name": "even", "size": 8, "stride": 2}]}, where="here"
    )
    assert strides_of(step, where="here")["even"] == (8, 2)


def test_leaves_stand_in_the_order_of_the_file() -> None:
    block = {"name": "layer", "repeat": 3, "parts": [compute("a"), compute("b")]}
    step = step_from_document({**GOOD, "parts": [compute("z"), block]}, where="here")
    assert [(place, part.name) for place, part in leaves(step.parts)] == [
        ("parts.0", "z"),
        ("parts.1.parts.0", "a"),
        ("parts.1.parts.1", "b"),
    ]
    assert step.parts[1].operations == 6


def test_schema_names_every_key() -> None:
    assert set(StepDocument.model_json_schema()["properties"]) == {
        *GOOD,
        "common_spread_ratio",
        "rank_spread_ratio",
        "note",
    }
    assert "also_after" in PartRow.model_fields


# Refusals.


@pytest.mark.parametrize("key", sorted(set(GOOD) - {"groups"}))
def test_missing_key_is_named(key: str) -> None:
    document = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(WorkloadError, match=rf"^s.yaml: {key}: "):
        step_from_document(document, where="s.yaml")


def test_step_without_parts_is_refused() -> None:
    assert refusal(parts=[]).startswith("parts: ")
    assert refusal(parts=None).startswith("parts: ")


def test_misspelt_key_is_refused_with_its_place() -> None:
    line = refusal(parts=[{"name": "a", "compute": {"time_s": "2ms", "spred": "3 %"}}])
    assert line.startswith("parts.0.compute.spred: no such key; see samples/steps")


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (compute("a", compute={"time_s": "2ms", "spread_ratio": "-3 %"}), "greater than or equal"),
        (compute("a", compute={"time_s": "2ms", "spread_ratio": -0.1}), "(was -0.1)"),
        (
            compute("a", compute={"time_s": "2ms", "spread_ratio": "3"}),
            "'3' is no ratio; write 3 %",
        ),
        (compute("a", compute={"time_s": "2ms", "spread_ratio": 11}), "(was 11)"),
        (compute("a", compute={"time_s": 0}), "greater than 0 (was 0)"),
        (compute("a", compute={"time_s": "2"}), "'2' has no known unit"),
        (compute("a", compute={"time_s": "2KiB"}), "'2KiB' has no known unit"),
        (compute("a", compute={"time_s": float("nan")}), "(was nan)"),
        (compute("a", repeat=0), "greater than 0 (was 0)"),
        (compute("a", repeat=True), "(was True)"),
        (compute("a", overlap="yes"), "(was 'yes')"),
        (compute("a", after="b"), "tuple"),
        (compute("a", **{"collective": SUM["collective"]}), "'a' must have one of compute"),
        ({"name": "a"}, "'a' must have one of compute, collective and parts"),
        ({"name": "a", "parts": []}, "at least 1 item"),
        ({"name": "a", "parts": [COMPUTE], "stream": "x"}, "'a' is a block"),
        ({"name": "", "compute": {"time_s": "2ms"}}, "at least 1 character"),
        ({**SUM, "collective": {"collective": "allsum", "size_bytes": 8}}, "'all_reduce'"),
        ({**SUM, "collective": {"collective": "all_reduce"}}, "Field required"),
        ({**SUM, "collective": {"collective": "all_reduce", "size_bytes": "1M"}}, "unit 'M'"),
        ({**SUM, "collective": {"collective": "all_reduce", "size_bytes": 0}}, "(was 0)"),
    ],
)
def test_wrong_part_names_field_value_and_what_would_do(part: dict[str, Any], told: str) -> None:
    line = refusal(parts=[part])
    assert line.startswith("parts.0")
    assert told in line


def test_unknown_group_is_refused_and_the_known_are_listed() -> None:
    part = {**SUM, "collective": {**SUM["collective"], "group": "tesnor"}}
    line = refusal(parts=[part])
    assert line == ("parts.0.collective.group: no group 'tesnor'; groups are data, tensor, world")


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (
            [{"name": "t", "size": 3}],
            "groups.0.size: groups of 3, 1 apart, do not divide 16 GPUs; "
            "size times stride has to divide gpus",
        ),
        (
            [{"name": "t", "size": 8}, {"name": "d", "size": 4}],
            "groups.1.size: groups of 4, 8 apart, do not divide 16 GPUs",
        ),
        ([{"name": "t", "size": 2, "stride": 5}], "groups.0.size: groups of 2, 5 apart"),
        ([{"name": "t", "size": 2}, {"name": "t", "size": 2}], "groups.1.name: 't' stands twice"),
        ([{"name": "world", "size": 2}], "groups.0.name: 'world' stands twice, or means all"),
        ([{"name": "t", "size": 0}], "groups.0.size: Input should be greater than 0 (was 0)"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups: list[dict[str, Any]], told: str) -> None:
    assert refusal(groups=groups, parts=[COMPUTE]).startswith(told)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (
            [compute("a", after=["z"])],
            "parts.0.after: no part 'z'; parts that end before it are none",
        ),
        (
            [compute("a"), compute("b", also_after=["z"])],
            "parts.1.also_after: no part 'z'; parts that end before it are a",
        ),
        (
            [compute("a", after=["b"]), compute("b", after=["a"])],
            "parts.0.after: 'a' waits for 'b', and that for 'a': a circle",
        ),
        (
            [compute("a", after=["c"]), compute("b", after=["a"]), compute("c", after=["b"])],
            "parts.0.after: 'a' waits for 'c', and that for 'a': a circle",
        ),
        ([compute("a", after=["a"])], "parts.0.after: 'a' waits for 'a'"),
        (
            [compute("a", after=["b"]), compute("b")],
            "parts.0.after: 'b' ends later in the file than 'a' begins",
        ),
        (
            [{"name": "layer", "parts": [compute("a", after=["layer"])]}],
            "parts.0.parts.0.after: 'layer' ends later in the file than 'a' begins",
        ),
        ([compute("a"), compute("a")], "parts.1.name: 'a' stands twice"),
        (
            [{"name": "layer", "parts": [compute("layer")]}],
            "parts.0.name: 'layer' stands twice",
        ),
    ],
)
def test_an_order_that_cannot_be_is_refused(parts: list[dict[str, Any]], told: str) -> None:
    assert refusal(parts=parts).startswith(told)


def test_more_operations_than_can_be_replayed_are_refused() -> None:
    line = refusal(parts=[{"name": "l", "repeat": MOST_OPERATIONS, "parts": [COMPUTE, SUM]}])
    assert line.startswith("parts: 200,000 operations with their repetitions; put them together")


def test_what_is_no_yaml_or_no_step_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("kind: step\nname: [\n")
    with pytest.raises(WorkloadError, match=r"line 3: not YAML \("):
        load_step(path)
    path.write_text("- a\n")
    with pytest.raises(WorkloadError, match="no step; see samples/steps"):
        load_step(path)


def test_a_step_written_as_yaml_reads_back(tmp_path: Path) -> None:
    step = step_from_document(GOOD, where="here")
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(step.model_dump(mode="json")))
    assert load_step(path) == step

"""``topology step`` as a person types it."""

from pathlib import Path

import pytest
import yaml

from tests.topology.command import refused, topology, write_maps

STEP = """
kind: step
schema_version: 1
name: small
gpus: 16
groups: [{name: tensor, size: 8}, {name: data, size: 2}]
parts:
  - name: layer
    repeat: 3
    parts:
      - {name: matmul, compute: {time_s: 100us, spread_ratio: 2 %}}
      - {name: sums, collective: {collective: all_reduce, size_bytes: 64KiB, group: tensor}}
  - name: gradients
    overlap: true
    collective: {collective: all_reduce, size_bytes: 1MiB, group: data}
  - {name: rest, compute: {time_s: 50us}}
"""


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_maps(tmp_path_factory.mktemp("maps"))
    (folder / "step.yaml").write_text(STEP)
    return folder


def test_a_step_prints_percentiles_and_a_table_of_its_parts(maps: Path) -> None:
    done = topology("step", maps / "dgx.json", maps / "step.yaml", "--trials", "500")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "small: 16 ranks on 2 nodes"
    assert lines[1] == "nccl stack, noise dedicated, 500 trials, seed 0"
    assert [line.split()[0] for line in lines if "times noiseless" in line] == ["p50", "p90", "p99"]
    assert lines[3].strip() == "95 % interval"
    assert next(line for line in lines if line.startswith("p99.9 ")).endswith(
        "; needs 3,688 trials or more"
    )
    table = lines[lines.index("") + 1 :]
    head = next(i for i, line in enumerate(table) if line.startswith("part "))
    assert [line.split()[0] for line in table[head + 1 : head + 5]] == [
        "matmul",
        "sums",
        "gradients",
        "rest",
    ]
    assert "of 2 x 8 ranks" in table[head + 2]
    assert "of 8 x 2 ranks" in table[head + 3]
    assert lines[-2].startswith("not modelled: operations that overlap")
    assert lines[-1].startswith("not modelled: groups side by side")


def test_a_step_as_json_has_the_words_of_the_other_documents(maps: Path) -> None:
    words = ("step", maps / "dgx.json", maps / "step.yaml", "--trials", "500", "--json")
    document = topology(*words).document
    assert (document["kind"], document["schema_version"]) == ("step_summary", 1)
    assert document["noiseless_s"] < document["p50_s"] < document["p99_s"]
    low, high = document["interval"]["p50_s"]
    assert low <= document["p50_s"] <= high
    assert document["p999_s"] is None
    assert document["slowdown_ratio"]["p50"] == document["p50_s"] / document["noiseless_s"]
    assert document["slowdown_ratio"]["p999"] is None
    shares = [part["critical_path"]["p50"]["share_ratio"] for part in document["parts"]]
    assert sum(shares) == pytest.approx(1)
    assert [part["repetitions"] for part in document["parts"]] == [3, 3, 1, 1]
    assert document["parts"][1]["ways"][0]["groups"] == 2
    assert 0 < document["communication"]["p99"]["exposed_ratio"] <= 1


def test_the_same_seed_gives_the_same_bytes(maps: Path) -> None:
    words = ("step", maps / "dgx.json", maps / "step.yaml", "--trials", "400", "--json", "--seed")
    assert topology(*words, "3").out == topology(*words, "3").out
    assert topology(*words, "3").out != topology(*words, "4").out


def test_a_step_without_anything_random_has_no_trials(maps: Path) -> None:
    step = yaml.safe_load(STEP)
    step["parts"][0]["parts"][0]["compute"].pop("spread_ratio")
    words = ("step", maps / "dgx.json", "-", "--noise", "none")
    calm = topology(*words, stdin=yaml.safe_dump(step).encode())
    assert "noise none, nothing random" in calm.out
    assert "p50" not in calm.out
    document = topology(*words, "--json", stdin=yaml.safe_dump(step).encode()).document
    assert (document["trials"], document["seed"], document["interval"]) == (None, None, None)
    assert document["p9999_s"] == document["noiseless_s"]


def test_a_wire_stack_and_a_spread_placement_are_taken(maps: Path) -> None:
    words = ("step", maps / "dgx.json", maps / "step.yaml", "--trials", "50", "--json")
    nccl = topology(*words).document
    wire = topology(*words, "--stack", "wire", "--placement", "spread").document
    assert (nccl["stack"], wire["stack"]) == ("nccl", "wire")
    assert wire["noiseless_s"] < nccl["noiseless_s"]


# Refusals.


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("gpus: 16", "gpus: 32", "gpus: 32 GPUs, and the map has 16"),
        ("gpus: 16", "gpus: 12", "groups of 8, 1 apart, do not divide 12 GPUs"),
        ("spread_ratio: 2 %", "spread_ratio: -2 %", "spread_ratio: Input should be greater"),
        ("100us", "100", "time_s: Input should be a valid"),
        ("collective: all_reduce, size_bytes: 64KiB", "collective: sum, size_bytes: 8", "'all_"),
        ("name: rest,", "name: rest, after: [resst],", "parts.2.after: no part 'resst'"),
        ("name: rest,", "name: rest, after: [rest],", "a circle"),
        ("group: data", "group: dada", "no group 'dada'; groups are data, tensor, world"),
        ("kind: step", "kind: workload", "kind: "),
        ("size_bytes: 1MiB,", "size_bytes: 1MiB, algorithm: nvls_tree, protocol: ll,", "part grad"),
        ("parts:\n  - name: layer", "parts: []\nmore:\n  - name: layer", "parts: "),
    ],
)
def test_bad_input_is_one_line_that_names_it(
    maps: Path, tmp_path: Path, before: str, after: str, told: str
) -> None:
    path = tmp_path / "bad.yaml"
    assert before in STEP
    path.write_text(STEP.replace(before, after, 1))
    if after == "100":
        path.write_text(STEP.replace("100us", "'100'"))
        told = "time_s: '100' has no known unit"
    assert told in refused(topology("step", maps / "dgx.json", path, "--trials", "50"))


def test_options_that_cannot_be_are_refused(maps: Path) -> None:
    step = maps / "step.yaml"
    assert "--trials" in refused(topology("step", maps / "dgx.json", step, "--trials", "0"))
    assert "--noise" in refused(topology("step", maps / "dgx.json", step, "--noise", "loud"))
    assert "rccl" in refused(topology("step", maps / "dgx.json", step, "--stack", "rccl")).lower()
    assert "nothere" in refused(topology("step", maps / "dgx.json", maps / "nothere.yaml"))
    assert "stdin is asked for twice" in refused(topology("step", "-", "-"))


def test_groups_that_no_cable_joins_are_unreachable(maps: Path) -> None:
    line = refused(topology("step", maps / "bare.json", maps / "step.yaml"), code=1)
    assert line.startswith("part gradients, ")

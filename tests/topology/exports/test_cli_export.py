"""``topology export`` as a person types it: what is written, said and refused."""

import json
import shlex
from pathlib import Path

import pytest

from tests.commands import Done, run_here
from tests.topology.command import ALL_REDUCE, refused, topology, write_maps
from tests.topology.exports.goal_reader import messages, read_goal


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_maps(tmp_path_factory.mktemp("maps"))


def export(maps: Path, asked: str, output: Path | str, *words: str) -> Done:
    return topology(
        *("export", maps / "dgx.json", "--format", asked, *ALL_REDUCE),
        *("--stack", "wire", "--algorithm", "ring", "-o", output, *words),
    )


@pytest.mark.parametrize("asked", ["goal", "astra-sim", "simai"])
def test_a_folder_is_written_and_the_commands_are_told(
    asked: str, maps: Path, tmp_path: Path
) -> None:
    done = export(maps, asked, tmp_path / "case", "--gpus", "16")
    assert (done.code, done.out) == (0, "")
    assert f"wrote {tmp_path / 'case'}" in done.err
    readme = (tmp_path / "case" / "README.txt").read_text()
    for line in done.err.splitlines()[1:]:
        assert line.strip() in readme


def test_a_map_of_any_name_is_exported(maps: Path, tmp_path: Path) -> None:
    odd = tmp_path / "m\udcff.json"
    odd.write_bytes((maps / "dgx.json").read_bytes())
    words = ("--stack", "wire", "--gpus", "8", "-o", tmp_path / "case")
    done = topology("export", odd, "--format", "goal", *ALL_REDUCE, *words)
    assert done.code == 0
    assert b"m\xff.json" in (tmp_path / "case" / "README.txt").read_bytes()


def test_goal_on_stdout_is_the_text_alone(maps: Path) -> None:
    done = export(maps, "goal", "-", "--gpus", "8")
    assert done.code == 0
    assert len(messages(read_goal(done.out))) == 2 * 7 * 8
    assert "LogGOPSim -f case.bin -L 762 " in done.err


def test_json_tells_files_figures_and_both_commands(maps: Path, tmp_path: Path) -> None:
    output = tmp_path / "ring.goal"
    done = export(maps, "goal", output, "--gpus", "8", "--json")
    document = done.document
    assert done.err == ""
    assert (document["kind"], document["schema_version"]) == ("export", 1)
    assert (document["files"], document["messages"]) == ([str(output)], 112)
    assert [figure["name"] for figure in document["figures"]][:3] == ["L", "o", "G"]
    assert document["commands"][0] == "txt2bin -i ring.goal -o ring.bin"
    assert export(maps, "goal", output, "--gpus", "8", "--json").out == done.out


def test_our_own_command_runs_to_the_same_noiseless_time(maps: Path, tmp_path: Path) -> None:
    document = export(maps, "simai", tmp_path / "case", "--json").document
    words = shlex.split(document["own_command"])
    summary = json.loads(run_here(*words, "--trials", "500", "--json").out)
    assert summary["noiseless_s"] == document["noiseless_s"]
    assert summary["algorithm"] == document["algorithm"]


def test_the_default_is_what_simulate_takes(maps: Path, tmp_path: Path) -> None:
    words = ("export", maps / "dgx.json", "--format", "simai", *ALL_REDUCE, "--gpus", "8")
    document = topology(*words, "-o", tmp_path / "case", "--json").document
    assert (document["stack"], document["protocol"]) == ("nccl", "ll")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--format", "chakra"), "'goal', 'astra-sim', 'simai'"),
        (("--size", "0"), "give at least one byte"),
        (("--size", "-1"), "--size"),
        (("--gpus", "17"), "17 ranks asked of 16"),
        (("--gpus", "12", "--format", "astra-sim"), "hold 4 and 8"),
        (("--algorithm", "nvls", "--gpus", "8"), "reduces in switches"),
        (("--format", "simai", "-o", "-"), "several files; name a folder"),
        (("-o", "-", "--json"), "stdout is asked for twice"),
        (("--algorithm", "pairwise"), "does no all_reduce"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: tuple[str, ...], part: str, maps: Path, tmp_path: Path
) -> None:
    assert part in refused(export(maps, "goal", tmp_path / "case", *words))
    assert not (tmp_path / "case").exists()


def test_a_folder_in_use_is_refused(maps: Path, tmp_path: Path) -> None:
    assert export(maps, "astra-sim", tmp_path / "case").code == 0
    assert "name a new one" in refused(export(maps, "astra-sim", tmp_path / "case"))


def test_no_output_is_a_usage_error(maps: Path) -> None:
    done = topology("export", maps / "dgx.json", "--format", "goal", *ALL_REDUCE)
    assert "-o" in refused(done)

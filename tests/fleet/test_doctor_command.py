"""The command ``fleet doctor``: what it prints and how it leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from fleet.cli_doctor import doctor
from fleet.doctor import CHECKS
from tests.fakes.nvml_machine import FakeProfile
from tests.fakes.nvml_profiles import profile_named, with_faults
from tests.fakes.nvml_stub import NvmlStub
from tests.fakes.sysfs_trees import hgx_h100, without_gpus

APP = typer.Typer()
APP.command()(doctor)


def run(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and output of the command."""
    result = CliRunner().invoke(APP, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


def test_a_node_without_gpus_leaves_with_0(tmp_path: Path) -> None:
    without_gpus(tmp_path)
    code, output = run("--root", tmp_path)
    assert code == 0
    lines = output.splitlines()
    assert lines[0].split() == ["check", "state", "what", "remedy"]
    assert [line.split()[0] for line in lines[1:]] == [check.id for check in CHECKS]
    gpu_lines = [line for line in lines if line.startswith("nvml.")]
    assert gpu_lines
    assert all("not_applicable" in line for line in gpu_lines)


def test_gpus_without_a_driver_are_a_finding_with_its_remedy(tmp_path: Path) -> None:
    hgx_h100(tmp_path)
    code, output = run("--root", tmp_path)
    assert code == 1
    (line,) = (line for line in output.splitlines() if line.startswith("nvml.driver "))
    assert "missing" in line
    assert "sudo modprobe nvidia" in line


def test_json_is_one_document_with_every_check(tmp_path: Path) -> None:
    hgx_h100(tmp_path)
    code, output = run("--root", tmp_path, "--json")
    document = json.loads(output)
    assert code == 1
    assert (document["kind"], document["schema_version"]) == ("diagnosis", 1)
    assert [result["id"] for result in document["results"]] == [check.id for check in CHECKS]
    by_id = {result["id"]: result for result in document["results"]}
    assert by_id["nvml.driver"]["state"] == "missing"
    assert by_id["pci.gpus_listed"]["remedy"] is None


def test_a_spool_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    without_gpus(tmp_path)
    code, output = run("--root", tmp_path, "--spool", tmp_path / "none")
    assert code == 1
    assert "there is no such folder" in output


def test_this_machine_is_told_and_the_exit_code_says_the_same() -> None:
    code, output = run("--json", "--deadline", "20s")
    states = {r["id"]: r["state"] for r in json.loads(output)["results"]}
    assert (code == 1) == ("missing" in states.values())
    assert states["gather.python3"] in ("ok", "limited")


def told_with(stub: NvmlStub, profile: FakeProfile) -> tuple[int, dict[str, Any]]:
    """Exit code and results by id, in a process whose driver is the stub."""
    code = "from tests.fleet.test_doctor_command import APP; APP()"
    command = [sys.executable, "-c", code, "--json", "--deadline", "0.5s"]
    done = subprocess.run(
        command,
        env=os.environ | stub.environment(profile),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode, {r["id"]: r for r in json.loads(done.stdout)["results"]}


def test_a_driver_that_answers_is_believed_although_no_module_is_seen(nvml_stub: NvmlStub) -> None:
    code, told = told_with(nvml_stub, profile_named("h100-8"))
    assert told["nvml.starts"]["evidence"] == "it lists 8 GPUs"
    assert told["nvml.every_gpu_answers"]["state"] == "ok"
    for check in ("nvml.binding", "nvml.library", "nvml.driver"):
        assert told[check]["state"] in ("ok", "limited"), told[check]
    missing = {check for check, result in told.items() if result["state"] == "missing"}
    assert (code == 1) == bool(missing)


def test_a_hung_gpu_is_named_and_the_command_returns(nvml_stub: NvmlStub) -> None:
    hung = with_faults(profile_named("h100-8"), 3, hang="nvmlDeviceGetSerial")
    code, told = told_with(nvml_stub, hung)
    assert code == 1
    silent = told["nvml.every_gpu_answers"]
    assert silent["state"] == "missing"
    assert silent["evidence"].startswith("gpu3: nvmlDeviceGetSerial(3)")
    assert "gpu4" not in silent["evidence"]

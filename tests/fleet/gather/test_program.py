import json
import os
import shutil
import subprocess
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

import pytest

from fleet.gather.answer import document_from_output
from fleet.gather.outcome import AnswerError, FailureReason
from fleet.gather.program import LOADER, far_side_argv, login_command, program_text
from fleet.reading import reading_from_bytes
from tests.fakes.nvml_profiles import profile_named, with_faults
from tests.fakes.nvml_stub import NvmlStub
from tests.fleet.gather.far import MARK, fake_nvidia_smi, script, tools

SHELLS = ("sh", "bash", "dash", "ksh", "zsh", "csh", "tcsh", "fish")
PYTHONS = ("3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
BASE_PYTHON = Path(sys.base_prefix) / "bin" / "python3"


def shells() -> list[str]:
    """The login shells that are here."""
    return [path for name in SHELLS if (path := shutil.which(name))]


def pythons() -> list[str]:
    """The Pythons that are here and run, each by its own path: a version manager has shims."""
    names = (sys.executable, "python3", *(f"python{version}" for version in PYTHONS))
    told = (_executable(path) for name in names if (path := shutil.which(name)))
    return sorted({path for path in told if path})


def _executable(path: str) -> str:
    command = [path, "-c", "import sys; print(sys.executable)"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def printed(
    argv: list[str], *, path: Path, program: str | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """What a far side prints, with nothing in its environment but PATH."""
    return subprocess.run(
        argv,
        input=(program or program_text()).encode() + b"\n",
        capture_output=True,
        timeout=60,
        check=False,
        env={"PATH": str(path), **environment},
    )


def reading_of(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """The reading in what was printed."""
    document = document_from_output(done.stdout, mark=MARK, waited_s=20)
    reading_from_bytes(document, where="far side")
    found = json.loads(document)
    assert isinstance(found, dict)
    return found


def python_in(folder: Path, python: str | Path) -> Path:
    """A folder to be PATH whose python3 is this one."""
    tools(folder)
    (folder / "python3").symlink_to(python)
    return folder


def test_the_command_holds_nothing_that_shells_read_differently() -> None:
    command = login_command(MARK, 20)
    assert not set(command.removeprefix("exec /bin/sh -c '").removesuffix("'")) & set("'!\\\n")
    assert not set(LOADER) & set("\"$`'\\!")
    assert "\n" not in program_text()


@pytest.mark.parametrize("shell", shells())
def test_every_login_shell_reads_the_command_alike(shell: str, tmp_path: Path) -> None:
    path = python_in(tmp_path / "bin", BASE_PYTHON)
    done = printed([shell, "-c", login_command(MARK, 20)], path=path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert reading_of(done)["probe"] == "fleetmap probe 1"


@pytest.mark.parametrize("python", pythons())
def test_every_python_since_3_6_reads_the_node(python: str, tmp_path: Path) -> None:
    done = printed(far_side_argv(MARK, 20), path=python_in(tmp_path / "bin", python))
    assert (done.returncode, done.stderr) == (0, b"")
    assert reading_of(done)["probe"] == "fleetmap probe 1"


def test_a_node_with_a_driver_and_no_binding_uses_the_one_that_was_sent(
    tmp_path: Path, nvml_stub: NvmlStub
) -> None:
    path = python_in(tmp_path / "bin", BASE_PYTHON)
    driver = nvml_stub.environment(profile_named("l40s-2"))
    found = reading_of(printed(far_side_argv(MARK, 20), path=path, **driver))
    assert found["answers"]["nvmlDeviceGetCount()"] == {"value": 2}
    assert found["stops"] == []


@pytest.mark.parametrize(
    ("gpu", "hang"), [((1,), "nvmlDeviceGetSerial"), ((), "nvmlInitWithFlags")]
)
def test_a_hung_call_costs_its_own_gpu_and_the_answer_comes_in_time(
    gpu: tuple[int, ...], hang: str, tmp_path: Path, nvml_stub: NvmlStub
) -> None:
    path = python_in(tmp_path / "bin", BASE_PYTHON)
    profile = with_faults(profile_named("l40s-2"), *gpu, hang=hang)
    driver = nvml_stub.environment(profile)
    found = reading_of(printed(far_side_argv(MARK, 6), path=path, **driver))
    assert {stop["reason"] for stop in found["stops"]} == {"timed_out"}
    assert ("nvmlDeviceGetUUID(0)" in found["answers"]) is bool(gpu)


def test_a_node_without_a_driver_says_so_as_the_binding_would(
    tmp_path: Path, nvml_stub: NvmlStub
) -> None:
    path = python_in(tmp_path / "bin", BASE_PYTHON)
    found = reading_of(printed(far_side_argv(MARK, 20), path=path, **nvml_stub.no_library()))
    assert found["answers"]["nvmlInit()"] == {"code": 12}


def test_without_python_nvidia_smi_is_asked(tmp_path: Path) -> None:
    path = tools(tmp_path / "bin")
    fake_nvidia_smi(path)
    found = reading_of(printed(far_side_argv(MARK, 20), path=path))
    assert found["probe"] == "nvidia-smi through sh"
    assert found["host"] == os.uname().nodename
    outputs = found["outputs"]
    assert outputs["nvidia-smi -q -x"]["text"].startswith("<?xml")
    assert [output["exit_code"] for output in outputs.values()] == [0, 0]


@pytest.mark.parametrize("python", ["exit 1", "kill -9 $$", "echo no >&2; exit 127"])
def test_where_python_fails_nvidia_smi_is_asked(tmp_path: Path, python: str) -> None:
    path = tools(tmp_path / "bin")
    script(path / "python3", python)
    fake_nvidia_smi(path)
    found = reading_of(printed(far_side_argv(MARK, 20), path=path))
    assert found["probe"].startswith("nvidia-smi through sh (python3: exit status")


def test_a_python_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    path = tools(tmp_path / "bin")
    pretend = "import sys; sys.version_info = (3, 5); exec(sys.argv[4])"
    script(path / "python3", f'exec {BASE_PYTHON} -c "{pretend}" "$@"')
    fake_nvidia_smi(path)
    done = printed(far_side_argv(MARK, 20), path=path)
    assert "exit status 8" in reading_of(done)["probe"], done.stderr


def test_with_neither_the_far_side_says_so(tmp_path: Path) -> None:
    done = printed(far_side_argv(MARK, 20), path=tools(tmp_path / "bin"))
    assert done.returncode == 127
    with pytest.raises(AnswerError) as caught:
        reading_of(done)
    assert caught.value.reason is FailureReason.NO_COLLECTOR


def test_an_nvidia_smi_that_fails_is_told_with_its_status(tmp_path: Path) -> None:
    path = tools(tmp_path / "bin")
    script(path / "nvidia-smi", "echo NVIDIA-SMI has failed; exit 9")
    outputs = reading_of(printed(far_side_argv(MARK, 20), path=path))["outputs"]
    assert outputs["nvidia-smi -q -x"] == {"text": "NVIDIA-SMI has failed\n", "exit_code": 9}


def test_a_python_of_another_kind_compiles_for_itself(tmp_path: Path) -> None:
    done = printed(
        far_side_argv(MARK, 20),
        path=python_in(tmp_path / "bin", BASE_PYTHON),
        program=program_text().replace(MAGIC_NUMBER.hex(), "00000000"),
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert reading_of(done)["probe"] == "fleetmap probe 1"

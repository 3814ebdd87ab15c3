"""What the doctor sees of a machine, from trees made up below a folder."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from fleet.doctor.surroundings import HiddenProcesses, surroundings_of
from tests.fakes.sysfs_trees import SysTree, hgx_h100, without_gpus
from tests.users import nobody_special

OPEN_MODULE = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs)\n"
    "GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n"
)
CLOSED_MODULE = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"
)


def put(root: Path, path: str, text: str = "") -> Path:
    """A file below a root."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "version"),
    [(OPEN_MODULE, "580.65.06"), (CLOSED_MODULE, "535.104.05"), ("garbage\n", None)],
)
def test_the_drivers_version_is_that_of_its_kernel_module(
    tmp_path: Path, text: str, version: str | None
) -> None:
    put(tmp_path, "proc/driver/nvidia/version", text)
    assert surroundings_of(tmp_path).driver_version == version


def test_an_empty_tree_tells_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    here = surroundings_of(tmp_path)
    assert here.gpus is None
    assert not here.is_here
    assert not here.has_gpus
    assert not here.has_driver
    assert here.driver_version is None
    assert here.binding is None
    assert here.tools == {}
    assert here.kernel_log == "ENOENT"


def test_gpus_nvswitches_and_adapters_are_told_apart_on_the_bus(tmp_path: Path) -> None:
    hgx_h100(tmp_path)
    here = surroundings_of(tmp_path)
    assert here.gpus is not None
    assert len(here.gpus) == 8
    assert len(here.nvswitches) == 4
    assert len(here.adapters) >= 8
    assert "mlx5_0" in here.hcas
    assert here.has_gpus


def test_a_gpu_kept_for_guests_is_none_that_lacks_its_driver(tmp_path: Path) -> None:
    tree = hgx_h100(tmp_path)
    tree.bind("0000:19:00.0", "vfio-pci")
    tree.bind("0000:3b:00.0", "nouveau")
    here = surroundings_of(tmp_path)
    assert here.gpus is not None
    assert len(here.gpus) == 7
    assert "0000:19:00.0" not in here.gpus
    assert "0000:3b:00.0" in here.gpus, "nouveau takes what nvidia could have"


def test_a_server_without_gpus_has_a_bus_and_no_gpu_on_it(tmp_path: Path) -> None:
    without_gpus(tmp_path)
    here = surroundings_of(tmp_path)
    assert here.gpus == ()
    assert not here.has_gpus


def test_the_sound_device_of_a_graphics_card_is_no_gpu(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    tree.pci("0000:01:00.0", vendor="0x10de", device="0x22e8", class_code="0x040300")
    assert surroundings_of(tmp_path).gpus == ()


def test_modules_and_processes_are_known_by_name(tmp_path: Path) -> None:
    modules = "nvidia 1 0 - Live 0x0 (POE)\nmlx5_ib 2 0 - Live 0x0\n"
    put(tmp_path, "proc/modules", modules)
    put(tmp_path, "proc/812/comm", "nv-fabricmanage\n")
    put(tmp_path, "proc/self/comm", "not a number\n")
    here = surroundings_of(tmp_path)
    assert here.modules == {"nvidia", "mlx5_ib"}
    assert here.has_driver
    assert here.processes == {"nv-fabricmanage"}


def test_the_librarys_version_stands_in_the_name_of_its_file(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
    assert surroundings_of(tmp_path).libraries == ("",)
    put(tmp_path, "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.65.06")
    put(tmp_path, "usr/lib64/libnvidia-ml.so.535.104.05")
    put(tmp_path, "usr/lib64/libnvidia-ml.so.bak")
    assert surroundings_of(tmp_path).libraries == ("535.104.05", "580.65.06")


def test_device_files_are_those_of_gpus_and_of_the_fabric(tmp_path: Path) -> None:
    put(tmp_path, "dev/nvidia0").chmod(0o660)
    put(tmp_path, "dev/nvidiactl").chmod(0o666)
    put(tmp_path, "dev/nvidia-uvm")
    put(tmp_path, "dev/infiniband/umad0")
    put(tmp_path, "dev/infiniband/rdma_cm")
    here = surroundings_of(tmp_path)
    assert [file.path for file in here.device_files] == ["/dev/nvidia0", "/dev/nvidiactl"]
    assert [file.mode for file in here.device_files] == [0o660, 0o666]
    assert all(file.is_usable for file in here.device_files)
    assert [file.path for file in here.umad_files] == ["/dev/infiniband/umad0"]


def test_a_device_file_of_somebody_else_is_not_usable(open_folder: Path) -> None:
    put(open_folder, "dev/nvidia0").chmod(0o000)
    with nobody_special():
        (file,) = surroundings_of(open_folder).device_files
    assert not file.is_usable


@pytest.mark.parametrize(
    ("options", "hidden"),
    [
        ("rw,relatime", None),
        ("rw,hidepid=0", None),
        ("rw,hidepid=2", HiddenProcesses("hidepid=2")),
        ("rw,hidepid=invisible,gid=0", HiddenProcesses("hidepid=invisible", "root")),
    ],
)
def test_hidden_processes_are_told_by_the_mount_of_proc(
    tmp_path: Path, options: str, hidden: HiddenProcesses | None
) -> None:
    mounts = f"/dev/sda1 / ext4 rw 0 0\nproc /proc proc {options} 0 0\nshort\n"
    put(tmp_path, "proc/self/mounts", mounts)
    assert surroundings_of(tmp_path).hidden_processes == hidden


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        (".dockerenv", "", "docker"),
        ("run/.containerenv", "", "podman"),
        ("proc/self/cgroup", "0::/kubepods/besteffort/pod1\n", "kubepods"),
        ("proc/self/cgroup", "0::/user.slice\n", None),
    ],
)
def test_a_container_is_known_by_its_marks(
    tmp_path: Path, path: str, text: str, kind: str | None
) -> None:
    put(tmp_path, path, text)
    assert surroundings_of(tmp_path).container == kind


def test_a_kernel_log_that_can_be_read_has_no_problem(tmp_path: Path) -> None:
    put(tmp_path, "dev/kmsg", "6,1,0,-;hello\n")
    assert surroundings_of(tmp_path).kernel_log is None


def test_a_pipe_in_a_captured_tree_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    os.mkfifo(tmp_path / "proc" / "modules")
    assert surroundings_of(tmp_path).modules == frozenset()


def test_slurm_is_known_by_its_configuration(tmp_path: Path) -> None:
    assert not surroundings_of(tmp_path).has_slurm
    put(tmp_path, "etc/slurm/slurm.conf")
    assert surroundings_of(tmp_path).has_slurm


def test_a_spool_is_fit_if_it_is_a_folder_to_write_to(tmp_path: Path) -> None:
    file = put(tmp_path, "a-file")
    problems = {
        name: surroundings_of(tmp_path, spool=place).spool_problem
        for name, place in (("fit", tmp_path), ("none", tmp_path / "none"), ("file", file))
    }
    assert problems == {
        "fit": None,
        "none": "there is no such folder",
        "file": "it is no folder",
    }


def test_this_machines_programs_are_asked_for_their_version() -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> str:
        asked.append(command)
        return "tool 1.2\nmore\n"

    here = surroundings_of(run=run)
    assert here.is_here
    assert "python3" in here.tools
    assert here.tools["python3"].version == "tool 1.2"
    assert all(Path(command[0]).is_absolute() for command in asked)
    assert not any(command[0].endswith("nvidia-smi") for command in asked), "it may not answer"


def test_a_program_that_hangs_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = put(tmp_path, "ssh", "#!/bin/sh\necho soon\nexec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    here = surroundings_of()
    assert here.tools["ssh"].version == "soon"
    assert "python3" not in here.tools


def test_the_binding_is_found_without_being_imported() -> None:
    here = surroundings_of()
    assert here.binding is not None
    assert here.binding.origin is not None
    assert here.binding.origin.endswith("pynvml.py")
    assert not here.binding.is_package
    assert "nvidia-ml-py" in here.binding.versions


def test_an_old_package_pynvml_before_the_module_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "pynvml/__init__.py", "raise AssertionError('never imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "pynvml", raising=False)
    here = surroundings_of()
    assert here.binding is not None
    assert here.binding.is_package

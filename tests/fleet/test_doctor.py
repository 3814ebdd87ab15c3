"""The doctor's checks, each against made-up surroundings that are well, ill, or without need."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fleet.doctor import CHECKS, CheckResult, State, Surroundings, examine
from fleet.doctor.surroundings import Binding, DeviceFile, HiddenProcesses, Tool, User
from fleet.fields import HostName
from fleet.reading import Answer, CollectedAt, Lacks, NodeReading, Stop, StopReason
from tests.fakes.nvml import NOON, asked_here, installed
from tests.fakes.nvml_profiles import profile_named

IDS = {
    "nvml.binding",
    "nvml.library",
    "nvml.driver",
    "nvml.permission",
    "nvml.version_match",
    "nvml.starts",
    "nvml.every_gpu_answers",
    "nvml.functions",
    "persistence.mode",
    "pci.gpus_listed",
    "fabric.manager",
    "kernel_log.readable",
    "process.names",
    "network.hcas",
    "fabric.ibnetdiscover",
    "fabric.umad",
    "gather.ssh",
    "gather.srun",
    "gather.python3",
    "agent.spool",
}

ALICE = User("alice", 1000, frozenset({"alice"}))
ROOT = User("root", 0, frozenset({"root"}))
NVIDIA0 = DeviceFile("/dev/nvidia0", "video", 0o660, is_usable=True)
UMAD0 = DeviceFile("/dev/infiniband/umad0", "root", 0o600, is_usable=True)
TOOLS = {
    "ssh": Tool("/usr/bin/ssh", "OpenSSH_9.2p1"),
    "srun": Tool("/usr/bin/srun", "slurm 23.11.4"),
    "ibnetdiscover": Tool("/usr/sbin/ibnetdiscover"),
    "python3": Tool("/usr/bin/python3", "Python 3.11.2"),
}


@cache
def answers_of(machine: str) -> dict[str, Answer]:
    """All that the driver of a machine answers."""
    with installed(profile_named(machine)):
        return asked_here().answers


def make_reading(
    machine: str = "h100-8", answers: Mapping[str, Answer] | None = None, **special: Any
) -> NodeReading:
    """What the driver of a machine answers; ``answers`` replace some of them."""
    plain: dict[str, Any] = {
        "kind": "node_reading",
        "schema_version": 1,
        "host": HostName("node1"),
        "answers": {**answers_of(machine), **(answers or {})},
        "collected_at": CollectedAt(driver=NOON),
    }
    return NodeReading(**plain | special)


def refused(**how: Any) -> NodeReading:
    """A driver that does not start."""
    start = {"nvmlInit()": Answer(**how)}
    return make_reading().model_copy(update={"answers": start})


def persistent(off: int) -> NodeReading:
    """Eight GPUs of which so many have no persistence mode."""
    name = "nvmlDeviceGetPersistenceMode({})"
    return make_reading(answers={name.format(i): Answer(value=int(i >= off)) for i in range(8)})


WELL = make_reading()
ADDRESSES = tuple(
    answer.value.lower()
    for key, answer in WELL.answers.items()
    if key.startswith("nvmlDeviceGetPciInfo(")
)


def make_surroundings(**special: Any) -> Surroundings:
    """A node of eight GPUs and one HCA on which all is well."""
    plain: dict[str, Any] = {
        "user": ALICE,
        "driver_version": WELL.answers["nvmlSystemGetDriverVersion()"].value,
        "modules": frozenset({"nvidia", "mlx5_ib"}),
        "libraries": (WELL.answers["nvmlSystemGetDriverVersion()"].value,),
        "gpus": ADDRESSES,
        "nvswitches": ("0000:05:00.0",),
        "adapters": ("0000:18:00.0",),
        "hcas": ("mlx5_0",),
        "device_files": (NVIDIA0,),
        "umad_files": (UMAD0,),
        "processes": frozenset({"systemd", "nv-fabricmanage"}),
        "tools": TOOLS,
        "has_slurm": True,
        "binding": Binding("/site/pynvml.py", {"nvidia-ml-py": "13.615.71"}),
        "spool": Path("/var/spool/fleetmap"),
        "reading": WELL,
    }
    return Surroundings(**plain | special)


EMPTY = Surroundings(user=ALICE)
"""A node without a GPU, an adapter or a program."""

CAPTURED = make_surroundings(is_here=False, binding=None, tools={}, reading=None)


def result(check: str, here: Surroundings) -> CheckResult:
    """What one check says."""
    (found,) = (r for r in examine(here).results if r.id == check)
    return found


@dataclass(frozen=True)
class Case:
    """A check, what is special in the surroundings, and what it must say."""

    check: str
    special: Mapping[str, Any]
    state: State
    evidence: str
    remedy: str = ""


def ill(check: str, evidence: str, remedy: str, **special: Any) -> Case:
    """A case in which the map lacks something."""
    return Case(check, special, State.MISSING, evidence, remedy)


def less(check: str, evidence: str, remedy: str, **special: Any) -> Case:
    """A case in which less is told."""
    return Case(check, special, State.LIMITED, evidence, remedy)


def well(check: str, evidence: str, **special: Any) -> Case:
    """A case in which all is there, although something is special."""
    return Case(check, special, State.OK, evidence)


def idle(check: str, evidence: str, **special: Any) -> Case:
    """A case in which nothing needs the check."""
    return Case(check, special, State.NOT_APPLICABLE, evidence)


def tools_without(name: str) -> dict[str, Tool]:
    """All programs but one."""
    return {tool: found for tool, found in TOOLS.items() if tool != name}


CLOSED = replace(NVIDIA0, is_usable=False)
OLD_BINDING = Binding("/site/pynvml.py", {"nvidia-ml-py": "11.525.84"})
SHELL = Binding("/site/pynvml.py", {"nvidia-ml-py": "13.615.71", "pynvml": "13.0.1"})
PACKAGE = Binding("/site/pynvml/__init__.py", {"pynvml": "11.5.3"})
LOST = {"nvmlDeviceGetHandleByIndex(3)": Answer(code=15)}
FORBIDDEN = {"nvmlDeviceGetHandleByIndex(3)": Answer(code=4)}
WITHHELD = {"nvmlDeviceGetSerial(0)": Answer(code=4)}
HUNG_START = Stop(
    chapter="nvml",
    at="nvmlInit()",
    reason=StopReason.TIMED_OUT,
    waited_s=20.0,
    detail="nvmlInit() did not return within 20 s",
)
HUNG_GPU = Stop(
    chapter="gpu 3",
    at="nvmlDeviceGetSerial(3)",
    reason=StopReason.TIMED_OUT,
    waited_s=5.0,
    detail="nvmlDeviceGetSerial(3) did not return within 5 s",
)
KNOWING = WELL.model_copy(
    update={"answers": {key: a for key, a in WELL.answers.items() if a.lacks is None}}
)
NOT_READ: Mapping[str, Any] = {"reading": None}

CASES = (
    well("nvml.binding", "nvidia-ml-py 13.615.71"),
    ill("nvml.binding", "no module pynvml", "pip install nvidia-ml-py", binding=Binding(None, {})),
    ill("nvml.binding", "not that of nvidia-ml-py", "pip uninstall -y pynvml", binding=PACKAGE),
    less("nvml.binding", "deprecated pynvml 13.0.1", "pip uninstall -y pynvml", binding=SHELL),
    less("nvml.binding", "11.525.84 is old", "pip install --upgrade", binding=OLD_BINDING),
    idle("nvml.binding", "captured tree", is_here=False, binding=None),
    well("nvml.library", "NVML 1"),
    well("nvml.library", "libnvidia-ml.so 535.104.05", libraries=("535.104.05",), **NOT_READ),
    ill("nvml.library", "loader does not find", "apt install", reading=refused(code=12)),
    ill("nvml.library", "none of the usual folders", "apt install", libraries=(), **NOT_READ),
    ill(
        "nvml.library",
        "none of the usual folders",
        "docker run --gpus all",
        libraries=(),
        container="docker",
        **NOT_READ,
    ),
    well("nvml.driver", "kernel module "),
    well("nvml.driver", "nvidia is loaded", driver_version=None, **NOT_READ),
    well("nvml.driver", "it answers", driver_version=None, modules=frozenset()),
    ill(
        "nvml.driver",
        "is not loaded",
        "sudo modprobe nvidia",
        driver_version=None,
        modules=frozenset({"ext4"}),
        **NOT_READ,
    ),
    ill(
        "nvml.driver",
        "nouveau has the GPUs",
        "blacklist nouveau",
        driver_version=None,
        modules=frozenset({"nouveau"}),
        **NOT_READ,
    ),
    well("nvml.permission", "alice may use 1 device file"),
    well("nvml.permission", "nothing was refused", device_files=()),
    ill(
        "nvml.permission",
        "/dev/nvidia0",
        "sudo usermod -aG video alice",
        device_files=(CLOSED,),
        **NOT_READ,
    ),
    ill(
        "nvml.permission",
        "/dev/nvidia0",
        "NVreg_DeviceFileMode",
        device_files=(replace(CLOSED, group="root"),),
        **NOT_READ,
    ),
    ill("nvml.permission", "no /dev/nvidia*", "nvidia-modprobe", device_files=(), **NOT_READ),
    ill(
        "nvml.permission",
        "no /dev/nvidia*",
        "docker run --gpus all",
        device_files=(),
        container="kubepods",
        **NOT_READ,
    ),
    ill(
        "nvml.permission",
        "refuses nvmlDeviceGetHandleByIndex(3)",
        "sudo fleet inventory",
        reading=make_reading(answers=FORBIDDEN),
    ),
    less(
        "nvml.permission",
        "refuses nvmlDeviceGetSerial(0)",
        "sudo fleet inventory",
        reading=make_reading(answers=WITHHELD),
    ),
    idle(
        "nvml.permission",
        "see nvml.driver",
        driver_version=None,
        modules=frozenset(),
        **NOT_READ,
    ),
    well("nvml.version_match", "module and library "),
    well("nvml.version_match", "580.1", driver_version="580.1", libraries=("535.2", "580.1")),
    ill(
        "nvml.version_match",
        "module 535.54.03, library 535.104.05",
        "sudo rmmod",
        driver_version="535.54.03",
        libraries=("535.104.05",),
        **NOT_READ,
    ),
    ill("nvml.version_match", "refuses its library", "reboot", reading=refused(code=18)),
    idle("nvml.version_match", "is not told", driver_version=None),
    well("nvml.starts", "it lists 8 GPUs"),
    ill("nvml.starts", "not loaded", "modprobe nvidia", reading=refused(code=9)),
    ill("nvml.starts", "unknown error", "container", reading=refused(code=999)),
    ill(
        "nvml.starts",
        "nvmlInit() did not return within 20 s",
        "dmesg",
        reading=make_reading(stops=(HUNG_START,)),
    ),
    idle("nvml.starts", "was not asked", **NOT_READ),
    well("nvml.every_gpu_answers", "every GPU answers"),
    ill("nvml.every_gpu_answers", "gpu3: ", "--gpu-reset", reading=make_reading(answers=LOST)),
    ill(
        "nvml.every_gpu_answers",
        "did not return within 5 s",
        "--gpu-reset",
        reading=make_reading(stops=(HUNG_GPU,)),
    ),
    idle("nvml.every_gpu_answers", "see nvml.starts", reading=refused(code=999)),
    well("nvml.functions", "know every call", reading=KNOWING),
    less(
        "nvml.functions",
        "does not know nvmlDeviceGetPlatformInfo",
        "upgrade the NVIDIA driver",
        reading=make_reading(answers={"nvmlDeviceGetPlatformInfo(0)": Answer(lacks=Lacks.DRIVER)}),
    ),
    less(
        "nvml.functions",
        "nvidia-ml-py does not know nvmlDeviceGetPlatformInfo",
        "pip install --upgrade",
        reading=make_reading(answers={"nvmlDeviceGetPlatformInfo(0)": Answer(lacks=Lacks.BINDING)}),
    ),
    idle("nvml.functions", "see nvml.starts", reading=refused(code=999)),
    well("persistence.mode", "on for every GPU", reading=persistent(0)),
    less("persistence.mode", "off for 1 of 8 GPUs", "nvidia-persistenced", reading=persistent(1)),
    idle("persistence.mode", "was not asked", **NOT_READ),
    well("pci.gpus_listed", "8 GPUs on the bus, all listed"),
    well("pci.gpus_listed", "the driver was not asked", **NOT_READ),
    ill(
        "pci.gpus_listed",
        "9 GPUs on the bus, 8 listed: not 0000:f9:00.0",
        "dmesg",
        gpus=(*ADDRESSES, "0000:f9:00.0"),
    ),
    less(
        "pci.gpus_listed",
        "8 listed",
        "docker run --gpus all",
        gpus=(*ADDRESSES, "0000:f9:00.0"),
        container="docker",
    ),
    well(
        "pci.gpus_listed",
        "9 GPUs on the bus, all listed",
        gpus=(*ADDRESSES, "0000:f9:00.0"),
        reading=make_reading(
            answers={
                "nvmlGetExcludedDeviceInfoByIndex(0)": Answer(
                    value={"bus_id": "00000000:F9:00.0", "uuid": "GPU-0"}
                )
            }
        ),
    ),
    less("pci.gpus_listed", "/sys/bus/pci is not there", "mount -t sysfs", gpus=None),
    well("fabric.manager", "it runs, for 1 NVSwitch"),
    ill(
        "fabric.manager",
        "there are 2 NVSwitches",
        "systemctl enable --now nvidia-fabricmanager",
        nvswitches=("0000:05:00.0", "0000:06:00.0"),
        processes=frozenset({"systemd"}),
    ),
    idle("fabric.manager", "not seen from here", container="docker"),
    well("kernel_log.readable", "/dev/kmsg can be read"),
    less("kernel_log.readable", "/dev/kmsg: EPERM", "CAP_SYSLOG", kernel_log="EPERM"),
    well("process.names", "processes of all users are seen"),
    well(
        "process.names",
        "processes of all users",
        hidden_processes=HiddenProcesses("hidepid=2"),
        user=ROOT,
    ),
    well(
        "process.names",
        "processes of all users",
        hidden_processes=HiddenProcesses("hidepid=2", "alice"),
    ),
    less(
        "process.names",
        "mounted with hidepid=2",
        "sudo usermod -aG proc alice",
        hidden_processes=HiddenProcesses("hidepid=2", "proc"),
    ),
    less(
        "process.names",
        "mounted with hidepid=invisible",
        "remount,hidepid=0",
        hidden_processes=HiddenProcesses("hidepid=invisible"),
    ),
    less("process.names", "sees its own", "docker run --pid host", container="docker"),
    well("network.hcas", "1 RDMA device"),
    ill(
        "network.hcas",
        "1 InfiniBand adapter on the bus, none in /sys/class/infiniband",
        "apt install rdma-core",
        hcas=(),
    ),
    well("fabric.ibnetdiscover", "/usr/sbin/ibnetdiscover"),
    less(
        "fabric.ibnetdiscover",
        "not installed",
        "apt install infiniband-diags",
        tools=tools_without("ibnetdiscover"),
    ),
    well("fabric.umad", "alice may use 1 device file"),
    less("fabric.umad", "no /dev/infiniband/umad*", "modprobe ib_umad", umad_files=()),
    less(
        "fabric.umad",
        "alice may not open /dev/infiniband/umad0",
        "sudo ibnetdiscover",
        umad_files=(replace(UMAD0, is_usable=False),),
    ),
    well("gather.ssh", "OpenSSH_9.2p1"),
    less("gather.ssh", "not installed", "openssh-client", tools=tools_without("ssh")),
    well("gather.srun", "slurm 23.11.4"),
    less("gather.srun", "not installed", "slurm-client", tools=tools_without("srun")),
    less(
        "gather.srun",
        "srun: error: no configuration",
        "slurm.conf",
        tools={**TOOLS, "srun": Tool("/usr/bin/srun", "srun: error: no configuration")},
    ),
    well("gather.python3", "Python 3.11.2"),
    well("gather.python3", "Python 3.6.8", tools={"python3": Tool("/p", "Python 3.6.8")}),
    less("gather.python3", "not on the path", "install python3", tools=tools_without("python3")),
    less(
        "gather.python3",
        "nvidia-smi is there",
        "install python3",
        tools={"nvidia-smi": Tool("/usr/bin/nvidia-smi")},
    ),
    less(
        "gather.python3",
        "Python 3.5.2 is too old",
        "install python3",
        tools={"python3": Tool("/p", "Python 3.5.2")},
    ),
    well("agent.spool", "alice may write to /var/spool/fleetmap"),
    ill(
        "agent.spool",
        "/var/spool/fleetmap: there is no such folder",
        "sudo install -d -o alice /var/spool/fleetmap",
        spool_problem="there is no such folder",
    ),
    idle("agent.spool", "give --spool DIR", spool=None),
)


def test_the_set_of_ids_is_a_contract() -> None:
    ids = [check.id for check in CHECKS]
    assert len(ids) == len(set(ids))
    assert set(ids) == IDS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_every_check_says_what_it_is_for_and_what_would_help(check: Any) -> None:
    assert len(check.title) > 8
    assert len(check.needed_for) > 8
    assert len(check.remedy) > 8
    assert not check.title.endswith(".")


def test_every_check_has_a_case_that_is_well_and_one_that_is_not() -> None:
    assert {case.check for case in CASES if case.state is State.OK} == IDS
    assert {case.check for case in CASES if case.state in (State.MISSING, State.LIMITED)} == IDS


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{i}-{case.check}-{case.state}" for i, case in enumerate(CASES)]
)
def test_a_check_tells_its_case(case: Case) -> None:
    found = result(case.check, make_surroundings(**case.special))
    assert found.state is case.state, found
    assert case.evidence in found.evidence
    if case.remedy:
        assert found.remedy is not None
        assert case.remedy in found.remedy
    else:
        assert found.remedy is None


def test_what_one_fault_breaks_is_told_once() -> None:
    """A driver that is not loaded is one finding, and no chain of them."""
    here = make_surroundings(
        driver_version=None,
        modules=frozenset(),
        device_files=(),
        libraries=("580.65.06",),
        reading=refused(code=9),
    )
    found = [r.id for r in examine(here).results if r.state is State.MISSING]
    assert found == ["nvml.driver", "nvml.starts"]


def test_a_node_on_which_all_is_well_has_nothing_missing() -> None:
    diagnosis = examine(make_surroundings())
    assert diagnosis.is_complete
    assert {r.state for r in diagnosis.results} <= {State.OK, State.LIMITED}


def test_a_node_without_gpus_lacks_nothing_for_it() -> None:
    diagnosis = examine(EMPTY)
    assert diagnosis.is_complete
    states = {r.id: r.state for r in diagnosis.results}
    gathering = {"gather.ssh", "gather.python3"}
    assert {i for i, state in states.items() if state is not State.NOT_APPLICABLE} == gathering


def test_a_captured_tree_is_judged_by_its_files_alone() -> None:
    states = {r.id: r.state for r in examine(CAPTURED).results}
    files = {"nvml.library", "nvml.driver", "nvml.version_match", "pci.gpus_listed", "network.hcas"}
    told = {i for i, state in states.items() if state is not State.NOT_APPLICABLE}
    assert told == files | {"agent.spool"}


def test_only_what_can_be_mended_has_a_remedy() -> None:
    for here in (make_surroundings(), EMPTY, CAPTURED, make_surroundings(tools={}, hcas=())):
        for found in examine(here).results:
            assert (found.remedy is None) == (found.state in (State.OK, State.NOT_APPLICABLE))

"""Checks of the machine around the driver: bus, NVSwitches, kernel log, processes, network."""

from typing import Final

from fleet.doctor.check import (
    GIVE_CONTAINER_GPUS,
    NO_GPU,
    NOT_HERE,
    Check,
    Outcome,
    limited,
    missing,
    not_applicable,
    ok,
)
from fleet.doctor.surroundings import Surroundings
from fleet.naming import counted
from fleet.sources.nvml_answers import Missing
from fleet.sources.nvml_calls import calls_of
from fleet.sources.pci import pci_address_from_text

_FABRIC_MANAGER: Final = "nv-fabricmanage"
"""As the kernel cuts the name: 15 letters."""


def _gpus_listed(here: Surroundings) -> Outcome:
    if here.gpus is None:
        return limited("/sys/bus/pci is not there", "sudo mount -t sysfs sysfs /sys")
    if not here.gpus:
        return not_applicable("no NVIDIA GPU on the bus")
    listed = _addresses_of_driver(here)
    told = f"{counted(len(here.gpus), 'GPU')} on the bus"
    if listed is None:
        return ok(f"{told}; the driver was not asked or did not tell")
    left_out = [gpu for gpu in here.gpus if pci_address_from_text(gpu) not in listed]
    if not left_out:
        return ok(f"{told}, all listed by the driver")
    evidence = f"{told}, {len(here.gpus) - len(left_out)} listed: not {', '.join(left_out)}"
    if here.container:
        return limited(evidence, GIVE_CONTAINER_GPUS)
    return missing(evidence)


def _addresses_of_driver(here: Surroundings) -> set[str | None] | None:
    """Addresses of the GPUs that the driver lists or was told to leave alone; None: unknown."""
    if here.reading is None:
        return None
    calls = calls_of(here.reading)
    count = calls.number("nvmlDeviceGetCount")
    if isinstance(count, Missing):
        return None
    found = [calls.bus_id("nvmlDeviceGetPciInfo", gpu) for gpu in range(min(count, 256))]
    texts = [text for text in found if not isinstance(text, Missing)]
    if len(texts) < count:
        return None  # one that does not tell its address may be any: nvml.every_gpu_answers says it
    excluded = (
        answer.value.get("bus_id", "")
        for key, answer in here.reading.answers.items()
        if key.startswith("nvmlGetExcludedDeviceInfoByIndex") and isinstance(answer.value, dict)
    )
    return {pci_address_from_text(str(text)) for text in (*texts, *excluded)}


def _fabric_manager(here: Surroundings) -> Outcome:
    if not here.nvswitches:
        return not_applicable("no NVSwitch on the bus")
    if here.container or not here.is_here:
        return not_applicable("the host's processes are not seen from here")
    switches = counted(len(here.nvswitches), "NVSwitch")
    if _FABRIC_MANAGER in here.processes:
        return ok(f"it runs, for {switches}")
    return missing(f"it does not run, and there are {switches}")


def _kernel_log(here: Surroundings) -> Outcome:
    if not here.has_gpus:
        return NO_GPU
    if not here.is_here:
        return NOT_HERE
    if here.kernel_log is None:
        return ok("/dev/kmsg can be read")
    return limited(f"/dev/kmsg: {here.kernel_log}")


def _process_names(here: Surroundings) -> Outcome:
    if not here.has_gpus:
        return NO_GPU
    if not here.is_here:
        return NOT_HERE
    hidden = here.hidden_processes
    if hidden is None or here.user.is_root or hidden.group in here.user.groups:
        if here.container:
            return limited("a container sees its own processes", "docker run --pid host")
        return ok("the processes of all users are seen")
    if hidden.group is None:
        return limited(f"/proc is mounted with {hidden.option}")
    remedy = f"sudo usermod -aG {hidden.group} {here.user.name}, then log in again"
    return limited(f"/proc is mounted with {hidden.option}", remedy)


def _hcas(here: Surroundings) -> Outcome:
    if here.hcas:
        return ok(f"{counted(len(here.hcas), 'RDMA device')}")
    if not here.adapters:
        return not_applicable("no InfiniBand adapter on the bus")
    adapters = counted(len(here.adapters), "InfiniBand adapter")
    return missing(f"{adapters} on the bus, none in /sys/class/infiniband")


def _ibnetdiscover(here: Surroundings) -> Outcome:
    if not (here.hcas or here.adapters):
        return not_applicable("no InfiniBand adapter here")
    if not here.is_here:
        return NOT_HERE
    tool = here.tools.get("ibnetdiscover")
    return limited("it is not installed") if tool is None else ok(tool.path)


def _umad(here: Surroundings) -> Outcome:
    if not (here.hcas or here.adapters):
        return not_applicable("no InfiniBand adapter here")
    if not here.is_here:
        return NOT_HERE
    if not here.umad_files:
        return limited("there is no /dev/infiniband/umad*")
    closed = [file.path for file in here.umad_files if not file.is_usable]
    if closed:
        return limited(f"{here.user.name} may not open {closed[0]}", "sudo ibnetdiscover")
    return ok(f"{here.user.name} may use {counted(len(here.umad_files), 'device file')}")


CHECKS: Final = (
    Check(
        "pci.gpus_listed",
        "every GPU of the bus in the driver's list",
        "a map that no GPU is missing from",
        "sudo dmesg | grep -e NVRM -e Xid; then reboot, or have the GPU seated again",
        _gpus_listed,
    ),
    Check(
        "fabric.manager",
        "the fabric manager of the node's NVSwitches",
        "NVLink between the GPUs, and the fabric's state",
        "sudo apt install nvidia-fabricmanager of the driver's version; "
        "sudo systemctl enable --now nvidia-fabricmanager",
        _fabric_manager,
    ),
    Check(
        "kernel_log.readable",
        "the right to read the kernel's log",
        "past Xid errors of the GPUs",
        "run as root or with CAP_SYSLOG, or: sudo sysctl kernel.dmesg_restrict=0",
        _kernel_log,
    ),
    Check(
        "process.names",
        "sight of the processes of other users",
        "names and owners of the processes that hold a GPU",
        "run as root, or: sudo mount -o remount,hidepid=0 /proc",
        _process_names,
    ),
    Check(
        "network.hcas",
        "RDMA devices of the InfiniBand adapters",
        "ports, GUIDs, rates and rails of the network",
        "sudo apt install rdma-core; sudo modprobe mlx5_ib",
        _hcas,
    ),
    Check(
        "fabric.ibnetdiscover",
        "the program ibnetdiscover",
        "switches and cables of an InfiniBand fabric",
        "sudo apt install infiniband-diags",
        _ibnetdiscover,
    ),
    Check(
        "fabric.umad",
        "the right to send management packets",
        "switches and cables of an InfiniBand fabric",
        "sudo modprobe ib_umad",
        _umad,
    ),
)

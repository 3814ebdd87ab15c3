"""Checks of the driver: binding, library, kernel module, rights, versions, and its answers."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from fleet.doctor.check import (
    GIVE_CONTAINER_GPUS,
    NO_DRIVER,
    NO_GPU,
    NOT_ASKED,
    NOT_HERE,
    NOT_STARTED,
    Check,
    Outcome,
    limited,
    missing,
    not_applicable,
    ok,
)
from fleet.doctor.surroundings import DeviceFile, Surroundings
from fleet.errors import FleetError
from fleet.faults import device_faults
from fleet.naming import counted
from fleet.probe.keys import INIT
from fleet.reading import Answer, Lacks, NodeReading
from fleet.sources.nvml import refusal_of
from fleet.sources.nvml_calls import calls_of
from fleet.sources.reading import snapshot_from_reading

FIRST_BINDING: Final = (12, 535, 108)
"""nvidia-ml-py that knows all we cannot do without."""

_NO_PERMISSION: Final = 4
_NO_LIBRARY: Final = 12
_VERSIONS_DIFFER: Final = 18
_NAMED: Final = 3
_CLEAN_BINDING: Final = "pip uninstall -y pynvml; pip install --force-reinstall nvidia-ml-py"


def _binding(here: Surroundings) -> Outcome:
    binding = here.binding
    if not here.has_gpus:
        return NO_GPU
    if binding is None:
        return NOT_HERE
    if binding.origin is None:
        return missing("Python finds no module pynvml", "pip install nvidia-ml-py")
    version = binding.versions.get("nvidia-ml-py")
    if binding.is_package or version is None:
        return missing(f"{binding.origin} is not that of nvidia-ml-py")
    if "pynvml" in binding.versions:
        return limited(f"the deprecated pynvml {binding.versions['pynvml']} is installed as well")
    if _numbers(version) < FIRST_BINDING:
        return limited(f"nvidia-ml-py {version} is old", "pip install --upgrade nvidia-ml-py")
    return ok(f"nvidia-ml-py {version}")


def _library(here: Surroundings) -> Outcome:
    if not here.has_gpus:
        return NO_GPU
    started = _started(here.reading)
    if started is not None and started.code == _NO_LIBRARY:
        return _no_library(here, "the loader does not find libnvidia-ml.so.1")
    if started is not None and started.value is not None:
        told = _told(here.reading, "nvmlSystemGetNVMLVersion()")
        return ok(f"NVML {told}" if told else "libnvidia-ml.so.1 loads")
    if here.libraries:
        return ok(f"libnvidia-ml.so {' and '.join(filter(None, here.libraries))}".rstrip())
    return _no_library(here, "libnvidia-ml.so.1 is in none of the usual folders")


def _no_library(here: Surroundings, evidence: str) -> Outcome:
    return missing(evidence, GIVE_CONTAINER_GPUS if here.container else None)


def _driver(here: Surroundings) -> Outcome:
    if not here.has_gpus:
        return NO_GPU
    started = _started(here.reading)
    if here.driver_version is not None:
        return ok(f"kernel module {here.driver_version}")
    if started is not None and started.value is not None:
        return ok("it answers, and its kernel module is not seen from here")
    if "nvidia" in here.modules:
        return ok("kernel module nvidia is loaded")
    if "nouveau" in here.modules:
        return missing(
            "nouveau has the GPUs, the module nvidia is not loaded",
            "install the driver, then: echo blacklist nouveau | "
            "sudo tee /etc/modprobe.d/nouveau.conf; sudo update-initramfs -u; reboot",
        )
    return missing("the kernel module nvidia is not loaded")


def _permission(here: Surroundings) -> Outcome:
    if not here.has_gpus:
        return NO_GPU
    if not here.is_here:
        return NOT_HERE
    started = _started(here.reading)
    if started is not None and started.value is not None:
        return _refused_calls(here)
    if not here.has_driver:
        return NO_DRIVER
    if not here.device_files:
        remedy = GIVE_CONTAINER_GPUS if here.container else "sudo nvidia-modprobe -u -c 0"
        return missing("there is no /dev/nvidia*", remedy)
    closed = [file for file in here.device_files if not file.is_usable]
    if closed:
        return missing(_listed(file.path for file in closed), _way_in(closed[0], here))
    return _refused_calls(here)


def _way_in(file: DeviceFile, here: Surroundings) -> str:
    """Membership of the group that has the file, where there is one; else the driver's setting."""
    if file.mode & 0o060 == 0o060 and file.group != "root":
        return f"sudo usermod -aG {file.group} {here.user.name}, then log in again"
    return "ask for NVreg_DeviceFileMode=0666 in /etc/modprobe.d, or for a group that may"


def _refused_calls(here: Surroundings) -> Outcome:
    """What the driver itself refused although the files are open."""
    answers = here.reading.answers if here.reading is not None else {}
    refused = [key for key, answer in answers.items() if answer.code == _NO_PERMISSION]
    if any(key.startswith(("nvmlInit", "nvmlDeviceGetHandleByIndex")) for key in refused):
        remedy = GIVE_CONTAINER_GPUS if here.container else "sudo fleet inventory"
        return missing(f"the driver refuses {_listed(refused)}", remedy)
    if refused:
        return limited(f"the driver refuses {_listed(refused)}", "sudo fleet inventory")
    files = counted(len(here.device_files), "device file")
    return ok(f"{here.user.name} may use {files}" if here.device_files else "nothing was refused")


def _version_match(here: Surroundings) -> Outcome:
    if not here.has_gpus:
        return NO_GPU
    started = _started(here.reading)
    if started is not None and started.code == _VERSIONS_DIFFER:
        return missing(f"the driver refuses its library ({_versions(here)})")
    told = _told(here.reading, "nvmlSystemGetDriverVersion()")
    libraries = {version for version in here.libraries if version}
    if here.driver_version is None or not (told or libraries):
        return not_applicable("the version of the module or of the library is not told")
    if told == here.driver_version or here.driver_version in libraries:
        return ok(f"module and library {here.driver_version}")
    return missing(_versions(here))


def _versions(here: Surroundings) -> str:
    library = " and ".join(filter(None, here.libraries)) or "unknown"
    return f"module {here.driver_version or 'unknown'}, library {library}"


def _starts(here: Surroundings) -> Outcome:
    if not here.has_gpus:
        return NO_GPU
    if here.reading is None or here.reading.collected_at.driver is None:
        return NOT_ASKED
    for stop in here.reading.stops:
        if stop.at == INIT:
            return missing(stop.detail or f"{INIT} {stop.reason.value}")
    refusal = refusal_of(calls_of(here.reading))
    if refusal is None:
        count = here.reading.answers["nvmlDeviceGetCount()"].value
        return ok(f"it lists {counted(count, 'GPU')}")
    return missing(refusal.problem, refusal.remedy)


def _every_gpu_answers(here: Surroundings) -> Outcome:
    if not here.has_gpus:
        return NO_GPU
    if here.reading is None or here.reading.collected_at.driver is None:
        return NOT_ASKED
    if refusal_of(calls_of(here.reading)) is not None:
        return NOT_STARTED
    try:
        faults = device_faults(snapshot_from_reading(here.reading))
    except FleetError as error:
        return missing(f"what was read makes no node: {error}")
    silent = [f"{fault.device}: {fault.detail}" for fault in faults if fault.kind == "gpu"]
    return missing(_listed(silent)) if silent else ok("every GPU answers")


def _functions(here: Surroundings) -> Outcome:
    """Calls that one side does not know; what a part lacks by its nature is no lack here."""
    if not here.has_gpus:
        return NO_GPU
    if here.reading is None or refusal_of(calls_of(here.reading)) is not None:
        return NOT_STARTED if here.reading is not None else NOT_ASKED
    binding, driver = (set(_lacking(here.reading, side)) for side in (Lacks.BINDING, Lacks.DRIVER))
    if binding:
        return limited(
            f"this nvidia-ml-py does not know {_listed(sorted(binding))}",
            "pip install --upgrade nvidia-ml-py",
        )
    if driver:
        return limited(f"this driver does not know {_listed(sorted(driver))}")
    return ok("binding and driver know every call")


def _lacking(reading: NodeReading, side: Lacks) -> Iterator[str]:
    for key, answer in reading.answers.items():
        if answer.lacks is side:
            yield key.partition("(")[0]


def _persistence(here: Surroundings) -> Outcome:
    if not here.has_gpus:
        return NO_GPU
    name = "nvmlDeviceGetPersistenceMode("
    answers = here.reading.answers if here.reading is not None else {}
    modes = [a.value for key, a in answers.items() if key.startswith(name) and a.value is not None]
    if not modes:
        return NOT_ASKED
    if 0 in modes:
        return limited(f"off for {modes.count(0)} of {counted(len(modes), 'GPU')}")
    return ok("on for every GPU")


def _started(reading: NodeReading | None) -> Answer | None:
    return reading.answers.get(INIT) if reading is not None else None


def _told(reading: NodeReading | None, key: str) -> str:
    """A text of the driver's, empty where there is none."""
    answer = reading.answers.get(key) if reading is not None else None
    return answer.value if answer is not None and isinstance(answer.value, str) else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall("[0-9]+", version)))


def _listed(names: Iterable[str]) -> str:
    """The first names, and how many more."""
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


CHECKS: Final = (
    Check(
        "nvml.binding",
        "the Python binding of NVML",
        "everything that the driver tells: GPUs, NVLinks, health, processes",
        _CLEAN_BINDING,
        _binding,
    ),
    Check(
        "nvml.library",
        "the driver's library libnvidia-ml.so.1",
        "everything that the driver tells",
        "sudo apt install nvidia-utils of the driver's version, or run the driver's installer",
        _library,
    ),
    Check(
        "nvml.driver",
        "the NVIDIA kernel module",
        "everything that the driver tells",
        "sudo modprobe nvidia; where that fails: sudo apt install nvidia-driver, then reboot",
        _driver,
    ),
    Check(
        "nvml.permission",
        "the right to open /dev/nvidia*",
        "everything that the driver tells",
        "sudo usermod -aG video,render $USER, then log in again",
        _permission,
    ),
    Check(
        "nvml.version_match",
        "kernel module and library of one version",
        "everything that the driver tells",
        "reboot, or: sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia; sudo modprobe nvidia",
        _version_match,
    ),
    Check(
        "nvml.starts",
        "a driver that answers its first call",
        "everything that the driver tells",
        "sudo dmesg | grep NVRM, then reset the GPUs or reboot",
        _starts,
    ),
    Check(
        "nvml.every_gpu_answers",
        "an answer from every GPU",
        "identity, links and health of each GPU",
        "sudo dmesg | grep NVRM; then nvidia-smi --gpu-reset -i GPU, or reboot",
        _every_gpu_answers,
    ),
    Check(
        "nvml.functions",
        "a driver and a binding that know every call",
        "newer data: fabric health, recovery action, rack place",
        "upgrade the NVIDIA driver",
        _functions,
    ),
    Check(
        "persistence.mode",
        "a driver that stays loaded between readings",
        "quick readings, and counters that last",
        "sudo systemctl enable --now nvidia-persistenced",
        _persistence,
    ),
)

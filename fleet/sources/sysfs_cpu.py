"""NUMA nodes and CPUs as the kernel lists them. No devices."""

import re
from collections.abc import Iterable
from typing import Final

from fleet.fields import AbsenceReason
from fleet.sources.nvml_answers import Gaps, Missing
from fleet.sources.sysfs_files import NUMA, KernelFiles, undecodable
from fleet.wiring import GpuSlot, NicSlot, NumaNode, PcieBridge

_NUMA_NAME: Final = re.compile(r"node[0-9]{1,4}")
_CPU_LIST: Final = re.compile(r"[0-9][0-9,-]{0,1000}")
_FIELD: Final = re.compile(r"^([A-Za-z_ ]{1,32}?)[ \t]*:[ \t]*(\S.{0,99})$", re.MULTILINE)
_MAKER: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHORT_NUMBER: Final = re.compile(r"[0-9]{1,4}")


def cpu_lists(read: KernelFiles) -> dict[int, str | Missing]:
    """CPUs by NUMA node; memory without CPUs (a Grace's GPUs have some) is no place for devices."""
    lists: dict[int, str | Missing] = {}
    for name in read.names(NUMA, _NUMA_NAME):
        path = f"{NUMA}/{name}/cpulist"
        cpus = read.text(path)
        if isinstance(cpus, str) and not _CPU_LIST.fullmatch(cpus):
            cpus = undecodable(path, cpus)
        if read.files.get(path, "-").strip():
            lists[int(name.removeprefix("node"))] = cpus
    return dict(sorted(lists.items()))


def numa_nodes(
    read: KernelFiles, devices: Iterable[GpuSlot | NicSlot | PcieBridge], gaps: Gaps
) -> tuple[NumaNode, ...]:
    """The NUMA nodes that have CPUs or devices."""
    cpus = cpu_lists(read)
    kind = _cpu_kind(read)
    no_cpus = Missing(AbsenceReason.UNSUPPORTED, "no CPUs")
    used = {device.numa for device in devices if device.numa is not None}
    return tuple(
        NumaNode(
            numa=numa,
            cpu_affinity=gaps.value(f"numa_nodes[{numa}].cpu_affinity", cpus.get(numa, no_cpus)),
            **(kind if numa in cpus else {}),
        )
        for numa in sorted(used | cpus.keys())
    )


def _cpu_kind(read: KernelFiles) -> dict[str, str]:
    """Architecture and make of the CPUs, numbered as NCCL does from the CPUID instruction.

    Linux adds an extended family to the base family 15; NCCL shifts it: 25 is 175 there.
    """
    fields = dict(_FIELD.findall(read.cpu_block()))
    if "CPU implementer" in fields:
        return {"architecture": "arm64"}
    if fields.get("cpu", "").startswith("POWER"):
        return {"architecture": "ppc64"}
    vendor, family, model = (fields.get(name, "") for name in ("vendor_id", "cpu family", "model"))
    is_x86 = _MAKER.fullmatch(vendor) and all(map(_SHORT_NUMBER.fullmatch, (family, model)))
    if not is_x86:
        return {}
    number = int(family)
    return {
        "architecture": "x86_64",
        "vendor": vendor,
        "family": str(number if number <= 15 else 15 + (number - 15 << 4)),
        "model": str(int(model)),
    }

"""NVML: this node as its NVIDIA driver answered. No calls, no clock, no NICs, no sysfs."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from fleet.fields import Absence, AbsenceReason, GpuUuid, HostName
from fleet.model import (
    SCHEMA_VERSION,
    Allocation,
    FabricState,
    GpuIdentity,
    NodeSnapshot,
    NvlinkFabric,
    Section,
    SectionName,
    SoftwareVersions,
)
from fleet.sources import nvml_calls as nvml
from fleet.sources.nvml_answers import (
    NO_GPU,
    Gaps,
    Missing,
    above_zero,
    agreed,
    looked_up,
    shared_absences,
    then,
)
from fleet.sources.nvml_calls import Calls, FabricInfo, PlatformInfo
from fleet.sources.nvml_links import pci_address
from fleet.sources.nvml_state import gpu_processes, gpu_state
from fleet.sources.nvml_wiring import WiringMemory
from fleet.state import UnlistedGpu, UnlistedWhy

SOURCE: Final = "nvml"
MOST_GPUS: Final = 64
_OF_GPU: Final = re.compile(r"(?:wiring\.gpus|gpus|states)\[([0-9]+)\]")
_AT_START: Final[Mapping[int, tuple[str, str]]] = {
    4: (
        "no permission to open the NVIDIA devices",
        "run as a user who may read /dev/nvidia*, or give the container its GPUs",
    ),
    9: (
        "the NVIDIA driver is not loaded",
        "load it (modprobe nvidia), or map this node from files",
    ),
    12: (
        "libnvidia-ml.so.1 is not found",
        "install the NVIDIA driver, give the container its GPUs, or map this node from files",
    ),
    13: ("the driver is too old for this nvidia-ml-py", "upgrade the NVIDIA driver"),
    18: (
        "the loaded driver and its library have different versions",
        "reload the NVIDIA kernel modules or reboot",
    ),
    999: (
        "the driver gave an unknown error",
        "start the container again if this is one; else see the kernel log for NVRM",
    ),
}
_NAMES: Final = ("gpus[%d].uuid", "wiring.gpus[%d].product_name", "wiring.gpus[%d].pci_address")
_NO_FAULT: Final = frozenset({AbsenceReason.UNSUPPORTED, AbsenceReason.FUNCTION_MISSING})
_NO_DRIVER: Final = frozenset({9, 12})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the driver said nothing at all; ``is_absent``: there is none, as without GPUs."""

    problem: str
    remedy: str
    reason: AbsenceReason
    is_absent: bool


def refusal_of(calls: Calls) -> Refusal | None:
    """Why there is nothing to learn from the driver; None where it started and counted its GPUs."""
    for name in ("nvmlInit", "nvmlDeviceGetCount"):
        answered = calls.read(name, by=lambda value: value)
        if isinstance(answered, Missing):
            return _refused(answered, calls)
    return None


def _refused(missing: Missing, calls: Calls) -> Refusal:
    unknown = (f"the driver does not answer ({missing.detail})", "see the kernel log for NVRM")
    code = missing.code
    if "nvidia-ml-py" in missing.detail:
        unknown = (
            "there is no module pynvml, or not that of nvidia-ml-py",
            "pip uninstall pynvml and install nvidia-ml-py",
        )
    elif missing.reason is AbsenceReason.FUNCTION_MISSING:
        code = 13
    problem, remedy = _AT_START.get(code or 0, unknown)
    return Refusal(problem, remedy, missing.reason, code in _NO_DRIVER)


def snapshot_from_calls(
    calls: Calls,
    *,
    host: HostName,
    collected_at: datetime,
    state_at: datetime | None = None,
    memory: WiringMemory | None = None,
) -> NodeSnapshot:
    """This node as its driver answered; ``refusal_of`` has found that it did.

    ``state_at``: when health and use were asked for, where later than all else. ``memory``: that of
    a reader who reads one node again and again.

    A GPU that is lost, forbidden or does not answer costs only its own data: an absence with the
    path ``gpus[SLOT]`` says why.
    """
    gaps = Gaps()
    count = calls.number("nvmlDeviceGetCount")
    gpus = range(min(count, MOST_GPUS) if isinstance(count, int) else 0)
    wiring = (memory or WiringMemory()).wiring(calls, gpus, gaps)
    identities = tuple(_identity(calls, gpu, gaps.below(f"gpus[{gpu}]")) for gpu in gpus)
    versions = _versions(calls, gaps.below("versions"))
    chassis_serial, chassis_slot, tray = _place_in_rack(calls, gpus, gaps)
    processes = gpu_processes(calls, gpus)
    allocations = _allocations(calls, gpus, gaps)
    open_gpus = [gpu for gpu in gpus if calls.handle(gpu) is True]
    states = tuple(
        gpu_state(calls, gpu, len(wiring.gpus[gpu].ports), gaps.below(f"states[{gpu}]"))
        for gpu in open_gpus
    )
    own = _by_gpu(gaps.absences)
    faults = {gpu: why for gpu in gpus if (why := _fault(calls, gpu, own[gpu])) is not None}
    return NodeSnapshot(
        kind="node_snapshot",
        schema_version=SCHEMA_VERSION,
        host=host,
        wiring=wiring,
        gpus=identities,
        versions=versions,
        chassis_serial=chassis_serial,
        chassis_slot=chassis_slot,
        tray=tray,
        allocations=allocations,
        states=states,
        processes=processes,
        unlisted_gpus=_excluded(calls, gaps),
        sections=tuple(
            Section(name=name, source=SOURCE, collected_at=when)
            for name, when in (
                (SectionName.DEVICES, collected_at),
                (SectionName.LINKS, collected_at),
                (SectionName.HEALTH, state_at or collected_at),
                (SectionName.USE, state_at or collected_at),
            )
        ),
        absences=shared_absences(_told_once(gaps.absences, faults), wiring),
    )


def _by_gpu(absences: Iterable[Absence]) -> Mapping[int, list[Absence]]:
    own: dict[int, list[Absence]] = defaultdict(list)
    for absence in absences:
        if (match := _OF_GPU.match(absence.path)) is not None:
            own[int(match[1])].append(absence)
    return own


def _fault(calls: Calls, gpu: int, own: Iterable[Absence]) -> Missing | None:
    """Why a GPU does not answer as a whole: not to be opened, given up, lost, or without a name."""
    handle = calls.handle(gpu)
    if isinstance(handle, Missing):
        return handle
    if (stop := calls.stop_of(gpu)) is not None:
        return stop
    lost = [absence for absence in own if absence.reason is AbsenceReason.GPU_LOST]
    names = {name % gpu for name in _NAMES}
    refused = [a for a in own if a.path in names and a.reason not in _NO_FAULT]
    for absence in lost or (refused if len(refused) == len(_NAMES) else ()):
        return Missing(absence.reason, absence.detail or absence.reason.value)
    return None


def _roots(gpu: int) -> tuple[str, ...]:
    return (f"gpus[{gpu}]", f"wiring.gpus[{gpu}]", f"states[{gpu}]")


def _told_once(absences: list[Absence], faults: Mapping[int, Missing]) -> list[Absence]:
    """One absence for each place of a GPU that does not answer, instead of one for each field."""

    def is_told(absence: Absence) -> bool:
        match = _OF_GPU.match(absence.path)
        why = faults.get(int(match[1])) if match is not None else None
        return why is not None and absence.reason is why.reason

    return [
        *(absence for absence in absences if not is_told(absence)),
        *(
            Absence(path=path, reason=why.reason, detail=why.detail)
            for gpu, why in faults.items()
            for path in _roots(gpu)
        ),
    ]


def _identity(calls: Calls, gpu: int, gaps: Gaps) -> GpuIdentity:
    uuid = then(calls.text("nvmlDeviceGetUUID", gpu), GpuUuid)
    part = calls.text("nvmlDeviceGetBoardPartNumber", gpu)
    return GpuIdentity(
        slot=gpu,
        uuid=gaps.value("uuid", uuid),
        serial=gaps.value("serial", calls.text("nvmlDeviceGetSerial", gpu)),
        part_number=gaps.value("part_number", part),
        vbios=gaps.value("vbios", calls.text("nvmlDeviceGetVbiosVersion", gpu)),
        fabric=gaps.value("fabric", then(nvml.fabric_info(calls, gpu), _fabric)),
    )


def _fabric(info: FabricInfo) -> NvlinkFabric | Missing:
    """The domain rule: completed, without error, and with a cluster that is not all zeros."""
    if info.state != 3:
        words = {0: FabricState.UNSUPPORTED, 1: FabricState.FORMING, 2: FabricState.FORMING}
        known = looked_up(words, "fabric state")(info.state)
        return then(known, lambda state: NvlinkFabric(state=state))
    if info.status:
        return NvlinkFabric(state=FabricState.BROKEN)
    if not any(info.cluster_uuid):
        return NvlinkFabric(state=FabricState.SINGLE_NODE)
    cluster = str(UUID(bytes=info.cluster_uuid))
    return NvlinkFabric(state=FabricState.DOMAIN, cluster_uuid=cluster, clique=info.clique)


def _versions(calls: Calls, gaps: Gaps) -> SoftwareVersions:
    cuda = above_zero(calls.number("nvmlSystemGetCudaDriverVersion"))
    return SoftwareVersions(
        driver=gaps.value("driver", calls.text("nvmlSystemGetDriverVersion")),
        cuda=gaps.value("cuda", then(cuda, lambda n: f"{n // 1000}.{n % 1000 // 10}")),
        nvml=gaps.value("nvml", calls.text("nvmlSystemGetNVMLVersion")),
    )


def _place_in_rack(
    calls: Calls, gpus: Iterable[int], gaps: Gaps
) -> tuple[str | None, int | None, int | None]:
    def serial_of(platform: PlatformInfo) -> str | Missing:
        return platform.chassis_serial

    platforms = [nvml.platform_info(calls, gpu) for gpu in gpus]
    serials = (then(platform, serial_of) for platform in platforms)
    slots = (then(platform, lambda known: known.slot) for platform in platforms)
    trays = (then(platform, lambda known: known.tray) for platform in platforms)
    return (
        gaps.value("chassis_serial", agreed(serials, "chassis serial")),
        gaps.value("chassis_slot", agreed(slots, "chassis slot")),
        gaps.value("tray", agreed(trays, "tray")),
    )


def _allocations(calls: Calls, gpus: Iterable[int], gaps: Gaps) -> tuple[Allocation, ...] | None:
    """GPUs by process; of a GPU that does not tell its processes, an absence under its name."""

    def pids_of(found: Any) -> tuple[int, ...]:
        return tuple(nvml.whole(pid) for pid, _ in found if pid > 0)

    name = "nvmlDeviceGetComputeRunningProcesses"
    answers = {gpu: calls.read(name, gpu, by=pids_of) for gpu in gpus}
    if all(isinstance(answer, Missing) for answer in answers.values()):
        gaps.value("allocations", next(iter(answers.values()), NO_GPU))
        return None
    slots: dict[int, list[int]] = defaultdict(list)
    for slot, answer in answers.items():
        for pid in sorted(set(gaps.value(f"allocations[gpu{slot}]", answer) or ())):
            slots[pid].append(slot)
    return tuple(Allocation(holder=f"pid {pid}", slots=tuple(slots[pid])) for pid in sorted(slots))


def _excluded(calls: Calls, gaps: Gaps) -> tuple[UnlistedGpu, ...]:
    """GPUs that the driver was told to leave alone."""
    count = gaps.value("unlisted_gpus", calls.number("nvmlGetExcludedDeviceCount")) or 0
    name = "nvmlGetExcludedDeviceInfoByIndex"
    told = [calls.read(name, i, by=_excluded_gpu) for i in range(min(count, MOST_GPUS))]
    missing = [gpu for gpu in told if isinstance(gpu, Missing)]
    if missing:
        gaps.value("unlisted_gpus", missing[0])
    return tuple(gpu for gpu in told if not isinstance(gpu, Missing))


def _excluded_gpu(told: Mapping[str, str]) -> UnlistedGpu | Missing:
    uuid = GpuUuid(told["uuid"]) if told["uuid"] else None
    return then(
        pci_address(told["bus_id"]),
        lambda address: UnlistedGpu(pci_address=address, why=UnlistedWhy.EXCLUDED, uuid=uuid),
    )

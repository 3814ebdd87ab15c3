"""A machine as a flat table of answers by call: the one source of both fakes of NVML.

Keys are words with spaces between them: the device (``-`` the library, ``3`` a GPU, ``3.1`` a MIG
device, ``0+1`` a pair), the function, the numbers it was asked with. ``*`` stands for any other
last number. A call that has no key is "not supported".
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from uuid import UUID

from tests.fakes.nvml_machine import FakeGpu, FakeLink, FakeMig, FakeProfile, Faults
from tests.fakes.nvml_symbols import (
    INVALID_ARGUMENT,
    NOT_FOUND,
    NOT_SUPPORTED,
    SUCCESS,
    VERSIONED,
)

Word = int | bytes
Answer = tuple[int, tuple[Word, ...]]
"""Return code and the words that the function writes."""
Table = dict[str, Answer]

VERSIONS = {
    "nvmlDeviceGetMemoryInfo_v2": (0x02000028,),
    "nvmlDeviceGetTemperatureV": (0x0100000C,),
    "nvmlDeviceGetPlatformInfo": (0x0200002C,),
}
LINK_COUNT, COMMON_SPEED, REMOTE_LINK, SPEED, STATE = 91, 90, 146, 164, 165
POWER_AVERAGE, POWER_INSTANT, RECOVERY_ACTION = 185, 186, 230
C2C_COUNT, C2C_STATUS, C2C_RATE = 170, 171, 172
THROUGHPUT = (138, 139, 140, 141)
LONG_FIELDS = frozenset({*THROUGHPUT, 161, 162, 163, *range(201, 223)})
ALL_LINKS = 0xFFFFFFFF
UNSIGNED, UNSIGNED_LONG_LONG = 1, 3
SAMPLED_AT_US = 1_000_000
BUS_ID = re.compile(rb"([0-9A-Fa-f]{4,8}):([0-9A-Fa-f]{2}):([0-9A-Fa-f]{2})\.[0-9A-Fa-f]")


def table_of(profile: FakeProfile) -> Table:
    """Every answer of a machine."""
    table = dict(_system(profile))
    for index, gpu in enumerate(profile.gpus):
        table.update(_gpu(str(index), gpu))
    table.update(_pairs(profile))
    return table


def _said(*words: int | str | bytes) -> Answer:
    return SUCCESS, tuple(word.encode() if isinstance(word, str) else word for word in words)


def _system(profile: FakeProfile) -> Iterator[tuple[str, Answer]]:
    yield "- nvmlSystemGetDriverVersion", _said(profile.driver_version)
    yield "- nvmlSystemGetNVMLVersion", _said(profile.nvml_version)
    for name in ("nvmlSystemGetCudaDriverVersion", "nvmlSystemGetCudaDriverVersion_v2"):
        yield f"- {name}", _said(profile.cuda_version)
    yield "- nvmlDeviceGetCount_v2", _said(len(profile.gpus))
    yield "- nvmlDeviceGetHandleByIndex_v2 *", (INVALID_ARGUMENT, ())
    for index in range(len(profile.gpus)):
        yield f"- nvmlDeviceGetHandleByIndex_v2 {index}", _said(str(index))
    yield "- nvmlGetExcludedDeviceCount", _said(len(profile.excluded))
    yield "- nvmlGetExcludedDeviceInfoByIndex *", (INVALID_ARGUMENT, ())
    for index, excluded in enumerate(profile.excluded):
        info = _said(*_pci(excluded.bus_id), excluded.uuid)
        yield f"- nvmlGetExcludedDeviceInfoByIndex {index}", info
    codes = {"nvmlInitWithFlags": profile.init_code, "nvmlDeviceGetCount_v2": profile.count_code}
    yield from _faults("-", profile.faults, {**codes, **profile.faults.returns})
    for name in VERSIONED:
        taken = VERSIONS.get(name, tuple(sorted(profile.fabric_versions)))
        yield f"- versions {name}", _said(*(() if name in profile.wrong_struct_version else taken))


def _faults(device: str, faults: Faults, codes: Mapping[str, int]) -> Iterator[tuple[str, Answer]]:
    yield f"{device} after", _said(faults.after_calls)
    for name, code in codes.items():
        yield f"{device} code {name}", _said(code)
    for name in faults.hangs:
        yield f"{device} hang {name}", _said()
    for name, seconds in faults.delay_s.items():
        yield f"{device} delay {name}", _said(round(seconds * 1e6))
    for name in faults.undecodable:
        yield f"{device} undecodable {name}", _said(b"\xff\xfe?")


def _gpu(device: str, gpu: FakeGpu) -> Iterator[tuple[str, Answer]]:
    yield f"{device} nvmlDeviceGetIndex", _said(int(device))
    for name, words in _plain(gpu).items():
        known = [word for word in words or () if word is not None]
        if words is not None and len(known) == len(words):
            yield f"{device} {name}", _said(*known)
    yield from _processes(device, gpu.pids, gpu.pid_bytes)
    yield from _samples(device, gpu)
    yield from _ecc(device, gpu)
    yield from _links(device, gpu.links)
    yield from _fields(device, gpu)
    yield from _mig(device, gpu)
    codes = {"nvmlDeviceGetHandleByIndex_v2": gpu.handle_code, **gpu.returns, **gpu.faults.returns}
    yield from _faults(device, gpu.faults, codes)
    if gpu.every_code:
        yield f"{device} code *", _said(gpu.every_code)


def _plain(gpu: FakeGpu) -> dict[str, tuple[int | str | bytes | None, ...] | None]:
    """Words by function; None among them: not supported."""
    pci = None if gpu.bus_id is None else _pci(gpu.bus_id, gpu.device_id, gpu.subsystem_id)
    return {
        "nvmlDeviceGetName": (gpu.name,),
        "nvmlDeviceGetUUID": (gpu.uuid,),
        "nvmlDeviceGetSerial": (gpu.serial,),
        "nvmlDeviceGetBoardPartNumber": (gpu.part_number,),
        "nvmlDeviceGetVbiosVersion": (gpu.vbios,),
        "nvmlDeviceGetPciInfo_v3": pci,
        "nvmlDeviceGetModuleId": (gpu.module_id,),
        "nvmlDeviceGetMaxPcieLinkGeneration": (gpu.pcie_gen,),
        "nvmlDeviceGetMaxPcieLinkWidth": (gpu.pcie_width_most,),
        "nvmlDeviceGetCurrPcieLinkGeneration": (gpu.pcie_gen_now,),
        "nvmlDeviceGetCurrPcieLinkWidth": (gpu.pcie_width,),
        "nvmlDeviceGetGpuMaxPcieLinkGeneration": (gpu.pcie_gen_of_gpu,),
        "nvmlDeviceGetPcieReplayCounter": (gpu.pcie_replays,),
        "nvmlDeviceGetCudaComputeCapability": gpu.compute_capability,
        **_memory(gpu.memory_bytes, gpu.memory_used_bytes, gpu.memory_reserved_bytes),
        "nvmlDeviceGetMemoryAffinity": _mask(gpu.numa),
        "nvmlDeviceGetCpuAffinityWithinScope": _mask(gpu.cpus),
        "nvmlDeviceGetCpuAffinity": _mask(gpu.cpus),
        "nvmlDeviceGetNumaNodeId": (gpu.numa_of_memory,),
        "nvmlDeviceGetComputeMode": (gpu.compute_mode,),
        "nvmlDeviceGetPersistenceMode": (gpu.persistence,),
        "nvmlDeviceGetUtilizationRates": gpu.busy_percent,
        "nvmlDeviceGetTemperature 0": (gpu.temperature_celsius,),
        "nvmlDeviceGetTemperatureV": (0, gpu.temperature_celsius),
        "nvmlDeviceGetPowerUsage": (gpu.power_mw,),
        "nvmlDeviceGetEnforcedPowerLimit": (gpu.power_limit_mw,),
        "nvmlDeviceGetPowerManagementLimit": (gpu.power_limit_mw,),
        "nvmlDeviceGetCurrentClocksEventReasons": (gpu.clocks_reasons,),
        "nvmlDeviceGetCurrentClocksThrottleReasons": (gpu.clocks_reasons,),
        "nvmlDeviceGetEccMode": gpu.ecc_mode,
        "nvmlDeviceGetRemappedRows": gpu.remapped_rows,
        "nvmlDeviceGetMigMode": gpu.mig_mode,
        "nvmlDeviceGetMaxMigDeviceCount": (gpu.mig_most,),
        "nvmlDeviceGetGpuFabricInfo": _fabric(gpu)[:4],
        "nvmlDeviceGetGpuFabricInfoV": _fabric(gpu),
        "nvmlDeviceGetPlatformInfo": _platform(gpu),
    }


def _memory(total: int | None, used: int, reserved: int) -> dict[str, tuple[int, ...] | None]:
    """The first form counts what is reserved as used."""
    if total is None:
        return {}
    free = max(0, total - used - reserved)
    return {
        "nvmlDeviceGetMemoryInfo": (total, free, total - free),
        "nvmlDeviceGetMemoryInfo_v2": (total, reserved, free, used),
    }


def _mask(numbers: Iterable[int] | None) -> tuple[int, ...] | None:
    """The 64-bit words of a bit mask."""
    if numbers is None:
        return None
    mask = sum(1 << number for number in set(numbers))
    return tuple(mask >> at & (1 << 64) - 1 for at in range(0, max(mask.bit_length(), 1), 64))


def _pci(bus_id: str | bytes, device_id: int = 0, subsystem_id: int = 0) -> tuple[Word, ...]:
    """Words of nvmlPciInfo_t; the older address has a domain of four digits."""
    raw = bus_id.encode() if isinstance(bus_id, str) else bus_id
    found = BUS_ID.fullmatch(raw)
    domain, bus, device = (int(part, 16) for part in found.groups()) if found else (0, 0, 0)
    legacy = raw[-12:] if found else raw[:15]
    return legacy, domain, bus, device, device_id, subsystem_id, raw


def _fabric(gpu: FakeGpu) -> tuple[Word | None, ...]:
    fabric = gpu.fabric
    if fabric is None:
        return (None,)
    cluster = UUID(fabric.cluster_uuid).bytes
    health = (fabric.health_mask, fabric.health_summary)
    return cluster, fabric.status, fabric.clique_id, fabric.state, *health


def _platform(gpu: FakeGpu) -> tuple[int | str | bytes, ...] | None:
    at = gpu.platform
    if at is None:
        return None
    return at.ib_guid, at.chassis_serial, at.slot, at.tray, at.host, at.peer, at.module


def _processes(
    device: str, pids: tuple[int, ...] | None, bytes_of: Mapping[int, int]
) -> Iterator[tuple[str, Answer]]:
    for version in ("v2", "v3") if pids is not None else ():
        # Process, bytes, and "no instance" twice: what the driver gives outside MIG.
        words = [w for pid in pids or () for w in (pid, bytes_of.get(pid, 0), ALL_LINKS, ALL_LINKS)]
        yield f"{device} nvmlDeviceGetComputeRunningProcesses_{version}", _said(*words)
        yield f"{device} nvmlDeviceGetGraphicsRunningProcesses_{version}", _said()


def _samples(device: str, gpu: FakeGpu) -> Iterator[tuple[str, Answer]]:
    if gpu.pids is not None:
        words = [
            word
            for pid, (sm, memory) in gpu.pid_percent.items()
            for word in (pid, SAMPLED_AT_US, sm, memory, 0, 0)
        ]
        yield f"{device} nvmlDeviceGetProcessUtilization", _said(*words)


def _ecc(device: str, gpu: FakeGpu) -> Iterator[tuple[str, Answer]]:
    for (kind, period), count in (gpu.ecc_errors or {}).items():
        yield f"{device} nvmlDeviceGetTotalEccErrors {kind} {period}", _said(count)


def _links(device: str, links: tuple[FakeLink, ...] | None) -> Iterator[tuple[str, Answer]]:
    if links is None:
        return
    for port, link in enumerate(links):
        yield f"{device} nvmlDeviceGetNvLinkState {port}", _said(link.state)
        yield f"{device} nvmlDeviceGetNvLinkVersion {port}", _said(link.version)
        remote = _said(*_pci(link.remote_pci_bus_id))
        yield f"{device} nvmlDeviceGetNvLinkRemotePciInfo_v2 {port}", remote
        kind = _said(link.remote_device_type)
        yield f"{device} nvmlDeviceGetNvLinkRemoteDeviceType {port}", kind
    for what in ("State", "Version", "RemotePciInfo_v2", "RemoteDeviceType"):
        yield f"{device} nvmlDeviceGetNvLink{what} *", (INVALID_ARGUMENT, ())


def _fields(device: str, gpu: FakeGpu) -> Iterator[tuple[str, Answer]]:
    """Words of a field: the type of its value, the value."""
    found = {**dict(_fields_of_gpu(gpu)), **dict(_fields_of_links(gpu.links))}
    for (number, scope), value in found.items():
        kind = UNSIGNED_LONG_LONG if number in LONG_FIELDS else UNSIGNED
        if number not in gpu.field_returns:
            answer = (NOT_SUPPORTED, ()) if value is None else _said(kind, value)
            yield f"{device} field {number} {scope}", answer
    for number in {number for number, scope in found if scope != "*"} - set(gpu.field_returns):
        yield f"{device} field {number} *", (INVALID_ARGUMENT, ())
    for number, code in gpu.field_returns.items():
        yield f"{device} field {number} *", (code, ())


def _fields_of_gpu(gpu: FakeGpu) -> Iterator[tuple[tuple[int, str], int | None]]:
    c2c = gpu.c2c
    of_gpu: dict[int, int | None] = {
        POWER_AVERAGE: gpu.power_mw,
        POWER_INSTANT: gpu.power_mw,
        RECOVERY_ACTION: gpu.recovery_action,
        C2C_COUNT: c2c.count if c2c else None,
        C2C_RATE: c2c.mbyte_per_s if c2c else None,
    }
    if gpu.links is not None:
        of_gpu[LINK_COUNT] = len(gpu.links)
        of_gpu[COMMON_SPEED] = max((link.speed_mbps for link in gpu.links), default=None)
    yield from (((number, "*"), value) for number, value in of_gpu.items())
    yield from (((C2C_STATUS, str(i)), 1) for i in range(c2c.count if c2c else 0))


def _fields_of_links(
    links: tuple[FakeLink, ...] | None,
) -> Iterator[tuple[tuple[int, str], int | None]]:
    for port, link in enumerate(links or ()):
        own = {REMOTE_LINK: link.remote_link, SPEED: link.speed_mbps, STATE: link.state}
        yield from (((n, str(port)), value) for n, value in {**own, **link.counters}.items())
    for number in THROUGHPUT:
        counts = [link.counters[number] for link in links or () if number in link.counters]
        if counts:
            yield (number, str(ALL_LINKS)), sum(counts)


def _mig(device: str, gpu: FakeGpu) -> Iterator[tuple[str, Answer]]:
    if gpu.mig_mode is not None:
        yield f"{device} nvmlDeviceGetMigDeviceHandleByIndex *", (NOT_FOUND, ())
    for mig in gpu.mig:
        name = f"{device}.{mig.index}"
        yield f"{device} nvmlDeviceGetMigDeviceHandleByIndex {mig.index}", _said(name)
        yield from _mig_device(name, mig)


def _mig_device(device: str, mig: FakeMig) -> Iterator[tuple[str, Answer]]:
    yield f"{device} nvmlDeviceGetUUID", _said(mig.uuid)
    yield f"{device} nvmlDeviceGetName", _said(mig.name)
    yield f"{device} nvmlDeviceGetGpuInstanceId", _said(mig.gpu_instance)
    yield f"{device} nvmlDeviceGetComputeInstanceId", _said(mig.compute_instance)
    for symbol, words in _memory(mig.memory_bytes, 0, 0).items():
        yield f"{device} {symbol}", _said(*(words or ()))
    yield from _processes(device, mig.pids, {})


def _pairs(profile: FakeProfile) -> Iterator[tuple[str, Answer]]:
    count = len(profile.gpus)
    for a in range(count):
        for b in range(a + 1, count):
            level = profile.levels.get((a, b), profile.level)
            yield f"{a}+{b} nvmlDeviceGetTopologyCommonAncestor", _said(level)
            for index, status in enumerate(profile.p2p):
                yield f"{a}+{b} nvmlDeviceGetP2PStatus {index}", _said(status)
            yield f"{a}+{b} nvmlDeviceGetP2PStatus *", (INVALID_ARGUMENT, ())

"""State of GPUs as their driver answered: health, use, link counters, MIG, processes."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final, TypeVar

from fleet.fields import AbsenceReason, GpuUuid
from fleet.sources.nvml_answers import Gaps, Missing, above_zero, looked_up, then
from fleet.sources.nvml_calls import Calls, FabricInfo, fabric_info, memory_bytes, memory_of, whole
from fleet.state import (
    IDLE_RATIO,
    ClocksReason,
    ComputeMode,
    EccCounts,
    FabricHealth,
    FabricMisconfiguration,
    FabricSummary,
    GpuProcess,
    GpuState,
    MigDevice,
    PortCounters,
    RecoveryAction,
    RemappedRows,
)

T = TypeVar("T")

MOST_MIG_DEVICES: Final = 32
_POWER_INSTANT: Final = 186
_RECOVERY_ACTION: Final = 230
_COMPUTE_MODES: Final = dict(enumerate(ComputeMode))
_RECOVERY_ACTIONS: Final = dict(enumerate(RecoveryAction))
_CLOCKS_REASONS: Final = {
    1: ClocksReason.IDLE,
    2: ClocksReason.APPLICATION_CLOCKS,
    4: ClocksReason.SW_POWER_CAP,
    8: ClocksReason.HW_SLOWDOWN,
    16: ClocksReason.SYNC_BOOST,
    32: ClocksReason.SW_THERMAL,
    64: ClocksReason.HW_THERMAL,
    128: ClocksReason.HW_POWER_BRAKE,
    256: ClocksReason.DISPLAY_CLOCKS,
}
_COUNTERS: Final = {
    # From Blackwell on the second of two fields counts what the first did before.
    "replays": (161,),
    "recoveries": (162, 213),
    "failed_recoveries": (214,),
    "crc_errors": (163,),
    "receive_errors": (208,),
    "symbol_errors": (221,),
}
_MISCONFIGURATIONS: Final = dict(enumerate(FabricMisconfiguration, start=1))
_SUMMARIES: Final = dict(enumerate(FabricSummary, start=1))


def gpu_state(calls: Calls, gpu: int, port_count: int, gaps: Gaps) -> GpuState:
    """How a GPU fares, of all that the driver tells."""
    memory = memory_of(calls, gpu)
    rates = calls.read("nvmlDeviceGetUtilizationRates", gpu, by=_ratios)
    mig = calls.read("nvmlDeviceGetMigMode", gpu, by=lambda modes: bool(whole(modes[0])))
    clocks = calls.number("nvmlDeviceGetCurrentClocksEventReasons", gpu)
    action = then(calls.field(gpu, _RECOVERY_ACTION), looked_up(_RECOVERY_ACTIONS, "action"))
    rows = calls.read("nvmlDeviceGetRemappedRows", gpu, by=_remapped_rows)
    temperature = then(calls.number("nvmlDeviceGetTemperatureV", gpu), float)
    return GpuState(
        slot=gpu,
        compute_mode=known(
            then(
                calls.number("nvmlDeviceGetComputeMode", gpu),
                looked_up(_COMPUTE_MODES, "compute mode"),
            )
        ),
        mig_enabled=known(mig),
        mig_devices=tuple(_mig_devices(calls, gpu, gaps)) if mig is True else (),
        memory_used_bytes=gaps.value("memory_used_bytes", then(memory, _sized("used"))),
        memory_reserved_bytes=known(then(memory, _sized("reserved"))),
        busy_ratio=gaps.value("busy_ratio", then(rates, lambda pair: pair[0])),
        memory_busy_ratio=known(then(rates, lambda pair: pair[1])),
        temperature_celsius=gaps.value("temperature_celsius", temperature),
        power_watts=gaps.value("power_watts", _power(calls, gpu)),
        power_limit_watts=known(then(calls.number("nvmlDeviceGetEnforcedPowerLimit", gpu), _watts)),
        clocks_reasons=gaps.value("clocks_reasons", then(clocks, _clocks_reasons)),
        pcie_generation_now=known(
            above_zero(calls.number("nvmlDeviceGetCurrPcieLinkGeneration", gpu))
        ),
        pcie_replays=known(calls.number("nvmlDeviceGetPcieReplayCounter", gpu)),
        ecc=gaps.value("ecc", _ecc(calls, gpu)),
        remapped_rows=gaps.value("remapped_rows", rows),
        recovery_action=gaps.value("recovery_action", action),
        fabric_health=known(then(fabric_info(calls, gpu), fabric_health)),
        ports=tuple(_port_counters(calls, gpu, port_count)),
    )


def known(answer: T | Missing) -> T | None:
    """The answer, or None where nobody needs to be told why it is missing."""
    return None if isinstance(answer, Missing) else answer


def _sized(name: str) -> Any:
    absent = Missing(AbsenceReason.DRIVER_TOO_OLD, f"nvmlDeviceGetMemoryInfo: no {name}")
    return lambda memory: memory.get(name, absent)


def _ratios(percents: Any) -> tuple[float, float]:
    gpu, memory = (min(max(whole(percent), 0), 100) / 100 for percent in percents)
    return gpu, memory


def _watts(milliwatts: int) -> float:
    return max(milliwatts, 0) / 1000


def _power(calls: Calls, gpu: int) -> float | Missing:
    """Power at the moment; the older call averages over a second on some GPUs."""
    instant = calls.field(gpu, _POWER_INSTANT)
    if isinstance(instant, Missing):
        return then(calls.number("nvmlDeviceGetPowerUsage", gpu), _watts)
    return _watts(instant)


def _clocks_reasons(mask: int) -> tuple[ClocksReason, ...]:
    """Reasons by rising bit; a bit newer than the table is left out."""
    return tuple(reason for bit, reason in _CLOCKS_REASONS.items() if mask & bit)


def _remapped_rows(row: Any) -> RemappedRows:
    corrected, uncorrected, pending, failure = (whole(number) for number in row)
    return RemappedRows(
        corrected=corrected,
        uncorrected=uncorrected,
        pending=bool(pending),
        failure=bool(failure),
    )


def _ecc(calls: Calls, gpu: int) -> EccCounts | Missing:
    mode = calls.read("nvmlDeviceGetEccMode", gpu, by=_two_modes)
    if isinstance(mode, Missing):
        return mode

    def errors(kind: int, period: int) -> int | None:
        return known(calls.number("nvmlDeviceGetTotalEccErrors", gpu, kind, period))

    return EccCounts(
        enabled=mode[0],
        enabled_after_reset=mode[1],
        volatile_corrected=errors(0, 0),
        volatile_uncorrected=errors(1, 0),
        aggregate_corrected=errors(0, 1),
        aggregate_uncorrected=errors(1, 1),
    )


def _two_modes(modes: Any) -> tuple[bool, bool]:
    now, after_reset = (bool(whole(mode)) for mode in modes)
    return now, after_reset


def _port_counters(calls: Calls, gpu: int, port_count: int) -> Iterable[PortCounters]:
    told = calls.fields(gpu)
    for port in range(port_count):
        counts = {
            name: count
            for name, field in _counter_fields(port)
            if type(count := told.get(field)) is int and count >= 0
        }
        if counts:
            yield PortCounters(port=port, **counts)


@cache
def _counter_fields(port: int) -> tuple[tuple[str, str], ...]:
    """Each counter with its field of a port; of several fields the first comes last, and stays."""
    return tuple(
        (name, f"{number},{port}")
        for name, numbers in _COUNTERS.items()
        for number in reversed(numbers)
    )


def fabric_health(info: FabricInfo) -> FabricHealth | Missing:
    """The health mask decoded: two bits a question, 1 yes, 2 no, 0 not told (nvml.h, v2 and v3)."""
    mask = info.health_mask
    if mask is None:
        return Missing(AbsenceReason.DRIVER_TOO_OLD, "no health mask in this form of the call")

    def told(bit: int) -> bool | None:
        return {1: True, 2: False}.get(mask >> bit & 3)

    return FabricHealth(
        mask=mask,
        summary=_SUMMARIES.get(info.health_summary or 0),
        bandwidth_degraded=told(0),
        route_recovering=told(2),
        route_unhealthy=told(4),
        access_timeout_recovering=told(6),
        misconfiguration=_MISCONFIGURATIONS.get(mask >> 8 & 15),
        partition_assigned=told(12),
        manager_connected=told(14),
    )


def _mig_devices(calls: Calls, gpu: int, gaps: Gaps) -> Iterable[MigDevice]:
    for i in range(MOST_MIG_DEVICES):
        if calls.read("nvmlDeviceGetMigDeviceHandleByIndex", gpu, i, by=bool) is not True:
            continue
        device = f"{gpu}.{i}"
        uuid = then(calls.text("nvmlDeviceGetUUID", device), GpuUuid)
        yield MigDevice(
            index=i,
            uuid=gaps.value(f"mig_devices[{i}].uuid", uuid),
            memory_bytes=known(memory_bytes(calls, device)),
            gpu_instance=known(calls.number("nvmlDeviceGetGpuInstanceId", device)),
            compute_instance=known(calls.number("nvmlDeviceGetComputeInstanceId", device)),
        )


def gpu_processes(calls: Calls, gpus: Iterable[int]) -> tuple[GpuProcess, ...] | None:
    """Who holds which GPU, and whether it is idle; None where no GPU tells its processes."""
    name = "nvmlDeviceGetComputeRunningProcesses"
    found = {gpu: calls.read(name, gpu, by=_pids_and_bytes) for gpu in gpus}
    if all(isinstance(held, Missing) for held in found.values()):
        return None
    return tuple(
        _process(calls, gpu, pid, size)
        for gpu, held in found.items()
        if not isinstance(held, Missing)
        for pid, size in sorted(held.items())
    )


def _pids_and_bytes(rows: Any) -> dict[int, int | None]:
    return {whole(pid): None if size is None else whole(size) for pid, size in rows if pid > 0}


def _process(calls: Calls, gpu: int, pid: int, size: int | None) -> GpuProcess:
    told = calls.read("process", pid, by=_name_and_user)
    name, user = (None, None) if isinstance(told, Missing) else told
    busy = _busy_ratio(calls, gpu, pid)
    return GpuProcess(
        slot=gpu,
        pid=pid,
        name=name,
        user=user,
        memory_bytes=size,
        busy_ratio=busy,
        idle=None if busy is None else busy <= IDLE_RATIO,
    )


def _name_and_user(told: Mapping[str, Any]) -> tuple[str | None, str | None]:
    name, user = (str(told[key])[:256].strip() or None for key in ("name", "user"))
    return name, user


def _busy_ratio(calls: Calls, gpu: int, pid: int) -> float | None:
    """The busiest sample of a process; one that is in no sample did nothing, if others are told.

    Without samples the GPU's own use decides only where it is idle: then so are all its holders.
    """
    samples = calls.read("nvmlDeviceGetProcessUtilization", gpu, by=_samples)
    if isinstance(samples, Missing):
        rates = calls.read("nvmlDeviceGetUtilizationRates", gpu, by=_ratios)
        return 0.0 if not isinstance(rates, Missing) and rates[0] <= IDLE_RATIO else None
    return max((ratio for other, ratio in samples if other == pid), default=0.0)


def _samples(rows: Any) -> list[tuple[int, float]]:
    return [(whole(pid), min(max(whole(percent), 0), 100) / 100) for pid, percent in rows]

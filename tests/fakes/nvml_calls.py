"""Every call of the fakes through the real binding, its results as JSON: so fakes are compared.

python -m tests.fakes.nvml_calls prints what the library of this process answers.
"""

import ctypes
import json
from collections.abc import Callable, Iterator
from typing import Any

import pynvml

SCOPE_NODE, SENSOR_GPU = 0, 0
CPU_WORDS, NUMA_WORDS = 4, 1
MOST_MIG_DEVICES = 3
LINKS_ASKED = range(20)
FIELDS = (1, 90, 91, 138, 139, 140, 141, 146, *range(161, 166), 170, 171, 172, 185, 186)
FIELDS_OF_A_LINK = (*FIELDS, *range(201, 223), 230, 999)
ALL_LINKS = 0xFFFFFFFF
FABRIC_VERSIONS = (0x03000028, 0x02000024, 0x0100001C)

OF_SYSTEM = (
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetNVMLVersion",
    "nvmlSystemGetCudaDriverVersion",
    "nvmlSystemGetCudaDriverVersion_v2",
    "nvmlDeviceGetCount",
    "nvmlGetExcludedDeviceCount",
)
_OF_DEVICE = """
    Name UUID Serial BoardPartNumber VbiosVersion PciInfo ModuleId CudaComputeCapability MemoryInfo
    MaxPcieLinkGeneration MaxPcieLinkWidth CurrPcieLinkGeneration CurrPcieLinkWidth
    GpuMaxPcieLinkGeneration PcieReplayCounter NumaNodeId ComputeMode PersistenceMode MigMode
    MaxMigDeviceCount GpuInstanceId ComputeInstanceId ComputeRunningProcesses
    ComputeRunningProcesses_v2 GraphicsRunningProcesses UtilizationRates PowerUsage
    EnforcedPowerLimit EncoderUtilization DecoderUtilization FanSpeed Index
    PowerManagementLimit PerformanceState DisplayActive
    CurrentClocksEventReasons CurrentClocksThrottleReasons EccMode RemappedRows
"""
OF_DEVICE = tuple(f"nvmlDeviceGet{what}" for what in _OF_DEVICE.split())
OF_LINK = tuple(
    f"nvmlDeviceGetNvLink{what}"
    for what in ("State", "Version", "RemotePciInfo", "RemoteDeviceType")
)
WITH_NUMBERS: tuple[tuple[Any, ...], ...] = (
    ("nvmlDeviceGetMemoryInfo", pynvml.nvmlMemory_v2),
    ("nvmlDeviceGetMemoryAffinity", NUMA_WORDS, SCOPE_NODE),
    ("nvmlDeviceGetCpuAffinityWithinScope", CPU_WORDS, SCOPE_NODE),
    ("nvmlDeviceGetCpuAffinity", CPU_WORDS),
    ("nvmlDeviceGetCpuAffinity", 1),
    ("nvmlDeviceGetProcessUtilization", 0),
    ("nvmlDeviceGetProcessUtilization", 10**12),
    ("nvmlDeviceGetTemperature", SENSOR_GPU),
    ("nvmlDeviceGetTemperatureV", SENSOR_GPU),
    *(("nvmlDeviceGetTotalEccErrors", kind, period) for kind in (0, 1) for period in (0, 1)),
)
OF_PAIR: tuple[tuple[Any, ...], ...] = (
    ("nvmlDeviceGetTopologyCommonAncestor",),
    *(("nvmlDeviceGetP2PStatus", index) for index in (0, 1, 9)),
)


def answers() -> dict[str, Any]:
    """Every answer of the library from its start to its end, by call."""
    return dict(_answers())


def _answers() -> Iterator[tuple[str, Any]]:
    yield "before the start", _asked("nvmlDeviceGetCount")[1]
    key, started = _asked("nvmlInit")
    yield key, started
    if started is not None:
        return
    for name in OF_SYSTEM:
        yield _asked(name)
    for index in range(2):
        yield _asked("nvmlGetExcludedDeviceInfoByIndex", index)
    yield from _of_devices()
    yield _asked("nvmlShutdown")
    yield "after the end", _asked("nvmlSystemGetDriverVersion")[1]


def _of_devices() -> Iterator[tuple[str, Any]]:
    handles: dict[int, Any] = {}
    for index in range(9):
        key, found = _asked("nvmlDeviceGetHandleByIndex", index, keep=handles)
        yield key, found
    for index, handle in handles.items():
        yield from ((f"{index} {key}", value) for key, value in _of_device(handle))
        for other in handles:
            for name, *numbers in OF_PAIR:
                key, value = _asked(name, handle, handles[other], *numbers)
                yield f"{index} {other} {key}", value


def _of_device(handle: Any) -> Iterator[tuple[str, Any]]:
    for name in OF_DEVICE:
        yield _asked(name, handle)
    for name, *numbers in WITH_NUMBERS:
        yield _asked(name, handle, *numbers)
    for link in LINKS_ASKED:
        for name in OF_LINK:
            yield _asked(name, handle, link)
    asked = [(field, link) for link in (*LINKS_ASKED, ALL_LINKS) for field in FIELDS_OF_A_LINK]
    yield _asked("nvmlDeviceGetFieldValues", handle, asked)
    yield from _structs(handle)
    for index in range(MOST_MIG_DEVICES):
        kept: dict[int, Any] = {}
        key, found = _asked("nvmlDeviceGetMigDeviceHandleByIndex", handle, index, keep=kept)
        yield key, found
        for name in OF_DEVICE if kept else ():
            yield f"{key} {name}", _asked(name, kept[index])[1]


def _structs(handle: Any) -> Iterator[tuple[str, Any]]:
    """Calls that fill a struct of the caller's; its bytes are kept."""
    for version in FABRIC_VERSIONS:
        info = pynvml.c_nvmlGpuFabricInfo_v3_t()
        info.version = version
        yield f"{version:#x}", _filled("nvmlDeviceGetGpuFabricInfoV", handle, info)
    oldest = pynvml.c_nvmlGpuFabricInfo_t()
    yield "v1", _filled("nvmlDeviceGetGpuFabricInfo", handle, oldest)
    for platform in (pynvml.c_nvmlPlatformInfo_v1_t(), pynvml.c_nvmlPlatformInfo_v2_t()):
        name = type(platform).__name__
        yield name, _filled("nvmlDeviceGetPlatformInfo", handle, platform)


def _filled(name: str, handle: Any, info: Any) -> Any:
    code = _asked(name, handle, ctypes.byref(info))[1]
    return [code, bytes(info).hex()]


def _asked(name: str, *arguments: Any, keep: dict[int, Any] | None = None) -> tuple[str, Any]:
    """A call's key and its result, as JSON: the exception where there is one."""
    numbers = [argument for argument in arguments if isinstance(argument, int)]
    key = " ".join(map(str, [name, *numbers]))
    try:
        result = _call(name, *arguments)
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError, UnicodeDecodeError) as error:
        return key, f"{type(error).__name__} {getattr(error, 'value', '')}"
    if keep is not None:
        keep[numbers[-1]] = result
        return key, "a handle"
    return key, _plain(result)


def _call(name: str, *arguments: Any) -> Any:
    function: Callable[..., Any] = getattr(pynvml, name)
    if name == "nvmlDeviceGetModuleId":
        return function(*arguments, ctypes.c_uint())
    return function(*arguments)


def _plain(result: Any) -> Any:
    """Structs by their bytes, so that no field and no gap between fields is left out."""
    if isinstance(result, ctypes.Structure):
        return bytes(result).hex()
    if isinstance(result, ctypes.Array | list | tuple):
        return [_plain(one) for one in result]
    return result.__dict__ if hasattr(result, "__dict__") else result


if __name__ == "__main__":
    print(json.dumps(answers()))

"""The functions of NVML that both fakes have, and the form in which each hands over its answer."""

from dataclasses import dataclass
from enum import StrEnum

SUCCESS = 0
UNINITIALIZED = 1
INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
INSUFFICIENT_SIZE = 7
DRIVER_NOT_LOADED = 9
GPU_IS_LOST = 15
VERSION_MISMATCH = 25

PCI = "16s5I32s"
"""nvmlPciInfo_t: legacy address, domain, bus, device, two identities, address."""


class Kind(StrEnum):
    """How an answer reaches the caller's memory."""

    START = "start"
    STOP = "stop"
    WORDS = "words"
    HANDLE = "handle"
    VALUES = "values"
    TEXT = "text"
    BITS = "bits"
    PROCESSES = "processes"
    SAMPLES = "samples"
    FIELDS = "fields"
    VERSIONED = "versioned"


class Of(StrEnum):
    """What a function's first arguments name."""

    SYSTEM = "system"
    DEVICE = "device"
    PAIR = "pair"


@dataclass(frozen=True)
class Form:
    """One function: ``picks`` numbers choose among its answers, ``outs`` are its pointers.

    An out is a layout of the struct module, laid out as C does it.
    """

    kind: Kind
    of: Of = Of.DEVICE
    picks: int = 0
    outs: tuple[str, ...] = ()


def values(*outs: str, of: Of = Of.DEVICE, picks: int = 0) -> Form:
    """A function that writes numbers, one layout for each of its pointers."""
    return Form(Kind.VALUES, of, picks, outs)


def versioned(layout: str) -> Form:
    """A function whose struct begins with its version."""
    return Form(Kind.VERSIONED, outs=(layout,))


_TEXT = Form(Kind.TEXT)
_NUMBER = values("I")
_OF_LINK = values("I", picks=1)
_PROCESSES = Form(Kind.PROCESSES)

FORMS: dict[str, Form] = {
    "nvmlInitWithFlags": Form(Kind.START, Of.SYSTEM),
    "nvmlShutdown": Form(Kind.STOP, Of.SYSTEM),
    "nvmlErrorString": Form(Kind.WORDS, Of.SYSTEM),
    "nvmlSystemGetDriverVersion": Form(Kind.TEXT, Of.SYSTEM),
    "nvmlSystemGetNVMLVersion": Form(Kind.TEXT, Of.SYSTEM),
    "nvmlSystemGetCudaDriverVersion": values("i", of=Of.SYSTEM),
    "nvmlSystemGetCudaDriverVersion_v2": values("i", of=Of.SYSTEM),
    "nvmlDeviceGetCount_v2": values("I", of=Of.SYSTEM),
    "nvmlDeviceGetHandleByIndex_v2": Form(Kind.HANDLE, Of.SYSTEM, picks=1),
    "nvmlGetExcludedDeviceCount": values("I", of=Of.SYSTEM),
    "nvmlGetExcludedDeviceInfoByIndex": values(f"{PCI}80s", of=Of.SYSTEM, picks=1),
    "nvmlDeviceGetIndex": _NUMBER,
    "nvmlDeviceGetName": _TEXT,
    "nvmlDeviceGetUUID": _TEXT,
    "nvmlDeviceGetSerial": _TEXT,
    "nvmlDeviceGetBoardPartNumber": _TEXT,
    "nvmlDeviceGetVbiosVersion": _TEXT,
    "nvmlDeviceGetPciInfo_v3": values(PCI),
    "nvmlDeviceGetModuleId": _NUMBER,
    "nvmlDeviceGetMaxPcieLinkGeneration": _NUMBER,
    "nvmlDeviceGetMaxPcieLinkWidth": _NUMBER,
    "nvmlDeviceGetCurrPcieLinkGeneration": _NUMBER,
    "nvmlDeviceGetCurrPcieLinkWidth": _NUMBER,
    "nvmlDeviceGetGpuMaxPcieLinkGeneration": _NUMBER,
    "nvmlDeviceGetPcieReplayCounter": _NUMBER,
    "nvmlDeviceGetCudaComputeCapability": values("i", "i"),
    "nvmlDeviceGetMemoryInfo": values("3Q"),
    "nvmlDeviceGetMemoryInfo_v2": versioned("I4Q"),
    "nvmlDeviceGetMemoryAffinity": Form(Kind.BITS),
    "nvmlDeviceGetCpuAffinityWithinScope": Form(Kind.BITS),
    "nvmlDeviceGetCpuAffinity": Form(Kind.BITS),
    "nvmlDeviceGetNumaNodeId": values("i"),
    "nvmlDeviceGetComputeMode": _NUMBER,
    "nvmlDeviceGetPersistenceMode": _NUMBER,
    "nvmlDeviceGetMigMode": values("I", "I"),
    "nvmlDeviceGetMaxMigDeviceCount": _NUMBER,
    "nvmlDeviceGetMigDeviceHandleByIndex": Form(Kind.HANDLE, picks=1),
    "nvmlDeviceGetGpuInstanceId": _NUMBER,
    "nvmlDeviceGetComputeInstanceId": _NUMBER,
    "nvmlDeviceGetComputeRunningProcesses_v2": _PROCESSES,
    "nvmlDeviceGetComputeRunningProcesses_v3": _PROCESSES,
    "nvmlDeviceGetGraphicsRunningProcesses_v2": _PROCESSES,
    "nvmlDeviceGetGraphicsRunningProcesses_v3": _PROCESSES,
    "nvmlDeviceGetProcessUtilization": Form(Kind.SAMPLES),
    "nvmlDeviceGetUtilizationRates": values("II"),
    "nvmlDeviceGetEncoderUtilization": values("I", "I"),
    "nvmlDeviceGetDecoderUtilization": values("I", "I"),
    "nvmlDeviceGetFanSpeed": _NUMBER,
    "nvmlDeviceGetTemperature": values("I", picks=1),
    "nvmlDeviceGetTemperatureV": versioned("IIi"),
    "nvmlDeviceGetPowerUsage": _NUMBER,
    "nvmlDeviceGetEnforcedPowerLimit": _NUMBER,
    "nvmlDeviceGetPowerManagementLimit": _NUMBER,
    "nvmlDeviceGetPerformanceState": _NUMBER,
    "nvmlDeviceGetDisplayActive": _NUMBER,
    "nvmlDeviceGetCurrentClocksEventReasons": values("Q"),
    "nvmlDeviceGetCurrentClocksThrottleReasons": values("Q"),
    "nvmlDeviceGetEccMode": values("I", "I"),
    "nvmlDeviceGetTotalEccErrors": values("Q", picks=2),
    "nvmlDeviceGetRemappedRows": values("I", "I", "I", "I"),
    "nvmlDeviceGetFieldValues": Form(Kind.FIELDS),
    "nvmlDeviceGetNvLinkState": _OF_LINK,
    "nvmlDeviceGetNvLinkVersion": _OF_LINK,
    "nvmlDeviceGetNvLinkRemotePciInfo_v2": values(PCI, picks=1),
    "nvmlDeviceGetNvLinkRemoteDeviceType": _OF_LINK,
    "nvmlDeviceGetGpuFabricInfo": values("16sIIB"),
    "nvmlDeviceGetGpuFabricInfoV": versioned("I16sIIBIB"),
    "nvmlDeviceGetPlatformInfo": versioned("I16s16s5B"),
    "nvmlDeviceGetP2PStatus": values("I", of=Of.PAIR, picks=1),
    "nvmlDeviceGetTopologyCommonAncestor": values("I", of=Of.PAIR),
}
SYMBOLS = frozenset(FORMS)
TEXTS = frozenset(name for name, form in FORMS.items() if form.kind is Kind.TEXT)
VERSIONED = frozenset(name for name, form in FORMS.items() if form.kind is Kind.VERSIONED)

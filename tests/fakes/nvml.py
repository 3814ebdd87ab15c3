"""A fake of the NVML library in Python, below the real binding: set as ``pynvml.nvmlLib``.

It answers as the C library does: through pointers, by address, with a return code. A symbol it
lacks is an AttributeError, which the binding tells as "function not found".
"""

import ctypes
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pynvml

from fleet.fields import HostName
from fleet.model import NodeSnapshot
from fleet.sources.nvml import read_node
from tests.contracts import assert_honest
from tests.fakes.nvml_profiles import FakeFabric, FakeGpu, FakeLink, FakePlatform, FakeProfile

SUCCESS = 0
INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
INSUFFICIENT_SIZE = 7
GPU_IS_LOST = 15
VERSION_MISMATCH = 25

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
HOST = HostName("node1")
PLATFORM_V2 = 0x0200002C
MEMORY_V2 = 0x02000028


@contextmanager
def installed(profile: FakeProfile) -> Iterator["FakeLib"]:
    """The fake in place of the library; the binding is left as it was found."""
    lib, count = pynvml.nvmlLib, pynvml._nvmlLib_refcount
    cache = pynvml._nvmlGetFunctionPointer_cache
    known = dict(cache)
    cache.clear()
    pynvml.nvmlLib = fake = FakeLib(profile)
    try:
        yield fake
    finally:
        pynvml.nvmlLib, pynvml._nvmlLib_refcount = lib, count
        cache.clear()
        cache.update(known)


def snapshot_of(profile: FakeProfile) -> NodeSnapshot:
    """The node as ``read_node`` finds it, after the checks that hold for every machine."""
    with installed(profile) as lib:
        snapshot = read_node(host=HOST, now=NOON)
    assert lib.running == 0, "each init has its shutdown"
    assert lib.threads == {threading.get_ident()}
    assert_honest(snapshot)
    return snapshot


def reason_of(snapshot: NodeSnapshot, path: str) -> str:
    """Reason of the one absence with exactly this path."""
    (absence,) = (absence for absence in snapshot.absences if absence.path == path)
    return absence.reason.value


def detail_of(snapshot: NodeSnapshot, path: str) -> str:
    """Detail of the one absence with exactly this path."""
    (absence,) = (absence for absence in snapshot.absences if absence.path == path)
    return absence.detail or ""


class FakeLib:
    """What ``ctypes.CDLL`` gives for the library; ``calls`` are the symbols called, in order."""

    def __init__(self, profile: FakeProfile) -> None:
        self.profile = profile
        self.calls: list[str] = []
        self.threads: set[int] = set()
        self.running = 0
        self.devices = [ctypes.c_uint(i) for i in range(len(profile.gpus))]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in _SYMBOLS or name in self.profile.lacks:
            raise AttributeError(name)

        # A function of its own for each symbol: the binding sets ``restype`` on some.
        def symbol(*arguments: Any) -> Any:
            self.calls.append(name)
            self.threads.add(threading.get_ident())
            return _SYMBOLS[name](self, name, *arguments)

        return symbol

    def index_of(self, handle: Any) -> int:
        """Which GPU a handle points to."""
        return [ctypes.addressof(device) for device in self.devices].index(_address(handle))

    def refusal(self, gpu: FakeGpu, name: str) -> int:
        """The code of a fault that keeps a GPU from answering."""
        return gpu.every_code or gpu.returns.get(name, SUCCESS)


def _address(pointer: Any) -> int:
    address = ctypes.cast(pointer, ctypes.c_void_p).value
    assert address, "the library would write to NULL"
    return address


def _plain(argument: Any) -> int:
    return int(getattr(argument, "value", argument))


def _put(pointer: Any, value: int, kind: Any = ctypes.c_uint) -> int:
    kind.from_address(_address(pointer)).value = value
    return SUCCESS


def _put_text(buffer: Any, length: Any, text: str | bytes) -> int:
    raw = (text.encode() if isinstance(text, str) else text) + b"\0"
    if len(raw) > _plain(length):
        return INSUFFICIENT_SIZE
    ctypes.memmove(_address(buffer), raw, len(raw))
    return SUCCESS


def _put_bus_id(pci: Any, text: str | bytes) -> int:
    raw = (text.encode() if isinstance(text, str) else text) + b"\0"
    ctypes.memmove(_address(pci) + pynvml.nvmlPciInfo_t.busId.offset, raw, len(raw))
    return SUCCESS


def _put_bits(words: Any, count: Any, numbers: tuple[int, ...]) -> int:
    array = (ctypes.c_uint64 * _plain(count)).from_address(_address(words))
    for number in numbers:
        array[number // 64] |= 1 << number % 64
    return SUCCESS


Symbol = Callable[..., Any]


def _device(answer: Callable[..., int]) -> Symbol:
    """A symbol whose first argument is a handle; ``answer`` gets the GPU in its place."""

    def symbol(lib: FakeLib, name: str, handle: Any, *arguments: Any) -> int:
        gpu = lib.profile.gpus[lib.index_of(handle)]
        return lib.refusal(gpu, name) or answer(gpu, *arguments)

    return symbol


def _value(value_of: Callable[[FakeGpu], Any], put: Callable[..., int]) -> Symbol:
    """A symbol that puts one value; None is "not supported"."""

    def answer(gpu: FakeGpu, *arguments: Any) -> int:
        value = value_of(gpu)
        return NOT_SUPPORTED if value is None else put(*arguments, value)

    return _device(answer)


def _link_value(value_of: Callable[[FakeLink], Any], put: Callable[..., int]) -> Symbol:
    """A symbol about one link; there is an invalid argument past the last."""

    def answer(gpu: FakeGpu, port: Any, *arguments: Any) -> int:
        if gpu.links is None:
            return NOT_SUPPORTED
        if _plain(port) >= len(gpu.links):
            return INVALID_ARGUMENT
        return put(*arguments, value_of(gpu.links[_plain(port)]))

    return _device(answer)


def _pair(answer: Callable[..., int]) -> Symbol:
    def symbol(lib: FakeLib, name: str, first: Any, second: Any, *arguments: Any) -> int:
        a, b = lib.index_of(first), lib.index_of(second)
        refusals = [lib.refusal(lib.profile.gpus[i], name) for i in (a, b)]
        return max(refusals) or answer(lib.profile, (a, b), *arguments)

    return symbol


def _init(lib: FakeLib, name: str, flags: int) -> int:
    lib.running += lib.profile.init_code == SUCCESS
    return lib.profile.init_code


def _shutdown(lib: FakeLib, name: str) -> int:
    lib.running -= 1
    return SUCCESS


def _count(lib: FakeLib, name: str, count: Any) -> int:
    return lib.profile.count_code or _put(count, len(lib.profile.gpus))


def _handle(lib: FakeLib, name: str, index: Any, handle: Any) -> int:
    i = _plain(index)
    code = lib.profile.gpus[i].handle_code
    return code or _put(handle, ctypes.addressof(lib.devices[i]), ctypes.c_void_p)


def _capability(major: Any, minor: Any, capability: tuple[int, int]) -> int:
    return _put(major, capability[0]) or _put(minor, capability[1])


def _memory(struct_at: Any, total: int) -> int:
    pynvml.c_nvmlMemory_t.from_address(_address(struct_at)).total = total
    return SUCCESS


def _memory_v2(struct_at: Any, total: int) -> int:
    memory = pynvml.c_nvmlMemory_v2_t.from_address(_address(struct_at))
    if memory.version != MEMORY_V2:
        return VERSION_MISMATCH
    memory.total = total
    return SUCCESS


def _processes(count: Any, processes: Any, pids: tuple[int, ...]) -> int:
    room = ctypes.c_uint.from_address(_address(count))
    enough = room.value >= len(pids)
    room.value = len(pids)
    if not enough:
        return INSUFFICIENT_SIZE
    for i, pid in enumerate(pids):
        processes[i].pid = pid
    return SUCCESS


def _field_values(gpu: FakeGpu, count: Any, values: Any) -> int:
    array = (pynvml.c_nvmlFieldValue_t * _plain(count)).from_address(_address(values))
    for value in array:
        code, number = _field(gpu, value.fieldId, value.scopeId)
        value.nvmlReturn = code
        value.valueType = pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
        value.value.uiVal = number
    return SUCCESS


def _field(gpu: FakeGpu, number: int, port: int) -> tuple[int, int]:
    if number in gpu.field_returns:
        return gpu.field_returns[number], 0
    if gpu.links is None:
        return NOT_SUPPORTED, 0
    if number == 91:
        return SUCCESS, len(gpu.links)
    if number == 90:
        return SUCCESS, max(link.speed_mbps for link in gpu.links)
    if number not in (146, 164, 165) or port >= len(gpu.links):
        return INVALID_ARGUMENT, 0
    link = gpu.links[port]
    value = {146: link.remote_link, 164: link.speed_mbps, 165: link.state}[number]
    return (NOT_SUPPORTED, 0) if value is None else (SUCCESS, value)


def _fabric_bytes(fabric: FakeFabric) -> bytes:
    # nvmlGpuFabricInfo_t: 16 bytes of UUID, status, clique, and a state of one byte.
    cluster = UUID(fabric.cluster_uuid).bytes
    return struct.pack("<16sIIB3x", cluster, fabric.status, fabric.clique_id, fabric.state)


def _fabric(lib: FakeLib, name: str, handle: Any, info: Any) -> int:
    gpu = lib.profile.gpus[lib.index_of(handle)]
    version = ctypes.c_uint32.from_address(_address(info)).value
    if code := lib.refusal(gpu, name):
        return code
    if version not in lib.profile.fabric_versions:
        return VERSION_MISMATCH
    if gpu.fabric is None:
        return NOT_SUPPORTED
    size = version & 0xFFFFFF
    raw = struct.pack("<I", version) + _fabric_bytes(gpu.fabric) + struct.pack("<IB3x", 0x1AA, 1)
    ctypes.memmove(_address(info), raw, size)
    return SUCCESS


def _fabric_v1(info: Any, fabric: FakeFabric) -> int:
    raw = _fabric_bytes(fabric)
    ctypes.memmove(_address(info), raw, len(raw))
    return SUCCESS


def _platform(info: Any, platform: FakePlatform) -> int:
    if ctypes.c_uint32.from_address(_address(info)).value != PLATFORM_V2:
        return VERSION_MISMATCH
    serial = platform.chassis_serial
    raw = struct.pack(
        "<I16s16s5B3x",
        PLATFORM_V2,
        platform.ib_guid,
        serial.encode() if isinstance(serial, str) else serial,
        platform.slot,
        platform.tray,
        platform.host,
        0,
        platform.module,
    )
    ctypes.memmove(_address(info), raw, len(raw))
    return SUCCESS


def _p2p(profile: FakeProfile, pair: tuple[int, int], index: Any, status: Any) -> int:
    return _put(status, profile.p2p[ctypes.c_uint(index).value])


def _ancestor(profile: FakeProfile, pair: tuple[int, int], level: Any) -> int:
    return _put(level, profile.levels.get(pair, profile.level))


def _bits(words_count: Any, words: Any, *rest: Any) -> int:
    # The scope stands between the array and the value, where there is one.
    return _put_bits(words, words_count, rest[-1])


def _text(buffer: Any, length: Any, text: str | bytes) -> int:
    return _put_text(buffer, length, text)


_SYMBOLS: dict[str, Symbol] = {
    "nvmlInitWithFlags": _init,
    "nvmlShutdown": _shutdown,
    "nvmlErrorString": lambda lib, name, code: b"code %d" % _plain(code),
    "nvmlSystemGetDriverVersion": lambda lib, name, *a: _text(*a, lib.profile.driver_version),
    "nvmlSystemGetNVMLVersion": lambda lib, name, *a: _text(*a, lib.profile.nvml_version),
    "nvmlSystemGetCudaDriverVersion": lambda lib, name, v: _put(v, lib.profile.cuda_version),
    "nvmlDeviceGetCount_v2": _count,
    "nvmlDeviceGetHandleByIndex_v2": _handle,
    "nvmlDeviceGetUUID": _value(lambda gpu: gpu.uuid, _text),
    "nvmlDeviceGetSerial": _value(lambda gpu: gpu.serial, _text),
    "nvmlDeviceGetName": _value(lambda gpu: gpu.name, _text),
    "nvmlDeviceGetVbiosVersion": _value(lambda gpu: gpu.vbios, _text),
    "nvmlDeviceGetPciInfo_v3": _value(lambda gpu: gpu.bus_id, _put_bus_id),
    "nvmlDeviceGetModuleId": _value(lambda gpu: gpu.module_id, _put),
    "nvmlDeviceGetMaxPcieLinkGeneration": _value(lambda gpu: gpu.pcie_gen, _put),
    "nvmlDeviceGetCurrPcieLinkWidth": _value(lambda gpu: gpu.pcie_width, _put),
    "nvmlDeviceGetCudaComputeCapability": _value(lambda gpu: gpu.compute_capability, _capability),
    "nvmlDeviceGetMemoryInfo": _value(lambda gpu: gpu.memory_bytes, _memory),
    "nvmlDeviceGetMemoryInfo_v2": _value(lambda gpu: gpu.memory_bytes, _memory_v2),
    "nvmlDeviceGetMemoryAffinity": _value(lambda gpu: gpu.numa, _bits),
    "nvmlDeviceGetCpuAffinityWithinScope": _value(lambda gpu: gpu.cpus, _bits),
    "nvmlDeviceGetCpuAffinity": _value(lambda gpu: gpu.cpus, _bits),
    "nvmlDeviceGetComputeRunningProcesses_v2": _value(lambda gpu: gpu.pids, _processes),
    "nvmlDeviceGetComputeRunningProcesses_v3": _value(lambda gpu: gpu.pids, _processes),
    "nvmlDeviceGetFieldValues": _device(_field_values),
    "nvmlDeviceGetNvLinkState": _link_value(lambda link: link.state, _put),
    "nvmlDeviceGetNvLinkVersion": _link_value(lambda link: link.version, _put),
    "nvmlDeviceGetNvLinkRemotePciInfo_v2": _link_value(
        lambda link: link.remote_pci_bus_id, _put_bus_id
    ),
    "nvmlDeviceGetNvLinkRemoteDeviceType": _link_value(lambda link: link.remote_device_type, _put),
    "nvmlDeviceGetGpuFabricInfo": _value(lambda gpu: gpu.fabric, _fabric_v1),
    "nvmlDeviceGetGpuFabricInfoV": _fabric,
    "nvmlDeviceGetPlatformInfo": _value(lambda gpu: gpu.platform, _platform),
    "nvmlDeviceGetP2PStatus": _pair(_p2p),
    "nvmlDeviceGetTopologyCommonAncestor": _pair(_ancestor),
}
SYMBOLS = frozenset(_SYMBOLS)

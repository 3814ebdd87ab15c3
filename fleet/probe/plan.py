"""The call plan: which calls of NVML in which chapter, cheapest first. Asks; understands nothing.

Chapters: ``nvml`` (start, versions, count), ``gpu I``, ``pairs I`` (GPU I with those after it),
``state I`` (what changes by the minute, of a GPU asked before), and ``processes`` (whose they are).
Each call is announced before it is made: if it hangs, the parent knows which it was.
"""

from typing import Any, Callable, Dict, FrozenSet, List, Optional, Sequence

from fleet.probe import binding
from fleet.probe.binding import Answer
from fleet.probe.keys import (
    INIT,
    LINK_COUNT,
    OF_GPU,
    OF_LINK,
    STATE,
    VERSION,
    Field,
    field_names,
    key_of,
)

MOST_LINKS = 64
MOST_MIG_DEVICES = 32

NODE_SCOPE = 0
CPU_WORDS = 128
NUMA_WORDS = 16
P2P_READ = 0  # the binding's constant of this name is a tuple by mistake
P2P_WRITE = 1
GPU_SENSOR = 0


class Out:
    """Where a plan's answers go."""

    def asking(self, key: str) -> None:
        """Say which call is made next."""

    def answer(self, key: str, answer: Answer) -> None:
        """Take one answer."""


class Gpu:
    """A handle with the index its keys carry."""

    def __init__(self, index: str, handle: Any) -> None:
        self.index = index
        self.handle = handle


class Plan:
    """Asks NVML chapter by chapter and gives each answer to ``out``."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self._started = False
        self._skip: FrozenSet[str] = frozenset()
        self._handles: Dict[int, Gpu] = {}
        self._types: Dict[str, Answer] = {}
        self.link_counts: Dict[str, int] = {}

    def nvml(self, skip: Sequence[str] = ()) -> None:
        """Start the library, once, and ask what is one per node, but for the calls to skip."""
        started = self.start()
        self._types = {}
        self._skip = frozenset(skip)
        self._out.answer(INIT, started)
        if "value" not in started:
            return
        self._ask("nvmlSystemGetDriverVersion", read=binding.text)
        self._ask("nvmlSystemGetNVMLVersion", read=binding.text)
        self._ask("nvmlSystemGetCudaDriverVersion")
        self._ask("nvmlDeviceGetCount")
        excluded = self._ask("nvmlGetExcludedDeviceCount")
        for i in range(min(excluded.get("value", 0), MOST_LINKS)):
            self._ask("nvmlGetExcludedDeviceInfoByIndex", i, read=binding.excluded)

    def start(self) -> Answer:
        """Start the library if it is not running: the first call, and it may wake all GPUs."""
        if self._started:
            return binding.value(True)
        self._out.asking(INIT)
        answer = binding.call("nvmlInit", read=lambda _: True)
        self._started = "value" in answer
        return answer

    def stop(self) -> None:
        """Shut the library down if it was started."""
        if self._started:
            self._started = False
            binding.call("nvmlShutdown")

    def gpu(self, index: int) -> None:
        """All that is asked of one GPU."""
        self._handles.pop(index, None)  # a handle of an earlier reading may be stale
        gpu = self._handle(index)
        if gpu is None:
            return
        for part in (_identity, _place, _links, *_STATE_PARTS):
            part(self, gpu)

    def state(self, index: int) -> None:
        """What changes by the minute of a GPU that was asked for all before."""
        self._handles.pop(index, None)
        gpu = self._handle(index)
        if gpu is None:
            return
        for part in (_fields_again, *_STATE_PARTS):
            part(self, gpu)

    def pairs(self, first: int, others: Sequence[int]) -> None:
        """Common ancestor and peer status of a GPU with each of the others."""
        ours = self._handle(first)
        for second in others:
            theirs = self._handle(second) if ours is not None else None
            if ours is None or theirs is None:
                continue
            self.ask("nvmlDeviceGetTopologyCommonAncestor", ours, theirs)
            for index in (P2P_READ, P2P_WRITE):
                self.ask("nvmlDeviceGetP2PStatus", ours, theirs, index)

    def ask(self, name: str, gpu: Gpu, *rest: Any, **how: Any) -> Answer:
        """One call about a GPU; other GPUs among the arguments stand in the key by index."""
        arguments = (gpu,) + rest
        key = key_of(name, *(a.index if isinstance(a, Gpu) else a for a in arguments))
        return self.take(
            key,
            lambda: binding.call(
                how.get("function", name),
                *(a.handle if isinstance(a, Gpu) else a for a in arguments + how.get("with_", ())),
                read=how.get("read", int),
            ),
        )

    def take(self, key: str, ask: Callable[[], Answer]) -> Answer:
        """Announce, ask, answer."""
        self._out.asking(key)
        answer = ask()
        self._out.answer(key, answer)
        return answer

    def first_of(self, key: str, forms: Sequence[Callable[[], Answer]]) -> Answer:
        """The newest form of a question that both sides know; else the most telling refusal."""

        def asked() -> Answer:
            telling: Optional[Answer] = None
            for form in forms:
                answer = form()
                if not binding.is_step_down(answer):
                    return answer
                if telling is None or "lacks" in telling:
                    telling = answer
            return telling or {"lacks": "binding"}

        return self.take(key, asked)

    def field(self, gpu: Gpu, field: Field) -> Answer:
        """One field."""
        return self.take(
            key_of("field", gpu.index, *field),
            lambda: binding.field_values(gpu.handle, [field])[field],
        )

    def fields(self, gpu: Gpu, fields: Sequence[Field]) -> Dict[Field, Answer]:
        """Many fields in one call, and in one answer: a number, or why there is none, for each."""
        key = key_of("nvmlDeviceGetFieldValues", gpu.index)
        self._out.asking(key)
        found = binding.field_values(gpu.handle, fields)
        names = field_names(tuple(fields))
        table = {names[field]: answer.get("value", answer) for field, answer in found.items()}
        self._out.answer(key, binding.value(table))
        return found

    def remote_type(self, gpu: Gpu, port: int, address: Optional[str]) -> None:
        """What stands at the far end of a link; one address is asked about once in a reading."""
        name = "nvmlDeviceGetNvLinkRemoteDeviceType"
        if address in self._types:
            self._out.answer(key_of(name, gpu.index, port), self._types[address])
            return
        answer = self.ask(name, gpu, port)
        if address and "value" in answer and set(address) - set("fF:.0"):
            self._types[address] = answer

    def _ask(self, name: str, *arguments: Any, **how: Any) -> Answer:
        key = key_of(name, *arguments)
        if key in self._skip:
            return {}
        return self.take(
            key,
            lambda: binding.call(name, *arguments, read=how.get("read", int)),
        )

    def _handle(self, index: int) -> Optional[Gpu]:
        if index in self._handles:
            return self._handles[index]
        handles: List[Any] = []
        key = key_of("nvmlDeviceGetHandleByIndex", index)

        def kept(handle: Any) -> bool:
            handles.append(handle)
            return True

        self.take(key, lambda: binding.call("nvmlDeviceGetHandleByIndex", index, read=kept))
        if not handles:
            return None
        self._handles[index] = Gpu(str(index), handles[0])
        return self._handles[index]


def _identity(plan: Plan, gpu: Gpu) -> None:
    plan.ask("nvmlDeviceGetPciInfo", gpu, read=binding.bus_id)
    for what in ("Name", "UUID", "Serial", "BoardPartNumber", "VbiosVersion"):
        plan.ask("nvmlDeviceGet" + what, gpu, read=binding.text)
    plan.take(key_of("nvmlDeviceGetModuleId", gpu.index), lambda: binding.module_id(gpu.handle))
    plan.ask("nvmlDeviceGetCudaComputeCapability", gpu, read=binding.numbers)


def _place(plan: Plan, gpu: Gpu) -> None:
    for what in (
        "MaxPcieLinkGeneration",
        "CurrPcieLinkGeneration",
        "CurrPcieLinkWidth",
        "PcieReplayCounter",
    ):
        plan.ask("nvmlDeviceGet" + what, gpu)
    affinity = "nvmlDeviceGetMemoryAffinity"
    plan.ask(affinity, gpu, with_=(NUMA_WORDS, NODE_SCOPE), read=binding.numbers)
    scoped, plain = "nvmlDeviceGetCpuAffinityWithinScope", "nvmlDeviceGetCpuAffinity"
    plan.first_of(
        key_of(scoped, gpu.index),
        (
            lambda: binding.call(scoped, gpu.handle, CPU_WORDS, NODE_SCOPE, read=binding.numbers),
            lambda: binding.call(plain, gpu.handle, CPU_WORDS, read=binding.numbers),
        ),
    )


def _memory(plan: Plan, gpu: Gpu) -> None:
    name = "nvmlDeviceGetMemoryInfo"
    plan.first_of(
        key_of(name, gpu.index),
        (
            lambda: binding.call(name, gpu.handle, binding.MEMORY_V2, read=binding.memory),
            lambda: binding.call(name, gpu.handle, read=binding.memory),
        ),
    )


def _links(plan: Plan, gpu: Gpu) -> None:
    count = plan.field(gpu, LINK_COUNT)
    links = count.get("value", 0)
    if "value" not in count:
        links = _links_with_a_state(plan, gpu)
    plan.link_counts[gpu.index] = links if 0 <= links <= MOST_LINKS else 0
    found = _fields_again(plan, gpu)
    links = plan.link_counts[gpu.index]
    for port in range(links):
        if "value" not in found[STATE, port] and "value" in count:
            plan.ask("nvmlDeviceGetNvLinkState", gpu, port)
        if not found[VERSION, port].get("value"):
            plan.ask("nvmlDeviceGetNvLinkVersion", gpu, port)
        far = plan.ask("nvmlDeviceGetNvLinkRemotePciInfo", gpu, port, read=binding.bus_id)
        plan.remote_type(gpu, port, far.get("value"))


def _fields_again(plan: Plan, gpu: Gpu) -> Dict[Field, Answer]:
    """All fields of a GPU and its links, in one call."""
    links = range(plan.link_counts.get(gpu.index, 0))
    return plan.fields(gpu, list(OF_GPU) + [(number, port) for port in links for number in OF_LINK])


def _links_with_a_state(plan: Plan, gpu: Gpu) -> int:
    """Where the driver has no count: as many as have a state, asked one by one."""
    for port in range(MOST_LINKS):
        if "value" not in plan.ask("nvmlDeviceGetNvLinkState", gpu, port):
            return port
    return MOST_LINKS


def _fabric(plan: Plan, gpu: Gpu) -> None:
    name = "nvmlDeviceGetGpuFabricInfoV"
    plan.take(key_of(name, gpu.index), lambda: binding.fabric_info(gpu.handle))
    name = "nvmlDeviceGetPlatformInfo"
    plan.take(key_of(name, gpu.index), lambda: binding.platform_info(gpu.handle))


def _health(plan: Plan, gpu: Gpu) -> None:
    plan.ask("nvmlDeviceGetEccMode", gpu, read=binding.numbers)
    for kind in (0, 1):
        for period in (0, 1):
            plan.ask("nvmlDeviceGetTotalEccErrors", gpu, kind, period)
    plan.ask("nvmlDeviceGetRemappedRows", gpu, read=binding.numbers)
    events = "nvmlDeviceGetCurrentClocksEventReasons"
    throttle = "nvmlDeviceGetCurrentClocksThrottleReasons"
    plan.first_of(
        key_of(events, gpu.index),
        (
            lambda: binding.call(events, gpu.handle, read=int),
            lambda: binding.call(throttle, gpu.handle, read=int),
        ),
    )
    newest, old = "nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"
    plan.first_of(
        key_of(newest, gpu.index),
        (
            lambda: binding.call(newest, gpu.handle, GPU_SENSOR, read=int),
            lambda: binding.call(old, gpu.handle, GPU_SENSOR, read=int),
        ),
    )
    plan.ask("nvmlDeviceGetPowerUsage", gpu)
    plan.ask("nvmlDeviceGetEnforcedPowerLimit", gpu)


def _use(plan: Plan, gpu: Gpu) -> None:
    plan.ask("nvmlDeviceGetComputeMode", gpu)
    plan.ask("nvmlDeviceGetPersistenceMode", gpu)
    plan.ask("nvmlDeviceGetUtilizationRates", gpu, read=binding.utilization)
    name = "nvmlDeviceGetComputeRunningProcesses"
    plan.first_of(
        key_of(name, gpu.index),
        (
            lambda: binding.call(name, gpu.handle, read=binding.processes),
            lambda: binding.call(name + "_v2", gpu.handle, read=binding.processes),
        ),
    )
    plan.ask("nvmlDeviceGetProcessUtilization", gpu, with_=(0,), read=binding.samples)


def _mig(plan: Plan, gpu: Gpu) -> None:
    mode = plan.ask("nvmlDeviceGetMigMode", gpu, read=binding.numbers)
    if not mode.get("value", [0])[0]:
        return
    most = plan.ask("nvmlDeviceGetMaxMigDeviceCount", gpu).get("value", 0)
    for i in range(min(most, MOST_MIG_DEVICES)):
        _mig_device(plan, gpu, i)


def _mig_device(plan: Plan, gpu: Gpu, i: int) -> None:
    handles: List[Any] = []

    def kept(handle: Any) -> bool:
        handles.append(handle)
        return True

    plan.ask("nvmlDeviceGetMigDeviceHandleByIndex", gpu, i, read=kept)
    if handles:
        device = Gpu("{}.{}".format(gpu.index, i), handles[0])
        plan.ask("nvmlDeviceGetUUID", device, read=binding.text)
        plan.ask("nvmlDeviceGetGpuInstanceId", device)
        plan.ask("nvmlDeviceGetComputeInstanceId", device)
        plan.ask("nvmlDeviceGetMemoryInfo", device, read=binding.memory)


_STATE_PARTS = (_memory, _fabric, _health, _use, _mig)

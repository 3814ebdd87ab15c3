"""Machines that feed the fakes of the NVML library: GPUs, links, faults. A value of None: the
driver says "not supported".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.fakes.nvml_symbols import GPU_IS_LOST, NO_PERMISSION, SYMBOLS, TEXTS, VERSIONED

LOST = {"handle_code": GPU_IS_LOST, "every_code": GPU_IS_LOST}
FORBIDDEN = {"handle_code": NO_PERMISSION, "every_code": NO_PERMISSION}


def _known(names: Iterable[str], known: frozenset[str], what: str) -> None:
    strangers = sorted(set(names) - known)
    assert not strangers, f"{strangers} are none of the fakes' {what}"


@dataclass(frozen=True)
class FakeLink:
    """One NVLink as the driver would tell it; ``counters`` are driver fields by number."""

    remote_device_type: int
    remote_pci_bus_id: str | bytes
    remote_link: int | None
    speed_mbps: int
    state: int
    version: int
    counters: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FakeFabric:
    state: int
    status: int
    cluster_uuid: str
    clique_id: int
    health_mask: int = 0x1AA
    health_summary: int = 1


@dataclass(frozen=True)
class FakePlatform:
    chassis_serial: str | bytes
    tray: int
    slot: int = 0
    host: int = 0
    module: int = 0
    peer: int = 0
    ib_guid: bytes = b"\x00\x11\xff"


@dataclass(frozen=True)
class FakeMig:
    """One MIG device at an index of its GPU."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    gpu_instance: int
    compute_instance: int
    pids: tuple[int, ...] = ()


@dataclass(frozen=True)
class FakeC2c:
    """Links of a GPU to its processor; the rate is one link's."""

    count: int
    mbyte_per_s: int


@dataclass(frozen=True)
class FakeExcluded:
    """A GPU that the driver was told to leave alone."""

    bus_id: str
    uuid: str


@dataclass(frozen=True)
class Faults:
    """How calls fail, of one GPU or of the library: by code, without end, late, in bad bytes.

    ``after_calls``: so many calls are answered before the first fault.
    """

    returns: Mapping[str, int] = field(default_factory=dict)
    hangs: frozenset[str] = frozenset()
    delay_s: Mapping[str, float] = field(default_factory=dict)
    undecodable: frozenset[str] = frozenset()
    after_calls: int = 0

    def __post_init__(self) -> None:
        _known({*self.returns, *self.hangs, *self.delay_s}, SYMBOLS, "functions")
        _known(self.undecodable, TEXTS, "functions that give text")


@dataclass(frozen=True)
class FakeGpu:
    """One GPU and its faults. A value of None: the driver says "not supported"."""

    uuid: str | bytes | None
    bus_id: str | bytes | None
    name: str | bytes | None
    serial: str | bytes | None = None
    part_number: str | bytes | None = None
    vbios: str | bytes | None = None
    device_id: int = 0
    subsystem_id: int = 0
    module_id: int | None = None
    compute_capability: tuple[int, int] | None = None
    memory_bytes: int | None = None
    memory_used_bytes: int = 0
    memory_reserved_bytes: int = 0
    pcie_gen: int | None = None
    pcie_gen_now: int | None = None
    pcie_gen_of_gpu: int | None = None
    pcie_width: int | None = None
    pcie_width_most: int | None = None
    pcie_replays: int | None = None
    numa: tuple[int, ...] | None = None
    numa_of_memory: int | None = None
    cpus: tuple[int, ...] | None = None
    compute_mode: int | None = None
    persistence: int | None = None
    busy_percent: tuple[int, int] | None = None
    temperature_celsius: int | None = None
    power_mw: int | None = None
    power_limit_mw: int | None = None
    clocks_reasons: int | None = None
    ecc_mode: tuple[int, int] | None = None
    ecc_errors: Mapping[tuple[int, int], int] | None = None
    remapped_rows: tuple[int, int, int, int] | None = None
    recovery_action: int | None = None
    c2c: FakeC2c | None = None
    mig_mode: tuple[int, int] | None = None
    mig_most: int = 0
    mig: tuple[FakeMig, ...] = ()
    links: tuple[FakeLink, ...] | None = None
    fabric: FakeFabric | None = None
    platform: FakePlatform | None = None
    pids: tuple[int, ...] | None = ()
    pid_bytes: Mapping[int, int] = field(default_factory=dict)
    pid_percent: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    handle_code: int = 0
    every_code: int = 0
    returns: Mapping[str, int] = field(default_factory=dict)
    field_returns: Mapping[int, int] = field(default_factory=dict)
    faults: Faults = Faults()

    def __post_init__(self) -> None:
        _known(self.returns, SYMBOLS, "functions")


@dataclass(frozen=True)
class FakeProfile:
    """One machine: its driver, its GPUs, their pairs."""

    driver_version: str | bytes
    nvml_version: str | bytes
    cuda_version: int
    gpus: tuple[FakeGpu, ...]
    excluded: tuple[FakeExcluded, ...] = ()
    lacks: frozenset[str] = frozenset()
    fabric_versions: frozenset[int] = frozenset()
    wrong_struct_version: frozenset[str] = frozenset()
    init_code: int = 0
    count_code: int = 0
    p2p: tuple[int, int] = (0, 0)
    level: int = 50
    levels: Mapping[tuple[int, int], int] = field(default_factory=dict)
    faults: Faults = Faults()

    def __post_init__(self) -> None:
        _known(self.lacks, SYMBOLS, "functions")
        _known(self.wrong_struct_version, VERSIONED, "functions with a versioned struct")

    def with_gpu(self, index: int, **changes: Any) -> "FakeProfile":
        """The same machine with one GPU changed."""
        gpus = list(self.gpus)
        gpus[index] = replace(gpus[index], **changes)
        return replace(self, gpus=tuple(gpus))

    def with_link(self, index: int, port: int, **changes: Any) -> "FakeProfile":
        """The same machine with one link of one GPU changed."""
        links = list(self.gpus[index].links or ())
        links[port] = replace(links[port], **changes)
        return self.with_gpu(index, links=tuple(links))

    def lacking(self, *names: str) -> "FakeProfile":
        """The same machine with a driver that has not these functions."""
        return replace(self, lacks=self.lacks | set(names))

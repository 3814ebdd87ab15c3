"""Machines that feed the fake NVML library, read from YAML or changed in a test.

The keys of the YAML follow those of NVIDIA's nvml-mock where it has them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

PROFILES = Path(__file__).parent / "profiles"
NAMES = tuple(sorted(path.stem for path in PROFILES.glob("*.yaml")))


@dataclass(frozen=True)
class FakeLink:
    """One NVLink as the driver would tell it; ``remote_link`` None: not supported."""

    remote_device_type: int
    remote_pci_bus_id: str | bytes
    remote_link: int | None
    speed_mbps: int
    state: int
    version: int


@dataclass(frozen=True)
class FakeFabric:
    state: int
    status: int
    cluster_uuid: str
    clique_id: int


@dataclass(frozen=True)
class FakePlatform:
    chassis_serial: str | bytes
    tray: int
    slot: int = 0
    host: int = 0
    module: int = 0
    ib_guid: bytes = b"\x00\x11\xff"


@dataclass(frozen=True)
class FakeGpu:
    """One GPU and its faults. A value of None: the driver says "not supported"."""

    uuid: str | bytes | None
    bus_id: str | bytes | None
    name: str | bytes | None
    serial: str | bytes | None = None
    vbios: str | bytes | None = None
    module_id: int | None = None
    compute_capability: tuple[int, int] | None = None
    memory_bytes: int | None = None
    pcie_gen: int | None = None
    pcie_width: int | None = None
    numa: tuple[int, ...] | None = None
    cpus: tuple[int, ...] | None = None
    links: tuple[FakeLink, ...] | None = None
    fabric: FakeFabric | None = None
    platform: FakePlatform | None = None
    pids: tuple[int, ...] | None = ()
    handle_code: int = 0
    every_code: int = 0
    returns: Mapping[str, int] = field(default_factory=dict)
    field_returns: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FakeProfile:
    """One machine: its driver, its GPUs, their pairs."""

    driver_version: str | bytes
    nvml_version: str | bytes
    cuda_version: int
    gpus: tuple[FakeGpu, ...]
    lacks: frozenset[str] = frozenset()
    fabric_versions: frozenset[int] = frozenset()
    init_code: int = 0
    count_code: int = 0
    p2p: tuple[int, int] = (0, 0)
    level: int = 50
    levels: Mapping[tuple[int, int], int] = field(default_factory=dict)

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


def profile_named(name: str) -> FakeProfile:
    """A machine of tests/fakes/profiles."""
    text = (PROFILES / f"{name}.yaml").read_text()
    return _profile(yaml.safe_load(text))


def _profile(raw: dict[str, Any]) -> FakeProfile:
    defaults, p2p, topology = (
        raw.get("device_defaults", {}),
        raw.get("p2p", {}),
        raw.get("topology", {}),
    )
    return FakeProfile(
        driver_version=raw["system"]["driver_version"],
        nvml_version=raw["system"]["nvml_version"],
        cuda_version=raw["system"]["cuda_version"],
        gpus=tuple(_gpu({**defaults, **device}) for device in raw["devices"]),
        lacks=frozenset(raw.get("lacks", ())),
        fabric_versions=frozenset(raw.get("fabric_versions", ())),
        p2p=(p2p.get("default", 0), p2p.get("write", p2p.get("default", 0))),
        level=topology.get("default", 50),
        levels={(a, b): level for a, b, level in topology.get("pairs", ())},
    )


def _gpu(raw: dict[str, Any]) -> FakeGpu:
    capability = raw["compute_capability"]
    return FakeGpu(
        uuid=raw["uuid"],
        bus_id=raw["pci"]["bus_id"],
        name=raw["name"],
        serial=raw.get("serial"),
        vbios=raw.get("vbios"),
        module_id=raw.get("module_id"),
        compute_capability=(capability["major"], capability["minor"]),
        memory_bytes=raw["memory"]["total_bytes"],
        pcie_gen=raw["pcie"]["max_link_gen"],
        pcie_width=raw["pcie"]["current_link_width"],
        numa=_numbers(raw.get("memory_affinity")),
        cpus=_numbers(raw.get("cpu_affinity")),
        links=_links(raw.get("nvlink"), raw.get("remote_link_offset", 0)),
        fabric=FakeFabric(**raw["fabric"]) if raw.get("fabric") else None,
        platform=FakePlatform(**raw["platform"]) if raw.get("platform") else None,
        pids=tuple(raw.get("processes", ())),
        field_returns=raw.get("field_returns", {}),
    )


def _links(raw: dict[str, Any] | None, offset: int) -> tuple[FakeLink, ...] | None:
    if raw is None:
        return None
    links = raw.get("links", [{}] * raw["link_count"])
    assert len(links) == raw["link_count"]
    names = FakeLink.__dataclass_fields__
    made = (FakeLink(**{name: (raw | link)[name] for name in names}) for link in links)
    return tuple(
        link if link.remote_link is None else replace(link, remote_link=link.remote_link + offset)
        for link in made
    )


def _numbers(ranges: str | None) -> tuple[int, ...] | None:
    if ranges is None:
        return None
    ends = [part.split("-") for part in ranges.split(",")]
    return tuple(n for end in ends for n in range(int(end[0]), int(end[-1]) + 1))

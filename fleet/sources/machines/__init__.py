"""Machine models as data: one TOML file for each, read by ``machine_from_name``.

A file may say ``like = "dgx-h100"`` and then only what differs from that model.
"""

import tomllib
from functools import cache
from importlib.resources import files
from itertools import combinations
from typing import Annotated, Any, Final, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from fleet.errors import SourceError
from fleet.fields import FrozenModel, Pci, PciAddress, Text
from fleet.model import FabricState
from fleet.wiring import (
    C2cLinks,
    EndKind,
    GpuPort,
    GpuSlot,
    GpuVendor,
    LinkLayer,
    LinkState,
    NicPort,
    NicSlot,
    NumaNode,
    NvSwitch,
    P2pState,
    P2pStatus,
    PcieBridge,
    PortEnd,
    PortTechnology,
    Wiring,
)

Bus = Annotated[int, Field(ge=0, le=255)]
DeviceNumber = Annotated[int, Field(ge=0, le=31)]
_SWITCH_BUS: Final = 0xC4
_BRIDGE_BUS: Final = 0xE0


class CpuModel(FrozenModel):
    """The CPU of a machine."""

    architecture: Text = "x86_64"
    vendor: Text | None = "GenuineIntel"
    model: Text | None = None


class DeviceModel(FrozenModel):
    """PCIe devices of one kind; every list has one entry for each."""

    count: PositiveInt
    pcie_generation: PositiveInt | None = None
    pcie_width: PositiveInt = 16
    domain: tuple[Bus, ...] | None = None
    bus: tuple[Bus, ...]
    device: tuple[DeviceNumber, ...] | None = None
    numa: tuple[NonNegativeInt, ...]
    bridge: tuple[NonNegativeInt, ...] | None = None

    @model_validator(mode="after")
    def _one_entry_each(self) -> Self:
        for name in ("domain", "bus", "device", "numa", "bridge"):
            entries = getattr(self, name)
            if entries is not None and len(entries) != self.count:
                raise ValueError(f"{name}: {len(entries)} entries; expected {self.count}")
        return self

    def address(self, i: int) -> PciAddress:
        """PCI address of device i."""
        domain = self.domain[i] if self.domain else 0
        device = self.device[i] if self.device else 0
        return PciAddress(f"{domain:08x}:{self.bus[i]:02x}:{device:02x}.0")

    def bridge_of(self, i: int) -> int | None:
        """PCIe bridge of device i, None: at the root complex."""
        return self.bridge[i] if self.bridge else None


class GpuModel(DeviceModel):
    """The GPUs of a machine; without ``peer_access`` they meet in host memory only."""

    product_name: Text
    vendor: GpuVendor = GpuVendor.NVIDIA
    peer_access: bool = True
    compute_capability: Text
    memory_bytes: PositiveInt
    fabric: FabricState
    c2c: C2cLinks | None = None


class NicModel(DeviceModel):
    """The compute NICs of a machine; port i is rail i."""

    name: Text
    link_layer: LinkLayer
    bytes_per_s: PositiveFloat
    vendor_device: Text | None = None


class NvlinkModel(FrozenModel):
    """NVLinks or xGMI: to switches in the node, to those of the rack, or a mesh of [a, b, links].

    ``links_per_pair``: a mesh in which every two GPUs have that many.
    """

    version: Text | None = None
    technology: PortTechnology = PortTechnology.NVLINK
    bytes_per_s: PositiveFloat
    links_per_switch: tuple[PositiveInt, ...] = ()
    domain_switches: NonNegativeInt = 0
    mesh: tuple[tuple[NonNegativeInt, NonNegativeInt, PositiveInt], ...] = ()
    links_per_pair: NonNegativeInt = 0

    @model_validator(mode="after")
    def _version_of_an_nvlink(self) -> Self:
        if self.technology is PortTechnology.NVLINK and self.version is None:
            raise ValueError("version: missing; an NVLink has one, such as 4.0")
        return self


class FabricModel(FrozenModel):
    """The reference fabric: leaves of ``nodes_per_leaf`` nodes, non-blocking unless ``uplinks``."""

    rail_optimised: bool
    switch_ports: PositiveInt
    nodes_per_leaf: PositiveInt
    uplinks: PositiveInt | None = None


class Machine(FrozenModel):
    """A machine model: one node's parts, and the fabric that its maker would put around it."""

    name: Text
    summary: Text
    host_prefix: Text
    nodes_per_rack: PositiveInt
    numa_nodes: PositiveInt
    cpu: CpuModel = CpuModel()
    gpu: GpuModel | None = None
    nvlink: NvlinkModel | None = None
    nic: NicModel
    fabric: FabricModel

    @property
    def ranks(self) -> int:
        """Ranks a node carries: its GPUs, or one CPU rank."""
        return self.gpu.count if self.gpu else 1

    def wiring(self) -> Wiring:
        """The wiring of one node of this model."""
        return Wiring(
            machine=self.name,
            numa_nodes=tuple(
                NumaNode(numa=i, **self.cpu.model_dump()) for i in range(self.numa_nodes)
            ),
            bridges=_bridges(self),
            gpus=_gpus(self),
            nvswitches=_nvswitches(self),
            nics=_nics(self.nic),
            p2p=_p2p(self.gpu),
        )


def machine_names() -> tuple[str, ...]:
    """Names of all models, sorted."""
    folder = files("fleet.sources.machines")
    names = (file.name for file in folder.iterdir() if file.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in names))


@cache
def machine_from_name(name: str) -> Machine:
    """A machine model by its name.

    Raises:
        SourceError: there is none of that name.
    """
    if name not in machine_names():
        raise SourceError(
            f"{name!r} is no model",
            field="model",
            remedy=f"use one of {', '.join(machine_names())}",
        )
    return Machine.model_validate_json(_json_text({**_document(name), "name": name}))


def _document(name: str) -> dict[str, Any]:
    """A model's file over that of the model it is like."""
    text = (files("fleet.sources.machines") / f"{name}.toml").read_text()
    own = tomllib.loads(text)
    base = own.pop("like", None)
    return own if base is None else _merged(_document(base), own)


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; anything else is replaced."""
    both = base | own
    tables = {k for k in base.keys() & own.keys() if isinstance(base[k], dict)}
    return both | {key: _merged(base[key], own[key]) for key in tables}


def _json_text(document: dict[str, object]) -> str:
    import json

    return json.dumps(document)


def _bridges(machine: Machine) -> tuple[PcieBridge, ...]:
    numa_of: dict[int, int] = {}
    for devices in (machine.gpu, machine.nic):
        if devices is not None and devices.bridge is not None:
            numa_of.update(zip(devices.bridge, devices.numa, strict=True))
    generation = machine.nic.pcie_generation
    return tuple(
        PcieBridge(
            bridge=i,
            numa=numa_of[i],
            pci_address=_address(_BRIDGE_BUS + i),
            pcie_generation=generation,
            pcie_width=16,
        )
        for i in sorted(numa_of)
    )


def _gpus(machine: Machine) -> tuple[GpuSlot, ...]:
    gpu = machine.gpu
    if gpu is None:
        return ()
    return tuple(
        GpuSlot(
            slot=i,
            product_name=gpu.product_name,
            vendor=gpu.vendor,
            compute_capability=gpu.compute_capability,
            memory_bytes=gpu.memory_bytes,
            pci_address=gpu.address(i),
            numa=gpu.numa[i],
            bridge=gpu.bridge_of(i),
            pcie_generation=gpu.pcie_generation,
            pcie_width=gpu.pcie_width,
            ports=_ports(machine.nvlink, i, gpu.count) if machine.nvlink else (),
            c2c=gpu.c2c,
        )
        for i in range(gpu.count)
    )


def _ports(nvlink: NvlinkModel, slot: int, gpu_count: int) -> tuple[GpuPort, ...]:
    ends: list[PortEnd] = []
    for switch, links in enumerate(nvlink.links_per_switch):
        ends += [PortEnd(kind=EndKind.SWITCH, index=switch)] * links
    for switch in range(nvlink.domain_switches):
        ends.append(PortEnd(kind=EndKind.DOMAIN_SWITCH, index=switch))
    for a, b, links in nvlink.mesh:
        if slot in (a, b):
            ends += [PortEnd(kind=EndKind.GPU, index=b if slot == a else a)] * links
    for other in range(gpu_count):
        if other != slot:
            ends += [PortEnd(kind=EndKind.GPU, index=other)] * nvlink.links_per_pair
    return tuple(
        GpuPort(
            port=i,
            end=end,
            technology=nvlink.technology,
            version=nvlink.version,
            state=LinkState.UP,
            bytes_per_s=nvlink.bytes_per_s,
        )
        for i, end in enumerate(ends)
    )


def _nvswitches(machine: Machine) -> tuple[NvSwitch, ...]:
    count = len(machine.nvlink.links_per_switch) if machine.nvlink else 0
    return tuple(NvSwitch(index=i, pci_address=_address(_SWITCH_BUS + i)) for i in range(count))


def _nics(nic: NicModel) -> tuple[NicSlot, ...]:
    return tuple(
        NicSlot(
            slot=i,
            vendor_device=nic.vendor_device,
            pci_address=nic.address(i),
            numa=nic.numa[i],
            bridge=nic.bridge_of(i),
            pcie_generation=nic.pcie_generation,
            pcie_width=nic.pcie_width,
            ports=(
                NicPort(
                    port=1,
                    name=nic.name % i,
                    link_layer=nic.link_layer,
                    bytes_per_s=nic.bytes_per_s,
                    rail=i,
                ),
            ),
        )
        for i in range(nic.count)
    )


def _p2p(gpu: GpuModel | None) -> tuple[P2pStatus, ...]:
    """What a driver without peer access says of every pair of GPUs."""
    if gpu is None or gpu.peer_access:
        return ()
    no = P2pState.UNSUPPORTED
    pairs = combinations(range(gpu.count), 2)
    return tuple(P2pStatus(a=a, b=b, read=no, write=no) for a, b in pairs)


def _address(bus: int) -> Pci:
    return PciAddress(f"00000000:{bus:02x}:00.0")

"""How one node is wired: slots, ports and their far ends, PCIe tree, NICs. No identity in it."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Self

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, StringConstraints, model_validator

from fleet.fields import REPORTED, TEXT, FrozenModel, Pci, ShapeId, Text, repeated


class LinkState(StrEnum):
    """State of a link or port."""

    UP = "up"
    DOWN = "down"
    UNREPORTED = "unreported"


class GpuVendor(StrEnum):
    """Maker of a GPU."""

    NVIDIA = "nvidia"
    AMD = "amd"
    UNREPORTED = "unreported"


class NumaNode(FrozenModel):
    """One NUMA node (a socket, or part of one). ``numa`` -1: the system names none."""

    numa: int
    architecture: Text | None = None
    vendor: Text | None = None
    family: Text | None = None
    model: Text | None = None
    cpu_affinity: Text | None = None

    @property
    def key(self) -> str:
        """Place in a path."""
        return str(self.numa)


class PcieBridge(FrozenModel):
    """One PCIe bridge (a port of a PCIe switch); ``parent`` None hangs below the root complex."""

    bridge: NonNegativeInt
    parent: NonNegativeInt | None = None
    numa: int | None = None
    pci_address: Pci | None = None
    vendor_device: Text | None = None
    pcie_generation: PositiveInt | None = None
    pcie_width: PositiveInt | None = None

    @property
    def key(self) -> str:
        """Place in a path."""
        return str(self.bridge)


class PortTechnology(StrEnum):
    """What a GPU's scale-up port speaks."""

    NVLINK = "nvlink"
    XGMI = "xgmi"


class EndKind(StrEnum):
    """What is at the far end of a GPU port."""

    GPU = "gpu"
    SWITCH = "switch"
    DOMAIN_SWITCH = "domain_switch"
    NPU = "npu"
    UNREPORTED = "unreported"


class PortEnd(FrozenModel):
    """Far end of a GPU port: a GPU slot, an NVSwitch of this node, or one of its NVLink domain.

    ``index`` None: the driver hides which one it is.
    """

    kind: EndKind
    index: NonNegativeInt | None = None

    def __str__(self) -> str:
        return self.kind.value if self.index is None else f"{self.kind.value}{self.index}"


class GpuPort(FrozenModel):
    """One NVLink or xGMI port of a GPU; ``count`` ports where the source only counts them."""

    port: NonNegativeInt | None = None
    count: PositiveInt = 1
    end: PortEnd
    far_port: NonNegativeInt | None = None
    technology: PortTechnology = PortTechnology.NVLINK
    version: Annotated[Text | None, REPORTED] = None
    state: LinkState = LinkState.UP
    bytes_per_s: Annotated[PositiveFloat | None, REPORTED] = None

    @property
    def key(self) -> str:
        """Place in a path: the port number, or the far end where ports are only counted."""
        return str(self.end) if self.port is None else str(self.port)


class C2cLinks(FrozenModel):
    """NVLink-C2C between a GPU and its CPU: links and the rate of each, one direction."""

    count: PositiveInt
    bytes_per_s: PositiveFloat


class GpuSlot(FrozenModel):
    """A place for a GPU, with what is the same in every node of the shape."""

    slot: NonNegativeInt
    product_name: Annotated[Text | None, REPORTED] = None
    vendor: GpuVendor = GpuVendor.NVIDIA
    compute_capability: Annotated[Text | None, REPORTED] = None
    memory_bytes: Annotated[PositiveInt | None, REPORTED] = None
    pci_address: Annotated[Pci | None, REPORTED] = None
    module_id: NonNegativeInt | None = None
    numa: Annotated[int | None, REPORTED] = None
    bridge: NonNegativeInt | None = None
    pcie_generation: Annotated[PositiveInt | None, REPORTED] = None
    pcie_width: Annotated[PositiveInt | None, REPORTED] = None
    ports: tuple[GpuPort, ...] = ()
    c2c: C2cLinks | None = None

    @property
    def key(self) -> str:
        """Place in a path."""
        return str(self.slot)


class NvSwitch(FrozenModel):
    """An NVSwitch chip inside the node."""

    index: NonNegativeInt
    pci_address: Pci | None = None

    @property
    def key(self) -> str:
        """Place in a path."""
        return str(self.index)


class LinkLayer(StrEnum):
    """What a network port speaks."""

    INFINIBAND = "infiniband"
    ROCE = "roce"
    ETHERNET = "ethernet"
    EFA = "efa"
    SLINGSHOT = "slingshot"
    ARIES = "aries"
    UNREPORTED = "unreported"


class NicPort(FrozenModel):
    """One port of a NIC or HCA; ``rail`` is its place among the node's compute ports."""

    port: PositiveInt
    name: Annotated[Text | None, REPORTED] = None
    link_layer: LinkLayer = LinkLayer.UNREPORTED
    state: LinkState = LinkState.UP
    bytes_per_s: Annotated[PositiveFloat | None, REPORTED] = None
    rail: NonNegativeInt | None = None

    @property
    def key(self) -> str:
        """Place in a path."""
        return str(self.port)


class NicSlot(FrozenModel):
    """A place for a NIC or HCA."""

    slot: NonNegativeInt
    vendor_device: Text | None = None
    pci_address: Annotated[Pci | None, REPORTED] = None
    numa: Annotated[int | None, REPORTED] = None
    bridge: NonNegativeInt | None = None
    pcie_generation: PositiveInt | None = None
    pcie_width: PositiveInt | None = None
    ports: tuple[NicPort, ...] = ()

    @property
    def key(self) -> str:
        """Place in a path."""
        return str(self.slot)


class PcieLevel(StrEnum):
    """Nearest common ancestor of two devices on PCIe, closest first, in nvidia-smi's words."""

    INTERNAL = "internal"
    PIX = "pix"
    PXB = "pxb"
    PHB = "phb"
    NODE = "node"
    SYS = "sys"


class DevicePair(FrozenModel):
    """Two devices of a node (``gpu0``, ``nic3``) and their PCIe level, as a matrix prints it."""

    a: Annotated[str, StringConstraints(pattern=r"^(gpu|nic)[0-9]+$")]
    b: Annotated[str, StringConstraints(pattern=r"^(gpu|nic)[0-9]+$")]
    level: PcieLevel

    @property
    def key(self) -> str:
        """Place in a path."""
        return f"{self.a}-{self.b}"


class P2pState(StrEnum):
    """What the driver says of peer access between two GPUs."""

    OK = "ok"
    CHIPSET = "chipset_not_supported"
    GPU = "gpu_not_supported"
    TOPOLOGY = "topology_not_supported"
    REGKEY = "disabled_by_regkey"
    UNSUPPORTED = "not_supported"
    UNKNOWN = "unknown"


class P2pStatus(FrozenModel):
    """Peer access between two GPU slots."""

    a: NonNegativeInt
    b: NonNegativeInt
    read: P2pState
    write: P2pState

    @property
    def key(self) -> str:
        """Place in a path."""
        return f"{self.a}-{self.b}"


class Wiring(FrozenModel):
    """How a node is wired, without any identity: what nodes of one kind share."""

    machine: Text | None = None
    numa_nodes: tuple[NumaNode, ...] = ()
    bridges: tuple[PcieBridge, ...] = ()
    gpus: tuple[GpuSlot, ...] = ()
    nvswitches: tuple[NvSwitch, ...] = ()
    nics: tuple[NicSlot, ...] = ()
    pcie_levels: tuple[DevicePair, ...] = ()
    p2p: tuple[P2pStatus, ...] = ()

    @model_validator(mode="after")
    def _refer_to_what_is_there(self) -> Self:
        for problem in wiring_problems(self):
            raise ValueError(problem)
        return self


class NodeShape(Wiring):
    """A wiring with its name in the map."""

    id: Annotated[ShapeId, TEXT]


def wiring_problems(wiring: Wiring) -> Iterator[str]:
    """References inside a wiring that lead nowhere, and keys that stand twice."""
    for name in ("numa_nodes", "bridges", "gpus", "nvswitches", "nics", "pcie_levels", "p2p"):
        yield from repeated(f"{name}[%s]", (element.key for element in getattr(wiring, name)))
    yield from _bridge_problems(wiring)
    slots = {gpu.slot for gpu in wiring.gpus}
    for nic in wiring.nics:
        yield from repeated(f"nics[{nic.slot}].ports[%s]", (port.key for port in nic.ports))
    for gpu in wiring.gpus:
        yield from repeated(f"gpus[{gpu.slot}].ports[%s]", (port.key for port in gpu.ports))
        for port in gpu.ports:
            if port.end.kind is EndKind.GPU and port.end.index not in slots | {None}:
                yield f"gpus[{gpu.slot}].ports[{port.key}].end: no gpu {port.end.index} here"


def _bridge_problems(wiring: Wiring) -> Iterator[str]:
    bridges = {bridge.bridge for bridge in wiring.bridges}
    for bridge in wiring.bridges:
        if bridge.parent is not None and not bridge.parent < bridge.bridge:
            yield f"bridges[{bridge.bridge}].parent: {bridge.parent}; expected an earlier bridge"
    for name, devices in (
        ("gpus", wiring.gpus),
        ("nics", wiring.nics),
        ("bridges", wiring.bridges),
    ):
        for device in devices:
            above = device.parent if isinstance(device, PcieBridge) else device.bridge
            if above is not None and above not in bridges:
                yield f"{name}[{device.key}]: hangs below bridge {above}, which is not there"

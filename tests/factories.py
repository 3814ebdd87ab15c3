"""Factories: a test names what is special, the rest is a plain healthy node."""

from collections.abc import Iterable
from typing import Any

from fleet.fields import Absence, AbsenceReason, GpuUuid, HostName, PciAddress
from fleet.merge import merge_snapshots
from fleet.model import (
    SCHEMA_VERSION,
    FabricState,
    FleetMap,
    GpuIdentity,
    NicIdentity,
    NodeSnapshot,
    NvlinkFabric,
    Section,
    SectionName,
)
from fleet.sources.synthetic import fleet_from_spec
from fleet.wiring import (
    DevicePair,
    EndKind,
    GpuPort,
    GpuSlot,
    LinkLayer,
    NicPort,
    NicSlot,
    NumaNode,
    NvSwitch,
    P2pState,
    P2pStatus,
    PcieBridge,
    PcieLevel,
    PortEnd,
    Wiring,
)

GPU_BUS = 0x10
NIC_BUS = 0x80
NOT_ASKED = AbsenceReason.NOT_ASKED


def address(bus: int, *, domain: int = 0) -> PciAddress:
    """A PCI address as the model keeps it."""
    return PciAddress(f"{domain:08x}:{bus:02x}:00.0")


def make_port(port: int | None, **special: Any) -> GpuPort:
    """An NVLink 4 port to NVSwitch 0."""
    plain: dict[str, Any] = {
        "port": port,
        "end": PortEnd(kind=EndKind.SWITCH, index=0),
        "version": "4.0",
        "bytes_per_s": 25e9,
    }
    return GpuPort(**plain | special)


def make_gpu(slot: int = 0, *, ports: int | tuple[GpuPort, ...] = 2, **special: Any) -> GpuSlot:
    """An H100 at bus 0x10 + slot with ports to NVSwitch 0."""
    plain: dict[str, Any] = {
        "slot": slot,
        "product_name": "NVIDIA H100 80GB HBM3",
        "compute_capability": "9.0",
        "memory_bytes": 85_520_809_984,
        "pci_address": address(GPU_BUS + slot),
        "numa": 0,
        "bridge": 0,
        "pcie_generation": 5,
        "pcie_width": 16,
        "ports": tuple(map(make_port, range(ports))) if isinstance(ports, int) else ports,
    }
    return GpuSlot(**plain | special)


def make_nic(slot: int = 0, **special: Any) -> NicSlot:
    """An NDR HCA at bus 0x80 + slot."""
    port = NicPort(
        port=1,
        name=f"mlx5_{slot}",
        link_layer=LinkLayer.INFINIBAND,
        bytes_per_s=50e9,
        rail=slot,
    )
    plain: dict[str, Any] = {
        "slot": slot,
        "pci_address": address(NIC_BUS + slot),
        "numa": 0,
        "bridge": 0,
        "ports": (port,),
    }
    return NicSlot(**plain | special)


def make_wiring(
    gpus: int | tuple[GpuSlot, ...] = 4, nics: int | tuple[NicSlot, ...] = 2, **special: Any
) -> Wiring:
    """A node of H100s on one NVSwitch and one PCIe bridge, with its tables of pairs."""
    plain: dict[str, Any] = {
        "numa_nodes": (NumaNode(numa=0, architecture="x86_64"),),
        "bridges": (PcieBridge(bridge=0, numa=0, pci_address=address(0x01)),),
        "gpus": tuple(map(make_gpu, range(gpus))) if isinstance(gpus, int) else gpus,
        "nvswitches": (NvSwitch(index=0, pci_address=address(0x02)),) if gpus else (),
        "nics": tuple(map(make_nic, range(nics))) if isinstance(nics, int) else nics,
    }
    return Wiring(**plain | special)


def with_pairs(wiring: Wiring) -> Wiring:
    """The wiring with a level for every pair of devices and peer access for every pair of GPUs."""
    names = [f"gpu{g.slot}" for g in wiring.gpus] + [f"nic{n.slot}" for n in wiring.nics]
    slots = [gpu.slot for gpu in wiring.gpus]
    return wiring.model_copy(
        update={
            "pcie_levels": tuple(
                DevicePair(a=a, b=b, level=PcieLevel.PXB)
                for i, a in enumerate(names)
                for b in names[i + 1 :]
            ),
            "p2p": tuple(
                P2pStatus(a=a, b=b, read=P2pState.OK, write=P2pState.OK)
                for i, a in enumerate(slots)
                for b in slots[i + 1 :]
            ),
        }
    )


def make_identity(host: str, slot: int, **special: Any) -> GpuIdentity:
    """A GPU whose UUID and serial say where it is."""
    plain: dict[str, Any] = {
        "slot": slot,
        "uuid": GpuUuid(f"GPU-{host}-{slot}"),
        "serial": f"serial-{host}-{slot}",
        "fabric": NvlinkFabric(state=FabricState.SINGLE_NODE),
    }
    return GpuIdentity(**plain | special)


def make_snapshot(
    host: str = "node1", wiring: Wiring | None = None, *, source: str = "nvml", **special: Any
) -> NodeSnapshot:
    """A node of which everything is told but versions, use and time."""
    wiring = make_wiring() if wiring is None else wiring
    plain: dict[str, Any] = {
        "kind": "node_snapshot",
        "schema_version": SCHEMA_VERSION,
        "host": HostName(host),
        "wiring": wiring,
        "gpus": tuple(make_identity(host, gpu.slot) for gpu in wiring.gpus),
        "nics": tuple(
            NicIdentity(slot=nic.slot, guid=f"{i + 1:016x}") for i, nic in enumerate(wiring.nics)
        ),
        "sections": (Section(name=SectionName.DEVICES, source=source),),
        "absences": absent("versions", "allocations", "sections[*].collected_at"),
    }
    return NodeSnapshot(**plain | special)


def absent(*paths: str, reason: AbsenceReason = NOT_ASKED) -> tuple[Absence, ...]:
    """Absences of one reason."""
    return tuple(Absence(path=path, reason=reason) for path in paths)


def make_fleet(*snapshots: NodeSnapshot, **special: Any) -> FleetMap:
    """A map of snapshots; without any, of one plain node."""
    return merge_snapshots(snapshots or (make_snapshot(),), **special)


def fleet_of(spec: str) -> FleetMap:
    """A synthetic fleet."""
    return fleet_from_spec(spec)


def hosts_of(fleet: FleetMap) -> list[str]:
    """Hosts in the order of the map."""
    return [node.host for node in fleet.nodes]


def replaced(wiring: Wiring, name: str, elements: Iterable[Any]) -> Wiring:
    """A checked wiring with one list replaced."""
    return Wiring(**{**dict(wiring), name: tuple(elements)})

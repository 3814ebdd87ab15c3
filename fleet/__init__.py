"""fleetmap's inventory: where the GPUs really are, in which state, wired how.

The names below are the front door; they load when first used, so that ``fleet --help`` stays quick.
"""

from typing import TYPE_CHECKING, Any

from fleet.errors import FleetError

if TYPE_CHECKING:
    from fleet.check import Finding, Severity, check_fleet, slowed_hosts
    from fleet.faults import device_faults
    from fleet.fields import HostName
    from fleet.merge import merge_fleets, merge_snapshots
    from fleet.model import Cable, CableEnd, FleetMap, Node, NodeSnapshot, Switch
    from fleet.shapes import node_wirings
    from fleet.sources.synthetic import fleet_from_spec
    from fleet.store import load_fleet, read_bytes, save_fleet, write_bytes, write_parts
    from fleet.wiring import (
        EndKind,
        GpuPort,
        GpuSlot,
        GpuVendor,
        LinkLayer,
        LinkState,
        NicPort,
        NicSlot,
        P2pState,
        PcieLevel,
        PortTechnology,
        Wiring,
    )

_HOME = {
    "check_fleet": "check",
    "slowed_hosts": "check",
    "Finding": "check",
    "Severity": "check",
    "HostName": "fields",
    "merge_fleets": "merge",
    "merge_snapshots": "merge",
    "device_faults": "faults",
    "Cable": "model",
    "CableEnd": "model",
    "FleetMap": "model",
    "Node": "model",
    "NodeSnapshot": "model",
    "Switch": "model",
    "node_wirings": "shapes",
    "fleet_from_spec": "sources.synthetic",
    "collector_paused": "memory",
    "load_fleet": "store",
    "read_bytes": "store",
    "save_fleet": "store",
    "write_bytes": "store",
    "write_parts": "store",
    "EndKind": "wiring",
    "GpuPort": "wiring",
    "GpuSlot": "wiring",
    "GpuVendor": "wiring",
    "LinkLayer": "wiring",
    "LinkState": "wiring",
    "NicPort": "wiring",
    "NicSlot": "wiring",
    "P2pState": "wiring",
    "PcieLevel": "wiring",
    "PortTechnology": "wiring",
    "Wiring": "wiring",
}

__all__ = [
    "Cable",
    "CableEnd",
    "EndKind",
    "Finding",
    "FleetError",
    "FleetMap",
    "GpuPort",
    "GpuSlot",
    "GpuVendor",
    "HostName",
    "LinkLayer",
    "LinkState",
    "NicPort",
    "NicSlot",
    "Node",
    "NodeSnapshot",
    "P2pState",
    "PcieLevel",
    "PortTechnology",
    "Severity",
    "Switch",
    "Wiring",
    "check_fleet",
    "collector_paused",
    "device_faults",
    "fleet_from_spec",
    "load_fleet",
    "merge_fleets",
    "merge_snapshots",
    "node_wirings",
    "read_bytes",
    "save_fleet",
    "slowed_hosts",
    "write_bytes",
    "write_parts",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fleet' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"fleet.{_HOME[name]}"), name)

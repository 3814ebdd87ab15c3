"""Seats: the map's endpoints that a run of nccl-tests ran on, by host, PCI address and index."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from topology.collective.placement import Placement, pack
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric, FabricNode
from topology.fabric.routes import Endpoint
from topology.measured.nccl_lines import Device
from topology.measured.nccl_tests import NcclTestsRun


class Seats(NamedTuple):
    """A placement in rank order, and what was assumed to make it."""

    placement: Placement
    notes: tuple[str, ...]


def seats_of(run: NcclTestsRun, fabric: Fabric) -> Seats:
    """Where the ranks sit. Hosts that the map does not name get its first nodes with room.

    Raises:
        WorkloadError: more ranks or hosts than the map has, or the map's GPUs are others.
    """
    if not run.devices:
        note = "the run does not tell its hosts: ranks packed"
        return Seats(pack(fabric, run.ranks), (note,))
    by_host: dict[str, list[Device]] = {}
    for device in run.devices:
        by_host.setdefault(device.host, []).append(device)
    nodes, notes = _nodes_of(by_host, fabric)
    endpoint_of: dict[int, Endpoint] = {}
    for host, devices in by_host.items():
        for device, slot in zip(devices, _slots(nodes[host], devices), strict=True):
            endpoint_of[device.rank] = Endpoint(nodes[host].host, slot)
    placement = Placement(tuple(endpoint_of[rank] for rank in range(run.ranks)))
    return Seats(placement, notes)


def _nodes_of(
    by_host: dict[str, list[Device]], fabric: Fabric
) -> tuple[dict[str, FabricNode], tuple[str, ...]]:
    """The node of each host: by name where all are in the map, else the first with room."""
    named = {_short(node.host): node for node in fabric.nodes}
    if all(_short(host) in named for host in by_host):
        return {host: named[_short(host)] for host in by_host}, ()
    nodes: dict[str, FabricNode] = {}
    free = list(fabric.nodes)
    for host, devices in by_host.items():
        fitting = [node for node in free if len(node.graph.slots) >= len(devices)]
        if not fitting:
            raise WorkloadError(
                f"{len(by_host)} hosts with up to {max(map(len, by_host.values()))} GPUs ran it; "
                f"the map has {len(fabric.nodes)} nodes, not enough of them as large",
                where="--map",
                remedy="give the map of the machine that ran it",
            )
        nodes[host] = fitting[0]
        free.remove(fitting[0])
    missing = next(host for host in by_host if _short(host) not in named)
    note = f"host {missing} is not in the map: hosts taken for its first nodes"
    return nodes, (note,)


def _short(host: str) -> str:
    return host.partition(".")[0].lower()


def _slots(node: FabricNode, devices: Sequence[Device]) -> list[int]:
    """The slots of a host's ranks: by PCI address, else by CUDA's index, else the first ones."""
    _refuse_others(node, devices)
    gpus = [gpu for gpu in node.graph.wiring.gpus if gpu.slot in node.graph.slots]
    by_bus = {_bus(gpu.pci_address): gpu.slot for gpu in gpus if gpu.pci_address is not None}
    found = [by_bus.get(_bus(device.bus_id)) for device in devices]
    if len(set(found) - {None}) == len(devices):
        return [slot for slot in found if slot is not None]
    slots = node.graph.slots
    indices = [device.device for device in devices]
    if len(set(indices)) == len(indices) and max(indices) < len(slots):
        return [slots[index] for index in indices]
    if len(devices) > len(slots):
        raise WorkloadError(
            f"{len(devices)} ranks on {devices[0].host}; its node in the map has {len(slots)} GPUs",
            where="--map",
            remedy="give the map of the machine that ran it",
        )
    return list(slots[: len(devices)])


def _bus(address: str) -> str:
    """Domain and bus of an address, or the bus alone where that is all there is.

    >>> _bus("00000000:1b:00.0"), _bus("0000:1B:00"), _bus("0x1b")
    ('0:1b', '0:1b', '0x1b')
    """
    domain, _, rest = address.lower().partition(":")
    return f"{domain.lstrip('0') or '0'}:{rest[:2]}" if rest else domain


_MODEL: Final = re.compile(r"[A-Z]{1,3}\d{1,4}[A-Z]{0,2}\b|\b\d{4}\b")


def _refuse_others(node: FabricNode, devices: Sequence[Device]) -> None:
    """The run's GPUs must be those of the map, or no verdict means anything."""
    told = set(_MODEL.findall(devices[0].name))
    names = [gpu.product_name for gpu in node.graph.wiring.gpus if gpu.product_name is not None]
    mapped = {word for name in names for word in _MODEL.findall(name)}
    if told and mapped and not told & mapped:
        raise WorkloadError(
            f"ran on {devices[0].name}; the map's GPUs are {names[0]}",
            where="--map",
            remedy="give the map of the machine that ran it",
        )

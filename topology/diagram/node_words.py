"""Words for the inside of a node: its parts, what is told of each, what is wrong with it."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from fleet import EndKind, LinkState, Node, Wiring
from fleet.naming import counted
from topology.diagram.legend import MOST_NOTES
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric, FabricNode

_NOT_DRAWN: Final = (EndKind.NPU, EndKind.UNREPORTED)
_SOME_GPU: Final = (EndKind.GPU, None)
_PATHS: Final = {"gpu": "gpus", "nic": "nics", "nvswitch": "nvswitches", "pcie": "bridges"}


def parts_text(node: FabricNode) -> str:
    """What a node has, with counts."""
    wiring = node.graph.wiring
    parts = (
        (int(not wiring.gpus), "CPU rank"),
        (len(wiring.gpus), "GPU"),
        (len(wiring.nvswitches), "NVSwitch"),
        (len(wiring.nics), "NIC"),
        (len(wiring.numa_nodes), "NUMA node"),
    )
    return ", ".join(counted(count, noun) for count, noun in parts if count)


def node_number(fabric: Fabric, host: str | None) -> int:
    """Place of a host among the nodes, 0 where none is named.

    Raises:
        WorkloadError: no such host.
    """
    hosts = [str(node.host) for node in fabric.nodes]
    if host is None:
        return 0
    if host in hosts:
        return hosts.index(host)
    near = get_close_matches(host, hosts, n=3) or hosts[:3]
    raise WorkloadError(
        f"no host {host!r} in this map", field="host", remedy=f"it has {', '.join(near)}"
    )


def deviation_notes(node: Node) -> Iterator[str]:
    """How a node differs from its shape."""
    for deviation in node.deviations[:MOST_NOTES]:
        seen = "missing" if deviation.observed is None else deviation.observed
        yield f"Deviation: {deviation.path}: {seen}; its shape has {deviation.expected}"
    if len(node.deviations) > MOST_NOTES:
        yield f"and {len(node.deviations) - MOST_NOTES} more deviations"


def port_notes(node: FabricNode) -> Iterator[str]:
    """Which ports the picture leaves out."""
    ports = [port for gpu in node.graph.wiring.gpus for port in gpu.ports]
    lost = [p for p in ports if p.end.kind in _NOT_DRAWN or (p.end.kind, p.end.index) == _SOME_GPU]
    if lost:
        count = counted(sum(port.count for port in lost), "port")
        yield f"Not drawn: {count} of GPUs whose far end is not reported or no GPU or switch."


def device_words(fabric: Fabric, node: FabricNode, shape: Wiring, vertex: str) -> tuple[str, str]:
    """Label of a device and what is told of it."""
    number = vertex[len(vertex.rstrip("0123456789")) :]
    if vertex.startswith("gpu"):
        gpu = next(gpu for gpu in shape.gpus if gpu.key == number)
        return f"GPU {number}", re.sub("^NVIDIA |^Tesla ", "", gpu.product_name or "")
    if vertex.startswith("nic"):
        nic = next(nic for nic in shape.nics if nic.key == number)
        cable = fabric.network.leaf_of.get((node.host, nic.slot))
        name = next((port.name for port in nic.ports if port.name), f"NIC {number}")
        return name, f"to {cable.leaf}" if cable else ""
    return f"PCIe switch {number}" if vertex == f"pcie{number}" else "PCIe switch", ""


def device_fault(node: FabricNode, map_node: Node, vertex: str) -> str:
    """What is wrong with a part: missing, ports down, or other than its shape."""
    stem = vertex.rstrip("0123456789")
    path = f"{_PATHS.get(stem, stem)}[{vertex[len(stem) :]}]"
    mine = [d for d in map_node.deviations if d.path.startswith(path)]
    if any(d.path == path for d in mine):
        return "missing"
    wiring = node.graph.wiring
    devices = wiring.gpus if stem == "gpu" else wiring.nics if stem == "nic" else ()
    ports = [p for device in devices if f"{stem}{device.slot}" == vertex for p in device.ports]
    down = sum(port.state is LinkState.DOWN for port in ports)
    if down:
        return f"{counted(down, 'port')} down"
    return counted(len(mine), "deviation") if mine else ""


def cpu_name(model: str | None, vendor: str | None) -> str:
    """A CPU's model where it is a name, else its maker."""
    return model if model and not model.isdecimal() else vendor or ""


def scale_up_name(kind: str) -> str:
    """What the links of a kind are called where they join GPUs."""
    return "Infinity Fabric" if kind == "xgmi" else "NVLink"

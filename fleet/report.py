"""What people read of a map: hosts folded by what they have in common."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from fleet.check import Finding
from fleet.faults import DeviceFault, device_faults, why_unlisted
from fleet.gather.hostlist import fold_hosts
from fleet.model import FleetMap, Node
from fleet.naming import counted
from fleet.shapes import node_wirings
from fleet.state import UnlistedWhy
from fleet.units import text_from_bytes, text_from_rate
from fleet.wiring import EndKind, GpuSlot, LinkState, Wiring

FAULT_HEADER = ("hosts", "device", "reason", "what")
HEADER = ("hosts", "nodes", "GPUs", "GPU", "memory", "scale-up", "NICs", "differs")
_FAR_ENDS: Final = {
    EndKind.GPU: "GPUs",
    EndKind.SWITCH: "switch",
    EndKind.DOMAIN_SWITCH: "switch",
    EndKind.NPU: "NPU",
    EndKind.UNREPORTED: "?",
}


@dataclass(frozen=True, slots=True)
class _Group:
    """Hosts in a row with one wiring."""

    nodes: list[Node]
    wiring: Wiring


def fleet_lines(fleet: FleetMap) -> list[str]:
    """The fleet in two lines: how much there is, and how it is joined."""
    domains = {
        gpu.fabric.domain for node in fleet.nodes for gpu in node.gpus if gpu.fabric is not None
    } - {None}
    switches = [switch for switch in fleet.switches if switch.nvlink_domain is None]
    parts = [counted(len(switches), "switch"), counted(len(fleet.cables), "cable")]
    if domains:
        parts.append(counted(len(domains), "NVLink domain") + " across nodes")
    if fleet.conflicts:
        parts.append(counted(len(fleet.conflicts), "conflict"))
    return [
        f"{counted(len(fleet.nodes), 'node')}, {counted(fleet.gpu_count, 'GPU')}, "
        f"{counted(len(fleet.shapes), 'shape')}",
        ", ".join(parts),
    ]


def fleet_rows(fleet: FleetMap) -> list[tuple[str, ...]]:
    """One row for each run of hosts with one wiring."""
    return [_row(group) for group in _groups(fleet)]


def finding_rows(findings: Sequence[Finding]) -> list[tuple[str, ...]]:
    """One row for each finding."""
    return [(f.severity.value, f.code, f.where, f.text) for f in findings]


def fault_rows(fleet: FleetMap) -> list[tuple[str, ...]]:
    """One row for each device that does not answer, hosts with the same fault folded."""
    hosts: dict[tuple[str, str, str], list[str]] = {}
    for node in fleet.nodes:
        for fault in device_faults(node):
            place = _fault_place(fleet, node, fault)
            hosts.setdefault((place, fault.reason.value, fault.detail), []).append(node.host)
    return [(fold_hosts(named), *fault) for fault, named in hosts.items()]


def set_aside_lines(fleet: FleetMap) -> list[str]:
    """A line for each GPU that is kept from its driver on purpose, hosts with the same folded."""
    hosts: dict[tuple[str, str], list[str]] = {}
    for node in fleet.nodes:
        for gpu in node.unlisted_gpus:
            if gpu.why is not UnlistedWhy.NOT_LISTED:
                what = f"gpu@{gpu.pci_address}, {why_unlisted(gpu)}"
                hosts.setdefault((gpu.why.value.replace("_", " "), what), []).append(node.host)
    return [f"{why}: {fold_hosts(named)} {what}" for (why, what), named in hosts.items()]


def _fault_place(fleet: FleetMap, node: Node, fault: DeviceFault) -> str:
    """The device with its PCI address, which is what an administrator looks for."""
    own = {address.path: address.pci_address for address in node.addresses}
    shape = fleet.shape_of(node)
    for device in shape.gpus if fault.kind == "gpu" else shape.nics:
        if device.slot == fault.slot:
            address = own.get(f"{fault.kind}s[{device.slot}]", device.pci_address)
            return f"{fault.device} ({address})" if address else fault.device
    return fault.device


def _groups(fleet: FleetMap) -> Iterator[_Group]:
    group: _Group | None = None
    for node, wiring in node_wirings(fleet):
        if group is not None and group.wiring is wiring:
            group.nodes.append(node)
            continue
        if group is not None:
            yield group
        group = _Group([node], wiring)
    if group is not None:
        yield group


def _row(group: _Group) -> tuple[str, ...]:
    wiring, nodes = group.wiring, group.nodes
    deviations = len(nodes[0].deviations)
    return (
        fold_hosts([node.host for node in nodes]),
        str(len(nodes)),
        str(len(wiring.gpus)),
        _each(_product(gpu) for gpu in wiring.gpus),
        _each(
            text_from_bytes(gpu.memory_bytes) if gpu.memory_bytes else "?" for gpu in wiring.gpus
        ),
        _each(_scale_up(gpu) for gpu in wiring.gpus),
        _each(_nics(wiring), with_counts=True),
        counted(deviations, "place") if deviations else "",
    )


def _product(gpu: GpuSlot) -> str:
    if gpu.product_name is not None:
        return gpu.product_name
    capability = f" {gpu.compute_capability}" if gpu.compute_capability else ""
    return f"{gpu.vendor.value}{capability}"


def _scale_up(gpu: GpuSlot) -> str:
    links: Counter[str] = Counter()
    for port in gpu.ports:
        if port.state is not LinkState.DOWN:
            links[f"{port.technology.value} to {_FAR_ENDS[port.end.kind]}"] += port.count
    return ", ".join(f"{count} {what}" for what, count in links.items()) or "none told"


def _nics(wiring: Wiring) -> Iterator[str]:
    for nic in wiring.nics:
        for port in nic.ports:
            rate = text_from_rate(port.bytes_per_s) if port.bytes_per_s else "rate ?"
            yield f"{port.link_layer.value} {rate}"


def _each(texts: Iterator[str], *, with_counts: bool = False) -> str:
    """Different texts, most frequent first; ``with_counts`` says how many of each."""
    counts = Counter(texts)
    if not counts:
        return "-"
    if len(counts) == 1 and not with_counts:
        return next(iter(counts))
    return ", ".join(f"{count} x {text}" for text, count in counts.most_common())

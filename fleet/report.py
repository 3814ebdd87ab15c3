"""What people read of a map: hosts folded by what they have in common."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from fleet.check import Finding
from fleet.model import FleetMap, Node
from fleet.naming import counted
from fleet.shapes import node_wirings
from fleet.units import text_from_bytes, text_from_rate
from fleet.wiring import EndKind, GpuSlot, LinkState, Wiring

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


def fold_hosts(hosts: Sequence[str]) -> str:
    """First and last host of a run.

    >>> fold_hosts(["gpu1", "gpu2", "gpu3"]), fold_hosts(["login"])
    ('gpu1..gpu3', 'login')
    """
    return hosts[0] if len(hosts) == 1 else f"{hosts[0]}..{hosts[-1]}"


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

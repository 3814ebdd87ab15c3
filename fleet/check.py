"""Check: what a look at the map alone finds wrong or odd. Nothing is read, nothing is changed."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final

from fleet.faults import device_faults
from fleet.fields import FrozenModel, HostName, path_matches
from fleet.health import symptoms
from fleet.model import CableEnd, Deviation, FabricState, FleetMap, Node
from fleet.shapes import node_wirings
from fleet.wiring import EndKind, GpuSlot, LinkState, Wiring


class Severity(StrEnum):
    """How much a finding matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Finding(FrozenModel):
    """One thing found: a stable code, where, and the evidence in words."""

    code: str
    severity: Severity
    where: str
    text: str


_LIST_NAMES: Final = {"gpus": "gpu", "nics": "nic", "nvswitches": "nvswitch"}


def check_fleet(fleet: FleetMap) -> tuple[Finding, ...]:
    """Every finding of a map, in the order of its nodes; empty: nothing to say."""
    return (
        *_conflict_findings(fleet),
        *_node_findings(fleet),
        *_wiring_findings(fleet),
        *_domain_findings(fleet),
        *_cable_findings(fleet),
    )


def _conflict_findings(fleet: FleetMap) -> Iterator[Finding]:
    for conflict in fleet.conflicts:
        said = ", ".join(f"{source} says {value}" for source, value in conflict.said)
        taken = f"took {conflict.taken}" if conflict.taken is not None else "took neither"
        yield _finding("sources_disagree", Severity.WARNING, conflict.path, f"{said}; {taken}")


def _node_findings(fleet: FleetMap) -> Iterator[Finding]:
    for node in fleet.nodes:
        silent = {f"{fault.kind}s[{fault.slot}]" for fault in device_faults(node)}
        for deviation in node.deviations:
            if deviation.path not in silent:  # told below, with its reason
                yield _deviation_finding(node, deviation)
        for gpu in node.gpus:
            if gpu.fabric is not None and gpu.fabric.state is FabricState.BROKEN:
                where = f"nodes[{node.host}].gpus[{gpu.slot}].fabric"
                text = "the driver completed the fabric with an error"
                yield _finding("fabric_broken", Severity.ERROR, where, text)
        for symptom in symptoms(node):
            severity = Severity.ERROR if symptom.is_error else Severity.WARNING
            where = f"nodes[{node.host}].{symptom.where}"
            yield _finding(symptom.code, severity, where, symptom.text)


def _deviation_finding(node: Node, deviation: Deviation) -> Finding:
    where = f"nodes[{node.host}].{deviation.path}"
    if deviation.observed is None:
        kind = _LIST_NAMES.get(deviation.path.rpartition(".")[2].partition("[")[0], "port")
        text = f"its shape {node.shape} has this {kind}, the node does not"
        return _finding(f"{kind}_missing", Severity.ERROR, where, text)
    leaf = deviation.path.rpartition(".")[2]
    if leaf.startswith("gpus["):
        text = f"the driver tells nothing of it; its shape {node.shape} has a GPU here"
        return _finding("gpu_unreported", Severity.ERROR, where, text)
    code = {"state": f"port_{deviation.observed}"}.get(leaf, f"{leaf}_differs")
    text = f"{deviation.observed}; its shape {node.shape} has {deviation.expected}"
    return _finding(code, Severity.ERROR if leaf == "state" else Severity.WARNING, where, text)


def _wiring_findings(fleet: FleetMap) -> Iterator[Finding]:
    """Odd wirings, told once for each wiring at the first host that has it."""
    seen: set[int] = set()
    for node, wiring in node_wirings(fleet):
        if id(wiring) in seen:
            continue
        seen.add(id(wiring))
        for code, path, text in (*_asymmetric_links(wiring), *_uneven_links(wiring)):
            if _is_untold(node, f"wiring.{path}"):
                continue  # links that nobody told are not links that are down
            yield _finding(code, Severity.ERROR, f"nodes[{node.host}].{path}", text)


def _is_untold(node: Node, path: str) -> bool:
    return any(path_matches(absence.path, path) for absence in node.absences)


def _asymmetric_links(wiring: Wiring) -> Iterator[tuple[str, str, str]]:
    links: Counter[tuple[int, int]] = Counter()
    for gpu in wiring.gpus:
        for port in gpu.ports:
            if port.end.kind is EndKind.GPU and port.end.index is not None:
                links[gpu.slot, port.end.index] += port.count * (port.state is not LinkState.DOWN)
    for a, b in sorted({(min(pair), max(pair)) for pair in links}):
        if links[a, b] != links[b, a]:
            text = f"{links[a, b]} links to gpu {b}, which has {links[b, a]} back"
            yield "links_asymmetric", f"gpus[{a}].ports", text


def _uneven_links(wiring: Wiring) -> Iterator[tuple[str, str, str]]:
    """A GPU with fewer links than its peers of the same product, by majority."""
    by_product: dict[str | None, list[GpuSlot]] = defaultdict(list)
    for gpu in wiring.gpus:
        by_product[gpu.product_name].append(gpu)
    for gpus in by_product.values():
        counts = Counter(_links_up(gpu) for gpu in gpus)
        usual, how_many = counts.most_common(1)[0]
        for gpu in gpus:
            if _links_up(gpu) < usual and how_many * 2 > len(gpus):
                text = (
                    f"{_links_up(gpu)} links up where {how_many} of {len(gpus)} peers have {usual}"
                )
                yield "links_fewer_than_peers", f"gpus[{gpu.slot}].ports", text


def _links_up(gpu: GpuSlot) -> int:
    return sum(port.count for port in gpu.ports if port.state is not LinkState.DOWN)


def _domain_findings(fleet: FleetMap) -> Iterator[Finding]:
    for node in fleet.nodes:
        domains = {gpu.fabric.domain for gpu in node.gpus if gpu.fabric is not None}
        if len(domains) > 1:
            names = " and ".join(sorted(str(domain) for domain in domains))
            text = f"GPUs of one node in different NVLink domains: {names}"
            yield _finding("domain_split", Severity.ERROR, f"nodes[{node.host}].gpus", text)


def _cable_findings(fleet: FleetMap) -> Iterator[Finding]:
    for i, cable in enumerate(fleet.cables):
        if cable.state is LinkState.DOWN:
            text = f"between {cable.a.device} and {cable.b.device}"
            yield _finding("cable_down", Severity.ERROR, f"cables[{i}]", text)
    yield from _shared_ports(fleet)


def _shared_ports(fleet: FleetMap) -> Iterator[Finding]:
    """A port holds one cable: with two, one of them is not where the map has it."""
    cable_at: dict[CableEnd, int] = {}
    for i, cable in enumerate(fleet.cables):
        for end in (cable.a, cable.b):
            first = cable_at.setdefault(end, i) if end.port is not None else i
            if first != i:
                text = f"port {end.port} of {end.device} also holds cables[{first}]"
                yield _finding("port_shared", Severity.ERROR, f"cables[{i}]", text)


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The highest severity among findings."""
    order = list(Severity)
    return max((finding.severity for finding in findings), key=order.index, default=None)


def _finding(code: str, severity: Severity, where: str, text: str) -> Finding:
    return Finding(code=code, severity=severity, where=where, text=text)


SLOWING: Final = frozenset({"clocks_slowed", "fabric_unhealthy", "nvlink_not_recovered"})
"""Symptoms that slow a node and leave it running."""


def slowed_hosts(fleet: FleetMap) -> frozenset[HostName]:
    """Hosts whose own state shows that they are slower than others of their kind."""
    return frozenset(
        node.host
        for node in fleet.nodes
        if any(symptom.code in SLOWING for symptom in symptoms(node))
    )

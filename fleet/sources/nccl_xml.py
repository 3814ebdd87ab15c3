"""NCCL topology XML, the file NCCL writes with ``NCCL_TOPO_DUMP_FILE``: hosts, PCIe tree, GPUs.

A dump holds the NUMA nodes of its hosts, PCI devices nested as they are plugged, and GPUs with
their links and NICs as leaves. A template (``NCCL_TOPO_FILE``, from clouds) has PCI devices only:
there the PCI class tells a GPU or NIC, and links and ports are not told. What a device says of
itself on PCIe, and all of the NICs, is in ``nccl_net``.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Final

from pydantic import ValidationError

from fleet.errors import SourceError
from fleet.fields import Absence, AbsenceReason, HostName, PciAddress
from fleet.model import GpuIdentity, NicIdentity, NodeSnapshot, Section, SectionName
from fleet.sources.nccl_net import (
    Place,
    adapters_at,
    code_of,
    gap,
    guid_gaps,
    guid_of,
    in_driver_order,
    integer_of,
    nic_gaps,
    nic_slots,
    not_asked,
    numa_node,
    row_key,
    text_of,
)
from fleet.sources.pci import is_hidden_address, pci_address_from_text
from fleet.sources.xml_tree import Element, parse_xml
from fleet.wiring import (
    C2cLinks,
    EndKind,
    GpuPort,
    GpuSlot,
    GpuVendor,
    NumaNode,
    NvSwitch,
    PcieBridge,
    PortEnd,
    PortTechnology,
    Wiring,
)

SOURCE: Final = "nccl_xml"
SECTIONS: Final = (SectionName.DEVICES, SectionName.LINKS, SectionName.NETWORK)

_ROOT: Final = re.compile(
    r"\ufeff?\s*(?:<\?.*?\?>\s*|<!--.*?-->\s*)*<(?:(?:system|graphs)[\s/>]|pci\s[^>]*\bbusid=)",
    re.DOTALL,
)
_GPU_CLASSES: Final = ("0302", "0300", "0380", "1200")
_NETWORK_CLASSES: Final = "02"
_BRIDGE_CLASS: Final = "0604"
_NVSWITCH_CLASS: Final = "0680"
# NCCL's table of classes has a CPU under this one: the NVLink end of a POWER processor.
_NPU_CLASS: Final = "068001"
_VENDORS: Final = {"10de": GpuVendor.NVIDIA, "1002": GpuVendor.AMD}
_TECHNOLOGIES: Final = {"nvlink": PortTechnology.NVLINK, "xgmi": PortTechnology.XGMI}
_GCN: Final = re.compile(r"(?:gfx[0-9a-f]{3,4}|[0-9]{3,4})(?=$|:)")
_FASTEST_C2C_MB_PER_S: Final = 1_000_000


def recognises(head: str) -> bool:
    """Whether a text begins as a topology of NCCL, a graph of NCCL or a piece of a topology.

    The last two cannot be read, but ``read`` can say what they are.

    >>> recognises('<!-- p4d --><system version="1">'), recognises('<topology version="3.0">')
    (True, False)
    """
    return _ROOT.match(head) is not None


def read(content: bytes, *, where: str, host: HostName) -> tuple[NodeSnapshot, ...]:
    """One snapshot for each host of a dump, in the order of the dump.

    The one host of a dump gets the name ``host``. Several, which only ``host_hash`` tells apart
    (their PCI addresses are the same), are named ``<host>-<hash>``.

    Raises:
        SourceError: broken XML, a graph dump, a piece of a topology, or what is no number where
            one must be; with the line.
    """
    cpus_by_hash = _cpus_by_hash(_system(content, where), where)
    names = _host_names(host, list(cpus_by_hash))
    try:
        return tuple(
            _snapshot(_tree_of(cpus, where), name, where)
            for name, cpus in zip(names, cpus_by_hash.values(), strict=True)
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise SourceError(
            first["msg"], where=where, field=place, remedy="give the file as NCCL wrote it"
        ) from None


def _system(content: bytes, where: str) -> Element:
    root = parse_xml(content, where=where)
    if root.tag == "graphs":
        problem = "a graph dump of NCCL (NCCL_GRAPH_DUMP_FILE), which holds no hardware"
        raise _fault(problem, root, where, "give the file of NCCL_TOPO_DUMP_FILE")
    if root.tag != "system":
        problem = f"<{root.tag}> is the outermost element: a piece of a topology"
        raise _fault(problem, root, where, "give the whole file, from <system> to </system>")
    return root


def _cpus_by_hash(system: Element, where: str) -> dict[str | None, list[Element]]:
    by_hash: dict[str | None, list[Element]] = defaultdict(list)
    for child in system.children:
        if child.tag == "cpu":
            by_hash[text_of(child, "host_hash")].append(child)
        elif child.tag in {"pci", "nic", "gpu"}:
            raise _fault(f"<{child.tag}> outside any <cpu>", child, where, "put it into its <cpu>")
    if not by_hash:
        raise _fault("<system> without a <cpu>", system, where, "dump the topology again")
    if None in by_hash and len(by_hash) > 1:
        problem = "<cpu> without host_hash beside others with one"
        raise _fault(problem, by_hash[None][0], where, "say which host it belongs to")
    return by_hash


def _host_names(host: HostName, hashes: Sequence[str | None]) -> list[HostName]:
    if len(hashes) == 1:
        return [host]
    tails = [re.sub(r"[^A-Za-z0-9._-]", "-", str(text))[:64] for text in hashes]
    if len(set(tails)) < len(tails):
        tails = [f"{i}-{tail}" for i, tail in enumerate(tails)]
    return [HostName(f"{host[:150]}-{tail}") for tail in tails]


def _fault(problem: str, element: Element, where: str, remedy: str) -> SourceError:
    return SourceError(problem, where=where, field=f"line {element.line}", remedy=remedy)


@dataclass(slots=True)
class _Tree:
    """What stands in the tree of one host."""

    where: str
    numa_nodes: dict[int, NumaNode] = field(default_factory=dict)
    bridges: list[PcieBridge] = field(default_factory=list)
    gpus: list[Place] = field(default_factory=list)
    nics: list[Place] = field(default_factory=list)
    absences: list[Absence] = field(default_factory=list)


def _tree_of(cpus: Iterable[Element], where: str) -> _Tree:
    tree = _Tree(where)
    interfaces: list[Element] = []
    for cpu in cpus:
        numa = _add_numa_node(tree, cpu)
        interfaces += (net for nic in cpu.all("nic") for net in nic.all("net"))
        for pci in cpu.all("pci"):
            _plug(tree, pci, numa, None)
    known = {row_key(row) for nic in tree.nics for row in nic.rows}
    rows = tuple(row for row in interfaces if row_key(row) not in known)
    if rows:
        tree.nics += adapters_at(Place(None, None, None, rows))
    return tree


def _plug(tree: _Tree, pci: Element, numa: int, bridge: int | None) -> None:
    """Adds a PCI device and all below it; a bridge comes before what hangs below it."""
    gpus = tuple(pci.all("gpu"))
    nets = tuple(net for nic in pci.all("nic") for net in nic.all("net"))
    place = Place(pci, numa, bridge, nets)
    if gpus or place.class_code.startswith(_GPU_CLASSES):
        tree.gpus.append(replace(place, rows=gpus))
    elif place.class_code.startswith(_NETWORK_CLASSES):
        tree.nics += adapters_at(place)
    elif place.class_code.startswith(_BRIDGE_CLASS) or pci.find("pci") is not None:
        bridge = len(tree.bridges)
        tree.bridges.append(place.as_bridge(bridge))
        if nets:  # fused of several NICs, and hung where their ways to the CPU meet
            tree.nics += adapters_at(Place(None, numa, bridge, nets))
    elif nets:
        tree.nics += adapters_at(place)
    elif not place.class_code:
        # NCCL looks the class up where a template is used; who only reads it cannot.
        detail = "a PCI device without a class: GPU, NIC or other"
        tree.absences.append(not_asked(f"wiring.gpus[{place.address}]", detail))
    for below in pci.all("pci"):
        _plug(tree, below, numa, bridge)


def _add_numa_node(tree: _Tree, cpu: Element) -> int:
    """Adds a CPU's NUMA node; of two with one number the first one's facts are kept."""
    numa = integer_of(cpu, "numaid") if "numaid" in cpu.attributes else -1
    if numa is None:
        problem = f"numaid={cpu.attributes['numaid'][:80]!r} is no number"
        raise _fault(problem, cpu, tree.where, "write the number, -1 if there is none")
    node = tree.numa_nodes.setdefault(numa, numa_node(cpu, numa))
    if node.cpu_affinity is None:
        path = f"wiring.numa_nodes[{numa}].cpu_affinity"
        tree.absences.append(gap(path, cpu, "affinity"))
    return numa


@dataclass(frozen=True, slots=True)
class _Ends:
    """Whom the links of a host's GPUs reach: slots of GPUs and numbers of NVSwitches."""

    gpus: dict[PciAddress, int]
    switches: dict[PciAddress, int]

    def of(self, row: Element) -> PortEnd:
        """Far end of an ``<nvlink>`` or ``<xgmi>`` row."""
        target = text_of(row, "target") or ""
        tclass = code_of(row, "tclass")
        address = pci_address_from_text(target)
        if tclass == _NPU_CLASS:
            return PortEnd(kind=EndKind.NPU)
        if is_hidden_address(target) or (address is None and tclass.startswith(_NVSWITCH_CLASS)):
            return PortEnd(kind=EndKind.SWITCH)
        if address in self.gpus:
            return PortEnd(kind=EndKind.GPU, index=self.gpus[address])
        if address in self.switches:
            return PortEnd(kind=EndKind.SWITCH, index=self.switches[address])
        return PortEnd(kind=EndKind.UNREPORTED)


def _ends(gpus: Sequence[Place], where: str) -> _Ends:
    slots: dict[PciAddress, int] = {}
    for slot, gpu in enumerate(gpus):
        if gpu.address in slots:
            assert gpu.pci is not None, "a GPU is a PCI device"
            problem = f"a second GPU at {gpu.address}"
            remedy = "give each <cpu> the host_hash of its host if these are several hosts"
            raise _fault(problem, gpu.pci, where, remedy)
        if gpu.address is not None:
            slots[gpu.address] = slot
    targets = {
        pci_address_from_text(text_of(row, "target") or "")
        for gpu in gpus
        for row in _links(gpu)
        if code_of(row, "tclass").startswith(_NVSWITCH_CLASS)
    }
    switches = sorted(address for address in targets - slots.keys() if address is not None)
    return _Ends(slots, {address: i for i, address in enumerate(switches)})


def _links(gpu: Place) -> list[Element]:
    """Link rows of a GPU. Its partitions (MLOPart) are several ``<gpu>``, each with all links."""
    return [row for row in gpu.rows[0].children if row.tag in _TECHNOLOGIES] if gpu.rows else []


def _gpu_slot(slot: int, place: Place, ends: _Ends, where: str) -> GpuSlot:
    return GpuSlot(
        slot=slot,
        vendor=_vendor(place),
        compute_capability=_compute_capability(place),
        pci_address=place.address,
        numa=place.numa,
        bridge=place.bridge,
        pcie_generation=place.pcie_generation,
        pcie_width=place.pcie_width,
        ports=_ports(place, ends, where),
        c2c=_c2c(place),
    )


def _vendor(place: Place) -> GpuVendor:
    """The PCI vendor's; where a template has none, that of the library that wrote ``<gpu>``."""
    if place.vendor or not place.rows:
        return _VENDORS.get(place.vendor, GpuVendor.UNREPORTED)
    # RCCL, for AMD, adds gcn; sm alone is NCCL's, for NVIDIA.
    if text_of(place.rows[0], "gcn"):
        return GpuVendor.AMD
    return GpuVendor.NVIDIA if text_of(place.rows[0], "sm") else GpuVendor.UNREPORTED


def _compute_capability(place: Place) -> str | None:
    """``9.0`` from sm 90; for AMD gcn in ROCm's form (its sm is a count of compute units)."""
    row = place.rows[0] if place.rows else None
    match _vendor(place):
        case GpuVendor.NVIDIA:
            sm = integer_of(row, "sm")
            return f"{sm // 10}.{sm % 10}" if sm is not None and 10 <= sm < 1000 else None
        case GpuVendor.AMD:
            gcn = _GCN.match(text_of(row, "gcn") or "")
            # RCCL wrote gfx90a, whose name is hexadecimal, as the number 910.
            return gcn and ("gfx90a" if gcn[0] == "910" else f"gfx{gcn[0].removeprefix('gfx')}")
        case _:
            return None


def _ports(place: Place, ends: _Ends, where: str) -> tuple[GpuPort, ...]:
    """One entry for each far end, its links counted; as reported, even where the ends disagree."""
    links: Counter[tuple[PortTechnology, PortEnd]] = Counter()
    for row in _links(place):
        count = integer_of(row, "count")
        if count is None or count < 0:
            problem = f"count={row.attributes.get('count', '')[:80]!r} is no number of links"
            raise _fault(problem, row, where, "write the number")
        links[_TECHNOLOGIES[row.tag], ends.of(row)] += count
    return tuple(
        GpuPort(count=links[link], end=link[1], technology=link[0])
        for link in sorted(links, key=lambda link: (link[1].kind, link[1].index or 0))
        if links[link]
    )


def _c2c(place: Place) -> C2cLinks | None:
    """NVLink-C2C. ``bw`` is MB/s of one link, one direction.

    GB300 tells 5 links of 44712: 223.6 GB/s a GPU, half of the 450 GB/s of a Grace that has two.
    """
    row = place.rows[0].find("c2c") if place.rows else None
    count, bw = integer_of(row, "count") or 0, integer_of(row, "bw") or 0
    is_told = count > 0 and 0 < bw <= _FASTEST_C2C_MB_PER_S
    return C2cLinks(count=count, bytes_per_s=bw * 1e6) if is_told else None


def _gpu_gaps(place: Place, gpu: GpuSlot, ends: _Ends) -> Iterator[Absence]:
    """What the topology does not tell of a GPU, by path from the GPU."""
    row = place.rows[0] if place.rows else None
    yield from map(not_asked, ("product_name", "memory_bytes"))
    if gpu.ports:
        yield from map(not_asked, ("ports[*].version", "ports[*].bytes_per_s"))
    if gpu.pci_address is None:
        yield gap("pci_address", place.pci, "busid")
    if gpu.pcie_generation is None:
        yield gap("pcie_generation", place.pci, "link_speed")
    if gpu.pcie_width is None:
        yield gap("pcie_width", place.pci, "link_width")
    if gpu.compute_capability is None:
        yield gap("compute_capability", row, "gcn" if gpu.vendor is GpuVendor.AMD else "sm")
    if row is None:
        yield not_asked("ports", "a template, which tells no links")
    lost = [row for row in _links(place) if ends.of(row).kind is EndKind.UNREPORTED]
    if lost:
        targets = sorted({row.attributes.get("target", "")[:40] for row in lost})
        yield Absence(
            path="ports[unreported].end.index",
            reason=AbsenceReason.UNDECODABLE,
            detail=f"links to what is no device of this host: {targets[:8]}",
        )


def _snapshot(tree: _Tree, host: HostName, where: str) -> NodeSnapshot:
    gpus, nics = in_driver_order(tree.gpus), in_driver_order(tree.nics)
    ends = _ends(gpus, where)
    wiring = Wiring(
        numa_nodes=tuple(node for _, node in sorted(tree.numa_nodes.items())),
        bridges=tuple(tree.bridges),
        gpus=tuple(_gpu_slot(slot, gpu, ends, where) for slot, gpu in enumerate(gpus)),
        nvswitches=tuple(NvSwitch(index=i, pci_address=a) for a, i in ends.switches.items()),
        nics=nic_slots(nics),
    )
    sections = tuple(Section(name=name, source=SOURCE) for name in SECTIONS)
    return NodeSnapshot(
        kind="node_snapshot",
        schema_version=1,
        host=host,
        gpus=tuple(GpuIdentity(slot=gpu.slot) for gpu in wiring.gpus),
        nics=tuple(NicIdentity(slot=slot, guid=guid_of(nic)) for slot, nic in enumerate(nics)),
        wiring=wiring,
        sections=sections,
        absences=(
            *(not_asked(f"sections[{section.key}].collected_at") for section in sections),
            *map(not_asked, ("versions", "allocations")),
            *tree.absences,
            *_rooted("gpus", (map(not_asked, ("uuid", "serial", "fabric")) for _ in gpus)),
            *_rooted("wiring.gpus", map(_gpu_gaps, gpus, wiring.gpus, repeat(ends))),
            *_rooted("wiring.nics", map(nic_gaps, nics, wiring.nics)),
            *_rooted("nics", map(guid_gaps, nics)),
        ),
    )


def _rooted(name: str, gaps_by_slot: Iterable[Iterable[Absence]]) -> Iterator[Absence]:
    """Gaps of each slot as absences of the snapshot, with ``[*]`` for what every slot lacks."""
    slots_by_gap: dict[Absence, list[int]] = defaultdict(list)
    slot = -1
    for slot, gaps in enumerate(gaps_by_slot):
        for lack in gaps:
            slots_by_gap[lack].append(slot)
    for lack, slots in slots_by_gap.items():
        for key in ["*"] if len(slots) == slot + 1 else slots:
            yield lack.model_copy(update={"path": f"{name}[{key}].{lack.path}"})

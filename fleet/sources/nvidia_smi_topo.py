"""nvidia-smi topo -m: the matrix of NVLinks and PCIe levels between one node's GPUs and NICs.

Not in it: which GPU is which (unless ``nvidia-smi -L`` or ``nvlink -s`` stands in the same text),
the host's name and the time. Reading rules, where the matrix leaves something open:

Switch or direct link. A cell ``NV18`` counts the links over which a GPU reaches its peer. Behind a
switch the same links reach every peer, so a row's cells add up to more links than a GPU has: that
is the sign of a switch, and one such row tells it of the machine, however its other rows look. A
GPU has at most 18 NVLinks, or as many as ``nvlink -s`` lists. Each GPU then has its largest cell
as links to the switch; a GPU without an NV cell has none. Whether the switch is in this node or in
its NVLink domain stays open: the fabric tells, which is not in the matrix. Otherwise each cell is
a direct link.
Equal cells of six links and more between two or three GPUs can be either (no GPU with fewer links
is built for a switch); they are taken for direct links and an absence says so.

``topo -mp`` prints PCIe levels alone: a matrix without NV cells does not prove that there are no
NVLinks. If it follows a ``topo -m`` of the same machine, it tells the levels which that one hides.

Rails. NICs that share a PCIe switch with some GPU (PIX, PXB) are the node's compute ports and are
numbered in the order of their columns; the others have no rail.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fleet.errors import SourceError
from fleet.fields import Absence, AbsenceReason, HostName
from fleet.model import (
    SCHEMA_VERSION,
    GpuIdentity,
    NicIdentity,
    NodeSnapshot,
    Section,
    SectionName,
)
from fleet.sources.nvidia_smi_matrix import (
    Matrix,
    blocks_from_text,
    clean_lines,
    is_nvlink,
    matrices_from_text,
)
from fleet.sources.nvidia_smi_values import (
    Gaps,
    gpu_uuid_from_text,
    plain_text,
    reason_from_text,
)
from fleet.wiring import (
    DevicePair,
    EndKind,
    GpuPort,
    GpuSlot,
    LinkState,
    NicPort,
    NicSlot,
    NumaNode,
    PcieLevel,
    PortEnd,
    Wiring,
)

SOURCE: Final = "nvidia_smi_topo"

MOST_NVLINKS_OF_A_GPU: Final = 18
"""Hopper and Blackwell; NVML's NVML_NVLINK_MAX_LINKS."""
FEWEST_NVLINKS_BEHIND_A_SWITCH: Final = 6
"""Volta's, in the first machine with NVSwitches (DGX-2)."""

_LEVELS: Final = {
    "PIX": PcieLevel.PIX,
    "PXB": PcieLevel.PXB,
    "PHB": PcieLevel.PHB,
    "NODE": PcieLevel.NODE,
    "SYS": PcieLevel.SYS,
    "SOC": PcieLevel.SYS,
}
_NEAR: Final = frozenset({PcieLevel.PIX, PcieLevel.PXB})
_SWITCH: Final = PortEnd(kind=EndKind.SWITCH)

_LISTED_GPU: Final = re.compile(
    r"\bGPU (?P<index>[0-9]{1,4}): (?P<name>.{1,200}?) \(UUID: (?P<uuid>[^()]{1,200})\)"
)
_LISTED_LINK: Final = re.compile(
    r"\bLink (?P<link>[0-9]{1,3}): (?:(?P<rate>[0-9]{1,5}(?:\.[0-9]{1,6})?) GB/s|<inactive>)"
)
_NOT_IN_A_MATRIX: Final = (
    "compute_capability",
    "memory_bytes",
    "pci_address",
    "pcie_generation",
    "pcie_width",
)
_NOT_OF_A_NIC: Final = ("pci_address", "numa", "ports[*].bytes_per_s")


@dataclass(slots=True)
class _Listed:
    """A GPU as ``nvidia-smi -L`` or ``nvlink -s`` lists it; links by number, None: inactive."""

    name: str
    uuid: str
    links: dict[int, float | None]

    @property
    def rates(self) -> list[float]:
        """Rates of the active links. [B/s]"""
        return [rate for rate in self.links.values() if rate is not None]


def recognises(head: str) -> bool:
    """Whether a text holds a matrix of levels (not the one of ``topo -p2p``)."""
    return any(block.is_matrix() for block in blocks_from_text(head))


def read(content: bytes, *, where: str, host: HostName) -> tuple[NodeSnapshot, ...]:
    """The one node of a text; slots in the order of the columns.

    Raises:
        SourceError: no matrix, a cut one, or matrices of two machines; with the line.
    """
    text = content.decode("utf-8", errors="replace")
    matrix, levels = _one_machine(matrices_from_text(text, where=where), where)
    listed = _listed_gpus(text, matrix)
    gaps = Gaps(slots=len(matrix.gpus))
    names = (SectionName.LINKS, SectionName.NETWORK) if matrix.nics else (SectionName.LINKS,)
    wiring = _wiring(matrix, levels, listed, gaps)
    snapshot = NodeSnapshot(
        kind="node_snapshot",
        schema_version=SCHEMA_VERSION,
        host=host,
        gpus=tuple(_identity(i, listed.get(i), gaps) for i in range(len(matrix.gpus))),
        nics=tuple(NicIdentity(slot=i) for i in range(len(matrix.nics))),
        wiring=wiring,
        sections=tuple(Section(name=name, source=SOURCE) for name in names),
        absences=_with_what_no_matrix_has(matrix, names, gaps),
    )
    return (snapshot,)


def _one_machine(matrices: tuple[Matrix, ...], where: str) -> tuple[Matrix, Matrix]:
    """The matrix with the NVLinks, and the one that shows the most levels."""
    if not matrices:
        remedy = "give the output of nvidia-smi topo -m"
        raise SourceError("no matrix of GPUs in it", where=where, remedy=remedy)
    full = next((matrix for matrix in matrices if matrix.has_nvlinks), matrices[0])
    for other in matrices:
        if not other.is_plain_copy_of(full):
            raise SourceError(
                f"differs from the matrix at line {full.line}",
                where=where,
                field=f"line {other.line}",
                remedy="give each machine's matrix a file of its own",
            )
    return full, next((matrix for matrix in matrices if not matrix.has_nvlinks), full)


def _wiring(matrix: Matrix, levels: Matrix, listed: dict[int, _Listed], gaps: Gaps) -> Wiring:
    numa = [_numa(matrix, i, gaps) for i in range(len(matrix.gpus))]
    pairs = tuple(_pairs(levels, gaps))
    ports = _ports(matrix, listed, gaps)
    gpus = (
        GpuSlot(slot=i, product_name=_name(i, listed.get(i), gaps), numa=numa[i], ports=ports[i])
        for i in range(len(matrix.gpus))
    )
    return Wiring(
        numa_nodes=_numa_nodes(matrix, numa, gaps),
        gpus=tuple(gpus),
        nics=_nics(matrix, pairs, gaps),
        pcie_levels=pairs,
    )


def _ports(
    matrix: Matrix, listed: dict[int, _Listed], gaps: Gaps
) -> tuple[tuple[GpuPort, ...], ...]:
    links = [matrix.nvlinks(i) for i in range(len(matrix.gpus))]
    total = [len(listed[i].links) if i in listed else 0 for i in range(len(links))]
    has_switch = any(_shares_links(row, total[i]) for i, row in enumerate(links))
    is_sure = all(n or not row for n, row in zip(total, links, strict=True)) and len(links) > 2
    _note_open_ends(links, has_switch=has_switch, is_sure=is_sure, gaps=gaps)
    ports = [
        _gpu_ports(row, listed.get(i), i, has_switch=has_switch, gaps=gaps)
        for i, row in enumerate(links)
    ]
    return tuple(ports)


def _shares_links(row: dict[int, int], listed: int) -> bool:
    """Whether a row counts the same links for several peers. One peer never tells."""
    return len(row) > 1 and sum(row.values()) > (listed or MOST_NVLINKS_OF_A_GPU)


def _note_open_ends(
    links: list[dict[int, int]], *, has_switch: bool, is_sure: bool, gaps: Gaps
) -> None:
    counts = {count for row in links for count in row.values()}
    if not counts:
        detail = "no NV cell: no NVLinks, or topo -mp, which hides them"
        gaps.note("wiring.gpus[*].ports", detail=detail)
        return
    gaps.note("wiring.gpus[*].ports[*].version")
    linked = sum(1 for row in links if row)
    is_mesh = len(counts) == 1 and all(len(row) in (0, linked - 1) for row in links)
    if has_switch:
        gaps.note(
            "wiring.nvswitches",
            detail="a switch; the matrix tells neither how many nor whether inside the node",
        )
    elif not is_sure and is_mesh and min(counts) >= FEWEST_NVLINKS_BEHIND_A_SWITCH:
        detail = f"NV{min(counts)} between all {linked}: direct links or a switch; taken as direct"
        gaps.note("wiring.gpus[*].ports", AbsenceReason.UNDECODABLE, detail)


def _gpu_ports(
    row: dict[int, int], listed: _Listed | None, slot: int, *, has_switch: bool, gaps: Gaps
) -> tuple[GpuPort, ...]:
    if not row:
        return ()
    if has_switch:
        ends = [(_SWITCH, max(row.values()))]
    else:
        ends = [(PortEnd(kind=EndKind.GPU, index=peer), row[peer]) for peer in sorted(row)]
    rate = _rate(sum(count for _, count in ends), listed, slot, gaps)
    return tuple(GpuPort(count=count, end=end, bytes_per_s=rate) for end, count in ends)


def _rate(links: int, listed: _Listed | None, slot: int, gaps: Gaps) -> float | None:
    """Rate of one link where ``nvlink -s`` lists as many, all alike; else one cannot say whose."""
    path = "wiring.gpus[*].ports[*].bytes_per_s"
    rates = listed.rates if listed else []
    if len(rates) == links and len(set(rates)) == 1 and rates[0] > 0:
        return rates[0]
    if rates:
        distinct = ", ".join(f"{rate / 1e9:g}" for rate in sorted(set(rates)))
        detail = f"nvlink -s lists {len(rates)} links of {distinct} GB/s, the matrix {links}"
        gaps.note(path, AbsenceReason.UNDECODABLE, detail, slot=slot)
    else:
        gaps.note(path, slot=slot)
    return None


def _pairs(matrix: Matrix, gaps: Gaps) -> Iterator[DevicePair]:
    """Each pair with a PCIe level; where the two halves differ, the upper one is kept."""
    labels = matrix.labels
    for a in range(len(labels)):
        for b in range(a + 1, len(labels)):
            said = [matrix.cells.get((a, b)), matrix.cells.get((b, a))]
            cells = [cell for cell in said if cell is not None]
            level = _level(cells, f"wiring.pcie_levels[{labels[a]}-{labels[b]}]", gaps)
            if level is not None:
                yield DevicePair(a=labels[a], b=labels[b], level=level)
            if len({_same_word(cell) for cell in cells}) > 1:
                path = f"wiring.pcie_levels[{labels[b]}-{labels[a]}]"
                detail = f"{cells[1]}, but {cells[0]} the other way round, which is kept"
                gaps.note(path, AbsenceReason.UNDECODABLE, detail)


def _level(cells: list[str], path: str, gaps: Gaps) -> PcieLevel | None:
    if not cells:
        gaps.note(path, detail="neither of the two rows is there")
    elif cells[0] not in _LEVELS and not is_nvlink(cells[0]):
        reason = reason_from_text(cells[0]) or AbsenceReason.UNDECODABLE
        gaps.note(path, reason, cells[0])
    return _LEVELS.get(cells[0]) if cells else None


def _same_word(cell: str) -> str:
    """The cell, but one word for all counts of NVLinks, which the ports tell, and for old words."""
    return "NV" if is_nvlink(cell) else {"SOC": "SYS"}.get(cell, cell)


def _numa(matrix: Matrix, slot: int, gaps: Gaps) -> int | None:
    """A GPU's NUMA node, where the driver names just one."""
    path = "wiring.gpus[*].numa"
    fields = matrix.trailing[slot]
    if not any(fields):
        gaps.note(path, slot=slot)
    elif not matrix.has_numa:
        cpus = f"no column NUMA Affinity; CPU Affinity {fields[0]}"
        gaps.note(path, AbsenceReason.DRIVER_TOO_OLD, cpus, slot=slot)
    else:
        text = fields[1] if len(fields) > 1 else ""
        if re.fullmatch(r"[0-9]{1,9}|-1", text):
            return int(text)
        reason = reason_from_text(text) or AbsenceReason.UNDECODABLE
        detail = f"CPU Affinity {fields[0]}" if reason is AbsenceReason.UNSUPPORTED else text
        gaps.note(path, reason, detail or "an empty field", slot=slot)
    return None


def _numa_nodes(matrix: Matrix, numa: list[int | None], gaps: Gaps) -> tuple[NumaNode, ...]:
    nodes = []
    for number in sorted({n for n in numa if n is not None}):
        texts = {matrix.trailing[i][0] for i, n in enumerate(numa) if n == number}
        cpus = sorted(text for text in texts if re.fullmatch(r"[0-9][0-9,-]{0,1000}", text))
        if len(cpus) > 1:
            path = f"wiring.numa_nodes[{number}].cpu_affinity"
            gaps.note(path, AbsenceReason.UNDECODABLE, " or ".join(cpus))
        nodes.append(NumaNode(numa=number, cpu_affinity=cpus[0] if len(cpus) == 1 else None))
    return tuple(nodes)


def _nics(matrix: Matrix, pairs: tuple[DevicePair, ...], gaps: Gaps) -> tuple[NicSlot, ...]:
    near = {pair.b for pair in pairs if pair.a.startswith("gpu") and pair.level in _NEAR}
    rails = [i for i in range(len(matrix.nics)) if f"nic{i}" in near]
    return tuple(
        NicSlot(slot=i, ports=(_nic_port(i, name, rails, gaps),))
        for i, name in enumerate(matrix.nics)
    )


def _nic_port(slot: int, name: str | None, rails: list[int], gaps: Gaps) -> NicPort:
    """The port of a column.

    nvidia-smi lists RDMA devices, not ports. Port 1 is the one that every device has, and all
    there is where each port is a device of its own (mlx5); a second port of an mlx4 is not seen.
    """
    if name is None:
        detail = "a column without name, and no NIC legend"
        gaps.note(f"wiring.nics[{slot}].ports[1].name", AbsenceReason.UNDECODABLE, detail)
    rail = rails.index(slot) if slot in rails else None
    return NicPort(port=1, name=name, state=LinkState.UNREPORTED, rail=rail)


def _identity(slot: int, listed: _Listed | None, gaps: Gaps) -> GpuIdentity:
    uuid = gpu_uuid_from_text(listed.uuid) if listed else None
    if listed is None:
        gaps.note("gpus[*].uuid", slot=slot)
    elif uuid is None:
        gaps.note("gpus[*].uuid", AbsenceReason.UNDECODABLE, listed.uuid, slot=slot)
    return GpuIdentity(slot=slot, uuid=uuid)


def _name(slot: int, listed: _Listed | None, gaps: Gaps) -> str | None:
    name = plain_text(listed.name) if listed else None
    if name is None or reason_from_text(name):
        reason = (reason_from_text(name) if name else None) or AbsenceReason.NOT_ASKED
        gaps.note("wiring.gpus[*].product_name", reason, slot=slot)
        return None
    return name


def _listed_gpus(text: str, matrix: Matrix) -> dict[int, _Listed]:
    """GPUs by index from ``-L`` or ``nvlink -s``; none unless they are just the matrix's GPUs."""
    listed: dict[int, _Listed] = {}
    current: _Listed | None = None
    for line in clean_lines(text):
        gpu = _LISTED_GPU.search(line)
        link = _LISTED_LINK.search(line)
        if gpu:
            name = " ".join(gpu["name"].split())
            current = listed.setdefault(int(gpu["index"]), _Listed(name, gpu["uuid"], {}))
            if (current.name, current.uuid) != (name, gpu["uuid"]):
                return {}
        elif link and current:
            rate = float(round(float(link["rate"]) * 1e9)) if link["rate"] else None
            current.links[int(link["link"])] = rate
    uuids = [uuid for gpu in listed.values() if (uuid := gpu_uuid_from_text(gpu.uuid))]
    fits = [f"GPU{i}" for i in sorted(listed)] == list(matrix.gpus)
    return listed if fits and len(set(uuids)) == len(uuids) else {}


def _with_what_no_matrix_has(
    matrix: Matrix, names: tuple[SectionName, ...], gaps: Gaps
) -> tuple[Absence, ...]:
    for name in ("serial", "fabric"):
        gaps.note(f"gpus[*].{name}")
    for name in _NOT_IN_A_MATRIX:
        gaps.note(f"wiring.gpus[*].{name}")
    if matrix.nics:
        for path in ("nics[*].guid", *(f"wiring.nics[*].{name}" for name in _NOT_OF_A_NIC)):
            gaps.note(path)
    else:
        gaps.note("wiring.nics", detail="no NIC columns; not every NIC gets one (EFA has none)")
    for path in ("versions", "allocations"):
        gaps.note(path)
    for name in names:
        gaps.note(f"sections[{name}/{SOURCE}].collected_at")
    return gaps.absences()

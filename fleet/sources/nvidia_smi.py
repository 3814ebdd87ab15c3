"""nvidia-smi -q -x: the driver's XML of one node's GPUs, their memory, PCIe, fabric and users.

Not in it: NVLinks, NICs, the host's name, and the zone of its time.
"""

import re
from collections.abc import Callable
from typing import Final, TypeVar

from fleet.errors import SourceError
from fleet.fields import AbsenceReason, HostName
from fleet.model import (
    SCHEMA_VERSION,
    Allocation,
    FabricState,
    GpuIdentity,
    NodeSnapshot,
    NvlinkFabric,
    Section,
    SectionName,
    SoftwareVersions,
)
from fleet.sources.nvidia_smi_values import (
    LONGEST_TEXT,
    Gaps,
    count_from_text,
    gpu_uuid_from_text,
    plain_text,
    reason_from_text,
    serial_from_text,
    text_of,
    uuid_from_text,
)
from fleet.sources.pci import pci_address_from_text
from fleet.sources.xml_tree import Element, parse_xml
from fleet.units import bytes_from_text
from fleet.wiring import GpuSlot, Wiring

SOURCE: Final = "nvidia_smi"

FIRST_DRIVER_WITH_CUDA_VERSION: Final = 410
FIRST_DRIVER_WITH_FABRIC: Final = 525

_DEVICES: Final = Section(name=SectionName.DEVICES, source=SOURCE)
_USE: Final = Section(name=SectionName.USE, source=SOURCE)

T = TypeVar("T")


def recognises(head: str) -> bool:
    """Whether a text is XML whose root is ``nvidia_smi_log``."""
    return _root_tag(head) == "nvidia_smi_log"


def read(content: bytes, *, where: str, host: HostName) -> tuple[NodeSnapshot, ...]:
    """The one node of a file; slots in the order of the document, which is the driver's.

    Raises:
        SourceError: no such XML, or it lists nothing and does not say that there is nothing.
    """
    root = _root(content, where)
    elements = root.all("gpu")
    gaps = Gaps(slots=len(elements))
    versions = _versions(root, gaps)
    gpus = tuple(_identity(gpu, i, versions, gaps) for i, gpu in enumerate(elements))
    wiring = Wiring(gpus=tuple(_slot(gpu, i, gaps) for i, gpu in enumerate(elements)))
    allocations = _allocations(elements, gaps)
    sections = (_DEVICES,) if allocations is None else (_DEVICES, _USE)
    _note_what_the_file_lacks(root, sections, gaps)
    snapshot = NodeSnapshot(
        kind="node_snapshot",
        schema_version=SCHEMA_VERSION,
        host=host,
        gpus=_each_uuid_once(gpus, gaps),
        versions=versions,
        chassis_serial=_common(elements, "chassis_serial_number", serial_from_text, gaps),
        tray=_common(elements, "tray_index", count_from_text, gaps),
        allocations=allocations,
        wiring=wiring,
        sections=sections,
        absences=gaps.absences(),
    )
    return (snapshot,)


def _root_tag(head: str) -> str | None:
    """Tag of the first element. No regular expression: comments would make it slow on purpose."""
    at = head.find("<")
    if head[: max(at, 0)].strip("\ufeff \t\r\n"):
        return None
    while at >= 0:
        if head.startswith("<!--", at):
            at = head.find("-->", at)
        elif head[at + 1 : at + 2] not in ("!", "?"):
            match = re.match(r"[\w.-]{1,64}", head[at + 1 : at + 66])
            return match[0] if match else None
        at = head.find("<", at + 1) if at >= 0 else at
    return None


def _root(content: bytes, where: str) -> Element:
    root = parse_xml(content, where=where)
    attached = text_of(root.find("attached_gpus"))
    if root.tag == "nvidia_smi_log" and (root.find("gpu") or attached is not None):
        return root
    problem = "lists no <gpu>" if root.tag == "nvidia_smi_log" else f"the root is <{root.tag}>"
    raise SourceError(
        problem, where=where, field=f"line {root.line}", remedy="write it with nvidia-smi -q -x"
    )


def _versions(root: Element, gaps: Gaps) -> SoftwareVersions:
    driver = gaps.value("versions.driver", root.find("driver_version"), _version_text)
    before_cuda = _is_older(driver, FIRST_DRIVER_WITH_CUDA_VERSION)
    return SoftwareVersions(
        driver=driver,
        cuda=gaps.value(
            "versions.cuda",
            root.find("cuda_version"),
            _version_text,
            missing=AbsenceReason.DRIVER_TOO_OLD if before_cuda else AbsenceReason.NOT_ASKED,
        ),
    )


def _version_text(text: str) -> str | None:
    return text if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})*", text) else None


def _is_older(driver: str | None, major: int) -> bool:
    return driver is not None and int(driver.partition(".")[0]) < major


def _identity(gpu: Element, slot: int, versions: SoftwareVersions, gaps: Gaps) -> GpuIdentity:
    vbios = text_of(gpu.find("vbios_version"))
    return GpuIdentity(
        slot=slot,
        uuid=gaps.value("gpus[*].uuid", gpu.find("uuid"), gpu_uuid_from_text, slot=slot),
        serial=gaps.value("gpus[*].serial", gpu.find("serial"), serial_from_text, slot=slot),
        vbios=vbios if vbios and re.fullmatch(r"[0-9A-Fa-f.]{1,64}", vbios) else None,
        fabric=_fabric(gpu.find("fabric"), slot, versions.driver, gaps),
    )


def _each_uuid_once(gpus: tuple[GpuIdentity, ...], gaps: Gaps) -> tuple[GpuIdentity, ...]:
    """Whoever puts one text over every UUID leaves none that tells a GPU from another."""
    first: dict[str, int] = {}
    kept = []
    for gpu in gpus:
        before = first.setdefault(gpu.uuid, gpu.slot) if gpu.uuid else gpu.slot
        if before != gpu.slot:
            detail = f"{gpu.uuid}, which is gpu {before}"
            gaps.note("gpus[*].uuid", AbsenceReason.UNDECODABLE, detail, slot=gpu.slot)
        kept.append(gpu if before == gpu.slot else gpu.model_copy(update={"uuid": None}))
    return tuple(kept)


def _fabric(
    element: Element | None, slot: int, driver: str | None, gaps: Gaps
) -> NvlinkFabric | None:
    if element is None:
        too_old = _is_older(driver, FIRST_DRIVER_WITH_FABRIC)
        reason = AbsenceReason.DRIVER_TOO_OLD if too_old else AbsenceReason.NOT_ASKED
        gaps.note("gpus[*].fabric", reason, slot=slot)
        return None
    state = element.find("state") or element
    match (text_of(state) or "").strip("[]").lower():
        case "n/a" | "not supported":
            return NvlinkFabric(state=FabricState.UNSUPPORTED)
        case "in progress" | "not started":
            return NvlinkFabric(state=FabricState.FORMING)
        case "completed":
            return _completed_fabric(element, slot, gaps)
    gaps.value("gpus[*].fabric", state, _nothing, slot=slot)
    return None


def _nothing(_text: str) -> None:
    """Decode a text that none of the known ones is."""


def _completed_fabric(element: Element, slot: int, gaps: Gaps) -> NvlinkFabric | None:
    """A fabric that the driver calls complete: one cluster uuid for a domain, zeros for one node.

    The driver fills ``status`` with the text of an error code, so every text but success is one.
    """
    status, cluster, clique = (
        text_of(element.find(tag)) for tag in ("status", "clusterUuid", "cliqueId")
    )
    said = f"Completed, status {status}, cluster {cluster}, clique {clique}"
    if (status or "N/A").strip("[]").lower() != "n/a":
        if status != "Success":
            return NvlinkFabric(state=FabricState.BROKEN)
        if cluster is None or reason_from_text(cluster) or not cluster.strip("0-"):
            return NvlinkFabric(state=FabricState.SINGLE_NODE)
        uuid, number = uuid_from_text(cluster), count_from_text(clique or "")
        # A domain without its clique would join nodes that the driver keeps apart.
        if uuid is not None and number is not None:
            return NvlinkFabric(state=FabricState.DOMAIN, cluster_uuid=uuid, clique=number)
    gaps.note("gpus[*].fabric", AbsenceReason.UNDECODABLE, said, slot=slot)
    return None


def _slot(gpu: Element, slot: int, gaps: Gaps) -> GpuSlot:
    def value(name: str, element: Element | None, decode: Callable[[str], T | None]) -> T | None:
        return gaps.value(f"wiring.gpus[*].{name}", element, decode, slot=slot)

    width = gpu.find("pci", "pci_gpu_link_info", "link_widths", "current_link_width")
    return GpuSlot(
        slot=slot,
        product_name=value("product_name", gpu.find("product_name"), plain_text),
        # No schema up to v13 has it; the name is that of nvidia-smi's tables.
        compute_capability=value("compute_capability", gpu.find("compute_cap"), _capability),
        memory_bytes=value("memory_bytes", gpu.find("fb_memory_usage", "total"), _memory_bytes),
        pci_address=value("pci_address", _address(gpu), pci_address_from_text),
        module_id=count_from_text(text_of(_module(gpu)) or ""),
        numa=value("numa", None, count_from_text),
        pcie_generation=_pcie_generation(gpu, slot, gaps),
        # Idle GPUs lower their generation, not their width: the current width is the slot's.
        pcie_width=value("pcie_width", width, _width),
    )


def _capability(text: str) -> str | None:
    return text if re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,2}", text) else None


def _memory_bytes(text: str) -> int | None:
    return bytes_from_text(text) or None if re.fullmatch(r"[0-9]{1,9} ?[KMGT]iB", text) else None


def _width(text: str) -> int | None:
    match = re.fullmatch(r"([0-9]{1,2})x", text)
    return int(match[1]) or None if match else None


def _address(gpu: Element) -> Element | None:
    reported = gpu.get("id")
    if reported is not None:
        return Element("id", {}, gpu.line, text=reported)
    return gpu.find("pci", "pci_bus_id")


def _module(gpu: Element) -> Element | None:
    """The module's number: drivers from 570 on print it below ``platformInfo``."""
    return gpu.find("gpu_module_id") or gpu.find("platformInfo", "module_id")


def _pcie_generation(gpu: Element, slot: int, gaps: Gaps) -> int | None:
    """The best that GPU and slot can do together: the lowest of the maxima that are reported."""
    path = "wiring.gpus[*].pcie_generation"
    link = gpu.find("pci", "pci_gpu_link_info", "pcie_gen") or Element("pcie_gen", {}, gpu.line)
    tags = ("max_link_gen", "max_device_link_gen", "max_host_link_gen")
    maxima = [count_from_text(text_of(link.find(tag)) or "") for tag in tags]
    lowest = min((generation for generation in maxima if generation), default=None)
    if lowest is None:
        gaps.value(path, link.find(tags[0]), _nothing, slot=slot)
    return lowest


def _allocations(gpus: list[Element], gaps: Gaps) -> tuple[Allocation, ...] | None:
    """Who computes on which GPUs; None if one GPU does not tell, for it would seem free."""
    slots: dict[str, set[int]] = {}
    names: dict[str, str] = {}
    for slot, gpu in enumerate(gpus):
        processes = gpu.find("processes")
        if not _tells_processes(processes, slot, gaps):
            return None
        for process in processes.all("process_info") if processes else ():
            kind = gaps.value("allocations", process.find("type"), _kind_of_process)
            if kind is None:
                return None
            if kind == "compute":
                key, holder = _holder(process)
                names.setdefault(key, holder)
                slots.setdefault(key, set()).add(slot)
    return tuple(Allocation(holder=names[key], slots=tuple(sorted(slots[key]))) for key in slots)


def _tells_processes(processes: Element | None, slot: int, gaps: Gaps) -> bool:
    if processes is not None and (text_of(processes) in ("", "None") or processes.children):
        return True
    reason = reason_from_text(text_of(processes) or "N/A") or AbsenceReason.UNDECODABLE
    if processes is None:
        reason = AbsenceReason.NOT_ASKED
    gaps.note("allocations", reason, f"no processes of gpu {slot}")
    return False


def _kind_of_process(text: str) -> str | None:
    """Compute (C), also beside graphics (C+G) or under MPS (M+C), or graphics alone."""
    kinds = set(text.split("+"))
    if not kinds or not kinds <= {"C", "G", "M"}:
        return None
    return "graphics" if kinds == {"G"} else "compute"


def _holder(process: Element) -> tuple[str, str]:
    """What tells a process from others, and its name for people."""
    pid = count_from_text(text_of(process.find("pid")) or "")
    name = text_of(process.find("process_name")) or ""
    name = "" if reason_from_text(name) or name in ("-", "[Not Found]") else name
    holder = " ".join(part for part in ("" if pid is None else f"pid {pid}", name) if part)
    holder = holder[:LONGEST_TEXT].strip() or "a process without pid and name"
    return (holder if pid is None else str(pid)), holder


def _common(
    gpus: list[Element], tag: str, decode: Callable[[str], T | None], gaps: Gaps
) -> T | None:
    """What ``platformInfo`` says of the chassis, if its GPUs agree; lost ones say nothing."""
    texts = {text_of(gpu.find("platformInfo", tag)) for gpu in gpus} - {None}
    values = {value for text in texts if text and (value := decode(text)) is not None}
    if len(values) > 1:
        path = {"chassis_serial_number": "chassis_serial", "tray_index": "tray"}[tag]
        detail = " and ".join(sorted(str(value) for value in values))
        gaps.note(path, AbsenceReason.UNDECODABLE, detail)
    return values.pop() if len(values) == 1 else None


def _note_what_the_file_lacks(root: Element, sections: tuple[Section, ...], gaps: Gaps) -> None:
    timestamp = text_of(root.find("timestamp"))
    # Local time of an unknown zone: half a day either way, so no moment at all.
    reason = AbsenceReason.UNDECODABLE if timestamp else AbsenceReason.NOT_ASKED
    for section in sections:
        gaps.note(f"sections[{section.key}].collected_at", reason, timestamp)
    if gaps.slots:
        gaps.note("wiring.gpus[*].ports", detail="nvidia-smi -q -x lists no NVLinks")
    attached = count_from_text(text_of(root.find("attached_gpus")) or "")
    if attached not in (None, gaps.slots):
        # nvidia-smi -i lists the GPUs asked for and still counts all. A GPU that fell off the bus
        # is listed with its fields lost. So the others were not asked for, nothing says worse.
        few = AbsenceReason.NOT_ASKED if gaps.slots < attached else AbsenceReason.UNDECODABLE
        gaps.note("wiring.gpus", few, f"attached_gpus says {attached}, {gaps.slots} listed")

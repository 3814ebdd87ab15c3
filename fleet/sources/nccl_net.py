"""Places of an NCCL topology (NUMA nodes, PCIe devices) and the NICs there. No tree, no GPU.

What NCCL writes in a ``<net>``, and what is made of it:

``guid``
    The adapter's system image GUID, as a number: one for all of its functions. On little-endian
    hosts its bytes stand in the opposite order of ibstat's; see ``guid_in_ibstat_order``. Socket
    NICs have a counter there.
``port``
    From 1 for verbs devices: NCCL folds the PCI functions of an adapter into function 0 and
    numbers their ports on. Sockets have 0. The model wants a number, so a row that tells none
    gets the lowest that is free on its NIC: 1 where the NIC has one port.
``speed``
    Mb/s of the port, except from the plugin for Slingshot; see ``_rate``.
rail
    Not written. The ports that speak InfiniBand, RoCE, EFA or Slingshot, at the commonest rate
    among them (the higher where two are equally common), are numbered from 0 in slot order. A
    storage or management port, of another rate or layer, has no rail.

NCCL lists only ports that are up.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from fleet.fields import Absence, AbsenceReason, PciAddress
from fleet.sources.pci import guid_from_text, pci_address_from_text
from fleet.sources.xml_tree import Element
from fleet.units import bytes_per_s_from_mbit
from fleet.wiring import LinkLayer, NicPort, NicSlot, NumaNode, PcieBridge

SLOWEST_MBIT_PER_S: Final = 10
FASTEST_MBIT_PER_S: Final = 10_000_000
COMPUTE_LAYERS: Final = frozenset(
    {LinkLayer.INFINIBAND, LinkLayer.ROCE, LinkLayer.EFA, LinkLayer.SLINGSHOT}
)

_CASSINI: Final = "17db:0501"
_PCIE_GENERATIONS: Final = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}
_LINK_SPEED: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?) GT/s(?: PCIe)?")
_INTEGER: Final = re.compile(r"-?(?:0[xX][0-9a-fA-F]{1,8}|[0-9]{1,12})")
_NOTHING: Final = re.compile(r"|\[?N/A\]?|None|<<<NULL>>>|Not Supported", re.IGNORECASE)
_MASK: Final = re.compile(r"[0-9a-fA-F]{1,8}(?:,[0-9a-fA-F]{1,8}){0,255}")
_LONGEST_TEXT: Final = 1024
_VERBS_NAME: Final = re.compile(r"mlx[45]_")
_MARKED_GUID: Final = re.compile(r"[0-9a-f]{6}(?:030[0-9a-f]|fff[ed])[0-9a-f]{6}")


def text_of(element: Element | None, name: str) -> str | None:
    """An attribute's text, None where it is missing, empty or a spelling of nothing."""
    text = "" if element is None else element.attributes.get(name, "").strip()
    return None if _NOTHING.fullmatch(text) else text


def integer_of(element: Element | None, name: str) -> int | None:
    """An attribute's whole number, decimal or ``0x`` as NCCL reads it; None where it is none."""
    text = text_of(element, name) or ""
    return int(text, 16 if "x" in text.lower() else 10) if _INTEGER.fullmatch(text) else None


def code_of(element: Element | None, name: str) -> str:
    """A PCI class, vendor or device in lower case without ``0x``; empty where it is not told."""
    return (text_of(element, name) or "").lower().removeprefix("0x")


def gap(path: str, element: Element | None, name: str) -> Absence:
    """Why an attribute gives no value: not written, written as nothing, or not understood."""
    text = None if element is None else element.attributes.get(name)
    if text is None:
        return not_asked(path)
    is_nothing = not (text_of(element, name) or "").strip("0,")
    reason = AbsenceReason.UNSUPPORTED if is_nothing else AbsenceReason.UNDECODABLE
    return Absence(path=path, reason=reason, detail=f"{name}={text[:80]!r}")


def not_asked(path: str, detail: str | None = None) -> Absence:
    """What the format has no place for, or this file leaves out."""
    return Absence(path=path, reason=AbsenceReason.NOT_ASKED, detail=detail)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device is plugged: its ``<pci>``, NUMA node and the bridge above.

    ``rows`` are what stands there, its ``<gpu>`` or ``<net>`` elements (none in a template).
    ``pci`` None: a NIC that is no one PCI device, an interface of software or several fused.
    """

    pci: Element | None
    numa: int | None
    bridge: int | None
    rows: tuple[Element, ...] = ()

    @property
    def class_code(self) -> str:
        """PCI class as six digits, empty where it is not told."""
        return code_of(self.pci, "class")

    @property
    def vendor(self) -> str:
        """PCI vendor as four digits, empty where it is not told (templates write ffff, 0000)."""
        vendor = code_of(self.pci, "vendor")
        return "" if vendor in {"ffff", "0000"} else vendor

    @property
    def vendor_device(self) -> str | None:
        """Vendor and device as lspci writes them, ``15b3:1021``."""
        device = code_of(self.pci, "device")
        return f"{self.vendor}:{device}" if self.vendor and device else None

    @property
    def address(self) -> PciAddress | None:
        """PCI address, None where it is hidden or there is no PCI device."""
        return pci_address_from_text(text_of(self.pci, "busid") or "")

    @property
    def dev(self) -> int | None:
        """NCCL's own number of the device, the lowest where several rows stand here."""
        devs = (integer_of(row, "dev") for row in self.rows)
        return min((dev for dev in devs if dev is not None), default=None)

    @property
    def pcie_generation(self) -> int | None:
        """PCIe generation from a rate such as ``16.0 GT/s PCIe`` or ``16 GT/s``."""
        match = _LINK_SPEED.fullmatch(text_of(self.pci, "link_speed") or "")
        return _PCIE_GENERATIONS.get(float(match[1])) if match else None

    @property
    def pcie_width(self) -> int | None:
        """Lanes of the PCIe link; the 0 of a virtual device is none."""
        width = integer_of(self.pci, "link_width")
        return width if width is not None and width > 0 else None

    def as_bridge(self, number: int) -> PcieBridge:
        """The device as a bridge of the model."""
        return PcieBridge(
            bridge=number,
            parent=self.bridge,
            numa=self.numa,
            pci_address=self.address,
            vendor_device=self.vendor_device,
            pcie_generation=self.pcie_generation,
            pcie_width=self.pcie_width,
        )


def numa_node(cpu: Element, numa: int) -> NumaNode:
    """What a ``<cpu>`` tells of a NUMA node."""
    return NumaNode(
        numa=numa,
        architecture=text_of(cpu, "arch"),
        vendor=text_of(cpu, "vendor"),
        family=text_of(cpu, "familyid"),
        model=text_of(cpu, "modelid"),
        cpu_affinity=_cpu_list(text_of(cpu, "affinity") or ""),
    )


def _cpu_list(mask: str) -> str | None:
    """CPUs as ranges, from groups of 32 bits with the most significant first; None if it is none.

    >>> _cpu_list("ff000000,000000ff"), _cpu_list("0005"), _cpu_list("all")
    ('0-7,56-63', '0,2', None)
    """
    if not _MASK.fullmatch(mask):
        return None
    bits = 0
    for group in mask.split(","):
        bits = bits << 32 | int(group, 16)
    runs = [run.span() for run in re.finditer("1+", f"{bits:b}"[::-1])]
    text = ",".join(f"{a}" if b - a == 1 else f"{a}-{b - 1}" for a, b in runs)
    return text if 0 < len(text) <= _LONGEST_TEXT else None


def in_driver_order(places: list[Place]) -> list[Place]:
    """Places in the order of their ``dev``; as they stand where one has none or it repeats."""
    by_dev = {place.dev: place for place in places if place.dev is not None}
    return [by_dev[dev] for dev in sorted(by_dev)] if len(by_dev) == len(places) else places


def adapters_at(place: Place) -> list[Place]:
    """One place for each adapter: the rows of one GUID together, each row once.

    Rows without a GUID are one adapter where they stand in one PCI device; elsewhere each is an
    interface of its own. A PCI device without rows, in a template, is an adapter all the same.
    """
    by_adapter: dict[str, list[Element]] = {}
    for row in {row_key(row): row for row in place.rows}.values():
        own = "" if place.pci is not None else f"{row.get('guid')} {row.get('name')}"
        by_adapter.setdefault(guid_from_text(row.get("guid") or "") or own, []).append(row)
    return [replace(place, rows=tuple(rows)) for rows in by_adapter.values()] or [place]


def row_key(row: Element) -> tuple[str | None, ...]:
    """What makes two ``<net>`` rows of a host one: NCCL repeats bridges below every CPU."""
    return tuple(row.get(name) for name in ("guid", "port", "name"))


def nic_slots(places: Sequence[Place]) -> tuple[NicSlot, ...]:
    """The NICs of one host in slot order, with rails."""
    return _with_rails(
        [
            NicSlot(
                slot=slot,
                vendor_device=place.vendor_device,
                pci_address=place.address,
                numa=place.numa,
                bridge=place.bridge,
                pcie_generation=place.pcie_generation,
                pcie_width=place.pcie_width,
                ports=_ports(place),
            )
            for slot, place in enumerate(places)
        ]
    )


def nic_gaps(place: Place, nic: NicSlot) -> Iterator[Absence]:
    """What the topology does not tell of a NIC, by path from the NIC."""
    if nic.pci_address is None:
        yield gap("pci_address", place.pci, "busid")
    if nic.numa is None:
        yield not_asked("numa", "no PCI device, so NCCL hangs it below any CPU")
    if not place.rows:
        yield not_asked("ports", "a template, which has no <net>")
    for row, port in zip(place.rows, nic.ports, strict=True):
        if port.name is None:
            yield gap(f"ports[{port.port}].name", row, "name")
        if port.bytes_per_s is None:
            yield gap(f"ports[{port.port}].bytes_per_s", row, "speed")


def guid_of(place: Place) -> str | None:
    """GUID of the adapter at a place; None for socket NICs, redacted ones and in templates."""
    guid = guid_from_text((place.rows[0].get("guid") or "") if place.rows else "")
    return guid and guid_in_ibstat_order(guid)


def guid_gaps(place: Place) -> Iterator[Absence]:
    """Why the adapter at a place has no GUID, if it has none."""
    row = place.rows[0] if place.rows else None
    if guid_of(place) is not None:
        return
    if integer_of(row, "guid") is None:
        yield gap("guid", row, "guid")
    else:
        detail = "a counter, as NCCL gives to socket NICs"
        yield Absence(path="guid", reason=AbsenceReason.UNSUPPORTED, detail=detail)


def guid_in_ibstat_order(guid: str) -> str:
    """A GUID with the maker's OUI first, as ibstat and ibnetdiscover print it.

    Between OUI and serial number Mellanox writes 03 and a small index, others ff fe (a MAC as
    EUI-64; Azure's virtual functions ff fd). Where that mark fits only backwards the bytes are
    turned. Where it fits both ways, the way with a maker's OUI (neither group nor local bit) is
    taken. A GUID without the mark stays as printed: nothing tells its order.

    >>> guid_in_ibstat_order("9a70500003ae6d94"), guid_in_ibstat_order("b8599f030007053a")
    ('946dae030050709a', 'b8599f030007053a')
    """
    turned = bytes.fromhex(guid)[::-1].hex()
    marked = [text for text in (guid, turned) if _MARKED_GUID.fullmatch(text)]
    if len(marked) == 2:
        marked = [text for text in marked if int(text[:2], 16) & 0b11 == 0]
    return marked[0] if len(marked) == 1 else guid


def _ports(place: Place) -> tuple[NicPort, ...]:
    return tuple(
        NicPort(
            port=number,
            name=text_of(row, "name"),
            link_layer=_link_layer(place, text_of(row, "name") or ""),
            bytes_per_s=_rate(row),
        )
        for row, number in zip(place.rows, _port_numbers(place.rows), strict=True)
    )


def _port_numbers(rows: Sequence[Element]) -> list[int]:
    told = [integer_of(row, "port") or 0 for row in rows]
    taken = set(told)
    free = (number for number in count(1) if number not in taken)
    numbers: dict[int, None] = {}
    for number in told:
        numbers[number if number > 0 and number not in numbers else next(free)] = None
    return list(numbers)


def _link_layer(place: Place, name: str) -> LinkLayer:
    """What a port speaks, from PCI class, maker and name.

    A name such as ``mlx5_0`` is that of a verbs device: on class Ethernet that is RoCE. As a
    socket the same port has the name of an interface, and is Ethernet.
    """
    if name.startswith("cxi") or place.vendor_device == _CASSINI:
        return LinkLayer.SLINGSHOT
    if place.class_code.startswith("0207"):
        return LinkLayer.INFINIBAND
    if not place.class_code.startswith("0200"):
        return LinkLayer.UNREPORTED
    if (place.vendor_device or "").startswith("1d0f:efa"):
        return LinkLayer.EFA
    if place.vendor in {"15b3", ""} and _VERBS_NAME.match(name):
        return LinkLayer.ROCE
    return LinkLayer.ETHERNET


def _rate(row: Element) -> float | None:
    """Rate of a port. [B/s]

    No port runs at 10 Tb/s: a larger figure is that of the plugin for Slingshot, a factor 1000
    too large (200000000 for 200 Gb/s). No link runs below 10 Mb/s: a smaller figure is none.
    """
    mbit_per_s: float = integer_of(row, "speed") or 0
    if mbit_per_s > FASTEST_MBIT_PER_S:
        mbit_per_s /= 1000
    if not SLOWEST_MBIT_PER_S <= mbit_per_s <= FASTEST_MBIT_PER_S:
        return None
    return bytes_per_s_from_mbit(mbit_per_s)


def _with_rails(nics: list[NicSlot]) -> tuple[NicSlot, ...]:
    compute = [port for nic in nics for port in nic.ports if port.link_layer in COMPUTE_LAYERS]
    rates = Counter(port.bytes_per_s for port in compute)
    rail_rate = max(rates, key=lambda rate: (rates[rate], rate or 0), default=None)
    rails = count()

    def railed(port: NicPort) -> NicPort:
        is_rail = port.link_layer in COMPUTE_LAYERS and port.bytes_per_s == rail_rate
        return port.model_copy(update={"rail": next(rails)}) if is_rail else port

    return tuple(
        nic.model_copy(update={"ports": tuple(railed(port) for port in nic.ports)}) for nic in nics
    )

"""NICs as the kernel lists them: which there are, their ports, GUIDs and rails. No PCI tree.

An adapter is a PCI function with what the kernel made of it: RDMA devices (``mlx5_0``), else
network interfaces (``eno1``), else nothing yet (no driver). Left out: virtual functions of this
host, which are parts of an adapter, and what is only software (bonds, bridges, soft RoCE).

Rails. The ports that speak InfiniBand, RoCE, EFA or Slingshot, of the adapters that share a PCIe
switch with a GPU (of all, where none does or the tree is a guest's): of these the commonest layer
and rate among the ports that are up, numbered from 0 in slot order. A port of another rate or one
that is down is counted where its card is of the same make and board as one of these, so that a bad
cable does not shift the rails of its neighbours. A storage or management port has no rail.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from fleet.fields import AbsenceReason, PciAddress
from fleet.naming import natural_key
from fleet.sources.nccl_net import COMPUTE_LAYERS, FASTEST_MBIT_PER_S, SLOWEST_MBIT_PER_S
from fleet.sources.nvml_answers import Missing, then
from fleet.sources.pci import guid_from_text, pci_address_from_text
from fleet.sources.sysfs_files import CXI, INFINIBAND, NET, PCI, KernelFiles, undecodable
from fleet.sources.sysfs_pci import PciFunction, PciTree, way_up
from fleet.units import bytes_per_s_from_mbit
from fleet.wiring import LinkLayer, LinkState, PcieLevel

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@+-]{0,63}")
_PORT: Final = re.compile(r"[0-9]{1,3}")
_RATE: Final = re.compile(r"([0-9]{1,5}(?:\.[0-9]{1,2})?) Gb/sec(?: \([0-9A-Za-z ]{1,20}\))?")
_STATE: Final = re.compile(r"[0-9]: ([A-Za-z][A-Za-z_ ]{0,39})")
_GUID: Final = re.compile(r"[0-9a-f]{4}(?::[0-9a-f]{4}){3}")
_ON_USB: Final = re.compile(r"/usb[0-9]+/")
_SOFTWARE: Final = "/virtual/"
_CASSINI: Final = "17db:0501"
_EFA: Final = "1d0f:efa"
_EFA_NAME: Final = re.compile(r"(?:efa_|rdmap)[0-9].*")
_LAYERS: Final = {"InfiniBand": LinkLayer.INFINIBAND, "Ethernet": LinkLayer.ROCE}
_INTERFACE_LAYERS: Final = {1: LinkLayer.ETHERNET, 32: LinkLayer.INFINIBAND}
"""By ARPHRD type of linux/if_arp.h."""
_INTERFACE_STATES: Final = {
    "up": LinkState.UP,
    "down": LinkState.DOWN,
    "lowerlayerdown": LinkState.DOWN,
    "notpresent": LinkState.DOWN,
    "dormant": LinkState.DOWN,
    "testing": LinkState.DOWN,
}
_NEAR: Final = (PcieLevel.PIX, PcieLevel.PXB)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A NIC or HCA: where it is plugged, and the names the kernel gave to what it made of it."""

    address: PciAddress | Missing
    function: PciFunction | Missing
    hcas: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    cxi: str | None = None

    @property
    def vendor_device(self) -> str | None:
        """Vendor and device as lspci writes them, ``15b3:1021``."""
        return None if isinstance(self.function, Missing) else self.function.vendor_device


@dataclass(frozen=True, slots=True)
class Port:
    """A port of an adapter; rate in bytes per second. ``board`` is the maker's number of the card.

    States are the kernel's words.
    """

    number: int
    name: str
    layer: LinkLayer
    state: LinkState | Missing
    bytes_per_s: float | Missing
    logical: str | Missing
    physical: str | Missing
    firmware: str | Missing
    link_downs: int | Missing
    board: str | None = None
    rail: int | None = None

    @property
    def is_up(self) -> bool:
        """Whether traffic can flow."""
        return self.state is LinkState.UP


def adapters_of(files: KernelFiles, tree: PciTree) -> list[Adapter]:
    """The adapters of a node in the order of their PCI addresses; those without come last."""
    hcas, interfaces = _by_place(files, INFINIBAND), _by_place(files, NET)
    cxis = _by_place(files, CXI)
    controllers = [f.address for f in tree.functions.values() if f.is_network]
    places = dict.fromkeys([*controllers, *hcas, *interfaces, *cxis])
    found = [
        Adapter(
            address=_address(files, place, interfaces.get(place, ())),
            function=_function(files, place, tree),
            hcas=tuple(hcas.get(place, ())),
            interfaces=tuple(interfaces.get(place, ())),
            cxi=next(iter(cxis.get(place, ())), None),
        )
        for place in places
    ]
    return sorted(found, key=_order)


def ports_by_adapter(
    files: KernelFiles, adapters: Sequence[Adapter], tree: PciTree
) -> list[tuple[Port, ...]]:
    """The ports of each adapter, with rails."""
    ports = [tuple(_ports(files, adapter)) for adapter in adapters]
    return _with_rails(adapters, ports, tree)


def rdma_port_count(files: KernelFiles) -> int:
    """Ports of all RDMA devices together."""
    hcas = files.names(INFINIBAND, _NAME)
    return sum(files.count(f"{INFINIBAND}/{hca}/ports") for hca in hcas)


def guid_of(files: KernelFiles, adapter: Adapter) -> str | Missing:
    """Node GUID of an adapter's first RDMA device, as 16 hexadecimal digits."""
    if not adapter.hcas:
        return Missing(AbsenceReason.UNSUPPORTED, "no RDMA device, which would have a GUID")
    path = f"{INFINIBAND}/{adapter.hcas[0]}/node_guid"
    text = files.text(path)
    if isinstance(text, Missing):
        return text
    guid = guid_from_text(text) if _GUID.fullmatch(text) else None
    return guid or undecodable(path, text)


def _by_place(files: KernelFiles, folder: str) -> dict[str, list[str]]:
    """Names of a class's devices by PCI address, or by name where that is not told."""
    places: dict[str, list[str]] = defaultdict(list)
    for name in sorted(files.names(folder, _NAME), key=natural_key):
        path = f"{folder}/{name}"
        target = files.links.get(path, "")
        is_virtual_function = f"{path}/device/physfn" in files.links
        is_interface_of_software = folder == NET and f"{path}/device" not in files.links
        is_own = not (is_virtual_function or is_interface_of_software)
        if is_own and _SOFTWARE not in target:
            places[_pci_address(files, path) or f"{folder}/{name}"].append(name)
    return places


def _pci_address(files: KernelFiles, path: str) -> PciAddress | None:
    """Address of the PCI function that a class's device belongs to; none for one on USB."""
    for target in (files.links.get(path, ""), files.links.get(f"{path}/device", "")):
        _, steps = way_up(target)
        if steps:
            return None if _ON_USB.search(target) else pci_address_from_text(steps[-1])
    return None


def _address(files: KernelFiles, place: str, interfaces: Sequence[str]) -> PciAddress | Missing:
    address = pci_address_from_text(place)
    if address is not None:
        return address
    on_usb = any(_ON_USB.search(files.links.get(f"{NET}/{name}", "")) for name in interfaces)
    detail = "on USB" if on_usb else "no link to a PCI device"
    return Missing(AbsenceReason.UNSUPPORTED, detail)


def _function(files: KernelFiles, place: str, tree: PciTree) -> PciFunction | Missing:
    address = pci_address_from_text(place)
    if address is None:
        return Missing(AbsenceReason.UNSUPPORTED, "its PCI device is not told")
    known = tree.functions.get(address)
    if known is not None:
        return known
    answer = files.text(f"{PCI}/{int(address[:8], 16):04x}{address[8:]}/vendor")
    not_listed = Missing(AbsenceReason.UNSUPPORTED, "its PCI device is not listed")
    return answer if isinstance(answer, Missing) else not_listed


def _order(adapter: Adapter) -> tuple[bool, str, tuple[tuple[int, str], ...]]:
    names = " ".join((*adapter.hcas, *adapter.interfaces))
    if isinstance(adapter.address, Missing):
        return True, "", natural_key(names)
    return False, adapter.address, natural_key(names)


def _ports(files: KernelFiles, adapter: Adapter) -> Iterator[Port]:
    """Ports of the RDMA devices; where there are none, the interfaces, each a port."""
    told = [
        (hca, int(port))
        for hca in adapter.hcas
        for port in sorted(files.names(f"{INFINIBAND}/{hca}/ports", _PORT), key=int)
    ]
    numbers = _numbered([port for _, port in told])
    for (hca, port), number in zip(told, numbers, strict=True):
        yield _hca_port(files, adapter, hca, port, number)
    if not adapter.hcas:
        for number, name in enumerate(adapter.interfaces, start=1):
            yield _interface_port(files, adapter, name, number)


def _numbered(told: Sequence[int]) -> list[int]:
    """Port numbers as told, but from 1 and each once: the lowest that is free for another."""
    free = (number for number in count(1) if number not in told)
    numbers: dict[int, None] = {}
    for number in told:
        numbers[number if number > 0 and number not in numbers else next(free)] = None
    return list(numbers)


def _hca_port(files: KernelFiles, adapter: Adapter, hca: str, port: int, number: int) -> Port:
    here = f"{INFINIBAND}/{hca}/ports/{port}"
    logical = _word(files, f"{here}/state")
    board = files.text(f"{INFINIBAND}/{hca}/board_id")
    return Port(
        number=number,
        name=hca,
        layer=_hca_layer(files, adapter, hca, here),
        state=then(logical, lambda word: LinkState.UP if word == "ACTIVE" else LinkState.DOWN),
        bytes_per_s=_hca_rate(files, f"{here}/rate"),
        logical=logical,
        physical=_word(files, f"{here}/phys_state"),
        firmware=files.text(f"{INFINIBAND}/{hca}/fw_ver"),
        link_downs=_count(files, f"{here}/counters/link_downed"),
        board=None if isinstance(board, Missing) else board,
    )


def _hca_layer(files: KernelFiles, adapter: Adapter, hca: str, here: str) -> LinkLayer:
    """What a port speaks; the kernel has no word for EFA, so its maker and name tell it."""
    model = adapter.vendor_device
    if model.startswith(_EFA) if model else _EFA_NAME.fullmatch(hca):
        return LinkLayer.EFA
    layer = files.text(f"{here}/link_layer")
    known = LinkLayer.UNREPORTED
    return known if isinstance(layer, Missing) else _LAYERS.get(layer, known)


def _hca_rate(files: KernelFiles, path: str) -> float | Missing:
    """Rate of a port from a text such as ``400 Gb/sec (4X NDR)``. [B/s]"""
    text = files.text(path)
    if isinstance(text, Missing):
        return text
    match = _RATE.fullmatch(text)
    return _rate(path, text, float(match[1]) * 1000 if match else 0)


def _rate(path: str, text: str, mbit_per_s: float) -> float | Missing:
    if SLOWEST_MBIT_PER_S <= mbit_per_s <= FASTEST_MBIT_PER_S:
        return bytes_per_s_from_mbit(mbit_per_s)
    return undecodable(path, text)


def _word(files: KernelFiles, path: str) -> str | Missing:
    """The word in a text such as ``4: ACTIVE``."""
    text = files.text(path)
    if isinstance(text, Missing):
        return text
    match = _STATE.fullmatch(text)
    return match[1].strip() if match else undecodable(path, text)


def _count(files: KernelFiles, path: str) -> int | Missing:
    number = files.number(path)
    return undecodable(path, str(number)) if isinstance(number, int) and number < 0 else number


def _interface_port(files: KernelFiles, adapter: Adapter, name: str, number: int) -> Port:
    here = f"{NET}/{name}"
    is_slingshot = adapter.vendor_device == _CASSINI
    kind = files.number(f"{here}/type")
    layer = _INTERFACE_LAYERS.get(kind) if isinstance(kind, int) else None
    return Port(
        number=number,
        name=adapter.cxi or name if is_slingshot else name,
        layer=LinkLayer.SLINGSHOT if is_slingshot else layer or LinkLayer.UNREPORTED,
        state=_interface_state(files, here),
        bytes_per_s=_interface_rate(files, f"{here}/speed"),
        logical=files.text(f"{here}/operstate"),
        physical=_NOT_TOLD,
        firmware=_NOT_TOLD,
        link_downs=_count(files, f"{here}/carrier_down_count"),
    )


_NOT_TOLD: Final = Missing(AbsenceReason.UNSUPPORTED, "the kernel has no file for it")


def _interface_state(files: KernelFiles, here: str) -> LinkState | Missing:
    """State of an interface; its carrier where the driver keeps no operational state."""
    said = files.text(f"{here}/operstate")
    if isinstance(said, str):
        return _INTERFACE_STATES.get(said, undecodable(f"{here}/operstate", said))
    carrier = files.number(f"{here}/carrier")
    if isinstance(carrier, Missing):
        return said
    return LinkState.UP if carrier == 1 else LinkState.DOWN


def _interface_rate(files: KernelFiles, path: str) -> float | Missing:
    """Rate of an interface, which the kernel tells in Mb/s, -1 where it does not know. [B/s]"""
    speed = files.number(path)
    if isinstance(speed, Missing):
        return speed
    if speed in (-1, 0, 0xFFFF, 0xFFFFFFFF):
        return Missing(AbsenceReason.UNSUPPORTED, f"speed: {speed}, not known")
    return _rate(path, str(speed), speed)


def _with_rails(
    adapters: Sequence[Adapter], ports: list[tuple[Port, ...]], tree: PciTree
) -> list[tuple[Port, ...]]:
    compute = [
        (slot, port)
        for slot in _slots_near_a_gpu(adapters, tree) or range(len(adapters))
        for port in ports[slot]
        if port.layer in COMPUTE_LAYERS
    ]
    chosen = _commonest_kind([port for _, port in compute])
    if chosen is None:
        return ports
    cards = {_card(adapters[slot], port) for slot, port in compute if _kind(port) == chosen}
    railed = [
        (slot, port.number)
        for slot, port in compute
        if _kind(port) == chosen
        or (port.layer is chosen[0] and _card(adapters[slot], port) in cards - {None})
    ]
    rails = {place: rail for rail, place in enumerate(railed)}
    return [
        tuple(replace(port, rail=rails.get((slot, port.number))) for port in of_slot)
        for slot, of_slot in enumerate(ports)
    ]


def _slots_near_a_gpu(adapters: Sequence[Adapter], tree: PciTree) -> list[int]:
    gpus = tree.gpus()
    return [
        slot
        for slot, adapter in enumerate(adapters)
        if isinstance(adapter.function, PciFunction)
        and any(tree.level(gpu, adapter.function) in _NEAR for gpu in gpus)
    ]


def _commonest_kind(ports: Sequence[Port]) -> tuple[LinkLayer, float] | None:
    told = [port for port in ports if not isinstance(port.bytes_per_s, Missing)]
    kinds = Counter(_kind(port) for port in [p for p in told if p.is_up] or told)
    return max(kinds, key=lambda kind: (kinds[kind], kind[1], kind[0]), default=None)


def _kind(port: Port) -> tuple[LinkLayer, float]:
    return port.layer, 0.0 if isinstance(port.bytes_per_s, Missing) else port.bytes_per_s


def _card(adapter: Adapter, port: Port) -> tuple[str | None, str | None] | None:
    """Make and board of a port's card, None where neither is told."""
    card = adapter.vendor_device, port.board
    return card if any(card) else None

"""NVLinks of this node's GPUs through NVML, and what stands at their far ends."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from fleet.fields import AbsenceReason, PciAddress
from fleet.sources.nvml_answers import Gaps, Missing, above_zero, looked_up, then
from fleet.sources.nvml_calls import Calls
from fleet.sources.pci import is_hidden_address, pci_address_from_text
from fleet.wiring import C2cLinks, EndKind, GpuPort, LinkState, PortEnd

MOST_LINKS: Final = 64

_LINK_COUNT: Final = 91
_COMMON_SPEED: Final = 90
_C2C_COUNT: Final = 170
_C2C_RATE: Final = 172
_FAR_PORT: Final = 146
_SPEED: Final = 164
_STATE: Final = 165
_VERSION: Final = 166
FIELDS: Final = (
    _LINK_COUNT,
    _COMMON_SPEED,
    _C2C_COUNT,
    _C2C_RATE,
    _FAR_PORT,
    _SPEED,
    _STATE,
    _VERSION,
)
"""Driver fields, by number, of which links are made: all that ``Calls.field`` is asked for here."""

_NVLINK_VERSIONS: Final = {
    1: "1.0",
    2: "2.0",
    3: "2.2",
    4: "3.0",
    5: "3.1",
    6: "4.0",
    7: "5.0",
    8: "6.0",
}
_LINK_STATES: Final = {
    0: LinkState.DOWN,
    1: LinkState.UP,
    2: LinkState.UP,  # asleep: wakes by itself
    3: LinkState.DOWN,  # trained, but closed to traffic
}
_SWITCH_TYPE: Final = 2
_END_KINDS: Final = {0: EndKind.GPU, 1: EndKind.NPU, _SWITCH_TYPE: EndKind.SWITCH}
_HIDDEN: Final = Missing(AbsenceReason.UNSUPPORTED, "the driver hides it")


@dataclass(frozen=True, slots=True)
class Link:
    """One NVLink of a GPU as the driver answers, its far end not yet looked for in this node."""

    port: int
    state: LinkState
    version: str | Missing
    bytes_per_s: float | Missing
    far_port: int | Missing
    remote: PciAddress | Missing
    remote_type: int | Missing


@dataclass(frozen=True, slots=True)
class Places:
    """What stands at a PCI address of this node: GPU slots and NVSwitches by index."""

    slots: Mapping[PciAddress | Missing, int]
    switches: Mapping[PciAddress | Missing, int]


def links_of(calls: Calls, gpu: int) -> tuple[Link, ...] | Missing:
    """The links of a GPU, in the driver's order."""
    count = _link_count(calls, gpu)
    if isinstance(count, Missing):
        return count
    return tuple(_link(calls, gpu, port) for port in range(count))


def _link_count(calls: Calls, gpu: int) -> int | Missing:
    """Links of a GPU; where the driver has no such field, as many as have a state."""
    count = calls.field(gpu, _LINK_COUNT)
    if not isinstance(count, Missing):
        wild = Missing(AbsenceReason.UNDECODABLE, f"{count} NVLinks")
        return count if 0 <= count <= MOST_LINKS else wild
    states = (calls.number("nvmlDeviceGetNvLinkState", gpu, port) for port in range(MOST_LINKS))
    first = next(states)
    if isinstance(first, Missing):
        return first if count.reason is AbsenceReason.FUNCTION_MISSING else count
    return 1 + sum(1 for _ in takewhile(lambda state: not isinstance(state, Missing), states))


def _link(calls: Calls, gpu: int, port: int) -> Link:
    state = calls.field(gpu, _STATE, port)
    if isinstance(state, Missing):
        state = calls.number("nvmlDeviceGetNvLinkState", gpu, port)
    speed = above_zero(calls.field(gpu, _SPEED, port))
    if isinstance(speed, Missing) and state == 1:
        common = above_zero(calls.field(gpu, _COMMON_SPEED))
        speed = speed if isinstance(common, Missing) else common
    version = above_zero(calls.field(gpu, _VERSION, port))
    if isinstance(version, Missing):
        version = calls.number("nvmlDeviceGetNvLinkVersion", gpu, port)
    remote = calls.bus_id("nvmlDeviceGetNvLinkRemotePciInfo", gpu, port)
    known = then(state, looked_up(_LINK_STATES, "link state"))
    return Link(
        port=port,
        state=LinkState.UNREPORTED if isinstance(known, Missing) else known,
        version=then(version, looked_up(_NVLINK_VERSIONS, "NVLink version")),
        bytes_per_s=then(speed, lambda mbyte_per_s: mbyte_per_s * 1e6),
        far_port=calls.field(gpu, _FAR_PORT, port),
        remote=then(remote, pci_address),
        remote_type=calls.number("nvmlDeviceGetNvLinkRemoteDeviceType", gpu, port),
    )


def c2c_links(calls: Calls, gpu: int) -> C2cLinks | None:
    """NVLink-C2C to the CPU, where a GPU has it: its links and what one carries, in MB/s."""
    count, rate = calls.field(gpu, _C2C_COUNT), calls.field(gpu, _C2C_RATE)
    if isinstance(count, Missing) or isinstance(rate, Missing) or count <= 0 or rate <= 0:
        return None
    return C2cLinks(count=count, bytes_per_s=rate * 1e6)


def places_of(
    addresses: Iterable[PciAddress | Missing], links: Iterable[tuple[Link, ...] | Missing]
) -> Places:
    """Where the far ends of all links may lead; switches are numbered by rising address."""
    switches = {
        link.remote
        for of_gpu in links
        if not isinstance(of_gpu, Missing)
        for link in of_gpu
        if link.remote_type == _SWITCH_TYPE and not isinstance(link.remote, Missing)
    }
    return Places(
        slots={a: slot for slot, a in enumerate(addresses) if not isinstance(a, Missing)},
        switches={address: index for index, address in enumerate(sorted(switches))},
    )


def ports_of(links: tuple[Link, ...] | Missing, places: Places, gaps: Gaps) -> tuple[GpuPort, ...]:
    """The ports of one GPU, their far ends found; none and an absence where links are missing."""
    known = gaps.value("ports", links) or ()
    return tuple(_port(link, places, gaps.below(f"ports[{link.port}]")) for link in known)


def _port(link: Link, places: Places, gaps: Gaps) -> GpuPort:
    kind = _end_kind(link, places)
    index = {EndKind.GPU: places.slots, EndKind.SWITCH: places.switches}.get(kind, {})
    end = PortEnd(kind=kind, index=index.get(link.remote))
    if end.index is None:
        gaps.value("end.index", _why_nowhere(link))
    return GpuPort(
        port=link.port,
        end=end,
        far_port=gaps.value("far_port", link.far_port),
        version=gaps.value("version", link.version),
        state=link.state,
        bytes_per_s=gaps.value("bytes_per_s", link.bytes_per_s),
    )


def _end_kind(link: Link, places: Places) -> EndKind:
    """What is at the far end; a hidden address is a switch, as NCCL reads it."""
    if link.remote in places.slots:
        return EndKind.GPU
    if isinstance(link.remote_type, Missing):
        return EndKind.SWITCH if link.remote == _HIDDEN else EndKind.UNREPORTED
    return _END_KINDS.get(link.remote_type, EndKind.UNREPORTED)


def _why_nowhere(link: Link) -> Missing:
    elsewhere = f"no GPU or switch listed here has {link.remote} (type {link.remote_type})"
    for answer in (link.remote, link.remote_type):
        if isinstance(answer, Missing):
            return answer
    return Missing(AbsenceReason.UNSUPPORTED, elsewhere)


def pci_address(written: str) -> PciAddress | Missing:
    """A bus id as the driver writes it in the model's form."""
    if is_hidden_address(written):
        return _HIDDEN
    if not written.strip():
        return Missing(AbsenceReason.UNSUPPORTED, "the driver gave an empty bus id")
    unread = Missing(AbsenceReason.UNDECODABLE, f"{written!r} is no PCI address")
    return pci_address_from_text(written) or unread

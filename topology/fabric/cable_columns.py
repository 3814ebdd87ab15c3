"""Cables of a map as columns of numbers: those that are up and join network switches. No graph."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from fleet import CableEnd, FleetMap, LinkState

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]
_Value = TypeVar("_Value", bound=Any)

NOT_THERE: Final = -1
_NO_NIC: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class CableColumns:
    """Cables in the order in which they are laid, whatever the map's order is.

    ``ends``: (2, cables) index into ``switches``, -1 where the end is a NIC. ``nic``: (cables,)
    index into ``nics``, which are hosts with NIC slots; -1 for a trunk. ``bytes_per_s``: (cables,),
    one direction.
    """

    switches: tuple[str, ...]
    nics: tuple[tuple[str, int], ...]
    ends: IntArray
    nic: IntArray
    bytes_per_s: FloatArray

    def __post_init__(self) -> None:
        for column in (self.ends, self.nic, self.bytes_per_s):
            column.flags.writeable = False

    @property
    def is_trunk(self) -> NDArray[np.bool_]:
        """Whether a cable joins two switches, shape (cables,)."""
        return np.asarray(self.nic == NOT_THERE)

    def cabled_nics(self) -> dict[str, frozenset[int]]:
        """Slots of the NICs of each host from which one of these cables leads to a switch."""
        slots: dict[str, set[int]] = defaultdict(set)
        for host, slot in self.nics:
            slots[host].add(slot)
        return {host: frozenset(nics) for host, nics in slots.items()}


def columns_from_fleet(fleet: FleetMap) -> CableColumns:
    """The cables between network switches and to them; from host to host none is modelled."""
    switches = dict.fromkeys(s.id for s in fleet.switches if s.nvlink_domain is None)
    cables = [cable for cable in fleet.cables if cable.state is not LinkState.DOWN]
    rates = np.array([cable.bytes_per_s for cable in cables], dtype=np.float64)
    both = _Ends([*(cable.a for cable in cables), *(cable.b for cable in cables)], list(switches))
    keep = both.joins_switches()
    order = keep[both.laid_order(keep, rates)]
    nics, nic = both.nics(order)
    ends = np.array(both.switch.reshape(2, -1)[:, order])
    return CableColumns(tuple(switches), nics, ends, nic, rates[order])


class _Ends:
    """Both ends of all cables: the a ends, then the b ends, each column numbered by value."""

    def __init__(self, ends: Sequence[CableEnd], switches: Sequence[str]) -> None:
        self.names, self.device = _numbered([end.device for end in ends])
        slots = [_NO_NIC if end.nic is None else end.nic for end in ends]
        self.slots, self.slot = _numbered(slots)
        _, self.port = _numbered([end.port or 0 for end in ends])
        self.is_nic = np.array([slot != _NO_NIC for slot in slots], dtype=bool)
        number = {name: i for i, name in enumerate(switches)}
        known = np.array([number.get(name, NOT_THERE) for name in self.names], dtype=np.int64)
        self.switch = np.where(self.is_nic, NOT_THERE, known[self.device])

    def joins_switches(self) -> IntArray:
        """Numbers of the cables with a switch of the network wherever no NIC is, and one at all."""
        is_nic, is_switch = (
            column.reshape(2, -1) for column in (self.is_nic, self.switch != NOT_THERE)
        )
        return np.flatnonzero((is_nic | is_switch).all(axis=0) & is_switch.any(axis=0))

    def laid_order(self, cables: IntArray, rates: FloatArray) -> IntArray:
        """Order of some cables by device and port of one end, then of the other.

        Ports that nobody tells are alike: then by the slots of NICs, then by the cables' rates.
        """
        columns = (self.device, self.port, self.slot)
        (device_a, device_b), (port_a, port_b), (slot_a, slot_b) = (
            column.reshape(2, -1)[:, cables] for column in columns
        )
        keys = (rates[cables], slot_b, slot_a, port_b, device_b, port_a, device_a)
        return np.lexsort(keys).astype(np.int64)

    def nics(self, cables: IntArray) -> tuple[tuple[tuple[str, int], ...], IntArray]:
        """Hosts and slots of the NICs on some cables, and which of them each is on; -1: none."""
        is_nic, device, slot = (
            column.reshape(2, -1)[:, cables] for column in (self.is_nic, self.device, self.slot)
        )
        side = is_nic.argmax(axis=0)
        place = np.arange(len(cables))
        code = device[side, place] * len(self.slots) + slot[side, place]
        on_nic = np.flatnonzero(is_nic.any(axis=0))
        codes, which = np.unique(code[on_nic], return_inverse=True)
        nic = np.full(len(cables), NOT_THERE, dtype=np.int64)
        nic[on_nic] = which
        hosts, slots = np.divmod(codes, max(len(self.slots), 1))
        pairs = zip(hosts.tolist(), slots.tolist(), strict=True)
        return tuple((self.names[host], self.slots[slot]) for host, slot in pairs), nic


def _numbered(values: Sequence[_Value]) -> tuple[list[_Value], IntArray]:
    """The different values in order, and the number of each value among them."""
    known = sorted(set(values))
    number = {value: i for i, value in enumerate(known)}
    numbers = map(number.__getitem__, values)
    return known, np.fromiter(numbers, dtype=np.int64, count=len(values))

"""Slots: a wiring with its slots renamed, some of them gone, or one that fell silent."""

from collections.abc import Mapping
from operator import attrgetter
from typing import Final

from fleet.wiring import DevicePair, EndKind, GpuSlot, NicSlot, P2pStatus, Wiring

_BY_SLOT: Final = attrgetter("slot")
OF_THE_DRIVER: Final[Mapping[str, object]] = {
    "product_name": None,
    "compute_capability": None,
    "memory_bytes": None,
    "module_id": None,
    "ports": (),
    "c2c": None,
}
"""What only the driver tells of a GPU slot, as it stands where it tells nothing."""


def is_silent(gpu: GpuSlot, wiring: Wiring) -> bool:
    """Whether the driver tells nothing of a GPU: lost, forbidden, or it does not answer."""
    return not any(gpu.slot in (pair.a, pair.b) for pair in wiring.p2p) and all(
        getattr(gpu, name) == nothing for name, nothing in OF_THE_DRIVER.items()
    )


def silenced(wiring: Wiring, slot: int) -> Wiring:
    """The wiring with nothing of what the driver tells of one GPU."""
    return wiring.model_copy(
        update={
            "gpus": tuple(
                gpu.model_copy(update=dict(OF_THE_DRIVER)) if gpu.slot == slot else gpu
                for gpu in wiring.gpus
            ),
            "p2p": tuple(pair for pair in wiring.p2p if slot not in (pair.a, pair.b)),
        }
    )


def renumbered(wiring: Wiring, gpus: Mapping[int, int], nics: Mapping[int, int]) -> Wiring:
    """The wiring with slots renamed, in their order; one that is not named keeps its number."""
    if not gpus and not nics:
        return wiring
    return wiring.model_copy(
        update={
            "gpus": tuple(sorted((_renamed_gpu(g, gpus) for g in wiring.gpus), key=_BY_SLOT)),
            "nics": tuple(sorted((_renamed_nic(n, nics) for n in wiring.nics), key=_BY_SLOT)),
            "pcie_levels": tuple(_renamed_pair(p, gpus, nics) for p in wiring.pcie_levels),
            "p2p": tuple(
                p.model_copy(update={"a": gpus.get(p.a, p.a), "b": gpus.get(p.b, p.b)})
                for p in wiring.p2p
            ),
        }
    )


def _renamed_nic(nic: NicSlot, nics: Mapping[int, int]) -> NicSlot:
    return nic.model_copy(update={"slot": nics.get(nic.slot, nic.slot)})


def _renamed_gpu(gpu: GpuSlot, gpus: Mapping[int, int]) -> GpuSlot:
    def end_renamed(index: int | None) -> int | None:
        return None if index is None else gpus.get(index, index)

    ports = tuple(
        port.model_copy(
            update={"end": port.end.model_copy(update={"index": end_renamed(port.end.index)})}
        )
        if port.end.kind is EndKind.GPU
        else port
        for port in gpu.ports
    )
    return gpu.model_copy(update={"slot": gpus.get(gpu.slot, gpu.slot), "ports": ports})


def _renamed_pair(pair: DevicePair, gpus: Mapping[int, int], nics: Mapping[int, int]) -> DevicePair:
    def renamed(name: str) -> str:
        slots, slot = (gpus, nics)[name.startswith("nic")], int(name[3:])
        return f"{name[:3]}{slots.get(slot, slot)}"

    return pair.model_copy(update={"a": renamed(pair.a), "b": renamed(pair.b)})


def without_pairs(wiring: Wiring, gone: set[str]) -> Wiring:
    """Drop the rows of pairs of which one device is gone."""

    def stays(pair: DevicePair | P2pStatus) -> bool:
        names = (
            (pair.a, pair.b) if isinstance(pair, DevicePair) else (f"gpu{pair.a}", f"gpu{pair.b}")
        )
        return not any(f"{name[:3]}s[{name[3:]}]" in gone for name in names)

    if not gone:
        return wiring
    return wiring.model_copy(
        update={
            "pcie_levels": tuple(pair for pair in wiring.pcie_levels if stays(pair)),
            "p2p": tuple(pair for pair in wiring.p2p if stays(pair)),
        }
    )

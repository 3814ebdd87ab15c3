"""Networks of a SPEC by name: what a machine's NICs speak, how many there are and how fast."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from fleet.errors import SourceError
from fleet.sources.machines import CpuModel, Machine, NicModel
from fleet.wiring import LinkLayer

_T = TypeVar("_T")

GBIT: Final = 0.125e9
_RATE: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(Gbit/s|Mbit/s|GB/s|MB/s)")
_UNIT_BYTES_PER_S: Final = {"Gbit/s": GBIT, "Mbit/s": GBIT / 1000, "GB/s": 1e9, "MB/s": 1e6}
_MOST_BYTES_PER_S: Final = 200e9
_NICS_PER_GPU: Final = 8


@dataclass(frozen=True, slots=True)
class NetworkKind:
    """What a word ``network:`` means: link layer, name, PCI id and rate of a NIC's port.

    ``bytes_per_s`` None: as fast as the model's own NICs.
    """

    layer: LinkLayer
    bytes_per_s: float | None
    nic_name: str
    vendor_device: str | None = None


_IB, _ROCE = LinkLayer.INFINIBAND, LinkLayer.ROCE

# EFA: AWS's driver numbers the generations 1d0f:efa0 (p3dn, p4d) to efa3 (p6). Google's vNIC is
# 1ae0:0042; with GPUs and 200 Gbit/s a port it carries GPUDirect-TCPX or TCPXO.
NETWORKS: Final = {
    "ib": NetworkKind(_IB, None, "mlx5_%d"),
    "ib-fdr": NetworkKind(_IB, 56 * GBIT, "mlx5_%d"),
    "ib-edr": NetworkKind(_IB, 100 * GBIT, "mlx5_%d"),
    "ib-hdr": NetworkKind(_IB, 200 * GBIT, "mlx5_%d"),
    "ib-ndr": NetworkKind(_IB, 400 * GBIT, "mlx5_%d"),
    "ib-xdr": NetworkKind(_IB, 800 * GBIT, "mlx5_%d"),
    "roce": NetworkKind(_ROCE, None, "mlx5_%d"),
    "efa-v1": NetworkKind(LinkLayer.EFA, 100 * GBIT, "rdmap%d", "1d0f:efa0"),
    "efa-v2": NetworkKind(LinkLayer.EFA, 100 * GBIT, "rdmap%d", "1d0f:efa1"),
    "efa-v3": NetworkKind(LinkLayer.EFA, 200 * GBIT, "rdmap%d", "1d0f:efa2"),
    "efa-v4": NetworkKind(LinkLayer.EFA, 400 * GBIT, "rdmap%d", "1d0f:efa3"),
    "efa": NetworkKind(LinkLayer.EFA, None, "rdmap%d"),
    "tcpxo": NetworkKind(LinkLayer.ETHERNET, 200 * GBIT, "eth%d", "1ae0:0042"),
    "slingshot": NetworkKind(LinkLayer.SLINGSHOT, 200 * GBIT, "cxi%d", "17db:0501"),
    "aries": NetworkKind(LinkLayer.ARIES, 10.2e9, "ipogif%d"),
    "ethernet": NetworkKind(LinkLayer.ETHERNET, None, "eth%d"),
}
CPUS: Final = {
    "intel": CpuModel(architecture="x86_64", vendor="GenuineIntel"),
    "amd": CpuModel(architecture="x86_64", vendor="AuthenticAMD"),
    "arm": CpuModel(architecture="arm64", vendor="ARM"),
}


def with_network(
    machine: Machine, *, network: str | None, nic: int | None, nic_rate: str | None
) -> Machine:
    """The machine with other NICs: ``network`` by name, ``nic`` of them, ``nic_rate`` each.

    What is None stays as in the model; a network of one rate brings its own.

    Raises:
        SourceError: no such network, a rate that is none, or more NICs than a node has room for.
    """
    if network is None and nic is None and nic_rate is None:
        return machine
    changes: dict[str, Any] = {}
    if network is not None:
        kind = _by_name("network", network, NETWORKS)
        changes |= {"link_layer": kind.layer, "name": kind.nic_name}
        changes |= {"vendor_device": kind.vendor_device}
        changes |= {"bytes_per_s": kind.bytes_per_s} if kind.bytes_per_s else {}
    if nic_rate is not None:
        changes["bytes_per_s"] = bytes_per_s_from_text(nic_rate)
    if nic is not None and nic != machine.nic.count:
        changes |= _places(machine, nic)
    nics = NicModel.model_validate(machine.nic.model_dump() | changes)
    # Leaves without rails take all NICs of a node, so more NICs are fewer nodes on each.
    leaf = max(1, machine.fabric.nodes_per_leaf * machine.nic.count // nics.count)
    update = {} if machine.fabric.rail_optimised else {"nodes_per_leaf": leaf}
    fabric = machine.fabric.model_copy(update=update)
    return machine.model_copy(update={"nic": nics, "fabric": fabric})


def with_cpu(machine: Machine, name: str | None) -> Machine:
    """The machine with CPUs of another maker; they matter to what a proxy costs.

    Raises:
        SourceError: no such maker.
    """
    if name is None:
        return machine
    return machine.model_copy(update={"cpu": _by_name("cpu", name, CPUS)})


def with_peer_access(machine: Machine, word: str | None) -> Machine:
    """The machine with or without peer access between its GPUs (``on``, ``off``).

    Raises:
        SourceError: another word, or a machine without GPUs.
    """
    if word is None:
        return machine
    is_on = _by_name("peer", word, {"on": True, "off": False})
    if machine.gpu is None:
        raise SourceError(
            f"{machine.name} has no GPUs", where="SPEC", field="peer", remedy="leave peer out"
        )
    gpu = machine.gpu.model_copy(update={"peer_access": is_on})
    return machine.model_copy(update={"gpu": gpu})


def is_adaptive(word: str | None) -> bool | None:
    """Whether switches route adaptively (``adaptive``, ``static``), None where none is said.

    Raises:
        SourceError: another word.
    """
    known = {"adaptive": True, "static": False}
    return None if word is None else _by_name("routing", word, known)


def bytes_per_s_from_text(text: str) -> float:
    """A port's rate, one direction, from text such as ``400Gbit/s``. [B/s]

    Raises:
        SourceError: no number with a unit, or more than any port has.

    >>> bytes_per_s_from_text("400Gbit/s"), bytes_per_s_from_text("12.5GB/s")
    (50000000000.0, 12500000000.0)
    """
    match = _RATE.fullmatch(text)
    rate = float(match[1]) * _UNIT_BYTES_PER_S[match[2]] if match else 0.0
    if not 0 < rate <= _MOST_BYTES_PER_S:
        raise SourceError(
            f"{text!r} is no rate of a port",
            where="SPEC",
            field="nic_rate",
            remedy="give a number with Gbit/s or GB/s, such as 400Gbit/s, up to 1600Gbit/s",
        )
    return rate


def _by_name(field: str, name: str, known: Mapping[str, _T]) -> _T:
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise SourceError(
        f"{name!r} is no {field}",
        where="SPEC",
        field=field,
        remedy=f"{hint}use one of {', '.join(known)}",
    )


def _places(machine: Machine, count: int) -> dict[str, Any]:
    """NICs spread over the GPUs in order, each beside its GPU: same PCIe bridge, same bus."""
    beside = machine.gpu or machine.nic
    most = _NICS_PER_GPU * machine.ranks
    if count > most:
        raise SourceError(
            f"{count} NICs for {machine.ranks} ranks a node",
            where="SPEC",
            field="nic",
            remedy=f"ask for {most} at most",
        )
    at = [i * beside.count // count for i in range(count)]
    return {
        "count": count,
        "bus": tuple(beside.bus[i] for i in at),
        "device": tuple(1 + sum(other == i for other in at[:n]) for n, i in enumerate(at)),
        "domain": tuple(beside.domain[i] for i in at) if beside.domain else None,
        "numa": tuple(beside.numa[i] for i in at),
        "bridge": tuple(beside.bridge[i] for i in at) if beside.bridge else None,
    }

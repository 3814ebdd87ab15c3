"""Suspects: what can be wrong with a job, each as the model would predict it.

A fault is a job that differs in one fact, or a protocol that is forced.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.errors import ScheduleError
from topology.fabric.from_fleet import Fabric
from topology.fabric.link_figures import load_link_figures
from topology.fabric.routes import Endpoint
from topology.latency.calibration import REGIONS, Calibration
from topology.latency.job import Architecture, Intra, IntraKind, Job, Net, NetKind
from topology.latency.model import Model, make_model
from topology.latency.operation import Operation
from topology.measured.diagnosis import Expectation, Variant
from topology.measured.runs import region_indices
from topology.words import AlgorithmName, Protocol

FloatArray: TypeAlias = NDArray[np.float64]

UNKNOWN_RATIO: Final = 2.0
"""Reach of an interval to either side where no machine was held out: a guess."""

PCIE_RATIO: Final = 1.5
"""Least upper end over PCIe: boxes of one GPU differ by their PCIe trees, which few maps tell.

Source: the calibration set, where four RTX PRO 6000, left out of the fit, are 2.2 times slower.
"""

CROWDED_NODES: Final = 16
"""Beyond it the upper end goes as much further with each doubling: others share the fabric.

Source: the calibration set, where clean runs of one machine agree to 1.2 at 16 nodes of four
GH200 and differ by up to 7 at 64.
"""

STAGED_HOP_S: Final = 18e-6
"""A hop between nodes whose bytes go through host memory: 14 to 22 us. Source: S14."""

STAGED_RATIO: Final = 0.5
"""What host memory leaves of a NIC's rate, as each byte crosses PCIe twice. Source: E1, a guess."""


class Settings(NamedTuple):
    """What was forced; ``custom``: a serving framework's own kernels may run, too."""

    algorithm: AlgorithmName = AlgorithmName.AUTO
    protocol: Protocol | None = None
    custom: bool = False


NOTHING_FORCED: Final = Settings()


@dataclass(frozen=True, slots=True)
class _Fault:
    """What could be wrong: words, what to look at, and the job and settings it leaves."""

    name: str
    suspect: str
    check: str
    job: Job
    settings: Settings


def expect(
    job: Job,
    operation: Operation,
    sizes_bytes: FloatArray,
    *,
    rails: int,
    settings: Settings = NOTHING_FORCED,
    calibration: Calibration | None = None,
) -> Expectation:
    """What the model expects of an operation for each size, healthy and with each fault.

    ``rails``: NICs that the ranks of a node send through.

    Raises:
        ScheduleError: NCCL has no such way here.
    """
    model = make_model(job, operation, **settings._asdict(), calibration=calibration)
    predicted_s = model.times_s(sizes_bytes)
    low, high = _interval_ratios(model, sizes_bytes)
    variants = []
    for fault in _faults(job, settings, rails):
        times_s = _times_s(fault, operation, sizes_bytes, calibration)
        if times_s is not None and not np.allclose(times_s, predicted_s, rtol=1e-3):
            variants.append(Variant(fault.name, fault.suspect, fault.check, times_s))
    return Expectation(
        predicted_s=predicted_s,
        low_s=predicted_s * low,
        high_s=predicted_s * high,
        ways=tuple(model.ways[i].way.text for i in model.choice(sizes_bytes).tolist()),
        variants=tuple(variants),
        extrapolated=_extrapolated(model, sizes_bytes),
    )


def _times_s(
    fault: _Fault,
    operation: Operation,
    sizes_bytes: FloatArray,
    calibration: Calibration | None,
) -> FloatArray | None:
    """Times with a fault, None where NCCL has no way left."""
    settings = fault.settings._asdict()
    try:
        model = make_model(fault.job, operation, **settings, calibration=calibration)
    except ScheduleError:
        return None
    return model.times_s(sizes_bytes)


def _interval_ratios(model: Model, sizes_bytes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lower and upper end of the interval, over the prediction, as wide as this job needs it."""
    job = model.tuner.job
    found = [model.calibration.interval_of(model.reach, region) for region in REGIONS]
    lows = [1 / UNKNOWN_RATIO if i is None else min(1.0, i.low_ratio) for i in found]
    highs = [UNKNOWN_RATIO if i is None else max(1.0, i.high_ratio) for i in found]
    region = region_indices(sizes_bytes)
    low, high = np.array(lows)[region], np.array(highs)[region]
    if job.is_pcie:
        high = np.maximum(high, PCIE_RATIO)
    return low, high ** (1 + max(0.0, math.log2(job.cliques / CROWDED_NODES)))


def _extrapolated(model: Model, sizes_bytes: FloatArray) -> str | None:
    told = (model.extrapolated(size) for size in sizes_bytes.tolist())
    return next((words for words in told if words is not None), None)


def rails_of(fabric: Fabric, endpoints: Sequence[Endpoint]) -> int:
    """NICs that the ranks of the first rank's node send through."""
    host = endpoints[0].host
    graph = fabric.node_of[host].graph
    mine = [end.slot for end in endpoints if end.host == host]
    return len({nic for slot in mine for nic in graph.nics_of_gpu.get(slot, ())})


def _faults(job: Job, settings: Settings, rails: int) -> Iterator[_Fault]:
    """Every fault that this job could have."""
    if job.net is not None:
        yield from _net_faults(job, job.net, settings, rails)
    if job.intra is not None:
        yield from _intra_faults(job, settings)
    if settings.protocol is None and settings.algorithm is AlgorithmName.AUTO:
        yield from _protocol_faults(job, settings)


_NICS_USED: Final = "NCCL_DEBUG=INFO: the NICs behind 'NET/IB : Using'; ports down: ibstat"
_NICS_SEEN: Final = "NCCL_IB_HCA; which NICs the container sees: ibv_devinfo"


def _net_faults(job: Job, net: Net, settings: Settings, rails: int) -> Iterator[_Fault]:
    lost = [
        ("one_rail_missing", f"one of {rails} rails missing", (rails - 1) / rails, _NICS_USED),
        ("one_rail_shared", "one rail missing, its GPU on a neighbour's NIC", 1 / 2, _NICS_USED),
        ("one_nic_only", f"one NIC of {rails} in use", 1 / rails, _NICS_SEEN),
    ]
    for name, suspect, share, check in lost if rails > 1 else ():
        fewer = replace(
            net, bytes_per_s=net.bytes_per_s * share, port_bytes_per_s=net.one_nic_bytes_per_s
        )
        yield _Fault(name, suspect, check, replace(job, net=fewer), settings)
    staged = replace(
        net,
        alpha_s=max(net.alpha_s, STAGED_HOP_S),
        bytes_per_s=net.bytes_per_s * STAGED_RATIO,
        port_bytes_per_s=net.one_nic_bytes_per_s * STAGED_RATIO,
    )
    yield _Fault(
        "gpudirect_off",
        "GPUDirect RDMA off",
        "NCCL_DEBUG=INFO: 'GDRDMA' behind the channels; nvidia_peermem loaded; NCCL_NET_GDR_LEVEL",
        replace(job, net=staged),
        settings,
    )
    if net.kind is not NetKind.ETHERNET:
        yield from _socket_faults(job, net, settings)


_SOCKETS: Final = (
    ("sockets", "sockets instead of RDMA", "tcp_100g_cloud"),
    ("slow_sockets", "sockets over the management network", "tcp_25g_cloud"),
)


def _socket_faults(job: Job, net: Net, settings: Settings) -> Iterator[_Fault]:
    for name, suspect, route_class in _SOCKETS:
        figures = load_link_figures().route_class[route_class]
        rate = min(net.bytes_per_s, figures.bytes_per_s)
        yield _Fault(
            name,
            suspect,
            "NCCL_DEBUG=INFO: 'NET/Socket' for 'NET/IB' or a plugin; NCCL_IB_DISABLE",
            replace(job, net=Net(NetKind.ETHERNET, figures.alpha_s, rate)),
            settings,
        )


_PCIE_GENERATION: Final = {
    Architecture.PASCAL: 3,
    Architecture.VOLTA: 3,
    Architecture.AMPERE: 4,
    Architecture.ADA: 4,
    Architecture.CDNA: 4,
    Architecture.HOPPER: 5,
    Architecture.BLACKWELL: 5,
}


def _intra_faults(job: Job, settings: Settings) -> Iterator[_Fault]:
    assert job.intra is not None, "asked only for ranks that share a clique"
    if job.reduces_in_switch:
        yield _Fault(
            "nvls_off",
            "in-switch reduction (NVLS) off",
            "NCCL_NVLS_ENABLE; nvidia-fabricmanager and IMEX running; 'NVLS' in NCCL_DEBUG=INFO",
            replace(job, reduces_in_switch=False),
            settings,
        )
    if not job.is_pcie:
        yield _Fault(
            "pcie_path",
            "PCIe path instead of NVLink",
            "nvidia-smi topo -m, nvidia-smi nvlink -s; fabric manager's log; NCCL_P2P_LEVEL",
            _over_pcie(job, IntraKind.PCIE, "switch"),
            settings,
        )
    if job.intra.kind is not IntraKind.HOST:
        yield _Fault(
            "no_peer_access",
            "no peer access: GPU to GPU through host memory",
            "nvidia-smi topo -p2p r; NCCL_P2P_DISABLE; ACS of PCIe switches, IOMMU",
            _over_pcie(job, IntraKind.HOST, "host_memory"),
            settings,
        )


def _over_pcie(job: Job, kind: IntraKind, way: str) -> Job:
    generation = _PCIE_GENERATION.get(job.architecture, 4)
    name = f"pcie_gen{generation}_{'x16_' if way == 'switch' else ''}{way}"
    figures = load_link_figures().route_class[name]
    intra = Intra(kind, figures.alpha_s, figures.bytes_per_s)
    return replace(job, intra=intra, reduces_in_switch=False)


def _protocol_faults(job: Job, settings: Settings) -> Iterator[_Fault]:
    for protocol in Protocol:
        yield _Fault(
            f"{protocol.value}_forced",
            f"protocol {protocol.name} forced",
            "NCCL_PROTO and NCCL_ALGO in the environment and in nccl.conf; a tuner plugin",
            job,
            settings._replace(protocol=protocol),
        )

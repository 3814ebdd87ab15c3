"""NCCL's own cost model, restated: ``time = latency + bytes / bandwidth`` for every way.

What NCCL chooses by, and the baseline that ours is held against. A mean: no percentiles, nothing
learned. Source: NVIDIA/nccl 2.30.7, src/graph/tuning.cc; constants in ``nccl_figures.toml``.
"""

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topology.latency.job import Architecture, Cpu, IntraKind, Job
from topology.latency.nccl_figures import ByFamily, CapFigures, NcclTunerFigures
from topology.words import AlgorithmName, Collective, Protocol

FloatArray = NDArray[np.float64]
PROTOCOLS: Final = (Protocol.LL, Protocol.LL128, Protocol.SIMPLE)


class Way(NamedTuple):
    """An algorithm over a protocol; ``protocol`` None where it has none."""

    algorithm: AlgorithmName
    protocol: Protocol | None

    @property
    def text(self) -> str:
        """For people."""
        return ", ".join(str(part) for part in self if part is not None)


_GENERATION: Final = {
    Architecture.PASCAL: "volta",
    Architecture.VOLTA: "volta",
    Architecture.AMPERE: "ampere",
    Architecture.ADA: "ampere",
    Architecture.HOPPER: "hopper",
    Architecture.BLACKWELL: "blackwell",
    Architecture.CDNA: "ampere",
    Architecture.UNREPORTED: "ampere",
}
RING, TREE = AlgorithmName.RING, AlgorithmName.DOUBLE_BINARY_TREE
NVLS, NVLS_TREE = AlgorithmName.NVLS, AlgorithmName.NVLS_TREE
COLLNET, PAT = AlgorithmName.COLLNET, AlgorithmName.PAT
_WHOLE: Final = (Collective.BROADCAST, Collective.REDUCE)
_SHARES: Final = (Collective.ALL_GATHER, Collective.REDUCE_SCATTER)


@dataclass(frozen=True, slots=True)
class WayCost:
    """NCCL's prediction of a way for one size: ``NcclTuner.time_s`` without arrays."""

    latency_s: float
    plateau_s: float
    plateau_from_bytes: float
    bytes_per_s: float
    corrections: tuple[float, ...]

    def correction(self, size_bytes: float) -> float:
        """Factor of the bandwidth."""
        place = max(0, int(size_bytes // 64).bit_length() - 1)
        return self.corrections[place] if place < len(self.corrections) else 1.0

    def bend(self, size_bytes: float) -> float:
        """The factor between the table's sizes: straight in the logarithm, without steps."""
        place = math.log2(max(size_bytes, 64.0) / 64)
        below = int(place)
        if below >= len(self.corrections):
            return 1.0
        here, above = (*self.corrections, 1.0)[below : below + 2]
        return here + (above - here) * (place - below)

    def fixed_s(self, size_bytes: float) -> float:
        """What does not grow with the bytes. [s]"""
        return self.plateau_s if size_bytes >= self.plateau_from_bytes else self.latency_s

    def time_s(self, size_bytes: float) -> float:
        """NCCL's prediction for a buffer of this size. [s]"""
        bytes_per_s = self.bytes_per_s * self.correction(size_bytes)
        return self.fixed_s(size_bytes) + size_bytes / bytes_per_s


@dataclass(frozen=True, slots=True)
class NcclTuner:
    """NCCL's tuner for one job and collective."""

    job: Job
    collective: Collective
    figures: NcclTunerFigures

    @property
    def cap(self) -> CapFigures:
        """Caps of the job's generation."""
        return self.figures.cap[_GENERATION[self.job.architecture]]

    @property
    def ll_bytes_per_s(self) -> float:
        """Cap of LL: by generation on one node, by the CPU on several. [B/s]"""
        if self.job.net is None:
            return self.cap.ll[0]
        row = "ampere" if self.job.cpu is Cpu.AMD else "volta"
        return self.figures.cap[row].ll[self.column]

    @property
    def column(self) -> int:
        """One node, two, more."""
        return min(self.job.cliques, 3) - 1

    @property
    def steps(self) -> int:
        """Steps of a ring: 2(n-1) to reduce and gather, n-1 for one of both, n for a whole."""
        n = self.job.ranks
        if self.collective is Collective.ALL_REDUCE:
            return 2 * (n - 1)
        return n - 1 if self.collective in _SHARES else n

    @property
    def inter_steps(self) -> int:
        """Steps of a ring that cross the network."""
        crossings = self.job.cliques - 1
        return 2 * crossings if self.collective is Collective.ALL_REDUCE else crossings

    @property
    def rate_bytes_per_s(self) -> float:
        """What all channels together carry over a job's slowest part. [B/s]"""
        rates = [self.intra_bytes_per_s, self.net_bytes_per_s]
        return min(rate for rate in rates if rate is not None)

    @property
    def intra_bytes_per_s(self) -> float | None:
        """What NCCL counts on inside a clique. [B/s]"""
        intra, ratios = self.job.intra, self.figures.rates
        if intra is None:
            return None
        if intra.kind is IntraKind.HOST:
            return intra.bytes_per_s * ratios.host_ratio
        if self.job.is_pcie:
            return intra.bytes_per_s * ratios.pci_ratio
        return intra.bytes_per_s * ratios.nvlink_ratio[_GENERATION[self.job.architecture]]

    @property
    def net_bytes_per_s(self) -> float | None:
        """What NCCL counts on between cliques. [B/s]"""
        return None if self.job.net is None else self.job.net.bytes_per_s * self._net_ratio

    @property
    def _net_ratio(self) -> float:
        return self.figures.rates.net_ratio

    @property
    def channels(self) -> int:
        """How many rings lie side by side."""
        told = self.figures.channels[_GENERATION[self.job.architecture]]
        inside = told.pci if self.job.intra is None or self.job.is_pcie else told.nvlink
        if self.job.net is None:
            return inside
        across = max(2, math.ceil(self.rate_bytes_per_s / told.inter_bytes_per_s))
        return across if self.job.intra is None else min(inside, across)

    def hop_s(self, way: Way) -> float:
        """Constant of a hop inside a clique. [s]"""
        return self._hop(self.figures.hop_s.pci if self._pci else self.figures.hop_s.nvlink, way)

    def net_hop_s(self, way: Way) -> float:
        """Constant of a hop between cliques; Tree's where every rank is alone in its clique. [s]"""
        row = self.figures.hop_s.net
        return row.tree[_index(way)] if self.job.per_clique == 1 else self._hop(row, way)

    def declared_s(self, way: Way) -> float:
        """What NCCL adds to a hop as its network's plug-in declares, twice that for Simple. [s]"""
        declared_s = 0.0 if self.job.net is None else self.job.net.declared_s
        return declared_s * (2 if way.protocol is Protocol.SIMPLE else 1)

    @property
    def _pci(self) -> bool:
        return self.job.is_pcie

    @staticmethod
    def _hop(by_family: ByFamily, way: Way) -> float:
        row = by_family.tree if way.algorithm is TREE else by_family.ring
        return row[_index(way)]

    def base_s(self, way: Way) -> float:
        """Constant of an operation. [s]"""
        by_family = self.figures.base_s
        if way.algorithm is TREE:
            return by_family.tree[_index(way)]
        return (by_family.pat if way.algorithm is PAT else by_family.ring)[_index(way)]

    def latency_s(self, way: Way) -> float:
        """What an operation takes without its bytes; net: NCCL's constant and what is declared. [s]

        Ring: ``base + (steps - inter) max(hop, proxy) + inter net``; tree: ``base
        + 2 ((g - 1) hop + floor(log2 N) net)``; in-switch: its constant, and two NVLSTree hops for
        each doubling of the cliques. A whole pays one hop: across cliques net, from knowledge.
        """
        job, simple = self.job, self.figures.simple_s
        doublings, declared_s = job.cliques.bit_length() - 1, self.declared_s(way)
        match way.algorithm:
            case AlgorithmName.RING:
                return self._ring_latency_s(way)
            case AlgorithmName.DOUBLE_BINARY_TREE:
                inside = (job.per_clique - 1) * self.hop_s(way)
                across = doublings * (self.net_hop_s(way) + declared_s)
                return self.base_s(way) + 2 * (inside + across)
            case AlgorithmName.NVLS:
                return simple.nvls + (simple.nvls_net + declared_s if job.net else 0.0)
            case AlgorithmName.NVLS_TREE:
                return simple.nvls + 2 * doublings * (simple.nvls_tree_net + declared_s)
            case AlgorithmName.COLLNET:
                inside_s = 2 * (job.per_clique - 1) * simple.collnet_intra
                return inside_s + simple.collnet_net + declared_s
            case AlgorithmName.PAT:
                hop_s = (simple.pat_net + declared_s) / 3.5
                hops_s = doublings * hop_s + simple.pat_per_rank * job.ranks
                return self.base_s(way) + hops_s
        raise AssertionError(f"NCCL has no {way.algorithm}")

    def _ring_latency_s(self, way: Way) -> float:
        base_s = self.base_s(way)
        across_s = self.net_hop_s(way) + self.declared_s(way)
        if self.collective in _WHOLE:
            return base_s + (self.hop_s(way) if self.job.net is None else across_s)
        inside = (self.steps - self.inter_steps) * max(self.hop_s(way), self.proxy_s(way))
        return base_s + inside + self.inter_steps * across_s

    def proxy_s(self, way: Way) -> float:
        """What the CPU's proxy needs for a step, three times that for Simple. [s]"""
        if self.job.net is None:
            return 0.0
        times = 3 if way.protocol is Protocol.SIMPLE else 1
        return times * self.figures.proxy_s[self.job.cpu]

    def bytes_per_s(self, way: Way) -> float:
        """Algorithm bandwidth of a large operation. [B/s]"""
        bus = self.rate_bytes_per_s
        match way.algorithm:
            case AlgorithmName.RING:
                return self._ring_bus(bus, way) * self.job.ranks / self.steps
            case AlgorithmName.DOUBLE_BINARY_TREE:
                return self._tree_bus(bus, way) / 2
            case AlgorithmName.NVLS:
                return self._nvls_bus() * self.job.ranks / self.steps
            case AlgorithmName.NVLS_TREE:
                return self._nvls_tree_bus() * self.job.ranks / self.steps
            case AlgorithmName.COLLNET:
                return bus / 2 * (2 if self.collective is Collective.ALL_REDUCE else 1)
            case AlgorithmName.PAT:
                return bus * self.figures.pat.ratio * self.job.ranks / self.steps
        raise AssertionError(f"NCCL has no {way.algorithm}")

    def _ring_bus(self, bus: float, way: Way) -> float:
        if way.protocol is Protocol.LL:
            return min(bus * self.figures.ring.ll_ratio, self.ll_bytes_per_s)
        if way.protocol is Protocol.LL128:
            most = self.channels * self.cap.ring_ll128_per_channel[self.column]
            return min(bus * self.figures.ring.ll128_ratio, most)
        return bus

    def _tree_bus(self, bus: float, way: Way) -> float:
        """Over two cliques each one sends half its bytes up in one tree, half down in the other.

        From knowledge of NCCL's search, which there looks for links inside up to twice as fast as
        the network's; 8 GH200 on two nodes measure 1.58 times the network's rate.
        """
        figures, cap, column = self.figures.tree, self.cap, self.column
        if self.job.cliques == 2 and self.net_bytes_per_s is not None:
            inside = self.intra_bytes_per_s
            across = 2 * self.net_bytes_per_s
            bus = across if inside is None else min(inside, across)
        bus = min(bus * figures.ratio, self.channels * cap.tree_per_channel[column])
        if way.protocol is Protocol.LL:
            return min(bus / figures.ll_divisor, self.ll_bytes_per_s)
        if way.protocol is Protocol.LL128:
            ratio = figures.ll128_one_node_ratio if self.job.net is None else figures.ll128_ratio
            return min(bus * ratio, self.channels * cap.tree_ll128_per_channel[column])
        return bus

    @property
    def nvls_bytes_per_s(self) -> float:
        """What reduces in the switch: NVLS' channels, one of them less. [B/s]"""
        told = self.figures.channels[_GENERATION[self.job.architecture]]
        intra = self.job.intra
        assert intra is not None, "in-switch reduction needs a switch"
        rate = min(told.nvls_bytes_per_s, intra.bytes_per_s)
        return rate * self.cap.nvls_efficiency_ratio * (told.nvls - 1) / told.nvls

    def _nvls_bus(self) -> float:
        n = self.job.per_clique
        gain = 2.0 if self.collective is Collective.ALL_REDUCE else (n - 1) / n
        bus = self.nvls_bytes_per_s * gain
        return bus if self.net_bytes_per_s is None else min(bus, self.net_bytes_per_s)

    def _nvls_tree_bus(self) -> float:
        net = self.net_bytes_per_s
        assert net is not None, "NVLSTree is for several nodes"
        across = net * (2 if self.job.cliques == 2 else 1)
        told = self.figures.channels[_GENERATION[self.job.architecture]]
        most = 2 * told.nvls * self.cap.nvls_tree_per_channel[self.column]
        return min(self.nvls_bytes_per_s * 2, across, most)

    def time_s(self, way: Way, sizes_bytes: FloatArray) -> FloatArray:
        """NCCL's prediction for buffers of these sizes, shape (m,). [s]"""
        return self.plateau(way, sizes_bytes) * self.latency_s(way) + sizes_bytes / (
            self.bytes_per_s(way) * self.correction(way, sizes_bytes)
        )

    def correction(self, way: Way, sizes_bytes: FloatArray) -> FloatArray:
        """Factor of a tree's bandwidth by size, shape (m,); 1 for all others and from 512 MB on."""
        table = np.array([*self._corrections(way), 1.0])
        doublings = np.floor(np.log2(np.maximum(sizes_bytes, 64.0) / 64))
        return np.asarray(table[np.minimum(doublings, len(table) - 1).astype(np.int64)])

    def bend(self, way: Way, sizes_bytes: FloatArray) -> FloatArray:
        """The factor between the table's sizes, shape (m,): straight in the logarithm.

        NCCL takes the table in steps, by which some byte more is up to 25 % faster; no run is.
        """
        table = np.array([*self._corrections(way), 1.0])
        place = np.log2(np.maximum(sizes_bytes, 64.0) / 64)
        return np.asarray(np.interp(place, np.arange(len(table)), table))

    def _corrections(self, way: Way) -> tuple[float, ...]:
        """A tree's row of the table; NVLSTree has one on Blackwell beside a CPU of Intel or AMD."""
        job = self.job
        is_x86 = job.cpu in (Cpu.INTEL, Cpu.AMD)
        is_bent = job.architecture is Architecture.BLACKWELL and is_x86
        if way.algorithm is TREE or (way.algorithm is NVLS_TREE and is_bent):
            row: tuple[float, ...] = getattr(self.figures.tree_correction, PROTOCOLS[_index(way)])
            return row
        return ()

    def cost(self, way: Way) -> "WayCost":
        """A way's prediction, ready for any single size."""
        many = np.array([math.inf])
        latency_s, least = self.latency_s(way), self.figures.ring.plateau_least_bytes
        return WayCost(
            latency_s=latency_s,
            plateau_s=latency_s * float(self.plateau(way, many)[0]),
            plateau_from_bytes=least * self.channels * self.job.ranks,
            bytes_per_s=self.bytes_per_s(way),
            corrections=self._corrections(way),
        )

    def plateau(self, way: Way, sizes_bytes: FloatArray) -> FloatArray:
        """Factor of a ring's latency: Simple across nodes, from 64 B a channel and rank on."""
        figures, job = self.figures.ring, self.job
        reduces = self.collective is Collective.ALL_REDUCE
        if way != Way(RING, Protocol.SIMPLE) or job.net is None or not reduces:
            return np.ones_like(sizes_bytes)
        old = _GENERATION[job.architecture] == "volta"
        ratio = figures.plateau_before_ampere_ratio if old else figures.plateau_ratio
        share = sizes_bytes / (self.channels * job.ranks)
        return np.where(share >= figures.plateau_least_bytes, ratio, 1.0)


def nccl_ways(job: Job, collective: Collective, *, is_integer: bool = False) -> tuple[Way, ...]:
    """What NCCL can choose from for a collective on a job, in the order of its own list.

    LL128 not over PCIe nor before Volta; in the switch only from Hopper on, with three GPUs or more
    and no integer sums; PAT only where every rank is alone in its node.
    """
    reduces = collective in (Collective.ALL_REDUCE, Collective.REDUCE_SCATTER)
    has_ll128 = job.has_ll128 and not job.is_pcie and job.architecture is not Architecture.PASCAL
    protocols = [p for p in PROTOCOLS if has_ll128 or p is not Protocol.LL128]
    ways: list[Way] = []
    if collective is Collective.ALL_REDUCE:
        ways += [Way(TREE, protocol) for protocol in protocols]
    if collective in (Collective.ALL_REDUCE, *_SHARES, *_WHOLE):
        ways += [Way(RING, protocol) for protocol in protocols]
    in_switch = (
        job.reduces_in_switch
        and job.intra is not None
        and job.intra.kind is IntraKind.NVSWITCH
        and job.per_clique > 2
        and not (is_integer and reduces)
    )
    if in_switch and job.net is None and collective in (Collective.ALL_REDUCE, *_SHARES):
        ways.append(Way(NVLS, Protocol.SIMPLE))
    if in_switch and job.net is not None and collective is Collective.ALL_REDUCE:
        ways.append(Way(NVLS_TREE, Protocol.SIMPLE))
    if job.network_reduces and job.net is not None and collective is Collective.ALL_REDUCE:
        ways.append(Way(COLLNET, Protocol.SIMPLE))
    if job.per_clique == 1 and job.net is not None and collective in _SHARES:
        ways.append(Way(PAT, Protocol.SIMPLE))
    return tuple(ways)


def _index(way: Way) -> int:
    assert way.protocol is not None, "every way of NCCL has a protocol"
    return PROTOCOLS.index(way.protocol)

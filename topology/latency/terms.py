"""Terms: what an operation's time is made of, way by way; each term names the figures it obeys.

A term is ``f (fixed + per_byte S + per_root_byte sqrt(S) + per_piece_byte min(S, piece))``, f the
product of its figures' factors. Priors are NCCL's constants and nominal rates; calibration
moves the factors. The root is the ramp: links fill up as a message grows, which costs the more the
longer they take to move it. The last form fills a pipeline: its first piece crosses every hop.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from topology.latency.job import Job, Net
from topology.latency.nccl_tuner import (
    COLLNET,
    NVLS,
    NVLS_TREE,
    PAT,
    RING,
    TREE,
    NcclTuner,
    Way,
)
from topology.latency.operation import Operation
from topology.latency.stack import PriorFigures, load_stack_figures
from topology.words import AlgorithmName, Collective, Launch, Protocol

FloatArray = NDArray[np.float64]


class Part(StrEnum):
    """What a term counts."""

    LAUNCH = "launch"
    BASE = "base"
    HOPS = "hops"
    NET_HOPS = "net_hops"
    BANDWIDTH = "bandwidth"
    RAMP = "ramp"
    FILL = "fill"


@dataclass(frozen=True, slots=True)
class Term:
    """One summand. ``wire_s``: how much of it light and switches need; ``bends``: a tree's bytes.

    ``blocks``: it runs beside the operation, not before it: the longer of both counts.
    ``piece_bytes``: what a pipeline sends on at once, at most; a way has one such term.
    """

    part: Part
    figures: tuple[str, ...]
    fixed_s: float = 0.0
    per_byte_s: float = 0.0
    per_root_byte_s: float = 0.0
    per_piece_byte_s: float = 0.0
    piece_bytes: float = 0.0
    wire_s: float = 0.0
    bends: bool = False
    blocks: bool = False


PIECE_BYTES: Final = 65536.0
"""What a tree sends on at once, at most. E1: between LL's slots and Simple's slices."""


def terms_of(tuner: NcclTuner, way: Way, operation: Operation) -> tuple[Term, ...]:
    """The terms of a way, launch first."""
    return (launch_term(tuner.job, operation), *_TERMS[way.algorithm](tuner, way, operation))


def launch_term(job: Job, operation: Operation) -> Term:
    """Starting the operation; one thread serves the GPUs of its node one after another.

    Ranks that are started eagerly wait for the latest of them; a pair that sends does not, for
    what is sent is buffered.
    """
    launch = operation.launch
    if launch is Launch.EAGER and operation.collective is Collective.SENDRECV:
        launch = Launch.PROCESS
    prior = load_stack_figures().launch[launch]
    fixed_s = prior.once_s + prior.per_further_gpu_s * (job.per_clique - 1)
    names = _named("launch", launch, job.architecture)
    if launch is Launch.EAGER:
        library = operation.library or "torch"
        names = ("launch.eager", f"launch.eager.{job.cpu}", f"launch.eager.{library}")
    return Term(
        Part.LAUNCH,
        names,
        fixed_s=fixed_s,
        blocks=launch in (Launch.THREAD, Launch.EAGER),
    )


def _ring(tuner: NcclTuner, way: Way, operation: Operation) -> Iterator[Term]:
    yield _base(tuner, way, tuner.base_s(way) - _contained_launch_s())
    if operation.collective in (Collective.BROADCAST, Collective.REDUCE):
        yield from _chain(tuner, way)
    else:
        inter = tuner.inter_steps
        each_s = max(tuner.hop_s(way), tuner.proxy_s(way))
        yield _hops(tuner, way, tuner.steps - inter, each_s)
        yield from _net_hops(tuner, way, inter, tuner.net_hop_s(way))
    yield from _bytes(tuner, way, tuner.bytes_per_s(way))


def _chain(tuner: NcclTuner, way: Way) -> Iterator[Term]:
    """A pipelined chain: only the first pieces, one a channel, wait at every rank."""
    job, hops, across = tuner.job, tuner.job.ranks - 1, tuner.job.cliques - 1
    alpha_s = job.intra.alpha_s if job.intra else 0.0
    quarter_s = max(tuner.hop_s(way) / 4, alpha_s) * (hops - across)
    names = _named("chain", _medium(job), job.architecture)
    yield Term(Part.HOPS, names, fixed_s=quarter_s, wire_s=alpha_s * (hops - across))
    yield from _net_hops(tuner, way, across, tuner.net_hop_s(way) / 4)
    if way.protocol is not Protocol.SIMPLE:  # shorter pieces, of which no measurement tells
        return
    yield Term(
        Part.FILL,
        ("fill.chain", f"fill.chain.{'net' if job.intra is None else _inside(job)}"),
        per_piece_byte_s=hops / tuner.bytes_per_s(way),
        piece_bytes=tuner.channels * load_stack_figures().pipeline.piece_bytes,
    )


def _tree(tuner: NcclTuner, way: Way, operation: Operation) -> Iterator[Term]:
    job = tuner.job
    yield _base(tuner, way, tuner.base_s(way) - _contained_launch_s())
    yield _hops(tuner, way, 2 * (job.per_clique - 1), tuner.hop_s(way))
    if job.net is not None:
        hops = 2 * np.log2(job.cliques)
        yield from _net_hops(tuner, way, hops, tuner.net_hop_s(way))
        yield _tree_fill(job.net, way, hops)
    yield from _bytes(tuner, way, tuner.bytes_per_s(way), bends=True)


def _tree_fill(net: Net, way: Way, hops: float) -> Term:
    """A small buffer is one piece: at every hop it crosses the PCIe link, then one NIC's port."""
    assert way.protocol is not None, "NCCL's operations have a protocol"
    ratio = load_stack_figures().protocol[way.protocol].payload_ratio
    return Term(
        Part.FILL,
        ("fill", f"fill.{net.kind}", f"fill.{way.protocol}"),
        per_piece_byte_s=2 * hops / (net.one_nic_bytes_per_s * ratio),
        piece_bytes=PIECE_BYTES,
    )


def _in_switch(tuner: NcclTuner, way: Way, operation: Operation) -> Iterator[Term]:
    job, simple = tuner.job, tuner.figures.simple_s
    assert job.intra is not None, "in-switch reduction needs a switch"
    yield Term(
        Part.HOPS,
        ("nvls", f"nvls.{job.architecture}"),
        fixed_s=simple.nvls - _contained_launch_s(),
        wire_s=2 * job.intra.alpha_s,
    )
    if way.algorithm is NVLS_TREE:
        hops = 2 * np.log2(job.cliques)
        yield from _net_hops(tuner, way, hops, simple.nvls_tree_net)
    yield from _bytes(tuner, way, in_switch_bytes_per_s(tuner, way, operation.collective))


NVLS_RANKS: Final = 8
"""Where NCCL's figure of NVLS is taken to hold: its constants were set on nodes of eight.

More ranks behind one switch count as eight: no run of them was published. The ramp grows with the
ranks, each of which has a part that fills up: E1, in proportion, as four and eight ranks show.
"""


def in_switch_bytes_per_s(tuner: NcclTuner, way: Way, collective: Collective) -> float:
    """Algorithm bandwidth of a sum in the switch. [B/s]

    A GPU's link carries its buffer to the switch once, and its n-th part of the sum on top:
    ``(1 + 1/n) S`` a way. NCCL counts ``2 (n-1)/n S``, as if it were a ring, by which four GPUs
    would be faster than eight; measured, they are slower. Across cliques NCCL's count stands.
    """
    if collective is not Collective.ALL_REDUCE or tuner.job.net is not None:
        return tuner.bytes_per_s(way)
    n = min(tuner.job.ranks, NVLS_RANKS)
    of_eight = tuner.nvls_bytes_per_s * NVLS_RANKS / (NVLS_RANKS - 1)
    return of_eight * (1 + 1 / NVLS_RANKS) / (1 + 1 / n)


def _collnet(tuner: NcclTuner, way: Way, operation: Operation) -> Iterator[Term]:
    job, simple = tuner.job, tuner.figures.simple_s
    inside = 2 * (job.per_clique - 1)
    wire_s = inside * job.intra.alpha_s if job.intra else 0.0
    fixed_s = inside * simple.collnet_intra
    yield Term(Part.HOPS, _named("hop", _medium(job), "simple"), fixed_s=fixed_s, wire_s=wire_s)
    yield from _net_hops(tuner, way, 1, simple.collnet_net)
    yield from _bytes(tuner, way, tuner.bytes_per_s(way))


def _pat(tuner: NcclTuner, way: Way, operation: Operation) -> Iterator[Term]:
    job, simple = tuner.job, tuner.figures.simple_s
    yield _base(
        tuner, way, tuner.base_s(way) - _contained_launch_s() + simple.pat_per_rank * job.ranks
    )
    yield from _net_hops(tuner, way, np.log2(job.cliques), simple.pat_net / 3.5)
    yield from _bytes(tuner, way, tuner.bytes_per_s(way))


def _point_to_point(tuner: NcclTuner, way: Way, operation: Operation) -> Iterator[Term]:
    """Send and receive of all peers at once: all-to-all, sendrecv."""
    job = tuner.job
    assert way.protocol is not None, "NCCL's operations have a protocol"
    yield Term(
        Part.BASE,
        _named("p2p", way.protocol, job.architecture),
        fixed_s=_priors().point_to_point_s[way.protocol],
    )
    yield Term(Part.HOPS, (f"peer.{_medium(job)}",), fixed_s=_peers_s(tuner, operation.collective))
    if job.net is not None:
        yield from _net_hops(tuner, way, 1, tuner.net_hop_s(way))
    rate = point_to_point_bytes_per_s(tuner, operation.collective)
    yield from _bytes(tuner, way, rate * (0.5 if way.protocol is Protocol.LL else 1.0))


def _peers_s(tuner: NcclTuner, collective: Collective) -> float:
    """What further peers cost; a CPU's proxy posts a send and a receive for each across. [s]

    Of a rank in the largest clique: in smaller ones more peers are across.
    """
    job = tuner.job
    peers, across = job.ranks - 1, job.ranks - job.per_clique
    if collective is Collective.SENDRECV:
        peers, across = 1, int(job.net is not None)
    posts_s = 2 * tuner.figures.proxy_s[job.cpu] * across
    return _priors().peer_s * (peers - across) + posts_s


def point_to_point_bytes_per_s(tuner: NcclTuner, collective: Collective) -> float:
    """Algorithm bandwidth of all-to-all or sendrecv: links inside, NICs across. [B/s]

    Of an all-to-all's buffer (n-1)/n leave a rank, (n-g)/n of them through its share of the NICs.
    Of a clique's ranks that send to the next one, one sends across, through the NICs nearest to it.
    """
    job = tuner.job
    n, g = job.ranks, job.per_clique
    inside, across = tuner.intra_bytes_per_s, tuner.net_bytes_per_s
    sends = collective is Collective.SENDRECV
    rates = [] if inside is None else [inside * (1 if sends else n / max(1, g - 1))]
    if job.net is not None and across is not None:
        nearest = max(1, job.net.nics // g) / job.net.nics
        rates.append(across * nearest if sends else across / g * n / (n - g))
    return min(rates)


def _one_shot(tuner: NcclTuner, way: Way, operation: Operation) -> Iterator[Term]:
    """Each rank reads all others' whole buffers."""
    job = tuner.job
    yield Term(Part.BASE, _custom("one_shot", operation, job), fixed_s=_priors().one_shot_s)
    inside = tuner.intra_bytes_per_s
    assert inside is not None, "custom kernels need links inside a node"
    yield from _bytes(tuner, way, inside / (job.ranks - 1))


def _two_shot(tuner: NcclTuner, way: Way, operation: Operation) -> Iterator[Term]:
    """Each rank reduces its share of all, then reads the others' shares."""
    n, inside = tuner.job.ranks, tuner.intra_bytes_per_s
    yield Term(Part.BASE, _custom("two_shot", operation, tuner.job), fixed_s=_priors().two_shot_s)
    assert inside is not None, "custom kernels need links inside a node"
    yield from _bytes(tuner, way, inside * n / (2 * (n - 1)))


_TERMS: Final = {
    RING: _ring,
    TREE: _tree,
    NVLS: _in_switch,
    NVLS_TREE: _in_switch,
    COLLNET: _collnet,
    PAT: _pat,
    AlgorithmName.DIRECT: _point_to_point,
    AlgorithmName.ONE_SHOT: _one_shot,
    AlgorithmName.TWO_SHOT: _two_shot,
}


def _base(tuner: NcclTuner, way: Way, fixed_s: float) -> Term:
    """Software once per operation."""
    medium, architecture = _medium(tuner.job), tuner.job.architecture
    names = (
        f"base.{way.protocol}",
        f"base.{medium}.{architecture}",
        f"base.{way.protocol}.{architecture}",
        f"base.{tuner.collective}",
    )
    return Term(Part.BASE, names, fixed_s=fixed_s)


def _hops(tuner: NcclTuner, way: Way, hops: float, each_s: float) -> Term:
    """Hops inside a clique; the constant contains the wire."""
    job, inside = tuner.job, _inside(tuner.job)
    alpha_s = job.intra.alpha_s if job.intra else 0.0
    names = (
        f"hop.{inside}.{way.protocol}",
        f"hop.{inside}.{job.architecture}",
        f"hop.{inside}.{way.protocol}.{job.architecture}",
    )
    return Term(Part.HOPS, names, fixed_s=hops * each_s, wire_s=hops * alpha_s)


def _net_hops(tuner: NcclTuner, way: Way, hops: float, each_s: float) -> Iterator[Term]:
    """Hops between cliques, never below the wire, and what a plug-in costs an operation.

    Once an operation: so four published runs over EFA are met, of 2, 4 and 8 nodes, by rings and by
    a tree, where its plug-in's latency at every hop would make 8 nodes twice as slow as they are.
    """
    net = tuner.job.net
    if net is None or not hops:
        return
    if net.declared_s:
        yield Term(Part.BASE, ("plugin", f"plugin.{net.kind}"), fixed_s=net.declared_s)
    protocol = "in_switch" if way.algorithm in (NVLS_TREE, NVLS, COLLNET) else way.protocol
    yield Term(
        Part.NET_HOPS,
        (f"net.{net.kind}", f"net.{protocol}", f"net.{net.kind}.{protocol}"),
        fixed_s=hops * max(each_s, net.alpha_s),
        wire_s=hops * net.alpha_s,
    )


def _bytes(
    tuner: NcclTuner, way: Way, bytes_per_s: float, *, bends: bool = False
) -> Iterator[Term]:
    """Moving the buffer, and the ramp of the links it goes over."""
    job, per_byte_s = tuner.job, 1 / bytes_per_s
    medium, link = _medium(job), _link(job)
    protocol = way.protocol or "custom"
    names = [
        f"bandwidth.way.{way.algorithm}.{protocol}.{medium}",
        f"bandwidth.link.{link}",
        f"bandwidth.gpu.{link}.{job.architecture}",
        collective_figure(job, tuner.collective),
    ]
    if job.ranks == 2:
        names.append(f"bandwidth.pair.{medium}")
    if way.protocol is Protocol.LL:
        names.append(f"bandwidth.ll.{link}")
    yield Term(Part.BANDWIDTH, tuple(names), per_byte_s=per_byte_s, bends=bends)
    if way.protocol is Protocol.LL:
        return
    ramp = (f"ramp.{way.algorithm}.{protocol}", f"ramp.{link}", f"ramp.{link}.{job.architecture}")
    root_s = (per_byte_s * _priors().ramp_s) ** 0.5
    if way.algorithm in (NVLS, NVLS_TREE):
        root_s *= min(job.per_clique, NVLS_RANKS) / NVLS_RANKS
    yield Term(Part.RAMP, ramp, per_root_byte_s=root_s)


def collective_figure(job: Job, collective: Collective) -> str:
    """The figure of a collective over what limits a job: fitted where anyone measured it."""
    return f"bandwidth.collective.{collective}.{_medium(job)}"


def _link(job: Job) -> str:
    """The links that limit: the network's where there is one."""
    if job.net is not None:
        return str(job.net.kind)
    return str(job.intra.kind) if job.intra else "none"


def _medium(job: Job) -> str:
    """What limits a job: the network where there is one, else PCIe or NVLink."""
    if job.net is not None:
        return "net"
    return "pci" if job.is_pcie else "nvlink"


def _inside(job: Job) -> str:
    """What most hops of a ring or a tree go over."""
    return "pci" if job.is_pcie else "nvlink"


def _named(*parts: object) -> tuple[str, ...]:
    """``a.b`` and ``a.b.c``: a figure, and what is special of it."""
    texts = [str(part) for part in parts]
    return (".".join(texts[:2]), ".".join(texts))


def _custom(name: str, operation: Operation, job: Job) -> tuple[str, ...]:
    library = (f"{name}.{operation.library}",) if operation.library else ()
    return (name, *library, f"custom.{job.architecture}")


def _priors() -> PriorFigures:
    return load_stack_figures().prior


def _contained_launch_s() -> float:
    return load_stack_figures().nccl.contained_launch_s

"""Routes between nodes: out over the NICs of one GPU, through switches, and in again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from topology.fabric.link_figures import LinkFigures
from topology.fabric.network import Network, nic_vertex
from topology.fabric.node_graph import NodeGraph
from topology.fabric.routes import (
    Endpoint,
    Hop,
    HopPlace,
    LinkKind,
    Route,
    Unreachable,
    UnreachableReason,
    make_route,
    path_hops,
)


def network_route(
    ends: tuple[tuple[NodeGraph, Endpoint], tuple[NodeGraph, Endpoint]],
    network: Network,
    figures: LinkFigures,
) -> Route | Unreachable:
    """The way between two nodes: PCIe to the nearest NIC, switches, and in again."""
    (node_a, a), (node_b, b) = ends
    nics = [node.nic_of_gpu.get(end.slot) for node, end in ends]
    for nic, (_, end) in zip(nics, ends, strict=True):
        if nic is None:
            return _unreachable_nic(end)
    assert nics[0] is not None
    assert nics[1] is not None
    places = [(a.host, nics[0]), (b.host, nics[1])]
    for place in places:
        if place not in network.leaf_of:
            return Unreachable(
                UnreachableReason.NO_CABLE,
                f"no cable from {place[0]} nic{place[1]} to a switch is known to be up; "
                "mend it, or add a source of the network",
            )
    leaves = [network.leaf_of[place].leaf for place in places]
    trunks = network.trunks_between(*leaves)
    if trunks < 0:
        text = f"no way from {leaves[0]} to {leaves[1]}"
        return Unreachable(UnreachableReason.SEPARATE_NETWORKS, text)
    rate = min(network.leaf_of[place].bytes_per_s for place in places)
    layer = network.layer_of[leaves[0]].value
    classes = figures.network_classes(layer, rate, nic_device=_nic_device(node_a, places[0][1]))
    route_class = classes[min(trunks // 2, len(classes) - 1)]
    chain = [
        nic_vertex(*places[0]),
        *network.switches_between(*leaves),
        nic_vertex(*places[1]),
    ]
    lanes = [Lanes.of(node, end, network) for node, end in ends]
    into, out = HopPlace.SOURCE_NODE, HopPlace.DESTINATION_NODE
    inner = path_hops(node_a, a.host, node_a.vertex(a.slot), f"nic{nics[0]}", into)
    outer = path_hops(node_b, b.host, f"nic{nics[1]}", node_b.vertex(b.slot), out)
    hops = [
        *inner[:-1],
        *(_times(hop, lanes[0].count) for hop in inner[-1:]),
        *_network_hops(network, chain, places, lanes),
        *(_times(hop, lanes[1].count) for hop in outer[:1]),
        *outer[1:],
    ]
    return make_route(figures, route_class, LinkKind.NET, hops)


@dataclass(frozen=True, slots=True)
class Lanes:
    """The NICs that one GPU sends through at once: their leaves, and their rates together."""

    leaves: tuple[str, ...]
    bytes_per_s: float

    @property
    def count(self) -> int:
        """NICs."""
        return len(self.leaves)

    @classmethod
    def of(cls, node: NodeGraph, end: Endpoint, network: Network) -> "Lanes":
        """Those NICs of an endpoint that are cabled; none where it has none."""
        nics = node.nics_of_gpu.get(end.slot, ())
        found = [a for nic in nics if (a := network.leaf_of.get((end.host, nic)))]
        return cls(tuple(a.leaf for a in found), sum(a.bytes_per_s for a in found))


def _times(hop: Hop, lanes: int) -> Hop:
    """A hop to a NIC as wide as to all NICs of its GPU."""
    return replace(hop, bytes_per_s=hop.bytes_per_s * lanes, count=hop.count * lanes)


def _nic_device(node: NodeGraph, slot: int) -> str | None:
    """PCI id of a NIC, None where no source tells."""
    return next((nic.vendor_device for nic in node.wiring.nics if nic.slot == slot), None)


def _network_hops(
    network: Network, chain: list[str], places: Sequence[tuple[str, int]], lanes: Sequence[Lanes]
) -> Iterator[Hop]:
    """Hops from NIC to NIC, one cable each; the tiers they cross come from their number.

    GPUs with several NICs send over as many cables side by side.
    """
    last = len(chain) - 2
    nics = [f"nic{slot}" for _, slot in places]
    common = min(lane.count for lane in lanes)
    for i, (u, v) in enumerate(pairwise(chain)):
        if i in (0, last):
            place = HopPlace.NIC_OUT if i == 0 else HopPlace.NIC_IN
        elif i * 2 <= last:
            place = HopPlace.LEAF_UP if i == 1 else HopPlace.POD_UP
        else:
            place = HopPlace.LEAF_DOWN if i == last - 1 else HopPlace.POD_DOWN
        local = {0: (nics[0], ""), last: ("", nics[1])}.get(i, ("", ""))
        link = network.host_link(places[i > 0]) if i in (0, last) else network.trunk(u, v)
        count = {0: lanes[0].count, last: lanes[1].count}.get(i, common)
        kind, alpha_s, rate = link.kind, link.alpha_s, link.bytes_per_s * count
        yield Hop(u, v, place, local, kind, alpha_s, rate, count, link.confidence)


def _unreachable_nic(end: Endpoint) -> Unreachable:
    return Unreachable(
        UnreachableReason.NO_NIC,
        f"{end} has no NIC it can reach; add a source that lists the NICs of {end.host}",
    )

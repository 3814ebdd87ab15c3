"""Wirings, fleets and networks by hand, so that a test shows only what is special."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

from fleet.fields import HostName, SwitchId
from fleet.merge import merge_snapshots, snapshots_of
from fleet.model import (
    Cable,
    CableEnd,
    FleetMap,
    GpuIdentity,
    NodeSnapshot,
    NvlinkFabric,
    Switch,
)
from fleet.sources.synthetic import fleet_from_spec
from fleet.wiring import (
    DevicePair,
    EndKind,
    GpuPort,
    GpuSlot,
    LinkLayer,
    LinkState,
    NicPort,
    NicSlot,
    PcieLevel,
    PortEnd,
    Wiring,
)
from topology.fabric.from_fleet import Fabric
from topology.fabric.link_figures import load_link_figures
from topology.fabric.node_graph import NodeGraph, build_node_graph
from topology.fabric.routes import Endpoint, Route, Unreachable

MODELS = (
    "dgx1-v100",
    "dgx-a100",
    "dgx-h100",
    "dgx-h200",
    "dgx-b200",
    "gb200-nvl72",
    "pcie-l40s",
    "beowulf-2006",
)
NDR_BYTES_PER_S = 50e9


def make_gpu(slot: int, *, ports: Iterable[GpuPort] = (), **facts: object) -> GpuSlot:
    return GpuSlot.model_validate({"slot": slot, "ports": tuple(ports), **facts})


def ports_to(kind: EndKind, index: int | None, count: int, *, first: int = 0) -> list[GpuPort]:
    """Ports that all end at one place, numbered from ``first``; NVLink 4, 25 GB/s each."""
    end = PortEnd(kind=kind, index=index)
    return [GpuPort(port=first + i, end=end, version="4.0", bytes_per_s=25e9) for i in range(count)]


def make_nic(slot: int, **facts: object) -> NicSlot:
    port = NicPort(port=1, link_layer=LinkLayer.INFINIBAND, bytes_per_s=NDR_BYTES_PER_S)
    return NicSlot.model_validate({"slot": slot, "ports": (port,), **facts})


def levels(rows: Mapping[tuple[str, str], PcieLevel]) -> tuple[DevicePair, ...]:
    return tuple(DevicePair(a=a, b=b, level=level) for (a, b), level in rows.items())


def node_graph(wiring: Wiring, *, in_rack_domain: bool = False) -> NodeGraph:
    return build_node_graph(wiring, load_link_figures(), in_rack_domain=in_rack_domain)


def snapshot(
    host: str, wiring: Wiring, fabric_of: Callable[[int], NvlinkFabric | None] = lambda _: None
) -> NodeSnapshot:
    return NodeSnapshot(
        kind="node_snapshot",
        schema_version=1,
        host=HostName(host),
        wiring=wiring,
        gpus=tuple(GpuIdentity(slot=g.slot, fabric=fabric_of(g.slot)) for g in wiring.gpus),
    )


def leaf(name: str, layer: LinkLayer | None = LinkLayer.INFINIBAND) -> Switch:
    return Switch(id=SwitchId(name), tier=0, link_layer=layer)


def spine(name: str, layer: LinkLayer | None = LinkLayer.INFINIBAND) -> Switch:
    return Switch(id=SwitchId(name), tier=1, link_layer=layer)


def cable(
    a: str | tuple[str, int],
    b: str | tuple[str, int],
    *,
    bytes_per_s: float = NDR_BYTES_PER_S,
    state: LinkState = LinkState.UP,
    port: int = 1,
) -> Cable:
    """A cable between switches (names) or NICs (host and slot)."""
    ends = [
        CableEnd(device=end, port=port)
        if isinstance(end, str)
        else CableEnd(device=end[0], nic=end[1], port=1)
        for end in (a, b)
    ]
    return Cable(a=ends[0], b=ends[1], bytes_per_s=bytes_per_s, state=state)


def hosts_of(count: int, *, nics: int = 1) -> list[NodeSnapshot]:
    """CPU nodes h0, h1 ... with NICs at the root complex."""
    wiring = Wiring(nics=tuple(make_nic(slot, numa=0) for slot in range(nics)))
    return [snapshot(f"h{i}", wiring) for i in range(count)]


def fabric_of(spec: str) -> Fabric:
    return Fabric(fleet_of(spec))


@cache
def fleet_of(spec: str) -> FleetMap:
    return fleet_from_spec(spec)


def joined(
    snapshots: Iterable[NodeSnapshot],
    switches: Sequence[Switch] = (),
    cables: Sequence[Cable] = (),
) -> Fabric:
    return Fabric(merge_snapshots(snapshots, switches=switches, cables=cables))


def rewired(fleet: FleetMap, change: Callable[[str, Wiring], Wiring]) -> FleetMap:
    """The fleet with every node's wiring changed; what lost its slot is gone."""
    changed = []
    for told in snapshots_of(fleet):
        wiring = change(told.host, told.wiring)
        slots = {gpu.slot for gpu in wiring.gpus}
        kept = tuple(gpu for gpu in told.gpus if gpu.slot in slots)
        changed.append(told.model_copy(update={"wiring": wiring, "gpus": kept}))
    return merge_snapshots(changed, switches=fleet.switches, cables=fleet.cables)


def with_port_down(wiring: Wiring, slot: int, ports: Iterable[int]) -> Wiring:
    """The wiring with ports of one GPU down."""
    down = set(ports)
    gpus = tuple(
        gpu
        if gpu.slot != slot
        else gpu.model_copy(
            update={
                "ports": tuple(
                    port.model_copy(update={"state": LinkState.DOWN}) if port.port in down else port
                    for port in gpu.ports
                )
            }
        )
        for gpu in wiring.gpus
    )
    return wiring.model_copy(update={"gpus": gpus})


def with_cables_down(fleet: FleetMap, is_down: Callable[[Cable], bool]) -> FleetMap:
    cables = tuple(
        c.model_copy(update={"state": LinkState.DOWN}) if is_down(c) else c for c in fleet.cables
    )
    return fleet.model_copy(update={"cables": cables})


def route_between(fabric: Fabric, a: str, b: str) -> Route:
    return fabric.reachable_route(fabric.endpoint_from_text(a), fabric.endpoint_from_text(b))


def unreachable_between(fabric: Fabric, a: str, b: str) -> Unreachable:
    route = fabric.route(fabric.endpoint_from_text(a), fabric.endpoint_from_text(b))
    assert isinstance(route, Unreachable)
    return route


def ends_of(fabric: Fabric, *texts: str) -> list[Endpoint]:
    return [fabric.endpoint_from_text(text) for text in texts]


def is_canonical(route: Route) -> bool:
    """Whether a route's hops are just those of its class."""
    return tuple(hop.kind for hop in route.hops) == route.route_class.edges

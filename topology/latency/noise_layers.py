"""Noise layers: which noise beyond single messages is on, and what of a schedule it can touch.

Hosts, leaves and uplinks of every message, in arrays; the drawing is ``layer_draws``'s.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from topology.collective.schedule import Schedule
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.fabric.graph import links_between
from topology.fabric.link_figures import LinkFigures
from topology.fabric.noise_layer_figures import (
    CollisionRow,
    CorrelatedRow,
    EpisodeRow,
    SkewRow,
    SlowRow,
    StallRow,
)
from topology.fabric.route_table import RouteMap, RouteTable
from topology.fabric.routes import HopPlace
from topology.latency.cost import route_schedule
from topology.words import NoiseLayer, NoiseName

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class RoundPlaces:
    """What the messages of a round touch; arrays of shape (m,).

    ``uplink_s``: what a message alone would take on one uplink of its leaf, 0 where no hash chooses
    one for it. ``needed_s``: what its busiest link is reckoned to need. Both for S = 1 byte. [s]
    """

    is_network: BoolArray
    uplink_s: FloatArray
    needed_s: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Who is where. ``host_of``, ``leaf_of``: (vertices,), the number behind the last for nowhere.

    ``ranks``: a name for each rank's place. ``uplinks``: of each leaf, shape (leaves,).
    """

    ranks: tuple[str, ...]
    hosts: tuple[str, ...]
    leaves: tuple[str, ...]
    host_of: IntArray
    leaf_of: IntArray
    uplinks: IntArray
    rounds: tuple[RoundPlaces, ...]


@dataclass(frozen=True, slots=True)
class LayerRows:
    """The figures of every layer under one noise profile."""

    skew: SkewRow
    stall: StallRow
    episode: EpisodeRow
    slow: SlowRow
    correlated: CorrelatedRow
    collision: CollisionRow


def layer_rows(figures: LinkFigures, noise: NoiseName) -> LayerRows:
    """The figures of every layer under a profile."""
    tables = figures.noise_layer
    return LayerRows(*(getattr(tables, layer.value)[noise.value] for layer in NoiseLayer))


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """Layers that are switched on, ready to draw from.

    ``slow_hosts``: the slow ones by name; None: ``share_ratio`` of all, drawn. ``calm_hosts``:
    hosts whose messages go without, though all is drawn as ever.
    """

    on: frozenset[NoiseLayer]
    rows: LayerRows
    places: Places
    slow_hosts: frozenset[str] | None = None
    calm_hosts: frozenset[str] = frozenset()

    def without(self, layer: NoiseLayer) -> "Layers":
        """The others, with the same draws."""
        return replace(self, on=self.on - {layer})

    def without_host(self, host: str) -> "Layers":
        """The same draws, but nothing of them for messages that a host sends or receives."""
        return replace(self, calm_hosts=self.calm_hosts | {host})

    def chance_of_episode(self) -> float:
        """Chance that a host is in an episode: episodes start at random and may overlap."""
        row = self.rows.episode
        return float(-np.expm1(-row.rate_per_s * row.duration_s))


def layers_of(
    fabric: Fabric,
    routes: RouteMap,
    schedule: Schedule,
    *,
    noise: NoiseName,
    names: Iterable[NoiseLayer],
    slow_hosts: Collection[str] | None = None,
) -> Layers | None:
    """The named layers under a noise profile for a schedule on its routes; None if none is named.

    ``slow_hosts``: hosts known to be slow; None: nobody knows, so they are drawn.

    Raises:
        WorkloadError: a slow host that the map does not have.
    """
    on = frozenset(names)
    for host in sorted(set(slow_hosts or ()) - {str(node.host) for node in fabric.nodes}):
        raise WorkloadError(f"no host {host} in the map", field="slow", remedy="name one of its")
    if not on or noise is NoiseName.NONE:
        return None
    slow = None if slow_hosts is None else frozenset(slow_hosts)
    return Layers(on, layer_rows(fabric.figures, noise), places_of(fabric, routes, schedule), slow)


def places_of(fabric: Fabric, routes: RouteMap, schedule: Schedule) -> Places:
    """Hosts, leaves and uplinks that a schedule's messages touch."""
    ends = routes.endpoints
    leaf_names = [_leaf(fabric, end.host, end.slot) for end in ends]
    leaves = tuple(dict.fromkeys(name for name in leaf_names if name is not None))
    hosts = tuple(dict.fromkeys(str(end.host) for end in ends))
    adaptive: dict[str, bool | None] = {
        str(switch.id): switch.adaptive_routing for switch in fabric.fleet.switches
    }
    ways = [_uplinks(fabric, leaf, adaptive[leaf]) for leaf in leaves]
    leaf_of = _numbers(leaf_names, leaves, schedule.vertices)
    rates = np.array([*(rate for _, rate in ways), np.inf])
    routed = route_schedule(schedule, routes, 1.0)
    rounds = (
        RoundPlaces(
            is_network=_lanes(table, HopPlace.NIC_OUT) > 0,
            uplink_s=_uplink_s(table, schedule.shares(round_), rates[leaf_of[round_.source]])
            * (round_.destination < schedule.ranks),
            needed_s=needed_s,
        )
        for round_, table, needed_s in zip(
            schedule.rounds, routed.tables, routed.bandwidth_s, strict=True
        )
    )
    return Places(
        ranks=tuple(str(end) for end in ends),
        hosts=hosts,
        leaves=leaves,
        host_of=_numbers([str(end.host) for end in ends], hosts, schedule.vertices),
        leaf_of=leaf_of,
        uplinks=np.array([count for count, _ in ways], dtype=np.int64),
        rounds=tuple(rounds),
    )


def _numbers(names: Sequence[str | None], known: Sequence[str], vertices: int) -> IntArray:
    number = {name: i for i, name in enumerate(known)}
    result = np.full(vertices, len(known), dtype=np.int64)
    result[: len(names)] = [len(known) if name is None else number[name] for name in names]
    return result


def _leaf(fabric: Fabric, host: str, slot: int) -> str | None:
    """The leaf of the first NIC of a place."""
    nic = fabric.node_of[host].graph.nic_of_gpu.get(slot)  # type: ignore[index]
    attached = None if nic is None else fabric.network.leaf_of.get((host, nic))
    return attached.leaf if attached else None


def _uplinks(fabric: Fabric, leaf: str, is_adaptive: bool | None) -> tuple[int, float]:
    """Cables up from a leaf on which a hash puts flows, and the rate of one; of none 1, inf.

    A switch that does not tell how it routes counts as static; an adaptive one does not hash.
    """
    network = fabric.network
    tier = network.tier_of[leaf]
    up = [n for n in network.graph.successors(leaf) if network.tier_of.get(n, -1) > tier]
    links = [link for n in up for link in links_between(network.graph, leaf, n)]
    if is_adaptive or not links:
        return 1, np.inf
    # The share of static routing is the mean of what is drawn here: the cable's own rate counts.
    share = 1.0 if is_adaptive is None else fabric.figures.trunk_share["static"].share_ratio
    return sum(link.count for link in links), min(link.bytes_per_s for link in links) / share


def _uplink_s(
    table: RouteTable, size_bytes: FloatArray, uplink_bytes_per_s: FloatArray
) -> FloatArray:
    """Time of each message alone on one uplink; a GPU with several NICs uses as many. [s]"""
    lanes = _lanes(table, HopPlace.LEAF_UP)
    efficiency = np.array([route.collective_efficiency_ratio for route in table.routes])
    rate = uplink_bytes_per_s * np.maximum(lanes, 1) * efficiency[table.route_of]
    return np.asarray(np.where(lanes > 0, size_bytes / rate, 0.0))


def _lanes(table: RouteTable, place: HopPlace) -> IntArray:
    """Cables side by side that each message takes at a place, 0 where it is not on its way."""
    of_route = [
        sum(hop.count for hop in route.hops if hop.place is place) for route in table.routes
    ]
    return np.array(of_route, dtype=np.int64)[table.route_of]

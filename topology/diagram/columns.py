"""Columns: nodes that share their leaves, folded, and the routes between them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, TypeAlias

from fleet import HostName
from fleet.naming import natural_key
from topology.diagram.legend import inside_samples
from topology.fabric.from_fleet import Fabric
from topology.fabric.graph import all_links
from topology.fabric.network import LEAF_TIER, host_of_vertex
from topology.fabric.routes import Endpoint, LinkKind, Route

MOST_COLUMNS: Final = 12
_ACROSS: Final = {0: "same leaf", 2: "through a spine", 4: "through a core"}

Vertex: TypeAlias = tuple[bool, str]


@dataclass(frozen=True, slots=True)
class Column:
    """Nodes that share leaves, those leaves, and their pods: drawn one above the other."""

    hosts: tuple[HostName, ...] = ()
    leaves: tuple[str, ...] = ()
    pods: frozenset[int] = frozenset()
    nvlink_switches: tuple[str, ...] = ()


def route_samples(fabric: Fabric, columns: Sequence[Column]) -> Iterator[tuple[str, Route]]:
    """A route of every class that occurs: inside nodes, inside a domain, by tiers crossed."""
    first_of = {id(node.graph): node for node in reversed(fabric.nodes)}
    for node in reversed(first_of.values()):
        yield from inside_samples(fabric, node)
    for domain in fabric.domains:
        if len(domain.hosts) > 1:
            far = next(e for e in domain.endpoints if e.host != domain.endpoints[0].host)
            route = fabric.route(domain.endpoints[0], far)
            if isinstance(route, Route) and route.link_kind is LinkKind.NVLINK:
                yield "same NVLink domain", route
                break
    yield from _network_samples(fabric, columns)


def _network_samples(fabric: Fabric, columns: Sequence[Column]) -> Iterator[tuple[str, Route]]:
    """The first route found for each number of switches crossed, from the first node."""
    hosts = [host for column in columns for host in (*column.hosts[:2], *column.hosts[-1:])]
    ends = [Endpoint(n.host, s) for h in hosts for n in (fabric.node_of[h],) for s in n.graph.slots]
    found: dict[int, Route] = {}
    for end in ends[1:]:
        trunks = _trunks_between(fabric, ends[0], end)
        if trunks is None or trunks in found or end.host == ends[0].host:
            continue
        route = fabric.route(ends[0], end)
        if not isinstance(route, Route) or route.link_kind is not LinkKind.NET:
            continue
        found[trunks] = route
    for trunks in sorted(found):
        yield _ACROSS.get(trunks, f"over {trunks} trunks"), found[trunks]


def _trunks_between(fabric: Fabric, a: Endpoint, b: Endpoint) -> int | None:
    network = fabric.network
    nics = [fabric.node_of[end.host].graph.nic_of_gpu.get(end.slot, -1) for end in (a, b)]
    near, far = network.leaf_of.get((a.host, nics[0])), network.leaf_of.get((b.host, nics[1]))
    if near is None or far is None:
        return None
    trunks = network.trunks_between(near.leaf, far.leaf)
    return trunks if trunks >= 0 else None


def columns(fabric: Fabric) -> list[Column]:
    """Nodes and leaves in at most a dozen columns: by unit, else by pod, else pods together."""
    columns = _units(fabric)
    if len(columns) > MOST_COLUMNS:
        by_pod: dict[frozenset[int], list[Column]] = defaultdict(list)
        for column in columns:
            by_pod[column.pods].append(column)
        pods = [_union(members) for members in by_pod.values()]
        step = -(-len(pods) // MOST_COLUMNS)
        columns = [_union(pods[i : i + step]) for i in range(0, len(pods), step)]
    return _with_nvlink_switches(fabric, columns)


def _units(fabric: Fabric) -> list[Column]:
    """Nodes and leaves that host cables join; what has none stands together."""
    network = fabric.network
    near: dict[Vertex, set[Vertex]] = {(True, node.host): set() for node in fabric.nodes}
    near |= {(False, s): set() for s, tier in network.tier_of.items() if tier == LEAF_TIER}
    for u, v, _ in all_links(network.graph):
        host = host_of_vertex(u)
        if host is not None and (False, v) in near:
            near[True, host].add((False, v))
            near[False, v].add((True, host))
    units: dict[Vertex | bool, set[Vertex]] = {}
    seen: set[Vertex] = set()
    for start in near:
        if start not in seen:
            unit = _reached(near, start)
            seen |= unit
            units.setdefault(start if len(unit) > 1 else start[0], set()).update(unit)
    return sorted((_unit(fabric, unit) for unit in units.values()), key=_column_key)


def _reached(near: dict[Vertex, set[Vertex]], start: Vertex) -> set[Vertex]:
    reached, frontier = {start}, [start]
    while frontier:
        fresh = near[frontier.pop()] - reached
        reached |= fresh
        frontier.extend(fresh)
    return reached


def _unit(fabric: Fabric, members: set[Vertex]) -> Column:
    hosts = sorted((HostName(name) for is_host, name in members if is_host), key=natural_key)
    leaves = sorted((name for is_host, name in members if not is_host), key=natural_key)
    pods = frozenset(fabric.network.pod_of[leaf] for leaf in leaves)
    return Column(tuple(hosts), tuple(leaves), pods)


def _column_key(column: Column) -> tuple[object, ...]:
    first = natural_key((*column.leaves, *column.hosts, "")[0])
    return not column.pods, min(column.pods, default=0), first


def _union(columns: Sequence[Column]) -> Column:
    return Column(
        tuple(host for column in columns for host in column.hosts),
        tuple(leaf for column in columns for leaf in column.leaves),
        frozenset(pod for column in columns for pod in column.pods),
    )


def _with_nvlink_switches(fabric: Fabric, columns: Sequence[Column]) -> list[Column]:
    """NVLink switches stand with the first nodes of their domain, the others by themselves."""
    switches: dict[str, list[str]] = defaultdict(list)
    for switch in fabric.fleet.switches:
        if switch.nvlink_domain is not None:
            switches[switch.nvlink_domain].append(switch.id)
    result = []
    for column in columns:
        names = {
            fabric.domains[number].name
            for host in column.hosts
            for number in fabric.node_of[host].domain_of_slot.values()
        }
        mine = [s for name in sorted(names) for s in switches.pop(name, [])]
        result.append(replace(column, nvlink_switches=tuple(mine)))
    others = tuple(chain.from_iterable(switches.values()))
    return [*result, Column(nvlink_switches=others)] if others else result

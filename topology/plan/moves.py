"""Moves: ways to place a workload on what is free. A move gives a placement or says why not."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from topology.collective.placement import (
    Placement,
    balance,
    domains_with_room,
    fewest_nodes,
    free_endpoints,
    largest_free_domain,
    pack,
    spread,
)
from topology.fabric.from_fleet import Fabric
from topology.fabric.routes import Endpoint


class Reason(StrEnum):
    """Why a candidate was not chosen. ``chosen``: it was."""

    CHOSEN = "chosen"
    NO_DOMAIN_HAS_ROOM = "no_domain_has_room"
    NO_LEAF_HAS_ROOM = "no_leaf_has_room"
    SAME_PLACEMENT = "same_placement"
    UNREACHABLE = "unreachable"
    MISSES_TARGET = "misses_target"
    SLOWER = "slower"
    AS_FAST_BUT_WIDER = "as_fast_but_wider"
    NO_BETTER = "no_better"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A move that cannot be made here."""

    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Move:
    """A named way to place ``gpus`` ranks."""

    name: str
    title: str
    place: Callable[[Fabric, int], Placement | Refusal]


def one_domain(fabric: Fabric, gpus: int) -> Placement | Refusal:
    """All ranks in the smallest NVLink domain that has room, on its fewest nodes."""
    domains = domains_with_room(fabric, gpus)
    if not domains:
        largest = largest_free_domain(fabric)
        text = f"the largest NVLink domain has {largest} free, {gpus} asked"
        return Refusal(Reason.NO_DOMAIN_HAS_ROOM, text)
    free = [endpoint for endpoint in domains[0].endpoints if fabric.is_free(endpoint)]
    return Placement(tuple(fewest_nodes(free, gpus)))


def fewest_nodes_of_fleet(fabric: Fabric, gpus: int) -> Placement | Refusal:
    """As few nodes as can be, whatever leaf they are on; domains first."""
    placements = [pack(fabric, gpus, among=free) for free in _islands(fabric, gpus)]
    return min(placements, key=lambda placement: len(placement.hosts))


def balanced(fabric: Fabric, gpus: int) -> Placement | Refusal:
    """Even shares of the fewest NVLink domains: no stub on which all the others wait."""
    placements = [balance(fabric, gpus, among=free) for free in _islands(fabric, gpus)]
    return min(placements, key=lambda placement: len(placement.hosts))


def same_leaf(fabric: Fabric, gpus: int) -> Placement | Refusal:
    """The fewest nodes that share their leaves, so that no message crosses a spine."""
    groups: dict[frozenset[str], list[Endpoint]] = defaultdict(list)
    for endpoint in free_endpoints(fabric):
        groups[fabric.leaves_of(endpoint.host)].append(endpoint)
    fitting = [ends for leaves, ends in groups.items() if leaves and len(ends) >= gpus]
    if not fitting:
        largest = max((len(ends) for leaves, ends in groups.items() if leaves), default=0)
        text = f"the largest group of nodes on the same leaves has {largest} free, {gpus} asked"
        text = text if largest else "the map tells of no leaf with anything free"
        return Refusal(Reason.NO_LEAF_HAS_ROOM, text)
    return Placement(tuple(fewest_nodes(min(fitting, key=len), gpus)))


def spread_out(fabric: Fabric, gpus: int) -> Placement | Refusal:
    """Evenly over all nodes with something free."""
    placements = [spread(fabric, gpus, among=free) for free in _islands(fabric, gpus)]
    return max(placements, key=lambda placement: len(placement.hosts))


def _islands(fabric: Fabric, gpus: int) -> list[list[Endpoint]]:
    """What is free, by what can reach each other, where there is room; else all together."""
    free = free_endpoints(fabric)
    islands: dict[str, list[Endpoint]] = defaultdict(list)
    for endpoint in free:
        islands[fabric.island_of[endpoint.host]].append(endpoint)
    return [ends for ends in islands.values() if len(ends) >= gpus] or [free]


MOVES: Final = (
    Move("one_domain", "pack into one NVLink domain", one_domain),
    Move("fewest_nodes", "pack into the fewest nodes", fewest_nodes_of_fleet),
    Move("balanced", "even shares of the fewest NVLink domains", balanced),
    Move("same_leaf", "stay on the same leaves", same_leaf),
    Move("spread", "spread over all nodes", spread_out),
)
"""From scaled in to scaled out; a new move is one function and one row."""

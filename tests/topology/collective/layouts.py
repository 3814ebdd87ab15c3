"""Placements with their routes and layouts, and schedules taken apart into single messages."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fleet.sources.synthetic import fleet_from_spec
from topology.collective.algorithms import ALGORITHMS, build_schedules, why_not
from topology.collective.layout import RankLayout, layout_of
from topology.collective.placement import Placement, pack, spread
from topology.collective.schedule import Round, Schedule, Transfer, round_from_transfers
from topology.collective.stages import Request
from topology.fabric.from_fleet import Fabric
from topology.fabric.route_table import RouteMap
from topology.fabric.routes import Endpoint
from topology.words import Collective

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A placement on a fabric, with all that is derived from it."""

    fabric: Fabric
    placement: Placement
    routes: RouteMap
    layout: RankLayout

    def nic(self, rank: int) -> tuple[str, int | None]:
        """Host and NIC slot that a rank sends through."""
        end = self.placement.endpoints[rank]
        return end.host, self.fabric.node_of[end.host].graph.nic_of_gpu.get(end.slot)


def placed_on(fabric: Fabric, endpoints: Iterable[Endpoint]) -> Placed:
    placement = Placement(tuple(endpoints))
    routes = RouteMap(fabric, placement.endpoints)
    return Placed(fabric, placement, routes, layout_of(fabric, placement, routes))


@cache
def fabric_of(spec: str) -> Fabric:
    return Fabric(fleet_from_spec(spec))


@cache
def packed(spec: str, ranks: int) -> Placed:
    fabric = fabric_of(spec)
    return placed_on(fabric, pack(fabric, ranks).endpoints)


@cache
def spread_out(spec: str, ranks: int) -> Placed:
    fabric = fabric_of(spec)
    return placed_on(fabric, spread(fabric, ranks).endpoints)


def with_sharp(placed: Placed) -> Placed:
    """The same where the network's switches reduce."""
    return replace(placed, layout=replace(placed.layout, network_reduces=True))


def named(spec: str, *texts: str) -> Placed:
    """Ranks on endpoints by name, in this order."""
    fabric = fabric_of(spec)
    return placed_on(fabric, [fabric.endpoint_from_text(text) for text in texts])


def requests(placed: Placed, *, channels: int = 1, pieces: int = 1) -> list[tuple[str, Request]]:
    """Every algorithm with every collective it can do here."""
    made = [
        Request(collective, placed.layout, channels, pieces, fraction)
        for collective in Collective
        for fraction in fractions_for(collective, placed.layout.ranks)
    ]
    return [
        (name, request)
        for request in made
        for name, algorithm in ALGORITHMS.items()
        if why_not(algorithm, request) is None
    ]


def fractions_for(collective: Collective, ranks: int) -> list[FloatArray | None]:
    """Equal shares, and for an alltoallv also shares that grow with the target, the last of 0."""
    if collective is not Collective.ALLTOALLV:
        return [None]
    skewed = np.tile(np.arange(ranks) % max(1, ranks - 1), (ranks, 1)) + np.eye(ranks)
    return [None, skewed / skewed.sum(axis=1, keepdims=True)]


def schedule_of(
    name: str, collective: Collective, placed: Placed, *, channels: int = 1, pieces: int = 1
) -> Schedule:
    """The first schedule of an algorithm."""
    return build_schedules(name, Request(collective, placed.layout, channels, pieces))[0]


def messages_of(schedule: Schedule) -> list[list[Transfer]]:
    """Messages step by step, with the chunks that they really carry.

    A message whose chunks lie apart stands as one message for each of them.
    """
    steps = []
    for round_ in schedule.rounds:
        for repetition in range(round_.repeats):
            if round_.stride != 1:
                steps.append(chunk_by_chunk(round_, repetition))
                continue
            columns = (
                round_.source,
                round_.destination,
                round_.first_chunk(repetition),
                round_.chunk_count,
                round_.reduces,
            )
            rows = zip(*(column.tolist() for column in columns), strict=True)
            steps.append([Transfer(*row) for row in rows])
    return steps


def chunk_by_chunk(round_: Round, repetition: int) -> list[Transfer]:
    transfer, chunk = round_.chunks(repetition)
    columns = (
        round_.source[transfer],
        round_.destination[transfer],
        chunk,
        np.ones_like(chunk),
        round_.reduces[transfer],
    )
    return [Transfer(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


def with_steps(schedule: Schedule, steps: Iterable[Iterable[Transfer]]) -> Schedule:
    """The same promise with other messages."""
    return replace(schedule, rounds=tuple(round_from_transfers(step) for step in steps))


def by_hand(
    collective: Collective,
    ranks: int,
    steps: Iterable[Iterable[Transfer]],
    *,
    owner: Iterable[int] = (0,),
    switches: int = 0,
) -> Schedule:
    chunks = np.array(list(owner), dtype=np.int64)
    return Schedule(
        collective=collective,
        algorithm="by hand",
        ranks=ranks,
        switches=switches,
        channels=1,
        chunk_fraction=1 / len(chunks),
        owner=chunks,
        rounds=tuple(round_from_transfers(step) for step in steps),
    )

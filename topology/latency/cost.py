"""Cost: what every message of a schedule takes without noise, on given routes and stack.

Bandwidth is shared: of the messages of one step that use a link, each takes as long as all of them
together need there. That is right for equal messages and errs on the slow side for unequal ones.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topology.collective.schedule import Round, Schedule
from topology.fabric.route_table import RouteMap, RouteTable
from topology.latency.stack import Stack

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RoundCost:
    """Costs of a round's transfers; every array has shape (m,), times in seconds.

    ``jitter``: index into ``Costs.classes`` of each message's route class.
    """

    round: Round
    wire_s: FloatArray
    software_s: FloatArray
    bandwidth_s: FloatArray
    jitter: IntArray

    @property
    def message_s(self) -> FloatArray:
        """From start to arrival without noise, shape (m,). [s]"""
        return np.asarray(self.wire_s + self.software_s + self.bandwidth_s)


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """Costs of a schedule: launch and base once, then round by round. [s]"""

    schedule: Schedule
    launch_s: float
    base_s: float
    rounds: tuple[RoundCost, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RoutedSchedule:
    """A schedule on routes: what no stack changes.

    ``bandwidth_s``: for each round shape (m,), at full payload. [s]
    """

    schedule: Schedule
    tables: tuple[RouteTable, ...]
    bandwidth_s: tuple[FloatArray, ...]
    gpus_per_node: int


def route_schedule(schedule: Schedule, routes: RouteMap, size_bytes: float) -> RoutedSchedule:
    """Find the way of every message, and its share of the links it uses.

    Raises:
        UnreachableError: a message between ranks that no link joins.
    """
    tables = routes.tables([(r.source, r.destination) for r in schedule.rounds])
    shares = tuple(
        shared_bandwidth_s(table, schedule.shares(r) * size_bytes)
        for table, r in zip(tables, schedule.rounds, strict=True)
    )
    per_node = np.bincount(routes.node_of).max() if routes.rank_count else 1
    return RoutedSchedule(schedule, tables, shares, int(per_node))


def schedule_costs(routed: RoutedSchedule, stack: Stack) -> Costs:
    """Costs of every message of a schedule under a stack."""
    schedule = routed.schedule
    numbers: dict[str, int] = {}
    rounds = tuple(
        _round_cost(round_, table, bandwidth_s, stack, schedule.algorithm, numbers)
        for round_, table, bandwidth_s in zip(
            schedule.rounds, routed.tables, routed.bandwidth_s, strict=True
        )
    )
    return Costs(
        schedule=schedule,
        launch_s=stack.launch_s(routed.gpus_per_node),
        base_s=stack.base_s(schedule.algorithm),
        rounds=rounds,
        classes=tuple(numbers),
    )


def _round_cost(
    round_: Round,
    table: RouteTable,
    bandwidth_s: FloatArray,
    stack: Stack,
    algorithm: str,
    numbers: dict[str, int],
) -> RoundCost:
    software = np.array([stack.software_s(route, algorithm) for route in table.routes])
    wire = np.array([route.alpha_s for route in table.routes])
    classes = [numbers.setdefault(route.route_class.name, len(numbers)) for route in table.routes]
    return RoundCost(
        round=round_,
        wire_s=wire[table.route_of],
        software_s=software[table.route_of],
        bandwidth_s=bandwidth_s / stack.payload_ratio,
        jitter=np.array(classes, dtype=np.int64)[table.route_of],
    )


def shared_bandwidth_s(table: RouteTable, size_bytes: FloatArray) -> FloatArray:
    """Time each message needs on its busiest link, all messages of the step counted, (m,). [s]"""
    efficiency = np.array([route.collective_efficiency_ratio for route in table.routes])
    demand = size_bytes / efficiency[table.route_of]
    load = np.zeros(len(table.bytes_per_s))
    for column in table.resources.T:
        np.add.at(load, column, demand)
    with np.errstate(invalid="ignore"):
        needed = load / table.bytes_per_s
    return np.asarray(needed[table.resources].max(axis=1))

"""Case: what an export tells others of: a scenario on a placement, and what we say to it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from fleet.naming import counted
from fleet.units import text_from_bytes, text_from_rate, text_from_seconds
from topology.collective.layout import layout_of
from topology.collective.placement import Placement
from topology.fabric.from_fleet import Fabric
from topology.fabric.link_figures import LinkFigures, RouteClass
from topology.fabric.route_table import RouteMap
from topology.latency.choice import Choice, choose
from topology.latency.scenario import Scenario, check_scenario
from topology.words import ExportFormat

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many parts are written, and of how many."""

Parts: TypeAlias = Iterable[bytes]
"""Content of a file, part by part."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A scenario on a placement, with the way it goes. ``command``: our own run of it.

    ``cliques``: ranks by node, or by NVLink domain where one holds all of its nodes' ranks.
    ``ring``: an order in which neighbours of a clique have the best links there are.
    """

    fabric: Fabric
    placement: Placement
    scenario: Scenario
    routes: RouteMap
    choice: Choice
    cliques: tuple[tuple[int, ...], ...]
    ring: tuple[int, ...]
    command: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that an export carries: its name over there, its value, where it comes from."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """What an export writes. ``files``: name and content, made when they are asked for.

    ``size_bytes``: of all files together, about.
    ``build``: how the simulator is got. ``differs``: where its model is not ours. ``unchecked``:
    what of the format nobody could try.
    """

    format: ExportFormat
    files: Callable[[], Iterator[tuple[str, Parts]]]
    size_bytes: int
    messages: int | None
    figures: tuple[Figure, ...]
    build: tuple[str, ...]
    commands: tuple[str, ...]
    differs: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = field(default=())


def make_case(fabric: Fabric, placement: Placement, scenario: Scenario, *, command: str) -> Case:
    """A case, its algorithm and costs chosen as a simulation chooses them.

    Raises:
        WorkloadError: a size below one byte, a stack that these ranks do not run.
        ScheduleError: the named algorithm does not do this.
        UnreachableError: ranks that no known link joins.
    """
    check_scenario(scenario)
    routes = RouteMap(fabric, placement.endpoints)
    choice = choose(fabric, placement, routes, scenario)
    layout = layout_of(fabric, placement, routes)
    ring = layout.orders[0]
    return Case(fabric, placement, scenario, routes, choice, layout.cliques, ring, command)


def class_lines(case: Case, product: Product) -> list[str]:
    """A line for each route class that messages or figures go by, with its sources."""
    figures = case.fabric.figures
    named = [figure.source for figure in product.figures]
    names = dict.fromkeys([*case.choice.costs.classes, *named])
    rows = [figures.route_class[name] for name in names if name in figures.route_class]
    return [_class_text(figures, row) for row in rows]


def _class_text(figures: LinkFigures, row: RouteClass) -> str:
    sources = "; ".join(f"{name} {figures.source[name]}" for name in row.sources)
    return (
        f"{row.name} ({row.title}): {text_from_seconds(row.alpha_s)}, "
        f"{text_from_rate(row.bytes_per_s)} one way, {row.collective_efficiency_ratio:g} of it in "
        f"collectives; confidence {row.latency_confidence.value} (latency), "
        f"{row.bandwidth_confidence.value} (bandwidth); sources {sources}"
    )


def case_text(case: Case) -> str:
    """The case in one line."""
    scenario, choice = case.scenario, case.choice
    words = [choice.schedule.algorithm, choice.schedule.variant, choice.stack.name.value]
    if choice.stack.protocol is not None:
        words.append(choice.stack.protocol.value)
    return (
        f"{scenario.collective.value} of {text_from_bytes(scenario.size_bytes)} over "
        f"{counted(case.placement.ranks, 'rank')} on {counted(len(case.placement.hosts), 'node')}: "
        f"{', '.join(word for word in words if word)}"
    )

"""Choice: which algorithm and protocol a collective takes, its schedule, and what it costs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from fleet import GpuVendor
from fleet.units import text_from_seconds
from topology.collective.algorithms import ALGORITHMS, build_schedules, usable_names
from topology.collective.layout import layout_of
from topology.collective.placement import Placement
from topology.collective.schedule import Schedule
from topology.collective.stages import Request
from topology.errors import ScheduleError, WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.fabric.route_table import RouteMap
from topology.fabric.routes import LinkKind
from topology.latency.anchor import anchored_costs
from topology.latency.cost import Costs, RoutedSchedule, route_schedule, schedule_costs
from topology.latency.job import Job, has_ll128, job_of
from topology.latency.model import Alternative, Prediction, make_model
from topology.latency.monte_carlo import noiseless_s
from topology.latency.nccl_tuner import Way
from topology.latency.operation import Operation
from topology.latency.scenario import Scenario
from topology.latency.stack import Stack, load_stack_figures
from topology.latency.summary import Considered
from topology.words import AlgorithmName, Protocol, StackName

WORTH_IT: Final = 1e-3
"""Simpler schedules are tried first; a later one has to be faster by this much."""


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A schedule with its costs, and all that were considered, itself first.

    ``prediction``: what the closed form says, which the costs are put to. ``reason``: why this way.
    """

    schedule: Schedule
    stack: Stack
    costs: Costs
    noiseless_s: float
    considered: tuple[Considered, ...]
    prediction: Prediction | None = None
    reason: str | None = None


def choose(fabric: Fabric, placement: Placement, routes: RouteMap, scenario: Scenario) -> Choice:
    """How a collective goes: as NCCL's own model chooses; without one, the fastest without noise.

    Raises:
        ScheduleError: the named algorithm does not do this collective here.
        WorkloadError: the stack does not run on these ranks.
    """
    stacks = list(_stacks(fabric, placement, scenario))
    layout = layout_of(fabric, placement, routes, network_reduces=scenario.sharp)
    request = Request(scenario.collective, layout)
    name = stacks[0].name
    if name in MODELLED and scenario.algorithm in KNOWN_TO_MODEL and placement.ranks > 1:
        return _by_model(fabric, placement, routes, scenario, request, stacks)
    if name is StackName.NCCL_TUNER and scenario.algorithm not in KNOWN_TO_MODEL:
        raise ScheduleError(
            f"NCCL has no {scenario.algorithm}", field="--algorithm", remedy="use --stack nccl"
        )
    return _fastest(fabric, placement, routes, scenario, request, stacks)


MODELLED: Final = (StackName.NCCL, StackName.RCCL, StackName.NCCL_TUNER)
KNOWN_TO_MODEL: Final = (
    AlgorithmName.AUTO,
    AlgorithmName.RING,
    AlgorithmName.DOUBLE_BINARY_TREE,
    AlgorithmName.NVLS,
    AlgorithmName.NVLS_TREE,
    AlgorithmName.COLLNET,
    AlgorithmName.PAT,
    AlgorithmName.DIRECT,
    AlgorithmName.ONE_SHOT,
    AlgorithmName.TWO_SHOT,
)


def _by_model(
    fabric: Fabric,
    placement: Placement,
    routes: RouteMap,
    scenario: Scenario,
    request: Request,
    stacks: list[Stack],
) -> Choice:
    """The way that NCCL takes, its time by the closed form, its messages by a schedule."""
    job = replace(job_of(fabric, placement, routes), network_reduces=scenario.sharp)
    _check_way(job, scenario, request)
    operation = Operation(scenario.collective, scenario.launch, scenario.dtype.is_integer)
    model = make_model(
        job,
        operation,
        algorithm=scenario.algorithm,
        protocol=scenario.protocol,
    )
    size = scenario.size_bytes
    is_own = stacks[0].name is StackName.NCCL_TUNER
    prediction = model.baseline(size) if is_own else model.predict(size)
    way = prediction.way
    stack = Stack(stacks[0].name, way.protocol, scenario.launch, stacks[0].figures)
    schedule, costs = _best_schedule(way, request, routes, stack, size)
    anchored = anchored_costs(costs, prediction.time_s, prediction.terms.launch_s)
    others = sorted(model.alternatives(size), key=lambda other: (other.way != way, other.time_s))
    return Choice(
        schedule,
        stack,
        anchored,
        prediction.time_s,
        tuple(
            Considered(other.way.text, other.nccl_s if is_own else other.time_s, False)
            for other in others
        ),
        prediction,
        reason_text(others),
    )


def _check_way(job: Job, scenario: Scenario, request: Request) -> None:
    """Refuse an algorithm or a protocol that does not run here, each with its reason."""
    name, protocol = scenario.algorithm, scenario.protocol
    if name is not AlgorithmName.AUTO:
        build_schedules(name, request)
        if protocol in (Protocol.LL, Protocol.LL128) and name in _ONLY_SIMPLE:
            text = f"{name} does not run over the protocol asked"
            raise ScheduleError(text, field="--protocol", remedy="use --protocol simple")
    if protocol is Protocol.LL128 and (job.is_pcie or not job.has_ll128):
        reason = LL128_OVER_PCIE if job.is_pcie else LL128_OLD_OR_MIXED
        raise ScheduleError(reason, field="--protocol ll128", remedy="use --protocol ll or simple")


_ONLY_SIMPLE: Final = (
    AlgorithmName.NVLS,
    AlgorithmName.NVLS_TREE,
    AlgorithmName.COLLNET,
    AlgorithmName.PAT,
)
LL128_OVER_PCIE: Final = "NCCL keeps it to NVLink inside a node, and here messages go by PCIe"
LL128_OLD_OR_MIXED: Final = "NCCL keeps it to GPUs of one generation, Volta or newer"


def reason_text(others: Sequence[Alternative]) -> str:
    """Why NCCL takes the first of these."""
    first, *rest = others
    if not rest:
        return "there being no other way here"
    second = min(rest, key=lambda other: other.nccl_s)
    if second.nccl_s == math.inf:
        return "bytes to one peer, as NCCL does"
    return (
        f"NCCL's own model: {text_from_seconds(first.nccl_s)}, next {second.way.text} "
        f"{text_from_seconds(second.nccl_s)}"
    )


def _best_schedule(
    way: Way, request: Request, routes: RouteMap, stack: Stack, size_bytes: int
) -> tuple[Schedule, Costs]:
    """The schedule of a way that is fastest without noise, before it is put to the model's time."""
    best: tuple[float, Schedule, Costs] | None = None
    for schedule, least_bytes in _schedules([way.algorithm], request, size_bytes):
        routed = route_schedule(schedule, routes, max(size_bytes, least_bytes))
        costs = schedule_costs(routed, stack)
        if best is None or _at_least_s(costs) < best[0]:
            time_s = noiseless_s(costs)
            if best is None or time_s < best[0] * (1 - WORTH_IT):
                best = time_s, schedule, costs
    assert best is not None, "an algorithm that NCCL has here has a schedule"
    return best[1], best[2]


def _fastest(
    fabric: Fabric,
    placement: Placement,
    routes: RouteMap,
    scenario: Scenario,
    request: Request,
    stacks: list[Stack],
) -> Choice:
    """The fastest way without noise among algorithms, variants, protocols, rings and pieces."""
    names = [scenario.algorithm.value]
    if scenario.algorithm is AlgorithmName.AUTO:
        names = usable_names(request)
    if not names:
        raise ScheduleError(f"no algorithm does {scenario.collective.value} here")
    best: Choice | None = None
    ways: dict[str, tuple[float, bool]] = {}
    refused: dict[Protocol | None, _Reason] = {}
    ll128 = has_ll128(fabric, placement)
    for schedule, least_bytes in _schedules(names, request, scenario.size_bytes):
        routed = route_schedule(schedule, routes, max(scenario.size_bytes, least_bytes))
        for stack in stacks:
            reason = _refusal(routed, stack, ll128)
            if reason is not None:
                refused.setdefault(stack.protocol, reason)
                continue
            costs = schedule_costs(routed, stack)
            label, time_s = _label(schedule, stack), _at_least_s(costs)
            is_bound = best is not None and time_s > best.noiseless_s
            if not is_bound:
                time_s = noiseless_s(costs)
            ways[label] = min(ways.get(label, (time_s, is_bound)), (time_s, is_bound))
            if best is None or time_s < best.noiseless_s * (1 - WORTH_IT):
                best = Choice(schedule, stack, costs, time_s, ())
    if best is None:
        reason = next(iter(refused.values()))
        raise ScheduleError(reason.text, field=reason.field, remedy=reason.remedy)
    chosen = _label(best.schedule, best.stack)
    order = sorted(ways, key=lambda label: (label != chosen, ways[label]))
    return replace(best, considered=tuple(Considered(label, *ways[label]) for label in order))


class _Reason(NamedTuple):
    """Why a protocol does not run a schedule here."""

    text: str
    field: str
    remedy: str


def _refusal(routed: RoutedSchedule, stack: Stack, ll128: bool) -> _Reason | None:
    """Why a stack does not run a schedule, None where it does; LL128 as NCCL enables it."""
    schedule = routed.schedule
    if schedule.switches and not stack.can_reduce_in_switch():
        text = f"{schedule.algorithm} does not run over the protocol asked"
        return _Reason(text, "--protocol", "use --protocol simple")
    if stack.protocol is not Protocol.LL128:
        return None
    routes = (route for table in routed.tables for route in table.routes)
    if any(route.link_kind is LinkKind.PCI for route in routes):
        return _Reason(LL128_OVER_PCIE, "--protocol ll128", "use --protocol ll or simple")
    if not ll128:
        return _Reason(LL128_OLD_OR_MIXED, "--protocol ll128", "use --protocol ll or simple")
    return None


def _schedules(
    names: list[str], request: Request, size_bytes: int
) -> Iterator[tuple[Schedule, float]]:
    """Every way to be considered with the fewest bytes it is made for, the cheap ones first.

    A piece is never shorter than the figures say: k pieces carry k times that, and a smaller buffer
    takes as long as that. So every cut is open to every size, and more bytes are never faster.
    """
    rails = max(len(request.layout.orders), len(request.layout.chains))
    order = sorted(names, key=lambda name: (name == "ring", name))
    for name in order:
        algorithm = ALGORITHMS[name]
        is_cut = request.collective in algorithm.in_pieces
        for channels in sorted({1, rails}) if algorithm.has_rails else (1,):
            for cut, least_bytes in _cuts(size_bytes, channels) if is_cut else _WHOLE:
                asked = replace(request, channels=channels, pieces=cut)
                for schedule in build_schedules(name, asked):
                    if cut == 1 or schedule.channels >= cut:
                        yield schedule, least_bytes


def _cuts(size_bytes: int, channels: int) -> Iterator[tuple[int, float]]:
    """Numbers of pieces, each with the fewest bytes it is made for: 1, and the finest two.

    They are powers of two: the most that the size fills, and the next, which it nearly fills. More
    would be further pieces of the same length, which take longer; fewer and longer ones, too.
    """
    pipeline = load_stack_figures().pipeline
    piece_bytes = channels * pipeline.piece_bytes
    most = max(1, pipeline.most_pieces // channels)
    filled = 1 << (min(most, max(1, int(size_bytes // piece_bytes))).bit_length() - 1)
    for cut in sorted({1, filled, 2 * filled}):
        if cut == 1 or (cut <= most and piece_bytes < size_bytes):
            yield cut, cut * piece_bytes * (cut > 1)


_WHOLE: Final = ((1, 0.0),)


def _at_least_s(costs: Costs) -> float:
    """A bound from below: in lockstep every repetition takes at least its shortest message."""
    rounds = (cost for cost in costs.rounds if cost.round.lockstep and cost.round.transfers)
    steps_s = sum(float(cost.message_s.min()) * cost.round.repeats for cost in rounds)
    return costs.launch_s + costs.base_s + steps_s


def _label(schedule: Schedule, stack: Stack) -> str:
    parts = [schedule.algorithm, schedule.variant, stack.protocol.value if stack.protocol else ""]
    return ", ".join(part for part in parts if part)


def _stacks(fabric: Fabric, placement: Placement, scenario: Scenario) -> Iterator[Stack]:
    figures = load_stack_figures()
    vendor = _vendor(fabric, placement)
    name = scenario.stack or (_USUAL.get(vendor) if vendor else None) or StackName.WIRE
    if name in (StackName.WIRE, StackName.MPI):
        if scenario.protocol is not None:
            raise WorkloadError(
                f"the {name} stack has no protocols",
                field=f"--protocol {scenario.protocol}",
                remedy="leave it out, or use --stack nccl",
            )
        yield Stack(name, None, scenario.launch, figures)
        return
    runs_on = GpuVendor.AMD if name is StackName.RCCL else GpuVendor.NVIDIA
    if vendor is not runs_on:
        library = "RCCL" if name is StackName.RCCL else "NCCL"
        raise WorkloadError(
            f"{library} runs on {runs_on.name} GPUs, these ranks are others",
            field=f"--stack {name}",
            remedy="use --stack wire",
        )
    for protocol in [scenario.protocol] if scenario.protocol else Protocol:
        yield Stack(name, protocol, scenario.launch, figures)


_USUAL: Final = {GpuVendor.NVIDIA: StackName.NCCL, GpuVendor.AMD: StackName.RCCL}


def _vendor(fabric: Fabric, placement: Placement) -> GpuVendor | None:
    """Whose GPUs all ranks are; None for CPUs, or for several makers."""
    graphs = {id(g): g for g in (fabric.node_of[host].graph for host in placement.hosts)}.values()
    if not all(graph.is_gpu_node for graph in graphs):
        return None
    vendors = {gpu.vendor for graph in graphs for gpu in graph.wiring.gpus}
    return vendors.pop() if len(vendors) == 1 else None

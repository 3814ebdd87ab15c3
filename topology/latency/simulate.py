"""Simulate: a collective on a placement becomes a latency summary."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from fleet import GpuVendor
from topology.collective.algorithms import ALGORITHMS, build_schedules, usable_names
from topology.collective.layout import layout_of
from topology.collective.placement import Placement
from topology.collective.schedule import Schedule, busbw_factor
from topology.collective.stages import Request
from topology.errors import ScheduleError, WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.fabric.route_table import RouteMap
from topology.fabric.routes import LinkKind
from topology.latency.cost import Costs, RoutedSchedule, route_schedule, schedule_costs
from topology.latency.monte_carlo import (
    FloatArray,
    Progress,
    noiseless_breakdown,
    noiseless_s,
    sample_s,
)
from topology.latency.noise import noises_of
from topology.latency.stack import Stack, load_stack_figures
from topology.latency.summary import (
    PERCENTILES,
    Considered,
    LatencySummary,
    least_trials,
    percentile_ranges,
)
from topology.words import AlgorithmName, Collective, Launch, NoiseName, Protocol, StackName

WORTH_IT: Final = 1e-3
"""Simpler schedules are tried first; a later one has to be faster by this much."""

MOST_TRIALS: Final = 10_000
LEAST_TRIALS: Final = least_trials(PERCENTILES["p99_s"])
"""A p99 needs so many, 368: of fewer trials even the largest may well lie below it."""

MESSAGE_BUDGET: Final = 180_000_000
"""Noisy messages that a default run replays, if that is LEAST_TRIALS or more: a few seconds."""

MESSAGES_PER_S: Final = 20_000_000
"""Noisy messages that one slow core replays in a second; fast ones do twice or four times that."""

LONG_S: Final = 20.0
"""A run that takes longer says so before it starts. [s]"""

Notice: TypeAlias = Callable[[str], None]
"""Told once, in words, before a run that will take long."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated besides the placement. ``stack`` None: nccl on NVIDIA GPUs, else wire."""

    collective: Collective
    size_bytes: int
    algorithm: AlgorithmName = AlgorithmName.AUTO
    protocol: Protocol | None = None
    launch: Launch = Launch.PROCESS
    stack: StackName | None = None
    noise: NoiseName = NoiseName.DEDICATED
    trials: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A schedule with its costs, and all that were considered, itself first."""

    schedule: Schedule
    stack: Stack
    costs: Costs
    noiseless_s: float
    considered: tuple[Considered, ...]


def simulate(
    fabric: Fabric,
    placement: Placement,
    scenario: Scenario,
    *,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> LatencySummary:
    """The distribution of a collective's completion time on a placement.

    ``progress`` is told how many trials of how many are done, ``notice`` that it will take long.

    Raises:
        WorkloadError: a size below one byte, a stack that these ranks do not run.
        ScheduleError: the named algorithm does not do this; the message names those that do.
        UnreachableError: ranks that no known link joins.
    """
    return simulate_samples(fabric, placement, scenario, progress=progress, notice=notice)[0]


def simulate_samples(
    fabric: Fabric,
    placement: Placement,
    scenario: Scenario,
    *,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> tuple[LatencySummary, FloatArray]:
    """As ``simulate``, with the completion times behind the percentiles, shape (trials,). [s]

    Raises:
        WorkloadError: a size below one byte, a stack that these ranks do not run.
        ScheduleError: the named algorithm does not do this; the message names those that do.
        UnreachableError: ranks that no known link joins.
    """
    check_scenario(scenario)
    routes = RouteMap(fabric, placement.endpoints)
    choice = choose(fabric, placement, routes, scenario)
    summary = _noiseless_summary(placement, routes, scenario, choice)
    if scenario.noise is NoiseName.NONE or not choice.schedule.messages:
        return summary, np.array([choice.noiseless_s])
    trials = scenario.trials or default_trials(choice.schedule)
    long = long_run_text(choice.schedule, trials)
    if notice is not None and long is not None:
        notice(long)
    samples = _samples(fabric, scenario, choice, trials, progress)
    values, ranges = percentile_ranges(samples)
    median = values["p50_s"] or choice.noiseless_s
    calm = summary.breakdown["p50"]
    shown = {name: values[f"{name}_s"] for name in ("p50", "p99")}
    noisy = replace(
        summary,
        method="monte_carlo",
        mean_s=float(samples.mean()),
        percentiles=values,
        interval=ranges,
        trials=trials,
        seed=scenario.seed,
        breakdown={
            name: replace(calm, noise_s=value - choice.noiseless_s)
            for name, value in shown.items()
            if value is not None
        },
    )
    return _with_bandwidths(noisy, choice.schedule.messages, median), samples


def default_trials(schedule: Schedule) -> int:
    """As many trials as a few seconds carry, at most 10,000 and at least what a p99 needs."""
    affordable = MESSAGE_BUDGET // max(schedule.messages, 1)
    return int(min(max(affordable, LEAST_TRIALS), MOST_TRIALS))


def long_run_text(schedule: Schedule, trials: int) -> str | None:
    """How long a run will about take and what would be faster; None if it is done soon."""
    run_s = trials * schedule.messages / MESSAGES_PER_S
    if run_s <= LONG_S:
        return None
    fewer = max(1, int(LONG_S * MESSAGES_PER_S / schedule.messages))
    carried = [name for name, q in PERCENTILES.items() if fewer >= least_trials(q)]
    told = "" if "p99_s" in carried else ", but tells no p99"
    if trials == 1:
        return f"about {run_s:.0f} s"
    return f"about {run_s:.0f} s; --trials {fewer} is faster{told}"


def check_scenario(scenario: Scenario) -> None:
    """Refuse what no run can answer.

    Raises:
        WorkloadError: a size or a number of trials below one.
    """
    if scenario.size_bytes < 1:
        raise WorkloadError(
            f"{scenario.size_bytes} bytes", field="--size", remedy="give at least one byte"
        )
    if scenario.trials is not None and scenario.trials < 1:
        raise WorkloadError(f"{scenario.trials}", field="--trials", remedy="give at least one")


def choose(fabric: Fabric, placement: Placement, routes: RouteMap, scenario: Scenario) -> Choice:
    """The fastest way without noise among algorithms, variants, protocols, rings and pieces.

    Raises:
        ScheduleError: the named algorithm does not do this collective here.
        WorkloadError: the stack does not run on these ranks.
    """
    layout = layout_of(fabric, placement, routes)
    request = Request(scenario.collective, layout)
    stacks = list(_stacks(fabric, placement, scenario))
    names = [scenario.algorithm.value]
    if scenario.algorithm is AlgorithmName.AUTO:
        names = stacks[0].choices(usable_names(request))
    if not names:
        raise ScheduleError(f"no algorithm does {scenario.collective.value} here")
    best: Choice | None = None
    ways: dict[str, tuple[float, bool]] = {}
    refused: dict[Protocol | None, _Reason] = {}
    is_old_or_mixed = _is_old_or_mixed(fabric, placement)
    for schedule, least_bytes in _schedules(names, request, scenario.size_bytes):
        routed = route_schedule(schedule, routes, max(scenario.size_bytes, least_bytes))
        for stack in stacks:
            reason = _refusal(routed, stack, is_old_or_mixed)
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


def _refusal(routed: RoutedSchedule, stack: Stack, is_old_or_mixed: bool) -> _Reason | None:
    """Why a stack does not run a schedule, None where it does; LL128 as NCCL enables it."""
    schedule = routed.schedule
    if schedule.switches and not stack.can_reduce_in_switch():
        text = f"{schedule.algorithm} does not run over the protocol asked"
        return _Reason(text, "--protocol", "use --protocol simple")
    if stack.protocol is not Protocol.LL128:
        return None
    routes = (route for table in routed.tables for route in table.routes)
    if any(route.link_kind is LinkKind.PCI for route in routes):
        text = "NCCL keeps it to NVLink inside a node, and here messages go by PCIe"
        return _Reason(text, "--protocol ll128", "use --protocol ll or simple")
    if is_old_or_mixed:
        text = "NCCL keeps it to GPUs of one generation, Volta or newer"
        return _Reason(text, "--protocol ll128", "use --protocol ll or simple")
    return None


VOLTA: Final = 7.0
HOPPER: Final = 9.0


def _is_old_or_mixed(fabric: Fabric, placement: Placement) -> bool:
    """Whether a GPU is older than Volta, or they are of several kinds, not all Hopper or newer."""
    graphs = {id(g): g for g in (fabric.node_of[host].graph for host in placement.hosts)}.values()
    told = {facts.compute_capability for graph in graphs for facts in graph.facts.values()}
    kinds = {float(capability) for capability in told if capability is not None}
    if not kinds:
        return False
    return min(kinds) < VOLTA or (len(kinds) > 1 and min(kinds) < HOPPER)


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
    is_nvidia = _all_nvidia(fabric, placement)
    name = scenario.stack or (StackName.NCCL if is_nvidia else StackName.WIRE)
    if name is StackName.WIRE:
        if scenario.protocol is not None:
            raise WorkloadError(
                "the wire stack has no protocols",
                field=f"--protocol {scenario.protocol}",
                remedy="leave it out, or use --stack nccl",
            )
        yield Stack(name, None, scenario.launch, figures)
        return
    if not is_nvidia:
        raise WorkloadError(
            "NCCL runs on NVIDIA GPUs, these ranks are others",
            field="--stack nccl",
            remedy="use --stack wire",
        )
    for protocol in [scenario.protocol] if scenario.protocol else Protocol:
        yield Stack(name, protocol, scenario.launch, figures)


def _all_nvidia(fabric: Fabric, placement: Placement) -> bool:
    graphs = {id(g): g for g in (fabric.node_of[host].graph for host in placement.hosts)}.values()
    gpus = [gpu for graph in graphs for gpu in graph.wiring.gpus]
    return all(graph.is_gpu_node for graph in graphs) and all(
        gpu.vendor is GpuVendor.NVIDIA for gpu in gpus
    )


def _noiseless_summary(
    placement: Placement, routes: RouteMap, scenario: Scenario, choice: Choice
) -> LatencySummary:
    time_s = choice.noiseless_s
    breakdown = noiseless_breakdown(choice.costs)
    stack = choice.stack
    summary = LatencySummary(
        collective=scenario.collective.value,
        algorithm=choice.schedule.algorithm,
        variant=choice.schedule.variant,
        protocol=stack.protocol.value if stack.protocol else None,
        stack=stack.name.value,
        launch=stack.launch.value if stack.name is StackName.NCCL else None,
        noise=scenario.noise.value,
        method="exact",
        ranks=placement.ranks,
        nodes=len(placement.hosts),
        domains=routes.domain_count,
        size_bytes=scenario.size_bytes,
        noiseless_s=time_s,
        mean_s=time_s,
        percentiles=dict.fromkeys(PERCENTILES, time_s),
        interval=None,
        algbw_bytes_per_s=None,
        busbw_bytes_per_s=None,
        trials=None,
        seed=None,
        breakdown={"p50": breakdown, "p99": breakdown},
        considered=choice.considered,
    )
    return _with_bandwidths(summary, choice.schedule.messages, time_s)


def _with_bandwidths(summary: LatencySummary, messages: int, time_s: float) -> LatencySummary:
    """With algbw and busbw of a time; None where nothing is sent, for then they measure nothing."""
    if not messages or time_s <= 0:
        return replace(summary, algbw_bytes_per_s=None, busbw_bytes_per_s=None)
    algbw = summary.size_bytes / time_s
    busbw = algbw * busbw_factor(Collective(summary.collective), summary.ranks)
    return replace(summary, algbw_bytes_per_s=algbw, busbw_bytes_per_s=busbw)


def _samples(
    fabric: Fabric,
    scenario: Scenario,
    choice: Choice,
    trials: int,
    progress: Progress | None,
) -> FloatArray:
    rng = np.random.default_rng(scenario.seed)
    noises = noises_of(fabric.figures, choice.costs.classes, scenario.noise)
    return sample_s(choice.costs, noises, trials=trials, rng=rng, progress=progress)

"""Planner: every move tried with the same seed, one chosen, every other with its reason.

Scale in before scale out: of the candidates whose objective cannot be told apart from the best one,
the one on the fewest NVLink domains and nodes is chosen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from fleet.naming import counted
from topology.collective.placement import Placement, free_endpoints, largest_free_domain
from topology.errors import NoCandidateError, UnreachableError, WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.latency.monte_carlo import FloatArray
from topology.latency.replay import Notice
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate_samples
from topology.latency.summary import PERCENTILES, LatencySummary, order_statistics
from topology.plan.moves import MOVES, Move, Reason, Refusal
from topology.plan.workload import Workload
from topology.words import NoiseName, Objective, StackName

TOLERANCE: Final = 0.02
"""Objectives closer than this are the same to us, whatever the trials say."""

CROSSING_TOLERANCE: Final = 0.25
"""Clusters of one kind differ by so much across nodes: less is no reason to leave a domain."""


class Verdict(StrEnum):
    """What a plan says as a whole."""

    SCALE_IN = "scale_in"
    SCALE_OUT = "scale_out"
    NO_CANDIDATE = "no_candidate"


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A move with its placement and numbers, or the reason it has none.

    ``probability``: that one run of it is faster than one of the chosen candidate, both drawn
    independently.
    """

    move: Move
    reason: Reason
    text: str
    placement: Placement | None = None
    summary: LatencySummary | None = None
    samples_s: FloatArray | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The chosen candidate, all candidates in order, and where scale-in ends.

    ``compared``: the percentile by which they were compared: the objective, or the highest below
    it that the trials of all carry.
    """

    workload: Workload
    objective: Objective
    compared: Objective
    verdict: Verdict
    chosen: Candidate | None
    candidates: tuple[Candidate, ...]
    largest_free_domain: int
    free_gpus: int
    total_gpus: int

    @property
    def crosses(self) -> bool:
        """Whether the chosen placement leaves one NVLink domain and one node."""
        return self.verdict is Verdict.SCALE_OUT

    @property
    def could_stay(self) -> bool:
        """Whether a candidate stays in one NVLink domain or one node."""
        return any(_stays_in(c.summary) for c in self.candidates if c.summary is not None)


def plan_workload(
    fabric: Fabric,
    workload: Workload,
    *,
    objective: Objective = Objective.P99,
    stack: StackName | None = None,
    noise: NoiseName = NoiseName.DEDICATED,
    trials: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    notice: Notice | None = None,
) -> Plan:
    """Try every move, choose one, and say why not the others.

    ``progress`` is told each move before it is evaluated, ``notice`` that one will take long.

    Raises:
        NoCandidateError: fewer GPUs free than asked, or none that links join.
        WorkloadError: trials that carry no median, or no p99 where that has a target.
    """
    _check_trials(trials, noise, workload.target_p99_s)
    free = len(free_endpoints(fabric))
    if workload.gpus > free:
        raise NoCandidateError(
            f"{counted(workload.gpus, 'GPU')} asked, {free} free of {len(fabric.endpoints)}",
            where=workload.name,
            field="gpus",
            remedy=f"ask for {free} or fewer" if free else "free some first",
        )
    scenario = Scenario(
        collective=workload.collective,
        size_bytes=workload.size_bytes,
        stack=stack,
        noise=noise,
        trials=trials,
        seed=seed,
    )
    candidates: list[Candidate] = []
    for move in MOVES:
        if progress is not None:
            progress(move.title)
        candidate = _evaluate(fabric, move, workload.gpus, scenario, candidates, notice)
        candidates.append(candidate)
    compared = _carried(candidates, objective)
    chosen = _choose(candidates, compared, workload.target_p99_s)
    if chosen is None:
        texts = "; ".join(f"{c.move.name}: {c.text}" for c in candidates)
        raise NoCandidateError(f"no candidate can run: {texts}", where=workload.name)
    judged = tuple(_judged(c, chosen, compared, workload.target_p99_s) for c in candidates)
    best = next(c for c in judged if c.move is chosen.move)
    return Plan(
        workload=workload,
        objective=objective,
        compared=compared,
        verdict=_verdict(best),
        chosen=best if best.reason is Reason.CHOSEN else None,
        candidates=judged,
        largest_free_domain=largest_free_domain(fabric),
        free_gpus=free,
        total_gpus=len(fabric.endpoints),
    )


def _check_trials(trials: int | None, noise: NoiseName, target_p99_s: float | None) -> None:
    """A plan needs trials that carry a median, and a p99 where there is a target for it."""
    if trials is None or noise is NoiseName.NONE:
        return
    needed = Objective.P50 if target_p99_s is None else Objective.P99
    if order_statistics(trials, PERCENTILES[needed.key])[1] is None:
        why = "" if target_p99_s is None else ", and the target is one"
        raise WorkloadError(
            f"{counted(trials, 'trial')} carry no {needed.value}{why}",
            field="--trials",
            remedy="ask for 500 or more, or leave it out",
        )


def _carried(candidates: Sequence[Candidate], objective: Objective) -> Objective:
    """The highest percentile up to the objective that the trials of all candidates carry."""
    summaries = [c.summary for c in candidates if c.summary is not None]
    order = list(Objective)
    for percentile in reversed(order[: order.index(objective) + 1]):
        if all(summary.percentiles[percentile.key] is not None for summary in summaries):
            return percentile
    return order[0]


def _evaluate(
    fabric: Fabric,
    move: Move,
    gpus: int,
    scenario: Scenario,
    earlier: Sequence[Candidate],
    notice: Notice | None,
) -> Candidate:
    placement = move.place(fabric, gpus)
    if isinstance(placement, Refusal):
        return Candidate(move, placement.reason, placement.text)
    twin = next((c for c in earlier if c.placement == placement), None)
    if twin is not None:
        text = f"the same placement as {twin.move.name}"
        return replace(twin, move=move, reason=Reason.SAME_PLACEMENT, text=text)
    try:
        summary, samples = simulate_samples(fabric, placement, scenario, notice=notice)
    except UnreachableError as error:
        return Candidate(move, Reason.UNREACHABLE, str(error), placement)
    return Candidate(move, Reason.CHOSEN, "", placement, summary, samples)


def _choose(
    candidates: Sequence[Candidate], objective: Objective, target_p99_s: float | None
) -> Candidate | None:
    """The most scaled-in of those that cannot be told from the best and keep the target, if any."""
    runnable = [c for c in candidates if c.reason is Reason.CHOSEN]
    if not runnable:
        return None
    runnable = [c for c in runnable if not _misses(c, target_p99_s)] or runnable
    fastest = min(runnable, key=lambda c: _value(c, objective))
    as_fast = [c for c in runnable if _is_as_fast(c, fastest, objective)]
    return min(as_fast, key=lambda c: (_width(c), _value(c, objective)))


def _is_as_fast(candidate: Candidate, fastest: Candidate, objective: Objective) -> bool:
    """Whether two objectives differ by less than the tolerance, or their intervals overlap.

    Crossing domains has to gain more than the calibrated model can tell.
    """
    value, best = _value(candidate, objective), _value(fastest, objective)
    crosses = _width(candidate)[0] < _width(fastest)[0] and _is_calibrated(fastest)
    if value <= best * (1 + (CROSSING_TOLERANCE if crosses else TOLERANCE)):
        return True
    own, others = _interval(candidate, objective), _interval(fastest, objective)
    if own is None or others is None or others[1] is None:
        return False
    return own[0] <= others[1]


def _is_calibrated(candidate: Candidate) -> bool:
    return candidate.summary is not None and candidate.summary.model_interval is not None


def _judged(
    candidate: Candidate, chosen: Candidate, objective: Objective, target_p99_s: float | None
) -> Candidate:
    """A candidate with its verdict against the chosen one."""
    if candidate.samples_s is None or chosen.samples_s is None:
        return candidate
    probability = faster_probability(candidate.samples_s, chosen.samples_s)
    candidate = replace(candidate, probability=probability)
    if candidate.reason is Reason.SAME_PLACEMENT:
        return candidate
    if _misses(candidate, target_p99_s):
        is_best = candidate.move is chosen.move
        text = "the best, and not enough" if is_best else "its p99 is over the target"
        return replace(candidate, reason=Reason.MISSES_TARGET, text=text)
    if candidate.move is chosen.move:
        return replace(candidate, text=_words_for_chosen(candidate))
    shortest_s = _value(chosen, objective)
    ratio = _value(candidate, objective) / shortest_s if shortest_s else 1.0
    if _is_as_fast(candidate, chosen, objective) and _width(candidate) > _width(chosen):
        gain = (
            "as good" if ratio >= 1 - TOLERANCE else f"{ratio:.2f} times, within the model's error"
        )
        text = f"{objective.value} is {gain}, but it takes {_width_words(candidate)}"
        return replace(candidate, reason=Reason.AS_FAST_BUT_WIDER, text=text)
    if _is_as_fast(candidate, chosen, objective) and _width(candidate) == _width(chosen):
        text = f"{objective.value} is as good, and it takes as many nodes"
        return replace(candidate, reason=Reason.NO_BETTER, text=text)
    text = f"{objective.value} is {ratio:.2f} times that of {chosen.move.name}"
    return replace(candidate, reason=Reason.SLOWER, text=text)


def faster_probability(a_s: FloatArray, b_s: FloatArray) -> float:
    """P(a run of a is faster than a run of b), ties counted half."""
    ordered = np.sort(b_s)
    below = np.searchsorted(ordered, a_s, side="left")
    not_above = np.searchsorted(ordered, a_s, side="right")
    return float(1 - (below + not_above).mean() / (2 * len(ordered)))


def _verdict(best: Candidate) -> Verdict:
    if best.reason is not Reason.CHOSEN or best.summary is None:
        return Verdict.NO_CANDIDATE
    return Verdict.SCALE_IN if _stays_in(best.summary) else Verdict.SCALE_OUT


def _stays_in(summary: LatencySummary) -> bool:
    return summary.domains == 1 or summary.nodes == 1


def _words_for_chosen(candidate: Candidate) -> str:
    return f"chosen, on {_width_words(candidate)}"


def _width(candidate: Candidate) -> tuple[int, int]:
    assert candidate.summary is not None, "only candidates that ran are compared"
    return candidate.summary.domains, candidate.summary.nodes


def _width_words(candidate: Candidate) -> str:
    domains, nodes = _width(candidate)
    return f"{counted(domains, 'NVLink domain')} and {counted(nodes, 'node')}"


def _value(candidate: Candidate, objective: Objective) -> float:
    """A percentile that the trials of all candidates carry. [s]"""
    assert candidate.summary is not None, "only candidates that ran are compared"
    value = candidate.summary.percentiles[objective.key]
    assert value is not None, "compared only by what all carry"
    return value


def _interval(candidate: Candidate, objective: Objective) -> tuple[float, float | None] | None:
    assert candidate.summary is not None, "only candidates that ran are compared"
    interval = candidate.summary.interval
    return None if interval is None else interval[objective.key]


def _misses(candidate: Candidate, target_p99_s: float | None) -> bool:
    """Whether a p99 is over the target, or is not carried, so that nobody can tell."""
    assert candidate.summary is not None, "only candidates that ran are judged"
    p99_s = candidate.summary.percentiles[Objective.P99.key]
    return target_p99_s is not None and (p99_s is None or p99_s > target_p99_s)

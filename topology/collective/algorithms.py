"""Algorithms: each makes the schedule of a collective, or says why it cannot.

Adding one: a function that builds, a row in ``ALGORITHMS``. ``replay`` proves what it builds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import numpy as np

from topology.collective.double_tree import double_binary_tree
from topology.collective.hierarchical import hierarchical, hierarchical_by_leaders
from topology.collective.nvls_tree import nvls_tree_builds, why_no_nvls_tree
from topology.collective.schedule import (
    Round,
    Schedule,
    Transfer,
    pipelined,
    round_from_transfers,
)
from topology.collective.stages import (
    Request,
    answered,
    binomial_stages,
    make_schedule,
    pipeline_schedule,
    ring_phase,
    switch_stages,
)
from topology.errors import ScheduleError
from topology.words import Collective

Refusal: TypeAlias = str
Build: TypeAlias = "Callable[[Request], Schedule]"


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A named algorithm: the collectives it does, when it cannot, and its ways to be built."""

    name: str
    collectives: tuple[Collective, ...]
    refusal: Callable[[Request], Refusal | None]
    builds: Callable[[Request], tuple[Build, ...]]


def build_schedules(name: str, request: Request) -> list[Schedule]:
    """The schedules of a named algorithm: one for each variant, of which the fastest is taken.

    Raises:
        ScheduleError: no such algorithm, or it does not do that collective on that layout.
    """
    algorithm = ALGORITHMS.get(name)
    if algorithm is None:
        raise ScheduleError(f"no algorithm {name!r}", remedy=f"use one of {', '.join(ALGORITHMS)}")
    reason = why_not(algorithm, request)
    if reason is not None:
        raise ScheduleError(reason, field=name, remedy=f"use {', '.join(usable_names(request))}")
    return [build(request) for build in algorithm.builds(request)]


def why_not(algorithm: Algorithm, request: Request) -> Refusal | None:
    """Why an algorithm cannot do a request, None where it can."""
    if request.collective not in algorithm.collectives:
        return f"{algorithm.name} does no {request.collective.value}"
    return algorithm.refusal(request)


def usable_names(request: Request) -> list[str]:
    """Algorithms that can do a request."""
    return [name for name, a in ALGORITHMS.items() if why_not(a, request) is None]


def ring(request: Request) -> Schedule:
    """Rings over the layout's orders: each rank passes a chunk on, n - 1 steps for each phase."""
    n, collective = request.ranks, request.collective
    orders = request.layout.orders[: max(1, request.channels)]
    phases: list[Round] = []
    if collective is not Collective.ALL_GATHER and n > 1:
        phases.append(ring_phase(orders, lead=0, reduces=True))
    if collective is not Collective.REDUCE_SCATTER and n > 1:
        lead = 1 if collective is Collective.ALL_REDUCE else 0
        phases.append(ring_phase(orders, lead=lead, reduces=False))
    owner = np.zeros(len(orders) * n, dtype=np.int64)
    for channel, order in enumerate(orders):
        # After a reduce phase position p holds chunk p + 1; a gather phase starts with chunk p.
        late = 1 if collective is Collective.REDUCE_SCATTER else 0
        owner[channel * n + (np.arange(n) + late) % n] = order
    return make_schedule(request, "ring", owner, phases, channels=len(orders))


def tree(request: Request) -> Schedule:
    """Binomial reduce to rank 0, binomial broadcast from it; a rank's own data costs no message."""
    up = list(binomial_stages(range(request.ranks)))
    down = [answered(stage) for stage in reversed(up)]
    stages = down if request.collective is Collective.BROADCAST else [*up, *down]
    return pipeline_schedule(request, "tree", stages)


def recursive_doubling(request: Request) -> Schedule:
    """Partners at distance 1, 2, 4 ... exchange all; ranks over a power of two fold in."""
    n = request.ranks
    core = 1 << (n.bit_length() - 1)
    fold = [Transfer(i, i - core, 0, 1, reduces=True) for i in range(core, n)]
    rounds = [round_from_transfers(fold)] if fold else []
    distance = 1
    while distance < core:
        exchange = (Transfer(i, i ^ distance, 0, 1, reduces=True) for i in range(core))
        rounds.append(round_from_transfers(exchange))
        distance *= 2
    if fold:
        rounds.append(round_from_transfers(answered(fold)))
    return make_schedule(request, "recursive_doubling", np.zeros(1, dtype=np.int64), rounds)


def nvls(request: Request) -> Schedule:
    """In-switch: all ranks send up, the NVSwitch reduces and sends down to all."""
    n, collective = request.ranks, request.collective
    per_piece = 1 if collective is Collective.ALL_REDUCE else n
    up, down = switch_stages(tuple(range(n)), n, collective, per_piece)
    rounds = pipelined([up, down], pieces=request.pieces, stride=per_piece)
    shares = np.zeros(1) if per_piece == 1 else np.arange(n)
    owner = np.tile(shares, request.pieces).astype(np.int64)
    return make_schedule(request, "nvls", owner, rounds, switches=1, channels=request.pieces)


def pairwise(request: Request) -> Schedule:
    """All-to-all: in step k every rank sends to the rank k further on, n - 1 steps."""
    n = request.ranks
    ranks = np.arange(n)
    rounds = []
    for k in range(1, n):
        to = (ranks + k) % n
        rounds.append(
            Round(
                source=ranks,
                destination=to,
                channel=np.zeros(n, dtype=np.int64),
                base=np.zeros(n, dtype=np.int64),
                offset=ranks * n + to,
                chunk_count=np.ones(n, dtype=np.int64),
                reduces=np.zeros(n, dtype=np.bool_),
                lockstep=True,
            )
        )
    owner, target = np.divmod(np.arange(n * n), n)
    return make_schedule(request, "pairwise", owner, rounds, fraction=1 / n, target=target)


def _none(request: Request) -> Refusal | None:
    return None


def _no_switch(request: Request) -> Refusal | None:
    if len(request.layout.domains) > 1:
        return f"the ranks lie in {len(request.layout.domains)} NVLink domains, nvls needs one"
    if not request.layout.reduces_in_switch:
        return "no NVSwitch here reduces in the switch (NVLink 4 or later does)"
    return None


def _hierarchical_builds(request: Request) -> tuple[Build, ...]:
    if not request.layout.has_equal_domains:
        return (hierarchical_by_leaders,)
    insides = ("switch", "ring") if request.layout.reduces_in_switch else ("ring",)
    ways = [
        partial(hierarchical, inside=inside, across=across)
        for inside in insides
        for across in ("tree", "ring")
    ]
    return (*ways, hierarchical_by_leaders)


def _one_level(request: Request) -> Refusal | None:
    if len(request.layout.domains) == 1:
        return "all ranks lie in one NVLink domain, there is no level above it"
    if max(len(domain) for domain in request.layout.domains) == 1:
        return "every rank is alone in its NVLink domain, there is no level below"
    return None


_REDUCING: Final = (Collective.ALL_REDUCE, Collective.REDUCE_SCATTER)
_RING: Final = (*_REDUCING, Collective.ALL_GATHER)

ALGORITHMS: Final = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm("ring", _RING, _none, lambda request: (ring,)),
        Algorithm(
            "tree", (Collective.ALL_REDUCE, Collective.BROADCAST), _none, lambda request: (tree,)
        ),
        Algorithm(
            "double_binary_tree",
            (Collective.ALL_REDUCE,),
            _none,
            lambda request: (double_binary_tree,),
        ),
        Algorithm(
            "recursive_doubling",
            (Collective.ALL_REDUCE,),
            _none,
            lambda request: (recursive_doubling,),
        ),
        Algorithm("nvls", _RING, _no_switch, lambda request: (nvls,)),
        Algorithm("nvls_tree", (Collective.ALL_REDUCE,), why_no_nvls_tree, nvls_tree_builds),
        Algorithm("hierarchical", (Collective.ALL_REDUCE,), _one_level, _hierarchical_builds),
        Algorithm("pairwise", (Collective.ALLTOALL,), _none, lambda request: (pairwise,)),
    )
}

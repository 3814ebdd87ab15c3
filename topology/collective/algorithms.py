"""Algorithms: each makes the schedule of a collective, or says why it cannot.

Adding one: a function that builds, a row in ``ALGORITHMS``. ``replay`` proves what it builds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import numpy as np

from topology.collective.all_to_all import direct_all_to_all, hierarchical_all_to_all, pairwise
from topology.collective.collnet import collnet_builds, why_no_collnet
from topology.collective.direct import (
    direct_gather,
    direct_scatter,
    one_shot,
    sendrecv,
    two_shot,
    why_no_clique,
    why_not_direct,
)
from topology.collective.double_tree import double_binary_tree
from topology.collective.hierarchical import hierarchical, hierarchical_by_leaders
from topology.collective.nvls_tree import nvls_tree_builds, why_no_nvls_tree
from topology.collective.pat import pat, why_no_pat
from topology.collective.pipelined_chain import ring_chain
from topology.collective.schedule import Schedule, Transfer, pipelined, round_from_transfers
from topology.collective.stages import (
    Request,
    answered,
    binomial_stages,
    make_schedule,
    pipeline_schedule,
    ring_phases,
    switch_stages,
)
from topology.errors import ScheduleError
from topology.words import Collective

Refusal: TypeAlias = str
Build: TypeAlias = "Callable[[Request], Schedule]"


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A named algorithm: the collectives it does, when it cannot, and its ways to be built.

    ``has_rails``: it runs on as many rails as the request has channels. ``in_pieces``: collectives
    that it cuts into the request's pieces.
    """

    name: str
    collectives: tuple[Collective, ...]
    refusal: Callable[[Request], Refusal | None]
    builds: Callable[[Request], tuple[Build, ...]]
    has_rails: bool = False
    in_pieces: tuple[Collective, ...] = ()


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
    n = request.ranks
    orders = request.layout.orders[: max(1, request.channels)]
    phases = ring_phases(orders, request.collective) if n > 1 else []
    owner = np.array(orders, dtype=np.int64).ravel()
    return make_schedule(request, "ring", owner, phases, channels=len(orders))


def tree(request: Request) -> Schedule:
    """Binomial reduce to rank 0, binomial broadcast from it; a rank's own data costs no message.

    An all-reduce is both. All leaves begin at once: a reduce of large buffers over shared links
    errs on the fast side, for what is sent in different steps may meet there unseen.
    """
    up = list(binomial_stages(range(request.ranks)))
    stages = [] if request.collective is Collective.BROADCAST else list(up)
    if request.collective is not Collective.REDUCE:
        stages += [answered(stage) for stage in reversed(up)]
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


def _none(request: Request) -> Refusal | None:
    return None


def _no_switch(request: Request) -> Refusal | None:
    if len(request.layout.domains) > 1:
        return f"the ranks lie in {len(request.layout.domains)} NVLink domains, nvls needs one"
    if not request.layout.reduces_in_switch:
        return "no NVSwitch here reduces in the switch (NVLink 4 or later does)"
    return None


def _ring_builds(request: Request) -> tuple[Build, ...]:
    return (ring_chain,) if request.collective in _ROOTED else (ring,)


def _direct_builds(request: Request) -> tuple[Build, ...]:
    ways: dict[Collective, Build] = {
        Collective.SENDRECV: sendrecv,
        Collective.ALL_GATHER: direct_gather,
        Collective.REDUCE_SCATTER: direct_scatter,
    }
    return (ways.get(request.collective, direct_all_to_all),)


def _hierarchical_builds(request: Request) -> tuple[Build, ...]:
    if request.collective in _ALL_TO_ALL:
        return (hierarchical_all_to_all,)
    insides = ("switch", "ring") if request.layout.reduces_in_switch else ("ring",)
    is_all_reduce = request.collective is Collective.ALL_REDUCE
    ways = [
        partial(hierarchical, inside=inside, across=across)
        for inside in insides
        for across in (("tree", "ring") if is_all_reduce else ("ring",))
        if request.layout.has_equal_domains
    ]
    return (*ways, hierarchical_by_leaders) if is_all_reduce else tuple(ways)


def _one_level(request: Request) -> Refusal | None:
    if len(request.layout.domains) == 1:
        return "all ranks lie in one NVLink domain, there is no level above it"
    if max(len(domain) for domain in request.layout.domains) == 1:
        return "every rank is alone in its NVLink domain, there is no level below"
    if request.collective is not Collective.ALL_REDUCE and not request.layout.has_equal_domains:
        sizes = ", ".join(str(len(domain)) for domain in request.layout.domains)
        return f"the NVLink domains hold {sizes} ranks, only all_reduce does with unequal numbers"
    return None


_ALL_REDUCE: Final = (Collective.ALL_REDUCE,)
_SHARED_OUT: Final = (Collective.REDUCE_SCATTER, Collective.ALL_GATHER)
_RING: Final = (*_ALL_REDUCE, *_SHARED_OUT)
_ROOTED: Final = (Collective.BROADCAST, Collective.REDUCE)
_TREE: Final = (*_ALL_REDUCE, *_ROOTED)
_ALL_TO_ALL: Final = (Collective.ALLTOALL, Collective.ALLTOALLV)

ALGORITHMS: Final = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm(
            "ring", (*_RING, *_ROOTED), _none, _ring_builds, has_rails=True, in_pieces=_ROOTED
        ),
        Algorithm("tree", _TREE, _none, lambda _: (tree,), in_pieces=_TREE),
        Algorithm(
            "double_binary_tree",
            _ALL_REDUCE,
            _none,
            lambda _: (double_binary_tree,),
            has_rails=True,
            in_pieces=_ALL_REDUCE,
        ),
        Algorithm("recursive_doubling", _ALL_REDUCE, _none, lambda _: (recursive_doubling,)),
        Algorithm("nvls", _RING, _no_switch, lambda _: (nvls,), in_pieces=_RING),
        Algorithm(
            "nvls_tree", _ALL_REDUCE, why_no_nvls_tree, nvls_tree_builds, in_pieces=_ALL_REDUCE
        ),
        Algorithm("collnet", _ALL_REDUCE, why_no_collnet, collnet_builds, in_pieces=_ALL_REDUCE),
        Algorithm("pat", _SHARED_OUT, why_no_pat, lambda _: (pat,)),
        Algorithm(
            "hierarchical",
            (*_RING, *_ALL_TO_ALL),
            _one_level,
            _hierarchical_builds,
            in_pieces=_ALL_REDUCE,
        ),
        Algorithm("one_shot", _ALL_REDUCE, why_no_clique, lambda _: (one_shot,)),
        Algorithm("two_shot", _ALL_REDUCE, why_no_clique, lambda _: (two_shot,)),
        Algorithm(
            "direct",
            (Collective.SENDRECV, *_SHARED_OUT, *_ALL_TO_ALL),
            why_not_direct,
            _direct_builds,
        ),
        Algorithm("pairwise", _ALL_TO_ALL, _none, lambda _: (pairwise,)),
    )
}

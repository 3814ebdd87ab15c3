"""All-to-all, with equal shares or with a share of its own for each pair of ranks."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from topology.collective.direct import all_pairs
from topology.collective.schedule import BoolArray, IntArray, Round, Schedule, round_of
from topology.collective.stages import Request, make_schedule


def pairwise(request: Request) -> Schedule:
    """In step k every rank sends to the rank k further on, n - 1 steps."""
    n = request.ranks
    ranks = np.arange(n)
    steps = [(ranks, (ranks + k) % n) for k in range(1, n)]
    rounds = [round_of(a, b, a * n + b, lockstep=True) for a, b in steps]
    return _scheduled(request, "pairwise", rounds, *np.divmod(np.arange(n * n), n))


def direct_all_to_all(request: Request) -> Schedule:
    """Every rank sends to all others in one step."""
    n = request.ranks
    a, b = all_pairs(n)
    rounds = [round_of(a, b, a * n + b)]
    return _scheduled(request, "direct", rounds, *np.divmod(np.arange(n * n), n))


def hierarchical_all_to_all(request: Request) -> Schedule:
    """First to the rank of the own domain in the target's place, then across the domains.

    A message across carries what all ranks of a domain have for one rank.
    """
    groups = np.array(request.layout.domains, dtype=np.int64)
    count, size = groups.shape
    # Chunks by the target's place, the source's domain and place, the target's domain: what one
    # rank sends inside its domain is a row of them, what it sends across a column.
    shape = (size, count, size, count)
    place, home, origin, goal = np.indices(shape).reshape(4, -1)
    number = np.arange(len(place)).reshape(shape)
    to, at, start = np.indices(shape[:3]).reshape(3, -1)
    inside = round_of(groups[at, start], groups[at, to], number[to, at, start, 0], chunks=count)
    by, near, far = np.indices((size, count, count)).reshape(3, -1)
    first = number[by, near, 0, far]
    across = round_of(groups[near, by], groups[far, by], first, chunks=size, stride=count)
    owner, target = groups[home, origin], groups[goal, place]
    variant = "direct in the domain, direct across"
    return _scheduled(request, "hierarchical", [inside, across], owner, target, variant=variant)


def _scheduled(
    request: Request,
    name: str,
    rounds: Iterable[Round],
    owner: IntArray,
    target: IntArray,
    *,
    variant: str = "",
) -> Schedule:
    """The rounds without messages of no bytes, and without those of a rank to itself."""
    shares = request.pair_fraction
    schedule = make_schedule(
        request,
        name,
        owner,
        [],
        fraction=1 / request.ranks,
        target=target,
        variant=variant,
        fractions=None if shares is None else shares[owner, target],
    )
    trimmed = (
        _selected(round_, (round_.source != round_.destination) & (schedule.shares(round_) > 0))
        for round_ in rounds
    )
    return replace(schedule, rounds=tuple(round_ for round_ in trimmed if round_.transfers))


def _selected(round_: Round, is_sent: BoolArray) -> Round:
    if is_sent.all():
        return round_
    return replace(
        round_,
        source=round_.source[is_sent],
        destination=round_.destination[is_sent],
        channel=round_.channel[is_sent],
        base=round_.base[is_sent],
        offset=round_.offset[is_sent],
        chunk_count=round_.chunk_count[is_sent],
        reduces=round_.reduces[is_sent],
    )

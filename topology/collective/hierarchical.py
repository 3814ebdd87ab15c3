"""Hierarchical collectives: in each NVLink domain, and across the domains."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest

import numpy as np

from topology.collective.schedule import (
    Round,
    Schedule,
    Transfer,
    round_from_transfers,
)
from topology.collective.stages import (
    Request,
    answered,
    binomial_stages,
    make_schedule,
    pipeline_schedule,
    ring_phase,
    ring_phases,
    switch_stages,
)
from topology.words import Collective


def hierarchical(request: Request, *, inside: str, across: str) -> Schedule:
    """Scatter sums in each domain, the same collective across, gather in each domain.

    A reduce-scatter leaves the last phase out, an all-gather the first. ``inside``: in the NVSwitch
    (``switch``) or by ``ring``. ``across``: for each share of the data the ranks that hold it, by
    ``ring`` or, to all-reduce, by binomial ``tree``.
    """
    layout, collective = request.layout, request.collective
    groups = layout.domains
    size, count = len(groups[0]), len(groups)
    per_share = count if across == "ring" else 1
    switches = [layout.ranks + i for i in range(count)] if inside == "switch" else []
    rounds: list[Round] = []
    if collective is not Collective.ALL_GATHER:
        rounds += _in_domains(groups, switches, per_share, Collective.REDUCE_SCATTER)
    rounds += _across(groups, per_share, across, collective)
    if collective is not Collective.REDUCE_SCATTER:
        rounds += _in_domains(groups, switches, per_share, Collective.ALL_GATHER)
    is_all_reduce = collective is Collective.ALL_REDUCE
    owner = np.zeros(size * per_share) if is_all_reduce else np.transpose(groups).ravel()
    variant = f"{inside} in the domain, {across} across"
    return make_schedule(
        request,
        "hierarchical",
        owner.astype(np.int64),
        rounds,
        switches=len(switches),
        variant=variant,
    )


def hierarchical_by_leaders(request: Request) -> Schedule:
    """All-reduce: binomial reduce to a leader of each domain, tree across, broadcast back."""
    groups = request.layout.domains
    per_group = [list(binomial_stages(group)) for group in groups]
    up = [list(chain.from_iterable(stages)) for stages in zip_longest(*per_group, fillvalue=[])]
    up += list(binomial_stages([group[0] for group in groups]))
    stages = [*up, *(answered(stage) for stage in reversed(up))]
    variant = "tree to a leader of each domain, tree across"
    return pipeline_schedule(request, "hierarchical", stages, variant=variant)


def _in_domains(
    groups: Sequence[Sequence[int]], switches: Sequence[int], per_share: int, phase: Collective
) -> list[Round]:
    """One phase in all domains side by side; share i of a domain's data belongs to its rank i."""
    size = len(groups[0])
    if size == 1:
        return []
    if not switches:
        scatters = phase is Collective.REDUCE_SCATTER
        ring_round = ring_phase(groups, lead=-1 if scatters else 0, reduces=scatters)
        return [_widened(ring_round, per_share)]
    legs: tuple[list[Transfer], list[Transfer]] = ([], [])
    for group, switch in zip(groups, switches, strict=True):
        for leg, stage in zip(legs, switch_stages(group, switch, phase, size), strict=True):
            leg += [
                t._replace(first=t.first * per_share, chunks=t.chunks * per_share) for t in stage
            ]
    return [round_from_transfers(leg) for leg in legs]


def _across(
    groups: Sequence[Sequence[int]], per_share: int, across: str, collective: Collective
) -> list[Round]:
    """The collective of every share among the ranks that hold it, one from each domain."""
    if len(groups) == 1:
        return []
    holders = list(zip(*groups, strict=True))
    if across == "ring":
        phases = ring_phases(holders, collective)
        return [
            replace(phase, channel=np.zeros(phase.transfers, dtype=np.int64)) for phase in phases
        ]
    shares = [list(binomial_stages(ranks)) for ranks in holders]
    up = [
        [t._replace(first=share) for share, stages in enumerate(shares) for t in stages[k]]
        for k in range(len(shares[0]))
    ]
    return [round_from_transfers(stage) for stage in (*up, *(answered(s) for s in reversed(up)))]


def _widened(round_: Round, factor: int) -> Round:
    """The same transfers with every chunk ``factor`` chunks wide, all on one channel."""
    return replace(
        round_,
        channel=np.zeros(round_.transfers, dtype=np.int64),
        base=np.zeros(round_.transfers, dtype=np.int64),
        offset=round_.offset * factor,
        chunk_count=round_.chunk_count * factor,
        modulus=round_.modulus * factor,
        shift=round_.shift * factor,
    )

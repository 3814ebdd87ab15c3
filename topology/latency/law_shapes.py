"""Law shapes: laws of whole collectives from their shape alone, without a schedule.

For any number of ranks at once: a tree costs one convolution a level. One piece, so little data
that a rank's sends do not hold each other up. ``exact`` does the same from a schedule's costs.
"""

from collections.abc import Sequence

from topology.latency.law import Law, greatest, point


def switch_law(hop: Law, ranks: int) -> Law:
    """In-switch all-reduce: the latest of n legs up, then the latest of n legs down.

    ``hop``: one leg, its time without jitter included.
    """
    legs = hop.greatest_of(ranks)
    return legs.plus(legs)


def tree_law(ranks: int, hop_of_level: Sequence[Law]) -> Law:
    """Binomial all-reduce: ``law(k + 1) = max(law(k), law(k) + hop)`` up, and the same down.

    ``hop_of_level``: law of a hop between ranks 1, 2, 4 ... apart.

    Raises:
        ValueError: fewer levels than the ranks have.
    """
    one_way = reduce_law(ranks, hop_of_level, point(hop_of_level[0].grid, 0.0))
    return one_way.plus(one_way)


def reduce_law(ranks: int, hop_of_level: Sequence[Law], leaf: Law) -> Law:
    """Binomial reduce of ranks that are ready at ``leaf``; read downward, a broadcast to such ends.

    Raises:
        ValueError: fewer levels than the ranks have.
    """
    levels = (ranks - 1).bit_length()
    if levels > len(hop_of_level):
        raise ValueError(f"hop_of_level: {len(hop_of_level)}; {ranks} ranks have {levels} levels")
    whole = [leaf]
    for hop in hop_of_level[: ranks.bit_length() - 1]:
        whole.append(greatest([(whole[-1], 1), (whole[-1].plus(hop), 1)]))
    return _part(ranks, whole, hop_of_level)


def _part(ranks: int, whole: Sequence[Law], hop_of_level: Sequence[Law]) -> Law:
    """A tree over any number of ranks: a whole one, and a part that sends to its root."""
    level = ranks.bit_length() - 1
    rest = ranks - (1 << level)
    if not rest:
        return whole[level]
    sent = _part(rest, whole, hop_of_level).plus(hop_of_level[level])
    return greatest([(whole[level], 1), (sent, 1)])


def hierarchical_law(domains: int, per_domain: int, leg: Law, hop_of_level: Sequence[Law]) -> Law:
    """All-reduce: sums in each domain's switch, a tree across for each rank's share, and back.

    A domain's sum goes into the trees of all its shares: whole from above, its floor from below.

    Raises:
        ValueError: fewer levels than the domains have.
    """
    legs = leg.greatest_of(per_domain)
    ready = legs.shared().plus(leg)
    share = reduce_law(domains, hop_of_level, ready)
    return share.plus(share).greatest_of(per_domain)

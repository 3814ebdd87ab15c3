"""Closed forms: noiseless completion where every hop costs the same. Laws for the replay to obey.

All: n ranks, S bytes of one rank's whole buffer, alpha one hop's latency, B one direction's rate.
Messages that a rank sends, or gets, in one step share its link; switches that reduce share nothing.
"""


def ring_all_reduce_s(
    *, ranks: int, size_bytes: float, alpha_s: float, bytes_per_s: float
) -> float:
    """Time of a ring all-reduce with equal hops. [s]

    ``2 (n-1) (alpha + S / (n B))``: 2(n-1) steps, each moves S/n bytes over one hop.

    >>> t = ring_all_reduce_s(ranks=8, size_bytes=1e9, alpha_s=2e-6, bytes_per_s=450e9)
    >>> f"{t * 1e3:.3f} ms"
    '3.917 ms'
    """
    return 2 * ring_gather_s(
        ranks=ranks, size_bytes=size_bytes, alpha_s=alpha_s, bytes_per_s=bytes_per_s
    )


def ring_gather_s(*, ranks: int, size_bytes: float, alpha_s: float, bytes_per_s: float) -> float:
    """Time of a ring all-gather or reduce-scatter, and of a pairwise all-to-all. [s]

    ``(n-1) (alpha + S / (n B))``.
    """
    n, S, B = ranks, size_bytes, bytes_per_s  # noqa: N806
    return (n - 1) * (alpha_s + S / (n * B))


def tree_broadcast_s(*, ranks: int, size_bytes: float, alpha_s: float, bytes_per_s: float) -> float:
    """Time of a binomial broadcast of one piece. [s]

    ``floor(log2 n) alpha + ceil(log2 n) S / B``: the root sends to each child in turn, a rank
    deeper down waits for its parent. Rank 2^k - 1, k = floor(log2 n), is the last to be reached: by
    k messages, behind one more that leaves the root first where n is no power of two.
    """
    deep, turns = ranks.bit_length() - 1, (ranks - 1).bit_length()
    return deep * alpha_s + turns * size_bytes / bytes_per_s


def tree_all_reduce_s(
    *, ranks: int, size_bytes: float, alpha_s: float, bytes_per_s: float
) -> float:
    """Time of a binomial reduce and broadcast of one piece. [s]

    ``2 k alpha + (k + ceil(log2 n)) S / B``, k = floor(log2 n): the reduce has k messages one after
    another, for a rank sends only once.
    """
    link = {"size_bytes": size_bytes, "alpha_s": alpha_s, "bytes_per_s": bytes_per_s}
    return tree_reduce_s(ranks=ranks, **link) + tree_broadcast_s(ranks=ranks, **link)


def tree_reduce_s(*, ranks: int, size_bytes: float, alpha_s: float, bytes_per_s: float) -> float:
    """Time of a binomial reduce of one piece. [s]

    ``floor(log2 n) (alpha + S / B)``: a rank sends only once.
    """
    return (ranks.bit_length() - 1) * (alpha_s + size_bytes / bytes_per_s)


def recursive_doubling_s(
    *, ranks: int, size_bytes: float, alpha_s: float, bytes_per_s: float
) -> float:
    """Time of a recursive doubling all-reduce of a power of two ranks, else a bound from above. [s]

    ``(log2 p + 2 [n > p]) (alpha + S / B)``, p the largest power of two not above n: ranks beyond p
    fold in before and are answered after. Where few fold in, others need not wait for them.
    """
    steps = ranks.bit_length() - 1
    folded = 2 if ranks != 1 << steps else 0
    return (steps + folded) * (alpha_s + size_bytes / bytes_per_s)


def in_switch_all_reduce_s(
    *, size_bytes: float, alpha_s: float, bytes_per_s: float, pieces: int = 1
) -> float:
    """Time of an in-switch all-reduce, up and down, in a pipeline of k pieces. [s]

    ``2 alpha + (k + 1) / k S / B``: the number of ranks does not matter.
    """
    return 2 * alpha_s + (pieces + 1) / pieces * size_bytes / bytes_per_s


def chain_s(
    *, ranks: int, size_bytes: float, alpha_s: float, bytes_per_s: float, pieces: int = 1
) -> float:
    """Time of a ring broadcast or reduce: a chain over all ranks, in k pieces. [s]

    ``(n-1) alpha + (n + k - 2) / k S / B``: the last piece leaves behind k - 1 others, and then
    takes n - 1 hops.

    >>> f"{chain_s(ranks=8, size_bytes=1e9, alpha_s=0, bytes_per_s=1e9, pieces=64):.3f} s"
    '1.094 s'
    """
    if ranks == 1:
        return 0.0
    slots = (ranks + pieces - 2) / pieces
    return (ranks - 1) * alpha_s + slots * size_bytes / bytes_per_s


def sendrecv_s(*, ranks: int, size_bytes: float, alpha_s: float, bytes_per_s: float) -> float:
    """Time of a sendrecv: every rank sends its whole buffer to the next. [s]

    ``alpha + S / B``; nothing for one rank alone.
    """
    return min(1, ranks - 1) * (alpha_s + size_bytes / bytes_per_s)


def direct_s(*, ranks: int, size_bytes: float, alpha_s: float, bytes_per_s: float) -> float:
    """Time of a direct all-gather, reduce-scatter or all-to-all: all pairs at once. [s]

    ``alpha + (n-1) / n S / B``.
    """
    return min(1, ranks - 1) * alpha_s + (ranks - 1) / ranks * size_bytes / bytes_per_s


def one_shot_s(*, ranks: int, size_bytes: float, alpha_s: float, bytes_per_s: float) -> float:
    """Time of a one-shot all-reduce: every rank sends its whole buffer to all others. [s]

    ``alpha + (n-1) S / B``.
    """
    return min(1, ranks - 1) * alpha_s + (ranks - 1) * size_bytes / bytes_per_s


def two_shot_s(*, ranks: int, size_bytes: float, alpha_s: float, bytes_per_s: float) -> float:
    """Time of a two-shot all-reduce: a direct reduce-scatter, then a direct all-gather. [s]

    ``2 (alpha + (n-1) / n S / B)``.
    """
    return 2 * direct_s(
        ranks=ranks, size_bytes=size_bytes, alpha_s=alpha_s, bytes_per_s=bytes_per_s
    )


def pat_s(*, ranks: int, size_bytes: float, alpha_s: float, bytes_per_s: float) -> float:
    """Time of a PAT all-gather or reduce-scatter, for any number of ranks. [s]

    ``ceil(log2 n) alpha + (n-1) / n S / B``: no part goes to a rank twice.
    """
    steps = (ranks - 1).bit_length()
    return steps * alpha_s + (ranks - 1) / ranks * size_bytes / bytes_per_s


def collnet_direct_s(
    *, ranks_per_node: int, size_bytes: float, alpha_s: float, bytes_per_s: float
) -> float:
    """Time of a CollNetDirect all-reduce with a rail for each rank of a node, in one piece. [s]

    ``2 (1 + [g > 1]) alpha + 2 S / B``, g ranks a node: in the node each sends (g-1)/g of S, on the
    rail 1/g, both ways. The number of nodes does not matter.
    """
    legs = 2 if ranks_per_node > 1 else 1
    return 2 * legs * alpha_s + 2 * size_bytes / bytes_per_s


def collnet_chain_s(
    *, ranks_per_node: int, size_bytes: float, alpha_s: float, bytes_per_s: float
) -> float:
    """Time of a CollNetChain all-reduce with a rail for each rank of a node, in one piece. [s]

    ``2 g (alpha + S / (g B))``, g ranks a node: g - 1 hops to the head and one leg to the switches,
    both ways.
    """
    return 2 * ranks_per_node * alpha_s + 2 * size_bytes / bytes_per_s


def hierarchical_gather_s(
    *, domains: int, ranks_per_domain: int, size_bytes: float, alpha_s: float, bytes_per_s: float
) -> float:
    """Time of a two-level all-gather or reduce-scatter by rings in and across D domains. [s]

    ``(D-1) (alpha + S / (n B)) + (g-1) (alpha + D S / (n B))``, n = g D.
    """
    D, g, part_s = domains, ranks_per_domain, size_bytes / bytes_per_s  # noqa: N806
    return (D - 1) * (alpha_s + part_s / (g * D)) + (g - 1) * (alpha_s + part_s / g)


def hierarchical_all_to_all_s(
    *, domains: int, ranks_per_domain: int, size_bytes: float, alpha_s: float, bytes_per_s: float
) -> float:
    """Time of a two-level all-to-all, direct in and across D domains of several ranks each. [s]

    ``2 alpha + ((g-1) / g + (D-1) / D) S / B``.
    """
    D, g = domains, ranks_per_domain  # noqa: N806
    return 2 * alpha_s + ((g - 1) / g + (D - 1) / D) * size_bytes / bytes_per_s

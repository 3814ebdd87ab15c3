"""Closed forms: noiseless completion where every hop costs the same. Laws for the replay to obey.

All: n ranks, S bytes of one rank's whole buffer, alpha one hop's latency, B one direction's rate.
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
    reduce_s = (ranks.bit_length() - 1) * (alpha_s + size_bytes / bytes_per_s)
    return reduce_s + tree_broadcast_s(
        ranks=ranks, size_bytes=size_bytes, alpha_s=alpha_s, bytes_per_s=bytes_per_s
    )


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

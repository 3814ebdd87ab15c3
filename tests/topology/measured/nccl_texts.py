"""Texts as nccl-tests prints them, with figures of a straight line: 20 us + size / 100 GB/s."""

from collections.abc import Callable, Sequence

SIZES = tuple(8 * 4**i for i in range(14))
"""8 B to 512 MiB."""


def straight_s(size_bytes: float) -> float:
    return 20e-6 + size_bytes / 100e9


def devices(hosts: Sequence[str] = ("n1", "n2"), per_host: int = 8, *, old: bool = False) -> str:
    lines = []
    for rank in range(len(hosts) * per_host):
        slot = rank % per_host
        group, bus = ("", f"0x{slot:02x}") if old else (" Group  0", f"0000:{slot:02x}:00")
        lines.append(
            f"#  Rank {rank:2d}{group} Pid {4000 + rank:6d} on {hosts[rank // per_host]:>10} "
            f"device {slot:2d} [{bus}] NVIDIA H100 80GB HBM3"
        )
    return "\n".join(lines)


def settings(
    threads: int = 1, gpus: int = 1, more: str = " agg iters: 1 validation: 1 graph: 0"
) -> str:
    return (
        f"# nThread {threads} nGpus {gpus} minBytes 8 maxBytes 536870912 step: 4(factor) "
        f"warmup iters: 5 iters: 20{more}"
    )


def table(
    ratio: float = 1.875,
    *,
    lead: Sequence[str] = ("redop", "root"),
    cells: Sequence[str] = ("sum", "-1"),
    wrong: str = "#wrong",
    wrong_cell: str = "0",
    in_place_wrong: str | None = None,
    sizes: Sequence[int] = SIZES,
    time_s: Callable[[float], float] = straight_s,
    unit: float = 1e6,
    dtype: str = "float",
) -> str:
    """Head and rows; ``ratio`` is busbw / algbw: 1.875 is all-reduce with 16 ranks."""
    block = ["time", "algbw", "busbw", wrong]
    names = ["size", "count", "type", *lead, *block, *block]
    lines = [
        "#                              out-of-place                       in-place",
        "#  " + "  ".join(f"{name:>8}" for name in names),
        "#        (B)    (elements)          (us)  (GB/s)  (GB/s)       (us)  (GB/s)  (GB/s)",
    ]
    for size in sizes:
        time = time_s(size)
        algbw = size / time / 1e9
        told = [f"{time * unit:.2f}", f"{algbw:.2f}", f"{algbw * ratio:.2f}"]
        row = [str(size), str(size // 4), dtype, *cells, *told, wrong_cell]
        row += [*told, wrong_cell if in_place_wrong is None else in_place_wrong]
        lines.append("  ".join(f"{cell:>10}" for cell in row))
    return "\n".join(lines)


FOOTER = "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 61.7 \n#\n"


def whole(
    program: str | None = "all_reduce",
    *,
    rows: str | None = None,
    head: str | None = None,
    ranks: str | None = None,
) -> str:
    """A whole output: command, settings, devices, table, footer."""
    command = "" if program is None else f"$ mpirun -np 16 ./build/{program}_perf -b 8 -e 512M\n"
    return (
        f"{command}{settings() if head is None else head}\n#\n# Using devices\n"
        f"{devices() if ranks is None else ranks}\n#\n{table() if rows is None else rows}\n{FOOTER}"
    )

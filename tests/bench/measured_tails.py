"""Measured tails: published message latencies replayed as collectives, against measured ones.

``python -m tests.bench.measured_tails latency_figures.csv`` prints the table of the README. Of each
fabric one trace of single messages (percentiles of 1-byte half round trips between two nodes) is
replayed as an all-reduce by recursive doubling, which has the law of the dissemination that was
measured (16 B, slowest rank). The band replays the same with the trace's median and the jitter of
the fabric's route class under each noise profile.

Which trace stands for a fabric was settled before any result: pairs in different racks where the
sources say so, as a collective does not fit into one rack; else the nearest in time. Everything
that was published stands in the table, what does not fit included. Nothing below the median was
published: draws there are the median. With a mirrored lower half instead (p10 = p50^2 / p90) the
medians come out 0.6 to 1.4 % lower, and Alps on 4 nodes at -17.5 % instead of -16.9 %.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from topology.fabric.link_figures import load_link_figures
from topology.latency.noise import message_noise, scaled_jitter
from topology.latency.summary import order_statistics
from topology.measured.resample import QuantileLaw, quantile_law, recursive_doubling_s
from topology.measured.tail import QUANTILES, MeasuredTail
from topology.measured.tail_band import PROFILES
from topology.measured.tail_files import read_tails

TRIALS = 20_000
MEDIAN_TOLERANCE = 0.17


@dataclass(frozen=True)
class FabricOfTraces:
    """A fabric of the published traces: its trace, and the route class that is nearest to it.

    ``is_held``: its medians are held to 17 %. These are the two fabrics on which resampling of the
    raw samples, by those who recomputed their percentiles, was published to do so.
    """

    name: str
    hardware: str
    trace: str | None
    route_class: str
    is_held: bool
    why: str


FABRICS = (
    FabricOfTraces(
        "Azure HC44rs, InfiniBand 100G", "Azure HC44rs", "2022_03_18_22_04_11", "ib_edr_1hop", True,
        "by day, as the collectives",
    ),
    FabricOfTraces(
        "Alps, Slingshot 100G", "Alps", "2022_07_14_12_59_18", "slingshot11_diff_group", True,
        "different racks",
    ),
    FabricOfTraces(
        "DEEP-EST, InfiniBand 100G", "DEEP-EST", "2022_05_05_17_00_11", "ib_edr_1hop", False,
        "the only one",
    ),
    FabricOfTraces(
        "GCP c2, Ethernet 100G", "GCP c2", "2022_07_02_13_32_13", "tcp_100g_cloud", False,
        "nearest in time, a week before",
    ),
    FabricOfTraces(
        "Piz Daint, Aries, shared", "Piz Daint", "2022_05_19_13_03_39", "aries_diff_group", False,
        "different racks, by day",
    ),
    FabricOfTraces(
        "Oracle HPC, RoCE 100G", "Oracle HPC", None, "roce200_in_rack", False, "none published"
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """A measured dissemination, the same resampled, and the band of its p99. [s]"""

    fabric: FabricOfTraces
    measured: MeasuredTail
    p50_s: float | None
    p99_s: float | None
    band_s: tuple[float, float] | None

    @property
    def median_error(self) -> float | None:
        """(resampled - measured) / measured, at the median."""
        return None if self.p50_s is None else self.p50_s / printed(self.measured, "p50_s") - 1

    @property
    def covers(self) -> bool | None:
        """Whether the band over profiles covers the measured p99."""
        if self.band_s is None:
            return None
        return self.band_s[0] <= printed(self.measured, "p99_s") <= self.band_s[1]


def printed(tail: MeasuredTail, name: str) -> float:
    assert tail.printed_s is not None
    return tail.printed_s[name]


def law_of(trace: MeasuredTail) -> QuantileLaw:
    """The law of a trace's messages by its published percentiles."""
    assert trace.printed_s is not None
    assert trace.largest_s is not None
    assert trace.count is not None
    quantiles_s = {QUANTILES[name]: value for name, value in trace.printed_s.items()}
    return quantile_law(quantiles_s, largest_s=trace.largest_s, count=trace.count)


def comparisons(tails: Sequence[MeasuredTail]) -> list[Comparison]:
    """Every measured dissemination of 16 B, fabric by fabric, by nodes."""
    found = []
    for fabric in FABRICS:
        ours = [tail for tail in tails if fabric.hardware in tail.what]
        trace = next((tail for tail in ours if is_trace_of(fabric, tail)), None)
        rows = [tail for tail in ours if is_dissemination(tail)]
        for nodes in sorted({row.nodes or 0 for row in rows}):
            replayed = (None, None, None) if trace is None else replay(fabric, trace, nodes)
            found += [Comparison(fabric, row, *replayed) for row in rows if row.nodes == nodes]
    return found


def is_trace_of(fabric: FabricOfTraces, tail: MeasuredTail) -> bool:
    is_trace = tail.what.startswith("MPI one-way latency")
    return is_trace and fabric.trace is not None and fabric.trace in tail.notes[0]


def is_dissemination(tail: MeasuredTail) -> bool:
    return tail.what.startswith("MPI dissemination") and tail.size_bytes == 16


def replay(
    fabric: FabricOfTraces, trace: MeasuredTail, ranks: int
) -> tuple[float, float, tuple[float, float]]:
    """The median and the p99 of the trace resampled, and the band of its p99. [s]"""
    rng = np.random.default_rng(ranks)
    times_s = recursive_doubling_s(law_of(trace), ranks=ranks, trials=TRIALS, rng=rng)
    p50_s, p99_s = np.quantile(times_s, [0.5, 0.99]).tolist()
    return p50_s, p99_s, band_of(fabric, printed(trace, "p50_s"), ranks)


def band_of(fabric: FabricOfTraces, median_s: float, ranks: int) -> tuple[float, float]:
    """Lowest and highest end of the profiles' 95 % intervals of p99. [s]"""
    ends = []
    figures = load_link_figures()
    low, high = order_statistics(TRIALS, 0.99)
    assert low is not None
    assert high is not None
    for profile in PROFILES:
        law = message_noise(scaled_jitter(figures, fabric.route_class, profile))
        rng = np.random.default_rng(ranks)
        times_s = recursive_doubling_s(law, ranks=ranks, trials=TRIALS, rng=rng, message_s=median_s)
        ends += np.sort(times_s)[[low, high]].tolist()
    return min(ends), max(ends)


def markdown(rows: Sequence[Comparison]) -> Iterator[str]:
    """The table in microseconds, the runs of a fabric on so many nodes in one row."""
    yield (
        "| fabric (trace) | nodes | p50 measured | resampled | p99 measured | resampled "
        "| p99, band over profiles | covers |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for (fabric, nodes), group in groupby(rows, key=lambda row: (row.fabric, row.measured.nodes)):
        runs = list(group)
        first = runs[0]
        covered = "-" if first.band_s is None else f"{sum(map(covers, runs))} of {len(runs)}"
        cells = (
            f"{fabric.name} ({fabric.why})",
            str(nodes),
            span(printed(run.measured, "p50_s") for run in runs),
            "-" if first.p50_s is None else f"{us(first.p50_s)} ({errors(runs)})",
            span(printed(run.measured, "p99_s") for run in runs),
            "-" if first.p99_s is None else us(first.p99_s),
            "-" if first.band_s is None else span(first.band_s),
            covered,
        )
        yield f"| {' | '.join(cells)} |"


def covers(row: Comparison) -> bool:
    return row.covers is True


def errors(runs: Sequence[Comparison]) -> str:
    found = sorted(run.median_error for run in runs if run.median_error is not None)
    return " to ".join(dict.fromkeys(f"{error:+.0%}" for error in (found[0], found[-1])))


def span(values_s: Iterable[float]) -> str:
    values = sorted(values_s)
    return " to ".join(dict.fromkeys(us(value) for value in (values[0], values[-1])))


def us(value_s: float) -> str:
    value = value_s * 1e6
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    print("\n".join(markdown(comparisons(read_tails(sys.argv[1]).tails))))

"""GOAL: a case for LogGOPSim, with the L, o and G that fit what its messages cost.

LogGOPSim knows one route: L between any two ranks, G a byte, and lets a rank send, and receive,
one message after another.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet.units import text_from_seconds
from topology.errors import ScheduleError
from topology.exports.case import Case, Figure, Parts, Product
from topology.exports.goal_text import NS, GoalText, round_text
from topology.latency.cost import RoundCost
from topology.words import ExportFormat, StackName

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FILE_NAME: Final = "case.goal"
ENDINGS: Final = (".goal", ".goal.gz")
"""Of an output that is the text itself, not a folder for it and its README."""


@dataclass(frozen=True, slots=True)
class LogGops:
    """LogGOPSim's figures. A message of s bytes takes ``L + 2 o + (s - 1) G``. [s, s/B]

    g, the least gap between messages, and O, the CPU's time a byte, are 0.
    """

    latency_s: float
    overhead_s: float
    per_byte_s: float

    @property
    def options(self) -> str:
        """As LogGOPSim takes them: whole nanoseconds, G in nanoseconds a byte.

        >>> LogGops(latency_s=1.2e-6, overhead_s=0.0, per_byte_s=1 / 360e9).options
        '-L 1200 -o 0 -g 0 -G 0.00277778 -O 0'
        """
        latency, overhead = round(self.latency_s * NS), round(self.overhead_s * NS)
        return f"-L {latency} -o {overhead} -g 0 -G {self.per_byte_s * NS:.6g} -O 0"


class _Costs(NamedTuple):
    """What the messages of a round need, each of shape (m,): fixed time, time a byte, bytes."""

    round: RoundCost
    fixed_s: FloatArray
    per_byte_s: FloatArray
    size_bytes: FloatArray

    def delay_s(self, figures: LogGops) -> FloatArray:
        """What each message takes longer than the figures say. [s]"""
        fixed_s = self.fixed_s - figures.latency_s - 2 * figures.overhead_s
        return np.asarray(fixed_s + (self.per_byte_s - figures.per_byte_s) * self.size_bytes)


def goal_text(case: Case) -> tuple[GoalText, LogGops]:
    """The schedule of a case as GOAL tells it, and the figures that fit its costs.

    L and G are those of the fastest messages; what others take longer is their delay. CPU overhead
    o is what MPI adds; NCCL's software is no CPU's and lies in L.

    Raises:
        ScheduleError: switches reduce, which GOAL's ranks cannot stand for.
    """
    schedule, costs = case.choice.schedule, case.choice.costs
    if schedule.switches:
        raise ScheduleError(
            f"{schedule.algorithm} reduces in switches, and GOAL knows ranks only",
            field="--format goal",
            remedy="name an --algorithm of ranks, such as ring or double_binary_tree",
        )
    size, ranks = case.scenario.size_bytes, case.placement.ranks
    rows = [_costs(cost, schedule.shares(cost.round) * size) for cost in costs.rounds]
    figures = _fitting(case, rows)
    rounds = (
        round_text(row.round.round, row.size_bytes, row.delay_s(figures), ranks=ranks)
        for row in rows
    )
    launch_ns = round((costs.launch_s + costs.base_s) * NS)
    return GoalText(ranks, launch_ns, tuple(rounds)), figures


def _costs(cost: RoundCost, size_bytes: FloatArray) -> _Costs:
    """A message's own time a byte: its bandwidth time over what its busier end carries then.

    Only what goes by the same class of route is counted, and LogGOPSim shares the ends itself.
    """
    sent, received = (
        _together(end, cost.jitter, size_bytes)
        for end in (cost.round.source, cost.round.destination)
    )
    carried = np.maximum(np.maximum(sent, received), np.finfo(float).tiny)
    return _Costs(cost, cost.wire_s + cost.software_s, cost.bandwidth_s / carried, size_bytes)


def _together(end: IntArray, route_class: IntArray, size_bytes: FloatArray) -> FloatArray:
    """Bytes of all messages with the same end and class, for each message, shape (m,). [B]"""
    key = end * (int(route_class.max(initial=0)) + 1) + route_class
    return np.asarray(np.bincount(key, size_bytes)[key])


def _fitting(case: Case, rows: list[_Costs]) -> LogGops:
    """The least fixed time and the least time a byte of all that is sent."""
    is_cpu = case.choice.stack.name is StackName.MPI
    sent = [row for row in rows if row.size_bytes.any()]
    overhead_s = min((_least(row, row.round.software_s) for row in sent), default=0.0) / 2
    fixed_s = min((_least(row, row.fixed_s) for row in sent), default=0.0)
    per_byte_s = min((_least(row, row.per_byte_s) for row in sent), default=0.0)
    overhead_s *= is_cpu
    return LogGops(fixed_s - 2 * overhead_s, overhead_s, per_byte_s)


def _least(row: _Costs, of: FloatArray) -> float:
    return float(of[row.size_bytes > 0].min())


def goal_product(case: Case, output: str) -> Product:
    """The schedule of a case for LogGOPSim; ``output`` may name a folder or the file.

    Raises:
        ScheduleError: switches reduce, which GOAL's ranks cannot stand for.
    """
    text, figures = goal_text(case)
    return Product(
        format=ExportFormat.GOAL,
        files=partial(_files, text),
        size_bytes=text.expected_bytes(),
        messages=text.messages,
        figures=tuple(_figures(case, text, figures)),
        build=_BUILD,
        commands=tuple(_commands(text, figures, output)),
        differs=tuple(_differs(case, text)),
        unchecked=_UNCHECKED,
    )


def _files(text: GoalText) -> Iterator[tuple[str, Parts]]:
    yield FILE_NAME, _parts(text)


def _parts(text: GoalText) -> Iterator[bytes]:
    yield text.header.encode()
    for rank in range(text.ranks):
        yield from (part.encode() for part in text.block(rank))


def _figures(case: Case, text: GoalText, figures: LogGops) -> Iterator[Figure]:
    """L, o, G and what is written as ``calc``, each with where it comes from."""
    stack = case.choice.stack.name.value
    latency, overhead = figures.latency_s, figures.overhead_s
    yield Figure("L", text_from_seconds(latency), f"the least of a message, {stack} stack")
    yield Figure("o", text_from_seconds(overhead), f"CPU of a message, {stack} stack")
    rate = f" ({1 / figures.per_byte_s / 1e9:.6g} GB/s)" if figures.per_byte_s else ""
    yield Figure("G", f"{figures.per_byte_s * NS:.6g} ns/B{rate}", "the least of a message")
    if text.launch_ns:
        yield Figure("first calc", f"{text.launch_ns} ns", f"launch and base, {stack} stack")
    if text.delayed:
        what = f"{text.delayed} of {text.messages} messages"
        yield Figure("calc ... cpu 1", what, "what their route takes longer than L and G say")


def _commands(text: GoalText, figures: LogGops, output: str) -> Iterator[str]:
    """Text to binary, then the run: S above all messages, so that no send waits for a receive."""
    name = Path(output).name if output.endswith(ENDINGS) else FILE_NAME
    if name.endswith(".gz"):
        yield f"gunzip {name}"
    name = name.removesuffix(".gz")
    binary = Path(name).with_suffix(".bin")
    yield f"txt2bin -i {name} -o {binary}"
    yield f"LogGOPSim -f {binary} {figures.options} -S {text.largest_bytes + 1} -b"


def _differs(case: Case, text: GoalText) -> Iterator[str]:
    yield "LogGOPSim has whole nanoseconds: L, o and calc are rounded"
    if any(cost.round.lockstep for cost in case.choice.costs.rounds) and text.delayed:
        yield (
            "a message of our rings also waits until its receiver is done with the one before; "
            "LogGOPSim's is sent at once, so that it is faster where routes differ"
        )
    yield (
        "what a rank sends in one step arrives together in ours, when all of it has passed the "
        "link; there one message after another, the first ones sooner"
    )
    if case.choice.schedule.channels > 1:
        yield "all channels of a rank share one NIC there; here a channel is a lane of its own"
    yield "LogGOPSim gives one time a run; its noise comes from a trace (--noise-trace)"


_BUILD: Final = (
    "LogGOPSim: take the fork in ATLAHS (spcl/atlahs), for upstream's stops early on rings of 16",
    "ranks and more (seen at commit 76451de). Needs re2c, gengetopt, graphviz's headers, boost.",
)
_UNCHECKED: Final = (
    "no LogGOPSim was at hand to run this: the text was replayed by a small reader of our own",
    "txt2bin's -i and -o are from memory; -S is above every message, so that none waits for its "
    "receiver to be ready",
)

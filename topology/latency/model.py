"""Model: a closed form of an operation's time on a job, for any size, with its interval.

NCCL's choice of a way, then the calibrated time of that way. No schedule, no noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topology.errors import ScheduleError
from topology.latency.calibration import (
    Calibration,
    Reach,
    Region,
    load_calibration,
    region_of,
)
from topology.latency.job import Job
from topology.latency.nccl_figures import load_nccl_figures
from topology.latency.nccl_tuner import NcclTuner, Way, WayCost, nccl_ways
from topology.latency.operation import Operation
from topology.latency.terms import Part, Term, collective_figure, terms_of
from topology.words import AlgorithmName, Collective, Protocol

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SHARPNESS: Final = 4.0
"""Exponent of how a blocking launch and the operation beside it combine: nearly the longer."""

LL_MOST_BYTES: Final = 16384
"""Most bytes to one peer that NCCL's point-to-point operations send by LL. Source: S01."""

MOST_CUSTOM_BYTES: Final = {
    "": 8 * 2**20,
    "vllm": 8 * 2**20 - 1,
    "sglang": 16 * 2**20,
    "trtllm": 8 * 2**20,
}
"""Buffers of serving frameworks' own kernels, by library; larger messages go by NCCL. Low."""

MOST_CUSTOM_PCIE_RANKS: Final = 2
"""Where only PCIe joins more GPUs than these, frameworks leave all-reduce to NCCL.

vLLM and SGLang say so when they start, from knowledge; TensorRT-LLM's runs show the same. Medium.
"""

DIRECT: Final = AlgorithmName.DIRECT
CUSTOM: Final = (AlgorithmName.ONE_SHOT, AlgorithmName.TWO_SHOT)
UNKNOWN_TO_NCCL: Final = (DIRECT, *CUSTOM)
EXCHANGES: Final = (Collective.ALLTOALL, Collective.ALLTOALLV, Collective.SENDRECV)


class Terms(NamedTuple):
    """An operation's time by what takes it. [s]"""

    launch_s: float
    software_s: float
    wire_s: float
    bandwidth_s: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """Time of one operation. ``interval``: 80 % of held-out points of its group lie inside. [s]"""

    way: Way
    time_s: float
    terms: Terms
    interval: tuple[float, float] | None
    extrapolated: str | None


class Alternative(NamedTuple):
    """A way that could be taken: by our model, and by NCCL's, which has none for some. [s]"""

    way: Way
    time_s: float
    nccl_s: float


@dataclass(frozen=True, slots=True)
class CalibratedWay:
    """A way with its terms added up: ``launch + fixed + bytes + ramp + pieces``.

    A launch that blocks stands apart. ``piece_bytes``: the most that is one piece of a pipeline.
    """

    way: Way
    launch_s: float
    blocking_s: float
    fixed_s: float
    wire_s: float
    per_byte_s: float
    per_root_byte_s: float
    per_piece_byte_s: float
    piece_bytes: float
    bends: bool

    def time_s(self, sizes_bytes: FloatArray, tuner: NcclTuner) -> FloatArray:
        """Time for buffers of these sizes, shape (m,). [s]"""
        moved = sizes_bytes * self.per_byte_s
        if self.bends:
            moved = moved / tuner.bend(self.way, sizes_bytes)
        pieces = np.minimum(sizes_bytes, self.piece_bytes) * self.per_piece_byte_s
        ramp = np.sqrt(sizes_bytes) * self.per_root_byte_s
        own = self.launch_s + self.fixed_s + moved + ramp + pieces
        return blocked_s(own, self.blocking_s)

    def one_s(self, size_bytes: float, cost: WayCost | None) -> float:
        """Time for one buffer, as ``time_s`` but without arrays. [s]"""
        moved = size_bytes * self.per_byte_s
        if self.bends and cost is not None:
            moved /= cost.bend(size_bytes)
        moved += size_bytes**0.5 * self.per_root_byte_s
        moved += min(size_bytes, self.piece_bytes) * self.per_piece_byte_s
        own = float(self.launch_s + self.fixed_s + moved)
        if not self.blocking_s:
            return own
        return float((own**SHARPNESS + self.blocking_s**SHARPNESS) ** (1 / SHARPNESS))


def blocked_s(own: FloatArray, blocking_s: float) -> FloatArray:
    """Time of what runs beside a launch that blocks: nearly the longer of both. [s]"""
    if not blocking_s:
        return own
    return np.asarray((own**SHARPNESS + blocking_s**SHARPNESS) ** (1 / SHARPNESS))


def add_up(way: Way, terms: Sequence[Term], calibration: Calibration) -> CalibratedWay:
    """A way's terms under a calibration."""
    launch_s = blocking_s = fixed_s = wire_s = per_byte_s = root_s = piece_s = 0.0
    for term in terms:
        factor = calibration.factor(term.figures)
        if term.part is Part.LAUNCH:
            launch_s += 0.0 if term.blocks else factor * term.fixed_s
            blocking_s += factor * term.fixed_s if term.blocks else 0.0
            continue
        fixed_s += factor * term.fixed_s
        wire_s += min(term.wire_s, factor * term.fixed_s)
        per_byte_s += factor * term.per_byte_s
        root_s += factor * term.per_root_byte_s
        piece_s += factor * term.per_piece_byte_s
    return CalibratedWay(
        way=way,
        launch_s=launch_s,
        blocking_s=blocking_s,
        fixed_s=fixed_s,
        wire_s=wire_s,
        per_byte_s=per_byte_s,
        per_root_byte_s=root_s,
        per_piece_byte_s=piece_s,
        piece_bytes=max(term.piece_bytes for term in terms),
        bends=any(term.bends for term in terms),
    )


def ways_of(
    job: Job,
    operation: Operation,
    *,
    algorithm: AlgorithmName = AlgorithmName.AUTO,
    protocol: Protocol | None = None,
    custom: bool = False,
) -> tuple[Way, ...]:
    """The ways that an operation can go; ``custom``: a serving framework's own kernels, too.

    Raises:
        ScheduleError: one rank, or no way is left of those that NCCL has here.
    """
    collective = operation.collective
    if job.ranks == 1:
        raise ScheduleError(f"one rank alone does no {collective}", remedy="give two or more")
    ways: tuple[Way, ...]
    if collective in EXCHANGES:
        ways = (Way(DIRECT, Protocol.LL), Way(DIRECT, Protocol.SIMPLE))
    else:
        ways = nccl_ways(job, collective, is_integer=operation.is_integer)
    has_kernels = collective is Collective.ALL_REDUCE and job.net is None
    is_theirs = custom and (job.ranks <= MOST_CUSTOM_PCIE_RANKS or not job.is_pcie)
    if has_kernels and (is_theirs or algorithm in CUSTOM):
        ways += tuple(Way(name, None) for name in CUSTOM)
    left = tuple(
        way
        for way in ways
        if algorithm in (AlgorithmName.AUTO, way.algorithm) and protocol in (None, way.protocol)
    )
    if not left:
        known = "; ".join(dict.fromkeys(way.text for way in ways)) or "none"
        raise ScheduleError(
            f"NCCL does no {collective} by {algorithm}{f', {protocol}' if protocol else ''} here",
            remedy=f"here it has {known}",
        )
    return left


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """The closed form of one operation on one job, ready for any size.

    ``costs``: NCCL's own of each way, None where it has none.
    """

    tuner: NcclTuner
    operation: Operation
    ways: tuple[CalibratedWay, ...]
    costs: tuple[WayCost | None, ...]
    calibration: Calibration

    @property
    def reach(self) -> Reach:
        """Whether it stays in one clique."""
        return Reach.ONE_NODE if self.tuner.job.net is None else Reach.ACROSS_NODES

    def choice(self, sizes_bytes: FloatArray) -> IntArray:
        """Index of the way that NCCL takes for each size, shape (m,).

        By its own tuner's prediction; point-to-point by bytes to one peer; custom kernels by what
        is fastest, for their makers measure.
        """
        if self.ways[0].way.algorithm is DIRECT:
            ranks = [self._exchange_rank(way.way, sizes_bytes) for way in self.ways]
            return np.asarray(np.argmin(ranks, axis=0))
        own = [way.way.algorithm in CUSTOM for way in self.ways]
        times = [self._tuner_s(way.way, sizes_bytes) for way in self.ways]
        chosen = np.asarray(np.argmin(times, axis=0))
        return self._with_kernels(chosen, sizes_bytes) if any(own) else chosen

    def _taken(self, size_bytes: float) -> int:
        """As ``choice``, for one size."""
        if self.ways[0].way.algorithm is DIRECT:
            is_short = size_bytes / self._peers <= LL_MOST_BYTES
            fits = [(way.way.protocol is Protocol.LL) == is_short for way in self.ways]
            return fits.index(max(fits))
        nccl_s = [math.inf if cost is None else cost.time_s(size_bytes) for cost in self.costs]
        taken = nccl_s.index(min(nccl_s))
        own = [number for number, cost in enumerate(self.costs) if cost is None]
        if not own:
            return taken
        ours_s = [self._one_s(number, size_bytes) for number in range(len(self.ways))]
        best = min(own, key=lambda number: ours_s[number])
        is_kept = size_bytes > self._most_custom_bytes or ours_s[taken] <= ours_s[best]
        return taken if is_kept and len(own) < len(self.ways) else best

    def _one_s(self, number: int, size_bytes: float) -> float:
        return self.ways[number].one_s(size_bytes, self.costs[number])

    @property
    def _most_custom_bytes(self) -> int:
        return MOST_CUSTOM_BYTES.get(self.operation.library, MOST_CUSTOM_BYTES[""])

    def _tuner_s(self, way: Way, sizes_bytes: FloatArray) -> FloatArray:
        if way.algorithm in CUSTOM:
            return np.full(len(sizes_bytes), np.inf)
        return self.tuner.time_s(way, sizes_bytes)

    def _with_kernels(self, chosen: IntArray, sizes_bytes: FloatArray) -> IntArray:
        """The choice with custom kernels where they are faster, up to their buffers' size."""
        times = np.array([way.time_s(sizes_bytes, self.tuner) for way in self.ways])
        is_own = np.array([way.way.algorithm in CUSTOM for way in self.ways])
        if is_own.all():
            return np.asarray(np.argmin(times, axis=0))
        best = np.asarray(np.argmin(np.where(is_own[:, None], times, np.inf), axis=0))
        at = np.arange(len(sizes_bytes))
        faster = (times[best, at] < times[chosen, at]) & (sizes_bytes <= self._most_custom_bytes)
        return np.where(faster, best, chosen)

    @property
    def _peers(self) -> int:
        return 1 if self.operation.collective is Collective.SENDRECV else self.tuner.job.ranks

    def _exchange_rank(self, way: Way, sizes_bytes: FloatArray) -> FloatArray:
        is_short = sizes_bytes / self._peers <= LL_MOST_BYTES
        return np.where(is_short == (way.protocol is Protocol.LL), 0.0, 1.0)

    def times_s(self, sizes_bytes: FloatArray) -> FloatArray:
        """Time for each size on the way that NCCL takes, shape (m,). [s]"""
        times = np.array([way.time_s(sizes_bytes, self.tuner) for way in self.ways])
        return np.asarray(times[self.choice(sizes_bytes), np.arange(len(sizes_bytes))])

    def predict(self, size_bytes: float) -> Prediction:
        """Time of one size, with its terms and its interval. [s]"""
        taken = self._taken(size_bytes)
        way, time_s = self.ways[taken], self._one_s(taken, size_bytes)
        return Prediction(
            way=way.way,
            time_s=time_s,
            terms=self._terms(way, time_s),
            interval=self.interval_s(region_of(size_bytes), time_s),
            extrapolated=self.extrapolated(size_bytes, way.way),
        )

    def alternatives(self, size_bytes: float) -> tuple[Alternative, ...]:
        """Every way for one size, the one that is taken included."""
        taken = self._taken(size_bytes)
        return tuple(
            Alternative(
                way.way,
                self._one_s(number, size_bytes),
                self._nccl_s(number, size_bytes, is_taken=number == taken),
            )
            for number, way in enumerate(self.ways)
        )

    def _nccl_s(self, number: int, size_bytes: float, *, is_taken: bool) -> float:
        cost = self.costs[number]
        if cost is None:
            return 0.0 if is_taken else math.inf
        return cost.time_s(size_bytes)

    def baseline(self, size_bytes: float) -> Prediction:
        """What NCCL's own model says of one size: constants and bytes, nothing calibrated. [s]

        Raises:
            ScheduleError: NCCL has no model of it.
        """
        taken = self._taken(size_bytes)
        way, cost = self.ways[taken], self.costs[taken]
        if cost is None:
            raise ScheduleError(
                f"NCCL's own model has no {way.way.algorithm}", remedy="use --stack nccl"
            )
        time_s, latency_s = cost.time_s(size_bytes), cost.fixed_s(size_bytes)
        wire_s = min(way.wire_s, latency_s)
        terms = Terms(0.0, latency_s - wire_s, wire_s, time_s - latency_s)
        return Prediction(way.way, time_s, terms, None, None)

    @staticmethod
    def _terms(way: CalibratedWay, time_s: float) -> Terms:
        software_s = way.fixed_s - way.wire_s
        if not way.blocking_s:
            rest_s = time_s - way.launch_s - way.fixed_s
            return Terms(way.launch_s, software_s, way.wire_s, rest_s)
        own = max(0.0, time_s**SHARPNESS - way.blocking_s**SHARPNESS) ** (1 / SHARPNESS)
        return Terms(time_s - own, software_s, way.wire_s, max(0.0, own - way.fixed_s))

    def interval_s(self, region: Region, time_s: float) -> tuple[float, float] | None:
        """The 80 % interval of a prediction, None where nothing was held out. [s]"""
        found = self.calibration.interval_of(self.reach, region)
        return None if found is None else (time_s * found.low_ratio, time_s * found.high_ratio)

    def extrapolated(self, size_bytes: float, way: Way | None = None) -> str | None:
        """What of the job, or of a way of it, no measurement covers; None where all is covered."""
        if way is not None and way.algorithm is AlgorithmName.COLLNET:
            return "no measurement of collnet"
        job, collective = self.tuner.job, self.operation.collective
        link = job.net.kind if job.net else job.intra.kind if job.intra else "none"
        rows = [row for row in self.calibration.covered if row.link == link]
        if not rows:
            return f"no measurement over {link}"
        mine = [row for row in rows if row.architecture == job.architecture]
        if not mine:
            return f"no measurement over {link} with {job.architecture} GPUs"
        if collective_figure(job, collective) not in self.calibration.figure:
            return f"no measurement of {collective} over {link}"
        nodes, ranks = (max(getattr(r, f"most_{of}") for r in mine) for of in ("cliques", "ranks"))
        least, most = min(r.least_bytes for r in mine), max(r.most_bytes for r in mine)
        if job.cliques > nodes:
            return f"measured over {link} up to {nodes} nodes, this is {job.cliques}"
        if job.ranks > ranks:
            return f"measured over {link} up to {ranks} ranks, this is {job.ranks}"
        if size_bytes < least:
            return f"no measurement over {link} below {least:.0f} bytes"
        return f"no measurement over {link} above {most:.0f} bytes" if size_bytes > most else None


def make_model(
    job: Job,
    operation: Operation,
    *,
    algorithm: AlgorithmName = AlgorithmName.AUTO,
    protocol: Protocol | None = None,
    custom: bool = False,
    calibration: Calibration | None = None,
) -> Model:
    """The closed form of an operation on a job.

    Raises:
        ScheduleError: NCCL has no such way here.
    """
    ways = ways_of(job, operation, algorithm=algorithm, protocol=protocol, custom=custom)
    figures = load_calibration() if calibration is None else calibration
    tuner = NcclTuner(job, operation.collective, load_nccl_figures())
    added = tuple(add_up(way, terms_of(tuner, way, operation), figures) for way in ways)
    costs = tuple(None if way.algorithm in UNKNOWN_TO_NCCL else tuner.cost(way) for way in ways)
    return Model(tuner, operation, added, costs, figures)


@lru_cache(maxsize=4096)
def cached_model(
    job: Job, operation: Operation, algorithm: AlgorithmName, protocol: Protocol | None
) -> Model:
    """As ``make_model`` with the shipped calibration, kept for the next size."""
    return make_model(job, operation, algorithm=algorithm, protocol=protocol)

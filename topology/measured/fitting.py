"""Fitting: factors of figures moved from their priors to the measurements, robustly.

``log time`` of a point is ``log sum_t v_t exp(sum_f theta_f)``: a damped Gauss-Newton on it, each
theta drawn to 0 by its prior, a residual beyond a tenth counting by its size and no longer by its
square, every family of runs weighing the same in a cell. No randomness: same input, same factors.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from topology.latency.calibration import NO_CALIBRATION, Calibration, FittedFigure, region_of
from topology.latency.model import SHARPNESS
from topology.latency.terms import Term, terms_of
from topology.measured.observed import Observed

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MOST_ITERATIONS: Final = 100
SHORTEST_STEP: Final = 1e-4
"""No figure moves further, in log: the fit is done, wherever it began."""

CELL_WEIGHT: Final = 800.0
"""What a family's points in one cell weigh together, in points that deviate by their whole log."""

MOST_POINT_WEIGHT: Final = 3.0
"""A family of a few points does not weigh as much as one of many.

This and CELL_WEIGHT were chosen among a few by the held-out medians, so these flatter a little.
"""

LINEAR_FROM: Final = 0.1
"""Residuals beyond this count by their size: an outlier pulls no harder than that."""

LONGEST_STEP: Final = 0.5
QUALITY_WEIGHT: Final = {"A": 1.0, "B": 0.7, "C": 0.0}

PRIOR_LOG_ERRORS: Final = {
    "launch": (0.5, 0.3, 0.3),
    "base": (0.4, 0.3, 0.3),
    "hop": (0.4, 0.4, 0.3),
    "chain": (0.5, 0.3, 0.3),
    "net": (0.5, 0.5, 0.4),
    "nvls": (0.4, 0.3, 0.3),
    "p2p": (0.4, 0.3, 0.3),
    "peer": (0.5, 0.5, 0.5),
    "plugin": (0.4, 0.4, 0.4),
    "one_shot": (0.5, 0.3, 0.3),
    "two_shot": (0.5, 0.3, 0.3),
    "custom": (0.3, 0.3, 0.3),
    "bandwidth.way": (0.2, 0.2, 0.2),
    "bandwidth.link": (0.25, 0.25, 0.25),
    "bandwidth.gpu": (0.2, 0.2, 0.2),
    "bandwidth.collective": (0.15, 0.15, 0.15),
    "bandwidth.pair": (0.3, 0.3, 0.3),
    "bandwidth.ll": (0.6, 0.6, 0.6),
    "ramp": (0.6, 0.6, 0.4),
    "fill": (0.9, 0.9, 0.4),
}
"""How far a figure may lie from its prior, in log; the second for what is special of a class."""


def weight_of(run: Observed) -> float:
    """What a run's points weigh beside those of a clean run on hardware that is told."""
    return run.trust * QUALITY_WEIGHT.get(run.quality, 1.0)


def prior_log_error(name: str) -> float:
    """How far a figure may lie from its prior, in log."""
    parts = name.split(".")
    key = ".".join(parts[:2]) if parts[0] == "bandwidth" else parts[0]
    return PRIOR_LOG_ERRORS[key][min(max(len(parts) - 2, 0), 2)]


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """All points of all runs as arrays.

    ``values_s`` (m, t): each term of the way taken, 0 beyond the last. ``figures`` (m, t, k): what
    multiplies it, index 0 for nothing. ``blocks`` (m, t): whether it runs beside the operation.
    ``run_of`` (m,): the number of each point's run; ``pattern_of`` (m,): of its row of ``figures``.
    """

    names: tuple[str, ...]
    values_s: FloatArray
    figures: IntArray
    blocks: NDArray[np.bool_]
    log_times: FloatArray
    weights: FloatArray
    run_of: IntArray
    pattern_of: IntArray

    def of(self, kept: NDArray[np.bool_]) -> "Design":
        """These points of it that weigh anything."""
        kept = kept & (self.weights > 0)
        return Design(
            self.names,
            self.values_s[kept],
            self.figures[kept],
            self.blocks[kept],
            self.log_times[kept],
            self.weights[kept],
            self.run_of[kept],
            self.pattern_of[kept],
        )

    def predicted(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Log time (m,), and its derivative by each term's log (m, t)."""
        terms = self.values_s * np.exp(theta[self.figures].sum(axis=2))
        beside = np.where(self.blocks, terms, 0.0).sum(axis=1)
        own = np.where(self.blocks, 0.0, terms).sum(axis=1)
        power = SHARPNESS
        total = own**power + beside**power
        own_share = own ** (power - 1) / total
        beside_share = beside ** (power - 1) / total
        shares = terms * np.where(self.blocks, beside_share[:, None], own_share[:, None])
        return np.log(total) / power, shares


@dataclass(frozen=True, slots=True, eq=False)
class Patterns:
    """Points side by side by what multiplies their terms: a way of a run has one pattern.

    ``order`` (m,): the points; ``first`` (p,): where each pattern begins there. ``figures``
    (p, t, k): as ``Design.figures``. ``width``: figures, and the place of none.
    """

    order: IntArray
    first: IntArray
    figures: IntArray
    width: int

    def normal(
        self, shares: FloatArray, weight: FloatArray, residual: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """``J' W J`` (figures, figures) and ``J' W r``, J the derivative by each figure's theta.

        Alike points are added up before they are spread over figures: J itself, nearly all 0, is
        never made.
        """
        p, t, k = self.figures.shape
        mine, flat = shares[self.order], self.figures.reshape(p, t * k)
        weighted = mine * weight[self.order, None]
        products = np.add.reduceat(mine[:, :, None] * weighted[:, None, :], self.first)
        pulls = np.add.reduceat(weighted * residual[self.order, None], self.first)
        places = flat[:, :, None] * self.width + flat[:, None, :]
        spread = products.repeat(k, axis=1).repeat(k, axis=2)
        square = _summed(places, spread, self.width**2).reshape(self.width, self.width)
        return square[1:, 1:], _summed(flat, pulls.repeat(k, axis=1), self.width)[1:]


def _summed(places: IntArray, values: FloatArray, size: int) -> FloatArray:
    """What falls on each place, shape (size,)."""
    return np.bincount(places.ravel(), values.ravel(), minlength=size).astype(np.float64)


def patterns_of(design: Design) -> Patterns:
    """The points of a design by what multiplies their terms."""
    order = np.argsort(design.pattern_of, kind="stable")
    _, first = np.unique(design.pattern_of[order], return_index=True)
    return Patterns(order, first, design.figures[order[first]], len(design.names) + 1)


def design_of(
    observed: Sequence[Observed],
    calibration: Calibration = NO_CALIBRATION,
    *,
    most_point_weight: float = MOST_POINT_WEIGHT,
) -> Design:
    """The points of runs as arrays; ``calibration`` chooses among custom kernels."""
    numbers: dict[str, int] = {}
    parts = [_rows_of(run, calibration, numbers) for run in observed]
    width = max(values.shape[1] for values, _, _ in parts)
    depth = max(figures.shape[2] for _, figures, _ in parts)
    points = sum(len(values) for values, _, _ in parts)
    values_s = np.zeros((points, width))
    figures = np.zeros((points, width, depth), dtype=np.int64)
    blocks = np.zeros((points, width), dtype=np.bool_)
    at = 0
    for mine, index, is_block in parts:
        m, t, k = index.shape
        values_s[at : at + m, :t] = mine
        figures[at : at + m, :t, :k] = index
        blocks[at : at + m, :t] = is_block
        at += m
    times = np.concatenate([run.times_s for run in observed])
    run_of = np.repeat(np.arange(len(observed)), [len(run.times_s) for run in observed])
    log_times, weight = np.log(times), _weights(observed, most_point_weight)
    rows = figures.reshape(points, width * depth)
    pattern_of = np.unique(rows, axis=0, return_inverse=True)[1].ravel()
    return Design(tuple(numbers), values_s, figures, blocks, log_times, weight, run_of, pattern_of)


def _rows_of(
    run: Observed, calibration: Calibration, numbers: dict[str, int]
) -> tuple[FloatArray, IntArray, NDArray[np.bool_]]:
    """Terms of each point's way: values (m, t), figures (m, t, k), blocks (m, t)."""
    model = run.model(calibration)
    choice = model.choice(run.sizes_bytes)
    ways = [terms_of(model.tuner, way.way, run.operation) for way in model.ways]
    m, t = len(run.sizes_bytes), max(len(terms) for terms in ways)
    k = max(len(term.figures) for terms in ways for term in terms)
    values, index = np.zeros((m, t)), np.zeros((m, t, k), dtype=np.int64)
    blocks = np.zeros((m, t), dtype=np.bool_)
    for number in np.unique(choice):
        mine = choice == number
        bend = model.tuner.bend(model.ways[number].way, run.sizes_bytes[mine])
        for column, term in enumerate(ways[number]):
            values[mine, column] = term_values_s(term, run.sizes_bytes[mine], bend)
            blocks[mine, column] = term.blocks
            for place, name in enumerate(term.figures):
                index[mine, column, place] = numbers.setdefault(name, len(numbers)) + 1
    return values, index, blocks


def term_values_s(term: Term, sizes_bytes: FloatArray, bend: FloatArray) -> FloatArray:
    """A term's prior value for buffers of these sizes, shape (m,). [s]"""
    moved = sizes_bytes * term.per_byte_s
    if term.bends:
        moved = moved / bend
    pieces = np.minimum(sizes_bytes, term.piece_bytes) * term.per_piece_byte_s
    return np.asarray(term.fixed_s + moved + np.sqrt(sizes_bytes) * term.per_root_byte_s + pieces)


def _weights(observed: Sequence[Observed], most_point_weight: float) -> FloatArray:
    """Weight of each point: a family's points of a cell weigh CELL_WEIGHT together."""
    cells = [
        [(run.family, run.reach, region_of(size)) for size in run.sizes_bytes] for run in observed
    ]
    count = Counter(cell for cells_of_run in cells for cell in cells_of_run)
    return np.array(
        [
            min(CELL_WEIGHT / count[cell], most_point_weight) * weight_of(run)
            for run, cells_of_run in zip(observed, cells, strict=True)
            for cell in cells_of_run
        ]
    )


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Factors in log by figure, with their standard errors, and how many points move each."""

    names: tuple[str, ...]
    theta: FloatArray
    log_errors: FloatArray
    points: IntArray

    def figures(self) -> dict[str, FittedFigure]:
        """As they stand in a calibration, by name."""
        rows = zip(self.names, self.theta, self.log_errors, self.points, strict=True)
        return {
            name: FittedFigure(
                factor=float(np.exp(theta)),
                log_error=float(error),
                prior_log_error=prior_log_error(name),
                points=int(points),
            )
            for name, theta, error, points in sorted(rows)
        }


def fit_design(
    design: Design,
    *,
    start: FloatArray | None = None,
    held_out: IntArray | None = None,
    spread: FloatArray | None = None,
) -> Fit:
    """The factors that measurements and priors together make most likely.

    ``start`` (figures,): where to begin, which saves steps. ``held_out``: runs left out.
    ``spread`` (figures,): how far each may lie from its prior, in log, if not as the priors say.
    """
    if spread is None:
        spread = np.array([prior_log_error(name) for name in design.names])
    theta = np.zeros(len(spread) + 1)
    if start is not None:
        theta[1:] = start
    used = design.of(~np.isin(design.run_of, held_out if held_out is not None else ()))
    patterns = patterns_of(used)
    normal = np.diag(1 / spread**2)
    for _ in range(MOST_ITERATIONS):
        log_times, shares = used.predicted(theta)
        residual = used.log_times - log_times
        weight = used.weights / np.sqrt(1 + (residual / LINEAR_FROM) ** 2)
        square, pull = patterns.normal(shares, weight, residual)
        normal = np.diag(1 / spread**2) + square
        step = np.linalg.solve(normal, pull - theta[1:] / spread**2)
        theta[1:] += np.clip(step, -LONGEST_STEP, LONGEST_STEP)
        if np.abs(step).max() < SHORTEST_STEP:
            break
    moved = np.bincount(used.figures[used.values_s > 0].ravel(), minlength=len(theta))[1:]
    errors = np.sqrt(np.diag(np.linalg.inv(normal)))
    return Fit(design.names, theta[1:], errors, moved)


def fit(observed: Sequence[Observed]) -> tuple[Fit, Design]:
    """Fitted figures of runs; a second round where custom kernels' choice follows the first."""
    design = design_of(observed)
    found = fit_design(design)
    if any(run.custom for run in observed):
        calibration = NO_CALIBRATION.model_copy(update={"figure": found.figures()})
        design = design_of(observed, calibration)
        found = fit_design(design)
    return found, design

"""The tail as a picture: how often a run takes longer than a time, down to one in thousands.

One colour a scenario: a line under the quietest noise profile, and a band to the noisiest, because
nobody knows which of them a fabric has. No line goes beyond what its trials tell. No pen.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet.units import text_from_seconds
from topology.diagram.layout import (
    Align,
    Area,
    Body,
    Dash,
    Dots,
    LegendEntry,
    LegendTable,
    Line,
    LineLook,
    Role,
    Sheet,
    Text,
)
from topology.diagram.log_ticks import log_ticks
from topology.diagram.panel import Panel
from topology.diagram.plot_file import plot_form, write_plot
from topology.errors import WorkloadError
from topology.latency.summary import COVERAGE

FloatArray = NDArray[np.float64]

SCENARIO_ROLES: Final = (Role.SIZE_4, Role.SIZE_2, Role.SIZE_3, Role.SIZE_1)
"""Colours of scenarios: navy and red first, which differ in lightness as well as in hue."""

LEVELS: Final = {"p50": 0.5, "p90": 0.1, "p99": 1e-2, "p99.9": 1e-3, "p99.99": 1e-4}
"""Percentiles by the part of runs that take longer."""

_WIDTH: Final = 498.0
_HEIGHT: Final = 270.0
_LEFT: Final = 46.0
_RIGHT: Final = 58.0
_TOP: Final = 8.0
_FOOT: Final = 36.0
_LABEL_PT: Final = 8.0
_POINTS: Final = 240
_GRID: Final = LineLook(Role.HAIRLINE, width_pt=0.6)
_LINE_PT: Final = 1.9
_THIN_PT: Final = 0.9
_INK: Final = LineLook(Role.INK, width_pt=_LINE_PT)


@dataclass(frozen=True, slots=True, eq=False)
class TailCurve:
    """How often a run takes longer than a time, under one noise profile.

    ``time_s``: ascending times, shape (m,); ``above``: the part of runs that take longer, shape
    (m,), falling from 1. ``trials``: how many runs it was counted from; None: from a law, not from
    trials, and so told to its end.
    """

    scenario: str
    profile: str
    time_s: FloatArray
    above: FloatArray
    trials: int | None = None

    def __post_init__(self) -> None:
        assert self.time_s.shape == self.above.shape, "a part of runs for each time"
        self.time_s.setflags(write=False)
        self.above.setflags(write=False)

    @property
    def carried(self) -> float:
        """The smallest part of runs that it tells: below, even its last run may well lie earlier.

        Of n trials the largest lies below a quantile q with chance q^n; at most 2.5 % is asked.
        """
        last = float(self.above[-1])
        if self.trials is None:
            return last
        return max(last, 1 - float(((1 - COVERAGE) / 2) ** (1 / self.trials)))

    def at(self, above: FloatArray | float) -> FloatArray:
        """The time that this part of runs exceeds; within the curve. [s]"""
        log_s = np.interp(np.log(above), np.log(self.above[::-1]), np.log(self.time_s[::-1]))
        return np.asarray(np.exp(log_s), dtype=np.float64)


def curve_of_samples(scenario: str, profile: str, samples_s: FloatArray) -> TailCurve:
    """The curve of completion times, shape (trials,): the k-th longest is exceeded by k / trials.

    Up to its own place a sample counts itself as longer, so that the last one is 1 / trials and
    has a place on a logarithmic axis; this errs on the side of the longer tail.
    """
    n = len(samples_s)
    return TailCurve(scenario, profile, np.sort(samples_s), np.arange(n, 0, -1) / n, n)


def draw_tails(curves: Sequence[TailCurve], output: str, *, subtitle: str = "") -> None:
    """Write the picture; its ending chooses the form.

    Raises:
        WorkloadError: another ending, no curve, or more scenarios than there are colours.
        StoreError: the file cannot be written.
    """
    plot_form(output)
    write_plot(tails_sheet(curves, subtitle=subtitle), output)


def tails_sheet(curves: Sequence[TailCurve], *, subtitle: str = "") -> Sheet:
    """The picture of some scenarios, curves of one scenario beside one another.

    Raises:
        WorkloadError: no curve, or more scenarios than there are colours.
    """
    groups = [list(group) for _, group in groupby(curves, key=lambda curve: curve.scenario)]
    check_scenarios(len(groups))
    panel = _panel(curves)
    parts = [_frame(panel)]
    roles = dict(zip((group[0].scenario for group in groups), SCENARIO_ROLES, strict=False))
    parts += [_tail(group, panel, roles[group[0].scenario]) for group in groups]
    body = Body(
        width=_LEFT + _WIDTH + _RIGHT,
        height=_TOP + _HEIGHT + _FOOT,
        boxes=tuple(box for part in parts for box in part.boxes),
        lines=tuple(line for part in parts for line in part.lines),
        texts=tuple(text for part in parts for text in part.texts),
        dots=tuple(dots for part in parts for dots in part.dots),
        areas=tuple(area for part in parts for area in part.areas),
    )
    return Sheet(
        kicker="Completion time of a collective",
        title="How often it takes longer",
        subtitle=subtitle or " against ".join(roles),
        body=body,
        legend=(_scenario_legend(groups, roles), _sign_legend(curves)),
    )


def check_scenarios(scenarios: int) -> None:
    """Refuse more scenarios than there are colours.

    Raises:
        WorkloadError: no scenario, or too many.
    """
    most = len(SCENARIO_ROLES)
    if not 1 <= scenarios <= most:
        raise WorkloadError(
            f"{scenarios} scenarios in one picture",
            field="--plot",
            remedy=f"show one to {most}",
        )


def _panel(curves: Sequence[TailCurve]) -> Panel:
    """The frame: all times with some air, and parts of runs from all to the fewest told."""
    first = min(float(curve.time_s[0]) for curve in curves)
    last = max(float(curve.time_s[-1]) for curve in curves)
    air = max(0.04 * math.log10(last / first), 0.02)
    least = min(float(curve.above[-1]) for curve in curves)
    foot = min(math.log10(least), -1.0) - 0.08
    times = (math.log10(first) - air, math.log10(last) + air)
    return Panel(_LEFT, _TOP, _WIDTH, _HEIGHT, times, (foot, 0.0))


def _frame(panel: Panel) -> Body:
    """Ground, grid and labels: percentiles at the left, how many runs that is at the right."""
    low, high = panel.x_range
    lines, texts = [], []
    for time_s in log_ticks(10**low, 10**high):
        x = math.log10(time_s)
        lines.append(panel.upright(x, _GRID))
        label = Text(panel.x(x), panel.bottom + 11, text_from_seconds(time_s), _LABEL_PT)
        texts.append(_muted(label, Align.CENTER))
    for name, above in LEVELS.items():
        level = math.log10(above)
        if level < panel.y_range[0]:
            continue
        lines.append(panel.across(level, _GRID))
        y = panel.y(level)
        texts.append(Text(panel.left - 6, y, name, _LABEL_PT, Role.INK, Align.RIGHT))
        rare = f"1 in {1 / above:,.0f}"
        texts.append(Text(panel.right + 6, y, rare, _LABEL_PT, Role.MUTED))
    middle = panel.left + panel.width / 2
    title = Text(middle, panel.bottom + 27, "completion time", _LABEL_PT)
    texts.append(_muted(title, Align.CENTER))
    return Body(0, 0, (panel.box("tails"),), tuple(lines), tuple(texts))


def _muted(text: Text, align: Align) -> Text:
    return Text(text.x, text.y, text.text, text.size_pt, Role.MUTED, align)


def _tail(group: Sequence[TailCurve], panel: Panel, role: Role) -> Body:
    """One scenario: its band, a line for each profile, and where its trials end."""
    main = _main(group)
    lines = [
        line
        for curve in group
        for line in _lines(curve, panel, role, _LINE_PT if curve is main else _THIN_PT)
    ]
    ends = [curve for curve in group if curve.trials is not None]
    times = np.log10([curve.time_s[-1] for curve in ends])
    dots = Dots(panel.places(times, np.log10([c.above[-1] for c in ends])), role, 5.0, level=3)
    return Body(0, 0, (), tuple(lines), dots=(dots,), areas=_band(group, panel, role))


def _main(group: Sequence[TailCurve]) -> TailCurve:
    """The curve that is drawn as a line: the dedicated profile's, else the first."""
    return next((curve for curve in group if curve.profile == "dedicated"), group[0])


def _lines(curve: TailCurve, panel: Panel, role: Role, width_pt: float) -> Iterator[Line]:
    """A curve as far as it tells, and dotted from there to its last run."""
    yield _line(curve, panel, (1.0, curve.carried), LineLook(role, width_pt=width_pt))
    if curve.carried > curve.above[-1]:
        rest = (curve.carried, float(curve.above[-1]))
        yield _line(curve, panel, rest, LineLook(role, Dash.DOTTED, _THIN_PT))


def _line(curve: TailCurve, panel: Panel, ends: tuple[float, float], look: LineLook) -> Line:
    """A curve between two parts of runs."""
    levels = np.geomspace(*ends, _POINTS)
    points = panel.places(np.log10(curve.at(levels)), np.log10(levels))
    return Line(points, "", look, level=2)


def _band(group: Sequence[TailCurve], panel: Panel, role: Role) -> tuple[Area, ...]:
    """From the earliest profile to the latest, as far down as all of them tell."""
    if len(group) < 2:
        return ()
    levels = np.geomspace(1.0, max(curve.carried for curve in group), _POINTS)
    times = np.array([curve.at(levels) for curve in group])
    there = panel.places(np.log10(times.min(axis=0)), np.log10(levels))
    back = panel.places(np.log10(times.max(axis=0)), np.log10(levels))
    return (Area((*there, *reversed(back)), role, level=1),)


def _scenario_legend(groups: Sequence[Sequence[TailCurve]], roles: dict[str, Role]) -> LegendTable:
    entries = []
    for group in groups:
        main = _main(group)
        role = roles[main.scenario]
        cells = (main.scenario, *_figures(group))
        entries.append(LegendEntry(LineLook(role, width_pt=_LINE_PT), cells))
    header = ("", "p50", "p99", "p99.9 over profiles")
    return LegendTable("scenario", header, tuple(entries), right=(1, 2, 3))


def _figures(group: Sequence[TailCurve]) -> Iterator[str]:
    """Percentiles of a line, and the p99.9 of all profiles; a dash where trials do not tell."""
    main = _main(group)
    for above in (LEVELS["p50"], LEVELS["p99"]):
        yield text_from_seconds(float(main.at(above))) if main.carried <= above else "-"
    above = LEVELS["p99.9"]
    if any(curve.carried > above for curve in group):
        yield "-"
        return
    times = [float(curve.at(above)) for curve in group]
    low, high = text_from_seconds(min(times)), text_from_seconds(max(times))
    yield low if len(group) == 1 else f"{low} to {high}"


def _sign_legend(curves: Sequence[TailCurve]) -> LegendTable:
    profiles = dict.fromkeys(curve.profile for curve in curves)
    main = _main(curves).profile
    others = [profile for profile in profiles if profile != main]
    thin = f"; thin: {', '.join(others)}" if others else ""
    signs: list[tuple[LineLook | Role, str]] = [(_INK, f"noise {main}{thin}")]
    if others:
        signs.append((Role.BAR, "from the earliest to the latest"))
    if any(curve.trials is not None for curve in curves):
        dotted = LineLook(Role.INK, Dash.DOTTED, _THIN_PT)
        signs.append((dotted, "too few trials to tell; dot: the longest"))
    entries = tuple(LegendEntry(sign, (text,)) for sign, text in signs)
    return LegendTable("lines and bands", ("",), entries)

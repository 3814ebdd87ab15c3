"""Layout: what a diagram shows and where, in points (1/72 inch), y downward. No fabric, no pen.

A text is taken to be as wide as its characters times 0.62 of its size (0.70 in bold type), which
errs on the wide side for DejaVu Sans.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from topology.diagram.metrics import LINE_SPACING, PADDING, SMALLEST_PT, text_width

Point: TypeAlias = tuple[float, float]
Frame: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom."""


class Role(StrEnum):
    """What a colour means; each pen has its own colours."""

    INK = "ink"
    MUTED = "muted"
    HAIRLINE = "hairline"
    PAPER = "paper"
    PANEL = "panel"
    SHADE = "shade"
    SLOT = "slot"
    BAR = "bar"
    DEVIATING = "deviating"
    NVLINK = "nvlink"
    NVLINK_RACK = "nvlink_rack"
    NVLINK_PANEL = "nvlink_panel"
    NVLINK_SHADE = "nvlink_shade"
    NVLINK_SHADE_2 = "nvlink_shade_2"
    XGMI = "xgmi"
    C2C = "c2c"
    PCIE = "pcie"
    PCIE_SHADE = "pcie_shade"
    SOCKET = "socket"
    HOST_CABLE = "host_cable"
    TRUNK = "trunk"
    CORE = "core"
    SIZE_1 = "size_1"
    SIZE_2 = "size_2"
    SIZE_3 = "size_3"
    SIZE_4 = "size_4"


class Dash(StrEnum):
    """How a line is broken."""

    SOLID = "solid"
    DASHED = "dashed"
    DOTTED = "dotted"
    MIXED = "mixed"


class Use(StrEnum):
    """Whether somebody holds a GPU slot: the fill of its mark."""

    FREE = "free"
    HELD = "held"
    UNREPORTED = "use not reported"


class Health(StrEnum):
    """Whether a GPU slot is as its shape says: the outline of its mark."""

    AS_SHAPE = "as its shape"
    DEVIATING = "deviating"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Mark:
    """The sign of one GPU slot, or of the CPU rank of a node without GPUs."""

    use: Use
    health: Health = Health.AS_SHAPE
    is_cpu: bool = False


class BoxKind(StrEnum):
    """What a box stands for."""

    BAND = "band"
    RACK = "rack"
    NODE = "node"
    SLOT = "slot"
    DOMAIN = "domain"
    BUS = "bus"
    SWITCH = "switch"
    DEVICE = "device"
    PLOT = "plot"
    SWATCH = "swatch"


class Anchor(StrEnum):
    """Where in its box a label stands; turned: it runs upward."""

    MIDDLE = "middle"
    HEADING = "heading"
    TOP = "top"
    TOP_LEFT = "top_left"
    BOTTOM = "bottom"
    LEFT = "left"
    TURNED = "turned"


class Align(StrEnum):
    """Which end of a text its x is."""

    LEFT = "left"
    CENTER = "center"
    RIGHT = "right"


_SHARE_AT_LEFT: Final = {Align.LEFT: 0.0, Align.CENTER: 0.5, Align.RIGHT: 1.0}


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text; ``y`` is its middle. ``turned``: it runs upward. ``chip``: its patch."""

    x: float
    y: float
    text: str
    size_pt: float = 7.0
    role: Role = Role.INK
    align: Align = Align.LEFT
    bold: bool = False
    turned: bool = False
    chip: Role | None = None

    @property
    def frame(self) -> Frame:
        """What it covers, by the estimated width."""
        length, half = text_width(self.text, self.size_pt, bold=self.bold), self.size_pt / 2
        if self.turned:
            return self.x - half, self.y - length / 2, self.x + half, self.y + length / 2
        left = self.x - _SHARE_AT_LEFT[self.align] * length
        return left, self.y - half, left + length, self.y + half


@dataclass(frozen=True, slots=True)
class Style:
    """How the label of a box is set."""

    anchor: Anchor = Anchor.MIDDLE
    size_pt: float = 7.5
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle that stands for something; ``inside`` names the box around it.

    ``count``: how many real things it stands for. ``details``: smaller lines below the label.
    """

    name: str
    kind: BoxKind
    x: float
    y: float
    width: float
    height: float
    label: str = ""
    details: tuple[str, ...] = ()
    style: Style = Style()
    role: Role = Role.PANEL
    level: int = 0
    inside: str = ""
    count: int = 1
    mark: Mark | None = None
    dash: Dash = Dash.SOLID

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height

    @property
    def mid_x(self) -> float:
        """Halfway between left and right."""
        return self.x + self.width / 2

    @property
    def mid_y(self) -> float:
        """Halfway between top and bottom."""
        return self.y + self.height / 2

    @property
    def frame(self) -> Frame:
        """What it covers."""
        return self.x, self.y, self.right, self.bottom

    @property
    def texts(self) -> tuple[Text, ...]:
        """Its label and details, placed."""
        rows = [(self.label, self.style.size_pt, self.style.bold)] if self.label else []
        small_pt = max(self.style.size_pt - 1, SMALLEST_PT)
        rows += [(detail, small_pt, False) for detail in self.details if detail]
        if self.style.anchor is Anchor.TURNED:
            role = Role.NVLINK if self.kind is BoxKind.DOMAIN else Role.INK
            return tuple(
                Text(self.mid_x, self.mid_y, text, size_pt, role, Align.CENTER, turned=True)
                for text, size_pt, _ in rows
            )
        return tuple(self._stacked(rows))

    def _stacked(self, rows: Sequence[tuple[str, float, bool]]) -> Iterable[Text]:
        heights = [size_pt * LINE_SPACING for _, size_pt, _ in rows]
        y = {
            Anchor.HEADING: self.y,
            Anchor.TOP: self.y + PADDING,
            Anchor.TOP_LEFT: self.y + PADDING,
            Anchor.BOTTOM: self.bottom - PADDING - sum(heights),
        }.get(self.style.anchor, self.mid_y - sum(heights) / 2)
        x, align = {
            Anchor.HEADING: (self.x, Align.LEFT),
            Anchor.LEFT: (self.x + PADDING, Align.LEFT),
            Anchor.TOP_LEFT: (self.x + PADDING, Align.LEFT),
        }.get(self.style.anchor, (self.mid_x, Align.CENTER))
        for i, ((text, size_pt, bold), height) in enumerate(zip(rows, heights, strict=True)):
            role = Role.INK if i == 0 and self.label else Role.MUTED
            yield Text(x, y + height / 2, text, size_pt, role, align, bold=bold)
            y += height


@dataclass(frozen=True, slots=True)
class LineLook:
    """Colour, breaks and width of a line."""

    role: Role
    dash: Dash = Dash.SOLID
    width_pt: float = 1.4


@dataclass(frozen=True, slots=True)
class Line:
    """Links between two boxes; ``label`` says how many and how fast, printed or not."""

    points: tuple[Point, ...]
    kind: str
    look: LineLook
    ends: tuple[str, str] = ("", "")
    label: str = ""
    level: int = 0


@dataclass(frozen=True, slots=True)
class Dots:
    """Measurements of one kind: the middles of round marks, alike and see-through."""

    at: tuple[Point, ...]
    role: Role
    size_pt: float = 2.2
    level: int = 0


@dataclass(frozen=True, slots=True)
class Area:
    """A shaded surface without an edge, see-through: what lies between two curves."""

    points: tuple[Point, ...]
    role: Role
    level: int = 0


Swatch: TypeAlias = LineLook | Mark | Role | None


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """One row of a legend: a sign and what it means.

    ``kind``: the link kind it explains. ``bar``: from 0 to 1, the length of a bar at its end.
    """

    swatch: Swatch
    cells: tuple[str, ...]
    kind: str = ""
    bar: float | None = None


@dataclass(frozen=True, slots=True)
class LegendTable:
    """Rows of a legend under a title; columns in ``right`` are right-aligned.

    ``scale``: what the bars at the end of the rows are drawn to.
    """

    title: str
    header: tuple[str, ...]
    entries: tuple[LegendEntry, ...]
    right: tuple[int, ...] = ()
    scale: str = ""


@dataclass(frozen=True, slots=True)
class Tier:
    """A row of a picture with its caption at the left edge; ``height`` 0: a gap between rows."""

    label: str
    details: tuple[str, ...]
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Body:
    """The picture alone, from (0, 0)."""

    width: float
    height: float
    boxes: tuple[Box, ...] = ()
    lines: tuple[Line, ...] = ()
    texts: tuple[Text, ...] = ()
    tiers: tuple[Tier, ...] = ()
    dots: tuple[Dots, ...] = ()
    areas: tuple[Area, ...] = ()


@dataclass(frozen=True, slots=True)
class Sheet:
    """A picture with its words, not yet on paper: what a view makes of a fabric."""

    kicker: str
    title: str
    subtitle: str
    body: Body
    legend: tuple[LegendTable, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """A sheet on paper: all boxes, lines and texts are placed, pens only draw.

    ``boxes`` and ``lines`` are the picture's, ``swatches`` and ``rules`` the legend's.
    """

    sheet: Sheet
    width: float
    height: float
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    texts: tuple[Text, ...]
    swatches: tuple[Box | Line, ...]
    rules: tuple[tuple[Point, Point], ...]
    dots: tuple[Dots, ...] = ()
    areas: tuple[Area, ...] = ()


def link_look(kind: str, *, width_pt: float = 1.4) -> LineLook:
    """How links of a kind are drawn: hue by family, dashes within it.

    >>> link_look("ib_ndr_trunk").role, link_look("pcie_uplink").dash
    (<Role.TRUNK: 'trunk'>, <Dash.DASHED: 'dashed'>)
    """
    ends = (("_host", Role.HOST_CABLE), ("_trunk", Role.TRUNK), ("_core", Role.CORE))
    by_end = next((role for end, role in ends if kind.endswith(end)), Role.SOCKET)
    role, dash = _LOOKS.get(kind, (by_end, Dash.SOLID))
    return LineLook(role, dash, width_pt)


_LOOKS: Final = {
    "nvlink": (Role.NVLINK, Dash.SOLID),
    "nvlink_rack": (Role.NVLINK_RACK, Dash.SOLID),
    "xgmi": (Role.XGMI, Dash.SOLID),
    "c2c": (Role.C2C, Dash.SOLID),
    "pcie": (Role.PCIE, Dash.SOLID),
    "pcie_switch": (Role.PCIE, Dash.MIXED),
    "pcie_uplink": (Role.PCIE, Dash.DASHED),
    "pcie_root_port": (Role.PCIE, Dash.DOTTED),
    "socket": (Role.SOCKET, Dash.SOLID),
}


def chip(x: float, y: float, text: str, patch: Role = Role.PAPER, role: Role = Role.INK) -> Text:
    """A small text in the middle of a line, on a patch of the ground's colour."""
    return Text(x, y, text, 6.5, role, Align.CENTER, chip=patch)

"""Panel: the frame of one plot with logarithmic axes, its labels and lines. No data, no pen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topology.diagram.layout import Align, Box, BoxKind, Line, LineLook, Point, Role, Text

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Panel:
    """A plot's frame, and the logarithms at its edges: x to the right, y upward."""

    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.top + self.height

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.left + self.width

    def x(self, log_x: float) -> float:
        """Where a logarithm lies, at the edge if beyond it."""
        low, high = self.x_range
        return self.left + self.width * min(max((log_x - low) / (high - low), 0.0), 1.0)

    def y(self, log_y: float) -> float:
        """Where a logarithm lies, at the edge if beyond it."""
        low, high = self.y_range
        return self.bottom - self.height * min(max((log_y - low) / (high - low), 0.0), 1.0)

    def places(self, log_x: FloatArray, log_y: FloatArray) -> tuple[Point, ...]:
        """Where points lie, arrays of shape (m,)."""
        told = zip(log_x.tolist(), log_y.tolist(), strict=True)
        return tuple((self.x(x), self.y(y)) for x, y in told)

    def across(self, log_y: float, look: LineLook, level: int = 0) -> Line:
        """A level line from edge to edge."""
        y = self.y(log_y)
        return Line(((self.left, y), (self.right, y)), "", look, level=level)

    def upright(self, log_x: float, look: LineLook) -> Line:
        """A line from foot to head."""
        x = self.x(log_x)
        return Line(((x, self.bottom), (x, self.top)), "", look)

    def box(self, name: str) -> Box:
        """Its ground."""
        frame = (self.left, self.top, self.width, self.height)
        return Box(name, BoxKind.PLOT, *frame)

    def title(self, text: str) -> Text:
        """What it shows, above it."""
        return Text(self.left, self.top - 13, text, 9.5, bold=True)

    def title_of_x(self, text: str) -> Text:
        """What goes to the right, below the labels."""
        middle = self.left + self.width / 2
        return Text(middle, self.bottom + 25, text, 7.0, Role.MUTED, Align.CENTER)

    def title_of_y(self, text: str) -> Text:
        """What goes up, left of the labels."""
        middle = self.top + self.height / 2
        return Text(self.left - 43, middle, text, 7.0, Role.MUTED, turned=True)

    def label_of_x(self, log_x: float, text: str) -> Text:
        """What a place below it means."""
        return Text(self.x(log_x), self.bottom + 10, text, 6.5, Role.MUTED, Align.CENTER)

    def label_of_y(self, log_y: float, text: str) -> Text:
        """What a place left of it means."""
        return Text(self.left - 6, self.y(log_y), text, 6.5, Role.MUTED, Align.RIGHT)

    def diagonal(self, above: float, look: LineLook) -> Line:
        """Where y is so much above x, inside the frame; both axes have one range."""
        low, high = self.x_range
        first, last = max(low, low - above), min(high, high - above)
        ends = tuple((self.x(x), self.y(x + above)) for x in (first, last))
        return Line(ends, "", look, level=1)

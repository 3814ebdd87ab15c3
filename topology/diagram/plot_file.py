"""Plot file: a sheet with curves or points becomes a PNG, SVG or PDF, by its name's ending."""

from pathlib import PurePath
from typing import Final

from fleet import write_bytes
from topology.diagram.draw import composed
from topology.diagram.layout import Sheet
from topology.errors import WorkloadError

ENDINGS: Final = (".png", ".svg", ".pdf")


def write_plot(sheet: Sheet, output: str) -> None:
    """Write a picture; its ending chooses the form.

    Raises:
        WorkloadError: another ending.
        StoreError: the file cannot be written.
    """
    form = plot_form(output)
    from topology.diagram.draw_figure import figure_bytes

    write_bytes(figure_bytes(composed(sheet), form=form), output)


def plot_form(output: str) -> str:
    """The form of a picture by its file's ending.

    Raises:
        WorkloadError: an ending that no picture of points has.
    """
    ending = PurePath(output).suffix.lower()
    if ending not in ENDINGS:
        raise WorkloadError(
            f"a plot cannot end in {ending!r}" if ending else "the plot's name has no ending",
            where=output,
            field="--plot",
            remedy=f"use one of {', '.join(ENDINGS)}",
        )
    return ending.removeprefix(".")

"""CSV rows of measurements with their line; what is no CSV is refused in one line. No columns."""

import csv
import io
from collections.abc import Iterator

from topology.errors import MeasurementError


def csv_rows(content: bytes, *, where: str, before: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Cells of each row with the line that it ends on, ``before`` lines further down.

    Raises:
        MeasurementError: a quote that is never closed, or the like; told with its line.
    """
    text = content.decode("utf-8-sig", errors="replace")
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for cells in reader:
            yield before + reader.line_num, cells
    except csv.Error as error:
        line = f"line {before + reader.line_num}"
        raise MeasurementError(
            f"no CSV ({error})", where=where, field=line, remedy="mend or drop the line"
        ) from None

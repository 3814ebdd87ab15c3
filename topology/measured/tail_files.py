"""Files of measured tails, told apart by their content."""

from pathlib import Path
from typing import Final

from topology.errors import MeasurementError
from topology.measured.gpcnet import is_gpcnet, parse_gpcnet
from topology.measured.inspector import is_inspector, parse_inspector
from topology.measured.nccl_means import parse_nccl_means
from topology.measured.osu import is_osu, parse_osu
from topology.measured.percentile_rows import is_percentile_rows, parse_percentile_rows
from topology.measured.sample_columns import LARGEST_TABLE_BYTES, read_measured
from topology.measured.sample_csv import is_sample_csv, parse_sample_csv
from topology.measured.tail_file import TailFile, Told

LARGEST_TEXT_BYTES: Final = 2**28
"""A text other than a CSV that is larger is refused."""

REMEDY: Final = (
    "give JSON of NCCL Inspector, a text of the OSU micro-benchmarks, of GPCNeT or of "
    "nccl-tests or rccl-tests, a CSV with a column latency_ns, _us, _ms or _s, or a CSV of "
    "percentiles with columns what, value, unit and stat"
)


def read_tails(path: str | Path, *, told: Told | None = None) -> TailFile:
    """The tails of a file, whose format its content tells; ``-`` is stdin, gzip is unpacked.

    ``told``: what the file may leave out, such as the ranks of an OSU table.

    Raises:
        MeasurementError: it cannot be read, is of no known format or holds nothing that was
            measured; the message names the formats, or the first fault with its line.
    """
    content = read_measured(path, limit=LARGEST_TABLE_BYTES, remedy=REMEDY)
    found = _parse(content, str(path), told or Told())
    if not found.tails:
        first = next((f"line {skip.line}: {skip.reason}" for skip in found.skipped), "nothing")
        text = f"{found.format} without a measurement ({first})"
        raise MeasurementError(text, where=str(path), remedy=REMEDY)
    return found


def _parse(content: bytes, where: str, told: Told) -> TailFile:
    if is_percentile_rows(content):
        return parse_percentile_rows(content, where=where)
    if is_sample_csv(content):
        return parse_sample_csv(content, where=where)
    if len(content) > LARGEST_TEXT_BYTES:
        text = f"larger than {LARGEST_TEXT_BYTES} bytes, and no CSV of samples"
        raise MeasurementError(text, where=where, remedy="give a part of it")
    text = content.decode("utf-8", errors="replace")
    if is_inspector(text):
        return parse_inspector(text, where=where)
    if is_osu(text):
        return parse_osu(text, where=where, told=told)
    if is_gpcnet(text):
        return parse_gpcnet(text, where=where)
    means = parse_nccl_means(text, where=where, told=told)
    if not means.tails and not means.skipped:
        raise MeasurementError("of no known format", where=where, remedy=REMEDY)
    return means

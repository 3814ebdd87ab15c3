"""Means that nccl-tests and rccl-tests print: told as such, for a mean has no percentiles."""

from typing import Final

from topology.measured.nccl_lines import Row
from topology.measured.nccl_tests import NcclTestsRun, parse_nccl_tests
from topology.measured.tail import MeasuredTail
from topology.measured.tail_file import TailFile, Told

FORMAT: Final = "nccl-tests or rccl-tests"


def parse_nccl_means(text: str, *, where: str, told: Told) -> TailFile:
    """A tail without percentiles for each row of each table; ``told.collective`` as elsewhere."""
    found = parse_nccl_tests(text, collective=told.collective)
    tails = [_tail(run, row, where) for run in found.runs for row in run.rows if row.size_bytes]
    return TailFile(FORMAT, tuple(tails), found.skipped)


def _tail(run: NcclTestsRun, row: Row, where: str) -> MeasuredTail:
    settings = run.settings
    count = None if settings is None else settings.iterations
    calls = "its calls" if count is None else f"{count} calls"
    return MeasuredTail(
        what=f"{run.collective} of {row.dtype}",
        where=where,
        line=row.line,
        format=FORMAT,
        collective=run.collective,
        size_bytes=row.size_bytes,
        ranks=run.ranks,
        nodes=len(run.ranks_by_host) or None,
        count=count,
        mean_s=row.time_s,
        notes=(f"a mean of {calls}, out of place: NCCL Inspector tells single ones", *run.notes),
    )

"""What a diagnosis says: tables and lines for people, one JSON document for programs."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from fleet.naming import counted
from fleet.units import text_from_bytes, text_from_seconds
from topology.measured.diagnosis import Diagnosis, RegionEvidence, Row, State, Suspect
from topology.measured.examine import Examination, Examined
from topology.measured.nccl_tests import SkippedText

SCHEMA_VERSION: Final = 1
HEADER: Final = ("size", "rows", "measured", "expected", "factor", "slow from", "is", "way")
RIGHT: Final = (1, 2, 3, 4, 5)


def headline(run: Examined) -> str:
    """What ran, and the verdict."""
    told = run.run
    words = f"line {told.line}: {told.collective} of {told.dtype}, {counted(told.ranks, 'rank')}"
    slow = f": slow {_and(run.diagnosis.slow)}" if run.diagnosis.slow else ""
    return f"{words}, launch {told.launch}: {run.diagnosis.verdict}{slow}"


def region_rows(diagnosis: Diagnosis) -> list[tuple[str, ...]]:
    """A row for each region: medians over its sizes."""
    return [
        (
            found.region,
            str(found.rows),
            text_from_seconds(found.measured_s),
            text_from_seconds(found.expected_s),
            f"{found.factor:.2f}",
            f"{found.slow_ratio:.2f}",
            found.state,
            " / ".join(found.ways),
        )
        for found in diagnosis.regions
    ]


def evidence_lines(run: Examined) -> list[str]:
    """Suspects with their evidence, rows that stand out, what was assumed."""
    diagnosis = run.diagnosis
    lines = [line for suspect in diagnosis.suspects for line in _suspect_lines(suspect, diagnosis)]
    if diagnosis.unexplained:
        lines.append(f"unexplained: slow {_and(diagnosis.unexplained)}, as no known fault predicts")
    if diagnosis.wrong_values:
        lines.append(f"wrong values: {diagnosis.wrong_values:,}: data is damaged, speed aside")
    if diagnosis.first_call is not None:
        lines.append(f"first call, left out: {_row_text(diagnosis.first_call)}")
    if diagnosis.spikes:
        rows = ", ".join(_row_text(row) for row in diagnosis.spikes)
        lines.append(f"unsteady, rows that stand alone: {rows}")
    if any(found.state is State.FAST for found in diagnosis.regions):
        lines.append("faster than the model expects: is it the map of this machine?")
    return [*lines, *(f"note: {note}" for note in (*diagnosis.notes, *run.notes))]


def _suspect_lines(suspect: Suspect, diagnosis: Diagnosis) -> Iterable[str]:
    healthy = {found.region: found.factor for found in diagnosis.regions}
    yield f"suspect: {suspect.suspect}; explains {_and(suspect.explains)}"
    for region, factor in suspect.factors:
        yield f"  {region}: measured / expected {healthy[region]:.2f}, with this fault {factor:.2f}"
    yield f"  look at: {suspect.check}"


def _row_text(row: Row) -> str:
    size, measured = text_from_bytes(row.size_bytes), text_from_seconds(row.measured_s)
    return f"{size} {measured} (expected {text_from_seconds(row.expected_s)})"


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)


def skipped_lines(skipped: Iterable[SkippedText]) -> list[str]:
    """What was left out, with its line and why."""
    return [f"skipped line {line}: {reason}" for line, reason, _ in skipped]


def diagnosis_document(examination: Examination) -> dict[str, Any]:
    """The whole as one JSON document."""
    return {
        "kind": "diagnosis",
        "schema_version": SCHEMA_VERSION,
        "verdict": examination.verdict,
        "runs": [_run_document(run) for run in examination.runs],
        "skipped": [skip._asdict() for skip in examination.skipped],
    }


def _run_document(run: Examined) -> dict[str, Any]:
    diagnosis, told = run.diagnosis, run.run
    return {
        "line": told.line,
        "collective": told.collective,
        "dtype": told.dtype,
        "launch": told.launch,
        "ranks": told.ranks,
        "verdict": diagnosis.verdict,
        "regions": [_region_document(found) for found in diagnosis.regions],
        "suspects": [_suspect_document(suspect) for suspect in diagnosis.suspects],
        "unexplained": list(diagnosis.unexplained),
        "first_call": None if diagnosis.first_call is None else diagnosis.first_call._asdict(),
        "spikes": [row._asdict() for row in diagnosis.spikes],
        "wrong_values": diagnosis.wrong_values,
        "notes": [*diagnosis.notes, *run.notes],
    }


def _region_document(found: RegionEvidence) -> dict[str, Any]:
    return {
        "region": found.region,
        "rows": found.rows,
        "ways": list(found.ways),
        "measured_s": found.measured_s,
        "expected_s": found.expected_s,
        "factor": found.factor,
        "slow_ratio": found.slow_ratio,
        "state": found.state,
    }


def _suspect_document(suspect: Suspect) -> dict[str, Any]:
    return {
        "name": suspect.name,
        "suspect": suspect.suspect,
        "check": suspect.check,
        "log_likelihood_gain": suspect.gain,
        "explains": list(suspect.explains),
        "factors": [{"region": region, "factor": factor} for region, factor in suspect.factors],
    }

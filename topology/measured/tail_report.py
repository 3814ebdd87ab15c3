"""What measured tails say: tables and lines for people, one JSON document for programs."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from fleet.naming import counted
from fleet.units import text_from_bytes, text_from_seconds
from topology.latency.setting import PROFILES
from topology.measured.tail import MeasuredPercentile, Origin, text_of_percentile
from topology.measured.tail_band import Band, Cover, HeldTail
from topology.measured.tail_file import TailFile
from topology.words import TailModel

SCHEMA_VERSION: Final = 1
HEADER: Final = ("what", "size", "ranks", "samples", "percentile", "measured", "95 % interval",
                 "band over profiles", "is")  # fmt: skip
RIGHT: Final = (1, 2, 3, 5)
_NONE: Final = "-"
MOST_NOTES: Final = 12


def table_of(held: Sequence[HeldTail]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows, a row for each percentile; without a simulation without its columns."""
    rows = [row for tail in held for row in _rows(tail)]
    if any(tail.bands is not None for tail in held):
        return HEADER, rows
    return HEADER[:-2], [row[:-2] for row in rows]


def _rows(held: HeldTail) -> Iterator[tuple[str, ...]]:
    tail = held.tail
    told = [found for found in held.percentiles.values() if found.origin is not Origin.UNREPORTED]
    about = (
        tail.what,
        _NONE if tail.size_bytes is None else text_from_bytes(tail.size_bytes),
        _NONE if tail.ranks is None else f"{tail.ranks:,}",
        _NONE if tail.count is None else f"{tail.count:,}",
    )
    mean = _NONE if tail.mean_s is None else text_from_seconds(tail.mean_s)
    lines: list[tuple[str, ...]] = [("mean", mean, "", "", "")] if not told else []
    lines += [_cells(held, found) for found in told]
    for place, cells in enumerate(lines):
        yield (*(about if place == 0 else ("",) * len(about)), *cells)


def _cells(held: HeldTail, found: MeasuredPercentile) -> tuple[str, ...]:
    mark = {Origin.MODELLED: " (modelled)", Origin.REFUSED: "refused"}.get(found.origin, "")
    value = "" if found.value_s is None else text_from_seconds(found.value_s)
    band, cover = "", ""
    if held.bands is not None:
        band = _band_text(held.bands[found.name])
        cover = str(held.cover(found.name) if found.value_s is not None else "")
    name = text_of_percentile(found.name)
    return (name, f"{value}{mark}", _interval_text(found.interval), band, cover)


def _interval_text(interval: tuple[float, float | None] | None) -> str:
    if interval is None:
        return _NONE
    low_s, high_s = interval
    end = "?" if high_s is None else text_from_seconds(high_s)
    return f"{text_from_seconds(low_s)} to {end}"


def _band_text(band: Band) -> str:
    end = "too few trials" if band.high_s is None else text_from_seconds(band.high_s)
    return f"{text_from_seconds(band.low_s)} to {end}"


def lines_of(held: Sequence[HeldTail]) -> list[str]:
    """Why a percentile is refused or how it is modelled, what was not simulated, how to read it."""
    reasons = Counter(
        f"{found.origin}: {found.reason}"
        for tail in held
        for found in tail.percentiles.values()
        if found.reason is not None and found.origin is not Origin.UNREPORTED
    )
    notes = Counter(f"note: {note}" for tail in held for note in tail.tail.notes)
    left = Counter(f"not simulated: {tail.reason}" for tail in held if tail.reason is not None)
    told = list(_counted(notes))
    more = len(told) - MOST_NOTES
    tail_line = [f"{counted(more, 'more note')} in --json"] if more > 0 else []
    return [*_counted(reasons), *_counted(left), *_spread(held), *told[:MOST_NOTES], *tail_line]


def _spread(held: Sequence[HeldTail]) -> Iterator[str]:
    """That a band holds the model's own doubt, where it does."""
    if any(tail.model is not None and tail.model.model_interval for tail in held):
        yield "note: bands include the calibration's 80 % interval of the noiseless time"


def _counted(lines: Counter[str]) -> Iterable[str]:
    return (line if count == 1 else f"{line} ({count} times)" for line, count in lines.items())


def verdict_line(held: Sequence[HeldTail]) -> str | None:
    """How many of the measured percentiles the band covers, None where nothing was simulated."""
    covers = [
        (tail, name, cover)
        for tail in held
        for name in tail.percentiles
        if (cover := tail.cover(name)) not in (None, Cover.UNTOLD)
    ]
    if not covers:
        return None
    outside = [
        f"{text_of_percentile(name)} of {tail.tail.what} (line {tail.tail.line}) is {cover}"
        for tail, name, cover in covers
        if cover is not Cover.COVERED
    ]
    words = f"the band over {', '.join(PROFILES)} covers {len(covers) - len(outside)} of "
    found = f"{words}{counted(len(covers), 'measured percentile')}"
    return "; ".join([found, *outside])


def tails_document(
    file: TailFile, held: Sequence[HeldTail], model: TailModel | None
) -> dict[str, Any]:
    """The whole as one JSON document; what was not told is null."""
    simulated = any(tail.bands is not None for tail in held)
    return {
        "kind": "measured_tails",
        "schema_version": SCHEMA_VERSION,
        "format": file.format,
        "tail_model": model,
        "covered": not any(tail.is_outside for tail in held) if simulated else None,
        "tails": [_tail_document(tail) for tail in held],
        "skipped": [skip._asdict() for skip in file.skipped],
    }


def _tail_document(held: HeldTail) -> dict[str, Any]:
    tail = held.tail
    return {
        "what": tail.what,
        "line": tail.line,
        "collective": tail.collective,
        "size_bytes": tail.size_bytes,
        "ranks": tail.ranks,
        "nodes": tail.nodes,
        "samples": tail.count,
        "mean_s": tail.mean_s,
        "percentiles": {
            name: {
                "value_s": found.value_s,
                "origin": found.origin,
                "interval": None if found.interval is None else list(found.interval),
                "reason": found.reason,
                "band": None if held.bands is None else _band_document(held.bands[name]),
                "cover": held.cover(name),
            }
            for name, found in held.percentiles.items()
        },
        "algorithm": None if held.model is None else held.model.algorithm,
        "not_simulated": held.reason,
        "notes": list(tail.notes),
    }


def _band_document(band: Band) -> dict[str, Any]:
    return {"low_s": band.low_s, "high_s": band.high_s, "by_profile_s": dict(band.by_profile_s)}

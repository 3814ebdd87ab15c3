"""Metrics of the agent itself, made at each look: is it fresh, what failed, what does it cost."""

import resource
import sys
import time
from collections.abc import Iterator
from functools import cache
from typing import Final

from fleet.agent.board import Board, Readings, Spooled
from fleet.agent.metrics import Family, Kind, Sample

COUNTER: Final = Kind.COUNTER

UP: Final = Family("fleetmap_up", "Whether the last reading was good and is not too old.")
BUILD: Final = Family("fleetmap_build_info", "Versions of the agent; always 1.")
AGE: Final = Family("fleetmap_last_reading_age_seconds", "Age of the last good reading.")
TOOK: Final = Family(
    "fleetmap_last_reading_duration_seconds", "How long the last good reading took."
)
RUNNING: Final = Family(
    "fleetmap_reading_running_seconds", "How long the reading that runs now has been running."
)
READINGS: Final = Family("fleetmap_readings_total", "Readings, by how they went.", COUNTER)
WEDGED: Final = Family(
    "fleetmap_reader_wedged", "Whether reading processes are stuck in the driver."
)
WEDGED_SINCE: Final = Family(
    "fleetmap_reader_wedged_timestamp_seconds", "Since when reading processes are stuck."
)
WRITES: Final = Family(
    "fleetmap_spool_writes_total", "Writes to the spool, by how they went.", COUNTER
)
WRITE_AGE: Final = Family(
    "fleetmap_spool_last_write_age_seconds", "Age of the last good write to the spool."
)
ANSWERS: Final = Family("fleetmap_http_requests_total", "Requests answered, by status.", COUNTER)
CPU: Final = Family("fleetmap_agent_cpu_seconds_total", "CPU time of the agent.", COUNTER)
CHILD_CPU: Final = Family(
    "fleetmap_agent_ended_children_cpu_seconds_total",
    "CPU time of its children that ended.",
    COUNTER,
)
RESIDENT: Final = Family("fleetmap_agent_resident_bytes", "Memory the agent holds.")


def agent_samples(board: Board, *, now_s: float, is_fresh: bool) -> Iterator[Sample]:
    """What the agent knows of itself at this moment; ``is_fresh`` of the last good reading."""
    yield UP, (), is_fresh and board.readings.failure is None
    python = ".".join(str(part) for part in sys.version_info[:3])
    yield BUILD, (("version", own_version()), ("python", python)), 1
    if board.edition is not None:
        yield AGE, (), max(now_s - board.edition.read_at_s, 0.0)
        yield TOOK, (), board.edition.took_s
    yield from _reading_samples(board.readings, now_s)
    if board.spooled is not None:
        yield from _spool_samples(board.spooled, now_s)
    for status, count in sorted(board.answered.items()):
        yield ANSWERS, (("code", str(status)),), count
    yield from _cost_samples()


@cache
def own_version() -> str:
    """Version of fleetmap, empty where it is not installed as a package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fleetmap")
    except PackageNotFoundError:
        return ""


def _reading_samples(readings: Readings, now_s: float) -> Iterator[Sample]:
    yield READINGS, (("result", "good"),), readings.good
    yield READINGS, (("result", "failed"),), readings.failed
    running = readings.running_since_s
    yield RUNNING, (), 0.0 if running is None else max(now_s - running, 0.0)
    yield WEDGED, (), readings.wedged_since is not None
    if readings.wedged_since is not None:
        yield WEDGED_SINCE, (), readings.wedged_since.timestamp()


def _spool_samples(spooled: Spooled, now_s: float) -> Iterator[Sample]:
    yield WRITES, (("result", "good"),), spooled.good
    yield WRITES, (("result", "failed"),), spooled.failed
    if spooled.last_good_s is not None:
        yield WRITE_AGE, (), max(now_s - spooled.last_good_s, 0.0)


def _cost_samples() -> Iterator[Sample]:
    yield CPU, (), time.process_time()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    yield CHILD_CPU, (), children.ru_utime + children.ru_stime
    with open("/proc/self/statm", "rb") as file:
        yield RESIDENT, (), int(file.read().split()[1]) * resource.getpagesize()

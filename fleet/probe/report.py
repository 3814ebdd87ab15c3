"""A reading of this node: which chapters in which order, and what is left out after a fault.

The kernel's files come first, so that a driver that never answers still leaves the devices' places.
"""

import re
import shutil
import socket
import sys
import time
from datetime import datetime, timezone
from typing import Any, Dict, List, Optional, Set

from fleet.probe.command import output_of
from fleet.probe.files import is_network
from fleet.probe.keys import INIT, is_state
from fleet.probe.supervise import Stop, Supervisor, a_stop, chapter_name

SCHEMA_VERSION = 1
PROBE = "fleetmap probe 1"
BUDGET_S = 120.0
"""Longest reading as a whole; chapters that are left then are told as not started."""

MOST_SKIPPED = 3
"""So many calls or devices of one chapter may hang before the rest of it is given up."""

STRIKES = 2
"""So many pairs with a GPU may hang before it is left out of the others."""

OUTPUTS = (("nvidia-smi", "-q", "-x"), ("nvidia-smi", "topo", "-m"))
"""Asked where the driver's library or its binding is not there."""

Reading = Dict[str, Any]


def child_command() -> List[str]:
    """How a child is started where fleetmap is installed; never from the folder we are in."""
    return [sys.executable, "-P", "-m", "fleet.probe.child"]


def read_node(
    supervisor: Supervisor, root: str = "/", budget_s: float = BUDGET_S, driver: bool = True
) -> Reading:
    """Everything of this node, as one JSON document; what hangs or fails costs only itself."""
    book = _Book(supervisor, budget_s)
    reading = book.reading
    reading["collected_at"]["files"] = _now()
    book.read(["pci", root, []])
    book.read(["network", root, []])
    if driver:
        reading["collected_at"]["driver"] = _now()
        _read_driver(book)
        book.read(["processes", root, _pids(reading["answers"])])
        if _is_without_library(reading):
            _read_outputs(reading, supervisor.deadline_s * 4)
    return reading


def read_state(
    supervisor: Supervisor, before: Reading, root: str = "/", budget_s: float = BUDGET_S
) -> Optional[Reading]:
    """A later reading: the state anew, the inventory as it was; None where it no longer holds.

    It holds while the same GPUs answer: any stop, and the inventory has to be read again.
    """
    counts = link_counts(before["answers"])
    if before["stops"] or counts is None:
        return None
    book = _Book(supervisor, budget_s)
    reading = book.reading
    for part in ("files", "links", "unreadable"):
        kept = {path: what for path, what in before[part].items() if not is_network(path)}
        reading[part].update(kept)
    reading["outputs"].update(before["outputs"])
    reading["answers"].update((k, a) for k, a in before["answers"].items() if not is_state(k))
    reading["collected_at"].update(before["collected_at"], state=_now())
    chapters: List[List[Any]] = [["network", root, []], ["nvml", []]]
    chapters += [["state", gpu, links] for gpu, links in counts.items()]
    if any(book.read(chapter) is not None for chapter in chapters):
        return None
    answers = reading["answers"]
    if any("value" not in answers[_handle(gpu)] for gpu in counts) or _count(answers) != len(
        counts
    ):
        return None
    book.read(["processes", root, _pids(answers)])
    return reading


def link_counts(answers: Dict[str, Any]) -> Optional[Dict[int, int]]:
    """NVLinks of each GPU by index; None unless every GPU of a driver answered."""
    count = _count(answers)
    found = {gpu: answers.get("field({},91,0)".format(gpu), {}) for gpu in range(count)}
    opened = ["value" in answers.get(_handle(gpu), {}) for gpu in range(count)]
    if not count or not all(opened):
        return None
    return {gpu: int(answer.get("value", 0)) for gpu, answer in found.items()}


def _count(answers: Dict[str, Any]) -> int:
    return int(answers.get("nvmlDeviceGetCount()", {}).get("value", 0))


def _handle(gpu: int) -> str:
    return "nvmlDeviceGetHandleByIndex({})".format(gpu)


class _Book:
    """A reading in the making."""

    def __init__(self, supervisor: Supervisor, budget_s: float) -> None:
        self._supervisor = supervisor
        self._until = time.monotonic() + budget_s
        self.is_driver_down = False
        self.reading: Reading = {
            "kind": "node_reading",
            "schema_version": SCHEMA_VERSION,
            "host": host_name(),
            "probe": PROBE,
            "collected_at": {},
            "answers": {},
            "files": {},
            "links": {},
            "unreadable": {},
            "outputs": {},
            "stops": [],
        }

    def read(self, chapter: List[Any]) -> Optional[Stop]:
        """Read a chapter; gives where it was stopped, None if it was read to its end."""
        stop = self._refusal(chapter) or self._supervisor.run(chapter, self._take)
        if stop is None:
            return None
        self.reading["stops"].append(stop)
        if stop["at"] == INIT:
            self.is_driver_down = True
        elif chapter[0] in ("pci", "network", "nvml") and stop["reason"] == "timed_out":
            return self._read_past(chapter, stop)
        return stop

    def leave_out(self, chapter: List[Any], why: str) -> None:
        """Note a chapter that is not read."""
        stop = a_stop(chapter_name(chapter), "", "timed_out", 0.0, why)
        self.reading["stops"].append(stop)

    def _read_past(self, chapter: List[Any], stop: Stop) -> Optional[Stop]:
        """The same chapter again without what hung; a few times at most."""
        skip = chapter[-1]
        if stop["at"] in skip or len(skip) >= MOST_SKIPPED:
            return stop
        return self.read(chapter[:-1] + [skip + [stop["at"]]])

    def _take(self, part: str, key: str, what: Any) -> None:
        self.reading[part][key] = what

    def _refusal(self, chapter: List[Any]) -> Optional[Stop]:
        if time.monotonic() > self._until:
            why = "the reading took too long as a whole"
        elif self.is_driver_down and chapter[0] in ("gpu", "pairs"):
            why = "the driver did not start again"
        else:
            return None
        return a_stop(chapter_name(chapter), "", "not_started", 0.0, why)


def _read_driver(book: _Book) -> None:
    book.read(["nvml", []])
    answers = book.reading["answers"]
    readable = [
        gpu
        for gpu in range(_count(answers))
        if book.read(["gpu", gpu]) is None and "value" in answers.get(_handle(gpu), {})
    ]
    _read_pairs(book, readable)


def _read_pairs(book: _Book, gpus: List[int]) -> None:
    """Every pair of GPUs; one of which two pairs hung is left out, for it is to blame."""
    hung: Dict[int, int] = dict.fromkeys(gpus, 0)
    for position, first in enumerate(gpus[:-1]):
        others = gpus[position + 1 :]
        while hung[first] < STRIKES:
            others = [other for other in others if hung[other] < STRIKES]
            stop = book.read(["pairs", first, others]) if others else None
            second = _second_of(stop)
            if second is None:
                break
            for gpu in (first, second):
                hung[gpu] += 1
                if hung[gpu] == STRIKES:
                    book.leave_out(["pairs", gpu], "left out: {}".format(stop and stop["detail"]))
            others = [other for other in others if other > second]


def _second_of(stop: Optional[Stop]) -> Optional[int]:
    """The second GPU of the pair whose call hung."""
    match = re.match(r"nvml\w+\(\d+,(\d+)", stop["at"]) if stop is not None else None
    return int(match.group(1)) if match else None


def _pids(answers: Dict[str, Any]) -> List[int]:
    pids: Set[int] = set()
    for key, answer in answers.items():
        if key.startswith("nvmlDeviceGetComputeRunningProcesses("):
            pids.update(pid for pid, _ in answer.get("value") or ())
    return sorted(pids)


def _is_without_library(reading: Reading) -> bool:
    """Whether NVML could not be asked at all: no library (12), or no binding to it."""
    started = reading["answers"].get(INIT, {})
    return "lacks" in started or started.get("code") == 12


def _read_outputs(reading: Reading, deadline_s: float) -> None:
    if shutil.which(OUTPUTS[0][0]) is None:
        return
    reading["collected_at"]["outputs"] = _now()
    for command in OUTPUTS:
        reading["outputs"][" ".join(command)] = output_of(list(command), deadline_s)


def host_name() -> str:
    """This host's name with what no host name may have replaced."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).lstrip(".-")[:253]
    return name or "node"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()

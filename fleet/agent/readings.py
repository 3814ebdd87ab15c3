"""Readings: the thread that reads the node on an interval. A failed reading replaces nothing."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Final

from fleet.agent.board import Board, Edition, Reader, Readings, page_from_content, snapshot_bytes
from fleet.agent.log import Log, text_in_one_line
from fleet.agent.metrics import page_from_samples
from fleet.agent.metrics_node import node_samples
from fleet.errors import FleetError
from fleet.faults import device_faults
from fleet.model import NodeSnapshot
from fleet.naming import counted

SHORTEST_REST_RATIO: Final = 0.1
"""A node whose readings take longer than the interval still rests for this part of it."""

TOPIC: Final = "reading"


def intervals_s(*, interval_s: float, jitter_ratio: float, rng: Random) -> Iterator[float]:
    """From the start of each reading to that of the next. [s]

    The first is a random part of the interval: nodes that boot together do not stay together.
    """
    yield rng.uniform(0, interval_s)
    while True:
        yield interval_s * (1 + rng.uniform(-jitter_ratio, jitter_ratio))


class ReadingLoop:
    """Reads until told to stop, and shows on the board what came of it.

    ``rest`` sleeps so many seconds, or less where the agent ends, and tells whether it ends;
    ``publish`` hears of every new edition.
    """

    def __init__(
        self,
        reader: Reader,
        board: Board,
        *,
        clock: Callable[[], float],
        log: Log,
        publish: Callable[[Edition], None],
    ) -> None:
        self._reader = reader
        self._board = board
        self._clock = clock
        self._log = log
        self._publish = publish
        self._faults: tuple[str, ...] = ()

    def run(self, intervals: Iterator[float], rest: Callable[[float], bool]) -> None:
        """Read, rest, read again."""
        for interval_s in intervals:
            began_s = self._clock()
            self.read_once()
            left_s = began_s + interval_s - self._clock()
            if rest(max(left_s, interval_s * SHORTEST_REST_RATIO)):
                return

    def read_once(self) -> None:
        """One reading; whatever it raises is said and counted, and the last good one stays."""
        began_s = self._clock()
        self._board.readings = replace(self._board.readings, running_since_s=began_s)
        try:
            edition = self._edition(self._reader.read(), began_s)
        except FleetError as error:
            self._failed(str(error))
        except Exception as error:  # a reader's own fault must not end the agent
            self._failed(f"{type(error).__name__}: {error}")
        else:
            self._good(edition)

    def _edition(self, snapshot: NodeSnapshot, began_s: float) -> Edition:
        faults = device_faults(snapshot)
        return Edition(
            host=snapshot.host,
            gpu_count=len(snapshot.wiring.gpus),
            faults=tuple(dict.fromkeys(f"{fault.device} {fault.reason}" for fault in faults)),
            snapshot=page_from_content(snapshot_bytes(snapshot)),
            metrics=page_from_samples(node_samples(snapshot, faults)),
            read_at_s=began_s,
            took_s=self._clock() - began_s,
        )

    def _good(self, edition: Edition) -> None:
        before = self._board.readings
        is_first = self._board.edition is None
        self._board.edition = edition
        self._board.readings = Readings(
            good=before.good + 1, failed=before.failed, wedged_since=self._reader.wedged_since
        )
        if is_first:
            self._log.say(
                f"{TOPIC}: {edition.host} has {counted(edition.gpu_count, 'GPU')}, "
                f"read in {edition.took_s:.2f} s"
            )
        self._log.fine(TOPIC, "good again")
        self._tell_faults(edition.faults)
        self._publish(edition)

    def _failed(self, problem: str) -> None:
        before = self._board.readings
        self._board.readings = Readings(
            good=before.good,
            failed=before.failed + 1,
            failure=text_in_one_line(problem),
            wedged_since=self._reader.wedged_since,
        )
        self._log.trouble(TOPIC, f"failed: {problem}")

    def _tell_faults(self, faults: tuple[str, ...]) -> None:
        if faults != self._faults:
            text = ", ".join(faults) if faults else "all answer again"
            self._log.say(f"devices that do not answer: {text}" if faults else f"devices: {text}")
        self._faults = faults

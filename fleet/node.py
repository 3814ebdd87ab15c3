"""Node: this node's own reading, by a supervised child that may hang without hanging us.

Only the probe is imported at the top, so that a reading can begin while the model still loads.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from fleet.probe.report import BUDGET_S, child_command, read_node, read_state
from fleet.probe.supervise import Supervisor

if TYPE_CHECKING:
    from fleet.fields import HostName
    from fleet.model import NodeSnapshot
    from fleet.reading import NodeReading
    from fleet.sources.reading import Memory

DEADLINE_S: Final = 5.0
"""Longest wait for one call of the driver. The first call gets four times as long."""

_ENDS_WITHIN_S: Final = 2.0
_GATHER_S: Final = 0.003
"""Of one who reads again and again: some milliseconds later is soon enough, at half the CPU time.
"""


@dataclass(slots=True)
class NodeReader:
    """Reads this node again and again; one child is kept alive between the readings.

    Use it from one thread that outlives it: the child dies with the thread that started it.
    ``root`` is where ``/sys`` and ``/proc`` stand, ``deadline_s`` the longest wait for one call.
    Each ``inventory_every``-th reading asks for all, those between for what changes by the minute,
    as long as the same GPUs answer.
    """

    host: "HostName | None" = None
    root: str = "/"
    deadline_s: float = DEADLINE_S
    budget_s: float = BUDGET_S
    driver: bool = True
    inventory_every: int = 1
    command: Callable[[], list[str]] = child_command
    _supervisor: Supervisor = field(init=False)
    _memory: "Memory | None" = field(init=False, default=None)
    _last: dict[str, Any] | None = field(init=False, default=None)
    _checked: "tuple[dict[str, Any], NodeReading] | None" = field(init=False, default=None)
    _count: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        again_and_again = self.inventory_every > 1
        self._supervisor = Supervisor(
            self.command(),
            deadline_s=self.deadline_s,
            gather_s=_GATHER_S if again_and_again else 0.0,
        )

    def read_document(self) -> dict[str, Any]:
        """What the probe read, as plain JSON."""
        document = self._state_document()
        if document is None:
            self._count = 0
            document = read_node(self._supervisor, self.root, self.budget_s, self.driver)
        self._count += 1
        self._last = document
        return document

    def _state_document(self) -> dict[str, Any] | None:
        """A reading of what changes by the minute; None where all is to be read."""
        if self._last is None or not self.driver or self._count >= self.inventory_every:
            return None
        return read_state(self._supervisor, self._last, self.root, self.budget_s)

    def read_raw(self) -> "NodeReading":
        """What the probe read, word for word, checked."""
        return self.checked(self.read_document())

    def checked(self, document: dict[str, Any]) -> "NodeReading":
        """The probe's document as a reading, under this node's name."""
        from fleet.reading import NodeReading

        named = document if self.host is None else {**document, "host": self.host}
        reading = NodeReading.model_validate(
            {**named, "answers": self._with_those_checked(document["answers"])},
            strict=False,  # times and tuples as JSON has them
        )
        self._checked = (document["answers"], reading)
        return reading

    def _with_those_checked(self, answers: dict[str, Any]) -> dict[str, Any]:
        """Answers, of which those that a state reading took over are checked already."""
        if self._checked is None:
            return answers
        before, reading = self._checked
        return {
            key: reading.answers[key] if before.get(key) is answer else answer
            for key, answer in answers.items()
        }

    def read(self) -> "NodeSnapshot":
        """This node as it is now.

        Raises:
            NothingCollectedError: nothing answered.
            SnapshotError: what answered contradicts itself.
        """
        from fleet.sources.reading import Memory, snapshot_from_reading

        self._memory = self._memory or Memory()
        return snapshot_from_reading(self.read_raw(), memory=self._memory)

    def interrupt(self) -> None:
        """From another thread: end the reading that goes on."""
        self._supervisor.interrupt()

    def close(self) -> None:
        """Let the child go. Nothing is left behind that can be killed."""
        self._supervisor.close()

    @property
    def wedged_since(self) -> datetime | None:
        """Since when reading processes are stuck in the driver; None: none are."""
        if not self._supervisor.stuck_count() or self._supervisor.stuck_since is None:
            return None
        return datetime.fromtimestamp(self._supervisor.stuck_since, UTC)

    @property
    def child_pid(self) -> int | None:
        """Process number of the living child."""
        return self._supervisor.pid()


class BegunReading:
    """One reading that goes on in a thread of its own, while the caller does something else."""

    def __init__(self, reader: NodeReader) -> None:
        self._reader = reader
        self._documents: list[dict[str, Any]] = []
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def result(self) -> "NodeReading":
        """The reading, when it is done; an interrupted wait leaves no child behind."""
        try:
            self._thread.join()
        except BaseException:
            self._reader.interrupt()
            self._thread.join(_ENDS_WITHIN_S)
            raise
        self._reader.close()
        for failure in self._failures:
            raise failure
        return self._reader.checked(self._documents[0])

    def _read(self) -> None:
        try:
            self._documents.append(self._reader.read_document())
        except BaseException as failure:
            self._failures.append(failure)

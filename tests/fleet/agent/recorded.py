"""A reader that replays what is written down, and the agent with it as a program.

``python recorded.py PLAN --interval=1s ...``: the agent's own process, with another reader. It
imports what the agent imports and nothing else, so that its weight is the agent's.
"""

import json
import sys
import time
from datetime import datetime
from pathlib import Path

from fleet.agent.run import main
from fleet.errors import SourceError
from fleet.model import NodeSnapshot


class RecordedReader:
    """Does one step of a plan at each reading; the last one again and again.

    A step is ``{"snapshot": FILE}``, ``{"raise": TEXT}``, ``{"bug": TEXT}`` or ``{"hang_s": S}``;
    ``{"cycle": true}`` as the last step starts over.
    """

    def __init__(self, plan: Path) -> None:
        self._steps = json.loads(plan.read_text())
        self._closed = plan.with_suffix(".closed")
        self._next = 0
        self.wedged_since: datetime | None = None

    def read(self) -> NodeSnapshot:
        step = self._step()
        if "raise" in step:
            raise SourceError(step["raise"], where="recorded")
        if "bug" in step:
            raise TypeError(step["bug"])
        if "hang_s" in step:
            time.sleep(step["hang_s"])
            raise SourceError("came back", where="recorded")
        return NodeSnapshot.model_validate_json(Path(step["snapshot"]).read_bytes())

    def close(self) -> None:
        self._closed.write_text("closed")

    def _step(self) -> dict[str, object]:
        step = self._steps[min(self._next, len(self._steps) - 1)]
        if "cycle" in step:
            self._next = 0
            return self._step()
        self._next += 1
        return step


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], lambda host: RecordedReader(Path(sys.argv[1]))))

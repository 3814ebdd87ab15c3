"""``python -m fleet.probe``: read this node and print it, as the far side of a sweep does."""

import argparse
import base64
import json
import sys
import zlib
from typing import Callable, List, Optional

from fleet.probe.report import BUDGET_S, child_command, read_node
from fleet.probe.supervise import Supervisor

MARK = "@fleetmap-reading "
"""Begins the one line that counts among what a login shell may print."""


def main(arguments: List[str], child: Optional[Callable[[], None]] = None) -> None:
    """Read this node and print one line; ``child`` is run in a fork, no interpreter is started."""
    parser = argparse.ArgumentParser(prog="fleet.probe", description="Read this node.")
    parser.add_argument("--root", default="/", help="where /sys and /proc are (default /)")
    parser.add_argument("--deadline", type=float, default=5.0, help="seconds for one call")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds for all of it")
    parser.add_argument("--packed", action="store_true", help="one marked, compressed line")
    options = parser.parse_args(arguments)
    supervisor = Supervisor(child or child_command(), options.deadline)
    try:
        reading = read_node(supervisor, options.root, options.budget)
    finally:
        supervisor.close()
    text = json.dumps(reading, separators=(",", ":"))
    if options.packed:
        text = MARK + base64.b64encode(zlib.compress(text.encode(), 6)).decode()
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])

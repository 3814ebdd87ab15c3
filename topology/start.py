"""Where the ``topology`` command begins: an interrupt while its modules load is no traceback."""

import gc
import sys

SELDOM = (200_000, 20, 100)
"""New objects after which Python looks for cycles: a map of a large fleet has millions without
any, and with its own 700 each is read three times, for seconds. A command soon ends."""


def main() -> None:
    """Entry point of the console script."""
    gc.set_threshold(*SELDOM)
    try:
        from topology.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)  # fleet.console has the codes, and may be what was being loaded

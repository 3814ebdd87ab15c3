"""Where the ``topology`` command begins: an interrupt while its modules load is no traceback."""

import sys


def main() -> None:
    """Entry point of the console script."""
    try:
        from topology.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)  # fleet.console has the codes, and may be what was being loaded

"""The agent's process: ``python -m fleet.agent --name=value ...``; ``fleet agent`` becomes it."""

import sys
from typing import Final

from fleet.agent.run import main
from fleet.agent.settings import AgentSettings
from fleet.fields import HostName
from fleet.node import NodeReader

INVENTORY_EVERY: Final = 20
"""What does not change by the minute (names, far ends of links, PCIe) is asked for so seldom."""


def node_reader(settings: AgentSettings) -> NodeReader:
    """The reader of this node, under a given name or its own."""
    return NodeReader(
        host=None if settings.host is None else HostName(settings.host),
        deadline_s=settings.deadline_s,
        inventory_every=INVENTORY_EVERY,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], node_reader))

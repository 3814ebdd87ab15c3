"""Anchor: a schedule's costs put to a time that a closed form tells.

The closed form says how long an operation takes, the schedule which message waits for which: all
messages are stretched alike until the noiseless replay takes exactly that long.
"""

from dataclasses import replace

from topology.latency.cost import Costs, RoundCost
from topology.latency.monte_carlo import noiseless_s


def anchored_costs(costs: Costs, time_s: float, launch_s: float) -> Costs:
    """Costs whose noiseless replay takes ``time_s``, ``launch_s`` of it before any message.

    A message keeps its wire time where it can; where it gets shorter than that, it is all wire.
    """
    bare = replace(costs, launch_s=0.0, base_s=0.0)
    replayed_s = noiseless_s(bare)
    if replayed_s <= 0:
        return replace(costs, launch_s=launch_s, base_s=time_s - launch_s)
    ratio = (time_s - launch_s) / replayed_s
    rounds = tuple(_stretched(round_, ratio) for round_ in costs.rounds)
    return replace(costs, launch_s=launch_s, base_s=0.0, rounds=rounds)


def _stretched(cost: RoundCost, ratio: float) -> RoundCost:
    """A round whose messages take ``ratio`` times as long; bandwidth and wire come first."""
    message_s = cost.message_s * ratio
    wire_s = cost.wire_s.clip(max=message_s)
    bandwidth_s = (cost.bandwidth_s * ratio).clip(max=message_s - wire_s)
    software_s = message_s - wire_s - bandwidth_s
    return replace(cost, wire_s=wire_s, software_s=software_s, bandwidth_s=bandwidth_s)

"""Steady repeats of a round: taken at once, as long as step by step."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.latency.factories import schedule_of, uniform_costs
from topology.latency import monte_carlo
from topology.latency.cost import Costs
from topology.latency.monte_carlo import noiseless_breakdown, noiseless_s


def unrolled(costs: Costs) -> Costs:
    """The same with every repetition as a round of its own, which nothing can jump over."""
    rounds = tuple(
        replace(
            cost,
            round=replace(
                cost.round,
                repeats=1,
                channel_shift=0,
                channel=cost.round.channel + i * cost.round.channel_shift,
            ),
        )
        for cost in costs.rounds
        for i in range(cost.round.repeats)
    )
    return replace(costs, rounds=rounds)


@settings(max_examples=40, deadline=None)
@given(
    ranks=st.integers(2, 60),
    period=st.integers(1, 60),
    slow=st.floats(0.1, 9.0),
    wire=st.lists(st.sampled_from([0.1, 0.3, 0.7, 1 / 3]), min_size=60, max_size=60),
)
def test_steady_repeats_at_once_take_as_long_as_step_by_step(
    ranks: int, period: int, slow: float, wire: list[float]
) -> None:
    costs = uniform_costs(schedule_of("ring", ranks), alpha_s=1.0, size_bytes=3.0)
    wires = np.where(np.arange(ranks) % period == 0, slow, np.array(wire[:ranks]))
    costs = replace(costs, rounds=tuple(replace(c, wire_s=wires) for c in costs.rounds))
    assert noiseless_s(costs) == pytest.approx(noiseless_s(unrolled(costs)), rel=1e-12)
    terms, slowly = noiseless_breakdown(costs), noiseless_breakdown(unrolled(costs))
    assert terms.total_s == pytest.approx(slowly.total_s, rel=1e-12)
    assert terms.wire_s == pytest.approx(slowly.wire_s, rel=1e-9)


def test_steady_repeats_are_not_replayed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = uniform_costs(schedule_of("ring", 500), alpha_s=1.0)
    steps: list[int] = []
    step = monte_carlo._step
    monkeypatch.setattr(monte_carlo, "_step", lambda *given: (steps.append(1), step(*given))[1])
    assert noiseless_s(costs) == 998.0
    assert len(steps) < 40

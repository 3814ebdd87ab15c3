"""Law graph: what is dropped as overwritten had gone into what overwrites it."""

import pytest

from tests.topology.latency.factories import schedule_of, uniform_costs
from tests.topology.latency.test_exact import fabric_costs
from topology.collective.schedule import Schedule
from topology.latency.cost import Costs
from topology.latency.law_graph import Graph, graph_of, waist_of


def dropped_unseen(graph: Graph) -> list[tuple[int, int]]:
    """(step, row) whose old value an arrival replaces that did not wait for all of it.

    Each row carries the messages that it has waited for, as bits.
    """
    waited = [0] * graph.rows
    unseen, number = [], 0
    for i, step in enumerate(graph.steps):
        before = list(waited)
        sent_on = dict.fromkeys(step.source.tolist(), 0)
        arrived: dict[int, int] = {}
        for source, goal in zip(step.source.tolist(), step.destination.tolist(), strict=True):
            arrived[goal] = arrived.get(goal, 0) | before[source] | 1 << number
            number += 1
        replaced = set(step.destination[step.replaces].tolist())
        for goal, bits in arrived.items():
            is_last = not step.resends[goal] and goal in sent_on
            if goal in replaced and before[goal] & ~bits and not is_last:
                unseen.append((i, goal))
            waited[goal] |= bits
    return unseen


ALL_REDUCES = ("tree", "double_binary_tree", "nvls_tree", "collnet", "hierarchical")


@pytest.mark.parametrize("name", ALL_REDUCES)
@pytest.mark.parametrize(("spec", "ranks"), [("dgx-h100 node:4", 32), ("dgx-h100 node:3", 20)])
def test_what_a_copy_replaces_had_gone_into_it(spec: str, ranks: int, name: str) -> None:
    for costs, _ in fabric_costs(spec, ranks, name):
        if not any(cost.round.lockstep for cost in costs.rounds):
            assert dropped_unseen(graph_of(costs, copies_replace=True, gated=True)) == []


@pytest.mark.parametrize("name", ["nvls", "recursive_doubling", "one_shot", "two_shot"])
def test_in_one_clique_too(name: str) -> None:
    for ranks in (2, 3, 8, 13):
        graph = graph_of(costs_of(schedule_of(name, ranks)), copies_replace=True, gated=True)
        assert dropped_unseen(graph) == []


def test_the_check_sees_a_value_that_was_dropped_too_early() -> None:
    costs = costs_of(schedule_of("tree", 8))
    graph = graph_of(costs, copies_replace=True, gated=False)
    graph.steps[1].replaces[:] = True
    assert dropped_unseen(graph) == [(1, 0), (1, 4)]


def test_a_tree_is_narrowest_at_its_root_and_a_switch_between_its_legs() -> None:
    for ranks, levels in ((8, 3), (64, 6)):
        graph = graph_of(costs_of(schedule_of("tree", ranks)), copies_replace=True, gated=False)
        assert waist_of(graph) == levels
    graph = graph_of(costs_of(schedule_of("nvls", 8)), copies_replace=True, gated=False)
    assert waist_of(graph) == 1


def costs_of(schedule: Schedule) -> Costs:
    return uniform_costs(schedule, alpha_s=1e-6)

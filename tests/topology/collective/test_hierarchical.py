from math import ceil, log2

import pytest

from tests.topology.collective.layouts import (
    Placed,
    messages_of,
    named,
    packed,
    spread_out,
)
from topology.collective.algorithms import build_schedules
from topology.collective.replay import prove
from topology.collective.schedule import Schedule
from topology.collective.stages import Request
from topology.words import Collective

H100 = "model:dgx-h100 node:5"


def variants(placed: Placed, pieces: int = 1) -> dict[str, Schedule]:
    request = Request(Collective.ALL_REDUCE, placed.layout, 1, pieces)
    return {s.variant: s for s in build_schedules("hierarchical", request)}


LEADERS = "tree to a leader of each domain, tree across"


def test_equal_domains_of_reducing_switches_have_five_ways() -> None:
    assert list(variants(packed(H100, 16))) == [
        "switch in the domain, tree across",
        "switch in the domain, ring across",
        "ring in the domain, tree across",
        "ring in the domain, ring across",
        LEADERS,
    ]


def test_domains_that_do_not_reduce_have_no_way_through_the_switch() -> None:
    assert list(variants(packed("model:dgx-a100 node:2", 16))) == [
        "ring in the domain, tree across",
        "ring in the domain, ring across",
        LEADERS,
    ]


def test_unequal_domains_go_by_leaders_alone() -> None:
    assert list(variants(packed(H100, 20))) == [LEADERS]


@pytest.mark.parametrize(("nodes", "size"), [(2, 8), (3, 8), (5, 3), (4, 2)])
def test_steps_and_messages_are_those_of_the_parts(nodes: int, size: int) -> None:
    n = nodes * size
    found = variants(spread_out(f"model:dgx-h100 node:{nodes}", n))
    log_nodes, log_size = ceil(log2(nodes)), ceil(log2(size))
    ring, switch = 2 * (size - 1), 4
    across_ring, across_tree = 2 * (nodes - 1), 2 * log_nodes
    assert {name: schedule.steps for name, schedule in found.items()} == {
        "switch in the domain, tree across": switch + across_tree,
        "switch in the domain, ring across": switch + across_ring,
        "ring in the domain, tree across": ring + across_tree,
        "ring in the domain, ring across": ring + across_ring,
        LEADERS: 2 * (log_size + log_nodes),
    }
    tree_messages, ring_messages = size * 2 * (nodes - 1), n * across_ring
    assert {name: schedule.messages for name, schedule in found.items()} == {
        "switch in the domain, tree across": 4 * n + tree_messages,
        "switch in the domain, ring across": 4 * n + ring_messages,
        "ring in the domain, tree across": ring * n + tree_messages,
        "ring in the domain, ring across": ring * n + ring_messages,
        LEADERS: 2 * (n - 1),
    }


def test_leaders_in_pieces_take_depth_plus_pieces_less_one_steps() -> None:
    schedule = variants(packed(H100, 16), pieces=7)[LEADERS]
    assert schedule.steps == 2 * (3 + 1) + 7 - 1
    prove(schedule)


def test_only_holders_of_one_share_meet_across_domains() -> None:
    """Across, rank i of a domain talks to rank i of another: eight rails side by side."""
    placed = packed(H100, 16)
    for name, schedule in variants(placed).items():
        if name == LEADERS:
            continue
        for step in messages_of(schedule):
            for message in step:
                ends = (message.source, message.destination)
                if max(ends) < 16 and ends[0] // 8 != ends[1] // 8:
                    assert ends[0] % 8 == ends[1] % 8


def test_leaders_alone_cross_where_domains_are_unequal() -> None:
    placed = packed(H100, 20)
    schedule = variants(placed)[LEADERS]
    leaders = {domain[0] for domain in placed.layout.domains}
    domain_of = {rank: i for i, domain in enumerate(placed.layout.domains) for rank in domain}
    crossings = [
        (m.source, m.destination)
        for step in messages_of(schedule)
        for m in step
        if domain_of[m.source] != domain_of[m.destination]
    ]
    assert {rank for pair in crossings for rank in pair} == leaders
    assert len(crossings) == 2 * (3 - 1)


def test_ranks_whose_first_lies_in_a_later_domain_are_proved_with_their_switches() -> None:
    ends = ("3:0", "1:0", "3:1", "1:1")
    placed = named("model:dgx-h100 node:3", *(f"h100-00{end}" for end in ends))
    for schedule in variants(placed).values():
        prove(schedule, placed.routes)


def test_a_domain_of_one_among_larger_ones_is_proved() -> None:
    ends = ("1:0", "1:1", "1:2", "2:5")
    placed = named("model:dgx-h100 node:2", *(f"h100-00{end}" for end in ends))
    for pieces in (1, 3):
        for schedule in variants(placed, pieces).values():
            prove(schedule, placed.routes)


@pytest.mark.parametrize("collective", [Collective.ALL_GATHER, Collective.REDUCE_SCATTER])
def test_a_gather_or_scatter_is_half_the_all_reduce_and_each_rank_owns_one_part(
    collective: Collective,
) -> None:
    placed = packed(H100, 24)
    made = build_schedules("hierarchical", Request(collective, placed.layout))
    steps = {schedule.variant: schedule.steps for schedule in made}
    assert steps == {
        "switch in the domain, ring across": 2 + 2,
        "ring in the domain, ring across": 7 + 2,
    }
    for schedule in made:
        assert sorted(schedule.owner.tolist()) == list(range(24))
        prove(schedule, placed.routes)


def test_a_gather_crosses_between_domains_with_no_more_than_it_must() -> None:
    """Each of 24 ranks sends its part, and what it got, on to the next node: 2/24 of the whole."""
    placed = packed(H100, 24)
    (_, schedule) = build_schedules("hierarchical", Request(Collective.ALL_GATHER, placed.layout))
    crossing = [
        m for step in messages_of(schedule) for m in step if m.source // 8 != m.destination // 8
    ]
    assert sum(m.chunks for m in crossing) * schedule.chunk_fraction == pytest.approx(2)
    assert {m.source % 8 - m.destination % 8 for m in crossing} == {0}, "each on its own rail"

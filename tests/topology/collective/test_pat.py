import numpy as np
import pytest

from tests.topology.collective.layouts import messages_of, packed, schedule_of, spread_out
from topology.collective.algorithms import build_schedules
from topology.collective.replay import prove
from topology.collective.schedule import Schedule
from topology.collective.stages import Request
from topology.words import Collective

H100 = "model:dgx-h100 node:40"
GATHER, SCATTER = Collective.ALL_GATHER, Collective.REDUCE_SCATTER


def pat(ranks: int, collective: Collective = GATHER) -> Schedule:
    return schedule_of("pat", collective, spread_out(H100, ranks))


def steps_of(schedule: Schedule) -> list[tuple[int, int]]:
    """For each step how far rank 0 sends, and how many chunks."""
    n = schedule.ranks
    return [
        (int(r.destination[r.source == 0][0]) % n, int(r.chunk_count[0])) for r in schedule.rounds
    ]


def test_an_all_gather_of_eight_sends_one_part_far_and_four_near() -> None:
    assert steps_of(pat(8)) == [(4, 1), (2, 2), (1, 4)]


def test_a_reduce_scatter_of_eight_sends_the_same_messages_backwards() -> None:
    assert steps_of(pat(8, SCATTER)) == [(7, 4), (6, 2), (4, 1)]
    gather, scatter = messages_of(pat(8)), messages_of(pat(8, SCATTER))
    turned = [{(m.destination, m.source, m.first) for m in step} for step in reversed(scatter)]
    assert turned == [{(m.source, m.destination, m.first) for m in step} for step in gather]


def test_of_a_number_that_is_no_power_of_two_some_steps_carry_less() -> None:
    assert steps_of(pat(6)) == [(4, 1), (2, 1), (1, 3)]
    assert steps_of(pat(5)) == [(4, 1), (2, 1), (1, 2)]


@pytest.mark.parametrize("collective", [GATHER, SCATTER])
@pytest.mark.parametrize("ranks", range(1, 41))
def test_any_number_of_ranks_is_proved_in_log_steps_with_each_part_sent_once(
    collective: Collective, ranks: int
) -> None:
    placed = spread_out(H100, ranks)
    schedule = schedule_of("pat", collective, placed)
    prove(schedule, placed.routes)
    assert schedule.steps == (ranks - 1).bit_length()
    assert sum(int(round_.chunk_count.sum()) for round_ in schedule.rounds) == ranks * (ranks - 1)


def test_each_rank_sends_one_message_and_gets_one_in_every_step() -> None:
    for round_ in pat(13).rounds:
        for ends in (round_.source, round_.destination):
            assert np.array_equal(np.sort(ends), np.arange(13))


def test_one_rank_alone_has_nothing_to_send() -> None:
    (alone,) = build_schedules("pat", Request(GATHER, packed(H100, 1).layout))
    assert alone.rounds == ()

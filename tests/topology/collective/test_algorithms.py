from collections.abc import Callable, Iterator
from math import ceil, log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.collective.layouts import (
    Placed,
    fabric_of,
    messages_of,
    named,
    packed,
    placed_on,
    requests,
    schedule_of,
    spread_out,
    with_sharp,
)
from topology.collective.algorithms import ALGORITHMS, build_schedules, usable_names
from topology.collective.replay import prove
from topology.collective.schedule import Schedule
from topology.collective.stages import Request
from topology.errors import ScheduleError
from topology.words import AlgorithmName, Collective

H100 = "model:dgx-h100 node:5"
CPUS = "model:beowulf-2006 node:50"
NAMES = [name.value for name in AlgorithmName if name is not AlgorithmName.AUTO]
ALL_REDUCE = Collective.ALL_REDUCE


def uneven() -> Placed:
    """Domains of three, one and two ranks, in an order of no pattern."""
    ends = ("1:4", "2:7", "1:0", "3:1", "1:2", "3:5")
    return named("model:dgx-h100 node:3", *(f"h100-00{end}" for end in ends))


PLACEMENTS: dict[str, Callable[[], Placed]] = {
    "one rank": lambda: packed(H100, 1),
    "part of a node": lambda: packed(H100, 5),
    "a node": lambda: packed(H100, 8),
    "two nodes": lambda: packed(H100, 16),
    "two nodes and a half": lambda: packed(H100, 20),
    "five nodes": lambda: packed(H100, 40),
    "one rank a node": lambda: spread_out(H100, 5),
    "three ranks a node": lambda: spread_out(H100, 15),
    "unequal and shuffled": uneven,
    "a rack": lambda: packed("model:gb200-nvl72 node:20", 24),
    "two racks": lambda: packed("model:gb200-nvl72 node:20", 80),
    "a mesh": lambda: packed("model:dgx1-v100 node:3", 8),
    "part of a mesh": lambda: packed("model:dgx1-v100 node:3", 6),
    "three meshes": lambda: packed("model:dgx1-v100 node:3", 24),
    "pcie": lambda: packed("model:pcie-l40s node:2", 12),
    "cpu ranks": lambda: packed(CPUS, 33),
    "two nodes and a half, SHARP": lambda: with_sharp(packed(H100, 20)),
    "one rank a node, SHARP": lambda: with_sharp(spread_out(H100, 5)),
    "unequal and shuffled, SHARP": lambda: with_sharp(uneven()),
    "pcie, SHARP": lambda: with_sharp(packed("model:pcie-l40s node:2", 12)),
}


def variants(placed: Placed, *, channels: int, pieces: int) -> Iterator[Schedule]:
    for name, request in requests(placed, channels=channels, pieces=pieces):
        yield from build_schedules(name, request)


@pytest.mark.parametrize("where", PLACEMENTS)
@pytest.mark.parametrize(("channels", "pieces"), [(1, 1), (8, 3)])
def test_every_schedule_is_proved_over_links_that_are_there(
    where: str, channels: int, pieces: int
) -> None:
    placed = PLACEMENTS[where]()
    proved = set()
    for schedule in variants(placed, channels=channels, pieces=pieces):
        prove(schedule, placed.routes)
        proved.add(schedule.algorithm)
    assert {"ring", "tree", "double_binary_tree", "recursive_doubling", "direct"} <= proved
    assert ("collnet" in proved) == ("SHARP" in where)


@pytest.mark.parametrize("ranks", range(1, 34))
def test_every_number_of_ranks_is_proved(ranks: int) -> None:
    placed = packed(H100, ranks)
    for schedule in variants(placed, channels=2, pieces=2):
        prove(schedule)


def test_every_algorithm_that_can_be_asked_for_is_there() -> None:
    assert set(ALGORITHMS) == set(NAMES)


def test_every_collective_has_an_algorithm_for_any_number_of_ranks() -> None:
    for ranks in (1, 2, 7, 40):
        for collective in Collective:
            assert usable_names(Request(collective, packed(H100, ranks).layout))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_relabelled_ranks_are_proved_as_well(data: st.DataObject) -> None:
    fabric = fabric_of("model:dgx-h100 node:3")
    order = data.draw(st.permutations(range(24)))[: data.draw(st.integers(1, 12))]
    placed = placed_on(fabric, [fabric.endpoints[i] for i in order])
    for schedule in variants(placed, channels=2, pieces=1):
        prove(schedule, placed.routes)


def power_below(n: int) -> int:
    """The largest power of two that is not above n."""
    p = 1
    while 2 * p <= n:
        p *= 2
    return p


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 12, 17, 32, 33])
def test_steps_and_messages_are_those_of_the_closed_forms(n: int) -> None:
    placed = packed(H100, n)
    log_n = ceil(log2(n)) if n > 1 else 0
    p = power_below(n)
    log_p = int(log2(p))
    folds = 2 if n > p else 0

    def counts(name: str, collective: Collective) -> tuple[int, int]:
        schedule = schedule_of(name, collective, placed)
        return schedule.steps, schedule.messages

    assert counts("ring", ALL_REDUCE) == (2 * (n - 1), 2 * (n - 1) * n)
    assert counts("ring", Collective.ALL_GATHER) == (n - 1, (n - 1) * n)
    assert counts("ring", Collective.REDUCE_SCATTER) == (n - 1, (n - 1) * n)
    assert counts("tree", ALL_REDUCE) == (2 * log_n, 2 * (n - 1))
    assert counts("tree", Collective.BROADCAST) == (log_n, n - 1)
    assert counts("tree", Collective.REDUCE) == (log_n, n - 1)
    assert counts("ring", Collective.BROADCAST) == (n - 1, n - 1)
    assert counts("ring", Collective.REDUCE) == (n - 1, n - 1)
    for collective in (Collective.ALLTOALL, Collective.ALLTOALLV):
        assert counts("pairwise", collective) == (n - 1, n * (n - 1))
        assert counts("direct", collective) == (min(1, n - 1), n * (n - 1))
    assert counts("direct", Collective.SENDRECV) == (min(1, n - 1), n if n > 1 else 0)
    assert counts("recursive_doubling", ALL_REDUCE) == (
        log_p + folds,
        p * log_p + 2 * (n - p),
    )


@pytest.mark.parametrize(
    "collective", [ALL_REDUCE, Collective.ALL_GATHER, Collective.REDUCE_SCATTER]
)
@pytest.mark.parametrize("pieces", [1, 5])
def test_in_switch_takes_a_step_up_and_a_step_down(collective: Collective, pieces: int) -> None:
    schedule = schedule_of("nvls", collective, packed(H100, 8), pieces=pieces)
    assert (schedule.steps, schedule.messages) == (2 + pieces - 1, 2 * 8 * pieces)
    assert schedule.vertices == 9


@pytest.mark.parametrize(("n", "pieces"), [(8, 1), (8, 4), (5, 6), (2, 3)])
def test_a_tree_in_pieces_takes_depth_plus_pieces_less_one_steps(n: int, pieces: int) -> None:
    schedule = schedule_of("tree", ALL_REDUCE, packed(H100, n), pieces=pieces)
    assert schedule.steps == 2 * ceil(log2(n)) + pieces - 1
    assert schedule.messages == 2 * (n - 1) * pieces


def sent_by_rank(schedule: Schedule) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Share of S that each rank sends in all."""
    sent = np.zeros(schedule.vertices)
    for step in messages_of(schedule):
        for message in step:
            sent[message.source] += message.chunks * schedule.chunk_fraction
    return sent[: schedule.ranks]


@pytest.mark.parametrize("n", [2, 3, 8, 12])
@pytest.mark.parametrize("channels", [1, 4])
def test_a_ring_moves_the_least_a_rank_can_send(n: int, channels: int) -> None:
    placed = packed(H100, n)
    for collective, share in (
        (ALL_REDUCE, 2 * (n - 1) / n),
        (Collective.ALL_GATHER, (n - 1) / n),
        (Collective.REDUCE_SCATTER, (n - 1) / n),
    ):
        schedule = schedule_of("ring", collective, placed, channels=channels)
        assert sent_by_rank(schedule) == pytest.approx([share] * n)
    for name in ("pairwise", "direct"):
        alltoall = schedule_of(name, Collective.ALLTOALL, placed)
        assert sent_by_rank(alltoall) == pytest.approx([(n - 1) / n] * n)


@pytest.mark.parametrize("where", ["a node", "two nodes", "two nodes and a half", "a mesh"])
def test_chunks_make_up_the_whole_buffer(where: str) -> None:
    for schedule in variants(PLACEMENTS[where](), channels=4, pieces=3):
        total = schedule.chunks * schedule.chunk_fraction
        ranks = schedule.ranks if schedule.target is not None else 1
        assert total == pytest.approx(ranks), schedule.algorithm
        if schedule.fractions is not None:
            assert schedule.fractions.sum() == pytest.approx(ranks)


@pytest.mark.parametrize("where", PLACEMENTS)
def test_messages_name_channels_and_chunks_that_there_are(where: str) -> None:
    for schedule in variants(PLACEMENTS[where](), channels=3, pieces=2):
        for round_ in schedule.rounds:
            for repetition in {0, round_.repeats - 1}:
                chunk = round_.chunks(repetition)[1]
                channel = round_.channel + repetition * round_.channel_shift
                assert len(chunk) == round_.chunk_count.sum()
                assert chunk.min() >= 0
                assert chunk.max() < schedule.chunks
                assert channel.min() >= 0
                assert channel.max() < schedule.channels


def refused(name: str, collective: Collective, placed: Placed) -> str:
    with pytest.raises(ScheduleError) as caught:
        schedule_of(name, collective, placed)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_an_unknown_algorithm_is_refused_with_those_there_are() -> None:
    message = refused("bucket_brigade", ALL_REDUCE, packed(H100, 8))
    assert message == f"no algorithm 'bucket_brigade'; use one of {', '.join(ALGORITHMS)}"


@pytest.mark.parametrize(
    ("name", "collective", "where", "message"),
    [
        ("pairwise", ALL_REDUCE, "a node", "pairwise: pairwise does no all_reduce"),
        ("ring", Collective.ALLTOALL, "a node", "ring: ring does no alltoall"),
        ("nvls", Collective.BROADCAST, "a node", "nvls: nvls does no broadcast"),
        ("nvls", ALL_REDUCE, "two nodes", "the ranks lie in 2 NVLink domains, nvls needs one"),
        ("nvls", ALL_REDUCE, "a mesh", "no NVSwitch here reduces in the switch"),
        ("nvls_tree", ALL_REDUCE, "a rack", "all ranks lie in one clique"),
        ("nvls_tree", ALL_REDUCE, "three meshes", "no NVSwitch reduces in rank 0's clique"),
        ("hierarchical", ALL_REDUCE, "a node", "all ranks lie in one NVLink domain"),
        ("hierarchical", ALL_REDUCE, "a rack", "all ranks lie in one NVLink domain"),
        (
            "hierarchical",
            Collective.ALL_GATHER,
            "unequal and shuffled",
            "the NVLink domains hold 3, 1, 2 ranks, only all_reduce does with unequal numbers",
        ),
        ("hierarchical", Collective.BROADCAST, "two nodes", "hierarchical does no broadcast"),
        ("double_binary_tree", Collective.REDUCE, "two nodes", "double_binary_tree does no reduce"),
        ("ring", Collective.SENDRECV, "a node", "ring does no sendrecv"),
        ("collnet", ALL_REDUCE, "a node", "all ranks lie in one clique"),
        ("collnet", ALL_REDUCE, "two nodes", "no SHARP known here"),
        ("pat", Collective.ALL_GATHER, "two nodes", "8 ranks share a node, NCCL runs PAT with one"),
        ("pat", ALL_REDUCE, "one rank a node", "pat does no all_reduce"),
        ("one_shot", ALL_REDUCE, "two nodes", "the ranks lie in 2 nodes that only the network"),
        ("two_shot", ALL_REDUCE, "cpu ranks", "the ranks lie in 33 nodes that only the network"),
        ("direct", Collective.ALL_GATHER, "pcie", "the ranks lie in 2 nodes that only the network"),
        ("hierarchical", ALL_REDUCE, "one rank a node", "every rank is alone in its NVLink domain"),
        ("hierarchical", ALL_REDUCE, "cpu ranks", "every rank is alone in its NVLink domain"),
    ],
)
def test_an_algorithm_that_cannot_says_why_and_what_can(
    name: str, collective: Collective, where: str, message: str
) -> None:
    placed = PLACEMENTS[where]()
    text = refused(name, collective, placed)
    assert message in text
    assert text.endswith(f"; use {', '.join(usable_names(Request(collective, placed.layout)))}")


def test_a_ring_takes_no_more_channels_than_there_are_orders() -> None:
    placed = packed("model:dgx1-v100 node:1", 8)
    for asked, made in ((0, 1), (1, 1), (4, 4), (6, 6), (99, 6)):
        assert schedule_of("ring", ALL_REDUCE, placed, channels=asked).channels == made


def test_a_ring_steps_in_lockstep_and_a_tree_does_not() -> None:
    placed = packed(H100, 8)
    ring, tree = (schedule_of(name, ALL_REDUCE, placed) for name in ("ring", "tree"))
    assert {round_.lockstep for round_ in ring.rounds} == {True}
    assert {round_.lockstep for round_ in tree.rounds} == {False}


def test_no_rank_sends_or_receives_twice_on_a_channel_in_a_step() -> None:
    placed = packed(H100, 16)
    for name, collective in (
        ("ring", ALL_REDUCE),
        ("pairwise", Collective.ALLTOALL),
        ("recursive_doubling", ALL_REDUCE),
    ):
        for round_ in schedule_of(name, collective, placed, channels=8).rounds:
            for ends in (round_.source, round_.destination):
                pairs = list(zip(ends.tolist(), round_.channel.tolist(), strict=True))
                assert len(set(pairs)) == len(pairs)

"""GOAL: read back by a reader of its own, and replayed to our noiseless time."""

from itertools import pairwise

import pytest

from tests.topology.exports.factories import TWO_NODES, case_of, goal_of, text_of
from tests.topology.exports.goal_reader import Operation, messages, read_goal, replay_ns
from topology.errors import ScheduleError
from topology.exports.case import Case
from topology.exports.goal import goal_product, goal_text
from topology.words import Collective

ALIKE = [
    (Collective.ALL_REDUCE, "ring"),
    (Collective.ALL_REDUCE, "tree"),
    (Collective.ALL_REDUCE, "recursive_doubling"),
    (Collective.ALL_REDUCE, "one_shot"),
    (Collective.ALL_REDUCE, "two_shot"),
    (Collective.ALL_GATHER, "ring"),
    (Collective.REDUCE_SCATTER, "ring"),
    (Collective.BROADCAST, "tree"),
    (Collective.BROADCAST, "ring"),
    (Collective.REDUCE, "tree"),
    (Collective.ALLTOALL, "pairwise"),
    (Collective.ALLTOALL, "direct"),
    (Collective.SENDRECV, "direct"),
]
"""Ways whose messages all go alike, one at a time from each rank or all of them at once."""


def replayed_s(case: Case) -> float:
    _, figures = goal_text(case)
    latency, overhead, per_byte = (
        1e9 * figure for figure in (figures.latency_s, figures.overhead_s, figures.per_byte_s)
    )
    goal = goal_of(case)
    return 1e-9 * replay_ns(goal, latency=latency, overhead=overhead, per_byte=per_byte)


@pytest.mark.parametrize("size_bytes", [8, 64 * 1024])
@pytest.mark.parametrize(("collective", "algorithm"), ALIKE)
def test_where_routes_are_alike_it_replays_to_our_noiseless_time(
    collective: Collective, algorithm: str, size_bytes: int
) -> None:
    case = case_of(collective=collective, algorithm=algorithm, size_bytes=size_bytes)
    # The first byte of a message is free in LogGOPS: a few picoseconds in a step.
    assert replayed_s(case) == pytest.approx(case.choice.noiseless_s, rel=1e-4)


@pytest.mark.parametrize("ranks", [2, 3, 5, 8])
def test_a_ring_of_any_length_replays_to_our_noiseless_time(ranks: int) -> None:
    case = case_of(ranks=ranks, size_bytes=1 << 20)
    assert replayed_s(case) == pytest.approx(case.choice.noiseless_s, rel=1e-4)


def test_recursive_doubling_over_two_kinds_of_routes_replays_to_our_time() -> None:
    case = case_of(TWO_NODES, ranks=16, algorithm="recursive_doubling", size_bytes=1 << 20)
    # A calc is a whole number of nanoseconds, and one step of four has one.
    assert replayed_s(case) == pytest.approx(case.choice.noiseless_s, abs=1e-9)


def test_without_our_lockstep_a_ring_over_two_kinds_of_routes_is_faster() -> None:
    case = case_of(TWO_NODES, ranks=16)
    assert 0.5 < replayed_s(case) / case.choice.noiseless_s < 0.9
    assert any("waits until its receiver" in line for line in goal_product(case, "x").differs)


def test_a_ring_of_three_reads_like_this() -> None:
    assert text_of(case_of(ranks=3, size_bytes=12, collective=Collective.ALL_GATHER)) == (
        "num_ranks 3\n"
        "rank 0 {\n"
        "l1: send 4b to 1 tag 0\n"
        "l2: recv 4b from 2 tag 0\n"
        "l3: send 4b to 1 tag 0\n"
        "l3 requires l2\n"
        "l4: recv 4b from 2 tag 0\n"
        "l4 requires l2\n"
        "}\n"
        "rank 1 {\n"
        "l1: send 4b to 2 tag 0\n"
        "l2: recv 4b from 0 tag 0\n"
        "l3: send 4b to 2 tag 0\n"
        "l3 requires l2\n"
        "l4: recv 4b from 0 tag 0\n"
        "l4 requires l2\n"
        "}\n"
        "rank 2 {\n"
        "l1: send 4b to 0 tag 0\n"
        "l2: recv 4b from 1 tag 0\n"
        "l3: send 4b to 0 tag 0\n"
        "l3 requires l2\n"
        "l4: recv 4b from 1 tag 0\n"
        "l4 requires l2\n"
        "}\n"
    )


def test_figures_are_those_of_the_route() -> None:
    # NVSwitch of an H100: 762 ns, 450 GB/s of which collectives get 0.81.
    _, figures = goal_text(case_of(size_bytes=1 << 20))
    assert figures.latency_s == pytest.approx(762e-9)
    assert figures.per_byte_s == pytest.approx(1 / 364.5e9)
    assert figures.options == "-L 762 -o 0 -g 0 -G 0.00274348 -O 0"


def test_what_a_slower_route_adds_stands_behind_the_receive() -> None:
    # InfiniBand NDR: 2,300 ns and 37.5 GB/s. 64 KiB over 16 ranks and 8 channels are 512 bytes a
    # message, which take 2300 - 762 + 512 (1/37.5 - 1/364.5) longer: 1538 and 12 ns.
    goal = goal_of(case_of(TWO_NODES, ranks=16, size_bytes=64 * 1024))
    delays = {op.amount for rank in goal for op in rank.values() if op.verb == "calc"}
    assert delays == {1550}
    for rank, operations in enumerate(goal):
        for op in operations.values():
            if op.verb == "calc":
                (behind,) = (operations[label] for label in op.waits)
                assert (behind.verb, behind.peer // 8) == ("recv", 1 - rank // 8)
                assert op.cpu == 1


def test_a_channel_is_a_tag() -> None:
    case = case_of(TWO_NODES, ranks=16, size_bytes=1 << 20)
    assert case.choice.schedule.channels == 8
    assert {op.tag for op in messages(goal_of(case))} == set(range(8))


def test_every_message_of_the_schedule_is_one_send_and_one_receive() -> None:
    case = case_of(TWO_NODES, ranks=16, algorithm="double_binary_tree", size_bytes=1 << 20)
    goal = goal_of(case)
    receives = [op for rank in goal for op in rank.values() if op.verb == "recv"]
    assert len(messages(goal)) == len(receives) == case.choice.schedule.messages
    sent = sorted((op.rank, op.peer, op.tag, op.amount) for op in messages(goal))
    assert sent == sorted((op.peer, op.rank, op.tag, op.amount) for op in receives)


def test_launch_is_the_first_thing_a_rank_does() -> None:
    case = case_of(size_bytes=64 * 1024, stack="nccl")
    launch_s = case.choice.costs.launch_s
    for operations in goal_of(case):
        assert operations[1] == Operation(operations[1].rank, "calc", round(launch_s * 1e9))
        assert [op.waits for op in operations.values()][1:3] == [{1}, {1}]
    assert replayed_s(case) == pytest.approx(case.choice.noiseless_s, rel=1e-4)


def test_what_mpi_adds_is_the_cpu_overhead_at_both_ends() -> None:
    case = case_of("model:beowulf-2006 node:4", ranks=4, stack="mpi")
    _, figures = goal_text(case)
    (software_s, *_) = case.choice.costs.rounds[0].software_s
    assert 2 * figures.overhead_s == pytest.approx(software_s)
    assert figures.overhead_s > 0
    assert replayed_s(case) == pytest.approx(case.choice.noiseless_s, rel=1e-3)


def test_a_lone_rank_has_a_block_that_does_nothing() -> None:
    assert text_of(case_of(ranks=1)) == "num_ranks 1\nrank 0 {\nl1: calc 0\n}\n"


def test_more_arrivals_than_two_are_joined() -> None:
    # Two-shot: seven arrivals, then seven sends and receives that wait for all of them.
    goal = goal_of(case_of(algorithm="two_shot"))
    for operations in goal:
        (join,) = (op for op in operations.values() if op.verb == "calc")
        assert (join.amount, len(join.waits)) == (0, 7)
        assert max(len(op.waits) for op in operations.values() if op is not join) <= 2


def test_a_message_is_at_least_a_byte() -> None:
    assert {op.amount for op in messages(goal_of(case_of(size_bytes=1)))} == {1}


@pytest.mark.parametrize("algorithm", ["nvls", "nvls_tree"])
def test_switches_that_reduce_are_refused(algorithm: str) -> None:
    case = case_of(TWO_NODES, ranks=16 if algorithm == "nvls_tree" else 8, algorithm=algorithm)
    with pytest.raises(ScheduleError, match="reduces in switches") as refusal:
        goal_text(case)
    assert "ring" in refusal.value.remedy


def test_the_text_comes_in_parts_and_its_length_is_foretold() -> None:
    case = case_of("model:dgx-h100 node:32", ranks=256)
    text, _ = goal_text(case)
    assert text.messages == 2 * 255 * 256
    lengths = [len(part) for rank in range(256) for part in text.block(rank)]
    assert max(lengths) < 512 * 1024
    assert text.expected_bytes() == pytest.approx(sum(lengths), rel=0.1)


def test_a_round_that_repeats_itself_counts_on() -> None:
    # 30 steps of 8 channels; each send waits for what arrived the step before on its channel.
    goal = goal_of(case_of(TWO_NODES, ranks=16, size_bytes=1 << 20))
    for operations in goal:
        sends = [op for op in operations.values() if op.verb == "send"]
        for channel in range(8):
            waits = [op.waits for op in sends if op.tag == channel]
            assert waits[0] == set()
            assert all(len(a) == 1 for a in waits[1:])
            assert all(min(a) < min(b) for a, b in pairwise(waits[1:]))


@pytest.mark.parametrize("line", ["l1: send 4b to 1", "l1 requires l2", "l2: calc 1"])
def test_the_reader_of_these_tests_is_strict(line: str) -> None:
    with pytest.raises(AssertionError):
        read_goal(f"num_ranks 1\nrank 0 {{\n{line}\n}}\n")


def test_the_replay_of_these_tests_finds_a_receive_without_a_send() -> None:
    goal = read_goal("num_ranks 2\nrank 0 {\nl1: recv 4b from 1 tag 0\n}\nrank 1 {\n}\n")
    with pytest.raises(AssertionError, match="never start"):
        replay_ns(goal, latency=1.0, overhead=0.0, per_byte=0.0)


def test_a_message_by_hand_takes_l_and_two_o_and_g_a_further_byte() -> None:
    # L of 100, twice o of 10, and four bytes behind the first at 3 each.
    text = "num_ranks 2\nrank 0 {\nl1: send 5b to 1 tag 0\n}\n"
    goal = read_goal(f"{text}rank 1 {{\nl1: recv 5b from 0 tag 0\n}}\n")
    assert replay_ns(goal, latency=100.0, overhead=10.0, per_byte=3.0) == 132.0


def test_the_command_names_the_file_that_was_asked_for() -> None:
    case = case_of(ranks=4)
    assert goal_product(case, "folder").commands[0] == "txt2bin -i case.goal -o case.bin"
    assert goal_product(case, "a/ring.goal").commands[0] == "txt2bin -i ring.goal -o ring.bin"
    packed = goal_product(case, "ring.goal.gz").commands
    assert packed[:2] == ("gunzip ring.goal.gz", "txt2bin -i ring.goal -o ring.bin")
    # 1 KiB over four ranks are 256 bytes a message; S is above it.
    assert packed[2].endswith("-S 257 -b")

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.agent.board import Board, Edition, snapshot_bytes
from fleet.agent.log import Log
from fleet.agent.readings import SHORTEST_REST_RATIO, ReadingLoop, intervals_s
from fleet.errors import NothingCollectedError
from fleet.model import NodeSnapshot
from fleet.store import bytes_from_document
from tests.factories import make_snapshot
from tests.fleet.agent.nodes import READ_AT, busy_node, faulty_node

Step = NodeSnapshot | Exception
LOST = NothingCollectedError("no driver answers", where="nvml")


@dataclass
class Clock:
    """A clock that only goes on when told."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Replay:
    """Gives one step of a list at each reading, which takes so long."""

    steps: list[Step]
    clock: Clock
    takes_s: float = 0.25
    wedged_since: datetime | None = None
    before: Callable[[], None] = lambda: None

    def read(self) -> NodeSnapshot:
        self.before()
        self.clock.now_s += self.takes_s
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def close(self) -> None:
        self.steps.clear()


@dataclass
class Bench:
    """A loop over a replay, with all that it shows and says."""

    replay: Replay
    board: Board = field(default_factory=Board)
    lines: list[str] = field(default_factory=list)
    published: list[Edition] = field(default_factory=list)
    rests: list[float] = field(default_factory=list)

    @property
    def loop(self) -> ReadingLoop:
        return ReadingLoop(
            self.replay,
            self.board,
            clock=self.replay.clock,
            log=Log(self.lines.append, lambda: datetime(2026, 1, 1, tzinfo=UTC)),
            publish=self.published.append,
        )

    def run(self, interval_s: float = 60.0) -> None:
        """Until the steps are used up."""
        self.loop.run(iter([interval_s] * len(self.replay.steps)), self._rest)

    def _rest(self, seconds: float) -> bool:
        self.rests.append(seconds)
        self.replay.clock.now_s += seconds
        return not self.replay.steps


def bench(*steps: Step, takes_s: float = 0.25) -> Bench:
    return Bench(Replay(list(steps), Clock(), takes_s))


def test_a_good_reading_is_shown_with_its_age_and_its_pages() -> None:
    there = bench(busy_node())
    there.loop.read_once()
    edition = there.board.edition
    assert edition is not None
    assert (edition.host, edition.gpu_count, edition.faults) == ("node1", 8, ())
    assert (edition.read_at_s, edition.took_s) == (1000.0, 0.25)
    assert json.loads(edition.snapshot.content)["host"] == "node1"
    assert b'fleetmap_gpu_power_watts{gpu="7"' in edition.metrics
    assert (there.board.readings.good, there.board.readings.failed) == (1, 0)
    assert there.published == [edition]


@pytest.mark.parametrize("error", [LOST, TypeError("a bug"), OSError(5, "I/O"), RecursionError()])
def test_a_failed_reading_replaces_nothing(error: Exception) -> None:
    there = bench(busy_node(), error)
    loop = there.loop
    loop.read_once()
    before = there.board.edition
    loop.read_once()
    assert there.board.edition is before is not None
    readings = there.board.readings
    assert (readings.good, readings.failed) == (1, 1)
    assert readings.failure is not None
    assert type(error).__name__ in readings.failure or str(error) in readings.failure
    assert len(there.published) == 1


def test_a_reading_after_failed_ones_is_good_again() -> None:
    there = bench(LOST, LOST, busy_node("a"), LOST, busy_node("b"))
    there.run()
    assert there.board.edition is not None
    assert there.board.edition.host == "b"
    assert (there.board.readings.good, there.board.readings.failed) == (2, 3)
    assert there.board.readings.failure is None
    said = [line.split(" ", 1)[1].strip() for line in there.lines]
    assert said == [
        "reading: failed: nvml: no driver answers",
        "reading: a has 8 GPUs, read in 0.25 s",
        "reading: good again (after 2 failures)",
        "reading: failed: nvml: no driver answers",
        "reading: good again (after 1 failure)",
    ]


def test_a_snapshot_with_faults_is_shown_and_said_when_it_changes() -> None:
    there = bench(busy_node(), faulty_node(), faulty_node(), busy_node())
    there.run()
    said = [line.split(" ", 1)[1].strip() for line in there.lines]
    assert said[1:] == [
        "devices that do not answer: gpu3 gpu_lost, gpu5 timed_out",
        "devices: all answer again",
    ]
    assert there.board.readings.good == 4


def test_a_snapshot_that_cannot_be_shown_is_a_failed_reading() -> None:
    broken = make_snapshot().model_copy(update={"chassis_serial": "\udc80"})
    there = bench(broken)
    there.loop.read_once()
    assert there.board.edition is None
    assert there.board.readings.failed == 1


def test_it_is_told_since_when_the_reader_is_wedged() -> None:
    there = bench(busy_node(), LOST, busy_node())
    there.replay.wedged_since = READ_AT
    loop = there.loop
    loop.read_once()
    assert there.board.readings.wedged_since == READ_AT
    loop.read_once()
    assert there.board.readings.wedged_since == READ_AT
    there.replay.wedged_since = None
    loop.read_once()
    assert there.board.readings.wedged_since is None


def test_a_reading_that_runs_is_seen_to_run() -> None:
    there = bench(busy_node())
    seen: list[float | None] = []
    there.replay.before = lambda: seen.append(there.board.readings.running_since_s)
    there.loop.read_once()
    assert (seen, there.board.readings.running_since_s) == ([1000.0], None)


def test_readings_begin_an_interval_apart_however_long_they_take() -> None:
    there = bench(busy_node(), LOST, busy_node())
    there.run(interval_s=60.0)
    assert there.rests == [59.75] * 3


def test_a_node_whose_readings_outlast_the_interval_still_rests() -> None:
    there = bench(busy_node(), busy_node(), takes_s=90.0)
    there.run(interval_s=60.0)
    assert there.rests == [60.0 * SHORTEST_REST_RATIO] * 2


def test_the_loop_ends_where_it_is_told_to() -> None:
    there = bench(busy_node(), busy_node())
    there.loop.run(iter([60.0, 60.0]), lambda _: True)
    assert there.board.readings.good == 1


@given(interval_s=st.floats(0.1, 1e5), jitter=st.floats(0, 0.5), seed=st.integers(0, 2**32))
def test_intervals_stay_within_the_jitter(interval_s: float, jitter: float, seed: int) -> None:
    all_of = intervals_s(interval_s=interval_s, jitter_ratio=jitter, rng=Random(seed))
    first, *others = islice(all_of, 50)
    assert 0 <= first <= interval_s
    slack = 1e-9 * interval_s
    for one in others:
        assert interval_s * (1 - jitter) - slack <= one <= interval_s * (1 + jitter) + slack


def test_nodes_that_start_together_do_not_read_together() -> None:
    firsts = sorted(
        next(intervals_s(interval_s=60.0, jitter_ratio=0.1, rng=Random(seed)))
        for seed in range(1000)
    )
    in_one_second = max(sum(start <= first < start + 1 for first in firsts) for start in range(60))
    assert in_one_second < 50  # 17 on average where they are spread over a minute; 1000 together


def test_the_same_seed_gives_the_same_intervals() -> None:
    one, two = (
        list(islice(intervals_s(interval_s=60.0, jitter_ratio=0.1, rng=Random(7)), 20))
        for _ in range(2)
    )
    assert one == two
    assert len(set(one)) == 20


def test_without_jitter_the_interval_is_exact() -> None:
    _, *others = islice(intervals_s(interval_s=60.0, jitter_ratio=0.0, rng=Random(1)), 5)
    assert others == [60.0] * 4


def test_the_snapshot_is_written_as_the_store_writes_it() -> None:
    for snapshot in (busy_node(), faulty_node(), make_snapshot()):
        assert snapshot_bytes(snapshot) == bytes_from_document(snapshot)

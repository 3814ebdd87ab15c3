import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.gather.answer import snapshot_from_document
from fleet.gather.outcome import AnswerError, FailureReason
from fleet.gather.readers import HOSTS_PER_READER, Readers, readers_for
from tests.fleet.gather.far import reading, snapshot_bytes

DOCUMENT = json.dumps(reading("gpu1")).encode()


def children() -> set[int]:
    """The processes this one has started."""
    found = Path("/proc/self/task").glob("*/children")
    return {int(pid) for path in found for pid in path.read_text().split()}


@pytest.fixture
def reader_pids() -> Callable[[], list[int]]:
    """The processes that were started since: other tests of this run may have left some."""
    before = children()
    return lambda: sorted(children() - before)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_snapshot_is_the_same_whoever_reads_it(count: int) -> None:
    with Readers(count) as readers:
        assert readers.snapshot(DOCUMENT) == snapshot_from_document(DOCUMENT)
        assert readers.snapshot(snapshot_bytes("gpu2")).host == "gpu2"


@pytest.mark.parametrize("count", [0, 1])
def test_what_is_refused_has_the_same_reason_whoever_reads_it(count: int) -> None:
    with Readers(count) as readers:
        for _ in range(2):
            with pytest.raises(AnswerError) as caught:
                readers.snapshot(b"garbage")
            assert caught.value.reason is FailureReason.GARBAGE
            assert caught.value.detail == "no reading or snapshot of ours: no kind"


def test_a_reader_that_breaks_costs_one_answer(reader_pids: Callable[[], list[int]]) -> None:
    with Readers(1) as readers:
        readers.snapshot(DOCUMENT)
        (pid,) = reader_pids()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(AnswerError, match="its reader broke"):
            readers.snapshot(DOCUMENT)
        assert readers.snapshot(DOCUMENT).host == "gpu1"


def test_no_reader_is_left_behind(reader_pids: Callable[[], list[int]]) -> None:
    with Readers(2) as readers:
        readers.snapshot(DOCUMENT)
        assert reader_pids()
    assert reader_pids() == []


def test_a_small_sweep_starts_no_reader(reader_pids: Callable[[], list[int]]) -> None:
    assert readers_for(HOSTS_PER_READER - 1).threads == 1
    with readers_for(HOSTS_PER_READER - 1) as readers:
        readers.snapshot(DOCUMENT)
        assert reader_pids() == []

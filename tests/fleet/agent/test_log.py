from datetime import UTC, datetime

from fleet.agent.log import LONGEST_LINE, MOST_KINDS, Log, text_in_one_line

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def make_log() -> tuple[Log, list[str]]:
    lines: list[str] = []
    return Log(lines.append, lambda: NOW), lines


def test_an_event_is_one_line_with_its_time() -> None:
    log, lines = make_log()
    log.say("began\nand\x1b[31m went on")
    assert lines == ["2026-03-04T05:06:07+00:00 began and [31m went on\n"]


def test_a_long_event_is_cut() -> None:
    assert len(text_in_one_line("x" * 10_000)) == LONGEST_LINE + 3


def test_the_same_trouble_is_said_once_whatever_its_numbers() -> None:
    log, lines = make_log()
    for waited in (1.5, 2.25, 30):
        log.trouble("reading", f"no answer in {waited} s".replace(".", ""))
    assert len(lines) == 1
    assert "reading: no answer in 15 s" in lines[0]


def test_another_trouble_is_said_too_but_not_over_and_over() -> None:
    log, lines = make_log()
    for _ in range(3):
        log.trouble("spool", "no room")
        log.trouble("spool", "no folder")
    assert [line.split(": ")[1] for line in lines] == ["no room\n", "no folder\n"]


def test_what_is_never_twice_the_same_is_silent_after_a_few() -> None:
    log, lines = make_log()
    for i in range(1000):
        log.trouble("reading", "x" * i)
    assert len(lines) == MOST_KINDS


def test_that_it_works_again_is_said_with_the_count_of_failures() -> None:
    log, lines = make_log()
    log.fine("reading", "good again")
    assert lines == []
    for _ in range(7):
        log.trouble("reading", "failed")
    log.fine("reading", "good again")
    log.fine("reading", "good again")
    assert [line.split(" ", 1)[1] for line in lines] == [
        "reading: failed\n",
        "reading: good again (after 7 failures)\n",
    ]
    log.trouble("reading", "failed")
    assert len(lines) == 3


def test_topics_do_not_silence_each_other() -> None:
    log, lines = make_log()
    log.trouble("reading", "failed")
    log.trouble("spool", "failed")
    log.fine("spool", "fine")
    assert len(lines) == 3

from fleet.gather.outcome import (
    AnswerError,
    FailureReason,
    HostFailure,
    group_outcomes,
    plain_detail,
)


def test_hosts_fold_by_outcome_those_that_are_well_first() -> None:
    late = [(f"gpu{i}", "timed_out", "no answer within 20 s") for i in (121, 122, 123, 124)]
    told = [*late, ("gpu7", "auth", "Permission denied (publickey)")]
    hosts = ["gpu7", *(f"gpu{i:03d}" for i in range(1, 4)), *(host for host, _, _ in late)]
    assert ", ".join(group.text for group in group_outcomes(hosts, told)) == (
        "gpu[001-003] ok, gpu[121-124] timed_out (no answer within 20 s), "
        "gpu7 auth (Permission denied (publickey))"
    )


def test_nobody_well_is_no_group() -> None:
    assert [g.outcome for g in group_outcomes(["a"], [("a", "died", "exit status 1")])] == ["died"]
    assert group_outcomes([], []) == ()


def test_a_host_with_two_outcomes_stands_in_both() -> None:
    told = [("a", "stale", "old"), ("a", "faulty", "gpu3: lost")]
    assert [g.text for g in group_outcomes(["a", "b"], told)] == [
        "b ok",
        "a faulty (gpu3: lost)",
        "a stale (old)",
    ]


def test_foreign_words_cannot_move_the_cursor_or_fill_the_screen() -> None:
    assert plain_detail("a\x1b[2J\r\n\tb\u202ec") == "a [2J b c"
    assert len(plain_detail("x" * 10_000)) == 300


def test_a_reason_carries_its_detail_plainly() -> None:
    error = AnswerError(FailureReason.DIED, "a\nb")
    assert error.failure("gpu1") == HostFailure("gpu1", FailureReason.DIED, "a b")

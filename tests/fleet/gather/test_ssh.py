import re
from datetime import UTC, datetime, timedelta

import pytest

from fleet.gather.outcome import FailureReason
from fleet.gather.processes import Ending, Ran
from fleet.gather.ssh import SshTransport, told_by_ssh
from fleet.gather.sweep import Gathering, gather_fleet
from tests.fleet.gather.conftest import Sshd

DEADLINE_S = 1.5


def swept(sshd: Sshd, *hosts: str, deadline_s: float = 30.0) -> Gathering:
    """These hosts asked over the real client and the real server."""
    return gather_fleet(SshTransport(hosts, deadline_s, program=sshd.ssh))


def test_each_bad_host_costs_itself_and_says_why(sshd: Sshd) -> None:
    expected = {
        "wrongkey": (FailureReason.AUTH, r"Permission denied \(publickey\)"),
        "changed": (FailureReason.HOST_KEY, "REMOTE HOST IDENTIFICATION HAS CHANGED"),
        "stranger": (FailureReason.HOST_KEY, "No ED25519 host key is known"),
        "closed": (FailureReason.REFUSED, "Connection refused"),
        "nowhere": (FailureReason.UNKNOWN_HOST, "."),
        "bare": (FailureReason.NO_COLLECTOR, "neither python3 nor nvidia-smi there"),
        "closing": (FailureReason.DIED, "exit status 1"),
    }
    found = swept(sshd, "good", *expected)
    assert [one.host for one in found.collected] == ["good"]
    assert len(found.fleet.nodes) == 1
    assert [failure.host for failure in found.failures] == list(expected)
    for failure in found.failures:
        reason, detail = expected[failure.host]
        assert failure.reason is reason, failure
        assert re.search(detail, failure.detail), failure


@pytest.mark.parametrize("host", ["hung", "silent"])
def test_a_host_that_does_not_answer_is_given_up_at_the_deadline(sshd: Sshd, host: str) -> None:
    (failure,) = swept(sshd, host, deadline_s=DEADLINE_S).failures
    assert (failure.reason, failure.host) == (FailureReason.TIMED_OUT, host)
    assert "no answer within 1.5 s" in failure.detail or "timed out" in failure.detail


def test_a_login_shell_may_talk(sshd: Sshd) -> None:
    found = swept(sshd, "noisy")
    assert ([one.host for one in found.collected], found.failures) == (["noisy"], ())
    assert len(found.fleet.nodes) == 1


def test_a_node_is_read_as_it_is_now(sshd: Sshd) -> None:
    (node,) = swept(sshd, "good").fleet.nodes
    times = [section.collected_at for section in node.sections if section.collected_at]
    assert times
    assert all(datetime.now(UTC) - at < timedelta(minutes=5) for at in times)


def test_without_python_nvidia_smi_will_do(sshd: Sshd) -> None:
    (node,) = swept(sshd, "small").fleet.nodes
    assert (node.host, len(node.gpus)) == ("small-node", 8)
    assert {section.source for section in node.sections} >= {"nvidia_smi"}


def test_what_comes_first_on_the_command_line_wins_so_the_user_s_stands_first() -> None:
    transport = SshTransport(
        ("gpu1",), 20, program=("ssh", "-F", "cfg"), options=("ProxyJump=gate",), mark="@m"
    )
    argv = transport.argv("gpu1")
    assert argv[:5] == ["ssh", "-F", "cfg", "-o", "ProxyJump=gate"]
    assert {"BatchMode=yes", "ConnectTimeout=20", "ClearAllForwardings=yes"} < set(argv)
    assert argv[-4:-1] == ["-T", "--", "gpu1"]


@pytest.mark.parametrize(
    ("words", "reason", "detail"),
    [
        (
            "ssh: connect to host gpu7 port 22: Connection refused",
            FailureReason.REFUSED,
            "Connection refused",
        ),
        (
            "ssh: connect to host gpu7 port 22: No route to host",
            FailureReason.UNREACHABLE,
            "No route to host",
        ),
        (
            "ssh: connect to host gpu7 port 22: Connection timed out",
            FailureReason.TIMED_OUT,
            "Connection timed out",
        ),
        (
            "Connection timed out during banner exchange\nConnection to gpu7 port 22 timed out",
            FailureReason.TIMED_OUT,
            "Connection timed out during banner exchange",
        ),
        (
            "ssh: Could not resolve hostname gpu7: Temporary failure in name resolution",
            FailureReason.UNKNOWN_HOST,
            "Temporary failure in name resolution",
        ),
        (
            "root@gpu7: Permission denied (publickey,password).",
            FailureReason.AUTH,
            "Permission denied (publickey,password)",
        ),
        (
            "Received disconnect from 10.0.0.7 port 22:2: Too many authentication failures",
            FailureReason.AUTH,
            "Too many authentication failures",
        ),
        ("Host key verification failed.", FailureReason.HOST_KEY, "Host key verification failed"),
        (
            "kex_exchange_identification: Connection closed by remote host\n"
            "Connection closed by 10.0.0.7 port 22",
            FailureReason.CLOSED,
            "Connection closed",
        ),
        (
            "Unable to negotiate with 10.0.0.7 port 22: no matching host key type found. "
            "Their offer: ssh-rsa",
            FailureReason.CLOSED,
            "no matching host key type found",
        ),
        ("mux_client: something new", FailureReason.CLOSED, "mux_client: something new"),
        ("", FailureReason.CLOSED, ""),
    ],
)
def test_the_client_s_words_name_the_reason(words: str, reason: FailureReason, detail: str) -> None:
    told = told_by_ssh(Ran(Ending.EXITED, 255, b"", words.encode()))
    assert told is not None
    assert (told.reason, told.detail) == (reason, detail)


def test_words_of_the_far_side_are_not_the_client_s() -> None:
    assert told_by_ssh(Ran(Ending.EXITED, 1, b"", b"Permission denied")) is None

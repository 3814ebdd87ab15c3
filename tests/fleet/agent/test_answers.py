import gzip
import http.client
import io
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from fleet.agent.access import Access
from fleet.agent.answers import Answers
from fleet.agent.board import Board, Edition, Readings, page_from_content, snapshot_bytes
from fleet.agent.http import Reply
from fleet.agent.log import Log
from tests.fleet.agent.nodes import busy_node

TOKEN = "0123456789abcdef"
CONTENT = snapshot_bytes(busy_node())
EDITION = Edition(
    "node1", 8, (), page_from_content(CONTENT), b"node_metrics 1\n", read_at_s=100.0, took_s=0.5
)
GUARDED = ("/snapshot", "/metrics", "/else", "/")
OPEN = ("/-/live", "/-/ready")


@dataclass
class Desk:
    """Answers over a board, at a moment."""

    board: Board = field(default_factory=lambda: Board(edition=EDITION, readings=Readings(good=1)))
    access: Access = field(default_factory=Access)
    now_s: float = 130.0
    lines: list[str] = field(default_factory=list)

    def reply(self, first: str, *headers: str) -> Reply:
        answers = Answers(
            self.board,
            self.access,
            stale_after_s=180.0,
            clock=lambda: self.now_s,
            log=Log(self.lines.append, lambda: datetime(2026, 1, 1, tzinfo=UTC)),
        )
        return answers.answer("\r\n".join([first, *headers]).encode())

    def get(self, path: str, *headers: str) -> Reply:
        return self.reply(f"GET {path} HTTP/1.1", *headers)


def headers_of(reply: Reply) -> http.client.HTTPMessage:
    return http.client.parse_headers(io.BytesIO(reply.head.partition(b"\r\n")[2]))


def test_the_snapshot_is_served_as_it_was_read() -> None:
    reply = Desk().get("/snapshot")
    headers = headers_of(reply)
    assert (reply.status, reply.body) == (200, CONTENT)
    assert headers["Content-Type"] == "application/json"
    assert headers["Content-Length"] == str(len(CONTENT))
    assert headers["Age"] == "30"
    assert headers["ETag"] == f'"{EDITION.snapshot.tag}"'


def test_who_takes_gzip_gets_the_same_snapshot_packed() -> None:
    reply = Desk().get("/snapshot", "Accept-Encoding: gzip")
    headers = headers_of(reply)
    assert gzip.decompress(reply.body) == CONTENT
    assert len(reply.body) < len(CONTENT) / 5
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Vary"] == "Accept-Encoding"
    assert headers["ETag"] != headers_of(Desk().get("/snapshot"))["ETag"]


def test_who_has_the_snapshot_gets_no_second_one() -> None:
    for headers in ([], ["Accept-Encoding: gzip"]):
        tag = headers_of(Desk().get("/snapshot", *headers))["ETag"]
        reply = Desk().get("/snapshot", f"If-None-Match: {tag}", *headers)
        assert (reply.status, reply.body) == (304, b"")
        assert headers_of(reply)["ETag"] == tag
        assert headers_of(reply)["Age"] == "30"


def test_who_has_another_snapshot_gets_this_one() -> None:
    other = page_from_content(snapshot_bytes(busy_node("node2"))).tag
    assert other != EDITION.snapshot.tag
    assert Desk().get("/snapshot", f'If-None-Match: "{other}"').body == CONTENT


def test_a_stale_snapshot_is_still_served_and_says_its_age() -> None:
    reply = Desk(now_s=100.0 + 86_400).get("/snapshot")
    assert (reply.status, headers_of(reply)["Age"]) == (200, "86400")


def test_before_the_first_good_reading_there_is_no_snapshot() -> None:
    desk = Desk(Board(readings=Readings(failed=3, failure="nvml: secret detail")))
    for path in ("/snapshot", "/-/ready"):
        reply = desk.get(path)
        assert reply.status == 503
        assert b"no good reading yet, 3 failed" in reply.body
        assert b"secret" not in reply.body


@pytest.mark.parametrize(("age_s", "status"), [(0, 200), (180, 200), (180.5, 503), (1e6, 503)])
def test_it_is_ready_while_the_last_good_reading_is_at_most_three_intervals_old(
    age_s: float, status: int
) -> None:
    reply = Desk(now_s=100.0 + age_s).get("/-/ready")
    assert reply.status == status
    assert (b"s old, more than 180 s" in reply.body) is (status == 503)


def test_a_failed_reading_alone_does_not_make_it_unready() -> None:
    board = Board(edition=EDITION, readings=Readings(good=1, failed=1, failure="no"))
    assert Desk(board).get("/-/ready").status == 200


def test_it_is_live_as_long_as_it_answers() -> None:
    assert Desk(Board()).get("/-/live").status == 200


def test_metrics_are_the_agents_own_and_the_nodes() -> None:
    reply = Desk().get("/metrics")
    assert headers_of(reply)["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\nfleetmap_up 1\n" in reply.body
    assert b"\nfleetmap_last_reading_age_seconds 30.0\n" in reply.body
    assert reply.body.endswith(b"node_metrics 1\n")


def test_metrics_of_a_stale_reading_are_not_shown_as_the_nodes_state() -> None:
    reply = Desk(now_s=1000.0).get("/metrics")
    assert reply.status == 200
    assert b"\nfleetmap_up 0\n" in reply.body
    assert b"\nfleetmap_last_reading_age_seconds 900.0\n" in reply.body
    assert b"node_metrics" not in reply.body


def test_metrics_are_packed_for_those_who_take_it() -> None:
    reply = Desk().get("/metrics", "Accept-Encoding: gzip")
    assert headers_of(reply)["Content-Encoding"] == "gzip"
    assert b"fleetmap_up 1" in gzip.decompress(reply.body)


def test_head_has_the_headers_of_get_and_no_body() -> None:
    for path in ("/snapshot", "/metrics", "/-/ready", "/-/live", "/else"):
        reply = Desk().reply(f"HEAD {path} HTTP/1.1")
        assert reply.status == Desk().get(path).status
        assert reply.body == b""
        assert int(headers_of(reply)["Content-Length"]) > 0


@pytest.mark.parametrize("path", ["/", "/else", "/snapshot/", "//snapshot", "/-/", "/../snapshot"])
def test_anything_else_is_not_found(path: str) -> None:
    assert Desk().get(path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"])
def test_other_methods_are_refused_and_told_which_there_are(method: str) -> None:
    reply = Desk().reply(f"{method} /snapshot HTTP/1.1")
    assert (reply.status, headers_of(reply)["Allow"], reply.ends) == (405, "GET, HEAD", True)


def test_without_the_token_only_health_is_told() -> None:
    desk = Desk(access=Access(TOKEN.encode()))
    for path in GUARDED:
        for headers in ([], ["Authorization: Bearer wrong-but-long-enough"]):
            reply = desk.get(path, *headers)
            assert reply.status == 401, path
            assert headers_of(reply)["WWW-Authenticate"].startswith("Bearer")
            assert b"node1" not in reply.body
    for path in OPEN:
        assert desk.get(path).status == 200


def test_with_the_token_everything_is_told() -> None:
    desk = Desk(access=Access(TOKEN.encode()))
    told = {path: desk.get(path, f"Authorization: Bearer {TOKEN}").status for path in GUARDED}
    assert told == {"/snapshot": 200, "/metrics": 200, "/else": 404, "/": 404}


def test_a_broken_request_is_refused_and_the_connection_ends() -> None:
    reply = Desk().reply("nonsense")
    assert (reply.status, reply.ends) == (400, True)


def test_our_own_fault_is_said_in_the_log_and_not_to_the_client() -> None:
    desk = Desk(Board(edition="no edition", readings=Readings()))  # type: ignore[arg-type]
    reply = desk.get("/snapshot")
    assert (reply.status, reply.ends) == (500, True)
    assert b"Traceback" not in reply.body
    assert b"attribute" not in reply.body
    assert "AttributeError" in desk.lines[0]


def test_answers_are_counted_by_status() -> None:
    desk = Desk()
    for path in ("/snapshot", "/metrics", "/else"):
        desk.get(path)
    desk.reply("nonsense")
    assert desk.board.answered == {200: 2, 404: 1, 400: 1}

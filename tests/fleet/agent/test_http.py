import http.client
import io
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.agent.http import REASONS, Reply, Request, reply_from_parts, request_from_head


def head(*lines: str) -> bytes:
    return "\r\n".join(lines).encode("latin-1")


def request(*headers: str, version: str = "HTTP/1.1") -> Request:
    found = request_from_head(head(f"GET /snapshot {version}", *headers))
    assert isinstance(found, Request)
    return found


def test_a_request_has_its_method_path_and_headers() -> None:
    found = request_from_head(head("HEAD /metrics?name=x HTTP/1.1", "Host: a", "X-Y:  b \t"))
    assert found == Request("HEAD", "/metrics", {"host": "a", "x-y": "b"})


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("", 400),
        ("GET /", 400),
        ("GET / x HTTP/1.1", 400),
        ("GET  / HTTP/1.1", 400),
        (" / HTTP/1.1", 400),
        ("G\x00T / HTTP/1.1", 400),
        ("GET http://elsewhere/ HTTP/1.1", 400),
        ("GET snapshot HTTP/1.1", 400),
        ("GET / FTP/1.1", 400),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/0.9", 505),
        ("\x16\x03\x01\x02 TLS hello", 400),
    ],
)
def test_a_first_line_that_is_none_is_refused(line: str, status: int) -> None:
    assert request_from_head(head(line)) == status


@pytest.mark.parametrize(
    "line", ["no colon", ": no name", "two words: x", " folded: x", "a: b\nc: d", "a: \x00"]
)
def test_a_header_that_is_none_is_refused(line: str) -> None:
    assert request_from_head(head("GET / HTTP/1.1", line)) == 400


@pytest.mark.parametrize(
    ("method", "header", "status"),
    [
        ("GET", "Content-Length: 5", 400),
        ("GET", "Content-Length: 0, 5", 400),
        ("HEAD", "Transfer-Encoding: chunked", 400),
        ("POST", "Content-Length: 5", 405),
    ],
)
def test_a_body_is_not_taken(method: str, header: str, status: int) -> None:
    assert request_from_head(head(f"{method} /snapshot HTTP/1.1", header)) == status


def test_an_empty_body_is_none() -> None:
    assert request("Content-Length: 0").path == "/snapshot"


@pytest.mark.parametrize(
    ("version", "header", "stays"),
    [
        ("HTTP/1.1", "X: y", True),
        ("HTTP/1.1", "Connection: Close", False),
        ("HTTP/1.1", "Connection: upgrade, close", False),
        ("HTTP/1.0", "X: y", False),
        ("HTTP/1.0", "Connection: keep-alive", True),
    ],
)
def test_a_connection_stays_as_its_version_and_wish_say(
    version: str, header: str, stays: bool
) -> None:
    assert request(header, version=version).stays is stays


@pytest.mark.parametrize(
    ("header", "takes"),
    [
        ("X: y", False),
        ("Accept-Encoding: gzip", True),
        ("Accept-Encoding: deflate, GZIP;q=0.5, br", True),
        ("Accept-Encoding: gzip;q=0", False),
        ("Accept-Encoding: gzip; q=0.000", False),
        ("Accept-Encoding: xgzip, *", False),
    ],
)
def test_gzip_is_for_those_who_take_it(header: str, takes: bool) -> None:
    assert request(header).takes_gzip is takes


@pytest.mark.parametrize(
    ("value", "knows"),
    [
        ('"abc"', True),
        ('"x", "abc"', True),
        ('W/"abc"', True),
        ('"abc-gzip"', True),
        ("*", True),
        ('"abcd"', False),
        ("abc", False),
        ("", False),
    ],
)
def test_a_client_knows_the_content_whose_tag_it_names(value: str, knows: bool) -> None:
    assert request(f"If-None-Match: {value}").knows("abc") is knows


def test_headers_that_stand_twice_are_one_list() -> None:
    found = request("Accept-Encoding: br", "Accept-Encoding: gzip")
    assert found.headers["accept-encoding"] == "br, gzip"


class Pipe:
    """What http.client reads a reply from."""

    def __init__(self, reply: Reply) -> None:
        self._content = reply.head + reply.body

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._content)


def parsed(reply: Reply, method: str = "GET") -> http.client.HTTPResponse:
    """The reply as the standard library understands it."""
    response = http.client.HTTPResponse(cast("http.client.socket", Pipe(reply)), method=method)  # type: ignore[name-defined]
    response.begin()
    return response


@pytest.mark.parametrize("status", sorted(REASONS))
def test_a_reply_is_one_that_a_client_understands(status: int) -> None:
    with parsed(reply_from_parts(status, b"body", {"X": "y"})) as response:
        assert (response.status, response.reason) == (status, REASONS[status])
        assert response.headers["X"] == "y"
        assert response.read() == (b"" if status == 304 else b"body")


def test_a_reply_to_head_tells_the_length_of_the_body_it_leaves_out() -> None:
    reply = reply_from_parts(200, b"body", {}, is_head=True)
    with parsed(reply, "HEAD") as response:
        assert (response.headers["Content-Length"], reply.body) == ("4", b"")


@pytest.mark.parametrize(("ends", "word"), [(True, "close"), (False, "keep-alive")])
def test_a_reply_says_whether_the_connection_ends(ends: bool, word: str) -> None:
    reply = reply_from_parts(200, b"", {}, ends=ends)
    assert reply.ends is ends
    with parsed(reply) as response:
        assert response.headers["Connection"] == word


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(content: bytes) -> None:
    found = request_from_head(content)
    assert isinstance(found, Request) or found in REASONS


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["accept-encoding", "if-none-match", "connection", "x"]),
            st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=30),
        ),
        max_size=5,
    )
)
def test_any_headers_are_understood(headers: list[tuple[str, str]]) -> None:
    found = request(*(f"{name}: {value}" for name, value in headers))
    assert {type(found.takes_gzip), type(found.stays), type(found.knows("t"))} == {bool}

import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fleet.agent.addresses import TcpAddress, listen_on
from fleet.agent.channels import PlainChannel
from fleet.agent.http import LARGEST_HEAD_BYTES, Reply, reply_from_parts, request_from_head
from fleet.agent.server import Limits, Server
from tests.fleet.agent.running import PATIENCE_S, ask

GET = b"GET %s HTTP/1.1\r\n\r\n"
LARGE = b"x" * 30_000_000
"""More than any socket buffer holds."""


class Echo:
    """Answers every request with its path, ``/large`` with a lot."""

    def answer(self, head: bytes) -> Reply:
        request = request_from_head(head)
        if isinstance(request, int):
            return self.refuse(request)
        body = LARGE if request.path == "/large" else request.path.encode()
        return reply_from_parts(200, body, {}, ends=not request.stays)

    def refuse(self, status: int) -> Reply:
        return reply_from_parts(status, b"refused", {}, ends=True)


@contextmanager
def serving(
    limits: Limits | None = None, *, wakes: Callable[[], object] = lambda: None
) -> Iterator[Callable[[], socket.socket]]:
    """A server in a thread of its own; gives what connects to it."""
    listener = listen_on(TcpAddress("127.0.0.1", 0))
    server = Server(
        listener,
        Echo(),
        channel_from_socket=PlainChannel,
        clock=time.monotonic,
        limits=limits or Limits(),
    )
    ours, theirs = socket.socketpair()
    ended = threading.Event()
    server.watch(theirs, ended.set)

    def serve() -> None:
        while not ended.is_set():
            server.turn(0.05)
        server.close()

    thread = threading.Thread(target=serve)
    thread.start()
    address = listener.getsockname()
    try:
        yield lambda: socket.create_connection(address, timeout=PATIENCE_S)
    finally:
        ours.send(b"end")
        thread.join(PATIENCE_S)
        ours.close()
        theirs.close()
        assert not thread.is_alive()


def all_of(client: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    pieces = []
    try:
        while piece := client.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        pieces.append(b"<reset>")
    return b"".join(pieces)


def test_a_connection_serves_one_request_after_another() -> None:
    with serving() as connect, connect() as client:
        for path in ("/a", "/b", "/c"):
            assert ask(client, path).text == path


def test_requests_sent_at_once_are_answered_in_order() -> None:
    paths = [b"/page%02d" % i for i in range(50)]
    with serving() as connect, connect() as client:
        client.sendall(b"".join(GET % path for path in paths))
        client.shutdown(socket.SHUT_WR)
        came = all_of(client)
    assert re.findall(rb"/page[0-9]+", came) == paths


def test_a_request_may_come_in_pieces() -> None:
    with serving() as connect, connect() as client:
        for byte in GET % b"/slow":
            client.sendall(bytes([byte]))
        client.shutdown(socket.SHUT_WR)
        assert all_of(client).endswith(b"/slow")


def test_a_large_answer_goes_out_whole_while_others_are_served() -> None:
    with serving() as connect, connect() as slow:
        slow.sendall(GET % b"/large")
        for _ in range(5):
            with connect() as quick:
                assert ask(quick, "/quick").text == "/quick"
        slow.shutdown(socket.SHUT_WR)
        came = all_of(slow)
    head, _, body = came.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert body == LARGE


def test_a_client_that_asks_to_close_is_let_go_after_its_answer() -> None:
    with serving() as connect, connect() as client:
        client.sendall(b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert all_of(client).endswith(b"/a")


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n", b""])
def test_a_head_without_end_is_refused_when_it_is_too_long(first: bytes) -> None:
    with serving() as connect, connect() as client:
        client.sendall(first + b"a: b\r\n" * (2 * LARGEST_HEAD_BYTES // 6))
        came = all_of(client)
    assert came.startswith(b"HTTP/1.1 431 ")
    assert came.endswith(b"refused")


def test_what_is_no_http_is_refused_and_the_connection_ends() -> None:
    with serving() as connect, connect() as client:
        client.sendall(b"\x16\x03\x01\x00\xa5\x01\r\n\r\n" + GET % b"/after")
        came = all_of(client)
    assert came.startswith(b"HTTP/1.1 400 ")
    assert b"/after" not in came


def test_who_asks_slowly_is_sent_away_and_others_are_served_meanwhile() -> None:
    with serving(Limits(head_s=0.3)) as connect:
        slow = [connect() for _ in range(20)]
        for client in slow:
            client.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        with connect() as quick:
            assert ask(quick, "/quick").text == "/quick"
        for client in slow:
            with client:
                assert all_of(client) in (b"", b"<reset>")
        with connect() as after:
            assert ask(after, "/after").text == "/after"


def test_a_byte_now_and_then_buys_no_more_time() -> None:
    with serving(Limits(head_s=0.3)) as connect, connect() as slow:
        slow.settimeout(0.05)
        sent = 0
        while sent < 1000:
            try:
                slow.sendall(b"x")
                sent += 1
                assert slow.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                pass
            break
    assert sent < 1000


def test_who_does_not_take_its_answer_is_sent_away() -> None:
    with serving(Limits(answer_s=0.3)) as connect, connect() as lazy:
        lazy.sendall(GET % b"/large")
        with connect() as other:
            time.sleep(2.0)  # what the lazy one does: nothing
            assert ask(other, "/other").text == "/other"
        assert len(all_of(lazy)) < len(LARGE)


def test_who_stays_silent_after_its_answer_is_sent_away() -> None:
    with serving(Limits(idle_s=0.3)) as connect, connect() as client:
        assert ask(client, "/a").text == "/a"
        assert all_of(client) == b""


def test_a_refused_client_that_goes_on_sending_is_let_go() -> None:
    with serving(Limits(leave_s=0.3)) as connect, connect() as client:
        client.sendall(b"nonsense\r\n\r\n")
        with pytest.raises((ConnectionError, TimeoutError)):
            keep_sending(client)


def keep_sending(client: socket.socket) -> None:
    """Far more than the server would take in the time it leaves."""
    for _ in range(1000):
        client.sendall(b"more" * 1000)
        time.sleep(0.01)


def test_more_clients_than_there_is_room_for_push_out_the_silent_ones() -> None:
    with serving(Limits(clients=4)) as connect:
        silent = [connect() for _ in range(4)]
        for client in silent:
            client.sendall(b"GET")
        for _ in range(4):
            with connect() as late:
                assert ask(late, "/late").text == "/late"
        gone = sum(all_of(client) in (b"", b"<reset>") for client in silent[:1])
        for client in silent:
            client.close()
    assert gone == 1


def test_who_gets_an_answer_is_not_pushed_out() -> None:
    with serving(Limits(clients=1)) as connect, connect() as first:
        first.sendall(GET % b"/large")
        head = first.recv(1)
        with connect() as second:
            assert all_of(second) in (b"", b"<reset>")
        first.shutdown(socket.SHUT_WR)
        came = head + all_of(first)
    assert came.endswith(LARGE[-1000:])
    assert len(came) > len(LARGE)


def test_a_client_that_leaves_in_the_middle_harms_nobody() -> None:
    with serving() as connect:
        for content in (b"", b"GET", GET % b"/large"):
            with connect() as client:
                client.sendall(content)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with connect() as after:
            assert ask(after, "/after").text == "/after"


def test_the_server_that_ends_lets_its_clients_go() -> None:
    with serving() as connect:
        client = connect()
        assert ask(client, "/a").text == "/a"
    with client:
        assert all_of(client) in (b"", b"<reset>")


def test_a_hundred_connections_at_once_are_all_answered() -> None:
    answers: list[str] = []
    start = threading.Barrier(100)

    def read(connect: Any, path: str) -> None:
        start.wait()
        with connect() as client:
            answers.append(ask(client, path).text)

    with serving() as connect:
        threads = [threading.Thread(target=read, args=(connect, f"/{i}")) for i in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answers) == sorted(f"/{i}" for i in range(100))


def test_out_of_descriptors_the_server_waits_and_goes_on() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving() as connect, connect() as early:
        assert ask(early, "/early").text == "/early"
        late = socket.socket()
        late.settimeout(PATIENCE_S)
        with late:
            resource.setrlimit(resource.RLIMIT_NOFILE, (late.fileno() + 1, hard))
            try:
                late.connect(early.getpeername())
                late.sendall(GET % b"/late")
                assert ask(early, "/still").text == "/still"
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert b"/late" in late.recv(4096)

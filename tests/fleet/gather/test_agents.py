import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.gather.agents import (
    Agent,
    AgentsTransport,
    agents_from_text,
    tls_context,
    token_from_file,
)
from fleet.gather.outcome import FailureReason, HostFailure
from fleet.gather.sweep import Gathering, gather_fleet
from fleet.gather.ways import exposed_agents
from fleet.reading import LARGEST_READING_BYTES
from tests.fleet.gather.far import packed_reading, snapshot_bytes

Talk = Callable[[socket.socket], None]
TOKEN = "s3cret"


def answer(
    body: bytes, *, status: str = "200 OK", length: int | None = None, head: str = ""
) -> Talk:
    """A server that gives this answer whatever it is asked."""
    told = len(body) if length is None else length
    text = f"HTTP/1.1 {status}\r\nContent-Length: {told}\r\n{head}\r\n"
    return lambda caller: caller.sendall(text.encode() + body)


def drip(caller: socket.socket) -> None:
    """A server that sends a byte now and then, each well within a read's own time limit."""
    for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Slow: " + b"x" * 1000:
        caller.sendall(bytes([byte]))
        time.sleep(0.05)


def drip_body(caller: socket.socket) -> None:
    """The same behind a proper head."""
    caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n{")
    drip(caller)


def without_end(caller: socket.socket) -> None:
    """A server that never stops."""
    caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        caller.sendall(b"x" * (1 << 20))


def endless_head(caller: socket.socket) -> None:
    """A server whose head has no end."""
    caller.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        caller.sendall(b"X-More: yes\r\n" * 1000)


@contextmanager
def server(
    talk: Talk, *, tls: ssl.SSLContext | None = None, path: Path | None = None
) -> Iterator[str]:
    """A server that talks so to everyone who asks; gives its URL."""
    listener = _listener(path)
    asked: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            with caller:
                try:
                    caller = tls.wrap_socket(caller, server_side=True) if tls else caller
                    asked.append(caller.recv(65536))
                    talk(caller)
                    caller.close()
                except (OSError, ssl.SSLError):
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    scheme = "https" if tls else "http"
    where = "unix:" + str(path) if path else f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield where
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def _listener(path: Path | None) -> socket.socket:
    if path is None:
        return socket.create_server(("127.0.0.1", 0))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def swept(
    *urls: str, deadline_s: float = 10, token: str | None = None, ca: Path | None = None
) -> Gathering:
    """These agents asked."""
    transport = AgentsTransport(agents_from_text(urls), deadline_s, token, tls_context(ca))
    return gather_fleet(transport)


def failure(talk: Talk, *, deadline_s: float = 10) -> HostFailure:
    """How one agent fails."""
    with server(talk) as url:
        (found,) = swept(url, deadline_s=deadline_s).failures
    return found


def test_an_agent_s_snapshot_is_its_node() -> None:
    with (
        server(answer(snapshot_bytes("gpu1"))) as one,
        server(answer(snapshot_bytes("gpu2"))) as two,
    ):
        found = swept(one, two)
    assert [node.host for node in found.fleet.nodes] == ["gpu1", "gpu2"]
    assert found.failures == ()


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    body = snapshot_bytes("gpu1")
    with server(lambda caller: caller.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)) as url:
        assert [node.host for node in swept(url).fleet.nodes] == ["gpu1"]


def test_what_stands_behind_the_length_is_not_read() -> None:
    body = snapshot_bytes("gpu1")
    with server(answer(body + b"HTTP/1.1 500 no", length=len(body))) as url:
        assert swept(url).failures == ()


def test_a_unix_socket_is_asked_too(tmp_path: Path) -> None:
    with server(answer(snapshot_bytes("gpu1")), path=tmp_path / "a.sock") as url:
        assert [node.host for node in swept(url).fleet.nodes] == ["gpu1"]


def test_a_socket_that_is_not_there_refuses(tmp_path: Path) -> None:
    (found,) = swept(f"unix:{tmp_path}/none.sock").failures
    assert (found.reason, found.detail) == (FailureReason.REFUSED, "No such file or directory")


def test_the_token_goes_with_the_question() -> None:
    asked: list[bytes] = []

    def guarded(caller: socket.socket) -> None:
        caller.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + snapshot_bytes("gpu1"))

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: _once(listener, asked, guarded), daemon=True)
    thread.start()
    swept(f"http://127.0.0.1:{listener.getsockname()[1]}", token=TOKEN)
    thread.join(5)
    listener.close()
    lines = asked[0].decode().split("\r\n")
    assert lines[0] == "GET /snapshot HTTP/1.0"
    assert f"Authorization: Bearer {TOKEN}" in lines
    assert "Host: 127.0.0.1" in lines


def _once(listener: socket.socket, asked: list[bytes], talk: Talk) -> None:
    caller, _ = listener.accept()
    with caller:
        asked.append(caller.recv(65536))
        talk(caller)


@pytest.mark.parametrize(
    ("talk", "reason", "detail"),
    [
        (answer(b"", status="401 Unauthorized"), FailureReason.AUTH, "401 Unauthorized"),
        (answer(b"", status="403 Forbidden"), FailureReason.AUTH, "403 Forbidden"),
        (
            answer(b"", status="503 \x1b[31mnot ready"),
            FailureReason.HTTP_STATUS,
            "503 [31mnot ready",
        ),
        (
            answer(b"", status="302 Found", head="Location: http://127.0.0.1:1/\r\n"),
            FailureReason.HTTP_STATUS,
            "302 Found, which is not followed",
        ),
        (answer(b"hello"), FailureReason.GARBAGE, "no reading or snapshot of ours: no kind"),
        (answer(b"{}", length=5), FailureReason.GARBAGE, "cut at 2 of 5 bytes"),
        (answer(b"x", head="Content-Encoding: gzip\r\n"), FailureReason.GARBAGE, "encoded"),
        (
            answer(b"1\r\nx", head="Transfer-Encoding: chunked\r\n"),
            FailureReason.GARBAGE,
            "not asked for",
        ),
        (lambda caller: caller.sendall(b"SSH-2.0-x\r\n"), FailureReason.GARBAGE, "no HTTP answer"),
        (lambda caller: None, FailureReason.NO_ANSWER, "closed without an answer"),
        (without_end, FailureReason.TOO_LARGE, "more than 32 MiB"),
        (
            answer(b"", length=LARGEST_READING_BYTES + 1),
            FailureReason.TOO_LARGE,
            "more than 32 MiB",
        ),
        (endless_head, FailureReason.GARBAGE, "no HTTP answer"),
        (lambda c: c.sendall(b"x" * 200_000), FailureReason.GARBAGE, "exceed"),
        (
            answer(snapshot_bytes("gpu1").replace(b'"schema_version":1', b'"schema_version":9')),
            FailureReason.WRONG_SCHEMA,
            "schema_version 9",
        ),
    ],
)
def test_an_agent_that_misbehaves_costs_itself(
    talk: Talk, reason: FailureReason, detail: str
) -> None:
    found = failure(talk)
    assert found.reason is reason, found
    assert detail in found.detail


@pytest.mark.parametrize("talk", [drip, drip_body, lambda caller: time.sleep(1)])
def test_the_deadline_holds_against_a_server_that_drips(talk: Talk) -> None:
    found = failure(talk, deadline_s=0.5)
    assert (found.reason, found.detail) == (FailureReason.TIMED_OUT, "no answer within 500 ms")


def test_a_port_nobody_listens_on_refuses() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    named, numbered = swept(f"http://localhost:{port} http://127.0.0.1:{port}").failures
    assert (named.reason, numbered.reason) == (FailureReason.REFUSED, FailureReason.REFUSED)
    assert numbered.detail == "Connection refused"


def test_a_name_nobody_knows_is_told() -> None:
    (found,) = swept("http://nowhere.invalid:9409").failures
    assert found.reason is FailureReason.UNKNOWN_HOST


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, signed by itself, with its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=agent"
        " -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return both


@pytest.fixture
def tls_server(certificate: Path) -> ssl.SSLContext:
    """A server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_tls_is_checked_against_the_certificates_given(
    tls_server: ssl.SSLContext, certificate: Path
) -> None:
    with server(answer(snapshot_bytes("gpu1")), tls=tls_server) as url:
        trusting = swept(url, ca=certificate, token=TOKEN)
        doubting = swept(url)
        wrong_name = swept(url.replace("127.0.0.1", "localhost"), ca=certificate)
    assert [node.host for node in trusting.fleet.nodes] == ["gpu1"]
    assert doubting.failures[0].reason is FailureReason.TLS
    assert "self-signed certificate" in doubting.failures[0].detail
    assert wrong_name.failures[0].reason is FailureReason.TLS


def test_an_agent_without_tls_is_no_tls_agent() -> None:
    with server(answer(snapshot_bytes("gpu1"))) as url:
        (found,) = swept(url.replace("http:", "https:")).failures
    assert found.reason is FailureReason.TLS


def test_urls_are_lists_like_hosts_and_labelled_by_host() -> None:
    agents = agents_from_text(["http://gpu[01-02]:9409,https://gpu3", "unix:/run/a.sock"])
    assert agents == {
        "gpu01": Agent("gpu01:9409", "/snapshot", "gpu01", 9409),
        "gpu02": Agent("gpu02:9409", "/snapshot", "gpu02", 9409),
        "gpu3": Agent("gpu3:443", "/snapshot", "gpu3", 443, is_tls=True),
        "unix:/run/a.sock": Agent("unix:/run/a.sock", "/run/a.sock"),
    }


def test_two_agents_of_one_host_are_told_apart_by_their_ports() -> None:
    assert list(agents_from_text(["http://[::1]:1 http://[::1]:2/x, http://a[1-2]:3"])) == [
        "::1:1",
        "::1:2",
        "a1",
        "a2",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpu1:9409",
        "ftp://gpu1",
        "http://",
        "http://a:b",
        "http://u:p@gpu1",
        "http://a/?x",
        "unix:a.sock",
        "http://gpu[1-",
        "http://a\x01b",
        "http://é",
        "http://a:99999",
    ],
)
def test_what_is_no_url_of_an_agent_is_refused(text: str) -> None:
    with pytest.raises(FleetError, match="--agents"):
        agents_from_text([text])


def test_a_token_is_one_line_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert token_from_file(tmp_path / "token") == TOKEN
    (tmp_path / "token").write_text("a\r\nX-Evil: yes\n")
    with pytest.raises(FleetError, match="holds no token"):
        token_from_file(tmp_path / "token")


def test_a_token_in_the_open_is_noticed() -> None:
    agents = agents_from_text(
        ["http://gpu1:1 https://gpu2 http://localhost:1 http://127.0.0.1:1 unix:/a"]
    )
    assert exposed_agents(AgentsTransport(agents, 1, TOKEN)) == ("gpu1",)
    assert exposed_agents(AgentsTransport(agents, 1)) == ()


def test_a_marked_line_is_no_document_of_an_agent() -> None:
    assert failure(answer(packed_reading())).reason is FailureReason.GARBAGE

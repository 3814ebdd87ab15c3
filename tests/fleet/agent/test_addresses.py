import socket
import stat
from pathlib import Path

import pytest

from fleet.agent.addresses import (
    TcpAddress,
    UnixAddress,
    address_from_text,
    bound_address,
    listen_on,
    remove_socket,
)
from fleet.errors import FleetError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A name for a socket, short enough for the kernel."""
    return tmp_path / "a.sock"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9409", TcpAddress("127.0.0.1", 9409)),
        ("[::1]:0", TcpAddress("::1", 0)),
        ("gpu-001.example.org:65535", TcpAddress("gpu-001.example.org", 65535)),
        ("unix:/run/a b:c.sock", UnixAddress("/run/a b:c.sock")),
    ],
)
def test_an_address_is_read_and_printed_the_same(
    text: str, address: TcpAddress | UnixAddress
) -> None:
    assert address_from_text(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", ":", ":9409", "::1:9409", "[::1]", "host:65536", "host:-1", "host:9x", "host:٣", "unix:a"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(FleetError, match="HOST:PORT"):
        address_from_text(text)


def test_a_port_that_is_taken_is_said() -> None:
    with listen_on(TcpAddress("127.0.0.1", 0)) as first:
        taken = bound_address(first)
        with pytest.raises(FleetError, match="cannot listen there") as caught:
            listen_on(taken)
    assert caught.value.where == str(taken)


def test_a_name_that_is_nobodys_is_said() -> None:
    with pytest.raises(FleetError, match="cannot listen there"):
        listen_on(TcpAddress("no such host", 1))


def test_a_unix_socket_is_for_owner_and_group_only(path: Path) -> None:
    with listen_on(UnixAddress(str(path))) as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert bound_address(listener) == UnixAddress(str(path))


def test_the_socket_of_an_agent_that_is_gone_is_replaced(path: Path) -> None:
    listen_on(UnixAddress(str(path))).close()
    assert path.exists()
    with listen_on(UnixAddress(str(path))), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_socket_at_which_somebody_answers_stays(path: Path) -> None:
    with listen_on(UnixAddress(str(path))), socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(FleetError, match="somebody answers there"):
            listen_on(UnixAddress(str(path)))
        client.connect(str(path))


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_never_removed(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.with_name("elsewhere"))
    with pytest.raises(FleetError, match="is no socket"):
        listen_on(UnixAddress(str(path)))
    assert path.is_symlink() or path.exists()


def test_a_path_too_long_for_a_socket_is_said(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="too long"):
        listen_on(UnixAddress(str(tmp_path / ("a" * 120))))


def test_the_socket_leaves_the_file_system_with_its_agent(path: Path) -> None:
    listen_on(UnixAddress(str(path))).close()
    remove_socket(UnixAddress(str(path)))
    assert not path.exists()
    remove_socket(UnixAddress(str(path)))
    remove_socket(TcpAddress("127.0.0.1", 1))

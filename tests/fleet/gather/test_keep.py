from pathlib import Path

import pytest

from fleet.errors import StoreError
from fleet.gather.keep import file_stem, keep_in
from fleet.gather.outcome import Answer, FailureReason, HostFailure
from fleet.gather.sweep import Gathering, gather_fleet
from fleet.sources.registry import gather_files
from tests.fleet.gather.far import snapshot_bytes


class Hosts:
    """Hosts that answer with these documents, and remember being asked."""

    def __init__(self, **documents: bytes | None) -> None:
        self.documents = documents
        self.asked: list[str] = []

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(self.documents)

    async def ask(self, host: str) -> Answer | HostFailure:
        self.asked.append(host)
        document = self.documents[host]
        if document is None:
            return HostFailure(host, FailureReason.REFUSED)
        return Answer(host, lambda: document)


def swept(hosts: Hosts, folder: Path, *, resume: bool = True) -> Gathering:
    """A sweep that keeps, and goes on where another one ended."""
    return gather_fleet(hosts, keep=keep_in(folder), resume=resume)


def test_an_answer_that_is_kept_is_not_asked_for_again(tmp_path: Path) -> None:
    first = swept(Hosts(a=snapshot_bytes("a"), b=None), tmp_path)
    assert [f.host for f in first.failures] == ["b"]
    again = Hosts(a=None, b=snapshot_bytes("b"))
    assert [node.host for node in swept(again, tmp_path).fleet.nodes] == ["a", "b"]
    assert again.asked == ["b"]


def test_without_resume_everyone_is_asked_and_what_was_kept_is_replaced(tmp_path: Path) -> None:
    swept(Hosts(a=snapshot_bytes("a", chassis_serial="old")), tmp_path)
    swept(Hosts(a=snapshot_bytes("a", chassis_serial="new")), tmp_path, resume=False)
    (node,) = swept(Hosts(a=None), tmp_path).fleet.nodes
    assert node.chassis_serial == "new"


def test_a_host_that_fails_leaves_what_was_kept_of_it(tmp_path: Path) -> None:
    swept(Hosts(a=snapshot_bytes("a")), tmp_path)
    assert len(swept(Hosts(a=None), tmp_path, resume=False).failures) == 1
    assert len(swept(Hosts(a=None), tmp_path).fleet.nodes) == 1


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x1f\x8b\x08cut"])
def test_a_kept_file_that_cannot_be_used_is_asked_for_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json.gz").write_bytes(content)
    hosts = Hosts(a=snapshot_bytes("a"))
    assert len(swept(hosts, tmp_path).fleet.nodes) == 1
    assert hosts.asked == ["a"]


def test_garbage_is_not_kept(tmp_path: Path) -> None:
    swept(Hosts(a=b"garbage"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_can_be_read_as_files(tmp_path: Path) -> None:
    swept(Hosts(a=snapshot_bytes("a"), b=snapshot_bytes("b")), tmp_path)
    assert [node.host for node in gather_files([tmp_path]).fleet.nodes] == ["a", "b"]


@pytest.mark.parametrize("host", ["../../etc/passwd", "a/b", "..", ".", "-x", "root@a", "x" * 251])
def test_a_name_that_is_no_plain_name_never_becomes_a_path(host: str, tmp_path: Path) -> None:
    path = keep_in(tmp_path).path(host)
    assert path.parent == tmp_path
    assert path.name.startswith("host-")
    assert len(path.name) < 40


def test_a_plain_name_is_its_file_s_name() -> None:
    assert file_stem("gpu007.example.org") == "gpu007.example.org"


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        keep_in(tmp_path / "file" / "below")


def test_an_answer_that_cannot_be_kept_ends_the_sweep(tmp_path: Path) -> None:
    keep = keep_in(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(StoreError, match="cannot be written"):
        gather_fleet(Hosts(a=snapshot_bytes("a"), b=snapshot_bytes("b")), keep=keep)

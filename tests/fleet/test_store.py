import contextlib
import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.errors import FleetError, SnapshotError, StoreError
from fleet.model import FleetMap
from fleet.store import (
    bytes_from_document,
    document_from_bytes,
    json_schema,
    load_fleet,
    path_from_location,
    read_bytes,
    save_fleet,
    write_bytes,
)
from tests.factories import fleet_of, make_fleet, make_gpu, make_snapshot, make_wiring, replaced

BROKEN = replaced(make_wiring(), "gpus", (make_gpu(0, pcie_width=8), *make_wiring().gpus[1:]))
FLEET = make_fleet(
    make_snapshot(), make_snapshot("node2", BROKEN, tray=1), make_snapshot("node2", tray=2)
)
SYNTHETIC = fleet_of("model:dgx-h100 node:2 busy:4,0")


def document(fleet: FleetMap = SYNTHETIC) -> Any:
    return json.loads(bytes_from_document(fleet))


def refusal_of(content: bytes) -> str:
    with pytest.raises(FleetError) as caught:
        document_from_bytes(content, where="fleet.json")
    text = str(caught.value)
    assert text.startswith("fleet.json: ")
    assert "\n" not in text
    assert caught.value.exit_code == 2
    return text.removeprefix("fleet.json: ")


@pytest.mark.parametrize("name", ["fleet.json", "fleet.json.gz"])
@pytest.mark.parametrize("fleet", [FLEET, SYNTHETIC], ids=["with deviations", "synthetic"])
def test_map_comes_back_as_it_was_saved(tmp_path: Path, name: str, fleet: FleetMap) -> None:
    save_fleet(fleet, tmp_path / name)
    assert load_fleet(tmp_path / name) == fleet


@pytest.mark.parametrize("name", ["fleet.json", "fleet.json.gz"])
def test_same_map_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    save_fleet(SYNTHETIC, tmp_path / name)
    first = (tmp_path / name).read_bytes()
    save_fleet(load_fleet(tmp_path / name), tmp_path / name)
    assert (tmp_path / name).read_bytes() == first
    assert (first[:2] == b"\x1f\x8b") is name.endswith(".gz")


def test_compressed_file_is_known_by_content_not_by_name(tmp_path: Path) -> None:
    save_fleet(FLEET, tmp_path / "fleet.json.gz")
    (tmp_path / "fleet.json.gz").rename(tmp_path / "fleet.json")
    assert load_fleet(tmp_path / "fleet.json") == FLEET


def test_defaults_are_left_out_and_kind_comes_first() -> None:
    text = bytes_from_document(FLEET).decode()
    assert text.startswith('{"kind":"fleet_map","schema_version":1,')
    assert '"cables"' not in text
    assert text.endswith("}\n")
    assert bytes_from_document(make_snapshot()).startswith(b'{"kind":"node_snapshot"')


def set_at(document: Any, *path: str | int, value: object) -> bytes:
    here = document
    for step in path[:-1]:
        here = here[step]
    here[path[-1]] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        (("nodes", 0, "hots"), "a", "nodes[0].hots: "),
        (("colour",), 3, "colour: "),
        (("nodes", 1, "host"), "h100-001", "nodes: host h100-001: stands twice; expected once"),
        (("nodes", 1, "gpus", 0, "slot"), "0", "nodes[1].gpus[0].slot: "),
        (("nodes", 0, "host"), "no host", "nodes[0].host: "),
        (("nodes", 0, "shape"), "round", "nodes[0].shape: 'round' is no shape of this map"),
        (("nodes", 0, "gpus", 0, "fabric", "state"), "odd", "nodes[0].gpus[0].fabric.state: "),
        (("cables", 3, "b", "device"), "leaf99", "cables[3].b.device: 'leaf99' is no host or"),
        (("cables", 0, "bytes_per_s"), float("nan"), "cables[0].bytes_per_s: "),
        (("cables", 0, "bytes_per_s"), float("inf"), "cables[0].bytes_per_s: "),
        (("cables", 0, "bytes_per_s"), 0, "cables[0].bytes_per_s: "),
        (("switches",), {}, "switches: "),
        (("schema_version",), 2, "schema_version 2 is newer than this fleetmap, which reads 1; up"),
        (("schema_version",), 0, "schema_version: "),
        (("schema_version",), "1", "schema_version: "),
        (("kind",), "fleet", "no document of ours: kind is 'fleet'; expected one of fleet_map, "),
        (("kind",), [], "no document of ours: kind is []"),
        (("kind",), {"a": 1}, "no document of ours: kind is {'a': 1}"),
        (("nodes", 0, "allocations", 0, "slots"), [8], "nodes[0].allocations[0].slots: 8; the wi"),
    ],
)
def test_wrong_value_is_refused_by_its_path(
    path: tuple[str | int, ...], value: object, part: str
) -> None:
    assert part in refusal_of(set_at(document(), *path, value=value))


def test_refusal_says_what_the_value_was_and_what_would_do() -> None:
    text = refusal_of(set_at(document(), "nodes", 0, "gpus", 1, "slot", value=-3))
    assert text == "nodes[0].gpus[1].slot: Input should be greater than or equal to 0 (was -3)"


def test_further_faults_are_counted() -> None:
    broken = document()
    broken["nodes"][0]["tray"] = -1
    broken["nodes"][1]["tray"] = -1
    broken["nodes"][1]["host"] = 3
    assert refusal_of(json.dumps(broken).encode()).endswith("; and 2 more faults")


def test_duplicate_uuid_names_both_places() -> None:
    broken = document()
    broken["nodes"][1]["gpus"][1]["uuid"] = broken["nodes"][0]["gpus"][1]["uuid"]
    assert refusal_of(json.dumps(broken).encode()) == (
        "nodes[1].gpus[1].uuid: duplicate of nodes[0].gpus[1]; expected a unique uuid"
    )


@pytest.mark.parametrize(
    ("path", "observed"),
    [("gpus[0].colour", 1), ("gpus[77]", None), ("gpus[0].pcie_width", "wide"), ("?", 0)],
)
def test_deviation_that_fits_no_shape_is_refused_when_loaded(path: str, observed: object) -> None:
    broken = document(FLEET)
    deviation = {"path": path} | ({} if observed is None else {"observed": observed})
    broken["nodes"][1]["deviations"] = [deviation]
    text = refusal_of(json.dumps(broken).encode())
    assert text.startswith("nodes[1].deviations: ")
    assert path in text


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "not JSON"),
        (b"GPU0\tGPU1", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no document of ours: kind is None"),
        (b"3", "no document of ours: kind is None"),
        (b'{"kind": null}', "no document of ours: kind is None"),
        (b'{"kind": "fleet_map"}', "schema_version: Field required"),
    ],
)
def test_what_is_no_document_is_refused(content: bytes, part: str) -> None:
    assert refusal_of(content).startswith(part)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_no_bytes_make_another_error(data: st.DataObject) -> None:
    content = bytearray(bytes_from_document(FLEET))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    with contextlib.suppress(SnapshotError, StoreError):
        known = document_from_bytes(bytes(content[:cut]), where="x")
        assert document_from_bytes(bytes_from_document(known), where="y") == known


def test_snapshot_where_a_map_is_wanted_says_how_to_make_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(bytes_from_document(make_snapshot()))
    with pytest.raises(StoreError) as caught:
        load_fleet(path)
    assert str(caught.value) == (
        f"{path}: a node snapshot, not a fleet map; "
        f"make one with: fleet inventory --from {path} -o fleet.json"
    )


def bad_deflate(content: bytes) -> bytes:
    return content[:40] + bytes([content[40] ^ 0xFF]) * 40 + content[80:]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c[:-20],
        lambda c: c[:5],
        bad_deflate,
        lambda c: c + b"rest",
        lambda c: c[:-8] + bytes(8),
    ],
    ids=["cut", "head only", "bad stream", "trailing bytes", "bad sum"],
)
def test_broken_gzip_is_refused_in_one_line(
    tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "fleet.json.gz"
    path.write_bytes(spoil(gzip.compress(bytes_from_document(SYNTHETIC))))
    with pytest.raises(StoreError) as caught:
        load_fleet(path)
    assert str(caught.value).startswith(f"{path}: cannot be read (")
    assert caught.value.remedy


def test_gzip_bomb_is_unpacked_no_further_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b" " * 10_000_000))
    assert path.stat().st_size < 20_000
    with pytest.raises(StoreError, match="larger than 50000 bytes"):
        read_bytes(path, limit=50_000)
    assert len(read_bytes(path, limit=10_000_000)) == 10_000_000


def test_endless_file_is_read_no_further_than_the_limit() -> None:
    with pytest.raises(StoreError, match="larger than 1000 bytes"):
        read_bytes("/dev/zero", limit=1000)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file; check the path"):
        load_fleet(tmp_path / "none.json")
    with pytest.raises(StoreError, match="a folder, not a file"):
        load_fleet(tmp_path)


def failing(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", ["replace", "fsync", "chmod"])
def test_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fleet.json"
    save_fleet(FLEET, path)
    with monkeypatch.context() as patch:
        patch.setattr(os, step, failing)
        with pytest.raises(StoreError, match="No space left on device"):
            save_fleet(SYNTHETIC, path)
    assert load_fleet(path) == FLEET
    assert os.listdir(tmp_path) == ["fleet.json"]


def test_interrupt_while_writing_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_fleet(FLEET, tmp_path / "fleet.json")
    assert os.listdir(tmp_path) == []


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written") as caught:
        save_fleet(FLEET, tmp_path / "none" / "fleet.json")
    assert caught.value.where == str(tmp_path / "none" / "fleet.json")


def test_file_cannot_take_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "fleet.json").mkdir()
    with pytest.raises(StoreError, match=r"fleet\.json: a folder, not a file"):
        save_fleet(FLEET, tmp_path / "fleet.json")
    assert os.listdir(tmp_path) == ["fleet.json"]


def test_link_stays_a_link_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "latest.json").symlink_to(tmp_path / "kept" / "fleet.json")
    save_fleet(FLEET, tmp_path / "latest.json")
    assert (tmp_path / "latest.json").is_symlink()
    assert load_fleet(tmp_path / "kept" / "fleet.json") == FLEET


def test_closed_stdout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(StoreError, match="stdout is closed"):
        save_fleet(FLEET, "-")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_encoding_says_which_to_use(tmp_path: Path, encoding: str) -> None:
    text = bytes_from_document(FLEET).decode()
    (tmp_path / "fleet.json").write_text(text, encoding=encoding)
    with pytest.raises(SnapshotError, match="save it as plain UTF-8"):
        load_fleet(tmp_path / "fleet.json")


def test_saved_file_has_the_rights_of_a_new_file(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        save_fleet(FLEET, tmp_path / "fleet.json")
    finally:
        os.umask(old)
    assert (tmp_path / "fleet.json").stat().st_mode & 0o777 == 0o640


def test_pipe_is_written_through_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    write_bytes(b"hello", path)
    reader.join(timeout=10)
    assert got == [b"hello"]
    assert path.is_fifo()


def test_dash_is_stdin_and_stdout() -> None:
    code = "from fleet.store import *; save_fleet(load_fleet('-'), '-')"
    for content in (bytes_from_document(FLEET), gzip.compress(bytes_from_document(FLEET))):
        done = subprocess.run(
            [sys.executable, "-c", code], input=content, capture_output=True, check=True
        )
        assert done.stdout == bytes_from_document(FLEET)
        assert done.stderr == b""


@pytest.mark.parametrize("kind", ["fleet_map", "node_snapshot"])
def test_schema_names_its_kind_and_refuses_further_keys(kind: str) -> None:
    schema = json_schema(kind)
    assert schema["properties"]["kind"]["const"] == kind
    assert schema["properties"]["schema_version"]["const"] == 1
    objects = [schema, *(d for d in schema["$defs"].values() if d.get("type") == "object")]
    assert all(entry["additionalProperties"] is False for entry in objects)


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (("fleet_map", "nodes", 3, "gpus", 1, "uuid"), "nodes[3].gpus[1].uuid"),
        (("node_snapshot", "host"), "host"),
        (("nodes", 0), "nodes[0]"),
        ((), ""),
    ],
)
def test_location_becomes_a_path(location: tuple[str | int, ...], path: str) -> None:
    assert path_from_location(location) == path

import gzip
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import NothingCollectedError, SourceError, StoreError
from fleet.fields import HostName
from fleet.sources import registry
from fleet.sources.registry import (
    FILE_SOURCES,
    Gathered,
    gather_files,
    host_name_from_text,
    source_of,
)
from fleet.store import bytes_from_document, read_bytes, save_fleet
from tests.factories import fleet_of, hosts_of, make_fleet, make_snapshot

TOPOLOGY = (
    '<system version="1"><cpu numaid="0" affinity="ff" arch="x86_64" vendor="GenuineIntel" '
    'familyid="6" modelid="143"><pci busid="0000:18:00.0" class="0x030200" '
    'link_speed="32.0 GT/s PCIe" link_width="16"><gpu dev="0" sm="90" rank="0" gdr="1"/></pci>'
    "</cpu></system>"
)
MATRIX = "\tGPU0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \t0-7\t0\n"
CUT = "<system version='1'><cpu"


@pytest.fixture
def captures(root: Path) -> Path:
    return root / "samples" / "captures"


@pytest.fixture
def smi(captures: Path) -> str:
    return (captures / "l40s-8" / "nvidia-smi-q.xml").read_text()


def gathered(*paths: Path, host: str | None = None) -> Gathered:
    return gather_files(paths, host=None if host is None else HostName(host))


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_each_capture_is_of_exactly_one_kind(captures: Path) -> None:
    kinds = {
        "nccl-topology.xml": ["nccl_xml"],
        "nvidia-smi-q.xml": ["nvidia_smi"],
        "nvidia-smi-topo-m.txt": ["nvidia_smi_topo"],
        "gpu-17.reading.json.gz": ["reading"],
        "NOTE.md": [],
    }
    files = [path for path in captures.rglob("*") if path.is_file()]
    assert len(files) >= 10
    for path in files:
        head = read_bytes(path)[:65536].decode()
        assert [s.name for s in FILE_SOURCES if s.recognises(head)] == kinds[path.name]


@pytest.mark.parametrize("name", ["topo.json", "topo.txt", "topo.jpg", "topo", ".topo"])
def test_kind_is_told_from_content_and_never_from_the_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TOPOLOGY)
    fleet = gathered(tmp_path / name).fleet
    assert fleet.nodes[0].sections[0].source == "nccl_xml"


def test_packed_file_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "node1.xml").write_bytes(gzip.compress(TOPOLOGY.encode()))
    assert hosts_of(gathered(tmp_path / "node1.xml").fleet) == ["node1"]


@given(st.binary(max_size=300))
def test_bytes_of_no_kind_are_none_of_ours(content: bytes) -> None:
    assert source_of(b"x" + content.replace(b"GPU", b"").replace(b"<", b"")) is None


def test_kind_is_looked_for_in_the_head_only() -> None:
    assert source_of(b" " * 70_000 + bytes_from_document(make_snapshot())) is None


def test_folder_of_different_kinds_is_one_machine_named_after_it(captures: Path) -> None:
    result = gathered(captures / "dgx-h100-01")
    assert hosts_of(result.fleet) == ["dgx-h100-01"]
    assert [section.source for section in result.fleet.nodes[0].sections][:1] == ["nvidia_smi"]
    assert {section.source for section in result.fleet.nodes[0].sections} == {
        "nvidia_smi",
        "nvidia_smi_topo",
    }
    assert [Path(path).name for path in result.skipped] == ["NOTE.md"]


def test_files_named_one_by_one_are_one_machine_named_after_the_first(
    tmp_path: Path, smi: str
) -> None:
    write(tmp_path, {"a/box.xml": smi, "b/topo.txt": MATRIX})
    result = gathered(tmp_path / "a/box.xml", tmp_path / "b/topo.txt")
    assert hosts_of(result.fleet) == ["box"]


def test_files_of_one_kind_are_machines_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, {"node1.xml": TOPOLOGY, "node2.xml": TOPOLOGY, "node10.xml": TOPOLOGY})
    assert hosts_of(gathered(tmp_path).fleet) == ["node1", "node2", "node10"]
    paths = [tmp_path / "node10.xml", tmp_path / "node2.xml"]
    assert hosts_of(gathered(*paths).fleet) == ["node2", "node10"]


def test_machines_whose_files_have_one_name_stay_apart(tmp_path: Path) -> None:
    write(tmp_path, {"n1/topo.xml": TOPOLOGY, "n2/topo.xml": TOPOLOGY, "other.xml": TOPOLOGY})
    paths = [tmp_path / "n1/topo.xml", tmp_path / "n2/topo.xml", tmp_path / "other.xml"]
    fleet = gathered(*paths).fleet
    assert hosts_of(fleet) == ["n1-topo", "n2-topo", "other"]
    assert fleet.conflicts == ()


def test_machines_whose_folders_have_one_name_stay_apart(tmp_path: Path) -> None:
    write(tmp_path, {"r1/n1/a.xml": TOPOLOGY, "r2/n1/a.xml": TOPOLOGY})
    assert hosts_of(gathered(tmp_path).fleet) == ["r1-n1", "r2-n1"]


def test_names_that_differ_only_in_their_endings_stay_apart(tmp_path: Path) -> None:
    write(tmp_path, {"n1.a.xml": TOPOLOGY, "n1.b.xml": TOPOLOGY})
    assert hosts_of(gathered(tmp_path).fleet) == ["n1.a.xml", "n1.b.xml"]


def test_kinds_of_one_machine_may_stand_in_folders_of_one_name(tmp_path: Path) -> None:
    write(tmp_path, {"nccl/n1/a.xml": TOPOLOGY, "topo/n1/b.txt": MATRIX})
    fleet = gathered(tmp_path).fleet
    assert hosts_of(fleet) == ["n1"]
    assert {s.source for s in fleet.nodes[0].sections} == {"nccl_xml", "nvidia_smi_topo"}


def test_same_file_named_twice_is_one_machine(tmp_path: Path) -> None:
    write(tmp_path, {"n1.xml": TOPOLOGY})
    path = tmp_path / "n1.xml"
    assert hosts_of(gathered(path, path, tmp_path / "." / "n1.xml").fleet) == ["n1"]


def test_host_names_the_one_machine(tmp_path: Path) -> None:
    write(tmp_path, {"a.xml": TOPOLOGY, "b.txt": MATRIX})
    assert hosts_of(gathered(tmp_path, host="box").fleet) == ["box"]


def test_host_for_two_recorded_machines_is_refused(tmp_path: Path) -> None:
    for host in ("n1", "n2"):
        (tmp_path / host).write_bytes(bytes_from_document(make_snapshot(host)))
    with pytest.raises(SourceError, match="the files hold 2 machines") as caught:
        gathered(tmp_path, host="box")
    assert caught.value.field == "--host"


def test_maps_and_snapshots_are_put_together(tmp_path: Path) -> None:
    fleet = fleet_of("model:dgx-h100 node:2")
    (tmp_path / "map.json.gz").write_bytes(gzip.compress(bytes_from_document(fleet)))
    (tmp_path / "n1.json").write_bytes(bytes_from_document(make_snapshot("n1")))
    result = gathered(tmp_path).fleet
    assert hosts_of(result) == ["h100-001", "h100-002", "n1"]
    assert result.cables == fleet.cables


def test_order_of_the_paths_changes_nothing(tmp_path: Path, captures: Path) -> None:
    write(tmp_path, {"n1.xml": TOPOLOGY})
    paths = [captures / "l40s-8", captures / "two-trays", tmp_path]
    assert gathered(*paths).fleet == gathered(*paths[::-1]).fleet


def test_folders_are_searched_to_the_ground(tmp_path: Path) -> None:
    write(tmp_path, {"a/b/c/n1.xml": TOPOLOGY, "a/README": b"\x00\xff"})
    result = gathered(tmp_path)
    assert hosts_of(result.fleet) == ["c"]
    assert result.skipped == (str(tmp_path / "a" / "README"),)


def test_input_that_is_refused_does_not_cost_the_others(tmp_path: Path) -> None:
    write(tmp_path, {"good.xml": TOPOLOGY, "cut.xml": CUT})
    result = gathered(tmp_path)
    assert hosts_of(result.fleet) == ["good"]
    (refusal,) = result.refused
    assert refusal.path == str(tmp_path / "cut.xml")
    assert refusal.reason.startswith("line 1: broken XML")


def test_named_file_of_no_kind_is_refused_with_the_kinds_there_are(tmp_path: Path) -> None:
    write(tmp_path, {"good.xml": TOPOLOGY, "notes.txt": "hello"})
    (refusal,) = gathered(tmp_path / "good.xml", tmp_path / "notes.txt").refused
    assert refusal.reason.startswith("no source we know; expected one of: fleetmap reading, flee")
    for source in FILE_SOURCES:
        assert source.title in refusal.reason


def test_broken_archive_in_a_folder_is_refused_and_the_rest_is_read(tmp_path: Path) -> None:
    packed = gzip.compress(os.urandom(1000))
    write(tmp_path, {"n1.xml": TOPOLOGY, "log.gz": packed[:-30]})
    result = gathered(tmp_path)
    assert len(result.fleet.nodes) == 1
    assert [Path(refusal.path).name for refusal in result.refused] == ["log.gz"]
    assert "cannot be read" in result.refused[0].reason


def test_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "LARGEST_SOURCE_BYTES", 1000)
    write(
        tmp_path,
        {"n1.xml": TOPOLOGY, "big.xml": "x" * 1001, "bomb.gz": gzip.compress(b" " * 10**6)},
    )
    assert sorted(Path(r.path).name for r in gathered(tmp_path).refused) == ["big.xml", "bomb.gz"]


def test_path_that_is_not_there_is_the_caller_s_mistake(tmp_path: Path) -> None:
    write(tmp_path, {"n1.xml": TOPOLOGY})
    with pytest.raises(StoreError, match="no such file"):
        gathered(tmp_path / "n1.xml", tmp_path / "n2.xml")


def test_one_refused_input_alone_is_told_in_one_line(tmp_path: Path) -> None:
    write(tmp_path, {"cut.xml": CUT})
    with pytest.raises(NothingCollectedError) as caught:
        gathered(tmp_path / "cut.xml")
    assert str(caught.value).startswith(f"{tmp_path / 'cut.xml'}: line 1: broken XML")
    assert str(caught.value).count("cut.xml") == 1
    assert caught.value.exit_code == 4


def test_all_refused_inputs_are_listed(tmp_path: Path) -> None:
    write(tmp_path, {"a.xml": CUT, "b.xml": CUT, "c.txt": "hello"})
    with pytest.raises(NothingCollectedError) as caught:
        gathered(tmp_path)
    first, *others = str(caught.value).splitlines()
    assert first == "nothing to map: 2 inputs refused, 1 file skipped"
    assert [line.strip().partition(": ")[0] for line in others] == [
        str(tmp_path / "a.xml"),
        str(tmp_path / "b.xml"),
    ]


def test_empty_folder_has_nothing_to_map(tmp_path: Path) -> None:
    with pytest.raises(NothingCollectedError, match="nothing to map: no files; give fleetmap"):
        gathered(tmp_path)


def test_folder_without_a_source_says_so(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "hello"})
    with pytest.raises(NothingCollectedError, match="nothing to map: 1 file, none a source; give"):
        gathered(tmp_path)


def test_empty_file_is_called_empty(tmp_path: Path) -> None:
    write(tmp_path, {"a.xml": ""})
    with pytest.raises(NothingCollectedError, match=r"a\.xml: empty; expected one of"):
        gathered(tmp_path / "a.xml")


def test_two_machines_never_become_one_by_their_name(tmp_path: Path) -> None:
    write(tmp_path, {"a.xml": TOPOLOGY, "b.xml": TOPOLOGY})
    with pytest.raises(SourceError, match="--host: the files hold 2 machines"):
        gathered(tmp_path, host="box")


def test_name_that_a_recorded_file_contradicts_is_refused(tmp_path: Path) -> None:
    save_fleet(make_fleet(make_snapshot("node1")), tmp_path / "map.json")
    with pytest.raises(SourceError, match="--host: the file names its host node1, not box"):
        gathered(tmp_path / "map.json", host="box")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("node1", "node1"),
        ("my box (2)", "my-box--2-"),
        (".hidden", "hidden"),
        ("--", "node"),
        ("", "node"),
        ("日本", "node"),
        ("a" * 300, "a" * 253),
        ("a\nb", "a-b"),
    ],
)
def test_any_name_becomes_a_legal_host(text: str, host: str) -> None:
    assert host_name_from_text(text) == host


@given(st.text(max_size=40))
def test_legal_host_stays_as_it_is(text: str) -> None:
    host = host_name_from_text(text)
    assert host_name_from_text(host) == host
    assert make_fleet(make_snapshot(host)).nodes[0].host == host

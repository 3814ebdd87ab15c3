import shutil
import socket
from pathlib import Path

import pytest

from fleet.errors import FleetError, SourceError, StoreError
from fleet.inventory import record, take_inventory
from fleet.merge import snapshots_of
from fleet.store import bytes_from_document, document_from_bytes
from fleet.wiring import Wiring
from tests.contracts import assert_honest
from tests.factories import (
    absent,
    fleet_of,
    hosts_of,
    make_fleet,
    make_gpu,
    make_snapshot,
    make_wiring,
    replaced,
)
from tests.fakes.nvml_profiles import profile_named
from tests.fakes.nvml_stub import NvmlStub

BROKEN = replaced(make_wiring(), "gpus", (make_gpu(0, pcie_width=8), *make_wiring().gpus[1:]))
LEFT = make_wiring(tuple(make_gpu(slot) for slot in (0, 2, 3)))


def test_spec_gives_the_synthetic_fleet() -> None:
    assert take_inventory(spec="model:dgx-a100 node:2").fleet == fleet_of("model:dgx-a100 node:2")


@pytest.fixture
def two_l40s(nvml_stub: NvmlStub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in nvml_stub.environment(profile_named("l40s-2")).items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("two_l40s")
def test_this_node_is_read_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu box.example.com")
    fleet = take_inventory().fleet
    assert hosts_of(fleet) == ["gpu-box.example.com"]
    assert fleet.gpu_count == 2
    (section, *_) = fleet.nodes[0].sections
    assert section.source == "nvml"
    assert section.collected_at is not None
    assert section.collected_at.tzinfo is not None


@pytest.mark.usefixtures("two_l40s")
def test_this_node_can_be_given_another_name() -> None:
    assert hosts_of(take_inventory(host="login").fleet) == ["login"]


def test_files_and_spec_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="exclude each other; keep one"):
        take_inventory(files=[tmp_path], spec="model:dgx-h100")


def test_host_of_a_spec_is_refused_and_not_ignored() -> None:
    with pytest.raises(FleetError, match="--host and --synthetic exclude each other"):
        take_inventory(spec="model:dgx-h100", host="a")


@pytest.mark.parametrize("host", ["", "no host", "../a", "-x", "a/b", "x" * 254])
def test_name_that_is_no_host_name_is_refused(host: str, root: Path) -> None:
    with pytest.raises(FleetError) as caught:
        take_inventory(files=[root / "samples/captures/l40s-8"], host=host)
    assert str(caught.value).startswith(f"--host: {host!r} is no host name; use ")


def test_host_names_the_machine_of_the_files(root: Path) -> None:
    gathered = take_inventory(files=[root / "samples/captures/l40s-8"], host="box")
    assert hosts_of(gathered.fleet) == ["box"]


def test_host_for_two_machines_is_refused(root: Path) -> None:
    with pytest.raises(SourceError) as caught:
        take_inventory(files=[root / "samples/captures/two-trays"], host="box")
    assert str(caught.value).startswith("--host: the files hold 2 machines; ")


@pytest.mark.parametrize(
    "wirings", [(make_wiring(),), (make_wiring(), BROKEN, make_wiring()), (make_wiring(), LEFT)]
)
def test_recorded_snapshots_replay_to_the_same_map(
    tmp_path: Path, wirings: tuple[Wiring, ...]
) -> None:
    fleet = make_fleet(*(make_snapshot(f"node{i}", wiring) for i, wiring in enumerate(wirings)))
    paths = record(fleet, tmp_path / "a" / "b")
    assert [path.name for path in paths] == [f"node{i}.snapshot.json" for i in range(len(wirings))]
    replayed = take_inventory(files=[tmp_path / "a" / "b"])
    assert replayed.fleet == fleet
    assert (replayed.refused, replayed.skipped) == ((), ())


@pytest.mark.parametrize(
    "name", ["l40s-8", "dgx-h100-01", "hgx-h100-8", "two-trays", "v100-mesh-8"]
)
def test_recording_of_a_capture_replays_to_the_same_map(
    tmp_path: Path, root: Path, name: str
) -> None:
    fleet = take_inventory(files=[root / "samples/captures" / name]).fleet
    record(fleet, tmp_path)
    again = take_inventory(files=[tmp_path]).fleet
    assert again.model_copy(update={"conflicts": fleet.conflicts}) == fleet
    for snapshot in snapshots_of(fleet):
        assert_honest(snapshot)


def test_recording_of_a_synthetic_fleet_replays_its_nodes(tmp_path: Path) -> None:
    fleet = fleet_of("model:gb200-nvl72 rack:1")
    record(fleet, tmp_path)
    assert take_inventory(files=[tmp_path]).fleet.nodes == fleet.nodes


def test_recorded_snapshot_is_one_document_of_one_host(tmp_path: Path) -> None:
    snapshot = make_snapshot()
    (path,) = record(make_fleet(snapshot), tmp_path)
    assert path.read_bytes() == bytes_from_document(snapshot)
    assert document_from_bytes(path.read_bytes(), where="x") == snapshot


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match=r"cannot be made .*; name another folder"):
            record(make_fleet(), folder)


def test_snapshot_with_very_many_absences_is_known_again(tmp_path: Path) -> None:
    many = absent(
        *(f"wiring.gpus[*].ports[{i}].far_port" for i in range(3000)),
        "versions",
        "allocations",
        "sections[*].collected_at",
    )
    fleet = make_fleet(make_snapshot(absences=many))
    (path,) = record(fleet, tmp_path)
    assert path.stat().st_size > 150_000
    assert take_inventory(files=[path]).fleet == fleet


def test_captures_beside_each_other_are_one_fleet(tmp_path: Path, root: Path) -> None:
    shutil.copytree(root / "samples/captures", tmp_path / "captures")
    gathered = take_inventory(files=[tmp_path / "captures"])
    assert gathered.refused == ()
    assert {Path(path).name for path in gathered.skipped} == {"NOTE.md"}
    assert len(gathered.fleet.nodes) == 7

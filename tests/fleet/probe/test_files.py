"""What the probe reads of the kernel: which paths, in which order, and never outside the root."""

import ast
import errno
import os
import sys
from pathlib import Path

import pytest

from fleet.probe import files
from fleet.probe.files import files_below, read_network, read_pci
from tests.fakes.sysfs_trees import (
    CONNECTX7,
    GPU,
    ROOT_PORT,
    SysTree,
    flat_guest,
    hgx_h100,
    without_gpus,
)

PCI = "/sys/bus/pci/devices"
HCA = "/sys/class/infiniband"
ASKED_OF_DEVICES = ("link_speed", "link_width", "/carrier", "/speed", "/state", "/rate")


class Log:
    """Keeps what happens in its order: asking, file, link, unreadable."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def asking(self, key: str) -> None:
        self.events.append(("asking", key))

    def file(self, path: str, text: str) -> None:
        self.events.append(("file", path))

    def link(self, path: str, target: str) -> None:
        self.events.append(("link", path))

    def unreadable(self, path: str, errno_name: str) -> None:
        self.events.append(("unreadable", path))

    def paths(self, kind: str) -> list[str]:
        return [path for event, path in self.events if event == kind]


def test_values_stand_under_their_paths_on_the_node(tmp_path: Path) -> None:
    hgx_h100(tmp_path)
    texts, links, refused = files_below(str(tmp_path))
    assert texts[f"{PCI}/0000:19:00.0/device"] == "0x2330\n"
    assert texts[f"{PCI}/0000:19:00.0/current_link_width"] == "16\n"
    assert texts["/sys/devices/system/node/node1/cpulist"] == "56-111,168-223\n"
    assert texts[f"{HCA}/mlx5_9/ports/1/rate"] == "400 Gb/sec (4X NDR)\n"
    assert texts[f"{HCA}/mlx5_9/ports/1/counters/link_downed"] == "3\n"
    assert texts["/sys/class/net/eno1/speed"] == "1000\n"
    way = "devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:01.0/0000:19:00.0"
    assert links[f"{PCI}/0000:19:00.0"] == f"../../../{way}"
    assert refused == {"/sys/class/cxi": "ENOENT"}


def test_bridges_above_a_device_are_read_and_what_is_none_of_ours_is_not(tmp_path: Path) -> None:
    hgx_h100(tmp_path)
    texts, links, _ = files_below(str(tmp_path))
    for bridge in ("0000:15:01.0", "0000:16:00.0", "0000:17:01.0"):
        assert f"{PCI}/{bridge}/max_link_speed" in texts
    disk, port_of_disk = "0000:18:00.0", "0000:17:00.0"
    assert not [path for path in (*texts, *links) if disk in path or port_of_disk in path]


def test_of_a_gpu_its_driver_is_told_and_of_other_devices_not(tmp_path: Path) -> None:
    tree = hgx_h100(tmp_path)
    tree.bind("0000:3b:00.0", "vfio-pci")
    tree.bind("0000:15:01.0", "pcieport")
    _, links, _ = files_below(str(tmp_path))
    drivers = {path: Path(target).name for path, target in links.items() if "driver" in path}
    assert len(drivers) == 8
    assert drivers[f"{PCI}/0000:19:00.0/driver"] == "nvidia"
    assert drivers[f"{PCI}/0000:3b:00.0/driver"] == "vfio-pci"


def test_only_interfaces_of_devices_are_read(tmp_path: Path) -> None:
    hgx_h100(tmp_path)
    texts, links, _ = files_below(str(tmp_path))
    assert "/sys/class/net/eno1/address" in texts
    assert not [path for path in (*texts, *links) if path.startswith("/sys/class/net/lo")]
    assert not [path for path in (*texts, *links) if path.startswith("/sys/class/net/bond0")]


def test_a_virtual_function_only_says_whose_it_is(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    card = tree.pci("pci0000:15/0000:16:00.0", **CONNECTX7)
    virtual = tree.virtual_function("pci0000:15/0000:16:00.2", card, **CONNECTX7)
    tree.hca("mlx5_7", virtual)
    texts, links, _ = files_below(str(tmp_path))
    assert links[f"{PCI}/0000:16:00.2/physfn"] == "../0000:16:00.0"
    assert links[f"{HCA}/mlx5_7/device/physfn"] == "../0000:16:00.0"
    assert not [path for path in texts if "0000:16:00.2" in path or "mlx5_7" in path]


def test_the_first_processor_stands_for_all(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    tree.cpu("processor\t: 0\nvendor_id\t: GenuineIntel\n")
    texts, _, _ = files_below(str(tmp_path))
    assert texts["/proc/cpuinfo"] == "processor\t: 0\nvendor_id\t: GenuineIntel"


def test_devices_are_asked_only_after_all_that_the_kernel_knows_by_itself(tmp_path: Path) -> None:
    hgx_h100(tmp_path)
    for read in (read_pci, read_network):
        log = Log()
        read(str(tmp_path), log)
        is_asked = [path.endswith(ASKED_OF_DEVICES) for path in log.paths("file")]
        first = is_asked.index(True)
        by_itself = ("numa_node", "node_guid", "link_layer", "operstate")
        assert not [p for p in log.paths("file")[first:] if p.endswith(by_itself)]


def test_each_device_is_announced_before_it_is_touched(tmp_path: Path) -> None:
    hgx_h100(tmp_path)
    for read in (read_pci, read_network):
        log = Log()
        read(str(tmp_path), log)
        announced = ""
        for event, path in log.events:
            if event == "asking":
                announced = path
            elif event == "file" and path.endswith(ASKED_OF_DEVICES):
                assert os.path.dirname(path) == os.path.dirname(announced)


def test_what_is_to_be_skipped_is_not_touched_and_the_rest_is_read(tmp_path: Path) -> None:
    hgx_h100(tmp_path)
    log, stuck = Log(), f"{PCI}/0000:3b:00.0/max_link_speed"
    read_pci(str(tmp_path), log, [stuck])
    told = log.paths("file")
    assert stuck not in log.paths("asking")
    assert f"{PCI}/0000:3b:00.0/vendor" in told
    assert f"{PCI}/0000:3b:00.0/current_link_width" not in told
    assert f"{PCI}/0000:19:00.0/current_link_width" in told
    assert f"{PCI}/0000:4c:00.0/current_link_width" in told


def test_a_device_that_hung_at_one_port_is_not_asked_at_another(tmp_path: Path) -> None:
    tree = without_gpus(tmp_path)
    tree.hca("mlx5_1", tree.pci("pci0000:15/0000:17:00.0", **CONNECTX7), ports=2)
    log = Log()
    read_network(str(tmp_path), log, [f"{HCA}/mlx5_1/ports/1/state"])
    told = log.paths("file")
    assert f"{HCA}/mlx5_1/node_guid" in told
    assert not [path for path in told if path.startswith(f"{HCA}/mlx5_1/ports")]
    assert f"{HCA}/mlx5_0/ports/1/state" in told


@pytest.mark.parametrize("target", ["/etc", "../../../../../../../../../../etc"])
def test_nothing_outside_the_root_is_read(tmp_path: Path, target: str) -> None:
    root = tmp_path / "root"
    SysTree(root).write("/sys/bus/pci/devices/keep", "")
    (root / "sys/bus/pci/devices/0000:01:00.0").symlink_to(target)
    (root / "sys/class").mkdir()
    (root / "sys/class/infiniband").symlink_to(target)
    texts, _, refused = files_below(str(root))
    assert texts == {}
    assert refused[f"{PCI}/0000:01:00.0/vendor"] == "EXDEV"
    assert refused[HCA] == "EXDEV"


def test_a_folder_outside_the_root_is_not_read_though_it_leads_back(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    tree = SysTree(root)
    tree.write("/kept/0000:01:00.0/vendor", "0x10de")
    outside.mkdir()
    (outside / "devices").symlink_to(root / "kept")
    (root / "sys/bus").mkdir(parents=True)
    (root / "sys/bus/pci").symlink_to(outside)
    texts, _, refused = files_below(str(root))
    assert texts == {}
    assert refused[PCI] == "EXDEV"


def test_links_inside_the_root_are_followed_at_every_step(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    tree.write("/elsewhere/one/mlx5_0/ports/1/rate", "400 Gb/sec (4X NDR)")
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/class").symlink_to("../elsewhere")
    (tmp_path / "elsewhere/infiniband").symlink_to("two")
    (tmp_path / "elsewhere/two").symlink_to("one")
    texts, _, _ = files_below(str(tmp_path))
    assert texts[f"{HCA}/mlx5_0/ports/1/rate"] == "400 Gb/sec (4X NDR)\n"


def test_links_that_lead_to_each_other_are_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "sys/class").mkdir(parents=True)
    (tmp_path / "sys/class/infiniband").symlink_to("net")
    (tmp_path / "sys/class/net").symlink_to("infiniband")
    _, _, refused = files_below(str(tmp_path))
    assert (refused[HCA], refused["/sys/class/net"]) == ("ELOOP", "ELOOP")


def test_a_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0x10de\n")
    tree = SysTree(tmp_path / "root")
    folder = tree.pci("pci0000:15/0000:19:00.0", **GPU)
    place = tree.root / folder.lstrip("/") / "device"
    place.unlink()
    place.symlink_to(secret)
    texts, _, refused = files_below(str(tree.root))
    assert f"{PCI}/0000:19:00.0/device" not in texts
    assert refused[f"{PCI}/0000:19:00.0/device"] == "ELOOP"


@pytest.mark.parametrize(
    ("content", "why"), [(b"\xff\xfe\n", "EILSEQ"), (b"0" * 4097, "EFBIG")], ids=["bytes", "long"]
)
def test_what_is_no_value_is_told_as_such(tmp_path: Path, content: bytes, why: str) -> None:
    tree = SysTree(tmp_path)
    folder = tree.pci("pci0000:15/0000:19:00.0", **GPU)
    (tmp_path / folder.lstrip("/") / "current_link_width").write_bytes(content)
    texts, _, refused = files_below(str(tmp_path))
    assert f"{PCI}/0000:19:00.0/current_link_width" not in texts
    assert refused[f"{PCI}/0000:19:00.0/current_link_width"] == why


def test_a_pipe_in_a_captured_tree_does_not_block(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    folder = tree.pci("pci0000:15/0000:19:00.0", **GPU)
    place = tmp_path / folder.lstrip("/") / "numa_node"
    place.unlink()
    os.mkfifo(place)
    _, _, refused = files_below(str(tmp_path))
    assert refused[f"{PCI}/0000:19:00.0/numa_node"] == "EINVAL"


def test_a_refusal_of_the_kernel_is_told_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_gpus(tmp_path)
    opened = os.open

    def refusing(path: str, flags: int) -> int:
        if path.endswith("ports/1/rate"):
            raise OSError(errno.EIO, "the firmware does not answer")
        return opened(path, flags)

    monkeypatch.setattr(os, "open", refusing)
    texts, _, refused = files_below(str(tmp_path))
    assert refused[f"{HCA}/mlx5_0/ports/1/rate"] == "EIO"
    assert texts[f"{HCA}/mlx5_0/ports/1/state"] == "4: ACTIVE\n"


def test_a_node_without_any_of_it_tells_that_the_folders_are_not_there(tmp_path: Path) -> None:
    texts, links, refused = files_below(str(tmp_path))
    assert (texts, links) == ({}, {})
    assert refused[PCI] == "ENOENT"
    assert refused[HCA] == "ENOENT"


def test_names_that_no_kernel_gives_are_left_out(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    tree.pci("pci0000:15/0000:15:01.0", **ROOT_PORT)
    for name in ("..hidden", "0000:19:00.0\n", "a b", "x" * 200):
        tree.write(f"/sys/bus/pci/devices/{name}/vendor", "0x10de")
        tree.write(f"/sys/class/infiniband/{name}/node_guid", "1")
    texts, links, _ = files_below(str(tmp_path))
    assert (texts, links) == ({}, {})


def test_a_folder_with_too_many_names_is_cut_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_ENTRIES", 3)
    for i in range(4):
        (tmp_path / f"sys/class/infiniband/mlx5_{i}").mkdir(parents=True)
    log = Log()
    read_network(str(tmp_path), log)
    assert HCA in log.paths("unreadable")
    assert f"{HCA}/mlx5_2" in log.paths("asking")
    assert f"{HCA}/mlx5_3" not in log.paths("asking")


def test_the_guest_has_the_same_layout(tmp_path: Path) -> None:
    flat_guest(tmp_path)
    texts, links, _ = files_below(str(tmp_path))
    assert "hypervisor" in texts["/proc/cpuinfo"]
    assert links[f"{PCI}/0000:01:00.0"] == "../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/sys is Linux's")
def test_this_machine_can_be_read() -> None:
    texts, links, refused = files_below("/")
    assert all(len(text) <= files.LARGEST_VALUE_BYTES for text in texts.values())
    assert all(path.startswith(("/sys/", "/proc/")) for path in (*texts, *links, *refused))


def test_it_is_python_3_6_and_imports_the_standard_library_alone() -> None:
    source = Path(files.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 6))
    names = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or node.names[0].name]
    }
    assert names <= {"errno", "os", "re", "stat", "typing"}

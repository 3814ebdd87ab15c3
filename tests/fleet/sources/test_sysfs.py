"""A node from its kernel's files: what stands in the snapshot, and why the rest does not."""

import json
from pathlib import Path

import pytest

from fleet.errors import SourceError
from fleet.fields import AbsenceReason, HostName
from fleet.model import SectionName
from fleet.probe.files import files_below
from fleet.reading import StopReason, reading_from_bytes
from fleet.sources.sysfs import (
    MOST_ENTRIES,
    MOST_GPUS,
    MOST_NICS,
    MOST_PORTS,
    snapshot_from_files,
)
from fleet.wiring import GpuVendor, PcieLevel
from tests.contracts import assert_honest
from tests.fakes.sysfs_trees import (
    GPU,
    SWITCHED_GPUS,
    SysTree,
    flat_guest,
    hgx_h100,
    without_gpus,
)
from tests.fleet.sources.sysfs_snapshots import (
    NOW,
    levels_of,
    ports_of,
    reason_of,
    snapshot_of,
    stop,
)
from tests.topology.fabric.factories import node_graph
from tests.topology.fabric.tree_levels import assert_shows_its_levels

PCI = "/sys/bus/pci/devices"
UNSUPPORTED, NO_PERMISSION = AbsenceReason.UNSUPPORTED, AbsenceReason.NO_PERMISSION
TIMED_OUT, NOT_ASKED = AbsenceReason.TIMED_OUT, AbsenceReason.NOT_ASKED


@pytest.mark.parametrize("machine", [hgx_h100, flat_guest, without_gpus, SysTree])
def test_a_snapshot_is_honest(machine: type[SysTree], tmp_path: Path) -> None:
    machine(tmp_path)
    assert_honest(snapshot_of(tmp_path))


def test_what_the_probe_reads_fits_a_reading(tmp_path: Path) -> None:
    texts, links, refused = files_below(str(hgx_h100(tmp_path).root))
    parts = {"files": texts, "links": links, "unreadable": refused, "answers": {}, "outputs": {}}
    head = {"kind": "node_reading", "schema_version": 1, "host": "node1"}
    content = json.dumps({**head, **parts}).encode()
    reading = reading_from_bytes(content, where="memory")
    assert (reading.files, reading.links, reading.unreadable) == (texts, links, refused)
    assert len(content) < 2**17


def test_gpus_stand_in_the_order_of_their_addresses(tmp_path: Path) -> None:
    gpus = snapshot_of(hgx_h100(tmp_path)).wiring.gpus
    assert [gpu.slot for gpu in gpus] == list(range(8))
    assert [gpu.pci_address for gpu in gpus] == [
        f"00000000:{bus + 4:02x}:00.0" for bus in SWITCHED_GPUS
    ]
    assert [gpu.numa for gpu in gpus] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert {(gpu.vendor, gpu.pcie_generation, gpu.pcie_width) for gpu in gpus} == {
        (GpuVendor.NVIDIA, 5, 16)
    }


def test_bridges_begin_below_the_root_ports_and_parents_come_first(tmp_path: Path) -> None:
    wiring = snapshot_of(hgx_h100(tmp_path)).wiring
    by_number = {bridge.bridge: bridge for bridge in wiring.bridges}
    port = by_number[wiring.gpus[0].bridge or 0]
    assert port.pci_address == "00000000:17:01.0"
    assert port.vendor_device == "1000:c030"
    switch = by_number[port.parent or 0]
    assert (switch.pci_address, switch.parent, switch.numa) == ("00000000:16:00.0", None, 0)
    assert len(wiring.bridges) == 8 * 3 + 1, "each switch, its two ports, one more for storage"


def test_the_tree_of_the_fabric_shows_the_levels_that_are_told(tmp_path: Path) -> None:
    wiring = snapshot_of(hgx_h100(tmp_path)).wiring
    assert len(wiring.pcie_levels) == 28 + 8 * 11
    assert_shows_its_levels(node_graph(wiring))


def test_nvswitches_are_counted_on_the_bus(tmp_path: Path) -> None:
    switches = snapshot_of(hgx_h100(tmp_path)).wiring.nvswitches
    assert [(s.index, s.pci_address) for s in switches] == [
        (0, "00000000:83:00.0"),
        (1, "00000000:84:00.0"),
        (2, "00000000:85:00.0"),
        (3, "00000000:86:00.0"),
    ]


def test_what_only_the_driver_knows_is_absent_and_says_so(tmp_path: Path) -> None:
    snapshot = snapshot_of(hgx_h100(tmp_path))
    for path in ("wiring.gpus[5].product_name", "wiring.gpus[5].ports", "gpus[5].uuid"):
        assert reason_of(snapshot, path) is UNSUPPORTED
    assert reason_of(snapshot, "versions") is NOT_ASKED


def test_each_section_says_from_where_and_when(tmp_path: Path) -> None:
    sections = snapshot_of(without_gpus(tmp_path)).sections
    assert [(s.name, s.source, s.collected_at) for s in sections] == [
        (SectionName.DEVICES, "sysfs", NOW),
        (SectionName.NETWORK, "sysfs", NOW),
    ]


def test_a_time_that_is_not_told_is_absent() -> None:
    snapshot = snapshot_from_files(
        {"/proc/cpuinfo": ""}, {}, {}, host=HostName("a"), collected_at=None
    )
    assert reason_of(snapshot, "sections[network/sysfs].collected_at") is NOT_ASKED
    assert_honest(snapshot)


def test_a_node_without_gpus_is_no_fault(tmp_path: Path) -> None:
    snapshot = snapshot_of(without_gpus(tmp_path))
    assert snapshot.wiring.gpus == ()
    assert [a for a in snapshot.absences if a.path.startswith("wiring.gpus")] == []
    assert [nic.pci_address for nic in snapshot.wiring.nics] == [
        "00000000:01:00.0",
        "00000000:16:00.0",
    ]


def test_a_flat_guest_tells_no_level_rather_than_all_equal(tmp_path: Path) -> None:
    snapshot = snapshot_of(flat_guest(tmp_path))
    assert len(snapshot.wiring.gpus) == 8
    assert snapshot.wiring.pcie_levels == ()
    assert reason_of(snapshot, "wiring.pcie_levels") is UNSUPPORTED
    assert snapshot.wiring.bridges == ()


def test_in_a_guest_with_one_numa_node_a_device_can_be_nowhere_else(tmp_path: Path) -> None:
    assert {gpu.numa for gpu in snapshot_of(flat_guest(tmp_path)).wiring.gpus} == {0}


def test_with_two_numa_nodes_none_is_guessed(tmp_path: Path) -> None:
    tree = flat_guest(tmp_path)
    tree.numa(1, "128-255")
    snapshot = snapshot_of(tree)
    assert {gpu.numa for gpu in snapshot.wiring.gpus} == {None}
    assert reason_of(snapshot, "wiring.gpus[3].numa") is UNSUPPORTED
    assert reason_of(snapshot, "wiring.nics[3].numa") is UNSUPPORTED
    assert_honest(snapshot)


def test_a_masked_sys_does_not_say_that_there_are_no_gpus(tmp_path: Path) -> None:
    snapshot = snapshot_of(tmp_path)
    assert reason_of(snapshot, "wiring.gpus") is UNSUPPORTED
    assert reason_of(snapshot, "wiring.nics") is UNSUPPORTED
    nothing = snapshot_from_files({}, {}, {}, host=HostName("a"), collected_at=NOW)
    assert reason_of(nothing, "wiring.gpus") is NOT_ASKED


def test_a_device_whose_kind_may_not_be_read_makes_the_list_incomplete(tmp_path: Path) -> None:
    texts, links, refused = files_below(str(hgx_h100(tmp_path).root))
    refused = refused | {f"{PCI}/0000:ff:00.0/vendor": "EACCES"}
    snapshot = snapshot_from_files(texts, links, refused, host=HostName("a"), collected_at=NOW)
    assert len(snapshot.wiring.gpus) == 8
    (absence,) = [a for a in snapshot.absences if a.path == "wiring.gpus"]
    assert absence.reason is NO_PERMISSION
    assert_honest(snapshot)


def test_a_device_that_hung_is_timed_out_and_those_after_it_were_not_asked(
    tmp_path: Path,
) -> None:
    texts, links, refused = files_below(str(hgx_h100(tmp_path).root))
    late = ("3b", "3c", "4c", "4d", "5d", "5e", "9b", "9c", "bb", "bc", "cb", "cc", "db", "dc")
    texts = {
        path: text
        for path, text in texts.items()
        if not (path.startswith(tuple(f"{PCI}/0000:{bus}" for bus in late)) and "_link_" in path)
    }
    stops = (stop("pci", f"{PCI}/0000:3b:00.0/max_link_speed"),)
    snapshot = snapshot_from_files(
        texts, links, refused, host=HostName("a"), collected_at=NOW, stops=stops
    )
    assert len(snapshot.wiring.gpus) == 8
    assert snapshot.wiring.gpus[0].pcie_width == 16
    assert reason_of(snapshot, "wiring.gpus[1].pcie_width") is TIMED_OUT
    assert reason_of(snapshot, "wiring.gpus[2].pcie_width") is NOT_ASKED
    assert [a for a in snapshot.absences if a.path == "wiring.gpus"] == []
    assert_honest(snapshot)


@pytest.mark.parametrize(
    ("at", "reason", "expected"),
    [
        (f"{PCI}/0000:3b:00.0", StopReason.TIMED_OUT, TIMED_OUT),
        (f"{PCI}/0000:3b:00.0/max_link_speed", StopReason.DIED, AbsenceReason.FAILED),
        ("ready", StopReason.NOT_STARTED, NOT_ASKED),
    ],
)
def test_a_list_that_was_cut_short_is_said_to_be_incomplete(
    tmp_path: Path, at: str, reason: StopReason, expected: AbsenceReason
) -> None:
    tree = SysTree(tmp_path)
    tree.pci("pci0000:15/0000:19:00.0", **GPU)
    snapshot = snapshot_of(tree, stop("pci", at, reason))
    assert expected in {a.reason for a in snapshot.absences if a.path == "wiring.gpus"}
    assert_honest(snapshot)


def test_a_network_that_hung_costs_no_gpu(tmp_path: Path) -> None:
    hung = stop("network", "/sys/class/infiniband/mlx5_0")
    snapshot = snapshot_of(hgx_h100(tmp_path), hung)
    assert [a.path for a in snapshot.absences if a.path == "wiring.gpus"] == []
    assert TIMED_OUT in {a.reason for a in snapshot.absences if a.path == "wiring.nics"}


def test_more_gpus_than_any_machine_has_are_refused() -> None:
    texts = {}
    for i in range(MOST_GPUS + 1):
        folder = f"{PCI}/{i:04x}:00:00.0"
        texts |= {f"{folder}/vendor": "0x10de", f"{folder}/class": "0x030200"}
    with pytest.raises(SourceError, match="65 GPUs"):
        snapshot_from_files(texts, {}, {}, host=HostName("a"), collected_at=NOW)


@pytest.mark.parametrize(
    ("path", "count", "problem"),
    [
        (f"{PCI}/{{:04x}}:00:00.0/vendor", MOST_ENTRIES + 1, "4097 entries of /sys/bus/pci"),
        ("/sys/class/infiniband/mlx5_0/ports/{}/state", MOST_PORTS + 1, "1025 RDMA ports"),
        ("/sys/class/infiniband/mlx5_{}/node_guid", MOST_NICS + 1, "257 NICs"),
    ],
)
def test_a_reading_that_would_take_for_ever_is_refused(path: str, count: int, problem: str) -> None:
    texts = {path.format(i): "1" for i in range(count)}
    with pytest.raises(SourceError, match=problem):
        snapshot_from_files(texts, {}, {}, host=HostName("a"), collected_at=NOW)


def test_memory_without_cpus_is_no_numa_node_of_ours(tmp_path: Path) -> None:
    tree = without_gpus(tmp_path)
    tree.numa(2, "")
    tree.numa(10, "64-95")
    nodes = snapshot_of(tree).wiring.numa_nodes
    assert [(node.numa, node.cpu_affinity) for node in nodes] == [
        (0, "0-31"),
        (1, "32-63"),
        (10, "64-95"),
    ]


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        (
            "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n",
            ("x86_64", "AuthenticAMD", "175", "1"),
        ),
        (
            "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n",
            ("x86_64", "GenuineIntel", "6", "143"),
        ),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xd4f\n", ("arm64", None, None, None)),
        ("cpu\t\t: POWER9, altivec supported\n", ("ppc64", None, None, None)),
        ("uarch\t\t: sifive,u74-mc\n", (None, None, None, None)),
    ],
    ids=["epyc", "xeon", "grace", "power", "riscv"],
)
def test_cpus_are_numbered_as_nccl_does(
    tmp_path: Path, block: str, kind: tuple[str | None, ...]
) -> None:
    """Linux's family 25 (Zen 3) is 175 in NCCL's dumps, 23 (Zen 2) is 143."""
    tree = SysTree(tmp_path)
    tree.cpu(f"processor\t: 0\n{block}")
    tree.numa(0, "0-3")
    (node,) = snapshot_of(tree).wiring.numa_nodes
    assert (node.architecture, node.vendor, node.family, node.model) == kind


def test_a_nearby_storage_adapter_is_close_but_no_rail(tmp_path: Path) -> None:
    snapshot = snapshot_of(hgx_h100(tmp_path))
    slot = next(n.slot for n in snapshot.wiring.nics if n.pci_address == "00000000:1b:00.0")
    assert levels_of(snapshot)[f"gpu0-nic{slot}"] is PcieLevel.PIX
    assert ports_of(snapshot)["mlx5_bond_0"].rail is None

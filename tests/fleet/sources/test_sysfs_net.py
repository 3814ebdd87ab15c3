"""NICs from the kernel's files: which count, what their ports say, and which ports are rails."""

from pathlib import Path

import pytest

from fleet.fields import AbsenceReason
from fleet.wiring import LinkLayer, LinkState
from tests.contracts import assert_honest
from tests.fakes.sysfs_trees import (
    BROADCOM,
    CASSINI,
    CONNECTX6,
    CONNECTX7,
    EFA,
    SWITCHED_GPUS,
    VIRTIO,
    SysTree,
    flat_guest,
    hgx_h100,
)
from tests.fleet.sources.sysfs_snapshots import ports_of, reason_of, snapshot_of, stop

UNDECODABLE, UNSUPPORTED = AbsenceReason.UNDECODABLE, AbsenceReason.UNSUPPORTED
HCA = "/sys/class/infiniband"
CARD = "pci0000:15/0000:15:01.0/0000:16:00.0"
SECOND_CARD = "pci0000:37/0000:37:01.0/0000:38:00.0"


def one_hca(root: Path, **special: str) -> SysTree:
    tree = SysTree(root)
    tree.numa(0, "0-3")
    tree.hca("mlx5_0", tree.pci(CARD, **CONNECTX7), **special)
    return tree


def test_an_hca_says_all_of_itself(tmp_path: Path) -> None:
    snapshot = snapshot_of(one_hca(tmp_path))
    (nic,), (identity,), (state,) = snapshot.wiring.nics, snapshot.nics, snapshot.nic_states
    assert (nic.vendor_device, nic.pci_address) == ("15b3:1021", "00000000:16:00.0")
    assert (nic.numa, nic.pcie_generation, nic.pcie_width) == (0, 5, 16)
    (port,) = nic.ports
    assert (port.port, port.name, port.rail) == (1, "mlx5_0", 0)
    assert (port.link_layer, port.state) == (LinkLayer.INFINIBAND, LinkState.UP)
    assert port.bytes_per_s == 50e9
    assert identity.guid == "b8cef60300abcdef"
    assert (state.slot, state.port) == (0, 1)
    assert (state.logical_state, state.physical_state) == ("ACTIVE", "LinkUp")
    assert (state.firmware, state.link_downs) == ("28.41.1000", 3)


@pytest.mark.parametrize("word", ["1: DOWN", "2: INIT", "3: ARMED", "5: ACTIVE_DEFER"])
def test_a_port_that_is_not_active_is_down_and_keeps_its_rate(tmp_path: Path, word: str) -> None:
    snapshot = snapshot_of(one_hca(tmp_path, state=word, rate="10 Gb/sec (4X SDR)"))
    port = ports_of(snapshot)["mlx5_0"]
    assert (port.state, port.bytes_per_s) == (LinkState.DOWN, 1.25e9)
    assert snapshot.nic_states[0].logical_state == word.partition(": ")[2]


@pytest.mark.parametrize(
    ("rate", "bytes_per_s"),
    [
        ("800 Gb/sec (4X XDR)", 100e9),
        ("200 Gb/sec (2X NDR)", 25e9),
        ("100 Gb/sec (4X EDR)", 12.5e9),
        ("2.5 Gb/sec (1X SDR)", 0.3125e9),
        ("56 Gb/sec", 7e9),
    ],
)
def test_rates_are_bytes_per_second(tmp_path: Path, rate: str, bytes_per_s: float) -> None:
    assert ports_of(snapshot_of(one_hca(tmp_path, rate=rate)))["mlx5_0"].bytes_per_s == bytes_per_s


@pytest.mark.parametrize("rate", ["fast", "0 Gb/sec", "99999 Gb/sec (4X ???)", "-1"])
def test_a_rate_that_is_none_is_absent(tmp_path: Path, rate: str) -> None:
    snapshot = snapshot_of(one_hca(tmp_path, rate=rate))
    assert ports_of(snapshot)["mlx5_0"].bytes_per_s is None
    assert reason_of(snapshot, "wiring.nics[0].ports[1].bytes_per_s") is UNDECODABLE
    assert_honest(snapshot)


@pytest.mark.parametrize(
    ("guid", "reason"),
    [("0000:0000:0000:0000", UNDECODABLE), ("b8ce:f603", UNDECODABLE), ("N/A", UNSUPPORTED)],
)
def test_a_guid_that_is_none_is_absent(tmp_path: Path, guid: str, reason: AbsenceReason) -> None:
    snapshot = snapshot_of(one_hca(tmp_path, guid=guid))
    assert snapshot.nics[0].guid is None
    assert reason_of(snapshot, "nics[0].guid") is reason
    assert_honest(snapshot)


def test_a_state_that_is_not_told_is_not_down(tmp_path: Path) -> None:
    snapshot = snapshot_of(one_hca(tmp_path, state="<unknown>"))
    assert ports_of(snapshot)["mlx5_0"].state is LinkState.UNREPORTED
    assert reason_of(snapshot, "wiring.nics[0].ports[1].state") is UNDECODABLE
    assert_honest(snapshot)


def test_a_port_that_hung_keeps_what_was_known_before(tmp_path: Path) -> None:
    tree = one_hca(tmp_path)
    for name in ("state", "phys_state", "rate", "counters/link_downed"):
        (tmp_path / f"sys/devices/{CARD}/infiniband/mlx5_0/ports/1" / name).unlink()
    snapshot = snapshot_of(tree, stop("network", f"{HCA}/mlx5_0/ports/1/state"))
    port = ports_of(snapshot)["mlx5_0"]
    assert (port.link_layer, port.state) == (LinkLayer.INFINIBAND, LinkState.UNREPORTED)
    assert snapshot.nics[0].guid == "b8cef60300abcdef"
    for name in ("state", "bytes_per_s"):
        path = f"wiring.nics[0].ports[1].{name}"
        assert reason_of(snapshot, path) is AbsenceReason.TIMED_OUT
    assert_honest(snapshot)


def test_a_card_of_two_ports_is_one_nic(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    tree.hca("mlx4_0", tree.pci(CARD, **CONNECTX7), ports=2)
    (nic,) = snapshot_of(tree).wiring.nics
    assert [(port.port, port.name, port.rail) for port in nic.ports] == [
        (1, "mlx4_0", 0),
        (2, "mlx4_0", 1),
    ]


def test_two_rdma_devices_of_one_function_have_ports_of_their_own(tmp_path: Path) -> None:
    """A scalable function is an RDMA device of its parent's PCI function."""
    tree = SysTree(tmp_path)
    folder = tree.pci(CARD, **CONNECTX7)
    tree.hca("mlx5_0", folder)
    tree.hca("mlx5_12", f"{folder}/mlx5_core.sf.4")
    (nic,) = snapshot_of(tree).wiring.nics
    assert [(port.port, port.name) for port in nic.ports] == [(1, "mlx5_0"), (2, "mlx5_12")]


def test_a_bond_of_rdma_devices_is_at_its_first_port(tmp_path: Path) -> None:
    nics = {nic.pci_address: nic for nic in snapshot_of(hgx_h100(tmp_path)).wiring.nics}
    (bond,) = nics["00000000:1b:00.0"].ports
    assert (bond.name, bond.link_layer, bond.bytes_per_s) == ("mlx5_bond_0", LinkLayer.ROCE, 25e9)
    (second,) = nics["00000000:1b:00.1"].ports
    assert (second.name, second.link_layer) == ("enp27s0f1np1", LinkLayer.ETHERNET)


def test_soft_roce_is_no_nic(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    tree.hca("rxe0", "/sys/devices/virtual")
    assert snapshot_of(tree).wiring.nics == ()


def test_virtual_functions_of_a_host_are_no_nics(tmp_path: Path) -> None:
    tree = one_hca(tmp_path)
    virtual = tree.virtual_function(f"{CARD[:-1]}1", f"/sys/devices/{CARD}", **CONNECTX7)
    tree.hca("mlx5_1", virtual)
    tree.interface("eth7", virtual)
    nics = snapshot_of(tree).wiring.nics
    assert [nic.pci_address for nic in nics] == ["00000000:16:00.0"]


def test_virtual_functions_that_a_guest_was_given_are_its_nics(tmp_path: Path) -> None:
    nics = snapshot_of(flat_guest(tmp_path)).wiring.nics
    assert [nic.ports[0].name for nic in nics] == ["eth0", *(f"mlx5_{i}" for i in range(8))]


def test_a_controller_without_driver_is_a_nic_without_ports(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    tree.pci(CARD, **CONNECTX7)
    snapshot = snapshot_of(tree)
    assert [nic.ports for nic in snapshot.wiring.nics] == [()]
    assert reason_of(snapshot, "wiring.nics[0].ports") is UNSUPPORTED
    assert_honest(snapshot)


def test_slots_are_in_the_order_of_addresses_and_not_of_names(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    tree.hca("mlx5_0", tree.pci(SECOND_CARD, **CONNECTX7))
    tree.hca("mlx5_10", tree.pci(CARD, **CONNECTX7))
    tree.interface("usb0", "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0")
    nics = snapshot_of(tree).wiring.nics
    assert [nic.ports[0].name for nic in nics] == ["mlx5_10", "mlx5_0", "usb0"]


def test_an_interface_on_usb_has_no_place_on_pci(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    tree.interface("usb0", "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0")
    snapshot = snapshot_of(tree)
    assert snapshot.wiring.nics[0].pci_address is None
    (absence,) = [a for a in snapshot.absences if a.path == "wiring.nics[0].pci_address"]
    assert absence.detail == "on USB"
    assert_honest(snapshot)


def test_an_interface_on_a_virtual_bus_belongs_to_its_pci_function(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    folder = tree.pci("pci0000:00/0000:00:03.0", **VIRTIO)
    tree.interface("eth0", f"{folder}/virtio2", speed="-1")
    snapshot = snapshot_of(tree)
    (nic,) = snapshot.wiring.nics
    assert (nic.pci_address, nic.vendor_device) == ("00000000:00:03.0", "1af4:1041")
    assert reason_of(snapshot, "wiring.nics[0].ports[1].bytes_per_s") is UNSUPPORTED


@pytest.mark.parametrize(
    ("special", "state"),
    [
        ({"operstate": "up"}, LinkState.UP),
        ({"operstate": "down"}, LinkState.DOWN),
        ({"operstate": "lowerlayerdown"}, LinkState.DOWN),
        ({"operstate": "unknown", "carrier": "1"}, LinkState.UP),
        ({"operstate": "unknown", "carrier": "0"}, LinkState.DOWN),
        ({"operstate": "unknown", "carrier": ""}, LinkState.UNREPORTED),
        ({"operstate": "sideways"}, LinkState.UNREPORTED),
    ],
)
def test_an_interfaces_state_is_that_of_its_operation_or_carrier(
    tmp_path: Path, special: dict[str, str], state: LinkState
) -> None:
    tree = SysTree(tmp_path)
    tree.interface("eno1", tree.pci(CARD, **BROADCOM), **special)
    snapshot = snapshot_of(tree)
    port = ports_of(snapshot)["eno1"]
    assert (port.link_layer, port.state, port.bytes_per_s) == (LinkLayer.ETHERNET, state, 125e6)
    assert_honest(snapshot)


def test_efa_is_told_by_its_maker(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    tree.hca("rdmap16s27", tree.pci(CARD, **EFA), layer="Unspecified", rate="100 Gb/sec (4X EDR)")
    port = ports_of(snapshot_of(tree))["rdmap16s27"]
    assert (port.link_layer, port.bytes_per_s, port.rail) == (LinkLayer.EFA, 12.5e9, 0)


def test_slingshot_has_the_name_that_its_library_uses(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    folder = tree.pci(CARD, **CASSINI)
    tree.interface("hsn0", folder, speed="200000")
    tree.write(f"{folder}/cxi/cxi0/uevent", "")
    tree.link("/sys/class/cxi/cxi0", f"{folder}/cxi/cxi0")
    port = ports_of(snapshot_of(tree))["cxi0"]
    assert (port.link_layer, port.bytes_per_s, port.rail) == (LinkLayer.SLINGSHOT, 25e9, 0)


def test_rails_are_the_compute_ports_in_slot_order(tmp_path: Path) -> None:
    ports = ports_of(snapshot_of(hgx_h100(tmp_path)))
    assert [ports[name].rail for name in SWITCHED_GPUS.values()] == list(range(8))
    assert ports["eno1"].rail is None


def test_a_port_that_is_down_does_not_shift_the_rails_of_the_others(tmp_path: Path) -> None:
    tree = hgx_h100(tmp_path)
    (hca,) = tmp_path.glob("sys/devices/pci0000:48/**/mlx5_4/ports/1")
    (hca / "state").write_text("1: DOWN\n")
    (hca / "rate").write_text("10 Gb/sec (4X SDR)\n")
    ports = ports_of(snapshot_of(tree))
    assert [ports[name].rail for name in SWITCHED_GPUS.values()] == list(range(8))


def test_spare_ports_that_are_down_do_not_outvote_those_that_are_up(tmp_path: Path) -> None:
    """A port that is down shows the slowest rate of all."""
    tree = SysTree(tmp_path)
    for i in range(5):
        folder = tree.pci(f"pci0000:15/0000:15:0{i}.0/0000:1{i}:00.0", **CONNECTX7)
        special = {} if i < 2 else {"state": "1: DOWN", "rate": "10 Gb/sec (4X SDR)", "board": "B"}
        tree.hca(f"mlx5_{i}", folder, **special)
    ports = ports_of(snapshot_of(tree))
    assert [ports[f"mlx5_{i}"].rail for i in range(5)] == [0, 1, None, None, None]


def test_a_fabric_that_is_mostly_down_keeps_its_rails(tmp_path: Path) -> None:
    tree = hgx_h100(tmp_path)
    for bus in list(SWITCHED_GPUS)[2:]:
        (port,) = tmp_path.glob(f"sys/devices/pci0000:{bus:02x}/**/mlx5_?/ports/1")
        (port / "state").write_text("1: DOWN\n")
        (port / "rate").write_text("10 Gb/sec (4X SDR)\n")
    ports = ports_of(snapshot_of(tree))
    assert [ports[name].rail for name in SWITCHED_GPUS.values()] == list(range(8))


def test_a_slower_port_of_an_unknown_card_is_no_rail(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    for name, rate in (("mlx5_0", "400"), ("mlx5_1", "400"), ("mlx5_2", "100")):
        port = f"{HCA}/{name}/ports/1"
        tree.write(f"{port}/link_layer", "InfiniBand")
        tree.write(f"{port}/state", "4: ACTIVE")
        tree.write(f"{port}/rate", f"{rate} Gb/sec")
    ports = ports_of(snapshot_of(tree))
    assert [ports[f"mlx5_{i}"].rail for i in range(3)] == [0, 1, None]


def test_an_adapter_of_the_same_rate_far_from_every_gpu_is_no_rail(tmp_path: Path) -> None:
    """As the CX-7 that manage the NVSwitches of an HGX B200, or storage on the chipset."""
    tree = hgx_h100(tmp_path)
    tree.hca("mlx5_10", tree.pci("pci0000:e1/0000:e1:01.0/0000:e2:00.0", **CONNECTX7))
    ports = ports_of(snapshot_of(tree))
    assert ports["mlx5_10"].rail is None
    assert [ports[name].rail for name in SWITCHED_GPUS.values()] == list(range(8))


def test_without_gpus_the_commonest_rate_makes_the_rails(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    for i in range(3):
        kind = CONNECTX6 if i == 1 else CONNECTX7
        rate = "100 Gb/sec (4X EDR)" if i == 1 else "400 Gb/sec (4X NDR)"
        folder = tree.pci(f"pci0000:15/0000:15:0{i}.0/0000:1{i}:00.0", **kind)
        tree.hca(f"mlx5_{i}", folder, rate=rate, board=f"MT_{kind['device']}")
    ports = ports_of(snapshot_of(tree))
    assert [ports[f"mlx5_{i}"].rail for i in range(3)] == [0, None, 1]


def test_a_captured_class_folder_alone_makes_nics_without_a_place(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    for name in ("mlx5_10", "mlx5_2"):
        tree.write(f"{HCA}/{name}/ports/1/link_layer", "InfiniBand")
        tree.write(f"{HCA}/{name}/ports/1/state", "4: ACTIVE")
    snapshot = snapshot_of(tree)
    assert [nic.ports[0].name for nic in snapshot.wiring.nics] == ["mlx5_2", "mlx5_10"]
    assert reason_of(snapshot, "wiring.nics[0].pci_address") is UNSUPPORTED
    assert_honest(snapshot)

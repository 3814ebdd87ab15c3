import pytest

from fleet.fields import AbsenceReason, HostName
from fleet.model import NodeSnapshot
from fleet.sources.nccl_net import guid_in_ibstat_order
from fleet.sources.nccl_xml import read
from fleet.wiring import LinkLayer, NicPort
from tests.contracts import assert_honest

INFINIBAND = 'class="0x020700" vendor="0x15b3" device="0x1021" link_speed="16 GT/s" link_width="16"'
ETHERNET = 'class="0x020000" vendor="0x15b3" device="0x1021"'


def net(name: str, *, guid: str = "0xa000510003c288a0", port: str = "1", **more: str) -> str:
    rest = "".join(f' {key}="{value}"' for key, value in more.items())
    return f'<net name="{name}" guid="{guid}" port="{port}"{rest}/>'


def nic(bus: str, *nets: str, pci: str = INFINIBAND) -> str:
    return f'<pci busid="{bus}" {pci}><nic>{"".join(nets)}</nic></pci>'


def snapshot(*devices: str, cpus: int = 1) -> NodeSnapshot:
    body = "".join(f'<cpu numaid="{i}">{"".join(devices)}</cpu>' for i in range(cpus))
    text = f'<system version="1">{body}</system>'
    (found,) = read(text.encode(), where="topo.xml", host=HostName("node7"))
    assert_honest(found)
    return found


def only_port(*devices: str) -> NicPort:
    (slot,) = snapshot(*devices).wiring.nics
    (port,) = slot.ports
    return port


def why(found: NodeSnapshot, path: str) -> AbsenceReason:
    return next(absence.reason for absence in found.absences if absence.path == path)


def test_adapter_has_address_link_and_guid() -> None:
    found = snapshot(nic("0101:00:00.0", net("mlx5_0", speed="400000")))
    (slot,) = found.wiring.nics
    assert (slot.pci_address, slot.vendor_device, slot.numa) == ("00000101:00:00.0", "15b3:1021", 0)
    assert (slot.pcie_generation, slot.pcie_width) == (4, 16)
    assert found.nics[0].guid == "a088c203005100a0"


def test_two_ports_of_one_adapter_are_one_nic() -> None:
    found = snapshot(nic("0:c:0.0", net("mlx5_0", dev="0"), net("mlx5_1", dev="1", port="2")))
    (slot,) = found.wiring.nics
    assert [(port.port, port.name) for port in slot.ports] == [(1, "mlx5_0"), (2, "mlx5_1")]


def test_one_guid_in_two_pci_devices_is_two_nics() -> None:
    found = snapshot(nic("0:c:0.0", net("mlx5_0")), nic("0:c:0.1", net("mlx5_1")))
    assert [str(slot.pci_address)[9:] for slot in found.wiring.nics] == ["0c:00.0", "0c:00.1"]


def test_two_guids_in_one_pci_device_are_two_nics() -> None:
    found = snapshot(nic("0:c:0.0", net("mlx5_0"), net("mlx5_1", guid="0xa001510003c288a0")))
    assert [identity.guid for identity in found.nics] == ["a088c203005100a0", "a088c203005101a0"]


def test_row_that_stands_twice_is_one_port() -> None:
    assert only_port(nic("0:c:0.0", net("mlx5_0"), net("mlx5_0"))).name == "mlx5_0"


def test_nics_are_in_the_order_of_dev() -> None:
    found = snapshot(nic("0:c:0.0", net("mlx5_4", dev="3")), nic("0:d:0.0", net("mlx5_1", dev="0")))
    assert [slot.ports[0].name for slot in found.wiring.nics] == ["mlx5_1", "mlx5_4"]


def test_interfaces_repeated_below_every_cpu_are_counted_once() -> None:
    rows = [net(f"veth{i}", guid=hex(i), port="0", speed="10000", dev=str(i)) for i in range(3)]
    found = snapshot(f"<nic>{''.join(rows)}</nic>", cpus=4)
    assert [slot.ports[0].name for slot in found.wiring.nics] == ["veth0", "veth1", "veth2"]
    assert {slot.pci_address for slot in found.wiring.nics} == {None}
    for path in ("wiring.nics[*].pci_address", "wiring.nics[*].numa"):
        assert why(found, path) is AbsenceReason.NOT_ASKED
    assert why(found, "nics[*].guid") is AbsenceReason.UNSUPPORTED


def test_interface_that_also_stands_in_its_pci_device_is_that_nic() -> None:
    row = net("eno1", guid="0x0", port="0")
    (slot,) = snapshot(nic("0:18:0.0", row, pci=ETHERNET), f"<nic>{row}</nic>").wiring.nics
    assert slot.pci_address == "00000000:18:00.0"


def test_adapters_of_a_virtual_machine_below_the_cpu_are_told_by_guid() -> None:
    rows = net("mlx5_0", port="1") + net("mlx5_1", port="2")
    (slot,) = snapshot(f"<nic>{rows}</nic>").wiring.nics
    assert [port.port for port in slot.ports] == [1, 2]
    assert slot.ports[0].link_layer is LinkLayer.UNREPORTED


def test_fused_nic_keeps_its_name_and_hangs_below_the_bridge_it_shares() -> None:
    bridge = 'class="0x060400"'
    found = snapshot(nic("0:2:0.0", net("mlx5_0+mlx5_1", speed="800000"), pci=bridge))
    (slot,) = found.wiring.nics
    assert (slot.bridge, slot.numa, slot.pci_address) == (0, 0, None)
    assert (slot.ports[0].name, slot.ports[0].bytes_per_s) == ("mlx5_0+mlx5_1", 100e9)


@pytest.mark.parametrize(
    ("told", "numbers"),
    [
        (["0"], [1]),
        (["1", "1"], [1, 2]),
        (["2", "0", "x"], [2, 1, 3]),
    ],
)
def test_port_without_a_number_of_its_own_gets_the_lowest_free_one(
    told: list[str], numbers: list[int]
) -> None:
    rows = [net(f"p{i}", port=port) for i, port in enumerate(told)]
    (slot,) = snapshot(nic("0:c:0.0", *rows)).wiring.nics
    assert [port.port for port in slot.ports] == numbers


def test_port_without_name_or_number_says_so() -> None:
    found = snapshot(nic("0:c:0.0", '<net speed="100000"/>'))
    (port,) = found.wiring.nics[0].ports
    assert (port.port, port.name) == (1, None)
    assert why(found, "wiring.nics[*].ports[1].name") is AbsenceReason.NOT_ASKED


@pytest.mark.parametrize(
    ("speed", "bytes_per_s"),
    [("1000", 125e6), ("56000", 7e9), ("180000", 22.5e9), ("200000000", 25e9)],
)
def test_speed_is_megabits_except_where_no_port_is_so_fast(speed: str, bytes_per_s: float) -> None:
    assert only_port(nic("0:c:0.0", net("cxi0", speed=speed))).bytes_per_s == bytes_per_s


@pytest.mark.parametrize(
    ("speed", "reason"),
    [
        ("0", AbsenceReason.UNSUPPORTED),
        ("", AbsenceReason.UNSUPPORTED),
        ("-1", AbsenceReason.UNDECODABLE),
        ("fast", AbsenceReason.UNDECODABLE),
        ("99999999999", AbsenceReason.UNDECODABLE),
    ],
)
def test_speed_that_is_none_is_absent(speed: str, reason: AbsenceReason) -> None:
    found = snapshot(nic("0:c:0.0", net("mlx5_0", speed=speed)))
    assert found.wiring.nics[0].ports[0].bytes_per_s is None
    assert why(found, "wiring.nics[*].ports[1].bytes_per_s") is reason


@pytest.mark.parametrize(
    ("pci", "name", "layer"),
    [
        (INFINIBAND, "mlx5_0", LinkLayer.INFINIBAND),
        (ETHERNET, "mlx5_0", LinkLayer.ROCE),
        (ETHERNET, "mlx5_0+mlx5_1", LinkLayer.ROCE),
        (ETHERNET, "enp12s0np0", LinkLayer.ETHERNET),
        ('class="0x020000"', "mlx5_0", LinkLayer.ROCE),
        ('class="0x020000" vendor="0x14e4" device="0x16d8"', "eno1np0", LinkLayer.ETHERNET),
        ('class="0x020000" vendor="0x1d0f" device="0xefa1"', "rdmap16s27", LinkLayer.EFA),
        ('class="0x020000" vendor="0x1d0f" device="0xec20"', "eth0", LinkLayer.ETHERNET),
        ('class="0x020000" vendor="0x17db" device="0x0501"', "net0", LinkLayer.SLINGSHOT),
        ('class="0x020000"', "cxi0", LinkLayer.SLINGSHOT),
        ('class="0x020800"', "hfi1_0", LinkLayer.UNREPORTED),
    ],
)
def test_link_layer_follows_class_maker_and_name(pci: str, name: str, layer: LinkLayer) -> None:
    assert only_port(nic("0:c:0.0", net(name), pci=pci)).link_layer is layer


def test_rails_are_the_compute_ports_of_the_commonest_rate() -> None:
    found = snapshot(
        nic("0:1:0.0", net("mlx5_0", dev="0", speed="100000")),
        nic("0:2:0.0", net("mlx5_1", dev="1", speed="400000")),
        nic("0:3:0.0", net("mlx5_2", dev="2", speed="400000"), pci=ETHERNET),
        nic("0:4:0.0", net("eth0", dev="3", speed="400000"), pci=ETHERNET),
    )
    assert [slot.ports[0].rail for slot in found.wiring.nics] == [None, 0, 1, None]


def test_of_two_equally_common_rates_the_higher_makes_the_rails() -> None:
    found = snapshot(
        nic("0:1:0.0", net("mlx5_0", dev="0", speed="200000")),
        nic("0:2:0.0", net("mlx5_1", dev="1", speed="400000")),
    )
    assert [slot.ports[0].rail for slot in found.wiring.nics] == [None, 0]


@pytest.mark.parametrize(
    ("guid", "reason"),
    [
        ("0xREDACTED", AbsenceReason.UNDECODABLE),
        ("0xf", AbsenceReason.UNSUPPORTED),
        ("", AbsenceReason.UNSUPPORTED),
    ],
)
def test_guid_that_is_none_is_absent(guid: str, reason: AbsenceReason) -> None:
    found = snapshot(nic("0:c:0.0", net("mlx5_bond_0", guid=guid)))
    assert found.nics[0].guid is None
    assert why(found, "nics[*].guid") is reason


@pytest.mark.parametrize(
    ("printed", "in_order"),
    [
        ("3a050700039f59b8", "b8599f030007053a"),  # one adapter, as two hosts print it
        ("b8599f030007053a", "b8599f030007053a"),
        ("0ad9c300039f59b8", "b8599f0300c3d90a"),
        ("f21cbc0303dd6838", "3868dd0303bc1cf2"),  # marked both ways: f2 is no maker's OUI
        ("00155dfffd33ff7d", "00155dfffd33ff7d"),
        ("2f3ea3cccb374e8f", "2f3ea3cccb374e8f"),  # marked neither way
    ],
)
def test_guid_is_turned_where_only_so_it_begins_with_an_oui(printed: str, in_order: str) -> None:
    assert guid_in_ibstat_order(printed) == in_order

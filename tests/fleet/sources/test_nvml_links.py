from collections import Counter
from dataclasses import replace

import pytest

from fleet.wiring import EndKind, GpuPort, LinkState, PortEnd
from tests.fakes.nvml import asked_here, detail_of, installed, reason_of, snapshot_of
from tests.fakes.nvml_profiles import FakeProfile, profile_named

H100, V100, GB200 = (profile_named(name) for name in ("h100-8", "v100-2", "gb200-4"))
ONE_H100 = replace(H100, gpus=H100.gpus[:1])


def ports(profile: FakeProfile) -> tuple[GpuPort, ...]:
    """Ports of the first GPU."""
    return snapshot_of(profile).wiring.gpus[0].ports


def test_h100_links_go_five_five_four_four_to_its_switches() -> None:
    wiring = snapshot_of(H100).wiring
    assert [(switch.index, switch.pci_address) for switch in wiring.nvswitches] == [
        (0, "00000000:07:00.0"),
        (1, "00000000:08:00.0"),
        (2, "00000000:09:00.0"),
        (3, "00000000:0a:00.0"),
    ]
    to_switches = {"switch0": 5, "switch1": 5, "switch2": 4, "switch3": 4}
    for gpu in wiring.gpus:
        assert Counter(str(port.end) for port in gpu.ports) == to_switches


def test_a_port_has_its_number_far_port_version_state_and_rate() -> None:
    port = snapshot_of(H100).wiring.gpus[7].ports[17]
    # Link 17 is the fifth (index 4) to switch 17 mod 4 = 1; the last GPU's ports begin at 56.
    assert (port.port, port.count, port.far_port) == (17, 1, 60)
    assert port.end == PortEnd(kind=EndKind.SWITCH, index=1)
    assert (port.version, port.state) == ("4.0", LinkState.UP)
    assert port.bytes_per_s == 26.562e9


def test_all_links_of_a_gpu_are_read_with_one_call_after_the_count() -> None:
    with installed(H100) as lib:
        asked_here()
    assert lib.calls.count("nvmlDeviceGetFieldValues") == 2 * 8
    assert "nvmlDeviceGetNvLinkState" not in lib.calls


def test_direct_links_end_at_the_other_gpu() -> None:
    first, second = (gpu.ports for gpu in snapshot_of(V100).wiring.gpus)
    assert [(str(p.end), p.far_port) for p in first[:4]] == [
        ("gpu1", 2),
        ("gpu1", 3),
        ("gpu1", 4),
        ("gpu1", 5),
    ]
    assert [(str(p.end), p.far_port) for p in second[2:]] == [
        ("gpu0", 0),
        ("gpu0", 1),
        ("gpu0", 2),
        ("gpu0", 3),
    ]


def test_an_old_driver_gives_state_and_speed_by_their_older_names() -> None:
    first = ports(V100)
    assert [port.state for port in first] == [LinkState.UP] * 4 + [LinkState.DOWN] * 2
    assert [port.bytes_per_s for port in first] == [25.781e9] * 4 + [None] * 2
    assert first[0].version == "2.0"


def test_an_unconnected_link_is_kept_as_down_without_an_end() -> None:
    snapshot = snapshot_of(V100)
    port = snapshot.wiring.gpus[0].ports[5]
    assert (port.state, port.end.kind) == (LinkState.DOWN, EndKind.UNREPORTED)
    assert reason_of(snapshot, "wiring.gpus[0].ports[5].end.index") == "unsupported"
    assert reason_of(snapshot, "wiring.gpus[0].ports[5].bytes_per_s") == "unsupported"


def test_twelve_of_eighteen_links_up_is_kept_as_reported() -> None:
    profile = ONE_H100
    for port in range(12, 18):
        profile = profile.with_link(0, port, state=0, speed_mbps=0)
    first = ports(profile)
    assert [port.state for port in first] == [LinkState.UP] * 12 + [LinkState.DOWN] * 6
    assert [port.bytes_per_s for port in first] == [26.562e9] * 12 + [None] * 6


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (0, LinkState.DOWN),
        (1, LinkState.UP),
        (2, LinkState.UP),
        (3, LinkState.DOWN),
        (4, LinkState.UNREPORTED),
    ],
)
def test_sleep_is_up_and_closed_to_traffic_is_down(state: int, expected: LinkState) -> None:
    assert ports(ONE_H100.with_link(0, 3, state=state))[3].state is expected


def test_hidden_switches_have_no_index_and_are_not_counted() -> None:
    snapshot = snapshot_of(GB200)
    assert snapshot.wiring.nvswitches == ()
    assert {str(p.end) for gpu in snapshot.wiring.gpus for p in gpu.ports} == {"switch"}
    assert {p.bytes_per_s for gpu in snapshot.wiring.gpus for p in gpu.ports} == {53.125e9}
    assert reason_of(snapshot, "wiring.gpus[*].ports[*].end.index") == "unsupported"
    assert reason_of(snapshot, "wiring.gpus[*].ports[*].far_port") == "unsupported"


def test_a_hidden_address_is_a_switch_where_the_type_is_not_told() -> None:
    profile = GB200.lacking("nvmlDeviceGetNvLinkRemoteDeviceType")
    assert {str(port.end) for port in ports(profile)} == {"switch"}


def test_a_switch_with_an_empty_bus_id_has_no_index() -> None:
    assert str(ports(ONE_H100.with_link(0, 0, remote_pci_bus_id=""))[0].end) == "switch"


@pytest.mark.parametrize("written", [b"\x01\x02\x03", "not an address", b"\xff\xfe"])
def test_an_unreadable_bus_id_is_undecodable(written: str | bytes) -> None:
    snapshot = snapshot_of(ONE_H100.with_link(0, 0, remote_pci_bus_id=written))
    assert str(snapshot.wiring.gpus[0].ports[0].end) == "switch"
    assert reason_of(snapshot, "wiring.gpus[0].ports[0].end.index") == "undecodable"


def test_a_remote_of_unknown_type_is_unreported() -> None:
    snapshot = snapshot_of(ONE_H100.with_link(0, 0, remote_device_type=255))
    assert snapshot.wiring.gpus[0].ports[0].end.kind is EndKind.UNREPORTED
    told = detail_of(snapshot, "wiring.gpus[0].ports[0].end.index")
    assert "00000000:07:00.0 (type 255)" in told


def test_an_untold_type_is_found_by_address_for_gpus_only() -> None:
    direct = V100.lacking("nvmlDeviceGetNvLinkRemoteDeviceType")
    assert str(ports(direct)[0].end) == "gpu1"
    switched = snapshot_of(H100.lacking("nvmlDeviceGetNvLinkRemoteDeviceType"))
    assert {str(p.end) for p in switched.wiring.gpus[0].ports} == {"unreported"}
    path = "wiring.gpus[*].ports[*].end.index"
    assert reason_of(switched, path) == "function_missing"


def test_a_link_to_a_processor_is_an_npu() -> None:
    profile = ONE_H100.with_link(0, 0, remote_device_type=1, remote_pci_bus_id="00000004:00:00.0")
    assert str(ports(profile)[0].end) == "npu"


def test_a_gpu_that_the_driver_does_not_list_here_has_no_index() -> None:
    profile = ONE_H100.with_link(0, 0, remote_device_type=0, remote_pci_bus_id="00000000:43:00.0")
    snapshot = snapshot_of(profile)
    assert str(snapshot.wiring.gpus[0].ports[0].end) == "gpu"
    assert "00000000:43:00.0" in detail_of(snapshot, "wiring.gpus[0].ports[0].end.index")


def test_addresses_are_compared_in_one_form() -> None:
    profile = V100.with_link(0, 0, remote_pci_bus_id="0000:07:00.0")
    assert str(ports(profile)[0].end) == "gpu1"


@pytest.mark.parametrize(
    ("version", "text"), [(1, "1.0"), (3, "2.2"), (5, "3.1"), (6, "4.0"), (8, "6.0")]
)
def test_the_version_is_not_the_number_the_driver_gives(version: int, text: str) -> None:
    assert ports(ONE_H100.with_link(0, 0, version=version))[0].version == text


@pytest.mark.parametrize("version", [0, 9, 255])
def test_a_version_beyond_the_list_is_undecodable(version: int) -> None:
    snapshot = snapshot_of(ONE_H100.with_link(0, 0, version=version))
    assert snapshot.wiring.gpus[0].ports[0].version is None
    assert reason_of(snapshot, "wiring.gpus[0].ports[0].version") == "undecodable"


def test_a_count_of_links_that_cannot_be_is_undecodable() -> None:
    many = ONE_H100.gpus[0].links or ()
    snapshot = snapshot_of(ONE_H100.with_gpu(0, links=many * 4))
    assert snapshot.wiring.gpus[0].ports == ()
    assert detail_of(snapshot, "wiring.gpus[0].ports") == "72 NVLinks"


def test_links_are_counted_by_their_state_where_the_driver_has_no_count() -> None:
    profile = V100.with_gpu(0, field_returns={91: 2, 164: 2, 165: 2})
    assert len(ports(profile)) == 6


def test_without_field_values_links_keep_what_other_calls_tell() -> None:
    snapshot = snapshot_of(ONE_H100.lacking("nvmlDeviceGetFieldValues"))
    first = snapshot.wiring.gpus[0].ports
    assert [port.state for port in first] == [LinkState.UP] * 18
    assert str(first[4].end) == "switch0"
    for name in ("bytes_per_s", "far_port"):
        assert reason_of(snapshot, f"wiring.gpus[0].ports[*].{name}") == "function_missing"


def test_zero_links_are_known_to_be_none() -> None:
    snapshot = snapshot_of(ONE_H100.with_gpu(0, links=()))
    assert snapshot.wiring.gpus[0].ports == ()
    assert [a for a in snapshot.absences if "ports" in a.path] == []


def test_a_field_that_one_link_does_not_have_costs_only_that_link() -> None:
    snapshot = snapshot_of(ONE_H100.with_link(0, 9, remote_link=None))
    first = snapshot.wiring.gpus[0].ports
    assert (first[8].far_port, first[9].far_port, first[10].far_port) == (2, None, 2)
    assert reason_of(snapshot, "wiring.gpus[0].ports[9].far_port") == "unsupported"

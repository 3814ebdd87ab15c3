from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.fields import leaves
from fleet.model import FabricState, NodeSnapshot, NvlinkFabric, SectionName
from fleet.wiring import P2pState, PcieLevel
from tests.fakes.nvml import NOON, SYMBOLS, detail_of, reason_of, snapshot_of
from tests.fakes.nvml_profiles import (
    NAMES,
    FakeFabric,
    FakeGpu,
    FakePlatform,
    FakeProfile,
    profile_named,
)

H100, V100, GB200 = (profile_named(name) for name in ("h100-8", "v100-2", "gb200-4"))
L40S, T4 = profile_named("l40s-2"), profile_named("t4-1")


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_gives_an_honest_snapshot(name: str) -> None:
    snapshot = snapshot_of(profile_named(name))
    assert len(snapshot.gpus) == len(snapshot.wiring.gpus) == int(name.rpartition("-")[2])


def test_each_section_has_its_source_and_the_time_of_the_caller() -> None:
    sections = snapshot_of(T4).sections
    assert [(section.name, section.source, section.collected_at) for section in sections] == [
        (SectionName.DEVICES, "nvml", NOON),
        (SectionName.LINKS, "nvml", NOON),
        (SectionName.HEALTH, "nvml", NOON),
        (SectionName.USE, "nvml", NOON),
    ]


def test_h100_devices_are_told_as_the_driver_has_them() -> None:
    snapshot = snapshot_of(H100)
    gpu, identity = snapshot.wiring.gpus[4], snapshot.gpus[4]
    assert (gpu.product_name, gpu.compute_capability) == ("NVIDIA H100 80GB HBM3", "9.0")
    assert gpu.memory_bytes == 85_520_809_984
    assert (gpu.pci_address, gpu.module_id, gpu.numa) == ("00000000:9d:00.0", 7, 1)
    assert (gpu.pcie_generation, gpu.pcie_width) == (5, 16)
    assert identity.uuid == "GPU-11110000-aaaa-4bbb-8ccc-000000000004"
    assert (identity.serial, identity.vbios) == ("1650000000004", "96.00.89.00.01")


def test_versions_are_texts() -> None:
    versions = snapshot_of(H100).versions
    assert versions is not None
    assert (versions.driver, versions.cuda) == ("570.172.08", "12.8")
    assert versions.nvml == "12.570.172.08"


def test_nvml_is_not_asked_for_nics() -> None:
    snapshot = snapshot_of(H100)
    assert snapshot.wiring.nics == ()
    assert reason_of(snapshot, "wiring.nics") == "not_asked"


def test_numa_nodes_have_their_cpus() -> None:
    nodes = snapshot_of(H100).wiring.numa_nodes
    assert [(node.numa, node.cpu_affinity) for node in nodes] == [
        (0, "0-55,112-167"),
        (1, "56-111,168-223"),
    ]


def test_several_numa_nodes_of_one_gpu_are_no_guess_at_its_socket() -> None:
    snapshot = snapshot_of(GB200)
    assert [gpu.numa for gpu in snapshot.wiring.gpus] == [None] * 4
    assert reason_of(snapshot, "wiring.gpus[2].numa") == "unsupported"
    assert "1,18-33" in detail_of(snapshot, "wiring.gpus[2].numa")


def test_gpus_that_differ_on_the_cpus_of_their_node_are_both_told() -> None:
    snapshot = snapshot_of(H100.with_gpu(0, cpus=(0, 1, 2, 9)))
    assert snapshot.wiring.numa_nodes[0].cpu_affinity is None
    told = detail_of(snapshot, "wiring.numa_nodes[0].cpu_affinity")
    assert told == "GPUs differ in their CPUs: 0-2,9, 0-55,112-167"


def test_every_pair_has_a_level_and_a_peer_status() -> None:
    wiring = snapshot_of(H100).wiring
    levels = Counter(pair.level for pair in wiring.pcie_levels)
    # Two sockets of four GPUs: 2 x 6 pairs below one socket, 4 x 4 across.
    assert levels == {PcieLevel.NODE: 12, PcieLevel.SYS: 16}
    assert {(status.read, status.write) for status in wiring.p2p} == {(P2pState.OK, P2pState.OK)}
    assert [status.key for status in wiring.p2p][6:8] == ["0-7", "1-2"]


def test_peer_read_and_write_are_asked_apart() -> None:
    (status,) = snapshot_of(L40S).wiring.p2p
    assert (status.read, status.write) == (P2pState.OK, P2pState.CHIPSET)


@pytest.mark.parametrize(
    ("number", "level"),
    [(0, "internal"), (10, "pix"), (20, "pxb"), (30, "phb"), (40, "node"), (50, "sys")],
)
def test_levels_have_the_words_of_nvidia_smi(number: int, level: str) -> None:
    (pair,) = snapshot_of(replace(V100, level=number)).wiring.pcie_levels
    assert (pair.a, pair.b, pair.level) == ("gpu0", "gpu1", level)


def test_a_pair_answer_beyond_the_list_is_undecodable() -> None:
    snapshot = snapshot_of(replace(V100, level=35, p2p=(0, 9)))
    assert (snapshot.wiring.pcie_levels, snapshot.wiring.p2p) == ((), ())
    assert reason_of(snapshot, "wiring.pcie_levels[gpu0-gpu1]") == "undecodable"
    assert reason_of(snapshot, "wiring.p2p[0-1]") == "undecodable"


def test_processes_hold_their_gpus() -> None:
    allocations = snapshot_of(H100).allocations
    assert allocations is not None
    assert [(a.holder, a.slots) for a in allocations] == [("pid 4711", (0, 1)), ("pid 4800", (1,))]


def test_a_gpu_whose_processes_are_forbidden_keeps_the_others_known() -> None:
    snapshot = snapshot_of(H100.with_gpu(1, returns={"nvmlDeviceGetComputeRunningProcesses_v3": 4}))
    assert [(a.holder, a.slots) for a in snapshot.allocations or ()] == [("pid 4711", (0,))]
    assert reason_of(snapshot, "allocations[gpu1]") == "no_permission"


def test_idle_gpus_are_known_to_be_free() -> None:
    assert snapshot_of(GB200).allocations == ()


@pytest.mark.parametrize(
    ("fabric", "expected"),
    [
        (FakeFabric(0, 0, "0" * 32, 0), NvlinkFabric(state=FabricState.UNSUPPORTED)),
        (FakeFabric(1, 0, "0" * 32, 0), NvlinkFabric(state=FabricState.FORMING)),
        (FakeFabric(2, 999, "1" * 32, 4), NvlinkFabric(state=FabricState.FORMING)),
        (FakeFabric(3, 999, "1" * 32, 4), NvlinkFabric(state=FabricState.BROKEN)),
        (FakeFabric(3, 0, "0" * 32, 4), NvlinkFabric(state=FabricState.SINGLE_NODE)),
        (
            FakeFabric(3, 0, "000000000000000000000000000000ab", 0),
            NvlinkFabric(
                state=FabricState.DOMAIN,
                cluster_uuid="00000000-0000-0000-0000-0000000000ab",
                clique=0,
            ),
        ),
    ],
)
def test_only_a_completed_fabric_with_a_cluster_is_a_domain(
    fabric: FakeFabric, expected: NvlinkFabric
) -> None:
    assert snapshot_of(H100.with_gpu(2, fabric=fabric)).gpus[2].fabric == expected


def test_a_fabric_state_newer_than_this_source_is_undecodable() -> None:
    snapshot = snapshot_of(H100.with_gpu(2, fabric=FakeFabric(9, 0, "0" * 32, 0)))
    assert snapshot.gpus[2].fabric is None
    assert reason_of(snapshot, "gpus[2].fabric") == "undecodable"


def test_gb200_gpus_are_in_one_domain() -> None:
    domains = {gpu.fabric.domain for gpu in snapshot_of(GB200).gpus if gpu.fabric}
    assert domains == {"5f1c2d3e-0000-4111-8222-333344445555.32766"}


def test_chassis_and_tray_come_from_the_platform() -> None:
    snapshot = snapshot_of(GB200)
    assert (snapshot.chassis_serial, snapshot.tray) == ("1820000000042", 10)


def test_gpus_in_different_chassis_are_told_and_none_is_taken() -> None:
    odd = FakePlatform(chassis_serial="1820000000043", tray=10)
    snapshot = snapshot_of(GB200.with_gpu(3, platform=odd))
    assert (snapshot.chassis_serial, snapshot.tray) == (None, 10)
    assert "1820000000042, 1820000000043" in detail_of(snapshot, "chassis_serial")


def test_a_platform_of_zeros_is_no_tray_zero() -> None:
    nowhere = FakePlatform(chassis_serial=b"", tray=0)
    snapshot = snapshot_of(replace(GB200, gpus=GB200.gpus[:1]).with_gpu(0, platform=nowhere))
    assert snapshot.tray is None
    assert reason_of(snapshot, "tray") == "unsupported"


def test_a_node_without_gpus_is_no_error() -> None:
    snapshot = snapshot_of(replace(H100, gpus=()))
    assert (snapshot.gpus, snapshot.wiring.gpus) == ((), ())
    assert snapshot.allocations is None
    assert reason_of(snapshot, "allocations") == "not_asked"


def test_a_card_without_nvlink_says_so_in_words() -> None:
    snapshot = snapshot_of(L40S)
    assert [gpu.ports for gpu in snapshot.wiring.gpus] == [(), ()]
    assert reason_of(snapshot, "wiring.gpus[*].ports") == "unsupported"
    assert reason_of(snapshot, "wiring.gpus[*].module_id") == "unsupported"


def test_an_old_driver_lacks_functions_and_still_tells_the_rest() -> None:
    snapshot = snapshot_of(T4)
    missing = {a.path for a in snapshot.absences if a.reason == "function_missing"}
    assert missing == {
        "wiring.gpus[0].module_id",
        "wiring.gpus[0].numa",
        "gpus[0].fabric",
        "states[0].remapped_rows",
        "chassis_serial",
        "chassis_slot",
        "tray",
        "unlisted_gpus",
        "allocations",
    }
    assert snapshot.wiring.gpus[0].memory_bytes == 15_843_721_216
    assert snapshot.gpus[0].serial == "0562000000000"


@pytest.mark.parametrize(
    ("function", "path"),
    [
        ("nvmlDeviceGetUUID", "gpus[1].uuid"),
        ("nvmlDeviceGetSerial", "gpus[1].serial"),
        ("nvmlDeviceGetVbiosVersion", "gpus[1].vbios"),
        ("nvmlDeviceGetGpuFabricInfoV", "gpus[1].fabric"),
        ("nvmlDeviceGetName", "wiring.gpus[1].product_name"),
        ("nvmlDeviceGetCudaComputeCapability", "wiring.gpus[1].compute_capability"),
        ("nvmlDeviceGetMemoryInfo_v2", "wiring.gpus[1].memory_bytes"),
        ("nvmlDeviceGetPciInfo_v3", "wiring.gpus[1].pci_address"),
        ("nvmlDeviceGetModuleId", "wiring.gpus[1].module_id"),
        ("nvmlDeviceGetMemoryAffinity", "wiring.gpus[1].numa"),
        ("nvmlDeviceGetMaxPcieLinkGeneration", "wiring.gpus[1].pcie_generation"),
        ("nvmlDeviceGetCurrPcieLinkWidth", "wiring.gpus[1].pcie_width"),
        ("nvmlDeviceGetNvLinkVersion", "wiring.gpus[1].ports[*].version"),
        ("nvmlDeviceGetNvLinkRemotePciInfo_v2", "wiring.gpus[1].ports[*].end.index"),
        ("nvmlDeviceGetComputeRunningProcesses_v3", "allocations[gpu1]"),
        ("nvmlDeviceGetP2PStatus", "wiring.p2p[1-2]"),
        ("nvmlDeviceGetTopologyCommonAncestor", "wiring.pcie_levels[gpu1-gpu2]"),
    ],
)
def test_what_one_gpu_does_not_support_is_absent_and_not_zero(function: str, path: str) -> None:
    three = replace(H100, gpus=H100.gpus[:3])
    snapshot = snapshot_of(three.with_gpu(1, returns={function: 3}))
    assert reason_of(snapshot, path) == "unsupported"
    assert path.replace("[*]", "[0]") not in dict(leaves(snapshot))
    others = [a for a in snapshot.absences if a.path.startswith(("gpus[0]", "wiring.gpus[0]"))]
    assert others == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"memory_bytes": 0}, "wiring.gpus[0].memory_bytes"),
        ({"pcie_gen": 0}, "wiring.gpus[0].pcie_generation"),
        ({"pcie_width": 0}, "wiring.gpus[0].pcie_width"),
        ({"numa": ()}, "wiring.gpus[0].numa"),
        ({"serial": ""}, "gpus[0].serial"),
        ({"serial": "N/A"}, "gpus[0].serial"),
        ({"uuid": " "}, "gpus[0].uuid"),
    ],
)
def test_a_zero_or_an_empty_text_is_an_absence(change: dict[str, object], path: str) -> None:
    assert reason_of(snapshot_of(L40S.with_gpu(0, **change)), path) == "unsupported"


def test_a_driver_without_a_cuda_version_has_none() -> None:
    snapshot = snapshot_of(replace(T4, cuda_version=0))
    assert snapshot.versions is not None
    assert snapshot.versions.cuda is None
    assert reason_of(snapshot, "versions.cuda") == "unsupported"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (2, "unsupported"),
        (3, "unsupported"),
        (4, "no_permission"),
        (10, "timed_out"),
        (13, "function_missing"),
        (15, "gpu_lost"),
        (16, "gpu_lost"),
        (25, "driver_too_old"),
        (999, "failed"),
        (12345, "undecodable"),
    ],
)
def test_each_code_has_its_reason(code: int, reason: str) -> None:
    snapshot = snapshot_of(L40S.with_gpu(0, returns={"nvmlDeviceGetSerial": code}))
    assert snapshot.gpus[0].serial is None
    assert reason_of(snapshot, "gpus[0].serial") == reason
    assert f"({code})" in detail_of(snapshot, "gpus[0].serial")


def others_than(snapshot: NodeSnapshot, slot: int) -> tuple[object, ...]:
    """Everything a snapshot says of the other GPUs and their pairs."""
    wiring = snapshot.wiring
    return (
        [gpu for gpu in wiring.gpus if gpu.slot != slot],
        [gpu for gpu in snapshot.gpus if gpu.slot != slot],
        [pair for pair in wiring.pcie_levels if f"gpu{slot}" not in (pair.a, pair.b)],
        [pair for pair in wiring.p2p if slot not in (pair.a, pair.b)],
        wiring.nvswitches,
        wiring.numa_nodes,
        snapshot.versions,
    )


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"handle_code": 15}, "gpu_lost"),
        ({"handle_code": 16}, "gpu_lost"),
        ({"handle_code": 4}, "no_permission"),
        ({"handle_code": 999}, "failed"),
        ({"every_code": 15}, "gpu_lost"),
        ({"every_code": 10}, "timed_out"),
    ],
)
def test_one_bad_gpu_does_not_cost_the_node(fault: dict[str, int], reason: str) -> None:
    snapshot = snapshot_of(H100.with_gpu(3, **fault))
    assert others_than(snapshot, 3) == others_than(snapshot_of(H100), 3)
    assert [gpu.slot for gpu in snapshot.wiring.gpus] == list(range(8))
    said = {path for path, _ in leaves(snapshot) if "gpus[3]" in path}
    assert said == {"gpus[3].slot", "wiring.gpus[3].slot", "wiring.gpus[3].vendor"}
    for path in ("gpus[3]", "wiring.gpus[3]", "states[3]", "allocations[gpu3]"):
        assert reason_of(snapshot, path) == reason


def test_a_link_to_a_lost_gpu_keeps_its_address_in_words() -> None:
    snapshot = snapshot_of(V100.with_gpu(1, handle_code=15))
    assert str(snapshot.wiring.gpus[0].ports[0].end) == "gpu"
    assert "00000000:07:00.0" in detail_of(snapshot, "wiring.gpus[0].ports[0].end.index")


def test_when_every_gpu_is_forbidden_the_node_is_still_there() -> None:
    locked = tuple(replace(gpu, handle_code=4) for gpu in H100.gpus)
    snapshot = snapshot_of(replace(H100, gpus=locked))
    assert len(snapshot.wiring.gpus) == 8
    assert snapshot.allocations is None
    for path in ("gpus[*]", "wiring.gpus[*]", "states[*]", "allocations"):
        assert reason_of(snapshot, path) == "no_permission"


NEEDED = {
    "nvmlInitWithFlags",
    "nvmlShutdown",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
}
TWO_H100 = replace(H100, gpus=H100.gpus[:2])


@pytest.mark.parametrize("profile", [TWO_H100, V100], ids=["h100", "v100"])
@pytest.mark.parametrize("symbol", sorted(SYMBOLS - NEEDED))
def test_a_driver_that_lacks_any_one_function_still_tells_the_rest(
    symbol: str, profile: FakeProfile
) -> None:
    snapshot = snapshot_of(profile.lacking(symbol))
    assert [gpu.slot for gpu in snapshot.wiring.gpus] == [0, 1]


FAULTS = st.dictionaries(
    st.sampled_from(sorted(SYMBOLS)), st.sampled_from([2, 3, 4, 10, 15, 21, 25, 999]), max_size=6
)
FIELD_FAULTS = st.dictionaries(st.sampled_from([90, 91, 146, 164, 165]), st.integers(0, 30))
TEXTS = st.binary(max_size=20).filter(lambda raw: b"\0" not in raw)


@settings(max_examples=30, deadline=None)
@given(
    returns=FAULTS,
    field_returns=FIELD_FAULTS,
    serial=TEXTS,
    bus_id=TEXTS,
    lacks=st.frozensets(
        st.sampled_from(sorted(s for s in SYMBOLS if s.startswith("nvmlDeviceGetN"))), max_size=3
    ),
)
def test_any_mixture_of_faults_gives_an_honest_snapshot(
    returns: dict[str, int],
    field_returns: dict[int, int],
    serial: bytes,
    bus_id: bytes,
    lacks: frozenset[str],
) -> None:
    bad: FakeGpu = replace(
        V100.gpus[1],
        returns=returns,
        field_returns=field_returns,
        serial=serial,
        bus_id=bus_id,
    )
    snapshot_of(replace(V100, gpus=(V100.gpus[0], bad)).lacking(*lacks))

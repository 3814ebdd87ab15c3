from pathlib import Path

import pytest

from fleet.errors import SourceError
from fleet.model import Allocation, FabricState, NvlinkFabric
from fleet.sources import nvidia_smi
from tests.fleet.sources.nvidia_smi_texts import (
    CLUSTER,
    MIB,
    ZERO_UUID,
    document,
    fabric,
    gpu,
    platform,
    process,
    read_xml,
    reason_of,
)


def test_among_all_real_files_only_this_kind_is_recognised(artifacts: Path) -> None:
    files = [path for path in artifacts.rglob("*") if path.is_file()]
    known = [p for p in files if nvidia_smi.recognises(p.read_text("utf-8", "replace")[:65536])]
    assert {path.parent.name for path in known} == {"nvidia-smi-xml"}
    assert len(known) == len(list((artifacts / "nvidia-smi-xml").iterdir()))


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("<nvidia_smi_log>", True),
        ("\ufeff\r\n<?xml version='1.0'?>\r\n<!-- <graphs> -->\r\n<nvidia_smi_log\r\n>", True),
        ("<!DOCTYPE nvidia_smi_log SYSTEM 'nvsmi_device_v99.dtd'><nvidia_smi_log/>", True),
        ("<!-- <nvidia_smi_log> --><system version='1'>", False),
        ("<!-- <nvidia_smi_log>", False),
        ("<nvidia_smi_logs>", False),
        ('{"kind": "<nvidia_smi_log>"}', False),
        ("==============NVSMI LOG==============", False),
        ("", False),
        ("<", False),
    ],
)
def test_the_root_element_tells_the_kind(head: str, *, expected: bool) -> None:
    assert nvidia_smi.recognises(head) is expected


def test_what_the_format_never_has_was_not_asked() -> None:
    snapshot = read_xml(document(gpu()))
    for path in ("wiring.gpus[*].numa", "wiring.gpus[*].compute_capability"):
        assert reason_of(snapshot, path) == ("not_asked", None)
    assert reason_of(snapshot, "wiring.gpus[*].ports")[0] == "not_asked"
    assert snapshot.wiring.gpus[0].ports == ()


def test_a_local_time_is_no_moment() -> None:
    snapshot = read_xml(document(gpu()))
    for name in ("devices", "use"):
        path = f"sections[{name}/nvidia_smi].collected_at"
        assert reason_of(snapshot, path) == ("undecodable", "Tue Oct 1 08:15:30 2024")
    assert [section.collected_at for section in snapshot.sections] == [None, None]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("N/A", "unsupported"),
        ("[Not Supported]", "unsupported"),
        ("Insufficient Permissions", "no_permission"),
        ("GPU is lost", "gpu_lost"),
        ("Unknown Error", "undecodable"),
        ("", "undecodable"),
        ("0 MiB", "undecodable"),
        ("81559 MB", "undecodable"),
        ("99999999999999 MiB", "undecodable"),
    ],
)
def test_memory_that_is_not_told_is_never_zero(text: str, reason: str) -> None:
    memory = f"<fb_memory_usage><total>{text}</total></fb_memory_usage>"
    snapshot = read_xml(document(gpu(memory)))
    assert snapshot.wiring.gpus[0].memory_bytes is None
    assert reason_of(snapshot, "wiring.gpus[*].memory_bytes")[0] == reason


def test_blanks_inside_a_value_are_nothing() -> None:
    memory = "<fb_memory_usage><total>\n 81559   MiB </total></fb_memory_usage>"
    assert read_xml(document(gpu(memory))).wiring.gpus[0].memory_bytes == 81559 * 1048576


@pytest.mark.parametrize(
    ("maxima", "generation"),
    [
        ({"max_link_gen": "4"}, 4),
        ({"max_link_gen": "3", "max_device_link_gen": "4", "max_host_link_gen": "3"}, 3),
        ({"max_link_gen": "4", "max_device_link_gen": "4", "max_host_link_gen": "5"}, 4),
        ({"max_link_gen": "5", "max_device_link_gen": "5", "max_host_link_gen": "4"}, 4),
        ({"max_link_gen": "4", "max_device_link_gen": "4", "max_host_link_gen": "N/A"}, 4),
        ({"max_device_link_gen": "5", "max_host_link_gen": "4"}, 4),
        ({"max_link_gen": "N/A", "current_link_gen": "1"}, None),
        ({"current_link_gen": "1"}, None),
        ({"max_link_gen": "0"}, None),
    ],
)
def test_the_generation_is_the_best_of_both_ends_and_never_the_current_one(
    maxima: dict[str, str], generation: int | None
) -> None:
    rows = "".join(f"<{tag}>{text}</{tag}>" for tag, text in maxima.items())
    link = f"<pci_gpu_link_info><pcie_gen>{rows}</pcie_gen></pci_gpu_link_info>"
    snapshot = read_xml(document(gpu(f"<pci>{link}</pci>")))
    assert snapshot.wiring.gpus[0].pcie_generation == generation


def test_the_width_is_the_current_one() -> None:
    widths = "<max_link_width>16x</max_link_width><current_link_width>8x</current_link_width>"
    link = f"<pci_gpu_link_info><link_widths>{widths}</link_widths></pci_gpu_link_info>"
    assert read_xml(document(gpu(f"<pci>{link}</pci>"))).wiring.gpus[0].pcie_width == 8


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        (fabric("Completed", "Success", ZERO_UUID), NvlinkFabric(state=FabricState.SINGLE_NODE)),
        (fabric("Completed", "Success"), NvlinkFabric(state=FabricState.SINGLE_NODE)),
        (
            fabric("Completed", "Success", CLUSTER.upper().replace("-", ""), "3666"),
            NvlinkFabric(state=FabricState.DOMAIN, cluster_uuid=CLUSTER, clique=3666),
        ),
        (fabric("Completed", "Unknown Error", CLUSTER), NvlinkFabric(state=FabricState.BROKEN)),
        (fabric("In Progress", "N/A"), NvlinkFabric(state=FabricState.FORMING)),
        (fabric("Not Started", "N/A"), NvlinkFabric(state=FabricState.FORMING)),
        (fabric("N/A", "N/A", "N/A", "N/A"), NvlinkFabric(state=FabricState.UNSUPPORTED)),
        (fabric("[Not Supported]", "N/A"), NvlinkFabric(state=FabricState.UNSUPPORTED)),
        ("<fabric>N/A</fabric>", NvlinkFabric(state=FabricState.UNSUPPORTED)),
    ],
)
def test_the_fabric_is_told_by_state_status_and_cluster(
    element: str, expected: NvlinkFabric
) -> None:
    assert read_xml(document(gpu(element))).gpus[0].fabric == expected


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        (fabric("GPU is lost", "GPU is lost"), "gpu_lost"),
        (fabric("Insufficient Permissions", "N/A"), "no_permission"),
        (fabric("Halfway", "Success"), "undecodable"),
        (fabric("Completed", "N/A", CLUSTER), "undecodable"),
        (fabric("Completed", "Success", "REDACTED"), "undecodable"),
        (fabric("Completed", "Success", CLUSTER, "N/A"), "undecodable"),
        ("<fabric><health/></fabric>", "undecodable"),
    ],
)
def test_a_fabric_that_is_not_clear_is_none_with_a_reason(element: str, reason: str) -> None:
    snapshot = read_xml(document(gpu(element)))
    assert snapshot.gpus[0].fabric is None
    assert reason_of(snapshot, "gpus[*].fabric")[0] == reason


@pytest.mark.parametrize(
    ("driver", "reason"),
    [("515.65.01", "driver_too_old"), ("550.90.07", "not_asked"), ("N/A", "not_asked")],
)
def test_a_file_without_fabric_is_of_an_old_driver_or_was_not_asked(
    driver: str, reason: str
) -> None:
    without = gpu().replace("<fabric><state>N/A</state></fabric>", "")
    snapshot = read_xml(document(without, driver=driver))
    assert reason_of(snapshot, "gpus[*].fabric") == (reason, None)


def test_a_driver_from_before_cuda_versions_is_called_too_old() -> None:
    content = document(gpu(), driver="390.48").replace(b"<cuda_version>12.4</cuda_version>", b"")
    snapshot = read_xml(content)
    assert snapshot.versions is not None
    assert (snapshot.versions.driver, snapshot.versions.cuda) == ("390.48", None)
    assert reason_of(snapshot, "versions.cuda") == ("driver_too_old", None)


def test_a_process_that_computes_holds_its_gpus_once() -> None:
    both = process("411", "C", "python3")
    snapshot = read_xml(
        document(
            gpu(bus="18", uuid=1, processes=both + process("9", "G", "/usr/lib/xorg/Xorg")),
            gpu(bus="19", uuid=2, processes=both + process("77", "M+C", "nvidia-cuda-mps-server")),
            gpu(bus="1a", uuid=3),
        )
    )
    assert snapshot.allocations == (
        Allocation(holder="pid 411 python3", slots=(0, 1)),
        Allocation(holder="pid 77 nvidia-cuda-mps-server", slots=(1,)),
    )


def test_a_holder_without_pid_or_name_is_still_a_holder() -> None:
    nameless = process("5", "C", "[Not Found]") + process("N/A", "C+G", "N/A")
    snapshot = read_xml(document(gpu(processes=nameless)))
    assert snapshot.allocations is not None
    assert [a.holder for a in snapshot.allocations] == ["pid 5", "a process without pid and name"]


def test_an_empty_process_list_holds_nothing() -> None:
    assert read_xml(document(gpu(), gpu(bus="19", uuid=2))).allocations == ()


@pytest.mark.parametrize(
    ("processes", "reason"),
    [
        ("N/A", "unsupported"),
        ("Insufficient Permissions", "no_permission"),
        (process("5", "Q", "python3"), "undecodable"),
        ("some text", "undecodable"),
    ],
)
def test_one_gpu_that_hides_its_processes_hides_the_nodes_use(processes: str, reason: str) -> None:
    held = gpu(bus="19", uuid=2, processes=process("411", "C", "python3"))
    snapshot = read_xml(document(held, gpu(processes=processes)))
    assert snapshot.allocations is None
    assert reason_of(snapshot, "allocations")[0] == reason
    assert [section.name for section in snapshot.sections] == ["devices"]


def test_gpus_counted_but_not_listed_are_told() -> None:
    snapshot = read_xml(document(gpu(), attached=4))
    assert len(snapshot.gpus) == 1
    assert reason_of(snapshot, "wiring.gpus") == ("not_asked", "attached_gpus says 4, 1 listed")


def test_more_gpus_than_counted_are_kept_and_told() -> None:
    snapshot = read_xml(document(gpu(), gpu(bus="19", uuid=2), attached=1))
    assert len(snapshot.gpus) == 2
    assert reason_of(snapshot, "wiring.gpus")[0] == "undecodable"


def test_a_node_whose_driver_counts_no_gpus_is_a_node_without_gpus() -> None:
    snapshot = read_xml(document())
    assert (snapshot.gpus, snapshot.wiring.gpus, snapshot.allocations) == ((), (), ())


def test_one_uuid_over_two_gpus_names_only_the_first() -> None:
    snapshot = read_xml(document(gpu(bus="18"), gpu(bus="19")))
    assert [g.uuid for g in snapshot.gpus] == ["GPU-aaaaaaaa-0000-4000-8000-000000000001", None]
    assert reason_of(snapshot, "gpus[1].uuid") == (
        "undecodable",
        "GPU-aaaaaaaa-0000-4000-8000-000000000001, which is gpu 0",
    )


def test_one_serial_on_both_gpus_of_a_superchip_is_kept() -> None:
    serial = "<serial>1655324011234</serial>"
    snapshot = read_xml(document(gpu(serial, uuid=1), gpu(serial, uuid=2, bus="19")))
    assert [g.serial for g in snapshot.gpus] == ["1655324011234", "1655324011234"]


def test_chassis_and_tray_are_the_nodes_where_its_gpus_agree() -> None:
    lost = platform("GPU is lost", "GPU is lost", "GPU is lost")
    gpus = (gpu(platform("1820325190042", "17", "1")), gpu(lost, bus="19", uuid=2))
    snapshot = read_xml(document(*gpus))
    assert (snapshot.chassis_serial, snapshot.tray) == ("1820325190042", 17)
    assert [slot.module_id for slot in snapshot.wiring.gpus] == [1, None]


def test_chassis_that_differ_are_none_of_them() -> None:
    gpus = (gpu(platform("111", "0", "1")), gpu(platform("222", "0", "2"), bus="19", uuid=2))
    snapshot = read_xml(document(*gpus))
    assert (snapshot.chassis_serial, snapshot.tray) == (None, 0)
    assert reason_of(snapshot, "chassis_serial") == ("undecodable", "111 and 222")


def test_the_module_of_older_drivers_counts_where_platform_info_is_missing() -> None:
    snapshot = read_xml(document(gpu("<gpu_module_id>5</gpu_module_id>")))
    assert snapshot.wiring.gpus[0].module_id == 5


def test_a_gpu_partitioned_by_mig_is_one_gpu_of_its_whole_memory() -> None:
    mig = (
        "<mig_mode><current_mig>Enabled</current_mig></mig_mode><mig_devices><mig_device>"
        "<index>0</index><fb_memory_usage><total>9856 MiB</total></fb_memory_usage>"
        "</mig_device></mig_devices>"
    )
    held = process("411", "C", "python3")
    snapshot = read_xml(document(gpu(mig, processes=held + held)))
    assert snapshot.wiring.gpus[0].memory_bytes == 81559 * MIB
    assert snapshot.allocations == (Allocation(holder="pid 411 python3", slots=(0,)),)


def test_a_lost_gpu_keeps_its_slot_and_its_address() -> None:
    tags = ("uuid", "serial", "product_name")
    lost = "".join(f"<{tag}>GPU is lost</{tag}>" for tag in tags)
    snapshot = read_xml(document(gpu(uuid=1), gpu(lost, bus="19", uuid=2)))
    assert snapshot.wiring.gpus[1].pci_address == "00000000:19:00.0"
    assert reason_of(snapshot, "gpus[1].uuid") == ("gpu_lost", None)
    assert reason_of(snapshot, "wiring.gpus[1].product_name") == ("gpu_lost", None)


def test_an_unknown_element_is_no_matter() -> None:
    assert read_xml(document(gpu("<quantum_mode>Enabled</quantum_mode>"))).gpus[0].uuid is not None


def test_the_pci_address_is_read_from_below_where_the_gpu_has_no_id() -> None:
    inner = "<pci><pci_bus_id>0008:01:00.0</pci_bus_id></pci>"
    content = document(gpu(inner)).replace(b' id="00000000:18:00.0"', b"")
    assert read_xml(content).wiring.gpus[0].pci_address == "00000008:01:00.0"


def test_ill_formed_xml_of_the_driver_itself_names_the_line() -> None:
    clocks = "\n<supported_clocks>\n<supported_mem_clock>\n7501 MHz</value>\n</supported_clocks>\n"
    with pytest.raises(SourceError, match=r"q\.xml: line 7: broken XML: mismatched tag"):
        read_xml(document(gpu(clocks)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"line 1: broken XML"),
        (b"<system version='1'/>", r"line 1: the root is <system>"),
        (b"\n<nvidia_smi_log><timestamp/></nvidia_smi_log>", r"lists no <gpu>"),
        (document(gpu())[:-9], r"line 4: broken XML"),
        (document(gpu()) + document(gpu()), r"broken XML"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><nvidia_smi_log/>', r"declares an entity"),
        (b'<?xml version="1.0" encoding="shift_jis"?><nvidia_smi_log/>', r"declares an encoding"),
        (b'<?xml version="1.0" encoding="none"?><nvidia_smi_log/>', r"declares an encoding"),
    ],
)
def test_what_is_no_such_document_is_refused_in_one_line(content: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        read_xml(content)
    assert str(caught.value).startswith("q.xml: ")
    assert "\n" not in str(caught.value)

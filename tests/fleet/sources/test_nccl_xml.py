import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.errors import SourceError
from fleet.fields import AbsenceReason, HostName
from fleet.model import NodeSnapshot
from fleet.sources.nccl_xml import read, recognises
from fleet.wiring import EndKind, GpuSlot, GpuVendor, NvSwitch, PortTechnology
from tests.contracts import assert_honest

ROOT = Path(__file__).resolve().parents[3]
ARTIFACTS = ROOT.parent / "shared" / "data" / "artifacts" / "files"
TOPOLOGIES = sorted(path.name for path in (ARTIFACTS / "nccl-topo-xml").glob("*.xml"))
SAMPLES = sorted((ROOT / "samples" / "captures").glob("*/nccl-topology.xml"))

H100 = 'class="0x030200" vendor="0x10de" link_speed="32.0 GT/s PCIe" link_width="16"'


def topology(*devices: str, cpu: str = 'numaid="0" arch="x86_64"') -> str:
    return f'<system version="1"><cpu {cpu}>{"".join(devices)}</cpu></system>'


def gpu(bus: str, *links: str, dev: int = 0, attributes: str = 'sm="90"') -> str:
    rows = "".join(links)
    return f'<pci busid="{bus}" {H100}><gpu dev="{dev}" {attributes}>{rows}</gpu></pci>'


def nvlink(target: str, count: int | str, tclass: str = "0x068000") -> str:
    return f'<nvlink target="{target}" count="{count}" tclass="{tclass}"/>'


def snapshots(text: str) -> tuple[NodeSnapshot, ...]:
    found = read(text.encode(), where="topo.xml", host=HostName("node7"))
    for snapshot in found:
        assert_honest(snapshot)
    return found


def snapshot(*devices: str, cpu: str = 'numaid="0" arch="x86_64"') -> NodeSnapshot:
    (only,) = snapshots(topology(*devices, cpu=cpu))
    return only


def why(found: NodeSnapshot, path: str) -> AbsenceReason:
    return next(absence.reason for absence in found.absences if absence.path == path)


def buses(devices: Iterable[GpuSlot | NvSwitch]) -> list[str]:
    return [str(device.pci_address)[9:11] for device in devices]


def links(found: NodeSnapshot) -> list[dict[str, int]]:
    return [{str(port.end): port.count for port in gpu.ports} for gpu in found.wiring.gpus]


def of_sample(name: str) -> tuple[NodeSnapshot, ...]:
    return snapshots((ROOT / "samples" / "captures" / name / "nccl-topology.xml").read_text())


@pytest.mark.parametrize(
    "head",
    [
        '<system version="1">',
        '\n<system version="2">',
        '<?xml version="1.0"?>\n<!-- a\n cloud\'s -->\n\n<system>',
        '<graphs version="1">',
        '<pci busid="0000:18:00.0" class="0x030200">',
    ],
)
def test_topologies_graphs_and_pieces_are_recognised(head: str) -> None:
    assert recognises(head)


@pytest.mark.parametrize(
    "head",
    [
        "",
        '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n'
        "<nvidia_smi_log>",
        '<topology version="3.0"><info name="x"/><system/>',
        "<systems><system/></systems>",
        "see <system> below",
    ],
)
def test_other_files_are_not_recognised(head: str) -> None:
    assert not recognises(head)


def test_graph_dump_is_refused_and_told_from_a_topology() -> None:
    with pytest.raises(SourceError, match=r"line 1: a graph dump .*NCCL_TOPO_DUMP_FILE"):
        snapshots('<graphs version="1"/>')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<pci busid="0000:18:00.0"/>', "line 1: <pci> is the outermost element"),
        ('<system>\n<pci busid="0000:18:00.0"/></system>', "line 2: <pci> outside any <cpu>"),
        ("<system/>\n<system/>", "line 2: broken XML: junk after document element"),
        ('<system>\n<cpu numaid="0">\n<pci', "line 3: broken XML: .* inside <cpu>"),
        ("<system/>", "line 1: <system> without a <cpu>"),
        ('<?xml version="1.0" encoding="nope"?><system/>', "unknown encoding"),
        (topology(cpu='numaid="one"'), "numaid='one' is no number"),
        (topology(gpu("0:1:0.0", nvlink("0:2:0.0", "many"))), "count='many' is no number of links"),
        (topology(gpu("0:1:0.0"), gpu("0:1:0.0")), "a second GPU at 00000000:01:00.0"),
        (
            '<system><cpu host_hash="0x1" numaid="0"/>\n<cpu numaid="0"/></system>',
            "line 2: <cpu> without host_hash",
        ),
        (topology(cpu=f'numaid="0" arch="{"x" * 1025}"'), "architecture: .* 1024 characters"),
    ],
)
def test_fault_is_told_with_file_and_place(text: str, message: str) -> None:
    with pytest.raises(SourceError, match=rf"^topo.xml: (?s:.*){message}"):
        snapshots(text)


def test_hosts_of_one_dump_are_told_apart_by_their_hash() -> None:
    cpu = '<cpu numaid="0" host_hash="{}">' + gpu("0008:06:00.0") + "</cpu>"
    text = f"<system>{cpu.format('0xa b')}{cpu.format('0xHASH_B')}</system>"
    assert [found.host for found in snapshots(text)] == ["node7-0xa-b", "node7-0xHASH_B"]


def test_hashes_that_are_alike_as_names_are_numbered() -> None:
    text = '<system><cpu host_hash="a b"/><cpu host_hash="a-b"/></system>'
    assert [found.host for found in snapshots(text)] == ["node7-0-a-b", "node7-1-a-b"]


def test_numa_node_has_the_cpus_of_its_mask_as_ranges() -> None:
    attributes = 'affinity="0000000f,00000000,f0000001" numaid="3" modelid="49" host_hash="0x1"'
    (node,) = snapshot(cpu=attributes).wiring.numa_nodes
    assert node.model_dump() == {
        "numa": 3,
        "architecture": None,
        "vendor": None,
        "family": None,
        "model": "49",
        "cpu_affinity": "0,28-31,64-67",
    }


def test_numa_node_without_number_or_with_a_broken_mask_says_so() -> None:
    found = snapshot(gpu("0:1:0.0"), cpu='numaid="-1" affinity="all"')
    assert found.wiring.numa_nodes[0].numa == found.wiring.gpus[0].numa == -1
    assert why(found, "wiring.numa_nodes[-1].cpu_affinity") is AbsenceReason.UNDECODABLE


def test_bridges_nest_and_parents_have_lower_numbers() -> None:
    inner = f'<pci busid="0000:0d:00.0" class="0x060400">{gpu("0000:0f:00.0")}</pci>'
    nic = '<pci busid="0:c:0.0" class="0x020700"/>'
    outer = 'vendor="0x1000" device="0xC030" link_speed="2.5 GT/s PCIe" link_width="1"'
    outer = f'<pci busid="ffff:ff:01.0" class="0x060400" {outer}>{inner}{nic}</pci>'
    wiring = snapshot(outer).wiring
    assert [(b.bridge, b.parent, b.pci_address) for b in wiring.bridges] == [
        (0, None, "0000ffff:ff:01.0"),
        (1, 0, "00000000:0d:00.0"),
    ]
    first = wiring.bridges[0]
    assert (first.vendor_device, first.pcie_generation, first.pcie_width) == ("1000:c030", 1, 1)
    assert (wiring.gpus[0].bridge, wiring.nics[0].bridge) == (1, 0)


@pytest.mark.parametrize(
    ("speed", "generation"),
    [("5 GT/s", 2), ("8.0 GT/s PCIe", 3), ("64.0 GT/s PCIe", 6), ("", None), ("Unknown", None)],
)
def test_pcie_generation_follows_the_link_speed(speed: str, generation: int | None) -> None:
    device = f'<pci busid="0:1:0.0" class="0x030200" link_speed="{speed}" link_width="0"/>'
    found = snapshot(device)
    assert found.wiring.gpus[0].pcie_generation == generation
    assert found.wiring.gpus[0].pcie_width is None
    assert why(found, "wiring.gpus[*].pcie_width") is AbsenceReason.UNSUPPORTED


def test_gpus_are_in_the_order_of_dev_even_with_gaps() -> None:
    found = snapshot(gpu("0:3:0.0", dev=4), gpu("0:1:0.0", dev=1), gpu("0:2:0.0", dev=0))
    assert buses(found.wiring.gpus) == ["02", "01", "03"]


def test_gpus_whose_dev_repeats_stay_in_the_order_of_the_file() -> None:
    found = snapshot(gpu("0:3:0.0", dev=1), gpu("0:1:0.0", dev=0), gpu("0:2:0.0", dev=0))
    assert buses(found.wiring.gpus) == ["03", "01", "02"]


def test_partitions_of_one_gpu_are_one_gpu_with_its_links_once() -> None:
    part = f'<gpu dev="0" sm="100" mlopart="{{}}">{nvlink("fffffff:ff:ff.0", 18)}</gpu>'
    device = f'<pci busid="0:1:0.0" {H100}>{part.format(0)}{part.format(1)}</pci>'
    assert links(snapshot(device)) == [{"switch": 18}]


@pytest.mark.parametrize(
    ("pci", "attributes", "vendor", "capability"),
    [
        ('vendor="0x10de"', 'sm="103"', GpuVendor.NVIDIA, "10.3"),
        ("", 'sm="80"', GpuVendor.NVIDIA, "8.0"),
        ('vendor="0x1002"', 'sm="304" gcn="gfx942"', GpuVendor.AMD, "gfx942"),
        ("", 'sm="104" gcn="910"', GpuVendor.AMD, "gfx90a"),
        ("", 'sm="64" gcn="906"', GpuVendor.AMD, "gfx906"),
        ('vendor="0x1002"', 'sm="104"', GpuVendor.AMD, None),
        ('vendor="0x8086"', 'sm="80"', GpuVendor.UNREPORTED, None),
    ],
)
def test_vendor_and_compute_capability(
    pci: str, attributes: str, vendor: GpuVendor, capability: str | None
) -> None:
    device = f'<pci busid="0:1:0.0" class="0x038000" {pci}><gpu dev="0" {attributes}/></pci>'
    slot = snapshot(device).wiring.gpus[0]
    assert (slot.vendor, slot.compute_capability) == (vendor, capability)


def test_rows_to_one_end_add_up_and_switches_are_numbered_by_address() -> None:
    rows = (nvlink("0:b:0.0", 5), nvlink("0:a:0.0", 4), nvlink("0:b:0.0", 1), nvlink("0:c:0.0", 0))
    found = snapshot(gpu("0:1:0.0", *rows))
    assert links(found) == [{"switch0": 4, "switch1": 6}]
    assert buses(found.wiring.nvswitches) == ["0a", "0b", "0c"]


def test_hidden_switch_is_an_end_without_a_number() -> None:
    found = snapshot(gpu("0:1:0.0", nvlink("fffffff:ff:ff.0", 18)))
    assert links(found) == [{"switch": 18}]
    assert found.wiring.nvswitches == ()


def test_asymmetric_link_is_kept_as_reported() -> None:
    here = gpu("0:1:0.0", nvlink("0:2:0.0", 12, "0x030200"), dev=0)
    there = gpu("0:2:0.0", nvlink("0:1:0.0", 1, "0x030200"), dev=1)
    assert links(snapshot(here, there)) == [{"gpu1": 12}, {"gpu0": 1}]


def test_link_to_no_device_of_this_host_is_kept_without_an_end() -> None:
    found = snapshot(gpu("0:1:0.0", nvlink("0:99:0.0", 4, "0x030200")))
    assert found.wiring.gpus[0].ports[0].end.kind is EndKind.UNREPORTED
    assert links(found) == [{"unreported": 4}]
    (absence,) = [a for a in found.absences if a.path.endswith("end.index")]
    assert "0:99:0.0" in str(absence.detail)


def test_link_to_a_power_processor_ends_at_its_npu() -> None:
    assert links(snapshot(gpu("4:4:0.0", nvlink("4:0:0.0", 3, "0x068001")))) == [{"npu": 3}]


def test_xgmi_rows_are_ports_of_that_technology() -> None:
    row = '<xgmi target="0:2:0.0" count="2" tclass="0x038000"/>'
    found = snapshot(gpu("0:1:0.0", row, dev=0), gpu("0:2:0.0", dev=1))
    (port,) = found.wiring.gpus[0].ports
    assert (port.technology, port.count, str(port.end)) == (PortTechnology.XGMI, 2, "gpu1")


def test_c2c_rate_is_that_of_one_link() -> None:
    slot = snapshot(gpu("0:1:0.0", '<c2c bw="44712" count="10"/>')).wiring.gpus[0]
    assert slot.c2c is not None
    assert (slot.c2c.count, slot.c2c.bytes_per_s) == (10, 44.712e9)


@pytest.mark.parametrize("row", ['<c2c bw="44712" count="0"/>', '<c2c count="5"/>'])
def test_c2c_without_links_or_rate_is_none(row: str) -> None:
    assert snapshot(gpu("0:1:0.0", row)).wiring.gpus[0].c2c is None


def test_unknown_elements_and_attributes_do_not_matter() -> None:
    row = '<nvlink count="2" new="1" target="fffffff:ff:ff.0" tclass="0x068000"><x/></nvlink>'
    found = snapshot(gpu("0:1:0.0", row, "<future/>"), "<future><y/></future>")
    assert links(found) == [{"switch": 2}]


def test_template_tells_gpus_and_nics_by_class_and_neither_links_nor_ports() -> None:
    classes = ("0x030200", "0x030000", "0x120000", "0x038000", "0x020000", "0x020700", "0x010802")
    found = snapshot(*(f'<pci busid="0:{i}:00.0" class="{c}"/>' for i, c in enumerate(classes)))
    assert buses(found.wiring.gpus) == ["00", "01", "02", "03"]
    assert [nic.ports for nic in found.wiring.nics] == [(), ()]
    assert {slot.vendor for slot in found.wiring.gpus} == {GpuVendor.UNREPORTED}
    for path in ("wiring.gpus[*].ports", "wiring.nics[*].ports", "nics[*].guid"):
        assert why(found, path) is AbsenceReason.NOT_ASKED


def test_device_without_class_is_absent_by_name() -> None:
    found = snapshot('<pci busid="0000:00:16.0"/>')
    assert found.wiring.gpus == found.wiring.nics == found.wiring.bridges == ()
    assert why(found, "wiring.gpus[00000000:00:16.0]") is AbsenceReason.NOT_ASKED


def test_every_sample_is_read() -> None:
    assert {path.parent.name for path in SAMPLES} >= {"hgx-h100-8", "v100-mesh-8", "two-trays"}
    for path in SAMPLES:
        assert recognises(path.read_text())
        assert snapshots(path.read_text())


def test_sample_of_an_hgx_board() -> None:
    (found,) = of_sample("hgx-h100-8")
    wiring = found.wiring
    assert links(found) == [{"switch0": 4, "switch1": 5, "switch2": 5, "switch3": 4}] * 8
    assert [slot.compute_capability for slot in wiring.gpus] == ["9.0"] * 8
    assert [slot.bridge for slot in wiring.gpus] == [nic.bridge for nic in wiring.nics]
    assert [nic.ports[0].rail for nic in wiring.nics] == list(range(8))
    assert {port.bytes_per_s for nic in wiring.nics for port in nic.ports} == {50e9}
    assert [node.cpu_affinity for node in wiring.numa_nodes] == ["0-55,112-167", "56-111,168-223"]
    assert found.nics[7].guid == "a088c203005107a0"
    assert buses(wiring.nvswitches) == ["05", "06", "07", "08"]


def test_sample_of_a_mesh_has_six_links_a_gpu_and_both_ends_agree() -> None:
    (found,) = of_sample("v100-mesh-8")
    assert links(found)[0] == {"gpu1": 1, "gpu2": 1, "gpu3": 2, "gpu4": 2}
    assert links(found)[6] == {"gpu2": 1, "gpu4": 1, "gpu5": 2, "gpu7": 2}
    assert [sum(ends.values()) for ends in links(found)] == [6] * 8
    for slot, ends in enumerate(links(found)):
        assert all(links(found)[int(end[3:])][f"gpu{slot}"] == n for end, n in ends.items())
    assert [slot.numa for slot in found.wiring.gpus] == [0] * 4 + [1] * 4
    assert [nic.ports[0].bytes_per_s for nic in found.wiring.nics] == [12.5e9] * 4


def test_sample_of_two_trays_is_two_hosts_of_one_wiring() -> None:
    one, two = of_sample("two-trays")
    assert (one.host, two.host) == ("node7-0x7a11e70000000001", "node7-0x7a11e70000000002")
    assert one.wiring == two.wiring
    assert links(one) == [{"switch": 18}] * 4
    assert [nic.ports[0].rail for nic in one.wiring.nics] == [0, 1, 2, 3, None]
    assert {nic.guid for nic in one.nics}.isdisjoint({nic.guid for nic in two.nics})


@pytest.mark.parametrize("name", TOPOLOGIES or ["none"])
def test_real_file_keeps_its_devices(artifacts: Path, name: str) -> None:
    text = (artifacts / "nccl-topo-xml" / name).read_text()
    found = snapshots(text)
    assert recognises(text)
    assert len(found) == len(set(re.findall(r'host_hash="([^"]*)"', text)) or {""})
    assert sum(len(one.wiring.gpus) for one in found) == len(
        re.findall(r"<gpu ", text) or re.findall(r'class="0x0(?:302|300|380)|class="0x1200', text)
    )
    assert sum(len(one.wiring.nics) for one in found) == _nics_in(ET.fromstring(text.strip()))
    switches = set(re.findall(r'target="(?!f+:)([^"]*)" count="\d+" tclass="0x068000"', text))
    assert sum(len(one.wiring.nvswitches) for one in found) == len(switches)
    counts = re.findall(r'<(?:nvlink|xgmi) [^>]*count="(\d+)"', text)
    assert sum(sum(ends.values()) for one in found for ends in links(one)) == sum(map(int, counts))


def _nics_in(root: ET.Element) -> int:
    devices = {p.get("busid") for p in root.iter("pci") if (p.get("class") or "")[:4] == "0x02"}
    interfaces = {net.get("name") for cpu in root.iter("cpu") for net in cpu.findall("nic/net")}
    return len(devices) + len(interfaces)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nccl-graph-xml/yccl-graph.xml", "line 1: a graph dump"),
        ("malformed/nccl-h200-baremetal-truncated.xml", "line 53: broken XML.* inside <nic>"),
        ("malformed/nccl-two-systems-concatenated.txt", "line 20: broken XML: junk after"),
    ],
)
def test_real_file_that_is_no_topology_is_refused(artifacts: Path, name: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        snapshots((artifacts / name).read_text())


_VALUES = st.sampled_from(["", "0", "-1", "0x10", "999999999999", "N/A", " ", "ffff", "0:1:0.0"])
_SEED = topology(
    gpu("0:1:0.0", nvlink("0:a:0.0", 4), '<c2c bw="44712" count="5"/>', dev=0),
    '<pci busid="0:2:0.0" class="0x060400"><pci busid="0:3:0.0" class="0x020700" vendor="0x15b3">'
    '<nic><net name="mlx5_0" dev="0" speed="400000" port="1" guid="0xa000510003c288a0"/></nic>'
    "</pci></pci>",
    '<nic><net name="veth0" dev="1" speed="10000" port="0" guid="0x1"/></nic>',
    cpu='host_hash="0x1" numaid="0" affinity="ff" arch="x86_64"',
)
_ATTRIBUTES = sorted(set(re.findall(r'\w+="[^"]*"', _SEED)))


@st.composite
def _hostile(draw: st.DrawFn) -> bytes:
    text = _SEED
    for attribute in draw(st.lists(st.sampled_from(_ATTRIBUTES), max_size=3)):
        value = draw(_VALUES | st.text("0123456789abcdefx:.,", max_size=12))
        text = text.replace(attribute, f'{attribute.partition("=")[0]}="{value}"')
    a, b = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    return draw(
        st.sampled_from([text, text, text[:a], text[:a] + text[b:], text[:b] + text[a:]])
    ).encode()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_hostile() | st.binary(max_size=200))
def test_hostile_text_gives_honest_snapshots_or_a_source_error(content: bytes) -> None:
    try:
        found = read(content, where="topo.xml", host=HostName("node7"))
    except SourceError:
        return
    for one in found:
        assert_honest(one)

from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from fleet.errors import SourceError
from fleet.model import FabricState
from fleet.sources.machines import GpuModel, NvlinkModel, machine_from_name, machine_names
from fleet.wiring import (
    EndKind,
    GpuSlot,
    GpuVendor,
    LinkLayer,
    NicSlot,
    P2pState,
    PortTechnology,
)

MIB = 2**20
GPUS = {
    # model: GPUs, product, compute capability, memory, links of a GPU, rate of a link and direction
    "dgx1-p100": (8, "Tesla P100-SXM2-16GB", "6.0", 16281 * MIB, 4, 20e9),
    "pcie-p100": (1, "Tesla P100-PCIE-16GB", "6.0", 16280 * MIB, 0, None),
    "dgx1-v100": (8, "Tesla V100-SXM2-32GB", "7.0", 32510.5 * MIB, 6, 25e9),
    "hgx-v100-4": (4, "Tesla V100-SXM2-16GB", "7.0", 16160.5 * MIB, 6, 25e9),
    "dgx2-v100": (16, "Tesla V100-SXM3-32GB", "7.0", 32510.5 * MIB, 6, 25e9),
    "pcie-v100": (8, "Tesla V100-PCIE-32GB", "7.0", 32510.5 * MIB, 0, None),
    "pcie-t4": (8, "Tesla T4", "7.5", 15360 * MIB, 0, None),
    "dgx-a100": (8, "NVIDIA A100-SXM4-80GB", "8.0", 81920 * MIB, 12, 25e9),
    "hgx-a100-4": (4, "NVIDIA A100-SXM4-40GB", "8.0", 40960 * MIB, 12, 25e9),
    "hgx-a800": (8, "NVIDIA A800-SXM4-80GB", "8.0", 81920 * MIB, 8, 25e9),
    "pcie-a100": (8, "NVIDIA A100-PCIE-40GB", "8.0", 40960 * MIB, 0, None),
    "pcie-a100-nvlink": (8, "NVIDIA A100 80GB PCIe", "8.0", 81920 * MIB, 12, 25e9),
    "pcie-a10g": (8, "NVIDIA A10G", "8.6", 23028 * MIB, 0, None),
    "pcie-rtx3090": (8, "NVIDIA GeForce RTX 3090", "8.6", 24576 * MIB, 0, None),
    "pcie-l4": (8, "NVIDIA L4", "8.9", 23034 * MIB, 0, None),
    "pcie-l40s": (8, "NVIDIA L40S", "8.9", 46068 * MIB, 0, None),
    "pcie-rtx4090": (8, "NVIDIA GeForce RTX 4090", "8.9", 24564 * MIB, 0, None),
    "dgx-h100": (8, "NVIDIA H100 80GB HBM3", "9.0", 81559 * MIB, 18, 25e9),
    "hgx-h100-4": (4, "NVIDIA H100 80GB HBM3", "9.0", 81559 * MIB, 18, 25e9),
    "dgx-h200": (8, "NVIDIA H200", "9.0", 143771 * MIB, 18, 25e9),
    "hgx-h20": (8, "NVIDIA H20", "9.0", 97871 * MIB, 18, 25e9),
    "hgx-h800": (8, "NVIDIA H800", "9.0", 81559 * MIB, 8, 25e9),
    "pcie-h100": (8, "NVIDIA H100 PCIe", "9.0", 81559 * MIB, 0, None),
    "pcie-h100-nvl": (8, "NVIDIA H100 NVL", "9.0", 95830 * MIB, 12, 25e9),
    "pcie-h200-nvl": (8, "NVIDIA H200 NVL", "9.0", 143771 * MIB, 18, 25e9),
    "gh200": (1, "NVIDIA GH200 480GB", "9.0", 97871 * MIB, 0, None),
    "gh200-quad": (4, "NVIDIA GH200 120GB", "9.0", 97871 * MIB, 18, 25e9),
    "dgx-b200": (8, "NVIDIA B200", "10.0", 183359 * MIB, 18, 50e9),
    "gb200-nvl72": (4, "NVIDIA GB200", "10.0", 189471 * MIB, 18, 50e9),
    "dgx-b300": (8, "NVIDIA B300 SXM6 AC", "10.3", 275040 * MIB, 18, 50e9),
    "gb300-nvl72": (4, "NVIDIA GB300", "10.3", 284208 * MIB, 18, 50e9),
    "pcie-rtx5090": (8, "NVIDIA GeForce RTX 5090", "12.0", 32607 * MIB, 0, None),
    "pcie-rtx6000d": (8, "NVIDIA RTX 6000D", "12.0", 86016 * MIB, 0, None),
    "pcie-rtxpro6000": (
        8,
        "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        "12.0",
        97887 * MIB,
        0,
        None,
    ),
    "mi300x": (8, "AMD Instinct MI300X", "gfx942", 196592 * MIB, 7, 64e9),
    "mi325x": (8, "AMD Instinct MI325X", "gfx942", 262128 * MIB, 7, 64e9),
    "mi355x": (8, "AMD Instinct MI355X", "gfx950", 294896 * MIB, 7, 76.8e9),
}
IB, ROCE, EFA = LinkLayer.INFINIBAND, LinkLayer.ROCE, LinkLayer.EFA
NICS = {
    "dgx1-p100": (4, IB, 12.5e9),
    "pcie-p100": (1, LinkLayer.ARIES, 10.2e9),
    "dgx1-v100": (4, IB, 12.5e9),
    "hgx-v100-4": (2, IB, 12.5e9),
    "dgx2-v100": (8, IB, 12.5e9),
    "pcie-v100": (4, IB, 12.5e9),
    "pcie-t4": (1, EFA, 12.5e9),
    "dgx-a100": (8, IB, 25e9),
    "hgx-a100-4": (4, IB, 25e9),
    "hgx-a800": (8, IB, 25e9),
    "pcie-a100": (4, IB, 25e9),
    "pcie-a100-nvlink": (4, IB, 25e9),
    "pcie-a10g": (1, EFA, 12.5e9),
    "pcie-rtx3090": (1, ROCE, 12.5e9),
    "pcie-l4": (1, EFA, 12.5e9),
    "pcie-l40s": (4, ROCE, 50e9),
    "pcie-rtx4090": (1, ROCE, 12.5e9),
    "dgx-h100": (8, IB, 50e9),
    "hgx-h100-4": (4, IB, 50e9),
    "dgx-h200": (8, IB, 50e9),
    "hgx-h20": (8, IB, 50e9),
    "hgx-h800": (8, IB, 50e9),
    "pcie-h100": (4, IB, 50e9),
    "pcie-h100-nvl": (4, IB, 50e9),
    "pcie-h200-nvl": (4, IB, 50e9),
    "gh200": (1, IB, 50e9),
    "gh200-quad": (4, LinkLayer.SLINGSHOT, 25e9),
    "dgx-b200": (8, IB, 50e9),
    "gb200-nvl72": (4, IB, 50e9),
    "dgx-b300": (8, IB, 100e9),
    "gb300-nvl72": (4, IB, 100e9),
    "pcie-rtx5090": (1, ROCE, 12.5e9),
    "pcie-rtx6000d": (8, ROCE, 50e9),
    "pcie-rtxpro6000": (4, ROCE, 50e9),
    "mi300x": (8, ROCE, 50e9),
    "mi325x": (8, ROCE, 50e9),
    "mi355x": (8, ROCE, 50e9),
    "beowulf-2006": (1, LinkLayer.ETHERNET, 0.125e9),
}
# GPUs that have links to a GPU, of those without switches: how many others, and links to each
MESHES = {
    "hgx-v100-4": {3: 2},
    "hgx-a100-4": {3: 4},
    "hgx-h100-4": {3: 6},
    "gh200-quad": {3: 6},
    "pcie-a100-nvlink": {1: 12},
    "pcie-h100-nvl": {1: 12},
    "pcie-h200-nvl": {3: 6},
    "dgx1-p100": {4: 1},
    "mi300x": {7: 1},
    "mi325x": {7: 1},
    "mi355x": {7: 1},
}
DGX1_MESH = (
    # links from each GPU to each, as `nvidia-smi topo -m` of a DGX-1 with V100 prints them
    (0, 1, 1, 2, 2, 0, 0, 0),
    (1, 0, 2, 1, 0, 2, 0, 0),
    (1, 2, 0, 2, 0, 0, 1, 0),
    (2, 1, 2, 0, 0, 0, 0, 1),
    (2, 0, 0, 0, 0, 1, 1, 2),
    (0, 2, 0, 0, 1, 0, 2, 1),
    (0, 0, 1, 0, 1, 2, 0, 2),
    (0, 0, 0, 1, 2, 1, 2, 0),
)


def test_all_models_of_the_design_are_there() -> None:
    assert machine_names() == tuple(sorted([*GPUS, "beowulf-2006"]))


@pytest.mark.parametrize("name", sorted(GPUS))
def test_gpus_are_those_of_the_maker_s_data_sheet(name: str) -> None:
    count, product, capability, memory_bytes, links, rate = GPUS[name]
    gpus = machine_from_name(name).wiring().gpus
    assert [gpu.slot for gpu in gpus] == list(range(count))
    for gpu in gpus:
        assert (gpu.product_name, gpu.compute_capability) == (product, capability)
        assert gpu.memory_bytes == memory_bytes
        assert [port.port for port in gpu.ports] == list(range(links))
        assert {port.bytes_per_s for port in gpu.ports} == ({rate} if rate else set())


@pytest.mark.parametrize("name", sorted(NICS))
def test_nics_are_those_of_the_maker_s_data_sheet(name: str) -> None:
    count, layer, rate = NICS[name]
    nics = machine_from_name(name).wiring().nics
    ports = [port for nic in nics for port in nic.ports]
    assert (len(nics), len(ports)) == (count, count)
    assert {(port.link_layer, port.bytes_per_s) for port in ports} == {(layer, rate)}
    assert [port.rail for port in ports] == list(range(count))


@pytest.mark.parametrize("name", machine_names())
def test_no_two_devices_have_one_address(name: str) -> None:
    wiring = machine_from_name(name).wiring()
    devices: list[Any] = [*wiring.bridges, *wiring.gpus, *wiring.nvswitches, *wiring.nics]
    addresses = Counter(device.pci_address for device in devices)
    assert [address for address, count in addresses.items() if count > 1] == []


@pytest.mark.parametrize("name", machine_names())
def test_devices_hang_where_their_numa_node_and_bridge_are(name: str) -> None:
    wiring = machine_from_name(name).wiring()
    numa_of = {bridge.bridge: bridge.numa for bridge in wiring.bridges}
    devices: list[GpuSlot | NicSlot] = [*wiring.gpus, *wiring.nics]
    for device in devices:
        assert device.numa in {numa.numa for numa in wiring.numa_nodes}
        assert device.bridge is None or numa_of[device.bridge] == device.numa


SWITCHED = {
    "dgx2-v100": (1,) * 6,
    "dgx-a100": (2,) * 6,
    "hgx-a800": (2, 2, 1, 1, 1, 1),
    "dgx-h100": (5, 5, 4, 4),
    "dgx-h200": (5, 5, 4, 4),
    "hgx-h20": (5, 5, 4, 4),
    "hgx-h800": (2, 2, 2, 2),
    "dgx-b200": (9, 9),
    "dgx-b300": (9, 9),
}


@pytest.mark.parametrize("name", sorted(SWITCHED))
def test_every_switch_has_the_same_links_to_every_gpu(name: str) -> None:
    per_switch = SWITCHED[name]
    wiring = machine_from_name(name).wiring()
    assert len(wiring.nvswitches) == len(per_switch)
    for gpu in wiring.gpus:
        assert {port.end.kind for port in gpu.ports} == {EndKind.SWITCH}
        assert Counter(p.end.index for p in gpu.ports) == dict(enumerate(per_switch))


@pytest.mark.parametrize("name", sorted(MESHES))
def test_gpus_without_switches_have_as_many_links_to_each_other(name: str) -> None:
    for gpu in machine_from_name(name).wiring().gpus:
        far = Counter(port.end.index for port in gpu.ports)
        assert gpu.slot not in far
        assert {len(far): links for links in far.values()} == MESHES[name]
        assert len(set(far.values())) == 1


@pytest.mark.parametrize("name", ["mi300x", "mi325x", "mi355x"])
def test_amd_gpus_have_xgmi_ports_without_a_version(name: str) -> None:
    for gpu in machine_from_name(name).wiring().gpus:
        assert gpu.vendor is GpuVendor.AMD
        assert {(p.technology, p.version) for p in gpu.ports} == {(PortTechnology.XGMI, None)}


def test_only_geforce_gpus_have_no_peer_access() -> None:
    without = [name for name in GPUS if machine_from_name(name).wiring().p2p]
    assert without == ["pcie-rtx3090", "pcie-rtx4090", "pcie-rtx5090"]
    rows = machine_from_name("pcie-rtx4090").wiring().p2p
    assert {(row.a, row.b) for row in rows} == {(a, b) for b in range(8) for a in range(b)}
    assert {(row.read, row.write) for row in rows} == {(P2pState.UNSUPPORTED,) * 2}


def test_a_model_that_is_like_another_differs_in_what_it_says() -> None:
    h800, h100 = machine_from_name("hgx-h800"), machine_from_name("dgx-h100")
    assert h800.nvlink is not None
    assert h800.nvlink.links_per_switch == (2, 2, 2, 2)
    assert (h800.nic, h800.fabric, h800.numa_nodes) == (h100.nic, h100.fabric, h100.numa_nodes)
    assert h800.name == "hgx-h800"


def test_dgx1_mesh_is_the_published_one() -> None:
    for gpu in machine_from_name("dgx1-v100").wiring().gpus:
        assert {port.end.kind for port in gpu.ports} == {EndKind.GPU}
        far = Counter(port.end.index for port in gpu.ports)
        assert tuple(far[slot] for slot in range(8)) == DGX1_MESH[gpu.slot]


@pytest.mark.parametrize("name", ["gb200-nvl72", "gb300-nvl72"])
def test_a_tray_has_one_link_to_each_switch_of_its_rack(name: str) -> None:
    machine = machine_from_name(name)
    assert machine.nodes_per_rack * machine.ranks == 72
    assert machine.wiring().nvswitches == ()
    for gpu in machine.wiring().gpus:
        assert [port.end.index for port in gpu.ports] == list(range(18))
        assert {port.end.kind for port in gpu.ports} == {EndKind.DOMAIN_SWITCH}
        assert gpu.c2c is not None


def test_only_a_rack_s_fabric_joins_nodes() -> None:
    states = {name: machine_from_name(name).gpu for name in GPUS}
    joined = [name for name, gpu in states.items() if gpu and gpu.fabric is FabricState.DOMAIN]
    assert joined == ["gb200-nvl72", "gb300-nvl72"]


def test_node_without_gpus_is_one_rank() -> None:
    machine = machine_from_name("beowulf-2006")
    assert (machine.ranks, machine.wiring().gpus) == (1, ())
    assert machine_from_name("dgx-h100").ranks == 8


@pytest.mark.parametrize("name", ["", "dgx", "DGX-H100", "../dgx-h100", "dgx-h100.toml"])
def test_unknown_model_names_those_there_are(name: str) -> None:
    with pytest.raises(SourceError) as caught:
        machine_from_name(name)
    assert str(caught.value).startswith(f"model: {name!r} is no model; use one of beowulf-2006, ")


def gpu_model(**special: Any) -> GpuModel:
    plain = {
        "count": 2,
        "bus": [1, 2],
        "numa": [0, 0],
        "product_name": "X",
        "compute_capability": "9.0",
        "memory_bytes": 1,
        "fabric": "unsupported",
    }
    return GpuModel.model_validate(plain | special, strict=False)


@pytest.mark.parametrize(
    ("special", "part"),
    [
        ({"bus": [1]}, "bus: 1 entries; expected 2"),
        ({"numa": [0, 0, 0]}, "numa: 3 entries; expected 2"),
        ({"bridge": [0]}, "bridge: 1 entries; expected 2"),
        ({"domain": []}, "domain: 0 entries; expected 2"),
        ({"device": [1]}, "device: 1 entries; expected 2"),
        ({"device": [1, 32]}, "less than or equal to 31"),
        ({"bus": [1, 256]}, "less than or equal to 255"),
        ({"colour": "red"}, "colour"),
        ({"count": 0}, "greater than 0"),
    ],
)
def test_list_without_an_entry_for_each_device_is_refused(
    special: dict[str, Any], part: str
) -> None:
    assert gpu_model().address(1) == "00000000:02:00.0"
    with pytest.raises(ValidationError, match=part):
        gpu_model(**special)


def test_nvlink_without_a_version_is_refused() -> None:
    with pytest.raises(ValidationError, match="version: missing"):
        NvlinkModel(bytes_per_s=25e9)


def test_link_without_a_rate_is_refused() -> None:
    with pytest.raises(ValidationError):
        NvlinkModel(version="4.0", bytes_per_s=0)

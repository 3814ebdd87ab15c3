from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from fleet.errors import SourceError
from fleet.model import FabricState
from fleet.sources.machines import GpuModel, NvlinkModel, machine_from_name, machine_names
from fleet.wiring import EndKind, GpuSlot, LinkLayer, NicSlot

MIB = 2**20
GPUS = {
    # model: GPUs, product, compute capability, memory, links of a GPU, rate of a link and direction
    "dgx1-v100": (8, "Tesla V100-SXM2-32GB", "7.0", 32510.5 * MIB, 6, 25e9),
    "dgx-a100": (8, "NVIDIA A100-SXM4-80GB", "8.0", 81920 * MIB, 12, 25e9),
    "dgx-h100": (8, "NVIDIA H100 80GB HBM3", "9.0", 81559 * MIB, 18, 25e9),
    "dgx-h200": (8, "NVIDIA H200", "9.0", 143771 * MIB, 18, 25e9),
    "dgx-b200": (8, "NVIDIA B200", "10.0", 183359 * MIB, 18, 50e9),
    "gb200-nvl72": (4, "NVIDIA GB200", "10.0", 189471 * MIB, 18, 50e9),
    "pcie-l40s": (8, "NVIDIA L40S", "8.9", 46068 * MIB, 0, None),
}
NICS = {
    "dgx1-v100": (4, LinkLayer.INFINIBAND, 12.5e9),
    "dgx-a100": (8, LinkLayer.INFINIBAND, 25e9),
    "dgx-h100": (8, LinkLayer.INFINIBAND, 50e9),
    "dgx-h200": (8, LinkLayer.INFINIBAND, 50e9),
    "dgx-b200": (8, LinkLayer.INFINIBAND, 50e9),
    "gb200-nvl72": (4, LinkLayer.INFINIBAND, 50e9),
    "pcie-l40s": (4, LinkLayer.ROCE, 50e9),
    "beowulf-2006": (1, LinkLayer.ETHERNET, 0.125e9),
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


@pytest.mark.parametrize("name", ["dgx-a100", "dgx-h100", "dgx-h200", "dgx-b200"])
def test_every_switch_has_the_same_links_to_every_gpu(name: str) -> None:
    per_switch = {
        "dgx-a100": (2,) * 6,
        "dgx-h100": (5, 5, 4, 4),
        "dgx-h200": (5, 5, 4, 4),
        "dgx-b200": (9, 9),
    }[name]
    wiring = machine_from_name(name).wiring()
    assert len(wiring.nvswitches) == len(per_switch)
    for gpu in wiring.gpus:
        assert {port.end.kind for port in gpu.ports} == {EndKind.SWITCH}
        assert Counter(p.end.index for p in gpu.ports) == dict(enumerate(per_switch))


def test_dgx1_mesh_is_the_published_one() -> None:
    for gpu in machine_from_name("dgx1-v100").wiring().gpus:
        assert {port.end.kind for port in gpu.ports} == {EndKind.GPU}
        far = Counter(port.end.index for port in gpu.ports)
        assert tuple(far[slot] for slot in range(8)) == DGX1_MESH[gpu.slot]


def test_gb200_tray_has_one_link_to_each_switch_of_its_rack() -> None:
    machine = machine_from_name("gb200-nvl72")
    assert machine.nodes_per_rack * machine.ranks == 72
    assert machine.wiring().nvswitches == ()
    for gpu in machine.wiring().gpus:
        assert [port.end.index for port in gpu.ports] == list(range(18))
        assert {port.end.kind for port in gpu.ports} == {EndKind.DOMAIN_SWITCH}
        assert gpu.c2c is not None


def test_only_a_rack_s_fabric_joins_nodes() -> None:
    states = {name: machine_from_name(name).gpu for name in GPUS}
    joined = [name for name, gpu in states.items() if gpu and gpu.fabric is FabricState.DOMAIN]
    assert joined == ["gb200-nvl72"]


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


def test_link_without_a_rate_is_refused() -> None:
    with pytest.raises(ValidationError):
        NvlinkModel(version="4.0", bytes_per_s=0)

from collections import Counter

import pytest

from fleet.errors import SourceError
from fleet.sources.machines import Machine, machine_from_name, machine_names
from fleet.sources.machines.networks import (
    NETWORKS,
    bytes_per_s_from_text,
    with_cpu,
    with_network,
    with_peer_access,
)
from fleet.wiring import LinkLayer, NicSlot

GBIT = 1e9 / 8


def networked(
    model: str, network: str | None = None, nic: int | None = None, nic_rate: str | None = None
) -> Machine:
    return with_network(machine_from_name(model), network=network, nic=nic, nic_rate=nic_rate)


def nics_of(machine: Machine) -> tuple[NicSlot, ...]:
    return machine.wiring().nics


def test_without_a_word_the_machine_is_the_model() -> None:
    for name in machine_names():
        assert networked(name) is machine_from_name(name)
        assert with_cpu(machine_from_name(name), None) is machine_from_name(name)
        assert with_peer_access(machine_from_name(name), None) is machine_from_name(name)


@pytest.mark.parametrize(
    ("network", "layer", "gbit", "device"),
    [
        ("ib-fdr", LinkLayer.INFINIBAND, 56, None),
        ("ib-edr", LinkLayer.INFINIBAND, 100, None),
        ("ib-hdr", LinkLayer.INFINIBAND, 200, None),
        ("ib-ndr", LinkLayer.INFINIBAND, 400, None),
        ("ib-xdr", LinkLayer.INFINIBAND, 800, None),
        ("efa-v1", LinkLayer.EFA, 100, "1d0f:efa0"),
        ("efa-v2", LinkLayer.EFA, 100, "1d0f:efa1"),
        ("efa-v3", LinkLayer.EFA, 200, "1d0f:efa2"),
        ("efa-v4", LinkLayer.EFA, 400, "1d0f:efa3"),
        ("tcpxo", LinkLayer.ETHERNET, 200, "1ae0:0042"),
        ("slingshot", LinkLayer.SLINGSHOT, 200, "17db:0501"),
        ("aries", LinkLayer.ARIES, 81.6, None),
    ],
)
def test_a_network_of_one_rate_brings_it(
    network: str, layer: LinkLayer, gbit: float, device: str | None
) -> None:
    nics = nics_of(networked("dgx-a100", network))
    assert len(nics) == 8, "as many as the model has"
    for nic in nics:
        assert (nic.ports[0].link_layer, nic.ports[0].bytes_per_s) == (layer, gbit * GBIT)
        assert nic.vendor_device == device


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        ("ib", LinkLayer.INFINIBAND),
        ("roce", LinkLayer.ROCE),
        ("efa", LinkLayer.EFA),
        ("ethernet", LinkLayer.ETHERNET),
    ],
)
def test_a_network_of_many_rates_is_as_fast_as_the_model_s_nics(
    network: str, layer: LinkLayer
) -> None:
    for model, rate in (("dgx-a100", 200 * GBIT), ("dgx-b300", 800 * GBIT)):
        ports = {nic.ports[0] for nic in nics_of(networked(model, network))}
        assert {(p.link_layer, p.bytes_per_s) for p in ports} == {(layer, rate)}


def test_every_network_is_tested_here() -> None:
    assert len(NETWORKS) == 12 + 4


def test_a_rate_alone_keeps_the_model_s_network_and_places() -> None:
    ours, model = (
        nics_of(networked("dgx-h100", nic_rate="200Gbit/s")),
        machine_from_name("dgx-h100"),
    )
    assert {nic.ports[0].bytes_per_s for nic in ours} == {25e9}
    assert [nic.pci_address for nic in ours] == [nic.pci_address for nic in model.wiring().nics]


@pytest.mark.parametrize(
    ("nic", "beside"),
    [
        (1, [0]),
        (2, [0, 4]),
        (4, [0, 2, 4, 6]),
        (16, [gpu for gpu in range(8) for _ in range(2)]),
        (32, [gpu for gpu in range(8) for _ in range(4)]),
    ],
)
def test_nics_are_spread_over_the_gpus_and_share_their_pcie_switch(
    nic: int, beside: list[int]
) -> None:
    machine = networked("dgx-h100", "efa-v2", nic)
    wiring = machine.wiring()
    assert [nic.bridge for nic in wiring.nics] == [wiring.gpus[i].bridge for i in beside]
    assert [nic.numa for nic in wiring.nics] == [wiring.gpus[i].numa for i in beside]
    assert [nic.ports[0].rail for nic in wiring.nics] == list(range(nic))


@pytest.mark.parametrize("model", machine_names())
@pytest.mark.parametrize("nic", [1, 2, 3, 8])
def test_no_nic_takes_the_address_of_another_device(model: str, nic: int) -> None:
    wiring = networked(model, nic=nic).wiring()
    devices = (*wiring.bridges, *wiring.gpus, *wiring.nvswitches, *wiring.nics)
    addresses = Counter(device.pci_address for device in devices)
    assert [address for address, count in addresses.items() if count > 1] == []
    assert len(wiring.nics) == nic


def test_more_nics_are_fewer_nodes_on_a_leaf_without_rails() -> None:
    assert networked("pcie-rtx4090", nic=4).fabric.nodes_per_leaf == 8
    assert networked("beowulf-2006", nic=8).fabric.nodes_per_leaf == 5
    assert networked("dgx-h100", nic=16).fabric == machine_from_name("dgx-h100").fabric


@pytest.mark.parametrize(
    ("text", "rate"),
    [("400Gbit/s", 50e9), ("12.5GB/s", 12.5e9), ("100Mbit/s", 12.5e6), ("1600Gbit/s", 200e9)],
)
def test_a_rate_has_a_unit(text: str, rate: float) -> None:
    assert bytes_per_s_from_text(text) == rate


@pytest.mark.parametrize(
    "text",
    ["400", "400G", "400gbit/s", "-1Gbit/s", "0Gbit/s", "1601Gbit/s", "1e3GB/s", "", "xGB/s"],
)
def test_another_rate_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(SourceError, match=r"nic_rate: .* is no rate of a port; give a number"):
        bytes_per_s_from_text(text)


def test_an_unknown_network_names_the_nearest() -> None:
    with pytest.raises(SourceError, match="'ib-ndrr' is no network; did you mean ib-ndr"):
        networked("dgx-h100", "ib-ndrr")


def test_more_nics_than_a_node_has_room_for_are_refused() -> None:
    assert len(nics_of(networked("dgx-h100", nic=64))) == 64
    with pytest.raises(SourceError, match="nic: 65 NICs for 8 ranks a node; ask for 64 at most"):
        networked("dgx-h100", nic=65)


@pytest.mark.parametrize(
    ("cpu", "vendor", "architecture"),
    [
        ("intel", "GenuineIntel", "x86_64"),
        ("amd", "AuthenticAMD", "x86_64"),
        ("arm", "ARM", "arm64"),
    ],
)
def test_a_cpu_s_maker_can_be_asked_for(cpu: str, vendor: str, architecture: str) -> None:
    wiring = with_cpu(machine_from_name("dgx-h100"), cpu).wiring()
    assert {(n.vendor, n.architecture) for n in wiring.numa_nodes} == {(vendor, architecture)}
    with pytest.raises(SourceError, match="'sparc' is no cpu; use one of intel, amd, arm"):
        with_cpu(machine_from_name("dgx-h100"), "sparc")


def test_peer_access_can_be_taken_and_given() -> None:
    l40s, geforce = machine_from_name("pcie-l40s"), machine_from_name("pcie-rtx4090")
    assert len(with_peer_access(l40s, "off").wiring().p2p) == 28
    assert with_peer_access(geforce, "on").wiring().p2p == ()
    with pytest.raises(SourceError, match="'yes' is no peer; use one of on, off"):
        with_peer_access(l40s, "yes")
    with pytest.raises(SourceError, match="peer: beowulf-2006 has no GPUs; leave peer out"):
        with_peer_access(machine_from_name("beowulf-2006"), "off")

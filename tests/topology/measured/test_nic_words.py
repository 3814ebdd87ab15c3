"""NICs and clouds as people write them, and the words of a SPEC that they mean."""

import pytest

from fleet import fleet_from_spec
from topology.measured.nic_words import nic_words


@pytest.mark.parametrize(
    ("nic", "fabric", "spec"),
    [
        ("8x CX7 NDR400 IB", "IB", "network:ib-ndr nic:8 nic_rate:400Gbit/s"),
        ("8x CX-7", "NDR", "network:ib-ndr nic:8 nic_rate:400Gbit/s"),
        ("8x ConnectX-7 400 Gb/s InfiniBand", "", "network:ib-ndr nic:8 nic_rate:400Gbit/s"),
        ("ConnectX-6 HDR", "IB", "network:ib-hdr nic_rate:200Gbit/s"),
        ("2x HDR100", "InfiniBand", "network:ib-edr nic:2 nic_rate:100Gbit/s"),
        ("4x NDR200", "InfiniBand", "network:ib-hdr nic:4 nic_rate:200Gbit/s"),
        ("8x CX8 XDR", "IB", "network:ib-xdr nic:8 nic_rate:800Gbit/s"),
        ("1x mlx5 EDR", "IB", "network:ib-edr nic:1 nic_rate:100Gbit/s"),
        ("1x mlx5 IB", "IB", "network:ib nic:1"),
        ("8x 400GbE BlueField-3", "RoCE", "network:roce nic:8 nic_rate:400Gbit/s"),
        ("8 x 400 Gbps RoCEv2", "", "network:roce nic:8 nic_rate:400Gbit/s"),
        ("AMD Pensando Pollara RoCE", "RoCE", "network:roce nic_rate:400Gbit/s"),
        ("BlueField-3", "RoCE", "network:roce nic_rate:400Gbit/s"),
        ("8x CX8", "IB/RoCE (not separable)", "network:roce nic:8 nic_rate:800Gbit/s"),
        (
            "16x 100G CX5 RoCE (OCI BM.GPU4.8)",
            "RoCE",
            "network:roce nic:16 nic_rate:100Gbit/s cpu:amd",
        ),
        (
            "OCI BM.GPU.H100.8",
            "not stated",
            "network:roce nic:16 nic_rate:200Gbit/s cpu:intel",
        ),
        (
            "32x EFA 100G (p5.48xlarge)",
            "EFA",
            "network:efa-v2 nic:32 nic_rate:100Gbit/s cpu:amd",
        ),
        ("p5en.48xlarge", "EFA", "network:efa-v3 nic:16 nic_rate:200Gbit/s cpu:intel"),
        ("p4d.24xlarge", "EFA", "network:efa-v1 nic:4 nic_rate:100Gbit/s cpu:intel"),
        ("1x EFA 100G (p3dn.24xlarge)", "EFA", "network:efa-v1 nic:1 nic_rate:100Gbit/s cpu:intel"),
        ("p6-b200.48xlarge", "EFA", "network:efa-v4 nic:8 nic_rate:400Gbit/s cpu:intel"),
        ("16x EFA 200G", "EFA", "network:efa-v3 nic:16 nic_rate:200Gbit/s"),
        ("4x EFA", "EFA", "network:efa nic:4 nic_rate:100Gbit/s"),
        (
            "GPUDirect-TCPXO, GKE A3 Mega",
            "Ethernet (TCPXO)",
            "network:tcpxo nic:8 nic_rate:200Gbit/s cpu:intel",
        ),
        ("a3-megagpu-8g", "", "network:tcpxo nic:8 nic_rate:200Gbit/s cpu:intel"),
        ("a3-highgpu-8g", "", "network:tcpxo nic:4 nic_rate:200Gbit/s cpu:intel"),
        (
            "1x CX7 400G RoCE (GKE A3 Ultra, gIB)",
            "RoCE",
            "network:roce nic:1 nic_rate:400Gbit/s cpu:intel",
        ),
        ("a4-highgpu-8g", "RoCE", "network:roce nic:8 nic_rate:400Gbit/s cpu:intel"),
        ("Azure ND A100 v4", "IB", "network:ib-hdr nic:8 nic_rate:200Gbit/s cpu:amd"),
        ("ND96asr_v4", "", "network:ib-hdr nic:8 nic_rate:200Gbit/s cpu:amd"),
        ("ND96isr_MI300X_v5", "", "network:ib-ndr nic:8 nic_rate:400Gbit/s cpu:intel"),
        ("ND40rs_v2", "", "network:ib-edr nic:1 nic_rate:100Gbit/s cpu:intel"),
        ("BM.GPU.A100-v2.8", "", "network:roce nic:16 nic_rate:100Gbit/s cpu:amd"),
        ("ND96isr H100 v5", "", "network:ib-ndr nic:8 nic_rate:400Gbit/s cpu:intel"),
        ("4x Slingshot-11 200G (cxi)", "Slingshot", "network:slingshot nic:4 nic_rate:200Gbit/s"),
        ("Cray Aries", "Aries", "network:aries"),
        ("2x 25GbE", "Ethernet (TCP)", "network:ethernet nic:2 nic_rate:25Gbit/s"),
        ("8x B3140H 400G SuperNIC", "Spectrum-X", "network:roce nic:8 nic_rate:400Gbit/s"),
        ("8x 50 GB/s", "IB", "network:ib-ndr nic:8 nic_rate:400Gbit/s"),
        ("Intel E810 100GbE", "Ethernet", "network:ethernet nic_rate:100Gbit/s"),
        ("10G Ethernet", "", "network:ethernet nic_rate:10Gbit/s"),
        ("not stated (FAIR cluster IB)", "IB", "network:ib"),
        ("not stated", "not stated", ""),
        ("", "", ""),
        ("unclear", "unclear", ""),
    ],
)
def test_nics_as_people_write_them_are_words_of_a_spec(nic: str, fabric: str, spec: str) -> None:
    words = nic_words(nic=nic, fabric=fabric)
    assert words.spec == spec
    fleet_from_spec(f"model:dgx-h100 node:2 {words.spec}")


def test_a_ceiling_that_the_poster_saw_gives_the_next_port_rate() -> None:
    words = nic_words(nic="not stated (4 hosts, ~4 GB/s busbw ceiling)", fabric="not stated")
    assert words.spec == "nic:1 nic_rate:40Gbit/s"
    assert words.notes == (
        "assumed: one NIC of 40 Gbit/s, the next rate above ~4 GB/s busbw ceiling",
    )

import pytest

from fleet.wiring import EndKind, GpuPort, PortEnd, PortTechnology
from tests.topology.fabric.factories import make_gpu
from topology.fabric.gpu_facts import gpu_facts
from topology.fabric.link_figures import load_link_figures

FIGURES = load_link_figures()

PRODUCTS = {
    "Tesla P100-SXM2-16GB": "6.0",
    "Quadro GP100": "6.0",
    "Tesla P40": "6.1",
    "Tesla P4": "6.1",
    "Quadro P400": "6.1",
    "Quadro P2000": "6.1",
    "NVIDIA GeForce GTX 1080 Ti": "6.1",
    "Tesla V100-SXM2-32GB": "7.0",
    "NVIDIA TITAN V": "7.0",
    "Tesla T4": "7.5",
    "NVIDIA GeForce RTX 2080 Ti": "7.5",
    "NVIDIA GeForce GTX 1660": "7.5",
    "Quadro RTX 3000": "7.5",
    "Quadro RTX 4000": "7.5",
    "Quadro RTX 5000": "7.5",
    "Quadro RTX 8000": "7.5",
    "NVIDIA A100-SXM4-80GB": "8.0",
    "NVIDIA A800-SXM4-80GB": "8.0",
    "NVIDIA A30": "8.0",
    "NVIDIA A10": "8.6",
    "NVIDIA A10G": "8.6",
    "NVIDIA A16": "8.6",
    "NVIDIA A2": "8.6",
    "NVIDIA A40": "8.6",
    "NVIDIA RTX A2000": "8.6",
    "NVIDIA RTX A3000 Laptop GPU": "8.6",
    "NVIDIA RTX A6000": "8.6",
    "NVIDIA GeForce RTX 3090": "8.6",
    "NVIDIA GeForce RTX 4090": "8.9",
    "NVIDIA L4": "8.9",
    "NVIDIA L20": "8.9",
    "NVIDIA L40S": "8.9",
    "NVIDIA RTX 2000 Ada Generation": "8.9",
    "NVIDIA RTX 4000 SFF Ada Generation": "8.9",
    "NVIDIA RTX 5000 Ada Generation": "8.9",
    "NVIDIA RTX 6000 Ada Generation": "8.9",
    "NVIDIA H100 80GB HBM3": "9.0",
    "NVIDIA H100 NVL": "9.0",
    "NVIDIA H200": "9.0",
    "NVIDIA H20": "9.0",
    "NVIDIA H800": "9.0",
    "NVIDIA GH200 480GB": "9.0",
    "NVIDIA B200": "10.0",
    "NVIDIA GB200": "10.0",
    "NVIDIA B300 SXM6 AC": "10.3",
    "NVIDIA GB300": "10.3",
    "NVIDIA GeForce RTX 5090": "12.0",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "12.0",
}
"""NVIDIA's published compute capabilities."""


@pytest.mark.parametrize(("name", "capability"), PRODUCTS.items())
def test_a_product_name_gives_its_published_compute_capability(name: str, capability: str) -> None:
    assert FIGURES.compute_capability_of(name) == capability


@pytest.mark.parametrize("name", ["AMD Instinct MI300X", "Quadro P1000", "Voodoo 2", ""])
def test_a_product_we_do_not_know_gives_nothing(name: str) -> None:
    assert FIGURES.compute_capability_of(name) is None


def nvlink_ports(counts: dict[int, int], **facts: object) -> list[GpuPort]:
    """Ports that are only counted, as a matrix prints them."""
    return [
        GpuPort.model_validate({"count": count, "end": PortEnd(kind=EndKind.GPU, index=i), **facts})
        for i, count in counts.items()
    ]


def test_what_is_reported_wins_over_what_the_kind_says() -> None:
    ports = nvlink_ports({1: 4}, version="3.1")
    gpu = make_gpu(0, product_name="NVIDIA H100", pcie_generation=4, ports=ports)
    facts = gpu_facts(gpu, FIGURES)
    assert (facts.compute_capability, facts.nvlink_version, facts.pcie_generation) == (
        "9.0",
        "3.1",
        4,
    )
    assert facts.guesses == ()


def test_a_kind_gives_nvlink_and_pcie_without_a_guess() -> None:
    facts = gpu_facts(make_gpu(0, compute_capability="8.0"), FIGURES)
    assert (facts.nvlink_version, facts.pcie_generation, facts.guesses) == ("3.0", 4, ())


@pytest.mark.parametrize(
    ("counts", "version"),
    [
        ({1: 18}, "4.0"),
        ({1: 12}, "3.0"),
        ({1: 1, 2: 1, 3: 2, 4: 2}, "2.0"),
        ({1: 4}, "3.1"),
        ({1: 2, 2: 2}, "2.0"),
        ({1: 2}, "2.0"),
    ],
)
def test_counted_links_alone_give_a_version_that_is_called_a_guess(
    counts: dict[int, int], version: str
) -> None:
    facts = gpu_facts(make_gpu(0, pcie_generation=4, ports=nvlink_ports(counts)), FIGURES)
    assert facts.nvlink_version == version
    assert facts.guesses == (f"NVLink {version} guessed from {sum(counts.values())} links",)


def test_an_unreported_pcie_generation_is_called_a_guess() -> None:
    facts = gpu_facts(make_gpu(0), FIGURES)
    assert facts.pcie_generation == 4
    assert facts.guesses == ("PCIe generation 4 guessed: not reported",)


def test_infinity_fabric_is_not_taken_for_nvlink() -> None:
    ports = nvlink_ports({1: 2}, technology=PortTechnology.XGMI)
    facts = gpu_facts(
        make_gpu(0, compute_capability="gfx942", pcie_generation=5, ports=ports), FIGURES
    )
    assert (facts.nvlink_version, facts.guesses) == (None, ())

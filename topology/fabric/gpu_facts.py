"""What the model takes a GPU for: reported, else by its kind, else guessed and called a guess."""

from dataclasses import dataclass
from typing import Final

from fleet import GpuSlot, PortTechnology
from topology.fabric.link_figures import LinkFigures

FALLBACK_PCIE_GENERATION: Final = 4


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """Kind and generations of a GPU, and which of it is guessed."""

    compute_capability: str | None
    nvlink_version: str | None
    pcie_generation: int
    guesses: tuple[str, ...] = ()


def gpu_facts(gpu: GpuSlot, figures: LinkFigures) -> GpuFacts:
    """NVLink version and PCIe generation of a GPU: reported, else by its kind, else guessed."""
    guesses = []
    capability = gpu.compute_capability
    if capability is None and gpu.product_name is not None:
        capability = figures.compute_capability_of(gpu.product_name)
    generation = figures.generation_of(capability)
    version = next((port.version for port in gpu.ports if port.version is not None), None)
    if version is None and generation is not None:
        version = generation.nvlink
    if version is None and any(port.technology is PortTechnology.NVLINK for port in gpu.ports):
        links = sum(port.count for port in gpu.ports)
        ends = len({str(port.end) for port in gpu.ports})
        version = figures.guessed_nvlink(links=links, ends=ends)
        guesses.append(f"NVLink {version} guessed from {links} links")
    pcie = gpu.pcie_generation or (generation.pcie_generation if generation else None)
    if pcie is None:
        pcie = FALLBACK_PCIE_GENERATION
        guesses.append(f"PCIe generation {pcie} guessed: not reported")
    return GpuFacts(capability, version, pcie, tuple(guesses))

"""Link figures: ``link_figures.toml`` as checked values, with source and confidence of each.

No graph. A route class is end to end; its edges are a split of it, the rest is its endpoints.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from enum import StrEnum
from functools import cache, cached_property
from importlib.resources import files
from itertools import pairwise
from typing import Final, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from topology.errors import FabricError
from topology.fabric.figure_types import Confidence as Confidence
from topology.fabric.figure_types import Figures as Figures
from topology.fabric.figure_types import Probability as Probability
from topology.fabric.figure_types import Ratio as Ratio
from topology.fabric.figure_types import Words as Words
from topology.fabric.noise_layer_figures import NoiseLayerFigures


class Jitter(Figures):
    """Law of one message's jitter around its route's alpha. [s]

    ``L = alpha - body_median + LogNormal(body_median, body_sigma)
    + Bernoulli(p) min(LogNormal(detour_median, detour_sigma), detour_cap)``
    """

    body_median_s: NonNegativeFloat
    body_sigma: NonNegativeFloat
    detour_probability: Probability
    detour_median_s: PositiveFloat
    detour_sigma: NonNegativeFloat
    detour_cap_s: PositiveFloat


class RouteClass(Figures):
    """A route end to end, memory to memory: latency, bandwidth of one GPU, one way, and jitter.

    ``declared_s``: what the network's plug-in declares to NCCL, which counts it on top of its own
    constants. 0 where it declares none, as NCCL's own InfiniBand and RoCE do. [s]
    """

    name: Words
    title: Words
    alpha_s: PositiveFloat
    alpha_low_s: PositiveFloat
    alpha_high_s: PositiveFloat
    declared_s: NonNegativeFloat = 0.0
    bytes_per_s: PositiveFloat
    p2p_efficiency_ratio: Ratio
    collective_efficiency_ratio: Ratio
    in_switch_efficiency_ratio: Ratio | None = None
    jitter: Jitter
    sources: tuple[Words, ...] = Field(min_length=1)
    basis: Words
    bandwidth_confidence: Confidence
    latency_confidence: Confidence
    jitter_confidence: Confidence
    edges: tuple[Words, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _alpha_in_range(self) -> Self:
        if not self.alpha_low_s <= self.alpha_s <= self.alpha_high_s:
            raise ValueError("alpha_s lies outside alpha_low_s and alpha_high_s")
        return self


class EdgeFigures(Figures):
    """One link of a route: its share of the latency and of the median jitter. [s]"""

    name: Words
    title: Words
    alpha_s: NonNegativeFloat
    jitter_s: NonNegativeFloat
    sources: tuple[Words, ...] = Field(min_length=1)
    basis: Words
    confidence: Confidence


class LinkName(StrEnum):
    """Links whose rate follows from their generation."""

    PCIE_X16 = "pcie_x16"
    NVLINK = "nvlink"
    XGMI = "xgmi"


class LinkRate(Figures):
    """Rate of a link by generation, one direction: PCIe of 16 lanes, others of one link. [B/s]"""

    link: LinkName
    generation: Words
    bytes_per_s: PositiveFloat
    confidence: Confidence
    sources: tuple[Words, ...] = Field(min_length=1)
    basis: Words

    @property
    def name(self) -> str:
        """Link and generation."""
        return f"{self.link} {self.generation}"


class Generation(Figures):
    """What follows from a GPU's compute capability."""

    compute_capability: Words
    nvlink: Words | None = None
    pcie_generation: PositiveInt


class ProductPattern(Figures):
    """Compute capability of the products whose name matches a pattern."""

    pattern: Words
    compute_capability: Words


class LinkCountGuess(Figures):
    """The NVLink version guessed from how many links a GPU has, and to how many ends at most."""

    links: NonNegativeInt
    most_ends: PositiveInt | None = None
    nvlink: Words


class NetworkRow(Figures):
    """Route classes of a link layer up to a port rate: same leaf, through spines, through cores.

    ``nic_device``: the PCI id of the one NIC that the row is for.
    """

    link_layer: Words
    nic_device: Words | None = None
    from_bytes_per_s: NonNegativeFloat = 0.0
    up_to_bytes_per_s: PositiveFloat
    classes: tuple[Words, ...] = Field(min_length=1)

    def covers(self, link_layer: str, bytes_per_s: float, nic_device: str | None) -> bool:
        """Whether the row is for a port of that layer, rate and NIC."""
        return (
            self.link_layer == link_layer
            and self.nic_device in (None, nic_device)
            and self.from_bytes_per_s <= bytes_per_s <= self.up_to_bytes_per_s
        )


class NoiseProfile(Figures):
    """Factors on the detours of every route class."""

    name: Words
    detour_probability_ratio: NonNegativeFloat
    detour_median_ratio: NonNegativeFloat
    sources: tuple[Words, ...]
    basis: Words
    confidence: Confidence


class TrunkShare(Figures):
    """Share of their rate that trunks carry under a kind of routing."""

    name: Words
    share_ratio: Ratio
    sources: tuple[Words, ...] = Field(min_length=1)
    basis: Words
    confidence: Confidence


class LinkFigures(Figures):
    """All figures of links, cross-checked: every name leads somewhere, every edge sum fits."""

    route_class: dict[str, RouteClass]
    edge: dict[str, EdgeFigures]
    link_rate: tuple[LinkRate, ...]
    generation: tuple[Generation, ...]
    product: tuple[ProductPattern, ...]
    guess_by_links: tuple[LinkCountGuess, ...]
    network: tuple[NetworkRow, ...]
    noise_profile: dict[str, NoiseProfile]
    noise_layer: NoiseLayerFigures
    trunk_share: dict[str, TrunkShare]
    source: dict[str, Words]

    @model_validator(mode="after")
    def _cross_checked(self) -> Self:
        for problem in _problems(self):
            raise ValueError(problem)
        return self

    def edges_s(self, names: tuple[str, ...]) -> float:
        """Latency of links in a row. [s]"""
        return sum(self.edge[name].alpha_s for name in names)

    def endpoints_s(self, route_class: RouteClass) -> float:
        """What the edges leave of a route class's alpha: issuing and being seen. [s]"""
        return route_class.alpha_s - self.edges_s(route_class.edges)

    def endpoints_jitter_s(self, route_class: RouteClass) -> float:
        """What the edges leave of a route class's median jitter. [s]"""
        edges_s = sum(self.edge[name].jitter_s for name in route_class.edges)
        return route_class.jitter.body_median_s - edges_s

    @cached_property
    def _rates(self) -> dict[tuple[str, str], float]:
        return {(row.link, row.generation): row.bytes_per_s for row in self.link_rate}

    def rate_of(self, link: LinkName, generation: str) -> float | None:
        """Rate of one link (PCIe: of 16 lanes), one direction; None where no figure is. [B/s]"""
        return self._rates.get((link, generation))

    @cached_property
    def newest_pcie_generation(self) -> int:
        """The newest PCIe generation with a rate."""
        rows = (row for row in self.link_rate if row.link is LinkName.PCIE_X16)
        return max(int(row.generation) for row in rows)

    @cached_property
    def _patterns(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        return tuple((re.compile(row.pattern), row.compute_capability) for row in self.product)

    def compute_capability_of(self, product_name: str) -> str | None:
        """Compute capability of a product by its name, None for one we do not know."""
        found = (cc for pattern, cc in self._patterns if pattern.search(product_name))
        return next(found, None)

    def generation_of(self, compute_capability: str | None) -> Generation | None:
        """What follows from a compute capability, None for one we do not know."""
        rows = (row for row in self.generation if row.compute_capability == compute_capability)
        return next(rows, None)

    def guessed_nvlink(self, *, links: int, ends: int) -> str:
        """NVLink version of a GPU of which only the links are counted."""
        fitting = (
            row
            for row in self.guess_by_links
            if links >= row.links and (row.most_ends is None or ends <= row.most_ends)
        )
        return next(fitting).nvlink

    def network_classes(
        self, link_layer: str, bytes_per_s: float, *, nic_device: str | None = None
    ) -> tuple[RouteClass, ...]:
        """Route classes of a network by tiers crossed, nearest first.

        ``nic_device``: PCI id of the sender's NIC, for figures of one NIC alone.

        Raises:
            FabricError: no class is known for that link layer.
        """
        for row in self.network:
            if row.covers(link_layer, bytes_per_s, nic_device):
                return tuple(self.route_class[name] for name in row.classes)
        raise FabricError(
            f"no route class for {link_layer} at {bytes_per_s:g} B/s",
            where=FILE_NAME,
            field="network",
            remedy="add one with its source",
        )


def _problems(figures: LinkFigures) -> Iterator[str]:
    """Names that lead nowhere, and routes shorter than their edges."""
    rows: list[RouteClass | EdgeFigures | LinkRate | NoiseProfile | TrunkShare] = [
        *figures.route_class.values(),
        *figures.edge.values(),
        *figures.link_rate,
        *figures.noise_profile.values(),
        *figures.trunk_share.values(),
    ]
    for row in rows:
        for source in set(row.sources) - figures.source.keys():
            yield f"{row.name}: source {source} is not listed"
    for route_class in figures.route_class.values():
        unknown = set(route_class.edges) - figures.edge.keys()
        if unknown:
            yield f"{route_class.name}: no edge {', '.join(sorted(unknown))}"
        elif min(figures.endpoints_s(route_class), figures.endpoints_jitter_s(route_class)) < 0:
            yield f"{route_class.name}: its edges are longer than the route"
    yield from _layer_problems(figures)
    yield from _table_problems(figures)


def _layer_problems(figures: LinkFigures) -> Iterator[str]:
    """Profiles without a row, and sources that are not listed."""
    profiles = figures.noise_profile.keys()
    for layer in type(figures.noise_layer).model_fields:
        for profile in sorted(profiles ^ getattr(figures.noise_layer, layer).keys()):
            yield f"noise_layer.{layer}.{profile}: noise_profile and noise_layer differ"
    for layer, profile, row in figures.noise_layer.rows():
        for source in set(row.sources) - figures.source.keys():
            yield f"noise_layer.{layer}.{profile}: source {source} is not listed"


def _table_problems(figures: LinkFigures) -> Iterator[str]:
    """Rows that are missing or out of order."""
    pcie = {row.generation for row in figures.link_rate if row.link is LinkName.PCIE_X16}
    if pcie != {str(generation) for generation in range(1, len(pcie) + 1)}:
        yield "link_rate pcie_x16: a generation is missing"
    for network in figures.network:
        for name in set(network.classes) - figures.route_class.keys():
            yield f"network {network.link_layer}: no route class {name}"
    for a, b in pairwise(figures.network):
        same = (a.link_layer, a.nic_device) == (b.link_layer, b.nic_device)
        if same and a.up_to_bytes_per_s >= b.up_to_bytes_per_s:
            yield f"network {a.link_layer}: rows are not in the order of their rates"


FILE_NAME: Final = "link_figures.toml"


@cache
def load_link_figures() -> LinkFigures:
    """The figures that ship with fleetmap."""
    text = (files("topology.fabric") / FILE_NAME).read_text()
    document = tomllib.loads(text)
    for table in ("route_class", "edge", "noise_profile", "trunk_share"):
        for name, row in document[table].items():
            row["name"] = name
    return LinkFigures.model_validate_json(json.dumps(document))

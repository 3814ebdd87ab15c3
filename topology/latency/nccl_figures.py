"""NCCL's own constants: their form, and the file that ships. No formula."""

import json
import tomllib
from functools import cache
from importlib.resources import files
from typing import Final

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from topology.fabric.link_figures import Confidence, Figures, Ratio, Words
from topology.latency.job import Cpu

FILE_NAME: Final = "nccl_figures.toml"
ByProtocol = tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat]
ByNodes = tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat]


class ByFamily(Figures):
    """Times of ring-like and of tree-like algorithms, by protocol. [s]"""

    ring: ByProtocol
    tree: ByProtocol
    pat: ByProtocol = (0.0, 0.0, 0.0)


class HopFigures(Figures):
    """Time of a hop by what it crosses. [s]"""

    nvlink: ByFamily
    pci: ByFamily
    net: ByFamily


class SimpleFigures(Figures):
    """Times of algorithms that run one protocol. [s]"""

    nvls: PositiveFloat
    nvls_net: PositiveFloat
    nvls_tree_net: PositiveFloat
    collnet_intra: PositiveFloat
    collnet_net: PositiveFloat
    pat_net: PositiveFloat
    pat_per_rank: PositiveFloat


class CapFigures(Figures):
    """What a generation carries at most, by one node, two, more. [B/s]"""

    ll: ByNodes
    ring_ll128_per_channel: ByNodes
    tree_ll128_per_channel: ByNodes
    tree_per_channel: ByNodes
    nvls_tree_per_channel: ByNodes
    nvls_efficiency_ratio: NonNegativeFloat


class ChannelFigures(Figures):
    """How many channels the search finds on the usual machines, and NVLS' rate. [B/s]"""

    nvlink: PositiveInt
    pci: PositiveInt
    inter_bytes_per_s: PositiveFloat
    nvls: NonNegativeInt
    nvls_bytes_per_s: NonNegativeFloat


class TreeCorrection(Figures):
    """Factor of a tree's bandwidth at 64 B, 128 B ... 256 MB."""

    ll: tuple[Ratio, ...] = Field(min_length=23, max_length=23)
    ll128: tuple[Ratio, ...] = Field(min_length=23, max_length=23)
    simple: tuple[Ratio, ...] = Field(min_length=23, max_length=23)


class RateFigures(Figures):
    """Shares of nominal rates that NCCL counts on."""

    nvlink_ratio: dict[str, Ratio]
    pci_ratio: Ratio
    host_ratio: Ratio
    net_ratio: Ratio


class RingFigures(Figures):
    """Ring: shares of bandwidth, and the factor of Simple's latency across nodes."""

    ll_ratio: Ratio
    ll128_ratio: Ratio
    plateau_ratio: PositiveFloat
    plateau_before_ampere_ratio: PositiveFloat
    plateau_least_bytes: PositiveFloat


class TreeFigures(Figures):
    """Tree: shares of bandwidth."""

    ratio: Ratio
    ll_divisor: PositiveFloat
    ll128_one_node_ratio: Ratio
    ll128_ratio: Ratio


class PatFigures(Figures):
    """PAT: share of bandwidth."""

    ratio: Ratio


class NcclTunerFigures(Figures):
    """All constants, with the version they are of; ``guesses``: those that are nobody's."""

    version: Words
    source: Words
    confidence: Confidence
    channels_confidence: Confidence
    guesses: tuple[Words, ...] = ()
    base_s: ByFamily
    hop_s: HopFigures
    simple_s: SimpleFigures
    proxy_s: dict[Cpu, NonNegativeFloat]
    cap: dict[str, CapFigures]
    channels: dict[str, ChannelFigures]
    tree_correction: TreeCorrection
    rates: RateFigures
    ring: RingFigures
    tree: TreeFigures
    pat: PatFigures


@cache
def load_nccl_figures() -> NcclTunerFigures:
    """The constants that ship with fleetmap."""
    text = (files("topology.latency") / FILE_NAME).read_text()
    return NcclTunerFigures.model_validate_json(json.dumps(tomllib.loads(text)))

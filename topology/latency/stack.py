"""Stacks: what software and launch add to the wire. ``wire`` adds nothing."""

import json
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from topology.fabric.link_figures import Confidence, Figures, Ratio, Words
from topology.fabric.routes import LinkKind, Route
from topology.words import Launch, Protocol, StackName

FILE_NAME: Final = "stack_figures.toml"


class ByFamily(Figures):
    """A time for ring-like and for tree-like algorithms. [s]"""

    ring: NonNegativeFloat
    tree: NonNegativeFloat

    def of(self, algorithm: str) -> float:
        """The time of an algorithm's family. [s]"""
        return self.ring if algorithm in _RING_LIKE else self.tree


_RING_LIKE: Final = ("ring", "pairwise")
_NVLS_TREE: Final = "nvls_tree"
_IN_SWITCH: Final = ("nvls", _NVLS_TREE)


class InSwitchFigures(Figures):
    """Constant of one way between a GPU and a switch that reduces. [s]"""

    leg_s: NonNegativeFloat
    sources: tuple[Words, ...] = Field(min_length=1)
    basis: Words
    confidence: Confidence


class NvlsTreeFigures(InSwitchFigures):
    """Constants of NVLSTree: one way between a GPU and a switch, a hop between nodes. [s]"""

    net_hop_s: NonNegativeFloat


class ProtocolFigures(Figures):
    """Constants of one protocol. [s]"""

    base_s: ByFamily
    hop_s: dict[LinkKind, ByFamily]
    in_switch: InSwitchFigures | None = None
    nvls_tree: NvlsTreeFigures | None = None
    payload_ratio: Ratio
    sources: tuple[Words, ...] = Field(min_length=1)
    basis: Words
    confidence: Confidence

    def constant_s(self, route: Route, algorithm: str) -> float:
        """What the protocol says a hop takes, the wire contained. [s]"""
        tree = self.nvls_tree if algorithm == _NVLS_TREE else None
        if route.in_switch:
            switch = tree or self.in_switch
            assert switch is not None, "can_reduce_in_switch refuses protocols without it"
            return switch.leg_s
        if tree is not None and route.link_kind is LinkKind.NET:
            return tree.net_hop_s
        return self.hop_s[route.link_kind].of(algorithm)


class LaunchFigures(Figures):
    """Cost of starting an operation. [s]"""

    once_s: NonNegativeFloat
    per_further_gpu_s: NonNegativeFloat
    sources: tuple[Words, ...] = Field(min_length=1)
    basis: Words
    confidence: Confidence


class PipelineFigures(Figures):
    """How a pipeline is cut."""

    piece_bytes: PositiveFloat
    most_pieces: PositiveInt
    sources: tuple[Words, ...] = Field(min_length=1)
    basis: Words
    confidence: Confidence


class NcclFigures(Figures):
    """What all of NCCL's base costs have in common. [s]"""

    contained_launch_s: NonNegativeFloat
    sources: tuple[Words, ...] = Field(min_length=1)
    basis: Words
    confidence: Confidence


class MpiFigures(Figures):
    """What MPI adds to the wire for every message. [s]"""

    message_s: NonNegativeFloat
    sources: tuple[Words, ...] = Field(min_length=1)
    basis: Words
    confidence: Confidence


class PriorFigures(Figures):
    """Where calibration starts for what NCCL's own model has no constant. [s]"""

    point_to_point_s: dict[Protocol, NonNegativeFloat]
    peer_s: NonNegativeFloat
    one_shot_s: NonNegativeFloat
    two_shot_s: NonNegativeFloat
    ramp_s: NonNegativeFloat
    sources: tuple[Words, ...] = Field(min_length=1)
    basis: Words
    confidence: Confidence


class StackFigures(Figures):
    """All figures of stacks; every source is listed."""

    nccl: NcclFigures
    mpi: MpiFigures
    prior: PriorFigures
    protocol: dict[Protocol, ProtocolFigures]
    launch: dict[Launch, LaunchFigures]
    pipeline: PipelineFigures
    source: dict[str, Words]

    @model_validator(mode="after")
    def _sources_are_listed(self) -> Self:
        listed = [
            *(row.sources for row in self.protocol.values()),
            *(row.in_switch.sources for row in self.protocol.values() if row.in_switch),
            *(row.nvls_tree.sources for row in self.protocol.values() if row.nvls_tree),
            *(row.sources for row in self.launch.values()),
            self.pipeline.sources,
            self.nccl.sources,
            self.mpi.sources,
            self.prior.sources,
        ]
        unknown = {source for sources in listed for source in sources} - self.source.keys()
        if unknown:
            raise ValueError(f"source {', '.join(sorted(unknown))} is not listed")
        return self

    def pieces(self, size_bytes: float) -> int:
        """Into how many pieces a pipeline cuts a buffer."""
        wanted = -(-size_bytes // self.pipeline.piece_bytes)
        return int(min(max(wanted, 1), self.pipeline.most_pieces))


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack with its choices made; ``protocol`` is None on the bare wire."""

    name: StackName
    protocol: Protocol | None
    launch: Launch
    figures: StackFigures

    def launch_s(self, gpus_per_node: int) -> float:
        """Time before the first message leaves. [s]"""
        if self.protocol is None:
            return 0.0
        row = self.figures.launch[self.launch]
        return row.once_s + row.per_further_gpu_s * (gpus_per_node - 1)

    def base_s(self, algorithm: str) -> float:
        """Software once per operation, without the launch that NCCL's figure contains. [s]"""
        if self.protocol is None or algorithm in _IN_SWITCH:
            return 0.0
        base_s = self.figures.protocol[self.protocol].base_s.of(algorithm)
        return max(0.0, base_s - self.figures.nccl.contained_launch_s)

    def software_s(self, route: Route, algorithm: str) -> float:
        """Software of one hop: what the stack's constant exceeds the wire by. [s]"""
        if self.name is StackName.MPI:
            return self.figures.mpi.message_s
        if self.protocol is None:
            return 0.0
        row = self.figures.protocol[self.protocol]
        return max(0.0, row.constant_s(route, algorithm) - route.alpha_s)

    @property
    def payload_ratio(self) -> float:
        """Share of the bytes on the wire that is data."""
        return 1.0 if self.protocol is None else self.figures.protocol[self.protocol].payload_ratio

    def can_reduce_in_switch(self) -> bool:
        """Whether this protocol runs in the switch."""
        if self.protocol is None:
            return True
        return self.figures.protocol[self.protocol].in_switch is not None


@cache
def load_stack_figures() -> StackFigures:
    """The figures that ship with fleetmap."""
    text = (files("topology.latency") / FILE_NAME).read_text()
    return StackFigures.model_validate_json(json.dumps(tomllib.loads(text)))

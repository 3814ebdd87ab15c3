"""A run's hardware columns as a synthetic map: the SPEC, where the ranks sit, what no map tells.

Hardware without a model is named and skipped, never guessed at. No reading, no latency.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Final, TypeAlias

from fleet import fleet_from_spec
from fleet.errors import ExpectedError
from topology.fabric.from_fleet import Fabric
from topology.fabric.routes import Endpoint
from topology.measured.nic_words import NicWords, foreign_network, nic_words
from topology.measured.runs import Run, SkippedRun

RACK_NODES: Final = 18
"""Compute trays of an NVL72 rack, one NVLink domain."""


@dataclass(frozen=True, slots=True)
class RunMachine:
    """What a run ran on: ``nodes`` nodes of the map of ``spec``, ``ranks_per_node`` on each.

    Facts a map does not carry: ``peer_access`` (also in the SPEC, as ``peer:off``),
    ``slow_peer_path`` (its poster says so), ``shared_memory`` (else all traffic is on NICs).
    ``notes``: what was assumed because the columns do not tell.
    """

    run_id: str
    spec: str
    nodes: int
    ranks_per_node: int
    racks: int = 1
    peer_access: bool = True
    slow_peer_path: bool = False
    shared_memory: bool = True
    notes: tuple[str, ...] = ()

    @property
    def is_cut_off(self) -> bool:
        """Whether GPUs of a node reach each other by NICs alone."""
        return not (self.peer_access or self.shared_memory)

    @property
    def ranks(self) -> int:
        """Ranks together."""
        return self.nodes * self.ranks_per_node

    def endpoints(self, fabric: Fabric) -> tuple[Endpoint, ...]:
        """Where the ranks sit in the map of ``spec``, in rank order: evenly over the racks."""
        in_rack = len(fabric.nodes) if self.racks == 1 else RACK_NODES
        share, more = divmod(self.nodes, self.racks)
        nodes = [
            node
            for rack in range(self.racks)
            for node in fabric.nodes[rack * in_rack :][: share + (rack < more)]
        ]
        return tuple(
            Endpoint(node.host, slot)
            for node in nodes
            for slot in node.graph.slots[: self.ranks_per_node]
        )


@dataclass(frozen=True, slots=True)
class _Kind:
    """A model for a family of GPUs where ``when`` is in the columns and ``unless`` is not.

    ``gpus``: what a node of it has. ``needs``: at most so many GPUs of a node are used.
    """

    model: str
    gpus: int
    when: str = ""
    unless: str = r"\Z."
    most_used: int = 10**6
    note: str = ""

    def fits(self, words: str, used: int) -> bool:
        return (
            re.search(self.when, words) is not None
            and re.search(self.unless, words) is None
            and used <= self.most_used
        )


_PAIRS: Final = r"pair|bridge|\bnvl\b|\bnvl2\b"
_PCIE: Final = r"pci[- ]?e"
_SXM: Final = r"sxm|nvswitch|\boam\b|hgx|dgx"
_CARD: Final = rf"^(?!.*(?:{_SXM})).*(?:{_PCIE})"
_MESH: Final = r"mesh|direct|(?:no|without) nvswitch|\b4[- ]gpu\b|quad"
_NO_PEERS: Final = "GeForce drivers give no peer access"

_Kinds: TypeAlias = tuple[_Kind, ...]


def _either(*, pairs: str = "", pcie: str = "", boards: _Kinds = ()) -> _Kinds:
    """Bridged pairs, else bare PCIe cards, else boards with NVLink."""
    kinds: list[_Kind] = []
    if pairs:
        kinds.append(_Kind(pairs, 8, _PAIRS, _SXM))
    if pcie:
        kinds.append(_Kind(pcie, 8, _CARD))
    return (*kinds, *boards)


# Families of GPUs by name, the first that matches; of a family the first kind that fits.
_FAMILIES: Final = tuple(
    (re.compile(pattern), kinds)
    for pattern, kinds in (
        (r"gb300", (_Kind("gb300-nvl72", 4),)),
        (r"gb200", (_Kind("gb200-nvl72", 4),)),
        (
            r"gh200",
            (
                _Kind("gh200-quad", 4, r"quad|alps"),
                _Kind("gh200", 1, most_used=1),
                _Kind("gh200-quad", 4, note="four GH200 a node, joined by NVLink"),
            ),
        ),
        (r"\bb300", (_Kind("dgx-b300", 8),)),
        (r"\bb200", (_Kind("dgx-b200", 8),)),
        (r"\bh200", _either(pairs="pcie-h200-nvl", boards=(_Kind("dgx-h200", 8, unless=_CARD),))),
        (
            r"\bh100",
            _either(
                pairs="pcie-h100-nvl",
                pcie="pcie-h100",
                boards=(
                    _Kind("hgx-h100-4", 4, _MESH, most_used=4),
                    _Kind("dgx-h100", 8),
                ),
            ),
        ),
        (r"\bh800", (_Kind("hgx-h800", 8, unless=_CARD),)),
        (r"\bh20(?!\d)", (_Kind("hgx-h20", 8),)),
        (r"\ba800", (_Kind("hgx-a800", 8, unless=_CARD),)),
        (
            r"\ba100",
            _either(
                pairs="pcie-a100-nvlink",
                pcie="pcie-a100",
                boards=(
                    _Kind("hgx-a100-4", 4, r"nvlink|mesh|direct", r"nvswitch|dgx", most_used=4),
                    _Kind("dgx-a100", 8),
                ),
            ),
        ),
        (
            r"\bv100",
            _either(
                pcie="pcie-v100",
                boards=(
                    _Kind("dgx2-v100", 16, r"nvswitch|sxm3|dgx-?2"),
                    _Kind(
                        "hgx-v100-4",
                        4,
                        unless=r"cube|dgx",
                        most_used=4,
                        note="a board of four V100, two NVLinks a pair",
                    ),
                    _Kind("dgx1-v100", 8),
                ),
            ),
        ),
        (r"\bp100", (_Kind("dgx1-p100", 8, r"sxm|nvlink|dgx"), _Kind("pcie-p100", 1))),
        (r"\bl40s", (_Kind("pcie-l40s", 8),)),
        (r"\ba10g", (_Kind("pcie-a10g", 8),)),
        (r"\bl4\b", (_Kind("pcie-l4", 8),)),
        (r"\bt4\b", (_Kind("pcie-t4", 8),)),
        (r"6000 ?d\b", (_Kind("pcie-rtx6000d", 8),)),
        (r"pro 6000", (_Kind("pcie-rtxpro6000", 8),)),
        (r"\b3090\b(?! ?ti)", (_Kind("pcie-rtx3090", 8, note=_NO_PEERS),)),
        (r"\b4090\b", (_Kind("pcie-rtx4090", 8, note=_NO_PEERS),)),
        (r"\b5090\b", (_Kind("pcie-rtx5090", 8, note=_NO_PEERS),)),
        (r"\bmi300x|\bmi300\b", (_Kind("mi300x", 8),)),
        (r"\bmi325x?\b", (_Kind("mi325x", 8),)),
        (r"\bmi355x?\b", (_Kind("mi355x", 8),)),
    )
)

_NO_PEER_ACCESS: Final = re.compile(
    r"p2p(?: and shm)? (?:is )?(?:disabled|off)|p2p_disable=1|(?:no|without) (?:p2p|peer access)"
    r"|slow p2p|shm only",
    re.IGNORECASE,
)
_SLOW_PEER_PATH: Final = re.compile(r"slow p2p", re.IGNORECASE)
_NO_SHARED_MEMORY: Final = re.compile(
    r"shm(?: is)? (?:disabled|off)|shm_disable=1|(?:no|without) shm", re.IGNORECASE
)
_ROUTING: Final = (
    (re.compile(r"adaptive routing:? (?:off|disabled)|static routing", re.I), "routing:static"),
    (re.compile(r"adaptive routing:? (?:on|enabled)", re.I), "routing:adaptive"),
)
_GEFORCE: Final = ("pcie-rtx3090", "pcie-rtx4090", "pcie-rtx5090")


def machine_of(run: Run) -> RunMachine | SkippedRun:
    """The machine that a run's hardware columns mean, or why there is no model of it."""
    kind = _kind_of(run)
    if kind is None:
        return SkippedRun(run.run_id, f"gpu_model: no model of {run.gpu_model!r} ({run.wiring})")
    per_node, rest = divmod(run.ranks, run.nodes)
    if rest or per_node > run.gpus_per_node:
        shape = f"{run.nodes} nodes with {run.gpus_per_node} GPUs"
        return SkippedRun(run.run_id, f"ranks: {run.ranks} are not as many on each of {shape}")
    if per_node > kind.gpus:
        problem = f"{per_node} used; a node of {kind.model} has {kind.gpus}"
        return SkippedRun(run.run_id, f"gpus_per_node: {problem}")
    foreign = foreign_network(nic=run.nic, fabric=run.fabric) if run.nodes > 1 else None
    if foreign is not None:
        return SkippedRun(run.run_id, f"fabric: no network of a SPEC is {foreign!r}")
    return _machine(run, kind, per_node)


def _machine(run: Run, kind: _Kind, per_node: int) -> RunMachine:
    remarks = f"{run.wiring} {run.notes}"
    has_peers = not _NO_PEER_ACCESS.search(remarks)
    shares_memory = not _NO_SHARED_MEMORY.search(remarks)
    uses_nics = run.nodes > 1 or not shares_memory
    words = _network(run) if uses_nics else NicWords()
    routing = next((w for pattern, w in _ROUTING if uses_nics and pattern.search(remarks)), "")
    racks = -(-run.nodes // RACK_NODES) if kind.model.endswith("nvl72") else 1
    count = f"node:{run.nodes}" if racks == 1 else f"rack:{racks}"
    parts = (f"model:{kind.model}", count, words.spec, routing, "" if has_peers else "peer:off")
    return RunMachine(
        run_id=run.run_id,
        spec=" ".join(part for part in parts if part),
        nodes=run.nodes,
        ranks_per_node=per_node,
        racks=racks,
        peer_access=has_peers and kind.model not in _GEFORCE,
        slow_peer_path=_SLOW_PEER_PATH.search(remarks) is not None,
        shared_memory=shares_memory,
        notes=_notes(kind, words, uses_nics=uses_nics, racks=racks),
    )


def fabric_of(machine: RunMachine) -> Fabric | SkippedRun:
    """The fabric of a run's machine, kept for all runs of one SPEC; why there is none."""
    try:
        return _fabric_from_spec(machine.spec)
    except ExpectedError as error:
        return SkippedRun(machine.run_id, str(error))


@cache
def _fabric_from_spec(spec: str) -> Fabric:
    return Fabric(fleet_from_spec(spec))


def _kind_of(run: Run) -> _Kind | None:
    """The kind of node, None where no family or no kind of it fits."""
    name = re.sub(r"[_()\[\],/]+|(?<=\d)-(?=\D)|(?<=\D)-(?=\D)", " ", run.gpu_model.lower())
    words = f"{name} {run.wiring} {run.notes if 'alps' in run.notes.lower() else ''}".lower()
    kinds = next((kinds for pattern, kinds in _FAMILIES if pattern.search(name)), ())
    used = max(run.gpus_per_node, 1)
    return next((kind for kind in kinds if kind.fits(words, used)), None)


def _network(run: Run) -> NicWords:
    remarks = f"{run.wiring} {run.notes} {run.gpu_model}"
    return nic_words(nic=run.nic, fabric=run.fabric, remarks=remarks)


def _notes(kind: _Kind, words: NicWords, *, uses_nics: bool, racks: int) -> tuple[str, ...]:
    notes = [kind.note, *words.notes]
    if uses_nics and words.network is None:
        notes.append(f"assumed: the network of {kind.model}'s reference design")
    if uses_nics and words.count is None:
        notes.append(f"assumed: as many NICs as {kind.model} has")
    if uses_nics and words.network is not None and words.gbit_per_s is None:
        notes.append(f"assumed: NICs of {kind.model}'s rate")
    if racks > 1:
        notes.append("assumed: as many nodes in each rack")
    return tuple(note for note in notes if note)

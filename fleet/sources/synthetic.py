"""Synthetic: a whole fleet from one line of words, ``model:dgx-h100 node:32 leaf:8 spine:4``.

Identities are made from names, so the same SPEC gives the same bytes. A map made here carries its
SPEC, and SPEC -> map -> SPEC is the identity.
"""

import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import blake2b
from typing import Final

from fleet.errors import SourceError
from fleet.fields import Absence, AbsenceReason, GpuUuid, HostName, SwitchId
from fleet.memory import collector_paused
from fleet.merge import merge_snapshots
from fleet.model import (
    SCHEMA_VERSION,
    Allocation,
    FabricState,
    FleetMap,
    Footprint,
    GpuIdentity,
    NicIdentity,
    NodeSnapshot,
    NvlinkFabric,
    Section,
    SectionName,
    Switch,
)
from fleet.sources.machines import Machine, machine_from_name
from fleet.sources.machines.networks import is_adaptive, with_cpu, with_network, with_peer_access
from fleet.sources.reference_fabric import SwitchCounts, build_fabric
from fleet.wiring import Wiring

MOST_NODES: Final = 200_000
LONGEST_SPEC: Final = 1024
RACKS_PER_ROW: Final = 10
_DIGITS: Final = re.compile("[0-9]{1,9}")
_NAMESPACE: Final = uuid.UUID("0d5f7a52-6c0e-5d3b-9c58-3d8f5f6a4e11")
_TOLD: Final = tuple(name for name in SectionName if name is not SectionName.HEALTH)
_NOT_ASKED: Final = (
    Absence(
        path="versions", reason=AbsenceReason.NOT_ASKED, detail="a synthetic node runs nothing"
    ),
    Absence(
        path="sections[*].collected_at",
        reason=AbsenceReason.NOT_ASKED,
        detail="a synthetic node has no time",
    ),
)
_NO_XGMI_VERSION: Final = Absence(
    path="wiring.gpus[*].ports[*].version",
    reason=AbsenceReason.UNSUPPORTED,
    detail="xGMI tells no version",
)


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """A SPEC, word by word; None follows the model's reference design."""

    machine: Machine
    nodes: int
    counts: SwitchCounts
    busy: tuple[int, ...]
    text: str
    adaptive_routing: bool | None = None


def fleet_from_spec(text: str) -> FleetMap:
    """A synthetic fleet map.

    Words: ``model:NAME`` (required), ``node:N`` or ``rack:N``, ``leaf:N``, ``spine:N``, ``core:N``,
    ``oversubscription:N`` (links down of a leaf for each link up), ``network:NAME``, ``nic:N``,
    ``nic_rate:RATE``, ``routing:adaptive|static``, ``cpu:intel|amd|arm``, ``peer:on|off`` (peer
    access between GPUs), and ``busy:A,B,...``: node i has that many GPUs allocated, the list
    repeats over the nodes.

    Raises:
        SourceError: an unknown word or value, naming what would do.

    >>> fleet = fleet_from_spec("model:dgx-h100 node:2")
    >>> len(fleet.nodes), fleet.gpu_count, len(fleet.shapes), len(fleet.switches)
    (2, 16, 1, 9)
    """
    with collector_paused():
        return _built(spec_from_text(text))


def _built(spec: FleetSpec) -> FleetMap:
    hosts = [_host_name(spec, i) for i in range(spec.nodes)]
    switches, cables = build_fabric(spec.machine, hosts, spec.counts)
    if spec.adaptive_routing is not None:
        told = {"adaptive_routing": spec.adaptive_routing}
        switches = tuple(switch.model_copy(update=told) for switch in switches)
    wiring = spec.machine.wiring()
    return merge_snapshots(
        _snapshots(spec, hosts, wiring),
        switches=(*_nvlink_switches(spec), *switches),
        cables=cables,
        spec=spec.text,
    )


def spec_from_text(text: str) -> FleetSpec:
    """A SPEC from its text.

    Raises:
        SourceError: an unknown or repeated word, a value that is no count, or too much of it.
    """
    words: dict[str, str] = {}
    for word in text.split():
        name, colon, value = word.partition(":")
        if name not in _WORDS or not colon or not value:
            raise _unknown_word(word, name)
        if name in words:
            raise SourceError(f"{name} stands twice", where="SPEC", field=word, remedy="keep one")
        words[name] = value
    if "model" not in words:
        raise SourceError(
            "no model", where="SPEC", field=text.strip(), remedy="add model:dgx-h100, say"
        )
    if "node" in words and "rack" in words:
        raise SourceError("both node and rack", where="SPEC", field=text, remedy="keep one")
    if len(text) > LONGEST_SPEC:
        raise SourceError(
            f"{len(text)} characters", where="SPEC", remedy=f"write {LONGEST_SPEC} at most"
        )
    machine = _machine(words)
    return FleetSpec(
        machine=machine,
        nodes=_node_count(words, machine),
        counts=SwitchCounts(
            leaf=_count(words, "leaf", 1),
            spine=_count(words, "spine", 0),
            core=_count(words, "core", 0),
            oversubscription=_count(words, "oversubscription", 1),
        ),
        busy=_busy(words.get("busy"), machine),
        text=" ".join(text.split()),
        adaptive_routing=is_adaptive(words.get("routing")),
    )


_WORDS: Final = (
    "model",
    "node",
    "rack",
    "leaf",
    "spine",
    "core",
    "oversubscription",
    "routing",
    "network",
    "nic",
    "nic_rate",
    "cpu",
    "peer",
    "busy",
)


def _machine(words: dict[str, str]) -> Machine:
    """The model, with the network, CPU and peer access that the words ask for."""
    machine = with_network(
        machine_from_name(words["model"]),
        network=words.get("network"),
        nic=_count(words, "nic", 1),
        nic_rate=words.get("nic_rate"),
    )
    return with_peer_access(with_cpu(machine, words.get("cpu")), words.get("peer"))


def _unknown_word(word: str, name: str) -> SourceError:
    near = () if name in _WORDS else get_close_matches(name, _WORDS, n=1)
    hint = f"did you mean {near[0]}:? " if near else ""
    return SourceError(
        f"{word!r} is no word of a SPEC" if name not in _WORDS else f"{word!r} has no value",
        where="SPEC",
        remedy=f"{hint}words are {', '.join(f'{known}:' for known in _WORDS)} with a value",
    )


def _node_count(words: dict[str, str], machine: Machine) -> int:
    racks = _count(words, "rack", 1) or 1
    nodes = _count(words, "node", 1) or racks * machine.nodes_per_rack
    if nodes > MOST_NODES:
        raise SourceError(
            f"{racks} racks are {nodes} nodes",
            where="SPEC",
            field="rack",
            remedy=f"ask for {MOST_NODES // machine.nodes_per_rack} racks at most",
        )
    return nodes


def _count(words: dict[str, str], name: str, least: int) -> int | None:
    if name not in words:
        return None
    value = words[name]
    if not _DIGITS.fullmatch(value) or not least <= int(value) <= MOST_NODES:
        raise SourceError(
            f"{value!r} is no count",
            where="SPEC",
            field=name,
            remedy=f"give a whole number from {least} to {MOST_NODES}",
        )
    return int(value)


def _busy(text: str | None, machine: Machine) -> tuple[int, ...]:
    if text is None:
        return (0,)
    parts = text.split(",")
    if not all(_DIGITS.fullmatch(part) and int(part) <= machine.ranks for part in parts):
        raise SourceError(
            f"{text!r} is no list of counts",
            where="SPEC",
            field="busy",
            remedy=f"give counts from 0 to {machine.ranks}, such as busy:{machine.ranks},0",
        )
    return tuple(int(part) for part in parts)


def _host_name(spec: FleetSpec, i: int) -> HostName:
    width = max(3, len(str(spec.nodes)))
    return HostName(f"{spec.machine.host_prefix}-{i + 1:0{width}d}")


def _snapshots(
    spec: FleetSpec, hosts: Sequence[HostName], wiring: Wiring
) -> Iterator[NodeSnapshot]:
    """All nodes; what is the first one's and every other's alike is checked with the first."""
    first = _snapshot(spec, hosts[0], wiring)
    for i, host in enumerate(hosts):
        yield first.model_copy(update=_own_facts(spec, i, host, wiring))


def _snapshot(spec: FleetSpec, host: HostName, wiring: Wiring) -> NodeSnapshot:
    return NodeSnapshot(
        kind="node_snapshot",
        schema_version=SCHEMA_VERSION,
        host=host,
        wiring=wiring,
        sections=tuple(Section(name=name, source="synthetic") for name in _TOLD),
        absences=_absences(spec.machine),
    )


def _own_facts(spec: FleetSpec, i: int, host: HostName, wiring: Wiring) -> dict[str, object]:
    """What tells one node from another."""
    rack, position = divmod(i, spec.machine.nodes_per_rack)
    busy = spec.busy[i % len(spec.busy)]
    held = (Allocation(holder="busy in the SPEC", slots=tuple(range(busy))),) if busy else ()
    return {
        "host": host,
        "gpus": tuple(_gpu(spec, rack, host, gpu.slot) for gpu in wiring.gpus),
        "nics": tuple(NicIdentity(slot=n.slot, guid=_guid(host, n.slot)) for n in wiring.nics),
        "tray": position if _is_rack_domain(spec.machine) else None,
        "footprint": Footprint(
            hall="hall1",
            row=f"row{rack // RACKS_PER_ROW + 1}",
            rack=f"rack{rack + 1:03d}",
            position=position,
        ),
        "allocations": held,
    }


def _absences(machine: Machine) -> tuple[Absence, ...]:
    is_untold = machine.nvlink is not None and machine.nvlink.version is None
    return (*_NOT_ASKED, _NO_XGMI_VERSION) if is_untold else _NOT_ASKED


def _gpu(spec: FleetSpec, rack: int, host: HostName, slot: int) -> GpuIdentity:
    assert spec.machine.gpu is not None, "only GPU slots are asked for"
    state = spec.machine.gpu.fabric
    fabric = NvlinkFabric(state=state)
    if state is FabricState.DOMAIN:
        cluster = str(_uuid(f"{spec.machine.name}/rack{rack}"))
        fabric = NvlinkFabric(state=state, cluster_uuid=cluster, clique=1)
    identity = _uuid(f"{spec.machine.name}/{host}/{slot}")
    return GpuIdentity(
        slot=slot,
        uuid=GpuUuid(f"GPU-{identity}"),
        serial=f"{identity.int % 10**13:013d}",
        fabric=fabric,
    )


def _nvlink_switches(spec: FleetSpec) -> tuple[Switch, ...]:
    """The NVLink switch chips of every rack whose nodes form one domain."""
    nvlink = spec.machine.nvlink
    if nvlink is None or not nvlink.domain_switches:
        return ()
    racks = -(-spec.nodes // spec.machine.nodes_per_rack)
    return tuple(
        Switch(
            id=SwitchId(f"rack{rack + 1:03d}-nvswitch{chip:02d}"),
            nvlink_domain=f"{_uuid(f'{spec.machine.name}/rack{rack}')}.1",
            ports=spec.machine.nodes_per_rack * spec.machine.ranks,
            footprint=Footprint(
                hall="hall1", row=f"row{rack // RACKS_PER_ROW + 1}", rack=f"rack{rack + 1:03d}"
            ),
        )
        for rack in range(racks)
        for chip in range(nvlink.domain_switches)
    )


def _is_rack_domain(machine: Machine) -> bool:
    return machine.nvlink is not None and machine.nvlink.domain_switches > 0


def _uuid(name: str) -> uuid.UUID:
    return uuid.uuid5(_NAMESPACE, name)


def _guid(host: str, slot: int) -> str:
    return blake2b(f"{host}/{slot}".encode(), digest_size=8).hexdigest()

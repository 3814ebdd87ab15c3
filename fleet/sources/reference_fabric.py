"""Reference fabrics: leaves, spines and cores as a maker would cable them. No reading, no clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fleet.errors import SourceError
from fleet.fields import HostName, SwitchId
from fleet.model import Cable, CableEnd, Footprint, Switch
from fleet.sources.machines import Machine

LEAF, SPINE, CORE = 0, 1, 2
HOST_CABLE_M: Final = 5.0
LEAF_CABLE_M: Final = 20.0
CORE_CABLE_M: Final = 50.0


@dataclass(frozen=True, slots=True)
class SwitchCounts:
    """Switches of each tier that a SPEC asks for; None follows the reference design.

    ``oversubscription``: links down of a leaf for each link up.
    """

    leaf: int | None = None
    spine: int | None = None
    core: int | None = None
    oversubscription: int | None = None


def build_fabric(
    machine: Machine, hosts: Sequence[HostName], counts: SwitchCounts
) -> tuple[tuple[Switch, ...], tuple[Cable, ...]]:
    """Switches and cables around the hosts.

    Rail-optimised: NIC i of every node of a group goes to that group's leaf i. Two tiers while a
    spine has a port for every leaf, else pods below a core tier. Uplinks are spread evenly.

    Raises:
        SourceError: the asked counts do not fit the ports of the switches.
    """
    plan = _Plan(machine, len(hosts), counts)
    leaves, cables = plan.leaves(hosts)
    if len(leaves) == 1 and not counts.spine and not counts.core:
        return tuple(leaves), tuple(cables)
    upper, uplinks = plan.upper_tiers(leaves)
    return (*leaves, *upper), (*cables, *uplinks)


class _Plan:
    """Counts of a fabric, checked against the ports of its switches."""

    def __init__(self, machine: Machine, node_count: int, counts: SwitchCounts) -> None:
        self.machine, self.counts = machine, counts
        self.ports = machine.fabric.switch_ports
        self.rate = machine.nic.bytes_per_s
        self.rails = machine.nic.count if machine.fabric.rail_optimised else 1
        self.groups = self._groups(node_count)
        self.nodes_per_group = -(-node_count // self.groups)
        links = self.nodes_per_group * (1 if self.rails > 1 else machine.nic.count)
        self.down = links
        if self.down >= self.ports:
            raise _does_not_fit("leaf", f"{self.down} links down on {self.ports} ports")
        reference = machine.fabric.uplinks or self.down
        if counts.oversubscription:
            reference = -(-self.down // counts.oversubscription)
        self.up = min(reference, self.ports - self.down)
        self.has_core = self.groups * self.rails > self.ports or bool(counts.core)
        self.leaves_per_pod = self.ports // 2 // self.rails * self.rails
        self.links_to_core = self.ports - self.leaves_per_pod
        if self.has_core and not self.leaves_per_pod:
            text = f"{self.rails} rails for spines of {self.ports} ports"
            raise _does_not_fit("nic", text, "ask for fewer NICs or nodes")
        if self.has_core:
            self._check_core()

    def _groups(self, node_count: int) -> int:
        leaf = self.counts.leaf
        if leaf is None:
            return -(-node_count // self.machine.fabric.nodes_per_leaf)
        if leaf % self.rails:
            raise _does_not_fit("leaf", f"{leaf} is no multiple of {self.rails} rails")
        return leaf // self.rails

    def leaves(self, hosts: Sequence[HostName]) -> tuple[list[Switch], list[Cable]]:
        layer = self.machine.nic.link_layer
        switches = [
            Switch(
                id=SwitchId(_leaf_name(group, rail if self.rails > 1 else None)),
                link_layer=layer,
                tier=LEAF,
                ports=self.ports,
                footprint=Footprint(
                    hall="hall1", row=f"row{group // 8 + 1}", rack=f"net{group + 1}"
                ),
            )
            for group in range(self.groups)
            for rail in range(self.rails)
        ]
        cables = []
        for i, host in enumerate(hosts):
            group, place = divmod(i, self.nodes_per_group)
            for nic in range(self.machine.nic.count):
                leaf = switches[group * self.rails + (nic if self.rails > 1 else 0)]
                port = place + 1 if self.rails > 1 else place * self.machine.nic.count + nic + 1
                near = CableEnd(device=host, nic=nic, port=1)
                cables.append(self._cable(near, CableEnd(device=leaf.id, port=port), HOST_CABLE_M))
        return switches, cables

    def upper_tiers(self, leaves: list[Switch]) -> tuple[list[Switch], list[Cable]]:
        if self.has_core:
            return self._three_tiers(leaves)
        spines = self.counts.spine
        count = -(-len(leaves) * self.up // self.ports) if spines is None else spines
        return self._two_tiers(leaves, count)

    def _two_tiers(self, leaves: list[Switch], count: int) -> tuple[list[Switch], list[Cable]]:
        """Every leaf has a link to every spine, or two leaves would not meet."""
        up = min(max(self.up, count), self.ports - self.down)
        if count > up:
            text = f"{count} spines for {up} links up from a leaf"
            raise _does_not_fit("spine", text, f"use spine:{up} or fewer")
        if count * self.ports < len(leaves) * up:
            fits = -(-len(leaves) * up // self.ports)
            text = f"{len(leaves) * up} links on {count} x {self.ports} ports"
            raise _does_not_fit("spine", text, f"use spine:{fits} or more")
        spines = self._switches("spine", count, SPINE)
        return spines, self._spread(leaves, spines, up, self.down, LEAF_CABLE_M)

    def _three_tiers(self, leaves: list[Switch]) -> tuple[list[Switch], list[Cable]]:
        """Pods of half a spine's ports in leaves; spine i of each pod meets core group i."""
        per_pod, per_group = self.leaves_per_pod, self._cores_per_group()
        pods = [leaves[i : i + per_pod] for i in range(0, len(leaves), per_pod)]
        switches: list[Switch] = []
        cables: list[Cable] = []
        cores = self._switches("core", per_group * self.up, CORE)
        used = [0] * len(cores)
        for p, pod in enumerate(pods):
            spines = self._switches(f"pod{p + 1}-spine", self.up, SPINE)
            cables += self._spread(pod, spines, self.up, self.down, LEAF_CABLE_M)
            for i, spine in enumerate(spines):
                for j in range(self.links_to_core):
                    core = i * per_group + (p * self.links_to_core + j) % per_group
                    used[core] += 1
                    near = CableEnd(device=spine.id, port=per_pod + j + 1)
                    far = CableEnd(device=cores[core].id, port=used[core])
                    cables.append(self._cable(near, far, CORE_CABLE_M))
            switches += spines
        return [*switches, *cores], cables

    def _pods(self) -> int:
        return -(-self.groups * self.rails // self.leaves_per_pod)

    def _cores_per_group(self) -> int:
        return -(-self._pods() * self.links_to_core // self.ports)

    def _check_core(self) -> None:
        pods, per_group = self._pods(), self._cores_per_group()
        for name, asked, fits in (
            ("spine", self.counts.spine, pods * self.up),
            ("core", self.counts.core, per_group * self.up),
        ):
            if asked is not None and asked != fits:
                text = f"{asked} for {pods} pods of {self.up} spines"
                raise _does_not_fit(name, text, f"use {name}:{fits}")
        # Two spines meet in a core for sure while each reaches more than half of its group.
        if 2 * self.links_to_core <= per_group:
            text = f"{pods} pods on spines with {self.links_to_core} links up"
            raise _does_not_fit("node", text, "three tiers carry no more; ask for fewer nodes")

    def _spread(
        self, below: list[Switch], above: list[Switch], up: int, first_port: int, length_m: float
    ) -> list[Cable]:
        used = [0] * len(above)
        cables = []
        for i, switch in enumerate(below):
            for j in range(up):
                far = (i * up + j) % len(above)
                used[far] += 1
                near_end = CableEnd(device=switch.id, port=first_port + j + 1)
                far_end = CableEnd(device=above[far].id, port=used[far])
                cables.append(self._cable(near_end, far_end, length_m))
        return cables

    def _switches(self, prefix: str, count: int, tier: int) -> list[Switch]:
        layer = self.machine.nic.link_layer
        width = len(str(count))
        return [
            Switch(
                id=SwitchId(f"{prefix}{i + 1:0{width}d}"),
                link_layer=layer,
                tier=tier,
                ports=self.ports,
                footprint=Footprint(hall="hall1", rack="core-network"),
            )
            for i in range(count)
        ]

    def _cable(self, a: CableEnd, b: CableEnd, length_m: float) -> Cable:
        return Cable(a=a, b=b, bytes_per_s=self.rate, length_m=length_m)


def _leaf_name(group: int, rail: int | None) -> str:
    return f"leaf{group + 1:02d}" + ("" if rail is None else f"-rail{rail}")


def _does_not_fit(field: str, problem: str, remedy: str = "change the count") -> SourceError:
    return SourceError(problem, where="SPEC", field=field, remedy=remedy)

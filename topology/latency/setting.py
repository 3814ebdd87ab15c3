"""Setting: a scenario on a placement with its way chosen; what it can be run under."""

from dataclasses import dataclass, replace
from typing import Final

from fleet import slowed_hosts
from topology.collective.placement import Placement
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.fabric.route_table import RouteMap
from topology.latency.attribution import Case, Cause, find_cause
from topology.latency.choice import Choice, choose
from topology.latency.noise import MessageNoise, noises_of
from topology.latency.noise_layers import Layers, layers_of
from topology.latency.scenario import FloatArray, MeasuredNoise, Scenario, check_scenario
from topology.latency.trace_noise import trace_noise
from topology.words import NoiseName

PROFILES: Final = (NoiseName.DEDICATED, NoiseName.SHARED, NoiseName.CONTENDED)
"""Noise profiles over which a p99.9 is a band."""


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """A scenario on a placement: routes, and the way that was chosen on them."""

    fabric: Fabric
    placement: Placement
    routes: RouteMap
    scenario: Scenario
    choice: Choice

    @property
    def is_silent(self) -> bool:
        """Whether nothing in it is random."""
        return self.scenario.noise is NoiseName.NONE or not self.choice.schedule.messages

    @property
    def noise_name(self) -> str:
        """The profile, or where measured noise comes from."""
        measured = self.scenario.measured
        return self.scenario.noise.value if measured is None else measured.name

    def noises(self, noise: NoiseName) -> list[MessageNoise]:
        """The noise of each route class under a profile."""
        return noises_of(self.fabric.figures, self.choice.costs.classes, noise)

    def own_case(self, trials: int) -> Case:
        """A replay under the scenario's own noise, measured where it was."""
        case = self.case(self.scenario.noise, trials)
        told = self.scenario.measured
        if told is None:
            return case
        noises = [
            noise if latencies is None else trace_noise(latencies)
            for noise, latencies in zip(case.noises, self._latencies(told), strict=True)
        ]
        return replace(case, noises=noises)

    def _latencies(self, told: MeasuredNoise) -> list[FloatArray | None]:
        """What was measured of each route class, None where nothing was.

        Raises:
            WorkloadError: nothing of any class of this run was measured.
        """
        classes = self.choice.costs.classes
        untold = told.latencies_s.get(None)
        nets = {name for name in classes if kind_of_class(name) == "net"}
        stands_for = nets or set(classes)
        found = [
            told.latencies_s.get(name, untold if name in stands_for else None) for name in classes
        ]
        if all(latencies is None for latencies in found):
            theirs = ", ".join(sorted(str(name) for name in told.latencies_s))
            raise WorkloadError(
                f"it has {theirs}, and this run uses {', '.join(classes)}",
                where=told.name,
                field="link_class",
                remedy="measure one of these, or leave link_class out",
            )
        return found

    @property
    def measured_classes(self) -> tuple[str, ...]:
        """Route classes whose noise was measured."""
        told = self.scenario.measured
        if told is None:
            return ()
        pairs = zip(self.choice.costs.classes, self._latencies(told), strict=True)
        return tuple(name for name, latencies in pairs if latencies is not None)

    def case(self, noise: NoiseName, trials: int) -> Case:
        """A replay under a profile, as its causes see it."""
        classes = self.choice.costs.classes
        return Case(
            costs=self.choice.costs,
            noises=self.noises(noise),
            hosts=[endpoint.host for endpoint in self.placement.endpoints],
            kind_of={name: kind_of_class(name) for name in classes},
            trials=trials,
            seed=self.scenario.seed,
            layers=self._layers(noise),
        )

    def _layers(self, noise: NoiseName) -> Layers | None:
        """The scenario's layers; slow hosts are those that the map knows, or a population."""
        if not self.scenario.layers:
            return None
        return layers_of(
            self.fabric,
            self.routes,
            self.choice.schedule,
            noise=noise,
            names=self.scenario.layers,
            slow_hosts=slowed_hosts(self.fabric.fleet) or None,
        )

    def without(self, case: Case) -> Cause | None:
        """The cause that is taken away, if any.

        Raises:
            WorkloadError: nothing here has that name.
        """
        name = self.scenario.without
        return None if name is None else find_cause(case, name)


def settle(fabric: Fabric, placement: Placement, scenario: Scenario) -> Setting:
    """Route a placement, and choose the way of a scenario on it.

    Raises:
        WorkloadError: a size below one byte, a stack that these ranks do not run.
        ScheduleError: the named algorithm does not do this; the message names those that do.
        UnreachableError: ranks that no known link joins.
    """
    check_scenario(scenario)
    routes = RouteMap(fabric, placement.endpoints)
    choice = choose(fabric, placement, routes, scenario)
    return Setting(fabric, placement, routes, scenario, choice)


def kind_of_class(name: str) -> str:
    """Kind of link of a route class: nvlink, pci or net.

    >>> [kind_of_class(name) for name in ("nvlink4_nvswitch", "pcie_gen5", "ib_ndr_1hop")]
    ['nvlink', 'pci', 'net']
    """
    if name.startswith(("nvlink", "xgmi")):
        return "nvlink"
    return "pci" if name.startswith("pcie") else "net"

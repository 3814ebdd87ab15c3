"""The knee on a map: from which rank count rare events make p99.9, with this map's links."""

from itertools import chain
from typing import Final

from topology.collective.placement import Placement
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.fabric.link_figures import Jitter
from topology.fabric.routes import Endpoint
from topology.latency.knee import COUNTED, Knee, find_knee, layers_of
from topology.latency.noise import scaled_jitter
from topology.latency.summary import PERCENTILES, LatencySummary
from topology.words import AlgorithmName, Collective, NoiseName

P999: Final = PERCENTILES["p999_s"]


def knee_of(
    fabric: Fabric, placement: Placement, summary: LatencySummary, noise: NoiseName
) -> Knee:
    """Where p99.9 of a simulated all-reduce becomes event-driven, one domain filled after another.

    Inside: the way between two ranks of the first rank's NVLink domain; across: from there to the
    last rank on its rail in another domain. The count goes on beyond the map with links as these.

    Raises:
        WorkloadError: another collective, or an algorithm whose hops are not counted.
    """
    if summary.collective != Collective.ALL_REDUCE:
        text = f"hops are counted for all_reduce, not for {summary.collective}"
        raise WorkloadError(text, field="--knee", remedy="leave it out")
    if summary.algorithm not in COUNTED:
        raise WorkloadError(
            f"hops of {summary.algorithm} are not counted",
            field="--knee",
            remedy=f"use --algorithm {', '.join(COUNTED)}",
        )
    first = placement.endpoints[0]
    domain = fabric.domain_of(first).endpoints
    near = next((end for end in domain if end != first), None)
    others = chain(placement.endpoints[::-1], fabric.endpoints[::-1])
    beyond = [end for end in others if end not in domain]
    on_its_rail = (end for end in beyond if end.slot == first.slot)
    far = next(on_its_rail, beyond[0] if beyond else None)
    inside, inside_name = _jitter(fabric, first, near, noise)
    across, across_name = _jitter(fabric, first, far, noise)
    if near is far is None:
        text = "one endpoint has no links to wait for"
        raise WorkloadError(text, field="--knee", remedy="leave it out")
    layers = layers_of(
        AlgorithmName(summary.algorithm),
        inside=inside,
        across=across,
        per_domain=len(domain),
        names=(f"inside ({inside_name})", f"across ({across_name})"),
    )
    ways = (near, far)
    return find_knee([row for row, way in zip(layers, ways, strict=True) if way], P999)


def _jitter(
    fabric: Fabric, first: Endpoint, other: Endpoint | None, noise: NoiseName
) -> tuple[Jitter, str]:
    """Jitter and name of a way's route class; calm where there is no such way."""
    if other is None:
        return _CALM, "no link"
    name = fabric.reachable_route(first, other).route_class.name
    return scaled_jitter(fabric.figures, name, noise), name


_CALM: Final = Jitter(
    body_median_s=0.0,
    body_sigma=0.0,
    detour_probability=0.0,
    detour_median_s=1e-9,
    detour_sigma=0.0,
    detour_cap_s=1e-9,
)

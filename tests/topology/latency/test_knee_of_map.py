"""The knee with the links of a map."""

from dataclasses import replace

import pytest

from tests.topology.latency.factories import fabric_of
from topology.collective.placement import pack
from topology.errors import WorkloadError
from topology.latency.noise import scaled_jitter
from topology.latency.report import summary_document, summary_lines
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.latency.summary import LatencySummary
from topology.words import AlgorithmName, Collective, NoiseName

SMALL = Scenario(Collective.ALL_REDUCE, 8, knee=True)


def run(scenario: Scenario, spec: str, gpus: int) -> LatencySummary:
    fabric = fabric_of(spec)
    return simulate(fabric, pack(fabric, gpus), scenario)


def test_the_knee_across_is_where_hops_times_chance_reach_a_thousandth() -> None:
    """One rank a node: a tree of n ranks has 2 (n - 1) hops across, each with the detour's p."""
    fabric = fabric_of("beowulf-2006 node:20")
    scenario = replace(SMALL, algorithm=AlgorithmName.TREE)
    knee = simulate(fabric, pack(fabric, 20), scenario).knee
    route = fabric.reachable_route(fabric.endpoints[0], fabric.endpoints[-1]).route_class.name
    p = scaled_jitter(fabric.figures, route, NoiseName.DEDICATED).detour_probability
    assert knee is not None
    assert knee.layer == f"across ({route})"
    assert knee.ranks is not None
    hops = 2 * (knee.ranks - 1)
    assert 1 - (1 - p) ** hops >= 1e-3 > 1 - (1 - p) ** (hops - 2)


def test_without_noise_there_is_no_knee() -> None:
    knee = run(replace(SMALL, noise=NoiseName.NONE), "dgx-h100 node:4", 32)
    assert knee.knee is not None
    assert knee.knee.ranks is None
    assert "knee: at no rank count do rare events make p99.9" in summary_lines(knee)


def test_one_domain_alone_has_no_events_across() -> None:
    told = run(SMALL, "gb200-nvl72 rack:1", 72)
    assert told.knee is not None
    assert [name.split()[0] for name in told.knee.own] == ["inside"]
    assert "across" not in "\n".join(summary_lines(told))


def test_the_knee_is_in_text_and_document() -> None:
    told = run(SMALL, "dgx-h100 node:2", 16)
    lines = summary_lines(told)
    assert "knee of p99.9, here 16 ranks, by rare events of one piece's messages:" in lines
    assert sum(line.startswith(("  inside (", "  across (")) for line in lines) == 2
    assert summary_document(told)["knee"]["percentile"] == 0.999
    assert summary_document(run(replace(SMALL, knee=False), "dgx-h100 node:2", 16))["knee"] is None


def test_the_way_across_is_that_of_a_rail() -> None:
    """A rail's ranks meet in one leaf, those of other rails over three switches."""
    told = run(SMALL, "dgx-h100 node:4", 32)
    assert told.knee is not None
    assert "across (ib_ndr_1hop)" in told.knee.own


@pytest.mark.parametrize(
    ("scenario", "reason"),
    [
        (replace(SMALL, collective=Collective.ALL_GATHER), "counted for all_reduce"),
        (replace(SMALL, algorithm=AlgorithmName.ONE_SHOT), "hops of one_shot are not counted"),
    ],
)
def test_what_has_no_counted_hops_is_refused(scenario: Scenario, reason: str) -> None:
    with pytest.raises(WorkloadError, match=f"--knee: .*{reason}"):
        run(scenario, "dgx-h100 node:1", 8)

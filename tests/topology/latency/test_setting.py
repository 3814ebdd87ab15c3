"""Under which noise a scenario is run: profiles, what was measured, and layers."""

from dataclasses import replace

import numpy as np
import pytest

from tests.topology.latency.factories import fabric_of
from topology.collective.placement import pack
from topology.errors import WorkloadError
from topology.latency.report import summary_document, summary_lines
from topology.latency.scenario import MeasuredNoise, Scenario
from topology.latency.simulate import simulate
from topology.latency.summary import LatencySummary
from topology.words import AlgorithmName, Collective, MethodName, NoiseLayer, StackName

RNG = np.random.default_rng(7)
SLOW_S = np.sort(2e-6 + 1e-6 * RNG.random(1_000) + 80e-6 * (np.arange(1_000) % 20 == 0))
TREE = Scenario(
    Collective.ALL_REDUCE,
    8,
    algorithm=AlgorithmName.DOUBLE_BINARY_TREE,
    stack=StackName.WIRE,
    trials=4_000,
)


def run(scenario: Scenario, spec: str = "dgx-h100 node:2", gpus: int = 16) -> LatencySummary:
    fabric = fabric_of(spec)
    return simulate(fabric, pack(fabric, gpus), scenario)


def measured(link_class: str | None) -> Scenario:
    return replace(TREE, measured=MeasuredNoise("mine.csv", {link_class: SLOW_S}))


def test_measured_noise_stands_in_for_its_class_alone() -> None:
    on_net = run(measured("ib_ndr_1hop")).percentiles["p99_s"] or 0
    assert on_net > (run(TREE).percentiles["p99_s"] or 0) + 70e-6


def test_measured_noise_of_no_class_stands_for_the_network() -> None:
    assert run(measured(None)).percentiles == run(measured("ib_ndr_1hop")).percentiles


def test_measured_noise_that_matches_no_link_is_refused_with_the_classes() -> None:
    with pytest.raises(WorkloadError, match=r"mine.csv: link_class: it has ib_hdr_1hop, and this"):
        run(measured("ib_hdr_1hop"))


def test_a_trace_has_no_layers_that_could_be_taken_away() -> None:
    for layer in ("body", "detour"):
        with pytest.raises(WorkloadError, match=f"{layer}: no node, link or layer"):
            run(replace(measured(None), without=layer))
    told = run(replace(measured(None), attribute=True, trials=400))
    assert not {row.name for row in told.attribution or ()} & {"body", "detour"}


def test_a_trace_has_no_knee() -> None:
    with pytest.raises(WorkloadError, match="--knee: a trace tells no chance of events"):
        run(replace(measured(None), knee=True))


def test_inside_one_node_measured_noise_of_no_class_stands_for_all() -> None:
    inside = run(measured(None), "dgx-h100 node:1", 8)
    assert (inside.percentiles["p99_s"] or 0) > 80e-6


def test_measured_noise_is_a_further_row_of_the_band() -> None:
    told = run(measured(None))
    assert told.noise == "mine.csv"
    assert told.band is not None
    assert list(told.band) == ["dedicated", "shared", "contended", "mine.csv"]
    assert told.band["dedicated"]["p50_s"] == pytest.approx(
        run(TREE).percentiles["p50_s"], rel=0.01
    )
    assert "dedicated to contended, measured" in "\n".join(summary_lines(told))


@pytest.mark.parametrize("layer", list(NoiseLayer))
def test_every_layer_can_be_switched_on_and_taken_away_again(layer: NoiseLayer) -> None:
    with_it = replace(TREE, layers=frozenset({layer}))
    told = run(with_it)
    assert summary_document(told)["layers"] == [layer.value]
    assert f"noise dedicated and {layer.value}, 4,000 trials" in summary_lines(told)[1]
    assert run(replace(with_it, without=layer.value)).percentiles == run(TREE).percentiles


def test_layers_only_add_time() -> None:
    calm, noisy = run(TREE), run(replace(TREE, layers=frozenset(NoiseLayer)))
    for name, value in calm.percentiles.items():
        assert value is None or (noisy.percentiles[name] or 0) >= value, name


def test_layers_stand_among_those_who_make_the_tail() -> None:
    told = run(replace(TREE, layers=frozenset({NoiseLayer.SKEW}), attribute=True, trials=1_000))
    assert told.attribution is not None
    (row,) = (row for row in told.attribution if row.name == "skew")
    assert row.share > 0


@pytest.mark.parametrize(
    ("scenario", "reason"),
    [
        (replace(TREE, layers=frozenset(NoiseLayer)), "layers of noise"),
        (measured(None), "measured noise is drawn"),
        (replace(TREE, precision=0.1), "a precision is reached"),
    ],
)
def test_a_certificate_of_what_is_drawn_is_refused(scenario: Scenario, reason: str) -> None:
    with pytest.raises(WorkloadError, match=f"exact has no trials, and {reason}"):
        run(replace(scenario, method=MethodName.EXACT))

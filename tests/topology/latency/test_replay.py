"""Replays of as many trials as a precision needs, and the band over noise profiles."""

from dataclasses import replace

import pytest

from tests.topology.latency.factories import fabric_of
from topology.collective.placement import spread
from topology.errors import WorkloadError
from topology.latency.replay import LEAST_TRIALS, reached_by
from topology.latency.report import summary_document, summary_lines
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.latency.summary import LatencySummary
from topology.words import AlgorithmName, Collective, MethodName, NoiseName

REPLAY = Scenario(
    Collective.ALL_REDUCE,
    65_536,
    algorithm=AlgorithmName.DOUBLE_BINARY_TREE,
    method=MethodName.MONTE_CARLO,
    trials=4_000,
)
PRECISE = replace(REPLAY, trials=None, precision=0.02)


def run(scenario: Scenario) -> LatencySummary:
    fabric = fabric_of("dgx-h100 node:2")
    return simulate(fabric, spread(fabric, 4), scenario)


def reached(summary: LatencySummary) -> float:
    assert summary.interval is not None
    return reached_by(summary.percentiles["p99_s"], summary.interval["p99_s"])


def test_a_finer_precision_takes_more_trials_and_is_reached() -> None:
    coarse, fine = run(PRECISE), run(replace(PRECISE, precision=0.006))
    assert reached(coarse) <= 0.02
    assert reached(fine) <= 0.006
    assert LEAST_TRIALS < (coarse.trials or 0) < (fine.trials or 0)
    assert any(line.startswith("p99 is known within") for line in summary_lines(fine))
    assert summary_document(fine)["precision"] == 0.006


def test_precise_trials_are_those_of_a_plain_run_of_as_many() -> None:
    precise = run(PRECISE)
    plain = run(replace(REPLAY, trials=precise.trials))
    assert plain.percentiles == precise.percentiles


def test_a_precision_out_of_reach_stops_at_the_most_trials_and_says_so() -> None:
    given_up = run(replace(PRECISE, precision=1e-6, trials=500))
    assert given_up.trials == 500
    assert any("p99 is known not within 0.00% but" in line for line in summary_lines(given_up))


@pytest.mark.parametrize("precision", [0.0, -0.1, 1.0, float("nan")])
def test_a_precision_that_is_none_is_refused(precision: float) -> None:
    with pytest.raises(WorkloadError, match=r"--precision: .*give more than 0 and below 100 %"):
        run(replace(PRECISE, precision=precision))


def test_an_interval_without_end_has_reached_nothing() -> None:
    assert reached_by(2.0, (1.0, 2.5)) == 0.5
    assert reached_by(2.0, (1.9, None)) == float("inf")
    assert reached_by(None, (1.9, None)) == float("inf")


def test_the_band_holds_every_profile_and_its_own_is_the_run_itself() -> None:
    told = run(REPLAY)
    assert told.band is not None
    assert list(told.band) == ["dedicated", "shared", "contended"]
    assert told.band["dedicated"] == {
        name: told.percentiles[name] for name in ("p50_s", "p99_s", "p999_s")
    }
    alone = run(replace(REPLAY, noise=NoiseName.CONTENDED, trials=3_688))
    assert told.band["contended"]["p99_s"] == alone.percentiles["p99_s"]


def test_percentiles_rise_from_the_quiet_to_the_contended_profile() -> None:
    for scenario in (REPLAY, replace(REPLAY, method=MethodName.EXACT, trials=None)):
        band = run(scenario).band
        assert band is not None
        for name in ("p50_s", "p99_s", "p999_s"):
            values = [row[name] or 0.0 for row in band.values()]
            assert values == sorted(values), name


def test_replay_and_certificate_agree_on_the_band() -> None:
    certified = run(replace(REPLAY, method=MethodName.EXACT, trials=None))
    assert certified.method == "exact"
    replay, exact = run(REPLAY).band, certified.band
    assert replay is not None
    assert exact is not None
    for profile, row in exact.items():
        assert row["p50_s"] == pytest.approx(replay[profile]["p50_s"], rel=0.01)


def test_without_noise_there_is_no_band() -> None:
    assert run(replace(REPLAY, noise=NoiseName.NONE)).band is None


def test_an_own_fault_taken_away_is_gone_under_every_profile() -> None:
    noisy, fixed = run(REPLAY).band, run(replace(REPLAY, without="net")).band
    assert noisy is not None
    assert fixed is not None
    for profile, row in fixed.items():
        assert (row["p99_s"] or 0) < (noisy[profile]["p99_s"] or 0)

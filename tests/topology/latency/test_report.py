"""What people and programs read of a summary."""

import json
from dataclasses import replace

from tests.topology.latency.factories import fabric_of
from topology.collective.placement import pack
from topology.latency.report import summary_document, summary_lines
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.latency.stack import load_stack_figures
from topology.latency.stack_report import stack_table
from topology.latency.summary import PERCENTILES, LatencySummary
from topology.words import Collective, NoiseName, StackName

CONTRACT = """
collective algorithm protocol stack method ranks nodes domains size_bytes noiseless_s mean_s
p50_s p90_s p99_s p999_s p9999_s algbw_bytes_per_s busbw_bytes_per_s trials seed interval
bracket model_interval breakdown attribution band schema_version kind
"""


def numbers_in(document: object) -> int:
    """How many numbers a document of figures holds."""
    if isinstance(document, dict):
        return sum(map(numbers_in, document.values()))
    return int(isinstance(document, int | float))


def summary_of(*, gpus: int = 16, **changes: object) -> LatencySummary:
    fabric = fabric_of("dgx-h100 node:2")
    scenario = Scenario(Collective.ALL_REDUCE, 2**20, trials=1_000)
    return simulate(fabric, pack(fabric, gpus), replace(scenario, **changes))  # type: ignore[arg-type]


def test_document_has_the_keys_of_the_contract() -> None:
    for document in map(summary_document, (summary_of(), summary_of(noise=NoiseName.NONE))):
        assert document.keys() >= set(CONTRACT.split())
        terms = {"launch_s", "software_s", "wire_s", "bandwidth_s", "noise_s"}
        assert all(row.keys() == terms for row in document["breakdown"].values())
        assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_document_tells_no_percentile_without_its_interval() -> None:
    document = summary_document(summary_of())
    assert document["interval"].keys() == PERCENTILES.keys()
    for name, (low, high) in document["interval"].items():
        assert (document[name] is None) == (high is None)
        assert document[name] is None or low <= document[name] <= high


def test_document_of_a_quiet_run_has_no_trials_seed_or_interval() -> None:
    document = summary_document(summary_of(noise=NoiseName.NONE))
    assert document["trials"] is document["seed"] is document["interval"] is None
    assert document["method"] == "exact"


def test_document_says_which_ways_are_bounds() -> None:
    ways = summary_document(summary_of())["considered"]
    assert all(way.keys() == {"name", "noiseless_s", "is_bound"} for way in ways)


def test_text_names_what_was_simulated_and_how() -> None:
    text = "\n".join(summary_lines(summary_of()))
    assert "all_reduce of 1 MiB over 16 ranks on 2 nodes in 2 NVLink domains" in text
    assert "1,000 trials, seed 0" in text
    assert "launched by process" in text
    for term in ("launch", "software", "wire", "bandwidth", "noise"):
        assert term in text


def test_headline_of_one_rank_says_nothing_of_links_between_ranks() -> None:
    assert summary_lines(summary_of(gpus=1))[0].startswith("all_reduce of 1 MiB over 1 rank on 1 ")
    assert "between" not in summary_lines(summary_of(gpus=1))[0]


def test_bandwidth_of_one_rank_alone_is_null_and_unsaid() -> None:
    for collective in Collective:
        alone = summary_of(gpus=1, collective=collective)
        document = summary_document(alone)
        assert document["algbw_bytes_per_s"] is document["busbw_bytes_per_s"] is None
        assert "busbw" not in "\n".join(summary_lines(alone))
    assert "busbw" in "\n".join(summary_lines(summary_of()))


def test_text_shows_a_dash_where_the_trials_do_not_reach_and_how_many_would() -> None:
    told = summary_lines(summary_of())
    line = next(line for line in told if line.startswith("p99.9 "))
    assert line.split()[1:3] == ["-", "above"]
    assert "p99.9 needs 3,688 trials or more" in told


def test_text_says_or_more_where_a_way_was_only_bounded() -> None:
    summary = summary_of(noise=NoiseName.NONE)
    (line,) = (line for line in summary_lines(summary) if line.startswith("not chosen"))
    shown = summary.considered[1:5]
    assert line.count(" or more") == sum(way.is_bound for way in shown)
    assert f"{summary.algorithm}, {summary.protocol} " not in line


def test_text_of_a_quiet_run_shows_one_time() -> None:
    lines = summary_lines(summary_of(noise=NoiseName.NONE, stack=StackName.WIRE))
    assert any(line.startswith("noiseless") for line in lines)
    assert not any(line.startswith("p90") for line in lines)
    assert "no noise" in "\n".join(lines)


def test_stack_table_shows_every_figure_with_its_source() -> None:
    header, rows = stack_table(load_stack_figures())
    assert header[:4] == ("stack figure", "value", "confidence", "sources")
    names = [row[0] for row in rows]
    assert len(set(names)) == len(names)
    assert all(all(row) for row in rows)
    assert len(rows) == numbers_in(load_stack_figures().model_dump()), "none is left out"
    for protocol in ("ll", "ll128", "simple"):
        assert sum(name.startswith(f"{protocol} ") for name in names) >= 9
    assert {"launch by process", "launch by thread", "launch by graph"} <= set(names)
    assert {"launch in each base", "piece", "most pieces"} <= set(names)
    assert "2.67 us" in {row[1] for row in rows}

"""What people and programs read of a plan."""

import json

import pytest

from tests.topology.plan.factories import plan_of
from topology.plan.report import (
    DEFINITION,
    candidate_table,
    crossing_text,
    plan_document,
    plan_lines,
    verdict_text,
)

CONTRACT = "verdict objective chosen candidates crossing knee sensitivity kind schema_version"
OF_CANDIDATE = """
move placement gpus nodes domains p50_s p99_s p999_s cost verdict reason probability
"""


def test_document_has_the_keys_of_the_contract() -> None:
    for plan in (plan_of("dgx-h100 node:2"), plan_of("dgx-h100 node:2", 12)):
        document = plan_document(plan)
        assert document.keys() >= set(CONTRACT.split())
        for row in (document["chosen"], *document["candidates"]):
            assert row.keys() >= set(OF_CANDIDATE.split())
        assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_document_of_a_candidate_that_could_not_be_placed_is_null_but_for_its_reason() -> None:
    row = plan_document(plan_of("dgx-h100 node:2", 12))["candidates"][0]
    assert (row["move"], row["verdict"]) == ("one_domain", "refused")
    assert row["reason"] == "no_domain_has_room"
    for name in ("placement", "gpus", "nodes", "domains", "p50_s", "p99_s", "probability"):
        assert row[name] is None


def test_document_of_the_chosen_is_that_of_its_row() -> None:
    document = plan_document(plan_of("dgx-h100 node:2"))
    chosen = [row for row in document["candidates"] if row["verdict"] == "chosen"]
    assert chosen == [document["chosen"]]
    assert document["chosen"]["placement"] == [["h100-001", slot] for slot in range(8)]
    assert document["chosen"]["gpus"] == 8


def test_document_without_a_choice_says_null() -> None:
    document = plan_document(plan_of("dgx-h100 node:2", target_p99_s="1ns"))
    assert document["verdict"] == "no_candidate"
    assert document["chosen"] is None


def test_words_of_scale_in_and_out_are_defined_where_they_are_shown() -> None:
    lines = plan_lines(plan_of("dgx-h100 node:2"))
    assert DEFINITION in lines
    for part in ("scale in:", "scale out:", "autoscaler", "NVLink domains"):
        assert part in DEFINITION


@pytest.mark.parametrize(
    ("spec", "gpus", "verdict", "crossing"),
    [
        ("dgx-h100 node:2", 8, "scale in", "one NVLink domain has 8 free, 8 asked"),
        ("dgx-h100 node:2", 9, "scale out", "scale-in has topped out: the largest NVLink domain"),
        ("pcie-l40s node:2", 4, "scale in", "one node has room, over PCIe"),
    ],
)
def test_verdict_and_crossing_are_told(spec: str, gpus: int, verdict: str, crossing: str) -> None:
    plan = plan_of(spec, gpus)
    assert verdict_text(plan).startswith(f"verdict: {verdict} (")
    assert crossing in crossing_text(plan)


def test_missed_target_tells_what_the_best_reaches() -> None:
    plan = plan_of("dgx-h100 node:2", target_p99_s="1us")
    best = min(row["p99_s"] for row in plan_document(plan)["candidates"] if row["p99_s"])
    text = verdict_text(plan)
    assert text.startswith("verdict: no candidate keeps p99 within 1 us, the best reaches ")
    assert f"{best * 1e6:.4g} us" in text


def test_table_has_a_row_for_each_move_and_odds_only_for_others() -> None:
    plan = plan_of("dgx-h100 node:2", 12)
    header, rows = candidate_table(plan)
    assert [row[0] for row in rows] == [
        "one_domain",
        "fewest_nodes",
        "balanced",
        "same_leaf",
        "spread",
    ]
    assert all(len(row) == len(header) for row in rows)
    assert plan.chosen is not None
    for candidate, row in zip(plan.candidates, rows, strict=True):
        odds = row[header.index("beats chosen")]
        has_odds = candidate.probability is not None and candidate.move is not plan.chosen.move
        assert odds == (f"{candidate.probability:.0%}" if has_odds else "-")
    assert rows[0][1:7] == ("-",) * 6


def test_first_line_says_what_is_asked_and_what_is_free() -> None:
    first = plan_lines(plan_of("dgx-h100 node:2 busy:3", 8))[0]
    assert first == "test: all_reduce of 64 KiB on 8 GPUs; 10 of 16 are free"

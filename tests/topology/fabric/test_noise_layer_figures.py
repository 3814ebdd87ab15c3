"""Figures of noise beyond messages: complete, from named sources, and absurd ones refused."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from topology.fabric.link_figures import LinkFigures, load_link_figures
from topology.fabric.noise_layer_figures import NoiseLayerFigures
from topology.fabric.report import figures_document, noise_layer_table
from topology.words import NoiseLayer, NoiseName

FIGURES = load_link_figures()


def document() -> dict[str, Any]:
    """The shipped figures as a fresh document that a test may spoil."""
    return json.loads(FIGURES.model_dump_json())  # type: ignore[no-any-return]


def test_every_layer_has_figures_under_every_profile() -> None:
    found = {(layer, profile) for layer, profile, _ in FIGURES.noise_layer.rows()}
    assert found == {(layer.value, name.value) for layer in NoiseLayer for name in NoiseName}


def test_without_noise_every_layer_is_zero() -> None:
    """No delay, no chance, full speed, no flows that are hashed."""
    for layer, profile, row in FIGURES.noise_layer.rows():
        own = row.model_dump(exclude={"sources", "basis", "confidence", "steps"})
        if profile == NoiseName.NONE:
            speeds = {name: own.pop(name) for name in list(own) if name.endswith("speed_ratio")}
            assert set(own.values()) == {0}, layer
            assert set(speeds.values()) <= {1.0}, layer
        else:
            assert row.sources, (layer, profile)


def test_episodes_take_the_share_of_time_of_the_reference() -> None:
    """Section 7: 0.02 an hour and node of 24 min, 0.05 of 72 min; none on dedicated clusters."""
    share = {
        name: row.rate_per_s * row.duration_s for name, row in FIGURES.noise_layer.episode.items()
    }
    assert share == pytest.approx(
        {"none": 0.0, "dedicated": 0.0, "shared": 0.008, "contended": 0.06}, rel=1e-3
    )


def test_bursts_delay_as_many_messages_and_last_as_long_as_was_measured() -> None:
    """The contended Alps run, in one rack: 3.6 % of messages, correlation 0.37 at lag 10."""
    row = FIGURES.noise_layer.correlated[NoiseName.CONTENDED]
    untouched = (1 - row.leaf_probability) * (1 - row.host_probability) ** 2
    assert 1 - untouched == pytest.approx(0.036, rel=0.02)
    assert 1 - 10 / row.steps == pytest.approx(0.37, abs=0.01)


def test_what_nobody_measured_is_called_a_guess() -> None:
    guesses = {
        (layer, profile)
        for layer, profile, row in FIGURES.noise_layer.rows()
        if row.confidence == "guess"
    }
    assert ("skew", "dedicated") in guesses
    assert all(
        "E1" in row.sources for _, _, row in FIGURES.noise_layer.rows() if row.confidence == "guess"
    )


def test_the_table_shows_every_row_that_does_something() -> None:
    header, rows = noise_layer_table(FIGURES)
    assert header[:2] == ("layer", "noise")
    assert len(rows) == len(NoiseLayer) * (len(NoiseName) - 1)
    assert all(len(row) == len(header) for row in rows)
    layers = figures_document(FIGURES, {})["link"]["noise_layer"]
    assert set(layers) == {layer.value for layer in NoiseLayer}


@pytest.mark.parametrize(
    ("layer", "changes", "message"),
    [
        ("skew", {"median_s": -1e-6}, "median_s"),
        ("skew", {"median_s": 3e-3}, "median_s lies above cap_s"),
        ("skew", {"sigma": 9.0}, "sigma"),
        ("skew", {"cap_s": 1e9}, "cap_s"),
        ("stall", {"probability": 1.0}, "probability"),
        ("stall", {"probability": -0.1}, "probability"),
        ("episode", {"rate_per_s": 2.0}, "rate_per_s"),
        ("episode", {"least_speed_ratio": 0.9}, "least_speed_ratio lies above"),
        ("episode", {"least_speed_ratio": 0.0}, "least_speed_ratio"),
        ("slow", {"share_ratio": 1.2}, "share_ratio"),
        ("slow", {"speed_ratio": 1.5}, "speed_ratio"),
        ("correlated", {"steps": 0}, "steps"),
        ("correlated", {"host_probability": -0.1}, "host_probability"),
        ("collision", {"queue_pairs": 1.5}, "queue_pairs"),
        ("collision", {"other_flows": -1.0}, "other_flows"),
        ("collision", {"lanes": 2}, "lanes"),
    ],
)
def test_absurd_figures_are_refused_by_name(
    layer: str, changes: dict[str, float], message: str
) -> None:
    rows = document()["noise_layer"]
    rows[layer]["contended"] |= changes
    with pytest.raises(ValidationError, match=message):
        NoiseLayerFigures.model_validate_json(json.dumps(rows))


def test_a_source_that_is_not_listed_is_refused() -> None:
    raw = document()
    raw["noise_layer"]["slow"]["shared"]["sources"] = ["S95"]
    with pytest.raises(ValidationError, match=r"noise_layer\.slow\.shared: source S95"):
        LinkFigures.model_validate_json(json.dumps(raw))


def test_a_profile_without_a_row_is_refused() -> None:
    raw = document()
    del raw["noise_layer"]["stall"]["dedicated"]
    with pytest.raises(ValidationError, match=r"noise_layer\.stall\.dedicated"):
        LinkFigures.model_validate_json(json.dumps(raw))

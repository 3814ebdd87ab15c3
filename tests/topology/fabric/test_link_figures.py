import csv
import json
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fleet.wiring import LinkLayer
from topology.errors import FabricError
from topology.fabric.link_figures import (
    FILE_NAME,
    EdgeFigures,
    LinkFigures,
    LinkName,
    RouteClass,
    load_link_figures,
)
from topology.fabric.network import edge_kind

FIGURES = load_link_figures()
NANO = 1e-9


def document() -> dict[str, Any]:
    """The shipped file as a fresh document that a test may spoil."""
    text = (files("topology.fabric") / FILE_NAME).read_text()
    raw = tomllib.loads(text)
    for table in ("route_class", "edge", "noise_profile", "trunk_share"):
        for name, row in raw[table].items():
            row["name"] = name
    return raw


def validated(raw: dict[str, Any]) -> LinkFigures:
    return LinkFigures.model_validate_json(json.dumps(raw))


@pytest.fixture(scope="module")
def measured_rows(root: Path) -> list[dict[str, str]]:
    path = root.parent / "shared" / "data" / "link_classes.csv"
    if not path.is_file():
        pytest.skip("shared/data/link_classes.csv is not beside this checkout")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_of_the_link_classes_is_a_route_class(
    measured_rows: list[dict[str, str]],
) -> None:
    assert measured_rows
    assert {row["link_class"] for row in measured_rows} <= FIGURES.route_class.keys()


def test_route_classes_carry_the_figures_of_the_link_classes(
    measured_rows: list[dict[str, str]],
) -> None:
    for row in measured_rows:
        ours = FIGURES.route_class[row["link_class"]]
        expected = {
            "alpha_s": float(row["base_latency_ns"]) * NANO,
            "alpha_low_s": float(row["latency_low_ns"]) * NANO,
            "alpha_high_s": float(row["latency_high_ns"]) * NANO,
            "bytes_per_s": float(row["bandwidth_GBps_per_direction"]) * 1e9,
            "p2p_efficiency_ratio": float(row["efficiency_p2p"]),
            "collective_efficiency_ratio": float(row["efficiency_collective"]),
        }
        jitter = {
            "body_median_s": float(row["body_median_ns"]) * NANO,
            "body_sigma": float(row["body_sigma"]),
            "detour_probability": float(row["detour_probability"]),
            "detour_median_s": float(row["detour_median_ns"]) * NANO,
            "detour_sigma": float(row["detour_sigma"]),
            "detour_cap_s": float(row["detour_cap_ns"]) * NANO,
        }
        assert {name: getattr(ours, name) for name in expected} == pytest.approx(
            expected, rel=1e-12
        ), row["link_class"]
        assert ours.jitter.model_dump() == pytest.approx(jitter, rel=1e-12), row["link_class"]
        assert ours.alpha_s - ours.jitter.body_median_s == pytest.approx(
            float(row["floor_ns"]) * NANO, rel=1e-9
        )


def test_route_classes_carry_confidence_and_sources_of_the_link_classes(
    measured_rows: list[dict[str, str]],
) -> None:
    for row in measured_rows:
        ours = FIGURES.route_class[row["link_class"]]
        assert ours.latency_confidence == row["latency_confidence"], row["link_class"]
        assert ours.jitter_confidence == row["jitter_confidence"], row["link_class"]
        assert set(ours.sources) == set(row["source_ids"].split(";")), row["link_class"]


@pytest.mark.parametrize("route_class", FIGURES.route_class.values(), ids=lambda row: row.name)
def test_edges_and_endpoints_make_up_the_route(route_class: RouteClass) -> None:
    edges_s = sum(FIGURES.edge[name].alpha_s for name in route_class.edges)
    edges_jitter_s = sum(FIGURES.edge[name].jitter_s for name in route_class.edges)
    assert edges_s <= route_class.alpha_s
    assert edges_s + FIGURES.endpoints_s(route_class) == pytest.approx(
        route_class.alpha_s, rel=1e-12
    )
    assert edges_jitter_s + FIGURES.endpoints_jitter_s(route_class) == pytest.approx(
        route_class.jitter.body_median_s, rel=1e-12
    )


def test_every_figure_has_a_listed_source() -> None:
    rows: list[RouteClass | EdgeFigures] = [*FIGURES.route_class.values(), *FIGURES.edge.values()]
    for row in rows:
        assert row.sources, row.name
        assert set(row.sources) <= FIGURES.source.keys(), row.name


def test_a_class_that_nobody_measured_is_called_an_estimate() -> None:
    for row in FIGURES.route_class.values():
        if set(row.sources) == {"E1"}:
            assert row.latency_confidence in ("low", "guess"), row.name


def test_every_kind_of_cable_has_an_edge() -> None:
    layers = [layer for layer in LinkLayer if layer is not LinkLayer.UNREPORTED]
    rates = (0.125e9, 1.25e9, 12.5e9, 25e9, 50e9, 100e9, 200e9)
    kinds = {
        edge_kind(layer, rate, where)
        for layer in layers
        for rate in rates
        for where in ("host", "trunk", "core")
    }
    assert kinds <= FIGURES.edge.keys()


@pytest.mark.parametrize("layer", [x for x in LinkLayer if x is not LinkLayer.UNREPORTED])
def test_every_network_rate_has_classes_nearest_first(layer: LinkLayer) -> None:
    for rate in (0.125e9, 1.25e9, 12.5e9, 25e9, 50e9, 100e9, 200e9):
        classes = FIGURES.network_classes(layer.value, rate)
        alphas = [row.alpha_s for row in classes]
        assert alphas == sorted(alphas)


@pytest.mark.parametrize(
    ("layer", "rate", "names"),
    [
        ("infiniband", 12.5e9, ["ib_edr_1hop", "ib_edr_3hop"]),
        ("infiniband", 25e9, ["ib_hdr_1hop", "ib_hdr_3hop"]),
        ("infiniband", 50e9, ["ib_ndr_1hop", "ib_ndr_3hop"]),
        ("infiniband", 100e9, ["ib_xdr_1hop", "ib_xdr_3hop"]),
        ("roce", 50e9, ["roce400_in_rack", "roce400_in_block", "roce400_cross_block"]),
        ("roce", 100e9, ["roce800_in_rack", "roce800_in_block", "roce800_cross_block"]),
        ("aries", 10.2e9, ["aries_same_group", "aries_diff_group"]),
        ("ethernet", 0.125e9, ["tcp_1g_2006", "tcp_1g_2006_far"]),
        ("ethernet", 12.5e9, ["tcp_100g_cloud"]),
    ],
)
def test_a_port_rate_gives_its_generation(layer: str, rate: float, names: list[str]) -> None:
    assert [row.name for row in FIGURES.network_classes(layer, rate)] == names


@pytest.mark.parametrize(
    ("layer", "rate", "device", "name"),
    [
        ("efa", 12.5e9, "1d0f:efa0", "efa_v1"),
        ("efa", 12.5e9, "1d0f:efa1", "efa_v2"),
        ("efa", 12.5e9, None, "efa_v2"),
        ("efa", 25e9, "1d0f:efa2", "efa_v3_v4"),
        ("ethernet", 25e9, "1ae0:0042", "tcpxo"),
        ("ethernet", 12.5e9, "1ae0:0042", "tcp_100g_cloud"),
        ("ethernet", 25e9, "15b3:1021", "tcp_100g_cloud"),
    ],
)
def test_a_nic_of_known_kind_has_figures_of_its_own(
    layer: str, rate: float, device: str | None, name: str
) -> None:
    assert [row.name for row in FIGURES.network_classes(layer, rate, nic_device=device)] == [name]


def test_a_layer_without_figures_is_refused_by_name() -> None:
    with pytest.raises(FabricError, match=r"network: no route class for token_ring at 1e\+06 B/s"):
        FIGURES.network_classes("token_ring", 1e6)


def test_a_rate_faster_than_all_figures_is_refused() -> None:
    with pytest.raises(FabricError, match="no route class for infiniband"):
        FIGURES.network_classes("infiniband", 1e12)


def spoil_source(raw: dict[str, Any]) -> None:
    raw["route_class"]["ib_ndr_1hop"]["sources"] = ["S99"]


def spoil_edge_source(raw: dict[str, Any]) -> None:
    raw["edge"]["pcie"]["sources"] = ["S98"]


def spoil_edge_name(raw: dict[str, Any]) -> None:
    raw["route_class"]["ib_ndr_1hop"]["edges"].append("wormhole")


def spoil_range(raw: dict[str, Any]) -> None:
    raw["route_class"]["ib_ndr_1hop"]["alpha_s"] = 1e-9


def spoil_sum(raw: dict[str, Any]) -> None:
    raw["edge"]["nvlink_rack"]["alpha_s"] = 476e-9


def spoil_jitter_sum(raw: dict[str, Any]) -> None:
    raw["edge"]["nvlink_rack"]["jitter_s"] = 13e-9


def spoil_sign(raw: dict[str, Any]) -> None:
    raw["edge"]["pcie"]["alpha_s"] = -1e-9


def spoil_bandwidth(raw: dict[str, Any]) -> None:
    raw["route_class"]["xgmi_direct"]["bytes_per_s"] = 0


def spoil_efficiency(raw: dict[str, Any]) -> None:
    raw["route_class"]["xgmi_direct"]["p2p_efficiency_ratio"] = 1.1


def spoil_confidence(raw: dict[str, Any]) -> None:
    raw["route_class"]["xgmi_direct"]["latency_confidence"] = "sure"


def drop_confidence(raw: dict[str, Any]) -> None:
    del raw["edge"]["pcie"]["confidence"]


def drop_sources(raw: dict[str, Any]) -> None:
    raw["edge"]["pcie"]["sources"] = []


def misspell(raw: dict[str, Any]) -> None:
    raw["edge"]["pcie"]["latency_s"] = 1e-9


def spoil_network(raw: dict[str, Any]) -> None:
    raw["network"][0]["classes"] = ["ib_carrier_pigeon"]


def spoil_probability(raw: dict[str, Any]) -> None:
    raw["route_class"]["xgmi_direct"]["jitter"]["detour_probability"] = 1.0


def spoil_profile(raw: dict[str, Any]) -> None:
    raw["noise_profile"]["shared"]["sources"] = ["S97"]


def spoil_network_order(raw: dict[str, Any]) -> None:
    raw["network"][0]["up_to_bytes_per_s"] = 26e9


def spoil_rate_source(raw: dict[str, Any]) -> None:
    raw["link_rate"][0]["sources"] = ["S96"]


def drop_pcie_generation(raw: dict[str, Any]) -> None:
    del raw["link_rate"][1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_network_order, "network infiniband: rows are not in the order of their rates"),
        (spoil_rate_source, "pcie_x16 1: source S96 is not listed"),
        (drop_pcie_generation, "link_rate pcie_x16: a generation is missing"),
        (spoil_source, "ib_ndr_1hop: source S99 is not listed"),
        (spoil_edge_source, "pcie: source S98 is not listed"),
        (spoil_profile, "shared: source S97 is not listed"),
        (spoil_edge_name, "ib_ndr_1hop: no edge wormhole"),
        (spoil_range, "alpha_s lies outside alpha_low_s and alpha_high_s"),
        (spoil_sum, "nvlink5_nvl72: its edges are longer than the route"),
        (spoil_jitter_sum, "nvlink5_nvl72: its edges are longer than the route"),
        (spoil_sign, "edge.pcie.alpha_s"),
        (spoil_bandwidth, "route_class.xgmi_direct.bytes_per_s"),
        (spoil_efficiency, "route_class.xgmi_direct.p2p_efficiency_ratio"),
        (spoil_confidence, "route_class.xgmi_direct.latency_confidence"),
        (drop_confidence, "edge.pcie.confidence"),
        (drop_sources, "edge.pcie.sources"),
        (misspell, "edge.pcie.latency_s"),
        (spoil_network, "network infiniband: no route class ib_carrier_pigeon"),
        (spoil_probability, "jitter.detour_probability"),
    ],
)
def test_a_planted_fault_in_the_figures_is_refused(
    spoil: Callable[[dict[str, Any]], None], message: str
) -> None:
    raw = document()
    spoil(raw)
    with pytest.raises(ValidationError) as caught:
        validated(raw)
    assert message in str(caught.value)


def test_the_shipped_figures_pass_the_same_check() -> None:
    assert validated(document()) == FIGURES


@pytest.mark.parametrize(
    ("link", "generation", "rate"),
    [
        (LinkName.PCIE_X16, "5", 63e9),
        (LinkName.NVLINK, "4.0", 25e9),
        (LinkName.XGMI, "gfx942", 64e9),
        (LinkName.NVLINK, "9.9", None),
    ],
)
def test_rate_follows_from_link_and_generation(
    link: LinkName, generation: str, rate: float | None
) -> None:
    assert FIGURES.rate_of(link, generation) == rate


def test_sum_of_the_nvlinks_of_a_gpu_is_its_route_classes_bandwidth() -> None:
    for name, version, links in (
        ("nvlink2_direct", "2.0", 6),
        ("nvlink3_nvswitch", "3.0", 12),
        ("nvlink4_nvswitch", "4.0", 18),
        ("nvlink5_nvl72", "5.0", 18),
    ):
        rate = FIGURES.rate_of(LinkName.NVLINK, version)
        assert rate is not None
        assert rate * links == FIGURES.route_class[name].bytes_per_s

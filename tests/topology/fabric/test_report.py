import json

import pytest

from fleet.merge import merge_fleets
from fleet.wiring import Wiring
from tests.topology.fabric.factories import (
    fabric_of,
    fleet_of,
    joined,
    make_gpu,
    route_between,
    snapshot,
)
from topology.fabric.from_fleet import Fabric
from topology.fabric.link_figures import load_link_figures
from topology.fabric.report import (
    edge_table,
    fabric_document,
    fabric_lines,
    figures_document,
    link_counts,
    links_table,
    route_class_table,
    route_document,
    route_notes,
    route_table,
)

FIGURES = load_link_figures()
H100 = "model:dgx-h100 node:2"


def test_links_are_counted_one_direction_each() -> None:
    """8 GPUs of 18 links, 8 NIC cables up and down a node; 8 leaves of two uplinks."""
    counts = link_counts(fabric_of(H100))
    assert counts == {
        "nvlink": 2 * 8 * 18 * 2,
        "pcie": 2 * 16 * 2,
        "pcie_uplink": 2 * 8 * 2,
        "socket": 2 * 2,
        "ib_ndr_host": 2 * 8 * 2,
        "ib_ndr_trunk": 8 * 2 * 2,
    }
    alphas = [FIGURES.edge[kind].alpha_s for kind in counts]
    assert alphas == sorted(alphas)


def test_a_route_as_json_holds_hops_that_sum_to_it() -> None:
    fabric = fabric_of(H100)
    a, b = fabric.endpoints[0], fabric.endpoints[12]
    document = json.loads(json.dumps(route_document(fabric, a, b, fabric.reachable_route(a, b))))
    hops_s = sum(hop["alpha_s"] for hop in document["hops"])
    assert document["alpha_s"] == pytest.approx(document["endpoints_s"] + hops_s)
    assert document["alpha_s"] == pytest.approx(document["class_alpha_s"] + document["extra_s"])
    assert (document["source"], document["destination"]) == ("h100-001:0", "h100-002:4")
    assert (document["kind"], document["schema_version"]) == ("route", 1)
    assert document["route_class"] == "ib_ndr_3hop"
    assert set(document["sources"]) <= FIGURES.source.keys()
    assert document["hops"][0]["source"] == "h100-001:gpu0"
    assert document["hops"][-1]["destination"] == "h100-002:gpu4"


def test_a_route_as_text_ends_with_its_total() -> None:
    fabric = fabric_of(H100)
    header, rows = route_table(route_between(fabric, "h100-001:0", "h100-002:0"))
    assert all(len(row) == len(header) for row in rows)
    assert rows[-1] == ("total", "", "", "", "2.3 us", "50 GB/s", "medium")
    assert rows[-2][0] == "endpoints"
    assert len(rows) == 6 + 2


def test_notes_name_class_range_basis_and_sources() -> None:
    fabric = fabric_of(H100)
    notes = "\n".join(route_notes(fabric, route_between(fabric, "h100-001:0", "h100-002:0")))
    assert "class ib_ndr_1hop" in notes
    assert "2.3 us (1.9 us to 5 us)" in notes
    assert "one sender gets 47 GB/s" in notes, "50 GB/s at 0.94"
    assert "[S09, S02, S15]" in notes
    assert "beyond the class" not in notes


def test_notes_tell_of_hops_beyond_the_class() -> None:
    """A superchip's 50 ns and a root port's 175 ns at each end, not twice 75 ns: 150 ns more."""
    fabric = fabric_of("model:gb200-nvl72 rack:2")
    notes = route_notes(fabric, route_between(fabric, "gb200-001:0", "gb200-019:0"))
    assert notes[0].endswith(", and 150 ns for hops beyond the class")


def test_notes_tell_what_a_plug_in_declares_to_nccl() -> None:
    fabric = fabric_of("model:dgx-h100 node:2 network:efa-v2 nic:32 nic_rate:100Gbit/s")
    notes = route_notes(fabric, route_between(fabric, "h100-001:0", "h100-002:0"))
    assert "with NCCL: the plug-in declares 75 us a hop, beside NCCL's own constants" in notes
    infiniband = fabric_of(H100)
    silent = route_notes(infiniband, route_between(infiniband, "h100-001:0", "h100-002:0"))
    assert not any("declares" in note for note in silent)


def test_notes_tell_every_guess() -> None:
    fabric = joined([snapshot("a", Wiring(gpus=tuple(make_gpu(s, numa=0) for s in (0, 1))))])
    notes = route_notes(fabric, route_between(fabric, "a:0", "a:1"))
    assert notes[-1] == "guess: a gpu0..1: PCIe generation 4 guessed: not reported"


def test_a_fabric_as_json_counts_what_there_is() -> None:
    document = json.loads(json.dumps(fabric_document(fabric_of("model:gb200-nvl72 node:20"))))
    assert (document["nodes"], document["gpus"]) == (20, 80)
    assert document["nvlink_domains"] == [{"size": 8, "count": 1}, {"size": 72, "count": 1}]
    assert [shape["nodes"] for shape in document["shapes"]] == [20]
    assert all(link["confidence"] for link in document["links"])


def test_a_fabric_as_text_names_gpus_or_cpu_ranks() -> None:
    assert fabric_lines(fabric_of(H100))[0] == "2 nodes, 16 GPUs, 16 free"
    assert fabric_lines(fabric_of("model:beowulf-2006 node:3"))[0] == "3 nodes, 3 CPU ranks, 3 free"


def test_an_empty_fabric_is_told_without_a_fault() -> None:
    fabric = joined([])
    assert fabric_lines(fabric)[-1] == "switches: none known"
    assert link_counts(fabric) == {}
    assert links_table(fabric)[1] == []


def test_tables_have_a_row_for_each_figure() -> None:
    for table, rows in (
        (route_class_table(FIGURES), FIGURES.route_class),
        (edge_table(FIGURES), FIGURES.edge),
    ):
        header, lines = table
        assert [line[0] for line in lines] == list(rows)
        assert all(len(line) == len(header) for line in lines)
        assert all(all(cell for cell in line) for line in lines)


def test_all_figures_are_in_the_json() -> None:
    document = json.loads(json.dumps(figures_document(FIGURES, {})))
    assert document["link"]["route_class"].keys() == FIGURES.route_class.keys()
    for row in document["link"]["route_class"].values():
        assert row["sources"]
        assert row["latency_confidence"]
        assert row["alpha_s"] > 0


def test_a_busy_fabric_tells_how_many_are_free() -> None:
    assert fabric_lines(fabric_of("model:dgx-h100 node:2 busy:8,1"))[0].endswith("7 free")


def test_guess_of_all_gpus_of_a_machine_is_one_line() -> None:
    wiring = Wiring(machine="box", gpus=tuple(make_gpu(slot, numa=0) for slot in range(4)))
    fabric = joined([snapshot("a", wiring)])
    (line,) = (line for line in fabric_lines(fabric) if "PCIe generation" in line)
    assert line == "guess: box gpu0..3: PCIe generation 4 guessed: not reported"
    assert len(fabric_document(fabric)["guesses"]) == 4


def test_nodes_without_gpus_stand_beside_the_gpus() -> None:
    fleets = [fleet_of("model:beowulf-2006 node:2"), fleet_of("model:dgx-h100 node:1")]
    head = fabric_lines(Fabric(merge_fleets(fleets)))[0]
    assert head == "3 nodes (2 without GPUs), 8 GPUs, 8 free"
    assert fabric_lines(Fabric(fleets[0]))[0] == "2 nodes, 2 CPU ranks, 2 free"

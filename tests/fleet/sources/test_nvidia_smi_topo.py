import re
from pathlib import Path

import pytest

from fleet.check import check_fleet
from fleet.merge import merge_snapshots
from fleet.wiring import EndKind
from tests.fleet.sources.nvidia_smi_texts import (
    LISTING,
    levels,
    links,
    mesh,
    read_matrix,
    said,
    text_of,
)


def test_listed_links_tell_a_switch_from_a_mesh() -> None:
    # NV6 between three: 12 links each if direct, the same 6 if behind a switch.
    rows = text_of(mesh(3, "NV6"))
    six = re.sub(r"\t Link (?:[6-9]|1\d): .*\n", "", LISTING)
    behind_a_switch, direct = read_matrix(six + rows), read_matrix(LISTING + rows)
    assert [links(behind_a_switch, i) for i in range(3)] == [(("switch", 6),)] * 3
    assert links(direct, 0) == (("gpu1", 6), ("gpu2", 6))
    assert said(direct, "wiring.gpus[*].ports") == []
    assert behind_a_switch.gpus[2].uuid == "GPU-bbbbbbbb-0000-4000-8000-000000000002"
    assert behind_a_switch.wiring.gpus[0].ports[0].bytes_per_s == 26.562e9


@pytest.mark.parametrize(
    ("listing", "detail"),
    [
        (
            LISTING.replace("Link 5: 26.562 GB/s", "Link 5: <inactive>"),
            "nvlink -s lists 17 links of 26.562 GB/s, the matrix 18",
        ),
        (
            LISTING.replace("Link 5: 26.562", "Link 5: 25"),
            "nvlink -s lists 18 links of 25, 26.562 GB/s, the matrix 18",
        ),
    ],
)
def test_listed_rates_that_do_not_fit_are_told_and_not_taken(listing: str, detail: str) -> None:
    snapshot = read_matrix(listing + text_of(mesh(3, "NV18")))
    assert [port.bytes_per_s for gpu in snapshot.wiring.gpus for port in gpu.ports] == [None] * 3
    assert said(snapshot, "wiring.gpus[*].ports[*].bytes_per_s") == [("undecodable", detail)]


def test_a_listing_of_other_gpus_is_left_alone() -> None:
    snapshot = read_matrix(LISTING + text_of(mesh(4, "NV18")))
    assert said(snapshot, "gpus[*].uuid") == [("not_asked", None)]
    twice = LISTING + LISTING.replace("GPU-bbbbbbbb", "GPU-cccccccc")
    assert read_matrix(twice + text_of(mesh(3, "NV18"))).gpus[0].uuid is None


@pytest.mark.parametrize(
    ("gpus", "cell", "kind"),
    [
        (8, "NV18", EndKind.SWITCH),
        (8, "NV12", EndKind.SWITCH),
        (8, "NV8", EndKind.SWITCH),
        (16, "NV6", EndKind.SWITCH),
        (4, "NV18", EndKind.SWITCH),
        (3, "NV12", EndKind.SWITCH),
        (4, "NV6", EndKind.GPU),
        (4, "NV4", EndKind.GPU),
        (4, "NV2", EndKind.GPU),
        (3, "NV8", EndKind.GPU),
        (2, "NV18", EndKind.GPU),
        (2, "NV4", EndKind.GPU),
    ],
)
def test_more_links_than_a_gpu_has_are_links_to_a_switch(
    gpus: int, cell: str, kind: EndKind
) -> None:
    snapshot = read_matrix(text_of(mesh(gpus, cell)))
    assert {port.end.kind for gpu in snapshot.wiring.gpus for port in gpu.ports} == {kind}
    each = 1 if kind is EndKind.SWITCH else gpus - 1
    assert [len(gpu.ports) for gpu in snapshot.wiring.gpus] == [each] * gpus
    assert {port.count for gpu in snapshot.wiring.gpus for port in gpu.ports} == {int(cell[2:])}


@pytest.mark.parametrize(
    ("gpus", "cell", "open_end"),
    [(2, "NV18", True), (3, "NV8", True), (4, "NV6", True), (2, "NV4", False), (4, "NV4", False)],
)
def test_what_can_be_a_switch_or_direct_is_told(gpus: int, cell: str, *, open_end: bool) -> None:
    snapshot = read_matrix(text_of(mesh(gpus, cell)))
    detail = f"{cell} between all {gpus}: direct links or a switch; taken as direct"
    expected = [("undecodable", detail)] if open_end else []
    assert said(snapshot, "wiring.gpus[*].ports") == expected


def test_a_switch_is_told_though_it_is_not_told_how_many() -> None:
    snapshot = read_matrix(text_of(mesh(8, "NV18")))
    assert snapshot.wiring.nvswitches == ()
    assert said(snapshot, "wiring.nvswitches") == [
        ("not_asked", "a switch; the matrix tells neither how many nor whether inside the node")
    ]


def test_a_gpu_that_lost_its_nvlinks_is_kept_as_reported_beside_the_switch() -> None:
    rows = mesh(8, "NV18")
    for peer in range(8):
        if peer != 3:
            rows[1 + 3][1 + peer] = rows[1 + peer][1 + 3] = "NODE" if peer < 4 else "SYS"
    snapshot = read_matrix(text_of(rows))
    assert links(snapshot, 3) == ()
    assert {links(snapshot, i) for i in range(8) if i != 3} == {(("switch", 18),)}
    assert (levels(snapshot)["gpu2-gpu3"], levels(snapshot)["gpu3-gpu7"]) == ("node", "sys")
    findings = check_fleet(merge_snapshots([snapshot]))
    assert [(f.code, f.where) for f in findings] == [
        ("links_fewer_than_peers", "nodes[node1].gpus[3].ports")
    ]


def test_a_gpu_with_fewer_links_to_the_switch_is_kept_as_reported() -> None:
    rows = mesh(8, "NV18")
    for peer in range(8):
        if peer != 5:
            rows[1 + 5][1 + peer] = rows[1 + peer][1 + 5] = "NV16"
    snapshot = read_matrix(text_of(rows))
    assert links(snapshot, 5) == (("switch", 16),)
    assert links(snapshot, 0) == (("switch", 18),)


def test_pairs_under_bridges_are_no_switch_however_many_there_are() -> None:
    rows = mesh(8, "SYS")
    for a in range(0, 8, 2):
        rows[1 + a][2 + a] = rows[2 + a][1 + a] = "NV12"
    snapshot = read_matrix(text_of(rows))
    assert [links(snapshot, i) for i in (0, 1, 6)] == [
        (("gpu1", 12),),
        (("gpu0", 12),),
        (("gpu7", 12),),
    ]
    assert said(snapshot, "wiring.gpus[*].ports") == []


def test_a_matrix_without_nv_cells_does_not_deny_nvlinks() -> None:
    snapshot = read_matrix(text_of(mesh(4, "SYS")))
    assert [gpu.ports for gpu in snapshot.wiring.gpus] == [()] * 4
    assert said(snapshot, "wiring.gpus[*].ports") == [
        ("not_asked", "no NV cell: no NVLinks, or topo -mp, which hides them")
    ]


def test_links_that_differ_from_both_ends_stay_as_each_row_says() -> None:
    rows = mesh(4, "NV2")
    rows[1][2] = "NV1"
    snapshot = read_matrix(text_of(rows))
    assert (dict(links(snapshot, 0))["gpu1"], dict(links(snapshot, 1))["gpu0"]) == (1, 2)
    findings = check_fleet(merge_snapshots([snapshot]))
    assert "links_asymmetric" in {finding.code for finding in findings}


def test_halves_that_disagree_keep_the_upper_and_tell_the_lower() -> None:
    rows = mesh(3, "SYS")
    rows[1][3], rows[3][1] = "NODE", "PHB"
    snapshot = read_matrix(text_of(rows))
    assert levels(snapshot) == {"gpu0-gpu1": "sys", "gpu0-gpu2": "node", "gpu1-gpu2": "sys"}
    assert said(snapshot, "wiring.pcie_levels[gpu2-gpu0]") == [
        ("undecodable", "PHB, but NODE the other way round, which is kept")
    ]


def test_the_old_word_for_another_socket_is_sys() -> None:
    rows = mesh(2, "SOC")
    rows[2][1] = "SYS"
    snapshot = read_matrix(text_of(rows))
    assert levels(snapshot) == {"gpu0-gpu1": "sys"}
    assert said(snapshot, "wiring.pcie_levels[gpu1-gpu0]") == []


@pytest.mark.parametrize(
    ("cell", "reason", "detail"),
    [("QPX", "undecodable", "QPX"), ("N/A", "unsupported", None), ("NV0", "undecodable", "NV0")],
)
@pytest.mark.parametrize(("a", "b"), [(0, 1), (1, 2)])
def test_a_cell_of_a_later_driver_is_told_and_not_guessed(
    cell: str, reason: str, detail: str | None, a: int, b: int
) -> None:
    rows = mesh(3, "SYS")
    rows[1 + a][1 + b] = rows[1 + b][1 + a] = cell
    snapshot = read_matrix(text_of(rows))
    assert levels(snapshot).keys() == {"gpu0-gpu1", "gpu0-gpu2", "gpu1-gpu2"} - {f"gpu{a}-gpu{b}"}
    assert said(snapshot, f"wiring.pcie_levels[gpu{a}-gpu{b}]") == [(reason, detail)]


@pytest.mark.parametrize(
    ("affinity", "numa", "reason", "detail"),
    [
        ("0-31\t1\t\tN/A", 1, None, None),
        ("0-71\t0\t\t2", 0, None, None),
        ("0-7\t-1\t\tN/A", -1, None, None),
        ("0-11\tN/A\t\tN/A", None, "unsupported", "CPU Affinity 0-11"),
        ("0-71\t0,2-17\t\t2", None, "undecodable", "0,2-17"),
        ("6,14,22,30\t0,3-9,11-17\t\tN/A", None, "undecodable", "0,3-9,11-17"),
        ("0-31\t\t\tN/A", None, "undecodable", "an empty field"),
        ("", None, "not_asked", None),
    ],
)
def test_a_gpus_numa_node_is_the_one_that_is_named(
    affinity: str, numa: int | None, reason: str | None, detail: str | None
) -> None:
    snapshot = read_matrix(text_of(mesh(2, "SYS", affinity=affinity)))
    assert [gpu.numa for gpu in snapshot.wiring.gpus] == [numa] * 2
    expected = [] if reason is None else [(reason, detail)]
    assert said(snapshot, "wiring.gpus[*].numa") == expected
    assert [node.numa for node in snapshot.wiring.numa_nodes] == ([] if numa is None else [numa])


def test_a_driver_without_numa_column_leaves_the_cpus_in_the_reason() -> None:
    rows = mesh(2, "SYS", affinity="0-19,40-59")
    rows[0] = rows[0][:-2]
    rows[2][-1] = "20-39,60-79"
    snapshot = read_matrix(text_of(rows))
    assert said(snapshot, "wiring.gpus[1].numa") == [
        ("driver_too_old", "no column NUMA Affinity; CPU Affinity 20-39,60-79")
    ]


def test_gpus_of_one_numa_node_with_other_cpus_leave_its_cpus_open() -> None:
    rows = mesh(2, "SYS")
    rows[2][-1] = "32-63\t0\t\tN/A"
    snapshot = read_matrix(text_of(rows))
    assert [(n.numa, n.cpu_affinity) for n in snapshot.wiring.numa_nodes] == [(0, None)]
    assert said(snapshot, "wiring.numa_nodes[0].cpu_affinity") == [("undecodable", "0-31 or 32-63")]


def test_the_sample_l40s_has_levels_and_no_links(root: Path) -> None:
    snapshot = read_matrix((root / "samples/captures/l40s-8/nvidia-smi-topo-m.txt").read_bytes())
    level = levels(snapshot)
    assert len(level) == 45
    assert [level[f"gpu{a}-gpu{a + 1}"] for a in range(7)] == [
        *("pix", "node", "pix", "sys", "pix", "node", "pix"),
    ]
    assert (level["gpu0-nic0"], level["gpu7-nic1"], level["nic0-nic1"]) == ("pxb", "node", "sys")
    assert [nic.ports[0].rail for nic in snapshot.wiring.nics] == [0, 1]


def test_what_the_matrix_never_has_was_not_asked(root: Path) -> None:
    snapshot = read_matrix((root / "samples/captures/l40s-8/nvidia-smi-topo-m.txt").read_bytes())
    for path in (
        "gpus[*].uuid",
        "gpus[*].serial",
        "gpus[*].fabric",
        "wiring.gpus[*].memory_bytes",
        "wiring.gpus[*].pci_address",
        "wiring.nics[*].ports[*].bytes_per_s",
        "versions",
        "allocations",
        "sections[links/nvidia_smi_topo].collected_at",
    ):
        assert said(snapshot, path) == [("not_asked", None)]

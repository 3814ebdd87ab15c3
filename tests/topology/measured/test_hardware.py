"""Hardware columns as people write them, and the machine of each."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.sources.machines import machine_from_name, machine_names
from topology.fabric.from_fleet import Fabric
from topology.fabric.routes import Endpoint, LinkKind, Route
from topology.measured.hardware import _FAMILIES, RunMachine, fabric_of, machine_of
from topology.measured.runs import Run, SkippedRun, read_runs

MEASURED = Path(__file__).parents[4] / "shared/data/measured"


def run_of(
    gpu_model: str,
    shape: tuple[int, int] = (8, 1),
    *,
    ranks: int | None = None,
    wiring: str = "",
    nic: str = "none",
    fabric: str = "none",
    notes: str = "",
) -> Run:
    """A run on ``shape``: GPUs a node, nodes."""
    per_node, nodes = shape
    return Run(
        run_id="r",
        gpu_model=gpu_model,
        gpus_per_node=per_node,
        nodes=nodes,
        ranks=per_node * nodes if ranks is None else ranks,
        collective="all_reduce",
        sizes_bytes=np.array([8.0]),
        times_s=np.array([1e-5]),
        wiring=wiring,
        nic=nic,
        fabric=fabric,
        notes=notes,
    )


def machine(run: Run) -> RunMachine:
    found = machine_of(run)
    assert isinstance(found, RunMachine), found
    return found


def skipped(run: Run) -> str:
    found = machine_of(run)
    assert isinstance(found, SkippedRun), found
    assert found.run_id == "r"
    return found.reason


def model_of(run: Run) -> str:
    return machine(run).spec.split()[0].removeprefix("model:")


@pytest.mark.parametrize(
    ("gpu_model", "wiring", "model"),
    [
        ("NVIDIA H100 80GB HBM3", "", "dgx-h100"),
        ("H100 SXM5 80GB", "NVLink4/NVSwitch", "dgx-h100"),
        ("8x H100-SXM", "NVLink 4", "dgx-h100"),
        ("NVIDIA_H100_80GB_HBM3", "NVLink4/NVSwitch + PCIe5", "dgx-h100"),
        ("DGX H100", "", "dgx-h100"),
        ("H100 PCIe", "PCIe5", "pcie-h100"),
        ("NVIDIA H100 NVL", "PCIe5", "pcie-h100-nvl"),
        ("H100 (pairwise NVLink)", "NVLink4 pairs + PCIe5", "pcie-h100-nvl"),
        ("NVIDIA H200", "NVLink4/NVSwitch", "dgx-h200"),
        ("H200 SXM", "not used (1 GPU per node)", "dgx-h200"),
        ("H200 NVL", "NVLink bridge", "pcie-h200-nvl"),
        ("H20", "NVLink4/NVSwitch", "hgx-h20"),
        ("NVIDIA H20-3e", "", "hgx-h20"),
        ("NVIDIA H800", "", "hgx-h800"),
        ("A100-SXM4-40GB", "NVLink3/NVSwitch", "dgx-a100"),
        ("NVIDIA A100-SXM4-80GB", "", "dgx-a100"),
        ("A100 PCIe 40GB", "PCIe4", "pcie-a100"),
        ("NVIDIA A100 80GB PCIe", "", "pcie-a100"),
        ("A100 PCIe 80GB (pairwise NVLink)", "NVLink3 bridge pairs + PCIe4", "pcie-a100-nvlink"),
        ("A800-SXM4-80GB", "", "hgx-a800"),
        ("Tesla V100-SXM2-32GB", "NVLink2 (hybrid cube mesh)", "dgx1-v100"),
        ("V100-PCIE-16GB", "PCIe3", "pcie-v100"),
        ("Tesla P100-SXM2-16GB", "NVLink1", "dgx1-p100"),
        ("B200", "NVLink5/NVSwitch", "dgx-b200"),
        ("NVIDIA B300 SXM6 AC", "", "dgx-b300"),
        ("NVIDIA L40S", "PCIe4", "pcie-l40s"),
        ("NVIDIA A10G", "", "pcie-a10g"),
        ("NVIDIA L4", "", "pcie-l4"),
        ("Tesla T4", "", "pcie-t4"),
        ("GeForce RTX 3090", "PCIe4", "pcie-rtx3090"),
        ("NVIDIA GeForce RTX 4090", "PCIe4", "pcie-rtx4090"),
        ("RTX 5090", "PCIe5", "pcie-rtx5090"),
        ("RTX 6000D (PCIe)", "PCIe", "pcie-rtx6000d"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "PCIe5", "pcie-rtxpro6000"),
        ("Instinct MI300X", "Infinity Fabric (xGMI) full mesh", "mi300x"),
        ("AMD Instinct MI325X", "xGMI", "mi325x"),
        ("AMD Instinct MI355X OAM", "", "mi355x"),
    ],
)
def test_eight_gpus_of_a_name_are_a_machine(gpu_model: str, wiring: str, model: str) -> None:
    assert model_of(run_of(gpu_model, wiring=wiring)) == model


@pytest.mark.parametrize(
    ("gpu_model", "gpus", "wiring", "model"),
    [
        ("GB200", 4, "NVLink5 NVL72", "gb200-nvl72"),
        ("NVIDIA GB300", 4, "NVLink5", "gb300-nvl72"),
        ("GH200 120GB", 4, "NVLink4 (GH200 quad)", "gh200-quad"),
        ("NVIDIA GH200 480GB", 1, "NVLink4/C2C", "gh200"),
        ("P100 PCIe 16GB", 1, "PCIe3", "pcie-p100"),
        ("A100-SXM-64GB", 4, "NVLink3 (all-to-all, direct)", "hgx-a100-4"),
        ("A100 SXM4 80GB", 4, "NVLink3/NVSwitch", "dgx-a100"),
        ("H100 SXM5", 4, "NVLink4 full mesh, no NVSwitch", "hgx-h100-4"),
        ("H100 SXM5", 4, "NVLink4, direct (4-GPU board)", "hgx-h100-4"),
        ("V100 SXM2 16GB", 4, "NVLink2", "hgx-v100-4"),
        ("V100 SXM2 32GB", 4, "NVLink2 (hybrid cube mesh)", "dgx1-v100"),
        ("V100 SXM3 32GB", 16, "NVLink2/NVSwitch", "dgx2-v100"),
    ],
)
def test_fewer_or_more_gpus_a_node_are_other_boards(
    gpu_model: str, gpus: int, wiring: str, model: str
) -> None:
    assert model_of(run_of(gpu_model, (gpus, 1), wiring=wiring)) == model


def test_a_cloud_in_the_remarks_tells_of_nics_and_cpu() -> None:
    run = run_of("GB300", (4, 20), nic="8x mlx5 RoCE per tray (OCI)", fabric="RoCE")
    assert "network:roce nic:8 nic_rate:400Gbit/s cpu:arm" in machine(run).spec
    told = run_of("H100", (8, 2), nic="not stated", fabric="EFA", notes="p5.48xlarge, EPYC")
    assert machine(told).spec.endswith("network:efa-v2 nic:32 nic_rate:100Gbit/s cpu:amd")


def test_a_network_that_the_cloud_does_not_sell_is_believed() -> None:
    run = run_of("H100", (8, 2), nic="25 Gbit/s Ethernet", fabric="TCP", notes="on p5.48xlarge")
    assert machine(run).spec.endswith("network:ethernet nic_rate:25Gbit/s cpu:amd")


def test_what_is_assumed_is_said() -> None:
    told = machine(run_of("H200", (8, 2), nic="not stated", fabric="not stated"))
    assert told.spec == "model:dgx-h200 node:2"
    assert told.notes == (
        "assumed: the network of dgx-h200's reference design",
        "assumed: as many NICs as dgx-h200 has",
    )
    known = machine(run_of("H200", (8, 2), nic="8x CX7 NDR400 IB", fabric="IB"))
    assert known.notes == ()


@pytest.mark.parametrize(
    ("notes", "routing"),
    [
        ("adaptive routing OFF", "static"),
        ("adaptive routing ON, DDP off", "adaptive"),
        ("static routing", "static"),
    ],
)
def test_routing_is_told_where_the_notes_tell_it(notes: str, routing: str) -> None:
    run = run_of("H100", (8, 2), nic="8x CX7 NDR400 IB", fabric="IB", notes=notes)
    assert machine(run).spec.endswith(f"nic_rate:400Gbit/s routing:{routing}")
    assert "routing" not in machine(run_of("H100", notes=notes)).spec


def test_one_node_asks_for_no_network() -> None:
    run = run_of("H100 SXM5 80GB", nic="8x CX7 NDR400 IB", fabric="IB")
    assert machine(run).spec == "model:dgx-h100 node:1"


def test_one_node_without_shared_memory_needs_its_nics() -> None:
    run = run_of("L40S", nic="4x 100G RoCE", notes="NCCL_P2P_DISABLE=1, NCCL_SHM_DISABLE=1")
    told = machine(run)
    assert told.spec == "model:pcie-l40s node:1 network:roce nic:4 nic_rate:100Gbit/s peer:off"
    assert (told.peer_access, told.shared_memory) == (False, False)


@pytest.mark.parametrize(
    ("gpu_model", "wiring", "notes", "peer_access", "slow", "shared_memory"),
    [
        ("L40S", "PCIe4", "", True, False, True),
        ("L40S", "PCIe4", "NCCL_P2P_DISABLE=1", False, False, True),
        ("RTX 4090", "PCIe4", "", False, False, True),
        ("RTX 4090", "PCIe4 (cloud host, slow P2P path)", "", False, True, True),
        ("RTX 6000D", "PCIe (P2P and SHM disabled: all traffic on NICs)", "", False, False, False),
    ],
)
def test_what_a_map_does_not_carry_stands_beside_it(
    gpu_model: str, wiring: str, notes: str, peer_access: bool, slow: bool, shared_memory: bool
) -> None:
    told = machine(run_of(gpu_model, wiring=wiring, notes=notes))
    facts = (told.peer_access, told.slow_peer_path, told.shared_memory)
    assert facts == (peer_access, slow, shared_memory)
    fabric = fabric_of(told)
    assert isinstance(fabric, Fabric)
    route = fabric.reachable_route(*told.endpoints(fabric)[:2])
    assert ("host_memory" in route.route_class.name) is not peer_access


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (run_of("not stated (NVIDIA)"), "gpu_model: no model of 'not stated (NVIDIA)' ()"),
        (run_of("", wiring="NVLink4"), "gpu_model: no model of '' (NVLink4)"),
        (run_of("Gaudi 3"), "gpu_model: no model of 'Gaudi 3'"),
        (run_of("TPU v5p"), "gpu_model: no model of 'TPU v5p'"),
        (run_of("MI250X"), "gpu_model: no model of 'MI250X'"),
        (run_of("RTX A6000"), "gpu_model: no model of 'RTX A6000'"),
        (run_of("A800 PCIe", wiring="PCIe4"), "gpu_model: no model of 'A800 PCIe' (PCIe4)"),
        (
            run_of("P100", (1, 2), nic="1x Omni-Path", fabric="OPA"),
            "fabric: no network of a SPEC is 'Omni-Path'",
        ),
        (run_of("H100", (16, 1)), "gpus_per_node: 16 used; a node of dgx-h100 has 8"),
        (run_of("H100", (8, 2), ranks=15), "ranks: 15 are not as many on each of 2 nodes"),
    ],
)
def test_hardware_without_a_model_is_named_and_skipped(run: Run, reason: str) -> None:
    assert skipped(run).startswith(reason)


@given(
    st.text(max_size=30) | st.sampled_from(["H100", "A100 PCIe", "GB200", "V100"]),
    st.text(max_size=30),
    st.text(alphabet="0123456789x GgbitsIBNDRoCEFA/-().", max_size=40),
    st.text(max_size=20),
    st.integers(1, 10**9),
)
def test_no_text_is_a_crash(gpu: str, wiring: str, nic: str, fabric: str, nodes: int) -> None:
    found = machine_of(run_of(gpu, (4, nodes), wiring=wiring, nic=nic, fabric=fabric))
    if isinstance(found, RunMachine) and (nodes > 10**6 or nodes < 4):
        built = fabric_of(found)
        assert isinstance(built, SkippedRun | Fabric)


def test_a_map_that_cannot_be_built_skips_its_run() -> None:
    for run in (
        run_of("H100", (8, 2), nic="999x CX7", fabric="IB"),
        run_of("H100", (8, 2), nic="8x 9999G", fabric="RoCE"),
        run_of("H100", (8, 10**8)),
    ):
        built = fabric_of(machine(run))
        assert isinstance(built, SkippedRun)
        assert built.run_id == "r"
        assert built.reason.startswith("SPEC: ")


@pytest.mark.parametrize(
    ("nodes", "spec", "per_domain"),
    [(2, "node:2", [8]), (18, "node:18", [72]), (20, "rack:2", [40, 40]), (32, "rack:2", [64, 64])],
)
def test_trays_beyond_one_domain_are_spread_evenly_over_racks(
    nodes: int, spec: str, per_domain: list[int]
) -> None:
    told = machine(run_of("GB200", (4, nodes), nic="4x CX7", fabric="RoCE"))
    assert told.spec.split()[:2] == ["model:gb200-nvl72", spec]
    fabric = fabric_of(told)
    assert isinstance(fabric, Fabric)
    ends = told.endpoints(fabric)
    counts = [len(set(domain.endpoints) & set(ends)) for domain in fabric.domains]
    assert (counts, told.ranks) == (per_domain, 4 * nodes)
    apart = fabric.reachable_route(ends[0], ends[-1])
    assert (apart.link_kind is LinkKind.NET) is (len(per_domain) > 1)


def test_fewer_ranks_than_gpus_take_the_first_slots_of_each_node() -> None:
    told = machine(run_of("H100", (8, 2), ranks=4, nic="8x CX7 NDR400 IB", fabric="IB"))
    fabric = fabric_of(told)
    assert isinstance(fabric, Fabric)
    assert [str(end) for end in told.endpoints(fabric)] == [
        "h100-001:0",
        "h100-001:1",
        "h100-002:0",
        "h100-002:1",
    ]


def test_every_kind_names_a_model_and_its_gpus() -> None:
    kinds = [kind for _, kinds in _FAMILIES for kind in kinds]
    assert {kind.model for kind in kinds} == set(machine_names()) - {"beowulf-2006"}
    for kind in kinds:
        assert kind.gpus == machine_from_name(kind.model).ranks


@pytest.fixture(scope="module")
def measured() -> tuple[Run, ...]:
    if not MEASURED.is_dir():
        pytest.skip("shared/data/measured is not beside this checkout")
    return read_runs(MEASURED / "runs.csv", MEASURED / "points.csv").runs


def test_nine_of_ten_measured_runs_have_a_machine(measured: tuple[Run, ...]) -> None:
    found = [machine_of(run) for run in measured]
    machines = [told for told in found if isinstance(told, RunMachine)]
    assert len(machines) >= 0.9 * len(measured)
    for told, run in zip(found, measured, strict=True):
        if isinstance(told, RunMachine):
            assert (told.ranks, told.nodes) == (run.ranks, run.nodes)


def test_routes_join_the_ranks_of_every_measured_run(measured: tuple[Run, ...]) -> None:
    machines = [told for run in measured if isinstance(told := machine_of(run), RunMachine)]
    shapes = {(told.spec, told.ranks_per_node): told for told in machines}
    assert len(shapes) > 40
    for told in shapes.values():
        fabric = fabric_of(told)
        assert isinstance(fabric, Fabric), told
        ends = told.endpoints(fabric)
        assert len(set(ends)) == told.ranks
        assert all(isinstance(route, Route) for route in routes_from_the_first(fabric, ends))


def routes_from_the_first(fabric: Fabric, ends: tuple[Endpoint, ...]) -> list[object]:
    return [fabric.route(ends[0], end) for end in ends[1:]]

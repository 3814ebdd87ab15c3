"""Runs as the model sees them: settings in words, what is left out and by which column."""

from pathlib import Path

import numpy as np
import pytest

from topology.latency.calibration import NO_CALIBRATION, Reach
from topology.latency.job import Architecture, IntraKind, NetKind
from topology.measured.observed import (
    DOUBTFUL_TRUST,
    SICK_TRUST,
    Observed,
    machine_name,
    observe,
    observed_from_run,
)
from topology.measured.runs import Run, SkippedRun, read_runs
from topology.words import AlgorithmName, Collective, Launch, Protocol

MEASURED = Path(__file__).parents[4] / "shared/data/measured"


def run_of(
    gpu_model: str = "H100 SXM5 80GB",
    shape: tuple[int, int] = (8, 1),
    *,
    run_id: str = "r",
    ranks: int | None = None,
    collective: str = "all_reduce",
    **texts: str,
) -> Run:
    """A run on ``shape``: GPUs a node, nodes."""
    per_node, nodes = shape
    return Run(
        run_id=run_id,
        gpu_model=gpu_model,
        gpus_per_node=per_node,
        nodes=nodes,
        ranks=per_node * nodes if ranks is None else ranks,
        collective=collective,
        sizes_bytes=np.array([8.0, 1e9]),
        times_s=np.array([1e-5, 1e-3]),
        **texts,
    )


def seen(run: Run) -> Observed:
    found = observed_from_run(run)
    assert isinstance(found, Observed), found
    return found


def reason(run: Run) -> str:
    found = observed_from_run(run)
    assert isinstance(found, SkippedRun), found
    assert found.run_id == "r"
    return found.reason


# What is left out.


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        (run_of(collective="p2p_lat"), "collective: no 'p2p_lat'"),
        (run_of(collective=""), "collective: no ''"),
        (run_of(algorithm="butterfly"), "algo_forced: no 'butterfly'"),
        (run_of(protocol="LL256"), "proto_forced: no 'LL256'"),
        (run_of("Voodoo 5"), "gpu_model: no model of 'Voodoo 5'"),
        (run_of(ranks=7, shape=(8, 2)), "ranks: 7"),
        (run_of(shape=(8, 2), nic="1x Omni-Path 100", fabric="OPA"), "fabric:"),
    ],
    ids=["collective", "none", "algorithm", "protocol", "gpu", "ranks", "fabric"],
)
def test_what_the_model_does_not_know_is_skipped_by_its_columns_name(
    run: Run, problem: str
) -> None:
    assert reason(run).startswith(problem)


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        (run_of("V100-SXM2-32GB", algorithm="NVLS"), "no all_reduce by nvls"),
        (run_of("L40S", protocol="LL128"), "no all_reduce by auto, ll128"),
        (run_of(collective="broadcast", algorithm="Tree"), "no broadcast by double_binary_tree"),
    ],
)
def test_a_way_that_nccl_has_not_there_is_skipped_with_what_it_has(run: Run, problem: str) -> None:
    assert reason(run).startswith("algo_forced, proto_forced: ")
    assert problem in reason(run)
    assert "; ring, simple" in reason(run) or "has ring, ll; " in reason(run)


def test_a_rank_alone_has_no_collective() -> None:
    assert reason(run_of(shape=(1, 1))).startswith("ranks: 1")


def test_the_rest_is_taken_and_each_left_out_run_is_told() -> None:
    runs = [run_of(run_id="a"), run_of(run_id="b", collective="gossip"), run_of(run_id="c")]
    taken, skipped = observe(runs)
    assert [run.run_id for run in taken] == ["a", "c"]
    assert [run.run_id for run in skipped] == ["b"]
    assert observe([]) == ((), ())


# Settings.


@pytest.mark.parametrize(
    ("text", "collective"),
    [
        ("all_reduce", Collective.ALL_REDUCE),
        ("All_Gather", Collective.ALL_GATHER),
        ("alltoall", Collective.ALLTOALL),
        ("all_to_all", Collective.ALLTOALL),
        ("sendrecv", Collective.SENDRECV),
        ("send_recv", Collective.SENDRECV),
        ("reduce", Collective.REDUCE),
    ],
)
def test_collectives_go_by_their_usual_names(text: str, collective: Collective) -> None:
    assert seen(run_of(collective=text)).operation.collective is collective


def test_what_was_forced_is_forced_in_the_model() -> None:
    found = seen(run_of(algorithm="Tree", protocol="LL128"))
    assert (found.algorithm, found.protocol) == (
        AlgorithmName.DOUBLE_BINARY_TREE,
        Protocol.LL128,
    )
    (way,) = found.model(NO_CALIBRATION).ways
    assert way.way == (AlgorithmName.DOUBLE_BINARY_TREE, Protocol.LL128)
    free = seen(run_of())
    assert (free.algorithm, free.protocol) == (AlgorithmName.AUTO, None)


@pytest.mark.parametrize("word", ["custom kernel", "Custom Kernel"])
def test_a_serving_frameworks_kernels_are_told_by_library(word: str) -> None:
    found = seen(run_of(algorithm=word, library="vLLM 0.8 custom all-reduce, eager"))
    assert found.custom
    assert found.operation.library == "vllm"
    assert found.operation.launch is Launch.EAGER
    assert not seen(run_of(library="NCCL 2.27")).custom


def test_launch_and_integers_are_settings() -> None:
    found = seen(run_of(launch="1 process, -g 8", dtype="int8"))
    assert found.operation.launch is Launch.THREAD
    assert found.operation.is_integer
    assert not seen(run_of(dtype="bfloat16")).operation.is_integer


# Hardware.


def test_a_run_is_a_job_on_its_machines_map() -> None:
    found = seen(run_of(shape=(8, 2), nic="8x ConnectX-7 NDR 400G", fabric="InfiniBand NDR"))
    assert (found.job.ranks, found.job.cliques, found.job.per_clique) == (16, 2, 8)
    assert found.job.architecture is Architecture.HOPPER
    assert found.job.net is not None
    assert (found.job.net.kind, found.job.net.bytes_per_s) == (NetKind.INFINIBAND, 400e9)
    assert found.reach is Reach.ACROSS_NODES
    assert seen(run_of()).reach is Reach.ONE_NODE


def test_32_efa_nics_of_100_gbit_are_400_gb_per_s() -> None:
    found = seen(run_of(shape=(8, 2), nic="32x EFA 100G (p5.48xlarge)", fabric="EFA"))
    assert found.job.net is not None
    assert found.job.net.kind is NetKind.EFA
    assert found.job.net.bytes_per_s == pytest.approx(400e9)


def test_eighteen_nodes_of_a_rack_are_one_clique() -> None:
    """So a run on many nodes stays in one node for NCCL, and in its region of the table."""
    found = seen(run_of("GB200", (4, 16), wiring="NVLink5 NVL72"))
    assert (found.job.cliques, found.job.ranks) == (1, 64)
    assert found.reach is Reach.ONE_NODE


def test_without_peer_access_and_shared_memory_each_rank_is_alone_with_its_nics() -> None:
    wiring = "PCIe (P2P and SHM disabled: all traffic on NICs)"
    job = seen(run_of("RTX 6000D (PCIe)", (8, 2), wiring=wiring, nic="8x CX8")).job
    shared = seen(run_of("RTX 6000D (PCIe)", (8, 2), wiring="PCIe", nic="8x CX8")).job
    assert (job.cliques, job.per_clique, job.intra) == (16, 1, None)
    assert (shared.cliques, shared.per_clique) == (2, 8)
    assert job.net is not None
    assert shared.net is not None
    assert (job.net.bytes_per_s, job.net.nics) == (shared.net.bytes_per_s / 8, 1)
    few = seen(run_of("RTX 6000D (PCIe)", (8, 2), wiring=wiring, nic="2x CX8")).job.net
    assert few is not None
    assert few.one_nic_bytes_per_s == job.net.one_nic_bytes_per_s, "a piece alone has a NIC's rate"


def test_without_shared_memory_alone_peers_are_still_reached() -> None:
    job = seen(
        run_of(shape=(8, 2), wiring="NVLink4/NVSwitch, NCCL_SHM_DISABLE=1", nic="8x NDR")
    ).job
    assert (job.cliques, job.per_clique) == (2, 8)


def test_one_node_whose_traffic_is_all_on_nics_is_skipped() -> None:
    wiring = "PCIe (P2P and SHM disabled: all traffic on NICs)"
    found = observed_from_run(run_of("RTX 6000D (PCIe)", (8, 1), wiring=wiring, nic="8x CX8"))
    assert isinstance(found, SkippedRun)
    assert "all of whose traffic is on NICs" in found.reason


def test_a_path_that_its_poster_calls_slow_goes_through_host_memory() -> None:
    slow = seen(run_of("RTX 4090", wiring="PCIe4", notes="slow P2P"))
    assert slow.job.intra is not None
    assert slow.job.intra.kind is IntraKind.HOST
    usual = seen(run_of("RTX 4090", wiring="PCIe4"))
    assert usual.job.intra is not None
    assert usual.job.intra.kind is IntraKind.PCIE


# Trust and what is held out together.


def test_a_network_that_nobody_told_is_trusted_less() -> None:
    told = seen(run_of(shape=(8, 2), nic="8x NDR 400G", fabric="InfiniBand NDR"))
    guessed = seen(run_of(shape=(8, 2), nic="not stated", fabric="not stated"))
    assert (told.trust, guessed.trust) == (1.0, DOUBTFUL_TRUST)


def test_a_machine_with_broken_runs_is_trusted_less_in_all() -> None:
    runs = [
        run_of(run_id="sick", quality="C", family="lab-1"),
        run_of(run_id="same", quality="A", family="lab-2"),
        run_of(run_id="other", quality="A", family="elsewhere-1"),
    ]
    taken, _ = observe(runs)
    assert [run.trust for run in taken] == [DOUBTFUL_TRUST, DOUBTFUL_TRUST, 1.0]


def test_a_machine_most_of_whose_runs_are_broken_hardly_counts() -> None:
    taken, _ = observe(
        [run_of(run_id=f"{n}", quality=quality, family="lab-1") for n, quality in enumerate("CCA")]
    )
    assert {run.trust for run in taken} == {SICK_TRUST}


def test_a_median_of_three_iterations_is_trusted_less_and_doubts_multiply() -> None:
    notes = "median of only 3 iterations timed on rank 0"
    few = seen(run_of(notes=notes))
    many = seen(run_of(notes="40 warm-up + 100 iterations"))
    both = seen(run_of(shape=(8, 2), nic="not stated", fabric="not stated", notes=notes))
    assert (few.trust, many.trust) == (DOUBTFUL_TRUST, 1.0)
    assert seen(run_of(notes="3 iterations of warm-up, 100 timed")).trust == 1.0
    assert both.trust == DOUBTFUL_TRUST**2


def test_a_machine_is_hardware_and_laboratory() -> None:
    same = {
        machine_name(run_of(family="lab-a", library="NCCL 2.18")),
        machine_name(run_of(family="lab-b", library="NCCL 2.27")),
    }
    assert len(same) == 1
    others = {
        machine_name(run_of(family="else-a")),
        machine_name(run_of("H200", family="lab-a")),
        machine_name(run_of(shape=(8, 2), nic="8x NDR", family="lab-a")),
        machine_name(run_of(wiring="PCIe5", family="lab-a")),
    }
    assert len(others | same) == 5


# The published runs.


@pytest.fixture(scope="module")
def published() -> tuple[tuple[Run, ...], tuple[Observed, ...], tuple[SkippedRun, ...]]:
    if not MEASURED.is_dir():
        pytest.skip("shared/data/measured is not beside this checkout")
    runs = read_runs(MEASURED / "runs.csv", MEASURED / "points.csv").runs
    return (runs, *observe(runs))


def test_at_least_nine_tenths_of_the_published_runs_are_usable(
    published: tuple[tuple[Run, ...], tuple[Observed, ...], tuple[SkippedRun, ...]],
) -> None:
    runs, taken, skipped = published
    assert len(runs) >= 700
    assert len(taken) >= 0.9 * len(runs)
    assert len(taken) + len(skipped) == len(runs)
    assert all(":" in left.reason for left in skipped)


def test_every_published_run_that_is_taken_has_a_finite_time_at_every_size(
    published: tuple[tuple[Run, ...], tuple[Observed, ...], tuple[SkippedRun, ...]],
) -> None:
    _, taken, _ = published
    for run in taken:
        times_s = run.model(NO_CALIBRATION).times_s(run.sizes_bytes)
        assert np.isfinite(times_s).all(), run.run_id
        assert (times_s > 0).all(), run.run_id

"""The Python front door: the names of the commands, the same numbers, the same refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

import topology
from fleet import fleet_from_spec
from tests.topology.command import WORK, write_maps
from tests.topology.command import topology as command
from topology.collective.placement import pack, spread
from topology.errors import NoCandidateError, TopologyError, UnreachableError, WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.latency.report import summary_document
from topology.plan.planner import Verdict
from topology.plan.report import plan_document
from topology.steps.report import step_document
from topology.words import Protocol


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_maps(tmp_path_factory.mktemp("maps"))


@pytest.fixture(scope="module")
def fabric(maps: Path) -> Fabric:
    return topology.load_fabric(maps / "dgx.json")


def test_every_public_name_is_there() -> None:
    for name in topology.__all__:
        assert getattr(topology, name).__name__ == name
    assert {"load_fabric", "simulate", "plan_fleet", "Workload", "load_workload"} <= set(
        topology.__all__
    )


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'simulation'"):
        topology.simulation  # noqa: B018


def test_every_error_of_the_package_is_a_topology_error() -> None:
    for error in (WorkloadError, UnreachableError, NoCandidateError):
        assert issubclass(error, topology.TopologyError)
    assert topology.TopologyError is TopologyError


def test_simulate_gives_what_the_command_prints(maps: Path, fabric: Fabric) -> None:
    summary = topology.simulate(
        fabric,
        collective="all_reduce",
        size_bytes=65_536,
        gpus=12,
        algorithm="ring",
        protocol="ll",
        launch="graph",
        stack="nccl",
        noise="shared",
        trials=500,
        seed=7,
    )
    words = "--collective all_reduce --size 64KiB --gpus 12 --algorithm ring --protocol ll"
    more = "--launch graph --stack nccl --noise shared --trials 500 --seed 7 --json"
    printed = command("simulate", maps / "dgx.json", *words.split(), *more.split())
    assert json.dumps(summary_document(summary), indent=2) + "\n" == printed.out


def test_simulate_takes_all_ranks_unless_told(fabric: Fabric) -> None:
    calm = topology.simulate(fabric, collective="all_gather", size_bytes=8, noise="none")
    assert (calm.ranks, calm.nodes) == (16, 2)


def test_simulate_takes_a_placement(fabric: Fabric) -> None:
    placement = spread(fabric, 4)
    calm = topology.simulate(
        fabric, collective="all_reduce", size_bytes=8, placement=placement, noise="none"
    )
    assert (calm.ranks, calm.nodes) == (4, 2)
    with pytest.raises(WorkloadError, match="gpus: 4 ranks placed, 5 asked"):
        topology.simulate(
            fabric, collective="all_reduce", size_bytes=8, placement=placement, gpus=5
        )
    same = topology.simulate(
        fabric, collective="all_reduce", size_bytes=8, placement=placement, gpus=4, noise="none"
    )
    assert same == calm


def test_members_of_the_sets_do_as_well_as_their_words(fabric: Fabric) -> None:
    by_word, by_member = (
        topology.simulate(
            fabric, collective="all_reduce", size_bytes=8, protocol=protocol, noise="none"
        )
        for protocol in ("ll", Protocol.LL)
    )
    assert by_word == by_member


@pytest.mark.parametrize(
    "wrong",
    [
        {"collective": "allreduce"},
        {"algorithm": "magic"},
        {"protocol": "fast"},
        {"launch": "rocket"},
        {"stack": "ucx"},
        {"noise": "loud"},
    ],
)
def test_word_outside_its_set_is_a_value_error(fabric: Fabric, wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=f"'{next(iter(wrong.values()))}' is not a valid"):
        topology.simulate(
            fabric,
            **{"collective": "all_reduce", **wrong},  # type: ignore[arg-type]
            size_bytes=8,
        )


def test_simulate_refuses_more_ranks_than_there_are(fabric: Fabric) -> None:
    with pytest.raises(WorkloadError, match="17 ranks asked of 16"):
        topology.simulate(fabric, collective="all_reduce", size_bytes=8, gpus=17)


def test_plan_gives_what_the_command_prints(maps: Path, fabric: Fabric) -> None:
    workload = topology.load_workload(maps / "work.yaml")
    plan = topology.plan_fleet(fabric, workload, objective="p50", trials=500, seed=2)
    options = ["--objective", "p50", "--trials", "500", "--seed", "2", "--json"]
    printed = command("plan", maps / "dgx.json", maps / "work.yaml", *options)
    assert json.dumps(plan_document(plan), indent=2) + "\n" == printed.out
    assert plan.verdict is Verdict.SCALE_IN


def test_plan_refuses_what_no_candidate_can_run(fabric: Fabric, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(f"{WORK}gpus: 17\n")
    workload = topology.load_workload(tmp_path / "w.yaml")
    with pytest.raises(topology.TopologyError, match="17 GPUs asked, 16 free"):
        topology.plan_fleet(fabric, workload)


def test_a_fabric_can_be_made_without_a_file() -> None:
    fabric = topology.Fabric(fleet_from_spec("model:beowulf-2006 node:4"))
    calm = topology.simulate(fabric, collective="broadcast", size_bytes=8, noise="none")
    assert (calm.stack, calm.ranks) == ("wire", 4)
    assert pack(fabric, 4).ranks == 4


def test_a_run_of_nccl_tests_is_judged_as_the_command_does(root: Path) -> None:
    fabric = topology.Fabric(fleet_from_spec("model:dgx-h100 node:2"))
    told = {
        name: topology.diagnose(root / f"samples/nccl_tests/dgx-h100-2-{name}.txt", fabric).verdict
        for name in ("healthy", "sockets")
    }
    assert {name: verdict.value for name, verdict in told.items()} == {
        "healthy": "healthy",
        "sockets": "sick",
    }


RUN_COLUMNS = (
    "run_id,gpu_model,gpus_per_node,nodes,ranks,nvlink_gen_or_pcie,nic,fabric,library,collective,"
    "algo_forced,proto_forced,quality,family,launch,dtype\n"
)


def test_runs_are_validated_and_calibrated_from_tables(tmp_path: Path) -> None:
    """One run on eight H100 that takes three times as long as the shipped model says."""
    runs, points = tmp_path / "runs.csv", tmp_path / "points.csv"
    row = "slow,H100 SXM5 80GB,8,1,8,NVLink4/NVSwitch,none,none,NCCL,all_reduce,,,A,f,,float\n"
    runs.write_text(RUN_COLUMNS + row)
    fabric = topology.Fabric(fleet_from_spec("model:dgx-h100 node:1"))
    sizes = [2**k for k in range(6, 16)]
    times_us = [
        3e6
        * topology.simulate(
            fabric, collective="all_reduce", size_bytes=size, noise="none"
        ).noiseless_s
        for size in sizes
    ]
    lines = [f"slow,{size},{time}\n" for size, time in zip(sizes, times_us, strict=True)]
    points.write_text("run_id,size_bytes,time_us\n" + "".join(lines))
    (cell,) = (c for c in topology.validate(runs, points).cells if c.family is None)
    assert cell.ours.median == pytest.approx(3.0, rel=0.01)
    own = topology.calibrate(runs, points, data_name="one slow machine")
    assert own.provenance.data == "one slow machine"
    fitted = topology.validate(runs, points, calibration=own)
    # Ten points against the priors: most of the way in log, not all of it.
    assert next(c for c in fitted.cells if c.family is None).ours.median < 3**0.5


def test_simulate_takes_what_was_measured_and_layers(maps: Path, fabric: Fabric) -> None:
    trace = maps / "trace.csv"
    trace.write_text("latency_ns\n" + "".join(f"{2_000 + i % 100}\n" for i in range(500)))
    asked: dict[str, Any] = {"collective": "all_reduce", "size_bytes": 65_536, "trials": 400}
    more: dict[str, Any] = {"trace": trace, "layers": ["skew"], "attribute": True}
    summary = topology.simulate(fabric, **asked, **more)
    words = ("--collective", "all_reduce", "--size", "64KiB", "--trials", "400", "--noise", trace)
    flags = ("--layers", "skew", "--attribute", "--json")
    done = command("simulate", maps / "dgx.json", *words, *flags)
    assert done.document == json.loads(json.dumps(summary_document(summary)))


def test_simulate_step_gives_what_the_command_prints(maps: Path, fabric: Fabric) -> None:
    step = maps / "step.yaml"
    step.write_text(
        "kind: step\nschema_version: 1\nname: s\ngpus: 16\nparts:\n"
        "  - {name: work, compute: {time_s: 1ms, spread_ratio: 3 %}}\n"
        "  - {name: sum, collective: {collective: all_reduce, size_bytes: 64KiB}}\n"
    )
    summary = topology.simulate_step(fabric, step, trials=500)
    assert summary == topology.simulate_step(fabric, topology.load_step(step), trials=500)
    done = command("step", maps / "dgx.json", step, "--trials", "500", "--json")
    assert done.document == json.loads(json.dumps(step_document(summary)))

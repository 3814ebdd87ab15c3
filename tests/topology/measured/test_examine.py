"""``topology diagnose`` as a person types it, and on the calibration set's C and A rows."""

from functools import cache
from pathlib import Path

import pytest

from fleet import fleet_from_spec, save_fleet
from tests.topology.command import Done, refused, topology
from tests.topology.measured.nccl_texts import devices, settings, table, whole
from topology.errors import MeasurementError, WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.measured.diagnosis import Verdict, diagnose
from topology.measured.hardware import fabric_of, machine_of
from topology.measured.nccl_tests import parse_nccl_tests
from topology.measured.observed import observed_from_run
from topology.measured.runs import Run, SkippedRun, read_runs
from topology.measured.seats import Seats, seats_of
from topology.measured.suspects import Settings, expect, rails_of

SAMPLES = Path(__file__).parents[3] / "samples" / "nccl_tests"
MEASURED = Path(__file__).parents[4] / "shared" / "data" / "measured"
HEALTHY, SOCKETS = (SAMPLES / f"dgx-h100-2-{name}.txt" for name in ("healthy", "sockets"))


@pytest.fixture(scope="module")
def dgx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "dgx.json"
    save_fleet(fleet_from_spec("model:dgx-h100 node:2"), path)
    return path


def examined(file: Path | str, fleet: Path, *more: str, stdin: bytes = b"") -> Done:
    return topology("diagnose", "--nccl-tests", file, "--map", fleet, *more, stdin=stdin)


def test_a_healthy_run_exits_0_and_names_its_first_call(dgx: Path) -> None:
    done = examined(HEALTHY, dgx)
    assert (done.code, done.err) == (0, "")
    assert "all_reduce of float, 16 ranks, launch process: healthy" in done.out
    assert "first call, left out: 8 B" in done.out


def test_a_run_over_sockets_exits_1_and_names_the_suspect_with_evidence(dgx: Path) -> None:
    done = examined(SOCKETS, dgx, "--json")
    assert done.code == 1
    document = done.document
    assert (document["kind"], document["schema_version"]) == ("diagnosis", 1)
    (run,) = document["runs"]
    assert document["verdict"] == run["verdict"] == "sick"
    assert "sockets" in [suspect["name"] for suspect in run["suspects"]]
    slow = [region for region in run["regions"] if region["state"] == "slow"]
    assert slow[-1]["region"] == ">= 64 MiB"
    assert slow[-1]["factor"] > slow[-1]["slow_ratio"]
    assert "suspect: sockets instead of RDMA" in examined(SOCKETS, dgx).out


def test_stdin_is_read(dgx: Path) -> None:
    assert examined("-", dgx, stdin=HEALTHY.read_bytes()).code == 0


def test_several_runs_are_each_judged_and_one_that_is_lost_exits_3(
    dgx: Path, tmp_path: Path
) -> None:
    lost = whole("hypercube")
    both = tmp_path / "both.txt"
    both.write_text(HEALTHY.read_text() + lost)
    done = examined(both, dgx)
    assert done.code == 3
    assert "hypercube_perf is not modelled" in done.err
    both.write_text(HEALTHY.read_text() + SOCKETS.read_text() + lost)
    assert examined(both, dgx).code == 1
    assert len(examined(both, dgx, "--json").document["runs"]) == 2


def test_a_row_that_is_cut_is_told_and_costs_no_verdict(dgx: Path, tmp_path: Path) -> None:
    file = tmp_path / "cut.txt"
    text = HEALTHY.read_text()
    file.write_text(text[: text.index("# Out of bounds") - 70])
    done = examined(file, dgx)
    assert done.code == 0
    assert "1 row: cut" in done.err or not done.err


def test_wrong_values_are_sick(dgx: Path, tmp_path: Path) -> None:
    file = tmp_path / "wrong.txt"
    file.write_text(whole(rows=table(wrong_cell="7")))
    done = examined(file, dgx)
    assert done.code == 1
    assert "wrong values: 98" in done.out  # 14 rows of 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("no table\n", "no table of nccl-tests"),
        (whole(ranks=devices(("a", "b", "c"))), "3 hosts with up to 8 GPUs ran it"),
        (whole(ranks=devices().replace("H100 80GB HBM3", "A100-SXM4-80GB")), "the map's GPUs are"),
        (whole(rows=table(sizes=(8, 2**20))), "2 rows, of no region 3"),
    ],
)
def test_what_cannot_be_judged_is_one_line_and_exit_2(
    text: str, words: str, dgx: Path, tmp_path: Path
) -> None:
    file = tmp_path / "out.txt"
    file.write_text(text)
    assert words in refused(examined(file, dgx))


def test_stdin_cannot_be_both(dgx: Path) -> None:
    assert "stdin is asked for twice" in refused(examined("-", Path("-")))


# Seats.


def seats(text: str, spec: str = "model:dgx-h100 node:3") -> Seats:
    (run,) = parse_nccl_tests(text).runs
    return seats_of(run, Fabric(fleet_from_spec(spec)))


def test_hosts_of_the_map_are_found_by_their_short_name() -> None:
    placement, notes = seats(whole(ranks=devices(("h100-003.example.org", "h100-001"))))
    assert placement.hosts == ("h100-003", "h100-001")
    assert notes == ()


def test_gpus_are_found_by_their_pci_address() -> None:
    ranks = devices(("h100-001", "h100-002"), 1).replace("0000:00:00", "0000:43:00")
    placement, _ = seats(whole(ranks=ranks, rows=table(1.0)))
    assert [end.slot for end in placement.endpoints] == [1, 1]


def test_hosts_that_the_map_lacks_get_its_first_nodes_and_a_note() -> None:
    placement, notes = seats(whole(ranks=devices(("x1", "x2"), 4), rows=table(1.75)))
    assert [(end.host, end.slot) for end in placement.endpoints] == [
        (host, slot) for host in ("h100-001", "h100-002") for slot in range(4)
    ]
    assert notes == ("host x1 is not in the map: hosts taken for its first nodes",)


def test_more_ranks_than_a_node_has_are_refused() -> None:
    with pytest.raises(WorkloadError, match="not enough of them as large"):
        seats(whole(ranks=devices(("x1",), 9), head=settings(), rows=table(2 * 8 / 9)))
    with pytest.raises(WorkloadError, match="9 ranks on h100-001; its node in the map has 8 GPUs"):
        seats(whole(ranks=devices(("h100-001",), 9), rows=table(2 * 8 / 9)))


def test_without_devices_the_ranks_are_packed() -> None:
    placement, notes = seats(f"./all_reduce_perf\n{table()}")
    assert placement.ranks == 16
    assert notes == ("the run does not tell its hosts: ranks packed",)


# The calibration set: A rows are well; C rows are what sick looks like.


@cache
def runs() -> dict[str, Run]:
    return {
        run.run_id: run for run in read_runs(MEASURED / "runs.csv", MEASURED / "points.csv").runs
    }


def verdict_of(run: Run) -> Verdict | None:
    """The verdict on a run of the set, None where it cannot be judged."""
    seen = observed_from_run(run)
    machine = machine_of(run)
    if isinstance(seen, SkippedRun) or isinstance(machine, SkippedRun):
        return None
    fabric = fabric_of(machine)
    assert isinstance(fabric, Fabric)
    expected = expect(
        seen.job,
        seen.operation,
        seen.sizes_bytes,
        rails=rails_of(fabric, machine.endpoints(fabric)),
        settings=Settings(seen.algorithm, seen.protocol, seen.custom),
    )
    try:
        return diagnose(seen.sizes_bytes, seen.times_s, expected).verdict
    except MeasurementError:
        return None


NEAR_HEALTHY = "aic-l40s-1x2-"
"""C as a series: its pairs of GPUs are within 1.3 of PCIe 4, only four and eight are slow."""


@pytest.mark.skipif(not MEASURED.is_dir(), reason="shared/data/measured is not beside this")
def test_the_c_rows_are_sick() -> None:
    rows = [run for run in runs().values() if run.quality == "C"]
    verdicts = {run.run_id: verdict_of(run) for run in rows}
    assert len(verdicts) == 28
    healthy = [name for name, verdict in verdicts.items() if verdict is not Verdict.SICK]
    assert [name for name in healthy if not name.startswith(NEAR_HEALTHY)] == []


@pytest.mark.slow
@pytest.mark.skipif(not MEASURED.is_dir(), reason="shared/data/measured is not beside this")
def test_no_a_row_is_sick() -> None:
    rows = [run for run in runs().values() if run.quality == "A"]
    verdicts = {run.run_id: verdict_of(run) for run in rows}
    assert sum(verdict is Verdict.HEALTHY for verdict in verdicts.values()) > 380
    assert [name for name, verdict in verdicts.items() if verdict is Verdict.SICK] == []

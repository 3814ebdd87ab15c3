import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.gather.outcome import FailureReason
from fleet.gather.processes import Ending, Ran
from fleet.gather.srun import SrunTransport, allocated_hosts, is_inside_allocation, told_by_srun
from fleet.gather.sweep import gather_fleet
from tests.fleet.gather.conftest import Slurm, becomes_true

INSIDE = """
from fleet.gather.srun import SrunTransport, allocated_hosts, is_inside_allocation
from fleet.gather.sweep import gather_fleet
found = gather_fleet(SrunTransport(allocated_hosts(), 15, is_inside=is_inside_allocation()))
print(is_inside_allocation(), [n.host for n in found.fleet.nodes], found.failures)
"""


@pytest.fixture
def cluster(slurm_cluster: Slurm, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """The cluster, for srun as this process starts it."""
    for name, value in slurm_cluster.environment.items():
        monkeypatch.setenv(name, value)
    return slurm_cluster


@pytest.mark.slow
def test_srun_reads_a_node(cluster: Slurm) -> None:
    found = gather_fleet(SrunTransport((cluster.node,), 20))
    assert [one.host for one in found.collected] == [cluster.node]
    assert found.failures == ()


OF_A_NODE_THAT_IS_DOWN = (
    "Required node not available (down, drained or reserved)",
    "Requested nodes are busy",
)
"""Slurm's words: which of them depends on what its controller did last."""


@pytest.mark.slow
def test_srun_says_what_is_wrong_with_a_node(cluster: Slurm) -> None:
    found = gather_fleet(SrunTransport(("absent", "unheard-of"), 2))
    absent, unheard_of = found.failures
    assert (absent.host, absent.reason) == ("absent", FailureReason.UNREACHABLE)
    assert absent.detail in OF_A_NODE_THAT_IS_DOWN
    assert (unheard_of.host, unheard_of.reason) == ("unheard-of", FailureReason.UNKNOWN_HOST)
    assert unheard_of.detail == "Invalid node name specified"


@pytest.mark.slow
def test_inside_an_allocation_its_own_nodes_are_asked_beside_other_steps(
    cluster: Slurm, root: Path
) -> None:
    done = subprocess.run(
        [
            "salloc",
            "--quiet",
            "--nodes=1",
            f"--nodelist={cluster.node}",
            sys.executable,
            "-c",
            INSIDE,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=root,
        env={**os.environ, **cluster.environment},
    )
    assert done.stdout == f"True ['{cluster.node}'] ()\n", done.stderr


@pytest.mark.slow
def test_a_job_that_is_given_up_leaves_the_queue(cluster: Slurm) -> None:
    with subprocess.Popen(["srun", "--quiet", f"--nodelist={cluster.node}", "sleep", "60"]) as busy:
        assert becomes_true(lambda: "sleep" in queue())
        (failure,) = gather_fleet(SrunTransport((cluster.node,), 3)).failures
        busy.terminate()
    assert failure.reason is FailureReason.NOT_STARTED
    assert failure.detail == "queued and waiting for resources"
    assert becomes_true(lambda: "fleetmap" not in queue())


def queue() -> str:
    """The jobs of the cluster by name."""
    command = ["squeue", "--noheader", "--format=%j"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            "srun: error: Unable to allocate resources: Invalid node name specified",
            FailureReason.UNKNOWN_HOST,
        ),
        (
            "srun: Required node not available (down, drained or reserved)",
            FailureReason.UNREACHABLE,
        ),
        (
            "srun: error: Unable to allocate resources: Requested nodes are busy",
            FailureReason.UNREACHABLE,
        ),
        (
            "srun: error: Unable to allocate resources: Unable to contact slurm controller "
            "(connect failure)",
            FailureReason.UNREACHABLE,
        ),
        (
            "srun: error: Unable to create step for job 7: Job/step already completing",
            FailureReason.NOT_STARTED,
        ),
        (
            "srun: error: Unable to allocate resources: Invalid account or account/partition "
            "combination specified",
            FailureReason.AUTH,
        ),
    ],
)
def test_srun_s_words_name_the_reason(words: str, reason: FailureReason) -> None:
    told = told_by_srun(Ran(Ending.EXITED, 1, b"", words.encode()))
    assert told is not None
    assert told.reason is reason


def test_words_srun_did_not_say_name_no_reason() -> None:
    assert told_by_srun(Ran(Ending.EXITED, 1, b"", b"Traceback")) is None


def test_inside_an_allocation_steps_overlap_and_outside_nobody_queues() -> None:
    inside = SrunTransport(("gpu1",), 20, is_inside=True, mark="@m").argv("gpu1")
    outside = SrunTransport(("gpu1",), 20, mark="@m").argv("gpu1")
    assert "--overlap" in inside
    assert "--overlap" not in outside
    assert {"--immediate=20", "--time=2"} < set(outside)
    assert inside[-3:-1] == ["/bin/sh", "-c"]


def test_the_allocation_s_nodes_are_slurm_s_own_list() -> None:
    assert allocated_hosts({"SLURM_JOB_NODELIST": "gpu[1-2,7]"}) == ("gpu1", "gpu2", "gpu7")
    assert is_inside_allocation({"SLURM_JOB_ID": "7"})
    assert not is_inside_allocation({})
    with pytest.raises(FleetError, match="not inside an allocation; name --hosts"):
        allocated_hosts({})

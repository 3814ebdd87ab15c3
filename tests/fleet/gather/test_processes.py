import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from fleet.gather.processes import Ending, Ran, run

LIMIT = 100_000


def ran(script: str, *, deadline_s: float = 30, stdin: bytes = b"", limit: int = LIMIT) -> Ran:
    """A shell script under the rules."""
    work = run(
        ["/bin/sh", "-c", script],
        stdin=stdin,
        deadline_s=deadline_s,
        limit_bytes=limit,
        is_whole=lambda output: output.endswith(b"whole\n"),
    )
    return asyncio.run(work)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def is_gone_soon(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    until = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not is_running(pid)


def test_a_command_gives_its_output_and_status() -> None:
    assert ran("cat; echo no >&2; exit 7", stdin=b"hello") == Ran(
        Ending.EXITED, 7, b"hello", b"no\n"
    )


def test_a_command_that_reads_nothing_is_no_trouble() -> None:
    done = ran("exec 0<&-; echo done", stdin=b"x" * 1_000_000)
    assert (done.ending, done.exit_code, done.stdout) == (Ending.EXITED, 0, b"done\n")


@pytest.mark.parametrize(
    ("parent", "child"), [("", ""), ("trap '' TERM;", ""), ("", "trap '' TERM;")]
)
def test_at_the_deadline_the_whole_group_is_killed(tmp_path: Path, parent: str, child: str) -> None:
    pids = tmp_path / "pids"
    done = ran(
        f"({child} sleep 600; sleep 600) & echo $$ $! >{pids}; {parent} echo part; wait; wait",
        deadline_s=0.5,
    )
    assert (done.ending, done.exit_code, done.stdout) == (Ending.TIMED_OUT, None, b"part\n")
    assert all(is_gone_soon(int(pid)) for pid in pids.read_text().split())


def test_a_command_that_says_too_much_is_cut_off() -> None:
    done = ran("while :; do echo 0123456789012345678901234567890123456789; done")
    assert done.ending is Ending.TOO_LARGE
    assert len(done.stdout) < LIMIT + 2**20


def test_a_command_that_has_said_all_is_not_waited_for() -> None:
    done = ran("echo whole; exec sleep 600")
    assert (done.ending, done.stdout) == (Ending.WHOLE, b"whole\n")


def test_pipes_held_open_by_others_are_not_waited_for(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    done = ran(f"setsid sleep 600 & echo $! >{pid}; echo hi; exit 3")
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert (done.ending, done.exit_code, done.stdout) == (Ending.EXITED, 3, b"hi\n")


def test_of_what_is_said_on_stderr_the_end_is_kept() -> None:
    done = ran("i=0; while [ $i -lt 9999 ]; do echo line $i >&2; i=$((i+1)); done")
    assert done.stderr.endswith(b"line 9998\n")
    assert len(done.stderr) <= 16 * 1024


def test_a_program_that_is_not_there_is_an_error_of_the_system() -> None:
    work = run(
        ["/no/such/program"], stdin=b"", deadline_s=1, limit_bytes=1, is_whole=lambda output: False
    )
    with pytest.raises(FileNotFoundError):
        asyncio.run(work)


def test_a_sweep_that_is_interrupted_leaves_no_process(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    async def interrupted() -> None:
        work = run(
            ["/bin/sh", "-c", f"echo $$ >{pid}; exec sleep 600"],
            stdin=b"",
            deadline_s=600,
            limit_bytes=1,
            is_whole=lambda output: False,
        )
        task = asyncio.create_task(work)
        while not (pid.exists() and pid.read_text().strip()):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(interrupted())
    assert is_gone_soon(int(pid.read_text()))

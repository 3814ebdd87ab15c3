"""``fleet gather`` in a process of its own: what it prints, how it ends, and how it is killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.store import load_fleet, read_bytes
from tests.commands import Done, run_here
from tests.fleet.gather.conftest import becomes_true
from tests.fleet.gather.far import snapshot_bytes, stub_ssh
from tests.fleet.gather.test_processes import is_gone_soon

SCRIPT = Path(sys.executable).with_name("fleet")
REFUSED = "echo 'ssh: connect to host x port 22: Connection refused' >&2; exit 255"
FOR_EVER = "exec sleep 600"
PATIENT = ("--deadline", "300s")
KILLS = 8
FILES = 80


def command(*words: str | Path) -> list[str]:
    """The command line of ``fleet gather``."""
    return [str(SCRIPT), "gather", *map(str, words)]


def ran(*words: str | Path, stdin: bytes = b"") -> Done:
    """The command, run to its end in this process."""
    return run_here("fleet", "gather", *words, stdin=stdin, SLURM_JOB_NODELIST="", NO_COLOR="1")


def installed(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """The installed command, run to its end."""
    return subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "SLURM_JOB_NODELIST": ""},
    )


def document(*words: str | Path) -> dict[str, Any]:
    """The JSON of a run."""
    return ran(*words, "--json").document


def spool_of(folder: Path, count: int) -> dict[str, bytes]:
    """A spool folder of so many snapshots, by host."""
    folder.mkdir()
    files = {f"g{i:03d}": snapshot_bytes(f"g{i:03d}", at=None) for i in range(count)}
    for host, content in files.items():
        (folder / f"{host}.snapshot.json").write_bytes(content)
    return files


def kept_in(folder: Path) -> dict[str, bytes]:
    """What is kept, by file name; each file is whole or this raises."""
    return {path.name: read_bytes(path) for path in folder.glob("*.json.gz")}


def killed(words: list[str | Path], moment: Callable[[], bool], sign: signal.Signals) -> int:
    """How a run ended that was sent a signal at a moment."""
    with subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        while run.poll() is None and not moment():
            time.sleep(0.0005)
        run.send_signal(sign)
        run.communicate(timeout=30)
        return run.returncode


def test_all_well_is_a_map_a_table_and_exit_0(tmp_path: Path) -> None:
    ssh = stub_ssh(tmp_path)
    done = installed("--hosts", "gpu[1-3]", "--ssh", ssh, "-o", tmp_path / "map.json")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "3 nodes, 24 GPUs, 1 shape"
    assert lines[-2:] == ["hosts     count  outcome  detail", "gpu[1-3]      3  ok"]
    assert [n.host for n in load_fleet(tmp_path / "map.json").nodes] == ["gpu1", "gpu2", "gpu3"]


def test_some_missing_is_exit_3_with_every_reason(tmp_path: Path) -> None:
    ssh = stub_ssh(tmp_path, gpu4=REFUSED, gpu5=REFUSED, gpu6=FOR_EVER, gpu7="exit 1")
    words = ["--hosts", "gpu[1-9]", "-x", "gpu[8-9]", "--ssh", ssh, "--deadline", "3s"]
    done = ran(*words)
    assert done.code == 3
    assert done.out.splitlines()[-5:] == [
        "hosts     count  outcome    detail",
        "gpu[1-3]      3  ok",
        "gpu[4-5]      2  refused    Connection refused",
        "gpu7          1  died       exit status 1",
        "gpu6          1  timed_out  no answer within 3 s",
    ]


def test_json_is_one_document(tmp_path: Path) -> None:
    found = document("--hosts", "gpu[1-2]", "--ssh", stub_ssh(tmp_path, gpu2=REFUSED))
    assert (found["kind"], found["schema_version"]) == ("gathering", 1)
    assert found["summary"]["text"] == "gpu1 ok, gpu2 refused (Connection refused)"
    assert found["map"] == {"nodes": 1, "gpus": 8, "shapes": 1, "conflicts": 0}
    assert found["failures"] == [
        {"host": "gpu2", "reason": "refused", "detail": "Connection refused"}
    ]


def test_nothing_collected_is_exit_4_and_no_map(tmp_path: Path) -> None:
    ssh = stub_ssh(tmp_path, gpu1=REFUSED)
    done = ran("--hosts", "gpu1", "--ssh", ssh, "-o", tmp_path / "map.json")
    assert done.code == 4
    assert done.out.splitlines() == [
        "hosts  count  outcome  detail",
        "gpu1       1  refused  Connection refused",
    ]
    assert not (tmp_path / "map.json").exists()


def test_the_map_on_stdout_leaves_the_talk_to_stderr(tmp_path: Path) -> None:
    ssh = stub_ssh(tmp_path, gpu2=REFUSED)
    done = ran("--hosts", "gpu[1-2]", "--ssh", ssh, "-o", "-")
    assert json.loads(done.out)["kind"] == "fleet_map"
    assert done.err == "gpu1 ok, gpu2 refused (Connection refused)\n"


def test_hosts_come_from_stdin_too(tmp_path: Path) -> None:
    done = ran("--hostfile", "-", "--ssh", stub_ssh(tmp_path), stdin=b"gpu[1-2] # two\n")
    assert done.out.splitlines()[-1] == "gpu[1-2]      2  ok"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "nobody to ask; give one of --hosts, --hostfile, --srun, --spool or --agents"),
        ("--hosts a --spool .", "--hosts and --spool exclude each other"),
        ("--srun --agents http://a", "--srun and --agents exclude each other"),
        ("--srun", "--srun: no hosts, and not inside an allocation; name --hosts"),
        ("--hosts a[1-", "--hosts: character 2: '[' without ']'"),
        ("--hosts -oProxyCommand=x", "'-oProxyCommand=x' is no host name"),
        ("--hosts a --ssh no-such-ssh", "'no-such-ssh' is no program here"),
        ("--hosts a --ssh 'ssh", "cannot be split"),
        ("--hosts a --token-file x", "--token-file goes with --agents"),
        ("--spool . --ssh-option x=y", "--ssh-option goes with --hosts"),
        ("--hosts a --resume", "--resume goes with --keep DIR"),
        ("--hosts a --deadline 0s", "--deadline: '0s' is no time to wait"),
        ("--hosts a --deadline 20", "'20' has no known unit"),
        ("--hosts a --parallel 0", "'--parallel': Input should be greater than or equal to 1"),
        ("--spool no-such-folder", "no-such-folder: cannot be read"),
        ("--agents gpu1", "'gpu1' is no agent's URL"),
        ("--agents https://a --ca-file no-such-file", "no certificates"),
    ],
)
def test_wrong_usage_is_told_before_anybody_is_asked(words: str, message: str) -> None:
    done = ran(*words.split())
    assert message in done.err
    assert (done.code, done.out) == (2, "")


def test_an_error_is_one_line_and_exit_2() -> None:
    done = installed("--hosts", "a[1-")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line == (
        "error: --hosts: character 2: '[' without ']'; "
        "close each bracket once, and put none inside another"
    )


@pytest.mark.proof
def test_killed_at_any_moment_no_snapshot_is_lost(tmp_path: Path) -> None:
    spool, keep, out = tmp_path / "spool", tmp_path / "keep", tmp_path / "map.json"
    files = spool_of(spool, FILES)
    words: list[str | Path] = ["--spool", spool, "--keep", keep, "--resume", "-o", out]
    chance, before = random.Random(7), 0
    for _ in range(KILLS):
        more = before + chance.randint(0, 2 * FILES // KILLS)
        killed(words, lambda: keep.exists() and len(os.listdir(keep)) > more, signal.SIGKILL)  # noqa: B023
        kept = kept_in(keep) if keep.exists() else {}
        assert len(kept) >= before
        assert all(
            files[name.removesuffix(".json.gz")] == content for name, content in kept.items()
        )
        assert not out.exists() or len(load_fleet(out).nodes) == FILES
        before = len(kept)
    assert {p.name.partition(".")[0]: p.read_bytes() for p in spool.iterdir()} == files
    assert ran(*words).code == 3  # none of them says when it was read
    assert [node.host for node in load_fleet(out).nodes] == sorted(files)


def test_a_sweep_that_was_killed_goes_on_with_those_it_has_not(tmp_path: Path) -> None:
    ssh = stub_ssh(tmp_path, slow=FOR_EVER)
    keep = tmp_path / "keep"
    words: list[str | Path] = ["--hosts", "gpu[1-4],slow", "--ssh", ssh, "--keep", keep, *PATIENT]
    code = killed(words, lambda: keep.exists() and len(kept_in(keep)) == 4, signal.SIGKILL)
    assert code == -signal.SIGKILL
    (tmp_path / "asked").unlink()
    stub_ssh(tmp_path)
    found = document(*words, "--resume")
    assert found["summary"]["text"] == "gpu[1-4],slow ok"
    assert (tmp_path / "asked").read_text().split() == ["slow"]


@pytest.mark.parametrize(
    ("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_sweep_with_its_processes_and_keeps_what_came(
    tmp_path: Path, sign: signal.Signals, code: int
) -> None:
    keep, pid = tmp_path / "keep", tmp_path / "pid"
    ssh = stub_ssh(tmp_path, slow=f"echo $$ >{pid}; {FOR_EVER}")
    words: list[str | Path] = ["--hosts", "gpu[1-2],slow", "--ssh", ssh, "--keep", keep, *PATIENT]

    def is_halfway() -> bool:
        return pid.exists() and keep.exists() and len(kept_in(keep)) == 2

    assert killed(words, is_halfway, sign) == code
    assert is_gone_soon(int(pid.read_text()))
    assert len(kept_in(keep)) == 2


def test_an_interrupted_sweep_says_how_to_go_on(tmp_path: Path) -> None:
    ssh = stub_ssh(tmp_path, slow=FOR_EVER)
    words = ["--hosts", "slow", "--ssh", ssh, "--keep", tmp_path / "keep", *PATIENT]
    with subprocess.Popen(command(*words), stderr=subprocess.PIPE, text=True) as run:
        assert becomes_true(lambda: (tmp_path / "asked").exists())
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=30)
    assert said == f"interrupted; what came is in {tmp_path}/keep, go on with --resume\n"

import gzip
import json
import os
import random
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from fleet.agent.board import snapshot_bytes
from tests.fleet.agent.certificates import Certificates, made_certificates
from tests.fleet.agent.nodes import busy_node, faulty_node
from tests.fleet.agent.running import PATIENCE_S, PROGRAM, RunningAgent, agent, ask, written_plan
from tests.fleet.agent.test_metrics import parsed, value

TOKEN = "0123456789abcdef0123456789abcdef"
FAILS = {"raise": "the driver says no"}
HANGS = {"hang_s": 3600}
OFTEN = "--interval=100ms"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return made_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


def tls_arguments(certificates: Certificates) -> list[str]:
    """The options of an agent that has a certificate."""
    return [
        f"--tls-cert={certificates.path('server.pem')}",
        f"--tls-key={certificates.path('server.key')}",
    ]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_it_reads_serves_and_tells_its_numbers(tmp_path: Path) -> None:
    with agent(tmp_path, busy_node()) as one:
        one.wait_until_ready()
        got = one.get("/snapshot")
        assert got.body == snapshot_bytes(busy_node())
        assert one.get("/snapshot", {"If-None-Match": got.headers["etag"]}).status == 304
        packed = one.get("/snapshot", {"Accept-Encoding": "gzip"})
        assert gzip.decompress(packed.body) == got.body
        metrics = one.get("/metrics").text
        assert value(metrics, "fleetmap_up") == 1
        assert value(metrics, "fleetmap_gpu_power_watts", gpu="7") == 512.25
        assert one.get("/else").status == 404
        assert one.get("/snapshot", method="POST").status == 405


def test_the_last_good_snapshot_outlives_readings_that_fail(tmp_path: Path) -> None:
    with agent(tmp_path, busy_node(), FAILS, {"bug": "oops"}, FAILS, arguments=[OFTEN]) as one:
        one.wait_for("oops")
        assert one.get("/snapshot").body == snapshot_bytes(busy_node())
        page = one.get("/metrics").text
        assert value(page, "fleetmap_up") == 0
        assert (value(page, "fleetmap_readings_total", result="failed") or 0) >= 2


def test_without_a_good_reading_for_three_intervals_it_is_not_ready_and_shows_no_gpu(
    tmp_path: Path,
) -> None:
    with agent(tmp_path, busy_node(), FAILS, arguments=[OFTEN]) as one:
        one.wait_for("driver says no")
        until = time.monotonic() + PATIENCE_S
        while one.get("/-/ready").status == 200:
            assert time.monotonic() < until
        assert "s old, more than 0.3 s" in one.get("/-/ready").text
        page = one.get("/metrics").text
        assert "fleetmap_gpu_power_watts" not in page
        assert (value(page, "fleetmap_last_reading_age_seconds") or 0) > 0.3
        assert one.get("/-/live").status == 200
        assert one.get("/snapshot").status == 200


def test_a_failure_again_and_again_is_one_line_of_log(tmp_path: Path) -> None:
    with agent(tmp_path, FAILS, arguments=[OFTEN]) as one:
        until = time.monotonic() + PATIENCE_S
        while (
            value(one.get("/metrics").text, "fleetmap_readings_total", result="failed") or 0
        ) < 5:
            assert time.monotonic() < until
        assert one.said().count("the driver says no") == 1
        assert "Traceback" not in one.said()


def test_while_the_reader_hangs_everything_is_still_answered(tmp_path: Path) -> None:
    with agent(tmp_path, busy_node(), HANGS, arguments=[OFTEN]) as one:
        one.wait_for("GPUs, read in")
        until = time.monotonic() + PATIENCE_S
        while (value(one.get("/metrics").text, "fleetmap_reading_running_seconds") or 0) < 0.5:
            assert time.monotonic() < until
        assert one.get("/snapshot").body == snapshot_bytes(busy_node())
        assert one.get("/-/live").status == 200
        assert one.get("/-/ready").status == 503
        assert one.end() == 0


def test_a_snapshot_with_faults_is_served_and_its_faults_are_numbers(tmp_path: Path) -> None:
    with agent(tmp_path, faulty_node()) as one:
        one.wait_until_ready()
        page = one.get("/metrics").text
        assert value(page, "fleetmap_device_fault", device="gpu3", reason="gpu_lost") == 1
        assert "gpu3 gpu_lost" in one.said()


def test_every_page_of_metrics_is_one_that_prometheus_reads(tmp_path: Path) -> None:
    with agent(tmp_path, busy_node(), FAILS, arguments=[OFTEN]) as one:
        for _ in range(20):
            assert "fleetmap_up" in parsed(one.get("/metrics").text)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("step", [busy_node(gpus=1), HANGS], ids=["at rest", "in a hung reading"])
def test_a_signal_ends_it_cleanly(
    tmp_path: Path, number: signal.Signals, status: int, step: object
) -> None:
    with agent(tmp_path, step) as one, one.connect() as client:
        assert ask(client, "/-/live").status == 200
        assert one.end(number) == status
        assert client.recv(1) == b""
        assert one.closed.exists()
        assert "Traceback" not in one.said()


def test_an_answer_on_its_way_is_finished_before_it_ends(tmp_path: Path) -> None:
    with agent(tmp_path, busy_node()) as one, one.connect() as client:
        one.wait_until_ready()
        client.sendall(b"GET /snapshot HTTP/1.1\r\n\r\n" * 4)
        came = client.recv(1)
        one.process.send_signal(signal.SIGTERM)
        while piece := client.recv(65536):
            came += piece
        assert one.process.wait(PATIENCE_S) == 0
    assert snapshot_bytes(busy_node()) in came


def test_a_unix_socket_is_served_and_taken_away_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with agent(tmp_path, busy_node(), arguments=[f"--listen=unix:{path}"]) as one:
        one.wait_until_ready()
        assert one.get("/snapshot").body == snapshot_bytes(busy_node())
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert one.end() == 0
    assert not path.exists()


def test_the_spool_holds_the_last_good_snapshot(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    with agent(tmp_path, busy_node(), FAILS, arguments=[OFTEN, f"--spool={folder}"]) as one:
        one.wait_for("driver says no")
        assert one.end() == 0
    assert os.listdir(folder) == ["node1.snapshot.json"]
    assert (folder / "node1.snapshot.json").read_bytes() == snapshot_bytes(busy_node())


def test_a_spool_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    arguments = [OFTEN, f"--spool={tmp_path / 'none'}"]
    with agent(tmp_path, busy_node(), arguments=arguments) as one:
        one.wait_for("spool: ")
        until = time.monotonic() + PATIENCE_S
        while True:
            page = one.get("/metrics").text
            if (value(page, "fleetmap_spool_writes_total", result="failed") or 0) >= 3:
                break
            assert time.monotonic() < until
        assert (value(page, "fleetmap_readings_total", result="good") or 0) >= 1
        assert value(page, "fleetmap_readings_total", result="failed") == 0
        assert one.get("/snapshot").body == snapshot_bytes(busy_node())
        assert one.said().count("cannot be written") == 1


@pytest.mark.proof
def test_an_agent_killed_at_any_moment_leaves_only_whole_snapshots(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    path, rng = folder / "node1.snapshot.json", random.Random(4)
    steps = (busy_node(gpus=1), busy_node(gpus=8), {"cycle": True})
    contents = [snapshot_bytes(busy_node(gpus=gpus)) for gpus in (1, 8)]
    for _ in range(5):
        with agent(tmp_path, *steps, arguments=[OFTEN, f"--spool={folder}"]) as one:
            one.wait_for("GPU, read in")
            time.sleep(rng.uniform(0, 0.3))
            one.process.kill()
            one.process.wait()
        assert not path.exists() or path.read_bytes() in contents
        assert set(os.listdir(folder)) <= {path.name, f".{path.name}.part"}
    assert path.exists()


def test_a_hundred_readers_get_whole_snapshots_while_they_change(tmp_path: Path) -> None:
    nodes = (busy_node(gpus=2), busy_node(gpus=8), busy_node(gpus=5))
    contents = {snapshot_bytes(node) for node in nodes}
    seen: set[bytes] = set()
    wrong: list[object] = []

    def read(one: RunningAgent) -> None:
        with one.connect() as client:
            for _ in range(10):
                got = ask(client, "/snapshot")
                seen.add(got.body)
                if got.status != 200 or got.body not in contents:
                    wrong.append(got)

    with agent(tmp_path, *nodes, {"cycle": True}, arguments=[OFTEN, "--jitter=0%"]) as one:
        one.wait_for("GPUs, read in")
        until = time.monotonic() + PATIENCE_S
        while len(seen) < 2 and time.monotonic() < until:
            threads = [threading.Thread(target=read, args=(one,)) for _ in range(100)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert wrong == []
    assert len(seen) >= 2


def test_a_wrong_token_gets_nothing_and_the_right_one_all(tmp_path: Path, token_file: Path) -> None:
    arguments = [f"--token-file={token_file}"]
    with agent(tmp_path, busy_node(), arguments=arguments) as one:
        one.wait_until_ready()
        for path in ("/snapshot", "/metrics"):
            assert one.get(path).status == 401
            assert one.get(path, bearer("x" * 32)).status == 401
            assert one.get(path, bearer(TOKEN)).status == 200
        assert one.get("/-/live").status == 200
        assert TOKEN not in one.said()


def test_after_sighup_the_new_token_counts_and_a_bad_file_changes_nothing(
    tmp_path: Path, token_file: Path
) -> None:
    arguments = [f"--token-file={token_file}"]
    with agent(tmp_path, busy_node(), arguments=arguments) as one:
        one.wait_until_ready()
        token_file.write_text("n" * 32)
        one.process.send_signal(signal.SIGHUP)
        one.wait_for("read again")
        assert one.get("/metrics", bearer(TOKEN)).status == 401
        assert one.get("/metrics", bearer("n" * 32)).status == 200
        token_file.write_text("")
        one.process.send_signal(signal.SIGHUP)
        one.wait_for("the old ones stay")
        assert one.get("/metrics", bearer("n" * 32)).status == 200


def test_tls_is_served_to_those_who_trust_the_authority(
    tmp_path: Path, certificates: Certificates
) -> None:
    arguments = tls_arguments(certificates)
    trusts = certificates.client()
    with agent(tmp_path, busy_node(), arguments=arguments) as one:
        assert one.address.startswith("https://")
        one.wait_until_ready(trusts)
        with one.connect(trusts) as client:
            for _ in range(3):
                assert ask(client, "/snapshot").body == snapshot_bytes(busy_node())
        with pytest.raises(ssl.SSLError):
            one.get("/-/live", tls=ssl.create_default_context())
        with one.connect() as plain, suppress(ConnectionResetError):
            plain.sendall(b"GET /-/live HTTP/1.1\r\n\r\n")
            assert b"live" not in plain.recv(4096)
        assert one.get("/-/live", tls=trusts).status == 200
        assert one.end() == 0


def test_with_a_client_authority_only_its_clients_are_served(
    tmp_path: Path, certificates: Certificates
) -> None:
    arguments = [*tls_arguments(certificates), f"--client-ca={certificates.path('ca.pem')}"]
    with agent(tmp_path, busy_node(), arguments=arguments) as one:
        known = certificates.client(shows="client")
        one.wait_until_ready(known)
        assert one.get("/snapshot", tls=known).status == 200
        for strange in (certificates.client(), certificates.client(shows="other")):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                one.get("/-/live", tls=strange)
        assert one.get("/-/live", tls=known).status == 200


def test_clients_that_stop_in_the_handshake_hold_nobody_up(
    tmp_path: Path, certificates: Certificates
) -> None:
    arguments = tls_arguments(certificates)
    trusts = certificates.client()
    with agent(tmp_path, busy_node(gpus=1), arguments=arguments) as one:
        silent = [one.connect() for _ in range(50)]
        for client in silent[::2]:
            client.sendall(b"\x16\x03\x01")
        assert one.get("/-/live", tls=trusts).status == 200
        for client in silent:
            client.close()


def refused(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The agent that does not even begin."""
    plan = written_plan(folder, [FAILS])
    command = [sys.executable, str(PROGRAM), str(plan), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def test_what_cannot_be_begun_is_one_line_and_exit_status_2(
    tmp_path: Path, token_file: Path
) -> None:
    token_file.chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for arguments, part in (
            (["--listen=0.0.0.0:0"], "asks nobody who they are"),
            ([f"--token-file={token_file}"], "chmod 0600"),
            ([f"--listen=127.0.0.1:{taken.getsockname()[1]}"], "cannot listen there"),
            ([f"--listen=unix:{token_file}"], "is no socket"),
            (["--interval=never"], "error: 'never'"),
            (["--nonsense=1"], "no option"),
        ):
            done = refused(tmp_path, *arguments)
            assert (done.returncode, done.stdout) == (2, "")
            assert part in done.stderr
            assert done.stderr.startswith("error: ")
            assert done.stderr.count("\n") == 1


def test_insecure_is_served_and_a_token_in_clear_text_is_said(
    tmp_path: Path, token_file: Path
) -> None:
    with agent(tmp_path, busy_node(), arguments=["--listen=0.0.0.0:0", "--insecure=yes"]) as one:
        assert one.get("/-/live").status == 200
    arguments = ["--listen=0.0.0.0:0", f"--token-file={token_file}"]
    with agent(tmp_path, busy_node(), arguments=arguments) as one:
        one.wait_for("in clear text")


def test_systemd_hears_that_it_is_ready_alive_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(PATIENCE_S)
        environment = {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "300000"}
        with agent(tmp_path, HANGS, environment=environment) as one:
            assert manager.recv(100) == b"READY=1"
            assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            one.process.send_signal(signal.SIGTERM)
            heard = b""
            while heard != b"STOPPING=1":
                heard = manager.recv(100)
            assert one.process.wait(PATIENCE_S) == 0


def test_without_a_watchdog_it_sends_no_beats(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(PATIENCE_S)
        environment = {**os.environ, "NOTIFY_SOCKET": str(path)}
        with agent(tmp_path, busy_node(), environment=environment) as one:
            one.wait_until_ready()
            assert one.end() == 0
        assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"STOPPING=1"]


def test_the_agents_process_loads_no_package_of_the_command_line() -> None:
    code = (
        "import sys, fleet.agent.run, json; "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert loaded.isdisjoint({"typer", "click", "rich", "numpy", "networkx", "yaml", "asyncio"})
    assert loaded.isdisjoint({"ssl", "http", "pynvml", "matplotlib"})
    assert "pydantic" in loaded

"""The agent as a process of its own with a recorded reader, and clients to ask it."""

import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fleet.model import NodeSnapshot
from fleet.store import bytes_from_document

PROGRAM = Path(__file__).parent / "recorded.py"
BECOME = (
    "import json, sys; from fleet.agent.launch import become_agent; "
    "become_agent(json.loads(sys.argv[1]))"
)
PATIENCE_S = 30.0
"""Nothing here takes so long; a test that waits for it has failed."""


@dataclass(frozen=True)
class Got:
    """A reply."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class RunningAgent:
    """An agent's process, where it listens and what it has said."""

    process: subprocess.Popen[bytes]
    log: Path
    closed: Path
    address: str = ""

    def said(self) -> str:
        return self.log.read_text()

    def children(self) -> list[int]:
        """Process numbers of what its threads have started."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(word) for task in tasks for word in (task / "children").read_text().split()]

    def wait_for(self, text: str) -> str:
        """Everything said, once a text is there."""
        until = time.monotonic() + PATIENCE_S
        while text not in self.said():
            if self.process.poll() is not None and text not in self.said():
                raise AssertionError(f"the agent ended and said {self.said()!r}")
            assert time.monotonic() < until, f"{text!r} never came in {self.said()!r}"
            time.sleep(0.005)
        return self.said()

    def connect(self, tls: ssl.SSLContext | None = None) -> socket.socket:
        """A client's socket."""
        if self.address.startswith("unix:"):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.settimeout(PATIENCE_S)
            client.connect(self.address.removeprefix("unix:"))
            return client
        host, _, port = self.address.partition("//")[2].rpartition(":")
        client = socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S)
        return client if tls is None else tls.wrap_socket(client, server_hostname="localhost")

    def get(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        tls: ssl.SSLContext | None = None,
    ) -> Got:
        """One request on a connection of its own."""
        with self.connect(tls) as client:
            return ask(client, path, headers, method=method)

    def wait_until_ready(self, tls: ssl.SSLContext | None = None) -> None:
        """Until the first good reading."""
        until = time.monotonic() + PATIENCE_S
        while self.get("/-/ready", tls=tls).status != 200:
            assert time.monotonic() < until, self.said()
            time.sleep(0.01)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def ask(
    client: socket.socket,
    path: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
) -> Got:
    """One request on an open connection."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = client
    connection.request(method, path, headers=dict(headers or {}))
    with connection.getresponse() as reply:
        return Got(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())


def written_plan(folder: Path, steps: Sequence[object]) -> Path:
    """A plan for the recorded reader; a snapshot in it is written to a file."""
    told = []
    for i, step in enumerate(steps):
        if isinstance(step, NodeSnapshot):
            file = folder / f"step{i}.snapshot.json"
            file.write_bytes(bytes_from_document(step))
            step = {"snapshot": str(file)}
        told.append(step)
    plan = folder / "plan.json"
    plan.write_text(json.dumps(told))
    return plan


@contextmanager
def agent(
    folder: Path,
    *steps: object,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[RunningAgent]:
    """An agent that replays a plan; it is killed at the end where it still runs."""
    plan = written_plan(folder, steps)
    listen = () if any(a.startswith("--listen") for a in arguments) else ("--listen=127.0.0.1:0",)
    command = [sys.executable, str(PROGRAM), str(plan), *listen, *arguments]
    with _running(command, folder, environment) as one:
        yield one


@contextmanager
def agent_of_this_node(
    folder: Path, environment: Mapping[str, str], **options: str
) -> Iterator[RunningAgent]:
    """The agent as ``fleet agent`` becomes it, with the reader of this node."""
    told = json.dumps({"listen": "127.0.0.1:0", **options})
    with _running([sys.executable, "-c", BECOME, told], folder, environment) as one:
        yield one


@contextmanager
def _running(
    command: list[str], folder: Path, environment: Mapping[str, str] | None
) -> Iterator[RunningAgent]:
    log = folder / "agent.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command, stderr=stderr, stdout=subprocess.DEVNULL, env=environment
        )
    one = RunningAgent(process, log, folder / "plan.closed")
    try:
        where = re.search(r"listening on (\S+)", one.wait_for("listening on"))
        assert where is not None
        one.address = where[1]
        yield one
    finally:
        process.kill()
        process.wait()

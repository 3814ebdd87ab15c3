"""A real sshd on loopback and a real one-node Slurm, each in a folder of its own."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fleet.gather.far import fake_nvidia_smi, script, tools

WAIT_S = 20.0
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(
    *command: str | Path, log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that is stopped at the end."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
            env={**os.environ, **environment},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)


def becomes_true(question: Callable[[], bool]) -> bool:
    """Whether something is so before long."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        if question():
            return True
        time.sleep(0.05)
    return question()


def listens(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Sshd:
    """Hosts that are all this machine, by names of the client's configuration."""

    folder: Path

    @property
    def ssh(self) -> tuple[str, ...]:
        """The client's command line."""
        return ("ssh", "-F", str(self.folder / "ssh_config"))


LOGIN = """
case $FLEETMAP_FAR in
noisy)
    printf 'Welcome!\\nlast login: never\\n@fleetmap-reading nonsense\\nno newline here' ;;
hung) exec sleep 20 ;;
small) PATH={small}; export PATH ;;
bare) PATH={bare}; export PATH ;;
closing) echo 'This account is currently not available.'; exit 1 ;;
esac
exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """OpenSSH's server as the current user, with keys, settings and a login shell of its own."""
    if SSHD is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("OpenSSH's server or client is not installed")
    folder = tmp_path_factory.mktemp("sshd")
    port, closed, silent = free_port(), free_port(), socket.create_server(("127.0.0.1", 0))
    for key in ("host", "user", "other"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True
        )
    _write_login(folder)
    _write_server(folder, port)
    _write_client(folder, port=port, closed=closed, silent=silent.getsockname()[1])
    with (
        _empty_folder_for_root(),
        running(SSHD, "-D", "-e", "-f", folder / "sshd_config", log=folder / "log"),
    ):
        if not becomes_true(lambda: listens(port)):
            pytest.skip(f"sshd does not start here: {(folder / 'log').read_text()[-200:]}")
        if not _lets_us_in(folder):
            pytest.skip(f"sshd lets nobody in here: {(folder / 'log').read_text()[-200:]}")
        yield Sshd(folder)
    silent.close()


@contextmanager
def _empty_folder_for_root() -> Iterator[None]:
    """A server of root's wants this folder, whatever else it is told."""
    place = Path("/run/sshd")
    is_ours = os.getuid() == 0 and not place.exists()
    if is_ours:
        place.mkdir(exist_ok=True)
    try:
        yield
    finally:
        if is_ours:
            with suppress(OSError):
                place.rmdir()


def _write_login(folder: Path) -> None:
    small, bare = tools(folder / "small"), tools(folder / "bare")
    fake_nvidia_smi(small)
    (small / "uname").unlink()
    script(small / "uname", "echo small-node")
    script(folder / "login", LOGIN.format(small=small, bare=bare))


def _write_server(folder: Path, port: int) -> None:
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPidFile {folder}/pid\n"
        "StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "UsePAM no\nPermitRootLogin yes\nPrintMotd no\nMaxStartups 100\n"
        f"AcceptEnv FLEETMAP_FAR\nForceCommand {folder}/login\n"
    )


def _write_client(folder: Path, *, port: int, closed: int, silent: int) -> None:
    def known(name: str, key: str) -> None:
        public = " ".join((folder / f"{key}.pub").read_text().split()[:2])
        (folder / name).write_text(f"node {public}\n")

    known("known", "host")
    known("changed", "other")
    (folder / "nobody").write_text("")
    special = {
        "wrongkey": f"IdentityFile {folder}/other",
        "changed": f"UserKnownHostsFile {folder}/changed",
        "stranger": f"UserKnownHostsFile {folder}/nobody",
        "closed": f"Port {closed}",
        "silent": f"Port {silent}",
        "nowhere": "HostName nowhere.invalid",
    }
    alike = {name: f"SetEnv FLEETMAP_FAR={name}" for name in FAR_SIDES}
    hosts = "".join(f"Host {name}\n  {line}\n" for name, line in (special | alike).items())
    (folder / "ssh_config").write_text(
        f"{hosts}Host *\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
        "  HostKeyAlias node\n  IdentitiesOnly yes\n"
        f"  IdentityAgent none\n  UserKnownHostsFile {folder}/known\n"
        "  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
        "  CheckHostIP no\n"
        f"Host * !wrongkey\n  IdentityFile {folder}/user\n"
    )


FAR_SIDES = ("good", "noisy", "hung", "small", "bare", "closing")


def _lets_us_in(folder: Path) -> bool:
    done = subprocess.run(
        ["ssh", "-F", folder / "ssh_config", "-o", "BatchMode=yes", "good", "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    return done.returncode == 0


@dataclass(frozen=True)
class Slurm:
    """A cluster of one node, this machine."""

    folder: Path
    node: str

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's commands need to find it."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}


SLURM_CONF = """
ClusterName=fleetmap
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
NodeName={node} NodeAddr=127.0.0.1 CPUs=1 State=UNKNOWN
NodeName=absent NodeAddr=127.0.0.1 Port={nobody} CPUs=1 State=DOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Slurm's controller and daemon with a munge of their own; root alone may start them."""
    if os.getuid() != 0:
        pytest.skip("Slurm's daemon can be started by root alone")
    missing = [n for n in ("munged", "slurmctld", "slurmd", "srun") if shutil.which(n) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("slurmd")
    cluster = Slurm(folder, socket.gethostname().partition(".")[0])
    _write_slurm(cluster)
    conf, log = cluster.environment, folder / "log"
    with (
        running(*_munged(folder), log=folder / "munge.log"),
        running("slurmctld", "-D", log=log, **conf),
        running("slurmd", "-D", log=folder / "slurmd.log", **conf),
    ):
        if not becomes_true(lambda: _is_idle(cluster)):
            pytest.skip(f"Slurm does not start here: {log.read_text()[-200:]}")
        yield cluster


def _write_slurm(cluster: Slurm) -> None:
    for name in ("state", "spool"):
        (cluster.folder / name).mkdir()
    key = cluster.folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    (cluster.folder / "slurm.conf").write_text(
        SLURM_CONF.format(
            node=cluster.node,
            folder=cluster.folder,
            controller=free_port(),
            daemon=free_port(),
            nobody=free_port(),
        )
    )


def _munged(folder: Path) -> list[str]:
    names = {"key": "key", "socket": "socket", "pid": "pid", "log": "said", "seed": "seed"}
    files = [f"--{name}-file={folder}/munge.{end}" for name, end in names.items()]
    return ["munged", "-F", "--force", *(f.replace("socket-file", "socket") for f in files)]


def _is_idle(cluster: Slurm) -> bool:
    done = subprocess.run(
        ["sinfo", "--noheader", f"--nodes={cluster.node}", "--format=%T"],
        capture_output=True,
        env={**os.environ, **cluster.environment},
        timeout=WAIT_S,
        check=False,
    )
    return done.stdout.strip() == b"idle"

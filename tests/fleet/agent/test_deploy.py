import copy
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from fleet.agent.addresses import TcpAddress
from fleet.agent.settings import AgentSettings, settings_from_arguments
from tests.fleet.agent.kubernetes import Container, DaemonSet, daemon_set
from tests.fleet.agent.test_settings import agent_options

DEPLOY = Path(__file__).resolve().parents[3] / "samples" / "deploy"
UNIT = DEPLOY / "fleetmap-agent.service"
DAEMON_SET = DEPLOY / "daemonset.yaml"
MOST_EXPOSED = 20
"""Tenths of systemd's level of exposure: 0 is none, 100 all."""


def directives(text: str) -> dict[str, list[str]]:
    """Values of a unit by directive; one may stand several times."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            found.setdefault(name, []).append(value)
    return found


def settings_of(words: list[str]) -> AgentSettings:
    """Settings of ``fleet agent`` with these arguments, ``--name value`` or ``--name=value``."""
    joined = re.sub(r"(--[a-z-]+) (?!--)", r"\1=", " ".join(words))
    return settings_from_arguments(joined.split())


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", text))


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with the program where it is in this environment."""
    program = Path(sys.executable).with_name("fleet")
    copied = tmp_path / UNIT.name
    copied.write_text(UNIT.read_text().replace("/usr/bin/fleet", str(program)))
    return copied


def systemd_analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    command = ["systemd-analyze", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path) -> None:
    done = systemd_analyze("verify", "--man=no", unit)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_does_find_a_misspelt_directive(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("ProtectHome=", "ProtectHouse="))
    done = systemd_analyze("verify", "--man=no", unit)
    assert "ProtectHouse" in done.stderr


def test_systemd_finds_the_unit_little_exposed(unit: Path) -> None:
    done = systemd_analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", unit)
    if "unrecognized option" in done.stderr or "Unknown" in done.stderr:
        pytest.skip(f"this systemd cannot tell: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout[-300:]


def test_systemd_finds_a_unit_without_those_lines_exposed(unit: Path) -> None:
    kept = [
        line
        for line in unit.read_text().splitlines()
        if not re.match(r"[A-Z]\w+=(yes|~?@|$)", line)
    ]
    unit.write_text("\n".join(kept))
    done = systemd_analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", unit)
    assert done.returncode != 0


def test_the_unit_starts_an_agent_for_this_machine_only() -> None:
    found = directives(UNIT.read_text())
    program, command, *arguments = shlex.split(found["ExecStart"][0])
    assert (program, command) == ("/usr/bin/fleet", "agent")
    settings = settings_of(arguments)
    assert isinstance(settings.listen, TcpAddress)
    assert settings.listen.is_loopback
    assert settings.spool == f"/var/lib/{found['StateDirectory'][0]}"
    assert found["IPAddressDeny"] == ["any"]


def test_the_unit_lets_the_agent_do_what_it_has_to() -> None:
    found = directives(UNIT.read_text())
    assert found["Type"] == ["notify"]
    assert found["DeviceAllow"] == ["char-nvidia* rw"]
    assert found["PrivateDevices"] == ["no"]
    # These would hide /proc/driver/nvidia and the processes that hold a GPU, or break ctypes.
    assert found.keys().isdisjoint({"ProtectProc", "ProcSubset", "MemoryDenyWriteExecute"})


@pytest.mark.parametrize("path", [UNIT, DAEMON_SET], ids=lambda path: path.name)
def test_every_option_that_is_named_is_one_of_the_agents(path: Path) -> None:
    foreign = {"now", "from-literal"}  # systemctl's and kubectl's, in the comments
    named = options_in(path.read_text()) - foreign
    assert named
    assert named <= set(agent_options())


def document() -> Any:
    return yaml.safe_load(DAEMON_SET.read_text())


def loaded() -> tuple[DaemonSet, Container]:
    found = daemon_set(document())
    [container] = found.spec.template.spec.containers
    return found, container


def test_the_daemon_set_is_one() -> None:
    found, container = loaded()
    assert found.metadata.name == container_name(container)


def container_name(container: Container) -> str:
    """The name the image and its command stand for."""
    return f"fleetmap-{container.command[1]}"


def test_the_daemon_set_starts_an_agent_that_asks_for_a_token() -> None:
    found, container = loaded()
    assert container.command == ["fleet", "agent"]
    arguments = [word.replace("$(NODE_NAME)", "node-1") for word in container.args]
    settings = settings_of(arguments)
    assert settings.host == "node-1"
    assert isinstance(settings.listen, TcpAddress)
    assert [port.container_port for port in container.ports] == [settings.listen.port]
    mounts = {mount.name: mount for mount in container.volume_mounts}
    assert settings.token_file == f"{mounts['token'].mount_path}/token"
    assert mounts["token"].read_only
    assert settings.spool == mounts["spool"].mount_path
    assert not mounts["spool"].read_only
    volumes = {volume.name: volume for volume in found.spec.template.spec.volumes}
    assert volumes["spool"].host_path is not None
    secret = volumes["token"].secret
    assert secret is not None
    assert secret.default_mode & 0o027 == 0


def test_the_probes_ask_the_pages_that_are_open() -> None:
    _, container = loaded()
    probes = (container.readiness_probe, container.liveness_probe)
    assert [probe.http_get.path for probe in probes] == ["/-/ready", "/-/live"]
    assert container.readiness_probe.timeout_seconds < container.readiness_probe.period_seconds


def test_the_container_has_no_right_it_does_not_need() -> None:
    found, container = loaded()
    pod, security = found.spec.template.spec, container.security_context
    assert not pod.host_network
    assert not pod.host_pid
    assert not pod.automount_service_account_token
    assert pod.security_context.seccomp_profile.type == "RuntimeDefault"
    assert (security.privileged, security.allow_privilege_escalation) == (False, False)
    assert security.read_only_root_filesystem
    assert security.capabilities.drop == ["ALL"]


def test_it_runs_on_gpu_nodes_and_takes_no_gpu() -> None:
    found, container = loaded()
    pod = found.spec.template.spec
    assert {toleration.key for toleration in pod.tolerations} >= {"nvidia.com/gpu"}
    assert pod.node_selector == {"nvidia.com/gpu.present": "true"}
    variables = {variable.name: variable.value for variable in container.env}
    assert variables["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert variables["NVIDIA_DRIVER_CAPABILITIES"] == "utility"
    assert set(container.resources.limits) == {"cpu", "memory"}


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        (("spec", "replicas"), 3, "replicas"),
        (("spec", "selector", "matchLabels"), {"app": "other"}, "does not find"),
        (("spec", "template", "spec", "hostnetwork"), True, "hostnetwork"),
        (("spec", "template", "spec", "containers", 0, "volumeMounts", 0, "name"), "x", "volume x"),
        (("spec", "template", "spec", "containers", 0, "ports", 0, "name"), "web", "no port http"),
        (("spec", "template", "spec", "containers", 0, "env"), [], "no variable NODE_NAME"),
        (("spec", "template", "spec", "containers", 0, "resources", "limits", "gpu"), "1", "gpu"),
        (("spec", "template", "spec", "terminationGracePeriodSeconds"), "5", "integer"),
        (("metadata", "name"), "Fleetmap Agent", "pattern"),
        (("kind",), "Deployment", "DaemonSet"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused(
    path: tuple[str | int, ...], value: object, part: str
) -> None:
    broken = copy.deepcopy(document())
    place = broken
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValidationError) as caught:
        daemon_set(broken)
    assert part in str(caught.value)


def test_the_readme_of_the_samples_names_the_files() -> None:
    text = (DEPLOY.parent / "README.md").read_text()
    for file in sorted(DEPLOY.iterdir()):
        assert f"deploy/{file.name}" in text

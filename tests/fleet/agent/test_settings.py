from pathlib import Path

import pytest
import typer

from fleet.agent.addresses import TcpAddress, UnixAddress
from fleet.agent.settings import (
    OPTIONS,
    TlsFiles,
    settings_from_arguments,
    settings_from_texts,
)
from fleet.cli_agent import agent
from fleet.console import make_app
from fleet.errors import ExpectedError

PUBLIC = "0.0.0.0:9409"


def refusal_of(*arguments: str) -> str:
    with pytest.raises(ExpectedError) as caught:
        settings_from_arguments(arguments)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_without_options_it_reads_each_minute_and_serves_this_machine_only() -> None:
    settings = settings_from_arguments([])
    assert (settings.interval_s, settings.jitter_ratio) == (60.0, 0.1)
    assert settings.listen == TcpAddress("127.0.0.1", 9409)
    assert (settings.spool, settings.tls, settings.token_file, settings.host) == (None,) * 4


def test_every_option_reaches_the_settings() -> None:
    settings = settings_from_arguments(
        [
            "--interval=30s",
            "--jitter=2.5%",
            "--listen=unix:/run/fleetmap/agent.sock",
            "--host=gpu-001",
            "--spool=/scratch/spool=1",
            "--tls-cert=c.pem",
            "--tls-key=k.pem",
            "--client-ca=ca.pem",
            "--token-file=token",
            "--insecure=yes",
        ]
    )
    assert (settings.interval_s, settings.jitter_ratio) == (30.0, 0.025)
    assert settings.listen == UnixAddress("/run/fleetmap/agent.sock")
    assert (settings.host, settings.spool) == ("gpu-001", "/scratch/spool=1")
    assert settings.tls == TlsFiles("c.pem", "k.pem", "ca.pem")
    assert settings.token_file == "token"


def test_a_snapshot_is_stale_after_three_intervals() -> None:
    assert settings_from_texts({"interval": "20s"}).stale_after_s == 60.0


@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("--interval=60", "unit"),
        ("--interval=50ms", "no interval"),
        ("--interval=86401s", "no interval"),
        ("--jitter=10", "no jitter"),
        ("--jitter=51%", "no jitter"),
        ("--host=../etc", "no host name"),
        ("--host=.hidden", "no host name"),
        ("--host=a/b", "no host name"),
        ("--listen=9409", "no address"),
        ("--port=9409", "no option"),
        ("interval=60s", "no option"),
        ("--", "no option"),
    ],
)
def test_a_value_that_does_not_do_is_refused(argument: str, part: str) -> None:
    assert part in refusal_of(argument)


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["--tls-cert=c"], "--tls-key"),
        (["--tls-key=k"], "--tls-cert"),
        (["--client-ca=a"], "--tls-cert"),
    ],
)
def test_half_of_a_certificate_is_refused(arguments: list[str], missing: str) -> None:
    assert missing in refusal_of(*arguments)


@pytest.mark.parametrize("listen", [PUBLIC, "[::]:9409", "192.0.2.1:80", "gpu-001:9409"])
def test_a_port_that_others_reach_wants_a_token_or_certificates_of_clients(listen: str) -> None:
    said = refusal_of(f"--listen={listen}")
    for remedy in ("--token-file", "--client-ca", "--insecure"):
        assert remedy in said
    assert "--client-ca" in refusal_of(f"--listen={listen}", "--tls-cert=c", "--tls-key=k")


@pytest.mark.parametrize(
    "arguments",
    [
        [f"--listen={PUBLIC}", "--token-file=t"],
        [f"--listen={PUBLIC}", "--tls-cert=c", "--tls-key=k", "--client-ca=a"],
        [f"--listen={PUBLIC}", "--insecure=yes"],
        ["--listen=127.8.9.10:1"],
        ["--listen=[::1]:1"],
        ["--listen=localhost:1"],
        ["--listen=unix:/a"],
    ],
)
def test_who_is_known_or_local_may_be_served(arguments: list[str]) -> None:
    assert settings_from_arguments(arguments).interval_s == 60.0


def agent_options() -> dict[str, object]:
    """Options of the command line by name, with their defaults."""
    app = make_app("x")
    app.command()(agent)
    app.command()(lambda: None)
    command = typer.main.get_command(app).commands["agent"]  # type: ignore[attr-defined]
    return {option.opts[0].removeprefix("--"): option.default for option in command.params}


def test_the_command_line_has_the_options_of_the_agent_and_their_defaults() -> None:
    options = agent_options()
    assert set(options) == set(OPTIONS)
    told = {name: text for name, text in options.items() if isinstance(text, str)}
    assert settings_from_texts(told) == settings_from_texts({})


def test_the_page_of_options_names_no_file_of_this_machine() -> None:
    assert str(Path.home()) not in str(agent_options())

"""The README does not go stale: its commands run as shown, and it names every option."""

import re
import shutil
from pathlib import Path

import pytest

from tests.commands import run_here
from tests.console_blocks import difference, examples_in, rewritten, run

README = Path(__file__).resolve().parent.parent / "README.md"
COMMANDS = [example.command for example in examples_in(README.read_text())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A copy of the samples, so that what a command writes does not stand in the tree."""
    place = tmp_path_factory.mktemp("readme")
    shutil.copytree(root / "samples", place / "samples")
    return place


@pytest.fixture(scope="module")
def shown(request: pytest.FixtureRequest, folder: Path) -> dict[str, str]:
    """Output by command; with --update-golden what the commands print now is written first."""
    if request.config.getoption("--update-golden"):
        README.write_text(rewritten(README.read_text(), folder))
    return {example.command: example.expected for example in examples_in(README.read_text())}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_prints_what_the_readme_shows(
    command: str, shown: dict[str, str], folder: Path
) -> None:
    assert difference(shown[command], run(command, folder)) is None


@pytest.mark.parametrize("program", ["fleet", "topology"])
def test_every_command_and_option_is_mentioned(program: str) -> None:
    text = README.read_text()
    for command in commands_of(program):
        assert f"{program} {command}" in text, f"{program} {command} is not in the README"
        for option in options_of(program, command):
            assert option in text, f"{program} {command} {option} is not in the README"


def commands_of(program: str) -> list[str]:
    return re.findall(r"^│ (\w+) ", help_text(program).partition("Commands")[2], re.MULTILINE)


def options_of(program: str, command: str) -> set[str]:
    return set(re.findall(r"(?<=[ │])--[a-z][a-z0-9-]+", help_text(program, command))) - {"--help"}


def help_text(program: str, *words: str) -> str:
    done = run_here(program, *words, "--help")
    assert done.code == 0
    return done.out


def test_the_comparison_bites() -> None:
    assert difference("p50 10.0 us\n", "p50  10.2 us\n") is None
    assert difference("p50 10.0 us\n", "p50 11.0 us\n") is not None
    assert difference("p50 10.0 us\n", "p99 10.0 us\n") is not None
    assert difference("scale in\n", "scale out\n") is not None

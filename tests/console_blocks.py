"""Console blocks of documents: ``$ command`` lines with the output below them, run and compared.

Numbers may differ by 3 % (other versions of numpy draw other random numbers), words may not.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.commands import MAINS, run_here

BLOCK = re.compile(r"^```console\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?![\w])")
SHELL_SIGNS = frozenset("|&;<>()$`\\*?[#~!\n")
TOLERANCE = 0.03
SECONDS = 120


@dataclass(frozen=True)
class Example:
    """A command and the output written below it."""

    command: str
    expected: str


def examples_in(text: str) -> list[Example]:
    """All commands of all console blocks of a Markdown text."""
    return [example for match in BLOCK.finditer(text) for example in examples_of(match["body"])]


def examples_of(body: str) -> list[Example]:
    """Commands and outputs of one block."""
    parts = re.split(r"^\$ ", body, flags=re.MULTILINE)
    pairs = (part.partition("\n") for part in parts if part.strip())
    return [Example(command.strip(), expected) for command, _, expected in pairs]


def run(command: str, folder: Path) -> str:
    """What a command prints on stdout and stderr: ours alone in this process, else in a shell."""
    words = shlex.split(command)
    if words[0] in MAINS and not set(command) & SHELL_SIGNS:
        done = run_here(*words, folder=folder, COLUMNS="80")
        return done.err + done.out  # into a pipe Python writes what is said first, too
    return run_in_shell(command, folder)


def run_in_shell(command: str, folder: Path) -> str:
    """What a command prints on stdout and stderr; our own programs come first on the PATH."""
    programs = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "80"}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=SECONDS,
    )
    return done.stdout


def difference(expected: str, actual: str) -> str | None:
    """What differs beyond the tolerance, None where nothing does."""
    if expected == actual:
        return None
    words = [NUMBER.sub("#", re.sub(r"[ \t]+", " ", text)) for text in (expected, actual)]
    if words[0].split() != words[1].split():
        return f"expected:\n{expected}\nprinted:\n{actual}"
    for wanted, got in zip(NUMBER.findall(expected), NUMBER.findall(actual), strict=True):
        a, b = (float(text.replace(",", "")) for text in (wanted, got))
        if abs(a - b) > TOLERANCE * max(abs(a), abs(b)):
            return f"{wanted} expected, {got} printed in:\n{actual}"
    return None


def rewritten(text: str, folder: Path) -> str:
    """The text with every output replaced by what its command prints now."""

    def block(match: re.Match[str]) -> str:
        body = "".join(
            f"$ {example.command}\n{run(example.command, folder)}"
            for example in examples_of(match["body"])
        )
        return f"```console\n{body}```"

    return BLOCK.sub(block, text)

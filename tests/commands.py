"""Our commands run in this process: what they print and how they end, without a start of Python."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from typer.testing import CliRunner

import fleet.cli
import topology.cli

MAINS: Final[dict[str, Callable[[], None]]] = {
    "fleet": fleet.cli.main,
    "topology": topology.cli.main,
}


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Its JSON."""
        document = json.loads(self.out)
        assert isinstance(document, dict)
        return document


def run_here(
    *words: str | Path, stdin: bytes = b"", folder: Path | None = None, **environment: str | None
) -> Done:
    """Run a command line in this process, its program first; None unsets a variable."""
    isolated = CliRunner().isolation(input=stdin, env=environment)
    with _arguments(*map(str, words)), chdir(folder or "."), isolated as (out, err, _):
        try:
            MAINS[str(words[0])]()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
        return Done(code, out.getvalue().decode(), err.getvalue().decode())


@contextmanager
def _arguments(*words: str) -> Iterator[None]:
    before, sys.argv = sys.argv, list(words)
    try:
        yield
    finally:
        sys.argv = before

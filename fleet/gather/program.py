"""The program of the far side: what is sent to a node, and the command that runs it there.

Nothing is installed on the node. It needs a POSIX ``sh`` and python3 (3.6 or newer), or nvidia-smi.
"""

import json
import marshal
from functools import cache
from importlib.resources import files
from importlib.util import MAGIC_NUMBER, find_spec
from pathlib import Path
from typing import Final

from fleet.probe.bootstrap import LOADER, Program, compiled, packed

__all__ = ["LOADER", "far_side_argv", "login_command", "program_text"]

PYTHONS: Final = ("python3", "/usr/libexec/platform-python")
"""Tried in this order; the second is what an enterprise Linux always has."""

OUTPUTS: Final = ("nvidia-smi -q -x", "nvidia-smi topo -m")
_CALLS_PER_DEADLINE: Final = 8
"""A driver that hangs at its start is waited for during four calls; the rest is for the others."""

_BUDGET_SHARE: Final = 0.8
"""The reading ends in time to be told; the rest of the deadline is the way there and back."""

_LONGEST_CALL_S: Final = 5.0


@cache
def program_text() -> str:
    """The probe as one line of Python, for the first line of stdin behind :data:`LOADER`."""
    bootstrap, texts = "", {}
    for file in sorted(files("fleet.probe").iterdir(), key=lambda file: file.name):
        name, ending = file.name.rpartition(".")[::2]
        if name == "bootstrap":
            bootstrap = file.read_text("utf-8")
        elif ending == "py" and name != "__init__":
            texts[f"fleet.probe.{name}"] = file.read_text("utf-8")
    code = packed(marshal.dumps(compiled(texts)))
    program = Program(
        MAGIC_NUMBER.hex(), code, packed(json.dumps(texts).encode()), _packed_binding()
    )
    return program.line(bootstrap)


def far_side_argv(mark: str, deadline_s: float) -> list[str]:
    """The command that reads a node, as words: ``/bin/sh -c SNIPPET``.

    ``mark`` begins the lines that frame nvidia-smi's output; ``deadline_s`` is what the whole
    answer may take. [s]
    """
    return ["/bin/sh", "-c", _snippet(mark, deadline_s)]


def login_command(mark: str, deadline_s: float) -> str:
    """The same as one line for any login shell: sh, bash, zsh, csh and fish read it alike."""
    snippet = _snippet(mark, deadline_s)
    assert not set(snippet) & set("'!\\\n"), "a login shell would read these in its own way"
    return f"exec /bin/sh -c '{snippet}'"


def _snippet(mark: str, deadline_s: float) -> str:
    call_s = min(_LONGEST_CALL_S, deadline_s / _CALLS_PER_DEADLINE)
    budget_s = deadline_s * _BUDGET_SHARE
    run = f'$p -I -S -c "{LOADER}" --packed --deadline {call_s:g} --budget {budget_s:g}'
    asked = " ".join(_framed(command, mark) for command in OUTPUTS)
    return (
        f"r=0; for p in {' '.join(PYTHONS)}; do "
        f"command -v $p >/dev/null 2>&1 && {{ {run} && exit 0; r=$?; }}; done; "
        f"echo; echo {mark} python $r; "
        f"command -v nvidia-smi >/dev/null 2>&1 || {{ echo {mark} nothing; exit 127; }}; "
        f"echo {mark} host $(uname -n); echo {mark} at $(date -u +%Y-%m-%dT%H:%M:%SZ); "
        f"{asked} echo {mark} end"
    )


def _framed(command: str, mark: str) -> str:
    return f"echo {mark} output {command}; {command} </dev/null; r=$?; echo; echo {mark} exit $r;"


def _packed_binding() -> str:
    """The NVML binding's own source, packed: for a node that has the driver and no binding."""
    spec = find_spec("pynvml")
    if spec is None or spec.origin is None or not spec.origin.endswith("pynvml.py"):
        return ""  # an old pynvml is a package; its nodes then need nvidia-smi
    return packed(Path(spec.origin).read_bytes())

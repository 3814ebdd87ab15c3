"""The fake NVML library in C: built once, and fed with the machines that feed the one in Python.

A process gets it by its environment: ``subprocess.run(..., env=os.environ | stub.environment(p))``.
"""

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.nvml_machine import FakeProfile
from tests.fakes.nvml_table import Answer, table_of

SOURCE = Path(__file__).with_name("nvml_stub.c")
SONAME = "libnvidia-ml.so.1"
COMPILE = ("cc", "-c", "-fPIC", "-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror")
LINK = ("cc", "-shared", f"-Wl,-soname,{SONAME}")


@dataclass(frozen=True)
class NvmlStub:
    """A folder with the compiled stub, a library for each set of missing symbols, and machines."""

    folder: Path

    def environment(self, profile: FakeProfile) -> dict[str, str]:
        """What a process needs in its environment to find this machine."""
        text = text_of_machine(profile)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        machine = self.folder / f"{name}.machine"
        machine.write_text(text)
        return {**_found_in(self._library(profile.lacks)), "FLEETMAP_FAKE_NVML": str(machine)}

    def no_library(self) -> dict[str, str]:
        """The environment of a process that cannot load any NVML, even where there is a driver."""
        place = self.folder / "unloadable"
        place.mkdir(exist_ok=True)
        (place / SONAME).touch()
        return _found_in(place)

    def _library(self, lacks: frozenset[str]) -> Path:
        """Folder of a library without these symbols: the linker hides them."""
        name = hashlib.sha256(" ".join(sorted(lacks)).encode()).hexdigest()[:16]
        place = self.folder / f"library-{name}"
        if not place.exists():
            place.mkdir()
            script = place / "symbols"
            hidden = "".join(f" {symbol};" for symbol in sorted(lacks))
            script.write_text(f"{{ global: nvml*; local:{hidden} *; }};\n")
            version = f"-Wl,--version-script={script}"
            _run(*LINK, version, "-o", place / SONAME, self.folder / "stub.o")
        return place


def built(folder: Path) -> NvmlStub:
    """The stub, compiled in a folder; any warning of the compiler is an error."""
    _run(*COMPILE, "-o", folder / "stub.o", SOURCE)
    return NvmlStub(folder)


def text_of_machine(profile: FakeProfile) -> str:
    """The machine as the stub reads it: a line for each answer."""
    return "".join(f"{key}\t{_text(answer)}\n" for key, answer in table_of(profile).items())


def _text(answer: Answer) -> str:
    code, words = answer
    written = (f"x{word.hex()}" if isinstance(word, bytes) else str(word) for word in words)
    return "\t".join([str(code), *written])


def _found_in(place: Path) -> dict[str, str]:
    others = os.environ.get("LD_LIBRARY_PATH", "")
    return {"LD_LIBRARY_PATH": f"{place}:{others}" if others else str(place)}


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]}: {done.stderr}"

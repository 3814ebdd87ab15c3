"""The far side's first words: puts the probe's modules in place and starts it. No installation.

A sweep sends the modules as text and as code, and code is used where both Pythons are of one kind:
compiling costs more than all else the probe does. The probe's child is a fork, for the same reason.
"""

import base64
import marshal
import sys
import zlib
from importlib.machinery import ModuleSpec
from importlib.util import MAGIC_NUMBER
from types import CodeType
from typing import Any, Dict, List, Optional

LOADER = "import sys;p=sys.stdin.buffer.readline();exec(p or sys.exit(9))"
"""Runs the first line of stdin. No quote, dollar or backslash in it: shells lie between."""

_OLDEST_PYTHON = (3, 6)
_PACKAGES = ("fleet", "fleet.probe")
_DRIVER = "libnvidia-ml.so.1"
_WITHOUT_DRIVER = b"""
class NVMLError(Exception):
    value = 12
def nvmlInit():
    raise NVMLError
"""
"""All that the binding says where it finds no library."""


class Program:
    """What is sent: the modules' sources, their code for one kind of Python, the NVML binding."""

    def __init__(self, magic: str, code: str, texts: str, binding: str) -> None:
        self.magic = magic
        self.code = code
        self.texts = texts
        self.binding = binding

    def modules(self) -> Dict[str, CodeType]:
        """The code of each module, compiled here if need be."""
        if self.magic == MAGIC_NUMBER.hex():
            code: Dict[str, CodeType] = marshal.loads(unpacked(self.code))
            return code
        import json

        return compiled(json.loads(unpacked(self.texts).decode()))

    def line(self, bootstrap: str) -> str:
        """All of it as one line of Python, for LOADER to run."""
        return (
            "import base64,zlib;s=zlib.decompress(base64.b64decode('{}')).decode();"
            "g={{'__name__':'fleet_bootstrap'}};exec(s,g);"
            "g['start'](g['Program']('{}','{}','{}','{}'))"
        ).format(packed(bootstrap.encode()), self.magic, self.code, self.texts, self.binding)


class Modules:
    """Imports the probe's modules from code."""

    def __init__(self, code: Dict[str, CodeType]) -> None:
        self._code = code

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:
        """The spec of a module of ours; None for every other."""
        loader: Any = self
        if name in _PACKAGES:
            return ModuleSpec(name, loader, is_package=True)
        return ModuleSpec(name, loader) if name in self._code else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Python's own kind of module will do."""

    def exec_module(self, module: Any) -> None:
        """Run a module's code; the packages have none."""
        if module.__name__ in self._code:
            exec(self._code[module.__name__], module.__dict__)


class SpareBinding:
    """Imports the binding that was sent along, where there is no other one."""

    def __init__(self, source: str) -> None:
        self._source = source

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:
        """The spec of pynvml; asked last, so only where nobody else has one."""
        loader: Any = self
        return ModuleSpec(name, loader) if name == "pynvml" and self._source else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Python's own kind of module will do."""

    def exec_module(self, module: Any) -> None:
        """Compile and run the binding: 75 ms, which a node without a driver need not spend."""
        source = unpacked(self._source) if _has_driver() else _WITHOUT_DRIVER
        exec(compile(source, "<pynvml>", "exec"), module.__dict__)


def start(program: Program) -> None:
    """Put the modules in place, then be the probe."""
    if sys.version_info < _OLDEST_PYTHON:
        sys.exit(8)  # the shell goes on to nvidia-smi
    finders: List[Any] = sys.meta_path
    finders.insert(0, Modules(program.modules()))
    finders.append(SpareBinding(program.binding))
    from fleet.probe.__main__ import main
    from fleet.probe.child import main as read_chapters

    main(sys.argv[1:], read_chapters)


def compiled(texts: Dict[str, str]) -> Dict[str, CodeType]:
    """The code of modules by their names."""
    return {name: compile(text, "<" + name + ">", "exec") for name, text in texts.items()}


def packed(data: bytes) -> str:
    """Bytes as text that needs no quoting."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def unpacked(text: str) -> bytes:
    """The bytes that were packed."""
    return zlib.decompress(base64.b64decode(text))


def _has_driver() -> bool:
    import ctypes

    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return False
    return True

"""Surroundings: what the doctor looks at, gathered once. Opens no GPU, asks no driver itself."""

import errno
import grp
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import stat
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fleet.probe.command import output_of
from fleet.reading import NodeReading

NVIDIA: Final = "0x10de"
INFINIBAND_CLASS: Final = "0x0207"
GPU_CLASSES: Final = ("0x0300", "0x0302")
NVSWITCH_CLASS: Final = "0x0680"
TOOL_DEADLINE_S: Final = 2.0

TOOLS: Final[Mapping[str, tuple[str, ...]]] = {
    "nvidia-smi": (),  # its --version asks the driver, which may not answer
    "ssh": ("-V",),
    "srun": ("--version",),
    "ibnetdiscover": ("--version",),
    "python3": ("--version",),
}
"""Programs that are looked for, and how each tells its version."""

DISTRIBUTIONS: Final = ("nvidia-ml-py", "pynvml")
_LIBRARY_FOLDERS: Final = (
    *("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib", "lib64"),
    *(
        "usr/local/nvidia/lib64",
        "usr/lib/wsl/lib",
        "run/opengl-driver/lib",
        "run/nvidia/driver/lib",
    ),
)
_OUR_DRIVERS: Final = frozenset({"", "nvidia", "nouveau"})
"""Drivers of a GPU that is, or could be, NVIDIA's driver's; one bound to vfio-pci is a guest's."""

_LARGEST_FILE_BYTES: Final = 1 << 20
_CONTAINER: Final = re.compile(r"docker|kubepods|containerd|libpod|lxc|crio")

Run = Callable[[Sequence[str]], str]
"""Runs a command and gives what it printed; empty where it could not be run."""


@dataclass(frozen=True, slots=True)
class User:
    """Who asks: name, number and groups, as they are in effect."""

    name: str
    uid: int
    groups: frozenset[str] = frozenset()

    @property
    def is_root(self) -> bool:
        """Whether all rights are there, containers apart."""
        return self.uid == 0


@dataclass(frozen=True, slots=True)
class DeviceFile:
    """A file below /dev: its group and mode, and whether this user may read and write it."""

    path: str
    group: str
    mode: int
    is_usable: bool


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that is on the path, with the first line it tells of its version."""

    path: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class Binding:
    """The module ``pynvml`` as Python would find it, and the distributions that may bring one."""

    origin: str | None
    versions: Mapping[str, str]

    @property
    def is_package(self) -> bool:
        """Whether it is a folder, as that of the old distribution pynvml is."""
        return self.origin is not None and self.origin.endswith("__init__.py")


@dataclass(frozen=True, slots=True)
class HiddenProcesses:
    """How /proc is mounted where it hides the processes of others, and which group is let in."""

    option: str
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where fleetmap runs, and as whom. None: this cannot be known, as in a captured tree."""

    user: User
    is_here: bool = True
    container: str | None = None
    driver_version: str | None = None
    modules: frozenset[str] = frozenset()
    libraries: tuple[str, ...] = ()
    gpus: tuple[str, ...] | None = ()
    nvswitches: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    hcas: tuple[str, ...] = ()
    device_files: tuple[DeviceFile, ...] = ()
    umad_files: tuple[DeviceFile, ...] = ()
    kernel_log: str | None = None
    hidden_processes: HiddenProcesses | None = None
    processes: frozenset[str] = frozenset()
    tools: Mapping[str, Tool] = field(default_factory=dict)
    has_slurm: bool = False
    binding: Binding | None = None
    spool: Path | None = None
    spool_problem: str | None = None
    reading: NodeReading | None = None

    @property
    def has_gpus(self) -> bool:
        """Whether anything of NVIDIA's is here that a driver could speak for."""
        return bool(self.gpus or self.device_files or self.driver_version or self._listed_count)

    @property
    def _listed_count(self) -> int:
        answers = self.reading.answers if self.reading is not None else {}
        counted = answers.get("nvmlDeviceGetCount()")
        return counted.value if counted is not None and isinstance(counted.value, int) else 0

    @property
    def has_driver(self) -> bool:
        """Whether the driver's kernel module is loaded."""
        return self.driver_version is not None or "nvidia" in self.modules


def surroundings_of(
    root: Path = Path("/"),
    *,
    spool: Path | None = None,
    reading: NodeReading | None = None,
    run: Run | None = None,
) -> Surroundings:
    """What is below ``root``; where that is this machine's own, its programs and modules too.

    ``spool`` is the folder an agent shall write to, ``reading`` what a probe read of this node.
    """
    is_here = root.resolve() == Path("/")
    functions = _pci_functions(root)
    return Surroundings(
        user=_user(),
        is_here=is_here,
        container=_container(root),
        driver_version=_driver_version(_text(root / "proc/driver/nvidia/version")),
        modules=frozenset(
            line.split(" ")[0] for line in _text(root / "proc/modules").splitlines() if line
        ),
        libraries=tuple(_libraries(root)),
        gpus=None if functions is None else _gpus(root, functions),
        nvswitches=_of_class(functions or {}, (NVSWITCH_CLASS,), NVIDIA),
        adapters=_of_class(functions or {}, (INFINIBAND_CLASS,)),
        hcas=tuple(_names(root / "sys/class/infiniband")),
        device_files=_device_files(root, "dev", r"nvidia(ctl|[0-9]+)"),
        umad_files=_device_files(root, "dev/infiniband", r"umad[0-9]+"),
        kernel_log=_why_unreadable(root / "dev/kmsg"),
        hidden_processes=_hidden_processes(_text(root / "proc/self/mounts")),
        processes=frozenset(_process_names(root)),
        tools=_tools(run or _printed) if is_here else {},
        has_slurm=_has_slurm(root, is_here=is_here),
        binding=_binding() if is_here else None,
        spool=spool,
        spool_problem=None if spool is None else _spool_problem(spool),
        reading=reading,
    )


def _user() -> User:
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    numbers = {os.getegid(), *os.getgroups()}
    return User(name, uid, frozenset(map(_group_name, numbers)))


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _container(root: Path) -> str | None:
    """What kind of container this is; None: none that can be told."""
    for path, kind in ((".dockerenv", "docker"), ("run/.containerenv", "podman")):
        if (root / path).exists():
            return kind
    match = _CONTAINER.search(_text(root / "proc/self/cgroup"))
    return match[0] if match else None


def _driver_version(text: str) -> str | None:
    match = re.search(r"^NVRM version:.*?\s([0-9]{3,4}(?:\.[0-9]{1,4}){1,3})\s", text, re.MULTILINE)
    return match[1] if match else None


def _libraries(root: Path) -> Iterable[str]:
    """Versions of the driver's library by the names of its files; empty text: not in the name."""
    versions: dict[str, None] = {}
    for folder in _LIBRARY_FOLDERS:
        for name in _names(root / folder):
            match = re.fullmatch(r"libnvidia-ml\.so\.(1|[0-9]{3,4}(?:\.[0-9]{1,4}){1,3})", name)
            if match:
                versions["" if match[1] == "1" else match[1]] = None
    return sorted(version for version in versions if version) or list(versions)


def _pci_functions(root: Path) -> Mapping[str, tuple[str, str]] | None:
    """Vendor and class by PCI address; None where the bus is not listed."""
    folder = root / "sys/bus/pci/devices"
    if not folder.is_dir():
        return None
    return {
        name: (_text(folder / name / "vendor").strip(), _text(folder / name / "class").strip())
        for name in _names(folder)
    }


def _gpus(root: Path, functions: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """GPUs that NVIDIA's driver has, or could have: not those kept for guests."""
    found = _of_class(functions, GPU_CLASSES, NVIDIA)
    folder = root / "sys/bus/pci/devices"
    return tuple(gpu for gpu in found if _bound_to(folder / gpu) in _OUR_DRIVERS)


def _bound_to(function: Path) -> str:
    """The driver that has a PCI function; empty: none, or it is not told."""
    try:
        return os.path.basename(os.readlink(function / "driver"))
    except OSError:
        return ""


def _of_class(
    functions: Mapping[str, tuple[str, str]], classes: Sequence[str], vendor: str | None = None
) -> tuple[str, ...]:
    return tuple(
        address
        for address, (maker, kind) in functions.items()
        if kind[:6] in classes and vendor in (None, maker)
    )


def _device_files(root: Path, folder: str, form: str) -> tuple[DeviceFile, ...]:
    found = []
    for name in _names(root / folder):
        if not re.fullmatch(form, name):
            continue
        path = root / folder / name
        try:
            status = path.stat()
        except OSError:
            continue
        usable = os.access(path, os.R_OK | os.W_OK, effective_ids=True)
        group = _group_name(status.st_gid)
        found.append(DeviceFile(f"/{folder}/{name}", group, stat.S_IMODE(status.st_mode), usable))
    return tuple(found)


def _why_unreadable(path: Path) -> str | None:
    """Name of the error that reading gives (``EPERM``); None where it can be read."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "EIO")
    return None


def _hidden_processes(mounts: str) -> HiddenProcesses | None:
    for line in mounts.splitlines():
        fields = line.split(" ")
        if fields[1:3] != ["/proc", "proc"] or len(fields) < 4:
            continue
        options = dict(option.partition("=")[::2] for option in fields[3].split(","))
        if options.get("hidepid", "0") not in ("0", "off"):
            gid = options.get("gid", "")
            group = _group_name(int(gid)) if gid.isdecimal() else None
            return HiddenProcesses(f"hidepid={options['hidepid']}", group)
    return None


def _process_names(root: Path) -> Iterable[str]:
    for name in _names(root / "proc"):
        if name.isdecimal():
            yield _text(root / "proc" / name / "comm").strip()


def _tools(run: Run) -> Mapping[str, Tool]:
    tools = {}
    for name, arguments in TOOLS.items():
        path = shutil.which(name)
        if path is not None:
            told = run([path, *arguments]).strip() if arguments else ""
            tools[name] = Tool(path, told.partition("\n")[0])
    return tools


def _printed(command: Sequence[str]) -> str:
    """What a command prints on both its streams; one that hangs is left behind."""
    both = ["/bin/sh", "-c", 'exec "$0" "$@" 2>&1', *command]
    return str(output_of(both, TOOL_DEADLINE_S)["text"])


def _has_slurm(root: Path, *, is_here: bool) -> bool:
    is_configured = (root / "etc/slurm").is_dir() or (root / "etc/slurm-llnl").is_dir()
    return is_configured or (is_here and shutil.which("srun") is not None)


def _binding() -> Binding:
    """Found without importing it: what is imported might be the wrong one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = importlib.util.find_spec("pynvml") if "pynvml" not in sys.modules else None
        origin = found.origin if found else getattr(sys.modules.get("pynvml"), "__file__", None)
    return Binding(origin, dict(_versions_of(DISTRIBUTIONS)))


def _versions_of(distributions: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in distributions:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


def _spool_problem(folder: Path) -> str | None:
    if not folder.exists():
        return "there is no such folder"
    if not folder.is_dir():
        return "it is no folder"
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return "this user may not write there"
    return None


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _text(path: Path) -> str:
    """A file's beginning; empty where it cannot be read. A pipe in a captured tree is empty too."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        with open(handle, encoding="utf-8", errors="replace") as file:
            return file.read(_LARGEST_FILE_BYTES)
    except OSError:
        return ""

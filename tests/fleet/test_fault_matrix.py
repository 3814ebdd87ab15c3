"""The fault matrix: what the installed ``fleet inventory`` tells of eight GPUs with a fault.

The C stub of NVML stands in for the driver, a folder for the kernel's tree. The rows are those of
the README's table too.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fleet.faults import FaultKind, device_faults
from fleet.fields import leaves, path_matches
from fleet.merge import snapshots_of
from fleet.model import FleetMap, NodeSnapshot
from fleet.store import document_from_bytes
from tests.fakes.nvml_machine import FakeExcluded, FakeLink, FakeProfile
from tests.fakes.nvml_profiles import profile_named, with_faults
from tests.fakes.nvml_stub import NvmlStub
from tests.fakes.sysfs_trees import GPU, SysTree

H100 = profile_named("h100-8")
ADDRESSES = tuple(str(gpu.bus_id).lower() for gpu in H100.gpus)
HIDDEN = "FFFFFFFF:FF:FF.0"
SHORT = ("--deadline", "0.5s")
MARKS = re.compile(
    r"(?<=<!-- fault matrix -->\n).*?(?=<!-- end of the fault matrix -->)", re.DOTALL
)
README = Path(__file__).parents[2] / "README.md"
SECONDS = 60


def with_links(**changes: object) -> FakeProfile:
    """The machine with every link of every GPU changed."""
    return with_each_link(lambda port, link: replace(link, **changes))  # type: ignore[arg-type]


def with_each_link(change: Callable[[int, FakeLink], FakeLink]) -> FakeProfile:
    gpus = tuple(
        replace(gpu, links=tuple(change(port, link) for port, link in enumerate(gpu.links or ())))
        for gpu in H100.gpus
    )
    return replace(H100, gpus=gpus)


@dataclass(frozen=True)
class Row:
    """A fault and what is told of it. ``absent``: paths with their reason; ``said``: with values.

    ``shown`` are words that stand together in one line of the table. A profile of None: no library.
    ``bound_to`` is the kernel driver that has GPU 3.
    """

    fault: str
    what: str
    profile: FakeProfile | None
    exit_code: int
    complete: int
    shown: tuple[str, ...]
    absent: tuple[tuple[str, str], ...] = ()
    said: tuple[tuple[str, str], ...] = ()
    not_shown: str | None = None
    listed: int = 8
    options: tuple[str, ...] = ()
    bound_to: str = "nvidia"


MATRIX = (
    Row(
        "lost",
        "GPU 3 fell off the bus",
        with_faults(H100, 3, lost=True),
        exit_code=3,
        complete=7,
        shown=("gpu3", "gpu_lost"),
        absent=(("gpus[3]", "gpu_lost"),),
    ),
    Row(
        "no permission",
        "GPU 3 may not be opened",
        with_faults(H100, 3, no_permission=True),
        exit_code=3,
        complete=7,
        shown=("gpu3", "no_permission"),
        absent=(("gpus[3]", "no_permission"),),
    ),
    Row(
        "hung call",
        "a call about GPU 3 never returns",
        with_faults(H100, 3, hang="nvmlDeviceGetSerial"),
        exit_code=3,
        complete=7,
        shown=("gpu3", "timed_out", "nvmlDeviceGetSerial"),
        absent=(("gpus[3]", "timed_out"),),
        options=SHORT,
    ),
    Row(
        "hung init",
        "the driver's first call never returns",
        with_faults(H100, hang="nvmlInitWithFlags"),
        exit_code=3,
        complete=0,
        shown=("GPUs", "timed_out", "nvmlInit"),
        absent=(("gpus", "timed_out"),),
        options=SHORT,
    ),
    Row(
        "missing symbol",
        "the driver has no nvmlDeviceGetModuleId",
        H100.lacking("nvmlDeviceGetModuleId"),
        exit_code=0,
        complete=8,
        shown=("1 node", "8 GPUs"),
        absent=(("wiring.gpus[*].module_id", "function_missing"),),
    ),
    Row(
        "wrong struct version",
        "the driver takes no version of the fabric's struct",
        with_faults(
            H100.lacking("nvmlDeviceGetGpuFabricInfo"),
            wrong_struct_version=["nvmlDeviceGetGpuFabricInfoV"],
        ),
        exit_code=0,
        complete=8,
        shown=("1 node", "8 GPUs"),
        absent=(("gpus[*].fabric", "driver_too_old"),),
    ),
    Row(
        "undecodable string",
        "the serial of GPU 3 is no text",
        with_faults(H100, 3, undecodable="nvmlDeviceGetSerial"),
        exit_code=0,
        complete=8,
        shown=("1 node", "8 GPUs"),
        absent=(("gpus[3].serial", "undecodable"),),
    ),
    Row(
        "zero cluster UUID",
        "the fabric is completed and joins no nodes",
        H100,
        exit_code=0,
        complete=8,
        shown=("1 node", "8 GPUs"),
        not_shown="NVLink domain",
        said=(("gpus[3].fabric.state", "single_node"),),
    ),
    Row(
        "hidden switch",
        "the links' far ends have no address",
        with_links(remote_pci_bus_id=HIDDEN, remote_link=None),
        exit_code=0,
        complete=8,
        shown=("18 nvlink to switch",),
        absent=(("wiring.gpus[*].ports[*].end.index", "unsupported"),),
        said=(("wiring.gpus[3].ports[0].end.kind", "switch"),),
    ),
    Row(
        "12 of 18 links",
        "six links of each GPU are down",
        with_each_link(lambda port, link: replace(link, state=int(port < 12))),
        exit_code=0,
        complete=8,
        shown=("12 nvlink to switch",),
        said=(
            ("wiring.gpus[3].ports[11].state", "up"),
            ("wiring.gpus[3].ports[12].state", "down"),
        ),
    ),
    Row(
        "excluded GPU",
        "the driver was told to leave one GPU alone",
        replace(
            H100,
            gpus=(*H100.gpus[:3], *H100.gpus[4:]),
            excluded=(FakeExcluded(ADDRESSES[3], str(H100.gpus[3].uuid)),),
        ),
        exit_code=0,
        complete=7,
        listed=7,
        shown=(ADDRESSES[3], "excluded"),
        said=((f"unlisted_gpus[{ADDRESSES[3]}].why", "excluded"),),
    ),
    Row(
        "another driver",
        "one GPU is kept for guests",
        replace(H100, gpus=(*H100.gpus[:3], *H100.gpus[4:])),
        exit_code=0,
        complete=7,
        listed=7,
        shown=("other driver", ADDRESSES[3], "vfio-pci"),
        said=(
            (f"unlisted_gpus[{ADDRESSES[3]}].why", "other_driver"),
            (f"unlisted_gpus[{ADDRESSES[3]}].driver", "vfio-pci"),
        ),
        bound_to="vfio-pci",
    ),
    Row(
        "unlisted GPU",
        "the driver has one GPU and does not list it",
        replace(H100, gpus=(*H100.gpus[:3], *H100.gpus[4:])),
        exit_code=3,
        complete=7,
        listed=7,
        shown=(f"gpu@{ADDRESSES[3]}", "does not list it"),
        said=((f"unlisted_gpus[{ADDRESSES[3]}].why", "not_listed"),),
    ),
    Row(
        "no driver",
        "no library, but GPUs on the bus",
        None,
        exit_code=3,
        complete=0,
        shown=("GPUs", "failed", "libnvidia-ml.so.1 is not found"),
        absent=(("gpus", "failed"),),
    ),
    Row(
        "library mismatch",
        "driver and library have different versions",
        with_faults(H100, init_code=18),
        exit_code=3,
        complete=0,
        shown=("GPUs", "failed", "different versions"),
        absent=(("gpus", "failed"),),
    ),
)


@dataclass(frozen=True)
class Told:
    """The table that the command printed, the JSON that it wrote, and its exit code."""

    table: str
    json: bytes
    exit_code: int

    @property
    def snapshot(self) -> NodeSnapshot:
        fleet = document_from_bytes(self.json, where="memory")
        assert isinstance(fleet, FleetMap)
        (snapshot,) = snapshots_of(fleet)
        return snapshot


Ask = Callable[[Row], Told]


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> SysTree:
    """A root whose kernel lists eight H100s, four below each of two sockets."""
    tree = SysTree(tmp_path_factory.mktemp("root"))
    for slot, address in enumerate(ADDRESSES):
        bridge = f"pci{address[4:9]}{int(address[9:11], 16) - 1:02x}"
        tree.pci(f"{bridge}/{address[4:]}", **GPU, numa=slot // 4)
        tree.bind(address[4:], "nvidia")
    return tree


@pytest.fixture(scope="module")
def ask(bus: SysTree, nvml_stub: NvmlStub, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Runs the command for a row, once."""
    folder = tmp_path_factory.mktemp("told")
    told: dict[str, Told] = {}

    def asked(row: Row) -> Told:
        if row.fault not in told:
            driver = nvml_stub.environment(row.profile) if row.profile else nvml_stub.no_library()
            bus.bind(ADDRESSES[3][4:], row.bound_to)
            document = folder / f"{row.fault}.json"
            done = run(driver, bus.root, row, "-o", str(document))
            told[row.fault] = Told(done.stdout.decode(), document.read_bytes(), done.returncode)
        return told[row.fault]

    return asked


def run(
    driver: dict[str, str], bus: Path, row: Row, *more: str
) -> "subprocess.CompletedProcess[bytes]":
    """The installed command; its PATH has no nvidia-smi that could answer for the driver."""
    scripts = Path(sys.executable).parent
    command = [
        scripts / "fleet",
        "inventory",
        "--host",
        "node1",
        "--root",
        bus,
        *row.options,
        *more,
    ]
    environment = {**os.environ, **driver, "PATH": str(scripts), "COLUMNS": "200"}
    return subprocess.run(command, env=environment, capture_output=True, timeout=SECONDS)


def json_tells(row: Row, told: Told) -> None:
    snapshot = told.snapshot
    for path, reason in row.absent:
        reasons = [a.reason.value for a in snapshot.absences if path_matches(a.path, path)]
        assert reason in reasons, f"{path}: {reasons}"
    assert dict(row.said).items() <= dict(leaves(snapshot)).items()
    faults = device_faults(snapshot)
    silent = {fault.slot for fault in faults if fault.kind is not FaultKind.UNLISTED}
    answered = [gpu for gpu in snapshot.gpus if not silent & {gpu.slot, None} and gpu.uuid]
    assert len(answered) == row.complete
    assert len(snapshot.wiring.gpus) == row.listed
    addresses = {gpu.pci_address for gpu in snapshot.wiring.gpus}
    unlisted = {gpu.pci_address for gpu in snapshot.unlisted_gpus}
    assert set(ADDRESSES) == addresses | unlisted, "the kernel knows where each of the eight is"


def table_tells(row: Row, told: Told) -> None:
    lines = told.table.splitlines()
    assert any(all(word in line for word in row.shown) for line in lines), told.table
    assert ("does not answer" in told.table) == (row.exit_code == 3)
    assert f"{row.listed} GPUs" in lines[0]
    assert row.not_shown is None or row.not_shown not in told.table


def exit_code_tells(row: Row, told: Told) -> None:
    assert told.exit_code == row.exit_code


FORMS = {"json": json_tells, "table": table_tells, "exit_code": exit_code_tells}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("row", MATRIX, ids=lambda row: row.fault.replace(" ", "_"))
def test_a_fault_is_told(row: Row, form: str, ask: Ask) -> None:
    FORMS[form](row, ask(row))


@pytest.mark.parametrize("row", MATRIX, ids=lambda row: row.fault.replace(" ", "_"))
def test_a_node_with_no_fault_does_not_pass_for_a_faulty_one(row: Row, ask: Ask) -> None:
    (no_fault,) = (row for row in MATRIX if row.profile is H100)
    if row is not no_fault:
        with pytest.raises(AssertionError):
            json_tells(row, ask(no_fault))


def readme_table() -> str:
    """The matrix for people."""
    head = "| fault | what is wrong | GPUs told in full | the table says | `--json` says | exit |\n"
    return head + "|---|---|---|---|---|---|\n" + "".join(map(_readme_row, MATRIX))


def _readme_row(row: Row) -> str:
    absent = [f"`{path}`: {reason}" for path, reason in row.absent]
    said = [f"`{path}` = {value}" for path, value in row.said]
    cells = (
        row.fault,
        row.what,
        f"{row.complete} of 8",
        " ... ".join(row.shown) + (f", no {row.not_shown}" if row.not_shown else ""),
        "; ".join(absent + said),
        str(row.exit_code),
    )
    return f"| {' | '.join(cells)} |\n"


def test_the_readme_shows_this_matrix(request: pytest.FixtureRequest) -> None:
    text = README.read_text()
    assert MARKS.search(text), "the README has no place for the fault matrix"
    if request.config.getoption("--update-golden"):
        text = MARKS.sub(lambda _: readme_table(), text)
        README.write_text(text)
    assert MARKS.findall(text) == [readme_table()]

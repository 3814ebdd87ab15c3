"""Fixtures for the whole suite: factories, the shared data where present, golden files."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings

from tests.fakes.nvml_stub import NvmlStub, built

# How long an example takes is no check: a busy machine is not a fault of the program's.
settings.register_profile("no clock", deadline=None)
settings.load_profile("no clock")

# Who is started in the background ignores Ctrl-C, under nohup a hang-up, and so would every process
# of the tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the expected outputs")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Real outputs of real machines, which are not ours to ship."""
    folder = ROOT.parent / "shared" / "data" / "artifacts" / "files"
    if not folder.is_dir():
        pytest.skip("shared/data/artifacts is not beside this checkout")
    return folder


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach: pytest's own are closed to all but their owner."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@pytest.fixture(scope="session")
def nvml_stub(tmp_path_factory: pytest.TempPathFactory) -> NvmlStub:
    """The fake NVML library in C, for processes of their own."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler (cc) to build the NVML stub with")
    return built(tmp_path_factory.mktemp("nvml-stub"))

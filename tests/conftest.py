"""Fixtures for the whole suite: factories, the shared data where present, golden files."""

from pathlib import Path

import pytest

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

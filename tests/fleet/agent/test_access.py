from pathlib import Path

import pytest

from fleet.agent.access import Access, access_from_settings, token_from_file
from fleet.agent.settings import settings_from_texts
from fleet.errors import FleetError

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A token that only its owner can read."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


def test_without_a_token_anybody_may() -> None:
    assert access_from_settings(settings_from_texts({})) == Access()
    assert Access().allows(None)
    assert Access().allows("Bearer whatever")


def test_with_a_token_only_who_shows_it_may(token_file: Path) -> None:
    access = access_from_settings(settings_from_texts({"token-file": str(token_file)}))
    assert access.allows(f"Bearer {TOKEN}")
    assert access.allows(f"bearer  {TOKEN} ")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer \xff{TOKEN}",
        "Bearer \N{SNOWMAN}",
    ],
)
def test_anything_else_is_no_token(header: str | None) -> None:
    assert not Access(TOKEN.encode()).allows(header)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o620, 0o601])
def test_a_token_that_others_read_or_write_is_refused(token_file: Path, mode: int) -> None:
    token_file.chmod(mode)
    with pytest.raises(FleetError, match="chmod 0600") as caught:
        token_from_file(str(token_file))
    assert f"{mode:04o}" in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_token_of_owner_and_group_is_taken(token_file: Path, mode: int) -> None:
    token_file.chmod(mode)
    assert token_from_file(str(token_file)) == TOKEN.encode()


def test_a_link_is_judged_by_what_it_leads_to(token_file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(token_file)
    assert token_from_file(str(link)) == TOKEN.encode()
    token_file.chmod(0o644)
    with pytest.raises(FleetError, match="chmod"):
        token_from_file(str(link))


@pytest.mark.parametrize(
    "text", ["", "\n", "short", "two words of some length", "x" * 5000, "ü" * 20]
)
def test_a_file_without_a_token_is_refused(token_file: Path, text: str) -> None:
    token_file.write_text(text)
    with pytest.raises(FleetError, match="holds no token") as caught:
        token_from_file(str(token_file))
    assert not text.strip() or text not in str(caught.value)


def test_a_token_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="No such file"):
        token_from_file(str(tmp_path / "none"))
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    with pytest.raises(FleetError, match="Is a directory"):
        token_from_file(str(folder))


def test_a_key_that_others_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text("key")
    key.chmod(0o644)
    settings = settings_from_texts({"tls-cert": str(key), "tls-key": str(key)})
    with pytest.raises(FleetError, match="chmod 0600"):
        access_from_settings(settings)


def test_what_is_no_certificate_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text("key")
    key.chmod(0o600)
    settings = settings_from_texts({"tls-cert": str(key), "tls-key": str(key)})
    with pytest.raises(FleetError, match="not usable for TLS"):
        access_from_settings(settings)

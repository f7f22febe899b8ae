"""Secrets on a worker: whose they are, and when they are refused."""

import os
from pathlib import Path

import pytest

from gyoza.models.errors import AttemptError
from gyoza.worker.vault import MOST_BYTES, Vault


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secrets").mkdir(mode=0o700)
    return tmp_path / "secrets"


def put(path: Path, value: bytes = b"v", mode: int = 0o600) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(value)
    path.chmod(mode)


def refused(folder: Path | None, name: str = "token", definition: str | None = "op") -> tuple[str, str]:
    with pytest.raises(AttemptError) as caught:
        Vault(folder).value(name, definition)
    return caught.value.reason, caught.value.detail


def test_a_definition_gets_its_own_before_that_of_all(folder: Path) -> None:
    put(folder / "token", b"of all")
    put(folder / "op" / "token", b"its own")
    put(folder / "op" / "key", b"its key")
    assert Vault(folder).value("token", "op") == b"its own"
    assert Vault(folder).value("token", "other") == b"of all"
    assert Vault(folder).value("key", "op") == b"its key"
    assert "no secret 'key'" in refused(folder, "key", "other")[1]


def test_what_is_missing_may_be_on_another_worker(folder: Path) -> None:
    for vault in (folder, folder / "missing", None):
        assert refused(vault) == (
            "start_failed",
            "This worker has no secret 'token': its owner puts it into a file of that name (GYOZA_SECRETS_DIR)",
        )


def test_a_run_without_a_definition_gets_none(folder: Path) -> None:
    put(folder / "token")
    assert refused(folder, definition=None)[0] == "not_allowed"


@pytest.mark.parametrize("name", ["../token", "op/token", ".token", "", "a" * 101, "a\0b", "token\n"])
def test_a_name_leads_nowhere_else(folder: Path, name: str) -> None:
    put(folder / "token")
    put(folder / "op" / "token")
    assert refused(folder, name)[0] == "not_allowed"


@pytest.mark.parametrize("definition", ["..", ".", "a" * 200, "ü" * 200, "a\0b"])
def test_a_definition_s_name_leads_nowhere_else(folder: Path, definition: str) -> None:
    put(folder.parent / "token", b"outside")
    assert refused(folder, definition=definition)[0] == "start_failed"
    put(folder / "token", b"inside")
    if "\0" not in definition:
        assert Vault(folder).value("token", definition) == b"inside"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_is_open_to_others_is_refused(folder: Path, mode: int) -> None:
    put(folder / "token", b"the value", mode)
    reason, detail = refused(folder)
    assert (reason, "chmod 600" in detail, "the value" in detail) == ("start_failed", True, False)


def test_a_folder_that_is_open_to_others_is_refused(folder: Path) -> None:
    put(folder / "token")
    folder.chmod(0o750)
    assert "chmod 700" in refused(folder)[1]


def test_a_link_is_refused(folder: Path) -> None:
    put(folder.parent / "elsewhere")
    (folder / "token").symlink_to(folder.parent / "elsewhere")
    assert "symbolic link" in refused(folder)[1]


def test_what_is_no_file_is_refused_at_once(folder: Path) -> None:
    os.mkfifo(folder / "token", 0o600)
    assert "not a regular file" in refused(folder)[1]


def test_a_secret_has_a_bound(folder: Path) -> None:
    put(folder / "token", b"x" * MOST_BYTES)
    assert len(Vault(folder).value("token", "op")) == MOST_BYTES
    put(folder / "token", b"x" * (MOST_BYTES + 1))
    assert "larger" in refused(folder)[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused(folder: Path) -> None:
    put(folder / "token")
    os.chown(folder / "token", 65533, -1)
    assert "belong to the worker's user" in refused(folder)[1]

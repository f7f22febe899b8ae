"""The key that a server is started with: said, or made on the first start and kept where only its owner reads it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from gyoza.client.address import resolve
from gyoza.models.errors import StartUpError
from gyoza.models.keys import SHAPE
from gyoza.server.app import create_app
from gyoza.server.context import Context
from gyoza.server.settings import Settings, kept_api_key

from .actors import by, refused


def test_it_is_made_once_for_its_owner_alone(tmp_path: Path):
    folder = tmp_path / "new" / "data"
    made = kept_api_key(folder)
    assert SHAPE.fullmatch(made.encode())
    assert kept_api_key(folder) == made
    assert (folder / "api-key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o077 == 0
    assert [path.name for path in folder.iterdir()] == ["api-key"]


def test_servers_that_start_together_keep_one_key(tmp_path: Path):
    with ThreadPoolExecutor(8) as servers:
        assert len(set(servers.map(kept_api_key, [tmp_path] * 32))) == 1


def test_a_client_on_this_machine_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GYOZA_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("GYOZA_API_KEY", raising=False)
    made = kept_api_key(tmp_path)
    assert resolve("http://127.0.0.1:5555", None).api_key == made
    assert resolve("http://gyoza.example.com:5555", None).api_key is None


@pytest.mark.parametrize("text", ["", "\n", "  \n"])
def test_an_empty_file_is_no_key(tmp_path: Path, text: str):
    (tmp_path / "api-key").write_text(text)
    with pytest.raises(StartUpError, match="holds no API key: delete it"):
        kept_api_key(tmp_path)


@pytest.mark.parametrize("text", ["sec\nret", "sec\tret", "ключ", "secret ", " secret", "secret\r"])
def test_a_key_that_no_header_carries_is_refused_and_not_repeated(tmp_path: Path, text: str):
    with pytest.raises(StartUpError, match="The API key in GYOZA_API_KEY holds characters") as refused:
        Settings.from_environment({"GYOZA_API_KEY": text})
    assert text.strip() not in str(refused.value)


def test_an_empty_variable_counts_as_not_set():
    assert Settings.from_environment({"GYOZA_API_KEY": ""}).api_key is None


def test_settings_that_are_printed_hold_no_secret(tmp_path: Path):
    secret = {"api_key": "s3cret", "database_url": "postgresql://u:s3cret@h/d", "direct_url": "postgresql://u:s3cret@h"}
    assert "s3cret" not in repr(Settings(data_dir=tmp_path, **secret))


@pytest.mark.parametrize("headers", [by(""), {"Authorization": "Bearer "}, {"Authorization": "Bearer"}, {}])
async def test_nothing_is_not_a_key_even_where_the_servers_own_is_empty(server: Context, headers: dict[str, str]):
    transport = httpx.ASGITransport(create_app(server, ""))
    async with httpx.AsyncClient(transport=transport, base_url="http://gyoza.test") as api:
        refused(await api.get("/runs", headers=headers), 401, "unauthorized")

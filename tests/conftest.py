"""What every test may use: a real PostgreSQL, a fresh database in it, a server over that."""

import itertools
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psycopg
import pytest

from gyoza.policy.liveness import Pace
from gyoza.server.app import create_app, running
from gyoza.server.context import Context
from gyoza.server.settings import Settings
from gyoza.store.database import Database
from gyoza.store.embedded import embedded_database
from gyoza.store.schema import migrate

# A shell that starts this in the background ignores SIGINT, and children inherit that: tests of Ctrl-C need it back.
signal.signal(signal.SIGINT, signal.default_int_handler)

API_KEY = "a-key-for-tests"
_count = itertools.count(1)


@pytest.fixture(scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The URL of an embedded PostgreSQL, with a migrated template database."""
    async with embedded_database(tmp_path_factory.mktemp("postgres")) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE DATABASE template_gyoza")
        migrate(in_database(url, "template_gyoza"))
        yield url


@pytest.fixture
async def database_url(postgres: str) -> AsyncIterator[str]:
    """A fresh, migrated database."""
    name = f"test_{next(_count)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template_gyoza")
    yield in_database(postgres, name)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url) as database:
        yield database


@pytest.fixture
async def server(database_url: str, tmp_path: Path) -> AsyncIterator[Context]:
    """Everything a server process runs, in this process: leader loop, bell, file store."""
    import asyncio

    settings = Settings(data_dir=tmp_path / "data", pace=Pace(heartbeat_s=1, lease_s=4))
    async with running(settings, database_url, asyncio.Event()) as context:
        yield context


@pytest.fixture
async def api(server: Context) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that server, with the key, over ASGI."""
    transport = httpx.ASGITransport(create_app(server, API_KEY), raise_app_exceptions=False)
    headers = {"X-API-Key": API_KEY}
    async with httpx.AsyncClient(transport=transport, base_url="http://gyoza.test", headers=headers) as client:
        yield client


def in_database(url: str, name: str) -> str:
    """The same PostgreSQL, another database of it."""
    head, _, query = url.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{name}?{query}"

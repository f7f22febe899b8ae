"""What every test may use: a real PostgreSQL, a fresh database in it, a server over that."""

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import psycopg
import pytest

from gyoza.policy.liveness import Pace
from gyoza.server.app import create_app, running
from gyoza.server.context import Context
from gyoza.server.settings import Settings
from gyoza.store.database import Database
from gyoza.store.embedded import embedded_database
from gyoza.store.schema import OLDEST_SUPPORTED, migrate

# A shell that starts this in the background ignores SIGINT, and children inherit that: tests of Ctrl-C need it back.
signal.signal(signal.SIGINT, signal.default_int_handler)

API_KEY = "a-key-for-tests"
PROGRAMS = Path(f"/usr/lib/postgresql/{OLDEST_SUPPORTED}/bin")
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


def unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def oldest() -> Iterator[str]:
    """The URL of an empty database of the oldest PostgreSQL that is supported, where this system has it."""
    if not PROGRAMS.is_dir():
        pytest.skip(f"this system has no PostgreSQL {OLDEST_SUPPORTED}")
    folder, account = Path(tempfile.mkdtemp(prefix="oldest-", dir="/tmp")), unprivileged()
    os.chown(folder, account.get("user", -1), account.get("group", -1))
    how: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, **account}
    initdb = ["initdb", "-D", "data", "-U", "gyoza", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
    subprocess.run([PROGRAMS / initdb[0], *initdb[1:]], check=True, **how)
    settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-k", str(folder)]
    with subprocess.Popen([PROGRAMS / "postgres", "-D", "data", *settings], **how) as server:
        url = f"postgresql://gyoza@/postgres?host={folder}"
        try:
            wait_for(url)
            yield url
        finally:
            server.send_signal(signal.SIGINT)
    shutil.rmtree(folder)


def wait_for(url: str) -> None:
    deadline = monotonic() + 20
    while monotonic() < deadline:
        with suppress(psycopg.OperationalError), psycopg.connect(url):
            return
        sleep(0.05)
    raise AssertionError("it did not start in time")


def in_database(url: str, name: str) -> str:
    """The same PostgreSQL, another database of it."""
    head, _, query = url.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{name}?{query}"

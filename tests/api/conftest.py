"""The server as its clients see it: one for all tests that mind only their own runs, and one alone for the others."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from gyoza.policy.liveness import Pace
from gyoza.server.app import create_app, running
from gyoza.server.context import Context
from gyoza.server.process import one_process
from gyoza.server.settings import Settings

from .actors import Worker
from .asgi import InProcess

KEY = "a-key-for-tests"


@asynccontextmanager
async def client_of(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    transport = InProcess(create_app(context, KEY))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://gyoza.test", headers={"X-API-Key": KEY}, timeout=30
    ) as client:
        yield client


@pytest.fixture(scope="session")
async def api(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that all tests share: it has no workers, but runs and definitions of other tests."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE api_suite TEMPLATE template_gyoza")
    settings = Settings(data_dir=tmp_path_factory.mktemp("server"))
    url = make_conninfo(postgres, dbname="api_suite")
    async with running(settings, url, asyncio.Event()) as context, client_of(context) as client:
        yield client


@pytest.fixture
def pace() -> Pace:
    """Leases outlive any test here. Override it in a module to have workers lost sooner."""
    return Pace(heartbeat_s=5, lease_s=60)


@pytest.fixture
async def server(database_url: str, tmp_path: Path, pace: Pace) -> AsyncIterator[Context]:
    """A server that this test has for itself."""
    settings = Settings(data_dir=tmp_path / "data", pace=pace)
    async with running(settings, database_url, asyncio.Event()) as context:
        yield context


@pytest.fixture
async def alone(server: Context) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that server."""
    async with client_of(server) as client:
        yield client


@pytest.fixture
async def twins(database_url: str, tmp_path: Path) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Clients of two servers on one database, with one data folder."""
    settings, stopping = Settings(data_dir=tmp_path / "data"), asyncio.Event()
    async with (
        running(settings, database_url, stopping) as one,
        running(settings, database_url, stopping) as other,
        client_of(one) as first,
        client_of(other) as second,
    ):
        yield first, second


@pytest.fixture
def sql(database_url: str) -> Callable[..., list[tuple[Any, ...]]]:
    """Asks the database behind `alone` or `twins` directly: `sql("SELECT count(*) FROM runs")`."""

    def ask(query: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(database_url, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    return ask


@pytest.fixture
def worker(alone: httpx.AsyncClient) -> Callable[..., Worker]:
    """Workers that do what the test says: `worker("w1", cpu=2)`."""
    return lambda name="w1", **has: Worker(alone, name, **has)


@dataclass(frozen=True)
class Listening:
    """A real server on a real socket, until `stopping` is set."""

    address: tuple[str, int]
    stopping: asyncio.Event


@pytest.fixture
async def listening(database_url: str, tmp_path: Path) -> AsyncIterator[Listening]:
    settings, stopping, ready = Settings(data_dir=tmp_path / "data"), asyncio.Event(), asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # As a server's own listener has it: else each answer waits 40 ms for the client's acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        serving = asyncio.create_task(one_process(settings, database_url, KEY, listener, stopping, ready.set))
        await ready.wait()
        yield Listening(listener.getsockname(), stopping)
        stopping.set()
        await serving

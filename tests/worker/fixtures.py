"""Clusters as fixtures; `conftest.py` makes them known to the tests in this folder."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gyoza.client.http import AsyncGyozaClient
from gyoza.policy.liveness import Pace
from gyoza.server.app import running
from gyoza.server.context import Context
from gyoza.server.settings import Settings

from .cluster import KEY, URL, Cluster, Line, line_to, working

SHARED_DATABASE = "worker_pipeline"


@pytest.fixture
async def quiet_loop() -> AsyncIterator[None]:
    """What asyncio only logs is a failure here: exceptions that nobody retrieved, tasks that were lost."""
    heard: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: heard.append(context))
    yield
    loop.set_exception_handler(None)
    assert heard == []


@pytest.fixture(scope="session")
def pipeline_database(postgres: str) -> Iterator[str]:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {SHARED_DATABASE} TEMPLATE template_gyoza")
    head, _, query = postgres.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{SHARED_DATABASE}?{query}"


@pytest.fixture(scope="session")
async def shared_cluster(pipeline_database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    folder = tmp_path_factory.mktemp("pipeline")
    settings = Settings(data_dir=folder / "data", pace=Pace(heartbeat_s=1, lease_s=60))
    async with running(settings, pipeline_database, asyncio.Event()) as server:
        line = line_to(server)
        async with (
            AsyncGyozaClient(URL, KEY, transport=line_to(server)) as user,
            working(line, user, folder / "worker") as cluster,
        ):
            yield cluster


@pytest.fixture
async def pipeline(shared_cluster: Cluster, quiet_loop: None) -> AsyncIterator[Cluster]:
    """One worker for many tests, which only run ops; after each it has nothing left."""
    yield shared_cluster
    await shared_cluster.until(lambda: shared_cluster.agent.is_idle, "the worker to be idle")
    assert shared_cluster.leftovers == []


@pytest.fixture
async def cluster(line: Line, user: AsyncGyozaClient, tmp_path: Path, quiet_loop: None) -> AsyncIterator[Cluster]:
    """A worker of one's own, to be disturbed."""
    async with working(line, user, tmp_path / "worker") as cluster:
        yield cluster


@pytest.fixture
async def user(server: Context) -> AsyncIterator[AsyncGyozaClient]:
    """The server's other client, whose line is never cut."""
    async with AsyncGyozaClient(URL, KEY, transport=line_to(server)) as client:
        yield client


@pytest.fixture
def line(server: Context) -> Line:
    return line_to(server)

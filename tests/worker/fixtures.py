"""Clusters as fixtures; `conftest.py` makes them known to the tests in this folder."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gyoza.client.http import AsyncGyozaClient
from gyoza.policy.liveness import Pace
from gyoza.server.app import running
from gyoza.server.context import Context
from gyoza.server.settings import Settings
from gyoza.worker.engines import Owner
from gyoza.worker.engines.docker import Docker
from gyoza.worker.engines.dockerd import connect, disconnect, owned
from gyoza.worker.engines.process import Process

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


def _database(postgres: str, name: str) -> str:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template_gyoza".encode())
    head, _, query = postgres.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{name}?{query}"


@asynccontextmanager
async def _at_work(database_url: str, folder: Path, engine: Any = Process) -> AsyncGenerator[Cluster]:
    settings = Settings(data_dir=folder / "data", pace=Pace(heartbeat_s=1, lease_s=60))
    async with running(settings, database_url, asyncio.Event()) as server:
        line = line_to(server)
        async with (
            AsyncGyozaClient(URL, KEY, transport=line_to(server)) as user,
            working(line, user, folder / "worker", engine=engine) as cluster,
        ):
            yield cluster


@pytest.fixture(scope="session")
def pipeline_database(postgres: str) -> str:
    return _database(postgres, SHARED_DATABASE)


@pytest.fixture(scope="session")
async def shared_cluster(pipeline_database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with _at_work(pipeline_database, tmp_path_factory.mktemp("pipeline")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
async def contained_cluster(
    docker_ready: None, postgres: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Cluster]:
    """The same with containers; the images that were built for it go in the end."""
    folder = tmp_path_factory.mktemp("contained")
    async with _at_work(_database(postgres, "worker_contained"), folder, contained) as cluster:
        yield cluster
    await remove_images(cluster)


def contained(owner: Owner, folder: Path) -> Docker:
    return Docker(owner, base_image=os.environ.get("GYOZA_BASE_IMAGE", "gyoza-base:bookworm"))


async def remove_images(cluster: Cluster) -> None:
    """Those that a Docker engine built; its containers must be gone."""
    if cluster.place.engine.name != "docker":
        return
    label, client = {"gyoza.cluster": cluster.owner.cluster}, await connect()
    try:
        left = await owned(client, label)
        for image in await client.images.list(filters={"label": [f"gyoza.cluster={cluster.owner.cluster}"]}):
            await client.images.delete(image["Id"], force=True)
    finally:
        await disconnect(client)
    assert left == []


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

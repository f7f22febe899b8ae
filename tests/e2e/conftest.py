"""Stages: an empty one, and ones over a database that is made already, since making it takes seconds."""

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiodocker
import pytest

from gyoza.client.call import get
from gyoza.worker.engines import Owner
from gyoza.worker.engines.docker import Docker
from gyoza.worker.engines.dockerd import connect, disconnect, owned, remove

from .stage import CALM, Command, Stage

BASE_IMAGE = os.environ.get("GYOZA_BASE_IMAGE", "gyoza-base:bookworm")


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as `gyoza db migrate` leaves it."""
    stage = Stage(tmp_path_factory.mktemp("made"))
    migrate = stage.run("db", "migrate")
    assert migrate.ends() == 0, migrate.said
    assert stage.end() == []
    return stage.data


@pytest.fixture
def empty_stage(tmp_path: Path) -> Iterator[Stage]:
    """Nothing is there: no data folder, no key."""
    yield from played(Stage(tmp_path))


@pytest.fixture
def stage(tmp_path: Path, made_data: Path) -> Iterator[Stage]:
    """A migrated database."""
    yield from played(Stage(tmp_path, **CALM), made_data)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, made_data: Path) -> Iterator[Stage]:
    """One server for all tests of a module, which bring their own workers (see `hire`)."""
    for stage in played(Stage(tmp_path_factory.mktemp("served"), **CALM), made_data):
        stage.server()
        yield stage


@pytest.fixture
def hire(served: Stage) -> Iterator[Callable[..., Command]]:
    """Start workers as `Stage.worker` does; they go when the test ends."""
    yield from hiring(served)


@pytest.fixture(scope="session")
async def docker() -> AsyncIterator[aiodocker.Docker]:
    """A way to ask the engine. Skips, or fails where Docker is required."""
    engine = Docker(Owner("-", "-", "-"), base_image=BASE_IMAGE)
    missing = await engine.can_run() or await engine.can_build()
    await engine.close()
    if missing is not None and os.environ.get("GYOZA_REQUIRE_DOCKER") == "1":
        pytest.fail(f"Docker is required (GYOZA_REQUIRE_DOCKER=1). {missing}")
    if missing is not None:
        pytest.skip(missing)
    client = await connect()
    yield client
    await disconnect(client)


@pytest.fixture(scope="module")
async def contained(
    tmp_path_factory: pytest.TempPathFactory, made_data: Path, docker: aiodocker.Docker
) -> AsyncIterator[Stage]:
    async for stage in containing(Stage(tmp_path_factory.mktemp("contained"), **CALM), made_data, docker):
        yield stage


async def containing(stage: Stage, made_data: Path, docker: aiodocker.Docker) -> AsyncIterator[Stage]:
    """A server whose workers run containers; the images that were built for it go in the end."""
    for each in played(stage, made_data):
        stage.environ |= {"GYOZA_RUNTIME": "docker", "GYOZA_BASE_IMAGE": BASE_IMAGE}
        stage.server()
        cluster = f"gyoza.cluster={stage.client.send(get('/health'))['cluster_id']}"
        yield each
        for name in await owned(docker, dict([cluster.split("=")])):  # of a test that failed
            await remove(docker, name)
        for image in await docker.images.list(filters={"label": [cluster]}):
            await docker.images.delete(image["Id"], force=True)


def played(stage: Stage, made_data: Path | None = None) -> Iterator[Stage]:
    """Whatever a test does, in the end nothing of it may be left."""
    if made_data is not None:
        # By `cp`, which keeps owners: PostgreSQL's files are not root's.
        subprocess.run(["cp", "-a", made_data, stage.data], check=True)
    try:
        yield stage
    finally:
        left = stage.end()
    assert left == []


def hiring(stage: Stage) -> Iterator[Callable[..., Command]]:
    """A way to start workers for one test, in a stage that lives longer; in the end they are gone, with their runs."""
    hired: list[Command] = []

    def hire(name: str, *options: str, **environ: str) -> Command:
        hired.append(stage.worker(name, "--drain-s", "0", *options, **environ))
        return hired[-1]

    yield hire
    stuck = [worker.said for worker in hired if not worker.end()]
    for state in ("PENDING", "ASSIGNED", "RUNNING"):  # of a test that failed
        for run in stage.client.list_runs(100, state=state)["data"]:
            stage.client.cancel_run(run["id"])
    assert stuck == []

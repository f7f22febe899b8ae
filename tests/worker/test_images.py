"""Images from the run's point of view: its timeline, its digest over all attempts, and what its worker says it has."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gyoza.client.http import AsyncGyozaClient
from gyoza.models.bundle import Bundle
from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Job, Owner
from gyoza.worker.engines.docker import Docker
from gyoza.worker.engines.dockerd import has_image
from gyoza.worker.engines.process import Process
from gyoza.worker.engines.references import listed, registry, repository

from .cluster import Cluster, Line, working
from .registry import Registry, make_image, unique

pytestmark = pytest.mark.timeout(120)
MakeJob = Callable[..., Job]
docker_only = pytest.mark.docker


@pytest.mark.parametrize(
    ("image", "as_listed", "its_repository", "host"),
    [
        ("python", "python:latest", "python", "docker.io"),
        ("docker.io/library/python:3", "python:3", "python", "docker.io"),
        ("index.docker.io/team/op", "team/op:latest", "team/op", "docker.io"),
        ("localhost/op:1", "localhost/op:1", "localhost/op", "localhost"),
        ("r.example.com:5000/a/b", "r.example.com:5000/a/b:latest", "r.example.com:5000/a/b", "r.example.com:5000"),
        ("r.example.com/a@sha256:1", "r.example.com/a@sha256:1", "r.example.com/a", "r.example.com"),
        ("a/b:2@sha256:1", "a/b:2@sha256:1", "a/b", "docker.io"),
    ],
)
def test_names_of_images_are_read_as_the_engine_reads_them(
    image: str, as_listed: str, its_repository: str, host: str
) -> None:
    assert (listed(image), repository(image), registry(image)) == (as_listed, its_repository, host)


@pytest.fixture
async def docker_cluster(
    docker_ready: None, owner: Owner, line: Line, user: AsyncGyozaClient, tmp_path: Path
) -> AsyncIterator[Cluster]:
    docker = Docker(owner, folder=tmp_path)
    make: Any = lambda *_: docker  # noqa: E731
    async with working(line, user, tmp_path / "worker", engine=make) as cluster:
        yield cluster
        await cluster.leave()
        await docker.close()  # it may be looking just now at what it has


async def ad_hoc(cluster: Cluster, image: str) -> str:
    return (await cluster.user.create_run(image, {}, constraints={"cpu": 0.1, "ram_mb": 64}))["id"]


@docker_only
async def test_every_run_that_waits_shows_the_pull_in_its_timeline(docker_cluster: Cluster, registry: Registry) -> None:
    name = unique("timeline")
    await registry.push(name)
    image = f"{registry.host}/{name}"
    runs = [await ad_hoc(docker_cluster, image) for _ in range(2)]
    for run_id in runs:
        await docker_cluster.ended(run_id)
    told = [await docker_cluster.told(run_id) for run_id in runs]
    assert ("INFO", f"Pulling the image '{image}'") in told[0]
    kinds = [[kind for kind, msg in each if kind != "INFO" or "image" in msg] for each in told]
    assert kinds[0] == ["INFO", "INFO", "STARTED", "FAILED"]
    assert kinds[1] in (["INFO", "INFO", "STARTED", "FAILED"], ["STARTED", "FAILED"])  # it may have come too late


@docker_only
async def test_a_retry_runs_the_image_of_the_first_attempt_also_when_its_tag_has_moved(
    docker_cluster: Cluster, registry: Registry
) -> None:
    name = unique("moved")
    image = f"{registry.host}/{name}"
    await registry.push(name)
    run_id = await ad_hoc(docker_cluster, image)
    await docker_cluster.ended(run_id)
    await registry.client.images.delete(image)
    await registry.push(name)
    await docker_cluster.user.retry_run(run_id)
    await docker_cluster.ended(run_id)
    fresh = await docker_cluster.ended(await ad_hoc(docker_cluster, image))
    first, second = (each["execution_summary"]["image_digest"] for each in await attempts(docker_cluster, run_id))
    assert first == second and first.startswith(f"{image}@sha256:")
    assert fresh["execution_summary"]["image_digest"] != first


@docker_only
async def test_an_attempt_that_did_not_start_pins_its_image_too(docker_cluster: Cluster, registry: Registry) -> None:
    image = unique("gyoza-test")
    await make_image(registry.client, image, command=False)
    try:
        run = await docker_cluster.ended(await ad_hoc(docker_cluster, image))
        image_id = (await registry.client.images.inspect(image))["Id"]
        assert "STARTED" not in [kind for kind, _ in await docker_cluster.told(run["id"])]
        assert run["execution_summary"]["image_digest"] == image_id
    finally:
        await registry.client.images.delete(image, force=True)


@docker_only
async def test_the_image_of_a_run_may_go_once_the_run_has_ended(
    docker_cluster: Cluster, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [unique("ended"), unique("next")]
    for name in names:
        await registry.push(name)
    old, new = (f"{registry.host}/{name}" for name in names)
    await docker_cluster.ended(await ad_hoc(docker_cluster, old))
    assert await has_image(registry.client, old)
    monkeypatch.setattr("gyoza.worker.engines.trimming.used_percent", lambda _: 99.0)
    await docker_cluster.ended(await ad_hoc(docker_cluster, new))
    assert not await has_image(registry.client, old)


@docker_only
async def test_a_bundle_is_built_once_however_many_wait_and_each_is_told(
    docker: Docker, job: MakeJob, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    archive = tmp_path / "bundle.tar.gz"
    bundle = make_bundle(archive, {"app/main.py": uuid4().bytes})
    told: list[list[str]] = [[], [], []]
    await asyncio.gather(*(docker.ready(job(bundle=bundle, archive=archive), each.append) for each in told))
    said = {text for each in told for text in each}
    assert sorted(text.split()[0] for text in said) == ["Building", "Built"]


async def attempts(cluster: Cluster, run_id: str) -> list[dict[str, Any]]:
    return await cluster.user.get_attempts(run_id)


@docker_only
async def test_the_server_shows_what_a_worker_has_the_newest_used_first(
    docker_cluster: Cluster, registry: Registry
) -> None:
    names = [unique("older"), unique("newer")]
    for name in names:
        await registry.push(name)
        await docker_cluster.ended(await ad_hoc(docker_cluster, f"{registry.host}/{name}"))
    older, newer = (f"{registry.host}/{name}:latest" for name in names)

    async def shown() -> list[str]:
        return (await docker_cluster.user.get_worker("one"))["images"]

    async def has_both() -> bool:
        return {older, newer} <= set(await shown())

    await docker_cluster.until(has_both, "the worker to say what it has")
    images = await shown()
    assert images.index(newer) < images.index(older)
    assert any(each.startswith(f"{registry.host}/{names[1]}@sha256:") for each in images)


@docker_only
async def test_a_bundle_that_was_built_is_named_by_its_digest(
    docker: Docker, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = job()
    await docker.ready(made)
    client, _ = await docker._engine()
    named = await docker._images.named(client)
    assert made.bundle.digest in named and not any("gyoza-bundle" in name for name in named)
    monkeypatch.setattr("gyoza.worker.engines.images.MOST_NAMED", 1)
    assert await docker._images.named(client) == [made.bundle.digest]  # used last, and not more than that


@docker_only
async def test_asking_what_is_there_never_waits_for_the_engine(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    engine = Docker(owner)
    assert list(engine.images()) == []
    await engine.close()


async def test_a_process_worker_says_which_bundles_it_has_unpacked(
    owner: Owner, job: MakeJob, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    engine = Process(owner, tmp_path / "engine")
    assert list(engine.images()) == []
    archives = tmp_path / "a.tar.gz", tmp_path / "b.tar.gz"
    first, second = (
        job(bundle=make_bundle(archive, {"app/main.py": archive.name.encode()}), archive=archive)
        for archive in archives
    )
    for made in (first, second, first):
        await engine.ready(made)
    assert list(engine.images()) == [first.bundle.digest, second.bundle.digest]


async def test_a_process_worker_leaves_a_run_that_is_pinned_to_an_image_to_others(
    process: Process, job: MakeJob
) -> None:
    await process.ready(job(image_digest=job().bundle.digest))
    with pytest.raises(AttemptError) as caught:
        await process.ready(job(image="op", image_digest="op@sha256:1"))
    assert caught.value.reason == "start_failed" and "op@sha256:1" in caught.value.detail

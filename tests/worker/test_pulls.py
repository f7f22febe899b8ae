"""Pulling from a real registry: once for all who wait, told as it goes, given up only when it stands still."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from time import time
from typing import Any

import pytest

from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Job, Owner, Ready
from gyoza.worker.engines.docker import Docker

from .registry import Registry, Tap, make_image, unique

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120), pytest.mark.usefixtures("docker_ready")]
MakeJob = Callable[..., Job]
SIZE = 4_000_000


@pytest.fixture
async def engine(owner: Owner) -> AsyncIterator[Docker]:
    engine = Docker(owner)
    yield engine
    await engine.close()


async def until(true: Callable[[], object], within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.02)


async def fails(reason: str, doing: Awaitable[Any]) -> str:
    with pytest.raises(AttemptError) as caught:
        await doing
    assert caught.value.reason == reason, caught.value.detail
    return caught.value.detail


async def pulls_of(registry: Registry, image: str, since: float) -> int:
    """How often the engine was asked for it, by its own account."""
    client = registry.client
    filters = json.dumps({"type": ["image"], "event": ["pull"]})
    params = {"since": f"{since:.9f}", "until": f"{time():.9f}", "filters": filters}
    async with client.session.get(f"{client.docker_host}/{client.api_version}/events", params=params) as response:
        events = [json.loads(line) async for line in response.content]
    return sum(event["Actor"]["ID"] == image for event in events)


def of(job: MakeJob, image: str, **changes: Any) -> Job:
    return job(image=image, bundle=None, archive=None, **changes)


async def test_an_image_is_pulled_once_however_many_runs_wait(engine: Docker, job: MakeJob, registry: Registry) -> None:
    name, since = unique("many"), time()
    image_id = await registry.push(name, SIZE)
    async with Tap(registry, SIZE // 2) as tap:
        waiting = [asyncio.create_task(engine.ready(of(job, f"{tap.host}/{name}"))) for _ in range(4)]
        await until(tap.is_held.is_set)
        waiting.append(asyncio.create_task(engine.ready(of(job, f"{tap.host}/{name}:latest"))))
        await asyncio.wait(waiting, timeout=0.2)
        tap.open()
        assert {ready.name for ready in await asyncio.gather(*waiting)} == {image_id}
        assert await pulls_of(registry, f"{tap.host}/{name}:latest", since) == 1


async def test_whoever_leaves_does_not_break_the_pull_of_the_others(
    engine: Docker, job: MakeJob, registry: Registry
) -> None:
    name, since = unique("leave"), time()
    image_id = await registry.push(name, SIZE)
    async with Tap(registry, SIZE // 2) as tap:
        said: list[str] = []
        first = asyncio.create_task(engine.ready(of(job, f"{tap.host}/{name}")))
        await until(tap.is_held.is_set)
        second = asyncio.create_task(engine.ready(of(job, f"{tap.host}/{name}"), said.append))
        await until(lambda: said)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        tap.open()
        assert (await second).name == image_id
        assert await pulls_of(registry, f"{tap.host}/{name}:latest", since) == 1


async def test_the_last_one_that_leaves_breaks_the_pull_off(engine: Docker, job: MakeJob, registry: Registry) -> None:
    name = unique("last")
    await registry.push(name, SIZE)
    async with Tap(registry, SIZE // 2) as tap:
        tap.drip = SIZE // 500, 1  # the engine notices at the next bytes; all of them would take minutes
        waiting = [asyncio.create_task(engine.ready(of(job, f"{tap.host}/{name}"))) for _ in range(2)]
        await until(tap.is_held.is_set)
        assert not tap.is_idle
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await until(lambda: tap.is_idle)


async def test_after_a_pull_was_broken_off_the_next_one_begins_anew(
    engine: Docker, job: MakeJob, registry: Registry
) -> None:
    name = unique("anew")
    image_id = await registry.push(name, SIZE)
    async with Tap(registry, SIZE // 2) as tap:
        waiting = asyncio.create_task(engine.ready(of(job, f"{tap.host}/{name}")))
        await until(tap.is_held.is_set)
        waiting.cancel()
        again = asyncio.create_task(engine.ready(of(job, f"{tap.host}/{name}")))
        await asyncio.gather(waiting, return_exceptions=True)
        tap.open()
        assert (await again).name == image_id


async def test_progress_is_told_to_everyone_who_waits(
    engine: Docker, job: MakeJob, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gyoza.worker.engines.pulls.TELL_S", 0.0)
    name = unique("told")
    await registry.push(name, SIZE)
    async with Tap(registry, SIZE // 2) as tap:
        image, early, late = f"{tap.host}/{name}", list[str](), list[str]()
        waiting = [asyncio.create_task(engine.ready(of(job, image), early.append))]
        await until(lambda: "%" in "".join(early) and tap.is_held.is_set())
        waiting.append(asyncio.create_task(engine.ready(of(job, image), late.append)))
        await until(lambda: late)
        assert "%" in late[0]
        tap.open()
        await asyncio.gather(*waiting)
    assert early[0] == f"Pulling the image '{image}'"
    percents = [int(found[1]) for text in early if (found := re.search(r" of 4\.0 MB \((\d+) %\)", text))]
    assert percents and len(percents) <= len(set(percents)) + 1 and percents == sorted(percents)
    assert re.fullmatch(rf"Pulled the image '{image}' in \d+\.\d s, 4\.0 MB", early[-1])
    assert late[-1] == early[-1]


async def test_progress_is_told_sparingly(
    engine: Docker, job: MakeJob, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gyoza.worker.engines.pulls.TELL_S", 3600.0)
    name, said = unique("sparing"), list[str]()
    await registry.push(name, SIZE)
    await engine.ready(of(job, f"{registry.host}/{name}"), said.append)
    assert [text.split()[0] for text in said] == ["Pulling", "Pulled"]
    await engine.ready(of(job, f"{registry.host}/{name}"), said.append)
    assert len(said) == 2


async def test_a_pull_that_stands_still_in_the_middle_is_given_up(
    owner: Owner, job: MakeJob, registry: Registry
) -> None:
    name, engine = unique("stall"), Docker(owner, stall_s=4)
    await registry.push(name, SIZE)
    async with Tap(registry, SIZE // 2) as tap:
        waiting = [engine.ready(of(job, f"{tap.host}/{name}")) for _ in range(2)]
        for detail in await asyncio.gather(*(fails("image_pull_failed", each) for each in waiting)):
            assert "stood still for 4 s" in detail
        assert tap.is_held.is_set()
    await engine.close()


async def test_a_pull_that_is_slow_is_not(owner: Owner, job: MakeJob, registry: Registry) -> None:
    name, engine = unique("slow"), Docker(owner, stall_s=3)
    image_id = await registry.push(name, SIZE)
    async with Tap(registry, SIZE // 4) as tap:
        tap.drip = SIZE // 8, 1
        began = time()
        assert (await engine.ready(of(job, f"{tap.host}/{name}"))).name == image_id
        assert time() - began > 3
    await engine.close()


async def pinned(engine: Docker, job: MakeJob, image: str, digest: str | None) -> Ready:
    return await engine.ready(of(job, image, image_digest=digest))


async def test_a_later_attempt_runs_the_digest_of_the_first_and_no_newer_tag(
    owner: Owner, engine: Docker, job: MakeJob, registry: Registry
) -> None:
    name = unique("pinned")
    image, old = f"{registry.host}/{name}:v1", await registry.push(f"{name}:v1")
    first = await engine.ready(of(job, image))
    assert first.name == old and re.fullmatch(rf"{registry.host}/{name}@sha256:[0-9a-f]{{64}}", first.digest or "")
    await registry.client.images.delete(image)
    new = await registry.push(f"{name}:v1")
    assert (await engine.ready(of(job, image))).name == new
    assert await pinned(engine, job, image, first.digest) == first
    assert (await engine.ready(of(job, image))).name == new


async def test_a_digest_that_is_gone_from_its_registry_is_not_found(
    engine: Docker, job: MakeJob, registry: Registry
) -> None:
    name = unique("gone")
    await registry.push(name)
    image = f"{registry.host}/{name}"
    digest = f"{image}@sha256:{'0' * 64}"
    assert digest in await fails("image_not_found", pinned(engine, job, image, digest))


async def test_a_digest_of_another_repository_is_not_run(engine: Docker, job: MakeJob, registry: Registry) -> None:
    """Whoever reports a digest could otherwise choose what other workers run."""
    names = unique("mine"), unique("other")
    for name in names:
        await registry.push(name, keep=True)
    mine, other = (f"{registry.host}/{name}" for name in names)
    digest = (await engine.ready(of(job, other))).digest
    assert mine in await fails("image_not_found", pinned(engine, job, mine, digest))


async def test_an_image_of_no_registry_is_pinned_by_its_id_and_found_only_where_it_is(
    owner: Owner, engine: Docker, job: MakeJob, registry: Registry
) -> None:
    image = unique("gyoza-test")
    await make_image(registry.client, image)
    try:
        first = await engine.ready(of(job, image))
        assert first.digest == first.name
        await registry.client.images.tag(first.name, repo=image, tag="old")
        await make_image(registry.client, image)
        assert (await engine.ready(of(job, image))).name != first.name
        assert await pinned(engine, job, image, first.digest) == first
        elsewhere = "sha256:" + "0" * 64
        detail = await fails("image_not_found", pinned(engine, job, image, elsewhere))
        assert elsewhere in detail and "push it" in detail
        strict = Docker(owner, allowed_images=[f"{image}:*"])
        await fails("image_not_found", pinned(strict, job, image, first.digest))  # the name means another now
        await strict.close()
    finally:
        for tag in ("old", "latest"):
            await registry.client.images.delete(f"{image}:{tag}", force=True)


async def test_a_run_that_was_built_from_its_bundle_stays_with_it(
    docker: Docker, job: MakeJob, registry: Registry
) -> None:
    name = unique("both")
    image_id = await registry.push(name)
    made = job("print('from the bundle')", image=f"{registry.host}/{name}", image_digest=job().bundle.digest)
    ready = await docker.ready(made)
    assert ready.name != image_id and ready.digest == made.bundle.digest
    async with docker.started(made, ready) as running:
        await running.wait()
        assert await running.log_tail() == "from the bundle\n"


async def test_what_is_pinned_must_be_allowed_by_the_name_that_the_run_gives(
    owner: Owner, job: MakeJob, registry: Registry
) -> None:
    name = unique("allowed")
    await registry.push(name)
    image, engine = f"{registry.host}/{name}", Docker(owner)
    digest = (await engine.ready(of(job, image))).digest
    await engine.close()
    for allowed, reason in (([f"{image}:*"], None), (["ghcr.io/*"], "not_allowed")):
        engine = Docker(owner, allowed_images=allowed)
        doing = pinned(engine, job, image, digest)
        await (fails(reason, doing) if reason else doing)
        await engine.close()

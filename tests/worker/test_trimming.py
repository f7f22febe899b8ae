"""Which images go when the disk fills, and which never do: by the rule alone, then on a real engine."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiodocker
import pytest

from gyoza.models.bundle import Bundle
from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Job, Owner, dockerd
from gyoza.worker.engines.builds import BUILDER, BUNDLE
from gyoza.worker.engines.confinement import labels
from gyoza.worker.engines.disk import Watermark, used_percent
from gyoza.worker.engines.docker import Docker
from gyoza.worker.engines.dockerd import Image
from gyoza.worker.engines.pulls import pull
from gyoza.worker.engines.shelf import Shelf
from gyoza.worker.engines.trimming import may_go
from gyoza.worker.process import choose_engine
from gyoza.worker.settings import WorkerSettings

from .conftest import BASE_IMAGE
from .registry import Registry, make_image, unique

MakeJob = Callable[..., Job]
docker_only = [pytest.mark.docker, pytest.mark.timeout(120)]
US, OTHERS = Owner("c", "h", "us"), Owner("c", "h", "others")
FULL, FREE = 90.0, 10.0


def built(image_id: str, by: Owner = US, **more: Any) -> Image:
    marks = {**labels(by), BUNDLE: "sha256:b", BUILDER: by.mark}
    return Image(image_id, tags=[f"gyoza-bundle:{image_id}"], labels=marks, **more)


def goes(*images: Image, shelf: Shelf | None = None, taken: tuple[str, ...] = (), leftovers: bool = True) -> list[str]:
    return [image.id for image in may_go(images, shelf or Shelf(None), US, taken, leftovers=leftovers)]


def shelf_with(**used_at: float) -> Shelf:
    """These were pulled as `op:latest`."""
    shelf = Shelf(None)
    for image_id, at in used_at.items():
        shelf.pulled(image_id, "op:latest", at)
    return shelf


def test_the_least_recently_used_goes_first_and_what_was_never_used_counts_from_its_making() -> None:
    shelf = shelf_with(a=30, b=10)
    names = {"tags": ["op:latest"]}
    assert goes(Image("a", **names), Image("b", **names), built("c", made_at=20), shelf=shelf) == ["b", "c", "a"]
    shelf.used("b", 40)
    assert goes(Image("a", **names), Image("b", **names), shelf=shelf) == ["a", "b"]


@pytest.mark.parametrize(
    "image",
    [
        Image("x", tags=["op:latest"]),
        Image("x", tags=["gyoza-bundle:x"]),
        Image("x"),
        built("x", OTHERS),
        Image("x", labels={BUILDER: OTHERS.mark}),
        Image("a", tags=["op:latest", "mine:1"]),
        Image("a", tags=["op:latest"], digests=["mine@sha256:1"]),
        Image("x", tags=["gyoza-bundle:x", "mine:1"], labels=built("x").labels),
    ],
)
def test_what_somebody_else_brought_built_or_named_never_goes(image: Image) -> None:
    assert goes(image, shelf=shelf_with(a=1)) == []


def test_an_image_that_lost_its_tag_to_a_newer_one_goes_by_its_digest() -> None:
    assert goes(Image("a", digests=["op@sha256:1"]), shelf=shelf_with(a=1)) == ["a"]


def test_what_is_taken_and_what_others_are_built_on_never_goes() -> None:
    shelf = shelf_with(base=1)
    assert goes(Image("base", tags=["op:latest"]), Image("layer", parent="base"), shelf=shelf) == []
    assert goes(built("a"), built("b"), taken=("a",)) == ["b"]


def test_what_failed_builds_left_goes_first_but_not_while_one_is_under_way() -> None:
    left = Image("left", made_at=99, labels={BUILDER: US.mark})
    assert goes(built("a"), left) == ["left", "a"]
    assert goes(built("a"), left, leftovers=False) == ["a"]


def test_what_was_brought_here_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    Shelf(path).pulled("a", "op:latest", 5)
    Shelf(path).used("b", 7)
    again = Shelf(path)
    assert (again.names("a"), again.names("b")) == (["op:latest"], [])
    assert (again.used_at("a", 0), again.used_at("b", 0), again.used_at("c", 3)) == (5, 7, 3)
    again.forget({"a"})
    assert Shelf(path).ids == {"b"}


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"used_at": "x", "names": []}}', "\0"])
def test_a_list_that_is_broken_costs_no_worker_its_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "images.json").write_text(text)
    assert Shelf(tmp_path / "images.json").ids == set()


def test_how_full_a_disk_is_and_that_of_another_machine_is_left_to_itself(tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    assert used_percent(tmp_path) == pytest.approx(100 * usage.used / (usage.used + usage.free), abs=5)
    assert used_percent(tmp_path / "nowhere") == 0


@pytest.fixture
async def client(docker_ready: None) -> AsyncIterator[aiodocker.Docker]:
    client = await dockerd.connect()
    yield client
    await dockerd.disconnect(client)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """How full the engine's disk is said to be, one answer after the other, the last one for ever: only this is made
    up, since a test cannot fill the disk that it shares."""
    answers = [FREE]
    monkeypatch.setattr(
        "gyoza.worker.engines.trimming.used_percent", lambda _: answers.pop(0) if len(answers) > 1 else answers[0]
    )
    yield answers


@asynccontextmanager
async def a_worker(folder: Path, name: str = "", **settings: Any) -> AsyncIterator[Docker]:
    engine = Docker(Owner(f"test-{name or uuid4().hex}", "here", "two"), folder=folder, **settings)
    yield engine
    await engine.close()


async def is_there(client: aiodocker.Docker, image: str) -> bool:
    return await dockerd.has_image(client, image)


class Shop:
    """Brings images to an engine as runs would."""

    def __init__(self, registry: Registry, job: MakeJob):
        self.registry, self._job = registry, job

    def of(self, image: str) -> Job:
        return self._job(image=image, bundle=None, archive=None)

    async def pulled(self, engine: Docker, word: str) -> str:
        """A fresh image, no longer needed: its name."""
        name = unique(word)
        await self.registry.push(name)
        await self.use(engine, f"{self.registry.host}/{name}")
        return f"{self.registry.host}/{name}"

    async def use(self, engine: Docker, image: str) -> None:
        made = self.of(image)
        await engine.ready(made)
        engine.release(made)


@pytest.fixture
def shop(registry: Registry, job: MakeJob) -> Shop:
    return Shop(registry, job)


class TestOnAnEngine:
    pytestmark = docker_only

    async def test_the_least_recently_used_go_until_the_low_mark(
        self, shop: Shop, client: aiodocker.Docker, tmp_path: Path, used: list[float]
    ) -> None:
        async with a_worker(tmp_path) as engine:
            first, second, third = [await shop.pulled(engine, word) for word in ("first", "second", "third")]
            await shop.use(engine, first)
            used[:] = [FULL, FULL, FULL, FREE]  # twice before it looks, once before each that goes
            await shop.use(engine, third)
            assert [await is_there(client, each) for each in (first, second, third)] == [True, False, True]

    async def test_below_the_high_mark_nothing_goes(
        self, shop: Shop, client: aiodocker.Docker, tmp_path: Path, used: list[float]
    ) -> None:
        async with a_worker(tmp_path) as engine:
            image = await shop.pulled(engine, "below")
            used[:] = [80.0]
            await shop.pulled(engine, "other")
            assert await is_there(client, image)

    async def test_marks_are_the_operators(
        self, shop: Shop, client: aiodocker.Docker, tmp_path: Path, used: list[float]
    ) -> None:
        async with a_worker(tmp_path, watermark=Watermark(60, 50)) as engine:
            image = await shop.pulled(engine, "marks")
            used[:] = [61.0]
            await shop.pulled(engine, "other")
            assert not await is_there(client, image)

    async def test_a_worker_as_it_starts_keeps_to_its_settings_on_the_real_disk(
        self, shop: Shop, client: aiodocker.Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gyoza.worker.engines.trimming.PAUSE_S", 0)
        environ = {"GYOZA_IMAGE_DISK_PERCENT": "0/0"}
        settings = replace(WorkerSettings.from_environment(environ, name="w"), folder=tmp_path, runtime="docker")
        engine, _ = await choose_engine(settings, Owner(uuid4().hex, "here", "w"))
        try:
            image = await shop.pulled(engine, "real")
            assert (tmp_path / "images.json").is_file()
            await shop.pulled(engine, "other")
            assert not await is_there(client, image)
        finally:
            await engine.close()

    async def test_what_a_later_process_finds_on_its_list_goes_too(
        self, shop: Shop, client: aiodocker.Docker, tmp_path: Path, used: list[float]
    ) -> None:
        async with a_worker(tmp_path, "same") as engine:
            image = await shop.pulled(engine, "before")
        used[:] = [FULL]
        async with a_worker(tmp_path, "same") as engine:
            await shop.pulled(engine, "other")
            assert not await is_there(client, image)

    async def test_an_image_that_an_attempt_waits_for_or_runs_stays(
        self, shop: Shop, client: aiodocker.Docker, tmp_path: Path, used: list[float]
    ) -> None:
        async with a_worker(tmp_path) as engine:
            image = await shop.pulled(engine, "waits")
            other_name = f"{image}:other"
            await client.images.tag(image, repo=image, tag="other")
            await client.images.push(other_name)
            await client.images.delete(other_name)
            await shop.use(engine, other_name)
            waiting = shop.of(image)
            ready = await engine.ready(waiting)
            used[:] = [FULL]
            await shop.pulled(engine, "other")
            assert await is_there(client, image)
            engine.release(waiting)
            container = await client.containers.create({"Image": ready.name}, name=unique("gyoza-test"))
            try:
                async with a_worker(tmp_path) as again:
                    await shop.pulled(again, "another")
                    assert [await is_there(client, name) for name in (image, other_name)] == [True, True]
            finally:
                await container.delete(force=True)
            async with a_worker(tmp_path) as last:
                await shop.pulled(last, "last")
                assert not await is_there(client, image)

    async def test_what_a_user_put_there_stays(
        self, shop: Shop, client: aiodocker.Docker, tmp_path: Path, used: list[float]
    ) -> None:
        """Built, pulled by its digest before the worker asked for its tag, or pulled by the worker and then named."""
        own, name = unique("gyoza-test"), unique("early")
        await make_image(client, own)
        await shop.registry.push(name, keep=True)
        early = f"{shop.registry.host}/{name}"
        (digest,) = (await client.images.inspect(early))["RepoDigests"]
        await client.images.delete(early)
        await client.images.pull(digest)
        try:
            async with a_worker(tmp_path) as engine:
                for image in (own, early):
                    await shop.use(engine, image)
                named = await shop.pulled(engine, "named")
                await client.images.tag(named, repo=f"{shop.registry.host}/{unique('mine')}", tag="1")
                used[:] = [FULL]
                await shop.pulled(engine, "other")
                assert [await is_there(client, image) for image in (own, early, named)] == [True, True, True]
        finally:
            await client.images.delete(own)

    async def test_what_was_built_goes_and_so_does_what_a_failed_build_left(
        self, client: aiodocker.Docker, job: MakeJob, make_bundle: Callable[..., Bundle], tmp_path: Path,
        used: list[float], shop: Shop,
    ) -> None:  # fmt: skip
        good, bad = tmp_path / "good.tar.gz", tmp_path / "bad.tar.gz"
        fine = job(bundle=make_bundle(good, {"app/main.py": uuid4().bytes}), archive=good)
        lock = f"nothing=={uuid4().int} --hash=sha256:{'0' * 64}".encode()
        broken = job(bundle=make_bundle(bad, {"app/main.py": b"", "requirements.lock": lock}), archive=bad)
        async with a_worker(tmp_path, base_image=BASE_IMAGE) as engine:
            ready = await engine.ready(fine)
            with pytest.raises(AttemptError):
                await engine.ready(broken)
            left = await _left_by(client, engine)
            assert left
            engine.release(fine)
            used[:] = [FULL]
            await shop.pulled(engine, "other")
            assert not await is_there(client, ready.name)
            assert await _left_by(client, engine) == []
            assert await is_there(client, BASE_IMAGE)

    async def test_what_does_not_fit_is_pulled_again_once_room_was_made(
        self, shop: Shop, client: aiodocker.Docker, tmp_path: Path, used: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with a_worker(tmp_path) as engine:
            image = await shop.pulled(engine, "makes-room")
            used[:] = [80.0]  # between the marks

            async def fits_when_it_is_gone(*how: Any) -> None:
                if await is_there(client, image):
                    raise AttemptError("disk_full", "no space left on device")
                await pull(*how)

            monkeypatch.setattr("gyoza.worker.engines.images.pull", fits_when_it_is_gone)
            other = await shop.pulled(engine, "fits")
            assert await is_there(client, other)
            monkeypatch.setattr("gyoza.worker.engines.images.pull", _never_fits)
            with pytest.raises(AttemptError, match="no space left"):
                await shop.pulled(engine, "too-large")

    async def test_an_image_that_goes_while_a_run_asks_for_it_is_had_again(
        self, shop: Shop, client: aiodocker.Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with a_worker(tmp_path) as engine:
            image = await shop.pulled(engine, "again")
            has, asked = dockerd.has_image, asyncio.Event()

            async def has_not_once(client: aiodocker.Docker, image_id: str) -> bool:
                if not asked.is_set():
                    asked.set()
                    await client.images.delete(image)
                return await has(client, image_id)

            monkeypatch.setattr(dockerd, "has_image", has_not_once)
            made = shop.of(image)
            ready = await engine.ready(made)
            assert asked.is_set() and await has(client, ready.name)


async def _never_fits(*_: Any) -> None:
    raise AttemptError("disk_full", "no space left on device")


async def _left_by(client: aiodocker.Docker, engine: Docker) -> list[str]:
    mark = engine._owner.mark
    return [each.id for each in await dockerd.images(client) if not each.is_named and each.labels.get(BUILDER) == mark]

"""Images for the Docker engine: had already, pulled, or built from a bundle; each once, however many runs wait."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from time import time
from typing import TypeVar

import aiodocker
from aiodocker.exceptions import DockerError

from gyoza.models.bundle import Bundle
from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Job, Owner, Ready, Say, dockerd, silent
from gyoza.worker.engines.allowed import ImageName, allows
from gyoza.worker.engines.builds import BUNDLE, REPOSITORY, Build, tag
from gyoza.worker.engines.disk import Watermark
from gyoza.worker.engines.dockerd import TROUBLE, Image, why
from gyoza.worker.engines.pulls import pull
from gyoza.worker.engines.references import DIGEST, REFERENCE, listed, repository
from gyoza.worker.engines.sharing import Shared
from gyoza.worker.engines.shelf import Shelf
from gyoza.worker.engines.trimming import Trimming

MOST_NAMED = 200

T = TypeVar("T")


class Images:
    """`base_image`: on what bundles are built, whatever they name. `allowed`: glob patterns, empty for all images.

    A pull or build that says nothing for `stall_s` (a build: five times as long) is given up. `folder`: where is kept
    which images are this worker's own; without it, none that it pulled outlives the process as such. `changed` is
    called when there are more or fewer of them.
    """

    def __init__(
        self,
        owner: Owner,
        base_image: str | None,
        allowed: Sequence[str],
        stall_s: float,
        *,
        folder: Path | None = None,
        watermark: Watermark = Watermark(),
        changed: Callable[[], object] = lambda: None,
    ):
        self._owner, self._base_image, self._allowed, self._stall_s = owner, base_image, allowed, stall_s
        self._changed = changed
        self._pulls, self._builds = Shared[None](), Shared[None]()
        self._shelf = Shelf(folder / "images.json" if folder else None)
        self._trimming = Trimming(owner, self._shelf, watermark)

    async def ready(self, client: aiodocker.Docker, disk: Path, job: Job, say: Say) -> Ready:
        """The job's image, which stays on this machine until `release`. `disk`: where the engine keeps its images."""
        await self._make_room(client, disk)
        while True:
            found = await self._fitted(client, disk, job, say)
            if await _asked(self._trimming.hold(client, job.name, found)):
                return found

    async def _make_room(self, client: aiodocker.Docker, disk: Path, *, is_full: bool = False) -> bool:
        count = await self._trimming.trim(client, disk, is_full=is_full)
        if count:
            self._changed()
        return count > 0

    async def _fitted(self, client: aiodocker.Docker, disk: Path, job: Job, say: Say) -> Ready:
        """What does not fit is tried once more where room could be made for it."""
        try:
            return await self._brought(client, job, say)
        except AttemptError as error:
            if error.reason != "disk_full" or not await self._make_room(client, disk, is_full=True):
                raise
        return await self._brought(client, job, say)

    def release(self, job: Job) -> None:
        self._trimming.release(job.name)

    async def _brought(self, client: aiodocker.Docker, job: Job, say: Say) -> Ready:
        """`job.image` where it can be had, else its bundle, built; but what is pinned, where something is.

        With both, what is on this machine already comes before asking a registry, so that an image which exists
        nowhere costs one failed pull and not one for each attempt.
        """
        if job.image_digest is not None:
            return await self._pinned(client, job, job.image_digest, say)
        if job.bundle is None or job.archive is None:
            return await self.have(client, job.image or "", say)
        if job.image is None or not REFERENCE.fullmatch(job.image) or not self._allows(job.image):
            return await self.built(client, job.bundle, job.archive, say)
        if local := await _local(client, self._full(job.image)):
            return local
        if built := await self._built_before(client, job.bundle):
            return built
        try:
            return await self.have(client, job.image, say)
        except AttemptError:
            return await self.built(client, job.bundle, job.archive, say)

    async def _pinned(self, client: aiodocker.Docker, job: Job, digest: str, say: Say) -> Ready:
        """Exactly what an earlier attempt of the run was run from, never what bears its name now."""
        if job.bundle is not None and job.archive is not None and digest == job.bundle.digest:
            return await self.built(client, job.bundle, job.archive, say)
        image = job.image or ""
        self._check(image)
        if DIGEST.fullmatch(digest):
            return await self._same(client, image, digest)
        if not REFERENCE.fullmatch(digest) or repository(digest) != repository(image):
            raise AttemptError("image_not_found", f"The run is pinned to '{digest}', which is no digest of '{image}'")
        return Ready((await self.have(client, digest, say, trusted=True)).name, digest)

    async def _same(self, client: aiodocker.Docker, image: str, image_id: str) -> Ready:
        """An image that no registry knew can be had only where it is; an allow-list knows it by its name alone."""
        found = await _local(client, image if self._allowed else image_id)
        if found is None or found.name != image_id:
            text = f"An earlier attempt of this run ran the image '{image}' as {image_id}, which came from no registry "
            raise AttemptError("image_not_found", f"{text}and this worker has not: push it, and replay the run")
        return found

    async def have(self, client: aiodocker.Docker, image: str, say: Say = silent, *, trusted: bool = False) -> Ready:
        """AttemptError `not_allowed`, `image_not_found` or `image_pull_failed`. `trusted`: no allow-list."""
        self._check(image, trusted=trusted)
        image = image if trusted else self._full(image)
        if local := await _local(client, image):
            return local
        await self._pulls.once(listed(image), partial(self._pull, client, image), say)
        if local := await _local(client, image):
            return local
        raise AttemptError("image_pull_failed", f"Pulling the image '{image}' was broken off: try again")

    def _check(self, image: str, *, trusted: bool = False) -> None:
        if not REFERENCE.fullmatch(image):
            raise AttemptError("image_not_found", f"'{image}' is not the name of an image: correct it where it is set")
        if not trusted and not self._allows(image):
            raise AttemptError(
                "not_allowed",
                f"This worker may not run the image '{image}': its allow-list is {', '.join(self._allowed)}",
            )

    def _allows(self, image: str) -> bool:
        return not self._allowed or allows(self._allowed, image)

    def _full(self, image: str) -> str:
        """How the engine is asked for it: where names are judged, so that it cannot take one for an image's id."""
        return str(ImageName.of(image) or image) if self._allowed else image

    async def _pull(self, client: aiodocker.Docker, image: str, say: Say) -> None:
        """What somebody else had brought here before, under whatever name, does not become this worker's own."""
        if await _local(client, image):
            return  # another pull of it ended a moment ago
        others = {each.id for each in await _asked(dockerd.images(client)) if not self._shelf.names(each.id)}
        await pull(client, image, self._stall_s, say)
        found = await _local(client, image)
        self._changed()
        if found and found.name not in others:
            self._shelf.pulled(found.name, listed(image), time())

    async def built(self, client: aiodocker.Docker, bundle: Bundle, archive: Path, say: Say = silent) -> Ready:
        """AttemptError `bundle_broken`, or what `have` says of the base image."""
        base = await self.base(client, bundle.base_image, say)
        build = Build(bundle, archive, base, self._owner)
        if not await _local(client, build.name):
            await self._builds.once(build.name, partial(self._build, client, build), say)
        image = await _local(client, build.name)
        if image is None:
            raise AttemptError("start_failed", "The bundle's image was not there after its build: Docker broke it off")
        return Ready(image.name, bundle.digest)

    async def _build(self, client: aiodocker.Docker, build: Build, say: Say) -> None:
        if await _local(client, build.name):
            return  # another build of it ended a moment ago
        if not await _asked(self._trimming.hold(client, build.name, build.base, building=True)):
            raise AttemptError("start_failed", "The base image of the bundle was removed just now: try again")
        try:
            await build.run(client, self._stall_s, say)
            self._changed()
        finally:
            self._trimming.release(build.name)

    async def base(self, client: aiodocker.Docker, named: str | None, say: Say = silent) -> Ready:
        """The worker's own base image wins: an operator without a registry must be able to say so."""
        image = self._base_image or named
        if image is None:
            text = "The bundle names no base image, and neither does this worker: set GYOZA_BASE_IMAGE for it"
            raise AttemptError("image_not_found", f"{text} (python:3.11-slim, say)")
        try:
            return await self.have(client, image, say, trusted=self._base_image is not None)
        except AttemptError as error:
            detail = f"The base image of the bundle cannot be had. {error.detail}; or set GYOZA_BASE_IMAGE"
            raise AttemptError(error.reason, detail) from error

    async def _built_before(self, client: aiodocker.Docker, bundle: Bundle) -> Ready | None:
        named = bundle.base_image if self._allows(bundle.base_image or "") else None
        image = self._base_image or (self._full(named) if named else None)
        base = await _local(client, image) if image and REFERENCE.fullmatch(image) else None
        found = await _local(client, tag(bundle, base)) if base else None
        return Ready(found.name, bundle.digest) if found else None

    async def named(self, client: aiodocker.Docker) -> list[str]:
        """Names and digests of what is on this machine, the newest used first; of what was built, the bundle's."""
        known = self._shelf.ids
        images = await _asked(dockerd.images(client))
        self._shelf.forget(known - {image.id for image in images})
        images.sort(key=lambda image: self._shelf.used_at(image.id, image.made_at), reverse=True)
        names = dict.fromkeys(name for image in images for name in _names(image))
        return list(names)[:MOST_NAMED]


def _names(image: Image) -> list[str]:
    tags = [tag for tag in image.tags if repository(tag) != REPOSITORY]
    built = [image.labels[BUNDLE]] if len(tags) < len(image.tags) and BUNDLE in image.labels else []
    return [*tags, *image.digests, *built]


async def _asked(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except (DockerError, *TROUBLE) as error:
        raise AttemptError("image_pull_failed", why(error)) from error


async def _local(client: aiodocker.Docker, image: str) -> Ready | None:
    """Its digest is that of the repository by which it was asked for; where it has none, its id."""
    try:
        found = await client.images.inspect(image)
    except DockerError as error:
        if error.status in (400, 404):
            return None
        raise AttemptError("image_pull_failed", why(error)) from error
    except TROUBLE as error:
        raise AttemptError("image_pull_failed", why(error)) from error
    digests: list[str] = found.get("RepoDigests") or []
    own = [digest for digest in digests if repository(digest) == repository(image)]
    return Ready(found["Id"], (own or [found["Id"]])[0])

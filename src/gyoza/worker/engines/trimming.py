"""Room on Docker's disk: when it fills, the least recently used of a worker's own images go.

Its own are those that it pulled, where they were not there before, and those that it built. Never one that a container
was made of or that an attempt waits to use, never one that bears a name which somebody else gave it.
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from time import monotonic, time

import aiodocker
from aiodocker.exceptions import DockerError

from gyoza.worker.engines import Owner, Ready, dockerd
from gyoza.worker.engines.builds import BUILDER, BUNDLE, REPOSITORY
from gyoza.worker.engines.confinement import labels
from gyoza.worker.engines.disk import Watermark, used_percent
from gyoza.worker.engines.dockerd import TROUBLE, Image
from gyoza.worker.engines.references import repository
from gyoza.worker.engines.shelf import Shelf

PAUSE_S = 60.0
"""After a look that did not bring the disk below the low mark, since nothing more may go."""

_log = logging.getLogger(__name__)


class Trimming:
    """One for an engine. What is held does not go, and nothing becomes held while images go."""

    def __init__(self, owner: Owner, shelf: Shelf, watermark: Watermark):
        self._owner, self._shelf, self._watermark = owner, shelf, watermark
        self._gate = asyncio.Lock()
        self._held: dict[str, str] = {}
        self._building: set[str] = set()
        self._not_before = float("-inf")

    async def hold(self, client: aiodocker.Docker, key: str, image: Ready, *, building: bool = False) -> bool:
        """Whether it is still there; then it stays until `release`."""
        async with self._gate:
            if not await dockerd.has_image(client, image.name):
                return False
            self._held[key] = image.name
            if building:
                self._building.add(key)
            self._shelf.used(image.name, time())
            return True

    def release(self, key: str) -> None:
        self._held.pop(key, None)
        self._building.discard(key)

    async def trim(self, client: aiodocker.Docker, disk: Path, *, is_full: bool = False) -> int:
        """How many went: none below the high mark, unless something has just not fitted (`is_full`).

        A disk that is not this machine's is left to itself.
        """
        high = self._watermark.low if is_full else self._watermark.high
        if (monotonic() < self._not_before and not is_full) or used_percent(disk) <= high:
            return 0
        async with self._gate:
            if used_percent(disk) <= high:
                return 0
            try:
                return await self._remove_until_low(client, disk)
            except (DockerError, *TROUBLE) as error:
                _log.warning("images could not be removed, though the disk of %s is full: %s", disk, error)
                return 0

    async def _remove_until_low(self, client: aiodocker.Docker, disk: Path) -> int:
        count = 0
        taken = await dockerd.images_in_use(client) | set(self._held.values())
        images = await dockerd.images(client)
        for image in may_go(images, self._shelf, self._owner, taken, leftovers=not self._building):
            if used_percent(disk) <= self._watermark.low:
                return count
            count += await _removed(client, image)
        self._not_before = monotonic() + PAUSE_S
        return count


def may_go(
    images: Sequence[Image], shelf: Shelf, owner: Owner, taken: Collection[str], *, leftovers: bool
) -> list[Image]:
    """In their order: what failed builds left behind (while none is under way), then the least recently used.

    An image on which others are built stays: to remove it would free nothing.
    """
    parents = {image.parent for image in images}
    free = [image for image in images if image.id not in taken and image.id not in parents]
    junk = [image for image in free if leftovers and not image.is_named and image.labels.get(BUILDER) == owner.mark]
    own = [image for image in free if _is_own(image, shelf, owner)]
    return junk + sorted(own, key=lambda image: shelf.used_at(image.id, image.made_at))


def _is_own(image: Image, shelf: Shelf, owner: Owner) -> bool:
    """All its names are ours."""
    names = set(shelf.names(image.id))
    if labels(owner).items() <= image.labels.items() and BUNDLE in image.labels:
        names |= {tag for tag in image.tags if repository(tag) == REPOSITORY}
    repositories = {repository(name) for name in names}
    return image.is_named and names.issuperset(image.tags) and repositories.issuperset(map(repository, image.digests))


async def _removed(client: aiodocker.Docker, image: Image) -> bool:
    """By its names and without force: the engine itself refuses what is in use after all."""
    try:
        for name in image.tags or image.digests or (image.id,):
            await client.images.delete(name)
            _log.info("removed the image %s to make room", name)
    except DockerError as error:
        _log.info("an image stays: %s", error.message)
        return False
    return True

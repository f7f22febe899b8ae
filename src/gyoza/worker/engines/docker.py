"""Ops in Docker containers. The engine must be on this machine: the op's folder is mounted into the container.

What a container is allowed is said in `confinement`, how its image is had in `images`, its life in `container`. It
bears the name of its attempt and the labels of its owner: one that a dead worker left behind is found by them, and
nobody else's is touched.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiodocker
from aiodocker.exceptions import DockerError

from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Job, Owner, Ready, Say, dockerd, silent
from gyoza.worker.engines.cleanup import to_the_end
from gyoza.worker.engines.confinement import IO, Host, labels
from gyoza.worker.engines.container import RECLAIM, Container
from gyoza.worker.engines.disk import Watermark
from gyoza.worker.engines.dockerd import ANSWER_S, TROUBLE, insist, why
from gyoza.worker.engines.images import Images
from gyoza.worker.engines.inventory import Inventory
from gyoza.worker.engines.log import kept_in


class Docker:
    """An `Engine`. `base_image`, `allowed_images`, `stall_s`, `folder` and `watermark`: see `Images`; `allow_root`: see
    `chosen_user`.
    """

    name = "docker"

    def __init__(
        self,
        owner: Owner,
        *,
        base_image: str | None = None,
        allowed_images: Sequence[str] = (),
        stall_s: float = 120.0,
        folder: Path | None = None,
        watermark: Watermark = Watermark(),
        allow_root: bool = False,
    ):
        self._owner = owner
        self._allow_root = allow_root
        self._inventory = Inventory(self._named)
        self._images = Images(
            owner,
            base_image,
            allowed_images,
            stall_s,
            folder=folder,
            watermark=watermark,
            changed=self._inventory.changed,
        )
        self._connected: tuple[aiodocker.Docker, Host] | None = None
        self._connecting = asyncio.Lock()
        self._active: set[str] = set()

    async def _engine(self) -> tuple[aiodocker.Docker, Host]:
        """The client and what its engine says of its machine; asked once."""
        async with self._connecting:
            if self._connected is None:
                client = await dockerd.connect()
                try:
                    info = await dockerd.info(client)
                except BaseException:
                    await to_the_end(dockerd.disconnect(client))
                    raise
                security = " ".join(info.get("SecurityOptions") or ())
                self._connected = (
                    client,
                    Host(
                        cpus=info["NCPU"],
                        rootless="name=rootless" in security,
                        remapped="name=userns" in security,
                        may_be_root=self._allow_root,
                        disk=Path(info["DockerRootDir"]),
                    ),
                )
            return self._connected

    async def can_run(self) -> str | None:
        try:
            client, _ = await self._engine()
            async with asyncio.timeout(ANSWER_S):
                await client.version()
        except (DockerError, *TROUBLE) as error:
            return why(error)
        return None

    async def can_build(self, base_image: str | None = None) -> str | None:
        """None when a bundle that names `base_image` could be built here; else why not. May pull that image."""
        try:
            client, _ = await self._client_or("image_pull_failed")
            await self._images.base(client, base_image)
        except AttemptError as error:
            return error.detail
        return None

    async def _client_or(self, reason: str) -> tuple[aiodocker.Docker, Host]:
        try:
            return await self._engine()
        except (DockerError, *TROUBLE) as error:
            raise AttemptError(reason, why(error)) from error

    def io_path(self, io_dir: Path) -> str:
        return IO

    async def ready(self, job: Job, say: Say = silent) -> Ready:
        client, host = await self._client_or("image_pull_failed")
        return await self._images.ready(client, host.disk, job, say)

    def release(self, job: Job) -> None:
        self._images.release(job)

    def images(self) -> Sequence[str]:
        return self._inventory.seen

    async def _named(self) -> Sequence[str]:
        """Nothing while no engine answers."""
        try:
            client, _ = await self._client_or("image_pull_failed")
            return await self._images.named(client)
        except AttemptError:
            return ()

    @asynccontextmanager
    async def started(self, job: Job, ready: Ready) -> AsyncGenerator[Container]:
        with self._alone(job):
            client, host = await self._client_or("start_failed")
            async with self._container(client, host, job, ready) as container:
                # To the end: a request that is broken off may still be obeyed, after we have looked for its container.
                await to_the_end(container.create())
                await container.start()
                yield container

    @asynccontextmanager
    async def adopt(self, job: Job, ready: Ready) -> AsyncGenerator[Container | None]:
        """By its name and its labels. While the engine is out of reach this waits: nobody else knows what runs."""
        with self._alone(job):
            client, host = await insist(self._engine, f"look for container {job.name}")
            async with self._container(client, host, job, ready) as container:
                yield container if await container.resume() else None

    @asynccontextmanager
    async def _container(
        self, client: aiodocker.Docker, host: Host, job: Job, ready: Ready
    ) -> AsyncGenerator[Container]:
        """It is gone when this is left."""
        with kept_in(job.log, job.io_dir.parent) as log:
            container = Container(client, job, ready, self._owner, host, log)
            try:
                yield container
            finally:
                await to_the_end(container.end())

    @contextmanager
    def _alone(self, job: Job) -> Generator[None]:
        if job.name in self._active:
            raise AttemptError("start_failed", f"Attempt {job.attempt} of run '{job.run_id}' runs here already")
        self._active.add(job.name)
        try:
            yield
        finally:
            self._active.discard(job.name)

    async def sweep(self, lives: Callable[[str], bool] = lambda name: False) -> int:
        """AttemptError `start_failed` where no engine answers."""
        client, _ = await self._client_or("start_failed")
        owned = await insist(lambda: dockerd.owned(client, labels(self._owner)), "list containers")
        jobs = {name: name.removesuffix(RECLAIM) for name in owned}
        left = [name for name, job in jobs.items() if job not in self._active and not lives(job)]
        for name in left:
            await to_the_end(dockerd.remove(client, name))
        return len(left)

    async def close(self) -> None:
        await self._inventory.close()
        if self._connected is not None:
            client, _ = self._connected
            self._connected = None
            await dockerd.disconnect(client)

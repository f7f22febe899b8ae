"""Real registries on this machine, images in them that nobody has, and a line to them that can be held up."""

import asyncio
import io
import os
import re
import shutil
import tarfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import aiodocker
import pytest
from aiodocker.exceptions import DockerError

from gyoza.worker.engines.dockerd import connect, disconnect, images

PROGRAM = "docker-registry"
USER, PASSWORD = "gyoza", "right-password"
HTPASSWD = "gyoza:$2y$05$joP4RHcLk72QJj3qj1im8..Xl4SkpsQmBOhwMw76FtvfZu/32DCBC\n"
CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:0"}}
{auth}
"""
AUTH = "auth: {{htpasswd: {{realm: gyoza, path: {folder}/htpasswd}}}}"


class Registry:
    """`host` is how the engine asks for it; the engine lets a registry on this machine do without TLS."""

    def __init__(self, host: str, client: aiodocker.Docker, auth: dict[str, str] | None):
        self.host, self.client, self._auth = host, client, auth
        self.hosts = {host}

    async def push(self, name: str, size: int = 1000, *, keep: bool = False) -> str:
        """A fresh image under this name: its id. It is here afterwards only if it is to be kept."""
        image = f"{self.host}/{name}"
        await make_image(self.client, image, size)
        await self.client.images.push(image, auth=self._auth)
        image_id: str = (await self.client.images.inspect(image))["Id"]
        if not keep:
            await self.client.images.delete(image)
        return image_id

    async def forget(self) -> None:
        """Nothing that came from here stays on the engine."""
        for image in await images(self.client):
            for name in (*image.tags, *image.digests):
                if name.partition("/")[0] in self.hosts:
                    with suppress(DockerError):
                        await self.client.images.delete(name)


async def make_image(client: aiodocker.Docker, name: str, size: int = 1000, *, command: bool = True) -> None:
    """Nothing but random bytes, which no compression makes fewer."""
    context, text = io.BytesIO(), b"FROM scratch\nCOPY blob /\n" + (b'CMD ["/blob"]\n' if command else b"")
    with tarfile.open(fileobj=context, mode="w") as tar:
        for path, data in (("Dockerfile", text), ("blob", os.urandom(size))):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
    context.seek(0)
    await client.images.build(fileobj=context, encoding="identity", tag=name)


@asynccontextmanager
async def a_registry(folder: Path, *, private: bool = False) -> AsyncGenerator[Registry]:
    """Skip, or fail where Docker is required, when the program is not there; `.ci/docker-up` installs it."""
    if shutil.which(PROGRAM) is None:
        missing = f"{PROGRAM} is not installed"
        pytest.fail(missing) if os.environ.get("GYOZA_REQUIRE_DOCKER") == "1" else pytest.skip(missing)
    (folder / "htpasswd").write_text(HTPASSWD)
    (folder / "config.yml").write_text(CONFIG.format(folder=folder, auth=AUTH.format(folder=folder) if private else ""))
    log = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(PROGRAM, "serve", str(folder / "config.yml"), stdout=log, stderr=log)
    assert process.stdout is not None and process.stderr is not None
    client = await connect()
    talk = asyncio.create_task(process.stdout.read())
    try:
        host = await _address(process.stderr)
        talk = asyncio.gather(talk, process.stderr.read())
        registry = Registry(host, client, {"username": USER, "password": PASSWORD} if private else None)
        yield registry
        await registry.forget()
    finally:
        process.kill()
        await process.wait()
        await talk
        await disconnect(client)


async def _address(log: asyncio.StreamReader) -> str:
    async with asyncio.timeout(20):
        while line := await log.readline():
            if found := re.search(rb"listening on (127\.0\.0\.1:\d+)", line):
                return found[1].decode()
    raise AssertionError("the registry did not start")


class Tap:
    """A line to a registry that lets so many bytes of its answers through, then holds the rest until it is opened."""

    def __init__(self, registry: Registry, let_through: int):
        self._there = registry.host.split(":")
        self._hosts = registry.hosts
        self._left = let_through
        self._open = asyncio.Event()
        self._serving: set[asyncio.StreamWriter] = set()
        self.is_held = asyncio.Event()
        self.drip: tuple[int, float] | None = None
        """Let so many bytes through in so many seconds instead of holding them."""

    async def __aenter__(self) -> "Tap":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.host = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._hosts.add(self.host)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        while self._serving:
            for writer in self._serving:
                writer.transport.abort()
            await asyncio.sleep(0.01)

    def open(self) -> None:
        self._open.set()

    @property
    def is_idle(self) -> bool:
        """Nobody is connected."""
        return not self._serving

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(writer)
        there, back = await asyncio.open_connection(*self._there)
        answering = asyncio.create_task(self._answers(there, writer))
        try:
            with suppress(OSError):
                while data := await reader.read(65536):
                    back.write(data)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            back.close()
            writer.transport.abort()
            self._serving.discard(writer)

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(16384):
            self._left -= len(data)
            if self._left < 0 and not self._open.is_set():
                self.is_held.set()
                if self.drip is None:
                    await self._open.wait()
                else:
                    await asyncio.sleep(self.drip[1] * len(data) / self.drip[0])
            writer.write(data)
            await writer.drain()
        writer.close()


def unique(word: str) -> str:
    return f"{word}-{uuid4().hex[:12]}"

"""Talking to the Docker Engine: connecting, patience while it is out of reach, and what aiodocker does not offer."""

import asyncio
import errno
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, TypeVar

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerContextError, DockerError, DockerStreamError

log = logging.getLogger(__name__)
T = TypeVar("T")

ANSWER_S = 5.0
TIMEOUT = aiohttp.ClientTimeout(total=60)
PATIENT = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_S, sock_read=60)
ENDLESS = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_S)
TROUBLE = (aiohttp.ClientError, TimeoutError, OSError, json.JSONDecodeError)
"""Besides DockerError 900: the engine is out of reach, or the connection was lost in the middle."""


async def connect() -> aiodocker.Docker:
    """A client for the engine that DOCKER_HOST, the Docker context or the usual sockets name.

    DockerError where none is named or the context is broken; whether it answers is not asked.
    """
    try:
        client = aiodocker.Docker(timeout=TIMEOUT)
    except (AssertionError, ValueError) as error:  # no socket anywhere: an assertion in some versions
        raise DockerError(900, "no Docker engine was found: install and start Docker, or set DOCKER_HOST") from error
    connector = client.connector
    if type(connector) is not aiohttp.UnixConnector:
        return client
    await client.close()
    # Every container that is waited for holds a connection: aiohttp's usual bound of 100 would starve the next call.
    session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(connector.path, limit=0))
    return aiodocker.Docker(url=f"unix://{connector.path}", session=session, timeout=TIMEOUT)


async def disconnect(client: aiodocker.Docker) -> None:
    await client.close()
    await client.session.close()


async def info(client: aiodocker.Docker) -> dict[str, Any]:
    """What the engine says of itself and its machine. TimeoutError when that takes it long."""
    async with asyncio.timeout(ANSWER_S):
        return dict(await client.system.info())  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]


def why(error: Exception) -> str:
    """One sentence for an engine that could not be asked, with what to do."""
    if isinstance(error, DockerContextError):
        return f"The Docker context cannot be used: {error}"
    if isinstance(error, DockerError) and error.status != 900:
        return f"Docker answers, but refuses: {error.message}"
    if isinstance(error, TimeoutError):
        return "Docker does not answer within the time allowed: see whether its service hangs"
    cause = error.__context__ if isinstance(error.__context__, OSError) else error
    match getattr(cause, "errno", None):
        case errno.EACCES | errno.EPERM:
            hint = " (permission denied): add this user to the group docker and log in anew"
        case errno.ENOENT:
            hint = " (its socket is not there): install and start Docker"
        case errno.ECONNREFUSED:
            hint = " (connection refused): start Docker"
        case _:
            return f"Docker does not answer: {getattr(error, 'message', error)}"
    return f"Docker does not answer{_where(cause)}{hint}"


def _where(cause: object) -> str:
    path = getattr(cause, "path", None) or getattr(cause, "host", None)
    return f" at {path}" if path else ""


def is_away(error: Exception) -> bool:
    """Whether the engine did not answer, as against answered no."""
    return not isinstance(error, DockerError) or error.status >= 500


async def insist(ask: Callable[[], Awaitable[T]], what: str) -> T:
    """Ask until the engine answers, for as long as it takes; DockerError only for what it refuses (4xx)."""
    pause = 0.1
    while True:
        try:
            return await ask()
        except (DockerError, *TROUBLE) as error:
            if not is_away(error):
                raise
            if pause < 5.0 <= pause * 2:
                log.warning("cannot %s, and go on trying: %s", what, error)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 5.0)


class Handle(Protocol):
    """What of aiodocker's containers is used, with the types that it leaves open."""

    async def show(self) -> dict[str, Any]: ...
    async def start(self) -> None: ...
    async def wait(self) -> dict[str, Any]: ...
    async def kill(self, *, signal: str) -> None: ...
    async def delete(self, *, force: bool, v: bool) -> None: ...


def handle(client: aiodocker.Docker, container: str) -> Handle:
    """A container by id or name, without asking whether it is there."""
    return client.containers.container(container)  # pyright: ignore[reportUnknownMemberType]


async def owned(client: aiodocker.Docker, labels: Mapping[str, str]) -> list[str]:
    """The names of all containers with these labels, ended ones too."""
    filters = json.dumps({"label": [f"{name}={value}" for name, value in labels.items()]})
    found = await client.containers.list(all=1, filters=filters)  # pyright: ignore[reportUnknownMemberType]
    return [str(container["Names"][0]).lstrip("/") for container in found]


async def remove(client: aiodocker.Docker, container: str) -> None:
    """Kill and remove it, by id or name; returns once the engine says that it is gone."""

    async def ask() -> None:
        try:
            await handle(client, container).delete(force=True, v=True)
        except DockerError as error:
            if error.status == 409:  # somebody else's removal is under way: ask again until it is through
                raise DockerError(503, error.message) from error
            if error.status != 404:
                raise

    await insist(ask, f"remove container {container}")


@dataclass(frozen=True)
class Image:
    """As the engine lists it. `tags` and `digests` are names with their repository; a layer of a build has none."""

    id: str
    parent: str = ""
    made_at: float = 0
    tags: Sequence[str] = ()
    digests: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def is_named(self) -> bool:
        return bool(self.tags or self.digests)


async def images(client: aiodocker.Docker) -> list[Image]:
    """All of them, the layers of builds too."""
    found = await client.images.list(all=1)  # pyright: ignore[reportUnknownMemberType]
    return [_image(each) for each in found]


def _image(said: dict[str, Any]) -> Image:
    """An absent name is listed as one of `<none>`."""
    names: list[list[str]] = [said.get(kind) or [] for kind in ("RepoTags", "RepoDigests")]
    tags, digests = ([name for name in kind if "<none>" not in name] for kind in names)
    return Image(said["Id"], said.get("ParentId", ""), said["Created"], tags, digests, said.get("Labels") or {})


async def has_image(client: aiodocker.Docker, image: str) -> bool:
    try:
        await client.images.inspect(image)
    except DockerError as error:
        if error.status == 404:
            return False
        raise
    return True


async def images_in_use(client: aiodocker.Docker) -> set[str]:
    """The ids of those that containers were made of, ended containers too."""
    found = await client.containers.list(all=1)  # pyright: ignore[reportUnknownMemberType]
    return {str(container["ImageID"]) for container in found}


async def attach(client: aiodocker.Docker, container: str) -> aiohttp.ClientResponse:
    """The container's output from now on, as a raw stream: all of it, where the container is started only then."""
    params = {"stream": "1", "stdout": "1", "stderr": "1"}
    url = _url(client, container, "attach")
    return await client.session.post(url, params=params, timeout=ENDLESS, raise_for_status=True)


@asynccontextmanager
async def record(client: aiodocker.Docker, container: str, since: int | None) -> AsyncGenerator[aiohttp.StreamReader]:
    """What the engine has kept of the output: a raw stream, of which each frame is an entry, behind its time.

    `since`: nanoseconds since 1970; without older entries. DockerError where the engine refuses.
    """
    params = {"stdout": "1", "stderr": "1", "timestamps": "1"}
    if since is not None:
        params["since"] = f"{since // 10**9}.{since % 10**9:09}"
    async with client.session.get(_url(client, container, "logs"), params=params, timeout=PATIENT) as response:
        if response.status >= 400:
            raise DockerError(response.status, (await response.json())["message"])
        yield response.content


async def steps(
    client: aiodocker.Docker,
    path: str,
    params: dict[str, str],
    stall_s: float,
    context: IO[bytes] | None = None,
    *,
    headers: Mapping[str, str] | None = None,
) -> AsyncGenerator[dict[str, Any]]:
    """What the engine says while it pulls (`images/create`) or builds (`build`, from the tar `context`).

    DockerError where it refuses or fails; TimeoutError when it says nothing for `stall_s`. Leaving closes the
    connection, upon which the engine breaks off.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_S, sock_read=stall_s)
    said = {"Content-Type": "application/x-tar", **(headers or {})}
    url = f"{client.docker_host}/{client.api_version}/{path}"
    async with client.session.post(url, params=params, data=context, headers=said, timeout=timeout) as response:
        if response.status >= 400:
            raise DockerError(response.status, (await response.json())["message"])
        async for line in response.content:
            step: dict[str, Any] = json.loads(line)
            if "error" in step:
                raise DockerStreamError(str(step["error"]))
            yield step


async def stats(client: aiodocker.Docker, container: str) -> dict[str, Any]:
    """One sample of the engine's own statistics, empty where there is none."""
    params = {"stream": "0", "one-shot": "1"}
    async with client.session.get(_url(client, container, "stats"), params=params, timeout=TIMEOUT) as response:
        return await response.json() if response.status == 200 else {}


def _url(client: aiodocker.Docker, container: str, what: str) -> str:
    return f"{client.docker_host}/{client.api_version}/containers/{container}/{what}"

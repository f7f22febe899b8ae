"""A server as processes: one or several behind one socket, over one database, until they are told to stop."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvicorn

from gyoza.models.errors import StartUpError
from gyoza.policy.liveness import Pace
from gyoza.server.app import create_app, running
from gyoza.server.edge import Protocol
from gyoza.server.settings import Settings, kept_api_key
from gyoza.store.embedded import embedded_database
from gyoza.store.schema import migrate

GRACE_S = 3
"""How long open answers may take to end before they are cut off."""
_RESTART_S = 1.0
_RELOAD_S = 0.5
_HANDOVER = "GYOZA_SERVER_PROCESS"

Say = Callable[[str], None]


@asynccontextmanager
async def database(settings: Settings, say: Say) -> AsyncGenerator[str]:
    """The URL of the database, not migrated yet: the one that is named, or the embedded one."""
    if settings.database_url:
        yield settings.database_url
        return
    async with embedded_database(settings.data_dir, say=say) as url:
        yield url


async def serve(
    settings: Settings,
    stopping: asyncio.Event,
    *,
    say: Say,
    ready: Callable[[], None] = lambda: None,
    reload: bool = False,
) -> None:
    """Listens only once the database is migrated and reachable; returns when `stopping` is set and all is down."""
    with _bound(settings) as listener:
        api_key = settings.api_key or kept_api_key(settings.data_dir)
        async with database(settings, say) as url:
            await asyncio.to_thread(migrate, settings.direct_url or url)
            listener.listen(2048)
            if settings.workers == 1 and not reload:
                await one_process(settings, url, api_key, listener, stopping, ready)
            else:
                ready()
                await _several(settings, url, api_key, listener, stopping, say, reload=reload)


async def one_process(
    settings: Settings,
    url: str,
    api_key: str,
    listener: socket.socket,
    stopping: asyncio.Event,
    ready: Callable[[], None] = lambda: None,
) -> None:
    async with running(settings, url, stopping) as context:
        config = uvicorn.Config(
            create_app(context, api_key),
            http=Protocol,
            ws="none",
            lifespan="off",
            log_level=settings.log_level,
            access_log=False,
            timeout_graceful_shutdown=GRACE_S,
            timeout_keep_alive=75,
            server_header=False,
        )
        server = _Uvicorn(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        ready()
        halt = asyncio.create_task(stopping.wait())
        await asyncio.wait([serving, halt], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        halt.cancel()
        await serving


class _Uvicorn(uvicorn.Server):
    """Signals are the caller's: uvicorn would wait for open long polls before anybody could end them."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextmanager
def _bound(settings: Settings) -> Generator[socket.socket]:
    """The port is taken before anything else is done, and listened on when everything else is."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise StartUpError(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror or error}. "
            "Stop what uses it, or choose another with --port or GYOZA_PORT"
        ) from error
    with listener:
        yield listener


async def _several(
    settings: Settings,
    url: str,
    api_key: str,
    listener: socket.socket,
    stopping: asyncio.Event,
    say: Say,
    *,
    reload: bool,
) -> None:
    """Child processes on one socket, each started again when it dies, or when the code changed and `reload` is set."""
    handover = {"settings": _to_json(settings), "url": url, "api_key": api_key, "fd": listener.fileno()}
    environ = {**os.environ, _HANDOVER: json.dumps(handover)}
    watched = _newest_change() if reload else 0.0
    children: list[asyncio.subprocess.Process] = []
    try:
        while not stopping.is_set():
            children = [child for child in children if child.returncode is None]
            if reload and (newest := _newest_change()) != watched:
                say("The code changed: starting anew")
                watched = newest
                await _end(children)
                children = []
            while len(children) < settings.workers:
                children.append(await _child(environ, listener.fileno()))
            await _wait(stopping, children, _RELOAD_S if reload else None)
    finally:
        await _end(children)


async def _child(environ: dict[str, str], fd: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gyoza.server.process",
        env=environ,
        pass_fds=[fd],
        stdin=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


async def _wait(
    stopping: asyncio.Event, children: Iterable[asyncio.subprocess.Process], at_most_s: float | None
) -> None:
    """Until the server stops, a child dies, or the time is over."""
    halt = asyncio.create_task(stopping.wait())
    deaths = [asyncio.create_task(child.wait()) for child in children]
    waits: list[asyncio.Task[Any]] = [halt, *deaths]
    done, pending = await asyncio.wait(waits, timeout=at_most_s, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    if done and not stopping.is_set():
        await asyncio.sleep(_RESTART_S)


async def _end(children: Iterable[asyncio.subprocess.Process]) -> None:
    living = [child for child in children if child.returncode is None]
    for child in living:
        child.terminate()
    waits = [asyncio.create_task(child.wait()) for child in living]
    if waits:
        await asyncio.wait(waits, timeout=GRACE_S + 1)
    for child in living:
        if child.returncode is None:
            child.kill()


def _newest_change() -> float:
    package = Path(__file__).parent.parent
    return max(path.stat().st_mtime for path in package.rglob("*.py"))


def _to_json(settings: Settings) -> dict[str, Any]:
    return {**asdict(settings), "data_dir": str(settings.data_dir)}


def _from_json(data: dict[str, Any]) -> Settings:
    kept: dict[str, Any] = {**data, "data_dir": Path(data["data_dir"]), "pace": Pace(**data["pace"])}
    return Settings(**kept)


async def stop_on_signals(stopping: asyncio.Event) -> None:
    """SIGTERM and SIGINT set `stopping`, from now on."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)


async def _be_a_child() -> None:
    handover = json.loads(os.environ.pop(_HANDOVER))
    stopping = asyncio.Event()
    await stop_on_signals(stopping)
    # The parent holds the other end: when it was killed, its children must not go on holding the port.
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stopping.set)
    with socket.socket(fileno=handover["fd"]) as listener:
        settings = _from_json(handover["settings"])
        await one_process(settings, handover["url"], handover["api_key"], listener, stopping)


if __name__ == "__main__":
    asyncio.run(_be_a_child())
